package passes

import (
	"context"
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
)

// AWQOptions are the options of the pass awq.
type AWQOptions struct {
	Clip  bool   `opt:"clip" doc:"then search the share of the range of each scale's weights, 1 to 0.55, that gives the least error of the products' outputs, for fakequant to store; as published"`
	Sites string `opt:"sites" enum:"all|ref" doc:"all: every product with a constant weight that the policy quantizes; ref: those that read a normalization"`
}

// AWQ protects the weights that meet large activations.
var AWQ = Define("awq", awqDoc, AWQOptions{Clip: true, Sites: "all"}, awq)

const awqDoc = `scales channels so that weights which meet large activations round with less error

For the products that read the same value, s = mean|x|^r by channel, at least 1e-4 and divided by sqrt(max s · min s), with
the r of 0, 0.05, …, 0.95 whose weights, scaled, rounded by the policy's scheme and scaled back, give the least squared error
of the products' outputs on the first samples (Lin et al., AWQ; activations stay float in this measure). The factors are
absorbed as smoothquant's are, and each rewrite proves itself in the same way. Channels that query heads share among each
other (grouped-query attention) are left alone, as published. fakequant is then told scales for a smaller range of
weights where larger ones are better cut off, but for products that make queries and keys; gptq fits its own. The model computes
what it did.`

func awq(ctx context.Context, u *Unit, o AWQOptions) error {
	w, err := newWiring(u.Model)
	if err != nil {
		return err
	}
	grid, err := newSearch(u, nil)
	if err != nil {
		return err
	}
	grid.weightsOnly()
	gs := u.selectGroups(w, func(g *group) string {
		switch {
		case !grid.quantizes(g, true):
			return "the policy leaves its weight float"
		case o.Sites == "ref" && g.norm == nil:
			return "sites=ref: it reads no normalization"
		case g.sharesClasses():
			return "query heads share its channels"
		}
		return ""
	})
	if u.DryRun || len(gs) == 0 {
		u.reportGroups(gs)
		return nil
	}
	st, err := u.observe(ctx, gs, searchSamples)
	if err != nil {
		return err
	}
	grid.st = st
	var ratios []float64
	for i := range 20 {
		ratios = append(ratios, float64(i)/20)
	}
	by, read := map[*group]factorMap{}, map[*Site]*ir.Value{}
	for _, g := range gs {
		for _, s := range g.sites {
			read[s] = s.Node.In(s.Linear.X)
		}
	}
	err = u.rescaleAll(ctx, gs, st, func(g *group) (factorMap, error) {
		mean := g.means(st)
		pick := func(r float64) factorMap { return awqFactors(mean, r) }
		best, err := grid.best(ctx, g, ratios, pick)
		g.note = fmt.Sprintf(" (ratio=%g)", best)
		by[g] = pick(best)
		return by[g], err
	})
	if err != nil || !o.Clip {
		return err
	}
	for _, g := range gs {
		if g.left != "" {
			delete(by, g)
		}
	}
	return grid.clipWeights(ctx, gs, by, read)
}

// weightsOnly makes the search leave activations float.
func (s *search) weightsOnly() {
	for n, k := range s.schemes {
		k.input = siteSchemes{}.input
		s.schemes[n] = k
	}
}

// sharesClasses reports whether several channels of a site's input must have the same factor.
func (g *group) sharesClasses() bool {
	for _, s := range g.sites {
		seen := map[int32]bool{}
		for _, c := range g.classes(s) {
			if c != none && seen[c] {
				return true
			}
			seen[c] = true
		}
	}
	return false
}

// means gathers the mean magnitude of the activation for every class of a group.
func (g *group) means(st *statistics) map[int32]float64 {
	mean := map[int32]float64{}
	for _, s := range g.sites {
		m := st.of[s.Node.In(s.Linear.X)].mean()
		for k, c := range g.classes(s) {
			if c != none {
				mean[c] = max(mean[c], m[k])
			}
		}
	}
	return mean
}

// awqFactors computes mean^ratio, at least 1e-4, over the geometric mean of the largest and the smallest.
func awqFactors(mean map[int32]float64, ratio float64) factorMap {
	f := factorMap{}
	lo, hi := math.Inf(1), 0.0
	for c, m := range mean {
		f[c] = max(math.Pow(m, ratio), 1e-4)
		lo, hi = min(lo, f[c]), max(hi, f[c])
	}
	norm := math.Sqrt(lo * hi)
	for c := range f {
		f[c] = float64(float32(f[c] / norm))
	}
	return f
}
