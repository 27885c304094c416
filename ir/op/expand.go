package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

var expandDef = &Def{
	Name: "Expand", Doc: "its input broadcast with a shape", Since: 8, Versions: []int{8, 13}, Types: "all",
	In: Exactly(2), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		want, ok := c.Dims(1)
		if !ok || !x.Ranked {
			return unranked(x.Elem), nil
		}
		want, err := sizeDims(want)
		if err != nil {
			return nil, err
		}
		dims := unknownDims(max(len(want), len(x.Dims)))
		for i := range dims {
			a, b := ir.FixedDim(1), ir.FixedDim(1)
			if k := i - len(dims) + len(x.Dims); k >= 0 {
				a = ir.Dim{Size: x.Dims[k].Size, Name: x.Dims[k].Name}
			}
			if k := i - len(dims) + len(want); k >= 0 {
				b = want[k]
			}
			switch {
			case a.Size == 1:
				dims[i] = b
			case b.Size == 1 || a.Same(b):
				dims[i] = a
			case a.Known() && b.Known():
				return nil, fmt.Errorf("cannot broadcast %v with %v", x, ir.TensorType(ir.Int64, want...))
			case a.Known():
				dims[i] = a
			case b.Known():
				dims[i] = b
			}
		}
		keepExpanded(c, dims)
		return typed(x.Elem, dims), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		sizes, err := needInts(c, 1, "shape")
		if err != nil {
			return nil, err
		}
		want, err := toShape(sizes)
		if err != nil {
			return nil, err
		}
		x := c.In[0]
		in := x.Shape()
		shape := make([]int, max(len(want), len(in)))
		lead := len(shape) - len(in)
		for i := range shape {
			a, b := 1, 1
			if i >= lead {
				a = in[i-lead]
			}
			if k := i - len(shape) + len(want); k >= 0 {
				b = want[k]
			}
			if a != b && a != 1 && b != 1 {
				return nil, fmt.Errorf("cannot broadcast %v with %v: dimension %d is %d and %d", in, want, i, a, b)
			}
			if shape[i] = a; a == 1 {
				shape[i] = b
			}
		}
		if _, err := ir.Numel(shape); err != nil {
			return nil, err
		}
		if product(shape) == x.Len() {
			return one(x.Reshape(shape...))
		}
		return one(move(c, x.Elem(), shape, []*ir.Tensor{x}, func(dst []byte, src [][]byte, w int) {
			st, out := stridesOf(in), stridesOf(shape)
			steps := make([]step, len(shape))
			for i := range shape {
				steps[i] = step{shape[i], out[i], 0}
				if i >= lead && in[i-lead] != 1 {
					steps[i].s = st[i-lead]
				}
			}
			strided(dst, src[0], w, 0, 0, steps)
		}))
	},
}

// keepExpanded repeats the single number of input 0 where the result is a short list.
func keepExpanded(c *Call, dims []ir.Dim) {
	content, ok := c.Dims(0)
	switch {
	case !ok || len(dims) > 1:
	case len(dims) == 0 || dims[0].Known() && dims[0].Size == int64(len(content)):
		c.SetDims(0, content)
	case len(content) == 1 && dims[0].Known() && dims[0].Size <= maxKnown:
		out := make([]ir.Dim, dims[0].Size)
		for i := range out {
			out[i] = content[0]
		}
		c.SetDims(0, out)
	}
}

var constantOfShapeDef = &Def{
	Name: "ConstantOfShape", Doc: "a tensor of the given shape, filled with one value", Since: 9,
	Versions: []int{9, 20, 21, 23, 24, 25}, Types: "all",
	In: Exactly(1), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		v, err := fillValue(c.Node)
		if err != nil {
			return nil, err
		}
		dims, ok := c.Dims(0)
		if !ok {
			return unranked(v.Elem()), nil
		}
		if dims, err = sizeDims(dims); err != nil {
			return nil, err
		}
		return typed(v.Elem(), dims), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		v, err := fillValue(c.Node)
		if err != nil {
			return nil, err
		}
		sizes, err := needInts(c, 0, "shape")
		if err != nil {
			return nil, err
		}
		shape, err := toShape(sizes)
		if err != nil {
			return nil, err
		}
		return one(move(c, v.Elem(), shape, []*ir.Tensor{v}, func(dst []byte, src [][]byte, w int) {
			fill(dst, src[0][:w])
		}))
	},
}

// fillValue returns the attribute value, float 0 without one.
func fillValue(n *ir.Node) (*ir.Tensor, error) {
	a := n.Attr("value")
	if a == nil {
		return ir.Floats([]float32{0}, 1), nil
	}
	if a.T == nil || a.T.Len() != 1 {
		return nil, fmt.Errorf("attribute value wants a tensor of one element")
	}
	return a.T, a.T.Load()
}

// fill repeats x over dst.
func fill(dst, x []byte) {
	n := copy(dst, x)
	for n > 0 && n < len(dst) {
		n += copy(dst[n:], dst[:n])
	}
}

var tileDef = &Def{
	Name: "Tile", Doc: "its input repeated along every dimension", Since: 1, Versions: []int{1, 6, 13}, Types: "all",
	In: Exactly(2), Out: Exactly(1),
	Upgrades: []Upgrade{{To: 6, Apply: upgradeTile}},
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		if !x.Ranked {
			if d, ok := c.Dims(1); ok {
				return typed(x.Elem, unknownDims(len(d))), nil
			}
			return unranked(x.Elem), nil
		}
		rep, ok := c.Dims(1)
		if !ok {
			return typed(x.Elem, unknownDims(len(x.Dims))), nil
		}
		if len(rep) != len(x.Dims) {
			return nil, fmt.Errorf("%d repeats for an input of rank %d", len(rep), len(x.Dims))
		}
		rep, err := sizeDims(rep)
		if err != nil {
			return nil, err
		}
		dims := make([]ir.Dim, len(rep))
		for i := range dims {
			dims[i] = mulDims(x.Dims[i], rep[i])
		}
		return typed(x.Elem, dims), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		rep, err := needInts(c, 1, "repeats")
		if err != nil {
			return nil, err
		}
		x := c.In[0]
		in := x.Shape()
		if len(rep) != len(in) {
			return nil, fmt.Errorf("%d repeats for an input of rank %d", len(rep), len(in))
		}
		times, err := toShape(rep)
		if err != nil {
			return nil, fmt.Errorf("repeats: %w", err)
		}
		shape := make([]int, len(in))
		for i := range shape {
			if in[i] > 0 && times[i] > ir.MaxElements/in[i] {
				return nil, fmt.Errorf("repeats %v of %v overflow", rep, in)
			}
			shape[i] = in[i] * times[i]
		}
		return one(move(c, x.Elem(), shape, []*ir.Tensor{x}, func(dst []byte, src [][]byte, w int) {
			st, out := stridesOf(in), stridesOf(shape)
			var steps []step
			for i := range shape {
				steps = append(steps, step{times[i], in[i] * out[i], 0}, step{in[i], out[i], st[i]})
			}
			strided(dst, src[0], w, 0, 0, steps)
		}))
	},
}

// upgradeTile turns opset 1's (input, tiles, axis), both numbers of the data's type, into repeats.
func upgradeTile(u *Up) error {
	if u.Node.NumIn() != 3 {
		return nil
	}
	for i := range 3 {
		if u.Node.In(i) == nil {
			return fmt.Errorf("input %d is absent", i)
		}
	}
	x, tiles, axis := u.Node.In(0), u.Node.In(1).Const(), u.Node.In(2).Const()
	if tiles == nil || axis == nil || !x.Type.Ranked {
		return fmt.Errorf("tiles or axis is computed, or the input's rank unknown: %w", ErrUnsupported)
	}
	n, ok1 := tiles.Float32s()
	a, ok2 := axis.Float32s()
	if !ok1 || !ok2 || len(n) != 1 || len(a) != 1 {
		return fmt.Errorf("tiles is %v and axis %v, both want one number", tiles.Type(), axis.Type())
	}
	k, err := Axis(int64(a[0]), x.Type.Rank())
	if err != nil {
		return err
	}
	rep := make([]int64, x.Type.Rank())
	for i := range rep {
		rep[i] = 1
	}
	rep[k] = int64(n[0])
	u.Node.TrimIns(1)
	u.Node.SetIn(1, u.Const("repeats", ir.Ints(rep...)))
	return nil
}
