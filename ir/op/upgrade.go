package op

import (
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
)

// Upgrade turns a node valid in opset To-1 into one or more nodes valid in opset To with the same meaning.
type Upgrade struct {
	To    int
	Apply func(u *Up) error
}

// Up is an upgrade in progress. Types of the node's inputs are known as far as inference knew them.
type Up struct {
	Node *ir.Node
	To   int
}

// Value inserts a node before the one being upgraded and returns its single result, named after hint.
func (u *Up) Value(hint, opType string, in []*ir.Value, attrs ...ir.Attr) *ir.Value {
	g := u.Node.Graph()
	n := g.Insert(u.Node, u.Node.Name+"_"+hint, ir.Op(opType), in, []string{u.base() + "_" + hint}, attrs...)
	n.Origin = "upgrade"
	return n.Out(0)
}

// Const adds a constant for the node.
func (u *Up) Const(hint string, t *ir.Tensor) *ir.Value {
	return u.Node.Graph().Const(u.base()+"_"+hint, t)
}

func (u *Up) base() string {
	if v := u.Node.Out(0); v != nil {
		return v.Name
	}
	return u.Node.Name
}

// Replace makes a new node compute output 0 of the one being upgraded, under the same names, and continues with the new
// node in u.Node. The old node must have no other wanted output.
func (u *Up) Replace(opType string, in []*ir.Value, attrs ...ir.Attr) error {
	old := u.Node
	g := old.Graph()
	for i := 1; i < old.NumOut(); i++ {
		if v := old.Out(i); v != nil && v.NumUses() > 0 {
			return fmt.Errorf("output %d, %q, is used and opset %d's %s has no such output", i, v.Name, u.To, opType)
		}
	}
	name := old.Name
	n := g.Place(old, name, ir.Op(opType), in, nil, attrs...)
	n.Doc, n.Meta, n.Origin = old.Doc, old.Meta, old.Origin
	n.TakeOut(0, old.Out(0))
	if err := g.Remove(old); err != nil {
		return err
	}
	u.Node = n
	return nil
}

// Require fails unless the node's first k inputs are present: upgrades run before arities are checked.
func (u *Up) Require(k int) error {
	for i := range k {
		if u.Node.In(i) == nil {
			return fmt.Errorf("input %d is required and absent", i)
		}
	}
	return nil
}

// AttrToInput moves a list-of-integers attribute to input slot i as an int64 constant; nothing happens if it is absent.
func (u *Up) AttrToInput(attr string, i int) {
	if a := u.Node.Attr(attr); a != nil {
		ints := a.Ints
		if a.Kind == ir.AttrInt {
			ints = []int64{a.I}
		}
		u.Node.SetIn(i, u.Const(attr, ir.Ints(ints...)))
		u.Node.DelAttr(attr)
	}
}

// upgradeNode brings node n from one opset of its domain to another, together with the nodes that this inserts before it.
// It returns the first and the last of the nodes that now stand for n.
func upgradeNode(n *ir.Node, from, to int) (first, last *ir.Node, err error) {
	if !outdated(n, from, to) {
		return n, n, nil
	}
	d, _ := Lookup(n)
	g, before := n.Graph(), n.Prev()
	for _, up := range d.Upgrades {
		if up.To <= from || up.To > to {
			continue
		}
		mark := n.Prev()
		u := &Up{Node: n, To: up.To}
		if err := up.Apply(u); err != nil {
			return nil, nil, fmt.Errorf("node %v: upgrade from opset %d to %d: %w", n, up.To-1, up.To, err)
		}
		// what the upgrade inserted is of opset up.To and climbs on by itself
		for k := following(g, mark); k != u.Node; {
			next := k.Next()
			if _, _, err := upgradeNode(k, up.To, to); err != nil {
				return nil, nil, err
			}
			k = next
		}
		changed := u.Node.Op != n.Op
		n = u.Node
		if changed {
			if _, n, err = upgradeNode(n, up.To, to); err != nil {
				return nil, nil, err
			}
			break
		}
	}
	return following(g, before), n, nil
}

// outdated reports whether upgradeNode would do anything.
func outdated(n *ir.Node, from, to int) bool {
	d, ok := Lookup(n)
	return ok && slices.ContainsFunc(d.Upgrades, func(up Upgrade) bool { return up.To > from && up.To <= to })
}

func following(g *ir.Graph, n *ir.Node) *ir.Node {
	if n != nil {
		return n.Next()
	}
	for first := range g.Nodes() {
		return first
	}
	return nil
}

// ToOpset upgrades the model itself to the given default-domain opset, operator by operator, meaning kept. Types must have
// been inferred. A model already there or beyond is left as it is.
func ToOpset(m *ir.Model, to int) error {
	from := m.Opset[""]
	if from >= to {
		return nil
	}
	for g := range m.Graphs() {
		for n := range g.Nodes() {
			if !standard(n) {
				continue
			}
			if _, _, err := upgradeNode(n, from, to); err != nil {
				return err
			}
		}
	}
	m.Opset[""] = to
	for _, f := range m.Functions {
		if _, ok := f.Opset[""]; ok {
			f.Opset[""] = to
		}
	}
	return Infer(m)
}

// standard reports whether the node's operator is of the default domain.
func standard(n *ir.Node) bool { return n.Op.Domain == "" || n.Op.Domain == "ai.onnx" }
