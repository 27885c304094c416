package backend_test

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/qsimc/qsimc/frontend/onnxpb"
)

// normal brings a model into a form in which two that mean the same are equal: tensors in raw form, absent and empty fields
// alike, lists without meaning in their order sorted. It is written against the bindings alone, apart from what it tests.
func normal(m *onnxpb.ModelProto) {
	each(m.ProtoReflect(), func(msg proto.Message) {
		switch p := msg.(type) {
		case *onnxpb.TensorProto:
			normalTensor(p)
		case *onnxpb.AttributeProto:
			normalAttr(p)
		case *onnxpb.OperatorSetIdProto:
			p.Domain = proto.String(strings.TrimPrefix(p.GetDomain(), "ai.onnx"))
			if p.GetDomain() != "" {
				p.Domain = proto.String("ai.onnx" + p.GetDomain())
			}
		case *onnxpb.NodeProto:
			if p.GetDomain() == "ai.onnx" {
				p.Domain = nil
			}
		case *onnxpb.TensorShapeProto_Dimension:
			if p.GetDimParam() == "" && p.GetDimValue() < 0 || p.GetDimValue() == 0 && p.GetDimParam() == "" && isParam(p) {
				p.Value = nil
			}
		case *onnxpb.TypeProto:
			if tensor := p.GetTensorType(); tensor != nil && tensor.GetElemType() == 0 && tensor.Shape == nil {
				p.Value = nil
			}
		case *onnxpb.ValueInfoProto:
			if p.Type != nil && p.Type.Value == nil && p.Type.Denotation == nil {
				p.Type = nil
			}
		case *onnxpb.GraphProto:
			slices.SortStableFunc(p.ValueInfo, byName)
		case *onnxpb.FunctionProto:
			slices.SortStableFunc(p.ValueInfo, byName)
			if p.GetDomain() == "ai.onnx" {
				p.Domain = nil
			}
		}
	})
	if m.GetIrVersion() == 3 && !eachInitializerIsInput(m.Graph) {
		// such a file is invalid before IR version 4, and since then only defaults are listed as inputs
		m.IrVersion = proto.Int64(4)
		m.Graph.Input = slices.DeleteFunc(m.Graph.Input, func(v *onnxpb.ValueInfoProto) bool {
			return slices.ContainsFunc(m.Graph.Initializer, func(t *onnxpb.TensorProto) bool { return t.GetName() == v.GetName() })
		})
	}
	// the domain ai.onnx has two names; restore those that only begin like it
	for _, o := range m.OpsetImport {
		o.Domain = proto.String(strings.Replace(o.GetDomain(), "ai.onnxai.onnx", "ai.onnx", 1))
	}
	slices.SortStableFunc(m.OpsetImport, func(a, b *onnxpb.OperatorSetIdProto) int {
		return cmp.Compare(a.GetDomain(), b.GetDomain())
	})
	m.OpsetImport = slices.CompactFunc(m.OpsetImport, func(a, b *onnxpb.OperatorSetIdProto) bool { return proto.Equal(a, b) })
	each(m.ProtoReflect(), func(msg proto.Message) { dropZeros(msg.ProtoReflect()) })
}

func eachInitializerIsInput(g *onnxpb.GraphProto) bool {
	for _, t := range g.Initializer {
		if !slices.ContainsFunc(g.Input, func(v *onnxpb.ValueInfoProto) bool { return t.GetName() == v.GetName() }) {
			return false
		}
	}
	return true
}

func isParam(d *onnxpb.TensorShapeProto_Dimension) bool {
	_, ok := d.Value.(*onnxpb.TensorShapeProto_Dimension_DimParam)
	return ok
}

func byName(a, b *onnxpb.ValueInfoProto) int { return cmp.Compare(a.GetName(), b.GetName()) }

// each visits msg and all messages in it, inner ones first.
func each(msg protoreflect.Message, visit func(proto.Message)) {
	msg.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Message() == nil {
			return true
		}
		if fd.IsList() {
			for i := range v.List().Len() {
				each(v.List().Get(i).Message(), visit)
			}
		} else {
			each(v.Message(), visit)
		}
		return true
	})
	visit(msg.Interface())
}

// dropZeros clears singular fields that are present but zero, those of oneofs excepted.
func dropZeros(msg protoreflect.Message) {
	var zero []protoreflect.FieldDescriptor
	msg.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if !fd.IsList() && fd.Message() == nil && fd.ContainingOneof() == nil {
			if fd.Kind() == protoreflect.BytesKind && len(v.Bytes()) == 0 || fd.Kind() != protoreflect.BytesKind && v.Equal(fd.Default()) {
				zero = append(zero, fd)
			}
		}
		return true
	})
	for _, fd := range zero {
		msg.Clear(fd)
	}
}

func normalAttr(a *onnxpb.AttributeProto) {
	if a.Type != nil && a.GetType() != 0 {
		return
	}
	switch {
	case a.F != nil:
		a.Type = onnxpb.AttributeProto_FLOAT.Enum()
	case a.I != nil:
		a.Type = onnxpb.AttributeProto_INT.Enum()
	case a.S != nil:
		a.Type = onnxpb.AttributeProto_STRING.Enum()
	case a.T != nil:
		a.Type = onnxpb.AttributeProto_TENSOR.Enum()
	case a.Ints != nil:
		a.Type = onnxpb.AttributeProto_INTS.Enum()
	case a.Floats != nil:
		a.Type = onnxpb.AttributeProto_FLOATS.Enum()
	}
}

// normalTensor moves typed data into raw_data, which must be little-endian and packed.
func normalTensor(t *onnxpb.TensorProto) {
	var raw []byte
	for _, v := range t.FloatData {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	for _, v := range t.DoubleData {
		raw = binary.LittleEndian.AppendUint64(raw, math.Float64bits(v))
	}
	for _, v := range t.Int64Data {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(v))
	}
	for _, v := range t.Uint64Data {
		if t.GetDataType() == int32(onnxpb.TensorProto_UINT32) {
			raw = binary.LittleEndian.AppendUint32(raw, uint32(v))
		} else {
			raw = binary.LittleEndian.AppendUint64(raw, v)
		}
	}
	for _, v := range t.Int32Data {
		switch onnxpb.TensorProto_DataType(t.GetDataType()) {
		case onnxpb.TensorProto_INT32:
			raw = binary.LittleEndian.AppendUint32(raw, uint32(v))
		case onnxpb.TensorProto_INT16, onnxpb.TensorProto_UINT16, onnxpb.TensorProto_FLOAT16, onnxpb.TensorProto_BFLOAT16:
			raw = binary.LittleEndian.AppendUint16(raw, uint16(v))
		default:
			raw = append(raw, byte(v))
		}
	}
	if raw != nil {
		t.RawData = raw
	}
	t.FloatData, t.DoubleData, t.Int64Data, t.Uint64Data, t.Int32Data = nil, nil, nil, nil, nil
	if t.GetDataLocation() == onnxpb.TensorProto_DEFAULT {
		t.ExternalData, t.DataLocation = nil, nil
	}
}
