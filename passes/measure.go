package passes

import (
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
)

type iterTensors = iter.Seq2[ir.Tensors, error]

// measures are what the report says of one quantizer. Samples are kept apart and summed in their order, so that the result
// does not depend on the order in which they came.
type measures struct {
	samples map[int]*tally
	amax    float32
	bits    float64
}

// tally counts over one sample.
type tally struct {
	n, clipped, zero int
	signal, noise    float64
}

func (t *tally) add(o *tally) {
	t.n += o.n
	t.clipped += o.clipped
	t.zero += o.zero
	t.signal += o.signal
	t.noise += o.noise
}

// atOnce is the number of values that are measured in one go.
const atOnce = 1 << 20

// add measures the quantizer on x. Dynamic schemes are fitted to x itself.
func (m *measures) add(sample int, s numfmt.Scheme, l numfmt.Layout, p numfmt.Params, x []float32) error {
	if s.Dynamic || !s.Scaled() {
		t := m.tally(sample)
		q := make([]float32, len(x))
		if err := s.ApplyDynamic(q, x, l); err != nil {
			return err
		}
		m.compare(t, x, q)
		return nil
	}
	return m.addRounded(sample, s, l, p, x, x)
}

// tally is that of a sample; a value inside a loop comes several times.
func (m *measures) tally(sample int) *tally {
	if m.samples == nil {
		m.samples = map[int]*tally{}
	}
	t := m.samples[sample]
	if t == nil {
		t = &tally{}
		m.samples[sample] = t
	}
	return t
}

// addRounded measures a static quantizer whose input x is values that were moved before, to where they are to be rounded.
func (m *measures) addRounded(sample int, s numfmt.Scheme, l numfmt.Layout, p numfmt.Params, values, x []float32) error {
	t := m.tally(sample)
	var q []float32
	for part := range l.Parts(p, atOnce) {
		v := values[part.From:part.To]
		if q == nil {
			q = make([]float32, len(v))
		}
		if err := s.Apply(q[:len(v)], x[part.From:part.To], part.Layout, part.Params); err != nil {
			return err
		}
		m.compare(t, v, q[:len(v)])
		n, err := clipped(s, part.Layout, part.Params, v)
		if err != nil {
			return err
		}
		t.clipped += n
	}
	return nil
}

// compare adds values and what they became to a sample's tally.
func (m *measures) compare(t *tally, x, q []float32) {
	noise, signal, zero := t.noise, t.signal, 0
	top := math.Float32bits(m.amax) // of magnitudes: in the order of their bits, NaN above all
	q = q[:len(x)]
	for i, v := range x {
		d := float64(q[i]) - float64(v)
		noise += d * d
		signal += float64(v) * float64(v)
		if q[i] == 0 {
			zero++
		}
		top = max(top, math.Float32bits(v)&^(1<<31))
	}
	t.n += len(x)
	t.noise, t.signal = noise, signal
	t.zero += zero
	m.amax = math.Float32frombits(top)
}

// clipped counts the values that lie beyond the largest or smallest that their group can hold, by more than rounding of the
// scale explains.
func clipped(s numfmt.Scheme, l numfmt.Layout, p numfmt.Params, x []float32) (int, error) {
	const slack = 1e-5
	lo, hi := make([]float32, l.Groups()), make([]float32, l.Groups())
	for g := range lo {
		q, err := s.Quantizer(p, g)
		if err != nil {
			return 0, fmt.Errorf("group %d: %w", g, err)
		}
		lo[g], hi[g] = q.Round(-math.MaxFloat32)*(1+slack), q.Round(math.MaxFloat32)*(1+slack)
	}
	n := 0
	for r := range l.Runs() {
		run := x[r.Off : r.Off+r.Len]
		if r.Step == 0 {
			low, high := lo[r.Group], hi[r.Group]
			for _, v := range run {
				if v > high || v < low {
					n++
				}
			}
			continue
		}
		low, high := lo[r.Group:][:len(run)], hi[r.Group:][:len(run)]
		for i, v := range run {
			if v > high[i] || v < low[i] {
				n++
			}
		}
	}
	return n, nil
}

// describe writes the measures into a report's entry.
func (m *measures) describe(e *SiteEntry) {
	if m.bits > 0 {
		e.Bits = Measure(m.bits)
	}
	order := make([]int, 0, len(m.samples))
	for i := range m.samples {
		order = append(order, i)
	}
	slices.Sort(order)
	var sum tally
	for _, i := range order {
		t := m.samples[i]
		sum.add(t)
	}
	if sum.n == 0 {
		return
	}
	e.ClipFraction = Measure(float64(sum.clipped) / float64(sum.n))
	e.ZeroFraction = Measure(float64(sum.zero) / float64(sum.n))
	if sum.signal > 0 {
		e.SQNR = Measure(10 * math.Log10(sum.signal/sum.noise))
	}
	if math.IsNaN(float64(e.Amax)) {
		e.Amax = Measure(m.amax)
	}
}

// entry is the report's line of an operand, with nothing measured yet.
func (in *inserter) entry(d *Decision, c *Choice) SiteEntry {
	return SiteEntry{Site: d.Name, Node: d.Node.Name, Op: d.OpType(), Role: c.Role.String(), Scheme: c.Scheme.Text(c.Role),
		Amax: NotMeasured, ClipFraction: NotMeasured, ZeroFraction: NotMeasured, SQNR: NotMeasured, Bits: NotMeasured}
}

// describe adds what was measured of the quantizer.
func (q *quantizer) describe(e *SiteEntry) {
	if q.amax > 0 || q.params.Scale != nil {
		e.Amax = Measure(q.amax)
	}
	q.stats.describe(e)
}
