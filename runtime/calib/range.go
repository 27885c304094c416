package calib

import (
	"fmt"
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// Range observes a value and derives the range of a static quantizer: one for the tensor, one for each index of an axis, or
// one for each block of indices. What it finds does not depend on the order of samples, except for moving-average (file
// order) and hist=firstbatch.
//
// The answers at the edges are those of every method: values that are all 0 give [0, 0]; a constant c gives a range that
// holds nothing beyond c, and never an empty one; NaN or infinity is an error that names the element; a value, channel or
// block that no sample had an element of is an error.
type Range struct {
	method Method
	scheme numfmt.Scheme
	axis   int // -1: the whole tensor
	block  int // indices of the axis that share a range
	groups []group
	seen   bool
}

// group is what is known of one group of elements.
type group struct {
	lo, hi  float32
	hist    *Histogram         // magnitudes, or values
	search  *section           // mse-exact
	top     float64            // percentile of the sorted magnitudes or values of a sample, the largest so far
	bottom  float64            // the same of the mirrored values
	samples map[int][2]float32 // moving average: each sample's range
	broken  error              // why there is no range
}

// NewRange returns an observer for a value that scheme will quantize. axis is the channel axis, -1 for one range.
func NewRange(m Method, s numfmt.Scheme, axis int) *Range { return NewBlockRange(m, s, axis, 1) }

// NewBlockRange is NewRange with one range for every block indices of the axis; the last block may be shorter.
func NewBlockRange(m Method, s numfmt.Scheme, axis, block int) *Range {
	s.Gran, s.Block, s.Dynamic = numfmt.PerTensor, 0, false
	if m.Name == SeqMSE {
		m.Name = "mse-exact"
	}
	return &Range{method: m, scheme: s, axis: axis, block: block}
}

// Passes returns how often the samples must be seen: histograms need the range first, mse-exact narrows its candidates.
func (r *Range) Passes() int {
	switch {
	case r.method.Name == "mse-exact":
		return 1 + sectionPasses
	case r.method.histogram() && !r.method.FirstBatch:
		return 2
	}
	return 1
}

// Ordered reports whether the samples must come one by one in file order.
func (r *Range) Ordered() bool {
	return r.method.FirstBatch || r.method.Name == "octav" || r.method.Name == "mse-exact"
}

// Observe takes one sample's tensor. NaN and infinities are errors: no range can be told from them.
func (r *Range) Observe(pass, sample int, t *ir.Tensor) error {
	x, ok := t.Float32s()
	if !ok {
		return fmt.Errorf("%v values cannot be calibrated", t.Elem())
	}
	pre, dim, post, n := 1, 1, len(x), 1
	if r.axis >= 0 {
		s := t.Shape()
		if r.axis >= len(s) {
			return fmt.Errorf("shape %v has no axis %d", s, r.axis)
		}
		dim, post = s[r.axis], 1
		for _, d := range s[r.axis+1:] {
			post *= d
		}
		for _, d := range s[:r.axis] {
			pre *= d
		}
		n = (dim + r.block - 1) / r.block
	}
	if r.groups == nil {
		r.groups = make([]group, n)
		for i := range r.groups {
			r.groups[i] = group{lo: float32(math.Inf(1)), hi: float32(math.Inf(-1))}
		}
	}
	if len(r.groups) != n {
		return fmt.Errorf("axis %d has %d channels, which makes %d ranges, earlier samples had %d", r.axis, dim, n, len(r.groups))
	}
	r.seen = true
	if len(x) == 0 {
		return nil
	}
	if r.axis < 0 {
		return r.groups[0].observe(r, pass, sample, x)
	}
	errs := make([]error, n)
	par.For(n, 1, func(from, to int) {
		var buf []float32
		for g := from; g < to; g++ {
			first, last := g*r.block, min((g+1)*r.block, dim)
			buf = buf[:0]
			for p := range pre {
				buf = append(buf, x[(p*dim+first)*post:(p*dim+last)*post]...)
			}
			errs[g] = r.groups[g].observe(r, pass, sample, buf)
		}
	})
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *group) observe(r *Range, pass, sample int, x []float32) error {
	if pass > 0 {
		if r.method.Name != "mse-exact" {
			g.count(r, x)
			return nil
		}
		if g.lo == 0 && g.hi == 0 {
			return nil
		}
		if g.search == nil {
			g.search = newSection(r.scheme, g.lo, g.hi)
		}
		return g.search.add(pass-1, x)
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
	if r.method.Sorted {
		g.rank(r, x)
	}
	if r.method.FirstBatch && g.broken == nil {
		if g.hist == nil {
			g.hist = g.empty(r)
		}
		g.broken = g.grow(r, x)
	}
	return nil
}

// rank keeps the largest percentile of the samples (METHODS.md §3, INT-FP-QSim's dynamic percentile): the value at rank
// p/100·(n-1) of the sorted magnitudes, halfway between two where the rank is not whole. Asymmetric schemes sort values.
func (g *group) rank(r *Range, x []float32) {
	s := make([]float64, len(x))
	for i, v := range x {
		if s[i] = float64(v); !r.scheme.Affine {
			s[i] = math.Abs(s[i])
		}
	}
	slices.Sort(s)
	at := r.method.Percentile / 100 * float64(len(s)-1)
	i, j := int(math.Floor(at)), int(math.Ceil(at))
	last := len(s) - 1
	g.top = max(g.top, (s[i]+s[j])/2)
	g.bottom = min(g.bottom, (s[last-i]+s[last-j])/2)
}

// extent returns the least and the largest value; NaN and infinities are errors.
func extent(x []float32) (lo, hi float32, err error) {
	lo, hi = kernel.MinMax(x)
	lo, hi = lo+0, hi+0 // no -0: which zero is the least is not defined
	if len(x) > 0 && (lo != lo || hi != hi || math.IsInf(float64(lo), 0) || math.IsInf(float64(hi), 0)) {
		i := slices.IndexFunc(x, func(v float32) bool { return v != v || math.IsInf(float64(v), 0) })
		return 0, 0, fmt.Errorf("element %d is %v, wanted finite values", i, x[i])
	}
	return lo, hi, nil
}

// signed reports whether the histogram counts values and not magnitudes.
func (r *Range) signed() bool { return r.scheme.Affine && r.method.signed() }

func (g *group) empty(r *Range) *Histogram {
	if r.signed() {
		return NewHistogram(float64(min(g.lo, 0)), float64(max(g.hi, 0)))
	}
	h := NewHistogram(0, float64(max(-g.lo, g.hi)))
	if r.method.Name == "octav" {
		h.Sum = make([]float64, len(h.Count))
	}
	return h
}

func (g *group) count(r *Range, x []float32) {
	if g.hist == nil {
		g.hist = g.empty(r)
	}
	signed := r.signed()
	for _, v := range x {
		f := float64(v)
		if !signed {
			f = math.Abs(f)
		}
		g.hist.Add(f)
	}
}

func (g *group) grow(r *Range, x []float32) error {
	signed := r.signed()
	for _, v := range x {
		f := float64(v)
		if !signed {
			f = math.Abs(f)
		}
		if err := g.hist.Grow(f); err != nil {
			return err
		}
	}
	return nil
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
		if g.broken != nil {
			return nil, nil, g.broken
		}
		if lo[i], hi[i], err = r.derive(g); err != nil {
			return nil, nil, err
		}
	}
	return lo, hi, nil
}

func (r *Range) derive(g *group) (lo, hi float32, err error) {
	amax := float64(max(-g.lo, g.hi))
	switch name := r.method.Name; {
	case name == "moving-average":
		lo, hi = g.average(r.method.Momentum, r.scheme.Affine)
		return lo, hi, nil
	case name == "max" || g.lo == 0 && g.hi == 0:
		return g.lo, g.hi, nil
	case name == "mse-exact":
		lo, hi = g.search.result()
		return lo, hi, nil
	case r.scheme.Affine && r.method.Sorted:
		return r.within(g, g.bottom, g.top)
	case r.scheme.Affine && name == "percentile":
		return r.within(g, g.hist.PercentileBelow(r.method.Percentile), g.hist.Percentile(r.method.Percentile))
	case r.scheme.Affine && name == "mse":
		l, h, err := g.hist.MSEAffine(r.scheme, r.method.StartBin)
		return float32(l), float32(h), err
	case r.method.Sorted:
		amax = g.top
	case name == "percentile":
		amax = g.hist.Percentile(r.method.Percentile)
	case name == "entropy":
		amax = g.hist.Entropy(r.levels(), r.method.StartBin)
	case name == "mse":
		_, amax, _, err = g.hist.MSE(r.scheme, r.method.StartBin)
	case name == "octav":
		amax = g.hist.Octav(r.scheme.Format.Bits)
	}
	if err != nil {
		return 0, 0, err
	}
	if amax <= 0 { // a range of nothing would lose what was seen
		amax = float64(max(-g.lo, g.hi))
	}
	if r.scheme.Affine {
		return r.within(g, -amax, amax)
	}
	return -float32(amax), float32(amax), nil
}

// within clips the observed range, widened to hold 0, to bounds; a range of nothing stays the observed one.
func (r *Range) within(g *group, lo, hi float64) (l, h float32, err error) {
	l, h = max(min(g.lo, 0), min(float32(lo), 0)), min(max(g.hi, 0), max(float32(hi), 0))
	if l == h {
		l, h = g.lo, g.hi
	}
	return l, h, nil
}

// levels is the number of levels that entropy compares with (METHODS.md §3): those on one side of zero for signed formats.
func (r *Range) levels() int {
	if r.scheme.Format.Signed {
		return 1 << (r.scheme.Format.Bits - 1)
	}
	return 1 << r.scheme.Format.Bits
}

// average folds the samples' ranges in file order; the first initializes. Symmetric schemes average the largest magnitudes.
func (g *group) average(momentum float64, affine bool) (lo, hi float32) {
	order := make([]int, 0, len(g.samples))
	for s := range g.samples {
		order = append(order, s)
	}
	slices.Sort(order)
	var l, h float64
	for i, s := range order {
		x := [2]float64{float64(g.samples[s][0]), float64(g.samples[s][1])}
		if !affine {
			x[1] = max(-x[0], x[1])
			x[0] = -x[1]
		}
		if i == 0 {
			l, h = x[0], x[1]
			continue
		}
		l = float64(momentum*l) + float64((1-momentum)*x[0])
		h = float64(momentum*h) + float64((1-momentum)*x[1])
	}
	return float32(l), float32(h)
}
