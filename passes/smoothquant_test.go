package passes

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// Golden 28 of METHODS.md §16.
func TestGolden28SmoothFactors(t *testing.T) {
	t.Parallel()
	act := map[int32]float64{0: 8, 1: .5, 2: 2, 3: 0}
	weights := map[int32]float64{0: .5, 1: 2, 2: .5, 3: 1}
	for _, c := range []struct {
		alpha float64
		pow2  bool
		want  factorMap
	}{
		{.5, false, factorMap{0: 4, 1: .5, 2: 2, 3: 1}},
		{.75, false, factorMap{0: float64(float32(5.656854249492381)), 1: .5, 2: 2, 3: 1}},
		{.75, true, factorMap{0: 4, 1: .5, 2: 2, 3: 1}}, // 2^2.5 rounds to the even exponent
	} {
		if d := cmp.Diff(c.want, smoothFactors(act, weights, c.alpha, c.pow2)); d != "" {
			t.Errorf("alpha %v, powers of two %v (-want +got):\n%s", c.alpha, c.pow2, d)
		}
	}
	if got := smoothFactor(1e9, 1e-9, .5, false); got != 1e4 {
		t.Errorf("factor %v, wanted it clamped to 1e4", got)
	}
}

// parsed returns a model from text, typed.
func parsed(t *testing.T, text string) *ir.Model {
	t.Helper()
	m, err := ir.Parse(t.Name(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	return m
}

// constants returns the contents of the named constants.
func constants(t *testing.T, m *ir.Model, names ...string) map[string][]float32 {
	t.Helper()
	got := map[string][]float32{}
	for _, n := range names {
		v := m.Find(n)
		if v == nil || v.Const() == nil {
			t.Fatalf("there is no constant %q", n)
		}
		got[n], _ = v.Const().Float32s()
	}
	return got
}

// Golden 29 of METHODS.md §16.
func TestGolden29SmoothFold(t *testing.T) {
	t.Parallel()
	m := parsed(t, `<ir_version: 8, opset_import: ["" : 17]> fold (float[N,4] x) => (float[N,2] y)
		<float[4] g = {1, 2, 0.5, 1}, float[4] b = {0.1, -0.2, 0, 0.3}, float[4,2] w = {0.5, -0.2, 1, 2, -0.5, 0.25, 1, 0.5}>
		{ h = LayerNormalization <axis = -1> (x, g, b) y = MatMul (h, w) }`)
	w, err := newWiring(m)
	if err != nil {
		t.Fatal(err)
	}
	gs := w.groups()
	if len(gs) != 1 || gs[0].scale == nil {
		t.Fatalf("groups %+v, wanted one that the norm absorbs", gs)
	}
	if _, err := gs[0].rewrite(factorMap{0: 4, 1: .5, 2: 2, 3: 1}, "test", new(undo)); err != nil {
		t.Fatal(err)
	}
	want := map[string][]float32{"g": {.25, 4, .25, 1}, "b": {.025, -.4, 0, .3}, "w": {2, -.8, .5, 1, -1, .5, 1, .5}}
	if d := cmp.Diff(want, constants(t, m, "g", "b", "w")); d != "" {
		t.Errorf("constants (-want +got):\n%s", d)
	}
}

// A rewrite that is taken back leaves the graph as it was, copies and inserted nodes included.
func TestRewriteUndo(t *testing.T) {
	t.Parallel()
	text := `<ir_version: 8, opset_import: ["" : 17]> undo (float[N,2] x) => (float[N,2] y, float[N,2] h)
		<float[2] g = {1, 2}, float[2,2] w = {0.5, -0.2, 1, 2}>
		{ h = LayerNormalization <axis = -1> (x, g) a = MatMul (h, w) r = Relu (a) y = MatMul (r, w) }`
	m := parsed(t, text)
	w, err := newWiring(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range w.groups() {
		var back undo
		if _, err := g.rewrite(factorMap{0: 3, 1: .5}, "test", &back); err != nil {
			t.Fatal(err)
		}
		back.run()
	}
	m.Graph.Prune()
	if err := ir.Equal(parsed(t, text), m); err != nil {
		t.Error(err)
	}
}

// Golden 36 of METHODS.md §16, the part on AWQ; its part on equalization is testdata/equalize/golden36.txtar.
func TestGolden36AWQFactors(t *testing.T) {
	t.Parallel()
	got := awqFactors(map[int32]float64{0: 16, 1: 1, 2: .25}, .5)
	for c, want := range []float64{2.8284271, .7071068, .3535534} {
		if d := got[int32(c)] - want; d > 1e-6 || d < -1e-6 {
			t.Errorf("channel %d: factor %v, wanted %v", c, got[int32(c)], want)
		}
	}
}

// A rewrite that does not keep what the nodes compute is taken back, and the error says by how much it is off.
func TestProve(t *testing.T) {
	t.Parallel()
	text := `<ir_version: 8, opset_import: ["" : 17]> prove (float[1,2] x) => (float[1,2] y)
		<float[2,2] w = {0.5, -0.2, 1, 2}> { a = Relu (x) y = MatMul (a, w) }`
	for _, c := range []struct {
		name string
		by   float32
		want string
	}{
		{"kept", 1 + 1e-5, ""},
		{"refused", 1 + 1e-3, `"y" would differ by`},
	} {
		m := parsed(t, text)
		u := &Unit{Model: m, Samples: func() iterTensors {
			return func(yield func(ir.Tensors, error) bool) {
				yield(ir.Tensors{"x": ir.Floats([]float32{1, 3}, 1, 2)}, nil)
			}
		}}
		y := m.Find("y")
		w := &witness{}
		w.testify([]*ir.Node{y.DefNode()})
		if err := w.run(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		err := u.prove(t.Context(), w, []*ir.Node{y.DefNode()}, []*ir.Value{y}, func(back *undo) ([]*ir.Node, error) {
			replaceConst(y.DefNode(), 1, m.Find("w"), nil, ir.Floats([]float32{.5 * c.by, -.2 * c.by, c.by, 2 * c.by}, 2, 2), back)
			return nil, nil
		})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: error %v, wanted one with %q", c.name, err, c.want)
		}
		if same := ir.Equal(parsed(t, text), m) == nil; same != (c.want != "") {
			t.Errorf("%s: the model is as it was: %v", c.name, same)
		}
	}
}
