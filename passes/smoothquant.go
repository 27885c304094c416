package passes

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
)

// SmoothQuantOptions are the options of the pass smoothquant.
type SmoothQuantOptions struct {
	Alpha string `opt:"alpha" doc:"share of the difficulty that moves from activations to weights, 0 to 1; auto: the best of 0, 0.05, …, 1 for each group, by the error of its outputs under the policy's schemes"`
	Pow2  bool   `opt:"pow2" doc:"factors are powers of two: the rewrite is exact"`
	Sites string `opt:"sites" enum:"ref|all" doc:"ref: products that read a normalization, as published (the head if the policy quantizes its input and no lookup shares its weight); all: every product with a constant weight"`
}

// SmoothQuant moves outliers of activations into weights.
var SmoothQuant = Define("smoothquant", smoothQuantDoc, SmoothQuantOptions{Alpha: "0.5", Sites: "ref"}, smoothQuant)

const smoothQuantDoc = `divides channels of activations by factors and multiplies the weights that read them, so that both quantize well

For the products that read the same value the factor of channel j is s = a^alpha / w^(1-alpha), a being the largest magnitude
of the channel over the samples and w that of the weights it meets (Xiao et al., SmoothQuant); 1 where either is zero, and
within [1e-4, 1e4]. The division goes into what makes the value: gain and bias of a normalization in one operator or spelled
out, columns of the weight before it through Relu, pooling, attention (value to output projection, one factor for the query
heads that share a key-value head) or the product with a gate, or any other constant. Where nothing can take it, or another
reader must see the value as it is (a residual stream, a graph output), a Mul is inserted before the products. Constants
that others share are copied first. Each rewrite runs on the first sample before and after; one that moves an output of the
products by more than 1e-4 of its largest magnitude is taken back. The model computes what it did.`

// clampFactor bounds the factors of SmoothQuant (METHODS.md §5).
const clampFactor = 1e4

func smoothQuant(ctx context.Context, u *Unit, o SmoothQuantOptions) error {
	alpha := math.NaN()
	if o.Alpha != "auto" {
		var err error
		if alpha, err = strconv.ParseFloat(o.Alpha, 64); err != nil || !(alpha >= 0 && alpha <= 1) {
			return fmt.Errorf("option alpha=%s: wanted a number from 0 to 1, or auto", o.Alpha)
		}
	}
	w, err := newWiring(u.Model)
	if err != nil {
		return err
	}
	heads, err := newHeads(u, w)
	if err != nil {
		return err
	}
	gs := u.selectGroups(w, func(g *group) string {
		switch {
		case o.Sites == "all":
		case g.norm == nil:
			return "sites=ref: it reads no normalization"
		case g.head:
			return heads.leaves(g)
		}
		return ""
	})
	if u.DryRun || len(gs) == 0 {
		u.reportGroups(gs)
		return nil
	}
	few := 0
	if o.Alpha == "auto" {
		few = searchSamples
	}
	st, err := u.observe(ctx, gs, few)
	if err != nil {
		return err
	}
	var grid *search
	if o.Alpha == "auto" {
		if grid, err = newSearch(u, st); err != nil {
			return err
		}
	}
	return u.rescaleAll(ctx, gs, st, func(g *group) (factorMap, error) {
		act, weights, err := g.magnitudes(st)
		if err != nil {
			return nil, err
		}
		pick := func(alpha float64) factorMap { return smoothFactors(act, weights, alpha, o.Pow2) }
		if grid == nil {
			return pick(alpha), nil
		}
		if !grid.quantizes(g, false) {
			g.left = "alpha=auto: the policy leaves it float, no alpha is better than another"
			return nil, nil
		}
		best, err := grid.best(ctx, g, alphaGrid(), pick)
		g.note = fmt.Sprintf(" (alpha=%g)", best)
		return pick(best), err
	})
}

// heads knows which heads of a model sites=ref counts: those that the policy quantizes. The published method leaves all heads
// alone because it quantizes none.
type heads struct{ quantized map[*ir.Node]bool }

func newHeads(u *Unit, w *wiring) (*heads, error) {
	ds, err := u.Policy.Decide(w.sites)
	if err != nil {
		return nil, err
	}
	h := &heads{map[*ir.Node]bool{}}
	for _, d := range ds {
		for _, c := range d.Choices {
			if c.Role == numfmt.Input && !c.Scheme.IsNone() {
				h.quantized[d.Node] = true
			}
		}
	}
	return h, nil
}

// leaves says why sites=ref leaves a head, "" if it does not.
func (h *heads) leaves(g *group) string {
	for _, s := range g.sites {
		switch root := s.weight().Value; {
		case !h.quantized[s.Node]:
			return "sites=ref: a head whose input the policy leaves float"
		case tied(root):
			return fmt.Sprintf("sites=ref: a head whose weight %q a lookup shares, which would be stored twice; sites=all copies it", root.Name)
		}
	}
	return ""
}

// tied reports whether a lookup reads a constant too.
func tied(v *ir.Value) bool {
	return slices.ContainsFunc(v.Uses(), func(u ir.Use) bool { return u.Node != nil && op.RoleOf(u.Node) == op.LookupRole && u.Slot == 0 })
}

// alphaGrid lists the candidates of alpha=auto.
func alphaGrid() []float64 {
	var grid []float64
	for i := range 21 {
		grid = append(grid, float64(i)/20)
	}
	return grid
}

// smoothFactors computes the factors of SmoothQuant from the largest magnitudes of activations and weights.
func smoothFactors(act, weights map[int32]float64, alpha float64, pow2 bool) factorMap {
	f := factorMap{}
	for c, a := range act {
		f[c] = smoothFactor(a, weights[c], alpha, pow2)
	}
	return f
}

// smoothFactor is a^alpha / w^(1-alpha), in float64 and then rounded to float32 (METHODS.md §5).
func smoothFactor(a, w, alpha float64, pow2 bool) float64 {
	if a == 0 || w == 0 {
		return 1
	}
	s := math.Pow(a, alpha) / math.Pow(w, 1-alpha)
	s = min(max(s, 1/clampFactor), clampFactor)
	if pow2 {
		return math.Ldexp(1, int(math.RoundToEven(math.Log2(s))))
	}
	return float64(float32(s))
}
