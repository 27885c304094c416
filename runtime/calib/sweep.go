package calib

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime"
)

// Observer sees the tensors of one value, sample by sample, in as many passes as it asks for. Sweep serializes calls; the
// samples come in any order unless the observer is Ordered.
type Observer interface {
	Passes() int
	Ordered() bool
	Observe(pass, sample int, t *ir.Tensor) error
}

// Probe attaches an observer to a value of the model.
type Probe struct {
	Value *ir.Value
	Into  Observer
}

// Options of Sweep.
type Options struct {
	Jobs     int // samples at a time; 0: one for each core
	Progress func(done int)
	Runtime  runtime.Options
}

// ErrNoSamples says that a sweep had nothing to look at.
var ErrNoSamples = errors.New("there are no samples")

// Sweep runs the model over all samples, each through the whole graph, and feeds the observers: memory holds one sample for
// each job, however many there are. The result is the same for any number of jobs and order of completion. Rows that only fill
// up a batch are cut off (Rows).
func Sweep(ctx context.Context, m *ir.Model, samples ir.Samples, probes []Probe, o Options) error {
	p, err := runtime.CompileWith(ctx, m, o.Runtime)
	if err != nil {
		return err
	}
	s := &sweep{program: p, by: map[*ir.Value][]*watched{}, o: o}
	passes := 0
	for _, pr := range probes {
		s.by[pr.Value] = append(s.by[pr.Value], &watched{Probe: pr})
		passes = max(passes, pr.Into.Passes())
		s.ordered = s.ordered || pr.Into.Ordered()
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
	program *runtime.Program
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

func (s *sweep) sample(ctx context.Context, pass, i int, in ir.Tensors) error {
	if err := s.rows.Locate(ctx, s.program, i, func(v *ir.Value) bool { return s.by[v] != nil }); err != nil {
		return err
	}
	seen := map[*ir.Value]int{} // a value inside a loop comes several times
	_, err := s.program.Watch(ctx, in, func(v *ir.Value, t *ir.Tensor) (err error) {
		if s.by[v] == nil {
			return nil
		}
		if t, err = s.rows.Cut(i, v, seen[v], t); err != nil {
			return fmt.Errorf("value %q: %w", v.Name, err)
		}
		seen[v]++
		for _, w := range s.by[v] {
			if pass >= w.Into.Passes() {
				continue
			}
			w.mu.Lock()
			err := w.Into.Observe(pass, i, t)
			w.mu.Unlock()
			if err != nil {
				return fmt.Errorf("value %q: %w", v.Name, err)
			}
		}
		return nil
	})
	return err
}
