package runtime

import (
	"context"
	"iter"
	goruntime "runtime"
	"sync"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// Cores returns the number of cores the program may use.
func Cores() int { return goruntime.GOMAXPROCS(0) }

// ForEach calls do for every sample, up to jobs at a time, and done with what it returned in the order of the samples, from
// one goroutine. The first error in that order ends it and is returned; samples after it may have been done.
func ForEach[T, R any](ctx context.Context, jobs int, samples iter.Seq2[T, error], do func(ctx context.Context, i int, in T) (R, error), done func(i int, r R)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		r   R
		err error
	}
	type job struct {
		i      int
		in     T
		err    error
		result chan result
	}
	queue := make(chan job)
	order := make(chan job, max(jobs, 1))
	var wg sync.WaitGroup
	for range max(jobs, 1) {
		wg.Go(func() {
			for j := range queue {
				var r result
				par.Drive(func() { r.r, r.err = do(ctx, j.i, j.in) })
				j.result <- r
			}
		})
	}
	wg.Go(func() {
		defer close(order)
		defer close(queue)
		i := 0
		for in, err := range samples {
			j := job{i: i, in: in, err: err, result: make(chan result, 1)}
			select {
			case order <- j:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
			select {
			case queue <- j:
			case <-ctx.Done():
				j.result <- result{err: ctx.Err()}
				return
			}
			i++
		}
	})
	var first error
	for j := range order {
		r := result{err: j.err}
		if j.err == nil {
			r = <-j.result
		}
		if first != nil {
			continue
		}
		if r.err != nil {
			first = r.err
			cancel()
			continue
		}
		done(j.i, r.r)
	}
	wg.Wait()
	if first == nil {
		first = ctx.Err()
	}
	return first
}
