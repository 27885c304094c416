// Package par runs loops on all cores, deterministically.
//
//	par.For(rows, 16, func(lo, hi int) {
//		for r := lo; r < hi; r++ { … }
//	})
//
// There is one pool for the process. Its goroutines are started on first use, spin for about a millisecond after a loop
// (waking a parked goroutine on an idle core costs a hundred microseconds and more, a spinning one a microsecond) and then
// park. The ranges handed to the body depend on n and grain only, never on the number of cores, so that a body which
// keeps one partial result per range gives the same bits everywhere.
package par

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// job is one For call. The chunks lie in shares of about the same size, one for the caller and for each helper, who claim those of their
// own share first: the cores then find in their caches what they wrote in the loop before, where that ran over the same rows.
// Finished chunks are counted by done; the caller waits for them, not for
// every worker to check in, so a worker that lost its core between two chunks delays nobody.
type job struct {
	body     func(lo, hi int)
	n, grain int
	chunks   int64
	helpers  int64 // workers that may join, the caller not counted

	shares []share
	joined atomic.Int64
	done   atomic.Int64

	parked atomic.Pointer[chan struct{}] // set by a caller that stopped spinning
	failed atomic.Pointer[failure]
}

// share is a run of chunks, claimed in order; each has a cache line of its own.
type share struct {
	next atomic.Int64
	end  int64
	_    [48]byte
}

// claim returns a chunk that nobody has claimed, from share home on; false: there is none.
func (j *job) claim(home int) (chunk int64, ok bool) {
	for k := range j.shares {
		s := &j.shares[(home+k)%len(j.shares)]
		if s.next.Load() >= s.end {
			continue
		}
		if c := s.next.Add(1) - 1; c < s.end {
			return c, true
		}
	}
	return 0, false
}

// failure carries a panic from a body to the caller of For.
type failure struct{ value any }

// worker is one pool goroutine; wake holds at most one token.
type worker struct {
	number int // from 0
	asleep atomic.Bool
	wake   chan struct{}
}

var (
	busy    atomic.Bool         // a job owns the pool
	current atomic.Pointer[job] // the job on offer, nil between jobs
	limit   atomic.Int64        // SetLimit's value, 0 = none
	drivers atomic.Int64        // goroutines that Drive runs now

	mu      sync.Mutex // guards growth of workers
	workers atomic.Pointer[[]*worker]
)

// spin is how long an idle worker, or a waiting caller, polls before it parks.
const spin = time.Millisecond

// SetLimit caps the number of cores a loop uses (the caller's included) at n and returns the former cap; 0 removes the
// cap. GOMAXPROCS always caps too. The results of a loop do not depend on it.
func SetLimit(n int) (old int) {
	if n < 0 {
		n = 0
	}
	return int(limit.Swap(int64(n)))
}

// Cores is the number of cores a loop started now may use: GOMAXPROCS, or SetLimit's cap where that is lower.
func Cores() int {
	p := runtime.GOMAXPROCS(0)
	if l := int(limit.Load()); l > 0 && l < p {
		return l
	}
	return p
}

// Drive calls f, which keeps one core busy and starts loops, beside others that do: loops take no helpers onto the cores that
// drivers have, so that as many drivers as cores do not wait for one another.
func Drive(f func()) {
	drivers.Add(1)
	defer drivers.Add(-1)
	f()
}

// Busy reports whether a loop owns the pool now, in which case For would run inline. A driver uses it to choose between
// an outer and an inner parallel loop.
func Busy() bool { return busy.Load() }

// For calls body on the ranges [0,grain), [grain,2·grain), … that cover [0,n), each exactly once, in no particular order
// and on several cores. A grain below 1 counts as 1. Calls made from inside a body, and calls made while another
// goroutine's loop owns the pool, run their ranges in order on the calling goroutine. A panic in a body stops the
// handing out of ranges and is raised again in the caller once the running ones have ended.
func For(n, grain int, body func(lo, hi int)) {
	if n <= 0 {
		return
	}
	if grain < 1 {
		grain = 1
	}
	chunks := (n + grain - 1) / grain
	helpers := min(Cores()-max(int(drivers.Load())-1, 0), chunks) - 1
	if helpers <= 0 || !busy.CompareAndSwap(false, true) {
		for lo := 0; lo < n; lo += grain {
			body(lo, min(lo+grain, n))
		}
		return
	}
	j := &job{body: body, n: n, grain: grain, chunks: int64(chunks), helpers: int64(helpers), shares: make([]share, helpers+1)}
	for i := range j.shares {
		j.shares[i].next.Store(int64(i * chunks / len(j.shares)))
		j.shares[i].end = int64((i + 1) * chunks / len(j.shares))
	}
	crew := hire(helpers)
	current.Store(j)
	woken := 0
	for _, w := range crew {
		if woken == helpers {
			break
		}
		if w.asleep.CompareAndSwap(true, false) {
			w.wake <- struct{}{}
		}
		woken++
	}
	j.work(0)
	j.wait()
	current.Store(nil)
	busy.Store(false)
	if f := j.failed.Load(); f != nil {
		panic(f.value)
	}
}

// work claims and runs chunks, from share home on, until none is left or one has panicked.
func (j *job) work(home int) {
	var claimed, finished int64
	defer func() {
		if finished == claimed {
			return
		}
		// The body panicked (or left by runtime.Goexit, for which recover gives nil).
		v := recover()
		if v == nil {
			v = "par: body called runtime.Goexit"
		}
		j.failed.CompareAndSwap(nil, &failure{v})
		j.finish(1)
		// Hand the unclaimed chunks in as done: nobody may start them now.
		for _, ok := j.claim(home); ok; _, ok = j.claim(home) {
			j.finish(1)
		}
	}()
	for {
		c, ok := j.claim(home)
		if !ok {
			return
		}
		claimed++
		lo := int(c) * j.grain
		j.body(lo, min(lo+j.grain, j.n))
		finished++
		j.finish(1)
	}
}

// finish counts chunks as done and wakes a caller that parked.
func (j *job) finish(chunks int64) {
	if j.done.Add(chunks) == j.chunks {
		if c := j.parked.Load(); c != nil {
			*c <- struct{}{}
		}
	}
}

// wait returns when every chunk is done.
func (j *job) wait() {
	if poll(func() bool { return j.done.Load() == j.chunks }) {
		return
	}
	c := make(chan struct{}, 1)
	j.parked.Store(&c)
	if j.done.Load() == j.chunks {
		return
	}
	<-c
}

// poll spins until ok holds, at most for the spin time, and reports whether it came to hold.
func poll(ok func() bool) bool {
	var start time.Time
	for round := 0; ; round++ {
		for range 64 {
			if ok() {
				return true
			}
			pause(8)
		}
		// About ten microseconds have gone by: let others run, look at the clock.
		runtime.Gosched()
		if round == 0 {
			start = time.Now()
		} else if time.Since(start) > spin {
			return ok()
		}
	}
}

// hire returns the pool's workers, at least n of them.
func hire(n int) []*worker {
	if ws := workers.Load(); ws != nil && len(*ws) >= n {
		return *ws
	}
	mu.Lock()
	defer mu.Unlock()
	var ws []*worker
	if old := workers.Load(); old != nil {
		ws = append(ws, *old...)
	}
	for len(ws) < n {
		w := &worker{number: len(ws), wake: make(chan struct{}, 1)}
		ws = append(ws, w)
		go w.run()
	}
	workers.Store(&ws)
	return ws
}

// run is the life of a worker: help with the job on offer, spin for the next one, park.
func (w *worker) run() {
	var last *job
	fresh := func() bool {
		j := current.Load()
		return j != nil && j != last
	}
	for {
		if !poll(fresh) {
			w.asleep.Store(true)
			if !fresh() || !w.asleep.CompareAndSwap(true, false) {
				<-w.wake
			}
			continue
		}
		j := current.Load()
		if j == nil || j == last {
			continue
		}
		last = j
		if j.joined.Add(1) <= j.helpers {
			j.work(1 + w.number%int(j.helpers))
		}
	}
}
