package ir

import (
	"fmt"
	"slices"
)

// OpID names an operator. Domain "" is ai.onnx.
type OpID struct{ Domain, Type, Overload string }

// Op returns the id of an operator of the default domain.
func Op(name string) OpID { return OpID{Type: name} }

// String prints the id as the text syntax does: Relu, com.microsoft.FusedMatMul.
func (o OpID) String() string {
	s := o.Type
	if o.Domain != "" {
		s = o.Domain + "." + s
	}
	if o.Overload != "" {
		s += ":" + o.Overload
	}
	return s
}

// Node is an operator applied to values.
type Node struct {
	Name   string
	Op     OpID
	Attrs  []Attr // changed by SetAttr and DelAttr only: clones share it
	Doc    string
	Meta   []Prop
	Origin string // "pass:site" for nodes a pass inserted
	Opaque []byte // wire bytes the IR does not model

	ins        []*Value
	outs       []*Value
	graph      *Graph
	prev, next *Node
}

// OriginKey is the key under which files have a node's Origin among its metadata.
const OriginKey = "qsimc.origin"

// Graph returns the graph the node is in; nil once it is removed.
func (n *Node) Graph() *Graph { return n.graph }

// Next and Prev return the neighbours in the graph's order.
func (n *Node) Next() *Node { return n.next }

// Prev returns the node before n.
func (n *Node) Prev() *Node { return n.prev }

// NumIn returns the number of input slots, absent optional ones included.
func (n *Node) NumIn() int { return len(n.ins) }

// In returns input i; nil for an absent optional input or one beyond the last.
func (n *Node) In(i int) *Value {
	if i < 0 || i >= len(n.ins) {
		return nil
	}
	return n.ins[i]
}

// Ins returns a copy of the inputs.
func (n *Node) Ins() []*Value { return slices.Clone(n.ins) }

// SetIn makes v (nil: absent) input i, extending the list if needed.
func (n *Node) SetIn(i int, v *Value) {
	for len(n.ins) <= i {
		n.ins = append(n.ins, nil)
	}
	if old := n.ins[i]; old != nil {
		old.dropUse(Use{Node: n, Slot: i})
	}
	n.ins[i] = v
	if v != nil {
		v.addUse(Use{Node: n, Graph: n.graph, Slot: i})
	}
}

// TrimIns shortens the input list to k slots.
func (n *Node) TrimIns(k int) {
	for i := k; i < len(n.ins); i++ {
		n.SetIn(i, nil)
	}
	if k < len(n.ins) {
		n.ins = n.ins[:k]
	}
}

// NumOut returns the number of output slots, absent optional ones included.
func (n *Node) NumOut() int { return len(n.outs) }

// Out returns output i; nil for an absent optional output or one beyond the last.
func (n *Node) Out(i int) *Value {
	if i < 0 || i >= len(n.outs) {
		return nil
	}
	return n.outs[i]
}

// Outs returns a copy of the outputs.
func (n *Node) Outs() []*Value { return slices.Clone(n.outs) }

// TakeOut makes v, until now another node's output, output i of n, so that names and uses of v stay. What n had there must
// be unused; v's former producer is left with an absent output.
func (n *Node) TakeOut(i int, v *Value) {
	for len(n.outs) <= i {
		n.outs = append(n.outs, nil)
	}
	if old := n.outs[i]; old != nil && len(old.uses) > 0 {
		panic("BUG: ir: TakeOut over the used output " + old.Name)
	}
	if v.def == nil || v.graph != n.graph {
		panic("BUG: ir: TakeOut of " + v.Name + ", which no node of the graph produces")
	}
	v.def.outs[v.index] = nil
	n.outs[i], v.def, v.index = v, n, i
}

// TrimOuts drops absent outputs at the end of the list.
func (n *Node) TrimOuts() {
	for len(n.outs) > 0 && n.outs[len(n.outs)-1] == nil {
		n.outs = n.outs[:len(n.outs)-1]
	}
}

// Attr returns the attribute of the given name, nil if the node has none.
func (n *Node) Attr(name string) *Attr {
	for i := range n.Attrs {
		if n.Attrs[i].Name == name {
			return &n.Attrs[i]
		}
	}
	return nil
}

// SetAttr adds or replaces an attribute and makes its graphs subgraphs of n.
func (n *Node) SetAttr(a Attr) {
	for _, g := range a.subgraphs() {
		g.owner = n
	}
	for i := range n.Attrs {
		if n.Attrs[i].Name == a.Name {
			n.Attrs = slices.Clone(n.Attrs) // it may be shared with a clone
			n.Attrs[i] = a
			return
		}
	}
	n.Attrs = append(n.Attrs, a)
}

// DelAttr removes an attribute if it is there.
func (n *Node) DelAttr(name string) {
	if n.Attr(name) != nil {
		n.Attrs = slices.DeleteFunc(slices.Clone(n.Attrs), func(a Attr) bool { return a.Name == name })
	}
}

// Int returns an integer attribute or a default.
func (n *Node) Int(name string, def int64) int64 {
	if a := n.Attr(name); a != nil && a.Kind == AttrInt {
		return a.I
	}
	return def
}

// Float returns a float attribute or a default.
func (n *Node) Float(name string, def float32) float32 {
	if a := n.Attr(name); a != nil && a.Kind == AttrFloat {
		return a.F
	}
	return def
}

// Str returns a string attribute or a default.
func (n *Node) Str(name, def string) string {
	if a := n.Attr(name); a != nil && a.Kind == AttrString {
		return string(a.S)
	}
	return def
}

// Ints returns a list-of-integers attribute, nil if the node has none.
func (n *Node) Ints(name string) []int64 {
	if a := n.Attr(name); a != nil && a.Kind == AttrInts {
		return a.Ints
	}
	return nil
}

// Floats returns a list-of-floats attribute, nil if the node has none.
func (n *Node) Floats(name string) []float32 {
	if a := n.Attr(name); a != nil && a.Kind == AttrFloats {
		return a.Floats
	}
	return nil
}

// Subgraph returns the graph attribute of the given name, nil if the node has none.
func (n *Node) Subgraph(name string) *Graph {
	if a := n.Attr(name); a != nil {
		return a.G
	}
	return nil
}

// Subgraphs returns the graphs among the node's attributes.
func (n *Node) Subgraphs() []*Graph {
	var gs []*Graph
	for i := range n.Attrs {
		gs = append(gs, n.Attrs[i].subgraphs()...)
	}
	return gs
}

// String names the node for messages: "/h.3/fc1" (MatMul).
func (n *Node) String() string { return fmt.Sprintf("%q (%v)", n.Name, n.Op) }
