package numfmt

import (
	"fmt"
	"iter"
	"math"
)

// NoAxis is an axis that an operand does not have.
const NoAxis = math.MinInt

// Axes names the axes of an operand (METHODS §2): K is the contraction axis, along which blocks run, Out the output axis
// of "axis=out". Negative axes count from the end; NoAxis is an axis the operand lacks.
type Axes struct{ K, Out int }

// Layout is a scheme placed on a tensor: which elements share a scale, and the shape of the scales in ONNX. Elements are
// in row-major order.
type Layout struct {
	Shape  []int
	Gran   Granularity // PerTensor, PerAxis or PerBlock: a token is a block as long as the axis
	Axis   int         // the channel or block axis, not negative; -1 per tensor
	Block  int         // the length of a block along Axis (the last may be shorter), 0 unless PerBlock
	Coarse int         // the axis whose indices share a second-level scale, -1: one for the tensor

	pre, dim, post int // Shape as pre × axis × post
}

// Layout places the scheme on a tensor of the given shape. It fails when the scheme's axis is missing or out of range.
// A scheme without scales has one group; so has an empty axis along K.
func (s Scheme) Layout(shape []int, ax Axes) (Layout, error) {
	l := Layout{Shape: shape, Gran: s.Gran, Axis: -1, Coarse: -1, pre: 1, dim: 1, post: 1}
	for _, d := range shape {
		if d < 0 {
			return Layout{}, fmt.Errorf("scheme %s on shape %v: negative dimension", s, shape)
		}
	}
	want := 0
	switch s.Gran {
	case PerTensor:
		for _, d := range shape {
			l.post *= d
		}
		return l, nil
	case PerAxis:
		want = s.Axis
		if want == AxisOut {
			want = ax.Out
		}
	case PerBlock, PerToken:
		want = ax.K
	}
	axis, err := resolve(want, len(shape))
	if err != nil {
		return Layout{}, fmt.Errorf("scheme %s on shape %v: %w", s, shape, err)
	}
	l.Axis = axis
	if s.Scale2 > 0 && !s.Dynamic && ax.Out != NoAxis && s.Gran == PerBlock {
		if l.Coarse, err = resolve(ax.Out, len(shape)); err != nil {
			return Layout{}, fmt.Errorf("scheme %s on shape %v: output %w", s, shape, err)
		}
	}
	for i, d := range shape {
		switch {
		case i < axis:
			l.pre *= d
		case i == axis:
			l.dim = d
		default:
			l.post *= d
		}
	}
	if s.Gran == PerBlock || s.Gran == PerToken {
		l.Gran, l.Block = PerBlock, s.Block
		if s.Gran == PerToken || l.Block > l.dim {
			l.Block = max(l.dim, 1)
		}
	}
	return l, nil
}

func resolve(axis, rank int) (int, error) {
	if axis == NoAxis {
		return 0, fmt.Errorf("axis is missing: the operand has none")
	}
	if axis < -rank || axis >= rank {
		return 0, fmt.Errorf("axis %d is out of range for rank %d", axis, rank)
	}
	if axis < 0 {
		axis += rank
	}
	return axis, nil
}

// Len is the number of elements.
func (l Layout) Len() int { return l.pre * l.dim * l.post }

// blocks is the number of blocks along the axis.
func (l Layout) blocks() int { return (l.dim + l.Block - 1) / l.Block }

// Groups is the number of scales.
func (l Layout) Groups() int {
	switch l.Gran {
	case PerAxis:
		return l.dim
	case PerBlock:
		return l.pre * l.blocks() * l.post
	}
	return 1
}

// ScaleShape is the shape of the scales as QuantizeLinear wants it: a scalar, a vector along Axis, or the tensor's shape
// with Axis divided by the block length, rounded up.
func (l Layout) ScaleShape() []int {
	switch l.Gran {
	case PerAxis:
		return []int{l.dim}
	case PerBlock:
		out := append([]int(nil), l.Shape...)
		out[l.Axis] = l.blocks()
		return out
	}
	return []int{}
}

// BlockRange is the range of block_size that ONNX accepts for the layout's number of blocks: S scales along an axis of D
// want ceil(D/S) to ceil(D/(S-1))-1; with one scale, from D up (hi is then D).
func (l Layout) BlockRange() (lo, hi int) {
	s := l.blocks()
	if s <= 1 {
		return l.dim, l.dim
	}
	return (l.dim + s - 1) / s, (l.dim+s-2)/(s-1) - 1
}

// A Run is a stretch of consecutive elements whose scales are one (Step 0) or consecutive too (Step 1: element i of the
// run has scale Group+i).
type Run struct{ Off, Len, Group, Step int }

// Runs visits all elements in order, as runs. Every element is in exactly one run.
func (l Layout) Runs() iter.Seq[Run] {
	return func(yield func(Run) bool) {
		for i := range l.runs() {
			if !yield(l.run(i)) {
				return
			}
		}
	}
}

// runs is the number of runs.
func (l Layout) runs() int {
	switch {
	case l.Len() == 0:
		return 0
	case l.Gran == PerTensor:
		return 1
	case l.Gran == PerBlock && l.post == 1:
		return l.pre * l.blocks()
	case l.post == 1:
		return l.pre
	}
	return l.pre * l.dim
}

// run is the i-th run.
func (l Layout) run(i int) Run {
	switch {
	case l.Gran == PerTensor:
		return Run{0, l.Len(), 0, 0}
	case l.Gran == PerAxis && l.post == 1:
		return Run{i * l.dim, l.dim, 0, 1}
	case l.Gran == PerAxis:
		return Run{i * l.post, l.post, i % l.dim, 0}
	case l.post == 1:
		first, n := l.blockRows(i)
		return Run{first, n, i, 0}
	}
	p, d := i/l.dim, i%l.dim
	return Run{i * l.post, l.post, (p*l.blocks() + d/l.Block) * l.post, 1}
}

// blockRows gives the first row and the number of rows of post elements that block k of pre × blocks covers.
func (l Layout) blockRows(k int) (first, rows int) {
	nb := l.blocks()
	from := k % nb * l.Block
	return k/nb*l.dim + from, min(l.Block, l.dim-from)
}

// GroupOf is the group of the element at a row-major offset.
func (l Layout) GroupOf(off int) int {
	switch l.Gran {
	case PerAxis:
		return off / l.post % l.dim
	case PerBlock:
		d := off / l.post % l.dim
		p := off / l.post / l.dim
		return (p*l.blocks()+d/l.Block)*l.post + off%l.post
	}
	return 0
}

// coarse maps each group to its second-level group: the index along Coarse, or 0.
func (l Layout) coarse(group int) int {
	if l.Coarse < 0 || l.Gran != PerBlock {
		return 0
	}
	shape := l.ScaleShape()
	for i := len(shape) - 1; i > l.Coarse; i-- {
		group /= shape[i]
	}
	return group % shape[l.Coarse]
}

// coarseGroups is the number of second-level groups.
func (l Layout) coarseGroups() int {
	if l.Coarse < 0 || l.Gran != PerBlock {
		return 1
	}
	return l.ScaleShape()[l.Coarse]
}

// check tells whether slices of values fit the layout.
func (l Layout) check(n ...int) error {
	for _, n := range n {
		if n != l.Len() {
			return fmt.Errorf("got %d values for shape %v, want %d", n, l.Shape, l.Len())
		}
	}
	return nil
}
