package kernel_test

import (
	"math"
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
)

// Compare is its definition, with the same bits at every level and in every division into pieces.
func TestCompare(t *testing.T) {
	var first []kernel.Comparison
	kernel.EachLevel(t, func(t *testing.T) {
		for i, n := range []int{0, 1, 7, 8, 9, 31, 1000, 16384, 50003} {
			x, y := randn(n, 1), randn(n, 2)
			for k := 0; k < n; k += 3 {
				y[k] = 0
			}
			var want kernel.Comparison
			for k, v := range x {
				a, b := float64(v), float64(y[k])
				want.XX += a * a
				want.YY += b * b
				want.XY += a * b
				want.DD += (a - b) * (a - b)
				want.MaxD = max(want.MaxD, math.Abs(a-b))
				want.MaxX = max(want.MaxX, float32(math.Abs(a)))
				if b == 0 {
					want.Zeros++
				}
			}
			got := kernel.Compare(x, y)
			near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-12*float64(n) }
			if !near(got.XX, want.XX) || !near(got.YY, want.YY) || !near(got.XY, want.XY) || !near(got.DD, want.DD) ||
				got.MaxD != want.MaxD || got.MaxX != want.MaxX || got.Zeros != want.Zeros {
				t.Errorf("%d elements: %+v, want %+v", n, got, want)
			}
			if i == len(first) {
				first = append(first, got)
			}
			if first[i] != got {
				t.Errorf("%d elements: %+v, those of another level %+v", n, got, first[i])
			}
		}
	})
}

// A NaN shows in the sums and in the largest magnitude wherever it stands.
func TestCompareNaN(t *testing.T) {
	nan := float32(math.NaN())
	kernel.EachLevel(t, func(t *testing.T) {
		for _, at := range []int{0, 9, 17, 20000} {
			x, y := randn(20001, 1), randn(20001, 2)
			x[at] = nan
			if c := kernel.Compare(x, y); c.DD == c.DD || c.MaxX == c.MaxX {
				t.Errorf("NaN at %d: %+v", at, c)
			}
			if c := kernel.Compare(y, x); c.DD == c.DD || c.MaxX != c.MaxX {
				t.Errorf("NaN at %d of the other: %+v", at, c)
			}
		}
	})
}

func TestOutside(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		for _, n := range []int{0, 1, 2, 7, 8, 9, 100} {
			x, lo, hi := randn(n, 1), make([]float32, n), make([]float32, n)
			if n > 1 {
				x[n-1] = float32(math.NaN())
				x[0] = 0.5 // on the bound
			}
			one, each := 0, 0
			for i, v := range x {
				lo[i], hi[i] = -0.5-float32(i%3), 0.25*float32(i%5)
				if v < -0.25 || v > 0.5 {
					one++
				}
				if v < lo[i] || v > hi[i] {
					each++
				}
			}
			if got := kernel.Outside(x, []float32{-0.25}, []float32{0.5}); got != one {
				t.Errorf("%d elements: %d are outside, want %d", n, got, one)
			}
			if n == 0 {
				continue
			}
			if got := kernel.Outside(x, lo, hi); got != each {
				t.Errorf("%d elements with a bound each: %d are outside, want %d", n, got, each)
			}
		}
	})
}

func BenchmarkCompare(b *testing.B) {
	x, y := randn(1<<14, 1), randn(1<<14, 2)
	b.SetBytes(8 << 14)
	for b.Loop() {
		kernel.Compare(x, y)
	}
}
