package passes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
)

// Equalize balances the ranges of weights that follow one another.
var Equalize = Define("equalize", equalizeDoc, struct{}{}, equalize)

const equalizeDoc = `scales channels between products so that the weights on both sides have the same range in each of them

Where nothing but proportional operators (Relu, LeakyRelu, pooling, the product with a gate, attention's mixing of tokens)
lies between two products, channel i of the first is divided and its rows in the second are multiplied by sqrt(r1/r2), r1
and r2 being the largest magnitudes of the weights on both sides (Nagel et al., data-free quantization). Chains are swept
until no factor moves by more than 1e-4; for a depthwise convolution between two others that makes all three ranges the cube
root of their product. Relu6 is left alone: it is not proportional. BatchNormalization must have been folded before. Needs no
samples; with samples each rewrite runs on the first one before and after, and one that moves an output by more than 1e-4 of
its largest magnitude is taken back. The model computes what it did.`

// equalizeSweeps bounds the sweeps over chains.
const equalizeSweeps = 200

func equalize(ctx context.Context, u *Unit, _ struct{}) error {
	w, err := newWiring(u.Model)
	if err != nil {
		return err
	}
	gs := u.selectGroups(w, (*group).notBetweenProducts)
	if u.DryRun || len(gs) == 0 {
		u.reportGroups(gs)
		return nil
	}
	totals, err := balance(gs)
	if err != nil {
		return err
	}
	st := &statistics{}
	if u.Samples != nil {
		st.first = witnessOf(gs)
		if err := st.first.run(ctx, u); err != nil {
			return err
		}
	}
	if u.Samples == nil {
		u.note("there are no samples: the rewrites were not tried by running them")
	}
	return u.rescaleAll(ctx, gs, st, func(g *group) (factorMap, error) { return totals[g], nil })
}

// notBetweenProducts says why a group is no case for equalization, "" if it is one.
func (g *group) notBetweenProducts() string {
	if g.scale == nil {
		return g.why
	}
	columns := false
	for _, e := range g.scale.edits {
		if n := g.scale.w.affine[e.node]; n != nil {
			return fmt.Sprintf("the %v %s makes its input, no product", n.Kind, called(n.Core))
		}
		columns = columns || e.divide && e.site != nil
	}
	if !columns {
		return "no product makes its input"
	}
	return ""
}

// balance computes the factors of all groups that make the ranges on both sides of each equal.
func balance(gs []*group) (map[*group]factorMap, error) {
	type hold struct {
		group  *group
		divide bool
		class  []int32
	}
	holds := map[*ir.Node][]hold{}
	abs := map[*ir.Node][]float64{}
	sides := map[*group][]*ir.Node{}
	for _, g := range gs {
		for _, e := range g.scale.edits {
			if e.site == nil {
				continue
			}
			x, shape, _, err := e.site.current()
			if err != nil {
				return nil, err
			}
			if abs[e.node] == nil {
				a := make([]float64, len(x))
				for i, v := range x {
					a[i] = math.Abs(float64(v))
				}
				abs[e.node] = a
			}
			class := build(slices.Clone(shape), e.ch.at).label
			for i, l := range class {
				if l != none {
					class[i] = g.scale.find(l)
				}
			}
			holds[e.node] = append(holds[e.node], hold{g, e.divide, class})
			sides[g] = append(sides[g], e.node)
		}
	}
	total := map[*group][]float64{}
	for _, g := range gs {
		f := make([]float64, len(g.scale.parent))
		for i := range f {
			f[i] = 1
		}
		total[g] = f
	}
	// ranges gives the largest magnitude of the weights before and after a group, by class, under the factors so far
	ranges := func(g *group) (before, after []float64) {
		before, after = make([]float64, len(total[g])), make([]float64, len(total[g]))
		for _, n := range sides[g] {
			for _, mine := range holds[n] {
				if mine.group != g {
					continue
				}
				r := after
				if mine.divide {
					r = before
				}
				for i, a := range abs[n] {
					c := mine.class[i]
					if c == none {
						continue
					}
					for _, h := range holds[n] {
						if l := h.class[i]; l == none {
							continue
						} else if h.divide {
							a /= total[h.group][l]
						} else {
							a *= total[h.group][l]
						}
					}
					r[c] = max(r[c], a)
				}
			}
		}
		return before, after
	}
	for range equalizeSweeps {
		moved := 0.0
		for _, g := range gs {
			before, after := ranges(g)
			for c := range before {
				s := equalFactor(before[c], after[c])
				total[g][c] = min(max(total[g][c]*s, 1/clampFactor), clampFactor)
				moved = max(moved, math.Abs(s-1))
			}
		}
		if moved < balanced {
			return roundFactors(gs, total), nil
		}
	}
	return nil, errors.New("the factors of the chains do not settle")
}

// equalFactor is the factor that makes two ranges equal: sqrt(r1/r2), 1 if either is empty.
func equalFactor(r1, r2 float64) float64 {
	if r1 == 0 || r2 == 0 {
		return 1
	}
	return math.Sqrt(r1 / r2)
}

func roundFactors(gs []*group, total map[*group][]float64) map[*group]factorMap {
	out := map[*group]factorMap{}
	for _, g := range gs {
		f := factorMap{}
		for c, s := range total[g] {
			f[int32(c)] = float64(float32(s))
		}
		out[g] = f
	}
	return out
}
