package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

var convIntegerDef = &Def{
	Name: "ConvInteger", Doc: "the convolution of 8-bit codes less their zero points, exact in int32", Since: 10, Versions: []int{10},
	Types: "int8, uint8 → int32", In: Between(2, 4), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		t, err := inferConv(c, 0, 1)
		if err != nil {
			return nil, err
		}
		t[0].Elem = ir.Int32
		return t, nil
	},
	Prepare: func(c *Call) (any, error) { return prepareIntConv(c, 1, 3) },
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		v, err := intConvOf(c, c.In[0], c.In[1], intInput(c, 2), intInput(c, 3))
		if err != nil {
			return nil, err
		}
		return one(v.sums(c))
	},
}

var qLinearConvDef = &Def{
	Name: "QLinearConv", Doc: "the convolution of quantized operands, quantized", Since: 10, Versions: []int{10},
	Types: "int8, uint8", In: Between(8, 9), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		t, err := inferConv(c, 0, 3)
		if err != nil {
			return nil, err
		}
		t[0].Elem = c.Type(7).Elem
		return t, nil
	},
	Prepare: func(c *Call) (any, error) { return prepareIntConv(c, 3, 5) },
	Eval:    evalQLinearConv,
}

func evalQLinearConv(c *Call) ([]*ir.Tensor, error) {
	v, err := intConvOf(c, c.In[0], c.In[3], c.In[2], c.In[5])
	if err != nil {
		return nil, err
	}
	channels := v.groups * v.mg
	xs, err := scalarFloat(c.In[1], "the scale of x")
	if err != nil {
		return nil, err
	}
	ws, err := columnScales(c.In[4], channels, "the scale of w")
	if err != nil {
		return nil, err
	}
	ys, err := scalarFloat(c.In[6], "the scale of y")
	if err != nil {
		return nil, err
	}
	zero, err := scalarZero(c.In[7], c.In[7].Elem(), "the zero point of y")
	if err != nil {
		return nil, err
	}
	var bias []int32
	if c.Has(8) {
		if c.In[8].Elem() != ir.Int32 {
			return nil, badType(c, 8)
		}
		if bias, err = vector[int32](c, 8, channels, "the bias"); err != nil {
			return nil, err
		}
	}
	out, err := c.New(c.In[7].Elem(), v.shape()...)
	if err != nil {
		return nil, err
	}
	scale := make([]float32, channels)
	for m := range scale {
		scale[m] = float32(xs*ws[m%len(ws)]) / ys
	}
	if v.packed != nil && out.Len() > 0 && allFinite(scale) && codes8(out, "y") == nil {
		v.quantized(out, bias, scale, zero)
		return []*ir.Tensor{out}, nil
	}
	acc, err := v.sums(c)
	if err != nil {
		return nil, err
	}
	sums := ir.Data[int32](acc)
	return one(out, storeCodes(out, zero, func(dst []float32, lo, hi int) {
		for i := range dst {
			m := (lo + i) / v.positions % channels
			s := sums[lo+i]
			if bias != nil {
				s += bias[m]
			}
			dst[i] = float32(s) * scale[m]
		}
	}))
}

// intConvolution is a convolution of 8-bit codes about to run.
type intConvolution struct {
	*convolution
	x, w, zx, zw *ir.Tensor
	packed       *kernel.ConvInt8Weights // nil: more spatial axes than the kernel takes
}

// prepareIntConv packs a constant weight and its zero point, inputs of the given slots.
func prepareIntConv(c *Call, w, zw int) (any, error) {
	weight := c.In[w]
	if weight == nil || codes8(weight, "w") != nil {
		return nil, nil
	}
	var zero *ir.Tensor
	if c.Node.In(zw) != nil {
		if zero = c.In[zw]; zero == nil || zero.Elem() != weight.Elem() {
			return nil, nil
		}
	}
	if p := packIntConv(c.Node, weight, zero); p != nil {
		return p, nil
	}
	return nil, nil
}

// packIntConv packs a weight; nil where it has not one or two spatial axes or does not fit the node.
func packIntConv(n *ir.Node, w, zero *ir.Tensor) *kernel.ConvInt8Weights {
	s, groups := w.Shape(), int(n.Int("group", 1))
	if len(s) < 3 || len(s) > 4 || groups < 1 || w.Len() == 0 || s[0]%groups != 0 || zero != nil && zero.Len() != 1 && zero.Len() != s[0] {
		return nil
	}
	kh, kw := 1, s[len(s)-1]
	if len(s) == 4 {
		kh = s[2]
	}
	if w.Elem() == ir.Int8 {
		return kernel.PackConvInt8(s[0], s[1], kh, kw, groups, ir.Data[int8](w), viewZeros[int8](zero))
	}
	return kernel.PackConvInt8(s[0], s[1], kh, kw, groups, ir.Data[uint8](w), viewZeros[uint8](zero))
}

// intConvOf checks the operands of a convolution. The zero point of x is one number, that of w one or one for each output
// channel; nil: 0. Padding counts as x's zero point.
func intConvOf(c *Call, x, w, zx, zw *ir.Tensor) (*intConvolution, error) {
	for _, e := range []error{codes8(x, "x"), codes8(w, "w"), zeroPoint(zx, x, "x"), zeroPoint(zw, w, "w")} {
		if e != nil {
			return nil, e
		}
	}
	v, err := geometryOf(c.Node, x.Shape(), w.Shape())
	if err != nil {
		return nil, err
	}
	channels := v.groups * v.mg
	if zx != nil && zx.Len() != 1 {
		return nil, fmt.Errorf("the zero point of x has shape %v, wants one number", zx.Shape())
	}
	if zw != nil && zw.Len() != 1 && zw.Len() != channels {
		return nil, fmt.Errorf("the zero point of w has shape %v, wants one number or %d", zw.Shape(), channels)
	}
	packed, _ := c.State.(*kernel.ConvInt8Weights)
	if packed == nil {
		packed = packIntConv(c.Node, w, zw)
	}
	return &intConvolution{v, x, w, zx, zw, packed}, nil
}

// sums computes the convolution exactly in int32.
func (v *intConvolution) sums(c *Call) (*ir.Tensor, error) {
	out, err := c.New(ir.Int32, v.shape()...)
	if err != nil {
		return nil, err
	}
	y := ir.Data[int32](out)
	x, w := v.x, v.w
	switch {
	case len(y) == 0:
	case v.packed != nil && x.Elem() == ir.Int8:
		kernel.ConvInt8(v.flat(), y, ir.Data[int8](x), viewZeros[int8](v.zx)[0], v.packed)
	case v.packed != nil:
		kernel.ConvInt8(v.flat(), y, ir.Data[uint8](x), viewZeros[uint8](v.zx)[0], v.packed)
	case x.Elem() == ir.Int8 && w.Elem() == ir.Int8:
		runIntConv(v.convolution, ir.Data[int8](x), viewZeros[int8](v.zx), ir.Data[int8](w), viewZeros[int8](v.zw), y)
	case x.Elem() == ir.Int8:
		runIntConv(v.convolution, ir.Data[int8](x), viewZeros[int8](v.zx), ir.Data[uint8](w), viewZeros[uint8](v.zw), y)
	case w.Elem() == ir.Int8:
		runIntConv(v.convolution, ir.Data[uint8](x), viewZeros[uint8](v.zx), ir.Data[int8](w), viewZeros[int8](v.zw), y)
	default:
		runIntConv(v.convolution, ir.Data[uint8](x), viewZeros[uint8](v.zx), ir.Data[uint8](w), viewZeros[uint8](v.zw), y)
	}
	return out, nil
}

// quantized computes the convolution into codes.
func (v *intConvolution) quantized(out *ir.Tensor, bias []int32, scale []float32, zero float32) {
	p := v.flat()
	switch {
	case v.x.Elem() == ir.Int8 && out.Elem() == ir.Int8:
		kernel.ConvInt8Quantized(p, ir.Data[int8](out), ir.Data[int8](v.x), viewZeros[int8](v.zx)[0], v.packed, bias, scale, int8(zero))
	case v.x.Elem() == ir.Int8:
		kernel.ConvInt8Quantized(p, ir.Data[uint8](out), ir.Data[int8](v.x), viewZeros[int8](v.zx)[0], v.packed, bias, scale, uint8(zero))
	case out.Elem() == ir.Int8:
		kernel.ConvInt8Quantized(p, ir.Data[int8](out), ir.Data[uint8](v.x), viewZeros[uint8](v.zx)[0], v.packed, bias, scale, int8(zero))
	default:
		kernel.ConvInt8Quantized(p, ir.Data[uint8](out), ir.Data[uint8](v.x), viewZeros[uint8](v.zx)[0], v.packed, bias, scale, uint8(zero))
	}
}

func viewZeros[T kernel.Int8](t *ir.Tensor) []T {
	if t == nil {
		return []T{0}
	}
	return viewAs[T](t)
}

// runIntConv is the case of any number of spatial axes.
func runIntConv[X, W kernel.Int8](v *convolution, x []X, zx []X, w []W, zw []W, y []int32) {
	v.tables()
	plain, depth, step := v.pointwise(), v.cg*v.taps, v.block()
	blocks := (v.positions + step - 1) / step
	par.For(v.batch*v.groups*blocks, 1, func(lo, hi int) {
		var cols []X
		if !plain {
			cols = make([]X, depth*step)
		}
		for i := lo; i < hi; i++ {
			k, p0 := i/blocks, i%blocks*step // k: which image and group
			p1, g := min(p0+step, v.positions), k%v.groups
			in, ld := x[k*v.cg*v.size:(k+1)*v.cg*v.size], v.size
			if plain {
				in = in[p0:]
			} else {
				columns(v, cols, in, p0, p1, zx[0])
				in, ld = cols, p1-p0
			}
			zero := zw
			if len(zw) > 1 {
				zero = zw[g*v.mg : (g+1)*v.mg]
			}
			packed := kernel.PackInt8(depth, p1-p0, in, ld, false, zx)
			kernel.GemmInt8(v.mg, w[g*v.mg*depth:(g+1)*v.mg*depth], depth, zero, packed, y[k*v.mg*v.positions+p0:], v.positions)
		}
	})
}
