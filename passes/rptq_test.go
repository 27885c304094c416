package passes_test

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/passes/recipe"
	"github.com/qsimc/qsimc/runtime/eval"
	"github.com/qsimc/qsimc/testdata/shared"
)

// quantized runs a recipe on a model of the zoo.
func quantized(t *testing.T, model, text, samples string, count int) (*ir.Model, *passes.Report) {
	t.Helper()
	r, err := recipe.Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Pipeline()
	if err != nil {
		t.Fatal(err)
	}
	m := load(t, model)
	data, err := frontend.OpenData(filepath.Join(shared.Dir(t), "zoo", "data", samples), m, frontend.DataOptions{Count: count})
	if err != nil {
		t.Fatal(err)
	}
	u := &passes.Unit{Model: m, Policy: &r.Policy, Samples: data.Samples()}
	if err := p.Run(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	return u.Model, u.Report
}

// metric evaluates a model on the first count samples.
func metric(t *testing.T, m *ir.Model, name, samples string, count int) float64 {
	t.Helper()
	data, err := frontend.OpenData(filepath.Join(shared.Dir(t), "zoo", "data", samples), m, frontend.DataOptions{Count: count})
	if err != nil {
		t.Fatal(err)
	}
	r, err := eval.Run(t.Context(), m, data, eval.Options{Metric: name})
	if err != nil {
		t.Fatal(err)
	}
	return r.Value
}

// The two layouts of RPTQ are the same model: every weight has the same codes once the permutation is undone. What is left is the order of
// sums: values at the borders of codes go to the other side, and the perplexity moves by less than 0.3 %.
func TestRPTQLayouts(t *testing.T) {
	t.Parallel()
	models, ppl := map[string]*ir.Model{}, map[string]float64{}
	for _, layout := range []string{"axis", "gather"} {
		models[layout], _ = quantized(t, "opt-nano", `
policy:
  default: {weights: int4/axis=out/asym, inputs: int8}
  head: {weights: none, inputs: none}
passes: [fold, "rptq range=max layout=`+layout+`", gptq, fakequant, lower]
`, "nano_calib_128.npy", 3)
		ppl[layout] = metric(t, models[layout], "ppl", "nano_eval_128.npy", 3)
	}
	if r := ppl["gather"]/ppl["axis"] - 1; math.Abs(r) > .003 {
		t.Errorf("perplexities %v differ by %.2f %%, want at most 0.3 %%", ppl, 100*r)
	}
	if abfp := perplexity(t, load(t, "opt-nano"), "opt-nano", "abfp-w4a8", "nano_eval_128.npy", 3); ppl["axis"] > 1.1*abfp {
		t.Errorf("perplexity %.3f at W4A8, want at most 1.1 times that of ABFP, %.3f", ppl["axis"], abfp)
	}
	gathered := 0
	for n := range models["gather"].Graph.Nodes() {
		if d, ok := op.Lookup(n); !ok || d.Linear == nil || n.In(1).Const() == nil {
			continue
		}
		other := models["axis"].Find(n.In(1).Name)
		if other == nil {
			t.Fatalf("%v: the other layout has no constant %q", n, n.In(1).Name)
		}
		got, _ := n.In(1).Const().Float32s()
		want, _ := other.Const().Float32s()
		shape := n.In(1).Const().Shape()
		at := func(k, out int) int { return k*shape[1] + out }
		inputs, outputs := shape[0], shape[1]
		if n.Int("transB", 0) == 1 {
			inputs, outputs = outputs, inputs
			at = func(k, out int) int { return out*shape[1] + k }
		}
		perm := make([]int64, inputs)
		for i := range perm {
			perm[i] = int64(i)
		}
		if joined := n.In(0).DefNode(); joined != nil {
			if order := models["gather"].Find(strings.TrimSuffix(joined.Out(0).Name, "_joined") + "_order"); order != nil {
				perm, _ = order.Const().Int64s()
				gathered++
			}
		}
		for k := range inputs {
			for o := range outputs {
				if v, w := got[at(k, o)], want[at(int(perm[k]), o)]; v != w {
					t.Fatalf("%v: input %d, output %d has %v, without permutation %v", n, k, o, v, w)
				}
			}
		}
	}
	if gathered != 24 {
		t.Errorf("%d weights read gathered channels, want six in each of four blocks", gathered)
	}
}

// GPTQ takes off at least two fifths of what rounding to nearest adds to the perplexity.
func TestGPTQPerplexity(t *testing.T) {
	t.Parallel()
	float := metric(t, load(t, "opt-nano"), "ppl", "nano_eval_128.npy", 16)
	var rise []float64
	for _, steps := range []string{"fold, gptq, fakequant", "fold, fakequant"} {
		m, _ := quantized(t, "opt-nano", `
policy:
  default: {weights: int4/axis=out, inputs: none}
  head: {weights: none}
passes: [`+steps+`]
`, "nano_calib_128.npy", 24)
		rise = append(rise, metric(t, m, "ppl", "nano_eval_128.npy", 16)-float)
	}
	t.Logf("rises of the perplexity: %.3f", rise)
	if r := rise[0] / rise[1]; !(r <= .6) {
		t.Errorf("the perplexity rises by %.3f, with rounding to nearest by %.3f: ratio %.2f, want at most 0.60", rise[0], rise[1], r)
	}
}
