package calib

import (
	"context"
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime"
)

// Stop is a node of the main graph before which SweepNodes pauses. Its probes watch values that the node reads.
type Stop struct {
	Node   *ir.Node
	Probes []Probe
}

// SweepNodes runs the model node by node over all samples at once, in one sweep: before each stop its probes see all samples in
// their order, an observer that several stops share only before the first of them, then at is called. at may replace constants
// (w.Replace): all that follows then runs with them, so that each stop sees what the replaced weights before it make. What
// waits for its turn lies in memory up to a quarter of the memory limit, beyond that in a temporary file. Stops come in the
// order of execution. The result is the same for any number of jobs. Rows that only fill up a batch are cut off (Rows).
func SweepNodes(ctx context.Context, m *ir.Model, samples ir.Samples, stops []Stop, o Options, at func(w *runtime.Walk, n *ir.Node) error) error {
	w, err := runtime.NewWalk(ctx, m, runtime.WalkOptions{Options: o.Runtime, Jobs: o.Jobs})
	if err != nil {
		return err
	}
	by := map[*ir.Node][]Probe{}
	var nodes []*ir.Node
	for _, s := range stops {
		by[s.Node] = append(by[s.Node], s.Probes...)
		nodes = append(nodes, s.Node)
	}
	probed := map[*ir.Value]bool{}
	for _, ps := range by {
		for _, p := range ps {
			probed[p.Value] = true
		}
	}
	seen := map[Observer]bool{}
	var rows Rows
	done := 0
	return w.Run(ctx, rows.Watch(samples), nodes, func(n *ir.Node) error {
		if done == 0 {
			if err := rows.LocateAll(ctx, m, o.Runtime, func(v *ir.Value) bool { return probed[v] }); err != nil {
				return err
			}
		}
		for _, p := range by[n] {
			if seen[p.Into] {
				continue
			}
			seen[p.Into] = true
			for pass := range p.Into.Passes() {
				err := w.Each(p.Value, func(i int, t *ir.Tensor) error {
					if err := ctx.Err(); err != nil {
						return err
					}
					t, err := rows.Cut(i, p.Value, 0, t)
					if err != nil {
						return err
					}
					return p.Into.Observe(pass, i, t)
				})
				if err != nil {
					return fmt.Errorf("node %v: %w", n, err)
				}
			}
		}
		if done++; o.Progress != nil {
			o.Progress(done)
		}
		return at(w, n)
	})
}
