package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

// maxCallDepth bounds the nesting of function calls; deeper files are recursive.
const maxCallDepth = 64

// inline replaces every call of a model-local function in g and its subgraphs by the function's body.
func (inf *inferrer) inline(g *ir.Graph, depth int) error {
	if len(inf.model.Functions) == 0 {
		return nil
	}
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

// Inline writes the model-local functions out: every call in the main graph and its subgraphs is replaced by the body of its
// function, and the functions are dropped. It returns the number of nodes that were calls. A function of another opset than
// the model's is refused where an operator of it changed between the two.
func Inline(m *ir.Model) (calls int, err error) {
	if len(m.Functions) == 0 {
		return 0, nil
	}
	for n := range m.Nodes() {
		if m.Function(n.Op) != nil {
			calls++
		}
	}
	for _, f := range m.Functions {
		if err := sameOperators(m, f); err != nil {
			return 0, err
		}
		for domain, v := range f.Opset {
			if _, ok := m.Opset[domain]; !ok {
				m.Opset[domain] = v
			}
		}
	}
	inf := &inferrer{model: m, opset: map[*ir.Node]int{}}
	if err := inf.inline(m.Graph, 0); err != nil {
		return 0, err
	}
	for _, f := range m.Functions {
		if !usesDomain(m.Graph, f.Domain) {
			delete(m.Opset, f.Domain)
		}
	}
	m.Functions = nil
	return calls, Infer(m)
}

// sameOperators fails if an operator in the function's body means something else in the model's opset.
func sameOperators(m *ir.Model, f *ir.Function) error {
	from, ok := f.Opset[""]
	to := m.Opset[""]
	if !ok || from == to {
		return nil
	}
	check := func(g *ir.Graph) error {
		for n := range g.Nodes() {
			d, ok := Lookup(n)
			if !ok || !standard(n) {
				continue
			}
			for _, up := range d.Upgrades {
				if up.To > min(from, to) && up.To <= max(from, to) {
					return fmt.Errorf("function %s.%s is of opset %d, the model of %d, and %s changed in %d: %w",
						f.Domain, f.Name, from, to, n.Op.Type, up.To, ErrUnsupported)
				}
			}
		}
		return nil
	}
	for g := range m.Graphs() {
		top := g
		for top.Owner() != nil {
			top = top.Owner().Graph()
		}
		if top == f.Body {
			if err := check(g); err != nil {
				return err
			}
		}
	}
	return nil
}

func usesDomain(g *ir.Graph, domain string) bool {
	for n := range g.Nodes() {
		if n.Op.Domain == domain {
			return true
		}
		for _, sub := range n.Subgraphs() {
			if usesDomain(sub, domain) {
				return true
			}
		}
	}
	return false
}
