package passes

import (
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
)

// moves puts the elements of a value into another order. The order repeats along each axis with a period, as that of channels
// does: the element at position i of a block, counted row-major, is the one that was at position from[i] of it.
type moves struct{ period, from []int }

// movesAlong puts the positions of one axis of a value of the given rank into the order perm.
func movesAlong(rank, axis int, perm []int) moves {
	m := moves{ones(rank), perm}
	m.period[axis] = len(perm)
	return m
}

// none reports whether everything stays where it is.
func (m moves) none() bool { return slices.IsSorted(m.from) }

// inverse takes the elements back.
func (m moves) inverse() moves { return moves{m.period, inverse(m.from)} }

// stays reports whether the elements move along no axis but the last ones.
func (m moves) stays(last int) bool {
	inner := 1
	for _, p := range m.period[max(len(m.period)-last, 0):] {
		inner *= p
	}
	for i, f := range m.from {
		if i/inner != f/inner {
			return false
		}
	}
	return true
}

// axis returns the axis along which alone the order depends on the position, -1 if there are several.
func (m moves) axis() int {
	axis := -1
	for a, p := range m.period {
		switch {
		case p == 1:
		case axis >= 0:
			return -1
		default:
			axis = a
		}
	}
	return axis
}

// apply returns a tensor with its elements in the order.
func (m moves) apply(t *ir.Tensor) (*ir.Tensor, error) {
	if err := t.Load(); err != nil {
		return nil, err
	}
	shape := t.Shape()
	if len(shape) != len(m.period) {
		return nil, fmt.Errorf("shape %v has not the %d axes of an order", shape, len(m.period))
	}
	for a, p := range m.period {
		if shape[a]%p != 0 {
			return nil, fmt.Errorf("axis %d of shape %v has not a multiple of %d positions", a, shape, p)
		}
	}
	strides, blocks := rowMajor(shape), rowMajor(m.period)
	jump := make([]int, len(m.from)) // from each place of a block to where its element was
	for i, f := range m.from {
		for a, b := range blocks {
			jump[i] += (f/b%m.period[a] - i/b%m.period[a]) * strides[a]
		}
	}
	size, old := t.Elem().Size(1), t.Bytes()
	data := make([]byte, len(old))
	idx := make([]int, len(shape))
	for i := range t.Len() {
		k := 0
		for a, x := range idx {
			k += x % m.period[a] * blocks[a]
		}
		copy(data[i*size:][:size], old[(i+jump[k])*size:])
		for a := len(idx) - 1; a >= 0; a-- {
			if idx[a]++; idx[a] < shape[a] {
				break
			}
			idx[a] = 0
		}
	}
	return ir.TensorOf(t.Elem(), shape, data)
}

// params puts the parameters of a weight's groups into the order of the weight's output channels, which lie along one axis.
func (m moves) params(p numfmt.Params, l numfmt.Layout) (numfmt.Params, error) {
	axis := m.axis()
	order := func(v []float32, shape []int, axis int) ([]float32, error) {
		if v == nil {
			return nil, nil
		}
		t, err := movesAlong(len(shape), axis, m.from).apply(ir.Floats(v, shape...))
		if err != nil {
			return nil, err
		}
		out, _ := t.Float32s()
		return out, nil
	}
	out := p
	var err error
	if l.Coarse == axis && len(p.Coarse) > 1 {
		if out.Coarse, err = order(p.Coarse, []int{len(p.Coarse)}, 0); err != nil {
			return out, err
		}
	}
	shape := l.ScaleShape()
	switch {
	case l.Gran == numfmt.PerAxis && l.Axis == axis:
		axis = 0
	case l.Gran != numfmt.PerBlock:
		return out, nil
	case l.Axis == axis:
		return out, fmt.Errorf("its blocks lie along axis %d, whose channels have another order", axis)
	}
	for _, v := range []*[]float32{&out.Scale, &out.Zero, &out.Code} {
		if *v, err = order(*v, shape, axis); err != nil {
			return out, err
		}
	}
	return out, nil
}
