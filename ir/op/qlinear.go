package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// Microsoft is the domain of ONNX Runtime's operators outside the standard.
const Microsoft = "com.microsoft"

// affine is a per-tensor scale and zero point, as the QLinear operators have for each operand.
type affine struct{ scale, zero float32 }

// affineOf reads the scale at input s and the optional zero point at input z of codes of the given type.
func affineOf(c *Call, s, z int, elem ir.DType, what string) (affine, error) {
	if s >= len(c.In) || c.In[s] == nil {
		return affine{}, fmt.Errorf("the scale of %s (input %d) is absent", what, s)
	}
	scale, err := scalarFloat(c.In[s], "the scale of "+what)
	if err != nil {
		return affine{}, err
	}
	zero, err := scalarZero(intInput(c, z), elem, "the zero point of "+what)
	return affine{scale, zero}, err
}

// table returns what each 8-bit code stands for, indexed by the code's bits.
func (a affine) table(elem ir.DType) [256]float32 {
	var t [256]float32
	for i := range t {
		v := float32(i)
		if elem == ir.Int8 {
			v = float32(int8(i))
		}
		t[i] = (v - a.zero) * a.scale
	}
	return t
}

// floats decodes 8-bit codes.
func (a affine) floats(t *ir.Tensor) []float32 {
	table := a.table(t.Elem())
	out := make([]float32, t.Len())
	src := t.Bytes()
	par.For(len(out), chunk, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			out[i] = table[src[i]]
		}
	})
	return out
}

// encode quantizes to an integer type: the quotient plus the zero point is rounded half to even, as ONNX Runtime's pools do.
func (a affine) encode(c *Call, v []float32, elem ir.DType, shape []int) ([]*ir.Tensor, error) {
	out, err := c.New(elem, shape...)
	if err != nil {
		return nil, err
	}
	return one(out, storeCodes(out, 0, func(dst []float32, lo, hi int) {
		for i, x := range v[lo:hi] {
			dst[i] = x/a.scale + a.zero
		}
	}))
}

// qlinearBinary defines QLinearAdd and QLinearMul: inputs A, its scale and zero point, B likewise, the result's
// likewise. f works on codes and gives the code before rounding.
func qlinearBinary(name, doc string, f func(x, y, z affine) row[float32, float32]) *Def {
	return &Def{
		Domain: Microsoft, Name: name, Doc: doc, Since: 1, Versions: []int{1}, Types: "int8, uint8",
		In: Between(7, 8), Optional: []int{2, 5}, Out: Exactly(1),
		Infer: func(c *Call) ([]ir.Type, error) {
			a, b := c.Type(0), c.Type(3)
			if !a.Ranked || !b.Ranked {
				return unranked(a.Elem), nil
			}
			dims, err := broadcastDims(a.Dims, b.Dims)
			return typed(a.Elem, dims), err
		},
		Eval: func(c *Call) ([]*ir.Tensor, error) {
			a, b := c.In[0], c.In[3]
			if a == nil || b == nil {
				return nil, fmt.Errorf("inputs 0 and 3 are required")
			}
			if err := codes8(a, "A"); err != nil {
				return nil, err
			}
			if b.Elem() != a.Elem() {
				return nil, fmt.Errorf("A is of element type %v, B of %v", a.Elem(), b.Elem())
			}
			x, err := affineOf(c, 1, 2, a.Elem(), "A")
			if err != nil {
				return nil, err
			}
			y, err := affineOf(c, 4, 5, a.Elem(), "B")
			if err != nil {
				return nil, err
			}
			z, err := affineOf(c, 6, 7, a.Elem(), "C")
			if err != nil {
				return nil, err
			}
			p, err := spreadOf(a.Shape(), b.Shape())
			if err != nil {
				return nil, err
			}
			out, err := c.New(a.Elem(), p.shape...)
			if err != nil {
				return nil, err
			}
			codes := affine{scale: 1}.table(a.Elem())
			u, v, w := a.Bytes(), b.Bytes(), out.Bytes()
			last := len(p.dims) - 1
			su, sv := p.steps[0][last], p.steps[1][last]
			lowest, highest, _ := codeRange(a.Elem())
			kernel := f(x, y, z)
			p.run(func(i, n int, at []int) {
				ra, rb, rc := make([]float32, max(n*su, 1)), make([]float32, max(n*sv, 1)), make([]float32, n)
				for k := range ra {
					ra[k] = codes[u[at[0]+k]]
				}
				for k := range rb {
					rb[k] = codes[v[at[1]+k]]
				}
				kernel(rc, ra, rb)
				if len(ra) == 1 && len(rb) == 1 {
					for k := range rc {
						rc[k] = rc[0]
					}
				}
				for k, s := range rc {
					w[i+k] = byte(int32(rounded(s, 0, lowest, highest)))
				}
			})
			return []*ir.Tensor{out}, nil
		},
	}
}

// ONNX Runtime sums with fused multiply-adds, the zero points as one constant, and rounds once the zero point is added.
var qLinearAddDef = qlinearBinary("QLinearAdd", "the sum of quantized tensors, quantized", func(x, y, z affine) row[float32, float32] {
	a, b := x.scale/z.scale, y.scale/z.scale
	shift := z.zero - float32(float32(a*x.zero)+float32(b*y.zero))
	return rowOf(func(p, q float32) float32 { return multiplyAdd(p, a, multiplyAdd(q, b, shift)) })
})

// multiplyAdd is x·y + z rounded once, for x of few bits.
func multiplyAdd(x, y, z float32) float32 {
	return float32(float64(float64(x)*float64(y)) + float64(z))
}

var qLinearMulDef = qlinearBinary("QLinearMul", "the product of quantized tensors, quantized", func(x, y, z affine) row[float32, float32] {
	s := float32(x.scale*y.scale) / z.scale
	return rowOf(func(p, q float32) float32 { return float32(float32((p-x.zero)*(q-y.zero))*s) + z.zero })
})

// qlinearUnary defines a function of one quantized tensor: inputs X, its scale and zero point, the result's likewise. Codes
// are looked up in a table of all 256.
func qlinearUnary(name, doc string, f func(n *ir.Node) func(float64) float64) *Def {
	return &Def{
		Domain: Microsoft, Name: name, Doc: doc, Since: 1, Versions: []int{1}, Types: "int8, uint8",
		In: Between(4, 5), Optional: []int{2}, Out: Exactly(1), Infer: same,
		Eval: func(c *Call) ([]*ir.Tensor, error) {
			x := c.In[0]
			if err := codes8(x, "X"); err != nil {
				return nil, err
			}
			from, err := affineOf(c, 1, 2, x.Elem(), "X")
			if err != nil {
				return nil, err
			}
			to, err := affineOf(c, 3, 4, x.Elem(), "Y")
			if err != nil {
				return nil, err
			}
			lowest, highest, _ := codeRange(x.Elem())
			g := f(c.Node)
			var table [256]byte
			for i, v := range from.table(x.Elem()) {
				table[i] = byte(int32(rounded(float32(g(float64(v)))/to.scale, to.zero, lowest, highest)))
			}
			out, err := c.Like(x, x.Elem())
			if err != nil {
				return nil, err
			}
			src, dst := x.Bytes(), out.Bytes()
			par.For(len(src), chunk, func(lo, hi int) {
				for i := lo; i < hi; i++ {
					dst[i] = table[src[i]]
				}
			})
			return []*ir.Tensor{out}, nil
		},
	}
}

var qLinearSigmoidDef = qlinearUnary("QLinearSigmoid", "Sigmoid of a quantized tensor, quantized", func(*ir.Node) func(float64) float64 {
	return sigmoid
})

var qLinearLeakyReluDef = qlinearUnary("QLinearLeakyRelu", "LeakyRelu of a quantized tensor, quantized", func(n *ir.Node) func(float64) float64 {
	a := alpha(n, "alpha", 0.01)
	return func(x float64) float64 {
		if x < 0 {
			return a * x
		}
		return x
	}
})

var qLinearSoftmaxDef = &Def{
	Domain: Microsoft, Name: "QLinearSoftmax", Doc: "Softmax of a quantized tensor, quantized; below opset 13 over all axes from axis on", Since: 1,
	Versions: []int{1}, Types: "int8, uint8", In: Exactly(5), Optional: []int{2}, Out: Exactly(1), Infer: same,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x := c.In[0]
		if err := codes8(x, "X"); err != nil {
			return nil, err
		}
		from, err := affineOf(c, 1, 2, x.Elem(), "X")
		if err != nil {
			return nil, err
		}
		to, err := affineOf(c, 3, 4, x.Elem(), "Y")
		if err != nil {
			return nil, err
		}
		axis, err := softAxis(c.Node, x.Rank())
		if err != nil {
			return nil, err
		}
		span := spanOf(x.Shape(), axis)
		if c.Node.Int("opset", 13) < 13 {
			span.n, span.inner = span.n*span.inner, 1
		}
		var lowest float32
		if x.Elem() == ir.Int8 {
			lowest = -128
		}
		out, err := c.Like(x, x.Elem())
		if err != nil {
			return nil, err
		}
		src, dst := x.Bytes(), out.Bytes()
		highest := lowest + 255
		// exp((k-255)·scale) by the distance to the greatest element of the line
		var exps [256]float64
		for k := range exps {
			exps[k] = math.Exp(-float64(k) * float64(from.scale))
		}
		code := func(b byte) int {
			if x.Elem() == ir.Int8 {
				return int(int8(b))
			}
			return int(b)
		}
		span.lines(func(at int) {
			top, sum := math.MinInt, 0.0
			for i := range span.n {
				top = max(top, code(src[at+i*span.inner]))
			}
			for i := range span.n {
				sum += exps[top-code(src[at+i*span.inner])]
			}
			for i := range span.n {
				v := exps[top-code(src[at+i*span.inner])] / sum
				dst[at+i*span.inner] = byte(int32(rounded(float32(v/float64(to.scale)), to.zero, lowest, highest)))
			}
		})
		return []*ir.Tensor{out}, nil
	},
}
