package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

var clipDef = &Def{
	Name: "Clip", Doc: "min(max(x, min), max); the bounds are optional scalars", Since: 1, Versions: []int{1, 6, 11, 12, 13}, Types: numericTypes,
	In: Between(1, 3), Out: Exactly(1), Widen: true,
	Upgrades: []Upgrade{dropConsumed, {11, func(u *Up) error {
		for i, name := range []string{"min", "max"} {
			a := u.Node.Attr(name)
			if a == nil {
				continue
			}
			elem := ir.Float32
			if x := u.Node.In(0); x != nil && x.Type.Elem != ir.Undefined {
				elem = x.Type.Elem
			}
			bound, err := scalarOf(elem, a.F)
			if err != nil {
				return err
			}
			u.Node.SetIn(1+i, u.Const(name, bound))
			u.Node.DelAttr(name)
		}
		return nil
	}}},
	Infer: same,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		for i := 1; i < 3; i++ {
			if c.Has(i) && (c.In[i].Len() != 1 || c.In[i].Elem() != c.In[0].Elem()) {
				return nil, fmt.Errorf("input %d is %v, wants a single %v", i, c.In[i].Type(), c.In[0].Elem())
			}
		}
		switch c.In[0].Elem() {
		case ir.Float32:
			return clip32(c)
		case ir.Float64:
			return clip(c, math.Inf(-1), math.Inf(1))
		case ir.Int8:
			return clip[int8](c, math.MinInt8, math.MaxInt8)
		case ir.Int16:
			return clip[int16](c, math.MinInt16, math.MaxInt16)
		case ir.Int32:
			return clip[int32](c, math.MinInt32, math.MaxInt32)
		case ir.Int64:
			return clip[int64](c, math.MinInt64, math.MaxInt64)
		case ir.Uint8:
			return clip[uint8](c, 0, math.MaxUint8)
		case ir.Uint16:
			return clip[uint16](c, 0, math.MaxUint16)
		case ir.Uint32:
			return clip[uint32](c, 0, math.MaxUint32)
		case ir.Uint64:
			return clip[uint64](c, 0, math.MaxUint64)
		}
		return nil, badType(c, 0)
	},
}

// clip32 is clip by the kernel.
func clip32(c *Call) ([]*ir.Tensor, error) {
	lo, hi := float32(math.Inf(-1)), float32(math.Inf(1))
	if c.Has(1) {
		lo = ir.Data[float32](c.In[1])[0]
	}
	if c.Has(2) {
		hi = ir.Data[float32](c.In[2])[0]
	}
	out, err := c.Like(c.In[0], ir.Float32)
	if err != nil {
		return nil, err
	}
	kernel.Clip(ir.Data[float32](out), ir.Data[float32](c.In[0]), lo, hi)
	return []*ir.Tensor{out}, nil
}

func clip[T number](c *Call, lo, hi T) ([]*ir.Tensor, error) {
	if c.Has(1) {
		lo = ir.Data[T](c.In[1])[0]
	}
	if c.Has(2) {
		hi = ir.Data[T](c.In[2])[0]
	}
	return one(mapOf(c, c.In[0], c.In[0].Elem(), func(x T) T { return min(max(x, lo), hi) }))
}

// scalarOf returns a floating-point scalar of the given type.
func scalarOf(elem ir.DType, v float32) (*ir.Tensor, error) {
	switch elem {
	case ir.Float32:
		return ir.Scalar(v), nil
	case ir.Float64:
		return ir.FromSlice(ir.Float64, []int{}, []float64{float64(v)}), nil
	case ir.Float16, ir.BFloat16:
		return narrow(ir.Scalar(v), elem), nil
	}
	return nil, fmt.Errorf("a constant %v of element type %v: %w", v, elem, ErrUnsupported)
}
