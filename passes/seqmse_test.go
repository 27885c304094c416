package passes_test

import (
	"iter"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/calib"
)

// calibrate: seqmse gives each output channel the share of its range, of 20, that a search over the products themselves finds
// best, the second product with the inputs that the first one's rounded weight makes.
func TestSeqMSE(t *testing.T) {
	t.Parallel()
	const rows, k, n, out = 50, 12, 8, 6
	r := rand.New(rand.NewPCG(5, 6))
	normal := func(shape ...int) *ir.Tensor {
		c, _ := ir.Numel(shape)
		v := make([]float32, c)
		for i := range v {
			v[i] = float32(r.NormFloat64() * math.Exp2(float64(i%3)))
		}
		return ir.Floats(v, shape...)
	}
	w1, w2 := normal(k, n), normal(out, n) // the second transposed
	m := ir.NewModel(op.Canonical)
	x := m.Graph.AddInput("x", ir.Type{Elem: ir.Float32, Ranked: true, Dims: []ir.Dim{{Name: "N", Size: -1}, {Size: k}}})
	a := m.Graph.Insert(nil, "a", ir.Op("MatMul"), []*ir.Value{x, m.Graph.AddConst("w1", w1)}, []string{"h"})
	relu := m.Graph.Insert(nil, "relu", ir.Op("Relu"), []*ir.Value{a.Out(0)}, []string{"p"})
	b := m.Graph.Insert(nil, "b", ir.Op("Gemm"), []*ir.Value{relu.Out(0), m.Graph.AddConst("w2", w2)}, []string{"y"}, ir.IntAttr("transB", 1))
	m.Graph.AddOutput("y", b.Out(0))
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	data := []*ir.Tensor{normal(rows, k), normal(2*rows, k)}
	samples := func() iter.Seq2[ir.Tensors, error] {
		return func(yield func(ir.Tensors, error) bool) {
			for _, d := range data {
				if !yield(ir.Tensors{"x": d}, nil) {
					return
				}
			}
		}
	}
	for _, scheme := range []string{"int3/axis=out", "int3/axis=out/asym", "int3/block=4", "int3"} {
		q, _ := rewritten(t, m, "{default: {weights: "+scheme+", inputs: none}, calibrate: seqmse}", samples, "fakequant measure=0")
		s, err := numfmt.ParseScheme(scheme, numfmt.Weight)
		if err != nil {
			t.Fatal(err)
		}
		// rows of each product's input, as the float model and as the quantized one has it
		var xs []float32
		for _, d := range data {
			xs = append(xs, ir.Data[float32](d)...)
		}
		hidden := func(w []float32) []float32 {
			h := product(xs, w, k, n)
			for i := range h {
				h[i] = max(h[i], 0)
			}
			return h
		}
		first, firstAxes := ir.Data[float32](w1), numfmt.Axes{K: 0, Out: 1}
		rounded := searched(t, s, first, []int{k, n}, firstAxes, xs, xs, n)
		same(t, scheme+" w1", q, "w1", s, first, []int{k, n}, firstAxes, rounded)
		second, secondAxes := ir.Data[float32](w2), numfmt.Axes{K: 1, Out: 0}
		rounded = searched(t, s, second, []int{out, n}, secondAxes, hidden(rounded), hidden(first), out)
		same(t, scheme+" w2", q, "w2", s, second, []int{out, n}, secondAxes, rounded)
	}
}

// product multiplies rows of length k by a k×n matrix.
func product(x, w []float32, k, n int) []float32 {
	y := make([]float32, len(x)/k*n)
	for i := range y {
		sum := 0.0
		for j := range k {
			sum += float64(x[i/n*k+j]) * float64(w[j*n+i%n])
		}
		y[i] = float32(sum)
	}
	return y
}

// searched rounds a weight with the best of 20 shares for each output channel (for all where the tensor has one scale).
func searched(t *testing.T, s numfmt.Scheme, w []float32, shape []int, axes numfmt.Axes, quant, float []float32, n int) []float32 {
	t.Helper()
	l, err := s.Layout(shape, axes)
	if err != nil {
		t.Fatal(err)
	}
	k := len(w) / n
	at := func(c, j int) int {
		if axes.K == 0 {
			return j*n + c
		}
		return c*k + j
	}
	best, result := make([]float64, n), make([]float32, len(w))
	for c := range best {
		best[c] = math.Inf(1)
	}
	for i := 20; i > 0; i-- {
		lo, hi := numfmt.Ranges(w, l)
		for g := range lo {
			lo[g], hi[g] = calib.Shrink(s, lo[g], hi[g], float64(i)/20)
		}
		p, err := s.FitLayout(lo, hi, l)
		if err != nil {
			t.Fatal(err)
		}
		q := make([]float32, len(w))
		if err := s.Apply(q, w, l, p); err != nil {
			t.Fatal(err)
		}
		loss, total := make([]float64, n), 0.0
		for c := range n {
			for r := range len(quant) / k {
				d := 0.0
				for j := range k {
					d += float64(quant[r*k+j])*float64(q[at(c, j)]) - float64(float[r*k+j])*float64(w[at(c, j)])
				}
				loss[c] += d * d
				total += d * d
			}
		}
		for c := range n {
			if s.Gran == numfmt.PerTensor {
				loss[c] = total
			}
			if loss[c] < best[c] {
				best[c] = loss[c]
				for j := range k {
					result[at(c, j)] = q[at(c, j)]
				}
			}
		}
	}
	return result
}

// same compares what the model's quantizer makes of a weight.
func same(t *testing.T, what string, m *ir.Model, name string, s numfmt.Scheme, w []float32, shape []int, axes numfmt.Axes, want []float32) {
	t.Helper()
	u, ok := m.Find(name).SingleUse()
	if !ok || u.Node.Op != op.FakeQuantOp {
		t.Fatalf("%s: no quantizer", what)
	}
	p := numfmt.Params{Scale: ir.Data[float32](u.Node.In(1).Const())}
	if z := u.Node.In(2); z != nil {
		p.Zero = ir.Data[float32](z.Const())
	}
	l, err := s.Layout(shape, axes)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]float32, len(w))
	if err := s.Apply(got, w, l, p); err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: element %d is rounded to %v, the search over products says %v", what, i, got[i], want[i])
		}
	}
}
