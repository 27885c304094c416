package op

import (
	"fmt"
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// alpha returns a float attribute as float64.
func alpha(n *ir.Node, name string, def float32) float64 { return float64(n.Float(name, def)) }

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// softplus is ln(1+eˣ) without overflow.
func softplus(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

func gelu(x float64) float64 { return 0.5 * x * (1 + math.Erf(x/math.Sqrt2)) }

// geluTanh is Gelu's approximation of opset 20, attribute approximate="tanh".
func geluTanh(x float64) float64 {
	const root = math.Sqrt2 / math.SqrtPi // √(2/π)
	return 0.5 * x * (1 + math.Tanh(root*(x+0.044715*x*x*x)))
}

var (
	sigmoidDef  = unaryDef("Sigmoid", "1/(1+e⁻ˣ)", []int{1, 6, 13}, floatFn{sigmoid, kernel.Sigmoid})
	softplusDef = unaryDef("Softplus", "ln(1+eˣ)", []int{1, 22}, floatFn{f: softplus})
	softsignDef = unaryDef("Softsign", "x/(1+|x|)", []int{1, 22}, floatFn{f: func(x float64) float64 { return x / (1 + math.Abs(x)) }})
	mishDef     = unaryDef("Mish", "x·tanh(ln(1+eˣ))", []int{18, 22}, floatFn{f: func(x float64) float64 { return x * math.Tanh(softplus(x)) }})
	hardSwish   = unaryDef("HardSwish", "x·max(0, min(1, x/6+1/2))", []int{14, 22}, floatFn{
		func(x float64) float64 { return x * max(0, min(1, x/6+0.5)) },
		inParallel(func(dst, x []float32) {
			for i, v := range x {
				dst[i] = v * max(0, min(1, float32(v*(1.0/6))+0.5))
			}
		}),
	})
)

var geluDef = &Def{
	Name: "Gelu", Doc: "x·Φ(x), Φ the normal distribution; or its approximation by tanh", Since: 20, Versions: []int{20}, Types: floatTypes,
	In: Exactly(1), Out: Exactly(1), Widen: true, Infer: same,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		switch how := c.Node.Str("approximate", "none"); how {
		case "none":
			return mapFloat(c, gelu, kernel.Gelu)
		case "tanh":
			return mapFloat(c, geluTanh, kernel.GeluTanh)
		default:
			return nil, fmt.Errorf("attribute approximate is %q, wants none or tanh", how)
		}
	},
}

var leakyReluDef = paramDef("LeakyRelu", "x, or alpha·x below 0", []int{1, 6, 16}, func(n *ir.Node) floatFn {
	a, a32 := alpha(n, "alpha", 0.01), n.Float("alpha", 0.01)
	return floatFn{func(x float64) float64 {
		if x < 0 {
			return a * x
		}
		return x
	}, inParallel(func(dst, x []float32) {
		for i, v := range x {
			if v < 0 {
				v *= a32
			}
			dst[i] = v
		}
	})}
})

var eluDef = paramDef("Elu", "x, or alpha·(eˣ-1) below 0", []int{1, 6, 22}, func(n *ir.Node) floatFn {
	a := alpha(n, "alpha", 1)
	return floatFn{f: func(x float64) float64 {
		if x < 0 {
			return a * math.Expm1(x)
		}
		return x
	}}
})

var celuDef = paramDef("Celu", "max(0,x) + min(0, alpha·(exp(x/alpha)-1))", []int{12, 28}, func(n *ir.Node) floatFn {
	a := alpha(n, "alpha", 1)
	return floatFn{f: func(x float64) float64 { return max(0, x) + min(0, a*math.Expm1(x/a)) }}
})

var seluDef = selu()

// selu has other defaults in opset 1 than from opset 6 on.
func selu() *Def {
	d := paramDef("Selu", "gamma·x, or gamma·alpha·(eˣ-1) up to 0", []int{1, 6, 22}, func(n *ir.Node) floatFn {
		a, g := alpha(n, "alpha", 1.67326319217681884765625), alpha(n, "gamma", 1.05070102214813232421875)
		return floatFn{f: func(x float64) float64 {
			if x > 0 {
				return g * x
			}
			return g * a * math.Expm1(x)
		}}
	})
	d.Upgrades = []Upgrade{{6, func(u *Up) error {
		u.Node.DelAttr("consumed_inputs")
		u.Node.SetAttr(ir.FloatAttr("alpha", u.Node.Float("alpha", 1.6732)))
		u.Node.SetAttr(ir.FloatAttr("gamma", u.Node.Float("gamma", 1.0507)))
		return nil
	}}}
	return d
}

var hardSigmoidDef = paramDef("HardSigmoid", "max(0, min(1, alpha·x+beta))", []int{1, 6, 22}, func(n *ir.Node) floatFn {
	a, b := alpha(n, "alpha", 0.2), alpha(n, "beta", 0.5)
	a32, b32 := float32(a), float32(b)
	return floatFn{func(x float64) float64 { return max(0, min(1, a*x+b)) }, inParallel(func(dst, x []float32) {
		for i, v := range x {
			dst[i] = max(0, min(1, float32(v*a32)+b32))
		}
	})}
})

var thresholdedReluDef = paramDef("ThresholdedRelu", "x above alpha, else 0", []int{10, 22}, func(n *ir.Node) floatFn {
	a := alpha(n, "alpha", 1)
	return floatFn{f: func(x float64) float64 {
		if x > a || x != x {
			return x
		}
		return 0
	}}
})

var swishDef = paramDef("Swish", "x·sigmoid(alpha·x)", []int{24}, func(n *ir.Node) floatFn {
	a := alpha(n, "alpha", 1)
	k := floatFn{f: func(x float64) float64 { return x * sigmoid(a*x) }}
	if a == 1 {
		k.fast = kernel.Silu
	}
	return k
})

var swigluDef = &Def{
	Name: "SwiGLU", Doc: "a·sigmoid(alpha·a)·b, inputs of one shape", Since: 28, Versions: []int{28}, Types: floatTypes,
	In: Exactly(2), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		t, err := ir.Merge(c.Type(0), c.Type(1))
		if err != nil {
			return nil, fmt.Errorf("inputs differ: %w", err)
		}
		return []ir.Type{t}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		a := alpha(c.Node, "alpha", 1)
		f := func(x, y float64) float64 { return x * sigmoid(a*x) * y }
		k := &arith{f32: rowOf(func(x, y float32) float32 { return float32(f(float64(x), float64(y))) }), f64: rowOf(f)}
		if !slices.Equal(c.In[0].Shape(), c.In[1].Shape()) {
			return nil, fmt.Errorf("inputs are of shapes %v and %v, wants one shape", c.In[0].Shape(), c.In[1].Shape())
		}
		return k.eval(c)
	},
}

var shrinkDef = &Def{
	Name: "Shrink", Doc: "x+bias below -lambd, x-bias above lambd, else 0", Since: 9, Versions: []int{9}, Types: numericTypes,
	In: Exactly(1), Out: Exactly(1), Widen: true, Infer: same,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		bias, lambd := alpha(c.Node, "bias", 0), alpha(c.Node, "lambd", 0.5)
		f := func(x float64) float64 {
			switch {
			case x < -lambd:
				return x + bias
			case x > lambd:
				return x - bias
			}
			return 0
		}
		return numericMap(c,
			signed{through[float32](f), f, through[int8](f), through[int16](f), through[int32](f), through[int64](f)},
			unsigned{through[uint8](f), through[uint16](f), through[uint32](f), through[uint64](f)})
	},
}

// through is a function of float64 on another type.
func through[T number](f func(float64) float64) func(T) T {
	return func(x T) T { return T(f(float64(x))) }
}

var preluDef = &Def{
	Name: "PRelu", Doc: "x, or slope·x below 0; slope broadcasts", Since: 1, Versions: []int{1, 6, 7, 9, 16},
	Types: "float16, bfloat16, float, double, int32, int64, uint32, uint64",
	In:    Exactly(2), Out: Exactly(1), Widen: true,
	Upgrades: []Upgrade{dropConsumed, {7, func(u *Up) error {
		x, slope := u.Node.In(0), u.Node.In(1)
		if x == nil || slope == nil || !slope.Type.Ranked || len(slope.Type.Dims) != 1 || slope.Type.Dims[0].Size == 1 {
			return nil // one slope for all channels
		}
		if !x.Type.Ranked {
			return fmt.Errorf("has a slope per channel of an input of unknown rank: %w", ErrUnsupported)
		}
		if len(x.Type.Dims) < 2 {
			return nil
		}
		return alignAt(u, 1, 1, len(x.Type.Dims))
	}}},
	Infer: inferZip(ir.Undefined),
	Eval:  preluRows.eval,
}

var preluRows = &arith{
	f32: rowOf(prelu[float32]), f64: rowOf(prelu[float64]),
	i32: rowOf(prelu[int32]), i64: rowOf(prelu[int64]), u32: rowOf(prelu[uint32]), u64: rowOf(prelu[uint64]),
}

func prelu[T number](x, slope T) T {
	if x < 0 {
		return x * slope
	}
	return x
}
