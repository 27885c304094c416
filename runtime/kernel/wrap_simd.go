//go:build (amd64 || arm64) && !noasm

package kernel

import (
	"math"
	"unsafe"
)

// The functions below turn assembly functions on pointers into functions on slices of equal length.

func data[T any](x []T) *T { return unsafe.SliceData(x) }

func one(f func(dst, x *float32, n int)) func(dst, x []float32) {
	return func(dst, x []float32) { f(data(dst), data(x), len(dst)) }
}

func two(f func(dst, x, y *float32, n int)) func(dst, x, y []float32) {
	return func(dst, x, y []float32) { f(data(dst), data(x), data(y), len(dst)) }
}

func with(f func(dst, x *float32, s float32, n int)) func(dst, x []float32, s float32) {
	return func(dst, x []float32, s float32) { f(data(dst), data(x), s, len(dst)) }
}

func with2(f func(dst, x *float32, s, t float32, n int)) func(dst, x []float32, s, t float32) {
	return func(dst, x []float32, s, t float32) { f(data(dst), data(x), s, t, len(dst)) }
}

func grid(f func(dst, x *float32, scale, zero, lo, hi float32, n int)) func(dst, x []float32, q intGrid) {
	return func(dst, x []float32, q intGrid) { f(data(dst), data(x), q.scale, q.zero, q.lo, q.hi, len(dst)) }
}

func gridV(f func(dst, x, y *float32, lo, hi float32, n int)) func(dst, x, scale []float32, lo, hi float32) {
	return func(dst, x, scale []float32, lo, hi float32) { f(data(dst), data(x), data(scale), lo, hi, len(dst)) }
}

func codes(f func(dst *int32, x *float32, scale, zero, lo, hi float32, n int)) func(dst []int32, x []float32, q intGrid) {
	return func(dst []int32, x []float32, q intGrid) {
		f(data(dst), data(x), q.scale, q.zero, q.lo, q.hi, len(dst))
	}
}

func addMulI(f func(dst, x *int32, s int32, n int)) func(dst, x []int32, s int32) {
	return func(dst, x []int32, s int32) { f(data(dst), data(x), s, len(dst)) }
}

func scaleI(f func(dst *float32, x, y *int32, s int32, scale *float32, n int)) func(dst []float32, x, y []int32, s int32, scale []float32) {
	return func(dst []float32, x, y []int32, s int32, scale []float32) {
		f(data(dst), data(x), data(y), s, data(scale), len(dst))
	}
}

func scaleIS(f func(dst *float32, x *int32, s int32, scale float32, n int)) func(dst []float32, x []int32, s int32, scale float32) {
	return func(dst []float32, x []int32, s int32, scale float32) { f(data(dst), data(x), s, scale, len(dst)) }
}

func cast(f func(dst, x *float32, grid *uint32, scale float32, n int)) func(dst, x []float32, m *minifloat, scale float32) {
	return func(dst, x []float32, m *minifloat, scale float32) {
		if m.wide {
			castGeneric(dst, x, m, scale)
			return
		}
		f(data(dst), data(x), &m.minField, scale, len(dst))
	}
}

// sixteen leaves what is over from multiples of 16 to the plain Go loop, whose bits are the same.
func sixteen[D, S any](f func(dst *D, x *S, n int), rest func(dst []D, x []S)) func(dst []D, x []S) {
	return func(dst []D, x []S) {
		n := len(dst) &^ 15
		f(data(dst), data(x), n)
		rest(dst[n:], x[n:])
	}
}

// extremes takes short slices, of less than a vector, to the plain Go loop. The largest magnitude by bit pattern is
// there to find NaNs, which the comparing instructions drop.
func extremes(lanes int, f func(x *float32, n int, out *float32)) func(x []float32) (lo, hi float32) {
	return func(x []float32) (lo, hi float32) {
		if len(x) < lanes {
			return minMaxGeneric(x)
		}
		var out [3]float32
		f(data(x), len(x), &out[0])
		if out[2] != out[2] {
			nan := float32(math.NaN())
			return nan, nan
		}
		return out[0], out[1]
	}
}

func largest(lanes int, f func(x *float32, n int) float32) func(x []float32) float32 {
	return func(x []float32) float32 {
		if len(x) < lanes {
			return absMaxGeneric(x)
		}
		return f(data(x), len(x))
	}
}

// greatest takes short slices to the plain Go loop.
func greatest(lanes int, f func(x *float32, n int) float32) func(x []float32) float32 {
	return func(x []float32) float32 {
		if len(x) < lanes {
			_, hi := minMaxGeneric(x)
			return hi
		}
		return f(data(x), len(x))
	}
}

func blocksInt(f func(dst, x *float32, count, size int, scales *float32, words *uint32, lo, hi float32) int) intBlocks {
	return func(dst, x []float32, count, size int, scales []float32, r *rounding, lo, hi float32) int {
		return f(data(dst), data(x), count, size, data(scales), &r.words[0], lo, hi)
	}
}

func blocksFloat(f func(dst, x *float32, count, size int, scales *float32, words, grid *uint32) int) floatBlocks {
	return func(dst, x []float32, count, size int, scales []float32, r *rounding, g *minifloat) int {
		return f(data(dst), data(x), count, size, data(scales), &r.words[0], &g.minField)
	}
}
