package op

import (
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
)

// group are the values that each group of a simulation has: x is divided by div, its level multiplied by mul.
type group struct {
	div, mul *ir.Value
	zero     *ir.Value // nil without zero points
	none     *ir.Value // bool: the group's scale is 0, all its values become 0; nil where that does not occur
}

// dynamic computes the parameters of each group from its values, as numfmt.Scheme.FitData does, operation by operation.
func (s *Simulation) dynamic(b *builder, v *ir.Value, w *view) group {
	f := s.Scheme
	if f.Affine {
		return s.affine(b, v, w)
	}
	amax := b.reduce("ReduceMax", b.n("Abs", v), w.axes, w.keep)
	qmax := f.Max()
	if f.Scale == numfmt.ScaleE8M0 {
		d := s.mxScale(b, amax)
		return group{div: d, mul: d}
	}
	dead := b.n("LessOrEqual", amax, b.scalar(numfmt.DeadAmax))
	var step *ir.Value
	switch {
	case f.Scale == numfmt.ScaleE4M3, f.Scale == numfmt.ScaleUE4M3, f.Scale == numfmt.ScaleUE5M3:
		return s.relative(b, amax)
	case f.Scale == numfmt.ScalePow2:
		frac, top := math.Frexp(float64(qmax))
		step = b.pow2Above(amax, float32(2*frac), top-1)
		step = b.n("Clip", step, b.scalar(0x1p-149), b.scalar(0x1p127))
	case f.Arith == numfmt.ArithTRT:
		step = b.n("Div", b.scalar(qmax), amax)
	default:
		step = b.n("Div", s.stored(b, amax), b.scalar(qmax))
	}
	if f.Scale2 == 0 {
		d := b.where(dead, b.scalar(1), step)
		return group{div: d, mul: d}
	}
	return s.secondLevel(b, b.where(dead, b.scalar(0), step))
}

// stored rounds a magnitude to the type that holds it.
func (s *Simulation) stored(b *builder, a *ir.Value) *ir.Value {
	if s.Scheme.Scale != numfmt.ScaleBF16 && s.Scheme.Scale != numfmt.ScaleBF16Up {
		return a
	}
	r := b.cast(b.cast(a, ir.BFloat16), ir.Float32)
	if s.Scheme.Scale == numfmt.ScaleBF16Up {
		next := b.n("Add", r, b.n("Mul", b.ufp(r), b.scalar(0x1p-7)))
		r = b.where(b.n("Less", r, a), next, r)
	}
	return b.n("Min", r, b.scalar(0x1.fep127)) // the largest finite bfloat16
}

// affine makes steps and zero points of ranges widened to hold 0 (METHODS §1.1).
func (s *Simulation) affine(b *builder, v *ir.Value, w *view) group {
	clo, chi := s.Scheme.Codes()
	lo := b.n("Min", b.reduce("ReduceMin", v, w.axes, w.keep), b.scalar(0))
	hi := b.n("Max", b.reduce("ReduceMax", v, w.axes, w.keep), b.scalar(0))
	width := b.n("Min", b.n("Sub", hi, lo), b.scalar(math.MaxFloat32))
	dead := b.n("LessOrEqual", width, b.scalar(numfmt.DeadAmax))
	n := float32(chi - clo)
	var step *ir.Value
	if s.Scheme.Scale == numfmt.ScalePow2 {
		frac, top := math.Frexp(float64(n))
		step = b.n("Clip", b.pow2Above(width, float32(2*frac), top-1), b.scalar(0x1p-149), b.scalar(0x1p127))
	} else {
		step = b.n("Div", s.stored(b, width), b.scalar(n))
	}
	step = b.where(dead, b.scalar(1), step)
	zero := b.n("Sub", b.scalar(float32(clo)), b.n("Div", lo, step))
	zero = b.n("Clip", b.n("Round", b.where(dead, b.scalar(0), zero)), b.scalar(float32(clo)), b.scalar(float32(chi)))
	return group{div: step, mul: step, zero: zero}
}

// mxScale is the power of two of an MX block (METHODS §1.4), for integers the step below it.
func (s *Simulation) mxScale(b *builder, amax *ir.Value) *ir.Value {
	qmax := s.Scheme.Max()
	frac, exp := math.Frexp(float64(qmax))
	top := exp - 1
	var d *ir.Value
	switch s.Scheme.MX {
	case numfmt.MXCeil:
		d = b.pow2Above(amax, float32(2*frac), top)
	default:
		u := b.ufpWide(amax)
		d = b.n("Mul", u, b.scalar(float32(math.Ldexp(1, -top))))
		if s.Scheme.MX == numfmt.MXEven {
			man := s.Scheme.Format.Man
			if s.Scheme.Format.Kind != numfmt.Float {
				man = top
			}
			up := b.n("GreaterOrEqual", b.n("Div", amax, u), b.scalar(float32(2-math.Ldexp(1, -man-1))))
			d = b.where(up, b.n("Add", d, d), d)
		}
	}
	return b.n("Clip", d, b.scalar(0x1p-127), b.scalar(0x1p127))
}

// relative makes NVFP4's two levels (METHODS §1.5).
func (s *Simulation) relative(b *builder, amax *ir.Value) group {
	name := "ue4m3"
	if s.Scheme.Scale == numfmt.ScaleUE5M3 {
		name = "ue5m3"
	}
	block, err := numfmt.Lookup(name)
	b.fail(err)
	qmax := s.Scheme.Max()
	both := b.scalar(qmax * block.Max())
	top := b.reduce("ReduceMax", amax, nil, false)
	dead := b.n("LessOrEqual", top, b.scalar(numfmt.DeadAmax))
	top = b.where(dead, b.scalar(1), top)
	amax = b.where(dead, b.scalar(0), amax)
	enc, dec := b.n("Div", both, top), b.n("Div", top, both)
	code := b.roundFloat(b.n("Mul", b.n("Div", amax, b.scalar(qmax)), enc), block)
	return b.orNone(b.n("Mul", code, dec))
}

// secondLevel makes VS-Quant's integer codes of steps, relative to the largest (METHODS §4).
func (s *Simulation) secondLevel(b *builder, step *ir.Value) group {
	most := b.scalar(float32(int(1)<<s.Scheme.Scale2 - 1))
	gamma := b.n("Div", b.reduce("ReduceMax", step, nil, false), most)
	gamma = b.where(b.n("Equal", gamma, b.scalar(0)), b.scalar(1), gamma)
	code := b.n("Clip", b.n("Round", b.n("Div", step, gamma)), b.scalar(0), most)
	if s.Scheme.Min1 {
		low := b.n("And", b.n("Greater", step, b.scalar(0)), b.n("Less", code, b.scalar(1)))
		code = b.where(low, b.scalar(1), code)
	}
	return b.orNone(b.n("Mul", code, gamma))
}

// orNone is a group whose scale may be 0: it then divides by 1, and the result is replaced.
func (b *builder) orNone(scale *ir.Value) group {
	none := b.n("Equal", scale, b.scalar(0))
	return group{div: b.where(none, b.scalar(1), scale), mul: scale, none: none}
}

// ufp is the power of two at or below |x|, for |x| up to 2^103 and 0 for 0: with u = 2^-24, q = (1/(2u) + 1)·x rounded, it is
// |q - (1-u)·q| (Rump, Zimmermann, Boldo, Melquiond, "Computing predecessor and successor in rounding to nearest", 2009).
func (b *builder) ufp(x *ir.Value) *ir.Value {
	q := b.n("Mul", x, b.scalar(0x1p23+1))
	return b.n("Abs", b.n("Sub", q, b.n("Mul", q, b.scalar(1-0x1p-24))))
}

// ufpWide is ufp for any finite x that is not negative.
func (b *builder) ufpWide(x *ir.Value) *ir.Value {
	large := b.n("Greater", x, b.scalar(1))
	down := b.where(large, b.scalar(0x1p-64), b.scalar(0x1p64))
	up := b.where(large, b.scalar(0x1p64), b.scalar(0x1p-64))
	return b.n("Mul", b.ufp(b.n("Mul", x, down)), up)
}

// pow2Above is the least power of two not below a/(frac·2^exp), frac from 1 to 2; 0 for 0.
func (b *builder) pow2Above(a *ir.Value, frac float32, exp int) *ir.Value {
	u := b.ufpWide(a)
	d := b.n("Mul", u, b.scalar(float32(math.Ldexp(1, -exp))))
	above := b.n("Greater", b.n("Div", a, u), b.scalar(frac)) // a/u is exact
	return b.where(above, b.n("Add", d, d), d)
}

// step is the distance of levels around values of magnitude a in a float format.
func (b *builder) step(a *ir.Value, f numfmt.Format) *ir.Value {
	u := b.ufp
	if f.Max() >= 0x1p100 {
		u = b.ufpWide
	}
	k := b.n("Max", u(a), b.scalar(f.MinNormal()))
	return b.n("Mul", k, b.scalar(float32(math.Ldexp(1, -f.Man))))
}

// roundFloat rounds to a format's levels, ties to even, saturating; NaN and the sign of 0 stay (METHODS §1.3).
func (b *builder) roundFloat(v *ir.Value, f numfmt.Format) *ir.Value {
	lo := -f.Max()
	if !f.Signed {
		lo = 0
	}
	c := b.n("Clip", v, b.scalar(lo), b.scalar(f.Max()))
	u := b.step(b.n("Abs", c), f)
	return b.n("Mul", b.n("Round", b.n("Div", c, u)), u)
}

// roundAway rounds as QPyTorch does (METHODS [DIFF 4]): half away from zero; below the least normal value after adding that
// value in float32, which is subtracted again and loses the sign of 0.
func (b *builder) roundAway(v *ir.Value, f numfmt.Format) *ir.Value {
	least := b.scalar(f.MinNormal())
	a := b.n("Min", b.n("Abs", v), b.scalar(f.Max()))
	small := b.n("Less", a, least)
	a = b.where(small, b.n("Add", a, least), a)
	u := b.step(a, f)
	q := b.n("Div", a, u)
	whole := b.n("Floor", q)
	up := b.cast(b.n("GreaterOrEqual", b.n("Sub", q, whole), b.scalar(0.5)), ir.Float32)
	r := b.n("Mul", b.n("Add", whole, up), u)
	r = b.n("Min", b.where(small, b.n("Sub", r, least), r), b.scalar(f.Max()))
	return b.where(b.n("Less", v, b.scalar(0)), b.n("Sub", b.scalar(0), r), r)
}
