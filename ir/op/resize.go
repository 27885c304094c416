package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
)

var resizeDef = &Def{
	Name: "Resize", Doc: "its input scaled along axes by nearest, linear or cubic interpolation", Since: 10,
	Versions: []int{10, 11, 13, 18, 19}, Types: "nearest: all; linear and cubic: float, double, float16, bfloat16, integers from 8 bits",
	In: Between(1, 4), Out: Exactly(1), Upgrades: []Upgrade{{To: 11, Apply: upgradeResize}},
	Infer: inferResize,
	Eval:  evalResize,
}

var upsampleDef = &Def{
	Name: "Upsample", Doc: "Resize under its first name", Since: 1, Versions: []int{1, 7, 9, 10}, Types: "as Resize",
	In: Between(1, 2), Out: Exactly(1),
	// From opset 10 on there is no such operator: a file that has it nevertheless is kept, and cannot be run.
	Infer: func(c *Call) ([]ir.Type, error) {
		if x := c.Type(0); x.Ranked {
			return typed(x.Elem, unknownDims(len(x.Dims))), nil
		}
		return unranked(c.Type(0).Elem), nil
	},
	Upgrades: []Upgrade{
		{To: 7, Apply: func(u *Up) error {
			n := u.Node
			n.SetAttr(ir.FloatsAttr("scales", 1, 1, n.Float("height_scale", 1), n.Float("width_scale", 1)))
			n.DelAttr("height_scale")
			n.DelAttr("width_scale")
			if n.Str("mode", "") == "bilinear" {
				n.SetAttr(ir.StringAttr("mode", "linear"))
			}
			return nil
		}},
		{To: 9, Apply: func(u *Up) error {
			s := u.Node.Floats("scales")
			if s == nil {
				return fmt.Errorf("attribute scales is missing")
			}
			u.Node.SetIn(1, u.Const("scales", ir.Floats(s, len(s))))
			u.Node.DelAttr("scales")
			return nil
		}},
		{To: 10, Apply: func(u *Up) error {
			mode := u.Node.Str("mode", "nearest")
			if mode == "bilinear" {
				mode = "linear"
			}
			return u.Replace("Resize", u.Node.Ins(), ir.StringAttr("mode", mode))
		}},
	},
}

// upgradeResize says what opset 10 meant: coordinates x/scale, and for nearest the element before when enlarging, the one
// after when shrinking (ONNX Runtime reads it so, and the node test of opset 10 wants it).
func upgradeResize(u *Up) error {
	n := u.Node
	scales := n.In(1)
	if scales == nil {
		return fmt.Errorf("input 1, scales, is absent")
	}
	n.SetIn(1, nil)
	n.SetIn(2, scales)
	n.SetAttr(ir.StringAttr("coordinate_transformation_mode", "asymmetric"))
	if n.Str("mode", "nearest") != "nearest" {
		return nil
	}
	nearest := "floor"
	if t := scales.Const(); t != nil {
		s, _ := t.Float32s()
		up, down := false, false
		for _, v := range s {
			up, down = up || v > 1, down || v < 1
		}
		if up && down {
			return fmt.Errorf("scales %v enlarge and shrink by nearest: %w", s, ErrUnsupported)
		}
		if down {
			nearest = "ceil"
		}
	}
	n.SetAttr(ir.StringAttr("nearest_mode", nearest))
	return nil
}

// resizeAxis is what Resize does to one axis.
type resizeAxis struct {
	in, out  int
	scale    float64
	lo, hi   float64 // region of interest
	identity bool
}

// resizeAxes returns what happens to each axis; ok is false if inference does not know enough.
func resizeAxes(c *Call, in []int) (axes []resizeAxis, ok bool, err error) {
	rank := len(in)
	axes = make([]resizeAxis, rank)
	for i := range axes {
		axes[i] = resizeAxis{in: in[i], out: in[i], scale: 1, hi: 1, identity: true}
	}
	var list []int
	if a := c.Node.Ints("axes"); a != nil {
		if list, err = axesOf(a, rank); err != nil {
			return nil, false, err
		}
	} else {
		for i := range rank {
			list = append(list, i)
		}
	}
	sizesGiven, scalesGiven := c.given(3), c.given(2)
	if sizesGiven == scalesGiven {
		if c.infer != nil && (c.Has(2) || c.Has(3)) {
			return nil, false, nil
		}
		return nil, false, fmt.Errorf("wants either scales or sizes")
	}
	if sizesGiven {
		sizes, ok := inputInts(c, 3)
		if !ok {
			return nil, false, nil
		}
		if len(sizes) != len(list) {
			return nil, false, fmt.Errorf("%d sizes for %d axes", len(sizes), len(list))
		}
		if err := resizeToSizes(axes, list, sizes, c.Node.Str("keep_aspect_ratio_policy", "stretch")); err != nil {
			return nil, false, err
		}
	} else {
		t := c.Const(2)
		if t == nil {
			return nil, false, nil
		}
		scales, isFloat := t.Float32s()
		if !isFloat || len(scales) != len(list) {
			return nil, false, fmt.Errorf("scales %v for %d axes", t.Type(), len(list))
		}
		for i, a := range list {
			n := math.Floor(float64(float32(in[a]) * scales[i]))
			if !(scales[i] > 0) || n > ir.MaxElements {
				return nil, false, fmt.Errorf("scale %v of axis %d of %v", scales[i], a, in)
			}
			axes[a].out, axes[a].scale = int(n), float64(scales[i])
		}
	}
	if t := c.Const(1); t != nil && t.Len() > 0 && c.Node.Str("coordinate_transformation_mode", "") == "tf_crop_and_resize" {
		roi, isFloat := t.Float32s()
		if !isFloat || len(roi) != 2*len(list) {
			return nil, false, fmt.Errorf("roi %v for %d axes", t.Type(), len(list))
		}
		for i, a := range list {
			axes[a].lo, axes[a].hi = float64(roi[i]), float64(roi[len(list)+i])
		}
	}
	for a := range axes {
		x := &axes[a]
		if x.in == 0 && x.out > 0 {
			return nil, false, fmt.Errorf("axis %d of size 0 cannot be resized to %d", a, x.out)
		}
		x.identity = x.in == x.out && x.scale == 1 && x.lo == 0 && x.hi == 1
	}
	return axes, true, nil
}

// given reports whether input i is there with elements: Resize's old forms pass empty tensors for absent inputs.
func (c *Call) given(i int) bool {
	if !c.Has(i) {
		return false
	}
	if t := c.Const(i); t != nil {
		return t.Len() > 0
	}
	t := c.Type(i)
	return !(len(t.Dims) == 1 && t.Dims[0].Size == 0)
}

func resizeToSizes(axes []resizeAxis, list []int, sizes []int64, policy string) error {
	common := 0.0
	for i, a := range list {
		if sizes[i] < 0 || sizes[i] > ir.MaxElements {
			return fmt.Errorf("size %d of axis %d", sizes[i], a)
		}
		s := float64(sizes[i]) / float64(max(axes[a].in, 1))
		axes[a].out, axes[a].scale = int(sizes[i]), s
		if i == 0 || policy == "not_larger" && s < common || policy == "not_smaller" && s > common {
			common = s
		}
	}
	switch policy {
	case "stretch":
	case "not_larger", "not_smaller":
		for _, a := range list {
			axes[a].scale = common
			axes[a].out = int(math.Floor(common*float64(axes[a].in) + 0.5))
		}
	default:
		return fmt.Errorf("keep_aspect_ratio_policy %q is not one of stretch, not_larger, not_smaller", policy)
	}
	return nil
}

func inferResize(c *Call) ([]ir.Type, error) {
	x := c.Type(0)
	if !x.Ranked {
		return unranked(x.Elem), nil
	}
	// unknown sizes get a stand-in, and lose what follows from it unless the axis is left alone
	in, all := make([]int, len(x.Dims)), true
	for i, d := range x.Dims {
		if in[i] = 1; d.Known() {
			in[i] = int(d.Size)
		}
		all = all && d.Known()
	}
	axes, ok, err := resizeAxes(c, in)
	if err != nil {
		return nil, err
	}
	dims := unknownDims(len(in))
	stretch := c.Node.Str("keep_aspect_ratio_policy", "stretch") == "stretch"
	list := c.Node.Ints("axes")
	for i, d := range x.Dims {
		chosen := list == nil
		for _, a := range list {
			chosen = chosen || int(a) == i || int(a)+len(in) == i
		}
		switch {
		case !chosen || ok && !c.given(3) && axes[i].scale == 1:
			dims[i] = ir.Dim{Size: d.Size, Name: d.Name}
		case ok && (all || d.Known() && !c.given(3) || c.given(3) && stretch):
			dims[i] = ir.FixedDim(axes[i].out)
		}
	}
	if d, known := c.Dims(3); !ok && known && c.given(3) && stretch && list == nil && len(d) == len(dims) {
		if d, err := sizeDims(d); err == nil {
			copy(dims, d)
		}
	}
	return typed(x.Elem, dims), nil
}

func evalResize(c *Call) ([]*ir.Tensor, error) {
	x := c.In[0]
	axes, ok, err := resizeAxes(c, x.Shape())
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("scales is %v and sizes %v, want floats or integers", c.Type(2), c.Type(3))
	}
	shape := make([]int, len(axes))
	same := true
	for i, a := range axes {
		shape[i] = a.out
		same = same && a.identity
	}
	if _, err := ir.Numel(shape); err != nil {
		return nil, err
	}
	if same {
		return []*ir.Tensor{x}, nil
	}
	if product(shape) == 0 {
		return one(c.New(x.Elem(), shape...))
	}
	r, err := resizerOf(c.Node)
	if err != nil {
		return nil, err
	}
	switch r.mode {
	case "nearest":
		return one(r.nearest(c, x, axes, shape))
	case "linear", "cubic":
		return one(r.interpolate(c, x, axes, shape))
	}
	return nil, fmt.Errorf("mode %q is not one of nearest, linear, cubic", r.mode)
}

// resizer holds the attributes of a Resize.
type resizer struct {
	mode, coords, near string
	a, extrapolation   float64
	exclude, antialias bool
}

func resizerOf(n *ir.Node) (*resizer, error) {
	r := &resizer{
		mode: n.Str("mode", "nearest"), coords: n.Str("coordinate_transformation_mode", "half_pixel"),
		near: n.Str("nearest_mode", "round_prefer_floor"), a: float64(n.Float("cubic_coeff_a", -0.75)),
		extrapolation: float64(n.Float("extrapolation_value", 0)),
		exclude:       n.Int("exclude_outside", 0) != 0, antialias: n.Int("antialias", 0) != 0,
	}
	switch r.coords {
	case "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
		"tf_half_pixel_for_nn":
	default:
		return nil, fmt.Errorf("coordinate_transformation_mode %q is not known", r.coords)
	}
	switch r.near {
	case "round_prefer_floor", "round_prefer_ceil", "floor", "ceil":
	default:
		return nil, fmt.Errorf("nearest_mode %q is not known", r.near)
	}
	return r, nil
}

// source returns the coordinate in the input that place i of an axis of the output comes from. A length that follows from
// a scale is not rounded here, as in ONNX's reference implementation.
func (r *resizer) source(a resizeAxis, i int) float64 {
	x, n, length := float64(i), float64(a.in), a.scale*float64(a.in)
	switch r.coords {
	case "pytorch_half_pixel":
		if a.out <= 1 {
			return 0
		}
	case "half_pixel_symmetric":
		return n/2*(1-float64(a.out)/length) + (x+0.5)/a.scale - 0.5
	case "align_corners":
		if length == 1 || a.out == 1 && length < 1 {
			return 0
		}
		return x * (n - 1) / (length - 1)
	case "asymmetric":
		return x / a.scale
	case "tf_half_pixel_for_nn":
		return (x + 0.5) / a.scale
	case "tf_crop_and_resize":
		if a.out == 1 {
			return 0.5 * (a.lo + a.hi) * (n - 1)
		}
		return a.lo*(n-1) + x*(a.hi-a.lo)*(n-1)/(float64(a.out)-1)
	}
	return (x+0.5)/a.scale - 0.5
}

// outside reports, for each place of an axis, whether it takes the extrapolation value; nil if none does.
func (r *resizer) outside(a resizeAxis) []bool {
	var out []bool
	for i := 0; r.coords == "tf_crop_and_resize" && i < a.out; i++ {
		if x := r.source(a, i); x < 0 || x > float64(a.in-1) {
			if out == nil {
				out = make([]bool, a.out)
			}
			out[i] = true
		}
	}
	return out
}

func (r *resizer) nearest(c *Call, x *ir.Tensor, axes []resizeAxis, shape []int) (*ir.Tensor, error) {
	out, err := move(c, x.Elem(), shape, []*ir.Tensor{x}, func(dst []byte, src [][]byte, w int) {
		mapped(dst, src[0], w, x.Shape(), r.nearestMaps(axes)) // after the allocation, which refuses forged sizes
	})
	if err != nil {
		return nil, err
	}
	return r.extrapolate(out, axes)
}

// nearestMaps returns, for each axis, the place that each of its results takes its value from.
func (r *resizer) nearestMaps(axes []resizeAxis) [][]int {
	maps := make([][]int, len(axes))
	for k, a := range axes {
		maps[k] = make([]int, a.out)
		for i := range maps[k] {
			if a.identity {
				maps[k][i] = i
				continue
			}
			var p float64
			switch s := r.source(a, i); r.near {
			case "round_prefer_floor":
				p = math.Ceil(s - 0.5)
			case "round_prefer_ceil":
				p = math.Floor(s + 0.5)
			case "floor":
				p = math.Floor(s)
			case "ceil":
				p = math.Ceil(s)
			}
			maps[k][i] = int(min(max(p, 0), float64(a.in-1)))
		}
	}
	return maps
}

// extrapolate overwrites what lies outside of the input.
func (r *resizer) extrapolate(out *ir.Tensor, axes []resizeAxis) (*ir.Tensor, error) {
	for k, a := range axes {
		for i, is := range r.outside(a) {
			if !is {
				continue
			}
			outer, inner := product(out.Shape()[:k]), product(out.Shape()[k+1:])
			for o := range outer {
				from := (o*a.out + i) * inner
				switch out.Elem() {
				case ir.Float32:
					fillValues(ir.Data[float32](out)[from:from+inner], float32(r.extrapolation))
				case ir.Float64:
					fillValues(ir.Data[float64](out)[from:from+inner], r.extrapolation)
				case ir.Float16, ir.BFloat16:
					v := narrow(ir.Scalar(float32(r.extrapolation)), out.Elem())
					fillValues(ir.Data[uint16](out)[from:from+inner], ir.Data[uint16](v)[0])
				default:
					return nil, fmt.Errorf("extrapolation of type %v: %w", out.Elem(), ErrUnsupported)
				}
			}
		}
	}
	return out, nil
}

func fillValues[T any](dst []T, v T) {
	for i := range dst {
		dst[i] = v
	}
}
