package passes

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/calib"
)

// group is a set of linear sites that read the same channels of one value.
type group struct {
	value *ir.Value // what they read, before it is reshaped, transposed or cast
	axis  int       // of value, along which the channels lie
	sites []*Site   // by name
	norm  *op.Norm  // the normalization that makes value; nil if it is something else
	head  bool      // no other product depends on what the sites compute: the head of the model

	scale *scaling // divides value by a factor a channel; nil if nothing can absorb factors
	why   string   // why nothing can

	note string // what the report adds to what was done
	left string // why nothing was done
}

// name is how the report calls the group.
func (g *group) name() string { return g.value.Name }

// width returns the number of channels.
func (s *Site) width() int {
	w := s.weight()
	k := int(w.Value.Type.Dim(w.Axes.K).Size)
	if s.Linear.Groups > 1 && s.convolution() && w.Axes.K == 1 {
		k *= s.Linear.Groups
	}
	return k
}

// source follows a site's input back through nodes that rearrange it and keep its channels along one axis.
func (w *wiring) source(s *Site) (*ir.Value, int) {
	v := s.Node.In(s.Linear.X)
	rank := v.Type.Rank()
	if rank < 0 {
		return v, -1
	}
	axis := s.Linear.XAxis
	if axis < 0 {
		axis += rank
	}
	for {
		n := v.DefNode()
		if n == nil || n.Graph() != v.Graph() || n.In(0) == nil || n.In(0).Type.Rank() < 0 || n.In(0).Graph() != n.Graph() {
			return v, axis
		}
		in, to := n.In(0), -1
		if x, move, ok := op.Source(n); ok {
			in, to = x, move(axis)
		} else {
			switch f := op.FlowOf(n, 0, w.known); f.Kind {
			case op.Inserted, op.Dropped, op.Reshaped:
				ch, err := alongAxis(v.Type.Rank(), axis, s.width()).regroup(v.Type.Dims, in.Type.Dims)
				if err == nil {
					to = ch.sole(s.width())
				}
			}
		}
		if to < 0 || op.ConstantOf(in) != nil {
			return v, axis
		}
		v, axis = in, to
	}
}

// sole returns the axis along which all n channels lie in order, -1 if there is none.
func (c *channels) sole(n int) int {
	axis := slices.IndexFunc(c.period, func(p int) bool { return p > 1 })
	if axis < 0 || c.period[axis] != n || len(c.label) != n {
		return -1
	}
	for i, l := range c.label {
		if int(l) != i {
			return -1
		}
	}
	return axis
}

// groups finds the groups of a model and what can absorb factors on their channels, in the order of the nodes that make the
// values.
func (w *wiring) groups() []*group {
	type key struct {
		v    *ir.Value
		axis int
	}
	by := map[key]*group{}
	var all []*group
	below := w.feedsProduct()
	for _, s := range w.sites {
		if w.linear[s.Node] == nil {
			continue
		}
		v, axis := w.source(s)
		k := key{v, axis}
		if by[k] == nil {
			by[k] = &group{value: v, axis: axis, norm: w.norms[v], head: true}
			all = append(all, by[k])
		}
		by[k].sites = append(by[k].sites, s)
		by[k].head = by[k].head && !below[s.Node]
	}
	for _, g := range all {
		g.sortSites()
		if g.axis < 0 {
			g.why = fmt.Sprintf("the rank of %q is unknown", g.value.Name)
			continue
		}
		var err error
		if g.scale, err = w.scalingFrom(g.value, g.axis, g.sites[0].width()); err != nil {
			g.why = err.Error()
		}
	}
	return w.untangle(all)
}

func (g *group) sortSites() {
	slices.SortFunc(g.sites, func(a, b *Site) int { return strings.Compare(a.Name, b.Name) })
}

// scaled returns the sites whose weights a scaling multiplies, by name.
func (s *scaling) scaled() []*Site {
	var sites []*Site
	for _, e := range s.edits {
		if !e.divide && e.site != nil {
			sites = append(sites, e.site)
		}
	}
	slices.SortFunc(sites, func(a, b *Site) int { return strings.Compare(a.Name, b.Name) })
	return sites
}

// untangle joins groups that one scaling serves together. Where two scalings overlap without being the same, both are given
// up.
func (w *wiring) untangle(all []*group) []*group {
	owner := map[*Site]*group{}
	for _, g := range all {
		for _, s := range g.sites {
			owner[s] = g
		}
	}
	gone := map[*group]bool{}
	for _, g := range all {
		if g.scale == nil || gone[g] {
			continue
		}
		sites := g.scale.scaled()
		others := map[*group]bool{}
		for _, s := range sites {
			if owner[s] != g {
				others[owner[s]] = true
			}
		}
		same := true
		for o := range others {
			same = same && o.scale != nil && slices.Equal(o.scale.scaled(), sites)
		}
		if !same {
			g.scale, g.why = nil, fmt.Sprintf("%q reads more channels than these", sites[0].Name)
			continue
		}
		for o := range others {
			gone[o] = true
			for _, s := range o.sites {
				owner[s] = g
			}
		}
		g.sites = sites
	}
	return slices.DeleteFunc(all, func(g *group) bool { return gone[g] })
}

// feedsProduct tells for every node whether a product depends on its results.
func (w *wiring) feedsProduct() map[*ir.Node]bool {
	product := map[*ir.Node]bool{}
	for _, s := range w.sites {
		if s.Kind != Table {
			product[s.Node] = true
		}
	}
	feeds := map[*ir.Node]bool{}
	for n := range w.model.Graph.Reverse() {
		for _, v := range n.Outs() {
			if v == nil {
				continue
			}
			for _, u := range v.Uses() {
				if k := enclosing(u, w.model.Graph); k != nil && (product[k] || feeds[k] || len(k.Subgraphs()) > 0) {
					feeds[n] = true
				}
			}
		}
	}
	return feeds
}

// upstreamLast puts groups into an order in which a group comes before those whose sites compute what it reads: what a group
// changes of the weights above it then counts when these have their turn.
func upstreamLast(gs []*group) []*group {
	if len(gs) == 0 {
		return nil
	}
	order := nodeOrder(gs[0].value.Graph().Model())
	first := func(g *group) int {
		k := len(order)
		for _, s := range g.sites {
			k = min(k, order[s.Node])
		}
		return k
	}
	gs = slices.Clone(gs)
	slices.SortStableFunc(gs, func(a, b *group) int { return first(b) - first(a) })
	return gs
}

// channelMax observes the largest magnitude, and the mean magnitude, of every channel along an axis.
type channelMax struct {
	axis    int
	most    []float64
	samples map[int]channelSum
}

type channelSum struct {
	sum []float64
	n   int
}

// Passes and Ordered: one pass, any order.
func (c *channelMax) Passes() int { return 1 }

// Ordered reports that samples may come in any order.
func (c *channelMax) Ordered() bool { return false }

// Observe adds one sample.
func (c *channelMax) Observe(_, sample int, t *ir.Tensor) error {
	x, ok := t.Float32s()
	if !ok {
		return fmt.Errorf("has type %v, wanted a float type", t.Elem())
	}
	axis := c.axis
	if axis < 0 {
		axis += t.Rank()
	}
	n, inner := t.Shape()[axis], 1
	for _, d := range t.Shape()[axis+1:] {
		inner *= d
	}
	if c.most == nil {
		c.most = make([]float64, n)
		c.samples = map[int]channelSum{}
	}
	if len(c.most) != n {
		return fmt.Errorf("has %d channels, had %d before", n, len(c.most))
	}
	sum := channelSum{make([]float64, n), 0}
	for i := 0; i < len(x); i += inner {
		k := i / inner % n
		for _, v := range x[i : i+inner] {
			a := math.Abs(float64(v))
			if a != a || math.IsInf(a, 0) {
				return fmt.Errorf("holds %v", v)
			}
			sum.sum[k] += a
			c.most[k] = max(c.most[k], a)
		}
	}
	if n > 0 {
		sum.n = len(x) / n
	}
	c.samples[sample] = sum
	return nil
}

// mean returns the mean magnitude of every channel, summed in the order of the samples.
func (c *channelMax) mean() []float64 {
	m := make([]float64, len(c.most))
	n := 0
	for _, i := range sortedKeys(c.samples) {
		for k, v := range c.samples[i].sum {
			m[k] += v
		}
		n += c.samples[i].n
	}
	for k := range m {
		m[k] /= float64(max(n, 1))
	}
	return m
}

func sortedKeys[V any](m map[int]V) []int {
	keys := make([]int, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// keeper records the values of the first samples.
type keeper struct {
	mu   sync.Mutex
	max  int
	seen map[*ir.Value]map[int]*ir.Tensor
}

// kept is the keeper's observer of one value.
type kept struct {
	k *keeper
	v *ir.Value
}

// Passes and Ordered: one pass, any order.
func (k kept) Passes() int { return 1 }

// Ordered reports that samples may come in any order.
func (k kept) Ordered() bool { return false }

// Observe keeps the tensor if the sample is among the first.
func (k kept) Observe(_, sample int, t *ir.Tensor) error {
	if sample >= k.k.max {
		return nil
	}
	k.k.mu.Lock()
	defer k.k.mu.Unlock()
	if k.k.seen[k.v] == nil {
		k.k.seen[k.v] = map[int]*ir.Tensor{}
	}
	var err error
	k.k.seen[k.v][sample], err = copied(t)
	return err
}

// copied returns a copy of a tensor that an observer is shown, to be kept.
func copied(t *ir.Tensor) (*ir.Tensor, error) {
	if t.Elem() == ir.String {
		return t, nil
	}
	return ir.TensorOf(t.Elem(), t.Shape(), slices.Clone(t.Bytes()))
}

// statistics are what channel rewrites learn from the samples.
type statistics struct {
	of    map[*ir.Value]*channelMax  // by input of a site
	first *witness                   // for proofs; nil: there are no samples
	few   map[*ir.Value][]*ir.Tensor // inputs of sites on the first samples
}

// observe runs the samples once: the channels of every group's inputs, and of the first samples what the proofs need. few is
// for how many samples the inputs themselves are kept.
func (u *Unit) observe(ctx context.Context, gs []*group, few int) (*statistics, error) {
	if u.Samples == nil {
		return nil, fmt.Errorf("%d groups of sites are scaled by what their inputs hold, the first reads %q: give samples", len(gs), gs[0].name())
	}
	st := &statistics{of: map[*ir.Value]*channelMax{}, first: witnessOf(gs), few: map[*ir.Value][]*ir.Tensor{}}
	some := &keeper{max: few, seen: map[*ir.Value]map[int]*ir.Tensor{}}
	probes := st.first.probes()
	for _, g := range gs {
		for _, s := range g.sites {
			x := s.Node.In(s.Linear.X)
			if st.of[x] != nil {
				continue
			}
			st.of[x] = &channelMax{axis: s.Linear.XAxis}
			probes = append(probes, calib.Probe{Value: x, Into: st.of[x]})
			if few > 0 {
				probes = append(probes, calib.Probe{Value: x, Into: kept{some, x}})
			}
		}
	}
	err := calib.Sweep(ctx, u.Model, u.Samples, probes, calib.Options{Jobs: u.Jobs, Runtime: u.Runtime,
		Progress: func(done int) { u.progress("samples", done, 0) }})
	if err != nil {
		return nil, err
	}
	for v, by := range some.seen {
		for _, i := range sortedKeys(by) {
			st.few[v] = append(st.few[v], by[i])
		}
	}
	return st, nil
}

// witnessOf makes a witness for the rewrites of groups.
func witnessOf(gs []*group) *witness {
	w := &witness{}
	for _, g := range gs {
		w.testify(g.nodes())
	}
	return w
}

// nodes returns the nodes that a rewrite of the group touches.
func (g *group) nodes() []*ir.Node {
	if g.scale != nil {
		return g.scale.nodes
	}
	var nodes []*ir.Node
	for _, s := range g.sites {
		nodes = append(nodes, s.Node)
	}
	return nodes
}

// classes returns the class of every channel of a site's input.
func (g *group) classes(s *Site) []int32 {
	n := s.width()
	if g.scale == nil {
		c := make([]int32, n)
		for i := range c {
			c[i] = int32(i)
		}
		return c
	}
	x := s.Node.In(s.Linear.X)
	ch := g.scale.marks[x]
	labels, _, err := g.scale.alone(s, ch, s.Linear.XAxis, x)
	if err != nil {
		panic("BUG: passes: " + err.Error())
	}
	c := make([]int32, n)
	for i, l := range labels {
		if c[i] = none; l != none {
			c[i] = g.scale.find(l)
		}
	}
	return c
}

// magnitudes gathers, for every class of a group, the largest magnitude of the activation, and of the weights that read it.
func (g *group) magnitudes(st *statistics) (act, weights map[int32]float64, err error) {
	act, weights = map[int32]float64{}, map[int32]float64{}
	for _, s := range g.sites {
		most := st.of[s.Node.In(s.Linear.X)].most
		classes := g.classes(s)
		if len(most) != len(classes) {
			return nil, nil, fmt.Errorf("site %q: its input has %d channels, its weight reads %d", s.Name, len(most), len(classes))
		}
		rows, err := s.rowMax()
		if err != nil {
			return nil, nil, fmt.Errorf("site %q: %w", s.Name, err)
		}
		for k, c := range classes {
			if c != none {
				act[c] = max(act[c], most[k])
				weights[c] = max(weights[c], rows[k])
			}
		}
	}
	return act, weights, nil
}

// rowMax returns the largest magnitude of the weights that each input channel of a site meets, as they are now.
func (s *Site) rowMax() ([]float64, error) {
	x, shape, axes, err := s.current()
	if err != nil {
		return nil, err
	}
	rows := make([]float64, s.width())
	strides := rowMajor(shape)
	inner := 0
	if s.Linear.Groups > 1 && s.convolution() && axes.K == 1 {
		inner = shape[1]
	}
	perGroup := max(shape[axes.Out]/max(s.Linear.Groups, 1), 1)
	for i, v := range x {
		k := i / strides[axes.K] % shape[axes.K]
		if inner > 0 {
			k += i / strides[axes.Out] % shape[axes.Out] / perGroup * inner
		}
		rows[k] = max(rows[k], math.Abs(float64(v)))
	}
	return rows, nil
}

func rowMajor(shape []int) []int {
	s := make([]int, len(shape))
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		s[i] = n
		n *= shape[i]
	}
	return s
}
