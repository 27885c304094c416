package passes

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// integerOperators turns products between DequantizeLinear and QuantizeLinear into operators on quantized numbers:
// QLinearConv, QLinearMatMul, and com.microsoft.QGemm, which may also give float. What has a float operand, or for Conv and
// MatMul a float result, stays as it is, and the report says why.
func (w *lowering) integerOperators() error {
	for g := range w.u.Model.Graphs() {
		for n := range g.Nodes() {
			if op.RoleOf(n) != op.ProductRole || n.NumIn() < 2 || n.In(0) == nil || n.In(1) == nil {
				continue
			}
			x, weight := operand8(n.In(0)), operand8(n.In(1))
			if x == nil || weight == nil {
				continue
			}
			if err := w.integerOperator(n, x, weight); err != nil {
				return fmt.Errorf("node %v: %w", n, err)
			}
		}
	}
	return nil
}

// operand8 returns the DequantizeLinear with constant parameters, none of them by blocks, that an 8-bit operand comes from.
func operand8(v *ir.Value) *ir.Node {
	n := dequantizer(v)
	if n == nil || n.In(2) == nil || op.ConstantOf(n.In(2)) == nil {
		return nil
	}
	if e := n.In(0).Type.Elem; e != ir.Int8 && e != ir.Uint8 {
		return nil
	}
	return n
}

// integerOperator replaces one product, if its operator, bias and result allow it.
func (w *lowering) integerOperator(n, x, weight *ir.Node) error {
	site := n.Name
	if op.ConstantOf(x.In(1)).Len() != 1 {
		w.note("product %q stays in float: its input has a scale for each channel", site)
		return nil
	}
	var after *ir.Node
	if u, ok := n.Out(0).SingleUse(); ok && u.Node != nil && u.Slot == 0 && u.Node.Op == ir.Op("QuantizeLinear") {
		if s := op.ConstantOf(u.Node.In(1)); s != nil && s.Len() == 1 && u.Node.In(2) != nil && u.Node.Attr("block_size") == nil &&
			(u.Node.Out(0).Type.Elem == ir.Int8 || u.Node.Out(0).Type.Elem == ir.Uint8) {
			after = u.Node
		}
	}
	var bias *ir.Value
	if b := n.In(2); b != nil {
		d := dequantizer(b)
		if d == nil || d.In(0).Type.Elem != ir.Int32 {
			w.note("product %q stays in float: its bias is no int32", site)
			return nil
		}
		bias = d.In(0)
	}
	in := []*ir.Value{x.In(0), x.In(1), x.In(2), weight.In(0), weight.In(1), weight.In(2)}
	id := ir.OpID{}
	switch {
	case n.Op == ir.Op("Gemm") && n.Float("alpha", 1) == 1 && n.Float("beta", 1) == 1 && n.Int("transA", 0) == 0:
		id = ir.OpID{Domain: op.Microsoft, Type: "QGemm"}
		in = append(in, bias)
		if after != nil {
			in = append(in, after.In(1), after.In(2))
		}
	case after == nil:
		w.note("product %q stays in float: its result is not quantized (outputs: quantizes it)", site)
		return nil
	case n.Op == ir.Op("Conv"):
		id = ir.Op("QLinearConv")
		in = append(in, after.In(1), after.In(2))
		if bias != nil {
			in = append(in, bias)
		}
	case n.Op == ir.Op("MatMul"):
		id = ir.Op("QLinearMatMul")
		in = append(in, after.In(1), after.In(2))
	default:
		w.note("product %q stays in float: %v has no operator on quantized numbers", site, n.Op)
		return nil
	}
	attrs := append([]ir.Attr(nil), n.Attrs...)
	if id.Domain != "" {
		w.u.Model.Opset[id.Domain] = 1
		attrs = nil
		for _, a := range n.Attrs {
			if a.Name != "beta" {
				attrs = append(attrs, a)
			}
		}
	}
	k := n.Graph().Place(n, n.Name, id, in, nil, attrs...)
	k.Origin = "lower:" + site
	result := n
	if after != nil {
		result = after
	}
	k.TakeOut(0, result.Out(0))
	if err := op.InferNode(k); err != nil {
		return err
	}
	if after != nil {
		if err := n.Graph().Remove(after); err != nil {
			return err
		}
	}
	w.u.edit()
	return n.Graph().Remove(n)
}
