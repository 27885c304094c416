package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

var gemmDef = &Def{
	Name: "Gemm", Doc: "alpha·A'·B' + beta·C of matrices, A' and B' transposed on request", Since: 1, Versions: []int{1, 6, 7, 9, 11, 13},
	Types: "float, double, float16, bfloat16, int32, int64, uint32, uint64",
	In:    Between(2, 3), Out: Exactly(1), Widen: true,
	Upgrades: []Upgrade{{To: 7, Apply: func(u *Up) error { u.Node.DelAttr("broadcast"); return nil }}},
	Infer: func(c *Call) ([]ir.Type, error) {
		a, b := c.Type(0), c.Type(1)
		m, ka, err := gemmDims(a, c.Node.Int("transA", 0) != 0, "A")
		if err != nil {
			return nil, err
		}
		kb, n, err := gemmDims(b, c.Node.Int("transB", 0) != 0, "B")
		if err != nil {
			return nil, err
		}
		if ka.Known() && kb.Known() && ka.Size != kb.Size {
			return nil, fmt.Errorf("A %v and B %v: the contracted dimensions %d and %d differ", a, b, ka.Size, kb.Size)
		}
		return []ir.Type{ir.TensorType(a.Elem, m, n)}, nil
	},
	Prepare: func(c *Call) (any, error) {
		w := c.In[1]
		if w == nil || w.Rank() != 2 || !packable(w) {
			return nil, nil
		}
		return packWeight(c.Stock, w, c.Node.Int("transB", 0) != 0), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		if err := productType(c.In[0].Elem()); err != nil {
			return nil, err
		}
		if err := sameElem(c, 1, 2); err != nil {
			return nil, err
		}
		switch c.In[0].Elem() {
		case ir.Float64:
			return gemm[float64](c)
		case ir.Int32:
			return gemm[int32](c)
		case ir.Int64:
			return gemm[int64](c)
		case ir.Uint32:
			return gemm[uint32](c)
		case ir.Uint64:
			return gemm[uint64](c)
		}
		return gemm[float32](c)
	},
	Linear: func(n *ir.Node) (Linear, bool) {
		w := n.In(1)
		if w == nil || !isWeight(w, 2) {
			return Linear{}, false
		}
		l := Linear{X: 0, W: 1, B: -1, XAxis: -1, InAxis: 0, OutAxis: 1, Groups: 1}
		if n.Int("transA", 0) != 0 {
			l.XAxis = 0
		}
		if n.Int("transB", 0) != 0 {
			l.InAxis, l.OutAxis = 1, 0
		}
		if b := n.In(2); b != nil && (b.Type.Rank() == 1 || b.Type.Rank() == 2 && b.Type.Dim(0).Size == 1) {
			l.B = 2
		}
		return l, true
	},
}

// gemmDims returns the rows and columns of an operand as the product sees it.
func gemmDims(t ir.Type, trans bool, what string) (rows, cols ir.Dim, err error) {
	if !t.Ranked {
		return ir.UnknownDim, ir.UnknownDim, nil
	}
	if len(t.Dims) != 2 {
		return rows, cols, fmt.Errorf("%s is %v, wants a matrix", what, t)
	}
	if trans {
		return t.Dims[1], t.Dims[0], nil
	}
	return t.Dims[0], t.Dims[1], nil
}

func gemm[T productElem](c *Call) ([]*ir.Tensor, error) {
	transA, transB := c.Node.Int("transA", 0) != 0, c.Node.Int("transB", 0) != 0
	rows, depth, err := gemmDims(c.In[0].Type(), transA, "A")
	if err != nil {
		return nil, err
	}
	k2, cols, err := gemmDims(c.In[1].Type(), transB, "B")
	if err != nil {
		return nil, err
	}
	if depth.Size != k2.Size {
		return nil, fmt.Errorf("A %v and B %v: the contracted dimensions %d and %d differ", c.In[0].Type(), c.In[1].Type(), depth.Size, k2.Size)
	}
	m, k, n := int(rows.Size), int(depth.Size), int(cols.Size)
	out, err := c.New(c.In[0].Elem(), m, n)
	if err != nil || m == 0 || n == 0 {
		return []*ir.Tensor{out}, err
	}
	alpha, beta := c.Node.Float("alpha", 1), c.Node.Float("beta", 1)
	y := ir.Data[T](out)
	a := ir.Data[T](c.In[0])
	if packed, ok := c.State.(*kernel.PackedB); ok {
		x := any(a).([]float32)
		if transA {
			t := make([]float32, m*k)
			kernel.Transpose(k, m, t, k, x, m)
			x = t
		}
		kernel.Gemm(m, x, k, packed, any(y).([]float32), n, false)
	} else {
		matrixProduct(kernel.Batch{Count: 1}, m, n, k, a, transA, ir.Data[T](c.In[1]), transB, y)
	}
	if alpha != 1 {
		for i := range y {
			y[i] = T(float64(y[i]) * float64(alpha))
		}
	}
	if !c.Has(2) || beta == 0 {
		return []*ir.Tensor{out}, nil
	}
	return []*ir.Tensor{out}, addBias(y, m, n, c.In[2], beta)
}

// addBias adds beta·bias, broadcast to m×n, to y.
func addBias[T productElem](y []T, m, n int, bias *ir.Tensor, beta float32) error {
	s := bias.Shape()
	rows, cols := 1, 1
	switch len(s) {
	case 0:
	case 1:
		cols = s[0]
	case 2:
		rows, cols = s[0], s[1]
	default:
		return fmt.Errorf("C has shape %v, which does not broadcast to [%d %d]", s, m, n)
	}
	if rows != 1 && rows != m || cols != 1 && cols != n {
		return fmt.Errorf("C has shape %v, which does not broadcast to [%d %d]", s, m, n)
	}
	v := ir.Data[T](bias)
	for i := range m {
		row := v
		if rows > 1 {
			row = v[i*cols : (i+1)*cols]
		}
		for j := range n {
			x := row[0]
			if cols > 1 {
				x = row[j]
			}
			if beta != 1 {
				x = T(float64(x) * float64(beta))
			}
			y[i*n+j] += x
		}
	}
	return nil
}
