package frontend_test

import (
	"archive/zip"
	"os"
	"path/filepath"
	"testing"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
)

// FuzzArrays reads arbitrary bytes as a .npy and as a .npz file: nothing panics, and every sample fits the model.
func FuzzArrays(f *testing.F) {
	array := npy("<f4", "True", "3, 2", []float32{1, 2, 3, 4, 5, 6})
	f.Add(array)
	f.Add(npy(">i8", "False", "1, 2", []int64{1, 2}))
	f.Add(zipped(zip.Store, map[string][]byte{"x": array}))
	f.Add(zipped(zip.Deflate, map[string][]byte{"x": array, "y": array}))
	m := model(map[string]ir.Type{"x": ir.TensorType(ir.Float32, ir.FixedDim(2), ir.FixedDim(2))})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range []string{"a.npy", "a.npz"} {
			path := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := frontend.OpenData(path, m, frontend.DataOptions{Extra: true, Count: 100})
			if err != nil {
				continue
			}
			for feed, err := range d.Feeds() {
				if err != nil {
					break
				}
				if got := feed.Tensors["x"].Type().String(); got != "float[2,2]" {
					t.Fatalf("a sample of type %s", got)
				}
			}
		}
	})
}

// FuzzTensor reads arbitrary bytes as a tensor of a test case.
func FuzzTensor(f *testing.F) {
	f.Add([]byte{8, 2, 16, 1, 0x22, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0x42, 1, 'x'})
	f.Add([]byte{8, 3, 16, 22, 0x2a, 2, 0x21, 3})
	f.Add([]byte{16, 27, 8, 4, 0x2a, 4, 1, 2, 3, 63})
	f.Fuzz(func(t *testing.T, data []byte) {
		_, x, err := frontend.DecodeTensor(data)
		if err != nil {
			return
		}
		if err := x.Load(); err != nil && x.Elem() != ir.String {
			t.Fatal(err)
		}
	})
}
