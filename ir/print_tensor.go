package ir

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// quote writes a string as the official grammar does: everything stands for itself but \ and ", which take a \.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// isIdent reports whether s is an identifier of the grammar, a C identifier.
func isIdent(s string) bool {
	for i := range len(s) {
		if !isLetter(s[i]) && (i == 0 || !isDigit(s[i])) {
			return false
		}
	}
	return s != ""
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

// reserved reports whether an identifier could be taken for the start of a type or for a number.
func reserved(s string) bool {
	if _, ok := ParseDType(s); ok {
		return true
	}
	switch s {
	case "seq", "map", "optional", "sparse_tensor", "opaque", "undefined":
		return true
	}
	return isFloatWord(s)
}

func isFloatWord(s string) bool {
	switch strings.ToLower(s) {
	case "inf", "infinity", "nan":
		return true
	}
	return false
}

// ident writes a name: plain if it is an identifier that nothing else starts with, else quoted.
func ident(s string) string {
	if isIdent(s) && !reserved(s) {
		return s
	}
	return quote(s)
}

// bare returns the type without its denotations, which the official grammar has no place for.
func bare(t Type) Type {
	t = t.Clone()
	t.Denot = ""
	for i := range t.Dims {
		t.Dims[i].Denot = ""
	}
	if t.Of != nil {
		of := bare(*t.Of)
		t.Of = &of
	}
	return t
}

// same reports whether the two types say exactly the same.
func (t Type) same(u Type) bool {
	if t.Kind != u.Kind || t.Elem != u.Elem || t.Denot != u.Denot || !bytes.Equal(t.Wire, u.Wire) {
		return false
	}
	if t.Kind != TensorKind && t.Kind != SparseKind {
		var a, b Type
		if t.Of != nil {
			a = *t.Of
		}
		if u.Of != nil {
			b = *u.Of
		}
		return a.same(b)
	}
	if t.Ranked != u.Ranked || t.Ranked && len(t.Dims) != len(u.Dims) {
		return false
	}
	for i := 0; t.Ranked && i < len(t.Dims); i++ {
		d, e := t.Dims[i], u.Dims[i]
		if d.Denot != e.Denot || d.Known() != e.Known() || d.Known() && d.Size != e.Size || !d.Known() && d.Name != e.Name {
			return false
		}
	}
	return true
}

// typeText writes a type, its denotations behind an @, with strings quoted by q.
func typeText(t Type, q func(string) string) string {
	s := t.Elem.String()
	of := func() string {
		if t.Of == nil {
			return "undefined[]"
		}
		return typeText(*t.Of, q)
	}
	switch t.Kind {
	case SequenceKind:
		s = "seq(" + of() + ")"
	case OptionalKind:
		s = "optional(" + of() + ")"
	case MapKind:
		s = "map(" + s + ", " + of() + ")"
	case OpaqueKind:
		s = "opaque(" + q(base64.StdEncoding.EncodeToString(t.Wire)) + ")"
	default:
		s += shapeText(t, q)
		if t.Kind == SparseKind {
			s = "sparse_tensor(" + s + ")"
		}
	}
	if t.Denot != "" {
		s += "@" + q(t.Denot)
	}
	return s
}

// shapeText writes [] for an unknown rank, nothing for a known scalar. A scalar without an element type has to be told
// from a name: undefined[!].
func shapeText(t Type, q func(string) string) string {
	if !t.Ranked {
		return "[]"
	}
	if len(t.Dims) == 0 {
		if t.Elem == Undefined {
			return "[!]"
		}
		return ""
	}
	var s []string
	for _, d := range t.Dims {
		x := d.String()
		if !d.Known() && d.Name != "" && !isIdent(d.Name) {
			x = q(d.Name)
		}
		if d.Denot != "" {
			x += "@" + q(d.Denot)
		}
		s = append(s, x)
	}
	return "[" + strings.Join(s, ",") + "]"
}

// tensor writes a tensor constant, with its name if that is an identifier.
func (p *printer) tensor(t *Tensor) {
	p.str(typeText(t.Type(), quote) + " ")
	if t.Label != nil && t.Label.Name != "" && ident(t.Label.Name) == t.Label.Name {
		p.str(t.Label.Name + " ")
	}
	p.data(t)
}

func (p *printer) sparse(s *SparseTensor, between string) {
	p.str(typeText(Type{Kind: SparseKind, Elem: s.Values.Elem(), Ranked: true, Dims: FixedType(Float32, s.Shape...).Dims}, quote))
	p.str(between + "{")
	p.tensor(s.Values)
	p.str(", ")
	p.tensor(s.Indices)
	p.str("}")
}

// data writes a tensor's elements in braces and returns their values as a comment if the literals do not show them.
func (p *printer) data(t *Tensor) (comment string) {
	if err := t.Load(); err != nil {
		if p.err == nil {
			p.err = fmt.Errorf("tensor %v: %w", t.Type(), err)
		}
		p.str("{}")
		return ""
	}
	n := literals(t.elem, t.n)
	shown := n
	if p.Elide > 0 && t.n > p.Elide {
		shown = min(n, 4)
	}
	p.str("{")
	for i := range shown {
		if i > 0 {
			p.str(", ")
		}
		p.literal(t, i)
		p.flush(1 << 16)
	}
	if shown < n {
		p.str(", ... " + strconv.Itoa(n-shown) + " more")
	}
	p.str("}")
	return valuesComment(t)
}

// literals returns how many literals the elements are written as: complex numbers are two, types of 2 and 4 bits packed.
func literals(elem DType, n int) int {
	switch bits := elem.Bits(); {
	case elem == Complex64 || elem == Complex128:
		return 2 * n
	case bits > 0 && bits < 6:
		return elem.Size(n)
	}
	return n
}

func (p *printer) literal(t *Tensor, i int) {
	le := binary.LittleEndian
	switch t.elem {
	case String:
		p.str(quote(string(t.strings[i])))
	case Float32, Complex64:
		p.b = appendFloat32(p.b, le.Uint32(t.data[4*i:]))
	case Float64, Complex128:
		p.b = appendFloat64(p.b, le.Uint64(t.data[8*i:]))
	case Int8:
		p.b = strconv.AppendInt(p.b, int64(int8(t.data[i])), 10)
	case Int16:
		p.b = strconv.AppendInt(p.b, int64(int16(le.Uint16(t.data[2*i:]))), 10)
	case Int32:
		p.b = strconv.AppendInt(p.b, int64(int32(le.Uint32(t.data[4*i:]))), 10)
	case Int64:
		p.b = strconv.AppendInt(p.b, int64(le.Uint64(t.data[8*i:])), 10)
	case Uint16, Float16, BFloat16:
		p.b = strconv.AppendUint(p.b, uint64(le.Uint16(t.data[2*i:])), 10)
	case Uint32:
		p.b = strconv.AppendUint(p.b, uint64(le.Uint32(t.data[4*i:])), 10)
	case Uint64:
		p.b = strconv.AppendUint(p.b, le.Uint64(t.data[8*i:]), 10)
	case Float6E2M3, Float6E3M2:
		code := uint16(t.data[6*i/8])
		if 6*i%8 > 2 {
			code |= uint16(t.data[6*i/8+1]) << 8
		}
		p.b = strconv.AppendUint(p.b, uint64(code>>(6*i%8)&63), 10)
	default: // a byte, or several elements packed into one
		p.b = strconv.AppendUint(p.b, uint64(t.data[i]), 10)
	}
}

// The quiet NaNs that strtof and strtod make of "nan"; other NaNs are written with their bits.
const (
	nan32 = 0x7fc00000
	nan64 = 0x7ff8000000000000
)

func appendFloat32(b []byte, bits uint32) []byte {
	f := math.Float32frombits(bits)
	if f != f {
		return appendNaN(b, bits&(1<<31) != 0, bits&^(1<<31) == nan32, uint64(bits))
	}
	return appendFinite(b, float64(f), 32)
}

func appendFloat64(b []byte, bits uint64) []byte {
	f := math.Float64frombits(bits)
	if f != f {
		return appendNaN(b, bits&(1<<63) != 0, bits&^(1<<63) == nan64, bits)
	}
	return appendFinite(b, f, 64)
}

func appendFinite(b []byte, f float64, size int) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(b, "inf"...)
	case math.IsInf(f, -1):
		return append(b, "-inf"...)
	}
	return strconv.AppendFloat(b, f, 'g', -1, size)
}

func appendNaN(b []byte, negative, plain bool, bits uint64) []byte {
	if !plain {
		return fmt.Appendf(b, "nan(%#x)", bits)
	}
	if negative {
		b = append(b, '-')
	}
	return append(b, "nan"...)
}

// appendFloatLiteral writes a float attribute such that it is no integer literal.
func appendFloatLiteral(b []byte, f float32) []byte {
	mark := len(b)
	b = appendFloat32(b, math.Float32bits(f))
	if !strings.ContainsAny(string(b[mark:]), ".enN") {
		b = append(b, ".0"...)
	}
	return b
}

// maxComment is how many elements a comment spells out.
const maxComment = 16

// valuesComment spells out the elements of a small tensor whose literals are bit patterns.
func valuesComment(t *Tensor) string {
	if t.n == 0 || t.n > maxComment {
		return ""
	}
	var s []string
	for i := range t.n {
		switch t.elem {
		case Float16, BFloat16:
			f, _ := t.Float32s()
			s = append(s, string(appendFinite(nil, float64(f[i]), 32)))
		case Int4, Uint4, Int2, Uint2:
			s = append(s, strconv.Itoa(packedInt(t, i)))
		default:
			return ""
		}
	}
	return strings.Join(s, ", ")
}

// packedInt returns element i of a tensor of 4- or 2-bit integers.
func packedInt(t *Tensor, i int) int {
	bits := t.elem.Bits()
	x := t.data[i*bits/8] >> (i * bits % 8) << (8 - bits)
	if t.elem.IsSigned() {
		return int(int8(x)) >> (8 - bits)
	}
	return int(x) >> (8 - bits)
}
