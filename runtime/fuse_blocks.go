package runtime

import (
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// A product of a value that is quantized in blocks when the model runs with a constant that is, or can be seen to be, quantized in
// the same blocks runs on the codes of both (see kernel.GemmBlocks). The quantizer then writes codes, once for all the products
// that read them.

// encoder is the state of a quantizer that writes codes; its results are what the quantizer makes, where that is read, and the
// codes: a uint8 tensor of as many rows, each kernel.BlockRow long. Where numbers have no codes (infinity, NaN, scales out of the
// ordinary) it writes in their place what the quantizer makes.
type encoder struct {
	*blocks
	cols  int
	plain step // the quantizer
	alone bool // nobody reads what the quantizer makes
}

// decoder is the state of a step that undoes an encoder.
type decoder struct{ cols, size int }

// blockProduct finds the product of slot x with the constant matrix in slot w on codes in blocks; the quantizer of x is step
// number from. There is none where p is nil.
func (f *fuser) blockProduct(x, w int, trans bool) (p *kernel.PackedBlocks, from int) {
	from, ok := f.by[x]
	if f.plain || !kernel.FastBlocks() || !ok || f.gone[from] || f.steps[from].out[0] != x {
		return nil, 0
	}
	b := f.lastAxis(from)
	if e, ok := f.steps[from].state.(*encoder); ok {
		b = e.blocks
	}
	if b == nil {
		return nil, 0
	}
	dims := f.steps[from].node.In(0).Type.Dims
	cols := dims[len(dims)-1]
	if !cols.Known() || cols.Size == 0 || !b.along(int(cols.Size)).CanCode() {
		return nil, 0
	}
	t := f.constant(w)
	if t == nil && f.p.runOnly && f.p.later[w] != nil {
		made := f.compute(f.p.needs([]int{w}))
		defer f.drop(made)
		t = f.constant(w)
	}
	if t == nil || t.Elem() != ir.Float32 || t.Rank() != 2 || t.Len() == 0 {
		return nil, 0
	}
	k, n := t.Shape()[0], t.Shape()[1]
	ld := n
	if trans {
		k, n = n, k
	}
	if cols.Size != int64(k) || f.p.runOnly && !f.p.reserve(int64(k)*int64(n)) {
		return nil, 0
	}
	q := b.along(k)
	if p, ok = kernel.PackBlocks(k, n, ir.Data[float32](t), ld, trans, q.Size()); ok {
		return p, from
	}
	if f.p.runOnly {
		f.p.held -= int64(k) * int64(n)
	}
	return nil, 0
}

// lastAxis returns the quantizer of step i where it has blocks along the last axis; else nil.
func (f *fuser) lastAxis(i int) *blocks {
	in := f.steps[i].node.In(0)
	if in == nil || !in.Type.Ranked || len(in.Type.Dims) == 0 {
		return nil
	}
	return f.blocks(i, len(in.Type.Dims)-1)
}

// encoded makes quantizer i write codes of rows of cols too, and returns their slot.
func (f *fuser) encoded(i, cols int) int {
	st := &f.steps[i]
	if _, ok := st.state.(*encoder); !ok {
		e := &encoder{blocks: f.lastAxis(i), cols: cols, plain: *st}
		codes := len(f.p.consts)
		f.p.consts = append(f.p.consts, nil)
		st.def, st.state, st.out = encoderDef, e, []int{st.out[0], codes}
		f.by[codes] = i
	}
	return st.out[1]
}

// onBlocks makes the joined step, which read quantized numbers as input 0 of its part number 0, read the codes in slot s instead.
func (f *fuser) onBlocks(st *step, s int, p *kernel.PackedBlocks) {
	own := len(f.p.consts)
	f.p.consts = append(f.p.consts, nil)
	first := st.parts[0]
	first.in = slices.Clone(first.in)
	first.in[0] = own
	first.free = append(slices.Clone(first.free), own)
	from := f.steps[f.by[s]]
	back := step{node: from.node, def: decoderDef, state: &decoder{cols: p.K, size: p.Size}, in: []int{s}, out: []int{own}}
	st.parts = append([]step{back, first}, st.parts[1:]...)
}

// unquantized makes encoders write nothing but codes where nothing else is read of them.
func (f *fuser) unquantized() {
	for i := range f.steps {
		st := &f.steps[i]
		e, ok := st.state.(*encoder)
		if !ok || f.gone[i] || f.fixed[st.out[0]] {
			continue
		}
		for _, u := range slices.Clone(f.users[st.out[0]]) {
			if to := &f.steps[u]; to.node.Op == (ir.OpID{Type: "Shape"}) && to.in[0] == st.out[0] {
				to.in[0] = st.in[0]
				f.users[st.in[0]] = append(f.users[st.in[0]], u)
				f.users[st.out[0]] = slices.DeleteFunc(f.users[st.out[0]], func(v int) bool { return v == u })
			}
		}
		if len(f.users[st.out[0]]) == 0 {
			e.alone, st.out = true, []int{-1, st.out[1]}
		}
	}
}

var encoderDef = &op.Def{Name: "codes", Eval: func(c *op.Call) ([]*ir.Tensor, error) {
	e := c.State.(*encoder)
	codes, err := e.codes(c)
	if err != nil || codes != nil && e.alone {
		return []*ir.Tensor{nil, codes}, err
	}
	plain := *c
	plain.Def, plain.State = e.plain.def, e.plain.state
	out, err := op.Evaluate(&plain)
	if err != nil {
		return nil, err
	}
	if codes == nil {
		codes = out[0]
	}
	return []*ir.Tensor{out[0], codes}, nil
}}

// codes writes codes; nil where they do not exist.
func (e *encoder) codes(c *op.Call) (*ir.Tensor, error) {
	x := c.In[0]
	s := slices.Clone(x.Shape())
	last := len(s) - 1
	if last < 0 || s[last] != e.cols || x.Elem() != ir.Float32 || x.Len() == 0 {
		return nil, nil
	}
	q, v := e.along(e.cols), ir.Data[float32](x)
	if q.Relative() {
		top := kernel.AbsMax(v)
		if !(top <= math.MaxFloat32) {
			return nil, nil
		}
		q = q.Under(top)
	}
	s[last] = kernel.BlockRow(e.cols, q.Size())
	out, err := c.New(ir.Uint8, s...)
	if err == nil && !q.Codes(x.Len()/e.cols, e.cols, out.Bytes(), v, e.cols) {
		out = nil
	}
	return out, err
}

var decoderDef = &op.Def{Name: "numbers", Eval: func(c *op.Call) ([]*ir.Tensor, error) {
	d, x := c.State.(*decoder), c.In[0]
	if x.Elem() == ir.Float32 {
		return []*ir.Tensor{x}, nil
	}
	s := slices.Clone(x.Shape())
	s[len(s)-1] = d.cols
	out, err := c.New(ir.Float32, s...)
	if err == nil {
		kernel.Uncode(out.Len()/d.cols, d.cols, d.size, ir.Data[float32](out), x.Bytes())
	}
	return []*ir.Tensor{out}, err
}}
