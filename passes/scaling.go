package passes

import (
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// scaling is a rewrite that leaves a model's function alone: certain values are divided by a positive factor for each
// channel, the constants that make them are divided by it too, and the weights that read them are multiplied.
//
// It is found by closure. From the input of a linear operator, channels are followed up through the nodes that move, add or
// multiply elements to the constants that can absorb a factor, and down to all that reads the values met on the way.
// Channels that must share a factor, such as those of the query heads that read one key-value head, become one class.
type scaling struct {
	w       *wiring
	graph   *ir.Graph
	parent  []int32 // union-find over classes
	marks   map[*ir.Value]*channels
	order   []*ir.Value // marked values in the order they were found
	queue   []*ir.Value
	edits   []*paramEdit
	bySlot  map[slot]*paramEdit
	nodes   []*ir.Node // that read or make a marked value
	touched map[*ir.Node]bool
	choices map[*ir.Node]int // products of two activations: which operand takes the factor
	asked   []*ir.Node       // those among them, in order
	options map[*ir.Node]int // and how many operands they have to choose from
	forks   []*ir.Node       // nodes of which one operand alone may be scaled
	places  bool             // channels change places and not sizes: an ordering
	joint   []*ir.Node       // of an ordering: its products of two activations
}

// paramEdit changes one constant: its elements are multiplied, or divided, by the factors of their channels.
type paramEdit struct {
	node   *ir.Node
	slot   int
	site   *Site // of a weight, whose constant may lie behind a chain of nodes; nil: the constant is at the slot
	ch     *channels
	divide bool
}

// maxChoices bounds how many ways through products of activations are tried.
const maxChoices = 16

// scalingFrom finds the scaling that divides value v by a factor for each position of one of its axes, n in number. The
// error says what cannot absorb the factors.
func (w *wiring) scalingFrom(v *ir.Value, axis, n int) (*scaling, error) {
	choices := map[*ir.Node]int{}
	var first error
	for range maxChoices {
		s := &scaling{w: w, graph: v.Graph(), marks: map[*ir.Value]*channels{}, bySlot: map[slot]*paramEdit{}, touched: map[*ir.Node]bool{},
			choices: choices, options: map[*ir.Node]int{}}
		err := s.close(v, alongAxis(v.Type.Rank(), axis, n))
		if err == nil {
			return s, nil
		}
		if first == nil {
			first = err
		}
		next := len(s.asked) - 1
		for ; next >= 0; next-- {
			if k := s.asked[next]; choices[k]+1 < s.options[k] {
				break
			}
		}
		if next < 0 {
			break
		}
		tried := choices
		choices = map[*ir.Node]int{}
		for _, k := range s.asked[:next] {
			choices[k] = tried[k]
		}
		choices[s.asked[next]] = tried[s.asked[next]] + 1
	}
	return nil, first
}

// close follows channels until nothing new is met.
func (s *scaling) close(v *ir.Value, ch *channels) error {
	for i := range ch.label {
		s.parent = append(s.parent, int32(i))
	}
	if err := s.mark(v, ch); err != nil {
		return err
	}
	for len(s.queue) > 0 {
		v := s.queue[0]
		s.queue = s.queue[1:]
		if err := s.up(v, s.marks[v]); err != nil {
			return err
		}
		for _, u := range v.Uses() {
			if err := s.down(v, u, s.marks[v]); err != nil {
				return err
			}
		}
	}
	for _, n := range s.forks {
		if s.marked(n.In(0)) && s.marked(n.In(1)) {
			return fmt.Errorf("%v multiplies two values that scale", called(n))
		}
	}
	return nil
}

// called names a node in reports: by its name, or its result's if it has none.
func called(n *ir.Node) string {
	if n.Name == "" && n.Out(0) != nil {
		return fmt.Sprintf("%q (%v)", n.Out(0).Name, n.Op)
	}
	return n.String()
}

func (s *scaling) marked(v *ir.Value) bool { return v != nil && s.marks[v] != nil }

func (s *scaling) find(a int32) int32 {
	for s.parent[a] != a {
		s.parent[a] = s.parent[s.parent[a]]
		a = s.parent[a]
	}
	return a
}

// union makes two classes one and returns it; none gives way.
func (s *scaling) union(a, b int32) int32 {
	if a == none {
		return b
	}
	if b == none {
		return a
	}
	a, b = s.find(a), s.find(b)
	lo, hi := min(a, b), max(a, b)
	s.parent[hi] = lo
	return lo
}

// mark says that v is divided by the factors of its channels ch.
func (s *scaling) mark(v *ir.Value, ch *channels) error {
	if ch.empty() {
		return nil
	}
	if v.Graph() != s.graph {
		return fmt.Errorf("%q belongs to an enclosing graph", v.Name)
	}
	if !v.Type.Elem.IsFloat() {
		return fmt.Errorf("%q has type %v", v.Name, v.Type.Elem)
	}
	old := s.marks[v]
	if old == nil {
		s.marks[v] = ch
		s.order = append(s.order, v)
		s.queue = append(s.queue, v)
		return nil
	}
	merged, grown, err := s.merge(old, ch)
	if err != nil {
		return fmt.Errorf("%q: %w", v.Name, err)
	}
	if s.marks[v] = merged; grown {
		s.queue = append(s.queue, v)
	}
	return nil
}

// merge unites two descriptions of one value's channels. grown reports whether a says less than both.
func (s *scaling) merge(a, b *channels) (both *channels, grown bool, err error) {
	period := make([]int, len(a.period))
	for i, p := range a.period {
		q := b.period[i]
		switch {
		case p%q == 0:
			period[i] = p
		case q%p == 0:
			period[i] = q
			grown = true
		default:
			return nil, false, fmt.Errorf("channels of %d and %d positions meet along axis %d", p, q, i)
		}
	}
	x, y := a.widened(period), b.widened(period)
	both = &channels{period, make([]int32, len(x.label))}
	for i := range both.label {
		if x.label[i] == none && y.label[i] != none {
			grown = true
		}
		both.label[i] = s.union(x.label[i], y.label[i])
	}
	return both, grown, nil
}

func (s *scaling) touch(n *ir.Node) {
	if !s.touched[n] {
		s.touched[n] = true
		s.nodes = append(s.nodes, n)
	}
}

// operand says that operand i of a node must be divided: a constant is edited, any other value marked.
func (s *scaling) operand(n *ir.Node, i int, ch *channels) error {
	if ch.empty() {
		return nil
	}
	v := n.In(i)
	if op.ConstantOf(v) != nil {
		return s.edit(&paramEdit{node: n, slot: i, ch: ch, divide: true})
	}
	return s.mark(v, ch)
}

// edit notes a change of a constant.
func (s *scaling) edit(e *paramEdit) error {
	key := slot{e.node, e.slot}
	old := s.bySlot[key]
	if old == nil {
		s.bySlot[key] = e
		s.edits = append(s.edits, e)
		return nil
	}
	if old.divide != e.divide {
		return fmt.Errorf("%v would both take and give the factors", called(e.node))
	}
	merged, _, err := s.merge(old.ch, e.ch)
	if err != nil {
		return err
	}
	old.ch = merged
	return nil
}

// fork notes a product of which one operand alone may be scaled, and returns the marked one, -1 if there is none.
func (s *scaling) fork(n *ir.Node) int {
	if !slices.Contains(s.forks, n) {
		s.forks = append(s.forks, n)
	}
	for i := range 2 {
		if s.marked(n.In(i)) {
			return i
		}
	}
	return -1
}

// broadcast translates channels of an elementwise result to those of an operand; wide is false where the operand has one
// element for several channels.
func (s *scaling) broadcast(out *channels, v *ir.Value) (ch *channels, wide bool, err error) {
	if v == nil || !v.Type.Ranked {
		return nil, false, fmt.Errorf("the rank of an operand is unknown")
	}
	dims := v.Type.Dims
	shift := len(out.period) - len(dims)
	if shift < 0 {
		return nil, false, fmt.Errorf("%q has more dimensions than the result it makes", v.Name)
	}
	wide = true
	for a, p := range out.period {
		if p > 1 && (a < shift || dims[a-shift].Size == 1) {
			wide = false
		}
	}
	period := make([]int, len(dims))
	for a := range dims {
		if period[a] = out.period[a+shift]; dims[a].Size == 1 {
			period[a] = 1
		}
	}
	// every element of the result has its say over the element of the operand that it comes from
	ch = build(period, func([]int) int32 { return none })
	idx := make([]int, len(dims))
	build(out.period, func(o []int) int32 {
		k := 0
		for a := range idx {
			k = k*period[a] + o[a+shift]%period[a]
		}
		ch.label[k] = s.union(ch.label[k], out.at(o))
		return none
	})
	return ch, wide, nil
}

// raised translates channels of an operand to those of an elementwise result of the given rank.
func raised(in *channels, rank int) *channels {
	axes := make([]int, rank-len(in.period))
	for i := range axes {
		axes[i] = i
	}
	return in.with(axes)
}

// up makes whatever produces v give it divided.
func (s *scaling) up(v *ir.Value, ch *channels) error {
	n, out := v.Def()
	if n == nil {
		return fmt.Errorf("%q is an input of the graph", v.Name)
	}
	s.touch(n)
	if site := s.w.linear[n]; site != nil {
		return s.linearOut(site, ch)
	}
	f := op.FlowOf(n, out, s.w.known)
	if s.places {
		if done, err := s.orderUp(n, f, ch); done {
			return err
		}
	}
	x := n.In(0)
	var in *channels
	var err error
	switch f.Kind {
	case op.Same, op.Pooled, op.Padded:
		if err = carries(f, ch); err == nil {
			in = ch
		}
	case op.Permuted:
		inverse := make([]int, len(f.Perm))
		for i, a := range f.Perm {
			inverse[a] = i
		}
		in = ch.permuted(inverse)
	case op.Reshaped:
		in, err = ch.regroup(v.Type.Dims, x.Type.Dims)
	case op.Inserted:
		in, err = ch.without(f.Axes)
	case op.Dropped:
		in = ch.with(f.Axes)
	case op.Taken:
		in, err = s.untaken(n, f, ch)
	case op.Joined:
		return s.joinedUp(n, f, ch)
	case op.Spread:
		in, _, err = s.broadcast(ch, x)
	case op.Reduced:
		if in = ch; f.Drop {
			in = ch.with(f.Axes)
		}
	case op.Product:
		return s.productUp(n, ch)
	case op.Quotient:
		s.fork(n)
		in, _, err = s.broadcast(ch, x)
		if s.marked(n.In(1)) {
			err = fmt.Errorf("%v divides by a value that scales", called(n))
		}
	case op.Summed:
		return s.sumUp(n, ch)
	case op.Matrix:
		return s.matrixUp(n, ch)
	case op.Normed:
		return s.normUp(n, f, ch)
	default:
		return fmt.Errorf("it is made by %v, which is not proportional to its input", called(n))
	}
	if err != nil {
		return fmt.Errorf("%w (at %v)", err, called(n))
	}
	return s.operand(n, 0, in)
}

// carries checks that the axes along which channels lie pass a pooling or padding.
func carries(f op.Flow, ch *channels) error {
	for a, p := range ch.period {
		if p > 1 && (f.Kind == op.Pooled && a > 1 || f.Kind == op.Padded && slices.Contains(f.Axes, a)) {
			return fmt.Errorf("its channels lie along axis %d, which is pooled or padded", a)
		}
	}
	return nil
}

// untaken translates channels of a part of an operand to those of the operand.
func (s *scaling) untaken(n *ir.Node, f op.Flow, out *channels) (*channels, error) {
	if f.Drop {
		out = out.with([]int{f.Axis})
	}
	if out.period[f.Axis] == 1 {
		return out, nil
	}
	d := n.In(0).Type.Dim(f.Axis)
	if f.Index == nil || !d.Known() {
		return nil, fmt.Errorf("which channels are taken along axis %d is not known", f.Axis)
	}
	period := slices.Clone(out.period)
	period[f.Axis] = int(d.Size)
	in := build(period, func([]int) int32 { return none })
	build(append(slices.Clone(period[:f.Axis]), append([]int{len(f.Index)}, period[f.Axis+1:]...)...), func(o []int) int32 {
		k := 0
		for a := range o {
			i := o[a]
			if a == f.Axis {
				i = f.Index[i]
			}
			k = k*period[a] + i
		}
		in.label[k] = s.union(in.label[k], out.at(o))
		return none
	})
	return in, nil
}

// joinedUp divides the operands of a concatenation.
func (s *scaling) joinedUp(n *ir.Node, f op.Flow, out *channels) error {
	at := 0
	for i, v := range n.Ins() {
		in := out
		if p := out.period[f.Axis]; p > 1 {
			d := v.Type.Dim(f.Axis)
			if !d.Known() {
				return fmt.Errorf("%v joins channels of unknown number", called(n))
			}
			index := make([]int, d.Size)
			for k := range index {
				index[k] = (at + k) % p
			}
			at += int(d.Size)
			var err error
			if in, err = out.taken(f.Axis, index); err != nil {
				return err
			}
		}
		if err := s.operand(n, i, in); err != nil {
			return err
		}
	}
	return nil
}

// productUp divides one operand of an elementwise product: the one that is scaled already, a constant that has a number for
// every channel, or one of the others, tried in turn.
func (s *scaling) productUp(n *ir.Node, out *channels) error {
	if i := s.fork(n); i >= 0 {
		ch, _, err := s.broadcast(out, n.In(i))
		if err != nil {
			return err
		}
		return s.operand(n, i, ch)
	}
	var can []int
	for i := range 2 {
		_, wide, err := s.broadcast(out, n.In(i))
		if err != nil {
			return fmt.Errorf("%w (at %v)", err, called(n))
		}
		if wide && op.ConstantOf(n.In(i)) != nil {
			ch, _, err := s.broadcast(out, n.In(i))
			if err != nil {
				return err
			}
			return s.operand(n, i, ch)
		}
		if wide && op.ConstantOf(n.In(i)) == nil {
			can = append(can, i)
		}
	}
	if len(can) == 0 {
		return fmt.Errorf("%v has no operand with a number for each channel", called(n))
	}
	pick := can[0]
	if len(can) > 1 {
		if _, asked := s.options[n]; !asked {
			s.options[n] = len(can)
			s.asked = append(s.asked, n)
		}
		pick = can[s.choices[n]]
	}
	ch, _, err := s.broadcast(out, n.In(pick))
	if err != nil {
		return err
	}
	return s.operand(n, pick, ch)
}

// sumUp divides both operands of a sum with a constant.
func (s *scaling) sumUp(n *ir.Node, out *channels) error {
	if op.ConstantOf(n.In(0)) == nil && op.ConstantOf(n.In(1)) == nil {
		return fmt.Errorf("%v adds two activations: another branch would have to scale with it", called(n))
	}
	for i := range 2 {
		ch, wide, err := s.broadcast(out, n.In(i))
		if err != nil {
			return fmt.Errorf("%w (at %v)", err, called(n))
		}
		if t := op.ConstantOf(n.In(i)); t != nil && !wide {
			if x, ok := t.Float32s(); ok && !slices.ContainsFunc(x, func(f float32) bool { return f != 0 }) {
				continue
			}
			return fmt.Errorf("%v adds one number to several channels", called(n))
		}
		if err := s.operand(n, i, ch); err != nil {
			return err
		}
	}
	return nil
}

// matrixUp divides the operand of a product of two activations along whose columns (or rows) the channels lie.
func (s *scaling) matrixUp(n *ir.Node, out *channels) error {
	rank := len(out.period)
	if rank < 2 || n.In(0).Type.Rank() < 2 || n.In(1).Type.Rank() < 2 {
		return fmt.Errorf("%v multiplies a vector", called(n))
	}
	columns, rows := out.period[rank-1] > 1, out.period[rank-2] > 1
	side := s.fork(n)
	switch {
	case columns && rows, side == 0 && columns, side == 1 && rows:
		return fmt.Errorf("%v: the channels belong to both of its operands", called(n))
	case side < 0 && rows:
		side = 0
	case side < 0:
		side = 1
	}
	ch, _, err := s.broadcast(out, n.In(side))
	if err != nil {
		return fmt.Errorf("%w (at %v)", err, called(n))
	}
	return s.operand(n, side, ch)
}

// normUp divides the parameters of a normalization.
func (s *scaling) normUp(n *ir.Node, f op.Flow, out *channels) error {
	if d, ok := op.Lookup(n); ok && d.Name == "BatchNormalization" && !op.InferenceBatchNorm(n) {
		return fmt.Errorf("%v is not in the form of inference", called(n))
	}
	for _, i := range []int{f.Scale, f.Bias} {
		if i < 0 {
			continue
		}
		t := op.ConstantOf(n.In(i))
		if t == nil {
			return fmt.Errorf("%v has parameters that are no constants", called(n))
		}
		var ch *channels
		if f.Axis == 1 {
			if !out.only(1) || t.Len() != out.period[1] {
				return fmt.Errorf("%v has %d parameters for %d channels", called(n), t.Len(), out.period[1])
			}
			ch = &channels{[]int{out.period[1]}, out.label}
		} else {
			var wide bool
			var err error
			if ch, wide, err = s.broadcast(out, n.In(i)); err != nil {
				return fmt.Errorf("%w (at %v)", err, called(n))
			} else if !wide {
				return fmt.Errorf("%v has one parameter for several channels", called(n))
			}
		}
		if err := s.edit(&paramEdit{node: n, slot: i, ch: ch, divide: true}); err != nil {
			return err
		}
	}
	return nil
}
