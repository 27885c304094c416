package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

// QLinear operators that move or pool codes.

// channelsFirst returns 8-bit codes [N, D1, …, C] as [N, C, D1, …].
func channelsFirst(x *ir.Tensor) *ir.Tensor {
	s := x.Shape()
	n, ch := s[0], s[len(s)-1]
	size := product(s[1 : len(s)-1])
	out := ir.NewTensor(x.Elem(), append([]int{n, ch}, s[1:len(s)-1]...)...)
	src, dst := x.Bytes(), out.Bytes()
	for b := range n {
		for p := range size {
			for k := range ch {
				dst[(b*ch+k)*size+p] = src[(b*size+p)*ch+k]
			}
		}
	}
	return out
}

// channelsLast is the inverse of channelsFirst on results.
func channelsLast(c *Call, x *ir.Tensor) ([]*ir.Tensor, error) {
	s := x.Shape()
	n, ch := s[0], s[1]
	size := product(s[2:])
	out, err := c.New(x.Elem(), append(append([]int{n}, s[2:]...), ch)...)
	if err != nil {
		return nil, err
	}
	src, dst := x.Bytes(), out.Bytes()
	for b := range n {
		for k := range ch {
			for p := range size {
				dst[(b*size+p)*ch+k] = src[(b*ch+k)*size+p]
			}
		}
	}
	return []*ir.Tensor{out}, nil
}

// movedChannels returns dims [N, C, D1, …] as [N, D1, …, C] and back.
func movedChannels(dims []ir.Dim, last bool) []ir.Dim {
	k := len(dims)
	out := append([]ir.Dim{}, dims...)
	if last {
		copy(out[1:], dims[2:])
		out[k-1] = dims[1]
	} else {
		copy(out[2:], dims[1:k-1])
		out[1] = dims[k-1]
	}
	return out
}

// inferQPool infers a pooling of codes that may have its channels last.
func inferQPool(c *Call, shape func(n *ir.Node, dims []ir.Dim) ([]ir.Dim, error)) ([]ir.Type, error) {
	x := c.Type(0)
	if !x.Ranked {
		return unranked(x.Elem), nil
	}
	if _, err := spatialRank(x, "the input"); err != nil {
		return nil, err
	}
	last := c.Node.Int("channels_last", 0) != 0
	dims := x.Dims
	if last {
		dims = movedChannels(dims, false)
	}
	out, err := shape(c.Node, dims)
	if err != nil {
		return nil, err
	}
	if last {
		out = movedChannels(out, true)
	}
	return typed(x.Elem, out), nil
}

// evalQPool pools codes: pool turns decoded planes into the pooled ones and their shape.
func evalQPool(c *Call, pool func(n *ir.Node, shape []int, x []float32) ([]float32, []int, error)) ([]*ir.Tensor, error) {
	x := c.In[0]
	if err := codes8(x, "X"); err != nil {
		return nil, err
	}
	if _, err := spatialRank(x.Type(), "the input"); err != nil {
		return nil, err
	}
	from, err := affineOf(c, 1, 2, x.Elem(), "X")
	if err != nil {
		return nil, err
	}
	to, err := affineOf(c, 3, 4, x.Elem(), "Y")
	if err != nil {
		return nil, err
	}
	last := c.Node.Int("channels_last", 0) != 0
	if last {
		x = channelsFirst(x)
	}
	v, shape, err := pool(c.Node, x.Shape(), from.floats(x))
	if err != nil {
		return nil, err
	}
	out, err := to.encode(c, v, x.Elem(), shape)
	if err != nil || !last {
		return out, err
	}
	return channelsLast(c, out[0])
}

var qLinearGlobalAveragePoolDef = &Def{
	Domain: Microsoft, Name: "QLinearGlobalAveragePool", Doc: "the mean over all spatial axes of a quantized tensor, quantized", Since: 1,
	Versions: []int{1}, Types: "int8, uint8", In: Exactly(5), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		return inferQPool(c, func(_ *ir.Node, dims []ir.Dim) ([]ir.Dim, error) {
			out := append([]ir.Dim{}, dims...)
			for i := range out[2:] {
				out[i+2] = ir.FixedDim(1)
			}
			return out, nil
		})
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalQPool(c, func(_ *ir.Node, shape []int, x []float32) ([]float32, []int, error) {
			out := append([]int{}, shape...)
			for i := range out[2:] {
				out[i+2] = 1
			}
			size := product(shape[2:])
			if size == 0 {
				return nil, nil, fmt.Errorf("the mean of %v has no elements", shape)
			}
			v := make([]float32, shape[0]*shape[1])
			for i := range v {
				v[i] = float32(mean(x[i*size : (i+1)*size]))
			}
			return v, out, nil
		})
	},
}

var qLinearAveragePoolDef = &Def{
	Domain: Microsoft, Name: "QLinearAveragePool", Doc: "the mean of each window of a quantized tensor, quantized", Since: 1,
	Versions: []int{1}, Types: "int8, uint8", In: Between(4, 5), Optional: []int{2}, Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		return inferQPool(c, func(n *ir.Node, dims []ir.Dim) ([]ir.Dim, error) {
			w, err := windowOf(n, len(dims)-2, nil)
			if err != nil {
				return nil, err
			}
			out, err := w.dims(dims[2:])
			return append(append([]ir.Dim{}, dims[:2]...), out...), err
		})
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalQPool(c, func(n *ir.Node, shape []int, x []float32) ([]float32, []int, error) {
			w, err := windowOf(n, len(shape)-2, nil)
			if err != nil {
				return nil, nil, err
			}
			p := &pooling{w: w, in: shape[2:], planes: shape[0] * shape[1]}
			if p.out, err = w.fit(p.in); err != nil {
				return nil, nil, err
			}
			out := append(append([]int{}, shape[:2]...), p.out...)
			if _, err := ir.Numel(out); err != nil {
				return nil, nil, err
			}
			probe, err := c.New(ir.Float32, out...) // holds the pooled planes within the memory limit
			if err != nil {
				return nil, nil, err
			}
			v := ir.Data[float32](probe)
			counts := p.counts(n.Int("count_include_pad", 0) != 0)
			size, result := product(p.in), product(p.out)
			position := make([]int, len(p.out))
			for i := range v {
				for d, rest := len(p.out)-1, i%result; d >= 0; d-- {
					position[d] = rest % p.out[d]
					rest /= p.out[d]
				}
				v[i] = p.sum(x[i/result*size:][:size], position) / float32(max(counts[i%result], 1))
			}
			return v, out, nil
		})
	},
}

// sum adds the elements of a plane under the window of one output position, one after the other in the plane's order.
func (p *pooling) sum(plane []float32, position []int) float32 {
	lo, hi, start := make([]int, len(position)), make([]int, len(position)), make([]int, len(position))
	for i, o := range position {
		if lo[i], hi[i], start[i] = p.w.taps(i, o, p.in[i]); lo[i] >= hi[i] {
			return 0
		}
	}
	s, tap := float32(0), append([]int{}, lo...)
	for {
		at := 0
		for i, k := range tap {
			at = at*p.in[i] + start[i] + k*p.w.dilation[i]
		}
		s += plane[at]
		d := len(tap) - 1
		for ; d >= 0; d-- {
			if tap[d]++; tap[d] < hi[d] {
				break
			}
			tap[d] = lo[d]
		}
		if d < 0 {
			return s
		}
	}
}

var qLinearConcatDef = &Def{
	Domain: Microsoft, Name: "QLinearConcat", Doc: "quantized tensors joined along an axis, quantized alike", Since: 1,
	Versions: []int{1}, Types: "int8, uint8", In: AtLeast(5), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		elem := c.Type(1).Elem
		if (c.Node.NumIn()-2)%3 != 0 {
			return nil, fmt.Errorf("has %d inputs, wants 2 and then 3 for each tensor", c.Node.NumIn())
		}
		var dims []ir.Dim
		for i := 2; i < c.Node.NumIn(); i += 3 {
			t := c.Type(i)
			if !t.Ranked {
				return unranked(elem), nil
			}
			axis, err := Axis(c.Node.Int("axis", 0), len(t.Dims))
			if err != nil {
				return nil, err
			}
			if dims == nil {
				dims = cloneDims(t.Dims)
				continue
			}
			if len(t.Dims) != len(dims) {
				return nil, fmt.Errorf("input %d is %v, input 2 has rank %d", i, t, len(dims))
			}
			dims[axis] = addDims(dims[axis], t.Dims[axis])
		}
		return typed(elem, dims), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		if len(c.In) < 5 || (len(c.In)-2)%3 != 0 {
			return nil, fmt.Errorf("has %d inputs, wants 2 and then 3 for each tensor", len(c.In))
		}
		elem := c.In[1].Elem()
		to, err := affineOf(c, 0, 1, elem, "Y")
		if err != nil {
			return nil, err
		}
		lowest, highest, ok := codeRange(elem)
		if !ok {
			return nil, badType(c, 1)
		}
		var shape []int
		axis := 0
		for i := 2; i < len(c.In); i += 3 {
			if c.In[i] == nil {
				return nil, fmt.Errorf("input %d is absent", i)
			}
			if err := codes8(c.In[i], fmt.Sprintf("input %d", i)); err != nil {
				return nil, err
			}
			s := c.In[i].Shape()
			if axis, err = Axis(c.Node.Int("axis", 0), len(s)); err != nil {
				return nil, err
			}
			if shape == nil {
				shape = append([]int{}, s...)
				continue
			}
			for d := range max(len(s), len(shape)) {
				if len(s) != len(shape) || d != axis && s[d] != shape[d] {
					return nil, fmt.Errorf("input %d has shape %v, which does not join %v along axis %d", i, s, shape, axis)
				}
			}
			shape[axis] += s[axis]
		}
		out, err := c.New(elem, shape...)
		if err != nil {
			return nil, err
		}
		dst := out.Bytes()
		outer, inner := product(shape[:axis]), product(shape[axis+1:])
		at := 0
		for i := 2; i < len(c.In); i += 3 {
			x := c.In[i]
			from, err := affineOf(c, i+1, i+2, x.Elem(), fmt.Sprintf("input %d", i))
			if err != nil {
				return nil, err
			}
			var table [256]byte
			for k, v := range from.table(x.Elem()) {
				table[k] = byte(int32(rounded(v/to.scale, to.zero, lowest, highest)))
				if from == to && x.Elem() == elem {
					table[k] = byte(k)
				}
			}
			run := x.Shape()[axis] * inner
			src := x.Bytes()
			for o := range outer {
				for k, b := range src[o*run : (o+1)*run] {
					dst[o*shape[axis]*inner+at+k] = table[b]
				}
			}
			at += run
		}
		return []*ir.Tensor{out}, nil
	},
}
