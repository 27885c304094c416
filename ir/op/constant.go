package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

var constantDef = &Def{
	Name: "Constant", Doc: "a constant tensor", Since: 1, Versions: []int{1, 9, 11, 12, 13, 19, 21, 23, 24, 25}, Types: "all",
	In: Exactly(0), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		t, err := ConstantValue(c.Node)
		if err != nil {
			return nil, err
		}
		return []ir.Type{t.Type()}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) { return one(ConstantValue(c.Node)) },
}

// ConstantValue returns the tensor of a Constant node.
func ConstantValue(n *ir.Node) (*ir.Tensor, error) {
	for i := range n.Attrs {
		a := &n.Attrs[i]
		switch {
		case a.Name == "value" && a.Kind == ir.AttrTensor:
			return a.T, nil
		case a.Name == "value_float" && a.Kind == ir.AttrFloat:
			return ir.Scalar(a.F), nil
		case a.Name == "value_int" && a.Kind == ir.AttrInt:
			return ir.ScalarInt(a.I), nil
		case a.Name == "value_floats" && a.Kind == ir.AttrFloats:
			return ir.Floats(a.Floats, len(a.Floats)), nil
		case a.Name == "value_ints" && a.Kind == ir.AttrInts:
			return ir.Ints(a.Ints...), nil
		case a.Name == "value_string" && a.Kind == ir.AttrString:
			return ir.StringTensor([]int{}, [][]byte{a.S})
		case a.Name == "value_strings" && a.Kind == ir.AttrStrings:
			return ir.StringTensor([]int{len(a.Strings)}, a.Strings)
		}
	}
	return nil, fmt.Errorf("has no attribute value, value_float, value_int, value_string or a list of these: %w", ErrUnsupported)
}
