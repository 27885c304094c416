package passes

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Goldens 33 and 34 of METHODS.md §16.
func TestRPTQGolden33(t *testing.T) {
	t.Parallel()
	hi := []float32{1, 9, 1.2, .1, 8.5, .9, .2, 1.1}
	lo := []float32{-1, -.5, -1.1, -7, -.4, -1.2, -6.5, -.9}
	c := clusterChannels([][2][]float32{{lo, hi}}, 3)
	if d := cmp.Diff([]int{0, 1, 0, 2, 1, 0, 2, 0}, c.labels); d != "" {
		t.Errorf("labels (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]int{0, 2, 5, 7, 1, 4, 3, 6}, c.perm); d != "" {
		t.Errorf("perm (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]int{4, 2, 2}, c.sizes); d != "" {
		t.Errorf("counts (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]int{0, 4, 1, 6, 5, 2, 7, 3}, inverse(c.perm)); d != "" {
		t.Errorf("inverse (-want +got):\n%s", d)
	}
	if math.Abs(c.sse-.36) > 1e-6 {
		t.Errorf("SSE %v, want .36", c.sse)
	}
	clo, chi := c.ranges(lo, hi)
	for _, g := range []struct {
		grid        string
		scale, zero []float32
	}{
		{"centred", []float32{.15, .59375, .45}, []float32{0, -7, 8}},
		{"asym", []float32{.16, .6333333, .48}, []float32{8, 1, 15}},
	} {
		_, p, err := fitClusters(g.grid, 4, "", clo, chi)
		if err != nil {
			t.Fatal(err)
		}
		for i := range g.scale {
			if d := math.Abs(float64(p.Scale[i] - g.scale[i])); d > 6e-8 || p.Zero[i] != g.zero[i] {
				t.Errorf("%s: cluster %d: (%v, %v), want (%v, %v)", g.grid, i, p.Scale[i], p.Zero[i], g.scale[i], g.zero[i])
			}
		}
	}
}

// Clusters are never empty, every point is with its nearest centre's, and equal points need one cluster only.
func TestKMeans(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		n, k := 1+r.IntN(60), 1+r.IntN(12)
		points := make([][]float64, n)
		for i := range points {
			points[i] = []float64{math.Round(r.NormFloat64() * 3), r.NormFloat64()}
		}
		c := kmeans(points, k, r.IntN(n))
		total := 0
		for _, s := range c.sizes {
			if s == 0 {
				t.Fatalf("an empty cluster: %v", c.sizes)
			}
			total += s
		}
		if total != n || len(c.sizes) != min(k, n) {
			t.Fatalf("%d points in %d clusters, want %d in %d", total, len(c.sizes), n, min(k, n))
		}
		seen := -1
		for _, l := range c.labels {
			if l > seen+1 {
				t.Fatalf("labels %v are not numbered by their first channel", c.labels)
			}
			seen = max(seen, l)
		}
	}
	if c := kmeans([][]float64{{1}, {1}, {1}}, 2, 0); len(c.sizes) != 1 {
		t.Errorf("equal points in %d clusters", len(c.sizes))
	}
}
