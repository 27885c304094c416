package op

import "github.com/qsimc/qsimc/ir"

var identityDef = &Def{
	Name: "Identity", Doc: "its input", Since: 1, Versions: []int{1, 13, 14, 16, 19, 21, 23, 24, 25}, Types: "all",
	In: Exactly(1), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		if d, ok := c.Dims(0); ok {
			c.SetDims(0, d)
		}
		return same(c)
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) { return c.In[:1], nil },
}
