package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

const cumTypes = "float16, bfloat16, float, double, int32, int64, uint32, uint64"

var (
	cumSumDef  = cumDef("CumSum", "sums of the elements up to each along an axis", []int{11, 14}, false)
	cumProdDef = cumDef("CumProd", "products of the elements up to each along an axis", []int{26}, true)
)

// cumDef defines CumSum and CumProd: exclusive leaves out the element itself, reverse goes from the axis' end. Floats
// accumulate in float64.
func cumDef(name, doc string, versions []int, product bool) *Def {
	return &Def{
		Name: name, Doc: doc, Since: versions[0], Versions: versions, Types: cumTypes,
		In: Exactly(2), Out: Exactly(1), Widen: true, Infer: same,
		Eval: func(c *Call) ([]*ir.Tensor, error) {
			switch c.In[0].Elem() {
			case ir.Float32:
				return cumulate[float32, float64](c, product)
			case ir.Float64:
				return cumulate[float64, float64](c, product)
			case ir.Int32:
				return cumulate[int32, int32](c, product)
			case ir.Int64:
				return cumulate[int64, int64](c, product)
			case ir.Uint32:
				return cumulate[uint32, uint32](c, product)
			case ir.Uint64:
				return cumulate[uint64, uint64](c, product)
			}
			return nil, badType(c, 0)
		},
	}
}

func cumulate[T, A number](c *Call, product bool) ([]*ir.Tensor, error) {
	x := c.In[0]
	axes, ok := c.In[1].Int64s()
	if !ok || len(axes) != 1 {
		return nil, fmt.Errorf("input 1 is %v, wants one integer, the axis", c.In[1].Type())
	}
	axis, err := Axis(axes[0], max(x.Rank(), 1))
	if err != nil {
		return nil, err
	}
	out, err := c.Like(x, x.Elem())
	if err != nil {
		return nil, err
	}
	src, dst := ir.Data[T](x), ir.Data[T](out)
	s := spanOf(x.Shape(), axis)
	exclusive, reverse := c.Node.Int("exclusive", 0) != 0, c.Node.Int("reverse", 0) != 0
	s.lines(func(at int) {
		step := s.inner
		if reverse {
			at, step = at+(s.n-1)*s.inner, -s.inner
		}
		var acc A
		if product {
			acc = 1
		}
		for range s.n {
			v := A(src[at])
			if exclusive {
				dst[at] = T(acc)
			}
			if product {
				acc *= v
			} else {
				acc += v
			}
			if !exclusive {
				dst[at] = T(acc)
			}
			at += step
		}
	})
	return []*ir.Tensor{out}, nil
}
