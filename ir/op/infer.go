package op

import (
	"errors"
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
)

// Infer fills in the types of all values of the model, in order. Values whose type cannot be told keep what the file
// declares; a declared shape that contradicts what is inferred gives way, as in other runtimes: real files have them. It
// fails where inputs contradict an operator or a declared element type; the types of some values are then filled in.
func Infer(m *ir.Model) error {
	_, err := InferReport(m)
	return err
}

// InferReport is Infer, and says at which nodes inference gave up (a result of unknown type or rank) or the file's
// declaration gave way.
func InferReport(m *ir.Model) (gaps []string, err error) {
	if inf := newInferrer(m, true); inf.current() {
		if err := inf.graph(m.Graph); err != nil {
			return nil, err
		}
		return inf.gaps, nil
	}
	c, err := canonicalize(m, true)
	if err != nil {
		return nil, err
	}
	for g := range m.Graphs() {
		for v := range g.Values() {
			if w := c.Map.Values[v]; w != nil {
				v.Type = w.Type
			}
		}
	}
	return c.Gaps, nil
}

// Canonical form of a model: a clone whose functions are inlined, whose operators are all of opset Canonical, and whose
// values are typed.
type CanonicalForm struct {
	Model *ir.Model
	Map   *ir.Mapping // from the original's values and nodes; values of function bodies have no counterpart
	Gaps  []string    // nodes at which inference gave up
	Known map[*ir.Value]*ir.Tensor
}

// Canonicalize returns the canonical form of a model, which is left as it is.
func Canonicalize(m *ir.Model) (*CanonicalForm, error) { return canonicalize(m, false) }

func canonicalize(m *ir.Model, lenient bool) (*CanonicalForm, error) {
	c, mp := m.Clone()
	inf := newInferrer(c, lenient)
	if err := inf.inline(c.Graph, 0); err != nil {
		return nil, err
	}
	c.Functions = nil
	if err := inf.graph(c.Graph); err != nil {
		return nil, err
	}
	c.Opset[""] = max(Canonical, c.Opset[""])
	return &CanonicalForm{Model: c, Map: mp, Gaps: inf.gaps, Known: inf.known}, nil
}

type inferrer struct {
	model *ir.Model
	known map[*ir.Value]*ir.Tensor // contents of small results computed from constants
	dims  map[*ir.Value][]ir.Dim   // contents of integer values as dimensions
	opset map[*ir.Node]int         // nodes whose opset is not the model's: from functions, or already upgraded
	gaps  []string

	lenient bool // where a declared shape contradicts what is inferred, the latter rules
}

func newInferrer(m *ir.Model, lenient bool) *inferrer {
	return &inferrer{lenient: lenient, model: m, known: map[*ir.Value]*ir.Tensor{}, dims: map[*ir.Value][]ir.Dim{}, opset: make(map[*ir.Node]int, m.Graph.Len())}
}

// current reports whether the model's nodes are as the canonical form has them: inference needs no copy that it may edit.
func (inf *inferrer) current() bool {
	if len(inf.model.Functions) > 0 {
		return false
	}
	for n := range inf.model.Nodes() {
		if standard(n) && outdated(n, inf.model.Opset[""], Canonical) {
			return false
		}
	}
	return true
}

func (inf *inferrer) value(v *ir.Value) *ir.Tensor {
	if v == nil {
		return nil
	}
	if t := v.Const(); t != nil {
		if t.Load() != nil {
			return nil
		}
		return t
	}
	return inf.known[v]
}

// graph upgrades and infers the nodes of g in order: an upgrade may lean on the types of what comes before it.
func (inf *inferrer) graph(g *ir.Graph) error {
	for n := range g.Nodes() {
		first, last := n, n
		if standard(n) {
			from, ok := inf.opset[n]
			if !ok {
				from = inf.model.Opset[""]
			}
			var err error
			if first, last, err = upgradeNode(n, from, Canonical); err != nil {
				return err
			}
		}
		for k := first; ; k = k.Next() {
			inf.opset[k] = Canonical
			if err := inf.node(k); err != nil {
				return err
			}
			if k == last {
				break
			}
		}
	}
	return nil
}

// maxKnown bounds the number of elements of results that inference computes.
const maxKnown = 1024

func (inf *inferrer) node(n *ir.Node) error {
	d, ok := Lookup(n)
	if !ok {
		inf.gap(n, "unknown operator")
		return nil
	}
	if !d.In.allows(n.NumIn()) {
		return fmt.Errorf("node %v: has %d inputs, wants %v", n, n.NumIn(), d.In)
	}
	if !d.Out.allows(n.NumOut()) {
		return fmt.Errorf("node %v: has %d outputs, wants %v", n, n.NumOut(), d.Out)
	}
	for i := range d.In.Min {
		if n.In(i) == nil && !slices.Contains(d.Optional, i) {
			return fmt.Errorf("node %v: input %d is required and absent", n, i)
		}
	}
	if d.Infer == nil {
		inf.gap(n, "no inference")
		return nil
	}
	c := &Call{Node: n, Def: d, infer: inf}
	types, err := d.Infer(c)
	if err != nil {
		return fmt.Errorf("node %v: %w", n, err)
	}
	for i := range n.NumOut() {
		v := n.Out(i)
		if v == nil || i >= len(types) {
			continue
		}
		t, err := ir.Merge(types[i], v.Type)
		if err != nil && inf.lenient && types[i].Elem == v.Type.Elem {
			inf.gap(n, fmt.Sprintf("declared shape of %s: %v", v.Name, err))
			t, err = types[i], nil
		}
		if err != nil {
			return fmt.Errorf("node %v: output %q: inferred %w", n, v.Name, err)
		}
		v.Type = t
		if t.Kind == ir.TensorKind && (t.Elem == ir.Undefined || !t.Ranked) {
			inf.gap(n, "type of "+v.Name)
		}
		if dims, ok := c.dims[i]; ok {
			inf.setDims(v, dims)
		}
		if t := c.consts[i]; t != nil {
			inf.known[v] = t
		}
	}
	inf.fold(c)
	return nil
}

// setDims notes the contents of v, and v as known if every one is a number.
func (inf *inferrer) setDims(v *ir.Value, dims []ir.Dim) {
	inf.dims[v] = dims
	n, ok := literals(dims)
	shape, fixed := v.Type.Shape()
	if !ok || !fixed || v.Type.Elem != ir.Int64 || product(shape) != len(n) {
		return
	}
	inf.known[v] = ir.FromSlice(ir.Int64, shape, n)
}

// forget drops what is noted of the values and nodes of g and its subgraphs.
func (inf *inferrer) forget(g *ir.Graph) {
	for v := range g.Values() {
		delete(inf.known, v)
		delete(inf.dims, v)
	}
	for n := range g.Nodes() {
		delete(inf.opset, n)
		for _, sub := range n.Subgraphs() {
			inf.forget(sub)
		}
	}
}

func (inf *inferrer) gap(n *ir.Node, what string) {
	if len(inf.gaps) < 100 {
		inf.gaps = append(inf.gaps, fmt.Sprintf("%v: %s", n, what))
	}
}

// fold computes the node's results if all its inputs are known and everything is small, so that shape arithmetic is exact.
func (inf *inferrer) fold(c *Call) {
	n := c.Node
	if c.Def.Eval == nil || len(n.Subgraphs()) > 0 || c.Def.Prepare != nil {
		return
	}
	for i := range n.NumOut() {
		if v := n.Out(i); v != nil {
			shape, ok := v.Type.Shape()
			if !ok || v.Type.Kind != ir.TensorKind {
				return
			}
			if k, err := ir.Numel(shape); err != nil || k > maxKnown {
				return
			}
		}
	}
	in := make([]*ir.Tensor, n.NumIn())
	for i := range in {
		if v := n.In(i); v != nil {
			if in[i] = inf.value(v); in[i] == nil || in[i].Len() > maxKnown {
				return
			}
			if k, err := ir.Extent(in[i].Shape()); err != nil || k > maxLoose {
				return
			}
		}
	}
	out, err := Evaluate(NewCall(n, c.Def, nil, nil, in))
	if err != nil {
		return // an error of evaluation is the runtime's to report, with the values at hand
	}
	for i, t := range out {
		if v := n.Out(i); v != nil && t != nil {
			inf.known[v] = t
			if v.Type.Elem == t.Elem() {
				v.Type = t.Type()
			}
		}
	}
}

// Verify checks a model after an edit: the IR's invariants, arities, and that inference agrees with the types the values
// carry.
func Verify(m *ir.Model) error {
	if err := ir.Check(m); err != nil {
		return err
	}
	_, err := Canonicalize(m)
	return err
}

// Insert inserts a node as ir.Graph.Insert does and infers the types of its results, which are named after outs.
func Insert(g *ir.Graph, before *ir.Node, name string, id ir.OpID, in []*ir.Value, outs []string, attrs ...ir.Attr) (*ir.Node, error) {
	n := g.Insert(before, name, id, in, outs, attrs...)
	if err := InferNode(n); err != nil {
		for i := range n.NumOut() {
			if v := n.Out(i); v != nil && v.NumUses() > 0 {
				panic("BUG: op: a new node's result is used")
			}
		}
		return nil, errors.Join(err, g.Remove(n))
	}
	return n, nil
}

// InferNode infers the results of one node whose form is canonical or unchanged since the model's opset.
func InferNode(n *ir.Node) error {
	inf := &inferrer{model: n.Graph().Model(), known: map[*ir.Value]*ir.Tensor{}, dims: map[*ir.Value][]ir.Dim{}, opset: map[*ir.Node]int{}}
	return inf.node(n)
}
