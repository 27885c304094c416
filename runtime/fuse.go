package runtime

import (
	"context"
	"errors"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// A program has two plans of its main graph: the one that Watch runs, a step for each node, and the one that Run runs when
// nobody sees the values between. The second joins steps: products with what follows them, attention, normalizations and
// activations that the exporter took apart. Both share slots, constants and packed weights.

// errUnfit is returned by a joined step when the shapes of a run, or a value that its quantizers cannot take, are not those it is
// made for; its parts are run then.
var errUnfit = errors.New("the joined step does not fit")

// fuser turns a plan's steps into fewer.
type fuser struct {
	p     *Program
	ctx   context.Context
	plain bool // no products on codes
	exact bool // only what changes no bit of any value that is left
	steps []step
	gone  []bool
	by    map[int]int   // slot → the step that makes it
	users map[int][]int // slot → the steps that read it, once for each input
	fixed map[int]bool  // slots that the graph's outputs or subgraphs read
}

// fuse returns the plan that Run executes. plain leaves products of dequantized operands in float.
func (p *Program) fuse(ctx context.Context, pl *plan, plain bool) *plan {
	f := p.fuser(ctx, pl, plain)
	f.take(pl.steps)
	if !f.plain {
		f.unsigned()
	}
	for i := range f.steps {
		if f.gone[i] {
			continue
		}
		switch f.steps[i].node.Op.Type {
		case "Softmax":
			f.attention(i)
		case "Sqrt":
			f.norm(i)
		case "InstanceNormalization":
			f.groupNorm(i)
		}
	}
	for i := range f.steps {
		if f.gone[i] {
			continue
		}
		switch f.steps[i].node.Op.Type {
		case "MatMul", "Gemm":
			f.linear(i)
			f.product(i)
		case "Conv":
			f.conv(i)
		case "Gather":
			f.lookup(i)
		}
	}
	for i := range f.steps {
		if !f.gone[i] {
			f.activation(i)
			f.concat(i)
			f.maxPool(i)
		}
	}
	f.unread()
	f.unquantized()
	for i := range f.steps {
		if !f.gone[i] {
			f.quantized(i)
		}
	}
	fast := f.left(pl)
	if p.runOnly {
		f.settle(fast.steps)
		for g := range p.form.Model.Graphs() {
			if sub := p.plans[g]; sub != nil && sub != pl {
				f.settle(sub.steps)
			}
		}
	}
	p.remember(fast)
	p.lifetimes(fast)
	return fast
}

func (p *Program) fuser(ctx context.Context, pl *plan, plain bool) *fuser {
	f := &fuser{p: p, ctx: ctx, plain: plain || !kernel.FastInt8(), by: make(map[int]int, len(pl.steps)), users: make(map[int][]int, len(pl.steps)), fixed: map[int]bool{}}
	for _, s := range pl.outputs {
		f.fixed[s] = true
	}
	for _, st := range pl.steps {
		for _, s := range p.captures(st.node) {
			f.fixed[s] = true
		}
	}
	return f
}

// fuseSeen returns the plan of a selection, in which products are joined with the sums and Relu behind them. The bits of the values
// that are selected, and of all others that are computed, are those of the plan that it is given.
func (p *Program) fuseSeen(ctx context.Context, pl *plan, values []*ir.Value) *plan {
	f := p.fuser(ctx, pl, true)
	f.exact = true
	for _, v := range values {
		if s, ok := p.slots[p.form.Map.Values[v]]; ok {
			f.fixed[s] = true
		}
	}
	f.take(pl.steps)
	for i := range f.steps {
		if t := f.steps[i].node.Op.Type; !f.gone[i] && (t == "MatMul" || t == "Gemm") {
			f.linear(i)
		}
	}
	fast := f.left(pl)
	p.lifetimes(fast)
	return fast
}

// left makes a plan of the steps that are left.
func (f *fuser) left(pl *plan) *plan {
	n := 0
	for _, gone := range f.gone {
		if !gone {
			n++
		}
	}
	fast := &plan{graph: pl.graph, inputs: pl.inputs, outputs: pl.outputs, steps: make([]step, 0, n)}
	for i, st := range f.steps {
		if !f.gone[i] {
			if st.parts != nil {
				st.needs = f.p.needs(st.in) // the parts have their own
			}
			fast.steps = append(fast.steps, st)
		}
	}
	return fast
}

// take copies the steps, without those that hand on what they get: casts to the type a value has, products with one.
func (f *fuser) take(steps []step) {
	alias, read := map[int]int{}, make([]bool, len(f.p.consts))
	for s := range f.fixed {
		if s >= 0 { // absent inputs of nodes in subgraphs are among them
			read[s] = true
		}
	}
	for i := range steps {
		for _, s := range steps[i].in {
			if s >= 0 {
				read[s] = true
			}
		}
	}
	f.steps = make([]step, 0, len(steps))
	for _, st := range steps {
		st.free = nil
		st.in = slices.Clone(st.in)
		for i, s := range st.in {
			if a, ok := alias[s]; ok {
				st.in[i] = a
			}
		}
		if from, ok := f.idle(&st, read); ok && !f.fixed[st.out[0]] {
			alias[st.out[0]] = st.in[from]
			continue
		}
		for _, s := range st.in {
			if s >= 0 {
				f.users[s] = append(f.users[s], len(f.steps))
			}
		}
		for _, s := range st.out {
			if s >= 0 {
				f.by[s] = len(f.steps)
			}
		}
		f.steps = append(f.steps, st)
	}
	f.gone = make([]bool, len(f.steps))
}

// idle reports that a step's first output, the only one that is read, is its input number from.
func (f *fuser) idle(st *step, read []bool) (from int, ok bool) {
	if st.node.Op.Domain != "" || len(st.out) == 0 || slices.ContainsFunc(st.out[1:], func(s int) bool { return s >= 0 && read[s] }) {
		return 0, false
	}
	in, out := st.node.In(0), st.node.Out(0)
	switch st.node.Op.Type {
	case "Identity":
		return 0, true
	case "Dropout":
		for i, s := range st.in {
			t := f.constant(s)
			switch {
			case i == 0 && t != nil:
				return 0, false
			case i == 1 && s >= 0:
				if ratio, ok := scalarOf(t); !ok || !(ratio >= 0 && ratio < 1) {
					return 0, false
				}
			case i == 2 && s >= 0:
				if t == nil || t.Len() != 1 || t.Bytes()[0] != 0 {
					return 0, false
				}
			}
		}
		return 0, true
	case "Cast":
		return 0, in != nil && in.Type.Elem == out.Type.Elem && out.Type.Elem != ir.Undefined
	case "Mul":
		for i := range 2 {
			t := f.constant(st.in[i])
			if v, scalar := scalarOf(t); scalar && v == 1 && t.Rank() == 0 && t.Elem() == ir.Float32 {
				return 1 - i, true
			}
		}
	}
	return 0, false
}

// constant returns the contents of a slot that are known at compile time.
func (f *fuser) constant(s int) *ir.Tensor {
	if s < 0 {
		return nil
	}
	return f.p.consts[s]
}

// scalarOf returns the value of a float32 tensor of one element.
func scalarOf(t *ir.Tensor) (float32, bool) {
	if t == nil || t.Elem() != ir.Float32 || t.Len() != 1 {
		return 0, false
	}
	return ir.Data[float32](t)[0], true
}

// next returns the only step that reads a slot which nothing else reads.
func (f *fuser) next(s int) (int, bool) {
	if u := f.users[s]; len(u) == 1 && !f.fixed[s] && !f.gone[u[0]] {
		return u[0], true
	}
	return 0, false
}

// maker returns the step of the given operator whose first output is slot s.
func (f *fuser) maker(s int, operator string) (int, bool) {
	if s < 0 {
		return 0, false
	}
	i, ok := f.by[s]
	if !ok || f.gone[i] || !f.is(i, operator) || f.steps[i].out[0] != s {
		return 0, false
	}
	return i, true
}

// is reports whether step i is an operator of the default domain that yields one float32 tensor.
func (f *fuser) is(i int, operator string) bool {
	st := &f.steps[i]
	return st.node.Op.Type == operator && st.node.Op.Domain == "" && st.parts == nil && len(st.out) > 0 && st.out[0] >= 0 && st.node.Out(0).Type.Elem == ir.Float32
}

// other returns the input of a step of two inputs that is not s.
func (f *fuser) other(i, s int) int {
	in := f.steps[i].in
	if in[0] == s {
		return in[1]
	}
	return in[0]
}

// private reports that slot s is read by the given steps alone, once for each time they are listed.
func (f *fuser) private(s int, by ...int) bool {
	if f.fixed[s] {
		return false
	}
	u := slices.Clone(f.users[s])
	slices.Sort(u)
	slices.Sort(by)
	return slices.Equal(u, by)
}

// join replaces steps by one in the last one's place. Its inputs are read by it alone after that.
func (f *fuser) join(def *op.Def, state any, in []int, parts ...int) *step {
	slices.Sort(parts)
	last := parts[len(parts)-1]
	st := step{node: f.steps[last].node, def: def, state: state, in: in, out: f.steps[last].out}
	var inner []int
	for _, i := range parts {
		part := f.steps[i]
		if part.parts != nil {
			st.parts = append(st.parts, part.parts...)
		} else {
			st.parts = append(st.parts, part)
		}
		for _, s := range part.in {
			if s >= 0 {
				f.users[s] = slices.DeleteFunc(f.users[s], func(u int) bool { return u == i })
			}
		}
		if i != last {
			f.gone[i] = true
			inner = append(inner, part.out...)
		}
	}
	// In the parts an inner value dies at its last use.
	for k := len(st.parts) - 1; k >= 0; k-- {
		part := &st.parts[k]
		for _, slots := range [][]int{part.in, part.out} {
			for _, s := range slots {
				if j := slices.Index(inner, s); s >= 0 && j >= 0 {
					inner[j] = -1
					part.free = append(part.free, s)
				}
			}
		}
	}
	for _, s := range in {
		if s >= 0 {
			f.users[s] = append(f.users[s], last)
		}
	}
	f.steps[last] = st
	return &f.steps[last]
}
