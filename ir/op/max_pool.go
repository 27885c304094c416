package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

var maxPoolDef = &Def{
	Name: "MaxPool", Doc: "the maximum of each window, and where it lies", Since: 1, Versions: []int{1, 8, 10, 11, 12, 22},
	Types: "float, double, float16, bfloat16, int8, uint8", In: Exactly(1), Out: Between(1, 2), Widen: true, Infer: inferPool,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		switch elem := c.In[0].Elem(); elem {
		case ir.Float32:
			return maxPool(c, float32(math.Inf(-1)))
		case ir.Float64:
			return maxPool(c, math.Inf(-1))
		case ir.Int8:
			return maxPool(c, int8(math.MinInt8))
		case ir.Uint8:
			return maxPool(c, uint8(0))
		default:
			return nil, fmt.Errorf("element type %v: %w", elem, ErrUnsupported)
		}
	},
}

// maxPool pools; lowest is the result of a window that lies wholly in the padding.
func maxPool[T float32 | float64 | int8 | uint8](c *Call, lowest T) ([]*ir.Tensor, error) {
	p, err := poolingOf(c)
	if err != nil {
		return nil, err
	}
	out, err := c.New(c.In[0].Elem(), p.shape...)
	if err != nil {
		return nil, err
	}
	x, y := ir.Data[T](c.In[0]), ir.Data[T](out)
	if x, ok := any(x).([]float32); ok && !c.HasOut(1) && len(y) > 0 && p.small() {
		kernel.MaxPool(p.flat(), any(y).([]float32), x)
		return []*ir.Tensor{out}, nil
	}
	if !c.HasOut(1) || len(y) == 0 {
		pool(p, x, y, nil, maxima(lowest), nil)
		if !c.HasOut(1) {
			return []*ir.Tensor{out}, nil
		}
		index, err := c.New(ir.Int64, p.shape...)
		return []*ir.Tensor{out, index}, err
	}
	index, err := c.New(ir.Int64, p.shape...)
	if err != nil {
		return nil, err
	}
	// the same with the place beside each value; of equal values the first in row-major order wins
	type found struct {
		v  T
		at int
	}
	order := p.order(c.Node.Int("storage_order", 0) != 0)
	size := product(p.in)
	from, to := make([]found, len(x)), make([]found, len(y))
	for i, v := range x {
		from[i] = found{v, i}
	}
	better := func(f, d found) bool {
		return f.v > d.v || f.v == d.v && f.at < d.at || f.v != f.v && (d.v == d.v || f.at < d.at)
	}
	over := func(src []found, at, step, count int) found {
		best := found{v: lowest}
		for k := range count {
			if f := src[at+k*step]; k == 0 || better(f, best) {
				best = f
			}
		}
		return best
	}
	pool(p, from, to, nil, combiner[found]{
		rows: func(dst, src []found, at, step, count int) {
			for j := range dst {
				dst[j] = over(src, at+j, step, count)
			}
		},
		line: func(dst, src []found, taps []tap, step int) {
			for o, t := range taps {
				dst[o] = over(src, t.at, step, t.count)
			}
		},
	}, nil)
	at := ir.Data[int64](index)
	for i, f := range to {
		y[i], at[i] = f.v, int64(f.at-f.at%size+order[f.at%size])
	}
	return []*ir.Tensor{out, index}, nil
}

// maxima takes the maximum of what a window covers, NaN if it covers one, and lowest if it covers nothing.
func maxima[T float32 | float64 | int8 | uint8](lowest T) combiner[T] {
	return combiner[T]{
		rows: func(dst, src []T, at, step, count int) {
			if count == 0 {
				setAll(dst, lowest)
				return
			}
			copy(dst, src[at:])
			for range count - 1 {
				at += step
				if d, ok := any(dst).([]float32); ok {
					kernel.Maximum(d, d, any(src).([]float32)[at:at+len(d)])
					continue
				}
				for j, v := range src[at : at+len(dst)] {
					dst[j] = max(dst[j], v)
				}
			}
		},
		line: func(dst, src []T, taps []tap, step int) {
			for o, t := range taps {
				top := lowest
				for at := t.at; at < t.at+t.count*step; at += step {
					top = max(top, src[at])
				}
				dst[o] = top
			}
		},
	}
}

// small reports whether the windows are such that taking their elements one by one is fastest: for large ones pool is, which
// takes the axes one after the other.
func (p *pooling) small() bool {
	for i := range p.in {
		if p.w.extent(i) > 32 || p.w.before[i] > 32 || p.w.after[i] > 32 {
			return false
		}
	}
	return len(p.in) <= 2 && product(p.w.kernel) <= 25
}

// MaxPoolGeometry returns the windows of the MaxPool node n on an input x [N, C, D1, …] of one or two spatial axes, and the shape of the
// result. It fails with ErrUnsupported for more axes, and for windows that are not taken element by element.
func MaxPoolGeometry(n *ir.Node, x []int) (kernel.Conv2D, []int, error) {
	if len(x) < 3 {
		return kernel.Conv2D{}, nil, fmt.Errorf("input %v: wants [N, C, D1, …]", x)
	}
	w, err := windowOf(n, len(x)-2, nil)
	if err != nil {
		return kernel.Conv2D{}, nil, err
	}
	p, err := w.pooling(x)
	if err != nil {
		return kernel.Conv2D{}, nil, err
	}
	if !p.small() {
		return kernel.Conv2D{}, nil, fmt.Errorf("a window of %v: %w", w.kernel, ErrUnsupported)
	}
	return p.flat(), p.shape, nil
}

// flat describes the windows of one or two spatial axes to the kernel; one axis is a plane of height 1. The padding reaches
// as far as the last window does.
func (p *pooling) flat() kernel.Conv2D {
	k := kernel.Conv2D{N: 1, C: p.planes, H: 1, KH: 1, StrideH: 1, DilationH: 1}
	last := len(p.in) - 1
	axis := func(i int) (in, window, stride, dilation, before, after int) {
		in, window, stride, dilation, before = p.in[i], p.w.kernel[i], p.w.stride[i], p.w.dilation[i], p.w.before[i]
		return in, window, stride, dilation, before, max(p.w.after[i], (p.out[i]-1)*stride+(window-1)*dilation+1-in-before)
	}
	if last == 1 {
		k.H, k.KH, k.StrideH, k.DilationH, k.PadTop, k.PadBottom = axis(0)
	}
	k.W, k.KW, k.StrideW, k.DilationW, k.PadLeft, k.PadRight = axis(last)
	return k
}

// order returns the number that each element of a plane has, row-major or, on request, column-major.
func (p *pooling) order(columnMajor bool) []int {
	order := make([]int, product(p.in))
	for i := range order {
		order[i] = i
		if !columnMajor {
			continue
		}
		rest, at := i, 0
		pos := make([]int, len(p.in))
		for d := len(p.in) - 1; d >= 0; d-- {
			pos[d], rest = rest%p.in[d], rest/p.in[d]
		}
		for d := len(p.in) - 1; d >= 0; d-- {
			at = at*p.in[d] + pos[d]
		}
		order[i] = at
	}
	return order
}

var maxUnpoolDef = &Def{
	Name: "MaxUnpool", Doc: "puts each value back where MaxPool's second output says, zero elsewhere", Since: 9, Versions: []int{9, 11, 22},
	Types: "float, double, float16, bfloat16", In: Between(2, 3), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		if !x.Ranked {
			return []ir.Type{{Elem: x.Elem}}, nil
		}
		if d, ok := c.Dims(2); ok && c.Has(2) {
			dims := make([]ir.Dim, len(d))
			for i := range d {
				if dims[i] = d[i]; !d[i].Known() {
					dims[i].Size = -1
				}
			}
			return []ir.Type{ir.TensorType(x.Elem, dims...)}, nil
		}
		rank, err := spatialRank(x, "the input")
		if err != nil {
			return nil, err
		}
		dims := append([]ir.Dim(nil), x.Dims...)
		for i := range rank {
			dims[i+2] = ir.UnknownDim
		}
		if shape, ok := x.Shape(); ok && !c.Has(2) {
			out, err := unpoolShape(c.Node, shape)
			if err != nil {
				return nil, err
			}
			dims = fixed(out)
		}
		return []ir.Type{ir.TensorType(x.Elem, dims...)}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) { return evalFloat(c, nil, maxUnpool[float32], maxUnpool[float64]) },
}

// unpoolShape returns the smallest shape that pools to the given one: (d-1)·stride + kernel - padding in each spatial axis.
func unpoolShape(n *ir.Node, in []int) ([]int, error) {
	w, err := windowOf(n, len(in)-2, nil)
	if err != nil {
		return nil, err
	}
	out := append([]int{}, in...)
	for i := range w.kernel {
		out[i+2] = (in[i+2]-1)*w.stride[i] + w.kernel[i] - w.before[i] - w.after[i]
		if out[i+2] < 0 {
			return nil, fmt.Errorf("spatial axis %d: padding %d and %d leaves nothing", i, w.before[i], w.after[i])
		}
	}
	return out, nil
}

func maxUnpool[T floatElem](c *Call) ([]*ir.Tensor, error) {
	if _, err := spatialRank(c.In[0].Type(), "the input"); err != nil {
		return nil, err
	}
	natural, err := unpoolShape(c.Node, c.In[0].Shape())
	if err != nil {
		return nil, err
	}
	shape := natural
	if c.Has(2) {
		v, ok := c.ConstInts(2)
		if !ok || len(v) != len(natural) {
			return nil, fmt.Errorf("output_shape is %v, wants %d integers", c.In[2].Type(), len(natural))
		}
		shape = make([]int, len(v))
		for i, d := range v {
			shape[i] = int(d)
		}
	}
	out, err := c.New(c.In[0].Elem(), shape...)
	if err != nil {
		return nil, err
	}
	if c.In[1].Elem() != ir.Int64 || c.In[1].Len() != c.In[0].Len() {
		return nil, fmt.Errorf("indices are %v, want int64 of the shape of the input %v", c.In[1].Type(), c.In[0].Type())
	}
	y, total := ir.Data[T](out), product(natural)
	clear(y)
	at := ir.Data[int64](c.In[1])
	for i, v := range ir.Data[T](c.In[0]) {
		if at[i] < 0 || int(at[i]) >= total {
			return nil, fmt.Errorf("index %d is outside [0, %d)", at[i], total)
		}
		// an index counts elements of the smallest shape that pools to the input's
		rest, to, step := int(at[i]), 0, 1
		for d := len(shape) - 1; d >= 0; d-- {
			pos := rest % natural[d]
			rest /= natural[d]
			if pos >= shape[d] {
				return nil, fmt.Errorf("index %d lies outside the output shape %v", at[i], shape)
			}
			to += pos * step
			step *= shape[d]
		}
		y[to] = v
	}
	return []*ir.Tensor{out}, nil
}
