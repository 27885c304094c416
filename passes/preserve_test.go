package passes_test

import (
	"fmt"
	"iter"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/testdata/shared"
)

// What the models of the zoo are calibrated on, and how many of their groups of products a rewrite must reach.
var zooData = map[string]string{
	"opt-mini": "calib_256.npy", "llama-mini": "calib_256.npy", "opt-nano": "nano_calib_128.npy", "opt-nano-outlier": "nano_calib_128.npy",
	"llama-nano": "nano_calib_128.npy", "bert-mini": "subjectivity_calib128.npz", "vit-mini": "cifar10_calib128.npz",
	"resnet-mini": "cifar10_calib128.npz", "mobilenet-mini": "cifar10_calib128.npz", "unet-mini": "unet_calib64.npz", "conv-nano": "shapes_calib64.npz",
}

func zooSamples(t *testing.T, model string, m *ir.Model, count int) ir.Samples {
	t.Helper()
	data, err := frontend.OpenData(filepath.Join(shared.Dir(t), "zoo", "data", zooData[model]), m, frontend.DataOptions{Count: count})
	if err != nil {
		t.Fatal(err)
	}
	return data.Samples()
}

// both yields the outputs of two models on each sample.
func both(t *testing.T, a, b *ir.Model, samples ir.Samples) iter.Seq2[ir.Tensors, ir.Tensors] {
	t.Helper()
	pa, err := runtime.Compile(a)
	if err != nil {
		t.Fatal(err)
	}
	pb, err := runtime.Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	return func(yield func(ya, yb ir.Tensors) bool) {
		for in, err := range samples() {
			if err != nil {
				t.Fatal(err)
			}
			ya, err := pa.Run(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			yb, err := pb.Run(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if !yield(ya, yb) {
				return
			}
		}
	}
}

// relative returns the largest difference between the outputs of two models on samples, as a share of the largest magnitude.
func relative(t *testing.T, a, b *ir.Model, samples ir.Samples) float64 {
	t.Helper()
	worst := math.NaN() // until there is a sample
	for ya, yb := range both(t, a, b, samples) {
		for name := range ya {
			x, _ := ya[name].Float32s()
			y, _ := yb[name].Float32s()
			var most, diff float64
			for i := range x {
				most = max(most, math.Abs(float64(x[i])))
				diff = max(diff, math.Abs(float64(x[i])-float64(y[i])))
			}
			if worst = max(worst, diff/most); worst != worst {
				worst = diff / most
			}
		}
	}
	return worst
}

// second returns the second of some samples alone.
func second(samples ir.Samples) ir.Samples {
	return func() iter.Seq2[ir.Tensors, error] {
		return func(yield func(ir.Tensors, error) bool) {
			i := 0
			for s, err := range samples() {
				if i++; err != nil || i == 2 {
					yield(s, err)
					return
				}
			}
		}
	}
}

// smoothquant, equalize and the gathered layout of rptq, before anything is quantized, leave every model of the zoo within 1e-4 of what it
// computes, on another sample than that on which they prove themselves.
func TestZooPreserved(t *testing.T) {
	t.Parallel()
	cases := []struct {
		steps string
		edits map[string]int    // groups rewritten at least; 0 where a model has no such place
		forms map[string]string // of rptq: how channels lie at its places
	}{
		{steps: "fold; smoothquant", edits: map[string]int{"opt-mini": 12, "llama-mini": 12, "opt-nano": 8, "opt-nano-outlier": 8, "llama-nano": 8, "bert-mini": 12,
			"vit-mini": 16, "unet-mini": 12}},
		{steps: "fold; smoothquant sites=all", edits: map[string]int{"opt-mini": 25, "llama-mini": 25, "opt-nano": 17, "opt-nano-outlier": 17, "llama-nano": 17, "bert-mini": 26,
			"vit-mini": 34, "resnet-mini": 20, "mobilenet-mini": 24, "unet-mini": 49, "conv-nano": 7}},
		{steps: "fold; equalize", edits: map[string]int{"opt-mini": 12, "llama-mini": 12, "opt-nano": 8, "opt-nano-outlier": 8, "llama-nano": 8, "bert-mini": 6,
			"vit-mini": 8, "resnet-mini": 9, "mobilenet-mini": 1, "unet-mini": 6, "conv-nano": 1}},
		{steps: "fold; rptq layout=gather", forms: map[string]string{
			"opt-mini":         "R1 gathered 18, R2 ordered 12, R3 ordered 12, R4 gathered 6, R4 per axis 1, R5 ordered 6", // the head's weight is the table of tokens
			"llama-mini":       "R1 gathered 18, R2 gathered 12, R3 ordered 12, R4 gathered 12, R4 per axis 1, R5 ordered 6",
			"opt-nano":         "R1 gathered 12, R2 ordered 8, R3 ordered 8, R4 gathered 5, R5 ordered 4",
			"opt-nano-outlier": "R1 gathered 12, R2 ordered 8, R3 ordered 8, R4 gathered 5, R5 ordered 4",
			"llama-nano":       "R1 gathered 12, R2 gathered 8, R3 ordered 8, R4 gathered 9, R5 ordered 4",
			"bert-mini":        "R1 gathered 18, R2 ordered 12, R3 ordered 12, R4 gathered 6, R5 gathered 1, R5 ordered 7", // the pooler reads a norm's result
			"vit-mini":         "R1 gathered 24, R2 ordered 16, R3 ordered 16, R4 gathered 8, R5 gathered 1, R5 ordered 8",
			"resnet-mini":      "R5 gathered 1", // the residual's channels are read by convolutions too
			"mobilenet-mini":   "R5 ordered 1",
			"unet-mini":        "R1 gathered 18, R2 ordered 12, R3 ordered 12, R4 gathered 3, R5 gathered 1, R5 ordered 10", // sines and cosines go in pairs
			"conv-nano":        "R5 ordered 1",
		}},
	}
	for model := range zooData {
		t.Run(model, func(t *testing.T) {
			t.Parallel()
			original := load(t, model)
			p, err := passes.ParsePipeline("fold")
			if err != nil {
				t.Fatal(err)
			}
			u := &passes.Unit{Model: original, Samples: zooSamples(t, model, original, 1)}
			if err := p.Run(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			for _, c := range cases {
				m, _ := original.Clone()
				if p, err = passes.ParsePipeline(c.steps); err != nil {
					t.Fatal(err)
				}
				u := &passes.Unit{Model: m, Samples: zooSamples(t, model, m, 1), Policy: &passes.Policy{}}
				if err := u.Policy.Default.Set(numfmt.Input, "int8"); err != nil {
					t.Fatal(err)
				}
				if err := p.Run(t.Context(), u); err != nil {
					t.Fatal(err)
				}
				e := u.Report.Passes[1]
				edits := e.Edits
				if c.forms != nil {
					if forms := strip(u.Model, e); forms != c.forms[model] {
						t.Errorf("%s: %s, wanted %s", c.steps, forms, c.forms[model])
					}
				}
				if edits < c.edits[model] {
					t.Errorf("%s: %d places were rewritten, wanted at least %d; left: %v", c.steps, edits, c.edits[model], e.Skipped)
				}
				if d := relative(t, original, u.Model, second(zooSamples(t, model, m, 4))); !(d <= 1e-4) {
					t.Errorf("%s: the outputs moved by %.3g of their largest magnitude, wanted at most 1e-4", c.steps, d)
				} else {
					t.Logf("%s: %d places, outputs moved by %.2g", c.steps, edits, d)
				}
			}
		})
	}
}

// strip takes the quantizers out and tells, for each of RPTQ's places and each form in which channels lie there, how many
// operands of products have it.
func strip(m *ir.Model, e *passes.PassEntry) string {
	for n := range m.Nodes() {
		if op.RoleOf(n) == op.QuantRole {
			n.Out(0).ReplaceUses(n.In(0))
		}
	}
	m.Graph.Prune()
	forms := map[string]int{}
	for _, c := range e.Changed {
		_, what, ok := strings.Cut(c.What, ": R")
		if !ok {
			continue // probabilities
		}
		_, form, _ := strings.Cut(what, " bits, ")
		form, _, _ = strings.Cut(form, ", since")
		form, _, _ = strings.Cut(form, " by columns")
		forms["R"+what[:1]+" "+form]++
	}
	var all []string
	for _, f := range slices.Sorted(maps.Keys(forms)) {
		all = append(all, fmt.Sprintf("%s %d", f, forms[f]))
	}
	return strings.Join(all, ", ")
}
