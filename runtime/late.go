package runtime

import (
	goruntime "runtime"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/ir/store"
)

// A program keeps weights in the form that kernels want up to a bound. Beyond it, a large constant that would be folded, such
// as a dequantized weight, is made by late steps before each step that reads it and dropped behind it; and a large weight
// that would be packed is packed when its product runs. The constants themselves lie in mapped files, whose pages leave memory
// as soon as they have been used.

// lateAbove is the size in bytes below which nothing is worth being made late.
const lateAbove = 1 << 20

// tooLarge reports whether the results of a step that could be folded are beyond what the program may keep.
func (p *Program) tooLarge(st *step) bool {
	size := p.bytesOf(st)
	return size >= lateAbove && p.held+size > p.hold
}

// bytesOf returns the bytes of a step's results, as far as their types tell, else those of its inputs.
func (p *Program) bytesOf(st *step) int64 {
	size := int64(0)
	for i := range st.node.NumOut() {
		v := st.node.Out(i)
		if v == nil {
			continue
		}
		shape, ok := v.Type.Shape()
		if !ok {
			return p.constBytes(st)
		}
		if n, err := ir.Numel(shape); err == nil {
			size += footprint(v.Type.Elem, n)
		}
	}
	return size
}

// constBytes returns the bytes of the constants that a step reads.
func (p *Program) constBytes(st *step) int64 {
	size := int64(0)
	for _, t := range p.known(st.in) {
		if t != nil {
			size += footprint(t.Elem(), t.Len())
		}
	}
	return size
}

// foldLater leaves a step that could be folded to those that read its results.
func (p *Program) foldLater(st *step) {
	late := *st
	late.needs = p.needs(st.in)
	p.streams = p.streams || !p.runOnly // else settle says so
	for _, s := range st.out {
		if s >= 0 {
			p.later[s] = &late
		}
	}
}

// needs lists the late steps that make what is read, those first that others need. A late step lists none of its own.
func (p *Program) needs(in []int) []*step {
	var all []*step
	for _, s := range in {
		late := p.later[s]
		if late == nil {
			continue
		}
		for _, n := range append(slices.Clone(late.needs), late) {
			if !slices.ContainsFunc(all, func(o *step) bool { return slices.Equal(o.out, n.out) }) {
				alone := *n
				alone.needs = nil
				all = append(all, &alone)
			}
		}
	}
	return all
}

// postpone marks a step whose packed weights are beyond what the program may keep, and in a walk each that packs any.
func (p *Program) postpone(st *step) bool {
	once := p.once && st.node.Graph() == p.form.Model.Graph
	if size := p.constBytes(st); once && size > 0 || size >= lateAbove && p.held+size > p.hold {
		st.lazy, p.streams = true, true
	}
	return st.lazy
}

// packed counts the weights that a step keeps packed, and lets go of the constants they were made of.
func (p *Program) packed(st *step) {
	if st.state == nil {
		return
	}
	for _, t := range p.known(st.in) {
		if t != nil {
			p.held += footprint(t.Elem(), t.Len())
			letGo(t)
		}
	}
}

// letGo takes a large tensor that lies in a file out of memory.
func letGo(t *ir.Tensor) {
	if t != nil && t.Elem() != ir.String && t.Size() >= lateAbove {
		store.Release(t.Bytes())
	}
}

// make runs the late steps that a step needs, and returns the slots that they filled.
func (r *run) make(st *step) (made []int, err error) {
	for i, n := range st.needs {
		if slices.ContainsFunc(n.out, func(s int) bool { return s >= 0 && r.frame[s] != nil }) {
			continue // made for all samples, or by a step further out
		}
		if err := r.step(n); err != nil {
			return nil, err
		}
		for _, s := range n.out {
			if s >= 0 {
				made = append(made, s)
			}
		}
		for _, s := range n.in {
			if s < 0 {
				continue
			}
			letGo(r.p.consts[s])
			read := func(o *step) bool { return slices.Contains(o.in, s) }
			if j := slices.Index(made, s); j >= 0 && !read(st) && !slices.ContainsFunc(st.needs[i+1:], read) {
				made = slices.Delete(made, j, j+1)
				r.put(s, nil)
			}
		}
	}
	return made, nil
}

// letGo drops what was made for a step.
func (r *run) letGo(st *step, made []int) {
	for _, s := range made {
		r.put(s, nil)
	}
	for _, s := range st.in {
		if s >= 0 {
			letGo(r.p.consts[s])
		}
	}
}

// showOnce is show for a result; a late step's is shown the first time only.
func (r *run) showOnce(st *step, s int) error {
	if r.see != nil && r.p.later[s] != nil {
		if r.shown[s] {
			return nil
		}
		if r.shown == nil {
			r.shown = map[int]bool{}
		}
		r.shown[s] = true
	}
	return r.show(s)
}

// weights returns the bytes of what must be made ready for a step.
func (p *Program) weights(st *step) int64 {
	size := int64(0)
	if st.lazy {
		size = p.constBytes(st)
	}
	for _, n := range st.needs {
		size += p.bytesOf(n)
	}
	return size
}

// cuts divides the steps between two stops of a walk so that the weights that each piece makes ready are within what the
// program may keep, or one step's.
func (w *Walk) cuts(from, to int) []int {
	cuts := []int{from}
	if w.p.streams {
		size := int64(0)
		for i := from; i < to; i++ {
			n := w.p.weights(&w.p.main.steps[i])
			if size > 0 && n > 0 && size+n > w.p.hold {
				cuts = append(cuts, i)
				size = 0
			}
			size += n
		}
	}
	return append(cuts, to)
}

// ready makes the weights of a piece ready for all samples, and returns what drops them.
func (w *Walk) ready(from, to int) (drop func(), err error) {
	var slots []int
	var lazy []*step
	drop = func() {
		for _, s := range slots {
			w.p.consts[s] = nil
		}
		for _, st := range lazy {
			st.state = nil
		}
	}
	for i := from; i < to; i++ {
		st := &w.p.main.steps[i]
		for _, n := range st.needs {
			if slices.ContainsFunc(n.out, func(s int) bool { return s >= 0 && w.p.consts[s] != nil }) {
				continue
			}
			out, err := w.evaluate(n)
			if err != nil {
				drop()
				return nil, err
			}
			for i, s := range n.out {
				if s >= 0 && i < len(out) {
					w.p.consts[s] = out[i]
					slots = append(slots, s)
				}
			}
		}
		if st.lazy {
			lazy = append(lazy, st)
			if err := w.prepare(st); err != nil {
				drop()
				return nil, err
			}
		}
		for _, s := range st.in {
			if s >= 0 {
				letGo(w.p.consts[s])
			}
		}
	}
	return drop, nil
}

// evaluate computes a step whose inputs are constant.
func (w *Walk) evaluate(st *step) ([]*ir.Tensor, error) {
	defer goruntime.KeepAlive(w.p)
	return op.Evaluate(op.NewCall(st.node, st.def, w.env, st.state, w.p.known(st.in)))
}
