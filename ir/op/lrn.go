package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

var lrnDef = &Def{
	Name: "LRN", Doc: "each element divided by a power of the squares of its neighbours in other channels", Since: 1, Versions: []int{1, 13},
	Types: "float, double, float16, bfloat16", In: Exactly(1), Out: Exactly(1), Widen: true, Infer: same,
	Eval: func(c *Call) ([]*ir.Tensor, error) { return evalFloat(c, nil, lrn[float32], lrn[float64]) },
}

func lrn[T floatElem](c *Call) ([]*ir.Tensor, error) {
	x := c.In[0]
	s := x.Shape()
	if len(s) < 2 {
		return nil, fmt.Errorf("the input is %v, wants [N, C, …]", x.Type())
	}
	region := int(min(c.Node.Int("size", 0), maxWindow))
	if region < 1 {
		return nil, fmt.Errorf("attribute size is %d, wants at least 1", region)
	}
	out, err := c.Like(x, x.Elem())
	if err != nil {
		return nil, err
	}
	alpha := float64(c.Node.Float("alpha", 1e-4)) / float64(region)
	beta, bias := float64(c.Node.Float("beta", 0.75)), float64(c.Node.Float("bias", 1))
	in, y := ir.Data[T](x), ir.Data[T](out)
	channels, size := s[1], product(s[2:])
	below, above := (region-1)/2, region/2
	par.For(s[0]*channels, 1+(1<<12)/(size*region+1), func(lo, hi int) {
		squares := make([]float64, size)
		for i := lo; i < hi && c.Context().Err() == nil; i++ {
			n, ch := i/channels, i%channels
			clear(squares)
			for k := max(ch-below, 0); k <= min(ch+above, channels-1); k++ {
				for p, v := range in[(n*channels+k)*size:][:size] {
					squares[p] += float64(v) * float64(v)
				}
			}
			for p, v := range in[i*size : (i+1)*size] {
				base := bias + float64(alpha*squares[p])
				if beta == 0.75 {
					r := math.Sqrt(base)
					y[i*size+p] = T(float64(v) / (r * math.Sqrt(r)))
				} else {
					y[i*size+p] = T(float64(v) / math.Pow(base, beta))
				}
			}
		}
	})
	return []*ir.Tensor{out}, c.Context().Err()
}

var lpNormalizationDef = &Def{
	Name: "LpNormalization", Doc: "divided by the 1- or 2-norm along an axis; zero where the norm is zero", Since: 1, Versions: []int{1, 22},
	Types: "float, double, float16, bfloat16", In: Exactly(1), Out: Exactly(1), Widen: true, Infer: same,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalFloat(c, nil, lpNormalize[float32], lpNormalize[float64])
	},
}

func lpNormalize[T floatElem](c *Call) ([]*ir.Tensor, error) {
	x := c.In[0]
	s := x.Shape()
	axis, err := Axis(c.Node.Int("axis", -1), len(s))
	if err != nil {
		return nil, err
	}
	order := c.Node.Int("p", 2)
	if order != 1 && order != 2 {
		return nil, fmt.Errorf("attribute p is %d, wants 1 or 2", order)
	}
	out, err := c.Like(x, x.Elem())
	if err != nil {
		return nil, err
	}
	if out.Len() == 0 {
		return []*ir.Tensor{out}, nil
	}
	in, y := ir.Data[T](x), ir.Data[T](out)
	outer, inner := product(s[:axis]), product(s[axis+1:])
	for o := range outer {
		for i := range inner {
			at, sum := o*s[axis]*inner+i, 0.0
			for k := range s[axis] {
				sum += normPower(float64(in[at+k*inner]), order)
			}
			norm := normRoot(sum, order)
			if norm == 0 {
				norm = 1 // all elements are zero
			}
			for k := range s[axis] {
				y[at+k*inner] = T(float64(in[at+k*inner]) / norm)
			}
		}
	}
	return []*ir.Tensor{out}, nil
}
