package calib

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime"
)

// Observer sees the tensors of one value, sample by sample, in as many passes as it asks for. Sweep serializes calls; the
// samples come in any order unless the observer is Ordered. A tensor is valid during the call only.
type Observer interface {
	Passes() int
	Ordered() bool
	Observe(pass, sample int, t *ir.Tensor) error
}

// Probe attaches an observer to a value of the model. Whole shows it the rows that only fill up a batch, too: for those who
// compute with the tensor instead of learning from it. Spare leaves the observer out, who then sees nothing, where the weights are
// more than may be kept ready.
type Probe struct {
	Value *ir.Value
	Into  Observer
	Whole bool
	Spare bool
}

// Options of Sweep.
type Options struct {
	Jobs     int // samples at a time; 0: one for each core
	Progress func(done int)
	Runtime  runtime.Options
}

// ErrNoSamples says that a sweep had nothing to look at.
var ErrNoSamples = runtime.ErrNoSamples

// Sweep runs the model over all samples as far as the values need it, and feeds the observers: memory holds one sample for
// each job, however many there are. A model whose weights are more than may be kept ready is swept node by node instead, and
// what waits for its turn lies in memory or a temporary file (see SweepNodes). The result is the same for any number of jobs
// and order of completion. Rows that only fill up a batch are cut off (Rows).
func Sweep(ctx context.Context, m *ir.Model, samples ir.Samples, probes []Probe, o Options) error {
	s := &sweep{by: map[*ir.Value][]*watched{}, o: o}
	passes := 0
	var values []*ir.Value
	for _, pr := range probes {
		s.by[pr.Value] = append(s.by[pr.Value], &watched{Probe: pr})
		values = append(values, pr.Value)
		passes = max(passes, pr.Into.Passes())
		s.ordered = s.ordered || pr.Into.Ordered()
	}
	var err error
	if s.program, err = runtime.Select(ctx, m, values, o.Runtime); err != nil {
		return err
	}
	if s.program.Streams() {
		spare := func(p Probe) bool { return p.Spare }
		if wanted := slices.DeleteFunc(slices.Clone(probes), spare); len(wanted) < len(probes) && len(wanted) > 0 {
			return Sweep(ctx, m, samples, wanted, o)
		}
		if done, err := inner(ctx, m, samples, probes, o); done || err != nil {
			return err
		}
	}
	for pass := range passes {
		if err := s.run(ctx, pass, samples); err != nil {
			return err
		}
	}
	return nil
}

type watched struct {
	Probe
	mu sync.Mutex
}

type sweep struct {
	program *runtime.Selection
	by      map[*ir.Value][]*watched
	ordered bool
	rows    Rows
	o       Options
	done    int
}

func (s *sweep) run(ctx context.Context, pass int, samples ir.Samples) error {
	jobs := s.o.Jobs
	if jobs == 0 {
		jobs = runtime.Cores()
	}
	if s.ordered {
		jobs = 1
	}
	count := 0
	err := runtime.ForEach(ctx, jobs, s.rows.Watch(samples)(), func(ctx context.Context, i int, in ir.Tensors) (none struct{}, err error) {
		if err = s.sample(ctx, pass, i, in); err != nil {
			err = fmt.Errorf("sample %d: %w", i, err)
		}
		return none, err
	}, func(int, struct{}) {
		count++
		if s.done++; s.o.Progress != nil {
			s.o.Progress(s.done)
		}
	})
	if err == nil && count == 0 {
		err = ErrNoSamples
	}
	return err
}

// observe is one sample's at a time. The lock is given back even where the observer panics: others wait for it.
func (w *watched) observe(pass, sample int, t *ir.Tensor) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Into.Observe(pass, sample, t)
}

func (s *sweep) sample(ctx context.Context, pass, i int, in ir.Tensors) error {
	if err := s.rows.Locate(ctx, s.program.Run, i, func(v *ir.Value) bool { return s.by[v] != nil }); err != nil {
		return err
	}
	seen := map[*ir.Value]int{} // a value inside a loop comes several times
	return s.program.Run(ctx, in, func(v *ir.Value, whole *ir.Tensor) error {
		t, err := s.rows.Cut(i, v, seen[v], whole)
		if err != nil {
			return fmt.Errorf("value %q: %w", v.Name, err)
		}
		seen[v]++
		for _, w := range s.by[v] {
			if pass >= w.Into.Passes() {
				continue
			}
			x := t
			if w.Whole {
				x = whole
			}
			if err := w.observe(pass, i, x); err != nil {
				return fmt.Errorf("value %q: %w", v.Name, err)
			}
		}
		return nil
	})
}
