package passes_test

import (
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/passes/recipe"
)

// rewritten runs steps on a copy of a model under a policy.
func rewritten(t *testing.T, m *ir.Model, policy string, samples ir.Samples, steps string) (*ir.Model, *passes.Report) {
	t.Helper()
	p, err := passes.ParsePipeline(steps)
	if err != nil {
		t.Fatal(err)
	}
	pol, err := recipe.ParsePolicy("policy", []byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	c, _ := m.Clone()
	u := &passes.Unit{Model: c, Policy: pol, Samples: samples, Report: &passes.Report{}}
	if err := p.Run(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	return u.Model, u.Report
}

// noise returns the squared error of b's first output against a's over samples, relative to a's square.
func noise(t *testing.T, a, b *ir.Model, samples ir.Samples) float64 {
	t.Helper()
	first := a.Graph.Outputs()[0].Name
	var e, s float64
	for ya, yb := range both(t, a, b, samples) {
		x, _ := ya[first].Float32s()
		y, _ := yb[first].Float32s()
		for i := range x {
			d := float64(x[i]) - float64(y[i])
			e += d * d
			s += float64(x[i]) * float64(x[i])
		}
	}
	return e / s
}

// Bias correction and awq lower the error of what they are for, on models whose products have biases inside, behind, and not
// at all.
func TestCorrectionsHelp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ model, policy, step string }{
		{"conv-nano", "default: {weights: int4/tensor, inputs: int8}", "biascorrect"},
		{"mobilenet-mini", "default: {weights: int4/axis=out, inputs: int8}", "biascorrect"},
		{"opt-nano", "default: {weights: int3/axis=out, inputs: none}", "biascorrect"},
		{"opt-nano", "default: {weights: int3/axis=out, inputs: none}", "awq"},
		{"llama-nano", "default: {weights: int3/block=32, inputs: none}", "awq"},
		{"opt-nano-outlier", "default: {weights: int8/axis=out, inputs: int8}", "smoothquant alpha=auto"},
	} {
		t.Run(c.model+"/"+c.step, func(t *testing.T) {
			t.Parallel()
			m := load(t, c.model)
			samples := zooSamples(t, c.model, m, 4)
			plain, _ := rewritten(t, m, c.policy, samples, "fold; fakequant")
			better, report := rewritten(t, m, c.policy, samples, "fold; "+c.step+"; fakequant")
			a, b := noise(t, m, plain, samples), noise(t, m, better, samples)
			t.Logf("relative error %.4g without, %.4g with", a, b)
			if b >= a {
				t.Errorf("relative squared error %.4g with %s, wanted less than the %.4g without", b, c.step, a)
			}
			if e := report.Passes[1]; e.Edits == 0 || len(e.Changed) == 0 {
				t.Errorf("%d edits, %d sites changed, wanted some", e.Edits, len(e.Changed))
			}
		})
	}
}

// Without samples the passes that measure say so.
func TestCorrectionsWantSamples(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"biascorrect", "awq", "smoothquant"} {
		m := load(t, "opt-nano")
		p, err := passes.ParsePipeline("fold; " + step)
		if err != nil {
			t.Fatal(err)
		}
		pol, err := recipe.ParsePolicy("policy", []byte("default: {weights: int8, inputs: int8/token}"))
		if err != nil {
			t.Fatal(err)
		}
		err = p.Run(t.Context(), &passes.Unit{Model: m, Policy: pol})
		if err == nil || !strings.Contains(err.Error(), "give samples") {
			t.Errorf("%s: got error %v, wanted one that asks for samples", step, err)
		}
	}
}
