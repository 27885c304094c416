package kernel

import (
	"math"
	"math/bits"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// Blocks says how the scale Δ of each block of Size consecutive elements (the last block of a row may be shorter) comes from
// the block's own largest magnitude m, and where the levels of integer grids end. There are three rules:
//
//   - Δ = m/Max, m first rounded to bfloat16 where BF16 is set; a block whose (unrounded) m is at most Tiny becomes zeros;
//   - Pow2: Δ = 2^(⌊log2 m⌋ - ⌊log2 Max⌋), within 2^-127 and 2^127, as OCP microscaling has it; a block of zeros keeps them, signs included where the grid has them;
//   - Code: Δ = cast(m/Max·enc)·dec on the grid Code, with enc = Max·Code.Max/top and dec = top/(Max·Code.Max), top being the largest
//     magnitude of the tensor (BlockQuant.Under); a block with Δ = 0 becomes zeros, and so do all where top is at most Tiny.
//
// A block whose m is infinite or NaN becomes NaN.
type Blocks struct {
	Size   int
	Max    float32 // qmax of an integer grid, the greatest finite value of a float one
	Lo, Hi float32 // integer grids: the least and greatest code
	BF16   bool
	Tiny   float32 // 0 catches all-zero blocks
	Pow2   bool
	Code   *Minifloat
}

// BlockQuant is the quantizer of Blocks on a grid, ready for use. It is immutable and safe for concurrent use.
type BlockQuant struct {
	b        Blocks
	grid     *minifloat // nil: integers
	code     minifloat  // of b.Code
	enc, dec float32    // of b.Code; 0: every block becomes zeros
	fast     bool       // the vector loops may take whole blocks
	words    rounding
}

// rounding is what the vector loops need to turn a block's largest magnitude m into a scale. Without Pow2 and Code words 0 and 1
// are the float32 bits of Max and Tiny, the next three round: (m + words[2] + (m>>16 & words[3])) & words[4]. With Pow2, word 0
// is ⌊log2 Max⌋ where a float32 has its exponent. With Code, word 0 is Max, words 5 and 6 are enc and dec, and 7, 8, 9
// the first three of the minifloat.
type rounding struct{ words [10]uint32 }

// Int makes the quantizer on the integer grid: dst = clamp(rne(x/Δ), Lo, Hi)·Δ.
func (b Blocks) Int() *BlockQuant { return b.ready(nil) }

// Float makes the quantizer on a minifloat grid: dst = cast(x/Δ)·Δ.
func (b Blocks) Float(f Minifloat) *BlockQuant {
	g := f.prepare()
	return b.ready(&g)
}

func (b Blocks) ready(g *minifloat) *BlockQuant {
	q := &BlockQuant{b: b, grid: g}
	// A grid that tells values below 2^-36 from zero wants the true division: see the vector loops.
	q.fast = b.Size%16 == 0 && (g == nil || !g.wide && g.minExp-g.man > -36)
	w := &q.words.words
	switch {
	case b.Pow2:
		w[0] = math.Float32bits(b.Max)&(255<<23) - 127<<23
		q.fast = q.fast && b.Max >= 1
	case b.Code != nil:
		q.code = b.Code.prepare()
		w[0] = math.Float32bits(b.Max)
		w[7], w[8], w[9] = q.code.minField, q.code.shift, math.Float32bits(q.code.max)
		q.fast = q.fast && !q.code.wide
	default:
		w[0], w[1], w[4] = math.Float32bits(b.Max), math.Float32bits(b.Tiny), math.MaxUint32
		if b.BF16 {
			w[2], w[3], w[4] = 0x7fff, 1, 0xffff0000
		}
	}
	return q
}

// Relative reports that the quantizer is of use only Under the largest magnitude of a tensor.
func (q *BlockQuant) Relative() bool { return q.b.Code != nil }

// Under makes the quantizer of a tensor with the given largest magnitude, which is finite. Quantizers that are not Relative
// stay what they are.
func (q *BlockQuant) Under(top float32) *BlockQuant {
	if !q.Relative() {
		return q
	}
	u := *q
	u.enc, u.dec = 0, 0
	if both := q.b.Max * q.code.max; top > q.b.Tiny {
		u.enc, u.dec = both/top, top/both
	}
	u.words.words[5], u.words.words[6] = math.Float32bits(u.enc), math.Float32bits(u.dec)
	return &u
}

// Size returns the length of a block.
func (q *BlockQuant) Size() int { return q.b.Size }

// scale returns the step of a block with largest magnitude m, 0 for a block that becomes zeros; ok is false for an infinite
// or NaN m.
func (q *BlockQuant) scale(m float32) (s float32, ok bool) {
	switch b := &q.b; {
	case !(m <= math.MaxFloat32):
		return m, false
	case b.Pow2:
		return pow2Scale(m, b.Max), true
	case b.Code != nil:
		v := [1]float32{m / b.Max * q.enc}
		castGeneric(v[:], v[:], &q.code, 1)
		return v[0] * q.dec, true
	case m <= b.Tiny:
		return 0, true
	case b.BF16:
		m = roundBF16(m)
	}
	s = m / q.b.Max
	return s, s <= math.MaxFloat32
}

// pow2Scale is 2^(⌊log2 m⌋ - ⌊log2 top⌋) within 2^-127 and 2^127, for finite m >= 0 and normal top.
func pow2Scale(m, top float32) float32 {
	b := math.Float32bits(m)
	e := int(b >> 23)
	if e == 0 {
		e = bits.Len32(b) - 23 // subnormal; far below the least scale where m = 0
	}
	e -= int(math.Float32bits(top)>>23) - 127
	switch {
	case e <= 0 || b == 0:
		return 0x1p-127
	case e > 254:
		e = 254
	}
	return math.Float32frombits(uint32(e) << 23)
}

// apply quantizes a block with its scale.
func (q *BlockQuant) apply(dst, x []float32, s float32) {
	if q.grid == nil {
		cur.fakeInt(dst, x, intGrid{scale: s, lo: q.b.Lo, hi: q.b.Hi})
		return
	}
	cur.cast(dst, x, q.grid, s)
}

// intBlocks and floatBlocks quantize count whole blocks of size elements, a multiple of 16, up to the first that they are not
// made for; they return the number of blocks done.
type (
	intBlocks   func(dst, x []float32, count, size int, scales []float32, r *rounding, lo, hi float32) int
	floatBlocks func(dst, x []float32, count, size int, scales []float32, r *rounding, f *minifloat) int
)

// vector hands whole blocks of a row to the vector loop of the rule, which stops at the first that it is not made for; it
// returns the number of blocks done.
func (q *BlockQuant) vector(dst, x []float32, count int, scales []float32) int {
	ints, floats := cur.blocksInt, cur.blocksFloat
	switch {
	case q.b.Pow2:
		ints, floats = cur.pow2Int, cur.pow2Float
	case q.b.Code != nil:
		ints, floats = cur.relInt, cur.relFloat
	}
	switch {
	case q.grid == nil && ints != nil:
		return ints(dst, x, count, q.b.Size, scales, &q.words, q.b.Lo, q.b.Hi)
	case q.grid != nil && floats != nil:
		return floats(dst, x, count, q.b.Size, scales, &q.words, q.grid)
	}
	return 0
}

// Rows quantizes the blocks of rows of cols elements, ldd and ldx apart, on this core. It reports false where a block held
// infinity or NaN. dst may be x where ldd is ldx. Where scales is not nil it receives each block's Δ, rows×⌈cols/Size⌉.
func (q *BlockQuant) Rows(rows, cols int, dst []float32, ldd int, x []float32, ldx int, scales []float32) (finite bool) {
	need("BlockQuant.Rows: dst", len(dst), rows, cols, ldd)
	need("BlockQuant.Rows: x", len(x), rows, cols, ldx)
	per := (cols + q.b.Size - 1) / q.b.Size
	if scales != nil {
		same("BlockQuant.Rows", rows*per, len(scales))
	}
	finite = true
	buf := scratch(per)
	defer release(buf)
	for r := range rows {
		out := buf.f
		if scales != nil {
			out = scales[r*per : (r+1)*per]
		}
		if !q.row(dst[r*ldd:][:cols], x[r*ldx:][:cols], out) {
			finite = false
		}
	}
	return finite
}

// row quantizes the blocks of one row.
func (q *BlockQuant) row(dst, x, scales []float32) (finite bool) {
	finite = true
	size, whole := q.b.Size, 0
	if q.fast {
		whole = len(x) / size
	}
	for k := 0; k < len(scales); k++ {
		if k < whole {
			k += q.vector(dst[k*size:], x[k*size:], whole-k, scales[k:])
			if k == len(scales) {
				break
			}
		}
		c0, c1 := k*size, min((k+1)*size, len(x))
		s, ok := q.scale(cur.absMax(x[c0:c1]))
		scales[k] = s
		switch {
		case !ok:
			finite = false
			fill(dst[c0:c1], float32(math.NaN()))
		case s == 0:
			clear(dst[c0:c1])
		default:
			q.apply(dst[c0:c1], x[c0:c1], s)
		}
	}
	return finite
}

// Cols is Rows with blocks that run down the columns: Size consecutive rows of one column share a scale (the last block may
// be shorter). scales, where not nil, is ⌈rows/Size⌉×cols.
func (q *BlockQuant) Cols(rows, cols int, dst []float32, ldd int, x []float32, ldx int, scales []float32) (finite bool) {
	need("BlockQuant.Cols: dst", len(dst), rows, cols, ldd)
	need("BlockQuant.Cols: x", len(x), rows, cols, ldx)
	finite = true
	for r := 0; r < rows; r += q.b.Size {
		var out []float32
		if scales != nil {
			out = scales[r/q.b.Size*cols:][:cols]
		}
		if n := min(q.b.Size, rows-r); !q.stack(n, cols, dst[r*ldd:], ldd, x[r*ldx:], ldx, out) {
			finite = false
		}
	}
	return finite
}

// stack quantizes one block of each column.
func (q *BlockQuant) stack(rows, cols int, dst []float32, ldd int, x []float32, ldx int, scales []float32) (finite bool) {
	buf, steps := scratch(cols), scratch(cols)
	defer release(buf)
	defer release(steps)
	finite = true
	am, st := buf.f, steps.f
	clear(am)
	for r := range rows {
		cur.absMaxV(am, x[r*ldx:][:cols])
	}
	var zeroed []int // columns to overwrite with +0
	for c, m := range am {
		s, ok := q.scale(m)
		if scales != nil {
			scales[c] = s
		}
		switch {
		case !ok: // whatever the quotient, its product with NaN is NaN
			finite, s = false, float32(math.NaN())
		case s == 0:
			s = 1
			if m != 0 || q.grid != nil { // integers make +0 of -0 themselves
				zeroed = append(zeroed, c)
			}
		}
		st[c] = s
	}
	for r := range rows {
		out, in := dst[r*ldd:][:cols], x[r*ldx:][:cols]
		if q.grid == nil {
			cur.fakeIntV(out, in, st, q.b.Lo, q.b.Hi)
		} else {
			cur.binary[opDiv](out, in, st)
			cur.cast(out, out, q.grid, 1)
			cur.binary[opMul](out, out, st)
		}
		for _, c := range zeroed {
			out[c] = 0
		}
	}
	return finite
}

// AllRows is Rows for matrices without gaps, on all cores.
func (q *BlockQuant) AllRows(rows, cols int, dst, x, scales []float32) (finite bool) {
	same("BlockQuant.AllRows", rows*cols, len(dst), len(x))
	per := (cols + q.b.Size - 1) / q.b.Size
	var bad par.Flag
	eachRow(rows, cols, func(lo, hi int) {
		var out []float32
		if scales != nil {
			out = scales[lo*per : hi*per]
		}
		if !q.Rows(hi-lo, cols, dst[lo*cols:hi*cols], cols, x[lo*cols:hi*cols], cols, out) {
			bad.Set()
		}
	})
	return !bad.IsSet()
}

// AllCols is Cols for matrices without gaps, on all cores.
func (q *BlockQuant) AllCols(rows, cols int, dst, x, scales []float32) (finite bool) {
	same("BlockQuant.AllCols", rows*cols, len(dst), len(x))
	size := q.b.Size
	per := (rows + size - 1) / size
	strip := max(64, min(cols, elemGrain/max(size, 1)))
	strips := (cols + strip - 1) / strip
	var bad par.Flag
	par.For(per*strips, 1, func(lo, hi int) {
		for t := lo; t < hi; t++ {
			r0, c0 := t/strips*size, t%strips*strip
			c1 := min(c0+strip, cols)
			var out []float32
			if scales != nil {
				out = scales[t/strips*cols+c0 : t/strips*cols+c1]
			}
			if !q.stack(min(size, rows-r0), c1-c0, dst[r0*cols+c0:], cols, x[r0*cols+c0:], cols, out) {
				bad.Set()
			}
		}
	})
	return !bad.IsSet()
}
