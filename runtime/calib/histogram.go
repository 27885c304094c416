package calib

import (
	"fmt"
	"math"
)

// Bins is the number of bins of a calibration histogram (METHODS.md §3).
const Bins = 2048

// Histogram counts values in equal bins over [Lo, Lo+Width·len(Count)]; the last bin includes its right edge. Sum, where it
// is not nil, holds the sum of each bin's values. Counts are exact integers in float64, so that the order of samples does
// not matter; sums are not, and want the samples in order.
type Histogram struct {
	Lo, Width float64
	Count     []float64
	Sum       []float64
}

// NewHistogram returns Bins empty bins over [lo, hi].
func NewHistogram(lo, hi float64) *Histogram {
	return &Histogram{Lo: lo, Width: (hi - lo) / Bins, Count: make([]float64, Bins)}
}

// bin returns the bin whose edges x lies between, below 0 or from len(Count) on for values outside. It goes by the edges
// themselves: a quotient of floats may fall on the other side of one.
func (h *Histogram) bin(x float64) int {
	if h.Width <= 0 {
		return 0
	}
	i := int(math.Floor((x - h.Lo) / h.Width))
	switch {
	case x < h.Edge(i):
		i--
	case x >= h.Edge(i+1):
		i++
	}
	return i
}

// Add counts x; values outside the range count in the nearest bin.
func (h *Histogram) Add(x float64) { h.put(max(min(h.bin(x), len(h.Count)-1), 0), x) }

func (h *Histogram) put(i int, x float64) {
	h.Count[i]++
	if h.Sum != nil {
		h.Sum[i] += x
	}
}

// mostBins bounds a histogram that grows: 64 times the range it began with.
const mostBins = 64 * Bins

// Grow counts x, after extending the range by bins of the same width where x lies outside. A histogram without width, of
// nothing but zeros, takes the range of the first value that is not 0. It fails where that takes more than 64 times Bins.
func (h *Histogram) Grow(x float64) error {
	if h.Width <= 0 {
		if x == 0 {
			h.put(0, x)
			return nil
		}
		n := h.Total()
		*h = Histogram{Lo: min(x, 0), Width: math.Abs(x) / Bins, Count: make([]float64, Bins), Sum: h.Sum}
		if h.Sum != nil {
			h.Sum = make([]float64, Bins)
		}
		h.Count[max(min(h.bin(0), Bins-1), 0)] = n
	}
	i, n := h.bin(x), len(h.Count)
	switch {
	case i == n && x <= h.Edge(n): // the last bin includes its right edge
		i = n - 1
	case i >= mostBins || n-i > mostBins:
		return fmt.Errorf("values of %v reach beyond %d bins of %v, 64 times the range of the first sample: hist=twopass lays the bins over all samples", x, mostBins, h.Width)
	case i >= n:
		h.extend(0, i+1-n)
	case i < 0:
		h.extend(-i, 0)
		h.Lo += float64(i) * h.Width
		i = 0
	}
	h.put(i, x)
	return nil
}

// extend adds empty bins below and above.
func (h *Histogram) extend(below, above int) {
	more := func(c []float64) []float64 {
		out := make([]float64, below+len(c)+above)
		copy(out[below:], c)
		return out
	}
	h.Count = more(h.Count)
	if h.Sum != nil {
		h.Sum = more(h.Sum)
	}
}

// Edge returns the left edge of bin i; Edge(len(Count)) is the end of the range.
func (h *Histogram) Edge(i int) float64 { return h.Lo + float64(i)*h.Width }

// Centre returns the middle of bin i.
func (h *Histogram) Centre(i int) float64 { return h.Lo + (float64(i)+0.5)*h.Width }

// Total returns the number of values.
func (h *Histogram) Total() float64 {
	t := 0.0
	for _, c := range h.Count {
		t += c
	}
	return t
}

// Percentile returns the left edge of the first bin at which the cumulative share reaches p percent.
func (h *Histogram) Percentile(p float64) float64 {
	total, cum := h.Total(), 0.0
	for i, c := range h.Count {
		if cum += c; cum/total >= p/100 {
			return h.Edge(i)
		}
	}
	return h.Edge(len(h.Count))
}

// PercentileBelow returns the right edge of the last bin above which the cumulative share, counted from the top, reaches p
// percent: Percentile of the mirrored distribution.
func (h *Histogram) PercentileBelow(p float64) float64 {
	total, cum := h.Total(), 0.0
	for i := len(h.Count) - 1; i >= 0; i-- {
		if cum += h.Count[i]; cum/total >= p/100 {
			return h.Edge(i + 1)
		}
	}
	return h.Lo
}

// Entropy returns the edge i ≥ start whose clipped histogram, merged into levels, has the least Kullback-Leibler divergence
// from the clipped original; the last of equal minima wins. Bin 0 counts as much as bin 1: zeros dominate otherwise.
func (h *Histogram) Entropy(levels, start int) float64 {
	count := append([]float64(nil), h.Count...)
	if len(count) > 1 {
		count[0] = count[1]
	}
	tail := make([]float64, len(count)+1)
	for i := len(count) - 1; i >= 0; i-- {
		tail[i] = tail[i+1] + count[i]
	}
	best, at := math.Inf(1), len(count)
	p := make([]float64, len(count))
	q := make([]float64, len(count))
	for i := min(start, len(count)); i <= len(count); i++ {
		copy(p[:i], count[:i])
		p[i-1] += tail[i]
		merge(q[:i], count[:i], levels)
		if d := divergence(p[:i], q[:i]); d <= best {
			best, at = d, i
		}
	}
	return h.Edge(at)
}

// merge spreads each of the levels' mean over its non-empty bins. Bin i of n belongs to level ⌊i·levels/n⌋.
func merge(q, count []float64, levels int) {
	n := len(count)
	for l := range levels {
		lo, hi := (l*n+levels-1)/levels, ((l+1)*n+levels-1)/levels
		sum, filled := 0.0, 0.0
		for _, c := range count[lo:hi] {
			if c > 0 {
				sum += c
				filled++
			}
		}
		for i := lo; i < hi; i++ {
			q[i] = 0
			if count[i] > 0 {
				q[i] = sum / filled
			}
		}
	}
}

// divergence is KL(p‖q) of two unnormalized distributions; +Inf where p has mass and q none.
func divergence(p, q []float64) float64 {
	sp, sq := 0.0, 0.0
	for i := range p {
		sp += p[i]
		sq += q[i]
	}
	if sp == 0 || sq == 0 {
		return math.Inf(1)
	}
	d := 0.0
	for i := range p {
		if p[i] == 0 {
			continue
		}
		if q[i] == 0 {
			return math.Inf(1)
		}
		d += p[i] / sp * math.Log(p[i]*sq/(q[i]*sp))
	}
	return d
}
