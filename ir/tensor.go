package ir

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"unsafe"
)

// Tensor is data with an element type and a shape. The bytes are little-endian, row-major and packed as ONNX's raw_data
// stores them (two 4-bit elements a byte, low nibble first; four 2-bit elements a byte). A Tensor in a graph is immutable:
// edits replace it. The bytes may be a slice of a mapped file and may be loaded on first use.
type Tensor struct {
	elem    DType
	shape   []int
	n       int
	strings [][]byte

	once sync.Once
	load func() ([]byte, error)
	data []byte
	err  error

	alignOnce sync.Once
	aligned   []byte

	fill int

	// Label is what a file says of the tensor beside its data; nil for most.
	Label *Label
}

// Label describes a tensor of a file. The name of a graph's constant is its value's; Name is for tensors in attributes.
type Label struct {
	Name, Doc string
	Meta      []Prop
	Opaque    []byte // wire bytes the IR does not model
}

// NewTensor returns a zeroed tensor. The shape must be valid (see Numel); it panics otherwise, as make does.
func NewTensor(elem DType, shape ...int) *Tensor {
	n, err := Numel(shape)
	if err != nil {
		panic("BUG: NewTensor: " + err.Error())
	}
	t := &Tensor{elem: elem, shape: shape, n: n}
	if elem == String {
		t.strings = make([][]byte, n)
	} else {
		t.data = alignedBytes(elem.Size(n))
	}
	t.once.Do(func() {})
	return t
}

// alignedBytes returns n zero bytes whose address is a multiple of 8.
func alignedBytes(n int) []byte {
	w := make([]uint64, (n+7)/8)
	if len(w) == 0 {
		return []byte{}
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), len(w)*8)[:n]
}

// TensorOf wraps bytes in ONNX's raw layout without copying. It fails if their number does not fit shape and type.
func TensorOf(elem DType, shape []int, data []byte) (*Tensor, error) {
	n, err := Numel(shape)
	if err != nil {
		return nil, err
	}
	if !elem.Valid() || elem == String {
		return nil, fmt.Errorf("element type %v has no raw data", elem)
	}
	if want := elem.Size(n); len(data) != want {
		return nil, fmt.Errorf("%v%v wants %d bytes of data, found %d", elem, shape, want, len(data))
	}
	t := &Tensor{elem: elem, shape: shape, n: n, data: data}
	t.once.Do(func() {})
	return t, nil
}

// LazyTensor returns a tensor whose bytes are produced by load on first use; load must return exactly the number that
// shape and type want.
func LazyTensor(elem DType, shape []int, load func() ([]byte, error)) (*Tensor, error) {
	n, err := Numel(shape)
	if err != nil {
		return nil, err
	}
	if !elem.Valid() || elem == String {
		return nil, fmt.Errorf("element type %v has no raw data", elem)
	}
	return &Tensor{elem: elem, shape: shape, n: n, load: load}, nil
}

// StringTensor returns a tensor of strings.
func StringTensor(shape []int, v [][]byte) (*Tensor, error) {
	n, err := Numel(shape)
	if err != nil {
		return nil, err
	}
	if n != len(v) {
		return nil, fmt.Errorf("string%v wants %d strings, found %d", shape, n, len(v))
	}
	t := &Tensor{elem: String, shape: shape, n: n, strings: v}
	t.once.Do(func() {})
	return t, nil
}

// Element is any Go type that a tensor's bytes can be viewed as.
type Element interface {
	~float32 | ~float64 | ~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~bool
}

// FromSlice wraps a Go slice as a tensor without copying. elem must have the width of T.
func FromSlice[T Element](elem DType, shape []int, v []T) *Tensor {
	var z T
	n, err := Numel(shape)
	if err != nil || n != len(v) || elem.Bits() != int(unsafe.Sizeof(z))*8 {
		panic(fmt.Sprintf("BUG: FromSlice: %v%v from %d values of %T", elem, shape, len(v), z))
	}
	t := &Tensor{elem: elem, shape: shape, n: n, data: []byte{}}
	if n > 0 {
		t.data = unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), n*int(unsafe.Sizeof(z)))
	}
	t.once.Do(func() {})
	return t
}

// Floats wraps float32 values as a tensor without copying.
func Floats(v []float32, shape ...int) *Tensor { return FromSlice(Float32, shape, v) }

// Ints returns a one-dimensional int64 tensor.
func Ints(v ...int64) *Tensor { return FromSlice(Int64, []int{len(v)}, v) }

// Scalar returns a float32 tensor without dimensions.
func Scalar(v float32) *Tensor { return FromSlice(Float32, []int{}, []float32{v}) }

// ScalarInt returns an int64 tensor without dimensions.
func ScalarInt(v int64) *Tensor { return FromSlice(Int64, []int{}, []int64{v}) }

// MaxElements bounds the number of elements of one tensor, so that a forged shape cannot promise more than memory has.
const MaxElements = 1 << 40

// Numel returns the number of elements of a shape; it fails where Extent does.
func Numel(shape []int) (int, error) {
	n, err := Extent(shape)
	if err == nil && slices.Contains(shape, 0) {
		n = 0
	}
	return n, err
}

// Extent returns the product of a shape's dimensions, each zero counted as one: what loops and tables over the dimensions of
// an empty tensor grow with. It fails on negative dimensions, and on a product of more than MaxElements, be the tensor
// empty or not.
func Extent(shape []int) (int, error) {
	n := 1
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("shape %v has a negative dimension", shape)
		}
		if d > 0 && n > MaxElements/d {
			return 0, fmt.Errorf("shape %v has more than %d elements", shape, int64(MaxElements))
		}
		n *= max(d, 1)
	}
	return n, nil
}

// Elem returns the element type.
func (t *Tensor) Elem() DType { return t.elem }

// Shape returns the sizes of the dimensions; the caller must not change them.
func (t *Tensor) Shape() []int { return t.shape }

// Rank returns the number of dimensions.
func (t *Tensor) Rank() int { return len(t.shape) }

// Len returns the number of elements.
func (t *Tensor) Len() int { return t.n }

// Size returns the number of bytes of the data; 0 for strings.
func (t *Tensor) Size() int { return t.elem.Size(t.n) }

// Type returns the tensor's type.
func (t *Tensor) Type() Type { return FixedType(t.elem, t.shape...) }

// Strings returns the elements of a string tensor.
func (t *Tensor) Strings() [][]byte { return t.strings }

// Load makes the bytes available and reports why they cannot be.
func (t *Tensor) Load() error {
	t.once.Do(func() {
		t.data, t.err = t.load()
		t.load = nil
		if want := t.elem.Size(t.n); t.err == nil && len(t.data) != want {
			t.err = fmt.Errorf("%v%v wants %d bytes of data, found %d", t.elem, t.shape, want, len(t.data))
		}
	})
	return t.err
}

// Bytes returns the raw data, loading it if needed. It panics if Load fails; load tensors of files first.
func (t *Tensor) Bytes() []byte {
	if err := t.Load(); err != nil {
		panic(fmt.Sprintf("BUG: tensor used without Load: %v", err))
	}
	return t.data
}

// unaligned tells whether the processor reads numbers at any address: tensors of mapped files lie where the file has them.
const unaligned = runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64"

// Data views the elements as a slice of T, whose width must be that of the element type. The view shares storage; only on
// processors that cannot read numbers at any address, bytes misaligned for T are copied once and the copy is kept.
func Data[T Element](t *Tensor) []T {
	var z T
	size := int(unsafe.Sizeof(z))
	if t.elem.Bits() != size*8 {
		panic(fmt.Sprintf("BUG: Data: %v tensor viewed as %T", t.elem, z))
	}
	b := t.Bytes()
	if len(b) == 0 {
		return []T{}
	}
	if !unaligned && uintptr(unsafe.Pointer(&b[0]))%uintptr(size) != 0 {
		t.alignOnce.Do(func() {
			t.aligned = alignedBytes(len(b))
			copy(t.aligned, b)
		})
		b = t.aligned
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), t.n)
}

// Filled returns a tensor of the same data whose last n rows, along the first axis, only fill up a batch: what a model makes of
// them counts for nothing. It is a note to who looks at results of a run; the runtime does not read it.
func (t *Tensor) Filled(n int) *Tensor {
	if t.Rank() == 0 || n < 0 || n > t.shape[0] {
		panic(fmt.Sprintf("BUG: Filled: %d rows of %v", n, t.shape))
	}
	f, err := t.Reshape(t.shape...)
	if err != nil {
		panic("BUG: Filled: " + err.Error())
	}
	f.fill = n
	return f
}

// Fill returns the number of rows that Filled noted, 0 for other tensors.
func (t *Tensor) Fill() int { return t.fill }

// Reshape returns a tensor with the same storage and another shape of as many elements.
func (t *Tensor) Reshape(shape ...int) (*Tensor, error) {
	n, err := Numel(shape)
	if err != nil {
		return nil, err
	}
	if n != t.n {
		return nil, fmt.Errorf("cannot reshape %v to %v", t.shape, shape)
	}
	if t.elem == String {
		return StringTensor(shape, t.strings)
	}
	if t.load == nil {
		return TensorOf(t.elem, shape, t.Bytes())
	}
	return LazyTensor(t.elem, shape, func() ([]byte, error) { err := t.Load(); return t.data, err })
}

// Int64s converts a tensor of any integer or bool type to int64; ok is false for other types. Small tensors only: shapes,
// axes, indices.
func (t *Tensor) Int64s() (v []int64, ok bool) {
	if t.Load() != nil {
		return nil, false
	}
	switch t.elem {
	case Int64:
		return append([]int64{}, Data[int64](t)...), true
	case Int32:
		return toInt64(Data[int32](t)), true
	case Int16:
		return toInt64(Data[int16](t)), true
	case Int8:
		return toInt64(Data[int8](t)), true
	case Uint8, Bool:
		return toInt64(Data[uint8](t)), true
	case Uint16:
		return toInt64(Data[uint16](t)), true
	case Uint32:
		return toInt64(Data[uint32](t)), true
	case Uint64:
		return toInt64(Data[uint64](t)), true
	}
	return nil, false
}

func toInt64[T int32 | int16 | int8 | uint8 | uint16 | uint32 | uint64](v []T) []int64 {
	out := make([]int64, len(v))
	for i, x := range v {
		out[i] = int64(x)
	}
	return out
}

// Float32s returns the elements of a float32, float64, float16, bfloat16, integer or bool tensor as float32: a view of the
// data for float32, a converted copy otherwise; ok is false for other types.
func (t *Tensor) Float32s() (v []float32, ok bool) {
	if t.Load() != nil {
		return nil, false
	}
	switch t.elem {
	case Float32:
		return Data[float32](t), true
	case Float64:
		out := make([]float32, t.n)
		for i, x := range Data[float64](t) {
			out[i] = float32(x)
		}
		return out, true
	case Float16:
		out := make([]float32, t.n)
		for i, x := range Data[uint16](t) {
			out[i] = HalfToFloat(x)
		}
		return out, true
	case BFloat16:
		out := make([]float32, t.n)
		for i, x := range Data[uint16](t) {
			out[i] = math.Float32frombits(uint32(x) << 16)
		}
		return out, true
	}
	ints, ok := t.Int64s()
	if !ok {
		return nil, false
	}
	out := make([]float32, len(ints))
	for i, x := range ints {
		out[i] = float32(x)
	}
	return out, true
}

// HalfToFloat decodes an IEEE 754 binary16 value.
func HalfToFloat(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp := uint32(h>>10) & 0x1f
	man := uint32(h & 0x3ff)
	switch {
	case exp == 0:
		f := float32(man) * (1.0 / (1 << 24))
		return math.Float32frombits(math.Float32bits(f) | sign)
	case exp == 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | man<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | man<<13)
}
