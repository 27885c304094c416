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
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		acc, _, err := intConv(c, c.In[0], c.In[1], intInput(c, 2), intInput(c, 3))
		return one(acc, err)
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
	Eval: evalQLinearConv,
}

func evalQLinearConv(c *Call) ([]*ir.Tensor, error) {
	acc, v, err := intConv(c, c.In[0], c.In[3], c.In[2], c.In[5])
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

// intConv computes a convolution of 8-bit codes in int32. The zero point of x is one number, that of w one or one for each
// output channel; nil: 0. Padding counts as x's zero point.
func intConv(c *Call, x, w, zx, zw *ir.Tensor) (*ir.Tensor, *convolution, error) {
	for _, e := range []error{codes8(x, "x"), codes8(w, "w"), zeroPoint(zx, x, "x"), zeroPoint(zw, w, "w")} {
		if e != nil {
			return nil, nil, e
		}
	}
	v, err := convolutionOf(c.Node, x.Shape(), w.Shape())
	if err != nil {
		return nil, nil, err
	}
	channels := v.groups * v.mg
	if zx != nil && zx.Len() != 1 {
		return nil, nil, fmt.Errorf("the zero point of x has shape %v, wants one number", zx.Shape())
	}
	if zw != nil && zw.Len() != 1 && zw.Len() != channels {
		return nil, nil, fmt.Errorf("the zero point of w has shape %v, wants one number or %d", zw.Shape(), channels)
	}
	out, err := c.New(ir.Int32, v.shape()...)
	if err != nil {
		return nil, nil, err
	}
	y := ir.Data[int32](out)
	if len(y) == 0 {
		return out, v, nil
	}
	v.tables()
	switch {
	case x.Elem() == ir.Int8 && w.Elem() == ir.Int8:
		runIntConv(v, ir.Data[int8](x), viewZeros[int8](zx), ir.Data[int8](w), viewZeros[int8](zw), y)
	case x.Elem() == ir.Int8:
		runIntConv(v, ir.Data[int8](x), viewZeros[int8](zx), ir.Data[uint8](w), viewZeros[uint8](zw), y)
	case w.Elem() == ir.Int8:
		runIntConv(v, ir.Data[uint8](x), viewZeros[uint8](zx), ir.Data[int8](w), viewZeros[int8](zw), y)
	default:
		runIntConv(v, ir.Data[uint8](x), viewZeros[uint8](zx), ir.Data[uint8](w), viewZeros[uint8](zw), y)
	}
	return out, v, nil
}

func viewZeros[T kernel.Int8](t *ir.Tensor) []T {
	if t == nil {
		return []T{0}
	}
	return viewAs[T](t)
}

func runIntConv[X, W kernel.Int8](v *convolution, x []X, zx []X, w []W, zw []W, y []int32) {
	if v.cg == 1 && v.mg <= 4 {
		depthwiseInt(v, x, int32(zx[0]), w, zw, y)
		return
	}
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

// depthwiseInt convolves planes that share no channel.
func depthwiseInt[X, W kernel.Int8](v *convolution, x []X, zx int32, w []W, zw []W, y []int32) {
	last := len(v.in) - 1
	iw, ow, stride := v.in[last], v.out[last], v.w.stride[last]
	par.For(v.batch*v.groups*v.mg, 1+(1<<15)/(v.positions*v.taps+1), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			m := i % (v.groups * v.mg)
			plane := x[i/v.mg*v.size : (i/v.mg+1)*v.size]
			zero := int32(zw[m%len(zw)])
			for o := range v.rows {
				row := y[i*v.positions+o*ow:][:ow]
				clear(row)
				for tap, f := range w[m*v.taps : (m+1)*v.taps] {
					base, ok := v.row(o, tap)
					if !ok {
						continue
					}
					shift := v.shift(tap)
					from, to := inside(shift, stride, iw, ow)
					if from >= to {
						continue
					}
					factor := int32(f) - zero
					src := plane[base+from*stride+shift : base+iw]
					for j := range row[from:to] {
						row[from+j] += factor * (int32(src[j*stride]) - zx)
					}
				}
			}
		}
	})
}
