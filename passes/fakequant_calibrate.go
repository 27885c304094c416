package passes

import (
	"context"
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/runtime/calib"
)

// calibrate fits the static activations to the samples.
func (in *inserter) calibrate(ctx context.Context) error {
	var static []*quantizer
	for _, q := range in.quants {
		if q.role != numfmt.Weight && q.key.scheme.Scaled() && !q.key.scheme.Dynamic && !in.u.Fits.take(q) {
			static = append(static, q)
		}
	}
	if static == nil {
		return nil
	}
	if in.u.Samples == nil {
		return fmt.Errorf("%d activations want static scales, the first is %q with scheme %v: give samples to calibrate them on",
			len(static), static[0].key.value.Name, static[0].key.scheme)
	}
	method, err := in.u.Policy.method()
	if err != nil {
		return err
	}
	ranges := make([]*calib.Range, len(static))
	known := make([]*bounds, len(static)) // from the cache
	var probes []calib.Probe
	for i, q := range static {
		var block int
		if q.axis, block = staticAxis(q.key.scheme, q.key.axes, q.key.value.Type.Rank()); block > 1 && !q.key.value.Type.Dim(q.axis).Known() {
			q.drop = fmt.Sprintf("axis %d of its value %q has no fixed length, so the number of static blocks of %v is open", q.axis, q.key.value.Name, q.key.scheme)
			continue
		}
		ranges[i] = calib.NewBlockRange(method, q.key.scheme, q.axis, block)
		if known[i] = in.cached(q, method); known[i] != nil {
			continue
		}
		if !in.u.Stats.Take(q.key.value.Name, ranges[i]) {
			probes = append(probes, calib.Probe{Value: q.key.value, Into: ranges[i]})
		}
	}
	if len(probes) > 0 {
		if err := in.sweep(ctx, in.u.Samples, probes, "calibration samples"); err != nil {
			return fmt.Errorf("calibration (%v): %w", method, err)
		}
	}
	for i, q := range static {
		if q.drop != "" {
			continue
		}
		in.u.at(q.key.value.Name)
		var lo, hi []float32
		var err error
		if known[i] != nil {
			lo, hi = known[i].lo, known[i].hi
		} else {
			in.u.Stats.Keep(q.key.value.Name, ranges[i])
			lo, hi, err = ranges[i].Range()
		}
		if err != nil {
			q.drop = fmt.Sprintf("its value %q could not be calibrated: %v", q.key.value.Name, err)
			in.u.Fits.keep(q)
			continue
		}
		if known[i] == nil {
			in.cache(q, method, lo, hi)
		}
		if q.params, err = q.key.scheme.Fit(lo, hi); err != nil {
			return fmt.Errorf("value %q: %w", q.key.value.Name, err)
		}
		for g := range lo {
			q.amax = max(q.amax, -lo[g], hi[g])
		}
		q.clip = method.Name != "max"
		in.u.Fits.keep(q)
	}
	return nil
}

// staticAxis is the axis along which an activation's static scales lie, from the start, and the number of its indices that
// share one; -1 is one scale for the tensor.
func staticAxis(s numfmt.Scheme, axes numfmt.Axes, rank int) (axis, block int) {
	axis, block = -1, 1
	switch {
	case s.Gran == numfmt.PerAxis && s.Axis == numfmt.AxisOut:
		axis = axes.Out
	case s.Gran == numfmt.PerAxis:
		axis = s.Axis
	case s.Gran == numfmt.PerBlock:
		axis, block = axes.K, s.Block
	default:
		return -1, 1
	}
	if axis < 0 {
		axis += rank
	}
	return axis, block
}

// placed is the scheme of the quantizer's node with its parameters: static blocks of an activation become scales per index.
func (q *quantizer) placed() (numfmt.Scheme, numfmt.Params) {
	if s := q.key.scheme; q.role != numfmt.Weight && s.Gran == numfmt.PerBlock && s.Scaled() && !s.Dynamic {
		return s.Spread(q.params, q.axis, int(q.key.value.Type.Dim(q.axis).Size))
	}
	return q.key.scheme, q.params
}

// bitsPerValue is the storage of one value of a tensor, scales included.
func (q *quantizer) bitsPerValue(shape []int) (float64, error) {
	axes := q.key.axes
	if s, _ := q.placed(); s != q.key.scheme { // the block scales are stored once for all rows
		rows := 1.0
		for i, d := range shape {
			if i != q.axis {
				rows *= float64(d)
			}
		}
		shape, axes = []int{shape[q.axis]}, numfmt.Axes{K: 0, Out: numfmt.NoAxis}
		l, err := q.key.scheme.Layout(shape, axes)
		bits := float64(s.Format.Bits)
		return bits + (q.key.scheme.BitsPerValue(l)-bits)/max(rows, 1), err
	}
	l, err := q.key.scheme.Layout(shape, axes)
	return q.key.scheme.BitsPerValue(l), err
}

// method is the calibrator of static activations.
func (p *Policy) method() (calib.Method, error) {
	if p.Calibrate == "" {
		return calib.ParseMethod("max")
	}
	return calib.ParseMethod(p.Calibrate)
}

func (in *inserter) sweep(ctx context.Context, samples ir.Samples, probes []calib.Probe, what string) error {
	return calib.Sweep(ctx, in.u.Model, samples, probes, calib.Options{
		Jobs: in.u.Jobs, Runtime: in.u.Runtime, Progress: func(done int) { in.u.progress(what, done, 0) },
	})
}

// measure runs the first n samples and measures the error of every activation quantizer on them. What the
// reference wants of them is kept.
func (in *inserter) measure(ctx context.Context, n int) error {
	if n <= 0 || in.u.Samples == nil {
		return nil
	}
	var probes []calib.Probe
	for _, q := range in.quants {
		if q.role != numfmt.Weight && q.drop == "" {
			probes = append(probes, calib.Probe{Value: q.key.value, Into: q})
		}
	}
	for _, q := range in.others {
		probes = append(probes, calib.Probe{Value: q.key.value, Into: q})
	}
	if probes == nil {
		return nil
	}
	more, keep := in.u.refer(n, probes)
	probes = append(probes, more...)
	first := func(yield func(ir.Tensors, error) bool) {
		i := 0
		for t, err := range in.u.Samples() {
			if i++; i > n || !yield(t, err) {
				return
			}
		}
	}
	if err := in.sweep(ctx, func() iterTensors { return first }, probes, "measured samples"); err != nil {
		return err
	}
	keep()
	return nil
}

// Passes, Ordered and Observe make a quantizer an observer that measures its own error. A profile of a format without scales
// wants the range of the values first.
func (q *quantizer) Passes() int {
	if q.profile != nil && !q.key.scheme.Scaled() {
		return 2
	}
	return 1
}

// Ordered reports that samples may come in any order.
func (q *quantizer) Ordered() bool { return false }

// Observe adds one sample's tensor to the measures.
func (q *quantizer) Observe(pass, sample int, t *ir.Tensor) error {
	x, ok := t.Float32s()
	if !ok {
		return fmt.Errorf("%v values cannot be quantized", t.Elem())
	}
	scheme, params := q.placed()
	l, err := scheme.Layout(t.Shape(), q.key.axes)
	if err != nil {
		return err
	}
	if q.stats.bits, err = q.bitsPerValue(t.Shape()); err != nil {
		return err
	}
	if q.profile != nil {
		if pass < q.Passes()-1 {
			q.profile.bounds(x)
			return nil
		}
		if err := q.profileFor(l, x); err != nil {
			return err
		}
	}
	return q.stats.add(sample, scheme, l, params, x)
}
