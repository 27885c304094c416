package passes

import (
	"slices"
	"unsafe"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/store"
)

// Passes that make as much data as a model has hand their results to Unit.Scratch tensor by tensor, so that none of them
// needs more memory than its largest tensor wants. Tensors that lie in files, the model's or the scratch file, leave memory
// when a pass is done with them.

// keep returns a tensor equal to t that lies in the scratch file, or t itself.
func (u *Unit) keep(t *ir.Tensor) (*ir.Tensor, error) {
	if u.Scratch == nil || t.Size() == 0 {
		return t, nil
	}
	b, err := u.Scratch.Keep(t.Bytes())
	if err != nil || &b[0] == &t.Bytes()[0] {
		return t, err
	}
	kept, err := ir.TensorOf(t.Elem(), t.Shape(), b)
	if err == nil {
		kept.Label = t.Label
	}
	return kept, err
}

// KeepCopy returns a copy of a tensor whose storage is lent, in the scratch file where the results are large.
func (u *Unit) KeepCopy(t *ir.Tensor) (*ir.Tensor, error) {
	if t.Elem() == ir.String {
		return t, nil // is never lent
	}
	b, err := u.Scratch.Keep(t.Bytes())
	if err != nil {
		return nil, err
	}
	if len(b) > 0 && &b[0] == &t.Bytes()[0] {
		b = slices.Clone(b)
	}
	return ir.TensorOf(t.Elem(), t.Shape(), b)
}

// constant adds a constant whose data is kept.
func (u *Unit) constant(g *ir.Graph, hint string, t *ir.Tensor) (*ir.Value, error) {
	t, err := u.keep(t)
	if err != nil {
		return nil, err
	}
	return g.Const(hint, t), nil
}

// keepFloats is keep for parameters; nil stays nil.
func (u *Unit) keepFloats(v []float32) ([]float32, error) {
	if u.Scratch == nil || len(v) == 0 {
		return v, nil
	}
	b, err := u.Scratch.Keep(unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), 4*len(v)))
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), len(v)), nil
}

// keepParams takes a weight's parameters out of memory; those of blocks are no small part of the weight.
func (u *Unit) keepParams(p *numfmt.Params) (err error) {
	for _, v := range []*[]float32{&p.Scale, &p.Zero, &p.Code} {
		if *v, err = u.keepFloats(*v); err != nil {
			return err
		}
	}
	return nil
}

// settle keeps the constants that a pass has left in memory, and lets go of the pages of all.
func (u *Unit) settle() error {
	if u.Scratch == nil {
		return nil
	}
	for g := range u.Model.Graphs() {
		for _, v := range g.Consts() {
			t := v.Const()
			if t.Elem() == ir.String || t.Load() != nil {
				continue
			}
			kept, err := u.keep(t)
			if err != nil {
				return err
			}
			if kept != t {
				v.SetConst(kept)
			}
			release(kept)
		}
	}
	return nil
}

// release says that the tensor's data is not needed soon.
func release(t *ir.Tensor) {
	if t.Elem() != ir.String {
		store.Release(t.Bytes())
	}
}
