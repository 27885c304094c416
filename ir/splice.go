package ir

import (
	"fmt"
	"slices"
)

// Splice replaces node n by the contents of body, a graph of the same model that nothing else holds: body's inputs become
// n's inputs, its outputs n's outputs (whose values keep their names where body computes them), its inner values and nodes
// get fresh names. body is empty afterwards.
func (g *Graph) Splice(n *Node, body *Graph) error {
	if n.graph != g {
		return fmt.Errorf("node %q: not a node of this graph", n.Name)
	}
	if len(n.ins) > len(body.inputs) || len(n.outs) > len(body.outputs) {
		return fmt.Errorf("node %v: %d inputs and %d outputs do not fit a graph with %d and %d", n, len(n.ins), len(n.outs), len(body.inputs), len(body.outputs))
	}
	for i, v := range body.inputs {
		for _, u := range v.Uses() {
			if w := n.In(i); w != nil || u.Node != nil {
				u.Set(w)
			} else {
				return fmt.Errorf("node %v: output %d of the graph is its absent input %q", n, u.Slot, v.Name)
			}
		}
	}
	for _, c := range body.consts {
		c.graph = g
		c.Rename(n.Name + "_" + c.Name)
		g.consts = append(g.consts, c)
	}
	body.consts = nil
	outs := body.outputs
	body.outputs = nil
	for i, o := range outs {
		o.Value.dropUse(Use{Graph: body, Slot: i})
	}
	moved := []*Node{}
	for k := range body.Nodes() {
		moved = append(moved, k)
	}
	for _, k := range moved {
		body.unlink(k)
		g.link(k, n)
		k.Name = g.model.FreshNode(n.Name + "/" + k.Name)
		for i := range k.ins {
			if v := k.ins[i]; v != nil {
				for j := range v.uses {
					if v.uses[j].Node == k {
						v.uses[j].Graph = g
					}
				}
			}
		}
		for _, v := range k.outs {
			if v != nil {
				v.graph = g
				v.Rename(n.Name + "_" + v.Name)
			}
		}
	}
	for i, v := range n.outs {
		if v == nil {
			continue
		}
		w := outs[i].Value
		if w.def != nil && w.graph == g && w.Type.Kind == v.Type.Kind && !takenBefore(outs[:i], w) && isOneOf(moved, w.def) {
			w.ReplaceUses(v) // inner users of the body's result
			def, at := w.def, w.index
			def.outs[at] = nil
			def.TakeOut(at, v)
			continue
		}
		id := g.Insert(n, n.Name+"_out", Op("Identity"), []*Value{w}, nil)
		id.TakeOut(0, v)
	}
	return g.Remove(n)
}

func takenBefore(outs []Output, v *Value) bool {
	return slices.ContainsFunc(outs, func(o Output) bool { return o.Value == v })
}

func isOneOf(nodes []*Node, n *Node) bool { return slices.Contains(nodes, n) }
