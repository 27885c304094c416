package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

// maxCallDepth bounds the nesting of function calls; deeper files are recursive.
const maxCallDepth = 64

// inline replaces every call of a model-local function in g and its subgraphs by the function's body.
func (inf *inferrer) inline(g *ir.Graph, depth int) error {
	if depth > maxCallDepth {
		return fmt.Errorf("model-local functions call each other more than %d deep", maxCallDepth)
	}
	for n := range g.Nodes() {
		for _, sub := range n.Subgraphs() {
			if err := inf.inline(sub, depth); err != nil {
				return err
			}
		}
		f := inf.model.Function(n.Op)
		if f == nil {
			continue
		}
		if err := inf.expand(n, f, depth); err != nil {
			return err
		}
	}
	return nil
}

// Inline replaces one call of a function in the model by the function's body; new names come from the call's.
func (inf *inferrer) expand(n *ir.Node, f *ir.Function, depth int) error {
	g := n.Graph()
	body, _ := f.Body.CloneInto(g.Model())
	if err := bindAttrs(body, n, f); err != nil {
		return fmt.Errorf("node %v: %w", n, err)
	}
	if n.NumIn() > len(body.Inputs()) || n.NumOut() > len(body.Outputs()) {
		return fmt.Errorf("node %v: has %d inputs and %d outputs, its function takes %d and gives %d",
			n, n.NumIn(), n.NumOut(), len(body.Inputs()), len(body.Outputs()))
	}
	if from, ok := f.Opset[""]; ok && from != g.Model().Opset[""] {
		inf.setOpset(body, from)
	}
	if err := inf.inline(body, depth+1); err != nil {
		return err
	}
	return g.Splice(n, body)
}

// setOpset notes the opset of the nodes of g and its subgraphs.
func (inf *inferrer) setOpset(g *ir.Graph, v int) {
	for n := range g.Nodes() {
		inf.opset[n] = v
		for _, sub := range n.Subgraphs() {
			inf.setOpset(sub, v)
		}
	}
}

// bindAttrs gives references to the function's attributes their values: the call's, else the function's default; a
// reference without either disappears.
func bindAttrs(g *ir.Graph, call *ir.Node, f *ir.Function) error {
	for n := range g.Nodes() {
		for _, sub := range n.Subgraphs() {
			if err := bindAttrs(sub, call, f); err != nil {
				return err
			}
		}
		for _, a := range append([]ir.Attr(nil), n.Attrs...) {
			if a.Ref == "" {
				continue
			}
			bound := call.Attr(a.Ref)
			for i := range f.Defaults {
				if bound == nil && f.Defaults[i].Name == a.Ref {
					bound = &f.Defaults[i]
				}
			}
			if bound == nil {
				n.DelAttr(a.Name)
				continue
			}
			if bound.G != nil || bound.Graphs != nil {
				return fmt.Errorf("attribute %q of function %s is a graph: %w", a.Ref, f.Name, ErrUnsupported)
			}
			b := *bound
			b.Name = a.Name
			n.SetAttr(b)
		}
	}
	return nil
}
