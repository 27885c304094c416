package backend_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/qsimc/qsimc/backend"
	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
)

// A model is built, saved and loaded again.
func Example() {
	m := ir.NewModel(17)
	x := m.Graph.AddInput("x", ir.TensorType(ir.Float32, ir.NamedDim("N"), ir.FixedDim(2)))
	relu := m.Graph.Insert(nil, "relu", ir.Op("Relu"), []*ir.Value{x}, []string{"y"})
	m.Graph.AddOutput("y", relu.Out(0))

	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "relu.onnx")
	if err := backend.Save(path, m, backend.Options{}); err != nil {
		fmt.Println(err)
		return
	}
	back, err := frontend.Load(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	for n := range back.Graph.Nodes() {
		fmt.Println(n, n.Out(0).Type)
	}
	// Output: "relu" (Relu) float[N,2]
}
