package passes

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/calib"
)

// fitWeights fits every weight to its values, or takes what an earlier pass fitted, and measures the error. Those that
// seqMSE fits are left to it.
func (in *inserter) fitWeights() error {
	var weights []*quantizer
	for _, q := range in.quants {
		if q.role == numfmt.Weight && in.seq[q] == nil {
			weights = append(weights, q)
		}
	}
	for i, q := range weights {
		in.u.at(q.key.value.Name)
		in.u.progress("weights", i, len(weights))
		if !in.u.hasFit(q.key.value) && in.u.Fits.take(q) {
			continue
		}
		if err := in.fitWeight(q); err != nil {
			return fmt.Errorf("weight %q: %w", q.key.value.Name, err)
		}
		if err := in.u.keepParams(&q.params); err != nil {
			return fmt.Errorf("weight %q: %w", q.key.value.Name, err)
		}
		if !in.u.hasFit(q.key.value) {
			in.u.Fits.keep(q)
		}
		release(op.ConstantOf(q.key.value))
	}
	in.u.progress("weights", len(weights), len(weights))
	return nil
}

// weightOf returns a weight's values, placed.
func weightOf(q *quantizer) ([]float32, numfmt.Layout, error) {
	t := op.ConstantOf(q.key.value)
	if err := t.Load(); err != nil {
		return nil, numfmt.Layout{}, err
	}
	x, ok := t.Float32s()
	if !ok {
		return nil, numfmt.Layout{}, fmt.Errorf("has type %v, wanted a float type", t.Elem())
	}
	l, err := q.key.scheme.Layout(t.Shape(), q.key.axes)
	return x, l, err
}

func (in *inserter) fitWeight(q *quantizer) error {
	x, l, err := weightOf(q)
	if err != nil {
		return err
	}
	q.axis = l.Axis
	s := q.key.scheme
	fitted, ok := in.u.fitted[fitKey{q.key.value, s, l.Axis}]
	switch {
	case ok:
		q.params = fitted.params
		return q.measureRounded(x, fitted.from, l)
	case in.ranges == "max" || !s.Scaled() || s.FromData() || len(x) == 0:
		if q.params, err = s.FitData(x, l); err != nil {
			return err
		}
	default:
		lo, hi, err := calib.WeightBounds(in.ranges, s, x, l)
		if err != nil {
			return err
		}
		if q.params, err = s.FitLayout(lo, hi, l); err != nil {
			return err
		}
	}
	return q.measureWeight(x, l)
}

// measureRounded measures values that an earlier pass rounded against those that it had.
func (q *quantizer) measureRounded(x []float32, from *ir.Tensor, l numfmt.Layout) error {
	if err := from.Load(); err != nil {
		return err
	}
	defer release(from)
	before, ok := from.Float32s()
	if !ok || len(before) != len(x) {
		return fmt.Errorf("was rounded from %v, wanted %d floats", from.Type(), len(x))
	}
	if err := q.stats.addRounded(0, q.key.scheme, l, q.params, before, x); err != nil {
		return err
	}
	return q.finishMeasures(x, l)
}

// measureWeight measures what the fitted parameters do to the values.
func (q *quantizer) measureWeight(x []float32, l numfmt.Layout) error {
	if err := q.stats.add(0, q.key.scheme, l, q.params, x); err != nil {
		return err
	}
	return q.finishMeasures(x, l)
}

// finishMeasures fills in what does not depend on the rounding error.
func (q *quantizer) finishMeasures(x []float32, l numfmt.Layout) error {
	q.stats.bits = q.key.scheme.BitsPerValue(l)
	q.amax = q.stats.amax
	if q.profile == nil {
		return nil
	}
	q.profile.bounds(x)
	return q.profileFor(l, x)
}
