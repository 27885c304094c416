package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

var whereDef = &Def{
	Name: "Where", Doc: "x where the condition holds, y elsewhere", Since: 9, Versions: []int{9, 16},
	Types: "all but complex128 and types below 8 bits",
	In:    Exactly(3), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		if e := c.Type(0).Elem; e != ir.Undefined && e != ir.Bool {
			return nil, fmt.Errorf("the condition is of element type %v, wants bool", e)
		}
		branch, err := broadcastType(c, 1, 3, ir.Undefined)
		if err != nil {
			return nil, err
		}
		cond := c.Type(0)
		if !branch.Ranked || !cond.Ranked {
			return []ir.Type{{Elem: branch.Elem}}, nil
		}
		dims, err := broadcastDims(branch.Dims, cond.Dims)
		if err != nil {
			return nil, err
		}
		whereDims(c)
		return []ir.Type{ir.TensorType(branch.Elem, dims...)}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x, y := c.In[1], c.In[2]
		if x.Elem() != y.Elem() {
			return nil, fmt.Errorf("inputs are of element types %v and %v", x.Elem(), y.Elem())
		}
		if c.In[0].Elem() != ir.Bool {
			return nil, badType(c, 0)
		}
		p, err := spreadOf(c.In[0].Shape(), x.Shape(), y.Shape())
		if err != nil {
			return nil, err
		}
		out, err := c.New(x.Elem(), p.shape...)
		if err != nil {
			return nil, err
		}
		cond := ir.Data[uint8](c.In[0])
		switch {
		case x.Elem() == ir.String:
			choose(p, out.Strings(), cond, x.Strings(), y.Strings())
		case x.Elem().Bits() == 8:
			choose(p, ir.Data[uint8](out), cond, ir.Data[uint8](x), ir.Data[uint8](y))
		case x.Elem().Bits() == 16:
			choose(p, ir.Data[uint16](out), cond, ir.Data[uint16](x), ir.Data[uint16](y))
		case x.Elem().Bits() == 32:
			choose(p, ir.Data[uint32](out), cond, ir.Data[uint32](x), ir.Data[uint32](y))
		case x.Elem().Bits() == 64:
			choose(p, ir.Data[uint64](out), cond, ir.Data[uint64](x), ir.Data[uint64](y))
		default:
			return nil, badType(c, 1)
		}
		return []*ir.Tensor{out}, nil
	},
}

func choose[T any](p *spread, dst []T, cond []uint8, x, y []T) {
	last := len(p.dims) - 1
	sc, sx, sy := p.steps[0][last], p.steps[1][last], p.steps[2][last]
	p.run(func(z, n int, at []int) {
		d, ic, ix, iy := dst[z:z+n], at[0], at[1], at[2]
		for i := range d {
			v := y[iy]
			if cond[ic] != 0 {
				v = x[ix]
			}
			d[i] = v
			ic, ix, iy = ic+sc, ix+sx, iy+sy
		}
	})
}

// whereDims chooses between contents known as dimensions where the condition is known.
func whereDims(c *Call) {
	t := c.Const(0)
	x, okX := c.Dims(1)
	y, okY := c.Dims(2)
	if t == nil || t.Elem() != ir.Bool || !okX || !okY || len(x) != len(y) || t.Len() != len(x) {
		return
	}
	out := make([]ir.Dim, len(x))
	for i, yes := range ir.Data[uint8](t) {
		if out[i] = y[i]; yes != 0 {
			out[i] = x[i]
		}
	}
	c.SetDims(0, out)
}
