package passes

import "slices"

// clustering is a partition of channels into groups that are alike.
type clustering struct {
	labels []int // by channel; clusters are numbered by their smallest channel
	sizes  []int // by cluster
	perm   []int // channels, cluster by cluster, in their own order inside each
	sse    float64
}

// kmeans partitions points into at most k clusters, always in the same way (METHODS.md §7, [DIFF 13]): the first centre is point
// first, each further one the point farthest from its nearest centre, then Lloyd's iterations until nothing moves, at most
// 300. A cluster that becomes empty takes the point farthest from its centre; among equals the lowest index counts. There are
// fewer clusters than k where there are fewer different points.
func kmeans(points [][]float64, k, first int) clustering {
	n := len(points)
	k = min(k, n)
	centres := [][]float64{slices.Clone(points[first])}
	near := make([]float64, n) // squared distance to the nearest centre
	for i, p := range points {
		near[i] = squaredDistance(p, centres[0])
	}
	for len(centres) < k {
		far := 0
		for i, d := range near {
			if d > near[far] {
				far = i
			}
		}
		if near[far] == 0 {
			break
		}
		centres = append(centres, slices.Clone(points[far]))
		for i, p := range points {
			near[i] = min(near[i], squaredDistance(p, points[far]))
		}
	}
	k = len(centres)
	labels := make([]int, n)
	for i := range labels {
		labels[i] = -1
	}
	for range 300 {
		moved := false
		for i, p := range points {
			best, dist := 0, squaredDistance(p, centres[0])
			for c := 1; c < k; c++ {
				if d := squaredDistance(p, centres[c]); d < dist {
					best, dist = c, d
				}
			}
			moved = moved || best != labels[i]
			labels[i], near[i] = best, dist
		}
		sizes := make([]int, k)
		for _, c := range labels {
			sizes[c]++
		}
		for c := range k {
			if sizes[c] > 0 {
				continue
			}
			far := -1
			for i := range points {
				if sizes[labels[i]] > 1 && (far < 0 || near[i] > near[far]) {
					far = i
				}
			}
			sizes[labels[far]]--
			labels[far], sizes[c], near[far], moved = c, 1, 0, true
		}
		for c := range centres {
			clear(centres[c])
		}
		for i, p := range points {
			for j, v := range p {
				centres[labels[i]][j] += v / float64(sizes[labels[i]])
			}
		}
		if !moved {
			break
		}
	}
	return orderClusters(points, labels, centres)
}

// orderClusters numbers clusters by their smallest channel.
func orderClusters(points [][]float64, labels []int, centres [][]float64) clustering {
	c := clustering{labels: make([]int, len(labels))}
	number := map[int]int{}
	for i, l := range labels {
		if _, ok := number[l]; !ok {
			number[l] = len(number)
			c.sizes = append(c.sizes, 0)
		}
		c.labels[i] = number[l]
		c.sizes[number[l]]++
		c.sse += squaredDistance(points[i], centres[l])
	}
	c.perm = byLabel(c.labels)
	return c
}

// byLabel lists channels cluster by cluster, in their own order inside each.
func byLabel(labels []int) []int {
	perm := make([]int, len(labels))
	for i := range perm {
		perm[i] = i
	}
	slices.SortStableFunc(perm, func(a, b int) int { return labels[a] - labels[b] })
	return perm
}

// inverse returns the permutation that undoes perm.
func inverse(perm []int) []int {
	inv := make([]int, len(perm))
	for i, p := range perm {
		inv[p] = i
	}
	return inv
}

func squaredDistance(a, b []float64) float64 {
	sum := 0.0
	for i := range a {
		d := a[i] - b[i]
		sum += d * d
	}
	return sum
}
