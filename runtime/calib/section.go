package calib

import (
	"math"

	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// section searches the range with the least squared error on the values themselves (mse-exact): one pass over them measures
// a grid of candidates, each further pass as many between the neighbours of the best so far. It holds a number for each
// candidate, however many values there are.
type section struct {
	scheme numfmt.Scheme
	lo, hi float32 // the observed range
	pass   int     // that err belongs to

	cand  []shares
	par   []numfmt.Params
	err   []float64
	best  shares
	least float64
	near  [2]shares // bounds of the next pass's candidates
}

// shares are the parts of the observed bounds that a candidate keeps. Symmetric schemes have one, of the larger bound, in hi.
type shares struct{ lo, hi float64 }

// sectionPasses is the number of passes that a section needs.
const sectionPasses = 3

// shareGrid holds the parts of a range that searches begin with: 1/32 to 1 evenly, below that two for each halving down to
// 2^-16.
func shareGrid() []float64 {
	var g []float64
	for k := 22; k > 0; k-- {
		g = append(g, math.Exp2(-5-float64(k)/2))
	}
	for k := 1; k <= 32; k++ {
		g = append(g, float64(k)/32)
	}
	return g
}

// between gives n points from a to b, both included.
func between(a, b float64, n int) []float64 {
	p := make([]float64, n)
	for i := range p {
		p[i] = a + (b-a)*float64(i)/float64(n-1)
	}
	return p
}

func newSection(s numfmt.Scheme, lo, hi float32) *section {
	return &section{scheme: s, lo: lo, hi: hi, least: math.Inf(1), best: shares{1, 1}}
}

// twoSided reports whether both bounds are searched.
func (c *section) twoSided() bool { return c.scheme.Affine && c.lo < 0 && c.hi > 0 }

// bounds are the range of a candidate.
func (c *section) bounds(s shares) (lo, hi float32) {
	if !c.scheme.Affine {
		a := float64(max(-c.lo, c.hi)) * s.hi
		return -float32(a), float32(a)
	}
	return float32(float64(min(c.lo, 0)) * s.lo), float32(float64(max(c.hi, 0)) * s.hi)
}

// settle closes a pass: it finds the best candidate so far, the first of equals.
func (c *section) settle() {
	better := -1
	for i, e := range c.err {
		if e < c.least {
			c.least, better = e, i
		}
	}
	if better >= 0 {
		c.best = c.cand[better]
	}
	step := func(at float64, of func(shares) float64) (lo, hi float64) {
		lo, hi = 0, 1
		for _, s := range c.cand {
			switch v := of(s); {
			case v < at:
				lo = max(lo, v)
			case v > at:
				hi = min(hi, v)
			}
		}
		return max(lo, at/2), hi
	}
	if c.cand != nil {
		c.near[0].lo, c.near[1].lo = step(c.best.lo, func(s shares) float64 { return s.lo })
		c.near[0].hi, c.near[1].hi = step(c.best.hi, func(s shares) float64 { return s.hi })
	}
	c.cand, c.par, c.err = nil, nil, nil
}

// open begins a pass.
func (c *section) open(pass int) error {
	c.settle()
	c.pass = pass
	one, two := shareGrid(), c.twoSided()
	switch {
	case pass == 0 && two:
		for _, s := range one {
			c.cand = append(c.cand, shares{s, 1}, shares{1, s}, shares{s, s})
		}
	case pass == 0:
		for _, s := range one {
			c.cand = append(c.cand, shares{s, s})
		}
	case two:
		for _, l := range between(c.near[0].lo, c.near[1].lo, 9) {
			for _, h := range between(c.near[0].hi, c.near[1].hi, 9) {
				c.cand = append(c.cand, shares{l, h})
			}
		}
	default:
		for _, s := range between(c.near[0].hi, c.near[1].hi, 17) {
			c.cand = append(c.cand, shares{s, s})
		}
	}
	c.err = make([]float64, len(c.cand))
	c.par = make([]numfmt.Params, len(c.cand))
	for i, s := range c.cand {
		lo, hi := c.bounds(s)
		var err error
		if c.par[i], err = c.scheme.Fit([]float32{lo}, []float32{hi}); err != nil {
			return err
		}
	}
	return nil
}

// add measures the candidates of a pass (from 0) on values.
func (c *section) add(pass int, x []float32) error {
	if c.cand == nil || c.pass != pass {
		if err := c.open(pass); err != nil {
			return err
		}
	}
	errs := make([]error, len(c.cand))
	par.For(len(c.cand), 1, func(from, to int) {
		q := make([]float32, min(len(x), sectionChunk))
		for i := from; i < to; i++ {
			for at := 0; at < len(x) && errs[i] == nil; at += sectionChunk {
				part := x[at:min(at+sectionChunk, len(x))]
				var l numfmt.Layout
				if l, errs[i] = c.scheme.Layout([]int{len(part)}, numfmt.Axes{K: numfmt.NoAxis, Out: numfmt.NoAxis}); errs[i] != nil {
					break
				}
				if errs[i] = c.scheme.Apply(q[:len(part)], part, l, c.par[i]); errs[i] == nil {
					c.err[i] += squaredError(q, part)
				}
			}
		}
	})
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// sectionChunk is the number of values that are quantized at a time.
const sectionChunk = 4096

// result is the best range.
func (c *section) result() (lo, hi float32) {
	c.settle()
	return c.bounds(c.best)
}

// squaredError is Σ(q-x)² over x, in four sums that are added in the end.
func squaredError(q, x []float32) float64 {
	var s [4]float64
	q = q[:len(x)]
	i := 0
	for ; i+4 <= len(x); i += 4 {
		for k := range s {
			d := float64(q[i+k]) - float64(x[i+k])
			s[k] += float64(d * d)
		}
	}
	for ; i < len(x); i++ {
		d := float64(q[i]) - float64(x[i])
		s[0] += float64(d * d)
	}
	return (s[0] + s[1]) + (s[2] + s[3])
}
