package passes

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
)

// undo takes back what a rewrite did, last step first.
type undo []func()

func (u *undo) then(f func()) { *u = append(*u, f) }

func (u undo) run() {
	for _, f := range slices.Backward(u) {
		f()
	}
}

// factors returns the factor of every class of a scaling by channel label; none has 1.
type factors func(label int32) float64

// apply edits the constants of a scaling: a constant that others read too is copied first. It returns how to take the edits
// back, also with an error.
func (s *scaling) apply(f factors) (undo, error) {
	var back undo
	for _, e := range s.edits {
		if err := e.apply(f, &back); err != nil {
			return back, fmt.Errorf("%v: %w", e.node, err)
		}
	}
	return back, nil
}

// constant returns the value that holds the constant which the edit changes, the nodes from it to the slot, and its channels.
func (e *paramEdit) constant() (root *ir.Value, chain []*ir.Node, err error) {
	v := e.node.In(e.slot)
	if e.site != nil {
		l := e.site.Linear
		if v, chain, _, ok := weight(v, numfmt.Axes{K: l.InAxis, Out: l.OutAxis}); ok {
			return v, chain, nil
		}
	}
	if op.ConstantOf(v) == nil {
		return nil, nil, fmt.Errorf("%q is no constant", v.Name)
	}
	return v, nil, nil
}

// apply multiplies or divides the constant's elements by their factors.
func (e *paramEdit) apply(f factors, back *undo) error {
	v, chain, err := e.constant()
	if err != nil {
		return err
	}
	old := op.ConstantOf(v)
	x, ok := old.Float32s()
	if !ok {
		return fmt.Errorf("constant %q has type %v", v.Name, old.Elem())
	}
	shape := old.Shape()
	if len(shape) != len(e.ch.period) {
		return fmt.Errorf("constant %q has shape %v, its channels are laid over %d axes", v.Name, shape, len(e.ch.period))
	}
	y := make([]float32, len(x))
	same := true
	i := 0
	build(slices.Clone(shape), func(idx []int) int32 {
		k := 1.0
		if l := e.ch.at(idx); l != none {
			k = f(l)
		}
		if e.divide {
			y[i] = float32(float64(x[i]) / k)
		} else {
			y[i] = float32(float64(x[i]) * k)
		}
		same = same && y[i] == x[i]
		i++
		return none
	})
	if same {
		return nil
	}
	t, err := tensorAs(old.Elem(), y, shape)
	if err != nil {
		return err
	}
	replaceConst(e.node, e.slot, v, chain, t, back)
	return nil
}

// replaceConst makes input i of a node read tensor t in place of the constant v, which the nodes of chain lead to it. Where
// others read v or the chain, both are copied.
func replaceConst(n *ir.Node, i int, v *ir.Value, chain []*ir.Node, t *ir.Tensor, back *undo) {
	alone := v.Const() != nil && v.NumUses() == 1 && !v.IsInput() && v.Graph() == n.Graph()
	for _, k := range chain {
		alone = alone && k.Out(0).NumUses() == 1
	}
	if alone {
		old := v.Const()
		v.SetConst(t)
		back.then(func() { v.SetConst(old) })
		return
	}
	g := n.Graph()
	was := n.In(i)
	fresh := g.Const(v.Name, t)
	for _, k := range chain {
		ins := k.Ins()
		ins[0] = fresh
		c := g.Insert(n, k.Name, k.Op, ins, []string{k.Out(0).Name}, k.Attrs...)
		c.Out(0).Type = k.Out(0).Type
		fresh = c.Out(0)
	}
	n.SetIn(i, fresh)
	back.then(func() { n.SetIn(i, was) }) // what nobody reads any more goes with Prune
}

// insertMul makes the given uses of v read v times a constant vector along an axis.
func insertMul(v *ir.Value, axis int, by []float64, uses []ir.Use, pass string, back *undo) error {
	rank := v.Type.Rank()
	if rank < 0 {
		return fmt.Errorf("the rank of %q is unknown", v.Name)
	}
	x := make([]float32, len(by))
	for i, f := range by {
		x[i] = float32(f)
	}
	shape := ones(rank - axis)
	shape[0] = len(x)
	t, err := tensorAs(v.Type.Elem, x, shape)
	if err != nil {
		return err
	}
	g := v.Graph()
	var before *ir.Node
	order := nodeOrder(g.Model())
	for _, u := range uses {
		if before == nil || order[u.Node] < order[before] {
			before = u.Node
		}
	}
	n, err := op.Insert(g, before, v.Name+"_scaled", ir.Op("Mul"), []*ir.Value{v, g.Const(v.Name+"_inv_scale", t)}, []string{v.Name + "_scaled"})
	if err != nil {
		return err
	}
	n.Origin = pass + ":" + v.Name
	back.then(func() {
		if err := g.Remove(n); err != nil {
			panic("BUG: passes: " + err.Error())
		}
	})
	for _, u := range uses {
		u.Set(n.Out(0))
		back.then(func() { u.Set(v) })
	}
	return nil
}

// extract returns a model of its own that computes the results of some nodes of a graph, those between them included. What
// the nodes read from outside becomes an input of the same name, constants come along.
func extract(nodes []*ir.Node, want []*ir.Value) *ir.Model {
	src := nodes[0].Graph().Model()
	order := nodeOrder(src)
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b *ir.Node) int { return order[a] - order[b] })
	m := ir.NewModel(src.Opset[""])
	for d, v := range src.Opset {
		m.Opset[d] = v
	}
	m.IRVersion = src.IRVersion
	g := m.Graph
	at := map[*ir.Value]*ir.Value{}
	read := func(v *ir.Value) *ir.Value {
		if v == nil || at[v] != nil {
			return at[v]
		}
		if t := op.ConstantOf(v); t != nil {
			at[v] = g.AddConst(v.Name, t)
		} else {
			at[v] = g.AddInput(v.Name, v.Type)
		}
		return at[v]
	}
	for _, n := range nodes {
		ins := n.Ins()
		for i, v := range ins {
			ins[i] = read(v)
		}
		outs := make([]string, n.NumOut())
		for i, v := range n.Outs() {
			if v != nil {
				outs[i] = v.Name
			}
		}
		k := g.Place(nil, n.Name, n.Op, ins, outs, n.Attrs...)
		for i, v := range n.Outs() {
			if v != nil {
				at[v] = k.Out(i)
			}
		}
	}
	for _, v := range want {
		g.AddOutput(v.Name, at[v])
	}
	return m
}

// boundary returns the values that nodes read from outside, constants apart.
func boundary(nodes []*ir.Node) []*ir.Value {
	inside := map[*ir.Node]bool{}
	for _, n := range nodes {
		inside[n] = true
	}
	var vs []*ir.Value
	for _, n := range nodes {
		for _, v := range n.Ins() {
			if v != nil && op.ConstantOf(v) == nil && !inside[v.DefNode()] && !slices.Contains(vs, v) {
				vs = append(vs, v)
			}
		}
	}
	return vs
}

// withWeights adds the nodes that lie between the constants and the nodes that read them.
func withWeights(nodes []*ir.Node) []*ir.Node {
	all := slices.Clone(nodes)
	for _, n := range nodes {
		for _, v := range n.Ins() {
			if v == nil || v.Type.Rank() < 0 {
				continue
			}
			_, chain, _, ok := weight(v, numfmt.Axes{K: numfmt.NoAxis, Out: numfmt.NoAxis})
			for _, k := range chain {
				if ok && !slices.Contains(all, k) {
					all = append(all, k)
				}
			}
		}
	}
	return all
}

// tolerance is how far a rewritten value may be from the original, as a share of the original's largest magnitude: 1e-4
// (METHODS.md §5), and four last places of a narrower type, in which weights are stored.
func tolerance(e ir.DType) float64 {
	switch e {
	case ir.Float16:
		return 1e-4 + 4.0/2048
	case ir.BFloat16:
		return 1e-4 + 4.0/256
	}
	return 1e-4
}

// proof is a check of a rewrite: a part of the model run on recorded values before and after.
type proof struct {
	want  []*ir.Value
	feed  ir.Tensors
	wants ir.Tensors
	opts  runtime.Options
}

// newProof runs the nodes as they are on what was recorded of one sample.
func newProof(ctx context.Context, nodes []*ir.Node, want []*ir.Value, seen map[*ir.Value]*ir.Tensor, o runtime.Options) (*proof, error) {
	p := &proof{want: want, feed: ir.Tensors{}, opts: o}
	for _, v := range boundary(withWeights(nodes)) {
		if seen[v] == nil {
			return nil, fmt.Errorf("%q was not computed on the sample", v.Name)
		}
		p.feed[v.Name] = seen[v]
	}
	var err error
	p.wants, err = p.run(ctx, nodes)
	return p, err
}

func (p *proof) run(ctx context.Context, nodes []*ir.Node) (ir.Tensors, error) {
	prog, err := runtime.CompileWith(ctx, extract(withWeights(nodes), p.want), p.opts)
	if err != nil {
		return nil, err
	}
	return prog.Run(ctx, p.feed)
}

// check runs the nodes as they are now and compares with what they gave before.
func (p *proof) check(ctx context.Context, nodes []*ir.Node) error {
	got, err := p.run(ctx, nodes)
	if err != nil {
		return err
	}
	for _, v := range p.want {
		a, _ := p.wants[v.Name].Float32s()
		b, _ := got[v.Name].Float32s()
		if len(a) != len(b) {
			return fmt.Errorf("%q has %d elements in place of %d", v.Name, len(b), len(a))
		}
		var most, diff float64
		for i := range a {
			most = max(most, math.Abs(float64(a[i])))
			if d := math.Abs(float64(a[i]) - float64(b[i])); d > diff || d != d {
				diff = d
			}
		}
		if tol := tolerance(v.Type.Elem); !(diff <= tol*most) {
			return fmt.Errorf("%q would differ by %.3g of its largest magnitude, more than %.0e", v.Name, diff/most, tol)
		}
	}
	return nil
}

// absorbers names what takes the factors of a scaling: norms, columns of weights, other constants.
func (s *scaling) absorbers() string {
	var names []string
	add := func(format string, args ...any) {
		if t := fmt.Sprintf(format, args...); !slices.Contains(names, t) {
			names = append(names, t)
		}
	}
	for _, e := range s.edits {
		switch norm := s.w.affine[e.node]; {
		case !e.divide:
		case norm != nil:
			add("%v %s", norm.Kind, called(norm.Core))
		case s.w.linear[e.node] != nil:
			add("columns of %q", s.w.linear[e.node].Name)
		default:
			add("constant of %s", called(e.node))
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// current returns the contents of a linear site's weight constant as it is now, with its shape and axes.
func (s *Site) current() (x []float32, shape []int, axes numfmt.Axes, err error) {
	l := s.Linear
	root, _, axes, ok := weight(s.Node.In(l.W), numfmt.Axes{K: l.InAxis, Out: l.OutAxis})
	if !ok {
		return nil, nil, axes, fmt.Errorf("%v has no constant weight", s.Node)
	}
	t := op.ConstantOf(root)
	if x, ok = t.Float32s(); !ok {
		return nil, nil, axes, fmt.Errorf("weight %q has type %v", root.Name, t.Elem())
	}
	return x, t.Shape(), axes, nil
}
