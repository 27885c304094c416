package op

import (
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

var dynamicQuantizeLinearDef = &Def{
	Name: "DynamicQuantizeLinear", Doc: "8-bit codes, scale and zero point of the tensor's own range, widened to hold 0", Since: 11, Versions: []int{11},
	Types: "float → uint8", In: Exactly(1), Out: Between(1, 3),
	Infer: func(c *Call) ([]ir.Type, error) {
		t := c.Type(0)
		t.Elem = ir.Uint8
		return []ir.Type{t, ir.TensorType(ir.Float32), ir.TensorType(ir.Uint8)}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		if c.In[0].Elem() != ir.Float32 {
			return nil, badType(c, 0)
		}
		codes, scale, zero, err := dynamicCodes(c, c.In[0])
		if err != nil {
			return nil, err
		}
		return []*ir.Tensor{codes, ir.Scalar(scale), ir.FromSlice(ir.Uint8, []int{}, []uint8{zero})}, nil
	},
}

// dynamicCodes quantizes a float32 tensor to uint8 by its own range. A range of 0 has the scale 1.
func dynamicCodes(c *Call, x *ir.Tensor) (codes *ir.Tensor, scale float32, zero uint8, err error) {
	v := ir.Data[float32](x)
	lo, hi := float32(0), float32(0)
	if len(v) > 0 {
		lo, hi = kernel.MinMax(v)
		lo, hi = min(lo, 0), max(hi, 0)
	}
	scale = 1
	if hi != lo {
		scale = (hi - lo) / 255
	}
	if z := -lo / scale; z == z {
		zero = uint8(math.RoundToEven(float64(min(max(z, 0), 255))))
	}
	if codes, err = c.New(ir.Uint8, x.Shape()...); err != nil {
		return nil, 0, 0, err
	}
	dst := ir.Data[uint8](codes)
	par.For(len(v), chunk, func(a, b int) { kernel.QuantizeInt(dst[a:b], v[a:b], scale, float32(zero), 0, 255) })
	return codes, scale, zero, nil
}
