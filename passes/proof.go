package passes

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/calib"
)

// undo takes back what a rewrite did, last step first.
type undo []func()

func (u *undo) then(f func()) { *u = append(*u, f) }

func (u undo) run() {
	for _, f := range slices.Backward(u) {
		f()
	}
}

// A rewrite that is to leave a model's function alone proves it before it is kept: the nodes that it touches run on one
// sample before and after (METHODS.md §5). witness holds what they read on that sample, kept while the model runs unchanged.
type witness struct {
	mu   sync.Mutex
	seen map[*ir.Value]*ir.Tensor
	want []*ir.Value
}

// testify has the inputs of nodes kept.
func (w *witness) testify(nodes []*ir.Node) {
	if w.seen == nil {
		w.seen = map[*ir.Value]*ir.Tensor{}
	}
	for _, v := range boundary(withWeights(nodes)) {
		if _, ok := w.seen[v]; !ok {
			w.seen[v] = nil
			w.want = append(w.want, v)
		}
	}
}

// probes look at the values to keep.
func (w *witness) probes() []calib.Probe {
	var ps []calib.Probe
	for _, v := range w.want {
		ps = append(ps, calib.Probe{Value: v, Into: testimony{w, v}, Whole: true})
	}
	return ps
}

// run keeps what the first sample shows.
func (w *witness) run(ctx context.Context, u *Unit) error {
	first := func() iterTensors {
		return func(yield func(ir.Tensors, error) bool) {
			for t, err := range u.Samples() {
				yield(t, err)
				return
			}
		}
	}
	return calib.Sweep(ctx, u.Model, first, w.probes(), calib.Options{Jobs: 1, Runtime: u.Runtime})
}

// testimony is the witness's observer of one value.
type testimony struct {
	w *witness
	v *ir.Value
}

// Passes returns 1.
func (t testimony) Passes() int { return 1 }

// Ordered reports that samples may come in any order.
func (t testimony) Ordered() bool { return false }

// Observe keeps the first sample's tensor.
func (t testimony) Observe(_, sample int, x *ir.Tensor) error {
	if sample == 0 {
		t.w.mu.Lock()
		defer t.w.mu.Unlock()
		var err error
		if t.w.seen[t.v], err = copied(x); err != nil {
			return err
		}
	}
	return nil
}

// prove runs nodes on the witness's sample, lets edit rewrite them, and runs them with the nodes that it inserted: an edit
// that moves one of the values want by more than the tolerance, or that fails, is taken back, and the error says why. Without
// a witness there is nothing to tell by, and the edit stands.
func (u *Unit) prove(ctx context.Context, w *witness, nodes []*ir.Node, want []*ir.Value, edit func(*undo) ([]*ir.Node, error)) error {
	var before ir.Tensors
	if w != nil {
		var err error
		if before, err = w.compute(ctx, nodes, want, u.Runtime); err != nil {
			return err
		}
	}
	var back undo
	inserted, err := edit(&back)
	if err == nil && w != nil {
		var after ir.Tensors
		if after, err = w.compute(ctx, append(slices.Clone(nodes), inserted...), want, u.Runtime); err == nil {
			err = agree(want, before, after)
		}
	}
	if err != nil {
		back.run()
	}
	return err
}

// compute runs nodes on what was kept.
func (w *witness) compute(ctx context.Context, nodes []*ir.Node, want []*ir.Value, o runtime.Options) (ir.Tensors, error) {
	feed, err := w.feed(nodes)
	if err != nil {
		return nil, err
	}
	return compute(ctx, extract(withWeights(nodes), want), feed, o)
}

// feed returns what was kept of the inputs of nodes.
func (w *witness) feed(nodes []*ir.Node) (ir.Tensors, error) {
	feed := ir.Tensors{}
	for _, v := range boundary(withWeights(nodes)) {
		if feed[v.Name] = w.seen[v]; w.seen[v] == nil {
			return nil, fmt.Errorf("%q was not computed on the sample", v.Name)
		}
	}
	return feed, nil
}

// compute runs a model once.
func compute(ctx context.Context, m *ir.Model, feed ir.Tensors, o runtime.Options) (ir.Tensors, error) {
	p, err := runtime.CompileWith(ctx, m, o)
	if err != nil {
		return nil, err
	}
	return p.Run(ctx, feed)
}

// agree compares what values were before and after a rewrite.
func agree(want []*ir.Value, before, after ir.Tensors) error {
	for _, v := range want {
		a, _ := before[v.Name].Float32s()
		b, _ := after[v.Name].Float32s()
		if len(a) != len(b) {
			return fmt.Errorf("%q has %d elements in place of %d", v.Name, len(b), len(a))
		}
		var most, diff float64
		for i := range a {
			most = max(most, math.Abs(float64(a[i])))
			if d := math.Abs(float64(a[i]) - float64(b[i])); d > diff || d != d {
				diff = d
			}
		}
		if tol := tolerance(v.Type.Elem); !(diff <= tol*most) {
			return fmt.Errorf("%q would differ by %.3g of its largest magnitude, more than %.0e", v.Name, diff/most, tol)
		}
	}
	return nil
}

// extract returns a model of its own that computes the results of some nodes of a graph, those between them included. What
// the nodes read from outside becomes an input of the same name, constants come along.
func extract(nodes []*ir.Node, want []*ir.Value) *ir.Model {
	outputs := make([]ir.Output, len(want))
	for i, v := range want {
		outputs[i] = ir.Output{Name: v.Name, Value: v}
	}
	return extractAs(nodes, outputs)
}

// extractAs is extract with names for the outputs, which need not be results of the nodes.
func extractAs(nodes []*ir.Node, outputs []ir.Output) *ir.Model {
	src := nodes[0].Graph().Model()
	order := nodeOrder(src)
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b *ir.Node) int { return order[a] - order[b] })
	m := ir.NewModel(src.Opset[""])
	for d, v := range src.Opset {
		m.Opset[d] = v
	}
	m.IRVersion = src.IRVersion
	g := m.Graph
	at := map[*ir.Value]*ir.Value{}
	read := func(v *ir.Value) *ir.Value {
		if v == nil || at[v] != nil {
			return at[v]
		}
		if t := op.ConstantOf(v); t != nil {
			at[v] = g.AddConst(v.Name, t)
		} else {
			at[v] = g.AddInput(v.Name, v.Type)
		}
		return at[v]
	}
	for _, n := range nodes {
		ins := n.Ins()
		for i, v := range ins {
			ins[i] = read(v)
		}
		outs := make([]string, n.NumOut())
		for i, v := range n.Outs() {
			if v != nil {
				outs[i] = v.Name
			}
		}
		k := g.Place(nil, n.Name, n.Op, ins, outs, n.Attrs...)
		for i, v := range n.Outs() {
			if v != nil {
				at[v], k.Out(i).Type = k.Out(i), v.Type
			}
		}
	}
	for _, o := range outputs {
		g.AddOutput(o.Name, read(o.Value))
	}
	return m
}

// boundary returns the values that nodes read from outside, constants apart.
func boundary(nodes []*ir.Node) []*ir.Value {
	inside := map[*ir.Node]bool{}
	for _, n := range nodes {
		inside[n] = true
	}
	var vs []*ir.Value
	for _, n := range nodes {
		for _, v := range n.Ins() {
			if v != nil && op.ConstantOf(v) == nil && !inside[v.DefNode()] && !slices.Contains(vs, v) {
				vs = append(vs, v)
			}
		}
	}
	return vs
}

// withWeights adds the nodes that lie between the constants and the nodes that read them.
func withWeights(nodes []*ir.Node) []*ir.Node {
	all := slices.Clone(nodes)
	for _, n := range nodes {
		for _, v := range n.Ins() {
			if v == nil || v.Type.Rank() < 0 {
				continue
			}
			_, chain, _, ok := weight(v, numfmt.Axes{K: numfmt.NoAxis, Out: numfmt.NoAxis})
			for _, k := range chain {
				if ok && !slices.Contains(all, k) {
					all = append(all, k)
				}
			}
		}
	}
	return all
}

// tolerance is how far a rewritten value may be from the original, as a share of the original's largest magnitude: 1e-4
// (METHODS.md §5), and four last places of a narrower type, in which weights are stored.
func tolerance(e ir.DType) float64 {
	switch e {
	case ir.Float16:
		return 1e-4 + 4.0/2048
	case ir.BFloat16:
		return 1e-4 + 4.0/256
	}
	return 1e-4
}
