package main

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"runtime/debug"
	"slices"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/runtime"
)

// checkHold bounds the weights that the check's programs keep ready; the model may be larger than memory.
const checkHold = 64 << 20

// measuredHold is the bound where several samples run.
const measuredHold = 256 << 20

// measured is the number of feeds over which the report compares the result with the original.
const measured = 4

// check reads the file back, verifies it, and compares one run with that of the graph in memory. Where the report is to measure
// samples, what the file makes of them is kept for it.
func (j *rewriting) check(ctx context.Context, file string) error {
	back, err := frontend.Load(file)
	if err != nil {
		return err
	}
	if err := op.Verify(back); err != nil {
		return err
	}
	data, n, hold := j.data, measured, int64(measuredHold)
	if data == nil {
		n, hold = 1, checkHold
		if data, err = frontend.OpenData(frontend.Synthetic, j.unit.Model, frontend.DataOptions{Count: 1, Seed: uint64(j.seed)}); err != nil {
			j.log().Warn("the result was not run: " + err.Error())
			return nil
		}
	}
	var want ir.Tensors
	err = j.outputs(ctx, j.unit.Model, data.Samples(), 1, hold, func(_ int, out ir.Tensors) (err error) {
		want, err = j.keep(out)
		return err
	})
	if errors.Is(err, op.ErrUnsupported) {
		j.log().Warn("the result was not run: " + err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	err = j.outputs(ctx, back, data.Samples(), n, hold, func(_ int, out ir.Tensors) error {
		for name, t := range want {
			if out[name] == nil || !slices.Equal(t.Bytes(), out[name].Bytes()) {
				return fmt.Errorf("output %q differs from that of the graph in memory", name)
			}
		}
		want = nil
		if j.data == nil {
			return nil
		}
		kept, err := j.keep(out)
		j.results = append(j.results, kept)
		return err
	})
	return err
}

// measure compares the outputs of the result with the original's on the first samples.
func (j *rewriting) measure(ctx context.Context, original *ir.Model) error {
	if j.results == nil {
		return nil
	}
	model, samples := original, j.data.Samples()
	if r := j.unit.Reference; r.Rest != nil && len(r.Feeds) >= len(j.results) { // a pass has run the most of it
		model, samples = r.Rest, r.Runs
	}
	outputs := original.Graph.Outputs()
	diffs := make([]difference, len(outputs))
	err := j.outputs(ctx, model, samples, len(j.results), measuredHold, func(i int, out ir.Tensors) error {
		for k, o := range outputs {
			diffs[k].name = o.Name
			if err := diffs[k].Add(out[o.Name], j.results[i][o.Name]); err != nil {
				return fmt.Errorf("output %q: %w", o.Name, err)
			}
		}
		return nil
	})
	if errors.Is(err, op.ErrUnsupported) {
		return nil // the original is no model that runs
	}
	if err != nil {
		return err
	}
	for _, d := range diffs {
		j.unit.Report.Outputs = append(j.unit.Report.Outputs, passes.OutputEntry{
			Name: d.name, SQNR: passes.Measure(d.SQNR()), Cosine: passes.Measure(d.Cosine()), MaxDiff: passes.Measure(d.MaxAbs),
		})
	}
	return nil
}

// outputs runs a model over the first n samples. What see gets is lent to it.
func (j *rewriting) outputs(ctx context.Context, m *ir.Model, samples ir.Samples, n int, hold int64, see func(i int, out ir.Tensors) error) error {
	debug.FreeOSMemory() // what came before is done: one program's memory at a time
	o := j.unit.Runtime
	if o.Hold, o.RunOnly = hold, true; o.MaxMemory > 0 {
		o.Hold = min(hold, o.MaxMemory/2)
	}
	p, err := runtime.CompileWith(ctx, m, o)
	if err != nil {
		return err
	}
	i := 0
	for in, err := range samples() {
		if err != nil {
			return err
		}
		goruntime.GC() // weights that the run before made ready
		if err := p.Lend(ctx, in, func(out ir.Tensors) error { return see(i, out) }); err != nil {
			return err
		}
		if i++; i == n {
			break
		}
	}
	return nil
}

// keep returns copies of tensors, in scratch where they are large.
func (j *rewriting) keep(out ir.Tensors) (ir.Tensors, error) {
	kept := ir.Tensors{}
	for name, t := range out {
		var err error
		if kept[name], err = j.unit.KeepCopy(t); err != nil {
			return nil, err
		}
	}
	return kept, nil
}
