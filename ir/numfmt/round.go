package numfmt

import (
	"fmt"
	"math"
	"slices"

	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// maxZero bounds zero points, so that codes less zero points stay exact in float32.
const maxZero = 1 << 20

// ternaryEps is added to the mean magnitude before dividing by it (BitNet b1.58), and is the least median.
const ternaryEps = 1e-5

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

// check tells whether the parameters are n groups' of the scheme.
func (p Params) check(s Scheme, n int) error {
	if !s.Scaled() {
		return nil
	}
	special := s.Format.Kind == Book && len(s.Format.Book.Specials) > 0
	if len(p.Scale) != n || p.Zero != nil && len(p.Zero) != n || special && p.Zero == nil {
		return fmt.Errorf("scheme %s: got %d scales and %d zero points, want %d of each", s, len(p.Scale), len(p.Zero), n)
	}
	for g, z := range p.Zero {
		switch {
		case special && s.Format.Book.variant(z) == nil:
			return fmt.Errorf("scheme %s: group %d: special value %v is not one of %v", s, g, z, s.Format.Book.Specials)
		case s.Format.Kind != Int:
			continue
		}
		if z != float32(math.RoundToEven(float64(z))) || z > maxZero || z < -maxZero {
			return fmt.Errorf("scheme %s: group %d: zero point %v is not an integer of at most 20 bits", s, g, z)
		}
	}
	return nil
}

// group are the parameters of one group alone.
func (p Params) group(g int) Params {
	q := Params{Scale: p.Scale[g : g+1]}
	if p.Zero != nil {
		q.Zero = p.Zero[g : g+1]
	}
	return q
}

// divide sets dst to x in units of the step, with one scale or one for each element; 0 where the scale is 0.
func (s Scheme) divide(dst, x, scale []float32) {
	dst = dst[:len(x)]
	eps := float32(0)
	if s.Format.Kind == Ternary && !s.Format.Median {
		eps = ternaryEps // the one kind that divides by another number than it multiplies by
	}
	switch mul := s.Arith == ArithTRT; {
	case len(scale) != len(x) && scale[0] == 0:
		clear(dst)
	case len(scale) != len(x) && mul:
		f := scale[0]
		for i, v := range x {
			dst[i] = v * f
		}
	case len(scale) != len(x):
		kernel.DivScalar(dst, x, scale[0]+eps)
	case !mul && eps == 0 && !slices.Contains(scale, 0):
		kernel.Div(dst, x, scale)
	default:
		scale = scale[:len(x)]
		for i, v := range x {
			switch f := scale[i]; {
			case f == 0:
				dst[i] = 0
			case mul:
				dst[i] = v * f
			default:
				dst[i] = v / (f + eps)
			}
		}
	}
}

// multiply turns levels into values, with one scale or one for each element.
func (s Scheme) multiply(dst, scale []float32) {
	switch mul := s.Arith == ArithTRT; {
	case len(scale) != len(dst) && mul:
		f := scale[0]
		for i, v := range dst {
			dst[i] = v / f
		}
	case len(scale) != len(dst):
		f := scale[0]
		for i, v := range dst {
			dst[i] = v * f
		}
	case mul:
		scale = scale[:len(dst)]
		for i, v := range dst {
			dst[i] = v / scale[i]
		}
	default:
		scale = scale[:len(dst)]
		for i, v := range dst {
			dst[i] = v * scale[i]
		}
	}
}

// each visits the runs of a layout with their scales, one or one for each element, on all cores.
func each(l Layout, scale []float32, f func(from, to int, scale []float32)) {
	runs := l.runs()
	if runs == 0 {
		return
	}
	par.For(runs, max(1, grain*runs/l.Len()), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			r := l.run(i)
			n := 1
			if r.Step == 1 {
				n = r.Len
			}
			f(r.Off, r.Off+r.Len, scale[r.Group:r.Group+n])
		}
	})
}

// grain is the number of elements worth another core.
const grain = 1 << 14

// levels sets dst to the levels of x: integer codes less the zero point, or float or codebook values, in units of the
// step. dst may be x.
func (s Scheme) levels(dst, x []float32, l Layout, p Params) {
	g := s.grid()
	if !s.Scaled() {
		g.round(dst, x, 0, nil)
		return
	}
	each(l, p.Scale, func(from, to int, scale []float32) { s.divide(dst[from:to], x[from:to], scale) })
	switch {
	case p.Zero == nil:
		g.round(dst, dst, 0, s.Format.Book)
	case len(p.Zero) == 1 && s.Format.Kind == Int:
		g.round(dst, dst, p.Zero[0], nil)
	case s.Format.Kind == Int:
		kernel.FakeQuantInt(dst, dst, 1, 0, -2*maxZero, 2*maxZero)
		each(l, p.Zero, func(from, to int, zero []float32) { g.clip(dst[from:to], zero) })
	default:
		each(l, p.Zero, func(from, to int, special []float32) {
			for i, d := from, max(1, (to-from)/len(special)); i < to; i += d {
				g.round(dst[i:i+d], dst[i:i+d], 0, s.Format.Book.variant(special[(i-from)/d]))
			}
		})
	}
}

// Quantizer is one group's quantize–dequantize, for callers with values one at a time; RoundAll and RoundEach are much
// faster on many. It has a buffer, so it is not for concurrent use.
type Quantizer struct {
	s    Scheme
	g    grid
	book *Codebook
	p    Params
	buf  [1]float32
}

// Quantizer makes the quantizer of one group. It fails when the parameters lack the group, or hold a zero point that is
// no integer or no special value of the codebook.
func (s Scheme) Quantizer(p Params, group int) (*Quantizer, error) {
	q := &Quantizer{s: s, g: s.grid(), book: s.Format.Book, p: Params{Scale: []float32{1}}}
	if !s.Scaled() {
		return q, nil
	}
	if group < 0 || group >= len(p.Scale) || p.Zero != nil && group >= len(p.Zero) {
		return nil, fmt.Errorf("scheme %s: no parameters for group %d: got %d scales and %d zero points", s, group, len(p.Scale), len(p.Zero))
	}
	q.p = p.group(group)
	if err := q.p.check(s, 1); err != nil {
		return nil, err
	}
	if q.book != nil && q.p.Zero != nil {
		q.book = q.book.variant(q.p.Zero[0])
	}
	return q, nil
}

// levels sets dst to the levels of x.
func (q *Quantizer) levels(dst, x []float32) {
	q.s.divide(dst, x, q.p.Scale)
	zero := float32(0)
	if q.p.Zero != nil {
		zero = q.p.Zero[0]
	}
	q.g.round(dst, dst, zero, q.book)
}

// Round gives x quantized and dequantized. A group whose scale is 0 is all zeros; a NaN scale gives NaN.
func (q *Quantizer) Round(x float32) float32 {
	q.buf[0] = x
	q.RoundAll(q.buf[:], q.buf[:])
	return q.buf[0]
}

// Level gives the grid value of x in units of the step: the integer code less the zero point, or the float or codebook
// value, before multiplication by the scale.
func (q *Quantizer) Level(x float32) float32 {
	q.buf[0] = x
	q.levels(q.buf[:], q.buf[:])
	return q.buf[0]
}

// RoundAll sets dst[i] = Round(x[i]); dst and x have equal length and may be the same slice.
func (q *Quantizer) RoundAll(dst, x []float32) {
	dst = dst[:len(x)]
	if !q.s.Scaled() {
		q.g.round(dst, x, 0, nil)
		return
	}
	q.levels(dst, x)
	q.s.multiply(dst, q.p.Scale)
}

// RoundEach quantizes and dequantizes x[i] with the parameters of entry i: p.Scale, and p.Zero where not nil, are as long
// as x. It serves GPTQ's columns, where every row has its own scale.
func (s Scheme) RoundEach(dst, x []float32, p Params) error {
	if len(dst) != len(x) {
		return fmt.Errorf("scheme %s: got room for %d values, want %d", s, len(dst), len(x))
	}
	if err := p.check(s, len(x)); err != nil || len(x) == 0 {
		return err
	}
	s.apply(dst, x, Layout{Shape: []int{len(x)}, Gran: PerAxis, Coarse: -1, pre: 1, dim: len(x), post: 1}, p)
	return nil
}

// Apply quantizes and dequantizes x into dst with fitted parameters; both have the layout's length and may be the same
// slice. Nothing is written when the parameters do not fit the layout.
func (s Scheme) Apply(dst, x []float32, l Layout, p Params) error {
	if err := l.check(len(dst), len(x)); err != nil {
		return fmt.Errorf("scheme %s: %w", s, err)
	}
	if err := p.check(s, l.Groups()); err != nil {
		return fmt.Errorf("shape %v: %w", l.Shape, err)
	}
	s.apply(dst, x, l, p)
	return nil
}

// apply is Apply with parameters that were checked.
func (s Scheme) apply(dst, x []float32, l Layout, p Params) {
	switch {
	case s.IsNone():
		copy(dst, x)
	case l.Len() == 0 || s.fused(dst, x, l, p):
	default:
		s.levels(dst, x, l, p)
		if s.Scaled() {
			each(l, p.Scale, func(from, to int, scale []float32) { s.multiply(dst[from:to], scale) })
		}
	}
}

// plain reports whether kernels that divide, round and multiply in one go compute the scheme: true division by the
// scale, no zero point but possibly one for the tensor, an integer or float grid without peculiarities.
func (s Scheme) plain(l Layout, zero []float32) bool {
	f := s.Format
	grid := f.Kind == Int || f.Kind == Float && !f.Parity && f.Top != TopFNUZ
	return s.Scaled() && grid && s.Arith == ArithONNX && (zero == nil || l.Gran == PerTensor)
}

// fused applies the scheme by one kernel call for the tensor, or one for each of its blocks of rows, where there is such
// a kernel.
func (s Scheme) fused(dst, x []float32, l Layout, p Params) bool {
	if !s.plain(l, p.Zero) {
		return false
	}
	g := s.grid()
	isInt := s.Format.Kind == Int
	pre, dim, post := l.pre, l.dim, l.post
	switch {
	case l.Gran == PerTensor && p.Scale[0] != 0:
		zero := float32(0)
		if p.Zero != nil {
			zero = p.Zero[0]
		}
		if isInt {
			kernel.FakeQuantInt(dst, x, p.Scale[0], zero, g.lo, g.hi)
		} else {
			kernel.FakeQuantFloat(dst, x, p.Scale[0], g.mini)
		}
	case l.Gran == PerBlock && post == 1:
		if isInt {
			kernel.FakeQuantIntScales(pre, dim, dst, x, l.Block, p.Scale, g.lo, g.hi)
		} else {
			kernel.FakeQuantFloatScales(pre, dim, dst, x, l.Block, p.Scale, g.mini)
		}
	case l.Gran == PerAxis && post > 1:
		for at := 0; at < len(x); at += dim * post {
			d, v := dst[at:at+dim*post], x[at:at+dim*post]
			if isInt {
				kernel.FakeQuantIntScales(dim, post, d, v, post, p.Scale, g.lo, g.hi)
			} else {
				kernel.FakeQuantFloatScales(dim, post, d, v, post, p.Scale, g.mini)
			}
		}
	case l.Gran == PerAxis && isInt && !s.TwoLevel():
		kernel.FakeQuantIntCols(pre, dim, dst, x, p.Scale, g.lo, g.hi)
	case l.Gran == PerBlock && isInt && !s.TwoLevel():
		for k := range pre * l.blocks() { // each block row of post scales
			first, rows := l.blockRows(k)
			at, n := first*post, rows*post
			kernel.FakeQuantIntCols(rows, post, dst[at:at+n], x[at:at+n], p.Scale[k*post:(k+1)*post], g.lo, g.hi)
		}
	default:
		return false
	}
	return true
}
