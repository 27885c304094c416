package passes

import (
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
)

// down makes a reader of v expect it divided.
func (s *scaling) down(v *ir.Value, u ir.Use, ch *channels) error {
	n := u.Node
	switch {
	case n == nil:
		return fmt.Errorf("%q is an output of the graph", v.Name)
	case u.Graph != s.graph:
		return fmt.Errorf("%q is read inside a subgraph", v.Name)
	}
	if site := s.w.linear[n]; site != nil {
		if u.Slot != site.Linear.X {
			return fmt.Errorf("%v reads %q as its weight or bias", called(n), v.Name)
		}
		s.touch(n)
		return s.linearIn(site, ch)
	}
	for i := range n.NumOut() {
		if n.Out(i) == nil {
			continue
		}
		if err := s.downTo(n, i, v, u, ch); err != nil {
			return err
		}
	}
	return nil
}

func (s *scaling) downTo(n *ir.Node, i int, v *ir.Value, u ir.Use, ch *channels) error {
	f := op.FlowOf(n, i, s.w.known)
	if f.Kind == op.ShapeOnly {
		return nil
	}
	s.touch(n)
	y := n.Out(i)
	if s.places {
		if out, done, err := s.orderDown(n, u.Slot, f, ch, y); done {
			if err != nil || out == nil {
				return err
			}
			return s.mark(y, out)
		}
	}
	var out *channels
	var err error
	first := u.Slot == 0
	switch {
	case (f.Kind == op.Same || f.Kind == op.Pooled || f.Kind == op.Padded) && first:
		if err = carries(f, ch); err == nil {
			out = ch
		}
	case f.Kind == op.Permuted:
		out = ch.permuted(f.Perm)
	case f.Kind == op.Reshaped && first:
		out, err = ch.regroup(v.Type.Dims, y.Type.Dims)
	case f.Kind == op.Inserted && first:
		out = ch.with(f.Axes)
	case f.Kind == op.Dropped && first:
		out, err = ch.without(f.Axes)
	case f.Kind == op.Taken && first:
		if out, err = ch.taken(f.Axis, f.Index); err == nil && f.Drop {
			if f.Index == nil || ch.period[f.Axis] == 1 {
				out, err = out.without([]int{f.Axis})
			} else {
				out = &channels{slices.Delete(slices.Clone(out.period), f.Axis, f.Axis+1), out.label}
			}
		}
	case f.Kind == op.Joined:
		out, err = s.joinedDown(n, f, u.Slot, ch)
	case (f.Kind == op.Spread || f.Kind == op.Quotient) && first, f.Kind == op.Product, f.Kind == op.Summed:
		switch {
		case f.Kind == op.Product && n.In(0) == n.In(1):
			err = fmt.Errorf("%v squares it", called(n))
		case y.Type.Rank() < len(ch.period):
			err = fmt.Errorf("the rank of %q is unknown", y.Name)
		default:
			if f.Kind == op.Product || f.Kind == op.Quotient {
				s.fork(n)
			}
			out = raised(ch, y.Type.Rank())
		}
	case f.Kind == op.Reduced && first:
		for _, a := range f.Axes {
			if ch.period[a] > 1 {
				err = fmt.Errorf("%v sums over the channels of %q", called(n), v.Name)
			}
		}
		if out = ch; err == nil && f.Drop {
			out, err = ch.without(f.Axes)
		}
	case f.Kind == op.Matrix:
		out, err = s.matrixDown(n, u.Slot, ch, y)
	default:
		err = fmt.Errorf("it is also read by %v, which is not proportional to it", called(n))
	}
	if err != nil {
		return err
	}
	return s.mark(y, out)
}

// joinedDown translates channels of one operand of a concatenation to those of the result.
func (s *scaling) joinedDown(n *ir.Node, f op.Flow, at int, in *channels) (*channels, error) {
	if in.period[f.Axis] == 1 {
		return in, nil
	}
	total, offset := 0, 0
	for i, v := range n.Ins() {
		d := v.Type.Dim(f.Axis)
		if !d.Known() {
			return nil, fmt.Errorf("%v joins channels of unknown number", called(n))
		}
		if i == at {
			offset = total
		}
		total += int(d.Size)
	}
	size := int(n.In(at).Type.Dim(f.Axis).Size)
	period := slices.Clone(in.period)
	period[f.Axis] = total
	old := make([]int, len(period))
	return build(period, func(idx []int) int32 {
		k := idx[f.Axis] - offset
		if k < 0 || k >= size {
			return none
		}
		copy(old, idx)
		old[f.Axis] = k
		return in.at(old)
	}), nil
}

// matrixDown translates channels of an operand of a product of two activations to those of its result.
func (s *scaling) matrixDown(n *ir.Node, side int, in *channels, y *ir.Value) (*channels, error) {
	s.fork(n)
	rank := len(in.period)
	if rank < 2 || y.Type.Rank() < rank {
		return nil, fmt.Errorf("%v multiplies a vector or values of unknown rank", called(n))
	}
	if n.In(0) == n.In(1) {
		return nil, fmt.Errorf("%v multiplies it by itself", called(n))
	}
	if in.period[rank-1-side] > 1 {
		return nil, fmt.Errorf("%v sums over the channels of %q, and its other operand is an activation", called(n), n.In(side).Name)
	}
	return raised(in, y.Type.Rank()), nil
}

// linearIn multiplies the rows of a weight that read divided channels.
func (s *scaling) linearIn(site *Site, ch *channels) error {
	x, k, err := s.alone(site, ch, site.Linear.XAxis, site.Node.In(site.Linear.X))
	if err != nil {
		return err
	}
	w := site.weight()
	shape := w.Value.Type.Dims
	period := ones(len(shape))
	label := func(idx []int) int32 { return x[idx[w.Axes.K]] }
	period[w.Axes.K] = int(shape[w.Axes.K].Size)
	if g := site.Linear.Groups; g > 1 && w.Axes.K == 1 { // Conv: [O, I/g, …]
		perGroup := int(shape[w.Axes.Out].Size) / g
		inner := int(shape[1].Size)
		period[w.Axes.Out] = int(shape[w.Axes.Out].Size)
		label = func(idx []int) int32 { return x[idx[w.Axes.Out]/perGroup*inner+idx[1]] }
		if k != g*inner {
			return fmt.Errorf("%v reads %d channels in %d groups of %d", called(site.Node), k, g, inner)
		}
	} else if k != period[w.Axes.K] {
		return fmt.Errorf("%v has %d weight rows for %d channels", called(site.Node), period[w.Axes.K], k)
	}
	return s.edit(&paramEdit{node: site.Node, slot: site.Linear.W, site: site, ch: build(period, label)})
}

// linearOut divides the columns of a weight and its bias.
func (s *scaling) linearOut(site *Site, ch *channels) error {
	l := site.Linear
	y := site.Node.Out(0)
	axis := -1
	switch {
	case site.convolution():
		axis = 1
	case l.X == 1:
		axis = -2
	}
	out, n, err := s.alone(site, ch, axis, y)
	if err != nil {
		return err
	}
	w := site.weight()
	shape := w.Value.Type.Dims
	period := ones(len(shape))
	period[w.Axes.Out] = int(shape[w.Axes.Out].Size)
	label := func(idx []int) int32 { return out[idx[w.Axes.Out]] }
	if g := l.Groups; g > 1 && w.Axes.Out == 1 { // ConvTranspose: [I, O/g, …]
		inner, perGroup := int(shape[1].Size), int(shape[0].Size)/g
		period[0] = int(shape[0].Size)
		label = func(idx []int) int32 { return out[idx[0]/perGroup*inner+idx[1]] }
	} else if n != period[w.Axes.Out] {
		return fmt.Errorf("%v has %d weight columns for %d channels", called(site.Node), period[w.Axes.Out], n)
	}
	if b := site.Node.In(2); b != nil && !op.TakesNoBias(site.Node) {
		if l.B < 0 || op.ConstantOf(b) == nil || op.ConstantOf(b).Len() != n {
			return fmt.Errorf("%v has a bias that is no constant of one number a channel", called(site.Node))
		}
		if err := s.edit(&paramEdit{node: site.Node, slot: 2, ch: &channels{append(ones(b.Type.Rank()-1), n), out}, divide: true}); err != nil {
			return err
		}
	}
	return s.edit(&paramEdit{node: site.Node, slot: l.W, site: site, ch: build(period, label), divide: true})
}

// alone returns the labels along one axis of an operand or result of a linear operator, along which all channels must lie.
func (s *scaling) alone(site *Site, ch *channels, axis int, v *ir.Value) ([]int32, int, error) {
	if axis < 0 {
		axis += len(ch.period)
	}
	d := v.Type.Dim(axis)
	if !ch.only(axis) || !d.Known() {
		return nil, 0, fmt.Errorf("the channels of %q do not lie along axis %d, where %v has its own", v.Name, axis, called(site.Node))
	}
	period := slices.Clone(ch.period)
	period[axis] = int(d.Size)
	return ch.widened(period).label, int(d.Size), nil
}

// weight returns the weight among a linear site's operands.
func (s *Site) weight() *Operand {
	i := slices.IndexFunc(s.Operands, func(o Operand) bool { return o.Role == numfmt.Weight })
	return &s.Operands[i]
}

// convolution reports whether the site's channels lie along axis 1 of its input and result.
func (s *Site) convolution() bool {
	return s.Linear.XAxis == 1 && !op.TakesNoBias(s.Node) && s.Node.In(s.Linear.X).Type.Rank() > 2
}
