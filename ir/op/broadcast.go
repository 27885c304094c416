package op

import (
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// spread is how operands of different shapes meet in one result by the rules of ONNX's multidirectional broadcasting.
type spread struct {
	shape []int   // of the result
	dims  []int   // the result's dimensions, neighbours merged where every operand walks them alike; the last is a row
	steps [][]int // per operand and merged dimension the stride in elements; in the last dimension 0 or 1
}

// spreadOf plans a broadcast of operands with the given shapes.
func spreadOf(shapes ...[]int) (*spread, error) {
	rank := 0
	for _, s := range shapes {
		rank = max(rank, len(s))
	}
	p := &spread{shape: make([]int, rank), steps: make([][]int, len(shapes))}
	at := func(s []int, i int) int {
		if i += len(s) - rank; i >= 0 {
			return s[i]
		}
		return 1
	}
	for i := range rank {
		p.shape[i] = 1
		for _, s := range shapes {
			d := at(s, i)
			if d == 1 || d == p.shape[i] {
				continue
			}
			if p.shape[i] != 1 {
				return nil, fmt.Errorf("shapes %v do not broadcast: %d against %d in dimension %d of %d", shapes, p.shape[i], d, i, rank)
			}
			p.shape[i] = d
		}
	}
	if _, err := ir.Numel(p.shape); err != nil {
		return nil, err
	}
	// from the innermost dimension outwards; the lists are reversed at the end
	size := make([]int, len(shapes)) // elements of the operand inside the current dimension
	for k := range size {
		size[k] = 1
	}
	step := make([]int, len(shapes))
	for i := rank - 1; i >= 0; i-- {
		d := p.shape[i]
		if d == 1 {
			continue
		}
		merge := len(p.dims) > 0
		for k, s := range shapes {
			step[k] = 0
			if at(s, i) != 1 {
				step[k] = size[k]
				size[k] *= d
			}
			if merge {
				last := len(p.dims) - 1
				merge = step[k] == p.steps[k][last]*p.dims[last]
			}
		}
		if merge {
			p.dims[len(p.dims)-1] *= d
			continue
		}
		p.dims = append(p.dims, d)
		for k := range shapes {
			p.steps[k] = append(p.steps[k], step[k])
		}
	}
	if len(p.dims) == 0 {
		p.dims = []int{1}
		for k := range shapes {
			p.steps[k] = []int{0}
		}
	}
	slices.Reverse(p.dims)
	for _, s := range p.steps {
		slices.Reverse(s)
	}
	return p, nil
}

// spreadGrain is the number of result elements that are worth a core's while.
const spreadGrain = 1 << 14

// run calls body for pieces of the result that cover it: n elements from index z on, within one row. at holds the index
// of each operand's first element there; the operand goes on by its step of the last dimension. Pieces may run at the
// same time; they do not depend on the number of cores.
func (p *spread) run(body func(z, n int, at []int)) {
	last := len(p.dims) - 1
	n, rows := p.dims[last], 1
	for _, d := range p.dims[:last] {
		rows *= d
	}
	if n == 0 || rows == 0 {
		return
	}
	if rows == 1 {
		par.For(n, spreadGrain, func(lo, hi int) {
			at := make([]int, len(p.steps))
			for k, s := range p.steps {
				at[k] = lo * s[last]
			}
			body(lo, hi-lo, at)
		})
		return
	}
	par.For(rows, max(1, spreadGrain/n), func(lo, hi int) {
		at, idx := make([]int, len(p.steps)), make([]int, last)
		for i, r := last-1, lo; i >= 0; i-- {
			idx[i] = r % p.dims[i]
			r /= p.dims[i]
			for k, s := range p.steps {
				at[k] += idx[i] * s[i]
			}
		}
		for r := lo; r < hi; r++ {
			body(r*n, n, at)
			for i := last - 1; i >= 0; i-- {
				idx[i]++
				for k, s := range p.steps {
					at[k] += s[i]
				}
				if idx[i] < p.dims[i] {
					break
				}
				for k, s := range p.steps {
					at[k] -= p.dims[i] * s[i]
				}
				idx[i] = 0
			}
		}
	})
}

// row is a kernel over one row: dst[i] from a[i] and b[i], where a or b may have a single element that serves all i.
type row[T, U any] func(dst []U, a, b []T)

// rowOf makes a row kernel of a function of two elements.
func rowOf[T, U any](f func(x, y T) U) row[T, U] {
	return func(dst []U, a, b []T) {
		switch {
		case len(b) == 1:
			y := b[0]
			for i, x := range a {
				dst[i] = f(x, y)
			}
		case len(a) == 1:
			x := a[0]
			for i, y := range b {
				dst[i] = f(x, y)
			}
		default:
			for i, x := range a {
				dst[i] = f(x, b[i])
			}
		}
	}
}

// piece returns the elements of an operand that a row of n elements at index at reads: n, or one where step is 0.
func piece[T any](x []T, at, step, n int) []T {
	if step == 0 {
		return x[at : at+1]
	}
	return x[at : at+n]
}

// zip applies a row kernel to tensors a and b, broadcast.
func zip[T, U ir.Element](c *Call, a, b *ir.Tensor, elem ir.DType, f row[T, U]) (*ir.Tensor, error) {
	p, err := spreadOf(a.Shape(), b.Shape())
	if err != nil {
		return nil, err
	}
	out, err := c.New(elem, p.shape...)
	if err != nil {
		return nil, err
	}
	x, y, z := ir.Data[T](a), ir.Data[T](b), ir.Data[U](out)
	last := len(p.dims) - 1
	sx, sy := p.steps[0][last], p.steps[1][last]
	p.run(func(i, n int, at []int) { f(z[i:i+n], piece(x, at[0], sx, n), piece(y, at[1], sy, n)) })
	return out, nil
}

// broadcastDims returns the dimensions that two shapes broadcast to. A symbol stays where it meets itself or a 1; a fixed
// size other than 1 wins over what is not known.
func broadcastDims(a, b []ir.Dim) ([]ir.Dim, error) {
	if len(a) < len(b) {
		a, b = b, a
	}
	out := make([]ir.Dim, len(a))
	copy(out, a)
	for i, y := range b {
		k := len(a) - len(b) + i
		x := a[k]
		switch {
		case y.Size == 1:
		case x.Size == 1:
			out[k] = y
		case x.Known() && y.Known():
			if x.Size != y.Size {
				return nil, fmt.Errorf("shapes %v and %v do not broadcast: %d against %d in dimension %d of %d", a, b, x.Size, y.Size, k, len(a))
			}
		case x.Known():
		case y.Known():
			out[k] = y
		case !x.Same(y):
			out[k] = ir.UnknownDim
		}
		out[k].Denot = ""
	}
	return out, nil
}

// broadcastType infers the type of an elementwise result from inputs [from, to): their broadcast shape and, for elem
// Undefined, their element type. Inputs of different element types are an error.
func broadcastType(c *Call, from, to int, elem ir.DType) (ir.Type, error) {
	var in ir.DType
	var dims []ir.Dim
	ranked := true
	for i := from; i < to; i++ {
		t := c.Type(i)
		if t.Elem != ir.Undefined {
			if in != ir.Undefined && in != t.Elem {
				return ir.Type{}, fmt.Errorf("input %d is of element type %v, an earlier one of %v", i, t.Elem, in)
			}
			in = t.Elem
		}
		if !t.Ranked {
			ranked = false
		}
		if !ranked {
			continue
		}
		var err error
		if dims, err = broadcastDims(dims, t.Dims); err != nil {
			return ir.Type{}, err
		}
	}
	if elem == ir.Undefined {
		elem = in
	}
	if !ranked {
		return ir.Type{Elem: elem}, nil
	}
	return ir.TensorType(elem, dims...), nil
}

// inferZip infers operators of two inputs of one type, with a result of that type or, if elem is given, of that.
func inferZip(elem ir.DType) func(c *Call) ([]ir.Type, error) {
	return func(c *Call) ([]ir.Type, error) {
		t, err := broadcastType(c, 0, 2, elem)
		if err != nil {
			return nil, err
		}
		return []ir.Type{t}, nil
	}
}

// alignedBroadcast is the upgrade to opset 7 of operators whose second input used to broadcast only with the attribute
// broadcast=1, and then at the position that the attribute axis gave.
var alignedBroadcast = Upgrade{7, func(u *Up) error {
	n := u.Node
	axis := n.Attr("axis")
	if n.Int("broadcast", 0) != 0 && axis != nil && axis.I >= 0 {
		a, b := n.In(0), n.In(1)
		if a == nil || b == nil {
			return nil // arity is inference's to report
		}
		if !a.Type.Ranked || !b.Type.Ranked {
			return fmt.Errorf("broadcasts at axis %d inputs of unknown rank: %w", axis.I, ErrUnsupported)
		}
		if err := alignAt(u, 1, int(axis.I), len(a.Type.Dims)); err != nil {
			return err
		}
	}
	n.DelAttr("broadcast")
	n.DelAttr("axis")
	return nil
}}

// alignAt appends dimensions of 1 to input i, so that its first dimension is dimension axis of a shape of the given rank.
func alignAt(u *Up, i, axis, rank int) error {
	v := u.Node.In(i)
	have := len(v.Type.Dims)
	tail := rank - axis - have
	if tail < 0 {
		return fmt.Errorf("input %d of rank %d does not fit at axis %d of rank %d", i, have, axis, rank)
	}
	if tail == 0 {
		return nil
	}
	axes := make([]int64, tail)
	for k := range axes {
		axes[k] = int64(have + k)
	}
	u.Node.SetIn(i, u.Value("aligned", "Unsqueeze", []*ir.Value{v}, ir.IntsAttr("axes", axes...)))
	return nil
}

// dropConsumed is the upgrade to opset 6 of operators that had the attribute consumed_inputs, a hint for storage reuse.
var dropConsumed = Upgrade{6, func(u *Up) error {
	u.Node.DelAttr("consumed_inputs")
	return nil
}}

// badType says that a kernel has no form for the element type of input i.
func badType(c *Call, i int) error {
	return fmt.Errorf("input %d of element type %v: %w", i, c.In[i].Elem(), ErrUnsupported)
}
