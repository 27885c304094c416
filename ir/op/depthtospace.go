package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

var depthToSpaceDef = &Def{
	Name: "DepthToSpace", Doc: "blocks of channels laid out in space", Since: 1, Versions: []int{1, 11, 13, 28}, Types: "all",
	In: Exactly(1), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) { return inferBlocks(c, true) },
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x := c.In[0]
		b, err := blocksOf(c, x.Shape(), true)
		if err != nil {
			return nil, err
		}
		s := x.Shape()
		in := []int{s[0], b, b, s[1] / (b * b), s[2], s[3]}
		perm := []int{0, 3, 4, 1, 5, 2}
		if c.Node.Str("mode", "DCR") == "CRD" {
			in = []int{s[0], s[1] / (b * b), b, b, s[2], s[3]}
			perm = []int{0, 1, 4, 2, 5, 3}
		}
		return one(rearrange(c, x, in, perm, []int{s[0], s[1] / (b * b), s[2] * b, s[3] * b}))
	},
}

var spaceToDepthDef = &Def{
	Name: "SpaceToDepth", Doc: "blocks of space laid out in channels", Since: 1, Versions: []int{1, 13, 28}, Types: "all",
	In: Exactly(1), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) { return inferBlocks(c, false) },
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x := c.In[0]
		b, err := blocksOf(c, x.Shape(), false)
		if err != nil {
			return nil, err
		}
		s := x.Shape()
		in := []int{s[0], s[1], s[2] / b, b, s[3] / b, b}
		perm := []int{0, 3, 5, 1, 2, 4}
		if c.Node.Str("mode", "DCR") == "CRD" {
			perm = []int{0, 1, 3, 5, 2, 4}
		}
		return one(rearrange(c, x, in, perm, []int{s[0], s[1] * b * b, s[2] / b, s[3] / b}))
	},
}

func inferBlocks(c *Call, toSpace bool) ([]ir.Type, error) {
	x := c.Type(0)
	if !x.Ranked {
		return typed(x.Elem, unknownDims(4)), nil
	}
	shape := make([]int, len(x.Dims))
	b := c.Node.Int("blocksize", 0)
	if b < 1 || b > 1<<15 {
		return nil, fmt.Errorf("blocksize is %d", b)
	}
	for i, d := range x.Dims { // unknown dimensions fit any block
		if shape[i] = int(b * b); d.Known() {
			shape[i] = int(d.Size)
		}
	}
	if _, err := blocksOf(c, shape, toSpace); err != nil {
		return nil, err
	}
	dims := cloneDims(x.Dims)
	for i := 1; i < 4; i++ {
		n := b
		if i == 1 {
			n = b * b
		}
		switch d := x.Dims[i]; {
		case n == 1:
		case !d.Known():
			dims[i] = ir.UnknownDim
		case (i == 1) == toSpace:
			dims[i].Size /= n
		default:
			dims[i].Size *= n
		}
	}
	return typed(x.Elem, dims), nil
}

// blocksOf returns the block size, which must fit the shape.
func blocksOf(c *Call, s []int, toSpace bool) (int, error) {
	b := int(c.Node.Int("blocksize", 0))
	if len(s) != 4 || b < 1 || b > 1<<15 {
		return 0, fmt.Errorf("blocksize %d of an input of shape %v, wants four dimensions and a size of at least 1", b, s)
	}
	if toSpace && s[1]%(b*b) != 0 || !toSpace && (s[2]%b != 0 || s[3]%b != 0) {
		return 0, fmt.Errorf("blocksize %d does not divide shape %v", b, s)
	}
	switch mode := c.Node.Str("mode", "DCR"); mode {
	case "DCR", "CRD":
		return b, nil
	default:
		return 0, fmt.Errorf("mode %q is not one of DCR, CRD", mode)
	}
}

// rearrange views x in shape in, permutes it and views the result in shape out.
func rearrange(c *Call, x *ir.Tensor, in, perm, out []int) (*ir.Tensor, error) {
	v, err := x.Reshape(in...)
	if err != nil {
		return nil, err
	}
	if v, err = transpose(c, v, perm); err != nil {
		return nil, err
	}
	return v.Reshape(out...)
}

var centerCropPadDef = &Def{
	Name: "CenterCropPad", Doc: "its input cut or zero-padded on both sides to a shape", Since: 18, Versions: []int{18}, Types: "all",
	In: Exactly(2), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		if !x.Ranked {
			return unranked(x.Elem), nil
		}
		axes, err := cropAxes(c, len(x.Dims))
		if err != nil {
			return nil, err
		}
		dims := cloneDims(x.Dims)
		want, ok := c.Dims(1)
		if ok && len(want) != len(axes) {
			return nil, fmt.Errorf("a shape of %d for %d axes", len(want), len(axes))
		}
		if want, err = sizeDims(want); err != nil {
			return nil, err
		}
		for i, a := range axes {
			if dims[a] = ir.UnknownDim; ok {
				dims[a] = want[i]
			}
		}
		return typed(x.Elem, dims), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x := c.In[0]
		in := x.Shape()
		axes, err := cropAxes(c, len(in))
		if err != nil {
			return nil, err
		}
		sizes, err := needInts(c, 1, "shape")
		if err != nil {
			return nil, err
		}
		want, err := toShape(sizes)
		if err != nil {
			return nil, err
		}
		if len(want) != len(axes) {
			return nil, fmt.Errorf("a shape of %d for %d axes", len(want), len(axes))
		}
		shape, at := append([]int{}, in...), make([]int, len(in))
		for i, a := range axes {
			shape[a] = want[i]
			if at[a] = (want[i] - in[a]) / 2; want[i] < in[a] {
				at[a] = -((in[a] - want[i]) / 2)
			}
		}
		if _, err := ir.Numel(shape); err != nil {
			return nil, err
		}
		return one(move(c, x.Elem(), shape, []*ir.Tensor{x}, func(dst []byte, src [][]byte, w int) {
			clear(dst)
			blit(dst, shape, src[0], in, w, at)
		}))
	},
}

// cropAxes returns the attribute axes, all axes without it.
func cropAxes(c *Call, rank int) ([]int, error) {
	if a := c.Node.Attr("axes"); a != nil {
		return axesOf(a.Ints, rank)
	}
	axes := make([]int, rank)
	for i := range axes {
		axes[i] = i
	}
	return axes, nil
}
