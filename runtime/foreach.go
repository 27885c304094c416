package runtime

import (
	"context"
	"iter"
	goruntime "runtime"
	"sync"
)

// Cores returns the number of cores the program may use.
func Cores() int { return goruntime.GOMAXPROCS(0) }

// ForEach calls do for every sample, up to jobs at a time, and after that done in the order of the samples. The first error
// in that order ends it and is returned; samples after it may have been done.
func ForEach[T any](ctx context.Context, jobs int, samples iter.Seq2[T, error], do func(ctx context.Context, i int, in T) error, done func(i int)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type job struct {
		i      int
		in     T
		err    error
		result chan error
	}
	queue := make(chan job)
	order := make(chan job, max(jobs, 1))
	var wg sync.WaitGroup
	for range max(jobs, 1) {
		wg.Go(func() {
			for j := range queue {
				j.result <- do(ctx, j.i, j.in)
			}
		})
	}
	wg.Go(func() {
		defer close(order)
		defer close(queue)
		i := 0
		for in, err := range samples {
			j := job{i: i, in: in, err: err, result: make(chan error, 1)}
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
				j.result <- ctx.Err()
				return
			}
			i++
		}
	})
	var first error
	for j := range order {
		err := j.err
		if err == nil {
			err = <-j.result
		}
		if first != nil {
			continue
		}
		if err != nil {
			first = err
			cancel()
			continue
		}
		done(j.i)
	}
	wg.Wait()
	if first == nil {
		first = ctx.Err()
	}
	return first
}
