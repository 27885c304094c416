package backend_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/qsimc/qsimc/backend"
	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
)

// What is written can be read as samples, and two writings are the same.
func TestSaveNPZ(t *testing.T) {
	t.Parallel()
	int4, err := ir.TensorOf(ir.Int4, []int{3}, []byte{0xf1, 0x08}) // 1, -1, -8
	if err != nil {
		t.Fatal(err)
	}
	want := ir.Tensors{
		"x/1":  ir.Floats([]float32{1, 2, 3, 4}, 2, 2),
		"n":    ir.Ints(5, 6),
		"half": ir.FromSlice(ir.Float16, []int{1}, []uint16{0x3c00}),
		"wide": ir.FromSlice(ir.BFloat16, []int{1}, []uint16{0x3fc0}),
		"flag": ir.FromSlice(ir.Bool, []int{2}, []bool{true, false}),
		"tiny": int4,
		"one":  ir.Scalar(3),
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "out.npz")
	if err := backend.SaveNPZ(path, want); err != nil {
		t.Fatal(err)
	}
	once, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := backend.SaveNPZ(path, want); err != nil {
		t.Fatal(err)
	}
	if twice, _ := os.ReadFile(path); !bytes.Equal(once, twice) {
		t.Error("two writings differ")
	}
	// what the archive holds for types NumPy does not have
	want["wide"] = ir.Floats([]float32{1.5}, 1)
	want["tiny"] = ir.FromSlice(ir.Int8, []int{3}, []int8{1, -1, -8})
	m := ir.NewModel(17)
	for name, x := range want {
		m.Graph.AddInput(name, x.Type())
	}
	m.Graph.AddOutput("y", m.Graph.Inputs()[0])
	d, err := frontend.OpenData(dir, m, frontend.DataOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for f, err := range d.Feeds() {
		if err != nil {
			t.Fatal(err)
		}
		for name, x := range want {
			got := f.Tensors[name]
			if got.Type().String() != x.Type().String() || !bytes.Equal(got.Bytes(), x.Bytes()) {
				t.Errorf("%s: got %v %v, want %v %v", name, got.Type(), got.Bytes(), x.Type(), x.Bytes())
			}
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %q %v", left, err)
	}
}
