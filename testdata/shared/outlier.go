package shared

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// InjectOutliers gives a model the outlier channels of large language models: six channels of every LayerNormalization's
// result are scaled by 20 to 60, and the weights that read them are divided. The model computes what it did. A head that
// reads the embedding through a Transpose gets a copy of its own.
func InjectOutliers(m *ir.Model) error {
	scaled := func(v *ir.Value, by func(i int) float32) (*ir.Tensor, error) {
		c := op.ConstantOf(v)
		if c == nil {
			return nil, fmt.Errorf("%q is no constant", v.Name)
		}
		x, ok := c.Float32s()
		if !ok {
			return nil, fmt.Errorf("constant %q has type %v", v.Name, c.Elem())
		}
		y := make([]float32, len(x))
		for i := range x {
			y[i] = x[i] * by(i)
		}
		return ir.Floats(y, c.Shape()...), nil
	}
	for n := range m.Nodes() {
		norm, ok := op.NormOf(n)
		if !ok || !norm.Fused {
			continue
		}
		width := op.ConstantOf(n.In(1)).Len()
		factor := func(channel int) float32 {
			if step := width / 6; channel%step == 5 && channel/step < 6 {
				return float32(20 + 8*(channel/step))
			}
			return 1
		}
		for i := 1; i <= 2; i++ {
			t, err := scaled(n.In(i), factor)
			if err != nil {
				return err
			}
			n.SetIn(i, m.Graph.Const(n.In(i).Name, t))
		}
		for _, u := range norm.Out.Uses() {
			d, ok := op.Lookup(u.Node)
			if !ok || d.Linear == nil {
				continue
			}
			l, ok := d.Linear(u.Node)
			if !ok {
				continue
			}
			w, inner := u.Node.In(l.W), 1
			if tr := w.DefNode(); tr != nil && op.ConstantOf(w) == nil { // the head
				t, err := scaled(tr.In(0), func(i int) float32 { return 1 / factor(i%width) })
				if err != nil {
					return err
				}
				k, err := op.Insert(m.Graph, u.Node, "head_t", tr.Op, []*ir.Value{m.Graph.Const("head", t)}, []string{"head_t"}, tr.Attrs...)
				if err != nil {
					return err
				}
				u.Node.SetIn(l.W, k.Out(0))
				continue
			}
			if l.InAxis == 0 {
				inner = int(w.Type.Dim(1).Size)
			}
			t, err := scaled(w, func(i int) float32 { return 1 / factor(i/inner%width) })
			if err != nil {
				return err
			}
			u.Node.SetIn(l.W, m.Graph.Const(w.Name, t))
		}
	}
	m.Graph.Prune()
	return nil
}
