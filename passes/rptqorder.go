package passes

import (
	"context"
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
)

// orderings finds what must be permuted along with the channels of queries and keys, of values and of the inputs of products that
// no normalization makes, and has kept what the permutations prove themselves on.
func (e *rptqEditor) orderings(targets []*rptqTarget) error {
	gather := e.o.Layout == "gather"
	var w *wiring
	at := map[*ir.Value]*rptqTarget{}
	for _, t := range targets {
		at[t.value] = t
	}
	for _, t := range targets {
		if ts := t.gathers(); gather && ts != nil {
			e.witness.testify(t.nodes())
		}
		if t.second || t.kind == rptqR1 || t.kind == rptqR4 || t.kind == rptqR5 && !gather {
			continue
		}
		if w == nil {
			var err error
			if w, err = newWiring(e.u.Model); err != nil {
				return err
			}
		}
		t.order, t.why = e.ordering(w, t, at)
		if t.order != nil && gather {
			e.witness.testify(t.order.nodes)
		}
		if t.mate != nil {
			t.mate.order, t.mate.why = t.order, t.why
		}
	}
	return nil
}

// ordering finds what must be permuted along with the channels of a value and of its mate, or why they cannot change places.
func (e *rptqEditor) ordering(w *wiring, t *rptqTarget, at map[*ir.Value]*rptqTarget) (*scaling, string) {
	if t.kind == rptqR2 {
		if _, rotary := w.origins(t.value); rotary != "" {
			return nil, fmt.Sprintf("rotary positions (%s) turn pairs of its channels by angles of their own", rotary)
		}
		if t.mate == nil {
			return nil, "its other operand is not quantized by the same clusters"
		}
	}
	ch := headChannels(t.value, t.head, t.axis)
	if ch == nil {
		return nil, fmt.Sprintf("the number of channels of %q is not known", t.value.Name)
	}
	s, err := w.orderingFrom(t.value, ch)
	if err != nil {
		return nil, err.Error()
	}
	for _, v := range s.order {
		if m := at[v]; m != nil && m != t && m != t.mate {
			return nil, fmt.Sprintf("%q holds the same channels in clusters of its own", v.Name)
		}
	}
	if t.mate != nil && s.marks[t.mate.value] == nil {
		return nil, fmt.Sprintf("%q does not hold the same channels", t.mate.value.Name)
	}
	for _, m := range []*rptqTarget{t, t.mate} {
		if m == nil || m.head >= 0 || m.kind == rptqR2 {
			continue
		}
		if _, apart := m.weights(); !apart {
			return nil, fmt.Sprintf("not all products that read %q have a weight of their own to permute", m.value.Name)
		}
	}
	for _, edit := range s.edits {
		if edit.site == nil || edit.divide {
			continue
		}
		reads := func(m *rptqTarget) bool { return m != nil && slices.Contains(m.nodes(), edit.node) }
		if !reads(t) && !reads(t.mate) {
			return nil, fmt.Sprintf("%s reads the same channels without their clusters", called(edit.node))
		}
	}
	return s, ""
}

// permute puts the channels of a value and its mate into the order of their clusters, by the weights that make them and those that
// read them, if the products then prove that they compute the same.
func (e *rptqEditor) permute(ctx context.Context, t *rptqTarget) error {
	switch {
	case t.drop != "":
		return nil
	case slices.IsSorted(t.c.perm):
		t.ordered = "in order as they are"
		return nil
	case t.second, t.order == nil:
		return nil
	}
	both := []*rptqTarget{t}
	if t.mate != nil {
		both = append(both, t.mate)
	}
	s := t.order
	r, err := s.arrange(t.c.perm)
	for _, m := range both {
		if err == nil && !slices.Equal(r.values[m.value].from, t.c.perm) {
			err = fmt.Errorf("the channels of %q would not move alike", m.value.Name)
		}
	}
	var done []reordered
	if err == nil {
		err = e.u.prove(ctx, e.witness, s.nodes, s.unmarked(), func(back *undo) (_ []*ir.Node, err error) {
			if done, err = s.permute(r, back); err != nil {
				return nil, err
			}
			for _, edit := range s.edits {
				if edit.site != nil {
					d := e.at[edit.node]
					i := slices.IndexFunc(d.Choices, func(c Choice) bool { return c.Role == numfmt.Weight })
					refreshWeight(d, &d.Choices[i], back)
				}
			}
			return nil, nil
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err != nil {
		for _, m := range both {
			m.why = err.Error()
		}
		return nil
	}
	e.u.reordered = append(e.u.reordered, done...)
	e.u.edit()
	for _, m := range both {
		m.ordered = "ordered by " + s.absorbers()
	}
	return nil
}
