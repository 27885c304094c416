package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

var padDef = &Def{
	Name: "Pad", Doc: "its input with elements added, or cut off, before and after each dimension", Since: 1,
	Versions: []int{1, 2, 11, 13, 18, 19, 21, 23, 24, 25}, Types: "all",
	In: Between(2, 4), Out: Exactly(1),
	Upgrades: []Upgrade{
		{To: 2, Apply: func(u *Up) error {
			if a := u.Node.Attr("paddings"); a != nil {
				u.Node.SetAttr(ir.IntsAttr("pads", a.Ints...))
				u.Node.DelAttr("paddings")
			}
			return nil
		}},
		{To: 11, Apply: func(u *Up) error {
			u.AttrToInput("pads", 1)
			if v := u.Node.Float("value", 0); v != 0 && u.Node.In(0) != nil {
				t := ir.Scalar(v)
				switch elem := u.Node.In(0).Type.Elem; elem {
				case ir.Float16:
					t = narrow(t, elem)
				case ir.Float64:
					t = ir.FromSlice(elem, []int{}, []float64{float64(v)})
				}
				u.Node.SetIn(2, u.Const("value", t))
			}
			u.Node.DelAttr("value")
			return nil
		}},
	},
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		if !x.Ranked {
			return unranked(x.Elem), nil
		}
		rank := len(x.Dims)
		if c.Has(3) {
			if _, ok := inputInts(c, 3); !ok {
				return typed(x.Elem, unknownDims(rank)), nil
			}
		}
		axes, err := padAxes(c, rank)
		if err != nil {
			return nil, err
		}
		pads, ok := c.Dims(1)
		if ok && len(pads) != 2*len(axes) {
			return nil, fmt.Errorf("%d pads for %d axes", len(pads), len(axes))
		}
		dims := cloneDims(x.Dims)
		for i, a := range axes {
			d := dims[a]
			dims[a] = ir.UnknownDim
			if !ok {
				continue
			}
			lo, ok1 := literal(pads[i])
			hi, ok2 := literal(pads[i+len(axes)])
			switch {
			case !ok1 || !ok2:
			case lo == 0 && hi == 0:
				dims[a] = d
			case d.Known():
				n := d.Size + lo + hi
				if n < 0 || n > ir.MaxElements {
					return nil, fmt.Errorf("pads %d and %d make dimension %d of %v %d", lo, hi, a, x, n)
				}
				dims[a] = ir.Dim{Size: n}
			}
		}
		return typed(x.Elem, dims), nil
	},
	Eval: evalPad,
}

func padAxes(c *Call, rank int) ([]int, error) {
	if c.Has(3) {
		list, ok := inputInts(c, 3)
		if !ok {
			return nil, fmt.Errorf("axes (input 3) is %v, wants integers", c.Type(3))
		}
		return axesOf(list, rank)
	}
	axes := make([]int, rank)
	for i := range axes {
		axes[i] = i
	}
	return axes, nil
}

func evalPad(c *Call) ([]*ir.Tensor, error) {
	x := c.In[0]
	in := x.Shape()
	axes, err := padAxes(c, len(in))
	if err != nil {
		return nil, err
	}
	pads, err := needInts(c, 1, "pads")
	if err != nil {
		return nil, err
	}
	if len(pads) != 2*len(axes) {
		return nil, fmt.Errorf("%d pads for %d axes", len(pads), len(axes))
	}
	shape, before := append([]int{}, in...), make([]int, len(in))
	for i, a := range axes {
		lo, hi := pads[i], pads[i+len(axes)]
		if n := int64(in[a]) + lo + hi; lo > ir.MaxElements || hi > ir.MaxElements || n < 0 || n > ir.MaxElements {
			return nil, fmt.Errorf("pads %d and %d make dimension %d of %v %d", lo, hi, a, in, n)
		}
		shape[a] = in[a] + int(lo+hi)
		before[a] = int(lo)
	}
	if _, err := ir.Numel(shape); err != nil {
		return nil, err
	}
	mode := c.Node.Str("mode", "constant")
	src := []*ir.Tensor{x}
	switch mode {
	case "constant":
		if c.Has(2) {
			if c.In[2].Len() != 1 {
				return nil, fmt.Errorf("constant_value (input 2) is %v, wants one element", c.In[2].Type())
			}
			src = append(src, c.In[2])
		}
		return one(move(c, x.Elem(), shape, src, func(dst []byte, src [][]byte, w int) {
			if product(shape) > x.Len() {
				if len(src) > 1 {
					fill(dst, src[1][:w])
				} else {
					clear(dst)
				}
			}
			blit(dst, shape, src[0], in, w, before)
		}))
	case "edge", "reflect", "wrap":
	default:
		return nil, fmt.Errorf("mode %q is not one of constant, reflect, edge, wrap", mode)
	}
	if product(shape) == 0 {
		return one(c.New(x.Elem(), shape...))
	}
	for a := range in {
		if in[a] == 0 {
			return nil, fmt.Errorf("mode %q cannot pad dimension %d of size 0", mode, a)
		}
	}
	return one(move(c, x.Elem(), shape, src, func(dst []byte, src [][]byte, w int) {
		maps := make([][]int, len(in)) // after the allocation, which refuses forged sizes
		for a := range in {
			maps[a] = make([]int, shape[a])
			for o := range maps[a] {
				maps[a][o] = padSource(o-before[a], in[a], mode)
			}
		}
		mapped(dst, src[0], w, in, maps)
	}))
}

// padSource returns the index of a dimension of n that fills place i, which may be outside.
func padSource(i, n int, mode string) int {
	if i >= 0 && i < n {
		return i
	}
	switch mode {
	case "edge":
		return min(max(i, 0), n-1)
	case "wrap":
		return ((i % n) + n) % n
	}
	if n == 1 {
		return 0
	}
	period := 2 * (n - 1)
	i = ((i % period) + period) % period
	return min(i, period-i)
}

// blit copies the block src into dst such that its origin comes to lie at the given place, clipping what falls outside.
func blit(dst []byte, shape []int, src []byte, in []int, w int, at []int) {
	ds, ss := stridesOf(shape), stridesOf(in)
	steps := make([]step, len(in))
	do, so := 0, 0
	for i := range in {
		lo, hi := max(at[i], 0), min(at[i]+in[i], shape[i])
		if hi <= lo {
			return
		}
		do += lo * ds[i]
		so += (lo - at[i]) * ss[i]
		steps[i] = step{hi - lo, ds[i], ss[i]}
	}
	strided(dst, src, w, do, so, steps)
}

// mapped fills dst with the elements of src at the outer product of one list of indices per dimension.
func mapped(dst, src []byte, w int, in []int, maps [][]int) {
	if len(in) == 0 {
		copy(dst, src)
		return
	}
	st := stridesOf(in)
	last := len(in) - 1
	row := len(maps[last]) * w
	var walk func(axis, from int)
	at := 0
	walk = func(axis, from int) {
		if axis == last {
			pick(dst[at:at+row], src[from*w:], w, maps[last])
			at += row
			return
		}
		start := at
		for i, k := range maps[axis] {
			if i > 0 && k == maps[axis][i-1] { // the same slice again, as when an image is enlarged
				size := (at - start) / i
				copy(dst[at:at+size], dst[at-size:at])
				at += size
				continue
			}
			walk(axis+1, from+k*st[axis])
		}
	}
	walk(0, 0)
}
