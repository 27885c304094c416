package passes

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// integerBiases stores the biases of products whose operands come from DequantizeLinear as int32 with the product of their
// scales, as ONNX Runtime's integer kernels add them.
func (w *lowering) integerBiases() error {
	type key struct {
		bias, x, weight *ir.Value
	}
	made := map[key]*ir.Value{}
	for g := range w.u.Model.Graphs() {
		for n := range g.Nodes() {
			slot := op.BiasSlot(n)
			if slot < 0 || n.In(slot) == nil {
				continue
			}
			x, weight := dequantizer(n.In(0)), dequantizer(n.In(1))
			bias := op.ConstantOf(n.In(slot))
			if x == nil || weight == nil || bias == nil || bias.Rank() != 1 || bias.Elem() != ir.Float32 {
				continue
			}
			k := key{n.In(slot), x.In(1), weight.In(1)}
			if made[k] == nil {
				v, err := w.integerBias(n, n.In(slot), bias, x, weight)
				if err != nil {
					return fmt.Errorf("node %v: bias: %w", n, err)
				}
				made[k] = v
			}
			if made[k] != nil {
				n.SetIn(slot, made[k])
				w.u.edit()
			}
		}
	}
	return nil
}

// absorbActivations leaves out activations whose values a quantizer behind them takes anyway: those below 0 become its least
// code, those above the bound its greatest.
func (w *lowering) absorbActivations() error {
	for _, l := range w.all {
		act := l.node.In(0).DefNode()
		bound, ok := op.Rectifies(act)
		if !ok || l.form != pair || l.clip || !integerPair(l.fq.Scheme) || l.node.In(0).Type.Elem != ir.Float32 {
			continue
		}
		p, _, err := l.params()
		if err != nil {
			return err
		}
		lo, hi := l.fq.Scheme.Codes()
		zero := float32(0)
		if p.Zero != nil {
			zero = p.Zero[0]
		}
		if zero != float32(lo) || math.RoundToEven(float64(bound/p.Scale[0]))+float64(zero) < float64(hi) {
			continue
		}
		for _, u := range l.node.In(0).Uses() {
			if u.Node != nil && u.Node.Op == ir.Op("QuantizeLinear") && u.Slot == 0 && sameScale(u.Node.In(1), p.Scale[0]) {
				u.Set(act.In(0))
			}
		}
	}
	return nil
}

// sameScale reports whether a value is the constant scale.
func sameScale(v *ir.Value, scale float32) bool {
	t := op.ConstantOf(v)
	if t == nil || t.Len() != 1 {
		return false
	}
	s, ok := t.Float32s()
	return ok && s[0] == scale
}

// dequantizer returns the DequantizeLinear with constant scales that a value comes from, nil if there is none.
func dequantizer(v *ir.Value) *ir.Node {
	n := v.DefNode()
	if n == nil || n.Op != ir.Op("DequantizeLinear") || op.ConstantOf(n.In(1)) == nil || n.Attr("block_size") != nil {
		return nil
	}
	return n
}

// integerBias makes the int32 bias and its DequantizeLinear; nil where a scale or a value does not allow it.
func (w *lowering) integerBias(n *ir.Node, v *ir.Value, bias *ir.Tensor, x, weight *ir.Node) (*ir.Value, error) {
	sx, ok1 := op.ConstantOf(x.In(1)).Float32s()
	sw, ok2 := op.ConstantOf(weight.In(1)).Float32s()
	b, ok3 := bias.Float32s()
	if !ok1 || !ok2 || !ok3 || len(sx) != 1 || len(sw) != 1 && len(sw) != len(b) {
		return nil, nil
	}
	scale := make([]float32, len(sw))
	for i, s := range sw {
		scale[i] = float32(sx[0] * s)
		if scale[i] < math.SmallestNonzeroFloat32*(1<<23) {
			return nil, nil
		}
	}
	q := make([]int32, len(b))
	for i, f := range b {
		r := math.RoundToEven(float64(f / scale[i%len(scale)]))
		if !(math.Abs(r) < 1<<31) {
			w.note("the bias %q of node %q stays float: %v is beyond int32 in steps of %v", v.Name, n.Name, f, scale[i%len(scale)])
			return nil, nil
		}
		q[i] = int32(r)
	}
	shape := op.ConstantOf(weight.In(1)).Shape()
	if len(scale) == 1 {
		shape = []int{}
	}
	g := n.Graph()
	var attrs []ir.Attr
	if len(shape) == 1 {
		attrs = []ir.Attr{ir.IntAttr("axis", 0)}
	}
	ins := []*ir.Value{
		g.Const(v.Name+"_quantized", ir.FromSlice(ir.Int32, []int{len(q)}, q)),
		g.Const(v.Name+"_scale", ir.Floats(scale, shape...)),
		g.Const(v.Name+"_zero_point", ir.FromSlice(ir.Int32, shape, make([]int32, len(scale)))),
	}
	k, err := op.Insert(g, n, v.Name+"_DequantizeLinear", ir.Op("DequantizeLinear"), ins, []string{v.Name + "_DequantizeLinear_Output"}, attrs...)
	if err != nil {
		return nil, err
	}
	k.Origin = "lower:" + v.Name
	return k.Out(0), nil
}
