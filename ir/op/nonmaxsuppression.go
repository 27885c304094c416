package op

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
)

var nonMaxSuppressionDef = &Def{
	Name: "NonMaxSuppression", Doc: "the boxes of each class by falling score that overlap no better one too much", Since: 10,
	Versions: []int{10, 11}, Types: "float",
	In: Between(2, 5), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		return typed(ir.Int64, []ir.Dim{ir.UnknownDim, ir.FixedDim(3)}), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		bs, ss := c.In[0].Shape(), c.In[1].Shape()
		if len(bs) != 3 || len(ss) != 3 || bs[2] != 4 || bs[0] != ss[0] || bs[1] != ss[2] {
			return nil, fmt.Errorf("boxes of shape %v and scores of shape %v do not fit", bs, ss)
		}
		boxes, ok1 := c.In[0].Float32s()
		scores, ok2 := c.In[1].Float32s()
		if !ok1 || !ok2 {
			return nil, fmt.Errorf("boxes %v and scores %v: %w", c.In[0].Type(), c.In[1].Type(), ErrUnsupported)
		}
		limit := int64(0)
		if c.Has(2) {
			var err error
			if limit, err = oneNumber(c.In[2], "max_output_boxes_per_class"); err != nil {
				return nil, err
			}
		}
		var thresholds [2]float32
		for i := range thresholds {
			if !c.Has(i + 3) {
				continue
			}
			v, ok := c.In[i+3].Float32s()
			if !ok || len(v) != 1 {
				return nil, fmt.Errorf("input %d is %v, wants one float", i+3, c.In[i+3].Type())
			}
			thresholds[i] = v[0]
		}
		center := c.Node.Int("center_point_box", 0) != 0
		n := bs[1]
		rect := make([][4]float32, len(boxes)/4) // y1 x1 y2 x2 in order
		for i := range rect {
			rect[i] = corners(boxes[4*i:4*i+4], center)
		}
		var out []int64
		for b := range len(scores) / max(ss[1]*n, 1) {
			if err := c.Context().Err(); err != nil {
				return nil, err
			}
			for k := range ss[1] {
				score := scores[(b*ss[1]+k)*n:][:n]
				var order []int
				for i, s := range score {
					if !c.Has(4) || s > thresholds[1] {
						order = append(order, i)
					}
				}
				slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(score[j], score[i]) })
				var chosen []int
				for place, i := range order {
					if int64(len(chosen)) >= limit {
						break
					}
					if err := c.Context().Err(); place%64 == 0 && err != nil {
						return nil, err
					}
					if !slices.ContainsFunc(chosen, func(j int) bool { return overlap(rect[b*n+i], rect[b*n+j]) > thresholds[0] }) {
						chosen = append(chosen, i)
						out = append(out, int64(b), int64(k), int64(i))
					}
				}
			}
		}
		return []*ir.Tensor{ir.FromSlice(ir.Int64, []int{len(out) / 3, 3}, out)}, nil
	},
}

func corners(b []float32, center bool) [4]float32 {
	if center { // x, y, width, height
		return [4]float32{b[1] - b[3]/2, b[0] - b[2]/2, b[1] + b[3]/2, b[0] + b[2]/2}
	}
	return [4]float32{min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])}
}

// overlap returns intersection over union, 0 for boxes without area.
func overlap(a, b [4]float32) float32 {
	h, w := min(a[2], b[2])-max(a[0], b[0]), min(a[3], b[3])-max(a[1], b[1])
	if h <= 0 || w <= 0 {
		return 0
	}
	area := (a[2]-a[0])*(a[3]-a[1]) + (b[2]-b[0])*(b[3]-b[1])
	inter := float32(h * w)
	if union := area - inter; union > 0 {
		return inter / union
	}
	return 0
}

var col2ImDef = &Def{
	Name: "Col2Im", Doc: "an image of which its input holds the sliding blocks; where they overlap they add up", Since: 18, Versions: []int{18},
	Types: "float, double, float16, bfloat16, integers from 8 bits",
	In:    Exactly(3), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		image, ok := c.Dims(1)
		if !ok {
			return unranked(x.Elem), nil
		}
		dims := []ir.Dim{x.Dim(0), ir.UnknownDim}
		if block, ok := inputInts(c, 2); ok && x.Dim(1).Known() {
			n := int64(1)
			for _, b := range block {
				if b < 1 || n > ir.MaxElements/b {
					return nil, fmt.Errorf("block %v", block)
				}
				n *= b
			}
			dims[1] = ir.Dim{Size: x.Dim(1).Size / n}
		}
		image, err := sizeDims(image)
		if err != nil {
			return nil, err
		}
		return typed(x.Elem, append(cloneDims(dims), image...)), nil
	},
	Eval: evalCol2Im,
}

func evalCol2Im(c *Call) ([]*ir.Tensor, error) {
	x := c.In[0]
	lists := make([][]int, 2)
	for i := range lists {
		v, err := needInts(c, i+1, "shape")
		if err != nil {
			return nil, err
		}
		if lists[i], err = toShape(v); err != nil {
			return nil, err
		}
	}
	image, block := lists[0], lists[1]
	r := len(image)
	attr := func(name string, n int, def int64) []int64 {
		if v := c.Node.Ints(name); v != nil {
			return v
		}
		v := make([]int64, n)
		fillValues(v, def)
		return v
	}
	stride, dilation, pads := attr("strides", r, 1), attr("dilations", r, 1), attr("pads", 2*r, 0)
	s := x.Shape()
	if len(s) != 3 || r == 0 || len(block) != r || len(stride) != r || len(dilation) != r || len(pads) != 2*r {
		return nil, fmt.Errorf("input of shape %v, image %v, block %v, %d strides, %d dilations, %d pads do not fit", s, image, block,
			len(stride), len(dilation), len(pads))
	}
	per := product(block)
	places := make([]int, r)
	for i := range r {
		for _, v := range []int64{stride[i], dilation[i], pads[i], pads[i+r], int64(block[i])} {
			if v > maxWindow {
				return nil, fmt.Errorf("block %v with strides %v, dilations %v and pads %v: wants numbers up to %d", block, stride, dilation, pads, maxWindow)
			}
		}
		span := int64(image[i]) + pads[i] + pads[i+r] - dilation[i]*(int64(block[i])-1) - 1
		if stride[i] < 1 || dilation[i] < 1 || pads[i] < 0 || pads[i+r] < 0 || block[i] < 1 || span < 0 || span > ir.MaxElements {
			return nil, fmt.Errorf("a block %v with strides %v, dilations %v and pads %v does not fit an image %v", block, stride, dilation, pads, image)
		}
		places[i] = int(span/stride[i]) + 1
	}
	if blocks, err := ir.Numel(places); err != nil || s[1]%per != 0 || s[2] != blocks {
		return nil, fmt.Errorf("input of shape %v, wants a multiple of %d by the blocks' places %v", s, per, places)
	}
	shape := append([]int{s[0], s[1] / per}, image...)
	out, err := c.New(x.Elem(), shape...)
	if err != nil {
		return nil, err
	}
	if x.Len() == 0 { // the block may be astronomical
		clear(out.Bytes())
		return []*ir.Tensor{out}, nil
	}
	// target[k*L+l] is the place in an image of element k of block l, -1 outside
	target := make([]int, per*s[2])
	bs, ps, is := stridesOf(block), stridesOf(places), stridesOf(image)
	for t := range target {
		k, l := t/s[2], t%s[2]
		for d := range r {
			i := l/ps[d]%places[d]*int(stride[d]) + k/bs[d]%block[d]*int(dilation[d]) - int(pads[d])
			if i < 0 || i >= image[d] {
				target[t] = -1
				break
			}
			target[t] += i * is[d]
		}
	}
	size := product(image)
	switch x.Elem() {
	case ir.Float32:
		addBlocks(ir.Data[float32](out), ir.Data[float32](x), target, size)
	case ir.Float64:
		addBlocks(ir.Data[float64](out), ir.Data[float64](x), target, size)
	case ir.Int8:
		addBlocks(ir.Data[int8](out), ir.Data[int8](x), target, size)
	case ir.Int16:
		addBlocks(ir.Data[int16](out), ir.Data[int16](x), target, size)
	case ir.Int32:
		addBlocks(ir.Data[int32](out), ir.Data[int32](x), target, size)
	case ir.Int64:
		addBlocks(ir.Data[int64](out), ir.Data[int64](x), target, size)
	case ir.Uint8:
		addBlocks(ir.Data[uint8](out), ir.Data[uint8](x), target, size)
	default:
		return nil, fmt.Errorf("type %v: %w", x.Elem(), ErrUnsupported)
	}
	return []*ir.Tensor{out}, nil
}

func addBlocks[T number](out, x []T, target []int, size int) {
	clear(out)
	for i := 0; len(target) > 0 && i < len(x)/len(target); i++ {
		img := out[i*size : (i+1)*size]
		for t, v := range x[i*len(target) : (i+1)*len(target)] {
			if p := target[t]; p >= 0 {
				img[p] += v
			}
		}
	}
}
