package passes

import (
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
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

// atOnce is the number of values that are measured in one go, on one core: with what they became they fit its cache.
const atOnce = 1 << 16

// rooms are slices for what values became.
var rooms = sync.Pool{New: func() any { return new([]float32) }}

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
	parts := slices.Collect(l.Parts(p, atOnce))
	sums, beyond, errs := make([]kernel.Comparison, len(parts)), make([]int, len(parts)), make([]error, len(parts))
	var all bounds // where the parts have the same groups
	if parts[0].Layout.Groups() == l.Groups() {
		var err error
		if all, err = holdable(s, p, l.Groups()); err != nil {
			return err
		}
	}
	par.For(len(parts), 1, func(from, to int) {
		room := rooms.Get().(*[]float32)
		defer func() {
			if cap(*room) <= 4*atOnce {
				rooms.Put(room)
			}
		}()
		for i := from; i < to; i++ {
			part := parts[i]
			v := values[part.From:part.To]
			*room = slices.Grow((*room)[:0], len(v))
			q := (*room)[:len(v)]
			if errs[i] = s.Apply(q, x[part.From:part.To], part.Layout, part.Params); errs[i] != nil {
				return
			}
			sums[i] = kernel.Compare(v, q)
			b := all
			if n := part.Layout.Groups(); n != l.Groups() {
				if b, errs[i] = holdable(s, part.Params, n); errs[i] != nil {
					return
				}
			}
			beyond[i] = b.beyond(part.Layout, v)
		}
	})
	t := m.tally(sample)
	for i, sum := range sums {
		if errs[i] != nil {
			return errs[i]
		}
		m.take(t, parts[i].To-parts[i].From, sum)
		t.clipped += beyond[i]
	}
	return nil
}

// compare adds values and what they became to a sample's tally.
func (m *measures) compare(t *tally, x, q []float32) { m.take(t, len(x), kernel.Compare(x, q)) }

func (m *measures) take(t *tally, n int, c kernel.Comparison) {
	t.n += n
	t.noise += c.DD
	t.signal += c.XX
	t.zero += c.Zeros
	m.amax = max(m.amax, c.MaxX) // the built-in keeps NaN
}

// holdable returns the smallest and largest values that each group can hold, and what rounding of the scale explains beyond.
func holdable(s numfmt.Scheme, p numfmt.Params, groups int) (bounds, error) {
	const slack = 1e-5
	b := bounds{lo: make([]float32, groups), hi: make([]float32, groups)}
	for g := range b.lo {
		q, err := s.Quantizer(p, g)
		if err != nil {
			return bounds{}, fmt.Errorf("group %d: %w", g, err)
		}
		b.lo[g], b.hi[g] = q.Round(-math.MaxFloat32)*(1+slack), q.Round(math.MaxFloat32)*(1+slack)
	}
	return b, nil
}

// beyond counts the values that lie outside the bounds of their groups.
func (b bounds) beyond(l numfmt.Layout, x []float32) (n int) {
	for r := range l.Runs() {
		groups := 1
		if r.Step != 0 {
			groups = r.Len
		}
		n += kernel.Outside(x[r.Off:r.Off+r.Len], b.lo[r.Group:r.Group+groups], b.hi[r.Group:r.Group+groups])
	}
	return n
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
