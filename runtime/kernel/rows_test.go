package kernel_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
)

// Functions on whole rows have the bits of the passes they stand for, whatever the length of a row, and touch nothing else.
func TestRows(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	same := func(t *testing.T, what string, got, want []float32) {
		t.Helper()
		if !slices.EqualFunc(got, want, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b }) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	kernel.EachLevel(t, func(t *testing.T) {
		const rows = 5
		for _, n := range []int{1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 65, 95, 96, 130, 257} {
			ld := n + 3
			x, mask, gamma, beta := randn(rows*ld, 1), randn(rows*ld, 2), randn(n, 3), randn(n, 4)
			x[ld], x[2*ld+n-1] = nan, inf
			for i := range n {
				mask[3*ld+i] = -inf
			}
			for _, c := range []struct {
				scale float32
				mask  []float32
				ldm   int
			}{{1, nil, 0}, {0.125, nil, 0}, {1, mask, ld}, {0.3, mask, ld}, {0.3, mask[4*ld:], 0}} {
				got, want := slices.Clone(x), slices.Clone(x)
				kernel.SoftmaxRows(rows, n, got, ld, got, ld, c.scale, c.mask, c.ldm)
				kernel.PlainRows(func() { kernel.SoftmaxRows(rows, n, want, ld, want, ld, c.scale, c.mask, c.ldm) })
				same(t, fmt.Sprintf("softmax of %d, scale %v, mask %v", n, c.scale, c.ldm), got, want)
			}
			x = x[:rows*n]
			for _, f := range []func(y []float32){
				func(y []float32) { kernel.LayerNorm(rows, n, y[:rows*n], x, gamma, beta, 1e-5, nil, nil) },
				func(y []float32) { kernel.LayerNorm(rows, n, y[:rows*n], x, gamma, nil, 1e-5, nil, nil) },
				func(y []float32) { kernel.RMSNorm(rows, n, y[:rows*n], x, gamma, 1e-5) },
				func(y []float32) { kernel.RMSNorm(rows, n, y[:rows*n], x, nil, 1e-5) },
			} {
				got, want := make([]float32, rows*n+1), make([]float32, rows*n+1)
				f(got)
				kernel.PlainRows(func() { f(want) })
				same(t, fmt.Sprintf("norm of %d", n), got, want)
			}
		}
	})
}
