//go:build amd64 && !noasm

package kernel

import (
	"math"
	"unsafe"
)

// avx512 and avx2 are the vector levels.
var (
	avx512 = impl{
		name:   "avx512",
		tiles:  []*tile[float32]{tile9x48, tile14x32},
		tilesD: []*tile[float64]{tile14x16d},
		tilesI: []*tile[int32]{tile9x48i},
		binary: [numBinary]func(dst, a, b []float32){
			opAdd: two(vecAdd_avx512), opSub: two(vecSub_avx512), opMul: two(vecMul_avx512), opDiv: two(vecDiv_avx512),
			opMaximum: two(vecMaximum_avx512),
		},
		scalar: [numScalar]func(dst, a []float32, s float32){
			opAddS: with(vecAddS_avx512), opSubS: with(vecSubS_avx512), opRSubS: with(vecRSubS_avx512),
			opMulS: with(vecMulS_avx512), opDivS: with(vecDivS_avx512), opRDivS: with(vecRDivS_avx512),
		},
		unary: [numUnary]func(dst, x []float32){
			opRelu: one(vecRelu_avx512), opExp: one(vecExp_avx512), opErf: one(vecErf_avx512), opGelu: one(vecGelu_avx512),
			opGeluTanh: one(vecGeluTanh_avx512), opSigmoid: one(vecSigmoid_avx512), opTanh: one(vecTanh_avx512),
			opSilu: one(vecSilu_avx512), opSqrt: one(vecSqrt_avx512),
		},
		thin:     thinAVX512,
		trans8:   transpose8,
		clip:     with2(vecClip_avx512),
		axpy:     with(vecAxpy_avx512),
		taps:     taps(vecTaps_avx512),
		add64:    sixteen(vecAdd64_avx512, generic.add64),
		expSum:   expSumAVX512,
		max:      greatest(16, vecMax_avx512),
		affine:   with2(vecAffine_avx512),
		sum:      sumAVX512,
		sumSq:    sumSqAVX512,
		minMax:   extremes(16, minMax_avx512),
		absMax:   largest(16, absMax_avx512),
		absMaxV:  one(vecAbsMax_avx512),
		fakeInt:  grid(vecFakeInt_avx512),
		fakeIntV: gridV(vecFakeIntV_avx512),
		cast:     cast(vecCast_avx512),
		blocksInt: func(dst, x []float32, count, size int, scales []float32, r *rounding, lo, hi float32) int {
			return vecBlocksInt_avx512(data(dst), data(x), count, size, data(scales), &r.words[0], lo, hi)
		},
		blocksFloat: func(dst, x []float32, count, size int, scales []float32, r *rounding, f *minifloat) int {
			return vecBlocksFloat_avx512(data(dst), data(x), count, size, data(scales), &r.words[0], &f.minField)
		},
		codes:     codes(vecCodes_avx512),
		quant8:    vecQuant8_avx512,
		dequantI8: vecDequantI8_avx512,
		dequantU8: vecDequantU8_avx512,
		toBF16:    sixteen(vecToBF16_avx512, toBF16Generic),
		fromBF16:  sixteen(vecFromBF16_avx512, fromBF16Generic),
		toF16:     sixteen(vecToF16_avx512, toF16Generic),
		fromF16:   sixteen(vecFromF16_avx512, fromF16Generic),
	}
	avx2 = impl{
		name:   "avx2",
		tiles:  []*tile[float32]{tile4x24},
		tilesD: []*tile[float64]{tile6x8d},
		tilesI: []*tile[int32]{tile4x16i},
		binary: [numBinary]func(dst, a, b []float32){
			opAdd: two(vecAdd_avx2), opSub: two(vecSub_avx2), opMul: two(vecMul_avx2), opDiv: two(vecDiv_avx2),
			opMaximum: two(vecMaximum_avx2),
		},
		scalar: [numScalar]func(dst, a []float32, s float32){
			opAddS: with(vecAddS_avx2), opSubS: with(vecSubS_avx2), opRSubS: with(vecRSubS_avx2),
			opMulS: with(vecMulS_avx2), opDivS: with(vecDivS_avx2), opRDivS: with(vecRDivS_avx2),
		},
		unary: [numUnary]func(dst, x []float32){
			opRelu: one(vecRelu_avx2), opExp: one(vecExp_avx2), opErf: one(vecErf_avx2), opGelu: one(vecGelu_avx2),
			opGeluTanh: one(vecGeluTanh_avx2), opSigmoid: one(vecSigmoid_avx2), opTanh: one(vecTanh_avx2),
			opSilu: one(vecSilu_avx2), opSqrt: one(vecSqrt_avx2),
		},
		thin:     thinAVX2,
		trans8:   transpose8,
		clip:     with2(vecClip_avx2),
		axpy:     with(vecAxpy_avx2),
		taps:     taps(vecTaps_avx2),
		add64:    sixteen(vecAdd64_avx2, generic.add64),
		expSum:   expSumAVX2,
		max:      greatest(8, vecMax_avx2),
		affine:   with2(vecAffine_avx2),
		sum:      sumAVX2,
		sumSq:    sumSqAVX2,
		minMax:   extremes(8, minMax_avx2),
		absMax:   largest(8, absMax_avx2),
		absMaxV:  one(vecAbsMax_avx2),
		fakeInt:  grid(vecFakeInt_avx2),
		fakeIntV: gridV(vecFakeIntV_avx2),
		cast:     cast(vecCast_avx2),
		blocksInt: func(dst, x []float32, count, size int, scales []float32, r *rounding, lo, hi float32) int {
			return vecBlocksInt_avx2(data(dst), data(x), count, size, data(scales), &r.words[0], lo, hi)
		},
		blocksFloat: func(dst, x []float32, count, size int, scales []float32, r *rounding, f *minifloat) int {
			return vecBlocksFloat_avx2(data(dst), data(x), count, size, data(scales), &r.words[0], &f.minField)
		},
		codes:     codes(vecCodes_avx2),
		quant8:    vecQuant8_avx2,
		dequantI8: vecDequantI8_avx2,
		dequantU8: vecDequantU8_avx2,
		toBF16:    sixteen(vecToBF16_avx2, toBF16Generic),
		fromBF16:  sixteen(vecFromBF16_avx2, fromBF16Generic),
		toF16:     sixteen(vecToF16_avx2, toF16Generic),
		fromF16:   sixteen(vecFromF16_avx2, fromF16Generic),
	}
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

func cast(f func(dst, x *float32, grid *uint32, scale float32, n int)) func(dst, x []float32, m *minifloat, scale float32) {
	return func(dst, x []float32, m *minifloat, scale float32) {
		if m.wide {
			castGeneric(dst, x, m, scale)
			return
		}
		f(data(dst), data(x), &m.minField, scale, len(dst))
	}
}

func taps(f func(dst, x *float32, offs *int, w *float32, taps, n int)) func(dst, x []float32, offs []int, w []float32) {
	return func(dst, x []float32, offs []int, w []float32) {
		f(data(dst), data(x), data(offs), data(w), len(offs), len(dst))
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

// The sums keep their lanes on the stack: hence no function values here.

func sumAVX512(x []float32) float32 {
	var acc [lanes]float32
	n := len(x) &^ (lanes - 1)
	sumLanes_avx512(data(x), n, &acc[0])
	return sumTail(&acc, x[n:])
}

func sumAVX2(x []float32) float32 {
	var acc [lanes]float32
	n := len(x) &^ (lanes - 1)
	sumLanes_avx2(data(x), n, &acc[0])
	return sumTail(&acc, x[n:])
}

func sumSqAVX512(x []float32, mean float32) float32 {
	var acc [lanes]float32
	n := len(x) &^ (lanes - 1)
	sumSqLanes_avx512(data(x), n, &acc[0], mean)
	return sumSqTail(&acc, x[n:], mean)
}

func sumSqAVX2(x []float32, mean float32) float32 {
	var acc [lanes]float32
	n := len(x) &^ (lanes - 1)
	sumSqLanes_avx2(data(x), n, &acc[0], mean)
	return sumSqTail(&acc, x[n:], mean)
}

func expSumAVX512(dst, x []float32, m float32) float32 {
	var acc [lanes]float32
	n := len(x) &^ (lanes - 1)
	vecExpSum_avx512(data(dst), data(x), m, n, &acc[0])
	vecExpSub_avx512(data(dst[n:]), data(x[n:]), m, len(x)-n)
	return sumTail(&acc, dst[n:])
}

func expSumAVX2(dst, x []float32, m float32) float32 {
	var acc [lanes]float32
	n := len(x) &^ (lanes - 1)
	vecExpSum_avx2(data(dst), data(x), m, n, &acc[0])
	vecExpSub_avx2(data(dst[n:]), data(x[n:]), m, len(x)-n)
	return sumTail(&acc, dst[n:])
}
