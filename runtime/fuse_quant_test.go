package runtime_test

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/passes/recipe"
	"github.com/qsimc/qsimc/runtime"
)

// layer is a transformer's layer with a quantizer on each operand of its products, in the shapes that exporters write: a
// Reshape before a Gemm, a quantizer behind the transposition of K.
const layer = `<ir_version: 10, opset_import: ["" : 21, "qsimc" : 1]>
m (float[1,N,48] x) => (float[1,N,48] y)
<WEIGHTS int64[4] split = {0, -1, 3, 16}, int64[3] merge = {0, -1, 48}, int64[2] flat = {-1, 48}, int64[3] back = {1, -1, 48}, float quarter = {0.25}>
{
	h = LayerNormalization (x, g)
	hq = qsimc.FakeQuant <scheme = "SCHEME", axis = 2> (h)
	q = MatMul (hq, wq)
	k = MatMul (hq, wk)
	v = MatMul (hq, wv)
	q4 = Reshape (q, split)
	k4 = Reshape (k, split)
	v4 = Reshape (v, split)
	qt = Transpose <perm = [0, 2, 1, 3]> (q4)
	kt = Transpose <perm = [0, 2, 3, 1]> (k4)
	vt = Transpose <perm = [0, 2, 1, 3]> (v4)
	qq = qsimc.FakeQuant <scheme = "SCHEME", axis = 3> (qt)
	kq = qsimc.FakeQuant <scheme = "SCHEME", axis = 2> (kt)
	vq = qsimc.FakeQuant <scheme = "SCHEME", axis = -2> (vt)
	s = MatMul (qq, kq)
	d = Mul (s, quarter)
	p = Softmax (d)
	pq = qsimc.FakeQuant <scheme = "SCHEME", axis = 3> (p)
	c = MatMul (pq, vq)
	ct = Transpose <perm = [0, 2, 1, 3]> (c)
	cm = Reshape (ct, merge)
	cq = qsimc.FakeQuant <scheme = "SCHEME", axis = 2> (cm)
	o = MatMul (cq, wk)
	shape = Shape (h)
	os = Reshape (o, shape)
	r = Add (x, os)
	f = Reshape (r, flat)
	fq = qsimc.FakeQuant <scheme = "SCHEME", axis = 1> (f)
	u = MatMul (fq, w1)
	ub = Add (u, b1)
	a = Relu (ub)
	aq = qsimc.FakeQuant <scheme = "SCHEME", axis = -1> (a)
	z = MatMul (aq, w2)
	y = Reshape (z, back)
}`

func quantizedLayer(t *testing.T, scheme string) *ir.Model {
	t.Helper()
	var w strings.Builder
	for _, d := range []struct {
		name  string
		shape []int
	}{{"g", []int{48}}, {"wq", []int{48, 48}}, {"wk", []int{48, 48}}, {"wv", []int{48, 48}}, {"w1", []int{48, 100}}, {"b1", []int{100}}, {"w2", []int{100, 48}}} {
		w.WriteString(literal(d.name, ramp(d.shape...)) + ", ")
	}
	return parse(t, strings.NewReplacer("SCHEME", scheme, "WEIGHTS", w.String()).Replace(layer))
}

// Quantizers that run inside other steps give the bits that they give alone, and the same error.
func TestJoinedQuantizers(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"int4/abfp:16", "int8/abfp:64", "e4m3/block=32/dynamic", "int8/token", "mxfp4", "mxint8", "nvfp4", "int4/tensor/dynamic", "nf4/block=16/dynamic"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			m := quantizedLayer(t, scheme)
			x := ramp(1, 70, 48)
			for i, v := range ir.Data[float32](x) {
				ir.Data[float32](x)[i] = v * float32(1+i%97)
			}
			compareJoined(t, m, ir.Tensors{"x": x})
			ir.Data[float32](x)[1000] = float32(math.NaN())
			p, err := runtime.Compile(m)
			if err != nil {
				t.Fatal(err)
			}
			_, want := p.Watch(context.Background(), ir.Tensors{"x": x}, func(*ir.Value, *ir.Tensor) error { return nil })
			_, got := p.Run(context.Background(), ir.Tensors{"x": x})
			if (got == nil) != (want == nil) || got != nil && got.Error() != want.Error() {
				t.Errorf("NaN: got %v, want %v", got, want)
			}
		})
	}
}

// The presets of small blocks on a whole model: joined steps give the bits of the separate ones, with products in float in both: a
// rounding of a product can be what a quantizer of few levels turns into another level.
func TestJoinedPresets(t *testing.T) {
	t.Parallel()
	const dir = "../testdata/opt-nano"
	for _, preset := range []string{"abfp-w4a4", "nvfp4", "mxfp4"} {
		t.Run(preset, func(t *testing.T) {
			t.Parallel()
			m, in := simulated(t, dir, preset)
			compareJoinedWith(t, m, in, runtime.Options{Plain: true})
		})
	}
}

// simulated applies a preset, lowering apart, to the model of a folder, and returns it with the folder's first sample.
func simulated(t testing.TB, dir, preset string) (*ir.Model, ir.Tensors) {
	t.Helper()
	m, err := frontend.Load(dir + "/model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	samples, err := frontend.Samples(dir, m, frontend.DataOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rewriteBy(t, m, preset, "fold", "fakequant")
	for in, err := range samples() {
		if err != nil {
			t.Fatal(err)
		}
		return m, in
	}
	t.Fatalf("%s: no sample", dir)
	return nil, nil
}

// rewriteBy runs steps with a preset's policy.
func rewriteBy(t testing.TB, m *ir.Model, preset string, steps ...string) {
	t.Helper()
	r, err := recipe.Preset(preset)
	if err != nil {
		t.Fatal(err)
	}
	pipeline, err := passes.ParsePipeline(steps...)
	if err != nil {
		t.Fatal(err)
	}
	if err := pipeline.Run(context.Background(), &passes.Unit{Model: m, Policy: &r.Policy}); err != nil {
		t.Fatal(err)
	}
}
