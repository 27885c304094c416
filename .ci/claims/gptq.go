package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// gptq checks (f): 64 sequences to calibrate on and 64 to measure, the head left float.
func gptq(ctx context.Context, v *verdicts, zoo string, mini bool) error {
	const most = 0.60
	models := []struct{ name, calib, test string }{
		{"opt-nano", "nano_calib_128", "nano_eval_128"}, {"llama-nano", "nano_calib_128", "nano_eval_128"},
		{"opt-mini", "calib_256", "books_test_256"}, {"llama-mini", "calib_256", "books_test_256"},
	}
	if !mini {
		models = models[:2]
	}
	for _, m := range models {
		data := func(name string) string { return filepath.Join(zoo, "data", name+".npy") }
		c := &checker{ctx: ctx, model: filepath.Join(zoo, m.name, "model.onnx"), test: data(m.test), calib: data(m.calib), count: 64, samples: 64}
		float, err := c.perplexity("")
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		for _, scheme := range []string{"int4/axis=out", "int4/block=64", "int3/axis=out", "int3/block=64"} {
			recipe := fmt.Sprintf("policy: {default: {weights: %s}, sites: [{match: '*lm_head*', weights: none}]}", scheme)
			var ppl [2]float64
			for i, before := range [][]string{nil, {"gptq actorder=true drift=1"}} {
				c.before = before
				if ppl[i], err = c.perplexity(recipe); err != nil {
					return fmt.Errorf("%s %s: %w", m.name, scheme, err)
				}
			}
			share := (ppl[1] - float) / (ppl[0] - float)
			v.claim(share <= most, "(f) %s %s: GPTQ %.3f, nearest %.3f, float %.3f: %.2f of the rise; at most %.2f wanted", m.name, scheme, ppl[1], ppl[0], float, share, most)
		}
	}
	return nil
}
