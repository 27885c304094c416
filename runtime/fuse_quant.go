package runtime

import (
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// blocks is a dynamic quantizer of blocks along one axis that runs inside another step.
type blocks struct {
	node *ir.Node
	fake *op.FakeQuant
}

// blocks returns the quantizer of step i where that is a dynamic FakeQuant in blocks along the given axis of its float32 input
// which has a kernel for blocks; else nil.
func (f *fuser) blocks(i, axis int) *blocks {
	st := &f.steps[i]
	if st.def == encoderDef || st.node.Op != (ir.OpID{Domain: op.Domain, Type: "FakeQuant"}) || len(st.in) != 1 || st.node.In(0).Type.Elem != ir.Float32 || !st.node.In(0).Type.Ranked {
		return nil
	}
	fake, err := op.ReadFakeQuant(st.node)
	if err != nil || !fake.Scheme.Dynamic {
		return nil
	}
	if k := fake.Axes.K; k != axis && k+len(st.node.In(0).Type.Dims) != axis {
		return nil
	}
	if _, ok := fake.Scheme.BlockQuant(1); !ok {
		return nil
	}
	return &blocks{node: st.node, fake: fake}
}

// along is the kernel for an axis of n elements; nil where there is no quantizer.
func (b *blocks) along(n int) *kernel.BlockQuant {
	if b == nil {
		return nil
	}
	q, ok := b.fake.Scheme.BlockQuant(n)
	if !ok {
		panic("BUG: runtime: a scheme lost its kernel")
	}
	return q
}

// apply quantizes the rows of t in place.
func (b *blocks) apply(t *ir.Tensor) error {
	l, err := b.fake.Scheme.Layout(t.Shape(), numfmt.Axes{K: t.Rank() - 1, Out: numfmt.NoAxis})
	if err == nil {
		x := ir.Data[float32](t)
		err = b.fake.Scheme.ApplyDynamic(x, x, l)
	}
	if err != nil {
		return fmt.Errorf("node %v: %w", b.node, err)
	}
	return nil
}

// fresh are the operators, and joined steps, whose results lie in storage of their own and can be quantized there.
var fresh = map[string]bool{
	linearDef.Name: true, attentionDef.Name: true, normDef.Name: true, actDef.Name: true,
	"LayerNormalization": true, "RMSNormalization": true, "MatMul": true, turnedDef.Name: true, "Gemm": true, "Mul": true, "Add": true,
}

// quantized joins quantizer i with the step that makes what it quantizes, if nothing else reads that: a joined product
// quantizes rows as it finishes them, other steps their whole result. Between them there may be Reshapes that keep blocks whole.
func (f *fuser) quantized(i int) {
	st := &f.steps[i]
	in := st.node.In(0)
	if in == nil || !in.Type.Ranked || len(in.Type.Dims) == 0 {
		return
	}
	last := len(in.Type.Dims) - 1
	b, cols := f.blocks(i, last), in.Type.Dims[last]
	if b == nil || !cols.Known() {
		return
	}
	reader, s, to := i, st.in[0], -1
	for {
		k, ok := f.by[s]
		if !ok || f.gone[k] || !f.alone(s, reader) || f.steps[k].out[0] != s {
			return
		}
		p := &f.steps[k]
		if t := p.node.Out(0).Type; !t.Ranked || len(t.Dims) == 0 || t.Elem != ir.Float32 || !b.sameBlocks(t.Dims[len(t.Dims)-1], cols) {
			return
		}
		if to < 0 {
			to = k
		}
		if p.node.Op == (ir.OpID{Type: "Reshape"}) && p.parts == nil {
			reader, s = k, p.in[0]
			continue
		}
		if !fresh[p.def.Name] || p.quant != nil {
			return
		}
		if l, ok := p.state.(*linear); ok && l.codes == nil && !b.along(1).Relative() {
			l.quant = b
		}
		p.quant = b
		break
	}
	// What made the quantizer's input makes its output now.
	f.gone[i] = true
	maker := &f.steps[to]
	for _, u := range f.users[maker.out[0]] {
		if u != i && !f.gone[u] && len(f.steps[u].in) > 0 && f.steps[u].in[0] == maker.out[0] { // a Shape
			f.steps[u].in[0] = st.out[0]
			f.users[st.out[0]] = append(f.users[st.out[0]], u)
		}
	}
	maker.out = slices.Clone(maker.out)
	maker.out[0] = st.out[0]
	f.by[st.out[0]] = to
	if n := len(maker.parts); n > 0 {
		maker.parts = slices.Clone(maker.parts)
		end := &maker.parts[n-1]
		end.out = slices.Clone(end.out)
		end.out[0] = st.out[0]
	}
}

// alone reports that slot s is read by one step, but for those that look at its shape only.
func (f *fuser) alone(s, reader int) bool {
	if f.fixed[s] {
		return false
	}
	for _, u := range f.users[s] {
		if u != reader && !f.gone[u] && f.steps[u].node.Op != (ir.OpID{Type: "Shape"}) {
			return false
		}
	}
	return true
}

// sameBlocks reports that contiguous rows of either length have the same blocks.
func (b *blocks) sameBlocks(m, n ir.Dim) bool {
	size := int64(b.fake.Scheme.Block)
	return m.Known() && n.Known() && (m.Size == n.Size || b.fake.Scheme.Gran == numfmt.PerBlock && m.Size%size == 0 && n.Size%size == 0)
}
