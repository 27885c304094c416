package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// Evaluate runs the call's kernel. For definitions that ask for it, half-precision inputs are widened to float32 and
// results rounded back to the types inference gave the outputs.
func Evaluate(c *Call) ([]*ir.Tensor, error) {
	if c.Def.Eval == nil {
		return nil, fmt.Errorf("%v: %w", c.Def.ID(), ErrUnsupported)
	}
	half := false
	if c.Def.Widen {
		for i, t := range c.In {
			if t != nil && isHalf(t.Elem()) {
				if !half {
					c.In = append([]*ir.Tensor(nil), c.In...)
					half = true
				}
				wide, err := c.Like(t, ir.Float32)
				if err != nil {
					return nil, err
				}
				widenTo(wide, t)
				c.In[i] = wide
			}
		}
	}
	out, err := c.Def.Eval(c)
	if err != nil || !c.Def.Widen {
		return out, err
	}
	for i, t := range out {
		if v := c.Node.Out(i); v != nil && t != nil && t.Elem() == ir.Float32 && isHalf(v.Type.Elem) {
			if out[i], err = c.Like(t, v.Type.Elem); err != nil {
				return nil, err
			}
			narrowTo(out[i], t)
		}
	}
	return out, nil
}

func isHalf(t ir.DType) bool { return t == ir.Float16 || t == ir.BFloat16 }

// widen returns a half-precision tensor in float32.
func widen(t *ir.Tensor) *ir.Tensor {
	out := ir.NewTensor(ir.Float32, t.Shape()...)
	widenTo(out, t)
	return out
}

func widenTo(out, t *ir.Tensor) {
	dst, src := ir.Data[float32](out), ir.Data[uint16](t)
	if t.Elem() == ir.BFloat16 {
		kernel.FromBF16(dst, src)
	} else {
		kernel.FromF16(dst, src)
	}
}

// narrow returns a float32 tensor rounded to a half-precision type.
func narrow(t *ir.Tensor, elem ir.DType) *ir.Tensor {
	out := ir.NewTensor(elem, t.Shape()...)
	narrowTo(out, t)
	return out
}

func narrowTo(out, t *ir.Tensor) {
	dst, src := ir.Data[uint16](out), ir.Data[float32](t)
	if out.Elem() == ir.BFloat16 {
		kernel.ToBF16(dst, src)
	} else {
		kernel.ToF16(dst, src)
	}
}
