package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

var axesUpgrade = []Upgrade{{To: 13, Apply: func(u *Up) error { u.AttrToInput("axes", 1); return nil }}}

var squeezeDef = &Def{
	Name: "Squeeze", Doc: "its input without the given dimensions of size 1", Since: 1,
	Versions: []int{1, 11, 13, 21, 23, 24, 25}, Types: "all",
	In: Between(1, 2), Out: Exactly(1), Upgrades: axesUpgrade,
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		if !x.Ranked {
			return unranked(x.Elem), nil
		}
		if !c.Has(1) {
			var dims []ir.Dim
			for _, d := range x.Dims {
				if !d.Known() {
					return unranked(x.Elem), nil
				}
				if d.Size != 1 {
					dims = append(dims, d)
				}
			}
			keepDims(c, len(dims))
			return typed(x.Elem, cloneDims(dims)), nil
		}
		list, ok := inputInts(c, 1)
		if !ok {
			if d, ok := c.Dims(1); ok && len(d) <= len(x.Dims) {
				return typed(x.Elem, unknownDims(len(x.Dims)-len(d))), nil
			}
			return unranked(x.Elem), nil
		}
		axes, err := axesOf(list, len(x.Dims))
		if err != nil {
			return nil, err
		}
		drop := make([]bool, len(x.Dims))
		for _, a := range axes {
			if d := x.Dims[a]; d.Known() && d.Size != 1 {
				return nil, fmt.Errorf("cannot squeeze dimension %d of %v: its size is not 1", a, x)
			}
			drop[a] = true
		}
		var dims []ir.Dim
		for i, d := range x.Dims {
			if !drop[i] {
				dims = append(dims, d)
			}
		}
		keepDims(c, len(dims))
		return typed(x.Elem, cloneDims(dims)), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		s := c.In[0].Shape()
		drop := make([]bool, len(s))
		if c.Has(1) {
			list, err := needInts(c, 1, "axes")
			if err != nil {
				return nil, err
			}
			axes, err := axesOf(list, len(s))
			if err != nil {
				return nil, err
			}
			for _, a := range axes {
				if s[a] != 1 {
					return nil, fmt.Errorf("cannot squeeze dimension %d of %v: its size is not 1", a, s)
				}
				drop[a] = true
			}
		} else {
			for i, d := range s {
				drop[i] = d == 1
			}
		}
		shape := []int{}
		for i, d := range s {
			if !drop[i] {
				shape = append(shape, d)
			}
		}
		return one(c.In[0].Reshape(shape...))
	},
}

var unsqueezeDef = &Def{
	Name: "Unsqueeze", Doc: "its input with dimensions of size 1 at the given axes of the result", Since: 1,
	Versions: []int{1, 11, 13, 21, 23, 24, 25}, Types: "all",
	In: Exactly(2), Out: Exactly(1), Upgrades: axesUpgrade,
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		d, ok := c.Dims(1)
		if !ok || !x.Ranked {
			return unranked(x.Elem), nil
		}
		rank := len(x.Dims) + len(d)
		list, ok := literals(d)
		if !ok {
			return typed(x.Elem, unknownDims(rank)), nil
		}
		axes, err := axesOf(list, rank)
		if err != nil {
			return nil, err
		}
		dims := make([]ir.Dim, rank)
		for _, a := range axes {
			dims[a] = ir.Dim{Size: 1, Denot: "new"}
		}
		rest := cloneDims(x.Dims)
		for i := range dims {
			if dims[i].Denot == "new" {
				dims[i].Denot = ""
			} else {
				dims[i], rest = rest[0], rest[1:]
			}
		}
		keepDims(c, rank)
		return typed(x.Elem, dims), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		list, err := needInts(c, 1, "axes")
		if err != nil {
			return nil, err
		}
		s := c.In[0].Shape()
		shape := make([]int, len(s)+len(list))
		axes, err := axesOf(list, len(shape))
		if err != nil {
			return nil, err
		}
		for i := range shape {
			shape[i] = -1
		}
		for _, a := range axes {
			shape[a] = 1
		}
		for i, d := range shape {
			if d < 0 {
				shape[i], s = s[0], s[1:]
			}
		}
		return one(c.In[0].Reshape(shape...))
	},
}
