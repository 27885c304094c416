package passes_test

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
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

// relative returns the largest difference between the outputs of two models on samples, as a share of the largest magnitude.
func relative(t *testing.T, a, b *ir.Model, samples ir.Samples) float64 {
	t.Helper()
	pa, err := runtime.Compile(a)
	if err != nil {
		t.Fatal(err)
	}
	pb, err := runtime.Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	worst := 0.0
	for s, err := range samples() {
		if err != nil {
			t.Fatal(err)
		}
		ya, err := pa.Run(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		yb, err := pb.Run(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		for name := range ya {
			x, _ := ya[name].Float32s()
			y, _ := yb[name].Float32s()
			var most, diff float64
			for i := range x {
				most = max(most, math.Abs(float64(x[i])))
				diff = max(diff, math.Abs(float64(x[i])-float64(y[i])))
			}
			worst = max(worst, diff/most)
		}
	}
	return worst
}

// smoothquant and equalize leave every model of the zoo within 1e-4 of what it computes.
func TestZooPreserved(t *testing.T) {
	t.Parallel()
	for model := range zooData {
		for _, c := range []struct {
			steps string
			edits map[string]int // at least; 0 where a model has no such place
		}{
			{"fold; smoothquant", map[string]int{"opt-mini": 12, "llama-mini": 12, "opt-nano": 8, "opt-nano-outlier": 8, "llama-nano": 8, "bert-mini": 12,
				"vit-mini": 16, "unet-mini": 12}},
			{"fold; smoothquant sites=all", map[string]int{"opt-mini": 25, "llama-mini": 25, "opt-nano": 17, "opt-nano-outlier": 17, "llama-nano": 17, "bert-mini": 26,
				"vit-mini": 34, "resnet-mini": 20, "mobilenet-mini": 24, "unet-mini": 49, "conv-nano": 7}},
			{"fold; equalize", map[string]int{"opt-mini": 12, "llama-mini": 12, "opt-nano": 8, "opt-nano-outlier": 8, "llama-nano": 8, "bert-mini": 6,
				"vit-mini": 8, "resnet-mini": 9, "mobilenet-mini": 1, "unet-mini": 6, "conv-nano": 1}},
		} {
			t.Run(model+"/"+c.steps, func(t *testing.T) {
				t.Parallel()
				m := load(t, model)
				p, err := passes.ParsePipeline(c.steps)
				if err != nil {
					t.Fatal(err)
				}
				u := &passes.Unit{Model: m, Samples: zooSamples(t, model, m, 1), Report: &passes.Report{}}
				before, _ := m.Clone()
				if err := p.Run(t.Context(), u); err != nil {
					t.Fatal(err)
				}
				e := u.Report.Passes[1]
				if e.Edits < c.edits[model] {
					t.Errorf("%d groups were rewritten, wanted at least %d; left: %v", e.Edits, c.edits[model], e.Skipped)
				}
				if d := relative(t, before, u.Model, zooSamples(t, model, m, 2)); !(d <= 1e-4) {
					t.Errorf("the outputs moved by %.3g of their largest magnitude, wanted at most 1e-4", d)
				} else {
					t.Logf("%d edits, outputs moved by %.2g", e.Edits, d)
				}
			})
		}
	}
}
