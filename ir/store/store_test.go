package store_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/qsimc/qsimc/ir/store"
)

func pattern(n, seed int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + seed)
	}
	return b
}

// Released bytes come back as they were, and bytes of the program's own memory are never touched.
func TestRelease(t *testing.T) {
	t.Parallel()
	want := pattern(300_000, 1)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, want, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := store.Map(f, int64(len(want)))
	if err != nil {
		t.Fatal(err)
	}
	if b == nil {
		if runtime.GOOS == "linux" {
			t.Fatal("nothing was mapped")
		}
		t.Skip("files are not mapped on " + runtime.GOOS)
	}
	for _, part := range [][]byte{b, b[1:], b[:len(b)-1], b[5000:5001], b[4096:8192], b[4095:12289], b[:0]} {
		store.Release(part)
		if !bytes.Equal(b, want) {
			t.Fatalf("bytes changed by releasing %d of them", len(part))
		}
	}
	own := pattern(100_000, 2)
	store.Release(own)
	if store.Mapped(own) || !store.Mapped(b[1000:2000]) || !bytes.Equal(own, pattern(100_000, 2)) {
		t.Error("memory of the program was taken for a map")
	}
}

func TestScratch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := store.NewScratch(dir, 10_000)
	var kept [][]byte
	sizes := []int{6_000, 3_000, 2_000, 1, 70_000_000, 0, 5_000_000, 63, 64, 65}
	for i, n := range sizes {
		b, err := s.Keep(pattern(n, i))
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, b)
	}
	for i, n := range sizes {
		store.Release(kept[i])
		if !bytes.Equal(kept[i], pattern(n, i)) {
			t.Errorf("piece %d of %d bytes came back different", i, n)
		}
	}
	if store.Mapped(kept[0]) || store.Mapped(kept[1]) || store.Mapped(kept[3]) {
		t.Error("pieces within the budget left memory")
	}
	if runtime.GOOS == "linux" && (!store.Mapped(kept[2]) || !store.Mapped(kept[4])) {
		t.Error("pieces beyond the budget are in memory")
	}
	again, err := s.Keep(kept[4])
	if err != nil || &again[0] != &kept[4][0] {
		t.Error("what lies in the file was stored again")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the folder holds %v, %v", left, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var none *store.Scratch
	if b, err := none.Keep(kept[0]); err != nil || &b[0] != &kept[0][0] {
		t.Error("no store must keep what it is given")
	}
}
