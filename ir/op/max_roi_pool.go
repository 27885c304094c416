package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
)

var maxRoiPoolDef = &Def{
	Name: "MaxRoiPool", Doc: "the maximum in each cell of a grid laid over each region", Since: 1, Versions: []int{1, 22},
	Types: "float, double, float16, bfloat16", In: Exactly(2), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		s, err := spatial(c.Node, "pooled_shape", 2, 0, 1)
		if err != nil {
			return nil, err
		}
		return []ir.Type{ir.TensorType(c.Type(0).Elem, c.Type(1).Dim(0), c.Type(0).Dim(1), ir.FixedDim(s[0]), ir.FixedDim(s[1]))}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalFloat(c, []int{1}, maxRoiPool[float32], maxRoiPool[float64])
	},
}

// maxCoordinate bounds the places in an image that regions may name, so that they are whole numbers without loss.
const maxCoordinate = 1 << 40

// maxRoiPool follows Fast R-CNN (arXiv:1504.08083, §2.1): corners are rounded to elements, cells may overlap by one, and an
// empty cell gives zero.
func maxRoiPool[T floatElem](c *Call) ([]*ir.Tensor, error) {
	xs, rs := c.In[0].Shape(), c.In[1].Shape()
	if len(xs) != 4 || len(rs) != 2 || rs[1] != 5 {
		return nil, fmt.Errorf("input %v and regions %v: want [N, C, H, W] and [regions, 5]", xs, rs)
	}
	grid, err := spatial(c.Node, "pooled_shape", 2, 0, 1)
	if err != nil {
		return nil, err
	}
	scale := float64(c.Node.Float("spatial_scale", 1))
	out, err := c.New(c.In[0].Elem(), rs[0], xs[1], grid[0], grid[1])
	if err != nil {
		return nil, err
	}
	x, regions, y := ir.Data[T](c.In[0]), ir.Data[T](c.In[1]), ir.Data[T](out)
	for r := range rs[0] {
		roi := regions[r*5 : r*5+5]
		if !(roi[0] >= 0 && roi[0] < T(xs[0])) {
			return nil, fmt.Errorf("region %d is of image %v, there are %d", r, roi[0], xs[0])
		}
		for _, v := range roi[1:] {
			if p := float64(v) * scale; !(math.Abs(p) <= maxCoordinate) {
				return nil, fmt.Errorf("region %d is %v at scale %v, wants finite corners of at most %d", r, roi[1:], scale, int64(maxCoordinate))
			}
		}
		image := int(roi[0])
		// bounds of cell i along an axis of the given size
		cell := func(from, to T, i, cells, size int) (lo, hi int) {
			a, b := math.Round(float64(from)*scale), math.Round(float64(to)*scale)
			step := max(b-a+1, 1) / float64(cells)
			limit := func(v float64) int { return int(min(max(v+a, 0), float64(size))) }
			return limit(math.Floor(float64(i) * step)), limit(math.Ceil(float64(i+1) * step))
		}
		for ch := range xs[1] {
			plane := x[(image*xs[1]+ch)*xs[2]*xs[3]:]
			for i := range grid[0] {
				y0, y1 := cell(roi[2], roi[4], i, grid[0], xs[2])
				for j := range grid[1] {
					x0, x1 := cell(roi[1], roi[3], j, grid[1], xs[3])
					var top T
					for py := y0; py < y1; py++ {
						for px := x0; px < x1; px++ {
							if v := plane[py*xs[3]+px]; py == y0 && px == x0 || v > top {
								top = v
							}
						}
					}
					y[((r*xs[1]+ch)*grid[0]+i)*grid[1]+j] = top
				}
			}
		}
	}
	return []*ir.Tensor{out}, nil
}
