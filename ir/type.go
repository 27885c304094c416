package ir

import (
	"fmt"
	"strconv"
)

// Dim is one dimension of a shape: fixed (Size ≥ 0), symbolic (Size < 0 and a Name) or unknown (Size < 0, no Name).
type Dim struct {
	Size  int64
	Name  string
	Denot string // the file's dimension denotation, carried through
}

// FixedDim returns a dimension of known size.
func FixedDim(n int) Dim { return Dim{Size: int64(n)} }

// NamedDim returns a symbolic dimension.
func NamedDim(name string) Dim { return Dim{Size: -1, Name: name} }

// UnknownDim is a dimension nothing is known of.
var UnknownDim = Dim{Size: -1}

// Known reports whether the dimension has a fixed size.
func (d Dim) Known() bool { return d.Size >= 0 }

// Same reports whether d and e are certainly equal: the same fixed size or the same symbol.
func (d Dim) Same(e Dim) bool {
	if d.Known() || e.Known() {
		return d.Size == e.Size
	}
	return d.Name != "" && d.Name == e.Name
}

// String prints the dimension as ONNX's text syntax does, but never in quotes: 3, N or ?.
func (d Dim) String() string {
	switch {
	case d.Known():
		return strconv.FormatInt(d.Size, 10)
	case d.Name != "":
		return d.Name
	}
	return "?"
}

// Kind tells tensors from the other type constructors of ONNX.
type Kind uint8

// The type constructors.
const (
	TensorKind Kind = iota
	SparseKind
	SequenceKind
	OptionalKind
	MapKind
	// OpaqueKind is a type that only its own domain knows; Wire holds it as the file does.
	OpaqueKind
)

// Type is the type of a value. The zero Type is wholly unknown.
type Type struct {
	Kind   Kind
	Elem   DType // element type; for MapKind the key type
	Dims   []Dim // meaningful if Ranked
	Ranked bool  // the number of dimensions is known
	Of     *Type // element type of a sequence or optional, value type of a map
	Denot  string
	Wire   []byte // OpaqueKind: the message TypeProto.Opaque
}

// TensorType returns a ranked tensor type.
func TensorType(elem DType, dims ...Dim) Type { return Type{Elem: elem, Dims: dims, Ranked: true} }

// FixedType returns a tensor type with every dimension known.
func FixedType(elem DType, shape ...int) Type {
	dims := make([]Dim, len(shape))
	for i, n := range shape {
		dims[i] = FixedDim(n)
	}
	return TensorType(elem, dims...)
}

// Known reports whether anything is known of the type.
func (t Type) Known() bool { return t.Kind != TensorKind || t.Elem != Undefined || t.Ranked }

// Rank returns the number of dimensions, -1 if unknown.
func (t Type) Rank() int {
	if !t.Ranked {
		return -1
	}
	return len(t.Dims)
}

// Shape returns the sizes of all dimensions if every one is fixed.
func (t Type) Shape() ([]int, bool) {
	if !t.Ranked || t.Kind != TensorKind {
		return nil, false
	}
	s := make([]int, len(t.Dims))
	for i, d := range t.Dims {
		if !d.Known() {
			return nil, false
		}
		s[i] = int(d.Size)
	}
	return s, true
}

// has reports whether the type is the tensor type of exactly these sizes.
func (t Type) has(shape []int) bool {
	if t.Kind != TensorKind || !t.Ranked || len(t.Dims) != len(shape) {
		return false
	}
	for i, n := range shape {
		if t.Dims[i].Size != int64(n) {
			return false
		}
	}
	return true
}

// Dim returns dimension i, counted from the end if negative; unknown if there is none.
func (t Type) Dim(i int) Dim {
	if i < 0 {
		i += len(t.Dims)
	}
	if !t.Ranked || i < 0 || i >= len(t.Dims) {
		return UnknownDim
	}
	return t.Dims[i]
}

// Clone returns a copy that shares nothing with t.
func (t Type) Clone() Type {
	t.Dims = append([]Dim(nil), t.Dims...)
	if t.Of != nil {
		of := t.Of.Clone()
		t.Of = &of
	}
	return t
}

// String prints the type as ONNX's text syntax does: float[N,3], float (no dimensions), float[] (rank unknown),
// seq(float[2]).
func (t Type) String() string { return typeText(t, quote) }

// Merge combines what two sources say of one value and fails where they contradict. A fixed size wins over a symbol, a
// symbol over nothing; two different symbols keep the first.
func Merge(a, b Type) (Type, error) {
	if !a.Known() {
		return b, nil
	}
	if !b.Known() {
		return a, nil
	}
	if a.Kind != b.Kind {
		return a, fmt.Errorf("type %v contradicts %v", a, b)
	}
	out := a.Clone()
	if a.Elem != b.Elem {
		if a.Elem != Undefined && b.Elem != Undefined {
			return a, fmt.Errorf("element type %v contradicts %v", a.Elem, b.Elem)
		}
		out.Elem = max(a.Elem, b.Elem)
	}
	if a.Kind != TensorKind && a.Kind != SparseKind {
		if a.Of != nil && b.Of != nil {
			of, err := Merge(*a.Of, *b.Of)
			if err != nil {
				return a, err
			}
			out.Of = &of
		} else if a.Of == nil {
			out.Of = b.Of
		}
		return out, nil
	}
	if !a.Ranked {
		out.Ranked, out.Dims = b.Ranked, append([]Dim(nil), b.Dims...)
		return out, nil
	}
	if !b.Ranked {
		return out, nil
	}
	if len(a.Dims) != len(b.Dims) {
		return a, fmt.Errorf("shape %v contradicts %v: rank %d against %d", a, b, len(a.Dims), len(b.Dims))
	}
	for i := range out.Dims {
		x, y := a.Dims[i], b.Dims[i]
		switch {
		case x.Known() && y.Known() && x.Size != y.Size:
			return a, fmt.Errorf("shape %v contradicts %v in dimension %d", a, b, i)
		case !x.Known() && y.Known():
			out.Dims[i].Size, out.Dims[i].Name = y.Size, ""
		case !x.Known() && x.Name == "":
			out.Dims[i].Name = y.Name
		}
	}
	return out, nil
}
