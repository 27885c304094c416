package passes_test

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
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

// The two layouts of RPTQ are the same model. Weights that read equal inputs, those of the first queries, keys and values, have equal codes once
// the permutation is undone; further on values at the borders of codes move with the order of sums, and the perplexity by less
// than 0.3 %.
func TestRPTQLayouts(t *testing.T) {
	t.Parallel()
	models, ppl := map[string]*ir.Model{}, map[string]float64{}
	for _, layout := range []string{"axis", "gather"} {
		models[layout], _ = quantized(t, "opt-nano", `
policy:
  default: {weights: int4/axis=out/asym, inputs: int8}
  head: {weights: none, inputs: none}
passes: [fold, "rptq layout=`+layout+`", gptq, fakequant, lower]
`, "nano_calib_128.npy", 32)
		ppl[layout] = metric(t, models[layout], "ppl", "nano_eval_128.npy", 64)
	}
	if r := ppl["gather"]/ppl["axis"] - 1; math.Abs(r) > .003 {
		t.Errorf("perplexities %v differ by %.2f %%, want at most 0.3 %%", ppl, 100*r)
	}
	compared := 0
	for n := range models["gather"].Graph.Nodes() {
		if !strings.Contains(n.Name, "layers.0/self_attn/") || !strings.HasSuffix(n.Name, "_proj/MatMul") || strings.Contains(n.Name, "out_proj") {
			continue
		}
		joined := n.In(0).DefNode()
		order := models["gather"].Find(strings.TrimSuffix(joined.Out(0).Name, "_joined") + "_order")
		if order == nil {
			t.Fatalf("%v does not read gathered channels", n)
		}
		perm, _ := order.Const().Int64s()
		got, _ := n.In(1).Const().Float32s()
		want, _ := models["axis"].Find(n.In(1).Name).Const().Float32s()
		cols := n.In(1).Const().Shape()[1]
		for i, v := range got {
			if w := want[int(perm[i/cols])*cols+i%cols]; v != w {
				t.Fatalf("%v: element %d is %v, without permutation %v", n, i, v, w)
			}
		}
		compared++
	}
	if compared != 3 {
		t.Errorf("%d weights compared, want those of queries, keys and values", compared)
	}
}

// GPTQ takes off at least two fifths of what rounding to nearest adds to the perplexity.
func TestGPTQPerplexity(t *testing.T) {
	t.Parallel()
	float := metric(t, load(t, "opt-nano"), "ppl", "nano_eval_128.npy", 64)
	var rise []float64
	for _, steps := range []string{"fold, gptq, fakequant", "fold, fakequant"} {
		m, _ := quantized(t, "opt-nano", `
policy:
  default: {weights: int4/axis=out, inputs: none}
  head: {weights: none}
passes: [`+steps+`]
`, "nano_calib_128.npy", 64)
		rise = append(rise, metric(t, m, "ppl", "nano_eval_128.npy", 64)-float)
	}
	if r := rise[0] / rise[1]; !(r <= .6) {
		t.Errorf("the perplexity rises by %.3f, with rounding to nearest by %.3f: ratio %.2f, want at most 0.60", rise[0], rise[1], r)
	}
}
