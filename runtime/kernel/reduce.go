package kernel

import (
	"math"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// lanes is the number of partial sums of every sum in this package: element i goes to lane i mod lanes, the lanes are
// then added pairwise, upper half to lower half, until one is left. All levels do exactly this, so their bits agree.
const lanes = 32

func fold(acc *[lanes]float32) float32 {
	for h := lanes / 2; h > 0; h /= 2 {
		for i := range h {
			acc[i] += acc[i+h]
		}
	}
	return acc[0]
}

func sumGeneric(x []float32) float32 {
	var acc [lanes]float32
	for ; len(x) >= lanes; x = x[lanes:] {
		for i, v := range x[:lanes] {
			acc[i] += v
		}
	}
	return sumTail(&acc, x)
}

// sumTail adds the last, at most 31 elements to the lanes and folds them.
func sumTail(acc *[lanes]float32, x []float32) float32 {
	for i, v := range x {
		acc[i] += v
	}
	return fold(acc)
}

func sumSqGeneric(x []float32, mean float32) float32 {
	var acc [lanes]float32
	for ; len(x) >= lanes; x = x[lanes:] {
		for i, v := range x[:lanes] {
			d := v - mean
			acc[i] += float32(d * d)
		}
	}
	return sumSqTail(&acc, x, mean)
}

func sumSqTail(acc *[lanes]float32, x []float32, mean float32) float32 {
	for i, v := range x {
		d := v - mean
		acc[i] += float32(d * d)
	}
	return fold(acc)
}

func minMaxGeneric(x []float32) (lo, hi float32) {
	lo, hi = float32(math.Inf(1)), float32(math.Inf(-1))
	for _, v := range x {
		if v != v {
			return v, v
		}
		if v < lo {
			lo = v
		}
		if v > hi {
			hi = v
		}
	}
	return lo, hi
}

func absMaxGeneric(x []float32) float32 {
	var m uint32 // the bits of non-negative floats are in the order of their values, with NaN above all
	for _, v := range x {
		m = max(m, math.Float32bits(v)&0x7fffffff)
	}
	return math.Float32frombits(m)
}

func absMaxVGeneric(acc, x []float32) {
	for i, v := range x {
		m := max(math.Float32bits(acc[i])&0x7fffffff, math.Float32bits(v)&0x7fffffff)
		acc[i] = math.Float32frombits(m)
	}
}

// partials runs one value per elemGrain piece of x and returns them in order.
func partials[T any](n int, one func(lo, hi int) T) []T {
	out := make([]T, (n+elemGrain-1)/elemGrain)
	par.For(n, elemGrain, func(lo, hi int) { out[lo/elemGrain] = one(lo, hi) })
	return out
}

// Sum adds x up in a fixed order: pieces of 16384 elements, 32 lanes in each. The sum of nothing is 0.
func Sum(x []float32) float32 {
	if len(x) <= elemGrain {
		return cur.sum(x)
	}
	p := partials(len(x), func(lo, hi int) float32 { return cur.sum(x[lo:hi]) })
	return cur.sum(p)
}

// SumSquares adds up (x-mean)² in the order of Sum.
func SumSquares(x []float32, mean float32) float32 {
	if len(x) <= elemGrain {
		return cur.sumSq(x, mean)
	}
	p := partials(len(x), func(lo, hi int) float32 { return cur.sumSq(x[lo:hi], mean) })
	return cur.sum(p)
}

// MinMax returns the least and the greatest element: NaN for both where x holds a NaN, (+Inf, -Inf) where x is empty.
// Which zero it returns where -0 and +0 tie is not defined.
func MinMax(x []float32) (lo, hi float32) {
	if len(x) <= elemGrain {
		return cur.minMax(x)
	}
	p := partials(len(x), func(lo, hi int) [2]float32 {
		l, h := cur.minMax(x[lo:hi])
		return [2]float32{l, h}
	})
	lo, hi = p[0][0], p[0][1]
	for _, q := range p[1:] {
		lo, hi = min(lo, q[0]), max(hi, q[1]) // the built-ins keep NaN
	}
	return lo, hi
}

// Max returns the greatest element; see MinMax.
func Max(x []float32) float32 {
	_, hi := MinMax(x)
	return hi
}

// Min returns the least element; see MinMax.
func Min(x []float32) float32 {
	lo, _ := MinMax(x)
	return lo
}

// AbsMax returns max |x|: 0 where x is empty, NaN where x holds a NaN.
func AbsMax(x []float32) float32 {
	if len(x) <= elemGrain {
		return cur.absMax(x)
	}
	return cur.absMax(partials(len(x), func(lo, hi int) float32 { return cur.absMax(x[lo:hi]) }))
}

// AbsMaxRows sets dst[r] to the AbsMax of row r.
func AbsMaxRows(rows, cols int, dst, x []float32) {
	same("AbsMaxRows", rows*cols, len(x))
	same("AbsMaxRows", rows, len(dst))
	eachRow(rows, cols, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			dst[r] = cur.absMax(x[r*cols : (r+1)*cols])
		}
	})
}

// AbsMaxCols sets dst[c] to the AbsMax of column c.
func AbsMaxCols(rows, cols int, dst, x []float32) {
	same("AbsMaxCols", rows*cols, len(x))
	same("AbsMaxCols", cols, len(dst))
	// A core takes a strip of columns, wide enough for whole cache lines.
	strip := max(64, min(cols, elemGrain/max(rows, 1)))
	par.For(cols, strip, func(lo, hi int) {
		clear(dst[lo:hi])
		for r := range rows {
			cur.absMaxV(dst[lo:hi], x[r*cols+lo:r*cols+hi])
		}
	})
}

// SumRows sets dst[r] to the Sum of row r (32 lanes, whatever the row's length).
func SumRows(rows, cols int, dst, x []float32) {
	same("SumRows", rows*cols, len(x))
	same("SumRows", rows, len(dst))
	eachRow(rows, cols, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			dst[r] = cur.sum(x[r*cols : (r+1)*cols])
		}
	})
}
