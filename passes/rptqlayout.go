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
	order   map[*ir.Node]int
	witness *witness // for products whose inputs are gathered
}

// clusteredWeight says what gptq must know of a weight whose input rptq quantizes by clusters.
type clusteredWeight struct {
	labels []int // cluster of each column, in the order in which the channels were made
	perm   []int // channel that each column of the weight now meets; nil: they are in that order
}

// gathering is a value whose channels rptq has put in the order of their clusters.
type gathering struct {
	from, to *ir.Value // as it was made; as products read it, quantized
	axis     int
	scheme   numfmt.Scheme // for each channel of from, which is the same
	params   numfmt.Params
	weights  []*Choice // whose columns are in that order too
}

// insert puts the quantizers of one value in place.
func (e *rptqEditor) insert(ctx context.Context, t *rptqTarget) error {
	lo, hi, err := t.ranges.result(e.o.Range)
	if err != nil {
		return err
	}
	clo, chi := t.c.ranges(lo, hi)
	before := t.sites[0].Node
	for _, s := range t.sites {
		if e.order[s.Node] < e.order[before] {
			before = s.Node
		}
	}
	weights, _ := t.weights()
	how, perm := "per axis", []int(nil)
	done := false
	if e.o.Layout == "gather" && t.gathers() {
		switch err := e.gathered(ctx, t, before, clo, chi, weights); {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			how = fmt.Sprintf("per axis, as gathering is not kept: %v", err)
		default:
			how, done = "gathered", true
			if !slices.IsSorted(t.c.perm) {
				perm = t.c.perm
			}
		}
	}
	if !done {
		v, err := e.perAxis(t, before, clo, chi)
		if err != nil {
			return err
		}
		for i, c := range t.users {
			t.sites[i].Node.SetIn(c.Slot, v)
		}
	}
	for _, s := range t.sites {
		e.u.did(s.Name, fmt.Sprintf("input %q: %v, %d clusters of %d channels in %d bits, %s", t.value.Name, t.kind, len(t.c.sizes), len(t.c.labels), t.bits, how))
	}
	if e.u.clusters == nil {
		e.u.clusters = map[*ir.Value]*clusteredWeight{}
	}
	for _, w := range weights {
		e.u.clusters[w.Value] = &clusteredWeight{t.c.labels, perm}
	}
	return nil
}

// gathers reports whether the channels of a value can be put in another order where it is read.
func (t *rptqTarget) gathers() bool {
	_, apart := t.weights()
	return apart && t.head < 0
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

// perAxis quantizes a value with a scale for each channel. Channels of heads are laid side by side for it.
func (e *rptqEditor) perAxis(t *rptqTarget, before *ir.Node, clo, chi []float32) (*ir.Value, error) {
	v, g, axis := t.value, before.Graph(), t.axis
	var back func(*ir.Value) (*ir.Value, error)
	if t.head >= 0 {
		axis = 2
		perm := []int64{0, int64(6 - t.head - t.axis), int64(t.head), int64(t.axis)}
		undo := make([]int64, 4)
		for i, p := range perm {
			undo[p] = int64(i)
		}
		n, err := e.node(g, before, v.Name+"_heads", ir.Op("Transpose"), []*ir.Value{v}, ir.IntsAttr("perm", perm...))
		if err != nil {
			return nil, err
		}
		flat := g.Const(v.Name+"_flat", ir.Ints(0, 0, int64(t.ranges.channels)))
		if v, err = e.node(g, before, t.value.Name+"_channels", ir.Op("Reshape"), []*ir.Value{n, flat}); err != nil {
			return nil, err
		}
		back = func(q *ir.Value) (*ir.Value, error) {
			split := g.Const(t.value.Name+"_split", ir.Ints(0, 0, int64(t.ranges.heads), int64(t.ranges.channels/t.ranges.heads)))
			q, err := e.node(g, before, t.value.Name+"_unflat", ir.Op("Reshape"), []*ir.Value{q, split})
			if err != nil {
				return nil, err
			}
			return e.node(g, before, t.value.Name+"_back", ir.Op("Transpose"), []*ir.Value{q}, ir.IntsAttr("perm", undo...))
		}
	}
	s, p, err := t.fit(e.o.Grid, axis, clo, chi)
	if err != nil {
		return nil, err
	}
	q, err := e.fakeQuant(g, before, v, t.value.Name, s, p, len(t.c.labels))
	if err != nil || back == nil {
		return q, err
	}
	return back(q)
}

// fit makes the scheme of a value whose channels lie along an axis, and the parameters of each channel: those of its cluster.
func (t *rptqTarget) fit(grid string, axis int, clo, chi []float32) (numfmt.Scheme, numfmt.Params, error) {
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

// gathered puts the channels in the order of their clusters, proves that the products still compute the same with their
// weights permuted alike, and then quantizes each cluster as a tensor.
func (e *rptqEditor) gathered(ctx context.Context, t *rptqTarget, before *ir.Node, clo, chi []float32, weights []*Choice) error {
	g, name := before.Graph(), t.value.Name
	var want []*ir.Value
	for _, n := range t.nodes() {
		want = append(want, n.Out(0))
	}
	var pieces []*ir.Value
	var joined *ir.Node
	err := e.u.prove(ctx, e.witness, t.nodes(), want, func(back *undo) ([]*ir.Node, error) {
		inserted, err := e.reorder(t, before, back)
		if err != nil {
			return nil, err
		}
		pieces = []*ir.Value{t.value}
		if len(inserted) > 0 {
			pieces = inserted[len(inserted)-1].Outs()
		}
		if len(pieces) > 1 {
			v, err := e.node(g, before, name+"_joined", ir.Op("Concat"), pieces, ir.IntAttr("axis", int64(t.axis)))
			if err != nil {
				return nil, err
			}
			joined = v.DefNode()
			back.then(func() { remove(joined) })
			inserted = append(inserted, joined)
		}
		v := t.value
		if len(inserted) > 0 {
			v = inserted[len(inserted)-1].Out(0)
		}
		for i, c := range t.users {
			n, slot := t.sites[i].Node, c.Slot
			n.SetIn(slot, v)
			back.then(func() { n.SetIn(slot, t.value) })
		}
		for i, w := range weights {
			if err := permuteWeight(t.sites[i], w, t.c.perm, back); err != nil {
				return nil, err
			}
		}
		return inserted, nil
	})
	if err != nil {
		return err
	}
	for i, piece := range pieces {
		s, p, err := fitClusters(e.o.Grid, t.bits, "", clo[i:i+1], chi[i:i+1])
		if err != nil {
			return err
		}
		if joined == nil {
			q, err := e.fakeQuant(g, before, piece, name+"_cluster0", s, p, 0)
			if err != nil {
				return err
			}
			for i, c := range t.users {
				t.sites[i].Node.SetIn(c.Slot, q)
			}
			return nil
		}
		q, err := e.fakeQuant(g, joined, piece, fmt.Sprintf("%s_cluster%d", name, i), s, p, 0)
		if err != nil {
			return err
		}
		joined.SetIn(i, q)
	}
	if !slices.IsSorted(t.c.perm) {
		s, p, err := t.fit(e.o.Grid, t.axis, clo, chi)
		if err != nil {
			return err
		}
		e.u.gathered = append(e.u.gathered, &gathering{t.value, joined.Out(0), t.axis, s, p, weights})
	}
	return nil
}

// reorder inserts what puts the channels in the order of their clusters, if they are not, and parts them, if there are several.
func (e *rptqEditor) reorder(t *rptqTarget, before *ir.Node, back *undo) ([]*ir.Node, error) {
	g, name, v := before.Graph(), t.value.Name, t.value
	var inserted []*ir.Node
	add := func(n *ir.Node) {
		inserted = append(inserted, n)
		back.then(func() { remove(n) })
	}
	if !slices.IsSorted(t.c.perm) {
		perm := make([]int64, len(t.c.perm))
		for i, p := range t.c.perm {
			perm[i] = int64(p)
		}
		var err error
		if v, err = e.node(g, before, name+"_gathered", ir.Op("Gather"), []*ir.Value{v, g.Const(name+"_order", ir.Ints(perm...))}, ir.IntAttr("axis", int64(t.axis))); err != nil {
			return nil, err
		}
		add(v.DefNode())
	}
	if len(t.c.sizes) == 1 {
		return inserted, nil
	}
	sizes := make([]int64, len(t.c.sizes))
	var outs []string
	for i, n := range t.c.sizes {
		sizes[i] = int64(n)
		outs = append(outs, fmt.Sprintf("%s_cluster%d", name, i))
	}
	ins, attrs := []*ir.Value{v}, []ir.Attr{ir.IntAttr("axis", int64(t.axis))}
	if e.u.Model.Opset[""] >= 13 {
		ins = append(ins, g.Const(name+"_sizes", ir.Ints(sizes...)))
	} else {
		attrs = append(attrs, ir.IntsAttr("split", sizes...))
	}
	n, err := op.Insert(g, before, name+"_clusters", ir.Op("Split"), ins, outs, attrs...)
	if err != nil {
		return nil, err
	}
	n.Origin = "rptq:" + name
	add(n)
	return inserted, nil
}

// remove takes back an inserted node, which nobody reads any more.
func remove(n *ir.Node) {
	if err := n.Graph().Remove(n); err != nil {
		panic("BUG: passes: " + err.Error())
	}
}

// permuteWeight puts the columns of a product's weight in another order.
func permuteWeight(d *Decision, w *Choice, perm []int, back *undo) error {
	t, err := permuted(op.ConstantOf(w.Value), w.Axes.K, perm)
	if err != nil {
		return fmt.Errorf("weight %q: %w", w.Value.Name, err)
	}
	was := *w
	replaceConst(d.Node, w.Slot, w.Value, w.Chain, t, back)
	w.Value, w.Chain, w.Axes, _ = weight(d.Node.In(w.Slot), numfmt.Axes{K: d.Linear.InAxis, Out: d.Linear.OutAxis})
	back.then(func() { *w = was })
	return nil
}

// permuted returns a matrix whose position i along an axis is position perm[i] of t.
func permuted(t *ir.Tensor, axis int, perm []int) (*ir.Tensor, error) {
	if err := t.Load(); err != nil {
		return nil, err
	}
	rows, cols := t.Shape()[0], t.Shape()[1]
	size, old := t.Elem().Size(1), t.Bytes()
	data := make([]byte, len(old))
	for r := range rows {
		for c := range cols {
			fr, fc := r, c
			if axis == 0 {
				fr = perm[r]
			} else {
				fc = perm[c]
			}
			copy(data[(r*cols+c)*size:][:size], old[(fr*cols+fc)*size:])
		}
	}
	return ir.TensorOf(t.Elem(), t.Shape(), data)
}

// ungather puts the channels that rptq has gathered back into the order in which they are made, in a copy of the model: a
// quantizer with a scale for each channel, and weights as they were. Sums then have the order that they have with layout=axis,
// and so what gptq chooses does not depend on the layout.
func (u *Unit) ungather(work *Unit, mp *ir.Mapping) error {
	e := &rptqEditor{u: work}
	for _, g := range u.gathered {
		from, to := mp.Values[g.from], mp.Values[g.to]
		if from == nil || to == nil || to.DefNode() == nil {
			return fmt.Errorf("value %q, whose channels rptq has gathered, is gone", g.from.Name)
		}
		q, err := e.fakeQuant(to.Graph(), to.DefNode(), from, g.from.Name, g.scheme, g.params, len(g.params.Scale))
		if err != nil {
			return err
		}
		to.ReplaceUses(q)
		for _, w := range g.weights {
			t, err := permuted(op.ConstantOf(w.Value), w.Axes.K, inverse(u.clusters[w.Value].perm))
			if err != nil {
				return fmt.Errorf("weight %q: %w", w.Value.Name, err)
			}
			mp.Values[w.Value].SetConst(t)
		}
	}
	work.Model.Graph.Prune()
	return nil
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
	n, err := op.Insert(g, before, name, id, ins, []string{name}, attrs...)
	if err != nil {
		return nil, err
	}
	n.Origin = "rptq:" + name
	return n.Out(0), nil
}
