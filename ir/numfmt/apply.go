package numfmt

import (
	"fmt"
	"math"
)

// Params are a scheme's fitted parameters, one entry for each group of a layout, in the order of its scale tensor.
type Params struct {
	// Scale is the effective step. Under arith=trt it is the factor qmax/amax that x is multiplied by. 0 marks a group of
	// a two-level scheme whose code is 0: its elements are all 0. NaN is an MX block that held NaN or infinity.
	Scale []float32
	// Zero is the zero point, an integer, of affine schemes, or the special value chosen by a codebook's group; nil for
	// other schemes.
	Zero []float32
	// Code and Coarse split the scale of a two-level scheme: Scale = Code·Coarse, rounded to float32. Code is the value of
	// the block's scale in its small type, Coarse the tensor's scale, or one for each output channel. Nil for others.
	Code, Coarse []float32
}

// checkParams tells whether the parameters fit the layout.
func (s Scheme) checkParams(l Layout, p Params) error {
	if !s.Scaled() {
		return nil
	}
	n := l.Groups()
	if len(p.Scale) != n || p.Zero != nil && len(p.Zero) != n {
		return fmt.Errorf("scheme %s on shape %v: got %d scales and %d zero points, want %d of each", s, l.Shape, len(p.Scale), len(p.Zero), n)
	}
	return nil
}

// Apply quantizes and dequantizes x into dst with fitted parameters; both have the layout's length and may be the same
// slice. Nothing is written when the parameters do not fit the layout.
func (s Scheme) Apply(dst, x []float32, l Layout, p Params) error {
	if err := l.check(len(dst), len(x)); err != nil {
		return fmt.Errorf("scheme %s: %w", s, err)
	}
	if err := s.checkParams(l, p); err != nil {
		return err
	}
	if s.IsNone() {
		copy(dst, x)
		return nil
	}
	q := s.rounder()
	if !s.Scaled() {
		q.RoundAll(dst, x)
		return nil
	}
	for r := range l.Runs() {
		d, v := dst[r.Off:r.Off+r.Len], x[r.Off:r.Off+r.Len]
		if r.Step == 0 {
			z := float32(0)
			if p.Zero != nil {
				z = p.Zero[r.Group]
			}
			if err := q.set(s, p.Scale[r.Group], z); err != nil {
				return fmt.Errorf("scheme %s: group %d: %w", s, r.Group, err)
			}
			q.RoundAll(d, v)
			continue
		}
		var zero []float32
		if p.Zero != nil {
			zero = p.Zero[r.Group : r.Group+r.Len]
		}
		if err := s.roundEach(&q, d, v, p.Scale[r.Group:r.Group+r.Len], zero); err != nil {
			return err
		}
	}
	return nil
}

// ApplyDynamic quantizes and dequantizes x into dst with parameters fitted to x itself; dst and x have the layout's
// length and may be the same slice. NaN or infinity in x is an error where the scale cannot be made, except in MX
// formats, whose blocks become NaN.
func (s Scheme) ApplyDynamic(dst, x []float32, l Layout) error {
	p, err := s.FitData(x, l)
	if err != nil {
		return err
	}
	return s.Apply(dst, x, l, p)
}

// Ranges gives the least and the largest value of each group. A group holding NaN has NaN for both; an empty group has
// lo = +Inf and hi = -Inf.
func Ranges(x []float32, l Layout) (lo, hi []float32) {
	n := l.Groups()
	lo, hi = make([]float32, n), make([]float32, n)
	for i := range lo {
		lo[i], hi[i] = float32(math.Inf(1)), float32(math.Inf(-1))
	}
	for r := range l.Runs() {
		v := x[r.Off : r.Off+r.Len]
		if r.Step == 0 {
			a, b := lo[r.Group], hi[r.Group]
			for _, v := range v {
				a, b = widen(a, b, v)
			}
			lo[r.Group], hi[r.Group] = a, b
			continue
		}
		for i, v := range v {
			g := r.Group + i
			lo[g], hi[g] = widen(lo[g], hi[g], v)
		}
	}
	return lo, hi
}

// widen takes v into the range; NaN stays.
func widen(lo, hi, v float32) (float32, float32) {
	if !(v >= lo) && lo == lo {
		lo = v
	}
	if !(v <= hi) && hi == hi {
		hi = v
	}
	return lo, hi
}
