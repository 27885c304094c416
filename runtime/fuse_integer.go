package runtime

import (
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// Products of dequantized operands run on the codes: Σ (x-zx)·(w-zw) is summed exactly in int32 and multiplied by both
// scales once. What a simulation of it in float computes is the same sum with a rounding at each step.

// coded is a value that is (codes - zero)·scale.
type coded struct {
	deq   step // the DequantizeLinear
	slot  int  // of the codes
	scale float32
	zero  byte // the bits of an int8 or uint8
	elem  ir.DType
}

// coded finds the codes behind slot s: 8-bit integers with one scale and zero point that are known.
func (f *fuser) coded(s int) (c coded, ok bool) {
	i, ok := f.maker(s, "DequantizeLinear")
	if !ok {
		return c, false
	}
	c.deq = f.steps[i]
	c.slot = c.deq.in[0]
	if c.elem = c.deq.node.In(0).Type.Elem; len(c.deq.in) > 2 && c.deq.in[2] >= 0 {
		z := f.constant(c.deq.in[2])
		if z == nil || z.Len() != 1 || z.Elem() != ir.Int8 && z.Elem() != ir.Uint8 {
			return c, false
		}
		c.elem, c.zero = z.Elem(), z.Bytes()[0]
	}
	c.scale, ok = scalarOf(f.constant(c.deq.in[1]))
	return c, ok && normal(c.scale) && (c.elem == ir.Int8 || c.elem == ir.Uint8)
}

// codedWeight is a constant that is (codes - zero)·scale: a matrix K×N, or N×K where trans is set, or the weight of a
// convolution, whose output channels come first.
type codedWeight struct {
	codes, zero *ir.Tensor // zero nil: 0
	scale       []float32  // one, or one for each column
	trans       bool
}

// codedWeight finds the codes of which the constant in slot s was computed. trans says that its output channels come first
// as it stands.
func (f *fuser) codedWeight(s int, trans bool) (w codedWeight, ok bool) {
	w.trans = trans
	for {
		st, ok := f.p.makerOf(s)
		if !ok || st.node.Op.Domain != "" {
			return w, false
		}
		switch st.node.Op.Type {
		case "Identity":
			s = st.in[0]
			continue
		case "Transpose":
			if st.node.Out(0).Type.Rank() != 2 || !slices.Equal(st.node.Ints("perm"), []int64{1, 0}) && st.node.Attr("perm") != nil {
				return w, false
			}
			s, w.trans = st.in[0], !w.trans
			continue
		case "DequantizeLinear":
			axis := 1
			if w.trans {
				axis = 0
			}
			return w, w.read(f, st, axis)
		}
		return w, false
	}
}

// read takes the operands of a DequantizeLinear whose codes have their output channels along axis.
func (w *codedWeight) read(f *fuser, st *step, axis int) bool {
	w.codes = f.constant(st.in[0])
	scale := f.constant(st.in[1])
	if w.codes == nil || scale == nil || scale.Elem() != ir.Float32 || w.codes.Elem() != ir.Int8 && w.codes.Elem() != ir.Uint8 || st.node.Int("block_size", 0) != 0 {
		return false
	}
	if len(st.in) > 2 && st.in[2] >= 0 {
		if w.zero = f.constant(st.in[2]); w.zero == nil || w.zero.Elem() != w.codes.Elem() || w.zero.Len() != scale.Len() {
			return false
		}
	}
	w.scale = ir.Data[float32](scale)
	if len(w.scale) == 1 {
		return true
	}
	a, err := op.Axis(st.node.Int("axis", 1), w.codes.Rank())
	return err == nil && a == axis && len(w.scale) == w.codes.Shape()[axis]
}

// foldOf returns the step that computed a slot at compile time.
func (p *Program) foldOf(s int) (*step, bool) {
	for i := range p.folds {
		if p.folds[i].out[0] == s {
			return &p.folds[i], true
		}
	}
	return nil, false
}

// integers is the product of a joined linear on codes.
type integers struct {
	weight *kernel.PackedInt8
	elem   ir.DType
	zero   byte      // of x, by its bits
	scale  []float32 // of x times that of w, for each column
}

// maxDepth is the number of products of differences of bytes that cannot leave int32.
const maxDepth = math.MaxInt32 / (255 * 255)

// normal reports a scale in which nothing is lost: a positive number that is neither infinite nor subnormal.
func normal(s float32) bool { return s >= 0x1p-126 && s <= math.MaxFloat32 }

// integers finds the product of slot x with the constant matrix in slot w on the codes of both.
func (f *fuser) integers(x, w int, trans bool) (q *integers, from coded, ok bool) {
	if f.plain {
		return nil, from, false
	}
	if from, ok = f.coded(x); !ok {
		return nil, from, false
	}
	c, ok := f.codedWeight(w, trans)
	if !ok || c.codes.Rank() != 2 {
		return nil, from, false
	}
	k, n := c.codes.Shape()[0], c.codes.Shape()[1]
	ld := n
	if c.trans {
		k, n = n, k
	}
	if k > maxDepth {
		return nil, from, false
	}
	q = &integers{elem: from.elem, zero: from.zero}
	if q.scale, ok = scales(n, from.scale, c.scale); !ok {
		return nil, from, false
	}
	if f.p.runOnly && !f.p.reserve(int64(k)*int64(n)) {
		return nil, from, false
	}
	if c.codes.Elem() == ir.Int8 {
		q.weight = kernel.PackInt8(k, n, ir.Data[int8](c.codes), ld, c.trans, zerosOf[int8](c.zero))
	} else {
		q.weight = kernel.PackInt8(k, n, ir.Data[uint8](c.codes), ld, c.trans, zerosOf[uint8](c.zero))
	}
	if f.p.runOnly {
		letGo(c.codes)
	}
	return q, from, true
}

// multiply computes the product of codes, m rows of them, with ep.
func (q *integers) multiply(m int, x *ir.Tensor, y []float32, ep *kernel.Epilogue) {
	k, n := q.weight.K, q.weight.N
	if q.elem == ir.Int8 {
		kernel.GemmInt8Scaled(m, ir.Data[int8](x), k, []int8{int8(q.zero)}, q.weight, q.scale, y, n, ep)
		return
	}
	kernel.GemmInt8Scaled(m, ir.Data[uint8](x), k, []uint8{q.zero}, q.weight, q.scale, y, n, ep)
}

// integerConv is the sums of a joined convolution on codes.
type integerConv struct {
	weight *kernel.ConvInt8Weights
	elem   ir.DType
	zero   byte
	scale  []float32 // of x times that of w, for each output channel
}

// integerConv finds the codes of both operands of the convolution st. Convolutions of one channel each stay in float: there is
// nothing to win.
func (f *fuser) integerConv(st *step) (q *integerConv, from coded, ok bool) {
	if f.plain {
		return nil, from, false
	}
	if from, ok = f.coded(st.in[0]); !ok {
		return nil, from, false
	}
	c, ok := f.codedWeight(st.in[1], true)
	if !ok || c.codes.Rank() < 3 || c.codes.Rank() > 4 {
		return nil, from, false
	}
	s, groups := c.codes.Shape(), int(st.node.Int("group", 1))
	kh, kw := 1, s[len(s)-1]
	if len(s) == 4 {
		kh = s[2]
	}
	if groups < 1 || s[0]%groups != 0 || s[1] == 1 && groups > 1 || s[1]*kh*kw > maxDepth {
		return nil, from, false
	}
	q = &integerConv{elem: from.elem, zero: from.zero}
	if q.scale, ok = scales(s[0], from.scale, c.scale); !ok {
		return nil, from, false
	}
	if c.codes.Elem() == ir.Int8 {
		q.weight = kernel.PackConvInt8(s[0], s[1], kh, kw, groups, ir.Data[int8](c.codes), zerosOf[int8](c.zero))
	} else {
		q.weight = kernel.PackConvInt8(s[0], s[1], kh, kw, groups, ir.Data[uint8](c.codes), zerosOf[uint8](c.zero))
	}
	return q, from, true
}

// convolve computes the convolution of codes, of the g.N images that start with element from, with ep.
func (q *integerConv) convolve(g kernel.Conv2D, y []float32, x *ir.Tensor, from int, ep *kernel.Epilogue) {
	n := g.N * g.C * g.H * g.W
	if q.elem == ir.Int8 {
		kernel.ConvInt8Scaled(g, y, ir.Data[int8](x)[from:][:n], int8(q.zero), q.weight, q.scale, ep)
		return
	}
	kernel.ConvInt8Scaled(g, y, ir.Data[uint8](x)[from:][:n], q.zero, q.weight, q.scale, ep)
}

// scales returns x times each of w, one or n of them, for n columns; ok is false where something is lost in one.
func scales(n int, x float32, w []float32) (s []float32, ok bool) {
	s = make([]float32, n)
	for j := range s {
		if s[j] = x * w[j%len(w)]; !normal(s[j]) {
			return nil, false
		}
	}
	return s, true
}

func zerosOf[T int8 | uint8](zero *ir.Tensor) []T {
	if zero == nil {
		return nil
	}
	return ir.Data[T](zero)
}

// onCodes makes the joined step, which read a dequantized value as input 0 of its part number 0, read the codes; its parts
// dequantize them into a slot of their own.
func (f *fuser) onCodes(st *step, from coded) {
	own := len(f.p.consts)
	f.p.consts = append(f.p.consts, nil)
	from.deq.out, from.deq.free = []int{own}, nil
	first := st.parts[0]
	first.in = slices.Clone(first.in)
	first.in[0] = own
	first.free = append(slices.Clone(first.free), own)
	st.parts = append([]step{from.deq, first}, st.parts[1:]...)
}

// unsigned shifts the int8 codes of quantizers to uint8 where nothing but DequantizeLinear reads them: products on codes
// read such rows as they lie.
func (f *fuser) unsigned() {
	shifted := func(s int) (int, bool) {
		z := f.constant(s)
		if z == nil || z.Elem() != ir.Int8 || z.Len() != 1 {
			return 0, false
		}
		t, err := ir.TensorOf(ir.Uint8, z.Shape(), []byte{z.Bytes()[0] ^ 0x80})
		if err != nil {
			return 0, false
		}
		f.p.consts = append(f.p.consts, t)
		return len(f.p.consts) - 1, true
	}
	for i := range f.steps {
		st := &f.steps[i]
		if st.node.Op != (ir.OpID{Type: "QuantizeLinear"}) || len(st.in) != 3 || st.node.Attr("output_dtype") != nil || f.fixed[st.out[0]] {
			continue
		}
		change := map[int]int{} // step → slot of its new zero point
		for _, u := range append([]int{i}, f.users[st.out[0]]...) {
			to := f.steps[u]
			z, ok := 0, u == i || to.node.Op == ir.OpID{Type: "DequantizeLinear"} && len(to.in) == 3
			if ok {
				z, ok = shifted(to.in[2])
			}
			if !ok {
				change = nil
				break
			}
			change[u] = z
		}
		for u, z := range change {
			f.steps[u].in[2] = z
		}
	}
}

// unread removes what dequantizes for nobody.
func (f *fuser) unread() {
	for i := range f.steps {
		st := &f.steps[i]
		if f.gone[i] || !f.is(i, "DequantizeLinear") || f.fixed[st.out[0]] || len(f.users[st.out[0]]) > 0 {
			continue
		}
		f.gone[i] = true
		for _, s := range st.in {
			f.users[s] = slices.DeleteFunc(f.users[s], func(u int) bool { return u == i })
		}
	}
}

// product is the state of a product of two dequantized stacks of matrices, as attention has them.
type product struct {
	a, b  coded
	scale float32
}

// product makes a MatMul of two dequantized operands, neither of them constant, run on their codes.
func (f *fuser) product(i int) {
	st := &f.steps[i]
	if f.plain || !f.is(i, "MatMul") || st.state != nil {
		return
	}
	a, ok1 := f.coded(st.in[0])
	b, ok2 := f.coded(st.in[1])
	if !ok1 || !ok2 || f.constant(a.slot) != nil || f.constant(b.slot) != nil || !normal(a.scale*b.scale) {
		return
	}
	joined := f.join(productDef, &product{a, b, a.scale * b.scale}, []int{a.slot, b.slot}, i)
	f.onCodes(joined, a)
	// The second operand is input 1 of what is part 1 now.
	own := len(f.p.consts)
	f.p.consts = append(f.p.consts, nil)
	b.deq.out, b.deq.free = []int{own}, nil
	last := &joined.parts[1]
	last.in[1] = own
	last.free = append(last.free, own)
	joined.parts = append([]step{b.deq}, joined.parts...)
}

var productDef = &op.Def{Name: "product on codes", Eval: func(c *op.Call) ([]*ir.Tensor, error) {
	p, a, b := c.State.(*product), c.In[0], c.In[1]
	sa, sb := a.Shape(), b.Shape()
	last := len(sa) - 1
	if len(sa) < 2 || len(sb) != len(sa) || !slices.Equal(sa[:last-1], sb[:last-1]) || sa[last] != sb[last-1] || sa[last] > maxDepth ||
		a.Elem() != p.a.elem || b.Elem() != p.b.elem {
		return nil, errUnfit
	}
	m, k, n := sa[last-1], sa[last], sb[last]
	shape := slices.Clone(sa)
	shape[last] = n
	out, err := c.New(ir.Float32, shape...)
	if err != nil || out.Len() == 0 {
		return []*ir.Tensor{out}, err
	}
	y := ir.Data[float32](out)
	switch {
	case p.a.elem == ir.Int8 && p.b.elem == ir.Int8:
		multiplyStacks(p, m, n, k, y, ir.Data[int8](a), ir.Data[int8](b))
	case p.a.elem == ir.Int8:
		multiplyStacks(p, m, n, k, y, ir.Data[int8](a), ir.Data[uint8](b))
	case p.b.elem == ir.Int8:
		multiplyStacks(p, m, n, k, y, ir.Data[uint8](a), ir.Data[int8](b))
	default:
		multiplyStacks(p, m, n, k, y, ir.Data[uint8](a), ir.Data[uint8](b))
	}
	return []*ir.Tensor{out}, nil
}}

func multiplyStacks[A, B kernel.Int8](p *product, m, n, k int, y []float32, a []A, b []B) {
	scale := slices.Repeat([]float32{p.scale}, n)
	za, zb := []A{A(p.a.zero)}, []B{B(p.b.zero)}
	par.For(len(y)/(m*n), 1, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			kernel.MatMulInt8Scaled(m, n, k, a[i*m*k:(i+1)*m*k], k, za, b[i*k*n:(i+1)*k*n], n, false, zb, scale, y[i*m*n:(i+1)*m*n], n, nil)
		}
	})
}
