package numfmt

import "math"

const maxBF16 = 0x1.fep127

// RoundBF16 rounds to bfloat16, ties to even, and gives the value as float32. Values beyond its range become infinity.
func RoundBF16(x float32) float32 { return DecodeBF16(EncodeBF16(x)) }

// EncodeBF16 gives the bfloat16 bits of x, ties to even; beyond the range it is infinity, NaN stays NaN, quiet.
func EncodeBF16(x float32) uint16 {
	u := math.Float32bits(x)
	if x != x {
		return uint16(u>>16) | 0x40
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

// DecodeBF16 gives the value of bfloat16 bits.
func DecodeBF16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// roundBF16Up rounds a positive value to the next bfloat16 not below it.
func roundBF16Up(x float32) float32 {
	u := math.Float32bits(x)
	return math.Float32frombits((u + 0xffff) &^ 0xffff)
}

// EncodeFloat16 gives the float16 bits of x, ties to even; beyond the range it is infinity, NaN stays NaN, quiet.
func EncodeFloat16(x float32) uint16 {
	u := math.Float32bits(x)
	sign := uint16(u >> 16 & 0x8000)
	u &= 0x7fffffff
	switch {
	case u > 0x7f800000:
		return sign | 0x7e00 | uint16(u>>13&0x1ff)
	case u >= 0x47800000: // 2^16 and more
		return sign | 0x7c00
	case u < 0x38800000: // below 2^-14: in the sum with 0.5 one ulp is float16's least subnormal
		return sign | uint16(math.Float32bits(math.Float32frombits(u)+0.5)-0x3f000000)
	}
	u += 0xfff + u>>13&1
	return sign | uint16((u-0x38000000)>>13) // the exponent's bias from 127 to 15
}

// DecodeFloat16 gives the value of float16 bits.
func DecodeFloat16(b uint16) float32 {
	sign := uint32(b&0x8000) << 16
	u := uint32(b&0x7fff) << 13
	switch {
	case u >= 0x0f800000: // infinity, NaN
		u += 0x70000000
	case u >= 0x00800000:
		u += 0x38000000
	default: // subnormal: the mantissa in units of 2^-24
		u = math.Float32bits(float32(b&0x3ff) * 0x1p-24)
	}
	return math.Float32frombits(sign | u)
}

// RoundMode is how a value is rounded to a power of two of float8e8m0.
type RoundMode uint8

// The modes of ONNX Cast's round_mode attribute.
const (
	RoundUp      RoundMode = iota // to the next larger power, the operator's default
	RoundDown                     // to the next smaller power
	RoundNearest                  // to the nearer power, halfway up
)

// EncodeE8M0 gives the float8e8m0 code of |x|, saturating at 2^127 and 2^-127: zero has no code and becomes 2^-127. NaN
// and infinity give code 255, NaN. As in ONNX's definition of the cast, rounding looks at the bits of float32: a
// subnormal has the exponent of code 0, and rounding up or to nearest counts its fraction.
func EncodeE8M0(x float32, mode RoundMode) uint8 {
	u := math.Float32bits(x)
	exp, frac := u>>23&0xff, u&0x7fffff
	up := false
	switch {
	case exp == 255:
		return 255
	case mode == RoundUp:
		up = frac > 0
	case mode == RoundNearest && exp == 0:
		up = frac > 0x400000
	case mode == RoundNearest:
		up = frac >= 0x400000
	}
	if up && exp < 254 {
		exp++
	}
	return uint8(exp)
}

// DecodeE8M0 gives the value of a float8e8m0 code.
func DecodeE8M0(code uint8) float32 {
	switch code {
	case 255:
		return float32(math.NaN())
	case 0:
		return 0x1p-127
	}
	return math.Float32frombits(uint32(code) << 23)
}
