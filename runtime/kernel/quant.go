package kernel

import (
	"math"
	"unsafe"
)

// intGrid is an integer grid: x̂ = (clamp(rne(x/scale)+zero, lo, hi) - zero)·scale, NaN counting as 0.
type intGrid struct{ scale, zero, lo, hi float32 }

// FakeQuantInt sets dst = (q-zero)·scale with q = clamp(rne(x/scale)+zero, lo, hi), every step in float32, the division
// true, rne to the nearest even integer. zero, lo and hi are integers below 2²⁴ in magnitude. ±Inf saturate; NaN counts
// as 0. All levels give the same bits.
func FakeQuantInt(dst, x []float32, scale, zero, lo, hi float32) {
	same("FakeQuantInt", len(dst), len(x))
	g := intGrid{scale, zero, lo, hi}
	each(len(x), func(a, b int) { cur.fakeInt(dst[a:b], x[a:b], g) })
}

// FakeQuantIntRows is FakeQuantInt with a scale, and a zero point unless zero is nil, for each of the rows.
func FakeQuantIntRows(rows, cols int, dst, x, scale, zero []float32, lo, hi float32) {
	same("FakeQuantIntRows", rows*cols, len(dst), len(x))
	same("FakeQuantIntRows", rows, len(scale))
	eachRow(rows, cols, func(a, b int) {
		for r := a; r < b; r++ {
			g := intGrid{scale: scale[r], lo: lo, hi: hi}
			if zero != nil {
				g.zero = zero[r]
			}
			cur.fakeInt(dst[r*cols:(r+1)*cols], x[r*cols:(r+1)*cols], g)
		}
	})
}

// FakeQuantIntCols is FakeQuantInt with a scale for each of the columns and no zero point.
func FakeQuantIntCols(rows, cols int, dst, x, scale []float32, lo, hi float32) {
	same("FakeQuantIntCols", rows*cols, len(dst), len(x))
	same("FakeQuantIntCols", cols, len(scale))
	eachRow(rows, cols, func(a, b int) {
		for r := a; r < b; r++ {
			cur.fakeIntV(dst[r*cols:(r+1)*cols], x[r*cols:(r+1)*cols], scale, lo, hi)
		}
	})
}

// Code is an integer type that holds quantized codes.
type Code interface {
	~int8 | ~uint8 | ~int16 | ~uint16 | ~int32
}

// QuantizeInt sets dst to the codes clamp(rne(x/scale)+zero, lo, hi) of FakeQuantInt; lo and hi must fit T.
func QuantizeInt[T Code](dst []T, x []float32, scale, zero, lo, hi float32) {
	same("QuantizeInt", len(dst), len(x))
	var t T
	each(len(x), func(a, b int) {
		if unsafe.Sizeof(t) == 1 && cur.quant8 != nil && b-a >= 16 {
			n := (b - a) &^ 15
			cur.quant8((*uint8)(unsafe.Pointer(&dst[a])), &x[a], scale, zero, lo, hi, n)
			a += n
		}
		const step = 1024
		buf, tmp := scratchOf[int32](step)
		defer release(buf)
		for ; a < b; a += step {
			e := min(a+step, b)
			cur.codes(tmp[:e-a], x[a:e], intGrid{scale, zero, lo, hi})
			for i, c := range tmp[:e-a] {
				dst[a+i] = T(c)
			}
		}
	})
}

// DequantizeInt sets dst = (q-zero)·scale.
func DequantizeInt[T Code](dst []float32, q []T, scale float32, zero int32) {
	same("DequantizeInt", len(dst), len(q))
	var t T
	each(len(q), func(a, b int) {
		if n := (b - a) &^ 15; unsafe.Sizeof(t) == 1 && cur.dequantI8 != nil && n > 0 {
			if t-1 < 0 {
				cur.dequantI8(&dst[a], (*int8)(unsafe.Pointer(&q[a])), scale, zero, n)
			} else {
				cur.dequantU8(&dst[a], (*uint8)(unsafe.Pointer(&q[a])), scale, zero, n)
			}
			a += n
		}
		for i := a; i < b; i++ {
			dst[i] = float32(int32(q[i])-zero) * scale
		}
	})
}

// FakeQuantIntScales quantizes blocks of size consecutive elements of each row with given scales, rows×⌈cols/size⌉:
// dst = clamp(rne(x/s), lo, hi)·s; a block with scale 0 becomes zeros, one with scale NaN becomes NaN.
func FakeQuantIntScales(rows, cols int, dst, x []float32, size int, scales []float32, lo, hi float32) {
	givenScales("FakeQuantIntScales", rows, cols, dst, x, size, scales, func(dst, x []float32, s float32) {
		cur.fakeInt(dst, x, intGrid{scale: s, lo: lo, hi: hi})
	})
}

// FakeQuantFloatScales is FakeQuantIntScales on a minifloat grid: dst = cast(x/s)·s.
func FakeQuantFloatScales(rows, cols int, dst, x []float32, size int, scales []float32, f Minifloat) {
	g := f.prepare()
	givenScales("FakeQuantFloatScales", rows, cols, dst, x, size, scales, func(dst, x []float32, s float32) {
		cur.cast(dst, x, &g, s)
	})
}

func givenScales(what string, rows, cols int, dst, x []float32, size int, scales []float32, grid func(dst, x []float32, s float32)) {
	same(what, rows*cols, len(dst), len(x))
	per := (cols + size - 1) / size
	same(what, rows*per, len(scales))
	eachRow(rows, cols, func(a, b int) {
		for r := a; r < b; r++ {
			in, out := x[r*cols:(r+1)*cols], dst[r*cols:(r+1)*cols]
			for k := 0; k < per; k++ {
				c0, c1 := k*size, min((k+1)*size, cols)
				switch s := scales[r*per+k]; {
				case s == 0:
					clear(out[c0:c1])
				case s != s:
					fill(out[c0:c1], s)
				default:
					grid(out[c0:c1], in[c0:c1], s)
				}
			}
		}
	})
}

// AbsMaxBlocks sets dst, rows×⌈cols/size⌉, to max |x| of each block of size consecutive elements of each row; NaN where a
// block holds one.
func AbsMaxBlocks(rows, cols, size int, dst, x []float32) {
	same("AbsMaxBlocks", rows*cols, len(x))
	per := (cols + size - 1) / size
	same("AbsMaxBlocks", rows*per, len(dst))
	eachRow(rows, cols, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			for k := 0; k < per; k++ {
				dst[r*per+k] = cur.absMax(x[r*cols+k*size : r*cols+min((k+1)*size, cols)])
			}
		}
	})
}

func fill(x []float32, v float32) {
	for i := range x {
		x[i] = v
	}
}

func fakeIntGeneric(dst, x []float32, q intGrid) {
	for i, v := range x {
		dst[i] = float32(gridCode(v/q.scale, &q)-q.zero) * q.scale
	}
}

// gridCode is clamp(rne(t)+zero, lo, hi) with NaN counting as 0.
func gridCode(t float32, q *intGrid) float32 {
	if t != t {
		t = 0
	}
	t = float32(math.RoundToEven(float64(t))) + q.zero
	if t < q.lo {
		t = q.lo
	}
	if t > q.hi {
		t = q.hi
	}
	return t
}

func fakeIntVGeneric(dst, x, scale []float32, lo, hi float32) {
	q := intGrid{lo: lo, hi: hi}
	for i, v := range x {
		dst[i] = float32(gridCode(v/scale[i], &q)-0) * scale[i]
	}
}

func codesGeneric(dst []int32, x []float32, q intGrid) {
	for i, v := range x {
		dst[i] = int32(gridCode(v/q.scale, &q))
	}
}
