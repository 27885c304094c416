package ir

import (
	"maps"
	"slices"
)

// Mapping leads from the values and nodes of a model to those of its clone.
type Mapping struct {
	Values map[*Value]*Value
	Nodes  map[*Node]*Node
	Graphs map[*Graph]*Graph
}

// Clone returns a copy of the model that shares only tensors, and the way from each value, node and graph to its copy.
func (m *Model) Clone() (*Model, *Mapping) {
	c := *m
	c.Opset = maps.Clone(m.Opset)
	c.Props = slices.Clone(m.Props)
	c.names = nameTable{values: maps.Clone(m.names.values), nodes: maps.Clone(m.names.nodes)}
	mp := &Mapping{make(map[*Value]*Value, len(m.names.values)), make(map[*Node]*Node, m.Graph.count), map[*Graph]*Graph{}}
	c.Graph = mp.graph(&c, m.Graph)
	c.Functions = nil
	for _, f := range m.Functions {
		d := *f
		d.Opset = maps.Clone(f.Opset)
		d.Attrs = slices.Clone(f.Attrs)
		d.Defaults = slices.Clone(f.Defaults)
		d.Props = slices.Clone(f.Props)
		d.Body = mp.graph(&c, f.Body)
		c.Functions = append(c.Functions, &d)
	}
	return &c, mp
}

// CloneInto copies the body of graph g into model m as a new graph; captured values map to themselves. It serves function
// inlining, where the values in outer (may be nil) stand for g's captures or inputs.
func (g *Graph) CloneInto(m *Model) (*Graph, *Mapping) {
	mp := &Mapping{map[*Value]*Value{}, map[*Node]*Node{}, map[*Graph]*Graph{}}
	return mp.graph(m, g), mp
}

func (mp *Mapping) value(v *Value) *Value {
	if v == nil {
		return nil
	}
	if w, ok := mp.Values[v]; ok {
		return w
	}
	return v // captured from outside what is being cloned
}

func (mp *Mapping) graph(m *Model, g *Graph) *Graph {
	h := &Graph{Name: g.Name, Doc: g.Doc, Meta: slices.Clone(g.Meta), Opaque: g.Opaque, Sparse: g.Sparse, model: m}
	mp.Graphs[g] = h
	r := g.links()
	def := func(v *Value) *Value {
		w := &Value{Name: v.Name, Type: v.Type.Clone(), Decl: v.Decl, Doc: v.Doc, Meta: v.Meta, Opaque: v.Opaque,
			graph: h, data: v.data, input: v.input, uses: r.takeUses(len(v.uses))}
		mp.Values[v] = w
		return w
	}
	h.inputs, h.consts = make([]*Value, 0, len(g.inputs)), make([]*Value, 0, len(g.consts))
	for _, v := range g.inputs {
		h.inputs = append(h.inputs, def(v))
	}
	for _, v := range g.consts {
		w := mp.Values[v]
		if w == nil {
			w = def(v)
		}
		h.consts = append(h.consts, w)
	}
	for n := range g.Nodes() {
		c := &Node{Name: n.Name, Op: n.Op, Doc: n.Doc, Meta: n.Meta, Origin: n.Origin, Opaque: n.Opaque}
		mp.Nodes[n] = c
		h.link(c, nil)
		c.ins = r.takeSlots(len(n.ins))
		for i, v := range n.ins {
			c.SetIn(i, mp.value(v))
		}
		c.outs = r.takeSlots(len(n.outs))
		for i, v := range n.outs {
			if v != nil {
				w := def(v)
				w.def, w.index = c, i
				c.outs[i] = w
			}
		}
		c.Attrs = slices.Clip(n.Attrs) // SetAttr and DelAttr change a list that is theirs alone
		for i := range n.Attrs {
			a := n.Attrs[i]
			if a.G == nil && a.Graphs == nil {
				continue
			}
			if a.G != nil {
				a.G = mp.graph(m, a.G)
			}
			if a.Graphs != nil {
				gs := make([]*Graph, len(a.Graphs))
				for i, s := range a.Graphs {
					gs[i] = mp.graph(m, s)
				}
				a.Graphs = gs
			}
			c.SetAttr(a)
		}
	}
	for i, o := range g.outputs {
		o.Value = mp.value(o.Value)
		h.outputs = append(h.outputs, o)
		o.Value.addUse(Use{Graph: h, Slot: i})
	}
	return h
}

// links is room for the lists of a graph's copy: many short ones, made as two.
type links struct {
	slots []*Value
	uses  []Use
}

func (g *Graph) links() *links {
	slots, uses := 0, 0
	for n := g.first; n != nil; n = n.next {
		slots += len(n.ins) + len(n.outs)
	}
	for v := range g.Values() {
		uses += len(v.uses)
	}
	return &links{make([]*Value, slots), make([]Use, uses)}
}

func (l *links) takeSlots(n int) []*Value {
	s := l.slots[:n:n]
	l.slots = l.slots[n:]
	return s
}

// takeUses returns an empty list with room for n uses.
func (l *links) takeUses(n int) []Use {
	s := l.uses[:0:n]
	l.uses = l.uses[n:]
	return s
}
