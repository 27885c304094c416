package op

import (
	"fmt"
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// codes8 fails for tensors that are not of 8-bit integers.
func codes8(t *ir.Tensor, what string) error {
	if t.Elem() != ir.Int8 && t.Elem() != ir.Uint8 {
		return fmt.Errorf("%s is of element type %v, wants int8 or uint8: %w", what, t.Elem(), ErrUnsupported)
	}
	return nil
}

// zeroPoint checks an optional zero point of the operand x against x's element type.
func zeroPoint(zero, x *ir.Tensor, what string) error {
	if zero != nil && zero.Elem() != x.Elem() {
		return fmt.Errorf("the zero point of %s is of element type %v, wants %v", what, zero.Elem(), x.Elem())
	}
	return nil
}

// intOperands is a product of 8-bit codes about to run: stacks of m×k and k×n matrices as numpy.matmul sees them, each less
// its zero points. Zero points are nil, one, one for each row of A (column of B), or one for each of every matrix.
type intOperands struct {
	a, b, za, zb   *ir.Tensor
	packed         *kernel.PackedInt8 // b, if it is one constant matrix
	transB         bool               // b is one matrix n×k
	shape          []int              // of the result
	stackA, stackB []int
	m, k, n        int
}

func intOperandsOf(a, b, za, zb *ir.Tensor, packed *kernel.PackedInt8, transB bool) (*intOperands, error) {
	for _, e := range []error{codes8(a, "A"), codes8(b, "B"), zeroPoint(za, a, "A"), zeroPoint(zb, b, "B")} {
		if e != nil {
			return nil, e
		}
	}
	sa, sb := a.Shape(), b.Shape()
	if transB {
		sb = []int{sb[1], sb[0]}
	}
	dims, err := matMulDims(fixed(sa), fixed(sb))
	if err != nil {
		return nil, err
	}
	p := &intOperands{a: a, b: b, za: za, zb: zb, packed: packed, transB: transB}
	p.shape, _ = ir.TensorType(ir.Undefined, dims...).Shape()
	if len(sa) == 1 {
		sa = []int{1, sa[0]}
	}
	if len(sb) == 1 {
		sb = []int{sb[0], 1}
	}
	p.stackA, p.stackB = sa[:len(sa)-2], sb[:len(sb)-2]
	p.m, p.k, p.n = sa[len(sa)-2], sa[len(sa)-1], sb[len(sb)-1]
	if za != nil && za.Len() != 1 && za.Len() != p.m && za.Len() != p.m*product(p.stackA) {
		return nil, fmt.Errorf("the zero point of A has shape %v, wants one number or one for each of %d rows", za.Shape(), p.m)
	}
	if zb != nil && zb.Len() != 1 && zb.Len() != p.n && zb.Len() != p.n*product(p.stackB) {
		return nil, fmt.Errorf("the zero point of B has shape %v, wants one number or one for each of %d columns", zb.Shape(), p.n)
	}
	return p, nil
}

// accumulate computes the product exactly in int32.
func (p *intOperands) accumulate(c *Call) (*ir.Tensor, error) {
	out, err := c.New(ir.Int32, p.shape...)
	if err != nil {
		return nil, err
	}
	y := ir.Data[int32](out)
	if p.m == 0 || p.n == 0 || len(y) == 0 {
		return out, nil
	}
	if p.k == 0 {
		clear(y)
		return out, nil
	}
	if product(p.stackB) == 1 && (p.za == nil || p.za.Len() == 1 || product(p.stackA) == 1 || p.za.Len() == p.m*product(p.stackA)) {
		packed := p.packed
		if packed == nil {
			packed = p.pack(0)
		}
		gemm8(p.m*product(p.stackA), p.k, p.a, 0, p.za, 0, packed, y, p.n)
		return out, nil
	}
	stack := p.shape[:len(p.shape)-min(len(p.shape), 2)]
	if p.a.Rank() == 1 || p.b.Rank() == 1 {
		stack = p.shape[:len(p.shape)-1]
	}
	eachStack(stack, p.stackA, p.stackB, func(i, count, atA, atB, stepA, stepB int) {
		for j := range count {
			a, b := atA+j*stepA, atB+j*stepB
			gemm8(p.m, p.k, p.a, a*p.m*p.k, p.za, a*p.m, p.pack(b), y[(i+j)*p.m*p.n:], p.n)
		}
	})
	return out, nil
}

// pack packs matrix i of B.
func (p *intOperands) pack(i int) *kernel.PackedInt8 {
	return pack8(p.k, p.n, p.b, i*p.k*p.n, p.transB, p.zb, i*p.n)
}

// pack8 packs the k×n matrix (n×k where trans is set) that starts at element at of b. zero holds one zero point, n, or more,
// of which those from zeroAt on count; nil: 0.
func pack8(k, n int, b *ir.Tensor, at int, trans bool, zero *ir.Tensor, zeroAt int) *kernel.PackedInt8 {
	ld := n
	if trans {
		ld = k
	}
	if b.Elem() == ir.Int8 {
		return kernel.PackInt8(k, n, ir.Data[int8](b)[at:at+k*n], ld, trans, zeros8[int8](zero, n, zeroAt))
	}
	return kernel.PackInt8(k, n, ir.Data[uint8](b)[at:at+k*n], ld, trans, zeros8[uint8](zero, n, zeroAt))
}

// gemm8 multiplies the m×k matrix at element at of a with a packed matrix. Zero points as in pack8, by row.
func gemm8(m, k int, a *ir.Tensor, at int, zero *ir.Tensor, zeroAt int, b *kernel.PackedInt8, y []int32, ldy int) {
	if a.Elem() == ir.Int8 {
		kernel.GemmInt8(m, ir.Data[int8](a)[at:at+m*k], k, zeros8[int8](zero, m, zeroAt), b, y, ldy)
		return
	}
	kernel.GemmInt8(m, ir.Data[uint8](a)[at:at+m*k], k, zeros8[uint8](zero, m, zeroAt), b, y, ldy)
}

// zeros8 returns the zero points of one matrix.
func zeros8[T kernel.Int8](zero *ir.Tensor, n, at int) []T {
	switch {
	case zero == nil:
		return nil
	case zero.Len() <= n: // one, or one each that serve all matrices
		return viewAs[T](zero)
	}
	return viewAs[T](zero)[at : at+n]
}

func viewAs[T kernel.Int8](t *ir.Tensor) []T {
	var z T
	switch any(z).(type) {
	case int8:
		return any(ir.Data[int8](t)).([]T)
	}
	return any(ir.Data[uint8](t)).([]T)
}

// prepareInt packs constant matrix b, n×k where trans is set, with its constant zero point (inputs of the given slots) for
// products.
func prepareInt(c *Call, b, zb int, trans bool) (any, error) {
	w := c.In[b]
	if w == nil || w.Rank() != 2 || codes8(w, "B") != nil {
		return nil, nil
	}
	k, n := w.Shape()[0], w.Shape()[1]
	if trans {
		k, n = n, k
	}
	var zero *ir.Tensor
	if c.Node.In(zb) != nil {
		if zero = c.In[zb]; zero == nil || zero.Elem() != w.Elem() || zero.Len() != 1 && zero.Len() != n {
			return nil, nil
		}
	}
	if w.Len() == 0 {
		return nil, nil
	}
	return pack8(k, n, w, 0, trans, zero, 0), nil
}

// intInput returns input i, nil if absent.
func intInput(c *Call, i int) *ir.Tensor {
	if !c.Has(i) {
		return nil
	}
	return c.In[i]
}

// codeRange returns the least and the greatest number of an integer type of 8 or 16 bits.
func codeRange(elem ir.DType) (lo, hi float32, ok bool) {
	switch elem {
	case ir.Int8:
		return -128, 127, true
	case ir.Uint8:
		return 0, 255, true
	case ir.Int16:
		return -32768, 32767, true
	case ir.Uint16:
		return 0, 65535, true
	}
	return 0, 0, false
}

// scalarFloat reads a scale that must be one number.
func scalarFloat(t *ir.Tensor, what string) (float32, error) {
	v, ok := t.Float32s()
	if !ok || len(v) != 1 {
		return 0, fmt.Errorf("%s is %v, wants one number", what, t.Type())
	}
	return v[0], nil
}

// scalarZero reads an optional zero point that must be one number of the given type.
func scalarZero(t *ir.Tensor, elem ir.DType, what string) (float32, error) {
	if t == nil {
		return 0, nil
	}
	v, ok := t.Float32s()
	if !ok || len(v) != 1 || t.Elem() != elem {
		return 0, fmt.Errorf("%s is %v, wants one number of type %v", what, t.Type(), elem)
	}
	return v[0], nil
}

// storeCodes calls value for pieces [lo, hi) of the n elements of out, an integer tensor of 8 or 16 bits; value fills dst
// with numbers in units of the step, to which storeCodes adds zero after clamping and rounding half to even.
func storeCodes(out *ir.Tensor, zero float32, value func(dst []float32, lo, hi int)) error {
	lowest, highest, ok := codeRange(out.Elem())
	if !ok {
		return fmt.Errorf("the result is of element type %v, wants 8 or 16-bit integers: %w", out.Elem(), ErrUnsupported)
	}
	par.For(out.Len(), chunk, func(from, to int) {
		buf := make([]float32, min(to-from, 1024))
		for lo := from; lo < to; lo += len(buf) {
			hi := min(lo+len(buf), to)
			v := buf[:hi-lo]
			value(v, lo, hi)
			for i, x := range v {
				v[i] = rounded(x, zero, lowest, highest)
			}
			switch out.Elem() {
			case ir.Int8:
				putCodes(ir.Data[int8](out)[lo:hi], v)
			case ir.Uint8:
				putCodes(ir.Data[uint8](out)[lo:hi], v)
			case ir.Int16:
				putCodes(ir.Data[int16](out)[lo:hi], v)
			case ir.Uint16:
				putCodes(ir.Data[uint16](out)[lo:hi], v)
			}
		}
	})
	return nil
}

// storeSums quantizes rows of sums of products into out, with a scale and (unless it is nil) a bias for each column.
func storeSums(out *ir.Tensor, sums, bias []int32, scale []float32, zero float32) error {
	n := len(scale)
	if allFinite(scale) && n > 0 {
		switch out.Elem() {
		case ir.Int8:
			kernel.QuantizeSums(len(sums)/n, n, ir.Data[int8](out), sums, bias, scale, int8(zero))
			return nil
		case ir.Uint8:
			kernel.QuantizeSums(len(sums)/n, n, ir.Data[uint8](out), sums, bias, scale, uint8(zero))
			return nil
		}
	}
	return storeCodes(out, zero, func(dst []float32, lo, hi int) {
		for i := range dst {
			s := sums[lo+i]
			if bias != nil {
				s += bias[(lo+i)%n]
			}
			dst[i] = float32(s) * scale[(lo+i)%n]
		}
	})
}

func allFinite(v []float32) bool {
	for _, x := range v {
		if x-x != 0 {
			return false
		}
	}
	return true
}

func putCodes[T integer](dst []T, v []float32) {
	for i, x := range v {
		dst[i] = T(int32(x))
	}
}

// rounded returns x rounded half to even plus zero, within [lo, hi]; NaN gives lo.
func rounded(x, zero, lo, hi float32) float32 {
	if !(x > lo-zero) {
		return lo
	}
	if x > hi-zero {
		return hi
	}
	return float32(math.RoundToEven(float64(x))) + zero
}

// columnScales checks a scale against the n columns of a product: one number or n.
func columnScales(t *ir.Tensor, n int, what string) ([]float32, error) {
	v, ok := t.Float32s()
	if !ok || len(v) != 1 && len(v) != n {
		return nil, fmt.Errorf("%s is %v, wants one number or %d", what, t.Type(), n)
	}
	return v, nil
}

// inferIntProduct infers a product of the operands at two slots.
func inferIntProduct(c *Call, a, b int, elem ir.DType) ([]ir.Type, error) {
	x, w := c.Type(a), c.Type(b)
	if !x.Ranked || !w.Ranked {
		return unranked(elem), nil
	}
	dims, err := matMulDims(x.Dims, w.Dims)
	if err != nil {
		return nil, err
	}
	return typed(elem, dims), nil
}

var matMulIntegerDef = &Def{
	Name: "MatMulInteger", Doc: "the matrix product of 8-bit codes less their zero points, exact in int32", Since: 10, Versions: []int{10},
	Types: "int8, uint8 → int32", In: Between(2, 4), Out: Exactly(1),
	Infer:   func(c *Call) ([]ir.Type, error) { return inferIntProduct(c, 0, 1, ir.Int32) },
	Prepare: func(c *Call) (any, error) { return prepareInt(c, 1, 3, false) },
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		packed, _ := c.State.(*kernel.PackedInt8)
		p, err := intOperandsOf(c.In[0], c.In[1], intInput(c, 2), intInput(c, 3), packed, false)
		if err != nil {
			return nil, err
		}
		return one(p.accumulate(c))
	},
}

var qLinearMatMulDef = &Def{
	Name: "QLinearMatMul", Doc: "the matrix product of quantized operands, quantized", Since: 10, Versions: []int{10, 21},
	Types: "int8, uint8", In: Exactly(8), Out: Exactly(1),
	Infer:   func(c *Call) ([]ir.Type, error) { return inferIntProduct(c, 0, 3, c.Type(7).Elem) },
	Prepare: func(c *Call) (any, error) { return prepareInt(c, 3, 5, false) },
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		packed, _ := c.State.(*kernel.PackedInt8)
		p, err := intOperandsOf(c.In[0], c.In[3], c.In[2], c.In[5], packed, false)
		if err != nil {
			return nil, err
		}
		acc, err := p.accumulate(c)
		if err != nil {
			return nil, err
		}
		a, okA := c.In[1].Float32s()
		b, okB := c.In[4].Float32s()
		if !okA || !okB || !slices.Contains([]int{1, p.m, p.m * product(p.stackA)}, len(a)) || !slices.Contains([]int{1, p.n, p.n * product(p.stackB)}, len(b)) {
			return nil, fmt.Errorf("scales are %v and %v, wants one number, or one for each row of A and column of B", c.In[1].Type(), c.In[4].Type())
		}
		if len(a) > 1 && len(a) > p.m || len(b) > 1 && len(b) > p.n {
			return nil, fmt.Errorf("scales that differ from matrix to matrix: %w", ErrUnsupported)
		}
		ys, err := scalarFloat(c.In[6], "the scale of Y")
		if err != nil {
			return nil, err
		}
		zero, err := scalarZero(c.In[7], c.In[7].Elem(), "the zero point of Y")
		if err != nil {
			return nil, err
		}
		out, err := c.New(c.In[7].Elem(), p.shape...)
		if err != nil {
			return nil, err
		}
		v := ir.Data[int32](acc)
		if len(a) == 1 {
			scale := make([]float32, p.n)
			for j := range scale {
				scale[j] = float32(a[0]*b[j%len(b)]) / ys
			}
			return one(out, storeSums(out, v, nil, scale, zero))
		}
		return one(out, storeCodes(out, zero, func(dst []float32, lo, hi int) {
			for i := range dst {
				at := lo + i
				dst[i] = float32(v[at]) * (float32(a[at/p.n%p.m]*b[at%p.n%len(b)]) / ys)
			}
		}))
	},
}
