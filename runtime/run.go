package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// DefaultMaxMemory is 80 % of the machine's memory, or 8 GiB where that cannot be told.
var DefaultMaxMemory = sync.OnceValue(func() int64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err == nil {
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) >= 2 && f[0] == "MemTotal:" {
				if kb, err := strconv.ParseInt(f[1], 10, 64); err == nil {
					return kb * 1024 / 10 * 8
				}
			}
		}
	}
	return 8 << 30
})

// Run executes the program on the given inputs, by name, and returns the outputs. Inputs with a default value may be left
// out. It stops with ctx's error when ctx is cancelled.
func (p *Program) Run(ctx context.Context, in ir.Tensors) (ir.Tensors, error) {
	return p.Watch(ctx, in, nil)
}

// Watch is Run, and shows every computed value of the compiled model to see, in order of execution. An error of see stops
// the run.
func (p *Program) Watch(ctx context.Context, in ir.Tensors, see func(*ir.Value, *ir.Tensor) error) (ir.Tensors, error) {
	return p.start(ctx, see).all(in)
}

func (p *Program) start(ctx context.Context, see func(*ir.Value, *ir.Tensor) error) *run {
	r := &run{p: p, ctx: ctx, frame: slices.Clone(p.consts), see: see, recycle: see == nil}
	if r.recycle {
		r.owner = make([]*buffer, len(r.frame))
	}
	return r
}

// all runs the program from inputs to outputs.
func (r *run) all(in ir.Tensors) (ir.Tensors, error) {
	if err := r.feed(in); err != nil {
		return nil, err
	}
	pl := r.p.fast
	if r.see != nil {
		if r.p.runOnly {
			return nil, errors.New("the program was compiled to be run only: it cannot be watched")
		}
		pl = r.p.main
		for _, s := range r.p.folded {
			if err := r.show(s); err != nil {
				return nil, err
			}
		}
	}
	outs, err := r.plan(pl)
	if err != nil {
		return nil, err
	}
	result := ir.Tensors{}
	for i, o := range r.p.form.Model.Graph.Outputs() {
		result[o.Name] = outs[i]
	}
	return result, nil
}

// Lend is Run for callers that are done with the outputs when use returns: their storage is used again, so that a program that
// has run once allocates no more for results.
func (p *Program) Lend(ctx context.Context, in ir.Tensors, use func(out ir.Tensors) error) error {
	r := p.start(ctx, nil)
	out, err := r.all(in)
	if err == nil {
		err = use(out)
	}
	for s := range r.owner {
		r.release(s)
	}
	return err
}

// run is the state of one execution.
type run struct {
	p     *Program
	ctx   context.Context
	frame []*ir.Tensor
	live  int64
	see   func(*ir.Value, *ir.Tensor) error

	shown map[int]bool // late constants that see has seen

	recycle bool      // storage of dead tensors is used again: nobody but the frame holds them
	owner   []*buffer // by slot: the storage of its tensor if it came from the arena
	fresh   []*buffer // allocated by the step at work
	depth   int       // of subgraphs
}

func (r *run) feed(in ir.Tensors) error {
	for _, v := range r.p.form.Model.Graph.Inputs() {
		t := in[v.Name]
		if t == nil {
			if v.Const() != nil {
				continue
			}
			return fmt.Errorf("input %q (%v) is missing", v.Name, v.Type)
		}
		if err := t.Load(); err != nil {
			return fmt.Errorf("input %q: %w", v.Name, err)
		}
		if _, err := ir.Merge(v.Type, t.Type()); err != nil {
			return fmt.Errorf("input %q: wants %v, found %v", v.Name, v.Type, t.Type())
		}
		if err := r.p.empty(t); err != nil {
			return fmt.Errorf("input %q: %w", v.Name, err)
		}
		s, ok := r.p.slots[v]
		if !ok {
			continue // nothing reads it
		}
		r.put(s, t)
		if err := r.show(s); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) show(s int) error {
	if r.see == nil {
		return nil
	}
	for _, v := range r.p.origin[s] {
		if err := r.see(v, r.frame[s]); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) plan(pl *plan) ([]*ir.Tensor, error) {
	for i := range pl.steps {
		if err := r.ctx.Err(); err != nil {
			return nil, err
		}
		if err := r.step(&pl.steps[i]); err != nil {
			return nil, err
		}
	}
	outs := make([]*ir.Tensor, len(pl.outputs))
	for i, s := range pl.outputs {
		outs[i] = r.frame[s]
	}
	return outs, nil
}

func (r *run) step(st *step) (err error) {
	if st.needs != nil || st.lazy {
		made, err := r.make(st)
		if err != nil {
			return err
		}
		defer r.letGo(st, made)
	}
	in := make([]*ir.Tensor, len(st.in))
	for i, s := range st.in {
		if s >= 0 {
			in[i] = r.frame[s]
		}
	}
	defer func() {
		if x := recover(); x != nil {
			err = fmt.Errorf("node %v: panic: %v", st.node, x)
		}
	}()
	if st.memo != nil {
		if out := st.memo.recall(in); out != nil {
			return r.hand(st, out)
		}
		r.depth++ // no storage of the arena
		defer func() { r.depth-- }()
	}
	state := st.state
	if st.lazy && state == nil {
		if state, err = st.def.Prepare(op.NewCall(st.node, st.def, nil, nil, r.p.known(st.in))); err != nil {
			return fmt.Errorf("node %v: %w", st.node, err)
		}
	}
	out, err := op.Evaluate(op.NewCall(st.node, st.def, r, state, in))
	goruntime.KeepAlive(r.p) // and the stock that the state lies in
	if st.parts != nil && errors.Is(err, errUnfit) {
		return r.apart(st)
	}
	if err != nil {
		return fmt.Errorf("node %v: %w", st.node, err)
	}
	if l, ok := st.state.(*linear); st.quant != nil && !(ok && l.quant != nil) {
		if err := st.quant.apply(out[0]); err != nil {
			return err
		}
	}
	if st.memo != nil {
		st.memo.keep(in, out)
	}
	return r.hand(st, out)
}

// hand puts a step's results into their slots and frees what no later step needs.
func (r *run) hand(st *step, out []*ir.Tensor) error {
	for i, s := range st.out {
		if s < 0 {
			continue
		}
		if i >= len(out) || out[i] == nil {
			return fmt.Errorf("node %v: output %d, %q, is wanted: %w", st.node, i, st.node.Out(i).Name, op.ErrUnsupported)
		}
		if err := r.p.empty(out[i]); err != nil {
			return fmt.Errorf("node %v: output %d, %q: %w", st.node, i, st.node.Out(i).Name, err)
		}
		r.put(s, out[i])
		if err := r.showOnce(st, s); err != nil {
			return err
		}
	}
	if r.recycling() {
		r.settle(st)
	}
	for _, s := range st.free {
		r.put(s, nil)
	}
	return nil
}

// apart runs the parts of a joined step.
func (r *run) apart(st *step) error {
	for i := range st.parts {
		if err := r.step(&st.parts[i]); err != nil {
			return err
		}
	}
	if st.quant != nil {
		if err := st.quant.apply(r.frame[st.out[0]]); err != nil {
			return err
		}
	}
	for _, s := range st.free {
		r.put(s, nil)
	}
	return nil
}

// put fills a slot (nil: empties it) and keeps count of the bytes alive: the sizes of what is in the frame, constants
// apart.
func (r *run) put(s int, t *ir.Tensor) {
	if old := r.frame[s]; old != nil && old != r.p.consts[s] {
		r.live -= int64(old.Size())
	}
	if r.recycle {
		r.release(s)
	}
	if r.frame[s] = t; t != nil {
		r.live += int64(t.Size())
	}
}

// recycling reports whether the step at work takes its storage from the arena. Results inside subgraphs do not: they leave
// by ways that own does not follow.
func (r *run) recycling() bool { return r.recycle && r.depth == 0 }

// Alloc checks the memory limit and makes a tensor; it implements op.Env.
func (r *run) Alloc(elem ir.DType, shape []int) (*ir.Tensor, error) {
	n, err := ir.Extent(shape)
	if err != nil {
		return nil, err
	}
	if size := footprint(elem, n); r.live+size > r.p.limit {
		return nil, fmt.Errorf("a result %v%v of %d bytes exceeds the memory limit of %d bytes", elem, shape, size, r.p.limit)
	}
	if !r.recycling() || elem == ir.String || slices.Contains(shape, 0) {
		return ir.NewTensor(elem, shape...), nil
	}
	b := r.p.arena.get(elem.Size(n))
	r.fresh = append(r.fresh, b)
	if r.p.poison {
		for i := range b.words {
			b.words[i] = ^uint64(0)
		}
	}
	return b.tensor(elem, shape, n)
}

// Room checks the memory limit; it implements op.Env.
func (r *run) Room(bytes int64) error {
	if bytes > r.p.limit-r.live {
		return fmt.Errorf("scratch of %d bytes exceeds the memory limit of %d bytes", bytes, r.p.limit)
	}
	return nil
}

// Run executes a subgraph; it implements op.Env.
func (r *run) Run(g *ir.Graph, in []*ir.Tensor) ([]*ir.Tensor, error) {
	pl := r.p.plans[g]
	if pl == nil {
		return nil, fmt.Errorf("BUG: subgraph %q was not compiled", g.Name)
	}
	if len(in) != len(pl.inputs) {
		return nil, fmt.Errorf("subgraph %q has %d inputs, was given %d", g.Name, len(pl.inputs), len(in))
	}
	for i, s := range pl.inputs {
		r.put(s, in[i])
		if err := r.show(s); err != nil {
			return nil, err
		}
	}
	r.depth++
	defer func() { r.depth-- }()
	return r.plan(pl)
}

// Context returns the context of the run; it implements op.Env.
func (r *run) Context() context.Context { return r.ctx }
