package runtime

import (
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// groupNorm is the state of a joined normalization of groups of channels.
type groupNorm struct {
	groups, rank int
	scale, shift []float32 // of each channel
	eps          float64
	ep           *kernel.Epilogue
}

// groupNorm joins the steps of a group normalization around the InstanceNormalization of step i, in the form that exporters
// write: the groups become channels, and each channel has a scale and a shift after that. An activation may follow.
func (f *fuser) groupNorm(i int) {
	if !f.is(i, "InstanceNormalization") {
		return
	}
	st := &f.steps[i]
	before, ok := f.maker(st.in[0], "Reshape")
	if !ok || !f.private(st.in[0], i) || f.steps[before].node.Int("allowzero", 0) != 0 {
		return
	}
	shape := f.constant(f.steps[before].in[1])
	if shape == nil || shape.Elem() != ir.Int64 || shape.Len() < 3 {
		return
	}
	to, _ := shape.Int64s()
	after, ok := f.next(st.out[0])
	if !ok || !f.is(after, "Reshape") || f.steps[after].in[0] != st.out[0] || to[0] != 0 || to[1] < 1 {
		return
	}
	n := &groupNorm{groups: int(to[1]), eps: float64(st.node.Float("epsilon", 1e-5)), ep: &kernel.Epilogue{}}
	parts := []int{before, i, after}
	mul, gamma := f.perChannel(after, "Mul", n)
	if gamma == nil {
		return
	}
	add, beta := f.perChannel(mul, "Add", n)
	scale, bias := f.constant(st.in[1]), f.constant(st.in[2])
	if len(beta) != len(gamma) || len(gamma)%n.groups != 0 || scale == nil || bias == nil || scale.Len() != n.groups || bias.Len() != n.groups {
		return
	}
	parts = append(parts, mul, add)
	s, b := ir.Data[float32](scale), ir.Data[float32](bias)
	n.scale, n.shift = make([]float32, len(gamma)), make([]float32, len(gamma))
	for c, g := range gamma {
		k := c / (len(gamma) / n.groups)
		n.scale[c], n.shift[c] = s[k]*g, float32(float64(b[k])*float64(g)+float64(beta[c]))
	}
	if act, ok := f.match(f.steps[add].out[0]); ok {
		n.ep.Act, n.ep.Lo, n.ep.Hi = act.act, act.lo, act.hi
		parts = append(parts, act.parts...)
	}
	f.join(groupNormDef, n, []int{f.steps[before].in[0], f.steps[after].in[1]}, parts...)
}

// perChannel finds the step that is all that reads the result of step i, of the given operator with a constant for each channel, and
// returns it with the constant; nil: no such thing. Both of a normalization must be for values of one rank.
func (f *fuser) perChannel(i int, operator string, n *groupNorm) (int, []float32) {
	k, ok := f.next(f.steps[i].out[0])
	if !ok || !f.is(k, operator) {
		return 0, nil
	}
	c := f.constant(f.other(k, f.steps[i].out[0]))
	if c == nil || c.Elem() != ir.Float32 {
		return 0, nil
	}
	s := c.Shape()
	rank := len(s) + 1
	if len(s) > 0 && s[0] == 1 {
		s, rank = s[1:], len(s)
	}
	if len(s) == 0 || s[0] != c.Len() || n.rank != 0 && n.rank != rank {
		return 0, nil
	}
	n.rank = rank
	return k, ir.Data[float32](c)
}

// groupNormDef normalizes groups of channels; inputs are x and the shape of the result, which must be that of x.
var groupNormDef = &op.Def{Name: "group normalization", Eval: func(c *op.Call) ([]*ir.Tensor, error) {
	n, x := c.State.(*groupNorm), c.In[0]
	s := x.Shape()
	want, ok := c.In[1].Int64s()
	if !ok || len(s) != n.rank || x.Elem() != ir.Float32 || s[1] != len(n.scale) || len(want) != len(s) {
		return nil, errUnfit
	}
	for i, d := range s {
		if int64(d) != want[i] {
			return nil, errUnfit
		}
	}
	out, err := c.New(ir.Float32, slices.Clone(s)...)
	if err != nil || out.Len() == 0 {
		return []*ir.Tensor{out}, err
	}
	kernel.GroupNorm(s[0], n.groups, ir.Data[float32](out), ir.Data[float32](x), n.scale, n.shift, n.eps, n.ep)
	return []*ir.Tensor{out}, nil
}}
