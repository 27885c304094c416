package passes

import (
	"iter"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/calib"
)

// Reference asks for what the outputs of the model as it came can be had from cheaply, to compare the result with. A pass that
// runs the first samples anyway keeps what the nodes read that it has no need to run, as long as the model still computes what
// it did; where none does, Rest stays nil.
type Reference struct {
	Samples int          // how many are wanted
	Rest    *ir.Model    // computes the outputs, under their names, from Feeds
	Feeds   []ir.Tensors // for each of the samples that there are
}

// Runs yields the feeds.
func (r *Reference) Runs() iter.Seq2[ir.Tensors, error] {
	return func(yield func(ir.Tensors, error) bool) {
		for _, f := range r.Feeds {
			if !yield(f, nil) {
				return
			}
		}
	}
}

// recorder is the observer of a value that the rest of the model reads. It keeps the first samples.
type recorder struct {
	u    *Unit
	kept []*ir.Tensor
}

// Passes, Ordered and Observe make it an observer.
func (k *recorder) Passes() int { return 1 }

// Ordered reports that samples may come in any order.
func (k *recorder) Ordered() bool { return false }

// Observe keeps a copy.
func (k *recorder) Observe(_, sample int, t *ir.Tensor) (err error) {
	if sample < len(k.kept) {
		k.kept[sample], err = k.u.KeepCopy(t)
	}
	return err
}

// refer returns further probes for a sweep over the first n samples of the model as it stands, which make it keep what the
// reference wants, and what is to be done behind it; none where the sweep cannot serve it.
func (u *Unit) refer(n int, probes []calib.Probe) (more []calib.Probe, done func()) {
	r := u.Reference
	if r == nil || r.Rest != nil || u.changed || r.Samples > n || len(u.Model.Functions) > 0 {
		return nil, func() {}
	}
	rest := u.rest(probes)
	if rest == nil {
		return nil, func() {}
	}
	by := map[string]*recorder{}
	for _, in := range rest.Graph.Inputs() {
		by[in.Name] = &recorder{u: u, kept: make([]*ir.Tensor, r.Samples)}
	}
	for v := range u.Model.Graph.Values() {
		if k := by[v.Name]; k != nil {
			more = append(more, calib.Probe{Value: v, Into: k, Whole: true, Spare: true})
		}
	}
	return more, func() {
		for i := range r.Samples {
			feed := ir.Tensors{}
			for name, k := range by {
				if k.kept[i] != nil {
					feed[name] = k.kept[i]
				}
			}
			if len(feed) < len(by) {
				break
			}
			r.Feeds = append(r.Feeds, feed)
		}
		if r.Feeds != nil {
			r.Rest = rest
		}
	}
}

// rest is the part of the model that computes its outputs and that no probed value depends on, with what is constant: its inputs
// are what it reads beyond. It is nil where there is no such part, or one with subgraphs.
func (u *Unit) rest(probes []calib.Probe) *ir.Model {
	g := u.Model.Graph
	need, owners, want := map[*ir.Value]bool{}, map[*ir.Node]bool{}, map[*ir.Value]bool{}
	for _, p := range probes {
		need[p.Value] = true
		for at := p.Value.Graph(); at != g; at = at.Owner().Graph() {
			if at == nil || at.Owner() == nil {
				return nil
			}
			owners[at.Owner()] = true
		}
	}
	for _, o := range g.Outputs() {
		want[o.Value] = true
	}
	fixed := fixedNodes(g)
	var nodes []*ir.Node
	for n := range g.Reverse() {
		reached, wanted := owners[n], false
		for _, v := range n.Outs() {
			reached, wanted = reached || need[v], wanted || want[v]
		}
		if reached {
			for _, v := range reads(n) {
				need[v] = true
			}
		}
		if !wanted || reached && !fixed[n] {
			continue
		}
		if len(n.Subgraphs()) > 0 || slices.ContainsFunc(n.Ins(), func(v *ir.Value) bool { return v != nil && op.Overridable(v) }) {
			return nil
		}
		nodes = append(nodes, n)
		for _, v := range n.Ins() {
			want[v] = true
		}
	}
	if nodes == nil {
		return nil
	}
	return extractAs(nodes, g.Outputs())
}

// fixedNodes are the nodes of a graph that read nothing but what is constant.
func fixedNodes(g *ir.Graph) map[*ir.Node]bool {
	fixed := map[*ir.Node]bool{}
	for n := range g.Nodes() {
		fixed[n] = n.NumIn() > 0 && len(n.Subgraphs()) == 0 && op.RoleOf(n) != op.RandomRole
		for _, v := range n.Ins() {
			if v != nil && op.ConstantOf(v) == nil && !fixed[v.DefNode()] {
				fixed[n] = false
			}
		}
	}
	return fixed
}
