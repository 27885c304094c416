package passes

import (
	"context"
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/calib"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// clipSteps is how many shares of a weight group's range AWQ tries: 1, 0.95, …, 0.55 (METHODS.md §3).
const clipSteps = 10

// clipWeights looks for the range of each scale's weights whose rounding gives the least squared error of the products'
// outputs, for all sites of the groups but those that make queries and keys, and notes the scales for fakequant. Factors are
// what the groups' inputs have been divided by, and read is what the sites read before.
func (s *search) clipWeights(ctx context.Context, gs []*group, factors map[*group]factorMap, read map[*Site]*ir.Value) error {
	f := &rptqFinder{at: map[*ir.Node]*Decision{}}
	for _, site := range s.u.sites() {
		f.at[site.Node] = &Decision{Site: site}
	}
	for i, g := range gs {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.u.progress("clipped groups", i, len(gs))
		for _, site := range g.sites {
			s.u.at(site.Name)
			if f.makesScores(site.Node.Out(0)) {
				continue
			}
			share, err := s.clip(g, site, factors[g], s.st.few[read[site]])
			if err != nil {
				return fmt.Errorf("site %q: %w", site.Name, err)
			}
			if share < 1 {
				s.u.did(site.Name, fmt.Sprintf("scales for %.3g of the weights' range on average", share))
			}
		}
	}
	return nil
}

// clip finds the scales of one weight for inputs and returns the mean share of its groups' ranges that they cover: 1 where the weight or
// its scheme allows no search.
func (s *search) clip(g *group, site *Site, factors factorMap, inputs []*ir.Tensor) (float64, error) {
	k, w := s.schemes[site.Node].weight, site.weight()
	if k.IsNone() || !k.Scaled() || k.TwoLevel() || k.FromData() || w.Value.NumUses() != 1 {
		return 1, nil
	}
	view, why := viewWeight(site, *w)
	if why != "" {
		return 1, nil
	}
	x, shape, axes, err := site.current()
	if err != nil {
		return 0, err
	}
	l, err := k.Layout(shape, axes)
	if err != nil {
		return 0, err
	}
	gram, err := g.gram(site, &view, factors, inputs)
	if err != nil || gram.Rows == 0 {
		return 1, err
	}
	parts := view.clipGroups(l, gram)
	lo, hi := numfmt.Ranges(x, l)
	best, least := make([]int, len(lo)), make([]float64, len(lo))
	q := make([]float32, len(x))
	for step := range clipSteps {
		p, err := k.Fit(shrunk(lo, hi, func(int) int { return step }))
		if err != nil {
			return 0, err
		}
		if err := k.Apply(q, x, l, p); err != nil {
			return 0, err
		}
		for i, e := range view.errors(x, q, l, parts) {
			if step == 0 || e < least[i] {
				best[i], least[i] = step, e
			}
		}
	}
	sum := 0.0
	for _, b := range best {
		sum += 1 - float64(b)/(2*clipSteps)
	}
	if sum == float64(len(best)) {
		return 1, nil
	}
	p, err := k.Fit(shrunk(lo, hi, func(i int) int { return best[i] }))
	if err != nil {
		return 0, err
	}
	s.u.SetFit(w.Value, k, l.Axis, p, op.ConstantOf(w.Value))
	return sum / float64(len(best)), nil
}

// gram sums the products of a site's inputs, divided by factors.
func (g *group) gram(site *Site, view *weightView, factors factorMap, inputs []*ir.Tensor) (*calib.Gram, error) {
	gram := calib.NewGram(site.Linear.XAxis)
	if view.conv {
		gram = calib.NewConvGram(site.Node, view.shape)
	}
	classes := g.classes(site)
	for i, x := range inputs {
		d := divideChannels(x, site.Linear.XAxis, func(c int) float64 {
			if v, ok := factors[classes[c]]; ok {
				return v
			}
			return 1
		})
		if err := gram.Observe(0, i, d); err != nil {
			return nil, err
		}
	}
	return gram, nil
}

// shrunk makes ranges smaller by so many steps.
func shrunk(lo, hi []float32, steps func(i int) int) (l, h []float32) {
	l, h = make([]float32, len(lo)), make([]float32, len(hi))
	for i := range lo {
		by := 1 - float64(steps(i))/(2*clipSteps)
		l[i], h[i] = float32(float64(lo[i])*by), float32(float64(hi[i])*by)
	}
	return l, h
}

// clipGroup is one matrix of a weight (of a group of a convolution), with what its inputs weigh.
type clipGroup struct {
	part  []int // of each column: columns of one part share their scale in a row
	first []int // column of each part
	h     []float64
}

// clipGroups keeps of a Gram matrix what lies between columns of the same part: errors of different scales are searched apart.
func (v *weightView) clipGroups(l numfmt.Layout, gram *calib.Gram) []clipGroup {
	var gs []clipGroup
	for group := range v.groups {
		g := clipGroup{h: slices.Clone(gram.H[group])}
		index := map[int]int{}
		for c := range v.cols {
			k := l.GroupOf(v.at(group, 0, c))
			if _, ok := index[k]; !ok {
				index[k] = len(g.first)
				g.first = append(g.first, c)
			}
			g.part = append(g.part, index[k])
		}
		kernel.MirrorLower(v.cols, g.h, v.cols)
		for a := range v.cols {
			for b := range v.cols {
				if g.part[a] != g.part[b] {
					g.h[a*v.cols+b] = 0
				}
			}
		}
		gs = append(gs, g)
	}
	return gs
}

// errors returns for each scale of a layout the squared error that rounding its weights from x to q makes in the outputs:
// e·H·eᵀ over its columns.
func (v *weightView) errors(x, q []float32, l numfmt.Layout, gs []clipGroup) []float64 {
	sums := make([]float64, l.Groups())
	e, t := make([]float64, v.rows*v.cols), make([]float64, v.rows*v.cols)
	for group, g := range gs {
		for r := range v.rows {
			for c := range v.cols {
				i := v.at(group, r, c)
				e[r*v.cols+c] = float64(q[i]) - float64(x[i])
			}
		}
		kernel.MatMul64(v.rows, v.cols, v.cols, e, v.cols, false, g.h, v.cols, false, t, v.cols, false)
		for r := range v.rows {
			parts := make([]float64, len(g.first))
			for c, p := range g.part {
				parts[p] += e[r*v.cols+c] * t[r*v.cols+c]
			}
			for p, e := range parts {
				sums[l.GroupOf(v.at(group, r, g.first[p]))] += e
			}
		}
	}
	return sums
}
