package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

var gridSampleDef = &Def{
	Name: "GridSample", Doc: "its input sampled at the places a grid names, from -1 to 1 along each axis", Since: 16,
	Versions: []int{16, 20, 22}, Types: "float, double, float16, bfloat16",
	In: Exactly(2), Out: Exactly(1), Widen: true,
	Upgrades: []Upgrade{{To: 20, Apply: func(u *Up) error {
		switch u.Node.Str("mode", "bilinear") {
		case "bilinear":
			u.Node.SetAttr(ir.StringAttr("mode", "linear"))
		case "bicubic":
			u.Node.SetAttr(ir.StringAttr("mode", "cubic"))
		}
		return nil
	}}},
	Infer: func(c *Call) ([]ir.Type, error) {
		x, grid := c.Type(0), c.Type(1)
		rank := max(x.Rank(), grid.Rank())
		if rank < 0 {
			return unranked(x.Elem), nil
		}
		if rank < 3 || x.Ranked && grid.Ranked && len(x.Dims) != len(grid.Dims) {
			return nil, fmt.Errorf("input %v and grid %v want the same rank, of at least 3", x, grid)
		}
		dims := unknownDims(rank)
		if x.Ranked {
			copy(dims, cloneDims(x.Dims[:2]))
		}
		if grid.Ranked {
			copy(dims[2:], cloneDims(grid.Dims[1:rank-1]))
			if d := grid.Dims[rank-1]; d.Known() && d.Size != int64(rank-2) {
				return nil, fmt.Errorf("grid %v wants coordinates of %d numbers", grid, rank-2)
			}
		}
		return typed(x.Elem, dims), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x, grid := c.In[0], c.In[1]
		s, g := x.Shape(), grid.Shape()
		r := len(s) - 2
		if r < 1 || len(g) != r+2 || g[0] != s[0] || g[r+1] != r {
			return nil, fmt.Errorf("input of shape %v and grid of shape %v do not fit", s, g)
		}
		if r > maxSampled {
			return nil, fmt.Errorf("input of shape %v: sampling along %d axes, more than %d: %w", s, r, maxSampled, ErrUnsupported)
		}
		for _, d := range s[2:] {
			if d == 0 && grid.Len() > 0 {
				return nil, fmt.Errorf("input of shape %v has nothing to sample", s)
			}
		}
		sm := &sampler{
			mode: c.Node.Str("mode", "linear"), padding: c.Node.Str("padding_mode", "zeros"),
			corners: c.Node.Int("align_corners", 0) != 0, size: s[2:], strides: stridesOf(s[2:]),
		}
		switch sm.mode {
		case "linear", "nearest", "cubic":
		default:
			return nil, fmt.Errorf("mode %q is not one of linear, nearest, cubic", sm.mode)
		}
		switch sm.padding {
		case "zeros", "border", "reflection":
		default:
			return nil, fmt.Errorf("padding_mode %q is not one of zeros, border, reflection", sm.padding)
		}
		at, err := float64s(grid)
		if err != nil {
			return nil, err
		}
		out, err := c.New(x.Elem(), append([]int{s[0], s[1]}, g[1:r+1]...)...)
		if err != nil {
			return nil, err
		}
		switch x.Elem() {
		case ir.Float32:
			gridSample(sm, ir.Data[float32](out), ir.Data[float32](x), at, s[0], s[1])
		case ir.Float64:
			gridSample(sm, ir.Data[float64](out), ir.Data[float64](x), at, s[0], s[1])
		default:
			return nil, fmt.Errorf("type %v: %w", x.Elem(), ErrUnsupported)
		}
		return []*ir.Tensor{out}, nil
	},
}

// maxSampled bounds the axes that are read between elements: a place has 2 or 4 neighbours to the power of their number.
const maxSampled = 8

// sampler finds the elements of an image of the given size that a place is made of.
type sampler struct {
	mode, padding string
	corners       bool
	size, strides []int
}

func gridSample[T float32 | float64](sm *sampler, out, x []T, grid []float64, batch, channels int) {
	if len(grid) == 0 || batch == 0 {
		return
	}
	r := len(sm.size)
	plane, places := product(sm.size), len(grid)/r/batch
	par.For(batch*places, max(1, 1<<10/max(channels, 1)), func(lo, hi int) {
		var off []int
		var wt []float64
		for q := lo; q < hi; q++ {
			off, wt = sm.gather(off[:0], wt[:0], grid[q*r:(q+1)*r])
			b, p := q/places, q%places
			for c := range channels {
				from, sum := x[(b*channels+c)*plane:], 0.0
				for k, o := range off {
					sum += float64(wt[k] * float64(from[o]))
				}
				out[(b*channels+c)*places+p] = T(sum)
			}
		}
	})
}

// gather appends the offsets and weights of the elements that make up the place at, whose first number is the last axis's.
func (sm *sampler) gather(off []int, wt []float64, at []float64) ([]int, []float64) {
	off, wt = append(off, 0), append(wt, 1)
	for axis := range sm.size {
		n := sm.size[axis]
		x := sm.coordinate(at[len(at)-1-axis], n)
		var first, taps int
		var w [4]float64
		switch sm.mode {
		case "nearest":
			first, taps, w[0] = int(x), 1, 1
		case "linear":
			f := math.Floor(x)
			first, taps = int(f), 2
			w[0], w[1] = 1-(x-f), x-f
		default:
			f := math.Floor(x)
			first, taps = int(f)-1, 4
			for k := range w {
				w[k] = cubicWeight(math.Abs(float64(k-1)-(x-f)), -0.75)
			}
		}
		have := len(off)
		for k := range taps {
			i, ok := sm.index(first+k, n)
			if !ok || w[k] == 0 {
				continue
			}
			for j := range have {
				off = append(off, off[j]+i*sm.strides[axis])
				wt = append(wt, wt[j]*w[k])
			}
		}
		off = off[:copy(off, off[have:])]
		wt = wt[:copy(wt, wt[have:])]
	}
	return off, wt
}

// coordinate turns a grid number into a place on an axis of n elements.
func (sm *sampler) coordinate(g float64, n int) float64 {
	lo, hi := -0.5, float64(n)-0.5
	x := ((g+1)*float64(n) - 1) / 2
	if sm.corners {
		lo, hi = 0, float64(n-1)
		x = (g + 1) / 2 * hi
	}
	if x != x {
		x = -1
	}
	x = min(max(x, -1<<40), 1<<40)
	if sm.mode == "nearest" {
		x = math.RoundToEven(x)
	}
	if x < lo || x > hi {
		switch sm.padding {
		case "border":
			x = min(max(x, 0), float64(n-1))
		case "reflection":
			x = reflect(x, lo, hi)
		}
	}
	return x
}

// reflect folds x into [lo, hi] at both borders.
func reflect(x, lo, hi float64) float64 {
	span := hi - lo
	if span <= 0 {
		return lo
	}
	d := math.Mod(math.Abs(x-lo), 2*span)
	if d > span {
		d = 2*span - d
	}
	return lo + d
}

// index returns the element that index i, perhaps outside, stands for.
func (sm *sampler) index(i, n int) (int, bool) {
	if i >= 0 && i < n {
		return i, true
	}
	switch sm.padding {
	case "border":
		return min(max(i, 0), n-1), true
	case "reflection":
		lo, hi := -0.5, float64(n)-0.5
		if sm.corners {
			lo, hi = 0, float64(n-1)
		}
		return min(max(int(reflect(float64(i), lo, hi)), 0), n-1), true
	}
	return 0, false
}

var roiAlignDef = &Def{
	Name: "RoiAlign", Doc: "regions of its input pooled to one size by bilinear samples", Since: 10, Versions: []int{10, 16, 22},
	Types: "float, double, float16, bfloat16",
	In:    Exactly(3), Out: Exactly(1), Widen: true,
	Upgrades: []Upgrade{{To: 16, Apply: func(u *Up) error {
		u.Node.SetAttr(ir.StringAttr("coordinate_transformation_mode", "output_half_pixel"))
		return nil
	}}},
	Infer: func(c *Call) ([]ir.Type, error) {
		x, rois := c.Type(0), c.Type(1)
		dims := []ir.Dim{rois.Dim(0), x.Dim(1), {Size: c.Node.Int("output_height", 1)}, {Size: c.Node.Int("output_width", 1)}}
		if dims[2].Size < 0 || dims[3].Size < 0 {
			return nil, fmt.Errorf("output size %d by %d", dims[2].Size, dims[3].Size)
		}
		return typed(x.Elem, cloneDims(dims)), nil
	},
	Eval: evalRoiAlign,
}

func evalRoiAlign(c *Call) ([]*ir.Tensor, error) {
	s, rs := c.In[0].Shape(), c.In[1].Shape()
	if len(s) != 4 || len(rs) != 2 || rs[1] != 4 || c.In[2].Len() != rs[0] {
		return nil, fmt.Errorf("input of shape %v, rois %v and %d batch indices do not fit", s, rs, c.In[2].Len())
	}
	x, err := float64s(c.In[0])
	if err != nil {
		return nil, err
	}
	rois, err := float64s(c.In[1])
	if err != nil {
		return nil, err
	}
	at, err := indices(c, 2, s[0])
	if err != nil {
		return nil, err
	}
	mode := c.Node.Str("mode", "avg")
	if mode != "avg" && mode != "max" {
		return nil, fmt.Errorf("mode %q is not one of avg, max", mode)
	}
	oh, ow := int(c.Node.Int("output_height", 1)), int(c.Node.Int("output_width", 1))
	shape := []int{rs[0], s[1], oh, ow}
	out, err := c.New(c.In[0].Elem(), shape...)
	if err != nil || out.Len() == 0 {
		return []*ir.Tensor{out}, err
	}
	h, w := s[2], s[3]
	scale := float64(c.Node.Float("spatial_scale", 1))
	shift, least := 0.5, 0.0
	if c.Node.Str("coordinate_transformation_mode", "half_pixel") == "output_half_pixel" {
		shift, least = 0, 1
	}
	ratio := c.Node.Int("sampling_ratio", 0)
	if ratio < 0 || ratio > 1<<12 {
		return nil, fmt.Errorf("sampling_ratio is %d", ratio)
	}
	if err := c.room(8, shape...); err != nil {
		return nil, err
	}
	res, work := make([]float64, product(shape)), 0
	for r, b := range at {
		x1, y1 := rois[4*r]*scale-shift, rois[4*r+1]*scale-shift
		rw, rh := max(rois[4*r+2]*scale-shift-x1, least), max(rois[4*r+3]*scale-shift-y1, least)
		bw, bh := rw/float64(ow), rh/float64(oh)
		if !(math.Abs(x1) <= maxCoordinate && math.Abs(y1) <= maxCoordinate && bw <= maxCoordinate && bh <= maxCoordinate) ||
			ratio == 0 && max(bw, bh) > 1<<12 {
			return nil, fmt.Errorf("region %d, %v at scale %v, is not finite or too large", r, rois[4*r:4*r+4], scale)
		}
		gw, gh := int(ratio), int(ratio)
		if ratio == 0 {
			gw, gh = int(max(math.Ceil(bw), 0)), int(max(math.Ceil(bh), 0))
		}
		for ch := range s[1] {
			plane := x[(b*s[1]+ch)*h*w:][:h*w]
			for p := range oh * ow {
				if work += gw * gh; work >= 1<<20 {
					if work = 0; c.Context().Err() != nil {
						return nil, c.Context().Err()
					}
				}
				sum, most := 0.0, math.Inf(-1)
				for iy := range gh {
					y := y1 + float64(p/ow)*bh + (float64(iy)+0.5)*bh/float64(gh)
					for ix := range gw {
						v, m := bilinear(plane, h, w, y, x1+float64(p%ow)*bw+(float64(ix)+0.5)*bw/float64(gw))
						sum += v
						most = max(most, m)
					}
				}
				o := ((r*s[1]+ch)*oh)*ow + p
				if res[o] = sum / float64(max(gw*gh, 1)); mode == "max" {
					if res[o] = most; gw*gh == 0 {
						res[o] = 0
					}
				}
			}
		}
	}
	switch out.Elem() {
	case ir.Float32:
		v := ir.Data[float32](out)
		for i, x := range res {
			v[i] = float32(x)
		}
	default:
		copy(ir.Data[float64](out), res)
	}
	return []*ir.Tensor{out}, nil
}

// bilinear returns the interpolated value at (y, x), 0 farther than one outside, and the largest of the four weighted
// neighbours, which is what mode max pools (as ONNX's reference results do).
func bilinear(plane []float64, h, w int, y, x float64) (value, most float64) {
	if y < -1 || y > float64(h) || x < -1 || x > float64(w) || h == 0 || w == 0 {
		return 0, 0
	}
	low := func(v float64, n int) (lo, hi int, frac float64) {
		v = max(v, 0)
		if lo = int(v); lo >= n-1 {
			return n - 1, n - 1, 0
		}
		return lo, lo + 1, v - float64(lo)
	}
	y0, y1, fy := low(y, h)
	x0, x1, fx := low(x, w)
	a, b := (1-fy)*(1-fx)*plane[y0*w+x0], (1-fy)*fx*plane[y0*w+x1]
	c, d := fy*(1-fx)*plane[y1*w+x0], fy*fx*plane[y1*w+x1]
	return a + b + c + d, max(a, b, c, d)
}
