package op

import (
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

var matMulDef = &Def{
	Name: "MatMul", Doc: "the matrix product, as numpy.matmul: stacks of matrices broadcast", Since: 1, Versions: []int{1, 9, 13},
	Types: "float, double, float16, bfloat16, int32, int64, uint32, uint64",
	In:    Exactly(2), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		a, b := c.Type(0), c.Type(1)
		if !a.Ranked || !b.Ranked {
			return []ir.Type{{Elem: a.Elem}}, nil
		}
		dims, err := matMulDims(a.Dims, b.Dims)
		if err != nil {
			return nil, err
		}
		return []ir.Type{ir.TensorType(a.Elem, dims...)}, nil
	},
	Prepare: func(c *Call) (any, error) {
		w := c.In[1]
		if w == nil || w.Rank() != 2 || !packable(w) {
			return nil, nil
		}
		return packWeight(c.Stock, w, false), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		if err := productType(c.In[0].Elem()); err != nil {
			return nil, err
		}
		if err := sameElem(c, 1); err != nil {
			return nil, err
		}
		switch c.In[0].Elem() {
		case ir.Float64:
			return matMul[float64](c)
		case ir.Int32:
			return matMul[int32](c)
		case ir.Int64:
			return matMul[int64](c)
		case ir.Uint32:
			return matMul[uint32](c)
		case ir.Uint64:
			return matMul[uint64](c)
		}
		return matMul[float32](c)
	},
	Linear: func(n *ir.Node) (Linear, bool) {
		a, b := n.In(0), n.In(1)
		if a == nil || b == nil {
			return Linear{}, false
		}
		weight := func(v *ir.Value) bool { return isWeight(v, 0) }
		axis := func(v *ir.Value, fromEnd int) int {
			if v.Type.Rank() == 2 {
				return 2 - fromEnd
			}
			return -fromEnd
		}
		switch {
		case weight(b):
			return Linear{X: 0, W: 1, B: -1, XAxis: -1, InAxis: axis(b, 2), OutAxis: axis(b, 1), Groups: 1}, true
		case weight(a):
			x := -2
			if b.Type.Rank() == 1 {
				x = -1
			}
			return Linear{X: 1, W: 0, B: -1, XAxis: x, InAxis: axis(a, 1), OutAxis: axis(a, 2), Groups: 1}, true
		}
		return Linear{}, false
	},
}

// packable reports whether a constant is a float matrix that products in float32 can use packed.
func packable(w *ir.Tensor) bool { return w.Elem() == ir.Float32 || isHalf(w.Elem()) }

// packWeight packs a constant matrix [K, N] ([N, K] where trans is set) for products in float32, into memory of
// the stock.
func packWeight(s *kernel.Stock, w *ir.Tensor, trans bool) *kernel.PackedB {
	v, _ := w.Float32s()
	k, n := w.Shape()[0], w.Shape()[1]
	ld := n
	if trans {
		k, n = n, k
	}
	return s.PackB(k, n, v, ld, trans)
}

// matMulDims returns the dimensions of numpy.matmul's result: a vector on the left is a row, on the right a column, and
// their dimension disappears from the result.
func matMulDims(a, b []ir.Dim) ([]ir.Dim, error) {
	if len(a) == 0 || len(b) == 0 {
		return nil, fmt.Errorf("operands %v and %v: a scalar has no matrix product", a, b)
	}
	ka := a[len(a)-1]
	kb := b[max(len(b)-2, 0)]
	if ka.Known() && kb.Known() && ka.Size != kb.Size {
		return nil, fmt.Errorf("operands %v and %v: the contracted dimensions %d and %d differ", a, b, ka.Size, kb.Size)
	}
	var dims []ir.Dim
	if len(a) > 2 || len(b) > 2 {
		var err error
		if dims, err = stackDims(a[:max(len(a)-2, 0)], b[:max(len(b)-2, 0)]); err != nil {
			return nil, fmt.Errorf("operands %v and %v: %w", a, b, err)
		}
	}
	if len(a) > 1 {
		dims = append(dims, a[len(a)-2])
	}
	if len(b) > 1 {
		dims = append(dims, b[len(b)-1])
	}
	return dims, nil
}

// stackDims broadcasts the leading dimensions of two stacks of matrices.
func stackDims(a, b []ir.Dim) ([]ir.Dim, error) {
	out := make([]ir.Dim, max(len(a), len(b)))
	for i := range out {
		x, y := ir.FixedDim(1), ir.FixedDim(1)
		if k := i - (len(out) - len(a)); k >= 0 {
			x = a[k]
		}
		if k := i - (len(out) - len(b)); k >= 0 {
			y = b[k]
		}
		switch {
		case x.Size == 1 && x.Known():
			out[i] = y
		case y.Size == 1 && y.Known() || x.Same(y):
			out[i] = x
		case x.Known() && y.Known():
			return nil, fmt.Errorf("dimensions %d and %d do not broadcast", x.Size, y.Size)
		case x.Known():
			out[i] = x
		case y.Known():
			out[i] = y
		default:
			out[i] = ir.UnknownDim
		}
	}
	return out, nil
}

// fixed returns a shape as dimensions.
func fixed(shape []int) []ir.Dim { return ir.FixedType(ir.Undefined, shape...).Dims }

func matMul[T productElem](c *Call) ([]*ir.Tensor, error) {
	sa, sb := c.In[0].Shape(), c.In[1].Shape()
	dims, err := matMulDims(fixed(sa), fixed(sb))
	if err != nil {
		return nil, err
	}
	shape, _ := ir.TensorType(ir.Undefined, dims...).Shape()
	out, err := c.New(c.In[0].Elem(), shape...)
	if err != nil {
		return nil, err
	}
	if out.Len() == 0 {
		return []*ir.Tensor{out}, nil
	}
	if len(sa) == 1 {
		sa = []int{1, sa[0]}
	}
	if len(sb) == 1 {
		sb = []int{sb[0], 1}
	}
	m, k, n := sa[len(sa)-2], sa[len(sa)-1], sb[len(sb)-1]
	a, b, y := ir.Data[T](c.In[0]), ir.Data[T](c.In[1]), ir.Data[T](out)
	stackA, stackB := sa[:len(sa)-2], sb[:len(sb)-2]
	if !slices.ContainsFunc(stackB, func(d int) bool { return d != 1 }) {
		m *= product(stackA) // one right-hand side: the stack on the left is one tall matrix
		if packed, ok := c.State.(*kernel.PackedB); ok {
			if m > 0 && n > 0 {
				kernel.Gemm(m, any(a).([]float32), k, packed, any(y).([]float32), n, false)
			}
		} else {
			matrixProduct(kernel.Batch{Count: 1}, m, n, k, a, false, b, false, y)
		}
		return []*ir.Tensor{out}, nil
	}
	stack := shape[:len(shape)-min(len(shape), 2)]
	if len(c.In[0].Shape()) == 1 || len(c.In[1].Shape()) == 1 {
		stack = shape[:len(shape)-1]
	}
	eachStack(stack, stackA, stackB, func(i, count, atA, atB, stepA, stepB int) {
		matrixProduct(kernel.Batch{Count: count, A: stepA * m * k, B: stepB * k * n, C: m * n},
			m, n, k, a[atA*m*k:], false, b[atB*k*n:], false, y[i*m*n:])
	})
	return []*ir.Tensor{out}, nil
}

// eachStack walks the broadcast of two stacks, in pieces in which both advance by constant steps: result matrices
// [i, i+count) use matrices atA + j*stepA and atB + j*stepB.
func eachStack(out, a, b []int, f func(i, count, atA, atB, stepA, stepB int)) {
	strides := func(s []int) []int {
		st := make([]int, len(out))
		for i, step := len(s)-1, 1; i >= 0; i-- {
			if s[i] != 1 {
				st[i+len(out)-len(s)] = step
			}
			step *= s[i]
		}
		return st
	}
	sa, sb := strides(a), strides(b)
	// the last dimensions in which both operands go on evenly are one piece
	split, count, stepA, stepB := len(out), 1, 0, 0
	for i := len(out) - 1; i >= 0; i-- {
		if out[i] == 1 {
			split = i
			continue
		}
		if count == 1 {
			stepA, stepB = sa[i], sb[i]
		} else if sa[i] != stepA*count || sb[i] != stepB*count {
			break
		}
		split, count = i, count*out[i]
	}
	total := product(out)
	for i := 0; i < total; i += count {
		rest, atA, atB := i/count, 0, 0
		for d := split - 1; d >= 0; d-- {
			atA += rest % out[d] * sa[d]
			atB += rest % out[d] * sb[d]
			rest /= out[d]
		}
		f(i, count, atA, atB, stepA, stepB)
	}
}
