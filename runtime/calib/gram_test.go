package calib_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/calib"
)

// Golden 32 of METHODS.md §16: two sequences; a Gram matrix is a multiple of the mean over sequences.
func TestGramGolden32(t *testing.T) {
	t.Parallel()
	g := calib.NewGram(-1)
	for i, x := range []*ir.Tensor{
		ir.Floats([]float32{1, 0, 2, 1, 0, 1, 1, -1}, 1, 2, 4),
		ir.Floats([]float32{2, 1, 0, 0}, 1, 1, 4),
	} {
		if err := g.Observe(0, i, x); err != nil {
			t.Fatal(err)
		}
	}
	want := []float64{5, 2, 2, 1, 2, 2, 1, -1, 2, 1, 5, 1, 1, -1, 1, 2}
	for i := range 4 {
		for j := range i + 1 {
			if got := g.H[0][i*4+j]; got != want[i*4+j] {
				t.Errorf("H[%d][%d] = %v, want %v", i, j, got, want[i*4+j])
			}
		}
	}
	if g.Rows != 3 || g.K != 4 {
		t.Errorf("%d rows of %d, want 3 of 4", g.Rows, g.K)
	}
	if err := g.Observe(0, 2, ir.Floats([]float32{1, float32(math.NaN()), 0, 0}, 1, 4)); err == nil {
		t.Error("NaN was taken")
	}
	if err := g.Observe(0, 2, ir.Floats([]float32{1, 2}, 1, 2)); err == nil {
		t.Error("rows of another length were taken")
	}
}

// The axis that a product contracts need not be the last.
func TestGramAxis(t *testing.T) {
	t.Parallel()
	g := calib.NewGram(-2)
	if err := g.Observe(0, 0, ir.Floats([]float32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 2, 3, 2)); err != nil {
		t.Fatal(err)
	}
	// rows: 1 3 5, 2 4 6, 7 9 11, 8 10 12
	h := g.H[0]
	want := []float64{1 + 4 + 49 + 64, 3 + 8 + 63 + 80, 9 + 16 + 81 + 100}
	if d := cmp.Diff(want, []float64{h[0], h[3], h[4]}); d != "" {
		t.Errorf("H (-want +got):\n%s", d)
	}
}

// With rows as patches the Gram matrix gives a convolution's squared output: Σy² = w·H·wᵀ, group by group.
func TestGramConv(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	normal := func(shape ...int) *ir.Tensor {
		n, _ := ir.Numel(shape)
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return ir.Floats(v, shape...)
	}
	w, x := normal(6, 2, 3, 2), normal(2, 4, 5, 6)
	m := ir.NewModel(op.Canonical)
	node := m.Graph.Insert(nil, "conv", ir.Op("Conv"), []*ir.Value{m.Graph.AddInput("x", x.Type()), m.Graph.AddConst("w", w)}, []string{"y"},
		ir.IntAttr("group", 2), ir.IntsAttr("strides", 2, 1), ir.IntsAttr("pads", 1, 0, 2, 1), ir.IntsAttr("dilations", 1, 2))
	m.Graph.AddOutput("y", node.Out(0))
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	p, err := runtime.Compile(m)
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Run(t.Context(), ir.Tensors{"x": x})
	if err != nil {
		t.Fatal(err)
	}
	gram := calib.NewConvGram(node, []int{6, 2, 3, 2})
	if err := gram.Observe(0, 0, x); err != nil {
		t.Fatal(err)
	}
	y, wv := ir.Data[float32](out["y"]), ir.Data[float32](w)
	plane := len(y) / 2 / 6
	if gram.Rows != 2*plane || gram.K != 12 || len(gram.H) != 2 {
		t.Fatalf("%d rows of %d in %d groups, want %d of 12 in 2", gram.Rows, gram.K, len(gram.H), 2*plane)
	}
	for ch := range 6 {
		want, got := 0.0, 0.0
		for b := range 2 {
			for _, v := range y[(b*6+ch)*plane:][:plane] {
				want += float64(v) * float64(v)
			}
		}
		row, h := wv[ch*12:][:12], gram.H[ch/3]
		for i := range 12 {
			for j := range 12 {
				got += float64(row[i]) * h[max(i, j)*12+min(i, j)] * float64(row[j])
			}
		}
		if math.Abs(got-want) > 1e-4*want {
			t.Errorf("channel %d: w·H·wᵀ = %v, Σy² = %v", ch, got, want)
		}
	}
}

// The second matrix sums what lies beside less what is there, times what is there: of rows, and of a convolution's patches.
func TestGramBeside(t *testing.T) {
	t.Parallel()
	g := calib.NewGram(-1)
	x := ir.Floats([]float32{1, 2, 3, -1}, 2, 2)
	if err := g.ObserveBeside(0, x, x); err != nil || g.D != nil {
		t.Fatalf("equal tensors: D %v, error %v", g.D, err)
	}
	if err := g.ObserveBeside(1, x, ir.Floats([]float32{2, 2, 3, 1}, 2, 2)); err != nil {
		t.Fatal(err)
	}
	// differences 1 0, 0 2
	if d := cmp.Diff([]float64{1, 2, 6, -2}, g.D[0]); d != "" {
		t.Errorf("D (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]float64{20, 10}, []float64{g.H[0][0], g.H[0][3]}); d != "" {
		t.Errorf("H (-want +got):\n%s", d)
	}
	if err := g.ObserveBeside(2, x, ir.Floats([]float32{2}, 1)); err == nil {
		t.Error("another size was taken")
	}
	m, err := ir.Parse("conv", []byte(`<ir_version: 10, opset_import: ["" : 21]> conv (float[1,2,3] x) => (float[1,2,2] y)
<float[2,1,2] w = {1, 0, 0, 1}> { y = Conv <group = 2> (x, w) }`))
	if err != nil {
		t.Fatal(err)
	}
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	for n := range m.Graph.Nodes() {
		g = calib.NewConvGram(n, []int{2, 1, 2})
	}
	if err := g.ObserveBeside(0, ir.Floats([]float32{1, 2, 3, 4, 5, 6}, 1, 2, 3), ir.Floats([]float32{1, 2, 3, 4, 6, 6}, 1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	// The second group's patches 4 5, 5 6 differ by 0 1, 1 0.
	if d := cmp.Diff([][]float64{{0, 0, 0, 0}, {5, 6, 4, 5}}, g.D); d != "" {
		t.Errorf("D of a convolution (-want +got):\n%s", d)
	}
}
