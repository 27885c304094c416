package calib

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// WeightMethods lists the ways to find the ranges of a weight's groups, any granularity (METHODS.md §3).
var WeightMethods = []Info{
	{"max", "each group's smallest and largest value"},
	{"mse", "the published GPTQ's grid: both ends times 1 - i/100, i = 0…79, with the least Σ|ŵ-w|^2.4"},
	{"mse-exact", "the range with the least squared error: a grid down to 2^-16 of each end, refined by golden sections"},
}

// WeightBounds finds the range of every group of a weight x, laid out by l, for a scheme that is fitted to ranges; how is a
// name of WeightMethods. The first of equal errors wins, so that constants and zeros keep their own range. Second-level
// scales are as if all groups took the same share of their range. Errors are those of Scheme.Fit: values that are not finite.
func WeightBounds(how string, s numfmt.Scheme, x []float32, l numfmt.Layout) (lo, hi []float32, err error) {
	lo, hi = numfmt.Ranges(x, l)
	if len(x) == 0 {
		return nil, nil, fmt.Errorf("a weight without elements has no range")
	}
	w := &weightSearch{scheme: s, layout: l, x: x, lo: lo, hi: hi, power: 2}
	switch how {
	case "max":
		return lo, hi, nil
	case "mse":
		w.power = 2.4
		var grid []float64
		for i := range 80 {
			grid = append(grid, 1-float64(i)/100)
		}
		err = w.grid(grid, func(old shares, s float64) shares { return shares{s, s} })
	case "mse-exact":
		err = w.exact()
	default:
		var names []string
		for _, m := range WeightMethods {
			names = append(names, m.Name)
		}
		return nil, nil, fmt.Errorf("range of weights %q: wanted one of %s", how, strings.Join(names, ", "))
	}
	if err != nil {
		return nil, nil, err
	}
	lo, hi = w.bounds(func(g int) shares { return w.best[g] })
	return lo, hi, nil
}

// weightSearch looks for the best shares of all groups' ranges at once.
type weightSearch struct {
	scheme numfmt.Scheme
	layout numfmt.Layout
	x      []float32
	lo, hi []float32
	power  float64

	best  []shares // nil before the first candidates
	least []float64
}

// bounds are the ranges of which each group keeps the shares that of gives.
func (w *weightSearch) bounds(of func(g int) shares) (lo, hi []float32) {
	lo, hi = make([]float32, len(w.lo)), make([]float32, len(w.lo))
	for g := range lo {
		lo[g], hi[g] = shrink(w.scheme, w.lo[g], w.hi[g], of(g))
	}
	return lo, hi
}

// Shrink returns the part of an observed range that a share of it keeps: of the larger end on both sides for symmetric
// schemes, of each end for others. A share of 1 is the range itself, which NaN and emptiness stay in.
func Shrink(s numfmt.Scheme, lo, hi float32, share float64) (float32, float32) {
	return shrink(s, lo, hi, shares{share, share})
}

func shrink(s numfmt.Scheme, lo, hi float32, k shares) (float32, float32) {
	switch {
	case k == shares{1, 1} || lo > hi:
		return lo, hi
	case !s.Affine:
		a := float32(float64(max(-lo, hi)) * k.hi)
		return -a, a
	}
	return float32(float64(min(lo, 0)) * k.lo), float32(float64(max(hi, 0)) * k.hi)
}

// errors measures one candidate for every group.
func (w *weightSearch) errors(of func(g int) shares) ([]float64, error) {
	lo, hi := w.bounds(of)
	p, err := w.scheme.FitLayout(lo, hi, w.layout)
	if err != nil {
		return nil, err
	}
	q := make([]float32, len(w.x))
	if err := w.scheme.Apply(q, w.x, w.layout, p); err != nil {
		return nil, err
	}
	e := make([]float64, len(lo))
	for r := range w.layout.Runs() {
		a, b := q[r.Off:r.Off+r.Len], w.x[r.Off:r.Off+r.Len]
		for i, v := range b {
			d := math.Abs(float64(a[i]) - float64(v))
			if w.power == 2 {
				d *= d
			} else {
				d = power24(d)
			}
			e[r.Group+i*r.Step] += d
		}
	}
	return e, nil
}

// The table of power24: m^2.4 at 2^11+1 mantissas from 1 to 2, and 2^2.4e for the exponents of errors that are no zero.
const (
	mantissas     = 1 << 11
	leastPower    = -200
	greatestPower = 128
)

var mantissaPower, exponentPower = func() (m [mantissas + 1]float64, e [greatestPower - leastPower + 1]float64) {
	for i := range m {
		m[i] = math.Pow(1+float64(i)/mantissas, 2.4)
	}
	for i := range e {
		e[i] = math.Exp2(2.4 * float64(i+leastPower))
	}
	return m, e
}()

// power24 is d^2.4 to 8 digits, for d ≥ 0: a table of mantissas with straight lines between, many times as fast as math.Pow.
func power24(d float64) float64 {
	bits := math.Float64bits(d)
	e := int(bits>>52) - 1023
	if e < leastPower {
		return 0
	}
	e = min(e, greatestPower)
	m := bits & (1<<52 - 1)
	i, f := m>>41, float64(m&(1<<41-1))/(1<<41)
	return (mantissaPower[i] + float64(f*(mantissaPower[i+1]-mantissaPower[i]))) * exponentPower[e-leastPower]
}

// grid tries candidates and keeps what is better, the first of equals.
func (w *weightSearch) grid(grid []float64, candidate func(old shares, s float64) shares) error {
	old := make([]shares, len(w.lo))
	for g := range old {
		old[g] = shares{1, 1}
	}
	copy(old, w.best)
	for part := range slices.Chunk(grid, 8) { // bounds what is held at a time
		errs := make([]error, len(part))
		found := make([][]float64, len(part))
		par.For(len(part), 1, func(from, to int) {
			for i := from; i < to; i++ {
				found[i], errs[i] = w.errors(func(g int) shares { return candidate(old[g], part[i]) })
			}
		})
		for i, e := range found {
			if errs[i] != nil {
				return errs[i]
			}
			w.keep(e, func(g int) shares { return candidate(old[g], part[i]) })
		}
	}
	return nil
}

// keep takes a candidate for the groups that it is better for.
func (w *weightSearch) keep(e []float64, of func(g int) shares) {
	if w.best == nil {
		w.best, w.least = make([]shares, len(e)), slices.Repeat([]float64{math.Inf(1)}, len(e))
		for g := range w.best {
			w.best[g] = shares{1, 1}
		}
	}
	for g, v := range e {
		if v < w.least[g] {
			w.least[g], w.best[g] = v, of(g)
		}
	}
}

// exact is the search of mse-exact: both ends together, then, for schemes with a zero point, each alone.
func (w *weightSearch) exact() error {
	grid := shareGrid()
	slices.Reverse(grid) // of equals the widest range
	both := func(_ shares, s float64) shares { return shares{s, s} }
	if err := w.grid(grid, both); err != nil {
		return err
	}
	if err := w.golden(grid, func(s shares) float64 { return s.hi }, both); err != nil {
		return err
	}
	if !w.scheme.Affine {
		return nil
	}
	low := func(old shares, s float64) shares { return shares{s, old.hi} }
	high := func(old shares, s float64) shares { return shares{old.lo, s} }
	for _, side := range []struct {
		of  func(shares) float64
		set func(shares, float64) shares
	}{{func(s shares) float64 { return s.lo }, low}, {func(s shares) float64 { return s.hi }, high}} {
		if err := w.grid(grid, side.set); err != nil {
			return err
		}
		if err := w.golden(grid, side.of, side.set); err != nil {
			return err
		}
	}
	return nil
}

// goldenSteps is the number of golden sections: they narrow a bracket to a 1/1300 of itself.
const goldenSteps = 15

// golden refines one number of each group's shares between the neighbours in a grid (descending) that its best lies between.
func (w *weightSearch) golden(grid []float64, of func(shares) float64, set func(shares, float64) shares) error {
	phi := (math.Sqrt(5) - 1) / 2
	n := len(w.best)
	old := slices.Clone(w.best)
	a, b := make([]float64, n), make([]float64, n)
	for g := range n {
		at := of(old[g])
		a[g], b[g] = at/2, 1
		for _, s := range grid {
			if s > at {
				b[g] = s
			}
			if s < at {
				a[g] = max(a[g], s)
			}
		}
	}
	try := func(point func(g int) float64) ([]float64, error) {
		of := func(g int) shares { return set(old[g], point(g)) }
		e, err := w.errors(of)
		if err == nil {
			w.keep(e, of)
		}
		return e, err
	}
	c := func(g int) float64 { return b[g] - phi*(b[g]-a[g]) }
	d := func(g int) float64 { return a[g] + phi*(b[g]-a[g]) }
	for range goldenSteps {
		ec, err := try(c)
		if err != nil {
			return err
		}
		ed, err := try(d)
		if err != nil {
			return err
		}
		for g := range n {
			if ec[g] <= ed[g] {
				b[g] = d(g)
			} else {
				a[g] = c(g)
			}
		}
	}
	return nil
}
