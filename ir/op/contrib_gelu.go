package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

var msGeluDef = microsoft(unaryDef("Gelu", "x·Φ(x), Φ the normal distribution", []int{1}, floatFn{gelu, kernel.Gelu}))

var quickGeluDef = microsoft(paramDef("QuickGelu", "x·sigmoid(alpha·x)", []int{1}, func(n *ir.Node) floatFn {
	a := alpha(n, "alpha", 1.702)
	return floatFn{f: func(x float64) float64 { return x * sigmoid(a*x) }}
}))

// microsoft moves a definition into ONNX Runtime's domain.
func microsoft(d *Def) *Def {
	d.Domain = Microsoft
	return d
}

var fastGeluDef = biasGelu("FastGelu", "Gelu's approximation by tanh of X plus a bias", Between(1, 2), geluTanh, kernel.GeluTanh)

var biasGeluDef = biasGelu("BiasGelu", "x·Φ(x) of A plus a bias", Exactly(2), gelu, kernel.Gelu)

// biasGelu defines a function of input 0 plus input 1, a vector along the last axis.
func biasGelu(name, doc string, in Arity, f func(float64) float64, fast func(dst, x []float32)) *Def {
	return &Def{
		Domain: Microsoft, Name: name, Doc: doc, Since: 1, Versions: []int{1}, Types: floatTypes, In: in, Out: Exactly(1), Widen: true,
		Infer: same,
		Eval: func(c *Call) ([]*ir.Tensor, error) {
			if !c.Has(1) {
				return mapFloat(c, f, fast)
			}
			x, b := c.In[0], c.In[1]
			if x.Rank() < 1 || b.Rank() != 1 || b.Shape()[0] != x.Shape()[x.Rank()-1] {
				return nil, fmt.Errorf("the bias has shape %v, wants the last dimension of %v", b.Shape(), x.Shape())
			}
			sum := &arith{f32: rowOf(func(x, y float32) float32 { return x + y }), f64: rowOf(func(x, y float64) float64 { return x + y })}
			t, err := sum.apply(c, x, b)
			if err != nil {
				return nil, err
			}
			return mapFloat(c.within(c.Def, []*ir.Tensor{t}, nil), f, fast)
		},
	}
}
