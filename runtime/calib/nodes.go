package calib

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime"
)

// Stop is a node of the main graph before which SweepNodes pauses. Its probes watch values that the node reads.
type Stop struct {
	Node   *ir.Node
	Probes []Probe
	// Beside watches one more value together with that of another model.
	Beside *Beside
}

// Beside pairs a value that a stop's node reads with one that Node, a node of the model beside, reads there.
type Beside struct {
	Value *ir.Value
	Node  *ir.Node
	Other *ir.Value
	Into  BesideObserver
}

// BesideObserver sees the tensors of two values, sample by sample in their order.
type BesideObserver interface {
	ObserveBeside(sample int, t, beside *ir.Tensor) error
}

// SweepNodes runs the model node by node over all samples at once, in one sweep: before each stop its probes see all samples in
// their order, an observer that several stops share only before the first of them, then at is called. at may replace constants
// (w.Replace): all that follows then runs with them, so that each stop sees what the replaced weights before it make. What
// waits for its turn lies in memory up to a quarter of the memory limit, beyond that in a temporary file. Stops come in the
// order of execution. The result is the same for any number of jobs. Rows that only fill up a batch are cut off (Rows).
//
// Where stops have a Beside, a second model, beside, is walked at the same time as it is, up to the same places; stops then share
// the memory in halves. It is nil otherwise.
func SweepNodes(ctx context.Context, m, beside *ir.Model, samples ir.Samples, stops []Stop, o Options, at func(w *runtime.Walk, n *ir.Node) error) error {
	s := &nodeSweep{by: map[*ir.Node]*Stop{}, seen: map[any]bool{}}
	probed := map[*ir.Value]bool{}
	wo := runtime.WalkOptions{Options: o.Runtime, Jobs: o.Jobs}
	var nodes, others []*ir.Node
	for i, st := range stops {
		s.by[st.Node] = &stops[i]
		nodes = append(nodes, st.Node)
		if st.Beside != nil {
			others = append(others, st.Beside.Node)
			probed[st.Beside.Value] = true
		}
		for _, p := range st.Probes {
			probed[p.Value] = true
		}
	}
	var err error
	if beside != nil {
		wo.Share = 2
		if s.other, err = runtime.NewWalk(ctx, beside, wo); err != nil {
			return fmt.Errorf("the model beside: %w", err)
		}
		var stop func()
		s.next, stop = iter.Pull2(s.other.Stops(ctx, samples, others))
		defer stop()
	}
	if s.walk, err = runtime.NewWalk(ctx, m, wo); err != nil {
		return err
	}
	done := 0
	return s.walk.Run(ctx, s.rows.Watch(samples), nodes, func(n *ir.Node) error {
		if done == 0 {
			if err := s.rows.LocateAll(ctx, m, o.Runtime, func(v *ir.Value) bool { return probed[v] }); err != nil {
				return err
			}
		}
		if err := s.observe(ctx, s.by[n]); err != nil {
			return fmt.Errorf("node %v: %w", n, err)
		}
		if done++; o.Progress != nil {
			o.Progress(done)
		}
		return at(s.walk, n)
	})
}

// nodeSweep is one run of SweepNodes.
type nodeSweep struct {
	walk, other *runtime.Walk // other: the model beside, nil without one
	next        func() (*ir.Node, error, bool)
	by          map[*ir.Node]*Stop
	seen        map[any]bool // observers
	rows        Rows
}

func (s *nodeSweep) observe(ctx context.Context, st *Stop) error {
	for _, p := range st.Probes {
		if s.seen[p.Into] {
			continue
		}
		s.seen[p.Into] = true
		for pass := range p.Into.Passes() {
			err := s.walk.Each(p.Value, func(i int, t *ir.Tensor) error {
				if err := ctx.Err(); err != nil {
					return err
				}
				if !p.Whole {
					var err error
					if t, err = s.rows.Cut(i, p.Value, 0, t); err != nil {
						return err
					}
				}
				return p.Into.Observe(pass, i, t)
			})
			if err != nil {
				return err
			}
		}
	}
	if st.Beside == nil {
		return nil
	}
	for n := (*ir.Node)(nil); n != st.Beside.Node; {
		var err error
		var ok bool
		if n, err, ok = s.next(); err != nil {
			return fmt.Errorf("the model beside: %w", err)
		} else if !ok {
			return errors.New("the model beside has another order of nodes")
		}
	}
	if s.seen[st.Beside.Into] {
		return nil
	}
	s.seen[st.Beside.Into] = true
	return s.walk.Each(st.Beside.Value, func(i int, t *ir.Tensor) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		other, err := s.other.Value(st.Beside.Other, i)
		if err != nil {
			return fmt.Errorf("the model beside: %w", err)
		}
		if t, err = s.rows.Cut(i, st.Beside.Value, 0, t); err != nil {
			return err
		}
		if other, err = s.rows.Cut(i, st.Beside.Value, 0, other); err != nil {
			return err
		}
		return st.Beside.Into.ObserveBeside(i, t, other)
	})
}
