package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

var causalConvWithStateDef = &Def{
	Name: "CausalConvWithState", Doc: "a depthwise convolution of the past and present of each channel, which carries its last inputs on",
	Since: 27, Versions: []int{27}, Types: "float, float16, bfloat16", In: Between(2, 4), Out: Between(1, 2), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		x, k := c.Type(0), c.Type(1).Dim(2)
		if k.Known() {
			k.Size--
		} else {
			k = ir.UnknownDim
		}
		return []ir.Type{x, ir.TensorType(x.Elem, x.Dim(0), x.Dim(1), k)}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalFloat(c, []int{1, 2, 3}, causalConv[float32], causalConv[float64])
	},
}

func causalConv[T floatElem](c *Call) ([]*ir.Tensor, error) {
	x, w := c.In[0], c.In[1]
	xs, ws := x.Shape(), w.Shape()
	if len(xs) != 3 || len(ws) != 3 || ws[0] != xs[1] || ws[1] != 1 || ws[2] < 1 {
		return nil, fmt.Errorf("input %v and weight %v: want [N, C, L] and [C, 1, k]", xs, ws)
	}
	channels, length, taps := xs[1], xs[2], ws[2]
	bias, err := vector[T](c, 2, channels, "the bias")
	if err != nil {
		return nil, err
	}
	silu := false
	switch a := c.Node.Str("activation", "none"); a {
	case "none", "":
	case "silu", "swish":
		silu = true
	default:
		return nil, fmt.Errorf("attribute activation is %q, wants none, silu or swish", a)
	}
	keep := taps - 1
	out, err := c.Like(x, x.Elem())
	if err != nil {
		return nil, err
	}
	state, err := c.New(x.Elem(), xs[0], channels, keep)
	if err != nil {
		return nil, err
	}
	if out.Len() == 0 && state.Len() == 0 {
		return []*ir.Tensor{out, state}, nil
	}
	var past []T
	if c.Has(3) {
		if fmt.Sprint(c.In[3].Shape()) != fmt.Sprint(state.Shape()) {
			return nil, fmt.Errorf("past_state has shape %v, wants %v", c.In[3].Shape(), state.Shape())
		}
		past = ir.Data[T](c.In[3])
	}
	in, f, y, next := ir.Data[T](x), ir.Data[T](w), ir.Data[T](out), ir.Data[T](state)
	par.For(xs[0]*channels, 1+(1<<14)/(length*taps+1), func(lo, hi int) {
		line := make([]T, keep+length) // the past, then the present
		for i := lo; i < hi; i++ {
			ch := i % channels
			clear(line[:keep])
			if past != nil {
				copy(line, past[i*keep:(i+1)*keep])
			}
			copy(line[keep:], in[i*length:(i+1)*length])
			dst := y[i*length : (i+1)*length]
			var start T
			if bias != nil {
				start = bias[ch]
			}
			setAll(dst, start)
			for k, s := range f[ch*taps : (ch+1)*taps] {
				addScaled(dst, line[k:], 1, s)
			}
			if silu {
				for k, v := range dst {
					dst[k] = T(float64(v) / (1 + math.Exp(-float64(v))))
				}
			}
			copy(next[i*keep:(i+1)*keep], line[length:])
		}
	})
	return []*ir.Tensor{out, state}, nil
}
