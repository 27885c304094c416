package frontend

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/qsimc/qsimc/frontend/onnxpb"
	"github.com/qsimc/qsimc/ir"
	"google.golang.org/protobuf/proto"
)

// Models are walked field by field instead of being unmarshalled whole: the bytes of tensors, which are nearly all of a
// model, stay where they are. Only small messages go through the bindings.

// field is one field of a message. tag is number<<3 | wire type, so that a field of a known number but another wire type
// falls among the unknown ones, as protobuf wants it.
type field struct {
	tag  uint64
	num  uint64 // varint and fixed-width content
	data []byte // length-delimited content
	wire []byte // the whole field, tag included
}

// Wire types, to be or-ed to number<<3.
const (
	asVarint  = uint64(protowire.VarintType)
	asFixed64 = uint64(protowire.Fixed64Type)
	asBytes   = uint64(protowire.BytesType)
	asFixed32 = uint64(protowire.Fixed32Type)
)

// walk calls visit for every field of a message.
func walk(msg []byte, visit func(field) error) error {
	for len(msg) > 0 {
		number, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return fmt.Errorf("malformed field: %w", protowire.ParseError(n))
		}
		f := field{tag: uint64(number)<<3 | uint64(typ)}
		body := msg[n:]
		var size int
		switch typ {
		case protowire.VarintType:
			f.num, size = protowire.ConsumeVarint(body)
		case protowire.Fixed32Type:
			var v uint32
			v, size = protowire.ConsumeFixed32(body)
			f.num = uint64(v)
		case protowire.Fixed64Type:
			f.num, size = protowire.ConsumeFixed64(body)
		case protowire.BytesType:
			length, k := protowire.ConsumeVarint(body)
			if k >= 0 && length > uint64(len(body)-k) {
				return fmt.Errorf("cut short: field %d wants %d bytes, found %d", number, length, len(body)-k)
			}
			f.data, size = protowire.ConsumeBytes(body)
		default:
			size = protowire.ConsumeFieldValue(number, typ, body)
		}
		if size < 0 {
			return fmt.Errorf("malformed field %d: %w", number, protowire.ParseError(size))
		}
		f.wire = msg[: n+size : n+size]
		msg = msg[n+size:]
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}

// varints appends the integers of a repeated field, packed or not, to list.
func varints(list []int64, f field) ([]int64, error) {
	if f.tag&7 == asVarint {
		return append(list, int64(f.num)), nil
	}
	for b := f.data; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return nil, fmt.Errorf("malformed integer: %w", protowire.ParseError(n))
		}
		list = append(list, int64(v))
		b = b[n:]
	}
	return list, nil
}

// float32s is varints for floats.
func float32s(list []float32, f field) ([]float32, error) {
	if f.tag&7 == asFixed32 {
		return append(list, math.Float32frombits(uint32(f.num))), nil
	}
	if len(f.data)%4 != 0 {
		return nil, fmt.Errorf("packed floats take %d bytes, which is no multiple of 4", len(f.data))
	}
	for b := f.data; len(b) > 0; b = b[4:] {
		v, _ := protowire.ConsumeFixed32(b)
		list = append(list, math.Float32frombits(v))
	}
	return list, nil
}

// prop reads a StringStringEntryProto.
func prop(b []byte) (ir.Prop, error) {
	var p ir.Prop
	err := walk(b, func(f field) error {
		switch f.tag {
		case 1<<3 | asBytes:
			p.Key = string(f.data)
		case 2<<3 | asBytes:
			p.Value = string(f.data)
		}
		return nil
	})
	return p, err
}

// described is a ValueInfoProto.
type described struct {
	name   string
	typ    ir.Type
	doc    string
	meta   []ir.Prop
	opaque []byte
	wire   []byte // the field of the graph it came in
	used   bool
}

func valueInfo(f field) (*described, error) {
	if d := plainInfo(f); d != nil {
		return d, nil
	}
	return anyInfo(f)
}

// anyInfo reads a description through the bindings.
func anyInfo(f field) (*described, error) {
	var p onnxpb.ValueInfoProto
	if err := proto.Unmarshal(f.data, &p); err != nil {
		return nil, fmt.Errorf("value description: %w", err)
	}
	d := &described{name: p.GetName(), doc: p.GetDocString(), opaque: p.ProtoReflect().GetUnknown(), wire: f.wire}
	for _, e := range p.MetadataProps {
		d.meta = append(d.meta, ir.Prop{Key: e.GetKey(), Value: e.GetValue()})
	}
	var err error
	if d.typ, err = typeOf(p.Type); err != nil {
		return nil, fmt.Errorf("value %q: %w", d.name, err)
	}
	return d, nil
}

// plainInfo reads a description as nearly all are: a name, perhaps a text, and a tensor's type, each field once. It returns nil
// for one with anything else in it, or anything wrong.
func plainInfo(f field) *described {
	d := &described{wire: f.wire}
	var seen once
	err := walk(f.data, func(f field) error {
		switch f.tag {
		case 1<<3 | asBytes:
			d.name = string(f.data)
		case 2<<3 | asBytes:
			if !seen.first(2) {
				return errNotPlain
			}
			return plainType(&d.typ, f.data)
		case 3<<3 | asBytes:
			d.doc = string(f.data)
		default:
			return errNotPlain
		}
		return nil
	})
	if err != nil {
		return nil
	}
	return d
}

// errNotPlain says that a message is for the bindings.
var errNotPlain = errors.New("not plain")

// once knows which fields of a message, of numbers below 8, were seen.
type once uint8

// first reports that the field was not seen before. A field of one message that comes twice is to be merged.
func (o *once) first(number int) bool {
	was := *o
	*o |= 1 << number
	return was != *o
}

// plainType reads a TypeProto of a tensor.
func plainType(t *ir.Type, b []byte) error {
	var seen once
	return walk(b, func(f field) error {
		switch f.tag {
		case 1<<3 | asBytes:
			if !seen.first(1) {
				return errNotPlain
			}
			return walk(f.data, func(f field) (err error) {
				switch f.tag {
				case 1<<3 | asVarint:
					t.Elem, err = elemType(int32(f.num))
				case 2<<3 | asBytes:
					if !seen.first(2) {
						return errNotPlain
					}
					t.Ranked = true
					err = walk(f.data, func(f field) error { return plainDim(t, f) })
				default:
					return errNotPlain
				}
				return err
			})
		case 6<<3 | asBytes:
			t.Denot = string(f.data)
			return nil
		}
		return errNotPlain
	})
}

// plainDim adds a dimension that is a size, a symbol or neither.
func plainDim(t *ir.Type, f field) error {
	if f.tag != 1<<3|asBytes {
		return errNotPlain
	}
	dim := ir.UnknownDim
	fields := 0
	err := walk(f.data, func(f field) error {
		switch f.tag {
		case 1<<3 | asVarint:
			dim.Size = int64(f.num)
		case 2<<3 | asBytes:
			dim.Name = string(f.data)
		default:
			return errNotPlain
		}
		fields++
		return nil
	})
	if err != nil || fields > 1 || dim.Size < -1 {
		return errNotPlain
	}
	if t.Dims == nil {
		t.Dims = make([]ir.Dim, 0, 4)
	}
	t.Dims = append(t.Dims, dim)
	return nil
}

// typeOf converts a type; nil is the unknown one.
func typeOf(p *onnxpb.TypeProto) (ir.Type, error) {
	t := ir.Type{Denot: p.GetDenotation()}
	var err error
	switch v := p.GetValue().(type) {
	case *onnxpb.TypeProto_TensorType:
		if t.Elem, err = elemType(v.TensorType.GetElemType()); err == nil {
			err = setShape(&t, v.TensorType.Shape)
		}
	case *onnxpb.TypeProto_SparseTensorType:
		t.Kind = ir.SparseKind
		if t.Elem, err = elemType(v.SparseTensorType.GetElemType()); err == nil {
			err = setShape(&t, v.SparseTensorType.Shape)
		}
	case *onnxpb.TypeProto_SequenceType:
		t.Kind = ir.SequenceKind
		t.Of, err = inner(v.SequenceType.ElemType)
	case *onnxpb.TypeProto_OptionalType:
		t.Kind = ir.OptionalKind
		t.Of, err = inner(v.OptionalType.ElemType)
	case *onnxpb.TypeProto_MapType:
		t.Kind = ir.MapKind
		if t.Elem, err = elemType(v.MapType.GetKeyType()); err == nil {
			t.Of, err = inner(v.MapType.ValueType)
		}
	case *onnxpb.TypeProto_OpaqueType:
		t.Kind = ir.OpaqueKind
		t.Wire, err = proto.MarshalOptions{Deterministic: true}.Marshal(v.OpaqueType)
	}
	return t, err
}

func inner(p *onnxpb.TypeProto) (*ir.Type, error) {
	if p == nil {
		return nil, nil
	}
	t, err := typeOf(p)
	return &t, err
}

func elemType(v int32) (ir.DType, error) {
	if v < 0 || v > math.MaxUint8 || v != 0 && !ir.DType(v).Valid() {
		return 0, fmt.Errorf("unknown element type %d", v)
	}
	return ir.DType(v), nil
}

func setShape(t *ir.Type, p *onnxpb.TensorShapeProto) error {
	if p == nil {
		return nil
	}
	t.Ranked = true
	for i, d := range p.Dim {
		dim := ir.Dim{Size: -1, Denot: d.GetDenotation()}
		switch v := d.GetValue().(type) {
		case *onnxpb.TensorShapeProto_Dimension_DimValue:
			if dim.Size = v.DimValue; dim.Size < 0 {
				// exporters write -1 for a size they do not know
				if dim.Size != -1 {
					return fmt.Errorf("dimension %d has size %d", i, dim.Size)
				}
			}
		case *onnxpb.TensorShapeProto_Dimension_DimParam:
			dim.Name = v.DimParam
		}
		t.Dims = append(t.Dims, dim)
	}
	return nil
}
