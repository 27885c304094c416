package op_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// QuantizeLinear with channels along the last axis gives the codes that it gives with channels along the first.
func TestQuantizeLinearLastAxis(t *testing.T) {
	t.Parallel()
	const rows, channels = 70, 37
	r := rand.New(rand.NewPCG(1, 2))
	inf := float32(math.Inf(1))
	for _, elem := range []ir.DType{ir.Int8, ir.Uint8} {
		scale, zero := make([]float32, channels), make([]byte, channels)
		for i := range scale {
			scale[i], zero[i] = float32(math.Exp(r.NormFloat64())), byte(r.IntN(256))
		}
		scale[0], scale[1] = 1, 0.5
		x := make([]float32, rows*channels)
		for i := range x {
			x[i] = float32(r.NormFloat64()) * 100
		}
		copy(x, []float32{2.5, -0.25, float32(math.NaN()), inf, -inf, 1e30, -1e30})
		for i := range rows {
			x[i*channels] = float32(i) - 30.5 // halves
		}
		columns := make([]float32, len(x))
		for i := range rows {
			for c := range channels {
				columns[c*rows+i] = x[i*channels+c]
			}
		}
		zeros, err := ir.TensorOf(elem, []int{channels}, zero)
		if err != nil {
			t.Fatal(err)
		}
		codes := func(x []float32, axis int64, shape ...int) []byte {
			m := ir.NewModel(21)
			g := m.Graph
			ins := []*ir.Value{g.AddConst("x", ir.Floats(x, shape...)), g.AddConst("s", ir.Floats(scale, channels)), g.AddConst("z", zeros)}
			n, err := op.Insert(g, nil, "q", ir.Op("QuantizeLinear"), ins, []string{"y"}, ir.IntAttr("axis", axis))
			if err != nil {
				t.Fatal(err)
			}
			d, _ := op.Lookup(n)
			out, err := op.Evaluate(op.NewCall(n, d, nil, nil, []*ir.Tensor{ins[0].Const(), ins[1].Const(), zeros}))
			if err != nil {
				t.Fatal(err)
			}
			return out[0].Bytes()
		}
		got, first := codes(x, 1, rows, channels), codes(columns, 0, channels, rows)
		want := make([]byte, len(got))
		for i := range rows {
			for c := range channels {
				want[i*channels+c] = first[c*rows+i]
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v: other codes along the last axis", elem)
		}
	}
}
