package numfmt

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/runtime/kernel"
)

const maxBF16 = 0x1.fep127

// roundBF16Up rounds a positive value to the next bfloat16 not below it.
func roundBF16Up(x float32) float32 {
	u := math.Float32bits(x)
	return math.Float32frombits((u + 0xffff) &^ 0xffff)
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

// CastTo casts values to codes of an element type as ONNX Cast does: integers of fewer than 16 bits are truncated towards
// zero and wrapped to the type's bits, floats rounded to nearest, ties to even; saturate is the attribute of that name and
// concerns 8-bit floats. FLOAT8E8M0 rounds as mode says.
func CastTo(e Elem, x []float32, saturate bool, mode RoundMode) (Codes, error) {
	f, ok := e.Format()
	if !ok {
		return Codes{}, fmt.Errorf("no cast to element type %s here", e)
	}
	codes := make([]uint32, len(x))
	switch {
	case f.Kind == Int:
		for i, v := range x {
			codes[i] = truncate(v)
		}
	case f.Kind == Cast:
		half := make([]uint16, len(x))
		if e == ElemFloat16 {
			kernel.ToF16(half, x)
		} else {
			kernel.ToBF16(half, x)
		}
		for i, h := range half {
			codes[i] = uint32(h)
		}
	case e == ElemE8M0:
		for i, v := range x {
			codes[i] = uint32(EncodeE8M0(v, mode))
		}
	default:
		f.EncodeAll(codes, x, saturate)
	}
	data, err := Pack(e, codes)
	return Codes{Elem: e, Len: len(x), Data: data}, err
}

// truncate is the low 32 bits of v truncated towards zero; values beyond int64 and NaN, undefined in ONNX, give 0.
func truncate(v float32) uint32 {
	if v != v || v >= math.MaxInt64 || v <= math.MinInt64 {
		return 0
	}
	return uint32(int64(v))
}

// CastFrom gives the values of codes of any element type that CastTo makes, as float32.
func CastFrom(dst []float32, c Codes) error {
	f, ok := c.Elem.Format()
	if !ok {
		return fmt.Errorf("no cast from element type %s here", c.Elem)
	}
	if len(dst) != c.Len {
		return fmt.Errorf("cast from %s: got room for %d values, want %d", c.Elem, len(dst), c.Len)
	}
	codes, err := Unpack(c.Elem, c.Data, c.Len)
	if err != nil {
		return fmt.Errorf("cast: %w", err)
	}
	if f.Kind == Cast {
		half := make([]uint16, len(codes))
		for i, code := range codes {
			half[i] = uint16(code)
		}
		if c.Elem == ElemFloat16 {
			kernel.FromF16(dst, half)
		} else {
			kernel.FromBF16(dst, half)
		}
		return nil
	}
	for i, code := range codes {
		dst[i] = f.Decode(code)
	}
	return nil
}
