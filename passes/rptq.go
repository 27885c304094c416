package passes

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/calib"
)

// RPTQOptions are the options of the pass rptq.
type RPTQOptions struct {
	Layout string `opt:"layout" enum:"axis|gather" doc:"axis: channels stay where they are, each with its cluster's scale; gather: the channels that enter a product with a weight are put in the order of their clusters and each cluster is quantized as a tensor (operands of attention products stay per axis)"`
	Grid   string `opt:"grid" enum:"asym|centred" doc:"asym: 2^b-1 steps over a range that holds zero; centred: the reference's 2^b steps over the range as it is, whose zero points may lie outside the type"`
	Range  string `opt:"range" enum:"ema|max" doc:"a channel's range: moving average over the samples (0.99), or the largest"`
	LN     int    `opt:"ln" doc:"least bits of what normalizations put out; 0: as the policy says"`
	P      int    `opt:"p" doc:"bits of attention probabilities, on the fixed grid from 0 to 1; 0: as the policy says"`
	R1     int    `opt:"r1" doc:"clusters of inputs of products that make queries, keys and values"`
	R2     int    `opt:"r2" doc:"clusters of queries and keys, of each head"`
	R3     int    `opt:"r3" doc:"clusters of values and of what attention puts out, of each head"`
	R4     int    `opt:"r4" doc:"clusters of other outputs of normalizations"`
	R5     int    `opt:"r5" doc:"clusters of all other inputs of products with weights"`
}

// RPTQ gives clusters of channels their own ranges.
var RPTQ = Define("rptq", rptqDoc, RPTQOptions{Layout: "axis", Grid: "asym", Range: "ema", LN: 8, P: 8, R1: 32, R2: 4, R3: 4, R4: 32, R5: 32}, rptq)

const rptqDoc = `quantizes activations by clusters of channels that have similar ranges (Yuan et al. 2023, RPTQ)

Wherever the policy gives the input of a MatMul or Gemm, or an operand of attention, a static integer scheme, the channels are
clustered by their least and largest values over the samples, and each cluster has a range of its own. Queries and keys share
their clusters, and so do values and the output of attention; both are clustered within each head. gptq then rounds weights with
a scale for each output channel and cluster of inputs. What is what follows from the graph's structure.`

// rptqKind says which of RPTQ's five places a value is at.
type rptqKind int

const (
	rptqR1 rptqKind = iota + 1 // enters the products that make queries, keys and values
	rptqR2                     // queries or keys
	rptqR3                     // values, or the output of attention
	rptqR4                     // another output of a normalization
	rptqR5                     // any other input of a product with a weight
)

func (k rptqKind) String() string { return fmt.Sprintf("R%d", int(k)) }

// rptqTarget is a value to be quantized by clusters, with all the operands that read it so.
type rptqTarget struct {
	kind  rptqKind
	value *ir.Value
	users []*Choice
	sites []*Decision // of users
	bits  int
	head  int // axis of heads, -1: none
	axis  int // axis of channels

	ranges *channelRanges
	mate   *rptqTarget // keys of queries, the output of attention of values: its clusters are this one's
	heads  int         // found by the samples
	c      clustering
	drop   string
}

func rptq(ctx context.Context, u *Unit, o RPTQOptions) error {
	for _, r := range []int{o.R1, o.R2, o.R3, o.R4, o.R5} {
		if r < 1 {
			return fmt.Errorf("%d clusters: want at least 1", r)
		}
	}
	if o.LN < 0 || o.LN > 16 || o.P < 0 || o.P > 16 {
		return fmt.Errorf("ln=%d p=%d: want up to 16 bits", o.LN, o.P)
	}
	if err := refuseQuantized(u); err != nil {
		return err
	}
	ds, err := u.Policy.Decide(u.sites())
	if err != nil {
		return err
	}
	f := &rptqFinder{u: u, o: o, by: map[rptqKey]*rptqTarget{}, at: map[*ir.Node]*Decision{}}
	f.find(ds)
	if u.DryRun || len(f.targets) == 0 && len(f.probabilities) == 0 {
		return nil
	}
	if u.Samples == nil {
		return fmt.Errorf("the channels of %d values are to be clustered by their ranges, the first is %q: give samples", len(f.targets), f.targets[0].value.Name)
	}
	var probes []calib.Probe
	for _, t := range f.targets {
		t.ranges = &channelRanges{head: t.head, axis: t.axis, samples: map[int][2][]float32{}}
		probes = append(probes, calib.Probe{Value: t.value, Into: t.ranges})
	}
	err = calib.Sweep(ctx, u.Model, u.Samples, probes, calib.Options{Jobs: u.Jobs, Runtime: u.Runtime,
		Progress: func(done int) { u.progress("samples", done, 0) }})
	if err != nil {
		return err
	}
	e := &rptqEditor{u: u, o: o, order: nodeOrder(u.Model)}
	for _, t := range f.targets {
		u.at(t.sites[0].Name)
		if err := t.cluster(o); err != nil {
			return fmt.Errorf("value %q: %w", t.value.Name, err)
		}
	}
	for _, t := range f.targets {
		u.at(t.sites[0].Name)
		if t.drop != "" {
			u.skip(t.sites[0].Name, fmt.Sprintf("%v: %s", t.kind, t.drop))
			continue
		}
		if err := e.insert(t); err != nil {
			return fmt.Errorf("value %q: %w", t.value.Name, err)
		}
	}
	for _, p := range f.probabilities {
		if err := e.probability(p); err != nil {
			return fmt.Errorf("site %q: %w", p.site.Name, err)
		}
	}
	return nil
}

// clusters returns the option that says how many there are.
func (o RPTQOptions) clusters(k rptqKind) int {
	return []int{o.R1, o.R2, o.R3, o.R4, o.R5}[k-1]
}

// cluster partitions the channels, in each head apart.
func (t *rptqTarget) cluster(o RPTQOptions) error {
	lead := t
	features := [][2][]float32{}
	if t.mate != nil && t.kind == rptqR3 {
		lead = t.mate // the reference clusters by the output of attention
	}
	for _, m := range []*rptqTarget{lead, lead.mate} {
		if m == nil || t.kind == rptqR3 && m != lead {
			continue
		}
		lo, hi, err := m.ranges.result(o.Range)
		if err != nil {
			t.drop = err.Error()
			return nil
		}
		features = append(features, [2][]float32{lo, hi})
	}
	n := len(features[0][0])
	for _, m := range []*rptqTarget{t, lead.mate} {
		if m != nil && m.ranges.channels != n {
			t.drop = fmt.Sprintf("%q has %d channels, %q has %d", lead.value.Name, n, m.value.Name, m.ranges.channels)
			return nil
		}
	}
	t.heads = max(t.ranges.heads, 1)
	if t.kind == rptqR3 && t.mate != nil {
		t.heads = max(t.heads, t.mate.ranges.heads)
	}
	per := n / t.heads
	for h := range t.heads {
		var part [][2][]float32
		for _, f := range features {
			part = append(part, [2][]float32{f[0][h*per : (h+1)*per], f[1][h*per : (h+1)*per]})
		}
		c := clusterChannels(part, o.clusters(t.kind))
		base := len(t.c.sizes)
		for _, l := range c.labels {
			t.c.labels = append(t.c.labels, base+l)
		}
		t.c.sizes = append(t.c.sizes, c.sizes...)
	}
	t.c.perm = byLabel(t.c.labels)
	return nil
}

// clusterChannels clusters channels by their least and largest values in one or more tensors.
func clusterChannels(features [][2][]float32, k int) clustering {
	n := len(features[0][0])
	points := make([][]float64, n)
	first, width := 0, math.Inf(-1)
	for i := range points {
		for _, f := range features {
			lo, hi := float64(f[0][i]), float64(f[1][i])
			points[i] = append(points[i], lo, hi)
			if hi-lo > width {
				first, width = i, hi-lo
			}
		}
	}
	return kmeans(points, k, first)
}

// ranges joins the channels' ranges of each cluster.
func (c *clustering) ranges(lo, hi []float32) (clo, chi []float32) {
	clo, chi = make([]float32, len(c.sizes)), make([]float32, len(c.sizes))
	for k := range clo {
		clo[k], chi[k] = float32(math.Inf(1)), float32(math.Inf(-1))
	}
	for i, k := range c.labels {
		clo[k], chi[k] = min(clo[k], lo[i]), max(chi[k], hi[i])
	}
	return clo, chi
}

// fitClusters makes the scheme of the given bits and granularity (such as "/axis=2") and its parameters for each cluster.
func fitClusters(grid string, bits int, gran string, lo, hi []float32) (numfmt.Scheme, numfmt.Params, error) {
	text := fmt.Sprintf("uint%d%s", bits, gran)
	if grid == "centred" {
		text = fmt.Sprintf("int%d%s/asym", bits, gran)
	}
	s, err := numfmt.ParseScheme(text, numfmt.Input)
	if err != nil {
		return s, numfmt.Params{}, err
	}
	var p numfmt.Params
	if grid == "centred" {
		p, err = s.FitCentred(lo, hi)
	} else {
		p, err = s.Fit(lo, hi)
	}
	return s, p, err
}

// rptqEditor inserts the quantizers.
type rptqEditor struct {
	u     *Unit
	o     RPTQOptions
	order map[*ir.Node]int
}

// insert puts the quantizers of one value in place.
func (e *rptqEditor) insert(t *rptqTarget) error {
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
	how := "per axis"
	var v *ir.Value
	weights, apart := t.weights()
	if e.o.Layout == "gather" && t.head < 0 && apart {
		how = "gathered"
		v, err = e.gathered(t, before, clo, chi, weights)
	} else {
		v, err = e.perAxis(t, before, clo, chi)
	}
	if err != nil {
		return err
	}
	for i, c := range t.users {
		t.sites[i].Node.SetIn(c.Slot, v)
		e.u.did(t.sites[i].Name, fmt.Sprintf("input %q: %v, %d clusters of %d channels in %d bits, %s", t.value.Name, t.kind, len(t.c.sizes), len(t.c.labels), t.bits, how))
	}
	labels := t.c.labels
	if how == "gathered" {
		labels = slices.Sorted(slices.Values(labels))
	}
	for _, w := range weights {
		if e.u.clusters == nil {
			e.u.clusters = map[*ir.Value][]int{}
		}
		e.u.clusters[w.Value] = labels
	}
	return nil
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
	s, p, err := fitClusters(e.o.Grid, t.bits, fmt.Sprintf("/axis=%d", axis), clo, chi)
	if err != nil {
		return nil, err
	}
	spread := func(v []float32) []float32 {
		out := make([]float32, len(t.c.labels))
		for i, k := range t.c.labels {
			out[i] = v[k]
		}
		return out
	}
	q, err := e.fakeQuant(g, before, v, t.value.Name, s, numfmt.Params{Scale: spread(p.Scale), Zero: spread(p.Zero)}, len(t.c.labels))
	if err != nil || back == nil {
		return q, err
	}
	return back(q)
}

// gathered puts the channels in the order of their clusters, quantizes each cluster as a tensor, and permutes the weights alike.
func (e *rptqEditor) gathered(t *rptqTarget, before *ir.Node, clo, chi []float32, weights []*Choice) (*ir.Value, error) {
	g, name := before.Graph(), t.value.Name
	for _, w := range weights {
		if err := permuteWeight(w, t.c.perm); err != nil {
			return nil, err
		}
	}
	perm, sizes := make([]int64, len(t.c.perm)), make([]int64, len(t.c.sizes))
	for i, p := range t.c.perm {
		perm[i] = int64(p)
	}
	for i, n := range t.c.sizes {
		sizes[i] = int64(n)
	}
	v, err := e.node(g, before, name+"_gathered", ir.Op("Gather"), []*ir.Value{t.value, g.Const(name+"_order", ir.Ints(perm...))}, ir.IntAttr("axis", int64(t.axis)))
	if err != nil {
		return nil, err
	}
	pieces := []*ir.Value{v}
	if len(sizes) > 1 {
		ins, attrs := []*ir.Value{v}, []ir.Attr{ir.IntAttr("axis", int64(t.axis))}
		if e.u.Model.Opset[""] >= 13 {
			ins = append(ins, g.Const(name+"_sizes", ir.Ints(sizes...)))
		} else {
			attrs = append(attrs, ir.IntsAttr("split", sizes...))
		}
		var outs []string
		for i := range sizes {
			outs = append(outs, fmt.Sprintf("%s_cluster%d", name, i))
		}
		n, err := op.Insert(g, before, name+"_clusters", ir.Op("Split"), ins, outs, attrs...)
		if err != nil {
			return nil, err
		}
		n.Origin = "rptq:" + name
		pieces = n.Outs()
	}
	for i, piece := range pieces {
		s, p, err := fitClusters(e.o.Grid, t.bits, "", clo[i:i+1], chi[i:i+1])
		if err != nil {
			return nil, err
		}
		if pieces[i], err = e.fakeQuant(g, before, piece, fmt.Sprintf("%s_cluster%d", name, i), s, p, 0); err != nil {
			return nil, err
		}
	}
	if len(pieces) == 1 {
		return pieces[0], nil
	}
	return e.node(g, before, name+"_joined", ir.Op("Concat"), pieces, ir.IntAttr("axis", int64(t.axis)))
}

// permuteWeight reorders a matrix along its contraction axis.
func permuteWeight(w *Choice, perm []int) error {
	t := op.ConstantOf(w.Value)
	if err := t.Load(); err != nil {
		return err
	}
	rows, cols := t.Shape()[0], t.Shape()[1]
	size, old := t.Elem().Size(1), t.Bytes()
	data := make([]byte, len(old))
	for r := range rows {
		for c := range cols {
			fr, fc := r, perm[min(c, len(perm)-1)]
			if w.Axes.K == 0 {
				fr, fc = perm[r], c
			}
			copy(data[(r*cols+c)*size:][:size], old[(fr*cols+fc)*size:])
		}
	}
	n, err := ir.TensorOf(t.Elem(), t.Shape(), data)
	if err != nil {
		return err
	}
	w.Value = setConstant(w.Value, n)
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
