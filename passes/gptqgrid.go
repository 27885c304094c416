package passes

import (
	"fmt"

	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// weightView reads a weight as one matrix for each group of a convolution (else one): a row for each output channel, a column
// for each number that it contracts.
type weightView struct {
	shape      []int
	conv       bool
	rows, cols int // of each matrix
	groups     int
	row, col   int // strides in the tensor
}

// viewWeight finds the matrices of a linear site's weight, or says why there are none.
func viewWeight(s *Site, w Operand) (weightView, string) {
	shape := op.ConstantOf(w.Value).Shape()
	v := weightView{shape: shape, groups: 1}
	switch {
	case s.Linear.XAxis == 1 && len(shape) > 2 && w.Axes.K == 0 && w.Axes.Out == 1:
		return v, "the patches that a ConvTranspose's weight makes overlap in its result"
	case s.Linear.XAxis == 1 && len(shape) > 2:
		v.conv, v.groups = true, s.Linear.Groups
		if w.Axes.K != 1 || w.Axes.Out != 0 {
			return v, "the weight of the convolution is transposed on its way"
		}
		if v.groups < 1 || shape[0]%v.groups != 0 {
			return v, fmt.Sprintf("its %d groups do not divide %d channels", v.groups, shape[0])
		}
		v.rows, v.cols, v.col = shape[0]/v.groups, 1, 1
		for _, d := range shape[1:] {
			v.cols *= d
		}
		v.row = v.cols
	case len(shape) != 2:
		return v, fmt.Sprintf("its weight is a stack of matrices %v", shape)
	case w.Axes.K == 0:
		v.rows, v.cols, v.row, v.col = shape[1], shape[0], 1, shape[1]
	default:
		v.rows, v.cols, v.row, v.col = shape[0], shape[1], shape[1], 1
	}
	if v.rows == 0 || v.cols == 0 {
		return v, "its weight is empty"
	}
	return v, ""
}

// at is the offset of an element in the tensor.
func (v *weightView) at(group, r, c int) int { return (group*v.rows+r)*v.row + c*v.col }

// matrix copies a group's matrix, row-major.
func (v *weightView) matrix(x []float32, group int) []float32 {
	m := make([]float32, v.rows*v.cols)
	if v.col == 1 {
		copy(m, x[v.at(group, 0, 0):])
	} else { // one group
		kernel.Transpose(v.cols, v.rows, m, v.cols, x, v.col)
	}
	return m
}

// put writes a group's matrix back.
func (v *weightView) put(x, m []float32, group int) {
	if v.col == 1 {
		copy(x[v.at(group, 0, 0):], m)
	} else {
		kernel.Transpose(v.rows, v.cols, x, v.col, m, v.cols)
	}
}

// weightGrid says on which grid each element of a weight is rounded.
type weightGrid struct {
	view    *weightView
	scheme  numfmt.Scheme
	layout  numfmt.Layout
	opt     GPTQOptions
	x       []float32
	nearest numfmt.Params // fitted to the weight as it is
	params  numfmt.Params // of the result
	amax    float32

	clusters []int           // column → cluster; nil: the layout's groups
	rows     []numfmt.Params // by cluster, one entry a row
}

// newWeightGrid fits the scheme to the weight as it is.
func newWeightGrid(s *gptqSite, x []float32, o GPTQOptions) (*weightGrid, error) {
	c := s.weight
	l, err := c.Scheme.Layout(s.view.shape, layoutAxes(c))
	if err != nil {
		return nil, err
	}
	g := &weightGrid{view: &s.view, scheme: c.Scheme, layout: l, opt: o, x: x, clusters: s.clusters}
	if g.clusters != nil {
		return g, g.fitClusters(s.groups)
	}
	if g.nearest, err = g.fit(x, l); err != nil {
		return nil, err
	}
	g.amax = kernel.AbsMax(x)
	g.params = g.nearest
	if !g.static() { // filled in by store
		clone := func(v []float32) []float32 { return append([]float32(nil), v...) }
		g.params = numfmt.Params{Scale: clone(g.nearest.Scale), Zero: clone(g.nearest.Zero), Code: clone(g.nearest.Code), Coarse: clone(g.nearest.Coarse)}
	}
	return g, nil
}

// fitClusters fits one scale for each row and cluster of columns.
func (g *weightGrid) fitClusters(n int) error {
	if g.view.conv || g.scheme.TwoLevel() {
		panic("BUG: gptq: clusters of a convolution or of a two-level scheme")
	}
	m := g.view.matrix(g.x, 0)
	g.rows = make([]numfmt.Params, n)
	for k := range n {
		var x []float32
		for r := range g.view.rows {
			for c, l := range g.clusters {
				if l == k {
					x = append(x, m[r*g.view.cols+c])
				}
			}
		}
		var err error
		if g.rows[k], err = g.fitRows(0, 0, g.view.rows, x); err != nil {
			return err
		}
	}
	return nil
}

// round rounds the weight to nearest.
func (g *weightGrid) round(dst []float32) error {
	if g.clusters == nil {
		return g.scheme.Apply(dst, g.x, g.layout, g.nearest)
	}
	x, q := make([]float32, g.view.rows), make([]float32, g.view.rows)
	for c, k := range g.clusters {
		for r := range x {
			x[r] = g.x[g.view.at(0, r, c)]
		}
		if err := g.scheme.RoundEach(q, x, g.rows[k]); err != nil {
			return err
		}
		for r, v := range q {
			dst[g.view.at(0, r, c)] = v
		}
	}
	return nil
}

// fit fits the scheme to values.
func (g *weightGrid) fit(x []float32, l numfmt.Layout) (numfmt.Params, error) {
	if g.opt.Grid == "shifted" {
		return g.scheme.FitShifted(numfmt.Ranges(x, l))
	}
	return g.scheme.FitData(x, l)
}

// static reports whether all scales are known before the rounding: only blocks can be fitted to compensated weights.
func (g *weightGrid) static() bool {
	return g.scheme.Gran != numfmt.PerBlock || g.opt.ActOrder || g.opt.Stats == "static"
}

// weight describes a group's matrix to gptqRound.
func (g *weightGrid) weight(m []float32, group int) *gptqWeight {
	w := &gptqWeight{rows: g.view.rows, cols: g.view.cols, target: float64s(m), scheme: g.scheme, stale: g.opt.Stats == "stale"}
	if g.clusters != nil {
		w.group, w.groups, w.params, w.stale = g.clusters, len(g.rows), g.rows, false
		return w
	}
	index := map[int]int{} // scale of row 0 → group of columns
	for c := range w.cols {
		k := g.layout.GroupOf(g.view.at(group, 0, c))
		i, ok := index[k]
		if !ok {
			i = len(index)
			index[k] = i
		}
		w.group = append(w.group, i)
	}
	w.groups = len(index)
	if !g.static() {
		w.fit = func(first, n int, x []float32) (numfmt.Params, error) { return g.fitRows(group, first, n, x) }
		return w
	}
	w.stale = false
	w.params = make([]numfmt.Params, w.groups)
	for c, i := range w.group {
		p := &w.params[i]
		if p.Scale != nil || !g.scheme.Scaled() {
			continue
		}
		for r := range w.rows {
			k := g.layout.GroupOf(g.view.at(group, r, c))
			p.Scale = append(p.Scale, g.nearest.Scale[k])
			if g.nearest.Zero != nil {
				p.Zero = append(p.Zero, g.nearest.Zero[k])
			}
		}
	}
	return w
}

// fitRows fits one scale for each of n rows of values, from a group's row first on.
func (g *weightGrid) fitRows(group, first, n int, x []float32) (numfmt.Params, error) {
	s := g.scheme
	s.Gran, s.Axis, s.Block, s.Scale2 = numfmt.PerAxis, 0, 0, 0
	l, err := s.Layout([]int{n, len(x) / n}, numfmt.Axes{K: 1, Out: 0})
	if err != nil {
		return numfmt.Params{}, err
	}
	if !g.scheme.TwoLevel() {
		return (&weightGrid{scheme: s, opt: g.opt}).fit(x, l)
	}
	lo, hi := numfmt.Ranges(x, l)
	if g.scheme.Scale2 == 0 || g.layout.Coarse < 0 {
		return g.fitUnder(lo, hi, g.amax)
	}
	var p numfmt.Params
	for r := range n { // a coarse scale for each channel
		top := float32(0)
		for c := range g.view.cols {
			v := g.x[g.view.at(group, first+r, c)]
			top = max(top, v, -v)
		}
		q, err := g.fitUnder(lo[r:r+1], hi[r:r+1], top)
		if err != nil {
			return p, err
		}
		p.Scale, p.Code, p.Coarse = append(p.Scale, q.Scale...), append(p.Code, q.Code...), append(p.Coarse, q.Coarse...)
	}
	return p, nil
}

// fitUnder fits groups of a two-level scheme whose coarse scale follows from top. Compensated weights beyond it are clipped.
func (g *weightGrid) fitUnder(lo, hi []float32, top float32) (numfmt.Params, error) {
	for i := range lo {
		lo[i], hi[i] = max(lo[i], -top), min(hi[i], top)
	}
	return g.scheme.FitUnder(lo, hi, top)
}

// store puts what a group's matrix was rounded with in the layout's order.
func (g *weightGrid) store(params []numfmt.Params, group int) {
	if g.clusters != nil || g.static() {
		return
	}
	w := g.weight(nil, group)
	done := make([]bool, w.groups)
	for c, i := range w.group {
		if done[i] {
			continue
		}
		done[i] = true
		for r := range w.rows {
			k := g.layout.GroupOf(g.view.at(group, r, c))
			g.params.Scale[k] = params[i].Scale[r]
			if params[i].Zero != nil {
				g.params.Zero[k] = params[i].Zero[r]
			}
			if params[i].Code != nil {
				g.params.Code[k] = params[i].Code[r]
			}
		}
	}
}
