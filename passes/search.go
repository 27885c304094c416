package passes

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/calib"
)

// searchSamples is on how many samples a grid search measures the error of a group.
const searchSamples = 2

// search measures what factors do to the outputs of a group's sites under the schemes that the policy gives them. Scales of
// static activations are fitted to the largest magnitudes of the samples it measures on.
type search struct {
	u       *Unit
	st      *statistics
	schemes map[*ir.Node]siteSchemes
}

// siteSchemes are the schemes of a site's weight and input; none where they stay float.
type siteSchemes struct {
	weight, input numfmt.Scheme
	waxes, xaxes  numfmt.Axes
}

func newSearch(u *Unit, st *statistics) (*search, error) {
	ds, err := u.Policy.Decide(FindSites(u.Model))
	if err != nil {
		return nil, err
	}
	s := &search{u: u, st: st, schemes: map[*ir.Node]siteSchemes{}}
	for _, d := range ds {
		if d.Kind != Linear {
			continue
		}
		var k siteSchemes
		for _, c := range d.Choices {
			switch c.Role {
			case numfmt.Weight:
				k.weight, k.waxes = c.Scheme, c.Axes
			case numfmt.Input:
				k.input, k.xaxes = c.Scheme, c.Axes
			}
		}
		s.schemes[d.Node] = k
	}
	return s, nil
}

// quantizes reports whether the policy gives the group's sites schemes: a weight's if weights is set, else any.
func (s *search) quantizes(g *group, weights bool) bool {
	return slices.ContainsFunc(g.sites, func(site *Site) bool {
		k := s.schemes[site.Node]
		return !k.weight.IsNone() || !weights && !k.input.IsNone()
	})
}

// best returns the candidate whose factors give the least squared error of the outputs of the group's sites; the first of
// equals.
func (s *search) best(ctx context.Context, g *group, grid []float64, pick func(candidate float64) factorMap) (float64, error) {
	best, least := math.NaN(), math.Inf(1)
	exact := map[*Site][]ir.Tensors{}
	for _, site := range g.sites {
		for _, x := range s.st.few[site.Node.In(site.Linear.X)] {
			y, err := s.output(ctx, site, x, nil)
			if err != nil {
				return 0, err
			}
			exact[site] = append(exact[site], y)
		}
	}
	for _, c := range grid {
		e := 0.0
		f := pick(c)
		for _, site := range g.sites {
			d, err := s.siteError(ctx, g, site, f, exact[site])
			if err != nil {
				return 0, fmt.Errorf("site %q: %w", site.Name, err)
			}
			e += d
		}
		if e < least {
			best, least = c, e
		}
	}
	if math.IsNaN(best) {
		return 0, fmt.Errorf("no candidate has a finite error")
	}
	return best, nil
}

// siteError quantizes a site's scaled weight and inputs and returns the squared error of its outputs.
func (s *search) siteError(ctx context.Context, g *group, site *Site, f factorMap, exact []ir.Tensors) (float64, error) {
	k := s.schemes[site.Node]
	classes := g.classes(site)
	of := func(i int) float64 {
		if v, ok := f[classes[i]]; ok {
			return v
		}
		return 1
	}
	w, shape, axes, err := site.current()
	if err != nil {
		return 0, err
	}
	scaled := make([]float32, len(w))
	rows := site.rows()
	i := 0
	build(slices.Clone(shape), func(idx []int) int32 {
		scaled[i] = float32(float64(w[i]) * of(int(rows.at(idx))))
		i++
		return none
	})
	if !k.weight.IsNone() {
		l, err := k.weight.Layout(shape, axes)
		if err != nil {
			return 0, err
		}
		p, err := k.weight.FitData(scaled, l)
		if err != nil {
			return 0, err
		}
		if err := k.weight.Apply(scaled, slices.Clone(scaled), l, p); err != nil {
			return 0, err
		}
	}
	var xs []*ir.Tensor
	for _, x := range s.st.few[site.Node.In(site.Linear.X)] {
		xs = append(xs, divideChannels(x, site.Linear.XAxis, of))
	}
	if err := quantizeInputs(k, xs); err != nil {
		return 0, err
	}
	weight := ir.Floats(scaled, shape...)
	sum := 0.0
	for i, x := range xs {
		y, err := s.output(ctx, site, x, weight)
		if err != nil {
			return 0, err
		}
		name := site.Node.Out(0).Name
		a, _ := exact[i][name].Float32s()
		b, _ := y[name].Float32s()
		for j := range a {
			d := float64(a[j]) - float64(b[j])
			sum += d * d
		}
	}
	return sum, nil
}

// divideChannels divides the channels of a tensor along an axis by factors.
func divideChannels(t *ir.Tensor, axis int, of func(int) float64) *ir.Tensor {
	x, _ := t.Float32s()
	if axis < 0 {
		axis += t.Rank()
	}
	n, inner := t.Shape()[axis], 1
	for _, d := range t.Shape()[axis+1:] {
		inner *= d
	}
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(float64(v) / of(i/inner%n))
	}
	return ir.Floats(y, t.Shape()...)
}

// quantizeInputs rounds tensors in place as a site's input scheme does; a static scheme is fitted to all of them.
func quantizeInputs(k siteSchemes, xs []*ir.Tensor) error {
	if k.input.IsNone() || len(xs) == 0 {
		return nil
	}
	static := k.input.Scaled() && !k.input.Dynamic
	var p numfmt.Params
	if static {
		method, err := calib.ParseMethod("max")
		if err != nil {
			return err
		}
		axis, block := staticAxis(k.input, k.xaxes, xs[0].Rank())
		r := calib.NewBlockRange(method, k.input, axis, block)
		for i, x := range xs {
			if err := r.Observe(0, i, x); err != nil {
				return err
			}
		}
		lo, hi, err := r.Range()
		if err != nil {
			return err
		}
		if p, err = k.input.Fit(lo, hi); err != nil {
			return err
		}
		if k.input.Gran == numfmt.PerBlock {
			k.input, p = k.input.Spread(p, axis, xs[0].Shape()[axis])
		}
	}
	for _, x := range xs {
		l, err := k.input.Layout(x.Shape(), k.xaxes)
		if err != nil {
			return err
		}
		v := ir.Data[float32](x)
		if static {
			err = k.input.Apply(v, slices.Clone(v), l, p)
		} else {
			err = k.input.ApplyDynamic(v, slices.Clone(v), l)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// output runs a site alone on an input, with another weight constant if one is given.
func (s *search) output(ctx context.Context, site *Site, x, weightConst *ir.Tensor) (ir.Tensors, error) {
	l := site.Linear
	root, chain, _, ok := weight(site.Node.In(l.W), numfmt.Axes{K: l.InAxis, Out: l.OutAxis})
	if !ok {
		return nil, fmt.Errorf("%v has no constant weight", site.Node)
	}
	m := extract(append(slices.Clone(chain), site.Node), []*ir.Value{site.Node.Out(0)})
	if weightConst != nil {
		t, err := tensorAs(root.Type.Elem, ir.Data[float32](weightConst), weightConst.Shape())
		if err != nil {
			return nil, err
		}
		m.Find(root.Name).SetConst(t)
	}
	prog, err := runtime.CompileWith(ctx, m, s.u.Runtime)
	if err != nil {
		return nil, err
	}
	in := site.Node.In(l.X)
	if x.Elem() != in.Type.Elem {
		v, _ := x.Float32s()
		if x, err = tensorAs(in.Type.Elem, v, x.Shape()); err != nil {
			return nil, err
		}
	}
	return prog.Run(ctx, ir.Tensors{in.Name: x})
}
