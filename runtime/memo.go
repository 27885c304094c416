package runtime

import (
	"slices"
	"sync/atomic"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// Shape arithmetic stays off the hot path: the steps of a plan that lead from the shapes of tensors to other shapes, to
// positions and to masks remember what they made last, and hand it out again while the shapes are the same.

// memo is what a step remembers.
type memo struct {
	shape bool // the step reads its input's shape only
	last  atomic.Pointer[remembered]
}

// remembered is one evaluation of a step. It is never changed.
type remembered struct {
	in    []*ir.Tensor // nil where the step reads a shape
	shape []int
	out   []*ir.Tensor
}

// memoBytes is the largest result that is remembered.
const memoBytes = 1 << 20

// remember gives a memo to each step that reads nothing but shapes, constants and results of such steps.
func (p *Program) remember(pl *plan) {
	known := map[int]bool{}
	for i := range pl.steps {
		st := &pl.steps[i]
		if st.parts != nil || st.quant != nil || st.needs != nil || st.lazy || len(st.in) == 0 || len(st.node.Subgraphs()) > 0 || op.RoleOf(st.node) == op.RandomRole {
			continue
		}
		shape := st.node.Op.Domain == "" && (st.node.Op.Type == "Shape" || st.node.Op.Type == "Size")
		if !shape && slices.ContainsFunc(st.in, func(s int) bool { return s >= 0 && p.consts[s] == nil && !known[s] }) {
			continue
		}
		st.memo = &memo{shape: shape}
		for _, s := range st.out {
			known[s] = true
		}
	}
	// Results belong to the caller, with all that they may be views of.
	given := map[int]bool{}
	for _, s := range pl.outputs {
		given[s] = true
	}
	for i := len(pl.steps) - 1; i >= 0; i-- {
		st := &pl.steps[i]
		if st.memo != nil && slices.ContainsFunc(st.out, func(s int) bool { return given[s] }) {
			st.memo = nil
			for _, s := range st.in {
				given[s] = true
			}
		}
	}
}

// recall returns the results for the given inputs if they are those of the last time, else nil.
func (m *memo) recall(in []*ir.Tensor) []*ir.Tensor {
	l := m.last.Load()
	switch {
	case l == nil:
		return nil
	case m.shape && slices.Equal(l.shape, in[0].Shape()), !m.shape && slices.Equal(l.in, in):
		return l.out
	}
	return nil
}

// keep remembers results, which must lie in storage of their own.
func (m *memo) keep(in, out []*ir.Tensor) {
	for _, t := range out {
		if t != nil && t.Size() > memoBytes {
			return
		}
	}
	l := &remembered{in: in, out: out}
	if m.shape {
		l.in, l.shape = nil, slices.Clone(in[0].Shape())
	}
	m.last.Store(l)
}
