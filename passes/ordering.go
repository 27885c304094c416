package passes

import (
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
)

// An ordering is a scaling whose channels change places in place of sizes: the columns of the weights that make certain values
// are permuted, the rows of the weights that read them alike, and all constants between. It passes any elementwise operator,
// and products of two activations that contract the channels, of which both operands are permuted.

// orderingFrom finds what must be permuted along with the channels of value v, whose labels are 0, 1, 2, …. The error says why
// they cannot change places.
func (w *wiring) orderingFrom(v *ir.Value, ch *channels) (*scaling, error) {
	s := &scaling{w: w, graph: v.Graph(), marks: map[*ir.Value]*channels{}, bySlot: map[slot]*paramEdit{}, touched: map[*ir.Node]bool{}, places: true}
	if err := s.close(v, ch); err != nil {
		return nil, err
	}
	for _, e := range s.edits {
		if e.site == nil {
			continue
		}
		if e.site.Linear.Groups > 1 {
			return nil, fmt.Errorf("%v has its channels in groups", called(e.node))
		}
		root, chain, err := e.constant()
		if err != nil {
			return nil, err
		}
		for _, v := range append([]*ir.Value{root}, chainValues(chain)...) {
			if _, one := v.SingleUse(); !one {
				return nil, fmt.Errorf("weight %q of %v has other readers", v.Name, called(e.node))
			}
		}
	}
	return s, nil
}

// orderUp permutes the operands of a node whose result is permuted; done is false for nodes that a scaling treats the same.
func (s *scaling) orderUp(n *ir.Node, f op.Flow, ch *channels) (done bool, err error) {
	switch {
	case op.Elementwise(n) && n.NumIn() > 1:
		return true, s.orderOperands(n, ch)
	case f.Kind == op.Matrix:
		return true, s.orderMatrixUp(n, ch)
	case op.Elementwise(n):
		return true, s.operand(n, 0, ch)
	case f.Kind == op.Normed:
		return true, fmt.Errorf("it is made by %v, whose input keeps its order", called(n))
	case f.Kind == op.Opaque:
		return true, fmt.Errorf("it is made by %v, which channels cannot pass in another order", called(n))
	}
	return false, nil
}

// orderOperands permutes those operands of an elementwise node that differ between channels.
func (s *scaling) orderOperands(n *ir.Node, out *channels) error {
	for i, v := range n.Ins() {
		if v == nil || sameForAll(out, v) {
			continue
		}
		ch, _, err := s.broadcast(out, v)
		if err != nil {
			return fmt.Errorf("%w (at %v)", err, called(n))
		}
		if err := s.operand(n, i, ch); err != nil {
			return err
		}
	}
	return nil
}

// sameForAll reports whether an operand is broadcast along all axes on which the channels of a result depend.
func sameForAll(out *channels, v *ir.Value) bool {
	shift := len(out.period) - v.Type.Rank()
	for a, p := range out.period {
		if p > 1 && a >= shift && v.Type.Dim(a-shift).Size != 1 {
			return false
		}
	}
	return v.Type.Ranked
}

// orderDown translates channels of an operand of node n to those of its result y, and permutes the other operand of a product
// that contracts them; done is false for nodes that a scaling treats the same.
func (s *scaling) orderDown(n *ir.Node, slot int, f op.Flow, ch *channels, y *ir.Value) (out *channels, done bool, err error) {
	switch {
	case op.Elementwise(n):
		if y.Type.Rank() < len(ch.period) {
			return nil, true, fmt.Errorf("the rank of %q is unknown", y.Name)
		}
		return raised(ch, y.Type.Rank()), true, nil
	case f.Kind == op.Matrix:
		out, err = s.orderMatrixDown(n, slot, ch, y)
		return out, true, err
	case f.Kind == op.Opaque, f.Kind == op.Normed:
		return nil, true, fmt.Errorf("it is also read by %v, which channels cannot pass in another order", called(n))
	}
	return nil, false, nil
}

// orderMatrixUp permutes the operand of a product of two activations along whose columns (or rows) the channels lie.
func (s *scaling) orderMatrixUp(n *ir.Node, out *channels) error {
	rank := len(out.period)
	if rank < 2 || n.In(0).Type.Rank() < 2 || n.In(1).Type.Rank() < 2 {
		return fmt.Errorf("%v multiplies a vector", called(n))
	}
	columns, rows := out.period[rank-1] > 1, out.period[rank-2] > 1
	if columns == rows {
		return fmt.Errorf("%v: the channels do not belong to one of its operands", called(n))
	}
	side := 0
	if columns {
		side = 1
	}
	s.join(n)
	ch, _, err := s.broadcast(out, n.In(side))
	if err != nil {
		return fmt.Errorf("%w (at %v)", err, called(n))
	}
	return s.operand(n, side, ch)
}

// orderMatrixDown translates channels of an operand of a product of two activations. Where the product contracts them, the
// other operand has them too, and the result does not.
func (s *scaling) orderMatrixDown(n *ir.Node, side int, in *channels, y *ir.Value) (*channels, error) {
	rank := len(in.period)
	if rank < 2 || y.Type.Rank() < rank || n.In(0) == n.In(1) {
		return nil, fmt.Errorf("%v multiplies a vector, values of unknown rank or a value by itself", called(n))
	}
	s.join(n)
	contracted, other := rank-1-side, rank-2+side
	if in.period[contracted] == 1 {
		return raised(in, y.Type.Rank()), nil
	}
	mate := n.In(1 - side)
	if in.period[other] > 1 || mate.Type.Rank() != rank {
		return nil, fmt.Errorf("%v does not contract the channels of %q alone", called(n), n.In(side).Name)
	}
	swap := make([]int, rank)
	for i := range swap {
		swap[i] = i
	}
	swap[rank-1], swap[rank-2] = rank-2, rank-1
	ch, _, err := s.broadcast(in.permuted(swap), mate)
	if err != nil {
		return nil, fmt.Errorf("%w (at %v)", err, called(n))
	}
	return nil, s.operand(n, 1-side, ch)
}

// join notes a product of two activations, whose matrices must stay where they are in the stack.
func (s *scaling) join(n *ir.Node) {
	if !slices.Contains(s.joint, n) {
		s.joint = append(s.joint, n)
	}
}

// moves tells how the elements of a value with channels ch move when the channel labelled perm[i] comes to be where the one
// labelled i was. Where a label occurs several times, as those of a key-value head in its query heads, the occurrences keep
// their order.
func (s *scaling) moves(ch *channels, perm []int) (moves, error) {
	at := map[int][]int{} // where a class occurs
	for i, l := range ch.label {
		if l != none {
			class := int(s.find(l))
			at[class] = append(at[class], i)
		}
	}
	m := moves{ch.period, make([]int, len(ch.label))}
	for i := range m.from {
		m.from[i] = i
	}
	for _, class := range sortedKeys(at) {
		places := at[class]
		from := at[int(s.find(int32(perm[class])))]
		if len(from) != len(places) {
			return m, fmt.Errorf("channel %d would leave for where it is not", class)
		}
		for k, i := range places {
			m.from[i] = from[k]
		}
	}
	return m, nil
}

// rearranged is a permutation ready to be applied.
type rearranged struct {
	values map[*ir.Value]moves
	edits  []moves // of the ordering's edits
}

// arrange tells how everything moves when the labelled channels take the order perm, or why they cannot.
func (s *scaling) arrange(perm []int) (*rearranged, error) {
	to := map[int32]int32{}
	for l, p := range perm {
		a, b := s.find(int32(l)), s.find(int32(p))
		if old, ok := to[a]; ok && old != b {
			return nil, fmt.Errorf("channels %d and %d must go together, and their clusters would part them", l, a)
		}
		to[a] = b
	}
	r := &rearranged{values: map[*ir.Value]moves{}}
	for _, v := range s.order {
		m, err := s.moves(s.marks[v], perm)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", v.Name, err)
		}
		r.values[v] = m
	}
	for _, n := range s.joint {
		for _, v := range []*ir.Value{n.In(0), n.In(1), n.Out(0)} {
			if m, ok := r.values[v]; ok && !m.stays(2) {
				return nil, fmt.Errorf("%q: channels would go from one matrix of %v to another", v.Name, called(n))
			}
		}
	}
	for _, e := range s.edits {
		m, err := s.moves(e.ch, perm)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", called(e.node), err)
		}
		r.edits = append(r.edits, m)
	}
	return r, nil
}

// reordered is a constant that holds its elements in another order than it was made with.
type reordered struct {
	value *ir.Value
	moves moves
}

// permute permutes the constants of an ordering. back learns how to take that back, also with an error.
func (s *scaling) permute(r *rearranged, back *undo) ([]reordered, error) {
	var done []reordered
	for i, e := range s.edits {
		if r.edits[i].none() {
			continue
		}
		v, chain, err := e.constant()
		if err != nil {
			return nil, fmt.Errorf("%v: %w", called(e.node), err)
		}
		t, err := r.edits[i].apply(op.ConstantOf(v))
		if err != nil {
			return nil, fmt.Errorf("%v: constant %q: %w", called(e.node), v.Name, err)
		}
		replaceConst(e.node, e.slot, v, chain, t, back)
		if v, _, err = e.constant(); err != nil {
			return nil, err
		}
		done = append(done, reordered{v, r.edits[i]})
	}
	return done, nil
}

// unmarked returns the results of an ordering's nodes that it leaves as they are.
func (s *scaling) unmarked() []*ir.Value {
	var vs []*ir.Value
	for _, n := range s.nodes {
		for _, v := range n.Outs() {
			if v != nil && !s.marked(v) {
				vs = append(vs, v)
			}
		}
	}
	return vs
}

// headChannels labels the channels of a value along one axis, or along those of heads and of each head's channels. They are
// channels 0 to n-1, head by head; nil if their number is not known.
func headChannels(v *ir.Value, head, axis int) *channels {
	d := v.Type.Dim(axis)
	if !d.Known() {
		return nil
	}
	if head < 0 {
		return alongAxis(v.Type.Rank(), axis, int(d.Size))
	}
	h := v.Type.Dim(head)
	if !h.Known() {
		return nil
	}
	period := ones(v.Type.Rank())
	period[head], period[axis] = int(h.Size), int(d.Size)
	return build(period, func(idx []int) int32 { return int32(idx[head]*int(d.Size) + idx[axis]) })
}

// refreshWeight points a weight's choice at the constant that its site reads now.
func refreshWeight(d *Decision, w *Choice, back *undo) {
	was := *w
	w.Value, w.Chain, w.Axes, _ = weight(d.Node.In(w.Slot), numfmt.Axes{K: d.Linear.InAxis, Out: d.Linear.OutAxis})
	back.then(func() { *w = was })
}
