// Package runtime compiles a model into an immutable program and runs it.
//
//	p, err := runtime.Compile(m)
//	out, err := p.Run(ctx, ir.Tensors{"x": x})
package runtime

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// Program is a compiled model. It is immutable and safe for concurrent runs.
type Program struct {
	form    *op.CanonicalForm
	main    *plan
	fast    *plan // main with steps joined, for runs that nobody watches
	plans   map[*ir.Graph]*plan
	slots   map[*ir.Value]int
	consts  []*ir.Tensor  // initial contents of a run's frame: constants and what folds to constants
	origin  [][]*ir.Value // slot → values of the compiled model, for Watch
	folded  []int         // slots whose contents were computed at compile time, in order
	folds   []step        // the steps that computed them
	limit   int64
	held    int64         // bytes of what was folded and packed
	hold    int64         // bound for held, beyond which weights are made ready when they are needed
	later   map[int]*step // slot → the step that makes a large constant when it is needed
	streams bool          // some weights are made ready only when they are needed
	poison  bool
	runOnly bool              // nobody watches it
	once    bool              // a walk's: every step of the main graph runs once, for all samples
	idle    map[*ir.Node]bool // nodes that a selection leaves out; nil: not a selection
	arena   arena
	stock   *kernel.Stock // for what steps keep of their weights
}

// plan is the order of execution of one graph.
type plan struct {
	graph   *ir.Graph
	steps   []step
	inputs  []int
	outputs []int
}

type step struct {
	node  *ir.Node
	def   *op.Def
	state any
	in    []int // slot per input, -1 where absent
	out   []int
	free  []int   // slots whose last use this is
	needs []*step // steps that make large constants, to be run before this one
	lazy  bool    // state is made when the step runs, and dropped
	parts []step  // of a joined step: what it stands for
	quant *blocks // quantizes the first result in place; nil: none
	memo  *memo   // nil: none
}

// Unsupported lists every node of a model that cannot be run.
type Unsupported struct{ Nodes []string }

// Error names all of them.
func (u *Unsupported) Error() string {
	return fmt.Sprintf("%d nodes cannot be run: %s", len(u.Nodes), strings.Join(u.Nodes, "; "))
}

// Is makes errors.Is(err, op.ErrUnsupported) hold.
func (u *Unsupported) Is(target error) bool { return target == op.ErrUnsupported }

// Options of Compile.
type Options struct {
	// MaxMemory bounds the bytes of tensors alive at once in a run; 0: DefaultMaxMemory.
	MaxMemory int64
	// Hold bounds the bytes of weights that a program keeps in the form that kernels want, packed or dequantized; 0: half of
	// MaxMemory. Weights beyond it are made ready for each run when their turn comes, and dropped: a model may be larger than
	// memory.
	Hold int64
	// Poison fills the storage handed to kernels with ones: NaN, -1. It finds kernels that lean on zeroed memory.
	Poison bool
	// Plain runs simulations of quantizers operator by operator, as other runtimes do, instead of as one kernel each, and
	// products of dequantized operands on the dequantized values instead of on the codes.
	Plain bool
	// RunOnly makes a program that cannot be watched. Large weights that the file computes, from codes or from a transposed
	// matrix, are not computed where products and lookups do without; results are those of Run.
	RunOnly bool

	once bool // for a walk: what is multiplied is packed when its step comes, steps are not joined
}

// Compile compiles a model, which may be of any opset. The error for operators that cannot be run is an *Unsupported that
// lists all of them.
func Compile(m *ir.Model) (*Program, error) { return CompileWith(context.Background(), m, Options{}) }

// CompileWith is Compile with options. Compiling evaluates what is constant, which may take as long as a run: ctx stops it.
func CompileWith(ctx context.Context, m *ir.Model, o Options) (*Program, error) {
	return compile(ctx, m, o, nil)
}

// compile compiles a model, or the part of it that computes certain values.
func compile(ctx context.Context, m *ir.Model, o Options, values []*ir.Value) (*Program, error) {
	form, err := op.Canonicalize(m)
	if err != nil {
		return nil, err
	}
	if err := supported(form.Model); err != nil {
		return nil, err
	}
	if !o.Plain {
		op.Recognize(form.Model)
	}
	form.Model.Graph.Prune()
	p := &Program{form: form, plans: map[*ir.Graph]*plan{}, slots: make(map[*ir.Value]int, len(form.Map.Values)), limit: o.MaxMemory, poison: o.Poison, runOnly: o.RunOnly && values == nil, once: o.once, later: map[int]*step{}}
	p.stock = kernel.NewStock(p)
	if p.limit == 0 {
		p.limit = DefaultMaxMemory()
	}
	if p.hold = o.Hold; p.hold == 0 {
		p.hold = p.limit / 2
	}
	if values != nil {
		p.idle = idle(form, values)
	}
	for v := range form.Model.Graph.Values() {
		if t := v.Const(); t != nil {
			err := t.Load()
			if err == nil {
				err = p.empty(t)
			}
			if err != nil {
				return nil, fmt.Errorf("constant %q: %w", v.Name, err)
			}
		}
	}
	if p.main, err = p.plan(ctx, form.Model.Graph); err != nil {
		return nil, err
	}
	switch {
	case o.once:
	case p.idle == nil:
		p.fast = p.fuse(ctx, p.main, o.Plain)
	default:
		p.fast = p.fuseSeen(ctx, p.main, values)
	}
	if p.runOnly {
		p.main = nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if p.streams {
		p.arena.bound = int(p.hold / 8)
	}
	p.trace(m)
	return p, nil
}

// trace notes which values of the model lie in each slot: one in most.
func (p *Program) trace(m *ir.Model) {
	p.origin = make([][]*ir.Value, len(p.consts))
	room := make([]*ir.Value, len(p.consts))
	for g := range m.Graphs() {
		for v := range g.Values() {
			if w := p.form.Map.Values[v]; w != nil {
				if s, ok := p.slots[w]; ok {
					if p.origin[s] == nil {
						p.origin[s] = room[s : s : s+1]
					}
					p.origin[s] = append(p.origin[s], v)
				}
			}
		}
	}
}

func supported(m *ir.Model) error {
	var bad []string
	for n := range m.Nodes() {
		if d, ok := op.Lookup(n); !ok || d.Eval == nil {
			bad = append(bad, n.String())
		}
	}
	if bad != nil {
		return &Unsupported{bad}
	}
	return nil
}

func (p *Program) slot(v *ir.Value) int {
	if v == nil {
		return -1
	}
	s, ok := p.slots[v]
	if !ok {
		s = len(p.consts)
		p.slots[v] = s
		p.consts = append(p.consts, v.Const())
	}
	return s
}

// plan orders one graph and its subgraphs. Nodes whose inputs are all constant are evaluated here.
func (p *Program) plan(ctx context.Context, g *ir.Graph) (*plan, error) {
	pl := &plan{graph: g, steps: make([]step, 0, g.Len())}
	p.plans[g] = pl
	for _, v := range g.Inputs() {
		if v.Const() == nil || g != p.form.Model.Graph {
			pl.inputs = append(pl.inputs, p.slot(v))
		} else {
			p.slot(v)
		}
	}
	for n := range g.Nodes() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if p.idle[n] {
			continue
		}
		d, _ := op.Lookup(n)
		st := step{node: n, def: d, in: make([]int, n.NumIn()), out: make([]int, n.NumOut())}
		for i := range st.in {
			st.in[i] = p.slot(n.In(i))
		}
		for i := range st.out {
			st.out[i] = p.slot(n.Out(i))
		}
		for _, sub := range n.Subgraphs() {
			if _, err := p.plan(ctx, sub); err != nil {
				return nil, err
			}
		}
		done, err := p.fold(ctx, &st)
		if err != nil {
			return nil, fmt.Errorf("node %v: %w", n, err)
		}
		if done {
			continue
		}
		if d.Prepare != nil && !p.postpone(&st) {
			c := op.NewCall(n, d, nil, nil, p.known(st.in))
			c.Stock = p.stock
			if st.state, err = d.Prepare(c); err != nil {
				return nil, fmt.Errorf("node %v: %w", n, err)
			}
			p.packed(&st)
		}
		st.needs = p.needs(st.in)
		pl.steps = append(pl.steps, st)
	}
	outputs := g.Outputs()
	if p.idle != nil && g == p.form.Model.Graph {
		outputs = nil
	}
	for _, o := range outputs {
		s := p.slot(o.Value)
		if late := p.later[s]; late != nil {
			pl.steps = append(pl.steps, *late)
			delete(p.later, s)
		}
		pl.outputs = append(pl.outputs, s)
	}
	p.lifetimes(pl)
	return pl, nil
}

func (p *Program) known(slots []int) []*ir.Tensor {
	in := make([]*ir.Tensor, len(slots))
	for i, s := range slots {
		if s >= 0 {
			in[i] = p.consts[s]
		}
	}
	return in
}

// fold evaluates a step whose inputs are all constant.
func (p *Program) fold(ctx context.Context, st *step) (bool, error) {
	if len(st.node.Subgraphs()) > 0 {
		return false, nil
	}
	in := p.known(st.in)
	late := false
	for i, s := range st.in {
		if s >= 0 && in[i] == nil {
			if p.later[s] == nil {
				return false, nil
			}
			late = true
		}
	}
	if len(st.in) == 0 && st.node.Op.Type != "Constant" {
		return false, nil // a generator, evaluated once a run
	}
	if late || p.tooLarge(st) || p.unseen(st) {
		p.foldLater(st)
		return true, nil
	}
	var state any
	var err error
	if st.def.Prepare != nil {
		if state, err = st.def.Prepare(op.NewCall(st.node, st.def, nil, nil, in)); err != nil {
			return false, err
		}
	}
	out, err := op.Evaluate(op.NewCall(st.node, st.def, &folding{p, ctx}, state, in))
	if errors.Is(err, op.ErrUnsupported) {
		return false, err
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err != nil {
		return false, nil // the run reports it, if it gets there
	}
	for _, t := range out {
		if p.empty(t) != nil {
			return false, nil // the run reports this too
		}
	}
	st.state = state
	p.folds = append(p.folds, *st)
	for i, s := range st.out {
		if s >= 0 && i < len(out) {
			p.consts[s] = out[i]
			p.folded = append(p.folded, s)
			if out[i] != nil {
				p.held += footprint(out[i].Elem(), out[i].Len())
			}
		}
	}
	return true, nil
}

// folding is what a kernel finds around it when its node is evaluated at compile time: the memory limit, less what was
// folded before.
type folding struct {
	*Program
	ctx context.Context
}

// Alloc makes a tensor within the limit.
func (f *folding) Alloc(elem ir.DType, shape []int) (*ir.Tensor, error) {
	n, err := ir.Extent(shape)
	if err != nil {
		return nil, err
	}
	if size := footprint(elem, n); f.held+size > f.limit {
		return nil, fmt.Errorf("a constant %v%v of %d bytes exceeds the memory limit of %d bytes", elem, shape, size, f.limit)
	}
	return ir.NewTensor(elem, shape...), nil
}

// Room checks the limit for scratch.
func (f *folding) Room(bytes int64) error {
	if bytes > f.limit-f.held {
		return fmt.Errorf("scratch of %d bytes exceeds the memory limit of %d bytes", bytes, f.limit)
	}
	return nil
}

// Run is not called: nodes with subgraphs are not folded.
func (f *folding) Run(*ir.Graph, []*ir.Tensor) ([]*ir.Tensor, error) {
	panic("BUG: runtime: a subgraph run at compile time")
}

// Context is the compiler's.
func (f *folding) Context() context.Context { return f.ctx }

// empty fails for a tensor without elements whose other dimensions alone exceed the memory limit: kernels may go through
// them.
func (p *Program) empty(t *ir.Tensor) error {
	if t == nil || t.Len() > 0 {
		return nil
	}
	if n, err := ir.Extent(t.Shape()); err != nil || footprint(t.Elem(), n) > p.limit {
		return fmt.Errorf("the empty %v has other dimensions whose product exceeds the memory limit of %d bytes", t.Type(), p.limit)
	}
	return nil
}

// footprint returns the bytes that n elements take in memory; an empty string counts as its header.
func footprint(elem ir.DType, n int) int64 {
	if elem == ir.String {
		return 24 * int64(n)
	}
	return int64(elem.Size(n))
}

// lifetimes notes at each step the slots that no later step of the plan needs. Uses inside subgraphs count as uses by the
// step that owns them; values of enclosing graphs are never freed here.
func (p *Program) lifetimes(pl *plan) {
	dies := make([]bool, len(p.consts)) // slots of this plan that have not been seen to be needed
	for _, s := range pl.inputs {
		dies[s] = p.consts[s] == nil
	}
	for i := range pl.steps {
		for _, s := range pl.steps[i].out {
			if s >= 0 {
				dies[s] = p.consts[s] == nil
			}
		}
	}
	for _, s := range pl.outputs {
		dies[s] = false
	}
	for i := len(pl.steps) - 1; i >= 0; i-- {
		st := &pl.steps[i]
		for _, slots := range [][]int{p.captures(st.node), st.in, st.out} {
			for _, s := range slots {
				if s >= 0 && dies[s] {
					dies[s] = false
					st.free = append(st.free, s)
				}
			}
		}
	}
}

// captures returns the slots that the subgraphs of a node use.
func (p *Program) captures(n *ir.Node) []int {
	var slots []int
	for _, g := range n.Subgraphs() {
		pl := p.plans[g]
		slots = append(slots, pl.outputs...)
		for _, st := range pl.steps {
			slots = append(slots, st.in...)
			slots = append(slots, p.captures(st.node)...)
		}
	}
	return slots
}

// Inputs returns the values a run must be fed, of the canonical form: names and types are the model's.
func (p *Program) Inputs() []*ir.Value { return p.form.Model.Graph.FreeInputs() }

// Outputs returns the names of the outputs, in order.
func (p *Program) Outputs() []string {
	var names []string
	for _, o := range p.form.Model.Graph.Outputs() {
		names = append(names, o.Name)
	}
	return names
}
