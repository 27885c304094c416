package runtime

import (
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// norm is the state of a joined normalization of the last axis.
type norm struct {
	center      bool // LayerNorm; else RMSNorm
	gamma, beta []float32
	eps         float32
}

// norm joins the steps of a layer or RMS normalization around the square root of step i:
//
//	d = x - mean(x) (layer) or x (RMS); d/√(mean(d²)+eps)·gamma + beta
//
// in the forms that exporters write.
func (f *fuser) norm(i int) {
	if !f.is(i, "Sqrt") {
		return
	}
	root := f.steps[i].out[0]
	add, ok := f.maker(f.steps[i].in[0], "Add")
	if !ok || !f.private(f.steps[add].out[0], i) {
		return
	}
	n := &norm{}
	mean, found := 0, false
	for k, s := range f.steps[add].in {
		if eps, scalar := scalarOf(f.constant(s)); scalar {
			n.eps = eps
			mean, found = f.mean(f.steps[add].in[1-k])
		}
	}
	if !found || !f.private(f.steps[mean].out[0], add) {
		return
	}
	square, d, ok := f.squared(f.steps[mean].in[0])
	if !ok || !f.private(f.steps[square].out[0], mean) {
		return
	}
	// Forward: divide d by the root, or multiply with its inverse.
	last, inverse, ok := f.scaled(root, d)
	if !ok {
		return
	}
	parts := []int{square, mean, add, i}
	parts = append(parts, inverse...)
	x := d
	if sub, ok := f.maker(d, "Sub"); ok {
		if m, ok := f.mean(f.steps[sub].in[1]); ok && f.steps[m].in[0] == f.steps[sub].in[0] && f.private(f.steps[m].out[0], sub) && f.within(d, parts) {
			n.center, x = true, f.steps[sub].in[0]
			parts = append(parts, sub, m)
		}
	}
	cols := f.cols(x)
	scale := func(want string) []float32 {
		y := f.steps[last].out[0]
		k, ok := f.next(y)
		if !ok || !f.is(k, want) {
			return nil
		}
		t := f.constant(f.other(k, y))
		if t == nil || t.Elem() != ir.Float32 || t.Rank() != 1 || t.Len() != cols {
			return nil
		}
		last = k
		parts = append(parts, k)
		return ir.Data[float32](t)
	}
	n.gamma = scale("Mul")
	if n.center {
		n.beta = scale("Add")
	}
	f.join(normDef, n, []int{x}, parts...)
}

// cols returns the length of a float32 value's last axis, -1 where it is not known.
func (f *fuser) cols(s int) int {
	i, ok := f.by[s]
	if !ok {
		return -1
	}
	for k, o := range f.steps[i].out {
		if o == s {
			if t := f.steps[i].node.Out(k).Type; t.Ranked && len(t.Dims) > 0 && t.Dims[len(t.Dims)-1].Known() {
				return int(t.Dims[len(t.Dims)-1].Size)
			}
		}
	}
	return -1
}

// mean reports that slot s is the mean over the last axis, which is kept.
func (f *fuser) mean(s int) (int, bool) {
	i, ok := f.maker(s, "ReduceMean")
	if !ok || f.steps[i].node.Int("keepdims", 1) == 0 || len(f.steps[i].in) < 2 {
		return 0, false
	}
	axes := f.constant(f.steps[i].in[1])
	if axes == nil || axes.Len() != 1 {
		return 0, false
	}
	v, _ := axes.Int64s()
	t := f.steps[i].node.In(0).Type
	return i, v[0] == -1 || t.Ranked && int(v[0]) == len(t.Dims)-1
}

// squared reports that slot s is the square of slot d.
func (f *fuser) squared(s int) (i, d int, ok bool) {
	if i, ok = f.maker(s, "Pow"); ok && f.about(f.steps[i].in[1], 2) {
		return i, f.steps[i].in[0], true
	}
	if i, ok = f.maker(s, "Mul"); ok && f.steps[i].in[0] == f.steps[i].in[1] {
		return i, f.steps[i].in[0], true
	}
	return 0, 0, false
}

// scaled finds the steps that divide slot d by slot root, which nothing else reads.
func (f *fuser) scaled(root, d int) (last int, parts []int, ok bool) {
	k, ok := f.next(root)
	if !ok {
		return 0, nil, false
	}
	if f.is(k, "Div") && f.steps[k].in[0] == d && f.steps[k].in[1] == root {
		return k, []int{k}, true
	}
	if f.is(k, "Div") && f.steps[k].in[1] == root && f.about(f.steps[k].in[0], 1) || f.is(k, "Reciprocal") {
		inv := f.steps[k].out[0]
		if m, ok := f.next(inv); ok && f.is(m, "Mul") && f.other(m, inv) == d {
			return m, []int{k, m}, true
		}
	}
	return 0, nil, false
}

// within reports that all that reads slot s are the given steps.
func (f *fuser) within(s int, steps []int) bool {
	if f.fixed[s] {
		return false
	}
	for _, u := range f.users[s] {
		if !slices.Contains(steps, u) {
			return false
		}
	}
	return true
}

// normDef normalizes the last axis of its input.
var normDef = &op.Def{Name: "normalization", Eval: func(c *op.Call) ([]*ir.Tensor, error) {
	n, x := c.State.(*norm), c.In[0]
	s := x.Shape()
	if len(s) == 0 || x.Elem() != ir.Float32 || n.gamma != nil && s[len(s)-1] != len(n.gamma) {
		return nil, errUnfit
	}
	out, err := c.New(ir.Float32, s...)
	if err != nil || out.Len() == 0 {
		return []*ir.Tensor{out}, err
	}
	cols := s[len(s)-1]
	v, y := ir.Data[float32](x), ir.Data[float32](out)
	if n.center {
		kernel.LayerNorm(len(v)/cols, cols, y, v, n.gamma, n.beta, n.eps, nil, nil)
	} else {
		kernel.RMSNorm(len(v)/cols, cols, y, v, n.gamma, n.eps)
	}
	return []*ir.Tensor{out}, nil
}}
