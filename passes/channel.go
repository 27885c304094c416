package passes

import (
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// channels says to which channel each element of a value belongs. An element at (i0, i1, …) has the label at
// (i0 mod period[0], i1 mod period[1], …): period 1 means that the channel does not depend on the axis, the axis's size that
// it does, anything between that it repeats (heads merged with the batch). Labels are classes of a scaling; none marks
// elements that belong to no channel.
type channels struct {
	period []int
	label  []int32 // row-major over period
}

// none is the label of elements that stay as they are.
const none = int32(-1)

// alongAxis labels the positions of one axis of a value of the given rank 0, 1, 2, ….
func alongAxis(rank, axis, n int) *channels {
	c := &channels{period: ones(rank), label: make([]int32, n)}
	c.period[axis] = n
	for i := range c.label {
		c.label[i] = int32(i)
	}
	return c
}

func ones(n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = 1
	}
	return p
}

// at returns the label of the element at idx.
func (c *channels) at(idx []int) int32 {
	k := 0
	for a, p := range c.period {
		k = k*p + idx[a]%p
	}
	return c.label[k]
}

// empty reports whether no element has a channel.
func (c *channels) empty() bool {
	return !slices.ContainsFunc(c.label, func(l int32) bool { return l != none })
}

// only reports whether the labels depend on no axis but the given ones.
func (c *channels) only(axes ...int) bool {
	for a, p := range c.period {
		if p != 1 && !slices.Contains(axes, a) {
			return false
		}
	}
	return true
}

// build makes channels of the given periods from a function of the position.
func build(period []int, label func(idx []int) int32) *channels {
	n := 1
	for _, p := range period {
		n *= p
	}
	c := &channels{period: period, label: make([]int32, n)}
	idx := make([]int, len(period))
	for k := range c.label {
		c.label[k] = label(idx)
		for a := len(idx) - 1; a >= 0; a-- {
			if idx[a]++; idx[a] < period[a] {
				break
			}
			idx[a] = 0
		}
	}
	return c
}

// widened returns the same channels with longer periods, each a multiple of the old.
func (c *channels) widened(period []int) *channels {
	if slices.Equal(c.period, period) {
		return c
	}
	return build(period, c.at)
}

// permuted returns the channels of a transposed value: axis i of the result is axis perm[i].
func (c *channels) permuted(perm []int) *channels {
	period := make([]int, len(perm))
	for i, a := range perm {
		period[i] = c.period[a]
	}
	old := make([]int, len(perm))
	return build(period, func(idx []int) int32 {
		for i, a := range perm {
			old[a] = idx[i]
		}
		return c.at(old)
	})
}

// without drops axes on which nothing depends.
func (c *channels) without(axes []int) (*channels, error) {
	var period []int
	for a, p := range c.period {
		if !slices.Contains(axes, a) {
			period = append(period, p)
		} else if p != 1 {
			return nil, fmt.Errorf("its channels lie along axis %d, which disappears", a)
		}
	}
	return &channels{period, c.label}, nil
}

// with inserts axes, numbered in the result.
func (c *channels) with(axes []int) *channels {
	period := ones(len(c.period) + len(axes))
	k := 0
	for a := range period {
		if !slices.Contains(axes, a) {
			period[a] = c.period[k]
			k++
		}
	}
	return &channels{period, c.label}
}

// taken returns the channels of the positions index along an axis.
func (c *channels) taken(axis int, index []int) (*channels, error) {
	if c.period[axis] == 1 {
		return c, nil
	}
	if index == nil {
		return nil, fmt.Errorf("which channels are taken along axis %d is not known", axis)
	}
	period := slices.Clone(c.period)
	period[axis] = len(index)
	old := make([]int, len(period))
	return build(period, func(idx []int) int32 {
		copy(old, idx)
		old[axis] = index[idx[axis]]
		return c.at(old)
	}), nil
}

// regroup follows channels through a reshape from one shape to another. It fails where they would spread over dimensions
// whose sizes are not known well enough.
func (c *channels) regroup(from, to []ir.Dim) (*channels, error) {
	groups := pairDims(from, to)
	period := ones(len(to))
	type mapping struct {
		group  dimGroup
		stride []int // of the new axes in the group, 0 where nothing depends on the axis
		old    []int // strides of the old axes
	}
	var maps []mapping
	for _, g := range groups {
		flat, old, err := c.flatPeriod(g, from)
		if err != nil {
			return nil, err
		}
		m := mapping{group: g, old: old, stride: make([]int, g.toEnd-g.to)}
		rem, stride := flat, 1
		for a := g.toEnd - 1; a >= g.to && rem > 1; a-- {
			d := to[a]
			m.stride[a-g.to] = stride
			switch {
			case !d.Known():
				period[a], rem = rem, 1
			case d.Size <= 1:
			case rem%int(d.Size) == 0:
				period[a] = int(d.Size)
				rem /= int(d.Size)
			case int(d.Size)%rem == 0:
				period[a], rem = rem, 1
			default:
				return nil, fmt.Errorf("its channels do not divide the axes of shape %v", to)
			}
			stride *= int(max(d.Size, 1))
		}
		if rem > 1 {
			return nil, fmt.Errorf("its channels do not fit the axes of shape %v", to)
		}
		maps = append(maps, m)
	}
	old := make([]int, len(from))
	return build(period, func(idx []int) int32 {
		clear(old)
		for _, m := range maps {
			pos := 0
			for a := m.group.to; a < m.group.toEnd; a++ {
				pos += idx[a] * m.stride[a-m.group.to]
			}
			for a := m.group.from; a < m.group.fromEnd; a++ {
				if s := m.old[a-m.group.from]; s > 0 {
					old[a] = pos / s
				}
			}
		}
		return c.at(old)
	}), nil
}

// flatPeriod returns after how many elements the labels repeat when the axes of a group are laid out flat, and the strides
// of those axes on which they depend.
func (c *channels) flatPeriod(g dimGroup, dims []ir.Dim) (period int, strides []int, err error) {
	strides = make([]int, g.fromEnd-g.from)
	period = 1
	stride, known := 1, true
	for a := g.fromEnd - 1; a >= g.from; a-- {
		if p := c.period[a]; p > 1 {
			if !known {
				return 0, nil, fmt.Errorf("its channels lie left of an axis of unknown size in shape %v", dims)
			}
			strides[a-g.from] = stride
			period = stride * p
		}
		if dims[a].Known() {
			stride *= int(dims[a].Size)
		} else {
			known = false
		}
	}
	return period, strides, nil
}

// dimGroup is a run of axes of one shape that holds the same elements as a run of axes of another.
type dimGroup struct{ from, fromEnd, to, toEnd int }

// pairDims pairs up the axes of two shapes of as many elements: from the right axes of the same size or symbol, then runs of
// known sizes with equal products; then from the left; what is left in the middle is one group.
func pairDims(from, to []ir.Dim) []dimGroup {
	var groups []dimGroup
	i, j := len(from), len(to)
	for i > 0 && j > 0 {
		if from[i-1].Same(to[j-1]) {
			groups = append(groups, dimGroup{i - 1, i, j - 1, j})
			i, j = i-1, j-1
			continue
		}
		if from[i-1].Size == 1 {
			i--
			groups = append(groups, dimGroup{i, i + 1, j, j})
			continue
		}
		if to[j-1].Size == 1 {
			j--
			groups = append(groups, dimGroup{i, i, j, j + 1})
			continue
		}
		a, b, ok := equalRuns(from[:i], to[:j])
		if !ok {
			break
		}
		groups = append(groups, dimGroup{a, i, b, j})
		i, j = a, b
	}
	l := 0
	for l < i && l < j && from[l].Same(to[l]) {
		groups = append(groups, dimGroup{l, l + 1, l, l + 1})
		l++
	}
	if l < i || l < j {
		groups = append(groups, dimGroup{l, i, l, j})
	}
	return groups
}

// equalRuns finds the shortest runs of known sizes at the ends of two shapes with the same product.
func equalRuns(from, to []ir.Dim) (i, j int, ok bool) {
	i, j = len(from)-1, len(to)-1
	if !from[i].Known() || !to[j].Known() {
		return 0, 0, false
	}
	p, q := from[i].Size, to[j].Size
	for p != q {
		switch {
		case p < q && i > 0 && from[i-1].Known():
			i--
			p *= from[i].Size
		case p > q && j > 0 && to[j-1].Known():
			j--
			q *= to[j].Size
		default:
			return 0, 0, false
		}
	}
	return i, j, true
}

// wiring is what channel rewrites know of a model: its linear sites, and what can be told of values without running it. It
// holds until the model is edited.
type wiring struct {
	model  *ir.Model
	sites  []*Site
	linear map[*ir.Node]*Site
	known  op.Known
	norms  map[*ir.Value]*op.Norm // by result
	affine map[*ir.Node]*op.Norm  // by core, gain and bias
}

// newWiring finds the sites and norms of a model whose types have been inferred.
func newWiring(m *ir.Model) (*wiring, error) {
	form, err := op.Canonicalize(m)
	if err != nil {
		return nil, err
	}
	w := &wiring{model: m, sites: FindSites(m), linear: map[*ir.Node]*Site{}, norms: map[*ir.Value]*op.Norm{}, affine: map[*ir.Node]*op.Norm{}}
	for _, s := range w.sites {
		if s.Kind == Linear && s.Float == "" {
			w.linear[s.Node] = s
		}
	}
	w.known = func(v *ir.Value) *ir.Tensor {
		if v == nil {
			return nil
		}
		if t := op.ConstantOf(v); t != nil || op.Overridable(v) {
			return t
		}
		return form.Known[form.Map.Values[v]]
	}
	for n := range m.Nodes() {
		if r, ok := op.NormOf(n); ok {
			w.norms[r.Out] = &r
			for _, k := range []*ir.Node{r.Core, r.Gain, r.Bias} {
				if k != nil {
					w.affine[k] = &r
				}
			}
		}
	}
	return w, nil
}
