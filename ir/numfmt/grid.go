package numfmt

import (
	"math"

	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// grid rounds values in units of the step to a scheme's levels: integer codes less the zero point, or float or codebook
// values. Rounding itself is the kernel's; only codebooks and QPyTorch's half-away rounding live here.
type grid struct {
	f      Format
	lo, hi float32 // integer codes
	mini   kernel.Minifloat
}

// grid is the scheme's element rounding.
func (s Scheme) grid() grid {
	g := s.Format.grid()
	if s.Format.Kind == Int {
		lo, hi := s.Codes()
		g.lo, g.hi = float32(lo), float32(hi)
	}
	return g
}

// grid is the format's element rounding, integers in their full range.
func (f Format) grid() grid {
	g := grid{f: f}
	switch f.Kind {
	case Int:
		lo, hi := f.fullRange()
		g.lo, g.hi = float32(lo), float32(hi)
	case Ternary:
		g.lo, g.hi = -1, 1
	case Float, ScaleFmt:
		g.mini = kernel.Minifloat{ExpBits: f.Exp, ManBits: f.Man, Bias: f.Bias, Max: float32(f.max64()), NaN: float32(math.NaN())}
		if f.Top == TopAll {
			g.mini.NaN = g.mini.Max
		}
	}
	return g
}

// round sets dst to the levels nearest to v, with one zero point for all; dst may be v.
func (g *grid) round(dst, v []float32, zero float32, book *Codebook) {
	switch g.f.Kind {
	case Int, Ternary:
		kernel.FakeQuantInt(dst, v, 1, zero, g.lo, g.hi)
	case Cast:
		if g.f.Exp == 8 {
			kernel.RoundBF16(dst, v)
		} else {
			kernel.RoundF16(dst, v)
		}
	case Book:
		par.For(len(v), grain, func(lo, hi int) {
			for i, v := range v[lo:hi] {
				dst[lo+i] = book.sorted[book.index(v)].val
			}
		})
	case Float, ScaleFmt:
		if g.f.Parity {
			par.For(len(v), grain, func(lo, hi int) { g.away(dst[lo:hi], v[lo:hi]) })
			return
		}
		kernel.CastMinifloat(dst, v, g.mini)
		if g.f.Top == TopFNUZ {
			for i := range dst {
				dst[i] += 0 // no -0
			}
		}
	}
}

// clip brings integers, codes less zero points, into the codes' range, with one zero point or one for each element.
func (g *grid) clip(dst, zero []float32) {
	if len(zero) != len(dst) {
		lo, hi := g.lo-zero[0], g.hi-zero[0]
		for i, v := range dst {
			if v < lo {
				dst[i] = lo
			} else if v > hi {
				dst[i] = hi
			}
		}
		return
	}
	for i, v := range dst {
		if lo, hi := g.lo-zero[i], g.hi-zero[i]; v < lo {
			dst[i] = lo
		} else if v > hi {
			dst[i] = hi
		}
	}
}

// away rounds as QPyTorch 0.3.0: half away from zero by adding half an ulp to the bits and truncating; below the smallest
// normal value after adding that value in float32 and subtracting it again, which loses the sign of zero. NaN counts as
// a huge number of its sign.
func (g *grid) away(dst, x []float32) {
	drop := 23 - g.f.Man
	half, mask := uint32(1)<<drop>>1, ^(uint32(1)<<drop - 1)
	most, least := math.Float32bits(g.mini.Max), math.Float32bits(g.f.MinNormal())
	for i, v := range x {
		b := math.Float32bits(v)
		sign, a := b&(1<<31), b&^(1<<31)
		if a < least {
			l := math.Float32frombits(least | sign)
			dst[i] = math.Float32frombits((math.Float32bits(v+l)+half)&mask) - l
			continue
		}
		dst[i] = math.Float32frombits(min((min(a, most)+half)&mask, most) | sign)
	}
}

// code gives the bits of a level of a float format, a value that round returned. NaN gives the format's NaN code, quiet
// and of the NaN's sign where the format has several, or the largest value where it has none.
func (f *Format) code(level float32) uint32 {
	var sign uint32
	if f.Signed && math.Signbit(float64(level)) {
		sign = 1 << (f.Exp + f.Man)
	}
	last := uint32(1)<<(f.Exp+f.Man) - 1 // all exponent and mantissa bits
	a := math.Abs(float64(level))
	switch {
	case level != level:
		switch f.Top {
		case TopIEEE:
			return sign | last&^(1<<f.Man-1) | 1<<f.Man>>1
		case TopFN:
			return sign | last
		case TopFNUZ:
			return 1 << (f.Exp + f.Man)
		}
		return last
	case !f.Signed && level < 0:
		return 0
	case a > maxFloat32:
		return sign | last&^(1<<f.Man-1)
	case a == 0 && f.Top == TopFNUZ:
		return 0
	case a == 0:
		return sign
	}
	// The exponent and the upper mantissa bits of a float64 are the code, but for the bias; a subnormal's exponent is
	// that of the least normal value, so its leading bit is one like others.
	b := math.Float64bits(a)
	k := int(b>>52) - 1023
	man := uint32(b<<12>>12>>(52-f.Man)) | 1<<f.Man
	if least := 1 - f.Bias; k < least {
		return sign | man>>(least-k)
	}
	return sign | (uint32(k+f.Bias)<<f.Man + man - 1<<f.Man)
}

// limit is where a float format overflows: beyond the tie above its largest value, and at it when that tie goes up.
type limit struct {
	tie  float64
	even bool // the largest value has an even mantissa, so the tie stays
}

// overflow is the format's limit, infinite for formats that always saturate.
func (f *Format) overflow() limit {
	if f.Kind != Float || f.Parity || f.Top == TopAll {
		return limit{tie: math.Inf(1), even: true}
	}
	most := f.max64()
	_, e := math.Frexp(most)
	ulp := math.Ldexp(1, e-1-f.Man)
	return limit{tie: most + ulp/2, even: math.Mod(most/ulp, 2) == 0}
}

// passed reports whether v rounds above the largest value, were there room for it.
func (l limit) passed(v float32) bool {
	a := math.Abs(float64(v))
	return a > l.tie || a == l.tie && !l.even
}
