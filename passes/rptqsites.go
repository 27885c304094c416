package passes

import (
	"fmt"
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
)

// rptqFinder finds the values that rptq clusters.
type rptqFinder struct {
	u             *Unit
	o             RPTQOptions
	by            map[rptqKey]*rptqTarget
	targets       []*rptqTarget
	probabilities []rptqProbability
	at            map[*ir.Node]*Decision
}

type rptqKey struct {
	value      *ir.Value
	graph      *ir.Graph
	head, axis int
}

// rptqProbability is an operand that holds attention probabilities.
type rptqProbability struct {
	site   *Decision
	choice *Choice
	bits   int
}

func (f *rptqFinder) find(ds []*Decision) {
	for _, d := range ds {
		f.at[d.Node] = d
	}
	outputs := map[*Decision]*rptqTarget{} // context product → the input that its result becomes
	for _, d := range ds {
		if d.Kind != Linear || d.Linear.XAxis == 1 && d.Node.In(d.Linear.X).Type.Rank() > 2 {
			continue
		}
		c := d.input(d.Linear.X)
		if c == nil || !f.takes(d, c) {
			continue
		}
		kind := f.kind(d, ds)
		t := f.target(d, c, kind, -1, fromStart(c.Axes.K, c.Value))
		if t == nil {
			continue
		}
		if from := contextOf(c.Value); kind == rptqR3 {
			outputs[f.at[from]] = t
		}
	}
	for _, d := range ds {
		switch d.Kind {
		case Scores:
			f.scores(d)
		case Context:
			f.context(d, outputs[d])
		}
	}
}

// input returns the choice for an input slot of a site.
func (d *Decision) input(slot int) *Choice {
	for i := range d.Choices {
		if c := &d.Choices[i]; c.Role == numfmt.Input && c.Slot == slot {
			return c
		}
	}
	return nil
}

// takes reports whether an operand is rptq's to quantize, and reports those whose scheme it cannot serve.
func (f *rptqFinder) takes(d *Decision, c *Choice) bool {
	s := c.Scheme
	switch {
	case s.IsNone():
		return false // fakequant says why
	case s.Format.Kind != numfmt.Int || s.Dynamic || !s.Scaled():
		f.u.skip(d.Name, fmt.Sprintf("clusters are for static integer activations, the policy says %v", s))
		return false
	case !c.Value.Type.Ranked:
		f.u.skip(d.Name, fmt.Sprintf("the rank of its input %q is unknown", c.Value.Name))
		return false
	}
	return true
}

// target notes an operand of a site.
func (f *rptqFinder) target(d *Decision, c *Choice, kind rptqKind, head, axis int) *rptqTarget {
	bits := c.Scheme.Format.Bits
	if fromNorm(c.Value) {
		bits = max(bits, f.o.LN)
	}
	key := rptqKey{c.Value, d.Node.Graph(), head, axis}
	t := f.by[key]
	if t == nil {
		t = &rptqTarget{kind: kind, value: c.Value, bits: bits, head: head, axis: axis}
		f.by[key] = t
		f.targets = append(f.targets, t)
	}
	t.kind = min(t.kind, kind) // the products that read a value together may be of several kinds: queries, keys and a gated MLP
	t.users, t.sites = append(t.users, c), append(t.sites, d)
	return t
}

// heads returns the axis of heads of an attention operand whose channels lie along axis: the second of four.
func headAxis(v *ir.Value) int {
	if v.Type.Rank() == 4 {
		return 1
	}
	return -1
}

// scores notes queries and keys, which share their clusters.
func (f *rptqFinder) scores(d *Decision) {
	q, k := d.input(0), d.input(1)
	if q == nil || k == nil || !f.takes(d, q) || !f.takes(d, k) {
		return
	}
	a := f.target(d, q, rptqR2, headAxis(q.Value), fromStart(-1, q.Value))
	b := f.target(d, k, rptqR2, headAxis(k.Value), fromStart(-2, k.Value))
	if a != b && a.mate == nil && b.mate == nil {
		a.mate, b.mate, b.second = b, a, true
	}
}

// context notes probabilities and values; the output of attention has the clusters of the values.
func (f *rptqFinder) context(d *Decision, out *rptqTarget) {
	p, v := d.input(0), d.input(1)
	axis := -1
	if p != nil && v != nil && !softmaxBefore(p.Value) {
		p, v, axis = v, p, -2
	}
	if p != nil && !p.Scheme.IsNone() {
		if p.Scheme.Format.Kind == numfmt.Int {
			bits := f.o.P
			if bits == 0 {
				bits = p.Scheme.Format.Bits
			}
			f.probabilities = append(f.probabilities, rptqProbability{d, p, bits})
		} else {
			f.takes(d, p)
		}
	}
	if v == nil || !f.takes(d, v) {
		return
	}
	t := f.target(d, v, rptqR3, headAxis(v.Value), fromStart(axis, v.Value))
	if out != nil && t.head >= 0 && t.mate == nil && out.mate == nil {
		t.mate, out.mate, t.second = out, t, true
	}
}

// kind tells what the input of a product with a weight is.
func (f *rptqFinder) kind(d *Decision, ds []*Decision) rptqKind {
	x := d.Node.In(d.Linear.X)
	switch {
	case f.at[contextOf(x)] != nil && f.at[contextOf(x)].Kind == Context:
		return rptqR3
	case f.makesScores(d.Node.Out(0)):
		return rptqR1
	case fromNorm(x):
		return rptqR4
	}
	return rptqR5
}

// makesScores reports whether a product's result becomes an operand of a product of queries and keys, with only biases,
// scaling, rotary embeddings and changes of shape between.
func (f *rptqFinder) makesScores(v *ir.Value) bool {
	scores := func(u ir.Use) bool {
		d := f.at[u.Node]
		return d != nil && d.Kind == Scores
	}
	next := func(n *ir.Node) []*ir.Value {
		if !op.OnAnglePath(n) {
			return nil
		}
		return n.Outs()
	}
	return forward(v, scores, next, map[*ir.Node]bool{}, maxWalk)
}

// contextOf returns the node that a value comes from when changes of shape are undone.
func contextOf(v *ir.Value) *ir.Node {
	for range maxWalk {
		n := v.DefNode()
		if n == nil {
			return nil
		}
		in, _, ok := op.Source(n)
		if !ok && !op.Reshapes(n) {
			return n
		}
		if !ok {
			in = n.In(0)
		}
		v = in
	}
	return nil
}

// fromNorm reports whether a value is what a normalization puts out, in one operator or written out.
func fromNorm(v *ir.Value) bool {
	for range maxWalk {
		n := contextOf(v)
		switch {
		case n == nil:
			return false
		case op.Normalizes(n), op.ScalesBySpread(n):
			return true
		}
		next := gainOrBias(n)
		if next == nil {
			return false
		}
		v = next
	}
	return false
}

// gainOrBias returns the operand that a node multiplies by, or adds to, a constant vector; nil for other nodes.
func gainOrBias(n *ir.Node) *ir.Value {
	if n.NumIn() != 2 || !op.OnScorePath(n) || n.In(0) == nil || n.In(1) == nil {
		return nil
	}
	for i := range 2 {
		if t := op.ConstantOf(n.In(i)); t != nil && t.Elem().IsFloat() && t.Rank() <= 1 {
			return n.In(1 - i)
		}
	}
	return nil
}

// channelRanges observes the least and the largest value of each channel of every sample.
type channelRanges struct {
	head, axis      int
	heads, channels int
	samples         map[int][2][]float32
}

// Passes returns 1.
func (r *channelRanges) Passes() int { return 1 }

// Ordered reports that samples may come in any order.
func (r *channelRanges) Ordered() bool { return false }

// Observe takes one sample.
func (r *channelRanges) Observe(_, sample int, t *ir.Tensor) error {
	x, ok := t.Float32s()
	if !ok {
		return fmt.Errorf("%v values have no range", t.Elem())
	}
	s := t.Shape()
	heads, channels := 1, s[r.axis]
	if r.head >= 0 {
		heads = s[r.head]
		channels *= heads
	}
	if r.channels != 0 && (heads != r.heads || channels != r.channels) {
		return fmt.Errorf("shape %v has %d channels in %d heads, earlier samples had %d in %d", s, channels, heads, r.channels, r.heads)
	}
	r.heads, r.channels = heads, channels
	old, ok := r.samples[sample]
	if !ok {
		old = [2][]float32{slices.Repeat([]float32{float32(math.Inf(1))}, channels), slices.Repeat([]float32{float32(math.Inf(-1))}, channels)}
		r.samples[sample] = old
	}
	lo, hi := old[0], old[1]
	inner := func(axis int) int {
		n := 1
		for _, d := range s[axis+1:] {
			n *= d
		}
		return n
	}
	step, headStep := inner(r.axis), 1
	if r.head >= 0 {
		headStep = inner(r.head)
	}
	for i, v := range x {
		if v != v || math.IsInf(float64(v), 0) {
			return fmt.Errorf("element %d is %v, wanted finite values", i, v)
		}
		c := i / step % s[r.axis]
		if r.head >= 0 {
			c += i / headStep % heads * s[r.axis]
		}
		lo[c], hi[c] = min(lo[c], v), max(hi[c], v)
	}
	return nil
}

// emaMomentum weighs the samples before (METHODS.md §3).
const emaMomentum = 0.99

// result joins the samples' ranges: the largest, or their moving average in the order of the samples.
func (r *channelRanges) result(how string) (lo, hi []float32, err error) {
	order := make([]int, 0, len(r.samples))
	for i := range r.samples {
		order = append(order, i)
	}
	slices.Sort(order)
	l, h := make([]float64, r.channels), make([]float64, r.channels)
	for n, i := range order {
		for c := range l {
			sl, sh := float64(r.samples[i][0][c]), float64(r.samples[i][1][c])
			switch {
			case sl > sh:
				return nil, nil, fmt.Errorf("a sample had no element of channel %d", c)
			case n == 0:
				l[c], h[c] = sl, sh
			case how == "ema":
				l[c] = emaMomentum*l[c] + (1-emaMomentum)*sl
				h[c] = emaMomentum*h[c] + (1-emaMomentum)*sh
			default:
				l[c], h[c] = min(l[c], sl), max(h[c], sh)
			}
		}
	}
	if len(order) == 0 || r.channels == 0 {
		return nil, nil, fmt.Errorf("no sample reached it")
	}
	for c := range l {
		lo, hi = append(lo, float32(l[c])), append(hi, float32(h[c]))
	}
	return lo, hi, nil
}
