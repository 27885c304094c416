package passes

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/calib"
)

// seqSite is a weight whose range is searched by the error of its product's outputs (calibrate: seqmse, METHODS.md §3).
type seqSite struct {
	*Decision
	weight *Choice
	q      *quantizer
	view   weightView
	x      []float32
	layout numfmt.Layout

	node *ir.Node  // in the copy that is walked
	root *ir.Value // the weight there
	loss *calib.OutputError
}

// selectSeq finds the weights that seqmse fits and notes why others keep the range of their own values.
func (in *inserter) selectSeq() error {
	method, err := in.u.Policy.method()
	if err != nil || method.Name != calib.SeqMSE {
		return err
	}
	in.seq = map[*quantizer]*seqSite{}
	for _, d := range in.decisions {
		for i := range d.Choices {
			c := &d.Choices[i]
			q := in.of[c]
			if q == nil || q.role != numfmt.Weight || !q.key.scheme.Scaled() || in.u.hasFit(q.key.value) || in.u.Fits.take(q) {
				continue
			}
			s := &seqSite{Decision: d, weight: c, q: q}
			if why := s.refuse(in.u.Model); why != "" {
				in.u.note(fmt.Sprintf("seqmse: the weight of site %q is fitted to its values alone: %s", d.Name, why))
				continue
			}
			if s.x, s.layout, err = weightOf(q); err != nil {
				return fmt.Errorf("weight %q: %w", q.key.value.Name, err)
			}
			q.axis = s.layout.Axis
			if b := in.cached(q, method); b != nil {
				if err := s.fit(b.lo, b.hi); err != nil {
					return fmt.Errorf("weight %q: %w", q.key.value.Name, err)
				}
			}
			in.seq[q] = s
		}
	}
	return nil
}

// refuse says why outputs cannot tell the range of the site's weight, "" if they can.
func (s *seqSite) refuse(m *ir.Model) string {
	root := s.weight.Value
	_, alone := root.SingleUse()
	for _, v := range chainValues(s.weight.Chain) {
		_, one := v.SingleUse()
		alone = alone && one
	}
	why := ""
	switch {
	case s.Kind != Linear:
		return "it is no product's"
	case s.Node.Graph() != m.Graph:
		return "it is inside a subgraph, which is not walked node by node"
	case !alone || len(s.q.users) > 1:
		return fmt.Sprintf("%q has other users", root.Name)
	case s.q.key.scheme.FromData():
		return fmt.Sprintf("%v is not fitted to a range", s.q.key.scheme)
	}
	s.view, why = viewWeight(s.Site, s.weight.Operand)
	return why
}

// fit takes a range of each group.
func (s *seqSite) fit(lo, hi []float32) (err error) {
	if s.q.params, err = s.q.key.scheme.FitLayout(lo, hi, s.layout); err != nil {
		return err
	}
	return s.q.measureWeight(s.x, s.layout)
}

// seqMSE walks the float model and a copy that is quantized as far as the walk has come side by side, and fits each weight
// to the inputs that it meets there.
func (in *inserter) seqMSE(ctx context.Context) error {
	var sites []*seqSite
	leave := map[*quantizer]bool{}
	for _, q := range in.quants {
		if s := in.seq[q]; s != nil && q.params.Scale == nil {
			sites = append(sites, s)
			leave[q] = true
		}
	}
	if len(sites) == 0 {
		return nil
	}
	if in.u.Samples == nil {
		return fmt.Errorf("calibrate: seqmse looks at the outputs of %d products, the first is %q: give samples", len(sites), sites[0].Name)
	}
	work, mp, err := in.simulated(leave)
	if err != nil {
		return err
	}
	w := &seqWalk{in: in, order: nodeOrder(in.u.Model), by: map[*ir.Node]*seqSite{}, users: map[*calib.OutputError]int{}, inputs: map[*ir.Value]bool{}}
	if w.method, err = in.u.Policy.method(); err != nil {
		return err
	}
	var nodes, copies []*ir.Node
	type key struct {
		value *ir.Value
		axis  int
	}
	shared := map[key]*calib.OutputError{}
	for _, s := range sites {
		s.node, s.root = mp.Nodes[s.Node], mp.Values[s.weight.Value]
		nodes, copies = append(nodes, s.Node), append(copies, s.node)
		w.by[s.node] = s
		w.inputs[s.Node.In(s.Linear.X)] = true
		x := s.node.In(s.Linear.X)
		k := key{x, fromStart(s.Linear.XAxis, x)}
		switch {
		case s.view.conv:
			s.loss = calib.NewConvOutputError(s.node, s.view.shape)
		case shared[k] == nil:
			s.loss = calib.NewOutputError(s.Linear.XAxis)
			shared[k] = s.loss
		default:
			s.loss = shared[k]
		}
		w.users[s.loss]++
	}
	o := runtime.WalkOptions{Options: in.u.Runtime, Jobs: in.u.Jobs}
	if w.float, err = runtime.NewWalk(ctx, in.u.Model, o); err != nil {
		return err
	}
	if w.quant, err = runtime.NewWalk(ctx, work, o); err != nil {
		return err
	}
	var stop func()
	w.next, stop = iter.Pull2(w.floatStops(ctx, nodes))
	defer stop()
	located := false
	err = w.quant.Run(ctx, w.rows.Watch(in.u.Samples), copies, func(n *ir.Node) error {
		if !located {
			located = true
			if err := w.rows.LocateAll(ctx, in.u.Model, in.u.Runtime, func(v *ir.Value) bool { return w.inputs[v] }); err != nil {
				return err
			}
		}
		return w.at(n)
	})
	if err != nil {
		return fmt.Errorf("calibration (%v): %w", w.method, err)
	}
	for _, s := range sites {
		if s.q.params.Scale != nil {
			continue
		}
		in.u.note(fmt.Sprintf("seqmse: the weight of site %q is fitted to its values alone: its input is constant", s.Name))
		if err := in.fitWeight(s.q); err != nil {
			return fmt.Errorf("weight %q: %w", s.q.key.value.Name, err)
		}
	}
	for _, s := range sites {
		in.u.Fits.keep(s.q)
	}
	return nil
}

// simulated is a copy of the model with the quantizers in place as they are fitted so far, without those to leave.
func (in *inserter) simulated(leave map[*quantizer]bool) (*ir.Model, *ir.Mapping, error) {
	work, mp := in.u.Model.Clone()
	u := &Unit{Model: work, Policy: in.u.Policy, Report: &Report{}, entry: &PassEntry{Name: in.u.entry.Name}, own: map[*ir.Node]bool{}}
	for n := range in.u.own {
		u.own[mp.Nodes[n]] = true
	}
	ds, err := u.Policy.Decide(u.sites())
	if err != nil {
		return nil, nil, err
	}
	if len(ds) != len(in.decisions) {
		panic("BUG: fakequant: a copy of the model has other sites")
	}
	each := func(visit func(from, to *Choice)) {
		for i, d := range in.decisions {
			for k := range d.Choices {
				visit(&d.Choices[k], &ds[i].Choices[k])
			}
		}
	}
	each(func(from, to *Choice) {
		to.Scheme = from.Scheme
		if q := in.of[from]; q == nil || leave[q] || q.drop != "" {
			to.Scheme = numfmt.Scheme{}
		}
	})
	c := newInserter(u, ds)
	c.gather()
	each(func(from, to *Choice) {
		if q := c.of[to]; q != nil {
			f := in.of[from]
			q.params, q.axis, q.amax, q.clip = f.params, f.axis, f.amax, f.clip
		}
	})
	if err := c.insert(); err != nil {
		return nil, nil, err
	}
	return work, mp, op.Verify(work)
}

// seqWalk is the two walks.
type seqWalk struct {
	in           *inserter
	method       calib.Method
	float, quant *runtime.Walk
	order        map[*ir.Node]int
	by           map[*ir.Node]*seqSite
	users        map[*calib.OutputError]int // sites that still need it
	rows         calib.Rows
	inputs       map[*ir.Value]bool // of the products, in the float model
	next         func() (*ir.Node, error, bool)
	here         *ir.Node // where the float walk stands
	done         int
}

var errWalkEnds = errors.New("the walk ends early")

// floatStops runs the float walk as far as its consumer asks: it yields each node before it runs.
func (w *seqWalk) floatStops(ctx context.Context, nodes []*ir.Node) iter.Seq2[*ir.Node, error] {
	return func(yield func(*ir.Node, error) bool) {
		err := w.float.Run(ctx, w.in.u.Samples, nodes, func(n *ir.Node) error {
			if !yield(n, nil) {
				return errWalkEnds
			}
			return nil
		})
		if err != nil && !errors.Is(err, errWalkEnds) {
			yield(nil, err)
		}
	}
}

// at fits the weight of a node that the quantized walk has come to.
func (w *seqWalk) at(n *ir.Node) error {
	s := w.by[n]
	w.in.u.at(s.Name)
	w.in.u.progress("weights by outputs", w.done, len(w.by))
	w.done++
	for w.here == nil || w.order[w.here] < w.order[s.Node] {
		var err error
		var ok bool
		if w.here, err, ok = w.next(); err != nil {
			return err
		} else if !ok {
			return nil // constant from here on
		}
	}
	if w.here != s.Node {
		return nil
	}
	if !s.loss.Seen() {
		if err := w.observe(s); err != nil {
			return err
		}
	}
	if !s.loss.Seen() {
		return nil // no sample had rows
	}
	lo, hi, err := s.search()
	if err == nil {
		err = s.fit(lo, hi)
	}
	if err != nil {
		return fmt.Errorf("site %q: %w", s.Name, err)
	}
	w.in.cache(s.q, w.method, lo, hi)
	if w.users[s.loss]--; w.users[s.loss] == 0 {
		s.loss = nil
	}
	rounded := make([]float32, len(s.x))
	if err := s.q.key.scheme.Apply(rounded, s.x, s.layout, s.q.params); err != nil {
		return err
	}
	old := op.ConstantOf(s.root)
	t, err := tensorAs(old.Elem(), rounded, old.Shape())
	if err != nil {
		return err
	}
	return w.quant.Replace(s.root, t)
}

// observe shows the site's input in both walks to its loss, sample by sample.
func (w *seqWalk) observe(s *seqSite) error {
	next, stop := iter.Pull2(func(yield func(*ir.Tensor, error) bool) {
		err := w.float.Each(s.Node.In(s.Linear.X), func(_ int, t *ir.Tensor) error {
			if !yield(t, nil) {
				return errWalkEnds
			}
			return nil
		})
		if err != nil && !errors.Is(err, errWalkEnds) {
			yield(nil, err)
		}
	})
	defer stop()
	x := s.Node.In(s.Linear.X)
	return w.quant.Each(s.node.In(s.Linear.X), func(i int, t *ir.Tensor) error {
		f, err, ok := next()
		if err != nil {
			return err
		}
		if !ok {
			panic("BUG: seqmse: two walks over other samples")
		}
		if t, err = w.rows.Cut(i, x, 0, t); err != nil {
			return err
		}
		if f, err = w.rows.Cut(i, x, 0, f); err != nil {
			return err
		}
		return s.loss.Observe(t, f)
	})
}

// search tries the shares k/20 of the ranges of all groups. Each output channel takes its best, the largest of equals; where
// channels share a scale, all take the one that is best for their sum.
func (s *seqSite) search() (lo, hi []float32, err error) {
	scheme := s.q.key.scheme
	lo0, hi0 := numfmt.Ranges(s.x, s.layout)
	losses := make([]*calib.Loss, s.view.groups)
	for g := range losses {
		if losses[g], err = s.loss.Loss(g, s.view.matrix(s.x, g), s.view.rows); err != nil {
			return nil, nil, err
		}
	}
	channels := s.view.groups * s.view.rows
	owner := s.owners()
	best, least := make([]float64, channels), slices.Repeat([]float64{math.Inf(1)}, channels)
	rounded := make([]float32, len(s.x))
	lo, hi = make([]float32, len(lo0)), make([]float32, len(lo0))
	for k := calib.SeqCandidates; k > 0; k-- {
		share := float64(k) / calib.SeqCandidates
		for g := range lo {
			lo[g], hi[g] = calib.Shrink(scheme, lo0[g], hi0[g], share)
		}
		p, err := scheme.FitLayout(lo, hi, s.layout)
		if err != nil {
			return nil, nil, err
		}
		if err := scheme.Apply(rounded, s.x, s.layout, p); err != nil {
			return nil, nil, err
		}
		for i, x := range s.x {
			rounded[i] -= x
		}
		var loss []float64
		for g, l := range losses {
			loss = append(loss, l.Of(s.view.matrix(rounded, g))...)
		}
		if owner == nil {
			total := 0.0
			for _, v := range loss {
				total += v
			}
			for c := range loss {
				loss[c] = total
			}
		}
		for c, v := range loss {
			if v < least[c] {
				least[c], best[c] = v, share
			}
		}
	}
	for g := range lo {
		c := 0
		if owner != nil {
			c = owner[g]
		}
		lo[g], hi[g] = calib.Shrink(scheme, lo0[g], hi0[g], best[c])
	}
	return lo, hi, nil
}

// owners gives the output channel that each group of the scheme lies in; nil if a group has several.
func (s *seqSite) owners() []int {
	owner := slices.Repeat([]int{-1}, s.layout.Groups())
	for g := range s.view.groups {
		for r := range s.view.rows {
			for c := range s.view.cols {
				o := &owner[s.layout.GroupOf(s.view.at(g, r, c))]
				ch := g*s.view.rows + r
				if *o >= 0 && *o != ch {
					return nil
				}
				*o = ch
			}
		}
	}
	return owner
}
