package frontend_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/qsimc/qsimc/backend"
	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
)

// chain returns a model of n additions, each of a weight of 1024×1024.
func chain(n int) *ir.Model {
	m := ir.NewModel(17)
	v := m.Graph.AddInput("x", ir.FixedType(ir.Float32, 1024, 1024))
	for i := range n {
		w := m.Graph.AddConst(fmt.Sprintf("w%d", i), ir.NewTensor(ir.Float32, 1024, 1024))
		v = m.Graph.Insert(nil, "add", ir.Op("Add"), []*ir.Value{v, w}, []string{"v"}).Out(0)
	}
	m.Graph.AddOutput("y", v)
	return m
}

// Loading maps: its time and memory go with the number of nodes, not with the bytes.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{4, 32} {
		b.Run(fmt.Sprintf("%dMiB", 4*n), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "m.onnx")
			if err := backend.Save(path, chain(n), backend.Options{}); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := frontend.Load(path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Saving copies from where the tensors lie.
func BenchmarkSave(b *testing.B) {
	for _, external := range []bool{false, true} {
		b.Run(fmt.Sprintf("128MiB/external=%v", external), func(b *testing.B) {
			dir := b.TempDir()
			if err := backend.Save(filepath.Join(dir, "in.onnx"), chain(32), backend.Options{}); err != nil {
				b.Fatal(err)
			}
			m, err := frontend.Load(filepath.Join(dir, "in.onnx"))
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(128 << 20)
			b.ReportAllocs()
			for b.Loop() {
				if err := backend.Save(filepath.Join(dir, "out.onnx"), m, backend.Options{ExternalData: external}); err != nil {
					b.Fatal(err)
				}
			}
			os.Remove(filepath.Join(dir, "out.onnx"))
		})
	}
}
