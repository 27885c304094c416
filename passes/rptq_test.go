package passes_test

import (
	"math"
	"path/filepath"
	"slices"
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
	u := quantizedUnit(t, model, text, samples, count)
	return u.Model, u.Report
}

// quantizedUnit does, and returns all that the passes leave.
func quantizedUnit(t *testing.T, model, text, samples string, count int) *passes.Unit {
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
	return u
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

// The two layouts of RPTQ are the same model: every constant has the same values once the permutations are undone. What is left is
// the order of sums: values at the borders of codes go to the other side, and the perplexity moves by less than 0.3 %.
func TestRPTQLayouts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		model    string
		permuted int // constants
	}{{"opt-nano", 4*6 + 4*4}, {"llama-nano", 4 * 7}} { // products, and the biases of queries, keys, values and the wider layer
		t.Run(c.model, func(t *testing.T) {
			t.Parallel()
			units, ppl := map[string]*passes.Unit{}, map[string]float64{}
			for _, layout := range []string{"axis", "gather"} {
				units[layout] = quantizedUnit(t, c.model, `
policy:
  default: {weights: int4/axis=out/asym, inputs: int8}
  head: {weights: none, inputs: none}
passes: [fold, "rptq range=max layout=`+layout+`", gptq, fakequant, lower]
`, "nano_calib_128.npy", 3)
				ppl[layout] = metric(t, units[layout].Model, "ppl", "nano_eval_128.npy", 3)
			}
			t.Logf("perplexities %v", ppl)
			if r := ppl["gather"]/ppl["axis"] - 1; math.Abs(r) > .003 {
				t.Errorf("perplexities %v differ by %.2f %%, want at most 0.3 %%", ppl, 100*r)
			}
			if abfp := perplexity(t, load(t, c.model), c.model, "abfp-w4a8", "nano_eval_128.npy", 3); ppl["axis"] > 1.1*abfp {
				t.Errorf("perplexity %.3f at W4A8, want at most 1.1 times that of ABFP, %.3f", ppl["axis"], abfp)
			}
			permuted := 0
			for _, v := range units["gather"].Model.Graph.Consts() {
				got, moved, err := units["gather"].AsMade(v)
				if err != nil {
					t.Fatal(err)
				}
				other := units["axis"].Model.Find(v.Name)
				if other == nil && !moved || !got.Elem().IsFloat() {
					continue // of the Gathers, Splits and quantizers
				}
				if other == nil {
					t.Fatalf("the other layout has no constant %q", v.Name)
				}
				if moved {
					permuted++
				}
				x, _ := got.Float32s()
				y, _ := other.Const().Float32s()
				if !slices.Equal(x, y) {
					t.Errorf("constant %q has other values than without permutation", v.Name)
				}
			}
			if permuted != c.permuted {
				t.Errorf("%d constants were permuted, want %d", permuted, c.permuted)
			}
		})
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
