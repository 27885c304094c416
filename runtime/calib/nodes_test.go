package calib_test

import (
	"iter"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/calib"
)

// A model whose first weight is replaced is walked beside itself: the second product's inputs then differ as the weights do.
func TestSweepNodesBeside(t *testing.T) {
	t.Parallel()
	m, err := ir.Parse("two", []byte(`<ir_version: 10, opset_import: ["" : 21]> two (float[N,2] x) => (float[N,2] y)
<float[2,2] w1 = {1, 0, 0, 1}, float[2,2] w2 = {1, 2, 3, 4}> { h = MatMul (x, w1) y = MatMul (h, w2) }`))
	if err != nil {
		t.Fatal(err)
	}
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	samples := func() iter.Seq2[ir.Tensors, error] {
		return func(yield func(ir.Tensors, error) bool) {
			_ = yield(ir.Tensors{"x": ir.Floats([]float32{1, 2}, 1, 2)}, nil) && yield(ir.Tensors{"x": ir.Floats([]float32{3, -1}, 1, 2)}, nil)
		}
	}
	work, mp := m.Clone()
	var stops []calib.Stop
	var grams []*calib.Gram
	for n := range m.Graph.Nodes() {
		g := calib.NewGram(-1)
		grams = append(grams, g)
		c := mp.Nodes[n]
		stops = append(stops, calib.Stop{Node: c, Beside: &calib.Beside{Value: c.In(0), Node: n, Other: n.In(0), Into: g}})
	}
	err = calib.SweepNodes(t.Context(), work, m, samples, stops, calib.Options{}, func(w *runtime.Walk, n *ir.Node) error {
		if n != stops[0].Node {
			return nil
		}
		return w.Replace(n.In(1), ir.Floats([]float32{2, 0, 0, 1}, 2, 2))
	})
	if err != nil {
		t.Fatal(err)
	}
	if grams[0].D != nil {
		t.Errorf("the inputs of the first product are the same in both, found D = %v", grams[0].D)
	}
	// Inputs (2, 2), (6, -1); beside them (1, 2), (3, -1).
	if d := cmp.Diff([][]float64{{-20, 1, 0, 0}}, grams[1].D); d != "" {
		t.Errorf("D (-want +got):\n%s", d)
	}
	stops[0].Beside.Node, stops[1].Beside.Node = stops[1].Beside.Node, stops[0].Beside.Node
	err = calib.SweepNodes(t.Context(), work, m, samples, stops, calib.Options{}, func(*runtime.Walk, *ir.Node) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "the model beside") {
		t.Errorf("nodes in another order: error %v", err)
	}
}
