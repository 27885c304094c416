package kernel_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
)

// Signals that come while products of blocks run leave their registers, tiles among them, as they were: the system saves them.
func TestBlockProductsUnderSignals(t *testing.T) {
	if !kernel.FastBlocks() {
		t.Skip("products of blocks are not used at this level")
	}
	scheme := blockSchemes["abfp int4"](64)
	want := blockProduct(t, scheme, 40, 64, 512, false)
	var stop atomic.Bool
	var sender sync.WaitGroup
	sender.Go(func() {
		for !stop.Load() {
			_ = syscall.Kill(syscall.Getpid(), syscall.SIGURG) // Go's own, of preemption
		}
	})
	for range 20 {
		if got := blockProduct(t, scheme, 40, 64, 512, false); !slices.Equal(got, want) {
			t.Error("a product differs when signals come")
			break
		}
	}
	stop.Store(true)
	sender.Wait()
}
