package par_test

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

func TestForCoversEachIndexOnce(t *testing.T) {
	for _, n := range []int{0, 1, 2, 7, 64, 1000} {
		for _, grain := range []int{0, 1, 3, 64, 5000} {
			seen := make([]atomic.Int32, n)
			par.For(n, grain, func(lo, hi int) {
				if g := max(grain, 1); lo%g != 0 || hi != min(lo+g, n) {
					t.Errorf("n %d grain %d: range [%d,%d)", n, grain, lo, hi)
				}
				for i := lo; i < hi; i++ {
					seen[i].Add(1)
				}
			})
			for i := range seen {
				if c := seen[i].Load(); c != 1 {
					t.Fatalf("n %d grain %d: index %d visited %d times", n, grain, i, c)
				}
			}
		}
	}
}

func TestForNestedAndConcurrent(t *testing.T) {
	var total atomic.Int64
	done := make(chan bool)
	for range 4 {
		go func() {
			for range 50 {
				par.For(8, 1, func(int, int) {
					par.For(8, 3, func(lo, hi int) { total.Add(int64(hi - lo)) })
				})
			}
			done <- true
		}()
	}
	for range 4 {
		<-done
	}
	if got := total.Load(); got != 4*50*64 {
		t.Fatalf("counted %d, want %d", got, 4*50*64)
	}
}

func TestForUsesOtherCores(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("one core: there is no other to use")
	}
	// Two chunks that wait for each other end only if they run at once.
	deadline := time.Now().Add(10 * time.Second)
	var here atomic.Int32
	par.For(2, 1, func(int, int) {
		here.Add(1)
		for here.Load() < 2 && time.Now().Before(deadline) {
			runtime.Gosched()
		}
	})
	if here.Load() != 2 || time.Now().After(deadline) {
		t.Fatal("the chunks did not run at the same time")
	}
}

func TestForWakesParkedWorkers(t *testing.T) {
	for range 5 {
		time.Sleep(3 * time.Millisecond)
		var sum atomic.Int64
		par.For(100, 1, func(lo, _ int) {
			sum.Add(int64(lo))
			time.Sleep(10 * time.Microsecond)
		})
		if sum.Load() != 4950 {
			t.Fatalf("sum %d", sum.Load())
		}
	}
}

func TestForRaisesPanicInCaller(t *testing.T) {
	for at := range 20 {
		got := func() (v any) {
			defer func() { v = recover() }()
			par.For(20, 1, func(lo, _ int) {
				if lo == at {
					panic(at)
				}
			})
			return nil
		}()
		if got != at {
			t.Fatalf("recovered %v, want %d", got, at)
		}
	}
	var n atomic.Int32
	par.For(10, 1, func(int, int) { n.Add(1) })
	if n.Load() != 10 {
		t.Fatal("the pool is broken after a panic")
	}
}

func TestSetLimit(t *testing.T) {
	old := par.SetLimit(1)
	defer par.SetLimit(old)
	if par.Cores() != 1 {
		t.Fatalf("cores %d under a limit of 1", par.Cores())
	}
	next := 0
	par.For(100, 7, func(lo, hi int) { // serial and in order: no race on next
		if lo != next {
			t.Errorf("range starts at %d, want %d", lo, next)
		}
		next = hi
	})
}

func BenchmarkForEmpty(b *testing.B) {
	for b.Loop() {
		par.For(2, 1, func(int, int) {})
	}
}

func TestDrive(t *testing.T) {
	// Among as many drivers as cores a loop stays on its goroutine: its ranges come in order.
	var nest func(n int)
	nest = func(n int) {
		if n > 0 {
			par.Drive(func() { nest(n - 1) })
			return
		}
		last := -1
		par.For(1000, 1, func(lo, _ int) {
			if lo != last+1 {
				t.Errorf("range %d follows %d", lo, last)
			}
			last = lo
		})
	}
	nest(par.Cores())
}
