package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
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
				c.In[i] = widen(t)
			}
		}
	}
	out, err := c.Def.Eval(c)
	if err != nil || !c.Def.Widen {
		return out, err
	}
	for i, t := range out {
		if v := c.Node.Out(i); v != nil && t != nil && t.Elem() == ir.Float32 && isHalf(v.Type.Elem) {
			out[i] = narrow(t, v.Type.Elem)
		}
	}
	return out, nil
}

func isHalf(t ir.DType) bool { return t == ir.Float16 || t == ir.BFloat16 }

func widen(t *ir.Tensor) *ir.Tensor {
	v, _ := t.Float32s()
	return ir.Floats(v, t.Shape()...)
}

func narrow(t *ir.Tensor, elem ir.DType) *ir.Tensor {
	out := ir.NewTensor(elem, t.Shape()...)
	dst, src := ir.Data[uint16](out), ir.Data[float32](t)
	if elem == ir.BFloat16 {
		for i, x := range src {
			dst[i] = floatToBF16(x)
		}
		return out
	}
	for i, x := range src {
		dst[i] = floatToHalf(x)
	}
	return out
}

func floatToBF16(x float32) uint16 {
	u := math.Float32bits(x)
	if x != x {
		return uint16(u>>16) | 0x40
	}
	return uint16((u + 0x7fff + (u>>16)&1) >> 16)
}

// floatToHalf rounds to IEEE 754 binary16, nearest even.
func floatToHalf(x float32) uint16 {
	u := math.Float32bits(x)
	sign := uint16(u>>16) & 0x8000
	a := u & 0x7fffffff
	switch {
	case a > 0x7f800000:
		return sign | 0x7e00
	case a >= 0x477ff000: // rounds to 65536 or more
		return sign | 0x7c00
	case a < 0x38800000: // subnormal: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits
		f := math.Float32frombits(a) + 0.5
		return sign | uint16(math.Float32bits(f)-0x3f000000)
	}
	a += 0xfff + (a>>13)&1
	return sign | uint16((a-0x38000000)>>13)
}
