package calib

import (
	"context"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime"
)

// inner sweeps a model whose weights do not fit into memory, node by node: before the first node that reads a probed value, all
// samples are there for as many passes as an observer wants, and no weight is made ready more often than once. It reports
// false where a value has no such node.
func inner(ctx context.Context, m *ir.Model, samples ir.Samples, probes []Probe, o Options) (done bool, err error) {
	w, err := runtime.NewWalk(ctx, m, runtime.WalkOptions{Options: o.Runtime, Jobs: o.Jobs})
	if err != nil {
		return false, err
	}
	by, once := map[*ir.Value][]Probe{}, map[Observer]bool{}
	for _, p := range probes {
		by[p.Value] = append(by[p.Value], p)
		if once[p.Into] {
			return false, nil // it is to see several values
		}
		once[p.Into] = true
	}
	var stops []Stop
	for n := range m.Graph.Nodes() {
		if !w.Reaches(n) {
			continue
		}
		s := Stop{Node: n}
		for _, v := range n.Ins() {
			if list := by[v]; list != nil && v.Const() == nil {
				s.Probes = append(s.Probes, list...)
				delete(by, v)
			}
		}
		if s.Probes != nil {
			stops = append(stops, s)
		}
	}
	if len(by) > 0 {
		return false, nil
	}
	return true, SweepNodes(ctx, m, nil, samples, stops, o, func(*runtime.Walk, *ir.Node) error { return nil })
}
