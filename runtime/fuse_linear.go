package runtime

import (
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// tail is what follows a product: a bias, a residual and an activation, in this order, each of them optional.
type tail struct {
	bias     int // slot, -1: none
	residual int
	act      kernel.Act
	lo, hi   float32
	parts    []int
}

// follow gathers the tail of step i. It may have a bias where biased says so of a constant.
func (f *fuser) follow(i int, biased func(*ir.Tensor) bool) tail {
	t := tail{bias: -1, residual: -1, parts: []int{i}}
	for {
		s := f.steps[i].out[0]
		if act, ok := f.match(s); ok && (!f.exact || act.act == kernel.ActRelu) {
			t.act, t.lo, t.hi = act.act, act.lo, act.hi
			t.parts = append(t.parts, act.parts...)
			return t
		}
		n, ok := f.next(s)
		if !ok || !f.is(n, "Add") || t.residual >= 0 {
			return t
		}
		o := f.other(n, s)
		switch c := f.constant(o); {
		case o < 0 || o == s:
			return t
		case c != nil && t.bias < 0 && biased(c):
			t.bias = o
		case c == nil && f.by[o] < n:
			t.residual = o
		default:
			return t
		}
		t.parts = append(t.parts, n)
		i = n
	}
}

// activation is an activation function found in a graph, in one step or in several.
type activation struct {
	act    kernel.Act
	lo, hi float32
	x      int // slot
	parts  []int
}

var simpleActs = map[string]kernel.Act{"Relu": kernel.ActRelu, "Sigmoid": kernel.ActSigmoid, "Tanh": kernel.ActTanh}

// match finds the activation that is all that reads slot s.
func (f *fuser) match(s int) (*activation, bool) {
	if f.fixed[s] {
		return nil, false
	}
	switch u := f.users[s]; len(u) {
	case 1:
		i := u[0]
		if f.gone[i] {
			return nil, false
		}
		st := &f.steps[i]
		if act, ok := simpleActs[st.node.Op.Type]; ok && f.is(i, st.node.Op.Type) {
			return &activation{act: act, x: s, parts: []int{i}}, true
		}
		switch {
		case f.is(i, "Gelu"):
			act := kernel.ActGelu
			if st.node.Str("approximate", "none") == "tanh" {
				act = kernel.ActGeluTanh
			}
			return &activation{act: act, x: s, parts: []int{i}}, true
		case f.is(i, "Clip") && st.in[0] == s:
			a := &activation{act: kernel.ActClip, x: s, lo: float32(math.Inf(-1)), hi: float32(math.Inf(1)), parts: []int{i}}
			for k, bound := range []*float32{&a.lo, &a.hi} {
				if k+1 < len(st.in) && st.in[k+1] >= 0 {
					v, ok := scalarOf(f.constant(st.in[k+1]))
					if !ok || v != v {
						return nil, false
					}
					*bound = v
				}
			}
			return a, a.lo <= a.hi
		}
	case 2:
		if a, ok := f.silu(s, u); ok {
			return a, true
		}
		return f.gelu(s)
	}
	return nil, false
}

// silu matches x·sigmoid(x).
func (f *fuser) silu(s int, u []int) (*activation, bool) {
	for k := range 2 {
		sig, mul := u[k], u[1-k]
		if f.gone[sig] || f.gone[mul] || !f.is(sig, "Sigmoid") || !f.is(mul, "Mul") {
			continue
		}
		if y := f.steps[sig].out[0]; f.private(y, mul) && f.other(mul, s) == y {
			return &activation{act: kernel.ActSilu, x: s, parts: []int{sig, mul}}, true
		}
	}
	return nil, false
}

// gelu matches x·(1+erf(x/√2))·½, in any order of the products.
func (f *fuser) gelu(s int) (*activation, bool) {
	for _, arg := range f.users[s] {
		if f.gone[arg] || !(f.is(arg, "Div") && f.steps[arg].in[0] == s && f.about(f.steps[arg].in[1], math.Sqrt2) || f.is(arg, "Mul") && f.about(f.other(arg, s), 1/math.Sqrt2)) {
			continue
		}
		erf, ok := f.next(f.steps[arg].out[0])
		if !ok || !f.is(erf, "Erf") {
			continue
		}
		add, ok := f.next(f.steps[erf].out[0])
		if !ok || !f.is(add, "Add") || !f.about(f.other(add, f.steps[erf].out[0]), 1) {
			continue
		}
		sum := f.steps[add].out[0]
		mul, ok := f.next(sum)
		if !ok || !f.is(mul, "Mul") {
			continue
		}
		if f.other(mul, sum) == s && f.private(s, arg, mul) {
			// (x·(1+erf))·½
			y := f.steps[mul].out[0]
			if half, ok := f.next(y); ok && f.is(half, "Mul") && f.about(f.other(half, y), 0.5) {
				return &activation{act: kernel.ActGelu, x: s, parts: []int{arg, erf, add, mul, half}}, true
			}
			continue
		}
		// (x·½)·(1+erf)
		if half, ok := f.maker(f.other(mul, sum), "Mul"); ok && f.private(f.steps[half].out[0], mul) && f.private(s, arg, half) && f.about(f.other(half, s), 0.5) {
			return &activation{act: kernel.ActGelu, x: s, parts: []int{arg, erf, add, mul, half}}, true
		}
	}
	return nil, false
}

// about reports whether a slot holds one constant, v to the precision of float32.
func (f *fuser) about(s int, v float64) bool {
	x, ok := scalarOf(f.constant(s))
	return ok && math.Abs(float64(x)-v) <= 1e-6*math.Abs(v)
}

// activation joins the steps of an activation function that stands alone.
func (f *fuser) activation(i int) {
	if !f.is(i, "Sigmoid") && !f.is(i, "Erf") {
		return
	}
	s := f.steps[i].in[0]
	if f.is(i, "Erf") {
		arg, ok := f.by[s]
		if !ok || f.gone[arg] || len(f.steps[arg].in) != 2 || !f.is(arg, "Div") && !f.is(arg, "Mul") {
			return
		}
		if s = f.steps[arg].in[0]; f.constant(s) != nil {
			s = f.steps[arg].in[1]
		}
	}
	if a, ok := f.match(s); ok && len(a.parts) > 1 {
		f.join(actDef, a, []int{s}, a.parts...)
	}
}

var actDef = &op.Def{Name: "activation", Eval: func(c *op.Call) ([]*ir.Tensor, error) {
	out, err := c.Like(c.In[0], ir.Float32)
	if err != nil {
		return nil, err
	}
	x, y := ir.Data[float32](c.In[0]), ir.Data[float32](out)
	switch c.State.(*activation).act {
	case kernel.ActSilu:
		kernel.Silu(y, x)
	case kernel.ActGelu:
		kernel.Gelu(y, x)
	default:
		panic("BUG: runtime: an activation of several steps that has no kernel")
	}
	return []*ir.Tensor{out}, nil
}}

// linear is the state of a joined product.
type linear struct {
	k, n   int
	weight *kernel.PackedB
	codes  *integers            // the product on codes; nil: in float
	blocks *kernel.PackedBlocks // the product on codes in blocks; nil: in float
	bias   []float32
	tail   tail
	quant  *blocks // of the result, in float
}

// linear joins a product with a packed weight, or one of which the codes are known, MatMul or Gemm, and its tail.
func (f *fuser) linear(i int) {
	st := &f.steps[i]
	if !f.is(i, st.node.Op.Type) {
		return
	}
	trans := st.node.Op.Type == "Gemm" && st.node.Int("transB", 0) != 0
	l, ok := f.weight(st, trans)
	if !ok {
		return
	}
	vector := func(t *ir.Tensor) bool {
		s := t.Shape()
		return t.Elem() == ir.Float32 && t.Len() == l.n && (len(s) == 1 || len(s) == 2 && s[0] == 1)
	}
	biased := vector
	fits := true
	if st.node.Op.Type == "Gemm" {
		fits = st.node.Int("transA", 0) == 0 && st.node.Float("alpha", 1) == 1
		if fits && len(st.in) > 2 && st.in[2] >= 0 {
			c := f.constant(st.in[2])
			if fits = c != nil && vector(c) && st.node.Float("beta", 1) == 1; fits {
				l.bias = ir.Data[float32](c)
				biased = func(*ir.Tensor) bool { return false }
			}
		}
	}
	var from coded
	var quantizer int
	if fits {
		if l.codes, from, ok = f.integers(st.in[0], st.in[1], trans); !ok {
			l.blocks, quantizer = f.blockProduct(st.in[0], st.in[1], trans)
		}
	}
	float := l.codes == nil && l.blocks == nil
	if float {
		f.weigh(i)
		if l.weight, ok = st.state.(*kernel.PackedB); !ok || !fits {
			return
		}
	}
	l.tail = f.follow(i, biased)
	if float && len(l.tail.parts) == 1 && l.bias == nil {
		f.unjoined(i)
		return
	}
	if l.tail.bias >= 0 {
		l.bias = ir.Data[float32](f.constant(l.tail.bias))
	}
	in := []int{st.in[0]}
	switch {
	case l.codes != nil:
		in[0] = from.slot
	case l.blocks != nil:
		in[0] = f.encoded(quantizer, l.blocks.K)
	}
	if l.tail.residual >= 0 {
		in = append(in, l.tail.residual)
	}
	st = f.join(linearDef, l, in, l.tail.parts...)
	switch {
	case l.codes != nil:
		f.onCodes(st, from)
	case l.blocks != nil:
		f.onBlocks(st, in[0], l.blocks)
	}
}

// weight returns the dimensions of a product's constant matrix, which is packed or left to the product.
func (f *fuser) weight(st *step, trans bool) (l *linear, ok bool) {
	if w, ok := st.state.(*kernel.PackedB); ok {
		return &linear{k: w.K, n: w.N}, true
	}
	late := f.p.later[st.in[1]]
	if !f.p.runOnly || late == nil {
		return nil, false
	}
	s, ok := late.node.Out(0).Type.Shape()
	if !ok || len(s) != 2 {
		return nil, false
	}
	if trans {
		s[0], s[1] = s[1], s[0]
	}
	return &linear{k: s[0], n: s[1]}, true
}

// linearDef computes act(x·W + bias + residual); inputs are x and the residual, if any.
var linearDef = &op.Def{Name: "linear", Eval: func(c *op.Call) ([]*ir.Tensor, error) {
	l := c.State.(*linear)
	x := c.In[0]
	s := x.Shape()
	elem, k := ir.Float32, l.k
	switch {
	case l.codes != nil:
		elem = l.codes.elem
	case l.blocks != nil:
		elem, k = ir.Uint8, kernel.BlockRow(l.k, l.blocks.Size)
	}
	if len(s) == 0 || s[len(s)-1] != k || x.Elem() != elem {
		return nil, errUnfit
	}
	shape := slices.Clone(s)
	shape[len(s)-1] = l.n
	ep := &kernel.Epilogue{Bias: l.bias, Act: l.tail.act, Lo: l.tail.lo, Hi: l.tail.hi}
	if l.tail.residual >= 0 {
		r := c.In[1]
		if !slices.Equal(r.Shape(), shape) || r.Elem() != ir.Float32 {
			return nil, errUnfit
		}
		ep.Residual, ep.ResidualLd = ir.Data[float32](r), l.n
	}
	if l.quant != nil {
		ep.Quant, ep.Infinite = l.quant.along(l.n), new(par.Flag)
	}
	out, err := c.New(ir.Float32, shape...)
	if err != nil || out.Len() == 0 {
		return []*ir.Tensor{out}, err
	}
	m := out.Len() / l.n
	switch {
	case l.codes != nil:
		l.codes.multiply(m, x, ir.Data[float32](out), ep)
	case l.blocks != nil:
		kernel.GemmBlocks(m, x.Bytes(), l.blocks, ir.Data[float32](out), l.n, ep)
	default:
		kernel.GemmEpilogue(m, ir.Data[float32](x), l.k, l.weight, ir.Data[float32](out), l.n, false, ep)
	}
	if l.quant != nil && ep.Infinite.IsSet() {
		return nil, errUnfit // the parts say what is wrong, if anything is
	}
	return []*ir.Tensor{out}, nil
}}
