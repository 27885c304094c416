package calib

import (
	"math"

	"github.com/qsimc/qsimc/ir/numfmt"
)

// MSE searches the bin centres from bin start on for the amax whose quantizer has the least squared error over the
// histogram; the first minimum wins. It returns the bin, amax and the squared error averaged over bins (METHODS.md §3, as
// pytorch-quantization does it).
func (h *Histogram) MSE(s numfmt.Scheme, start int) (bin int, amax, mean float64, err error) {
	c, err := h.candidates(s)
	if err != nil {
		return 0, 0, 0, err
	}
	best := math.Inf(1)
	for i := min(start, len(h.Count)-1); i < len(h.Count); i++ {
		e, err := c.error(-h.Centre(i), h.Centre(i))
		if err != nil {
			return 0, 0, 0, err
		}
		if e < best {
			best, bin = e, i
		}
	}
	return bin, float64(float32(h.Centre(bin))), best / float64(len(h.Count)), nil
}

// MSEAffine searches both bounds of an asymmetric range for the least squared error: each in turn over 128 positions
// between zero and its observed end, those that leave at least start bins of 2048, until neither moves (at most 8 turns).
func (h *Histogram) MSEAffine(s numfmt.Scheme, start int) (lo, hi float64, err error) {
	c, err := h.candidates(s)
	if err != nil {
		return 0, 0, err
	}
	const steps = 128
	end := h.Edge(len(h.Count))
	lo, hi = min(h.Lo, 0), max(end, 0)
	full := [2]float64{lo, hi}
	best, err := c.error(lo, hi)
	if err != nil {
		return 0, 0, err
	}
	for range 8 {
		moved := false
		for k := max(1, start*steps/Bins); k <= steps; k++ {
			share := float64(k) / steps
			for side, l, u := 0, full[0]*share, hi; side < 2; side, l, u = side+1, lo, full[1]*share {
				if l >= u {
					continue
				}
				e, err := c.error(l, u)
				if err != nil {
					return 0, 0, err
				}
				if e < best {
					best, lo, hi, moved = e, l, u, true
				}
			}
		}
		if !moved {
			break
		}
	}
	return lo, hi, nil
}

// Octav returns the clipping bound of an optimally clipped b-bit quantizer by the fixed point
// s ← Σ|x|·[|x|>s] / (4^-b/3·#{0<|x|≤s} + #{|x|>s}) from s = mean|x| (Sakr et al. 2022; METHODS.md §3), over bins.
func (h *Histogram) Octav(bits int) float64 {
	sum := 0.0
	for i, c := range h.Count {
		sum += c * h.value(i)
	}
	total := h.Total()
	if total == 0 || sum == 0 {
		return 0
	}
	s, noise := sum/total, math.Pow(4, -float64(bits))/3
	for range 200 {
		above, n, inside := 0.0, 0.0, 0.0
		for i, c := range h.Count {
			if v := h.value(i); v > s {
				above += c * v
				n += c
			} else if v > 0 {
				inside += c
			}
		}
		next := above / (noise*inside + n)
		if n == 0 || math.Abs(next-s) <= 1e-9*s {
			return s
		}
		s = next
	}
	return s
}

// value is the mean of bin i's values where sums were kept, else its centre.
func (h *Histogram) value(i int) float64 {
	if h.Sum != nil && h.Count[i] > 0 {
		return h.Sum[i] / h.Count[i]
	}
	return h.Centre(i)
}

// candidates evaluates quantizers on the centres of the filled bins.
type candidates struct {
	scheme numfmt.Scheme
	layout numfmt.Layout
	x, q   []float32
	count  []float64
}

func (h *Histogram) candidates(s numfmt.Scheme) (*candidates, error) {
	c := &candidates{scheme: s}
	for i, n := range h.Count {
		if n > 0 {
			c.x = append(c.x, float32(h.Centre(i)))
			c.count = append(c.count, n)
		}
	}
	c.q = make([]float32, len(c.x))
	var err error
	c.layout, err = s.Layout([]int{len(c.x)}, numfmt.Axes{K: numfmt.NoAxis, Out: numfmt.NoAxis})
	return c, err
}

// error is the summed squared error of the quantizer of range [lo, hi].
func (c *candidates) error(lo, hi float64) (float64, error) {
	p, err := c.scheme.Fit([]float32{float32(lo)}, []float32{float32(hi)})
	if err != nil {
		return 0, err
	}
	if err := c.scheme.Apply(c.q, c.x, c.layout, p); err != nil {
		return 0, err
	}
	sum := 0.0
	for i, x := range c.x {
		d := float64(c.q[i]) - float64(x)
		sum += c.count[i] * d * d
	}
	return sum, nil
}
