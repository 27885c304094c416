package runtime

import (
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// A program that nobody watches needs few of the weights that a file computes: products on codes pack the codes, a weight that
// lies transposed is packed from where it lies, a table of codes dequantizes the rows that are looked up. Such weights are left
// to the steps that read them (later) until steps are joined; what is still wanted then is computed, within what may be kept.

// unseen reports whether a step that could be folded makes a large weight, by operators that joined steps see through, for
// products and lookups of the main graph alone.
func (p *Program) unseen(st *step) bool {
	return p.runOnly && p.bytesOf(st) >= lateAbove && p.hiddenWeight(st.node)
}

func (p *Program) hiddenWeight(n *ir.Node) bool {
	if n.Op.Domain != "" || n.Graph() != p.form.Model.Graph || n.Out(0) == nil || n.Out(0).Type.Elem != ir.Float32 {
		return false
	}
	switch n.Op.Type {
	case "DequantizeLinear", "Transpose", "Identity":
	default:
		return false
	}
	uses := n.Out(0).Uses()
	return len(uses) > 0 && !slices.ContainsFunc(uses, func(u ir.Use) bool {
		if u.Node == nil || u.Node.Graph() != n.Graph() || u.Node.Op.Domain != "" {
			return true
		}
		switch u.Node.Op.Type {
		case "MatMul", "Gemm":
			return u.Slot != 1
		case "Gather":
			return u.Slot != 0
		}
		return !p.hiddenWeight(u.Node)
	})
}

// makerOf returns the step that computed a constant, or that would.
func (p *Program) makerOf(s int) (*step, bool) {
	if late := p.later[s]; late != nil && p.runOnly {
		return late, true
	}
	return p.foldOf(s)
}

// reserve counts bytes that the program is to keep; false if they are more than it may.
func (p *Program) reserve(bytes int64) bool {
	if p.held+bytes > p.hold {
		return false
	}
	p.held += bytes
	return true
}

// compute evaluates late steps into constants of the program, and returns the slots that they filled; none where one fails,
// which a run reports if it gets there.
func (f *fuser) compute(late []*step) (made []int) {
	p := f.p
	for _, n := range late {
		if p.consts[n.out[0]] != nil {
			continue
		}
		out, err := op.Evaluate(op.NewCall(n.node, n.def, &folding{p, f.ctx}, nil, p.known(n.in)))
		if err != nil || f.ctx.Err() != nil {
			f.drop(made)
			return nil
		}
		p.consts[n.out[0]] = out[0]
		made = append(made, n.out[0])
	}
	return made
}

func (f *fuser) drop(slots []int) {
	for _, s := range slots {
		f.p.consts[s] = nil
	}
}

// weigh packs the weight of product i where that was left to it; what the program may not keep is made for each run.
func (f *fuser) weigh(i int) {
	p, st := f.p, &f.steps[i]
	late := p.later[st.in[1]]
	if !p.runOnly || late == nil || st.state != nil || !f.is(i, st.node.Op.Type) {
		return
	}
	size := p.bytesOf(late)
	prepare := func() {
		if state, err := st.def.Prepare(op.NewCall(st.node, st.def, nil, nil, p.known(st.in))); err == nil {
			st.state = state
		}
	}
	if w := f.constant(late.in[0]); w != nil && w.Elem() == ir.Float32 && turns(late.node) && f.is(i, "MatMul") {
		in := st.in[1]
		f.users[in] = slices.DeleteFunc(f.users[in], func(u int) bool { return u == i })
		st.def, st.in = turnedDef, []int{st.in[0], late.in[0]}
		st.needs = p.needs(st.in)
		f.users[late.in[0]] = append(f.users[late.in[0]], i)
		if st.lazy = !p.reserve(size); st.lazy {
			p.streams = true
		} else {
			prepare()
			letGo(w)
		}
		return
	}
	if !p.reserve(size) {
		return
	}
	made := f.compute(p.needs(st.in[1:2]))
	if made != nil {
		prepare()
	}
	f.drop(made)
	if st.state == nil {
		p.held -= size // settle looks at it again
	}
}

// unjoined makes product i, which is not joined with what follows, do with the weight that weigh has packed.
func (f *fuser) unjoined(i int) {
	p, st := f.p, &f.steps[i]
	if _, ok := st.state.(*kernel.PackedB); ok && p.runOnly && p.later[st.in[1]] != nil && f.is(i, "MatMul") {
		st.def, st.needs = packedDef, p.needs(st.in[:1])
	}
}

// turns reports a node that transposes a matrix.
func turns(n *ir.Node) bool {
	perm := n.Ints("perm")
	return n.Op == (ir.OpID{Type: "Transpose"}) && n.Out(0).Type.Rank() == 2 && (n.Attr("perm") == nil || slices.Equal(perm, []int64{1, 0}))
}

// turnedDef is MatMul with a constant matrix that lies transposed, N×K.
var turnedDef = &op.Def{
	Name: "MatMul, transposed",
	Prepare: func(c *op.Call) (any, error) {
		w := c.In[1]
		n, k := w.Shape()[0], w.Shape()[1]
		return kernel.PackB(k, n, ir.Data[float32](w), k, true), nil
	},
	Eval: packedProduct,
}

// packedDef is MatMul that reads nothing of its constant matrix but what is packed.
var packedDef = &op.Def{Name: "MatMul, packed", Eval: packedProduct}

func packedProduct(c *op.Call) ([]*ir.Tensor, error) {
	w, x := c.State.(*kernel.PackedB), c.In[0]
	s := slices.Clone(x.Shape())
	if len(s) == 0 || s[len(s)-1] != w.K || x.Elem() != ir.Float32 {
		return nil, fmt.Errorf("operands %v and [%d %d]: wanted %d columns of float32", x.Type(), w.K, w.N, w.K)
	}
	s[len(s)-1] = w.N
	out, err := c.New(ir.Float32, s...)
	if err != nil || out.Len() == 0 {
		return []*ir.Tensor{out}, err
	}
	kernel.Gemm(out.Len()/w.N, ir.Data[float32](x), w.K, w, ir.Data[float32](out), w.N, false)
	return []*ir.Tensor{out}, nil
}

// settle computes the large constants that are still wanted, as far as the program may keep them.
func (f *fuser) settle(steps []step) {
	p := f.p
	for i := range steps {
		st := &steps[i]
		if st.needs == nil {
			continue
		}
		size := int64(0)
		for _, n := range st.needs {
			if p.consts[n.out[0]] == nil {
				size += p.bytesOf(n)
			}
		}
		if !p.reserve(size) {
			p.streams = true
			continue
		}
		made := f.compute(st.needs)
		for _, s := range made {
			if !slices.Contains(st.in, s) { // a step between
				p.held -= footprint(p.consts[s].Elem(), p.consts[s].Len())
				p.consts[s] = nil
			}
		}
		if made != nil || size == 0 {
			st.needs = nil
		} else {
			p.held -= size
		}
	}
}

// table is the state of a joined lookup: the rows of a matrix of codes, and their scales, one or one for each row.
type table struct {
	codes, zero *ir.Tensor
	scale       []float32
}

// lookup makes a Gather of rows of a dequantized table dequantize the rows that it takes.
func (f *fuser) lookup(i int) {
	st := &f.steps[i]
	if !f.p.runOnly || !f.is(i, "Gather") || st.node.Int("axis", 0) != 0 || f.p.later[st.in[0]] == nil || f.constant(st.in[1]) != nil {
		return
	}
	deq := f.p.later[st.in[0]]
	if deq.node.Op != (ir.OpID{Type: "DequantizeLinear"}) || st.node.In(1).Type.Elem != ir.Int64 {
		return
	}
	var w codedWeight
	if !w.read(f, deq, 0) || w.codes.Rank() != 2 {
		return
	}
	f.join(tableDef, &table{w.codes, w.zero, w.scale}, []int{st.in[1]}, i)
}

var tableDef = &op.Def{Name: "lookup of codes", Eval: func(c *op.Call) ([]*ir.Tensor, error) {
	t, at := c.State.(*table), ir.Data[int64](c.In[0])
	rows, cols := t.codes.Shape()[0], t.codes.Shape()[1]
	out, err := c.New(ir.Float32, append(slices.Clone(c.In[0].Shape()), cols)...)
	if err != nil {
		return nil, err
	}
	y := ir.Data[float32](out)
	for i, r := range at {
		if r < 0 {
			r += int64(rows)
		}
		if r < 0 || r >= int64(rows) {
			return nil, errUnfit // the parts say what is wrong
		}
		g := int(r) % len(t.scale)
		if t.codes.Elem() == ir.Int8 {
			dequantizeRow[int8](t, y[i*cols:(i+1)*cols], int(r), g)
		} else {
			dequantizeRow[uint8](t, y[i*cols:(i+1)*cols], int(r), g)
		}
	}
	return []*ir.Tensor{out}, nil
}}

func dequantizeRow[T int8 | uint8](t *table, y []float32, r, g int) {
	zero := int32(0)
	if t.zero != nil {
		zero = int32(ir.Data[T](t.zero)[g])
	}
	kernel.DequantizeInt(y, ir.Data[T](t.codes)[r*len(y):(r+1)*len(y)], t.scale[g], zero)
}
