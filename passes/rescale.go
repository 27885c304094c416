package passes

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
)

// factorMap holds a factor for each class of channels.
type factorMap map[int32]float64

// balanced is how far from 1 all factors of a group may be for the group to count as smooth already.
const balanced = 1e-4

// selectGroups returns the groups of a model that a pass rewrites. why tells why it leaves one, "" if it does not; the report
// says so of its sites.
func (u *Unit) selectGroups(w *wiring, why func(*group) string) []*group {
	return slices.DeleteFunc(w.groups(), func(g *group) bool {
		reason := why(g)
		if reason != "" {
			for _, s := range g.sites {
				u.skip(s.Name, reason)
			}
		}
		return reason != ""
	})
}

// rescaleAll divides the channels of all groups by their factors and reports. A group without factors says itself why it is
// left.
func (u *Unit) rescaleAll(ctx context.Context, gs []*group, st *statistics, factors func(*group) (factorMap, error)) error {
	for i, g := range upstreamLast(gs) {
		u.at(g.name())
		u.progress("groups", i, len(gs))
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := factors(g)
		if err != nil {
			return fmt.Errorf("group %q: %w", g.name(), err)
		}
		if f == nil {
			continue
		}
		if err := u.rescale(ctx, g, f, st); err != nil {
			return err
		}
	}
	u.reportGroups(gs)
	u.Model.Graph.Prune()
	return nil
}

// reportGroups says for every site of the groups what was done, or why nothing was.
func (u *Unit) reportGroups(gs []*group) {
	for _, g := range gs {
		for _, s := range g.sites {
			if g.left != "" {
				u.skip(s.Name, g.left)
			} else {
				u.did(s.Name, g.plan()+g.note)
			}
		}
	}
}

// rescale divides the channels of a group by factors: absorbed where they can be, else by an inserted Mul. A rewrite that
// does not keep the outputs of the group's sites is taken back; without a recorded sample there is nothing to tell by.
func (u *Unit) rescale(ctx context.Context, g *group, f factorMap, st *statistics) error {
	largest := 0.0
	for _, s := range f {
		largest = max(largest, math.Abs(s-1))
	}
	if largest <= balanced {
		g.left = "its channels are balanced already"
		return nil
	}
	var want []*ir.Value
	for _, s := range g.sites {
		want = append(want, s.Node.Out(0))
	}
	err := u.prove(ctx, st.first, g.nodes(), want, func(back *undo) ([]*ir.Node, error) { return g.rewrite(f, u.entry.Name, back) })
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		g.left = fmt.Sprintf("scaling %q is not kept: %v", g.name(), err)
	default:
		u.edit()
	}
	return nil
}

// rewrite divides the group's channels by their factors and returns the nodes it inserted; back learns how to take that back.
func (g *group) rewrite(f factorMap, pass string, back *undo) ([]*ir.Node, error) {
	of := func(class int32) float64 {
		if s, ok := f[class]; ok {
			return s
		}
		return 1
	}
	if g.scale != nil {
		return nil, g.scale.apply(func(l int32) float64 { return of(g.scale.find(l)) }, back)
	}
	var inserted []*ir.Node
	done := map[*ir.Value]bool{}
	for _, s := range g.sites {
		e := &paramEdit{node: s.Node, slot: s.Linear.W, site: s, ch: s.rows()}
		if err := e.apply(of, back); err != nil {
			return nil, err
		}
		x := s.Node.In(s.Linear.X)
		if done[x] {
			continue
		}
		var uses []ir.Use
		for _, u := range x.Uses() {
			if slices.ContainsFunc(g.sites, func(s *Site) bool { return s.Node == u.Node && s.Linear.X == u.Slot }) {
				uses = append(uses, u)
			}
		}
		by := make([]float64, s.width())
		for i := range by {
			by[i] = 1 / of(int32(i))
		}
		axis := s.Linear.XAxis
		if axis < 0 {
			axis += x.Type.Rank()
		}
		if err := insertMul(x, axis, by, uses, pass, back); err != nil {
			return nil, err
		}
		m := s.Node.In(s.Linear.X)
		done[x], done[m] = true, true
		inserted = append(inserted, m.DefNode())
	}
	return inserted, nil
}

// rows labels the elements of a site's weight constant by the input channel that they meet.
func (s *Site) rows() *channels {
	w := s.weight()
	shape := w.Value.Type.Dims
	period := ones(len(shape))
	period[w.Axes.K] = int(shape[w.Axes.K].Size)
	if g := s.Linear.Groups; g > 1 && s.convolution() && w.Axes.K == 1 {
		inner, perGroup := int(shape[1].Size), int(shape[w.Axes.Out].Size)/g
		period[w.Axes.Out] = int(shape[w.Axes.Out].Size)
		return build(period, func(idx []int) int32 { return int32(idx[w.Axes.Out]/perGroup*inner + idx[1]) })
	}
	return build(period, func(idx []int) int32 { return int32(idx[w.Axes.K]) })
}

// plan says what takes the factors of a group.
func (g *group) plan() string {
	if g.scale != nil {
		return fmt.Sprintf("channels of %q scaled: %s", g.name(), g.scale.absorbers())
	}
	return fmt.Sprintf("channels of %q scaled: Mul inserted, since %s", g.name(), g.why)
}
