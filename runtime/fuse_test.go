package runtime_test

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/testdata/shared"
)

// joinedTolerance bounds the difference of a joined run from one that computes each value, relative to the largest
// magnitude of the output: joined steps keep the order of every long sum and differ in single roundings (an inverse in place of a
// quotient, a normalization multiplied into weights).
const joinedTolerance = 2e-5

// compareJoined runs a model step by step, which is what Watch does, and joined, which is what Run does.
func compareJoined(t *testing.T, m *ir.Model, in ir.Tensors) {
	t.Helper()
	ctx := context.Background()
	for _, poison := range []bool{false, true} {
		p, err := runtime.CompileWith(m, runtime.Options{Poison: poison})
		if err != nil {
			t.Fatal(err)
		}
		want, err := p.Watch(ctx, in, func(*ir.Value, *ir.Tensor) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second run works in what the first left behind
			got, err := p.Run(ctx, in)
			if err != nil {
				t.Fatal(err)
			}
			for name, w := range want {
				a, ok1 := w.Float32s()
				b, ok2 := got[name].Float32s()
				if !ok1 || !ok2 || len(a) != len(b) {
					t.Fatalf("output %q: %v, want %v", name, got[name].Type(), w.Type())
				}
				most, diff := 0.0, 0.0
				for i := range a {
					most = max(most, math.Abs(float64(a[i])))
					if a[i] != b[i] {
						diff = max(diff, math.Abs(float64(a[i])-float64(b[i])))
						if math.IsNaN(float64(a[i])) != math.IsNaN(float64(b[i])) {
							t.Fatalf("output %q[%d]: %v, want %v", name, i, b[i], a[i])
						}
					}
				}
				if diff > joinedTolerance*max(most, 1) {
					t.Errorf("output %q: differs by %g where the greatest magnitude is %g", name, diff, most)
				}
			}
		}
	}
}

// TestJoinedRunEqualsWatch covers every model at hand that comes with inputs.
func TestJoinedRunEqualsWatch(t *testing.T) {
	t.Parallel()
	folders := []string{"../testdata/opt-nano", "../testdata/conv-nano"}
	t.Run("testdata", func(t *testing.T) { compareFolders(t, folders) })
	t.Run("shared", func(t *testing.T) {
		var folders []string
		for _, kind := range []string{"zoo", "models"} {
			found, err := filepath.Glob(filepath.Join(shared.Dir(t), kind, "*"))
			if err != nil {
				t.Fatal(err)
			}
			folders = append(folders, found...)
		}
		compareFolders(t, folders)
	})
}

func compareFolders(t *testing.T, folders []string) {
	for _, dir := range folders {
		if _, err := os.Stat(filepath.Join(dir, "test_data_set_0")); err != nil {
			continue
		}
		if testing.Short() && filepath.Base(dir) != "opt-nano" {
			continue
		}
		t.Run(filepath.Base(dir), func(t *testing.T) {
			m, err := frontend.Load(filepath.Join(dir, "model.onnx"))
			if err != nil {
				t.Fatal(err)
			}
			samples, err := frontend.Samples(dir, m, frontend.DataOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for in, err := range samples() {
				if err != nil {
					t.Fatal(err)
				}
				compareJoined(t, m, in)
				break
			}
		})
	}
}
