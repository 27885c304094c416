package passes

import (
	"context"
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/runtime/calib"
)

// RPTQOptions are the options of the pass rptq.
type RPTQOptions struct {
	Layout string `opt:"layout" enum:"axis|gather" doc:"axis: channels stay where they are, each with its cluster's scale; gather: channels are put in the order of their clusters, by the columns of the weights that make them (R2, R3, R5) or else by a Gather, and each cluster is quantized as a tensor"`
	Grid   string `opt:"grid" enum:"asym|centred" doc:"asym: 2^b-1 steps over a range that holds zero; centred: the reference's 2^b steps over the range as it is, whose zero points may lie outside the type"`
	Range  string `opt:"range" enum:"ema|max" doc:"a channel's range: moving average over the samples (0.99), as published, which cuts off what is beyond the average sample; or the largest"`
	Inputs string `opt:"inputs" enum:"float|quantized" doc:"float: all ranges are the float model's; quantized: they are taken in a second walk over the model, in which the values before are quantized already, as published for whole blocks"`
	LN     int    `opt:"ln" doc:"least bits of what normalizations put out; 0: as the policy says"`
	P      int    `opt:"p" doc:"bits of attention probabilities, on the fixed grid from 0 to 1; 0: as the policy says"`
	R1     int    `opt:"r1" doc:"clusters of inputs of products that make queries, keys and values"`
	R2     int    `opt:"r2" doc:"clusters of queries and keys, of each head"`
	R3     int    `opt:"r3" doc:"clusters of values and of what attention puts out, of each head"`
	R4     int    `opt:"r4" doc:"clusters of other outputs of normalizations"`
	R5     int    `opt:"r5" doc:"clusters of all other inputs of products with weights"`
}

// RPTQ gives clusters of channels their own ranges.
var RPTQ = Define("rptq", rptqDoc, RPTQOptions{Layout: "axis", Grid: "asym", Range: "ema", Inputs: "float", LN: 8, P: 8, R1: 32, R2: 4, R3: 4, R4: 32, R5: 32}, rptq)

const rptqDoc = `quantizes activations by clusters of channels that have similar ranges (Yuan et al. 2023, RPTQ)

Wherever the policy gives the input of a MatMul or Gemm, or an operand of attention, a static integer scheme, the channels are
clustered by their least and largest values over the samples, and each cluster has a range of its own. Queries and keys share
their clusters, and so do values and the output of attention; both are clustered within each head. gptq then rounds weights with
a scale for each output channel and cluster of inputs. What is what follows from the graph's structure. Query heads that share a
key-value head share the partition of its channels. The order that layout=gather gives to channels runs on the first sample before
and after, without quantizers; where it moves an output of the products by more than 1e-4 of its largest magnitude it is taken
back. The report says of every site how its channels lie, and why they are gathered or stay where the weights could not be permuted.`

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
	mate   *rptqTarget // keys of queries, the output of attention of values: they share their clusters
	second bool        // its clusters are found with those of mate
	c      clustering
	drop   string

	order   *scaling // what is permuted along with its channels; nil if they cannot change places
	why     string   // why they cannot
	ordered string   // what has put them in the order of their clusters; "" if nothing has
	placed  string   // how it is quantized, once it is
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
	e := &rptqEditor{u: u, o: o, at: f.at, order: nodeOrder(u.Model), witness: &witness{}}
	if err := e.orderings(f.targets); err != nil {
		return err
	}
	probes := e.witness.probes()
	for _, t := range f.targets {
		t.ranges = &channelRanges{head: t.head, axis: t.axis, samples: map[int][2][]float32{}}
		probes = append(probes, calib.Probe{Value: t.value, Into: t.ranges})
	}
	err = calib.Sweep(ctx, u.Model, u.Samples, probes, calib.Options{Jobs: u.Jobs, Runtime: u.Runtime,
		Progress: func(done int) { u.progress("samples", done, 0) }})
	if err != nil {
		return err
	}
	for _, t := range f.targets {
		if err := t.cluster(o); err != nil {
			return fmt.Errorf("value %q: %w", t.value.Name, err)
		}
	}
	if o.Inputs == "quantized" {
		if err := e.walk(ctx, f.targets, f.probabilities); err != nil {
			return err
		}
	}
	if o.Layout == "gather" {
		for _, t := range f.targets {
			u.at(t.sites[0].Name)
			if err := e.permute(ctx, t); err != nil {
				return fmt.Errorf("value %q: %w", t.value.Name, err)
			}
		}
	}
	for _, t := range f.targets {
		u.at(t.sites[0].Name)
		if t.drop != "" {
			u.skip(t.sites[0].Name, fmt.Sprintf("%v: %s", t.kind, t.drop))
			continue
		}
		if err := e.insert(ctx, t); err != nil {
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

// cluster partitions the channels, in each head apart, by the ranges of queries and keys together, or of the output of attention
// (as the reference does) for values too. Heads whose channels go together are partitioned alike.
func (t *rptqTarget) cluster(o RPTQOptions) error {
	if t.second {
		return nil // with its mate
	}
	both := []*rptqTarget{t}
	if t.mate != nil {
		both = append(both, t.mate)
	}
	drop := func(why string) error {
		for _, m := range both {
			m.drop = why
		}
		return nil
	}
	var features [][2][]float32
	for _, m := range both {
		lo, hi, err := m.ranges.result(o.Range)
		if err != nil {
			return drop(fmt.Sprintf("%q: %v", m.value.Name, err))
		}
		if m.ranges.channels != t.ranges.channels {
			return drop(fmt.Sprintf("%q has %d channels, %q has %d", t.value.Name, t.ranges.channels, m.value.Name, m.ranges.channels))
		}
		if m == t || t.kind == rptqR2 {
			features = append(features, [2][]float32{lo, hi})
		}
	}
	heads := 1
	for _, m := range both {
		heads = max(heads, m.ranges.heads)
	}
	per := t.ranges.channels / heads
	parts := make([]clustering, heads)
	for h, first := range t.tied(heads, per) {
		if h != first {
			continue
		}
		var part [][2][]float32
		for k, f := range t.tied(heads, per) {
			for _, r := range features {
				if f == first {
					part = append(part, [2][]float32{r[0][k*per : (k+1)*per], r[1][k*per : (k+1)*per]})
				}
			}
		}
		parts[h] = clusterChannels(part, o.clusters(t.kind))
	}
	var c clustering
	for _, first := range t.tied(heads, per) {
		base := len(c.sizes)
		for _, l := range parts[first].labels {
			c.labels = append(c.labels, base+l)
		}
		c.sizes = append(c.sizes, parts[first].sizes...)
	}
	c.perm = byLabel(c.labels)
	for _, m := range both {
		m.c = c
	}
	return nil
}

// tied returns for every head the first one whose channels change places only along with its own: a key-value head's query
// heads are one.
func (t *rptqTarget) tied(heads, per int) []int {
	first := make([]int, heads)
	for h := range first {
		for first[h] = 0; first[h] < h; first[h]++ {
			same := t.order != nil
			for d := 0; same && d < per; d++ {
				same = t.order.find(int32(h*per+d)) == t.order.find(int32(first[h]*per+d))
			}
			if same {
				break
			}
		}
	}
	return first
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
