//go:build amd64 && !noasm

package kernel_test

import (
	"testing"
	"time"

	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// A packed product reaches at least 60 % of the fused multiply-adds that a bare loop does on this machine. Both are
// measured in turn, several rounds, and the best of each counts: neighbours on a shared machine only ever slow one down.
func TestProductSpeed(t *testing.T) {
	old := par.SetLimit(1)
	defer par.SetLimit(old)
	for _, level := range []string{"avx512", "avx2"} {
		restore, ok := kernel.SetLevel(level)
		if !ok {
			continue
		}
		m, n, k := 252, 768, 384
		a, b, c := randn(m*k, 1), kernel.PackB(k, n, randn(k*n, 2), n, false), make([]float32, m*n)
		var peak, got float64
		for range 40 {
			flops := kernel.FMALoop(level, 200_000)
			start := time.Now()
			kernel.FMALoop(level, 200_000)
			peak = max(peak, flops/time.Since(start).Seconds())
			start = time.Now()
			kernel.Gemm(m, a, k, b, c, n, false)
			got = max(got, 2*float64(m)*float64(n)*float64(k)/time.Since(start).Seconds())
			if got > 0.9*peak {
				break
			}
		}
		t.Logf("%s: %.0f of %.0f GFLOP/s, %.0f %%", level, got/1e9, peak/1e9, 100*got/peak)
		if got < 0.6*peak {
			t.Errorf("%s: a product runs at %.0f %% of the multiply-add loop, want at least 60 %%", level, 100*got/peak)
		}
		restore()
	}
}
