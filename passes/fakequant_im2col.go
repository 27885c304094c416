package passes

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
)

// unfold rewrites convolutions whose operands both have blocks so that blocks run along the flattened axis of channels and
// taps (METHODS.md §4, abfp-conv=im2col): a convolution with a one-hot weight lays out the patches as channels, exactly, and
// one of a single tap multiplies them. Why others stay is noted.
func (u *Unit) unfold(ds []*Decision) error {
	for _, d := range ds {
		if d.OpType() != "Conv" || d.Kind != Linear {
			continue
		}
		weight := false
		input := false
		for _, c := range d.Choices {
			blocks := c.Scheme.Gran == numfmt.PerBlock
			weight = weight || c.Role == numfmt.Weight && blocks
			input = input || c.Role == numfmt.Input && blocks
		}
		w := op.ConstantOf(d.Node.In(1))
		switch {
		case !weight || !input:
			continue
		case d.Linear.Groups != 1:
			u.note(fmt.Sprintf("conv=im2col: site %q has %d groups, its blocks run along channels", d.Name, d.Linear.Groups))
			continue
		case w == nil || w.Elem() != ir.Float32:
			u.note(fmt.Sprintf("conv=im2col: the weight of site %q is no float constant at the node, its blocks run along channels", d.Name))
			continue
		case taps(w.Shape()) == 1:
			continue // the same thing
		}
		if err := unfoldConv(d.Node, w); err != nil {
			return fmt.Errorf("site %q: %w", d.Name, err)
		}
		u.edit()
		u.changed = true
		u.note(fmt.Sprintf("conv=im2col: site %q multiplies patches of %d numbers, which a Conv with a one-hot weight lays out: exact, for simulation and not for speed",
			d.Name, len(ir.Data[float32](w))/w.Shape()[0]))
	}
	return nil
}

func taps(weight []int) int {
	n := 1
	for _, k := range weight[2:] {
		n *= k
	}
	return n
}

// unfoldConv splits one convolution into one that makes patches and one that multiplies them.
func unfoldConv(n *ir.Node, w *ir.Tensor) error {
	if err := w.Load(); err != nil {
		return err
	}
	shape := w.Shape()
	k := shape[1] * taps(shape)
	hot := make([]float32, k*k)
	for i := range k {
		hot[i*k+i] = 1
	}
	hotShape := append([]int{k}, shape[1:]...)
	flat := ones(len(shape))
	flat[0], flat[1] = shape[0], k
	product, err := w.Reshape(flat...)
	if err != nil {
		return err
	}
	g := n.Graph()
	y := n.Out(0)
	p, err := op.Insert(g, n, n.Name+"_patches", n.Op, []*ir.Value{n.In(0), g.Const(y.Name+"_one_hot", ir.Floats(hot, hotShape...))}, []string{y.Name + "_patches"}, n.Attrs...)
	if err != nil {
		return err
	}
	p.Origin = "fakequant:im2col"
	ins := n.Ins()
	ins[0], ins[1] = p.Out(0), g.Const(n.In(1).Name+"_im2col", product)
	q := g.Place(n, n.Name, n.Op, ins, nil)
	q.TakeOut(0, y)
	if err := op.InferNode(q); err != nil {
		return err
	}
	return g.Remove(n)
}

// laysOutPatches reports whether a node is a Conv that unfoldConv makes: its weight is an identity matrix over channels and taps.
func laysOutPatches(n *ir.Node) bool {
	if n.Op != ir.Op("Conv") || n.In(2) != nil {
		return false
	}
	w := op.ConstantOf(n.In(1))
	if w == nil || w.Elem() != ir.Float32 || w.Rank() < 3 || taps(w.Shape()) == 1 || w.Shape()[0] != w.Shape()[1]*taps(w.Shape()) || w.Load() != nil {
		return false
	}
	k := w.Shape()[0]
	for i, v := range ir.Data[float32](w) {
		if (i/k == i%k) != (v == 1) || v != 0 && v != 1 {
			return false
		}
	}
	return true
}
