package op_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/qsimc/qsimc/ir"
)

// noise makes a float32 tensor of reproducible numbers between -1 and 1.
func noise(seed uint32, shape ...int) *ir.Tensor {
	t := ir.NewTensor(ir.Float32, shape...)
	v := ir.Data[float32](t)
	for i := range v {
		seed = seed*1664525 + 1013904223
		v[i] = float32(seed>>8)/(1<<23) - 1
	}
	return t
}

// double converts to float64.
func double(t *ir.Tensor) *ir.Tensor {
	if t == nil || t.Elem() != ir.Float32 {
		return t
	}
	v := make([]float64, t.Len())
	for i, x := range ir.Data[float32](t) {
		v[i] = float64(x)
	}
	return ir.FromSlice(ir.Float64, t.Shape(), v)
}

// swap exchanges the first two axes.
func swap(t *ir.Tensor) *ir.Tensor {
	s := t.Shape()
	inner := t.Len() / (s[0] * s[1])
	out := ir.NewTensor(t.Elem(), append([]int{s[1], s[0]}, s[2:]...)...)
	for i := range s[0] {
		for j := range s[1] {
			copy(ir.Data[float32](out)[(j*s[0]+i)*inner:][:inner], ir.Data[float32](t)[(i*s[1]+j)*inner:])
		}
	}
	return out
}

// results runs a case and returns its outputs in order.
func results(t *testing.T, k nnCase, outs int) []*ir.Tensor {
	t.Helper()
	k.want = make([]*ir.Tensor, outs)
	for i := range k.want {
		k.want[i] = ir.Scalar(0) // names the output; run does not compare
	}
	got, err := k.run(len(k.in))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]*ir.Tensor, outs)
	for i := range out {
		out[i] = got[fmt.Sprintf("o%d", i)]
	}
	return out
}

func TestRecurrentByHand(t *testing.T) {
	t.Parallel()
	runNNCases(t, recurrentCases())
}

func recurrentCases() []nnCase {
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	x, w, r := []float64{0.5, -1}, []float64{0.1, 0.2, 0.3, 0.4}, []float64{0.5, -0.6, 0.7, -0.8}
	var h, c float64
	var lstm []float32
	for _, v := range x {
		gate := func(k int) float64 { return w[k]*v + r[k]*h + 0.1 }
		i, o, f, g := sigmoid(gate(0)), sigmoid(gate(1)), sigmoid(gate(2)), math.Tanh(gate(3))
		c = f*c + i*g
		h = o * math.Tanh(c)
		lstm = append(lstm, float32(h))
	}
	h = 0
	var gru, linear, simple []float32
	for _, v := range x {
		z, g := sigmoid(w[0]*v+r[0]*h+0.1), sigmoid(w[1]*v+r[1]*h+0.1)
		n := math.Tanh(w[2]*v + r[2]*g*h + 0.1)
		h = (1-z)*n + z*h
		gru = append(gru, float32(h))
	}
	h = 0
	for _, v := range x {
		z, g := sigmoid(w[0]*v+r[0]*h+0.1), sigmoid(w[1]*v+r[1]*h+0.1)
		n := math.Tanh(w[2]*v + g*(r[2]*h+0.02) + 0.08)
		h = (1-z)*n + z*h
		linear = append(linear, float32(h))
	}
	h = 0
	for _, v := range x {
		h = max(w[0]*v+r[0]*h+0.1, 0)
		simple = append(simple, float32(h))
	}
	in := func(gates int, bias ...float32) []*ir.Tensor {
		part := func(v []float64) *ir.Tensor {
			out := make([]float32, gates)
			for i := range out {
				out[i] = float32(v[i])
			}
			return f([]int{1, gates, 1}, out...)
		}
		return []*ir.Tensor{f([]int{2, 1, 1}, 0.5, -1), part(w), part(r), f([]int{1, 2 * gates}, bias...)}
	}
	split := func(gates int) (b []float32) { // each gate's two biases sum to 0.1
		for i := range 2 * gates {
			b = append(b, []float32{0.08, 0.02}[i/gates])
		}
		return b
	}
	y := func(v []float32) *ir.Tensor { return f([]int{2, 1, 1, 1}, v...) }
	return []nnCase{
		{name: "plain", op: "LSTM", in: in(4, split(4)...), attrs: []ir.Attr{ir.IntAttr("hidden_size", 1)}, want: []*ir.Tensor{y(lstm), f([]int{1, 1, 1}, lstm[1]), f([]int{1, 1, 1}, float32(c))}},
		{name: "plain", op: "GRU", in: in(3, split(3)...), want: []*ir.Tensor{y(gru), f([]int{1, 1, 1}, gru[1])}},
		{name: "linear before reset", op: "GRU", in: in(3, split(3)...), attrs: []ir.Attr{ir.IntAttr("linear_before_reset", 1)}, want: []*ir.Tensor{y(linear)}},
		{name: "activation", op: "RNN", in: in(1, split(1)...), attrs: []ir.Attr{{Name: "activations", Kind: ir.AttrStrings, Strings: [][]byte{[]byte("Relu")}}},
			want: []*ir.Tensor{y(simple)}},
		{name: "opset 1", opset: 1, op: "RNN", in: in(1, split(1)...), attrs: []ir.Attr{ir.IntAttr("output_sequence", 1), {Name: "activations", Kind: ir.AttrStrings, Strings: [][]byte{[]byte("relu")}}},
			want: []*ir.Tensor{y(simple)}},
		{name: "unknown activation", op: "RNN", in: in(1, split(1)...), attrs: []ir.Attr{{Name: "activations", Kind: ir.AttrStrings, Strings: [][]byte{[]byte("Step")}}}, err: `activation "Step"`},
		{name: "weights", op: "LSTM", in: in(3, split(3)...), err: "want [1 4 1]"},
	}
}

// TestRecurrentRelations checks what must hold between layouts, directions, lengths and precisions.
func TestRecurrentRelations(t *testing.T) {
	t.Parallel()
	const steps, batch, input, hidden = 3, 2, 3, 4
	for name, gates := range map[string]int{"LSTM": 4, "GRU": 3, "RNN": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outs := 2
			x, w, r, b := noise(1, steps, batch, input), noise(2, 2, gates*hidden, input), noise(3, 2, gates*hidden, hidden), noise(4, 2, 2*gates*hidden)
			h0 := noise(5, 2, batch, hidden)
			both := ir.StringAttr("direction", "bidirectional")
			base := nnCase{op: name, attrs: []ir.Attr{both}, in: []*ir.Tensor{x, w, r, b, nil, h0}}
			y := results(t, base, outs)

			wide := base
			wide.in = []*ir.Tensor{double(x), double(w), double(r), double(b), nil, double(h0)}
			got, _ := results(t, wide, outs)[0].Float32s()
			sameTensor(t, ir.Floats(got, y[0].Shape()...), y[0])

			first := base
			first.attrs = []ir.Attr{both, ir.IntAttr("layout", 1)}
			first.in = []*ir.Tensor{swap(x), w, r, b, nil, swap(h0)}
			z := results(t, first, outs)
			sameTensor(t, swap(z[1]), y[1])
			// [batch, steps, …] of one step against [steps, …, batch, …]
			sameTensor(t, f([]int{hidden}, ir.Data[float32](z[0])[:hidden]...), f([]int{hidden}, ir.Data[float32](y[0])[:hidden]...))

			full := base
			full.in = []*ir.Tensor{x, w, r, b, ir.FromSlice(ir.Int32, []int{batch}, []int32{steps, steps}), h0}
			sameTensor(t, results(t, full, outs)[0], y[0])

			short := base
			short.in = []*ir.Tensor{x, w, r, b, ir.FromSlice(ir.Int32, []int{batch}, []int32{steps, 1}), h0}
			s := results(t, short, outs)
			row := func(y *ir.Tensor, step, dir, b int) *ir.Tensor {
				return f([]int{hidden}, ir.Data[float32](y)[((step*2+dir)*batch+b)*hidden:][:hidden]...)
			}
			sameTensor(t, row(s[0], 1, 0, 1), f([]int{hidden}, 0, 0, 0, 0))
			sameTensor(t, row(s[0], 0, 0, 1), row(y[0], 0, 0, 1))
			sameTensor(t, row(s[0], 2, 1, 0), row(y[0], 2, 1, 0))
		})
	}
}
