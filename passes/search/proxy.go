package search

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/runtime/calib"
)

// ProxyRow is what quantizing one site is estimated to cost, from its own operands alone. None of it was measured at the
// model's outputs.
type ProxyRow struct {
	Site    string `json:"site"`
	Op      string `json:"op"`
	Order   int    `json:"order"`
	Weights string `json:"weights"`
	Inputs  string `json:"inputs"`

	WeightSQNR passes.Measure `json:"proxy_weight_sqnr_db"`
	InputSQNR  passes.Measure `json:"proxy_input_sqnr_db"` // the worse of two
	// Hessian is Σₖ Hₖ·ΔWₖ² / Σₖ Hₖ·Wₖ² with Hₖ the mean square of input channel k, the diagonal of the layer's Hessian: an estimate
	// of the relative error of the site's result that its weight makes.
	Hessian passes.Measure `json:"proxy_hessian_error"`
	// Score ranks: Hessian (or, without it, the weight's noise-to-signal ratio) plus the inputs' noise-to-signal ratios.
	Score float64 `json:"proxy_score"`
}

// Proxies estimates every site without running quantized models: one sweep over the measured samples serves all. The rows come
// with the largest score first.
func (a *Analyzer) Proxies(ctx context.Context) ([]ProxyRow, error) {
	squares := map[*ir.Value]*meanSquares{}
	var probes []calib.Probe
	for _, s := range a.sites {
		if x, k := s.contraction(); s.weight != nil && x != nil && squares[x] == nil {
			squares[x] = &meanSquares{axis: k, samples: map[int][]float64{}}
			probes = append(probes, calib.Probe{Value: x, Into: squares[x]})
		}
	}
	if probes != nil {
		o := calib.Options{Jobs: a.c.Jobs, Runtime: a.c.Runtime, Progress: func(done int) { a.progress("samples", done, 0) }}
		if err := calib.Sweep(ctx, a.base, a.measure, probes, o); err != nil {
			return nil, err
		}
	}
	var rows []ProxyRow
	for i, s := range a.sites {
		base := s.row(i + 1)
		r := ProxyRow{Site: base.Site, Op: base.Op, Order: base.Order, Weights: base.Weights, Inputs: base.Inputs,
			WeightSQNR: passes.NotMeasured, InputSQNR: passes.NotMeasured, Hessian: passes.NotMeasured}
		for _, e := range a.report.Sites {
			if e.Site != s.Name || math.IsNaN(float64(e.SQNR)) {
				continue
			}
			noise := math.Pow(10, -float64(e.SQNR)/10)
			switch e.Role {
			case numfmt.Weight.String():
				r.WeightSQNR = e.SQNR
			case numfmt.Input.String():
				r.Score += noise
				if !(float64(r.InputSQNR) < float64(e.SQNR)) {
					r.InputSQNR = e.SQNR
				}
			}
		}
		if s.weight != nil {
			x, _ := s.contraction()
			e, err := s.hessianError(squares[x])
			if err != nil {
				return nil, fmt.Errorf("site %q: %w", s.Name, err)
			}
			switch r.Hessian = passes.Measure(e); {
			case e == e:
				r.Score += e
			case !math.IsNaN(float64(r.WeightSQNR)):
				r.Score += math.Pow(10, -float64(r.WeightSQNR)/10)
			}
		}
		rows = append(rows, r)
	}
	slices.SortStableFunc(rows, func(x, y ProxyRow) int { return cmp.Compare(y.Score, x.Score) })
	return rows, nil
}

// contraction returns the activation that a product's weight multiplies, and its axis.
func (s *site) contraction() (*ir.Value, int) {
	if s.Kind != passes.Linear {
		return nil, 0
	}
	for _, c := range s.Choices {
		if c.Role == numfmt.Input {
			return c.Value, c.Axes.K
		}
	}
	return nil, 0
}

// meanSquares observes the mean square of each channel. Samples are summed in their order.
type meanSquares struct {
	axis    int
	samples map[int][]float64
	count   int
}

// Passes, Ordered and Observe make it an observer.
func (m *meanSquares) Passes() int { return 1 }

// Ordered reports that samples may come in any order.
func (m *meanSquares) Ordered() bool { return false }

// Observe adds one sample.
func (m *meanSquares) Observe(_, sample int, t *ir.Tensor) error {
	x, ok := t.Float32s()
	shape := t.Shape()
	axis := m.axis
	if axis < 0 {
		axis += len(shape)
	}
	if !ok || axis < 0 || axis >= len(shape) {
		return fmt.Errorf("%v has no channels along axis %d", t.Type(), m.axis)
	}
	post := 1
	for _, d := range shape[axis+1:] {
		post *= d
	}
	sums := m.samples[sample]
	if sums == nil {
		sums = make([]float64, shape[axis])
		m.samples[sample] = sums
	}
	if len(sums) != shape[axis] {
		return fmt.Errorf("axis %d has %d channels, earlier %d", axis, shape[axis], len(sums))
	}
	for i, v := range x {
		sums[i/post%len(sums)] += float64(v) * float64(v)
	}
	m.count += len(x) / max(len(sums), 1)
	return nil
}

func (m *meanSquares) mean() []float64 {
	var out []float64
	order := make([]int, 0, len(m.samples))
	for i := range m.samples {
		order = append(order, i)
	}
	slices.Sort(order)
	for _, i := range order {
		if out == nil {
			out = make([]float64, len(m.samples[i]))
		}
		for k, v := range m.samples[i][:min(len(out), len(m.samples[i]))] {
			out[k] += v / float64(m.count)
		}
	}
	return out
}

// hessianError is ProxyRow.Hessian; NaN where the weight's contraction axis is not as long as the input has channels (grouped
// convolutions, tables).
func (s *site) hessianError(m *meanSquares) (float64, error) {
	c := s.weight
	if m == nil || c.Axes.K == numfmt.NoAxis {
		return math.NaN(), nil
	}
	h := m.mean()
	t := op.ConstantOf(c.Value)
	x, ok := t.Float32s()
	shape := t.Shape()
	if !ok || shape[c.Axes.K] != len(h) {
		return math.NaN(), nil
	}
	l, err := c.Scheme.Layout(shape, c.Axes)
	if err != nil {
		return 0, err
	}
	p, err := c.Scheme.FitData(x, l)
	if err != nil {
		return 0, err
	}
	q := make([]float32, len(x))
	if err := c.Scheme.Apply(q, x, l, p); err != nil {
		return 0, err
	}
	post := 1
	for _, d := range shape[c.Axes.K+1:] {
		post *= d
	}
	noise, signal := 0.0, 0.0
	for i, v := range x {
		w := h[i/post%len(h)]
		d := float64(q[i]) - float64(v)
		noise += w * d * d
		signal += w * float64(v) * float64(v)
	}
	if signal == 0 {
		return 0, nil
	}
	return noise / signal, nil
}
