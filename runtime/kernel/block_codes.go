package kernel

import (
	"math"
	"unsafe"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// unit returns what the levels of the quantizer's grid, in units of the step, are multiplied by to be integers of at most 8 bits;
// 0 where nothing does that.
func (q *BlockQuant) unit() float32 {
	if g := q.grid; g != nil {
		if u := math.Ldexp(1, g.man-g.minExp); !g.wide && float64(g.max)*u <= 127 {
			return float32(u)
		}
		return 0
	}
	if q.b.Lo >= -128 && q.b.Hi <= 127 {
		return 1
	}
	return 0
}

// CanCode reports that Codes can write what the quantizer makes of numbers, but for scales out of the ordinary.
func (q *BlockQuant) CanCode() bool { return CanBlock(q.b.Size) && q.unit() != 0 }

// Codes quantizes rows of cols elements, ldx apart, to rows of BlockRow(cols, Size) bytes for GemmBlocks, on all cores: integers
// and a Δ for each block, whose products are what Rows gives, but for the sign of zeros. It reports false, and dst holds nothing
// of use, where a block held infinity or NaN or its Δ is not one that products on codes are made for.
func (q *BlockQuant) Codes(rows, cols int, dst []byte, x []float32, ldx int) (ok bool) {
	size, ld := q.b.Size, BlockRow(cols, q.b.Size)
	need("BlockQuant.Codes: x", len(x), rows, cols, ldx)
	need("BlockQuant.Codes: dst", len(dst), rows, ld, ld)
	var bad par.Flag
	shift := coding(size).shift()
	eachRow(rows, cols, func(lo, hi int) {
		if !bad.IsSet() && !q.codeRows(hi-lo, cols, cols, dst[lo*ld:], x[lo*ldx:], ldx, shift) {
			bad.Set()
		}
	})
	return !bad.IsSet()
}

// codeRows quantizes rows of seen elements, ldx apart, to codes, on this core. They become rows of cols elements, BlockRow(cols, Size) bytes
// each, of which no more blocks are written than hold the first seen elements; shift is added to the codes. ok is as in Codes.
func (q *BlockQuant) codeRows(rows, seen, cols int, dst []byte, x []float32, ldx, shift int) (ok bool) {
	size := q.b.Size
	count, ld, at := (seen+size-1)/size, BlockRow(cols, size), codeBytes(cols, size)
	buf, steps := scratch(count*size), scratch(2*count)
	defer release(buf)
	defer release(steps)
	clear(buf.f[seen:])
	for r := range rows {
		row := dst[r*ld:][:ld]
		if !q.row(buf.f[:seen], x[r*ldx:][:seen], steps.f[:count]) || !q.encode(row, stepsOf(row[at:]), buf.f, steps.f, shift) {
			return false
		}
	}
	return true
}

// encode writes a row of codes, and each block's Δ to out, of whole blocks of quantized numbers, whose scales are the first half of steps; the
// second is for its use.
func (q *BlockQuant) encode(dst []byte, out, x, steps []float32, shift int) (ok bool) {
	size, count, unit := q.b.Size, len(steps)/2, q.unit()
	by := steps[count:]
	for k, s := range steps[:count] {
		switch {
		case s >= leastStep && s <= mostStep:
			out[k], by[k] = s/unit, unit/s
		case cur.absMax(x[k*size:(k+1)*size]) == 0:
			out[k], by[k] = 0, 0
		default:
			return false
		}
	}
	if cur.blockCodes != nil && size%16 == 0 {
		cur.blockCodes(&dst[0], &x[0], &by[0], count, size, shift)
		return true
	}
	wide, bytes := shortsOf(dst), coding(size).per == 4
	for i, v := range x {
		c := int32(math.RoundToEven(float64(v * by[i/size])))
		if bytes {
			dst[i] = byte(c + int32(shift))
		} else {
			wide[i] = int16(c)
		}
	}
	return true
}

// stepsOf views Δ of blocks.
func stepsOf(x []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(x))), len(x)/4)
}

// Uncode sets rows of cols elements, in blocks of size, to the numbers whose codes Codes wrote.
func Uncode(rows, cols, size int, dst []float32, codes []byte) {
	same("Uncode", rows*cols, len(dst))
	ld, t := BlockRow(cols, size), coding(size)
	need("Uncode", len(codes), rows, ld, ld)
	eachRow(rows, cols, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			row := codes[r*ld : (r+1)*ld]
			steps := stepsOf(row[codeBytes(cols, size):])
			if t.per == 4 {
				flip := byte(t.shift()) // of the sign bit
				for i, c := range row[:cols] {
					dst[r*cols+i] = float32(int8(c^flip)) * steps[i/size]
				}
				continue
			}
			for i, c := range shortsOf(row)[:cols] {
				dst[r*cols+i] = float32(c) * steps[i/size]
			}
		}
	})
}

// shortsOf views codes of two bytes.
func shortsOf(x []byte) []int16 {
	return unsafe.Slice((*int16)(unsafe.Pointer(unsafe.SliceData(x))), len(x)/2)
}
