package frontend

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/qsimc/qsimc/frontend/onnxpb"
	"github.com/qsimc/qsimc/ir"
)

// parseAttr decodes an AttributeProto. The attribute has its name with an error too.
func (d *decoder) parseAttr(b []byte) (rawAttr, error) {
	var a rawAttr
	present := ir.AttrUndefined // the kind of the value found
	found := func(k ir.AttrKind) { present = k }
	var graphs []*rawGraph
	var single *rawGraph
	err := walk(b, func(f field) (err error) {
		switch f.tag {
		case 1<<3 | asBytes:
			a.Name = string(f.data)
		case 2<<3 | asFixed32:
			a.F = math.Float32frombits(uint32(f.num))
			found(ir.AttrFloat)
		case 3<<3 | asVarint:
			a.I = int64(f.num)
			found(ir.AttrInt)
		case 4<<3 | asBytes:
			a.S = f.data
			found(ir.AttrString)
		case 5<<3 | asBytes:
			a.T, err = d.attrTensor(f.data)
			found(ir.AttrTensor)
		case 6<<3 | asBytes:
			single, err = d.parseGraph(f.data)
			found(ir.AttrGraph)
		case 7<<3 | asFixed32, 7<<3 | asBytes:
			a.Floats, err = float32s(a.Floats, f)
			found(ir.AttrFloats)
		case 8<<3 | asVarint, 8<<3 | asBytes:
			a.Ints, err = varints(a.Ints, f)
			found(ir.AttrInts)
		case 9<<3 | asBytes:
			a.Strings = append(a.Strings, f.data)
			found(ir.AttrStrings)
		case 10<<3 | asBytes:
			var t *ir.Tensor
			t, err = d.attrTensor(f.data)
			a.Tensors = append(a.Tensors, t)
			found(ir.AttrTensors)
		case 11<<3 | asBytes:
			var g *rawGraph
			g, err = d.parseGraph(f.data)
			graphs = append(graphs, g)
			found(ir.AttrGraphs)
		case 13<<3 | asBytes:
			a.Doc = string(f.data)
		case 14<<3 | asBytes:
			err = attrType(&a, f.data)
			found(ir.AttrType)
		case 15<<3 | asBytes:
			err = attrType(&a, f.data)
			found(ir.AttrTypes)
		case 20<<3 | asVarint:
			if f.num > uint64(ir.AttrTypes) {
				return fmt.Errorf("unknown attribute type %d", f.num)
			}
			a.Kind = ir.AttrKind(f.num)
		case 21<<3 | asBytes:
			a.Ref = string(f.data)
		case 22<<3 | asBytes:
			err = d.attrSparse(&a, f.data)
			found(ir.AttrSparseTensor)
		case 23<<3 | asBytes:
			err = d.attrSparse(&a, f.data)
			found(ir.AttrSparseTensors)
		default:
			a.Opaque = append(a.Opaque, f.wire...)
		}
		return err
	})
	if err != nil {
		return a, err
	}
	if single != nil {
		graphs = append([]*rawGraph{single}, graphs...)
	}
	a.graphs = graphs
	return a, a.settle(present)
}

// settle agrees the declared type of an attribute with the value found. Old files leave the type out.
func (a *rawAttr) settle(present ir.AttrKind) error {
	if a.Kind == ir.AttrUndefined {
		a.Kind = present
	}
	single := false
	switch a.Kind {
	case ir.AttrTensor, ir.AttrGraph, ir.AttrType, ir.AttrSparseTensor:
		single = a.Ref == ""
	case ir.AttrUndefined:
		if a.Ref == "" {
			return errors.New("it has neither type nor value")
		}
	}
	if present != a.Kind && (present != ir.AttrUndefined || single) {
		return fmt.Errorf("its type is %d, its value is of type %d", a.Kind, present)
	}
	if single && len(a.graphs)+len(a.Sparse)+len(a.Types) > 1 {
		return fmt.Errorf("more than one value of type %d", a.Kind)
	}
	return nil
}

// attrTensor decodes a tensor that keeps its name in its label.
func (d *decoder) attrTensor(b []byte) (*ir.Tensor, error) {
	name, t, err := d.tensor(b)
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", name, err)
	}
	if name != "" {
		t.Label = named(t.Label, name)
	}
	return t, nil
}

func (d *decoder) attrSparse(a *rawAttr, b []byte) error {
	name, s, err := d.sparse(b)
	if err != nil {
		return err
	}
	if name != "" {
		s.Values.Label = named(s.Values.Label, name)
	}
	a.Sparse = append(a.Sparse, s)
	return nil
}

func attrType(a *rawAttr, b []byte) error {
	var p onnxpb.TypeProto
	if err := proto.Unmarshal(b, &p); err != nil {
		return fmt.Errorf("type: %w", err)
	}
	t, err := typeOf(&p)
	a.Types = append(a.Types, t)
	return err
}
