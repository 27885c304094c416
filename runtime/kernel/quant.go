package kernel

import (
	"math"
	"unsafe"

	"github.com/qsimc/qsimc/runtime/kernel/par"
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

// Blocks says how FakeQuantBlocks… derive a scale for each block of Size consecutive elements of a row (the last block
// of a row may be shorter, and has its own maximum).
type Blocks struct {
	Size   int
	Max    float32 // the scale is the block's max |x| divided by Max: qmax of an integer grid, the greatest finite value of a float one
	Lo, Hi float32 // integer grids: the least and greatest code
	BF16   bool    // round the maximum to bfloat16 (RNE) before the division
	Tiny   float32 // blocks whose (unrounded) maximum is at most Tiny become zeros; 0 catches all-zero blocks
}

// scale returns the step for a block with the given maximum, 0 for a block of zeros; ok is false for an infinite or NaN
// maximum.
func (b *Blocks) scale(amax float32) (s float32, ok bool) {
	if amax <= b.Tiny {
		return 0, true
	}
	if b.BF16 {
		amax = roundBF16(amax)
	}
	return amax / b.Max, amax <= math.MaxFloat32
}

// FakeQuantBlocksInt quantizes each block of each row on its own integer grid: Δ = max|x|/Max, dst = clamp(rne(x/Δ), Lo,
// Hi)·Δ. Where scales is not nil it receives each block's Δ, rows×⌈cols/Size⌉. It reports false where a block's maximum
// is infinite or NaN; such a block becomes NaN.
func FakeQuantBlocksInt(rows, cols int, dst, x, scales []float32, b Blocks) (finite bool) {
	var fast wholeBlocks
	if f := cur.blocksInt; f != nil {
		fast = func(dst, x []float32, count int, scales []float32, r *rounding) int {
			return f(dst, x, count, b.Size, scales, r, b.Lo, b.Hi)
		}
	}
	return blocks("FakeQuantBlocksInt", rows, cols, dst, x, scales, &b, fast, func(dst, x []float32, s float32) {
		cur.fakeInt(dst, x, intGrid{scale: s, lo: b.Lo, hi: b.Hi})
	})
}

// FakeQuantBlocksFloat is FakeQuantBlocksInt on a minifloat grid: dst = cast(x/Δ)·Δ.
func FakeQuantBlocksFloat(rows, cols int, dst, x, scales []float32, b Blocks, f Minifloat) (finite bool) {
	g := f.prepare()
	var fast wholeBlocks
	if f := cur.blocksFloat; f != nil && !g.wide {
		fast = func(dst, x []float32, count int, scales []float32, r *rounding) int {
			return f(dst, x, count, b.Size, scales, r, &g)
		}
	}
	return blocks("FakeQuantBlocksFloat", rows, cols, dst, x, scales, &b, fast, func(dst, x []float32, s float32) {
		cur.cast(dst, x, &g, s)
	})
}

// wholeBlocks quantizes count blocks of a row, whose size is a multiple of 16, up to the first whose maximum is infinite
// or NaN, which it leaves alone; it returns the number of blocks done.
type wholeBlocks func(dst, x []float32, count int, scales []float32, r *rounding) int

// rounding is what the vector loops need to turn a block's maximum m into a scale: words 0 and 1 are the float32 bits of
// Max and Tiny, the others round: (m + words[2] + (m>>16 & words[3])) & words[4].
type rounding struct{ words [5]uint32 }

func (b *Blocks) rounding() *rounding {
	r := &rounding{[5]uint32{math.Float32bits(b.Max), math.Float32bits(b.Tiny), 0, 0, math.MaxUint32}}
	if b.BF16 {
		r.words[2], r.words[3], r.words[4] = 0x7fff, 1, 0xffff0000
	}
	return r
}

func blocks(what string, rows, cols int, dst, x, scales []float32, b *Blocks, fast wholeBlocks, grid func(dst, x []float32, s float32)) bool {
	same(what, rows*cols, len(dst), len(x))
	per := (cols + b.Size - 1) / b.Size
	if scales != nil {
		same(what, rows*per, len(scales))
	}
	whole := 0 // blocks of a row that the fast loop can take
	if fast != nil && b.Size%16 == 0 {
		whole = cols / b.Size
	}
	r := b.rounding()
	var bad par.Flag
	eachRow(rows, cols, func(lo, hi int) {
		buf := scratch(per)
		defer release(buf)
		for i := lo; i < hi; i++ {
			out := buf.f
			if scales != nil {
				out = scales[i*per : (i+1)*per]
			}
			if !b.row(dst[i*cols:(i+1)*cols], x[i*cols:(i+1)*cols], out, whole, r, fast, grid) {
				bad.Set()
			}
		}
	})
	return !bad.IsSet()
}

// row quantizes the blocks of one row, the first whole of them by the fast loop as far as it goes.
func (b *Blocks) row(dst, x, scales []float32, whole int, r *rounding, fast wholeBlocks, grid func(dst, x []float32, s float32)) (finite bool) {
	finite = true
	for k := 0; k < len(scales); k++ {
		if k < whole {
			k += fast(dst[k*b.Size:], x[k*b.Size:], whole-k, scales[k:], r)
			if k == len(scales) {
				break
			}
		}
		c0, c1 := k*b.Size, min((k+1)*b.Size, len(x))
		s, ok := b.scale(cur.absMax(x[c0:c1]))
		scales[k] = s
		switch {
		case !ok:
			finite = false
			fill(dst[c0:c1], float32(math.NaN()))
		case s == 0:
			clear(dst[c0:c1])
		default:
			grid(dst[c0:c1], x[c0:c1], s)
		}
	}
	return finite
}

// FakeQuantBlocksIntCols is FakeQuantBlocksInt with blocks that run down the columns: Size consecutive rows of one
// column share a scale (the last block may be shorter). scales, where not nil, is ⌈rows/Size⌉×cols.
func FakeQuantBlocksIntCols(rows, cols int, dst, x, scales []float32, b Blocks) (finite bool) {
	return blocksCols("FakeQuantBlocksIntCols", rows, cols, dst, x, scales, &b, true, func(dst, x, s []float32) {
		cur.fakeIntV(dst, x, s, b.Lo, b.Hi)
	})
}

// FakeQuantBlocksFloatCols is FakeQuantBlocksIntCols on a minifloat grid.
func FakeQuantBlocksFloatCols(rows, cols int, dst, x, scales []float32, b Blocks, f Minifloat) (finite bool) {
	g := f.prepare()
	return blocksCols("FakeQuantBlocksFloatCols", rows, cols, dst, x, scales, &b, false, func(dst, x, s []float32) {
		cur.binary[opDiv](dst, x, s)
		cur.cast(dst, dst, &g, 1)
		cur.binary[opMul](dst, dst, s)
	})
}

// blocksCols drives the blocks that run down columns. plusZero says that grid makes +0 of -0, so that a column of zeros
// needs no care.
func blocksCols(what string, rows, cols int, dst, x, scales []float32, b *Blocks, plusZero bool, grid func(dst, x, s []float32)) bool {
	same(what, rows*cols, len(dst), len(x))
	per := (rows + b.Size - 1) / b.Size
	if scales != nil {
		same(what, per*cols, len(scales))
	}
	var bad par.Flag
	strip := max(64, min(cols, elemGrain/max(b.Size, 1)))
	strips := (cols + strip - 1) / strip
	par.For(per*strips, 1, func(lo, hi int) {
		acc, step := scratch(strip), scratch(strip)
		defer release(acc)
		defer release(step)
		for t := lo; t < hi; t++ {
			k, c0 := t/strips, t%strips*strip
			c1 := min(c0+strip, cols)
			r0, r1 := k*b.Size, min((k+1)*b.Size, rows)
			am, st := acc.f[:c1-c0], step.f[:c1-c0]
			clear(am)
			for r := r0; r < r1; r++ {
				cur.absMaxV(am, x[r*cols+c0:r*cols+c1])
			}
			var zeroed []int // columns to overwrite with +0
			for c, m := range am {
				s, ok := b.scale(m)
				if scales != nil {
					scales[k*cols+c0+c] = s
				}
				switch {
				case !ok: // whatever the quotient, its product with NaN is NaN
					bad.Set()
					s = float32(math.NaN())
				case s == 0:
					s = 1
					if m != 0 || !plusZero {
						zeroed = append(zeroed, c)
					}
				}
				st[c] = s
			}
			for r := r0; r < r1; r++ {
				out := dst[r*cols+c0 : r*cols+c1]
				grid(out, x[r*cols+c0:r*cols+c1], st)
				for _, c := range zeroed {
					out[c] = 0
				}
			}
		}
	})
	return !bad.IsSet()
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
