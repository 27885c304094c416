package passes

import (
	"fmt"

	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
)

// gatherMade notes the quantizers in front of an operand that is quantized already. One that is alone has a profile.
func (in *inserter) gatherMade(c *Choice) {
	qs := in.madeBy(c)
	if qs == nil {
		return
	}
	in.before[c] = qs
	if q := qs[0]; len(qs) == 1 && in.u.Profile && q.profile == nil {
		q.profile = newProfile(q)
	}
}

// madeBy returns the quantizers that passes before fakequant have put in front of an operand, to be measured and reported with
// its own; more than one where an operand is joined from parts.
func (in *inserter) madeBy(c *Choice) []*quantizer {
	if c.Role != numfmt.Input {
		return nil
	}
	var qs []*quantizer
	for _, n := range quantizersOf(c.Value, maxWalk) {
		if !in.u.own[n] || n.Op != op.FakeQuantOp {
			return nil
		}
		q := in.made[n]
		if q == nil {
			f, err := op.ReadFakeQuant(n)
			if err != nil {
				return nil
			}
			params, ok := op.FakeQuantParams(n)
			if !ok && f.Scheme.Scaled() && !f.Scheme.Dynamic {
				return nil
			}
			q = &quantizer{key: quantKey{value: n.In(0), graph: n.Graph(), scheme: f.Scheme, axes: f.Axes}, role: numfmt.Input, params: params, before: n, axis: -1}
			in.made[n] = q
			in.others = append(in.others, q)
		}
		qs = append(qs, q)
	}
	return qs
}

// describeMade writes what is known of an operand's quantizers into a report's entry.
func describeMade(qs []*quantizer, e *SiteEntry) {
	var all measures
	values, bits := 0, 0.0
	for _, q := range qs {
		all.amax = max(all.amax, q.stats.amax)
		for i, t := range q.stats.samples {
			all.tally(i).add(t)
			values += t.n
			bits += q.stats.bits * float64(t.n)
		}
	}
	if values > 0 {
		all.bits = bits / float64(values)
	}
	e.Scheme = qs[0].key.scheme.Text(numfmt.Input)
	if len(qs) > 1 {
		e.Scheme = fmt.Sprintf("%s in %d parts", e.Scheme, len(qs))
	}
	all.describe(e)
}
