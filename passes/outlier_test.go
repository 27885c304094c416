package passes_test

import (
	"path/filepath"
	"testing"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/runtime/eval"
	"github.com/qsimc/qsimc/testdata/shared"
)

// injectOutliers scales six channels of every LayerNormalization's result by 20 to 60 and divides the weights that read
// them: the same function, with outlier channels as large language models have them.
func injectOutliers(t *testing.T, m *ir.Model) {
	t.Helper()
	scaled := func(v *ir.Value, by func(i int) float32) *ir.Tensor {
		c := op.ConstantOf(v)
		x, _ := c.Float32s()
		y := make([]float32, len(x))
		for i := range x {
			y[i] = x[i] * by(i)
		}
		return ir.Floats(y, c.Shape()...)
	}
	for n := range m.Nodes() {
		norm, ok := op.NormOf(n)
		if !ok || !norm.Fused {
			continue
		}
		width := op.ConstantOf(n.In(1)).Len()
		factor := func(channel int) float32 {
			if step := width / 6; channel%step == 5 && channel/step < 6 {
				return float32(20 + 8*(channel/step))
			}
			return 1
		}
		for i := 1; i <= 2; i++ {
			n.SetIn(i, m.Graph.Const(n.In(i).Name, scaled(n.In(i), factor)))
		}
		for _, u := range norm.Out.Uses() {
			d, ok := op.Lookup(u.Node)
			if !ok || d.Linear == nil {
				continue
			}
			l, ok := d.Linear(u.Node)
			if !ok {
				continue
			}
			w, inner := u.Node.In(l.W), 1
			if tr := w.DefNode(); tr != nil && op.ConstantOf(w) == nil { // the head reads the embedding through a Transpose
				c := m.Graph.Const("head", op.ConstantOf(tr.In(0)))
				k, err := op.Insert(m.Graph, u.Node, "head_t", tr.Op, []*ir.Value{c}, []string{"head_t"}, tr.Attrs...)
				if err != nil {
					t.Fatal(err)
				}
				u.Node.SetIn(l.W, k.Out(0))
				c.SetConst(scaled(c, func(i int) float32 { return 1 / factor(i%width) }))
				continue
			}
			if l.InAxis == 0 {
				inner = int(w.Type.Dim(1).Size)
			}
			u.Node.SetIn(l.W, m.Graph.Const(w.Name, scaled(w, func(i int) float32 { return 1 / factor(i/inner%width) })))
		}
	}
	m.Graph.Prune()
}

// perplexity quantizes a copy of a model as a preset says and returns its perplexity; preset "" leaves it float.
func perplexity(t *testing.T, m *ir.Model, model, presetName, data string, count int) float64 {
	t.Helper()
	q, _ := m.Clone()
	if presetName != "" {
		p, policy := preset(t, presetName)
		u := &passes.Unit{Model: q, Policy: policy, Samples: zooSamples(t, model, q, 4)}
		if err := p.Run(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		q = u.Model
	}
	d, err := frontend.OpenData(filepath.Join(shared.Dir(t), "zoo", "data", data), q, frontend.DataOptions{Count: count})
	if err != nil {
		t.Fatal(err)
	}
	r, err := eval.Run(t.Context(), q, d, eval.Options{Metric: "ppl"})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s %q: perplexity %.4f over %d sequences of %s", model, presetName, r.Value, count, data)
	return r.Value
}

// With outlier channels int8 activations per tensor lose the model without smoothquant and keep it with it.
func TestOutliers(t *testing.T) {
	t.Parallel()
	t.Run("opt-nano-outlier", func(t *testing.T) {
		t.Parallel()
		outliers(t, load(t, "opt-nano-outlier"), "opt-nano-outlier", "nano_eval_128.npy", 8, .02)
	})
	t.Run("opt-mini", func(t *testing.T) {
		t.Parallel()
		if testing.Short() {
			t.Skip("evaluates a model of 14 million parameters six times")
		}
		m := load(t, "opt-mini")
		before, _ := m.Clone()
		injectOutliers(t, m)
		if d := relative(t, before, m, zooSamples(t, "opt-mini", m, 1)); d > 1e-4 {
			t.Fatalf("the copy with outliers computes something else: %.3g", d)
		}
		outliers(t, m, "opt-mini", "wikitext2_test_256.npy", 1, .10)
	})
}

func outliers(t *testing.T, m *ir.Model, name, data string, count int, loss float64) {
	float := perplexity(t, m, name, "", data, count)
	if q := perplexity(t, m, name, "w8a8", data, count); q < 3*float {
		t.Errorf("w8a8 without smoothquant has perplexity %.4f, wanted at least three times the float model's %.4f", q, float)
	}
	if q := perplexity(t, m, name, "w8a8-sq", data, count); q > (1+loss)*float {
		t.Errorf("w8a8-sq has perplexity %.4f, wanted at most %.0f %% above the float model's %.4f", q, 100*loss, float)
	}
	for _, bits := range []string{"w4a8", "w4a4"} {
		plain, smooth := perplexity(t, m, name, "abfp-"+bits, data, count), perplexity(t, m, name, "abfp-sq-"+bits, data, count)
		if smooth >= plain {
			t.Errorf("abfp-sq-%s has perplexity %.4f, wanted less than abfp-%s's %.4f", bits, smooth, bits, plain)
		}
	}
}
