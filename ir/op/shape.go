package op

import "github.com/qsimc/qsimc/ir"

var shapeDef = &Def{
	Name: "Shape", Doc: "the sizes of the dimensions [start, end) of its input", Since: 1,
	Versions: []int{1, 13, 15, 19, 21, 23, 24, 25}, Types: "all",
	In: Exactly(1), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		if !x.Ranked {
			return []ir.Type{ir.TensorType(ir.Int64, ir.UnknownDim)}, nil
		}
		lo, hi := shapeRange(c.Node, len(x.Dims))
		c.SetDims(0, x.Dims[lo:hi])
		return []ir.Type{ir.FixedType(ir.Int64, hi-lo)}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		s := c.In[0].Shape()
		lo, hi := shapeRange(c.Node, len(s))
		out := make([]int64, hi-lo)
		for i := range out {
			out[i] = int64(s[lo+i])
		}
		return []*ir.Tensor{ir.Ints(out...)}, nil
	},
}

// shapeRange returns the clamped attributes start and end.
func shapeRange(n *ir.Node, rank int) (lo, hi int) {
	clamp := func(a int64) int {
		if a < 0 {
			a += int64(rank)
		}
		return int(min(max(a, 0), int64(rank)))
	}
	lo, hi = clamp(n.Int("start", 0)), clamp(n.Int("end", int64(rank)))
	return lo, max(lo, hi)
}
