package calib_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/runtime/calib"
)

func TestCache(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "cache.json")
	c, err := calib.OpenCache(path)
	if err != nil {
		t.Fatal(err)
	}
	lo, hi := []float32{-0.1, float32(math.Copysign(0, -1))}, []float32{1e-40, math.MaxFloat32}
	c.Put("k", lo, hi)
	if err := c.Save(); err != nil {
		t.Fatal(err)
	}
	if c, err = calib.OpenCache(path); err != nil {
		t.Fatal(err)
	}
	gotLo, gotHi, ok := c.Get("k")
	if !ok || !slices.Equal(gotLo, lo) || !slices.Equal(gotHi, hi) || math.Signbit(float64(gotLo[1])) != true {
		t.Errorf("got %v %v %v, want %v %v", gotLo, gotHi, ok, lo, hi)
	}
	if _, _, ok := c.Get("other"); ok {
		t.Error("found a key that was never stored")
	}
	for _, broken := range []string{"{", "[1]", `{"k":{"lo":[1],"hi":[]}}`, `{"k":{"lo":["x"],"hi":[1]}}`, `{"k":{}}`} {
		if err := os.WriteFile(path, []byte(broken), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := calib.OpenCache(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s was read: %v", broken, err)
		}
	}
}
