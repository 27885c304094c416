package numfmt

import (
	"fmt"
	"math"
)

// roundMagic added to and taken from a float32 below 2^22 in magnitude rounds it to an integer, ties to even, and turns
// -0 into 0.
const roundMagic = 1.5 * (1 << 23)

// roundInt rounds v to the nearest integer of [lo, hi], ties to even; NaN gives 0. The bounds are integers below 2^22 in
// magnitude, so saturating first changes nothing.
func roundInt(v, lo, hi float32) float32 {
	if v < lo {
		v = lo
	} else if v > hi {
		v = hi
	}
	r := (v + roundMagic) - roundMagic
	if r != r {
		return 0
	}
	return r
}

// floatGrid rounds to a float format's values.
type floatGrid struct {
	f     Format
	emin  int     // exponent of the smallest normal value
	max   float64 // largest finite value
	over  float32 // what values above max become
	nan   float32 // what NaN becomes
	away  bool    // QPyTorch rounding
	noNeg bool    // there is no -0
}

// grid is the saturating grid of a Float or ScaleFmt, the overflowing one of a Cast.
func (f Format) grid() floatGrid {
	g := floatGrid{f: f, emin: 1 - f.Bias, max: f.max64(), away: f.Parity, noNeg: f.Top == TopFNUZ || !f.Signed, nan: float32(math.NaN())}
	g.over = float32(g.max)
	if f.Kind == Cast {
		g.over = float32(math.Inf(1))
	}
	if f.Top == TopAll {
		g.nan = g.over
	}
	return g
}

// nearest rounds a finite magnitude to the grid as if it had no largest value: to nearest, ties to even.
func (g *floatGrid) nearest(a float64) float64 {
	k := int(math.Float64bits(a)>>52) - 1023
	if k < g.emin {
		k = g.emin
	}
	// Adding 1.5·2^(52+k-m) leaves no bits below 2^(k-m).
	c := math.Float64frombits(uint64(k-g.f.Man+52+1023)<<52 | 1<<51)
	return (a + c) - c
}

// round is the grid value nearest to v.
func (g *floatGrid) round(v float32) float32 {
	if v != v {
		if g.away { // QPyTorch reads NaN as a huge number of its sign
			return float32(math.Copysign(float64(g.nan), float64(v)))
		}
		return g.nan
	}
	if g.away {
		return g.roundAway(v)
	}
	a := math.Abs(float64(v))
	r := g.over
	if a <= math.MaxFloat32 {
		if n := g.nearest(a); n <= g.max {
			r = float32(n)
		}
	}
	if math.Signbit(float64(v)) && !(r == 0 && g.noNeg) {
		if !g.f.Signed {
			return 0
		}
		return -r
	}
	return r
}

// roundAway rounds as QPyTorch 0.3.0: half away from zero by adding half an ulp to the bits and truncating; below the
// smallest normal value after adding that value in float32 and subtracting it again, which loses the sign of zero.
func (g *floatGrid) roundAway(v float32) float32 {
	drop := 23 - g.f.Man
	trunc := func(x float32) float32 {
		b := math.Float32bits(x)
		return math.Float32frombits((b + 1<<drop>>1) &^ (1<<drop - 1))
	}
	least := float32(math.Copysign(math.Ldexp(1, g.emin), float64(v)))
	if math.Abs(float64(v)) < math.Abs(float64(least)) {
		return trunc(v+least) - least
	}
	if math.Abs(float64(v)) >= g.max {
		return float32(math.Copysign(g.max, float64(v)))
	}
	r := trunc(v)
	if math.Abs(float64(r)) > g.max {
		return float32(math.Copysign(g.max, float64(v)))
	}
	return r
}

// encode gives the code of the value nearest to v. Without saturation values that round above the largest become
// infinity, or NaN where the format has no infinity, or the largest value where it has neither.
func (g *floatGrid) encode(v float32, saturate bool) uint32 {
	f := g.f
	var sign uint32
	if f.Signed && math.Signbit(float64(v)) {
		sign = 1 << (f.Exp + f.Man)
	}
	last := uint32(1)<<(f.Exp+f.Man) - 1 // all exponent and mantissa bits
	inf := last &^ (1<<f.Man - 1)
	nan := sign | last
	switch f.Top {
	case TopIEEE:
		nan = sign | inf | 1<<f.Man>>1
	case TopFNUZ:
		nan = 1 << (f.Exp + f.Man)
	case TopAll:
		nan = last // the largest value
	}
	if v != v {
		if g.away {
			nan |= sign
		}
		return nan
	}
	r := g.round(v)
	if !saturate && !g.away {
		if a := math.Abs(float64(v)); a > math.MaxFloat32 || g.nearest(a) > g.max {
			switch f.Top {
			case TopIEEE:
				return sign | inf
			case TopFN, TopFNUZ:
				return nan
			}
		}
	}
	a := math.Abs(float64(r))
	if a > math.MaxFloat32 { // a cast that overflows
		return sign | inf
	}
	if a == 0 {
		if g.noNeg || g.away && !math.Signbit(float64(r)) {
			return 0
		}
		return sign
	}
	if r < 0 != (sign != 0) {
		return 0 // an unsigned format met a negative value
	}
	_, e := math.Frexp(a)
	k := e - 1
	if k < g.emin {
		return sign | uint32(math.Ldexp(a, f.Man-g.emin))
	}
	return sign | uint32(k+f.Bias)<<f.Man | (uint32(math.Ldexp(a, f.Man-k)) - 1<<f.Man)
}

// Quantizer is one group's quantize–dequantize: a scheme's element rounding with the group's parameters. It is a small
// value, made once per group or, for one value per group at a time (GPTQ's columns), by RoundEach.
type Quantizer struct {
	kind   Kind
	mul    bool    // multiply by div instead of dividing (ArithTRT), and divide by scale
	div    float32 // what x is divided by
	scale  float32 // what the grid value is multiplied by
	zero   float32
	lo, hi float32 // integer codes less the zero point
	grid   *floatGrid
	book   *Codebook
}

// Quantizer makes the quantizer of one group. It fails when the parameters lack the group, or hold a zero point that is
// no integer or no special value of the codebook.
func (s Scheme) Quantizer(p Params, group int) (Quantizer, error) {
	q := s.rounder()
	if !s.Scaled() {
		return q, nil
	}
	if group < 0 || group >= len(p.Scale) || p.Zero != nil && group >= len(p.Zero) {
		return q, fmt.Errorf("scheme %s: no parameters for group %d: got %d scales and %d zero points", s, group, len(p.Scale), len(p.Zero))
	}
	zero := float32(0)
	if p.Zero != nil {
		zero = p.Zero[group]
	}
	if err := q.set(s, p.Scale[group], zero); err != nil {
		return q, fmt.Errorf("scheme %s: group %d: %w", s, group, err)
	}
	return q, nil
}

// rounder is the scheme's quantizer with scale 1.
func (s Scheme) rounder() Quantizer {
	q := Quantizer{kind: s.Format.Kind, div: 1, scale: 1, mul: s.Arith == ArithTRT, book: s.Format.Book}
	switch s.Format.Kind {
	case Int, Ternary:
		lo, hi := s.Codes()
		q.lo, q.hi = float32(lo), float32(hi)
	case Float, Cast:
		g := s.Format.grid()
		q.grid = &g
	}
	return q
}

// ternaryEps is added to the mean magnitude before dividing by it (BitNet b1.58), and is the least median.
const ternaryEps = 1e-5

// set gives the quantizer another group's parameters.
func (q *Quantizer) set(s Scheme, scale, zero float32) error {
	q.div, q.scale = scale, scale
	switch q.kind {
	case Int:
		if zero != q.zero {
			if zero != float32(math.RoundToEven(float64(zero))) || zero > 1<<20 || zero < -1<<20 {
				return fmt.Errorf("zero point %v is not an integer of at most 20 bits", zero)
			}
			lo, hi := s.Codes()
			q.lo, q.hi, q.zero = float32(lo)-zero, float32(hi)-zero, zero
		}
	case Ternary:
		if !s.Format.Median {
			q.div = scale + ternaryEps
		}
	case Book:
		var err error
		if q.book, err = s.Format.Book.variant(zero); err != nil {
			return err
		}
	}
	return nil
}

// Round gives x quantized and dequantized. A group whose scale is 0 is all zeros; a NaN scale gives NaN.
func (q *Quantizer) Round(x float32) float32 {
	if q.scale == 0 {
		return 0
	}
	v := x / q.div
	if q.mul {
		v = x * q.div
	}
	var r float32
	switch q.kind {
	case Int, Ternary:
		r = roundInt(v, q.lo, q.hi)
	case Book:
		r = q.book.find(v).val
	default:
		r = q.grid.round(v)
	}
	if q.mul {
		return r / q.scale
	}
	return r * q.scale
}

// Level gives the grid value of x in units of the step: the integer code less the zero point, or the float or codebook
// value, before multiplication by the scale.
func (q *Quantizer) Level(x float32) float32 {
	if q.scale == 0 {
		return 0
	}
	one := *q
	one.scale = 1
	return one.Round(x)
}

// RoundAll sets dst[i] = Round(x[i]); dst and x have equal length and may be the same slice.
func (q *Quantizer) RoundAll(dst, x []float32) {
	dst = dst[:len(x)]
	if (q.kind == Int || q.kind == Ternary) && !q.mul && q.scale != 0 {
		div, scale, lo, hi := q.div, q.scale, q.lo, q.hi
		for i, v := range x {
			dst[i] = roundInt(v/div, lo, hi) * scale
		}
		return
	}
	for i, v := range x {
		dst[i] = q.Round(v)
	}
}

// RoundEach quantizes and dequantizes x[i] with the parameters of entry i: p.Scale, and p.Zero where not nil, are as long
// as x. It serves GPTQ's columns, where every row has its own scale.
func (s Scheme) RoundEach(dst, x []float32, p Params) error {
	if len(dst) != len(x) || s.Scaled() && len(p.Scale) != len(x) || p.Zero != nil && len(p.Zero) != len(x) {
		return fmt.Errorf("scheme %s: got %d results, %d scales and %d zero points for %d values", s, len(dst), len(p.Scale), len(p.Zero), len(x))
	}
	q := s.rounder()
	if !s.Scaled() {
		q.RoundAll(dst, x)
		return nil
	}
	return s.roundEach(&q, dst, x, p.Scale, p.Zero)
}

func (s Scheme) roundEach(q *Quantizer, dst, x, scale, zero []float32) error {
	for i, v := range x {
		z := float32(0)
		if zero != nil {
			z = zero[i]
		}
		if err := q.set(s, scale[i], z); err != nil {
			return fmt.Errorf("scheme %s: entry %d: %w", s, i, err)
		}
		dst[i] = q.Round(v)
	}
	return nil
}
