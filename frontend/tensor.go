package frontend

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/qsimc/qsimc/ir"
)

// DecodeTensor decodes a file that holds one tensor, as the input_K.pb and output_K.pb of ONNX's test cases do. The tensor
// may share storage with data.
func DecodeTensor(data []byte) (name string, t *ir.Tensor, err error) {
	d := &decoder{}
	name, t, err = d.tensor(data)
	if err != nil {
		return "", nil, fmt.Errorf("tensor %q: %w", name, err)
	}
	return name, t, nil
}

// wireTensor is a TensorProto whose data is still as the file has it.
type wireTensor struct {
	dims     []int64
	elem     int64
	raw      []byte
	hasRaw   bool
	floats   []byte // float_data: little-endian float32s, which is also their raw form
	doubles  []byte // double_data likewise
	ints     []byte // int32_data: a sequence of varints
	longs    []byte // int64_data
	ulongs   []byte // uint64_data
	strings  [][]byte
	external []ir.Prop
	location uint64
	name     string
	label    ir.Label
}

// parse reads a TensorProto.
func (w *wireTensor) parse(b []byte) error {
	return walk(b, func(f field) (err error) {
		switch f.tag {
		case 1<<3 | asVarint, 1<<3 | asBytes:
			w.dims, err = varints(w.dims, f)
		case 2<<3 | asVarint:
			w.elem = int64(int32(f.num))
		case 4<<3 | asBytes:
			w.floats = join(w.floats, f.data)
		case 4<<3 | asFixed32:
			w.floats = binary.LittleEndian.AppendUint32(w.floats, uint32(f.num))
		case 5<<3 | asBytes:
			w.ints = join(w.ints, f.data)
		case 5<<3 | asVarint:
			w.ints = protowire.AppendVarint(w.ints, f.num)
		case 6<<3 | asBytes:
			w.strings = append(w.strings, f.data)
		case 7<<3 | asBytes:
			w.longs = join(w.longs, f.data)
		case 7<<3 | asVarint:
			w.longs = protowire.AppendVarint(w.longs, f.num)
		case 8<<3 | asBytes:
			w.name = string(f.data)
		case 9<<3 | asBytes:
			w.raw, w.hasRaw = f.data, true
		case 10<<3 | asBytes:
			w.doubles = join(w.doubles, f.data)
		case 10<<3 | asFixed64:
			w.doubles = binary.LittleEndian.AppendUint64(w.doubles, f.num)
		case 11<<3 | asBytes:
			w.ulongs = join(w.ulongs, f.data)
		case 11<<3 | asVarint:
			w.ulongs = protowire.AppendVarint(w.ulongs, f.num)
		case 12<<3 | asBytes:
			w.label.Doc = string(f.data)
		case 13<<3 | asBytes:
			var p ir.Prop
			p, err = prop(f.data)
			w.external = append(w.external, p)
		case 14<<3 | asVarint:
			w.location = f.num
		case 16<<3 | asBytes:
			var p ir.Prop
			p, err = prop(f.data)
			w.label.Meta = append(w.label.Meta, p)
		default:
			w.label.Opaque = append(w.label.Opaque, f.wire...)
		}
		return err
	})
}

// join appends b to a; the first piece is kept as the slice of the file it is.
func join(a, b []byte) []byte {
	if a == nil {
		return b[:len(b):len(b)]
	}
	return append(a, b...)
}

// tensor decodes a TensorProto. The name is returned with an error too, for its message.
func (d *decoder) tensor(b []byte) (name string, t *ir.Tensor, err error) {
	var w wireTensor
	if err := w.parse(b); err != nil {
		return w.name, nil, err
	}
	t, err = d.build(&w)
	if err != nil {
		return w.name, nil, err
	}
	if l := w.label; l.Doc != "" || l.Meta != nil || l.Opaque != nil {
		t.Label = &ir.Label{Doc: l.Doc, Meta: l.Meta, Opaque: l.Opaque}
	}
	return w.name, t, nil
}

func (d *decoder) build(w *wireTensor) (*ir.Tensor, error) {
	if w.elem < 0 || w.elem > 255 || !ir.DType(w.elem).Valid() {
		return nil, fmt.Errorf("unknown element type %d", w.elem)
	}
	elem := ir.DType(w.elem)
	shape := make([]int, len(w.dims))
	for i, n := range w.dims {
		shape[i] = int(n)
	}
	n, err := ir.Numel(shape)
	if err != nil {
		return nil, err
	}
	if w.location == 1 {
		return d.external(elem, shape, w.external)
	}
	if w.location != 0 {
		return nil, fmt.Errorf("unknown data location %d", w.location)
	}
	if elem == ir.String {
		if w.hasRaw {
			return nil, errors.New("strings in raw_data")
		}
		return ir.StringTensor(shape, w.strings)
	}
	if w.hasRaw && (len(w.raw) > 0 || n == 0) {
		if name := w.typedField(); name != "" {
			return nil, fmt.Errorf("data both in raw_data and in %s", name)
		}
		return ir.TensorOf(elem, shape, w.raw)
	}
	want := fieldFor(elem)
	if have := w.typedField(); have != "" && have != want {
		return nil, fmt.Errorf("%v%v wants its data in %s or raw_data, found it in %s", elem, shape, want, have)
	}
	var data []byte
	switch want {
	case "float_data":
		data = w.floats
	case "double_data":
		data = w.doubles
	case "int64_data":
		data, err = unpack(w.longs, elem, n)
	case "uint64_data":
		data, err = unpack(w.ulongs, elem, n)
	default:
		data, err = unpack(w.ints, elem, n)
	}
	if err != nil {
		return nil, fmt.Errorf("%v%v: %s: %w", elem, shape, want, err)
	}
	return ir.TensorOf(elem, shape, data)
}

// fieldFor names the typed field that holds elements of a type.
func fieldFor(elem ir.DType) string {
	switch elem {
	case ir.Float32, ir.Complex64:
		return "float_data"
	case ir.Float64, ir.Complex128:
		return "double_data"
	case ir.Int64:
		return "int64_data"
	case ir.Uint32, ir.Uint64:
		return "uint64_data"
	case ir.String:
		return "string_data"
	}
	return "int32_data"
}

// typedField names the first typed field that holds something, "" if none does.
func (w *wireTensor) typedField() string {
	switch {
	case len(w.floats) > 0:
		return "float_data"
	case len(w.ints) > 0:
		return "int32_data"
	case len(w.longs) > 0:
		return "int64_data"
	case len(w.doubles) > 0:
		return "double_data"
	case len(w.ulongs) > 0:
		return "uint64_data"
	case len(w.strings) > 0:
		return "string_data"
	}
	return ""
}

// unpack turns the varints of a typed field into the raw form of n elements. An integer holds one element of 6 bits or
// more, two of 4 bits or four of 2 bits (a byte as in raw_data). Negative numbers and their two's complement in the width of
// the type are the same.
func unpack(b []byte, elem ir.DType, n int) ([]byte, error) {
	width := elem.Bits()
	want := n
	if width < 6 {
		want = elem.Size(n)
	}
	found := 0
	for _, c := range b {
		if c < 0x80 {
			found++
		}
	}
	if found != want {
		return nil, fmt.Errorf("wants %d integers, found %d", want, found)
	}
	out := make([]byte, 0, elem.Size(n)+8)
	var bits uint64 // 6-bit elements waiting for a whole byte
	var have uint
	for i := 0; len(b) > 0; i++ {
		u, k := protowire.ConsumeVarint(b)
		if k < 0 {
			return nil, fmt.Errorf("malformed integer: %w", protowire.ParseError(k))
		}
		b = b[k:]
		if width < 64 && fieldFor(elem) == "int32_data" {
			v := int64(int32(u))
			cell := max(width, 8)
			lo, hi := int64(-1)<<(cell-1), int64(1)<<cell-1
			if width == 6 {
				lo, hi = 0, 63
			}
			if v < lo || v > hi {
				return nil, fmt.Errorf("integer %d is %d, outside %d to %d", i, v, lo, hi)
			}
			u = uint64(v)
		} else if width == 32 && u > 1<<32-1 {
			return nil, fmt.Errorf("integer %d is %d, outside 32 bits", i, u)
		}
		switch width {
		case 6:
			bits |= u << have
			for have += 6; have >= 8; have -= 8 {
				out = append(out, byte(bits))
				bits >>= 8
			}
		case 16:
			out = binary.LittleEndian.AppendUint16(out, uint16(u))
		case 32:
			out = binary.LittleEndian.AppendUint32(out, uint32(u))
		case 64:
			out = binary.LittleEndian.AppendUint64(out, u)
		default:
			out = append(out, byte(u))
		}
	}
	if have > 0 {
		out = append(out, byte(bits))
	}
	return out, nil
}

// sparse decodes a SparseTensorProto; the name is that of its values.
func (d *decoder) sparse(b []byte) (name string, s *ir.SparseTensor, err error) {
	s = &ir.SparseTensor{}
	var dims []int64
	err = walk(b, func(f field) (err error) {
		switch f.tag {
		case 1<<3 | asBytes:
			if name, s.Values, err = d.tensor(f.data); err != nil {
				err = fmt.Errorf("values of sparse tensor %q: %w", name, err)
			}
		case 2<<3 | asBytes:
			var n string
			if n, s.Indices, err = d.tensor(f.data); err != nil {
				err = fmt.Errorf("indices of sparse tensor %q: %w", name, err)
			} else if n != "" {
				s.Indices.Label = named(s.Indices.Label, n)
			}
		case 3<<3 | asVarint, 3<<3 | asBytes:
			dims, err = varints(dims, f)
		}
		return err
	})
	if err != nil {
		return name, nil, err
	}
	if s.Values == nil || s.Indices == nil {
		return name, nil, fmt.Errorf("sparse tensor %q lacks values or indices", name)
	}
	for _, n := range dims {
		s.Shape = append(s.Shape, int(n))
	}
	if _, err := ir.Numel(s.Shape); err != nil {
		return name, nil, fmt.Errorf("sparse tensor %q: %w", name, err)
	}
	nnz, k := s.Values.Len(), s.Indices.Shape()
	rank := len(s.Shape)
	if s.Values.Rank() != 1 || s.Indices.Elem() != ir.Int64 || len(k) == 0 || len(k) > 2 || k[0] != nnz || len(k) == 2 && k[1] != rank {
		return name, nil, fmt.Errorf("sparse tensor %q of rank %d: values %v and indices %v do not fit: want [n] and int64[n] or int64[n,%d]",
			name, rank, s.Values.Type(), s.Indices.Type(), rank)
	}
	return name, s, nil
}

// named returns a label with the name added.
func named(l *ir.Label, name string) *ir.Label {
	if l == nil {
		l = &ir.Label{}
	}
	l.Name = name
	return l
}

// maxDense bounds what a sparse tensor may grow to.
const maxDense = 1 << 31

// dense returns a tensor that writes the sparse one out on first use.
func dense(s *ir.SparseTensor) (*ir.Tensor, error) {
	elem := s.Values.Elem()
	width := elem.Bits() / 8
	if width == 0 {
		return nil, fmt.Errorf("sparse tensor of element type %v", elem)
	}
	return ir.LazyTensor(elem, s.Shape, func() ([]byte, error) {
		if err := errors.Join(s.Values.Load(), s.Indices.Load()); err != nil {
			return nil, err
		}
		n, err := ir.Numel(s.Shape)
		if err != nil {
			return nil, err
		}
		if n*width > maxDense {
			return nil, fmt.Errorf("sparse tensor %v%v takes more than %d bytes when written out", elem, s.Shape, maxDense)
		}
		out := make([]byte, n*width)
		values, at := s.Values.Bytes(), ir.Data[int64](s.Indices)
		per := 1
		if s.Indices.Rank() == 2 {
			per = len(s.Shape)
		}
		for i := range s.Values.Len() {
			flat := int64(0)
			if per == 1 && s.Indices.Rank() == 1 {
				flat = at[i]
			} else {
				for j, size := range s.Shape {
					x := at[i*per+j]
					if x < 0 || x >= int64(size) {
						return nil, fmt.Errorf("index %d of a sparse tensor is %d in dimension %d of size %d", i, x, j, size)
					}
					flat = flat*int64(size) + x
				}
			}
			if flat < 0 || flat >= int64(n) {
				return nil, fmt.Errorf("index %d of a sparse tensor is %d, beyond its %d elements", i, flat, n)
			}
			copy(out[int(flat)*width:], values[i*width:(i+1)*width])
		}
		return out, nil
	})
}
