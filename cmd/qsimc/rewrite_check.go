package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/ir/store"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/runtime"
)

// checkHold bounds the weights that the check keeps ready; the model may be larger than memory.
const checkHold = 64 << 20

// check reads the file back, verifies it, and compares one run with that of the graph in memory.
func (j *rewriting) check(ctx context.Context, file string) error {
	back, err := frontend.Load(file)
	if err != nil {
		return err
	}
	if err := op.Verify(back); err != nil {
		return err
	}
	once := j.unit.Runtime
	once.Hold = checkHold // one run makes no use of weights that are kept
	data := j.data
	if data == nil {
		if data, err = frontend.OpenData(frontend.Synthetic, j.unit.Model, frontend.DataOptions{Count: 1, Seed: uint64(j.seed)}); err != nil {
			j.log().Warn("the result was not run: " + err.Error())
			return nil
		}
	}
	var want ir.Tensors
	for _, m := range []*ir.Model{j.unit.Model, back} { // one program at a time
		got, err := runOnce(ctx, m, once, data)
		if errors.Is(err, op.ErrUnsupported) && want == nil {
			j.log().Warn("the result was not run: " + err.Error())
			return nil
		}
		if err != nil {
			return err
		}
		for name, t := range want {
			if got[name] == nil || !slices.Equal(t.Bytes(), got[name].Bytes()) {
				return fmt.Errorf("output %q differs from that of the graph in memory", name)
			}
		}
		want = got
	}
	return nil
}

// runOnce runs a model on the first sample.
func runOnce(ctx context.Context, m *ir.Model, o runtime.Options, data *frontend.Data) (ir.Tensors, error) {
	p, err := runtime.CompileWith(ctx, m, o)
	if err != nil {
		return nil, err
	}
	for feed, err := range data.Feeds() {
		if err != nil {
			return nil, err
		}
		return p.Run(ctx, feed.Tensors)
	}
	return ir.Tensors{}, nil
}

// measuredHold bounds the weights that are kept ready for the report's few runs.
const measuredHold = 256 << 20

// measured is the number of feeds over which the report compares the result with the original.
const measured = 4

// measure compares the outputs of the result with the original's on the first samples.
func (j *rewriting) measure(ctx context.Context, original *ir.Model) error {
	if j.data == nil || j.flags.noCheck {
		return nil
	}
	diffs, err := j.compare(ctx, original)
	if errors.Is(err, op.ErrUnsupported) {
		return nil // check has said so
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

// compare is compareOutputs for the few samples of the report with one program in memory at a time: the outputs of the first wait
// in scratch.
func (j *rewriting) compare(ctx context.Context, original *ir.Model) (diffs []difference, err error) {
	var kept []ir.Tensors
	names, err := j.outputs(ctx, original, func(out ir.Tensors) error {
		for name, t := range out {
			if out[name], err = keep(j.unit.Scratch, t); err != nil {
				return err
			}
		}
		kept = append(kept, out)
		return nil
	})
	if err != nil {
		return nil, err
	}
	diffs = make([]difference, len(names))
	i := 0
	_, err = j.outputs(ctx, j.unit.Model, func(out ir.Tensors) error {
		for k, name := range names {
			diffs[k].name = name
			if err := diffs[k].Add(kept[i][name], out[name]); err != nil {
				return fmt.Errorf("output %q: %w", name, err)
			}
		}
		i++
		return nil
	})
	return diffs, err
}

// outputs runs a model over the first samples.
func (j *rewriting) outputs(ctx context.Context, m *ir.Model, see func(ir.Tensors) error) (names []string, err error) {
	o := j.unit.Runtime
	o.Hold = measuredHold
	p, err := runtime.CompileWith(ctx, m, o)
	if err != nil {
		return nil, err
	}
	n := 0
	for f, err := range j.data.Feeds() {
		if err != nil {
			return nil, err
		}
		out, err := p.Run(ctx, f.Tensors)
		if err != nil {
			return nil, err
		}
		if err := see(out); err != nil {
			return nil, err
		}
		if n++; n == measured {
			break
		}
	}
	return p.Outputs(), nil
}

// keep lets a tensor's data lie in scratch.
func keep(s *store.Scratch, t *ir.Tensor) (*ir.Tensor, error) {
	if t.Elem() == ir.String {
		return t, nil
	}
	b, err := s.Keep(t.Bytes())
	if err != nil {
		return nil, err
	}
	return ir.TensorOf(t.Elem(), t.Shape(), b)
}
