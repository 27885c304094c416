package onnxgo

import (
	"fmt"
	"slices"
	"sort"

	"github.com/qsimc/qsimc/ir"
	"gorgonia.org/tensor"
)

// inputType is the element type of a node's tensor; the shape may differ from run to run.
func inputType(n *Node) (ir.Type, error) {
	if n.value == nil {
		return ir.Type{}, nil
	}
	e, err := elemOf(n.value.Dtype())
	if err != nil {
		return ir.Type{}, fmt.Errorf("onnxgo: node %d, %q: %w", n.id, n.name, err)
	}
	return ir.Type{Elem: e}, nil
}

var elems = []struct {
	dtype tensor.Dtype
	elem  ir.DType
}{
	{tensor.Float32, ir.Float32}, {tensor.Float64, ir.Float64}, {tensor.Bool, ir.Bool},
	{tensor.Int8, ir.Int8}, {tensor.Int16, ir.Int16}, {tensor.Int32, ir.Int32}, {tensor.Int64, ir.Int64},
	{tensor.Uint8, ir.Uint8}, {tensor.Uint16, ir.Uint16}, {tensor.Uint32, ir.Uint32}, {tensor.Uint64, ir.Uint64},
}

func elemOf(d tensor.Dtype) (ir.DType, error) {
	for _, e := range elems {
		if e.dtype == d {
			return e.elem, nil
		}
	}
	return ir.Undefined, fmt.Errorf("tensors of %v have no ONNX element type", d)
}

// FromGorgonia copies a tensor of onnx-go's library; views are materialized. It fails for element types ONNX lacks.
func FromGorgonia(t tensor.Tensor) (*ir.Tensor, error) {
	if d, ok := t.(*tensor.Dense); ok && (d.RequiresIterator() || d.IsNativelyAccessible() && d.DataOrder().IsColMajor()) {
		t = d.Materialize()
	}
	elem, err := elemOf(t.Dtype())
	if err != nil {
		return nil, err
	}
	shape := slices.Clone([]int(t.Shape()))
	switch v := t.Data().(type) {
	case []float32:
		return copied(elem, shape, v)
	case []float64:
		return copied(elem, shape, v)
	case []bool:
		return copied(elem, shape, v)
	case []int8:
		return copied(elem, shape, v)
	case []int16:
		return copied(elem, shape, v)
	case []int32:
		return copied(elem, shape, v)
	case []int64:
		return copied(elem, shape, v)
	case []uint8:
		return copied(elem, shape, v)
	case []uint16:
		return copied(elem, shape, v)
	case []uint32:
		return copied(elem, shape, v)
	case []uint64:
		return copied(elem, shape, v)
	case float32:
		return copied(elem, shape, []float32{v})
	case float64:
		return copied(elem, shape, []float64{v})
	case int64:
		return copied(elem, shape, []int64{v})
	case int32:
		return copied(elem, shape, []int32{v})
	case bool:
		return copied(elem, shape, []bool{v})
	default:
		return nil, fmt.Errorf("tensor data of type %T is not supported", v)
	}
}

func copied[T ir.Element](elem ir.DType, shape []int, v []T) (*ir.Tensor, error) {
	n, err := ir.Numel(shape)
	if err != nil {
		return nil, err
	}
	if n > len(v) {
		return nil, fmt.Errorf("shape %v wants %d elements, found %d", shape, n, len(v))
	}
	return ir.FromSlice(elem, shape, slices.Clone(v[:n])), nil
}

// ToGorgonia copies a tensor for onnx-go. It fails for the element types that library lacks: float16 and smaller, strings.
func ToGorgonia(t *ir.Tensor) (tensor.Tensor, error) {
	var data any
	switch t.Elem() {
	case ir.Float32:
		data = slices.Clone(ir.Data[float32](t))
	case ir.Float64:
		data = slices.Clone(ir.Data[float64](t))
	case ir.Bool:
		data = slices.Clone(ir.Data[bool](t))
	case ir.Int8:
		data = slices.Clone(ir.Data[int8](t))
	case ir.Int16:
		data = slices.Clone(ir.Data[int16](t))
	case ir.Int32:
		data = slices.Clone(ir.Data[int32](t))
	case ir.Int64:
		data = slices.Clone(ir.Data[int64](t))
	case ir.Uint8:
		data = slices.Clone(ir.Data[uint8](t))
	case ir.Uint16:
		data = slices.Clone(ir.Data[uint16](t))
	case ir.Uint32:
		data = slices.Clone(ir.Data[uint32](t))
	case ir.Uint64:
		data = slices.Clone(ir.Data[uint64](t))
	default:
		return nil, fmt.Errorf("onnx-go has no tensors of type %v", t.Elem())
	}
	return tensor.New(tensor.WithShape(t.Shape()...), tensor.WithBacking(data)), nil
}

// attributes converts onnx-go's attribute map, in the order of names.
func attributes(m map[string]any) ([]ir.Attr, error) {
	names := make([]string, 0, len(m))
	for k := range m {
		names = append(names, k)
	}
	sort.Strings(names)
	var attrs []ir.Attr
	for _, k := range names {
		a, err := attribute(k, m[k])
		if err != nil {
			return nil, err
		}
		attrs = append(attrs, a)
	}
	return attrs, nil
}

func attribute(name string, v any) (ir.Attr, error) {
	switch v := v.(type) {
	case float32:
		return ir.FloatAttr(name, v), nil
	case int64:
		return ir.IntAttr(name, v), nil
	case string:
		return ir.StringAttr(name, v), nil
	case []float32:
		return ir.FloatsAttr(name, v...), nil
	case []int64:
		return ir.IntsAttr(name, v...), nil
	case []string:
		a := ir.Attr{Name: name, Kind: ir.AttrStrings}
		for _, s := range v {
			a.Strings = append(a.Strings, []byte(s))
		}
		return a, nil
	case tensor.Tensor:
		t, err := FromGorgonia(v)
		if err != nil {
			return ir.Attr{}, fmt.Errorf("attribute %q: %w", name, err)
		}
		return ir.TensorAttr(name, t), nil
	}
	return ir.Attr{}, fmt.Errorf("attribute %q has a value of type %T, which onnx-go does not decode", name, v)
}
