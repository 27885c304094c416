package passes

import (
	"fmt"
	"slices"
	"strings"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
)

// factors returns the factor of every class of a scaling by channel label; none has 1.
type factors func(label int32) float64

// apply edits the constants of a scaling: a constant that others read too is copied first. back learns how to take the
// edits back, also with an error.
func (s *scaling) apply(f factors, back *undo) error {
	for _, e := range s.edits {
		if err := e.apply(f, back); err != nil {
			return fmt.Errorf("%v: %w", e.node, err)
		}
	}
	return nil
}

// constant returns the value that holds the constant which the edit changes, the nodes from it to the slot, and its channels.
func (e *paramEdit) constant() (root *ir.Value, chain []*ir.Node, err error) {
	v := e.node.In(e.slot)
	if e.site != nil {
		l := e.site.Linear
		if v, chain, _, ok := weight(v, numfmt.Axes{K: l.InAxis, Out: l.OutAxis}); ok {
			return v, chain, nil
		}
	}
	if op.ConstantOf(v) == nil {
		return nil, nil, fmt.Errorf("%q is no constant", v.Name)
	}
	return v, nil, nil
}

// apply multiplies or divides the constant's elements by their factors.
func (e *paramEdit) apply(f factors, back *undo) error {
	v, chain, err := e.constant()
	if err != nil {
		return err
	}
	old := op.ConstantOf(v)
	x, ok := old.Float32s()
	if !ok {
		return fmt.Errorf("constant %q has type %v", v.Name, old.Elem())
	}
	shape := old.Shape()
	if len(shape) != len(e.ch.period) {
		return fmt.Errorf("constant %q has shape %v, its channels are laid over %d axes", v.Name, shape, len(e.ch.period))
	}
	y := make([]float32, len(x))
	same := true
	i := 0
	build(slices.Clone(shape), func(idx []int) int32 {
		k := 1.0
		if l := e.ch.at(idx); l != none {
			k = f(l)
		}
		if e.divide {
			y[i] = float32(float64(x[i]) / k)
		} else {
			y[i] = float32(float64(x[i]) * k)
		}
		same = same && y[i] == x[i]
		i++
		return none
	})
	if same {
		return nil
	}
	t, err := tensorAs(old.Elem(), y, shape)
	if err != nil {
		return err
	}
	replaceConst(e.node, e.slot, v, chain, t, back)
	return nil
}

// replaceConst makes input i of a node read tensor t in place of the constant v, which the nodes of chain lead to it. Where
// others read v or the chain, both are copied.
func replaceConst(n *ir.Node, i int, v *ir.Value, chain []*ir.Node, t *ir.Tensor, back *undo) {
	alone := v.Const() != nil && v.NumUses() == 1 && !v.IsInput() && v.Graph() == n.Graph()
	for _, k := range chain {
		alone = alone && k.Out(0).NumUses() == 1
	}
	if alone {
		old := v.Const()
		v.SetConst(t)
		back.then(func() { v.SetConst(old) })
		return
	}
	g := n.Graph()
	was := n.In(i)
	fresh := g.Const(v.Name, t)
	for _, k := range chain {
		ins := k.Ins()
		ins[0] = fresh
		c := g.Insert(n, k.Name, k.Op, ins, []string{k.Out(0).Name}, k.Attrs...)
		c.Out(0).Type = k.Out(0).Type
		fresh = c.Out(0)
	}
	n.SetIn(i, fresh)
	back.then(func() { n.SetIn(i, was) }) // what nobody reads any more goes with Prune
}

// insertMul makes the given uses of v read v times a constant vector along an axis.
func insertMul(v *ir.Value, axis int, by []float64, uses []ir.Use, pass string, back *undo) error {
	rank := v.Type.Rank()
	if rank < 0 {
		return fmt.Errorf("the rank of %q is unknown", v.Name)
	}
	x := make([]float32, len(by))
	for i, f := range by {
		x[i] = float32(f)
	}
	shape := ones(rank - axis)
	shape[0] = len(x)
	t, err := tensorAs(v.Type.Elem, x, shape)
	if err != nil {
		return err
	}
	g := v.Graph()
	var before *ir.Node
	order := nodeOrder(g.Model())
	for _, u := range uses {
		if before == nil || order[u.Node] < order[before] {
			before = u.Node
		}
	}
	n, err := op.Insert(g, before, v.Name+"_scaled", ir.Op("Mul"), []*ir.Value{v, g.Const(v.Name+"_inv_scale", t)}, []string{v.Name + "_scaled"})
	if err != nil {
		return err
	}
	n.Origin = pass + ":" + v.Name
	back.then(func() {
		if err := g.Remove(n); err != nil {
			panic("BUG: passes: " + err.Error())
		}
	})
	for _, u := range uses {
		u.Set(n.Out(0))
		back.then(func() { u.Set(v) })
	}
	return nil
}

// absorbers names what takes the factors of a scaling: norms, columns of weights, other constants.
func (s *scaling) absorbers() string {
	var names []string
	add := func(format string, args ...any) {
		if t := fmt.Sprintf(format, args...); !slices.Contains(names, t) {
			names = append(names, t)
		}
	}
	for _, e := range s.edits {
		switch norm := s.w.affine[e.node]; {
		case !e.divide:
		case norm != nil:
			add("%v %s", norm.Kind, called(norm.Core))
		case s.w.linear[e.node] != nil:
			add("columns of %q", s.w.linear[e.node].Name)
		default:
			add("constant of %s", called(e.node))
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// current returns the contents of a linear site's weight constant as it is now, with its shape and axes.
func (s *Site) current() (x []float32, shape []int, axes numfmt.Axes, err error) {
	l := s.Linear
	root, _, axes, ok := weight(s.Node.In(l.W), numfmt.Axes{K: l.InAxis, Out: l.OutAxis})
	if !ok {
		return nil, nil, axes, fmt.Errorf("%v has no constant weight", s.Node)
	}
	t := op.ConstantOf(root)
	if x, ok = t.Float32s(); !ok {
		return nil, nil, axes, fmt.Errorf("weight %q has type %v", root.Name, t.Elem())
	}
	return x, t.Shape(), axes, nil
}
