package passes

import (
	"context"
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
)

// rptqEditor inserts the quantizers.
type rptqEditor struct {
	u       *Unit
	o       RPTQOptions
	at      map[*ir.Node]*Decision
	order   map[*ir.Node]int
	witness *witness // for permutations

	inserted []*ir.Node
}

// gathering is a value whose channels rptq has put in the order of their clusters.
type gathering struct {
	target *rptqTarget
	to     *ir.Value     // as products read it, quantized
	scheme numfmt.Scheme // for each channel in the order in which the original makes them, which is the same
	params numfmt.Params
}

// insert puts the quantizers of one value in place, where those of its mate have not brought them along.
func (e *rptqEditor) insert(ctx context.Context, t *rptqTarget) error {
	if t.placed == "" {
		if err := e.place(ctx, t); err != nil {
			return err
		}
	}
	for _, s := range t.sites {
		e.u.did(s.Name, fmt.Sprintf("input %q: %v, %d clusters of %d channels in %d bits, %s", t.value.Name, t.kind, len(t.c.sizes), len(t.c.labels), t.bits, t.placed))
	}
	if e.u.clusters == nil {
		e.u.clusters = map[*ir.Value][]int{}
	}
	weights, _ := t.weights()
	for _, w := range weights {
		e.u.clusters[w.Value] = t.c.labels
	}
	return nil
}

// place quantizes a value in the form that it can have.
func (e *rptqEditor) place(ctx context.Context, t *rptqTarget) error {
	since := ""
	if t.why != "" {
		since = ", since " + t.why
	}
	t.placed = "per axis"
	switch ts := t.gathers(); {
	case e.o.Layout != "gather":
	case t.ordered != "":
		t.placed = t.ordered
		return e.inPieces(ctx, []*rptqTarget{t})
	case ts == nil:
		switch shared := "not all products that read it have a weight of their own to permute"; {
		case t.head >= 0:
			t.placed += since
		case since == "":
			t.placed += ", since " + shared
		default:
			t.placed += since + ", and " + shared
		}
	default:
		err := e.inPieces(ctx, ts)
		if err == nil {
			for _, m := range ts {
				m.placed = "gathered" + since
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		t.placed = fmt.Sprintf("per axis, as gathering is not kept: %v", err)
	}
	s, p, err := e.fitted(t)
	if err != nil {
		return err
	}
	q, err := e.perAxis(t, t.value, t.first(e.order), s, p)
	if err != nil {
		return err
	}
	t.read(q, nil)
	return nil
}

// clusterRanges returns the ranges of the value's clusters.
func (t *rptqTarget) clusterRanges(o RPTQOptions) (lo, hi []float32, err error) {
	if lo, hi, err = t.ranges.result(o.Range); err != nil {
		return nil, nil, err
	}
	lo, hi = t.c.ranges(lo, hi)
	return lo, hi, nil
}

// first returns the first product that reads the value.
func (t *rptqTarget) first(order map[*ir.Node]int) *ir.Node {
	return slices.MinFunc(t.nodes(), func(a, b *ir.Node) int { return order[a] - order[b] })
}

// read makes the value's users read v in its place.
func (t *rptqTarget) read(v *ir.Value, back *undo) {
	for i, c := range t.users {
		n, slot := t.sites[i].Node, c.Slot
		was := n.In(slot)
		n.SetIn(slot, v)
		if back != nil {
			back.then(func() { n.SetIn(slot, was) })
		}
	}
}

// gathers returns the values whose channels a Gather before the products that read them can put in another order together:
// an input of products with weights alone, queries with their keys; nil if there is no such order.
func (t *rptqTarget) gathers() []*rptqTarget {
	if _, apart := t.weights(); apart && t.head < 0 {
		return []*rptqTarget{t}
	}
	if t.kind == rptqR2 && t.mate != nil && t.mate.placed == "" && t.mate.drop == "" && slices.Equal(t.nodes(), t.mate.nodes()) {
		return []*rptqTarget{t, t.mate}
	}
	return nil
}

// nodes returns the products that read the value.
func (t *rptqTarget) nodes() []*ir.Node {
	var nodes []*ir.Node
	for _, s := range t.sites {
		if !slices.Contains(nodes, s.Node) {
			nodes = append(nodes, s.Node)
		}
	}
	return nodes
}

// weights returns the quantized weights that multiply the value, and whether all that do have no other user.
func (t *rptqTarget) weights() (ws []*Choice, apart bool) {
	apart = true
	for i, s := range t.sites {
		if s.Kind != Linear {
			return nil, false
		}
		for k := range s.Choices {
			c := &s.Choices[k]
			if c.Role != numfmt.Weight {
				continue
			}
			alone := op.ConstantOf(c.Value).Rank() == 2
			for _, v := range append([]*ir.Value{c.Value}, chainValues(c.Chain)...) {
				_, one := v.SingleUse()
				alone = alone && one
			}
			apart = apart && alone
			if alone && (c.Scheme.IsNone() || !c.Scheme.TwoLevel()) && t.users[i].Role == numfmt.Input {
				ws = append(ws, c)
			}
		}
	}
	return ws, apart && len(ws) == len(t.sites)
}

// flat lays the channels of a value's heads side by side along one axis, and returns where, and what undoes it; a value without
// heads is left as it is.
func (e *rptqEditor) flat(t *rptqTarget, v *ir.Value, before *ir.Node) (flat *ir.Value, axis int, undone func(*ir.Value) (*ir.Value, error), err error) {
	if t.head < 0 {
		return v, t.axis, func(v *ir.Value) (*ir.Value, error) { return v, nil }, nil
	}
	g, name := before.Graph(), t.value.Name
	perm := []int64{0, int64(6 - t.head - t.axis), int64(t.head), int64(t.axis)}
	undo := make([]int64, 4)
	for i, p := range perm {
		undo[p] = int64(i)
	}
	if v, err = e.node(g, before, name+"_heads", ir.Op("Transpose"), []*ir.Value{v}, ir.IntsAttr("perm", perm...)); err != nil {
		return nil, 0, nil, err
	}
	shape := g.Const(name+"_flat", ir.Ints(0, 0, int64(t.ranges.channels)))
	if v, err = e.node(g, before, name+"_channels", ir.Op("Reshape"), []*ir.Value{v, shape}); err != nil {
		return nil, 0, nil, err
	}
	return v, 2, func(v *ir.Value) (*ir.Value, error) {
		shape := g.Const(name+"_split", ir.Ints(0, 0, int64(t.ranges.heads), int64(t.ranges.channels/t.ranges.heads)))
		v, err := e.node(g, before, name+"_unflat", ir.Op("Reshape"), []*ir.Value{v, shape})
		if err != nil {
			return nil, err
		}
		return e.node(g, before, name+"_back", ir.Op("Transpose"), []*ir.Value{v}, ir.IntsAttr("perm", undo...))
	}, nil
}

// perAxis quantizes v, which stands for the target's value, with a scale for each channel.
func (e *rptqEditor) perAxis(t *rptqTarget, v *ir.Value, before *ir.Node, s numfmt.Scheme, p numfmt.Params) (*ir.Value, error) {
	v, _, undone, err := e.flat(t, v, before)
	if err != nil {
		return nil, err
	}
	if v, err = e.fakeQuant(before.Graph(), before, v, t.value.Name, s, p, len(t.c.labels)); err != nil {
		return nil, err
	}
	return undone(v)
}

// fit makes the scheme of a value's channels, heads side by side, and the parameters of each: those of its cluster.
func (t *rptqTarget) fit(grid string, clo, chi []float32) (numfmt.Scheme, numfmt.Params, error) {
	axis := t.axis
	if t.head >= 0 {
		axis = 2
	}
	s, p, err := fitClusters(grid, t.bits, fmt.Sprintf("/axis=%d", axis), clo, chi)
	if err != nil {
		return s, p, err
	}
	spread := func(v []float32) []float32 {
		out := make([]float32, len(t.c.labels))
		for i, k := range t.c.labels {
			out[i] = v[k]
		}
		return out
	}
	return s, numfmt.Params{Scale: spread(p.Scale), Zero: spread(p.Zero)}, nil
}

// pieces is a value parted into its clusters, and what puts them together again for the products.
type pieces struct {
	parts []*ir.Value
	node  *ir.Node // that reads the parts, each at its slot; nil: the products read the only one
	whole *ir.Value
}

// inPieces quantizes the clusters of values, each as a tensor. Channels that are not in the order of their clusters are put into it
// by a Gather: the products must then prove, without the quantizers, that they still compute the same with the rows of their
// weights permuted alike.
func (e *rptqEditor) inPieces(ctx context.Context, ts []*rptqTarget) error {
	parted := make([]pieces, len(ts))
	edit := func(back *undo) ([]*ir.Node, error) {
		n := len(e.inserted)
		back.then(func() { e.remove(n) })
		for i, t := range ts {
			var err error
			if parted[i], err = e.part(t); err != nil {
				return nil, err
			}
		}
		for i, t := range ts {
			t.read(parted[i].whole, back)
		}
		return slices.Clone(e.inserted[n:]), nil
	}
	var done []reordered
	var err error
	if t := ts[0]; t.ordered != "" {
		_, err = edit(&undo{})
	} else {
		var want []*ir.Value
		for _, n := range t.nodes() {
			want = append(want, n.Out(0))
		}
		err = e.u.prove(ctx, e.witness, t.nodes(), want, func(back *undo) ([]*ir.Node, error) {
			inserted, err := edit(back)
			if err == nil {
				done, err = permuteRows(t, back)
			}
			return inserted, err
		})
	}
	if err != nil {
		return err
	}
	e.u.reordered = append(e.u.reordered, done...)
	for i, t := range ts {
		if err := e.quantizePieces(t, parted[i]); err != nil {
			return err
		}
	}
	return nil
}

// quantizePieces quantizes the clusters of a value, which lie side by side.
func (e *rptqEditor) quantizePieces(t *rptqTarget, p pieces) error {
	clo, chi, err := t.clusterRanges(e.o)
	if err != nil {
		return err
	}
	before := p.node
	if before == nil {
		before = t.first(e.order)
	}
	to := p.whole
	for i, piece := range p.parts {
		s, params, err := fitClusters(e.o.Grid, t.bits, "", clo[i:i+1], chi[i:i+1])
		if err != nil {
			return err
		}
		q, err := e.fakeQuant(before.Graph(), before, piece, fmt.Sprintf("%s_cluster%d", t.value.Name, i), s, params, 0)
		if err != nil {
			return err
		}
		if p.node != nil {
			p.node.SetIn(i, q)
		} else {
			t.read(q, nil)
			to = q
		}
	}
	if slices.IsSorted(t.c.perm) {
		return nil
	}
	s, params, err := e.fitted(t)
	if err != nil {
		return err
	}
	e.u.gathered = append(e.u.gathered, &gathering{t, to, s, params})
	return nil
}

// part lays the channels of a value's heads side by side, puts them in the order of their clusters, if they are not, and parts the
// clusters, if there are several.
func (e *rptqEditor) part(t *rptqTarget) (p pieces, err error) {
	before := t.first(e.order)
	g, name := before.Graph(), t.value.Name
	v, axis, undone, err := e.flat(t, t.value, before)
	if err != nil {
		return p, err
	}
	if t.ordered == "" && !slices.IsSorted(t.c.perm) {
		perm := make([]int64, len(t.c.perm))
		for i, p := range t.c.perm {
			perm[i] = int64(p)
		}
		if v, err = e.node(g, before, name+"_gathered", ir.Op("Gather"), []*ir.Value{v, g.Const(name+"_order", ir.Ints(perm...))}, ir.IntAttr("axis", int64(axis))); err != nil {
			return p, err
		}
	}
	p.parts = []*ir.Value{v}
	at := len(e.inserted)
	if len(t.c.sizes) > 1 {
		sizes := make([]int64, len(t.c.sizes))
		var outs []string
		for i, n := range t.c.sizes {
			sizes[i] = int64(n)
			outs = append(outs, fmt.Sprintf("%s_cluster%d", name, i))
		}
		ins, attrs := []*ir.Value{v}, []ir.Attr{ir.IntAttr("axis", int64(axis))}
		if e.u.Model.Opset[""] >= 13 {
			ins = append(ins, g.Const(name+"_sizes", ir.Ints(sizes...)))
		} else {
			attrs = append(attrs, ir.IntsAttr("split", sizes...))
		}
		n, err := e.insertNode(g, before, name+"_clusters", ir.Op("Split"), ins, outs, attrs...)
		if err != nil {
			return p, err
		}
		p.parts = n.Outs()
		at = len(e.inserted)
		if v, err = e.node(g, before, name+"_joined", ir.Op("Concat"), p.parts, ir.IntAttr("axis", int64(axis))); err != nil {
			return p, err
		}
	}
	if p.whole, err = undone(v); err != nil {
		return p, err
	}
	if at < len(e.inserted) {
		p.node = e.inserted[at]
	}
	return p, nil
}

// remove takes back the nodes that the editor has inserted since there were n of them, which nobody else reads any more.
func (e *rptqEditor) remove(n int) {
	for _, k := range slices.Backward(e.inserted[n:]) {
		if err := k.Graph().Remove(k); err != nil {
			panic("BUG: passes: " + err.Error())
		}
	}
	e.inserted = e.inserted[:n]
}

// permuteRows puts the rows of the weights that multiply a value into the order of its clusters.
func permuteRows(t *rptqTarget, back *undo) ([]reordered, error) {
	var done []reordered
	if slices.IsSorted(t.c.perm) {
		return nil, nil
	}
	weights, _ := t.weights()
	for i, w := range weights {
		m := movesAlong(2, w.Axes.K, t.c.perm)
		c, err := m.apply(op.ConstantOf(w.Value))
		if err != nil {
			return nil, fmt.Errorf("weight %q: %w", w.Value.Name, err)
		}
		replaceConst(t.sites[i].Node, w.Slot, w.Value, w.Chain, c, back)
		refreshWeight(t.sites[i], w, back)
		done = append(done, reordered{w.Value, m})
	}
	return done, nil
}

// ungather puts the channels that rptq has put in the order of their clusters back into the order in which they are made, in a
// copy of the model: a quantizer with a scale for each channel, and constants as they were. Sums then have the order that they
// have with layout=axis, and so what gptq chooses does not depend on the layout.
func (u *Unit) ungather(work *Unit, mp *ir.Mapping) error {
	e := &rptqEditor{u: work}
	for _, g := range u.gathered {
		from, to := mp.Values[g.target.value], mp.Values[g.to]
		if from == nil || to == nil || to.DefNode() == nil {
			return fmt.Errorf("value %q, whose channels rptq has gathered, is gone", g.target.value.Name)
		}
		q, err := e.perAxis(g.target, from, to.DefNode(), g.scheme, g.params)
		if err != nil {
			return err
		}
		to.ReplaceUses(q)
	}
	for _, r := range slices.Backward(u.reordered) {
		v := mp.Values[r.value]
		if v == nil || v.Const() == nil {
			return fmt.Errorf("constant %q, which rptq has permuted, is gone", r.value.Name)
		}
		t, err := r.moves.inverse().apply(v.Const())
		if err != nil {
			return fmt.Errorf("constant %q: %w", r.value.Name, err)
		}
		v.SetConst(t)
	}
	work.Model.Graph.Prune()
	return nil
}

// orderOf returns how rptq has permuted a constant, in turn.
func (u *Unit) orderOf(v *ir.Value) []moves {
	var ms []moves
	for _, r := range u.reordered {
		if r.value == v {
			ms = append(ms, r.moves)
		}
	}
	return ms
}

// probability quantizes attention probabilities on the grid from 0 to 1.
func (e *rptqEditor) probability(p rptqProbability) error {
	s, err := numfmt.ParseScheme(fmt.Sprintf("uint%d", p.bits), numfmt.Input)
	if err != nil {
		return err
	}
	params := numfmt.Params{Scale: []float32{1 / float32(int(1)<<p.bits-1)}, Zero: []float32{0}}
	v, err := e.fakeQuant(p.site.Node.Graph(), p.site.Node, p.choice.Value, p.choice.Value.Name, s, params, 0)
	if err != nil {
		return err
	}
	p.site.Node.SetIn(p.choice.Slot, v)
	e.u.did(p.site.Name, fmt.Sprintf("input %q: probabilities in %d bits from 0 to 1", p.choice.Value.Name, p.bits))
	return nil
}

// fakeQuant inserts a quantizer; n is the length of its scales, 0 for a scalar.
func (e *rptqEditor) fakeQuant(g *ir.Graph, before *ir.Node, v *ir.Value, name string, s numfmt.Scheme, p numfmt.Params, n int) (*ir.Value, error) {
	shape := []int{}
	if n > 0 {
		shape = []int{n}
	}
	ins := []*ir.Value{v, g.Const(name+"_scale", ir.Floats(p.Scale, shape...)), g.Const(name+"_zero_point", ir.Floats(p.Zero, shape...))}
	f := op.FakeQuant{Scheme: s, Axes: numfmt.Axes{K: numfmt.NoAxis, Out: numfmt.NoAxis}, Clip: true}
	e.u.Model.Opset[op.Domain] = 1
	q, err := e.node(g, before, name+"_FakeQuant", op.FakeQuantOp, ins, f.Attrs()...)
	if err != nil {
		return nil, err
	}
	if e.u.own == nil {
		e.u.own = map[*ir.Node]bool{}
	}
	e.u.own[q.DefNode()] = true
	e.u.edit()
	return q, nil
}

// node inserts a node with one result.
func (e *rptqEditor) node(g *ir.Graph, before *ir.Node, name string, id ir.OpID, ins []*ir.Value, attrs ...ir.Attr) (*ir.Value, error) {
	n, err := e.insertNode(g, before, name, id, ins, []string{name}, attrs...)
	if err != nil {
		return nil, err
	}
	return n.Out(0), nil
}

// insertNode inserts a node.
func (e *rptqEditor) insertNode(g *ir.Graph, before *ir.Node, name string, id ir.OpID, ins []*ir.Value, outs []string, attrs ...ir.Attr) (*ir.Node, error) {
	n, err := op.Insert(g, before, name, id, ins, outs, attrs...)
	if err != nil {
		return nil, err
	}
	n.Origin = "rptq:" + name
	e.inserted = append(e.inserted, n)
	return n, nil
}
