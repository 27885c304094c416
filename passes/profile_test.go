package passes_test

import (
	"context"
	"iter"
	"math"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/passes/recipe"
)

const profiled = `<ir_version: 10, opset_import: ["" : 21]>
two (float[2,4] x) => (float[2,2] y)
<float[4,2] w = {1, 0.5, -1, 0.25, 0.5, -0.5, 0.25, 1}>
{
  y = MatMul (x, w)
}
`

func profileUnit(t *testing.T, policy string) *passes.Unit {
	t.Helper()
	m, err := ir.Parse("two.onnxtxt", []byte(profiled))
	if err != nil {
		t.Fatal(err)
	}
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	r, err := recipe.Parse("r.yaml", []byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	samples := func(yield func(ir.Tensors, error) bool) {
		if yield(ir.Tensors{"x": ir.Floats([]float32{1, 2, -3, 40, 0, 0.5, 1, -40}, 2, 4)}, nil) {
			yield(ir.Tensors{"x": ir.Floats([]float32{-1, 2, 3, 20, 0, 0.5, 1, 10}, 2, 4)}, nil)
		}
	}
	return &passes.Unit{Model: m, Policy: &r.Policy, Samples: func() iter.Seq2[ir.Tensors, error] { return samples }, Profile: true}
}

func TestProfiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, policy string
		levels       int
	}{
		{"static int4", "policy: {default: {weights: int4/axis=out, inputs: int4}}", 15},
		{"unsigned", "policy: {default: {weights: int4/axis=out, inputs: uint8}}", 256},
		{"dynamic blocks", "policy: {default: {weights: int4/block=2, inputs: e2m1/abfp:2}}", 15},
		{"no scales", "policy: {default: {weights: int8/axis=out, inputs: fp16}}", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := profileUnit(t, c.policy)
			p, err := passes.ParsePipeline("fakequant")
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Run(context.Background(), u); err != nil {
				t.Fatal(err)
			}
			if len(u.Report.Profiles) != 2 {
				t.Fatalf("%d profiles, want that of w and that of x", len(u.Report.Profiles))
			}
			for i, want := range []float64{8, 16} { // elements of w, and of x in two samples
				got := u.Report.Profiles[i]
				sum := got.Below + got.Above
				for _, n := range got.Count {
					sum += n
				}
				if sum != want || len(got.Sites) != 1 || got.Sites[0] != "y" {
					t.Errorf("%s: %v values for sites %v, want %v for y", got.Value, sum, got.Sites, want)
				}
			}
			x := u.Report.Profiles[1]
			if len(x.Levels) != c.levels {
				t.Errorf("%d levels %v, want %d", len(x.Levels), x.Levels, c.levels)
			}
			channel, ratio := x.Outlier() // channels 1, 2, 3, 40
			if channel != 3 || math.Abs(ratio-16) > 1e-6 {
				t.Errorf("outlier channel %d, %v times the median, want 3, 16 times", channel, ratio)
			}
		})
	}
}

// What the first run has fitted the second takes, without samples.
func TestFits(t *testing.T) {
	t.Parallel()
	const policy = "policy: {default: {weights: int4/axis=out, inputs: int8}}"
	p, err := passes.ParsePipeline("fakequant measure=0")
	if err != nil {
		t.Fatal(err)
	}
	var fits passes.Fits
	var text []string
	for run := range 2 {
		u := profileUnit(t, policy)
		u.Fits, u.Profile = &fits, false
		if run > 0 {
			u.Samples = nil
		}
		if err := p.Run(context.Background(), u); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := ir.Print(&b, u.Model); err != nil {
			t.Fatal(err)
		}
		text = append(text, b.String())
	}
	if text[0] != text[1] {
		t.Errorf("the second run gives\n%s\nthe first\n%s", text[1], text[0])
	}
}
