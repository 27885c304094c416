package calib

import (
	"fmt"
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
)

// Range observes a value and derives the range of a static quantizer: one for the tensor, or one for each index of an
// axis. What it finds does not depend on the order of samples, except for moving-average (file order) and hist=firstbatch.
type Range struct {
	method Method
	scheme numfmt.Scheme
	axis   int // -1: the whole tensor
	groups []group
	seen   bool
}

// group is what is known of one group of elements.
type group struct {
	lo, hi  float32
	hist    *Histogram         // magnitudes, or values for asymmetric schemes
	samples map[int][2]float32 // moving average: each sample's range
}

// NewRange returns an observer for a value that scheme will quantize. axis is the channel axis, -1 for one range.
func NewRange(m Method, s numfmt.Scheme, axis int) *Range {
	s.Gran, s.Block, s.Dynamic = numfmt.PerTensor, 0, false
	return &Range{method: m, scheme: s, axis: axis}
}

// Passes returns how often the samples must be seen: histograms need the range first.
func (r *Range) Passes() int {
	if r.method.histogram() && !r.method.FirstBatch {
		return 2
	}
	return 1
}

// Ordered reports whether the samples must come one by one in file order.
func (r *Range) Ordered() bool { return r.method.FirstBatch || r.method.Name == "octav" }

// Observe takes one sample's tensor. NaN and infinities are errors: no range can be told from them.
func (r *Range) Observe(pass, sample int, t *ir.Tensor) error {
	x, ok := t.Float32s()
	if !ok {
		return fmt.Errorf("%v values cannot be calibrated", t.Elem())
	}
	n, stride, count := 1, 1, 1 // groups, elements in a row of one group, groups' rows
	if r.axis >= 0 {
		s := t.Shape()
		if r.axis >= len(s) {
			return fmt.Errorf("shape %v has no axis %d", s, r.axis)
		}
		n = s[r.axis]
		for _, d := range s[r.axis+1:] {
			stride *= d
		}
		for _, d := range s[:r.axis] {
			count *= d
		}
	} else {
		stride = len(x)
	}
	if r.groups == nil {
		r.groups = make([]group, n)
		for i := range r.groups {
			r.groups[i] = group{lo: float32(math.Inf(1)), hi: float32(math.Inf(-1))}
		}
	}
	if len(r.groups) != n {
		return fmt.Errorf("axis %d has %d channels, earlier samples had %d", r.axis, n, len(r.groups))
	}
	r.seen = true
	for i := range count {
		for g := range n {
			row := x[(i*n+g)*stride : (i*n+g+1)*stride]
			if err := r.groups[g].observe(r, pass, sample, row); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *group) observe(r *Range, pass, sample int, x []float32) error {
	if pass == 1 {
		g.count(r, x, false)
		return nil
	}
	lo, hi, err := extent(x)
	if err != nil || len(x) == 0 {
		return err
	}
	if r.method.Name == "moving-average" {
		if g.samples == nil {
			g.samples = map[int][2]float32{}
		}
		if old, ok := g.samples[sample]; ok {
			lo, hi = min(lo, old[0]), max(hi, old[1])
		}
		g.samples[sample] = [2]float32{lo, hi}
	}
	g.lo, g.hi = min(g.lo, lo), max(g.hi, hi)
	if r.method.FirstBatch {
		if g.hist == nil {
			g.hist = g.empty(r)
		}
		g.count(r, x, true)
	}
	return nil
}

// extent returns the least and the largest value; NaN and infinities are errors.
func extent(x []float32) (lo, hi float32, err error) {
	lo, hi = float32(math.Inf(1)), float32(math.Inf(-1))
	for _, v := range x {
		lo, hi = min(lo, v), max(hi, v)
	}
	if len(x) > 0 && (lo != lo || hi != hi || math.IsInf(float64(lo), 0) || math.IsInf(float64(hi), 0)) {
		i := slices.IndexFunc(x, func(v float32) bool { return v != v || math.IsInf(float64(v), 0) })
		return 0, 0, fmt.Errorf("element %d is %v, wanted finite values", i, x[i])
	}
	return lo, hi, nil
}

func (g *group) empty(r *Range) *Histogram {
	if r.scheme.Affine {
		return NewHistogram(float64(min(g.lo, 0)), float64(max(g.hi, 0)))
	}
	h := NewHistogram(0, float64(max(-g.lo, g.hi)))
	if r.method.Name == "octav" {
		h.Sum = make([]float64, len(h.Count))
	}
	return h
}

func (g *group) count(r *Range, x []float32, grow bool) {
	if g.hist == nil {
		g.hist = g.empty(r)
	}
	h := g.hist
	inv, last := 0.0, len(h.Count)-1
	if h.Width > 0 {
		inv = 1 / h.Width
	}
	for _, v := range x {
		f := float64(v)
		if !r.scheme.Affine {
			f = math.Abs(f)
		}
		if grow || h.Sum != nil {
			h.Add(f, grow)
			continue
		}
		h.Count[max(min(int((f-h.Lo)*inv), last), 0)]++
	}
}

// Range returns the lower and upper bound of each group. A group that saw no value is an error.
func (r *Range) Range() (lo, hi []float32, err error) {
	if !r.seen {
		return nil, nil, fmt.Errorf("no sample reached it")
	}
	lo, hi = make([]float32, len(r.groups)), make([]float32, len(r.groups))
	for i := range r.groups {
		g := &r.groups[i]
		if g.lo > g.hi {
			return nil, nil, fmt.Errorf("no sample had an element of it")
		}
		if lo[i], hi[i], err = r.derive(g); err != nil {
			return nil, nil, err
		}
	}
	return lo, hi, nil
}

func (r *Range) derive(g *group) (lo, hi float32, err error) {
	switch {
	case r.method.Name == "moving-average":
		lo, hi = g.average(r.method.Momentum)
		return lo, hi, nil
	case r.method.Name == "max" || g.lo == 0 && g.hi == 0:
		return g.lo, g.hi, nil
	case r.scheme.Affine:
		return r.deriveAffine(g)
	}
	var amax float64
	switch r.method.Name {
	case "percentile":
		amax = g.hist.Percentile(r.method.Percentile)
	case "entropy":
		amax = g.hist.Entropy(r.levels(), r.method.StartBin)
	case "mse":
		_, amax, _, err = g.hist.MSE(r.scheme, r.method.StartBin)
	case "mse-exact":
		amax, err = g.hist.MSEExact(r.scheme)
	case "octav":
		amax = g.hist.Octav(r.scheme.Format.Bits)
	}
	if err != nil {
		return 0, 0, err
	}
	if amax <= 0 { // a range of nothing would lose what was seen
		amax = float64(max(-g.lo, g.hi))
	}
	return -float32(amax), float32(amax), nil
}

// levels is the number of levels on one side of zero that entropy compares with (METHODS.md §3).
func (r *Range) levels() int {
	if r.scheme.Format.Signed {
		return 1 << (r.scheme.Format.Bits - 1)
	}
	return 1 << r.scheme.Format.Bits
}

// deriveAffine applies the histogram methods to both ends: percentile to each tail, the others as a search over both
// bounds, which start at the observed range and move in turns until neither improves.
func (r *Range) deriveAffine(g *group) (lo, hi float32, err error) {
	if r.method.Name == "percentile" {
		return float32(min(g.hist.PercentileBelow(r.method.Percentile), 0)), float32(max(g.hist.Percentile(r.method.Percentile), 0)), nil
	}
	l, h, err := g.hist.MSEAffine(r.scheme)
	return float32(l), float32(h), err
}

// average folds the samples' ranges in file order; the first initializes.
func (g *group) average(momentum float64) (lo, hi float32) {
	order := make([]int, 0, len(g.samples))
	for s := range g.samples {
		order = append(order, s)
	}
	slices.Sort(order)
	var l, h float64
	for i, s := range order {
		x := g.samples[s]
		if i == 0 {
			l, h = float64(x[0]), float64(x[1])
			continue
		}
		l = momentum*l + (1-momentum)*float64(x[0])
		h = momentum*h + (1-momentum)*float64(x[1])
	}
	return float32(l), float32(h)
}
