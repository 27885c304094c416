package runtime

import (
	"context"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// Selection is a program that computes certain values of a model: what none of them needs is neither made ready nor run, and
// storage is recycled. It is immutable and safe for concurrent runs.
type Selection struct {
	p    *Program
	want map[*ir.Value]bool
}

// Select compiles the part of a model that computes the values; ctx stops compiling.
func Select(ctx context.Context, m *ir.Model, values []*ir.Value, o Options) (*Selection, error) {
	p, err := compile(ctx, m, o, values)
	if err != nil {
		return nil, err
	}
	s := &Selection{p: p, want: map[*ir.Value]bool{}}
	for _, v := range values {
		s.want[v] = true
	}
	return s, nil
}

// Streams reports whether the program makes weights ready anew for each run, since all of them are more than it may keep: many
// samples are then better walked through side by side.
func (s *Selection) Streams() bool { return s.p.streams }

// idle returns the nodes of the main graph that the values do not depend on.
func idle(form *op.CanonicalForm, values []*ir.Value) map[*ir.Node]bool {
	need, rest := map[*ir.Value]bool{}, map[*ir.Node]bool{}
	for _, v := range values {
		need[form.Map.Values[v]] = true
	}
	delete(need, nil)
	nodes := slices.Collect(form.Model.Graph.Nodes())
	for _, n := range slices.Backward(nodes) {
		reads, makes := touches(n)
		if !slices.ContainsFunc(makes, func(v *ir.Value) bool { return need[v] }) {
			rest[n] = true
			continue
		}
		for _, v := range reads {
			need[v] = true
		}
	}
	return rest
}

// touches lists the values that a node and its subgraphs read, and those that they make.
func touches(n *ir.Node) (reads, makes []*ir.Value) {
	reads, makes = n.Ins(), n.Outs()
	for _, g := range n.Subgraphs() {
		makes = append(makes, g.Inputs()...)
		for k := range g.Nodes() {
			r, m := touches(k)
			reads, makes = append(reads, r...), append(makes, m...)
		}
		for _, o := range g.Outputs() {
			reads = append(reads, o.Value)
		}
	}
	return reads, slices.DeleteFunc(makes, func(v *ir.Value) bool { return v == nil })
}

// reads lists the slots that a step reads, those that its subgraphs capture included.
func (p *Program) reads(st *step) []int {
	var all []int
	for _, s := range append(p.captures(st.node), st.in...) {
		if s >= 0 {
			all = append(all, s)
		}
	}
	return all
}

// Run computes the values for the given inputs and shows each to see, in order of execution. A tensor is valid until see
// returns, and must be copied to be kept.
func (s *Selection) Run(ctx context.Context, in ir.Tensors, see func(*ir.Value, *ir.Tensor) error) error {
	r := &run{p: s.p, ctx: ctx, frame: slices.Clone(s.p.consts), recycle: true}
	r.see = func(v *ir.Value, t *ir.Tensor) error {
		if !s.want[v] {
			return nil
		}
		return see(v, t)
	}
	r.owner = make([]*buffer, len(r.frame))
	if err := r.feed(in); err != nil {
		return err
	}
	for _, slot := range s.p.folded {
		if err := r.show(slot); err != nil {
			return err
		}
	}
	_, err := r.plan(s.p.fast)
	for slot := range r.owner {
		r.release(slot) // of values that nothing read
	}
	return err
}
