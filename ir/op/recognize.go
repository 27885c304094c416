package op

import (
	"bytes"
	"slices"
	"strings"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
)

const inputRole = numfmt.Input

// Recognize turns the operators of simulations back into FakeQuant nodes, which run as one kernel. A node whose description
// says that a simulation ends there counts only if the operators before it are exactly those that Simulation emits: what a
// file says of itself is not trusted. The model is in canonical form and keeps its values' meaning. Intermediate results that
// nothing else reads disappear.
func Recognize(m *ir.Model) {
	r := &recognizer{made: map[string]*ir.Graph{}}
	for g := range m.Graphs() {
		for n := range g.Nodes() {
			if s, ok := readSimulation(n); ok {
				r.replace(n, s)
			}
		}
	}
}

type recognizer struct{ made map[string]*ir.Graph }

// readSimulation parses what Simulation.text wrote.
func readSimulation(n *ir.Node) (*Simulation, bool) {
	text, ok := strings.CutPrefix(n.Doc, saysQuantized)
	if !ok || n.NumOut() != 1 {
		return nil, false
	}
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return nil, false
	}
	scheme, err := numfmt.ParseScheme(fields[0], inputRole)
	if err != nil {
		return nil, false
	}
	s := &Simulation{FakeQuant: FakeQuant{Scheme: scheme, Axes: numfmt.Axes{K: numfmt.NoAxis, Out: numfmt.NoAxis}}, Opset: Canonical}
	for key, set := range map[string]func(float64){
		"rank": func(v float64) { s.Rank = int(v) }, "length": func(v float64) { s.Length = int(v) },
		"native": func(v float64) { s.Native = numfmt.Elem(v) }, "factor": func(v float64) { s.Factor = float32(v) },
	} {
		v, err := numberField(fields[1:], key, 0)
		if err != nil || v < -1 || v > 1<<31 {
			return nil, false
		}
		set(v)
	}
	axis, err := numberField(fields[1:], "axis", -1)
	if err != nil || axis < -1 || axis > 64 || s.Rank > 64 {
		return nil, false
	}
	if axis >= 0 {
		s.Axes.K, s.Axes.Out = int(axis), int(axis)
	}
	return s, s.Check() == nil
}

// replace puts a FakeQuant node in the place of the simulation that ends at n, if it is one.
func (r *recognizer) replace(n *ir.Node, s *Simulation) {
	key := s.text()
	want, ok := r.made[key]
	if !ok {
		m := ir.NewModel(Canonical)
		if f, err := s.Function(m, "want"); err == nil {
			want = f.Body
		}
		r.made[key] = want
	}
	if want == nil {
		return
	}
	u := &unifier{inputs: want.Inputs(), bound: make([]*ir.Value, len(want.Inputs())), seen: map[*ir.Value]*ir.Value{}}
	if !u.value(want.Outputs()[0].Value, n.Out(0)) || slices.Contains(u.bound, nil) {
		return
	}
	g := n.Graph()
	if u.bound[0].Type.Elem != ir.Float32 {
		return
	}
	g.Model().Opset[Domain] = 1
	k := g.Place(n, n.Name, FakeQuantOp, u.bound, nil, s.Attrs()...)
	k.TakeOut(0, n.Out(0))
	u.drop(n)
}

// unifier matches values of the expected computation with those found.
type unifier struct {
	inputs, bound []*ir.Value
	seen          map[*ir.Value]*ir.Value
}

func (u *unifier) value(want, got *ir.Value) bool {
	if want == nil || got == nil {
		return want == got
	}
	if v, ok := u.seen[want]; ok {
		return v == got || sameConstant(ConstantOf(v), ConstantOf(got))
	}
	u.seen[want] = got
	if i := slices.Index(u.inputs, want); i >= 0 {
		u.bound[i] = got
		return true
	}
	if t := ConstantOf(want); t != nil {
		return sameConstant(t, ConstantOf(got))
	}
	a, b := want.DefNode(), got.DefNode()
	if a == nil || b == nil || a.Op != b.Op || a.NumIn() != b.NumIn() || b.NumOut() != 1 || !sameAttrs(a, b) {
		return false
	}
	for i := range a.NumIn() {
		if !u.value(a.In(i), b.In(i)) {
			return false
		}
	}
	return true
}

func sameConstant(a, b *ir.Tensor) bool {
	if a == nil || b == nil || a.Elem() != b.Elem() || !slices.Equal(a.Shape(), b.Shape()) {
		return false
	}
	return a.Load() == nil && b.Load() == nil && bytes.Equal(a.Bytes(), b.Bytes())
}

// sameAttrs compares the attributes that simulations use.
func sameAttrs(a, b *ir.Node) bool {
	if len(a.Attrs) != len(b.Attrs) {
		return false
	}
	for i := range a.Attrs {
		x, y := &a.Attrs[i], b.Attr(a.Attrs[i].Name)
		if y == nil || x.Kind != y.Kind || x.I != y.I || !slices.Equal(x.Ints, y.Ints) || x.T != nil && !sameConstant(x.T, y.T) {
			return false
		}
	}
	return true
}

// drop removes a node without users and what only it used, up to the bound inputs.
func (u *unifier) drop(n *ir.Node) {
	for i := range n.NumOut() {
		if v := n.Out(i); v != nil && v.NumUses() > 0 {
			return
		}
	}
	ins := n.Ins()
	if n.Graph().Remove(n) != nil {
		return
	}
	for _, v := range ins {
		if v != nil && v.DefNode() != nil && v.DefNode().Graph() != nil && !slices.Contains(u.bound, v) && v.NumUses() == 0 {
			u.drop(v.DefNode())
		}
	}
}
