package ir

import (
	"errors"
	"fmt"
	"iter"
	"slices"
)

// Output is an output slot of a graph. The slot's name is the output's name whatever value fills it.
type Output struct {
	Name  string
	Value *Value
	Type  Type // as declared by the file; zero if nothing was declared
	Doc   string
	Meta  []Prop

	Opaque []byte // wire bytes the IR does not model
}

// Graph is a main graph, a subgraph of a node, or a function's body. Nodes are kept in topological order.
type Graph struct {
	Name   string
	Doc    string
	Meta   []Prop
	Opaque []byte // wire bytes the IR does not model: quantization annotations, sparse initializers

	Sparse []NamedSparse // sparse initializers, carried through

	model       *Model
	owner       *Node // the node whose attribute this subgraph is
	inputs      []*Value
	outputs     []Output
	consts      []*Value
	first, last *Node
	count       int
}

// NamedSparse is a sparse initializer. The graph has a constant of the same name whose data is Dense; once a pass replaces
// that data the sparse form is no longer written.
type NamedSparse struct {
	Name  string
	T     *SparseTensor
	Dense *Tensor
}

// NewGraph returns an empty graph of model m.
func NewGraph(m *Model, name string) *Graph { return &Graph{Name: name, model: m} }

// Model returns the model the graph belongs to.
func (g *Graph) Model() *Model { return g.model }

// Owner returns the node whose subgraph g is; nil for main graphs and function bodies.
func (g *Graph) Owner() *Node { return g.owner }

// Inputs returns the graph's inputs in order; the slice is shared and must not be changed.
func (g *Graph) Inputs() []*Value { return g.inputs }

// FreeInputs returns the inputs that have no default value: those a caller must feed.
func (g *Graph) FreeInputs() []*Value {
	var in []*Value
	for _, v := range g.inputs {
		if v.data == nil {
			in = append(in, v)
		}
	}
	return in
}

// Outputs returns the output slots; the slice is shared and must not be changed.
func (g *Graph) Outputs() []Output { return g.outputs }

// Consts returns the constants (initializers) in order, those that are also inputs included; the slice must not be changed.
func (g *Graph) Consts() []*Value { return g.consts }

// Len returns the number of nodes.
func (g *Graph) Len() int { return g.count }

// Nodes yields the nodes in topological order. The graph may be edited meanwhile: removed nodes are not visited, nodes
// inserted after the current one are.
func (g *Graph) Nodes() iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		for n := g.first; n != nil; {
			if n.graph == g && !yield(n) {
				return
			}
			n = n.next
		}
	}
}

// Reverse yields the nodes last to first, with the same promise as Nodes.
func (g *Graph) Reverse() iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		for n := g.last; n != nil; {
			if n.graph == g && !yield(n) {
				return
			}
			n = n.prev
		}
	}
}

// Values yields inputs, constants and node outputs, in this order.
func (g *Graph) Values() iter.Seq[*Value] {
	return func(yield func(*Value) bool) {
		for _, v := range g.inputs {
			if !yield(v) {
				return
			}
		}
		for _, v := range g.consts {
			if !v.input && !yield(v) {
				return
			}
		}
		for n := range g.Nodes() {
			for _, v := range n.outs {
				if v != nil && !yield(v) {
					return
				}
			}
		}
	}
}

// walk visits g and its subgraphs, outer before inner; false if visit stopped it.
func (g *Graph) walk(visit func(*Graph) bool) bool {
	if !visit(g) {
		return false
	}
	for n := range g.Nodes() {
		for _, sub := range n.Subgraphs() {
			if !sub.walk(visit) {
				return false
			}
		}
	}
	return true
}

// AddInput appends a graph input. The name is used as it is: a file's names are kept, duplicates are Check's to find.
func (g *Graph) AddInput(name string, t Type) *Value {
	v := &Value{Name: name, Type: t, graph: g, input: true}
	g.inputs = append(g.inputs, v)
	g.model.names.take(name)
	return v
}

// AddConst appends a constant under exactly this name. If the last input added under it exists, it becomes that input's
// default value.
func (g *Graph) AddConst(name string, t *Tensor) *Value {
	for _, v := range g.inputs {
		if v.Name == name && v.data == nil {
			v.data = t
			g.consts = append(g.consts, v)
			return v
		}
	}
	v := &Value{Name: name, Type: t.Type(), graph: g, data: t}
	g.consts = append(g.consts, v)
	g.model.names.take(name)
	return v
}

// Const adds a constant under a fresh name made from hint.
func (g *Graph) Const(hint string, t *Tensor) *Value { return g.AddConst(g.model.FreshName(hint), t) }

// SetConst replaces the data of a constant for all its users.
func (v *Value) SetConst(t *Tensor) {
	if v.data == nil {
		panic("BUG: ir: SetConst on " + v.Name + ", which is no constant")
	}
	v.data, v.Type = t, t.Type()
}

// AddOutput appends an output slot of the given name, filled with v.
func (g *Graph) AddOutput(name string, v *Value) {
	g.outputs = append(g.outputs, Output{Name: name, Value: v})
	v.addUse(Use{Graph: g, Slot: len(g.outputs) - 1})
	g.model.names.take(name)
}

// DeclareOutput records what the file says of output slot i.
func (g *Graph) DeclareOutput(i int, t Type, doc string, meta []Prop) {
	g.outputs[i].Type, g.outputs[i].Doc, g.outputs[i].Meta = t, doc, meta
}

// SetOutput fills output slot i with v. The slot keeps its name: if v is a node's result of g in no other slot it takes
// that name, else the backend writes an Identity. The value that had the name gets a fresh one, unless it is an input or
// one of an enclosing graph, whose names stand: Check reports the clash.
func (g *Graph) SetOutput(i int, v *Value) {
	o := &g.outputs[i]
	old := o.Value
	if old == v {
		return
	}
	if old != nil {
		old.dropUse(Use{Graph: g, Slot: i})
	}
	o.Value = v
	v.addUse(Use{Graph: g, Slot: i})
	if v.Name == o.Name {
		return
	}
	if old != nil && old.Name == o.Name {
		if old.input || old.graph != g || old.fillsSlot(o.Name) {
			return
		}
		old.Name = g.model.FreshName(o.Name + "_inner")
	}
	if v.def != nil && v.graph == g && !v.isOutputBut(g, i) {
		v.Name = o.Name
	}
}

// fillsSlot reports whether v fills an output slot of the given name in its own graph.
func (v *Value) fillsSlot(name string) bool {
	return slices.ContainsFunc(v.uses, func(u Use) bool {
		return u.Node == nil && u.Graph == v.graph && u.Graph.outputs[u.Slot].Name == name
	})
}

func (v *Value) isOutputBut(g *Graph, slot int) bool {
	for _, u := range v.uses {
		if u.Node == nil && (u.Graph != g || u.Slot != slot) {
			return true
		}
	}
	return false
}

// Insert puts a new node before the given one (nil: at the end). Its name and the names of its outputs are made fresh from
// the hints; an output hint "" leaves that optional output absent. The outputs' types are unknown: passes use op.Insert,
// which infers them.
func (g *Graph) Insert(before *Node, name string, op OpID, in []*Value, outs []string, attrs ...Attr) *Node {
	fresh := make([]string, len(outs))
	for i, o := range outs {
		if o != "" {
			fresh[i] = g.model.FreshName(o)
		}
	}
	if name == "" {
		name = op.Type
	}
	return g.Place(before, g.model.FreshNode(name), op, in, fresh, attrs...)
}

// Place is Insert with exact names, for readers of files.
func (g *Graph) Place(before *Node, name string, op OpID, in []*Value, outs []string, attrs ...Attr) *Node {
	n := &Node{Name: name, Op: op, graph: g, ins: make([]*Value, len(in))}
	g.model.names.takeNode(name)
	for i, v := range in {
		n.SetIn(i, v)
	}
	n.outs = make([]*Value, 0, len(outs))
	for i, o := range outs {
		var v *Value
		if o != "" {
			v = &Value{Name: o, graph: g, def: n, index: i}
			g.model.names.take(o)
		}
		n.outs = append(n.outs, v)
	}
	if len(attrs) > 0 {
		n.Attrs = make([]Attr, 0, len(attrs))
		for _, a := range attrs {
			n.SetAttr(a)
		}
	}
	g.link(n, before)
	return n
}

func (g *Graph) link(n, before *Node) {
	n.graph = g
	if before == nil {
		n.prev, n.next = g.last, nil
		if g.last != nil {
			g.last.next = n
		} else {
			g.first = n
		}
		g.last = n
	} else {
		if before.graph != g {
			panic("BUG: ir: insertion before a node of another graph")
		}
		n.prev, n.next = before.prev, before
		if before.prev != nil {
			before.prev.next = n
		} else {
			g.first = n
		}
		before.prev = n
	}
	g.count++
}

func (g *Graph) unlink(n *Node) {
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		g.first = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	} else {
		g.last = n.prev
	}
	n.graph = nil
	g.count--
}

// Move puts node n before another of the same graph (nil: at the end).
func (g *Graph) Move(n, before *Node) {
	if n == before {
		return
	}
	g.unlink(n)
	g.link(n, before)
}

// ErrInUse says that a node cannot be removed because its results are used.
var ErrInUse = errors.New("its results are used")

// Remove takes a node out of the graph. It refuses while a result is used; the graph is then unchanged.
func (g *Graph) Remove(n *Node) error {
	if n.graph != g {
		return fmt.Errorf("node %q: not a node of this graph", n.Name)
	}
	for _, v := range n.outs {
		if v != nil && len(v.uses) > 0 {
			return fmt.Errorf("node %q (%v): output %q: %w", n.Name, n.Op, v.Name, ErrInUse)
		}
	}
	n.release()
	g.unlink(n)
	return nil
}

// release drops every use the node and its subgraphs make of values.
func (n *Node) release() {
	for _, sub := range n.Subgraphs() {
		sub.releaseAll()
	}
	for i, v := range n.ins {
		if v != nil {
			v.dropUse(Use{Node: n, Slot: i})
			n.ins[i] = nil
		}
	}
}

func (g *Graph) releaseAll() {
	for n := range g.Nodes() {
		n.release()
	}
	for i, o := range g.outputs {
		if o.Value != nil {
			o.Value.dropUse(Use{Graph: g, Slot: i})
			g.outputs[i].Value = nil
		}
	}
}

// Prune removes nodes without used results and constants without uses, in g and its subgraphs, and returns their number. A
// default value that nobody uses goes together with its input.
func (g *Graph) Prune() int {
	removed := 0
	for n := range g.Reverse() {
		used := len(n.outs) == 0
		for _, v := range n.outs {
			used = used || v != nil && len(v.uses) > 0
		}
		if !used {
			n.release()
			g.unlink(n)
			removed++
			continue
		}
		for _, sub := range n.Subgraphs() {
			removed += sub.Prune()
		}
	}
	keep := func(v *Value) bool { return len(v.uses) > 0 }
	before := len(g.consts)
	g.consts = slices.DeleteFunc(g.consts, func(v *Value) bool { return !keep(v) })
	g.inputs = slices.DeleteFunc(g.inputs, func(v *Value) bool { return v.data != nil && !keep(v) })
	return removed + before - len(g.consts)
}

// Intercept replaces v in the chosen uses by what via makes of it. via is called once and may insert nodes that use v.
func (g *Graph) Intercept(v *Value, uses []Use, via func(*Value) *Value) {
	w := via(v)
	for _, u := range uses {
		u.Set(w)
	}
}
