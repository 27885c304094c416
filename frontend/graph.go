package frontend

import (
	"container/heap"
	"errors"
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

// scope maps the names visible in a graph to values.
type scope struct {
	outer  *scope
	values map[string]*ir.Value
}

func (s *scope) lookup(name string) *ir.Value {
	for ; s != nil; s = s.outer {
		if v := s.values[name]; v != nil {
			return v
		}
	}
	return nil
}

func (s *scope) define(v *ir.Value, what func() string) error {
	if v.Name == "" {
		return fmt.Errorf("%s without a name", what())
	}
	if old := s.values[v.Name]; old != nil {
		return fmt.Errorf("%s %q: the name is already that of %s", what(), v.Name, origin(old))
	}
	s.values[v.Name] = v
	return nil
}

// origin says in words where a value comes from.
func origin(v *ir.Value) string {
	switch n := v.DefNode(); {
	case n != nil:
		return fmt.Sprintf("an output of node %v", n)
	case v.IsInput():
		return "an input"
	}
	return "an initializer"
}

// connect fills g with the contents of raw.
func (d *decoder) connect(g *ir.Graph, raw *rawGraph, outer *scope) error {
	s := &scope{outer, make(map[string]*ir.Value, len(raw.inputs)+len(raw.inits)+len(raw.nodes))} // about
	g.Doc, g.Meta, g.Opaque, g.Sparse = raw.doc, raw.meta, raw.opaque, raw.sparse
	for _, in := range raw.inputs {
		v := g.AddInput(in.name, in.typ)
		v.Decl, v.Doc, v.Meta, v.Opaque = in.typ, in.doc, in.meta, in.opaque
		if err := s.define(v, func() string { return "input" }); err != nil {
			return err
		}
	}
	for _, c := range raw.inits {
		if err := addConst(s, g, c.name, c.t); err != nil {
			return err
		}
	}
	for _, c := range raw.sparse {
		if err := addConst(s, g, c.Name, c.Dense); err != nil {
			return err
		}
	}
	infos := make(map[string]*described, len(raw.infos))
	for _, v := range raw.infos {
		if infos[v.name] == nil {
			infos[v.name] = v
		}
	}
	declare := func(v *ir.Value) error {
		info := infos[v.Name]
		if info == nil || info.used || v.Decl.Known() {
			return nil
		}
		info.used = true
		v.Decl, v.Doc, v.Meta, v.Opaque = info.typ, info.doc, info.meta, info.opaque
		typ, err := ir.Merge(v.Type, info.typ)
		if err != nil {
			return fmt.Errorf("value %q: declared as %v, is %v: %w", v.Name, info.typ, v.Type, err)
		}
		v.Type = typ
		return nil
	}
	for v := range g.Values() { // constants, and the inputs of functions
		if err := declare(v); err != nil {
			return err
		}
	}
	order, err := raw.order()
	if err != nil {
		return err
	}
	for _, n := range order {
		if err := d.place(g, s, n, declare); err != nil {
			return err
		}
	}
	for i, o := range raw.outputs {
		v := s.lookup(o.name)
		if v == nil {
			return fmt.Errorf("output %d, %q, is not defined: no input, initializer or node output has that name", i, o.name)
		}
		g.AddOutput(o.name, v)
		g.DeclareOutput(i, o.typ, o.doc, o.meta)
		g.Outputs()[i].Opaque = o.opaque
		if v.Graph() != g {
			continue
		}
		if typ, err := ir.Merge(v.Type, o.typ); err == nil {
			v.Type = typ
		} else if v.DefNode() != nil {
			return fmt.Errorf("output %q: declared as %v, is %v: %w", o.name, o.typ, v.Type, err)
		}
	}
	for _, v := range raw.infos {
		if !v.used { // it describes nothing of this graph, or something described already
			g.Opaque = append(g.Opaque, v.wire...)
		}
	}
	return nil
}

func addConst(s *scope, g *ir.Graph, name string, t *ir.Tensor) error {
	if v := s.values[name]; v != nil && v.IsInput() && v.Const() == nil {
		g.AddConst(name, t)
		return nil
	}
	return s.define(g.AddConst(name, t), func() string { return "initializer" })
}

// place adds a node at the end of g.
func (d *decoder) place(g *ir.Graph, s *scope, raw *rawNode, declare func(*ir.Value) error) error {
	if raw.op.Type == "" {
		return fmt.Errorf("node %q has no operator", raw.name)
	}
	ins := make([]*ir.Value, len(raw.ins))
	for i, name := range raw.ins {
		if name == "" {
			continue
		}
		if ins[i] = s.lookup(name); ins[i] == nil {
			return fmt.Errorf("node %v: input %d, %q, is not defined: no input, initializer or node output has that name", raw, i, name)
		}
	}
	for i, graphs := range raw.graphs {
		a := &raw.attrs[i]
		for j, body := range graphs {
			sub := ir.NewGraph(g.Model(), body.name)
			if err := d.connect(sub, body, s); err != nil {
				return fmt.Errorf("node %v: attribute %q: graph %q: %w", raw, a.Name, body.name, err)
			}
			if a.Kind == ir.AttrGraph && j == 0 {
				a.G = sub
			} else {
				a.Graphs = append(a.Graphs, sub)
			}
		}
	}
	n := g.Place(nil, raw.name, raw.op, ins, raw.outs, raw.attrs...)
	n.Doc, n.Meta, n.Origin, n.Opaque = raw.doc, raw.meta, raw.origin, raw.opaque
	for i, v := range n.Outs() {
		if v == nil {
			continue
		}
		if err := s.define(v, func() string { return fmt.Sprintf("node %v: output %d,", n, i) }); err != nil {
			return err
		}
		if err := declare(v); err != nil {
			return err
		}
	}
	return nil
}

// order returns the nodes sorted topologically: of the nodes that may come next always the one the file has first, so that a
// sorted file keeps its order.
func (g *rawGraph) order() ([]*rawNode, error) {
	producer := make(map[string]int, len(g.nodes))
	for i, n := range g.nodes {
		for k, o := range n.outs {
			if o == "" {
				continue
			}
			if j, ok := producer[o]; ok {
				return nil, fmt.Errorf("node %v: output %d, %q, is already an output of node %v", n, k, o, g.nodes[j])
			}
			producer[o] = i
		}
	}
	sorted := true
	for i, n := range g.nodes {
		n.reads(func(name string) {
			j, ok := producer[name]
			sorted = sorted && !(ok && j >= i)
		})
	}
	if sorted {
		return g.nodes, nil
	}
	waits := make([]int, len(g.nodes)) // inputs of each node still to be produced
	users := make([][]int, len(g.nodes))
	for i, n := range g.nodes {
		n.reads(func(name string) {
			if j, ok := producer[name]; ok {
				waits[i]++
				users[j] = append(users[j], i)
			}
		})
	}
	ready := &intHeap{}
	for i, k := range waits {
		if k == 0 {
			*ready = append(*ready, i)
		}
	}
	out := make([]*rawNode, 0, len(g.nodes))
	for ready.Len() > 0 {
		i := heap.Pop(ready).(int)
		out = append(out, g.nodes[i])
		for _, j := range users[i] {
			if waits[j]--; waits[j] == 0 {
				heap.Push(ready, j)
			}
		}
	}
	if len(out) < len(g.nodes) {
		return nil, g.cycle(producer, waits)
	}
	return out, nil
}

// cycle names the nodes of a cycle: walking back from a waiting node through nodes that wait leads into one.
func (g *rawGraph) cycle(producer map[string]int, waits []int) error {
	at := 0
	for waits[at] == 0 {
		at++
	}
	seen := map[int]bool{}
	for !seen[at] {
		seen[at] = true
		next := at
		g.nodes[at].reads(func(name string) {
			if j, ok := producer[name]; ok && waits[j] > 0 {
				next = j
			}
		})
		at = next
	}
	return errors.New("the nodes form a cycle through node " + g.nodes[at].String())
}

// intHeap is a heap of node numbers, smallest first.
type intHeap []int

func (h intHeap) Len() int           { return len(h) }
func (h intHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h intHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *intHeap) Push(x any)        { *h = append(*h, x.(int)) }
func (h *intHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}
