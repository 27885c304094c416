package frontend

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/qsimc/qsimc/frontend/onnxpb"
)

// TestPlainInfo compares the quick way of reading descriptions with the bindings', on messages with a few bytes and fields
// changed, doubled or cut off: where the quick one gives an answer it is theirs.
func TestPlainInfo(t *testing.T) {
	t.Parallel()
	shape := &onnxpb.TensorShapeProto{Dim: []*onnxpb.TensorShapeProto_Dimension{
		{Value: &onnxpb.TensorShapeProto_Dimension_DimParam{DimParam: "N"}},
		{Value: &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: 300}},
		{Denotation: proto.String("C")},
		{},
	}}
	tensor := func(elem int32, s *onnxpb.TensorShapeProto) *onnxpb.TypeProto {
		return &onnxpb.TypeProto{Value: &onnxpb.TypeProto_TensorType{TensorType: &onnxpb.TypeProto_Tensor{ElemType: proto.Int32(elem), Shape: s}}}
	}
	plain := &onnxpb.TensorShapeProto{Dim: shape.Dim[:2]}
	r := rand.New(rand.NewPCG(1, 2))
	quick := 0
	for _, p := range []*onnxpb.ValueInfoProto{
		{Name: proto.String("x"), Type: tensor(1, plain)},
		{Name: proto.String("a longer name"), Type: tensor(7, &onnxpb.TensorShapeProto{}), DocString: proto.String("text")},
		{Name: proto.String("x"), Type: tensor(1, nil)},
		{Name: proto.String("x"), Type: tensor(1, shape)},
		{Name: proto.String("x")},
		{Name: proto.String("x"), Type: &onnxpb.TypeProto{Denotation: proto.String("IMAGE"), Value: tensor(1, plain).Value}},
		{Name: proto.String("x"), Type: &onnxpb.TypeProto{Value: &onnxpb.TypeProto_SequenceType{SequenceType: &onnxpb.TypeProto_Sequence{ElemType: tensor(1, plain)}}}},
		{Name: proto.String("x"), Type: tensor(1, plain), MetadataProps: []*onnxpb.StringStringEntryProto{{Key: proto.String("k"), Value: proto.String("v")}}},
	} {
		whole, err := proto.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		for range 3000 {
			b := append([]byte(nil), whole...)
			switch r.IntN(4) {
			case 0:
				b[r.IntN(len(b))] = byte(r.IntN(256))
			case 1:
				b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			case 2:
				b = append(b, b[:r.IntN(len(b)+1)]...)
			case 3:
				b = b[r.IntN(len(b)):]
			}
			f := field{data: b, wire: b}
			got := plainInfo(f)
			if got == nil {
				continue
			}
			quick++
			want, err := anyInfo(f)
			if err != nil {
				t.Fatalf("%x: %+v, the bindings say %v", b, got, err)
			}
			if len(want.opaque) == 0 {
				want.opaque = nil
			}
			if len(want.typ.Dims) == 0 {
				want.typ.Dims = nil
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%x: %+v, the bindings read %+v", b, got, want)
			}
		}
	}
	if quick < 1000 {
		t.Errorf("only %d descriptions were read the quick way", quick)
	}
}
