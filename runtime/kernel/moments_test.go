package kernel_test

import (
	"math"
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
)

// Mean and Variance are the definitions in float64, with the same bits at every level.
func TestMoments(t *testing.T) {
	var first [][2]float64
	kernel.EachLevel(t, func(t *testing.T) {
		for i, n := range []int{1, 5, 31, 32, 33, 64, 169, 1000} {
			x := randn(n, 3)
			var mean, variance float64
			for _, v := range x {
				mean += float64(v) / float64(n)
			}
			for _, v := range x {
				variance += (float64(v) - mean) * (float64(v) - mean) / float64(n)
			}
			m := kernel.Mean(x)
			v := kernel.Variance(x, m)
			if math.Abs(m-mean) > 1e-12 || math.Abs(v-variance) > 1e-12 {
				t.Errorf("%d elements: mean %v, variance %v, want %v and %v", n, m, v, mean, variance)
			}
			if i == len(first) {
				first = append(first, [2]float64{m, v})
			}
			if first[i] != [2]float64{m, v} {
				t.Errorf("%d elements: mean and variance are %v and %v, those of another level %v", n, m, v, first[i])
			}
		}
	})
}
