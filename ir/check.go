package ir

import (
	"errors"
	"fmt"
)

// Check reports every violation of the IR's invariants, joined: links mirrored, one producer a value, topological order,
// unique value names (nodes may share a name: files do, and nothing is looked up by it), no use of removed nodes, constants agreeing with their types, captures from enclosing graphs only. It never
// panics.
func Check(m *Model) error {
	c := &checker{uses: map[*Value]map[Use]int{}}
	if m.Graph == nil {
		return errors.New("model has no graph")
	}
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

func (c *checker) define(s *scope, g *Graph, v *Value, what string) {
	if v.graph != g {
		c.errorf("%s %q belongs to another graph", what, v.Name)
	}
	if v.Name == "" {
		c.errorf("%s without a name in graph %q", what, g.Name)
	} else if old := s.lookup(v.Name); old != nil {
		c.errorf("%s %q: the name is already that of another value", what, v.Name)
	}
	s.names[v.Name] = v
	s.defined[v] = true
	if v.data != nil {
		if _, err := Merge(v.Type, v.data.Type()); err != nil && (v.Type.Elem != v.data.Elem() || !v.input) {
			c.errorf("constant %q: declared type and data disagree: %v", v.Name, err)
		}
	}
}

func (c *checker) graph(g *Graph, outer *scope) {
	s := &scope{outer, map[string]*Value{}, map[*Value]bool{}}
	for _, v := range g.inputs {
		c.define(s, g, v, "input")
	}
	for _, v := range g.consts {
		if !v.input {
			c.define(s, g, v, "constant")
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
		c.mirrored(o.Value, Use{Graph: g, Slot: i}, fmt.Sprintf("output %q", o.Name))
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
	for i, v := range n.ins {
		if v == nil {
			continue
		}
		if !s.has(v) {
			c.errorf("node %v: input %d, %q, is not defined before it", n, i, v.Name)
		}
		c.mirrored(v, Use{Node: n, Slot: i}, fmt.Sprintf("node %v", n))
	}
	seen := map[string]bool{}
	for i := range n.Attrs {
		a := &n.Attrs[i]
		if seen[a.Name] {
			c.errorf("node %v: attribute %q appears twice", n, a.Name)
		}
		seen[a.Name] = true
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
		c.define(s, n.graph, v, fmt.Sprintf("output of node %v,", n))
	}
}

func (c *checker) mirrored(v *Value, u Use, who string) {
	if k := c.listed(v)[mirror(u)]; k != 1 {
		c.errorf("%s uses %q, whose use list has %d such entries", who, v.Name, k)
	}
}

// listed counts the entries of a value's use list, once for each value: there can be very many.
func (c *checker) listed(v *Value) map[Use]int {
	counts := c.uses[v]
	if counts == nil {
		counts = make(map[Use]int, len(v.uses))
		for _, u := range v.uses {
			counts[mirror(u)]++
		}
		c.uses[v] = counts
	}
	return counts
}

// mirror leaves of a use what identifies it.
func mirror(u Use) Use {
	if u.Node != nil {
		u.Graph = nil
	}
	return u
}
