package kernel

import (
	"fmt"
	"math"
)

// Minifloat is a floating-point grid: sign, ExpBits of exponent, ManBits of mantissa, values
//
//	M·2^(1-Bias-ManBits)              exponent code 0
//	(1+M/2^ManBits)·2^(E-Bias)        otherwise
//
// up to ±Max, which must be one of them. Casting rounds to nearest even and saturates at ±Max, ±Inf included; -0 stays.
type Minifloat struct {
	ExpBits, ManBits int
	Bias             int
	Max              float32
	NaN              float32 // what a NaN becomes; the sign of the NaN is ignored
}

// minifloat is a Minifloat ready for the loops. Adding and taking away 1.5·2^(k-m+23) rounds |x| < 2^(k+1) to a multiple
// of 2^(k-m) in the hardware's rounding, nearest even; built by integer arithmetic on the exponent field of |x|.
type minifloat struct {
	minField uint32 // exponent field (in place, bits 23…30) of the least normal number
	shift    uint32 // (23-m) << 23 plus the mantissa of 1.5
	max, nan float32
	wide     bool // the constant overflows: cast in float64
	man      int
	minExp   int
}

func (f Minifloat) prepare() minifloat {
	// No code is above the all-ones one.
	if top := math.Ldexp(2-math.Ldexp(1, -f.ManBits), 1<<f.ExpBits-1-f.Bias); !(float64(f.Max) > 0 && float64(f.Max) <= top) {
		panic(fmt.Sprintf("BUG: kernel.Minifloat %+v: the greatest value lies outside the grid, which ends at %v", f, top))
	}
	minExp := 1 - f.Bias
	g := minifloat{max: f.Max, nan: f.NaN, man: f.ManBits, minExp: minExp}
	_, e := math.Frexp(float64(f.Max)) // Max < 2^e
	if minExp < -126 || e-1+23-f.ManBits > 127 || f.ManBits > 21 {
		g.wide = true
		return g
	}
	g.minField = uint32(minExp+127) << 23
	g.shift = uint32(23-f.ManBits)<<23 | 1<<22
	return g
}

// CastMinifloat sets dst to x on the grid f, saturating. All levels give the same bits.
func CastMinifloat(dst, x []float32, f Minifloat) { FakeQuantFloat(dst, x, 1, f) }

// FakeQuantFloat sets dst = cast(x/scale)·scale on the grid f, saturating; the division is true.
func FakeQuantFloat(dst, x []float32, scale float32, f Minifloat) {
	same("FakeQuantFloat", len(dst), len(x))
	g := f.prepare()
	each(len(x), func(a, b int) { cur.cast(dst[a:b], x[a:b], &g, scale) })
}

// FakeQuantFloatRows is FakeQuantFloat with a scale for each of the rows.
func FakeQuantFloatRows(rows, cols int, dst, x, scale []float32, f Minifloat) {
	same("FakeQuantFloatRows", rows, len(scale))
	FakeQuantFloatScales(rows, cols, dst, x, max(cols, 1), scale, f)
}

func castGeneric(dst, x []float32, f *minifloat, scale float32) {
	for i, v := range x {
		v /= scale
		b := math.Float32bits(v)
		a := math.Float32frombits(b & 0x7fffffff)
		switch {
		case a != a:
			dst[i] = f.nan * scale
			continue
		case f.wide:
			a = f.castWide(a)
		default:
			if a > f.max {
				a = f.max
			}
			c := math.Float32frombits(max(math.Float32bits(a)&0x7f800000, f.minField) + f.shift)
			a = float32(a+c) - c
		}
		dst[i] = math.Float32frombits(math.Float32bits(a)|b&0x80000000) * scale
	}
}

// castWide is the cast of |x| for grids whose exponents reach the ends of float32's range.
func (f *minifloat) castWide(a float32) float32 {
	if a >= f.max {
		return f.max
	}
	_, e := math.Frexp(float64(a))
	unit := math.Ldexp(1, max(e-1, f.minExp)-f.man)
	return min(float32(math.RoundToEven(float64(a)/unit)*unit), f.max)
}
