package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// Linear operators that ONNX Runtime's optimizer writes with what follows them.

// activated applies the activation that the node's attribute names to a float tensor in place. params are the numbers that
// go with it, in ONNX Runtime's order; absent ones have the defaults of the operator of that name.
func activated(n *ir.Node, t *ir.Tensor, params []float32) error {
	p := func(i int, def float32) float64 {
		if i < len(params) {
			return float64(params[i])
		}
		return float64(def)
	}
	var f func(float64) float64
	var fast func(dst, x []float32)
	switch name := n.Str("activation", ""); name {
	case "":
		return nil
	case "Relu":
		f, fast = func(x float64) float64 { return max(x, 0) }, kernel.Relu
	case "Sigmoid":
		f, fast = sigmoid, kernel.Sigmoid
	case "Tanh":
		f, fast = math.Tanh, kernel.Tanh
	case "LeakyRelu":
		a := p(0, 0.01)
		f = func(x float64) float64 {
			if x < 0 {
				return a * x
			}
			return x
		}
	case "Clip":
		lo, hi := p(0, -math.MaxFloat32), p(1, math.MaxFloat32)
		f = func(x float64) float64 { return min(max(x, lo), hi) }
	case "HardSigmoid":
		a, b := p(0, 0.2), p(1, 0.5)
		f = func(x float64) float64 { return max(0, min(1, a*x+b)) }
	default:
		return fmt.Errorf("attribute activation is %q: %w", name, ErrUnsupported)
	}
	if t.Elem() == ir.Float64 {
		v := ir.Data[float64](t)
		for i, x := range v {
			v[i] = f(x)
		}
		return nil
	}
	v := ir.Data[float32](t)
	if fast != nil {
		fast(v, v)
		return nil
	}
	for i, x := range v {
		v[i] = float32(f(float64(x)))
	}
	return nil
}

// within returns a call of the same node with other inputs and state: an operator inside an operator.
func (c *Call) within(d *Def, in []*ir.Tensor, state any) *Call {
	return &Call{Node: c.Node, Def: d, In: in, State: state, env: c.env}
}

var fusedConvDef = &Def{
	Domain: Microsoft, Name: "FusedConv", Doc: "Conv, plus Z, then an activation", Since: 1, Versions: []int{1}, Types: floatTypes,
	In: Between(2, 4), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) { return inferConv(c, 0, 1) },
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		out, err := convDef.Eval(c.within(convDef, c.In[:min(len(c.In), 3)], c.State))
		if err != nil {
			return nil, err
		}
		y := out[0]
		if c.Has(3) {
			z := c.In[3]
			if z.Elem() != y.Elem() || fmt.Sprint(z.Shape()) != fmt.Sprint(y.Shape()) {
				return nil, fmt.Errorf("Z is %v, wants %v", z.Type(), y.Type())
			}
			if y.Elem() == ir.Float64 {
				a, b := ir.Data[float64](y), ir.Data[float64](z)
				for i := range a {
					a[i] += b[i]
				}
			} else {
				kernel.Add(ir.Data[float32](y), ir.Data[float32](y), ir.Data[float32](z))
			}
		}
		return out, activated(c.Node, y, c.Node.Floats("activation_params"))
	},
	Linear: func(n *ir.Node) (Linear, bool) { return convLinear(n, 1, 0) },
}

var fusedGemmDef = &Def{
	Domain: Microsoft, Name: "FusedGemm", Doc: "Gemm, then an activation", Since: 1, Versions: []int{1}, Types: floatTypes,
	In: Between(2, 3), Out: Exactly(1), Widen: true, Infer: gemmDef.Infer, Prepare: gemmDef.Prepare, Linear: gemmDef.Linear,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		if e := c.In[0].Elem(); e != ir.Float32 && e != ir.Float64 {
			return nil, badType(c, 0)
		}
		out, err := gemmDef.Eval(c)
		if err != nil {
			return nil, err
		}
		var params []float32
		for _, name := range []string{"activation_alpha", "activation_beta", "activation_gamma"} {
			a := c.Node.Attr(name)
			if a == nil {
				break
			}
			params = append(params, a.F)
		}
		return out, activated(c.Node, out[0], params)
	},
}

var fusedMatMulDef = &Def{
	Domain: Microsoft, Name: "FusedMatMul", Doc: "alpha·A'·B', operands transposed on request", Since: 1, Versions: []int{1}, Types: floatTypes,
	In: Exactly(2), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		a, b := c.Type(0), c.Type(1)
		if !a.Ranked || !b.Ranked {
			return unranked(a.Elem), nil
		}
		var dims [2][]ir.Dim
		for i, t := range []ir.Type{a, b} {
			for _, k := range fusedPerm(c.Node, i, len(t.Dims)) {
				dims[i] = append(dims[i], t.Dims[k])
			}
		}
		out, err := matMulDims(dims[0], dims[1])
		return typed(a.Elem, out), err
	},
	Prepare: func(c *Call) (any, error) {
		w := c.In[1]
		if w == nil || w.Rank() != 2 || !packable(w) || c.Node.Int("transBatchB", 0) != 0 {
			return nil, nil
		}
		return packWeight(c.Stock, w, c.Node.Int("transB", 0) != 0), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		if e := c.In[0].Elem(); e != ir.Float32 && e != ir.Float64 {
			return nil, badType(c, 0)
		}
		in := make([]*ir.Tensor, 2)
		for i, t := range c.In[:2] {
			var err error
			if in[i], err = transpose(c, t, fusedPerm(c.Node, i, t.Rank())); err != nil {
				return nil, err
			}
		}
		out, err := matMulDef.Eval(c.within(matMulDef, in, c.State))
		if err != nil {
			return nil, err
		}
		if a := c.Node.Float("alpha", 1); a != 1 {
			if out[0].Elem() == ir.Float64 {
				y := ir.Data[float64](out[0])
				for i := range y {
					y[i] *= float64(a)
				}
			} else {
				y := ir.Data[float32](out[0])
				kernel.MulScalar(y, y, a)
			}
		}
		return out, nil
	},
	Linear: func(n *ir.Node) (Linear, bool) {
		l, ok := matMulDef.Linear(n)
		if !ok || n.Int("transBatchA", 0) != 0 || n.Int("transBatchB", 0) != 0 {
			return Linear{}, false
		}
		trans := [2]bool{n.Int("transA", 0) != 0, n.Int("transB", 0) != 0}
		if n.In(l.X).Type.Rank() > 1 && trans[l.X] {
			l.XAxis = -3 - l.XAxis // -1 and -2 change places
		}
		if trans[l.W] {
			l.InAxis, l.OutAxis = l.OutAxis, l.InAxis
		}
		return l, true
	},
}

// fusedPerm returns the order in which FusedMatMul takes the dimensions of operand i: transBatch moves the first behind the
// others but the last, trans swaps the last two then.
func fusedPerm(n *ir.Node, i, rank int) []int {
	perm := make([]int, rank)
	for k := range perm {
		perm[k] = k
	}
	names := [][2]string{{"transBatchA", "transA"}, {"transBatchB", "transB"}}[i]
	if rank >= 3 && n.Int(names[0], 0) != 0 {
		copy(perm, perm[1:rank-1])
		perm[rank-2] = 0
	}
	if rank >= 2 && n.Int(names[1], 0) != 0 {
		perm[rank-1], perm[rank-2] = perm[rank-2], perm[rank-1]
	}
	return perm
}
