package runtime

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// Walk runs a model over many samples side by side: all of them up to a node, then all of them up to the next, so that what
// follows a node may depend on what every sample brought to it. Constants may be replaced on the way. A walk is used once
// and by one goroutine.
//
//	w, err := runtime.NewWalk(ctx, m, runtime.WalkOptions{})
//	err = w.Run(ctx, samples, nodes, func(n *ir.Node) error {
//		err := w.Each(n.In(0), func(sample int, t *ir.Tensor) error { … })
//		return w.Replace(n.In(1), better)
//	})
type Walk struct {
	p       *Program // the walk's own
	o       WalkOptions
	env     *folding         // for what Replace computes anew
	at      map[*ir.Node]int // node of the main graph → its first step
	slots   map[*ir.Value]int
	last    []int // by slot: the last step that reads it, -1: none
	store   *spill
	samples []map[int]*kept // by sample: what lives at the cut, by slot
}

// WalkOptions of NewWalk.
type WalkOptions struct {
	// Options of the program. Weights are packed when the walk comes to their products and dropped behind them. Hold bounds what
	// is packed at a time, a product's weight at least, and what is folded at the start; 0: an eighth of the memory limit,
	// divided as Held is.
	Options
	Jobs int // samples at a time; 0: one for each core
	// Held bounds the bytes of values that wait in memory for the next nodes; what is beyond goes to a temporary file. 0: a
	// quarter of the memory limit, divided by the number of walks that Share it (0 is 1).
	Held  int64
	Share int64
}

// ErrNoSamples says that a walk or sweep had nothing to look at.
var ErrNoSamples = errors.New("there are no samples")

// NewWalk compiles the model. ctx stops that, and what Replace computes.
func NewWalk(ctx context.Context, m *ir.Model, o WalkOptions) (*Walk, error) {
	if o.MaxMemory == 0 {
		o.MaxMemory = DefaultMaxMemory()
	}
	if o.Hold == 0 {
		o.Hold = o.MaxMemory / 8 / max(o.Share, 1)
	}
	if o.Held == 0 {
		o.Held = o.MaxMemory / 4 / max(o.Share, 1)
	}
	o.once = true
	p, err := CompileWith(ctx, m, o.Options)
	if err != nil {
		return nil, err
	}
	if o.Jobs == 0 {
		o.Jobs = Cores()
	}
	w := &Walk{p: p, o: o, env: &folding{p, ctx}, at: map[*ir.Node]int{}, slots: map[*ir.Value]int{}, last: make([]int, len(p.consts)), store: &spill{budget: o.Held}}
	for i := range w.last {
		w.last[i] = -1
	}
	makes, runs := map[int]int{}, map[*ir.Node]int{}
	for i, st := range p.main.steps {
		for _, s := range p.reads(&st) {
			w.last[s] = i
		}
		for _, s := range st.out {
			if s >= 0 {
				makes[s] = i
			}
		}
		runs[st.node] = i
	}
	for v := range m.Graph.Values() {
		if s, ok := p.slots[p.form.Map.Values[v]]; ok && p.form.Map.Values[v] != nil {
			w.slots[v] = s
		}
	}
	for n := range m.Graph.Nodes() {
		if i, ok := runs[p.form.Map.Nodes[n]]; ok {
			w.at[n] = i
			continue
		}
		for _, v := range n.Outs() { // a newer opset writes it as several nodes
			if s, ok := w.slots[v]; ok {
				if i, ok := makes[s]; ok {
					w.at[n] = i
					break
				}
			}
		}
	}
	return w, nil
}

// Reaches reports whether the walk can stop before a node of the main graph: not where it was folded into constants.
func (w *Walk) Reaches(n *ir.Node) bool {
	_, ok := w.at[n]
	return ok
}

// Run feeds all samples and walks. Before each of the nodes, which belong to the model's main graph, it calls at, in the
// order of execution; nodes that were folded into constants are passed over. What follows the last node is not run. It
// fails where there are no samples.
func (w *Walk) Run(ctx context.Context, samples ir.Samples, nodes []*ir.Node, at func(*ir.Node) error) error {
	for n, err := range w.Stops(ctx, samples, nodes) {
		if err == nil {
			err = at(n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Stops walks as Run does, one node at a time, so that two walks can go side by side. An error ends it.
func (w *Walk) Stops(ctx context.Context, samples ir.Samples, nodes []*ir.Node) iter.Seq2[*ir.Node, error] {
	return func(yield func(*ir.Node, error) bool) {
		err := w.walk(ctx, samples, nodes, func(n *ir.Node) bool { return yield(n, nil) })
		if cerr := w.store.close(); err == nil {
			err = cerr
		}
		if err != nil && err != errStopped {
			yield(nil, err)
		}
	}
}

// errStopped says that who walks has seen enough.
var errStopped = errors.New("stopped")

func (w *Walk) walk(ctx context.Context, samples ir.Samples, nodes []*ir.Node, at func(*ir.Node) bool) error {
	stops := map[int][]*ir.Node{}
	var order []int
	for _, n := range nodes {
		i, ok := w.at[n]
		if !ok {
			continue
		}
		if stops[i] == nil {
			order = append(order, i)
		}
		stops[i] = append(stops[i], n)
	}
	slices.Sort(order)
	if err := w.feed(ctx, samples, order); err != nil {
		return err
	}
	for k, i := range order {
		if k > 0 {
			if err := w.segment(ctx, order[k-1], i); err != nil {
				return err
			}
		}
		for _, n := range stops[i] {
			if !at(n) {
				return errStopped
			}
		}
	}
	return nil
}

// feed brings every sample to the first stop.
func (w *Walk) feed(ctx context.Context, samples ir.Samples, order []int) error {
	if len(order) == 0 {
		return nil
	}
	cuts := w.cuts(0, order[0])
	w.samples = nil
	drop, err := w.ready(0, cuts[1])
	if err != nil {
		return err
	}
	err = ForEach(ctx, w.o.Jobs, samples(), func(ctx context.Context, i int, in ir.Tensors) (map[int]*kept, error) {
		r := w.run(ctx)
		if err := r.feed(in); err != nil {
			return nil, fmt.Errorf("sample %d: %w", i, err)
		}
		live := map[int]*kept{}
		if err := w.sample(r, live, 0, cuts[1]); err != nil {
			return nil, fmt.Errorf("sample %d: %w", i, err)
		}
		return live, nil
	}, func(_ int, live map[int]*kept) { w.samples = append(w.samples, live) })
	drop()
	if err == nil && len(w.samples) == 0 {
		err = ErrNoSamples
	}
	for k := 1; k+1 < len(cuts) && err == nil; k++ {
		err = w.piece(ctx, cuts[k], cuts[k+1])
	}
	return err
}

func (w *Walk) run(ctx context.Context) *run {
	return &run{p: w.p, ctx: ctx, frame: slices.Clone(w.p.consts)}
}

// segment runs every sample from one stop to the next.
func (w *Walk) segment(ctx context.Context, from, to int) error {
	cuts := w.cuts(from, to)
	for k := range len(cuts) - 1 {
		if err := w.piece(ctx, cuts[k], cuts[k+1]); err != nil {
			return err
		}
	}
	return nil
}

// piece runs every sample over steps whose weights fit into memory together.
func (w *Walk) piece(ctx context.Context, from, to int) error {
	drop, err := w.ready(from, to)
	if err != nil {
		return err
	}
	defer drop()
	numbers := iter.Seq2[int, error](func(yield func(int, error) bool) {
		for i := range w.samples {
			if !yield(i, nil) {
				return
			}
		}
	})
	return ForEach(ctx, w.o.Jobs, numbers, func(ctx context.Context, _, i int) (none struct{}, err error) {
		if err = w.sample(w.run(ctx), w.samples[i], from, to); err != nil {
			err = fmt.Errorf("sample %d: %w", i, err)
		}
		return none, err
	}, func(int, struct{}) {})
}

// sample runs the steps from one stop to another for one sample, and leaves in live what lives at the second.
func (w *Walk) sample(r *run, live map[int]*kept, from, to int) error {
	steps := w.p.main.steps[from:to]
	for i := range steps {
		for _, s := range w.p.reads(&steps[i]) {
			if k := live[s]; k != nil && r.frame[s] == nil {
				t, err := w.store.get(k)
				if err != nil {
					return err
				}
				r.put(s, t)
			}
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if err := r.step(&steps[i]); err != nil {
			return err
		}
	}
	for s, k := range live {
		if w.last[s] < to {
			w.store.drop(k)
			delete(live, s)
		}
	}
	for s, t := range r.frame {
		if t == nil || t == w.p.consts[s] || live[s] != nil || w.last[s] < to {
			continue
		}
		k, err := w.store.keep(t)
		if err != nil {
			return err
		}
		live[s] = k
	}
	return nil
}

// Each shows a value of the main graph that the node at hand reads to see, for all samples in their order.
func (w *Walk) Each(v *ir.Value, see func(sample int, t *ir.Tensor) error) error {
	for i := range w.samples {
		t, err := w.Value(v, i)
		if err != nil {
			return err
		}
		if err := see(i, t); err != nil {
			return fmt.Errorf("sample %d: value %q: %w", i, v.Name, err)
		}
	}
	return nil
}

// Value is a value of the main graph that the node at hand reads, for one sample.
func (w *Walk) Value(v *ir.Value, sample int) (*ir.Tensor, error) {
	s, ok := w.slots[v]
	if !ok {
		return nil, fmt.Errorf("value %q is not computed", v.Name)
	}
	if k := w.samples[sample][s]; k != nil {
		return w.store.get(k)
	}
	if t := w.p.consts[s]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("value %q does not live here", v.Name)
}

// Replace gives a constant of the main graph another value of the same type and shape for the rest of the walk, and
// computes anew what had been folded from it. The model itself is left alone.
func (w *Walk) Replace(v *ir.Value, t *ir.Tensor) error {
	s, ok := w.slots[v]
	if !ok || w.p.consts[s] == nil {
		return fmt.Errorf("value %q is no constant that the model uses", v.Name)
	}
	if old := w.p.consts[s]; old.Elem() != t.Elem() || !slices.Equal(old.Shape(), t.Shape()) {
		return fmt.Errorf("value %q is %v, found %v to replace it", v.Name, old.Type(), t.Type())
	}
	w.p.consts[s] = t
	dirty := map[int]bool{s: true}
	touched := func(st *step) bool {
		return slices.ContainsFunc(st.in, func(s int) bool { return s >= 0 && dirty[s] })
	}
	for i := range w.p.folds {
		st := &w.p.folds[i]
		if !touched(st) {
			continue
		}
		if err := w.prepare(st); err != nil {
			return err
		}
		out, err := w.evaluate(st)
		if err != nil {
			return fmt.Errorf("node %v: %w", st.node, err)
		}
		for i, s := range st.out {
			if s >= 0 && i < len(out) {
				w.p.consts[s], dirty[s] = out[i], true
			}
		}
	}
	for _, pl := range w.p.plans {
		for i := range pl.steps {
			if st := &pl.steps[i]; touched(st) {
				if st.lazy {
					continue // made when the walk gets there
				}
				if err := w.prepare(st); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (w *Walk) prepare(st *step) (err error) {
	if st.def.Prepare == nil {
		return nil
	}
	if st.state, err = st.def.Prepare(op.NewCall(st.node, st.def, nil, nil, w.p.known(st.in))); err != nil {
		err = fmt.Errorf("node %v: %w", st.node, err)
	}
	return err
}
