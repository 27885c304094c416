package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

var powDef = &Def{
	Name: "Pow", Doc: "aᵇ, of a's type; b may be of another", Since: 1, Versions: []int{1, 7, 12, 13, 15},
	Types: "float16, bfloat16, float, double, int32, int64; exponent any numeric type",
	In:    Exactly(2), Out: Exactly(1), Widen: true,
	Upgrades: []Upgrade{alignedBroadcast},
	Infer: func(c *Call) ([]ir.Type, error) {
		a, b := c.Type(0), c.Type(1)
		if !a.Ranked || !b.Ranked {
			return []ir.Type{{Elem: a.Elem}}, nil
		}
		dims, err := broadcastDims(a.Dims, b.Dims)
		if err != nil {
			return nil, err
		}
		return []ir.Type{ir.TensorType(a.Elem, dims...)}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		a, b := c.In[0], c.In[1]
		whole := b.Elem().IsInt()
		switch a.Elem() {
		case ir.Float32:
			return floatPow(c, a, b, powRow32, func(v []float64) *ir.Tensor {
				f := make([]float32, len(v))
				for i, x := range v {
					f[i] = float32(x)
				}
				return ir.Floats(f, b.Shape()...)
			})
		case ir.Float64:
			return floatPow(c, a, b, rowOf(math.Pow), func(v []float64) *ir.Tensor { return ir.FromSlice(ir.Float64, b.Shape(), v) })
		case ir.Int32:
			if whole {
				return intPow[int32](c, a, b)
			}
			return intFloatPow[int32](c, a, b)
		case ir.Int64:
			if whole {
				return intPow[int64](c, a, b)
			}
			return intFloatPow[int64](c, a, b)
		}
		return nil, badType(c, 0)
	},
}

// float64s returns the elements of a tensor of any numeric type.
func float64s(t *ir.Tensor) ([]float64, error) {
	if t.Elem() == ir.Float64 {
		return ir.Data[float64](t), nil
	}
	out := make([]float64, t.Len())
	if t.Elem() == ir.Uint64 {
		for i, x := range ir.Data[uint64](t) {
			out[i] = float64(x)
		}
		return out, nil
	}
	if v, ok := t.Int64s(); ok {
		for i, x := range v {
			out[i] = float64(x)
		}
		return out, nil
	}
	v, ok := t.Float32s()
	if !ok {
		return nil, fmt.Errorf("element type %v: %w", t.Elem(), ErrUnsupported)
	}
	for i, x := range v {
		out[i] = float64(x)
	}
	return out, nil
}

func floatPow[T float](c *Call, a, b *ir.Tensor, k row[T, T], as func([]float64) *ir.Tensor) ([]*ir.Tensor, error) {
	if b.Elem() != a.Elem() {
		v, err := float64s(b)
		if err != nil {
			return nil, err
		}
		b = as(v)
	}
	return one(zip(c, a, b, a.Elem(), k))
}

// powRow32 does the exponents that layers use without logarithms; each is what math.Pow, rounded, gives too.
func powRow32(dst, a, b []float32) {
	if len(b) == 1 {
		switch b[0] {
		case 1:
			copy(dst, a)
			return
		case 2:
			kernel.Mul(dst, a, a)
			return
		case 3:
			for i, x := range a {
				v := float64(x)
				dst[i] = float32(v * v * v)
			}
			return
		case -1:
			kernel.RDivScalar(dst, a, 1)
			return
		}
	}
	slowPowRow(dst, a, b)
}

var slowPowRow = rowOf(func(x, y float32) float32 { return float32(math.Pow(float64(x), float64(y))) })

// intPow multiplies integers, which wrap. A negative power of anything but 1 and -1 is 0, and of 0 an error.
func intPow[T int32 | int64](c *Call, a, b *ir.Tensor) ([]*ir.Tensor, error) {
	exp, ok := b.Int64s()
	if !ok {
		return nil, badType(c, 1)
	}
	least := int64(0)
	for _, e := range exp {
		if b.Elem() != ir.Uint64 {
			least = min(least, e)
		}
	}
	if least < 0 {
		for _, x := range ir.Data[T](a) {
			if x == 0 {
				return nil, fmt.Errorf("integer division by zero: zero to the power of %d", least)
			}
		}
	}
	p, err := spreadOf(a.Shape(), b.Shape())
	if err != nil {
		return nil, err
	}
	out, err := c.New(a.Elem(), p.shape...)
	if err != nil {
		return nil, err
	}
	x, z, last := ir.Data[T](a), ir.Data[T](out), len(p.dims)-1
	unsigned := b.Elem() == ir.Uint64
	p.run(func(i, n int, at []int) {
		for k := range n {
			z[i+k] = power(x[at[0]+k*p.steps[0][last]], exp[at[1]+k*p.steps[1][last]], unsigned)
		}
	})
	return []*ir.Tensor{out}, nil
}

func power[T int32 | int64](x T, e int64, unsigned bool) T {
	if e < 0 && !unsigned {
		switch {
		case x == 1 || x == -1 && e&1 == 0:
			return 1
		case x == -1:
			return -1
		}
		return 0
	}
	r := T(1)
	for n := uint64(e); n > 0; n >>= 1 {
		if n&1 != 0 {
			r *= x
		}
		x *= x
	}
	return r
}

// intFloatPow truncates the power of an integer to a fraction.
func intFloatPow[T int32 | int64](c *Call, a, b *ir.Tensor) ([]*ir.Tensor, error) {
	x, err := float64s(a)
	if err != nil {
		return nil, err
	}
	y, err := float64s(b)
	if err != nil {
		return nil, err
	}
	f, err := zip(c, ir.FromSlice(ir.Float64, a.Shape(), x), ir.FromSlice(ir.Float64, b.Shape(), y), ir.Float64, rowOf(math.Pow))
	if err != nil {
		return nil, err
	}
	return one(mapOf(c, f, a.Elem(), func(v float64) T { return T(truncate(v)) }))
}
