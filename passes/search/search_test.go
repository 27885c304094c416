package search_test

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/passes/recipe"
	"github.com/qsimc/qsimc/passes/search"
	"github.com/qsimc/qsimc/runtime/eval"
	"github.com/qsimc/qsimc/testdata/shared"
)

func TestClosedForm(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		c, n        []float64
		mean        float64
		least, most float64
		want        []float64
	}{
		// c/n of 1, 4, 16: half a log2 of 0, 1, 2, mean 1.
		{"equal sizes", []float64{1, 4, 16}, []float64{1, 1, 1}, 4, 2, 8, []float64{3, 4, 5}},
		{"equal density", []float64{2, 6}, []float64{2, 6}, 4.5, 2, 8, []float64{4.5, 4.5}},
		{"clamped above, the rest shared", []float64{1, 1, math.Pow(4, 10)}, []float64{1, 1, 1}, 4, 2, 6, []float64{3, 3, 6}},
		{"clamped below", []float64{math.Pow(4, -10), 1, 1}, []float64{1, 1, 1}, 4, 2, 8, []float64{2, 5, 5}},
		{"no loss", []float64{0, 1}, []float64{1, 1}, 4, 2, 8, []float64{2, 6}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := search.ClosedForm(c.c, c.n, c.mean, c.least, c.most)
			for i := range got {
				if math.Abs(got[i]-c.want[i]) > 1e-9 {
					t.Fatalf("got %v, want %v", got, c.want)
				}
			}
		})
	}
}

func start(t *testing.T, model, calib, yaml string, measure int) *search.Analyzer {
	t.Helper()
	m, err := frontend.Load(model)
	if err != nil {
		t.Fatal(err)
	}
	r, err := recipe.Parse("r.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Pipeline()
	if err != nil {
		t.Fatal(err)
	}
	data, err := frontend.OpenData(calib, m, frontend.DataOptions{Count: 8})
	if err != nil {
		t.Fatal(err)
	}
	a, err := search.Start(context.Background(), search.Config{Model: m, Policy: &r.Policy, Pipeline: p, Samples: data.Samples(), Measure: measure})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// In opt-nano-outlier four channels of every LayerNorm output were scaled up and the weights that read them down: the 17 sites
// that read those outputs (q, k, v and fc1 of four layers, and the head) must rank before all others.
func TestOutlierRanking(t *testing.T) {
	t.Parallel()
	zoo := filepath.Join(shared.Dir(t), "zoo")
	a := start(t, filepath.Join(zoo, "opt-nano-outlier", "model.onnx"), filepath.Join(zoo, "data", "nano_calib_128.npy"),
		"policy: {default: {weights: int8/axis=out, inputs: int8}}\npasses: [fold, fakequant]", 1)
	rows, err := a.Sensitivity(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if a.Metric != search.KL || len(rows) != 35 {
		t.Fatalf("%s over %d sites, want kl over 35", a.Metric, len(rows))
	}
	injected := func(site string) bool {
		for _, part := range []string{"q_proj", "k_proj", "v_proj", "fc1", "lm_head"} {
			if strings.Contains(site, part) {
				return true
			}
		}
		return false
	}
	for i, r := range rows {
		if injected(r.Site) != (i < 17) {
			t.Errorf("rank %d: %s, loss %.3g", i+1, r.Site, r.Alone)
		}
	}
}

// The search must beat the uniform recipe with no more bits, and what it writes must be what it measured.
func TestBudget(t *testing.T) {
	t.Parallel()
	a := start(t, "../../testdata/opt-nano/model.onnx", "../../testdata/data/nano_calib_128.npy",
		"policy: {default: {weights: int4/axis=out, inputs: none}}\npasses: [fold, fakequant]", 1)
	plan, err := a.Budget(context.Background(), search.Goal{Bits: 4.2, Effort: 4})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Uniform == nil || plan.Uniform.Scheme != "int4/axis=out" {
		t.Fatalf("uniform is %+v, want int4/axis=out", plan.Uniform)
	}
	if plan.Bits > 4.2 || !(plan.Loss < plan.Uniform.Loss) {
		t.Errorf("%.3f bits, loss %.4g; want at most 4.2 bits and less than the uniform %.4g", plan.Bits, plan.Loss, plan.Uniform.Loss)
	}
	if len(plan.Rules) == 0 {
		t.Error("no rules")
	}
	if _, err := a.Budget(context.Background(), search.Goal{Bits: 1}); err == nil || !strings.Contains(err.Error(), "too few") {
		t.Errorf("one bit a weight: got %v, want an error that says it is too few", err)
	}
}

// With no more bits than four for each weight of opt-nano-outlier take, the recipe that is found must lose less than four for
// each, on the samples it was found with and in the perplexity of other text.
func TestEqualBits(t *testing.T) {
	t.Parallel()
	zoo := filepath.Join(shared.Dir(t), "zoo")
	ctx := context.Background()
	a := start(t, filepath.Join(zoo, "opt-nano-outlier", "model.onnx"), filepath.Join(zoo, "data", "nano_calib_128.npy"),
		"policy: {default: {weights: int4/axis=out, inputs: none}}\npasses: [fold, fakequant]", 1)
	// Rows of 128 with a scale of 32 bits take 4.25 bits a weight; the products of 65 536 weights whose rows have 512 take 4.0625.
	const uniform = (4*(4*16384+65536)*4.25 + 4*65536*4.0625 + 131072*4.25) / (4*(4*16384+2*65536) + 131072)
	plan, err := a.Budget(ctx, search.Goal{Bits: uniform, Effort: 4})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Uniform == nil || plan.Uniform.Scheme != "int4/axis=out" || math.Abs(plan.Uniform.Bits-uniform) > 1e-9 {
		t.Fatalf("uniform is %+v, want int4/axis=out with %.6f bits", plan.Uniform, uniform)
	}
	if plan.Bits > plan.Uniform.Bits || !(plan.Loss < plan.Uniform.Loss) {
		t.Errorf("%.6f bits, loss %.4g; want no more than %.6f bits and less than %.4g", plan.Bits, plan.Loss, plan.Uniform.Bits, plan.Uniform.Loss)
	}
	ppl := map[bool]float64{}
	for _, u := range []bool{false, true} {
		m, err := a.Model(ctx, plan, u)
		if err != nil {
			t.Fatal(err)
		}
		data, err := frontend.OpenData(filepath.Join(zoo, "data", "nano_eval_128.npy"), m, frontend.DataOptions{Count: 8})
		if err != nil {
			t.Fatal(err)
		}
		r, err := eval.Run(ctx, m, data, eval.Options{Metric: "ppl"})
		if err != nil {
			t.Fatal(err)
		}
		ppl[u] = r.Value
	}
	if !(ppl[false] < ppl[true]) {
		t.Errorf("perplexity %.4f, want less than the uniform %.4f", ppl[false], ppl[true])
	}
	t.Logf("%.4f bits: KL %.4f for %.4f, perplexity %.3f for %.3f", plan.Bits, plan.Loss, plan.Uniform.Loss, ppl[false], ppl[true])
}

// What the policy's own passes would fit to it is left out, and every other pass runs.
func TestLeftOut(t *testing.T) {
	t.Parallel()
	a := start(t, "../../testdata/conv-nano/model.onnx", "../../testdata/data/shapes_calib64.npz",
		"policy: {default: {weights: int4/axis=out, inputs: int8}}\npasses: [fold, smoothquant, awq, rptq, gptq, biascorrect, fakequant]", 1)
	if got, want := fmt.Sprint(a.LeftOut), "[awq rptq gptq biascorrect]"; got != want {
		t.Errorf("left out %s, want %s", got, want)
	}
}

func TestProxies(t *testing.T) {
	t.Parallel()
	a := start(t, "../../testdata/conv-nano/model.onnx", "../../testdata/data/shapes_calib64.npz",
		"policy: {default: {weights: int4/axis=out, inputs: int8}}\npasses: [fold, fakequant]", 4)
	rows, err := a.Proxies(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 7 {
		t.Fatalf("%d sites, want 7", len(rows))
	}
	for i, r := range rows {
		if !(r.Score > 0) || i > 0 && r.Score > rows[i-1].Score || math.IsNaN(float64(r.WeightSQNR)) || math.IsNaN(float64(r.InputSQNR)) {
			t.Errorf("rank %d: %+v", i+1, r)
		}
	}
}
