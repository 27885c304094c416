package passes

import (
	"context"
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/calib"
)

// walked is a quantizer in the model that is walked for the ranges of quantized inputs.
type walked struct {
	target *rptqTarget
	node   *ir.Node
	ranges *channelRanges
}

// walk takes the ranges anew, in one walk over a copy of the model in which the values before are quantized already, each by the
// clusters that it has. The channels of the copy are in the order in which they are made. What lies in a subgraph keeps its
// ranges.
func (e *rptqEditor) walk(ctx context.Context, targets []*rptqTarget, probabilities []rptqProbability) error {
	model, mp := e.u.Model.Clone()
	w := &rptqEditor{u: &Unit{Model: model, entry: &PassEntry{}}, o: e.o}
	by := map[*ir.Node]*walked{}
	for _, t := range targets {
		if t.drop != "" {
			continue
		}
		k, err := w.sketch(t, e.order, mp)
		if err != nil {
			return fmt.Errorf("value %q: %w", t.value.Name, err)
		}
		if k.node.Graph() != model.Graph {
			e.u.note(fmt.Sprintf("value %q is inside a subgraph, which is not walked node by node: its ranges are the float model's", t.value.Name))
			continue
		}
		by[k.node] = k
	}
	for _, p := range probabilities {
		site := *p.site.Site
		site.Node = mp.Nodes[site.Node]
		choice := *p.choice
		choice.Value = mp.Values[choice.Value]
		if err := w.probability(rptqProbability{&Decision{Site: &site}, &choice, p.bits}); err != nil {
			return fmt.Errorf("site %q: %w", site.Name, err)
		}
	}
	if err := op.Verify(model); err != nil {
		return err
	}
	var stops []calib.Stop
	for n := range model.Graph.Nodes() {
		if k := by[n]; k != nil {
			stops = append(stops, calib.Stop{Node: n, Probes: []calib.Probe{{Value: n.In(0), Into: k.ranges}}})
		}
	}
	o := calib.Options{Jobs: e.u.Jobs, Runtime: e.u.Runtime, Progress: func(done int) { e.u.progress("values", done, len(stops)) }}
	return calib.SweepNodes(ctx, model, nil, e.u.Samples, stops, o, func(at *runtime.Walk, n *ir.Node) error {
		k := by[n]
		e.u.at(k.target.sites[0].Name)
		k.ranges.heads = k.target.ranges.heads
		k.target.ranges = k.ranges
		_, p, err := w.fitted(k.target)
		if err != nil {
			return fmt.Errorf("value %q: %w", k.target.value.Name, err)
		}
		for i, v := range [][]float32{p.Scale, p.Zero} {
			if err := at.Replace(n.In(1+i), ir.Floats(v, len(v))); err != nil {
				return err
			}
		}
		return nil
	})
}

// sketch quantizes a target's value in the model that is walked, for the time being with the ranges that it has.
func (w *rptqEditor) sketch(t *rptqTarget, order map[*ir.Node]int, mp *ir.Mapping) (*walked, error) {
	s, p, err := w.fitted(t)
	if err != nil {
		return nil, err
	}
	n := len(w.inserted)
	q, err := w.perAxis(t, mp.Values[t.value], mp.Nodes[t.first(order)], s, p)
	if err != nil {
		return nil, err
	}
	for i, c := range t.users {
		mp.Nodes[t.sites[i].Node].SetIn(c.Slot, q)
	}
	i := slices.IndexFunc(w.inserted[n:], func(k *ir.Node) bool { return k.Op == op.FakeQuantOp })
	node := w.inserted[n+i]
	r := &channelRanges{head: -1, axis: t.axis, samples: map[int][2][]float32{}}
	if t.head >= 0 {
		r.axis = 2
	}
	return &walked{t, node, r}, nil
}

// fitted returns the scheme of a value's channels and the parameters of each: those of its cluster.
func (e *rptqEditor) fitted(t *rptqTarget) (numfmt.Scheme, numfmt.Params, error) {
	lo, hi, err := t.clusterRanges(e.o)
	if err != nil {
		return numfmt.Scheme{}, numfmt.Params{}, err
	}
	return t.fit(e.o.Grid, lo, hi)
}
