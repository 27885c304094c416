package op

import (
	"fmt"
	"math/rand/v2"

	"github.com/qsimc/qsimc/ir"
)

var dropoutDef = &Def{
	Name: "Dropout", Doc: "its input; in training mode with a random part of it zero and the rest scaled up", Since: 1,
	Versions: []int{1, 6, 7, 10, 12, 13, 22}, Types: "float, double, float16, bfloat16", In: Between(1, 3), Out: Between(1, 2),
	Upgrades: []Upgrade{
		{To: 6, Apply: func(u *Up) error { u.Node.DelAttr("consumed_inputs"); return nil }},
		{To: 7, Apply: func(u *Up) error { u.Node.DelAttr("is_test"); return nil }},
		{To: 10, Apply: dropoutMask},
		{To: 12, Apply: dropoutInputs},
	},
	Infer: func(c *Call) ([]ir.Type, error) {
		mask := c.Type(0)
		mask.Elem = ir.Bool
		return []ir.Type{c.Type(0), mask}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x := c.In[0]
		ratio := float32(0.5)
		if c.Has(1) {
			v, ok := c.In[1].Float32s()
			if !ok || len(v) != 1 || !(v[0] >= 0 && v[0] < 1) {
				return nil, fmt.Errorf("the ratio is %v %v, wants a number in [0, 1)", c.In[1].Type(), v)
			}
			ratio = v[0]
		}
		train, _ := c.ConstInts(2)
		if len(train) != 1 || train[0] == 0 {
			ratio = 0
		}
		mask, err := c.Like(x, ir.Bool)
		if err != nil {
			return nil, err
		}
		keep := ir.Data[uint8](mask)
		random := rand.New(rand.NewPCG(uint64(c.Node.Int("seed", 0)), 0))
		for i := range keep {
			keep[i] = 1
			if ratio > 0 && random.Float32() < ratio {
				keep[i] = 0
			}
		}
		if ratio == 0 {
			return []*ir.Tensor{x, mask}, nil
		}
		v, ok := x.Float32s()
		if !ok || x.Elem() == ir.Float64 {
			return nil, fmt.Errorf("training with element type %v: %w", x.Elem(), ErrUnsupported)
		}
		out, err := c.Like(x, ir.Float32)
		if err != nil {
			return nil, err
		}
		y := ir.Data[float32](out)
		for i := range y {
			y[i] = 0
			if keep[i] != 0 {
				y[i] = v[i] / (1 - ratio)
			}
		}
		if isHalf(x.Elem()) {
			out = narrow(out, x.Elem())
		}
		return []*ir.Tensor{out, mask}, nil
	},
}

// dropoutMask: the mask is of the data's type below opset 10, bool since.
func dropoutMask(u *Up) error {
	old := u.Node
	mask := old.Out(1)
	if mask == nil || mask.NumUses() == 0 {
		return nil
	}
	if err := u.Require(1); err != nil {
		return err
	}
	elem := old.In(0).Type.Elem
	if elem == ir.Undefined {
		return fmt.Errorf("the type of the mask %q is not known: %w", mask.Name, ErrUnsupported)
	}
	g := old.Graph()
	n := g.Insert(old, old.Name+"_bool", old.Op, old.Ins(), []string{"", mask.Name + "_bool"}, old.Attrs...)
	n.TakeOut(0, old.Out(0))
	cast := g.Place(old, old.Name, ir.Op("Cast"), []*ir.Value{n.Out(1)}, nil, ir.IntAttr("to", int64(elem)))
	cast.TakeOut(0, mask)
	u.Node = cast
	return g.Remove(old)
}

// dropoutInputs: opset 12 has the ratio as an input and says that the mask is all true outside training; before, the mask
// of inference was left open, and ONNX Runtime gives all false.
func dropoutInputs(u *Up) error {
	n := u.Node
	if a := n.Attr("ratio"); a != nil {
		n.SetIn(1, u.Const("ratio", ir.Scalar(a.F)))
		n.DelAttr("ratio")
	}
	mask := n.Out(1)
	if mask == nil || mask.NumUses() == 0 {
		return nil
	}
	if err := u.Require(1); err != nil {
		return err
	}
	shape := u.Value("shape", "Shape", []*ir.Value{n.In(0)})
	off := u.Const("off", ir.FromSlice(ir.Bool, []int{1}, []bool{false}))
	e := n.Graph().Insert(n, n.Name+"_mask", ir.Op("Expand"), []*ir.Value{off, shape}, nil)
	e.Origin = "upgrade"
	e.TakeOut(0, mask)
	return nil
}
