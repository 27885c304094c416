package kernel

import (
	"math"
	"unsafe"
)

// ToBF16 sets dst to the bfloat16 bits of x, rounded to nearest even; NaN becomes a quiet NaN of the same sign.
func ToBF16(dst []uint16, x []float32) {
	same("ToBF16", len(dst), len(x))
	each(len(x), func(a, b int) { cur.toBF16(dst[a:b], x[a:b]) })
}

// FromBF16 sets dst to the values of the bfloat16 bits x, exactly.
func FromBF16(dst []float32, x []uint16) {
	same("FromBF16", len(dst), len(x))
	each(len(x), func(a, b int) { cur.fromBF16(dst[a:b], x[a:b]) })
}

// ToF16 sets dst to the IEEE half bits of x, rounded to nearest even, beyond 65519.99 to infinity; NaN becomes a quiet
// NaN that keeps sign and upper payload bits.
func ToF16(dst []uint16, x []float32) {
	same("ToF16", len(dst), len(x))
	each(len(x), func(a, b int) { cur.toF16(dst[a:b], x[a:b]) })
}

// FromF16 sets dst to the values of the IEEE half bits x, exactly; a NaN becomes quiet.
func FromF16(dst []float32, x []uint16) {
	same("FromF16", len(dst), len(x))
	each(len(x), func(a, b int) { cur.fromF16(dst[a:b], x[a:b]) })
}

// RoundBF16 sets dst to x rounded to bfloat16 and back.
func RoundBF16(dst, x []float32) { through("RoundBF16", dst, x, cur.toBF16, cur.fromBF16) }

// RoundF16 sets dst to x rounded to half precision and back.
func RoundF16(dst, x []float32) { through("RoundF16", dst, x, cur.toF16, cur.fromF16) }

func through(what string, dst, x []float32, to func([]uint16, []float32), from func([]float32, []uint16)) {
	same(what, len(dst), len(x))
	each(len(x), func(a, b int) {
		const step = 1024
		buf := scratch(step / 2)
		defer release(buf)
		tmp := unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(buf.raw))), step)
		for ; a < b; a += step {
			e := min(a+step, b)
			to(tmp[:e-a], x[a:e])
			from(dst[a:e], tmp[:e-a])
		}
	})
}

func bf16Bits(v float32) uint16 {
	u := math.Float32bits(v)
	if v != v {
		return uint16(u>>16) | 0x40
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

func roundBF16(v float32) float32 { return math.Float32frombits(uint32(bf16Bits(v)) << 16) }

func toBF16Generic(dst []uint16, x []float32) {
	for i, v := range x {
		dst[i] = bf16Bits(v)
	}
}

func fromBF16Generic(dst []float32, x []uint16) {
	for i, v := range x {
		dst[i] = math.Float32frombits(uint32(v) << 16)
	}
}

func f16Bits(v float32) uint16 {
	u := math.Float32bits(v)
	sign := uint16(u >> 16 & 0x8000)
	u &= 0x7fffffff
	switch {
	case u > 0x7f800000: // NaN: quiet, upper payload bits kept
		return sign | 0x7e00 | uint16(u>>13&0x3ff)
	case u >= 0x477ff000: // 65520 and beyond round to infinity
		return sign | 0x7c00
	case u < 0x38800000: // below 2^-14: adding 0.5 leaves the rounded subnormal code in the low bits
		f := math.Float32frombits(u) + 0.5
		return sign | uint16(math.Float32bits(f)-0x3f000000)
	}
	return sign | uint16((u-0x38000000+0xfff+u>>13&1)>>13)
}

func toF16Generic(dst []uint16, x []float32) {
	for i, v := range x {
		dst[i] = f16Bits(v)
	}
}

func fromF16Generic(dst []float32, x []uint16) {
	for i, v := range x {
		sign, u := uint32(v)>>15<<31, uint32(v)&0x7fff
		switch {
		case u >= 0x7c00:
			u = u<<13 + 0x70000000
			if u > 0x7f800000 {
				u |= 0x400000
			}
			dst[i] = math.Float32frombits(sign | u)
		case u < 0x400:
			dst[i] = math.Float32frombits(sign | math.Float32bits(float32(u)*0x1p-24))
		default:
			dst[i] = math.Float32frombits(sign | u<<13 + 0x38000000)
		}
	}
}
