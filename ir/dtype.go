package ir

import "fmt"

// DType is the element type of a tensor. Its values are the numbers of TensorProto.DataType in the ONNX specification.
type DType uint8

// The element types of ONNX.
const (
	Undefined    DType = 0
	Float32      DType = 1
	Uint8        DType = 2
	Int8         DType = 3
	Uint16       DType = 4
	Int16        DType = 5
	Int32        DType = 6
	Int64        DType = 7
	String       DType = 8
	Bool         DType = 9
	Float16      DType = 10
	Float64      DType = 11
	Uint32       DType = 12
	Uint64       DType = 13
	Complex64    DType = 14
	Complex128   DType = 15
	BFloat16     DType = 16
	Float8E4M3FN DType = 17
	// Float8E4M3FNUZ has no negative zero and no infinities; its NaN is 0x80.
	Float8E4M3FNUZ DType = 18
	Float8E5M2     DType = 19
	Float8E5M2FNUZ DType = 20
	Uint4          DType = 21
	Int4           DType = 22
	Float4E2M1     DType = 23
	Float8E8M0     DType = 24
	Uint2          DType = 25
	Int2           DType = 26
	Float6E2M3     DType = 27
	Float6E3M2     DType = 28
)

type dtypeInfo struct {
	name string // as in ONNX's text syntax
	bits int
}

var dtypes = [...]dtypeInfo{
	Undefined: {"undefined", 0},
	Float32:   {"float", 32}, Uint8: {"uint8", 8}, Int8: {"int8", 8}, Uint16: {"uint16", 16}, Int16: {"int16", 16},
	Int32: {"int32", 32}, Int64: {"int64", 64}, String: {"string", 0}, Bool: {"bool", 8}, Float16: {"float16", 16},
	Float64: {"double", 64}, Uint32: {"uint32", 32}, Uint64: {"uint64", 64}, Complex64: {"complex64", 64},
	Complex128: {"complex128", 128}, BFloat16: {"bfloat16", 16}, Float8E4M3FN: {"float8e4m3fn", 8},
	Float8E4M3FNUZ: {"float8e4m3fnuz", 8}, Float8E5M2: {"float8e5m2", 8}, Float8E5M2FNUZ: {"float8e5m2fnuz", 8},
	Uint4: {"uint4", 4}, Int4: {"int4", 4}, Float4E2M1: {"float4e2m1", 4}, Float8E8M0: {"float8e8m0", 8},
	Uint2: {"uint2", 2}, Int2: {"int2", 2}, Float6E2M3: {"float6e2m3", 6}, Float6E3M2: {"float6e3m2", 6},
}

// Valid reports whether t is a known element type other than Undefined.
func (t DType) Valid() bool { return t > Undefined && int(t) < len(dtypes) }

// String returns the name ONNX's text syntax uses: "float", "int64", "float8e4m3fn", ….
func (t DType) String() string {
	if int(t) < len(dtypes) {
		return dtypes[t].name
	}
	return fmt.Sprintf("dtype(%d)", uint8(t))
}

// Bits returns the size of one element in bits; 0 for String and unknown types.
func (t DType) Bits() int {
	if int(t) < len(dtypes) {
		return dtypes[t].bits
	}
	return 0
}

// Size returns the number of bytes that n elements occupy as ONNX stores them: types below 8 bits are packed.
func (t DType) Size(n int) int { return (n*t.Bits() + 7) / 8 }

// IsFloat reports whether t is a floating-point type of any width, complex excluded.
func (t DType) IsFloat() bool {
	switch t {
	case Float32, Float64, Float16, BFloat16, Float8E4M3FN, Float8E4M3FNUZ, Float8E5M2, Float8E5M2FNUZ, Float4E2M1, Float8E8M0,
		Float6E2M3, Float6E3M2:
		return true
	}
	return false
}

// IsInt reports whether t is a signed or unsigned integer type, bool excluded.
func (t DType) IsInt() bool { return t.IsSigned() || t.IsUnsigned() }

// IsSigned reports whether t is a signed integer type.
func (t DType) IsSigned() bool {
	switch t {
	case Int8, Int16, Int32, Int64, Int4, Int2:
		return true
	}
	return false
}

// IsUnsigned reports whether t is an unsigned integer type.
func (t DType) IsUnsigned() bool {
	switch t {
	case Uint8, Uint16, Uint32, Uint64, Uint4, Uint2:
		return true
	}
	return false
}

// ParseDType returns the element type with the given text-syntax name.
func ParseDType(name string) (DType, bool) {
	for i, d := range dtypes {
		if d.name == name && i != 0 {
			return DType(i), true
		}
	}
	return Undefined, false
}
