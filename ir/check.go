package ir

import (
	"errors"
	"fmt"
)

// Check reports every violation of the IR's invariants, joined: links mirrored, one producer a value, topological order,
// unique value names (nodes may share a name: files do, and nothing is looked up by it), no use of removed nodes, constants agreeing with their types, captures from enclosing graphs only. It never
// panics.
func Check(m *Model) error {
	if m.Graph == nil {
		return errors.New("model has no graph")
	}
	c := &checker{uses: map[*Value]map[Use]int{}}
	c.graph(m.Graph, nil)
	for _, f := range m.Functions {
		c.where = fmt.Sprintf("function %s.%s: ", f.Domain, f.Name)
		c.graph(f.Body, nil)
	}
	return errors.Join(c.errs...)
}

type scope struct {
	outer   *scope
	names   map[string]*Value
	defined map[*Value]bool
}

func (s *scope) lookup(name string) *Value {
	for ; s != nil; s = s.outer {
		if v := s.names[name]; v != nil {
			return v
		}
	}
	return nil
}

func (s *scope) has(v *Value) bool {
	for ; s != nil; s = s.outer {
		if s.defined[v] {
			return true
		}
	}
	return false
}

type checker struct {
	where string
	errs  []error
	uses  map[*Value]map[Use]int
}

func (c *checker) errorf(format string, args ...any) {
	if len(c.errs) < 50 {
		c.errs = append(c.errs, errors.New(c.where+fmt.Sprintf(format, args...)))
	}
}

// define enters a value that producer (nil: none) or the graph itself, as what, defines.
func (c *checker) define(s *scope, g *Graph, v *Value, what string, producer *Node) {
	name := func() string {
		if producer != nil {
			return fmt.Sprintf("output of node %v,", producer)
		}
		return what
	}
	if v.graph != g {
		c.errorf("%s %q belongs to another graph", name(), v.Name)
	}
	if v.Name == "" {
		c.errorf("%s without a name in graph %q", name(), g.Name)
	} else if old := s.lookup(v.Name); old != nil {
		c.errorf("%s %q: the name is already that of another value", name(), v.Name)
	}
	s.names[v.Name] = v
	s.defined[v] = true
	if v.data != nil && !(v.Type.Elem == v.data.elem && v.Type.has(v.data.shape)) {
		if _, err := Merge(v.Type, v.data.Type()); err != nil && (v.Type.Elem != v.data.Elem() || !v.input) {
			c.errorf("constant %q: declared type and data disagree: %v", v.Name, err)
		}
	}
}

func (c *checker) graph(g *Graph, outer *scope) {
	size := len(g.inputs) + len(g.consts) + g.count // about
	s := &scope{outer, make(map[string]*Value, size), make(map[*Value]bool, size)}
	for _, v := range g.inputs {
		c.define(s, g, v, "input", nil)
	}
	for _, v := range g.consts {
		if !v.input {
			c.define(s, g, v, "constant", nil)
		}
		if v.data == nil {
			c.errorf("constant %q has no data", v.Name)
		}
	}
	count := 0
	var prev *Node
	for n := g.first; n != nil; n = n.next {
		if count++; count > g.count {
			c.errorf("graph %q: node list is longer than its count %d", g.Name, g.count)
			return
		}
		if n.graph != g || n.prev != prev {
			c.errorf("node %v: its links do not mirror its neighbours'", n)
		}
		prev = n
		c.node(n, s)
	}
	for i, o := range g.outputs {
		if o.Value == nil {
			c.errorf("output %q of graph %q has no value", o.Name, g.Name)
			continue
		}
		if !s.has(o.Value) {
			c.errorf("output %q: value %q is not defined in its graph", o.Name, o.Value.Name)
		}
		if w := s.lookup(o.Name); w != nil && w != o.Value {
			c.errorf("output %q: another value than its own has that name", o.Name)
		}
		c.mirrored(o.Value, Use{Graph: g, Slot: i}, func() string { return fmt.Sprintf("output %q", o.Name) })
	}
	for v := range g.Values() {
		for _, u := range v.uses {
			if u.Node != nil && (u.Node.graph == nil || u.Node.In(u.Slot) != v) {
				c.errorf("value %q: its use list names node %v, which does not use it", v.Name, u.Node)
			}
			if u.Node == nil && (u.Slot >= len(u.Graph.outputs) || u.Graph.outputs[u.Slot].Value != v) {
				c.errorf("value %q: its use list names an output slot that it does not fill", v.Name)
			}
		}
	}
}

func (c *checker) node(n *Node, s *scope) {
	if n.Op.Type == "" {
		c.errorf("node %q has no operator", n.Name)
	}
	who := func() string { return fmt.Sprintf("node %v", n) }
	for i, v := range n.ins {
		if v == nil {
			continue
		}
		if !s.has(v) {
			c.errorf("node %v: input %d, %q, is not defined before it", n, i, v.Name)
		}
		c.mirrored(v, Use{Node: n, Slot: i}, who)
	}
	for i := range n.Attrs {
		if a := &n.Attrs[i]; n.Attr(a.Name) != a {
			c.errorf("node %v: attribute %q appears twice", n, a.Name)
		}
	}
	for _, sub := range n.Subgraphs() {
		if sub.owner != n {
			c.errorf("node %v: subgraph %q does not know its owner", n, sub.Name)
		}
		c.graph(sub, s)
	}
	for i, v := range n.outs {
		if v == nil {
			continue
		}
		if v.def != n || v.index != i {
			c.errorf("node %v: output %d, %q, does not know its producer", n, i, v.Name)
		}
		c.define(s, n.graph, v, "", n)
	}
}

func (c *checker) mirrored(v *Value, u Use, who func() string) {
	if k := c.listed(v, mirror(u)); k != 1 {
		c.errorf("%s uses %q, whose use list has %d such entries", who(), v.Name, k)
	}
}

// fewUses is the length up to which going through a use list costs less than a table of it.
const fewUses = 8

// listed counts the entries of a value's use list that are u. There can be very many: a table of a long list is made once.
func (c *checker) listed(v *Value, u Use) int {
	if len(v.uses) <= fewUses {
		k := 0
		for _, w := range v.uses {
			if mirror(w) == u {
				k++
			}
		}
		return k
	}
	counts := c.uses[v]
	if counts == nil {
		counts = make(map[Use]int, len(v.uses))
		for _, w := range v.uses {
			counts[mirror(w)]++
		}
		c.uses[v] = counts
	}
	return counts[u]
}

// mirror leaves of a use what identifies it.
func mirror(u Use) Use {
	if u.Node != nil {
		u.Graph = nil
	}
	return u
}
