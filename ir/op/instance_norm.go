package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

var instanceNormalizationDef = &Def{
	Name: "InstanceNormalization", Doc: "each channel of each sample scaled to mean 0 and variance 1, then scale and bias", Since: 1,
	Versions: []int{1, 6, 22}, Types: "float, double, float16, bfloat16", In: Exactly(3), Out: Exactly(1), Widen: true,
	Upgrades: []Upgrade{{To: 6, Apply: func(u *Up) error { u.Node.DelAttr("consumed_inputs"); return nil }}},
	Infer:    same,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalFloat(c, []int{1, 2}, instanceNorm[float32], instanceNorm[float64])
	},
}

func instanceNorm[T floatElem](c *Call) ([]*ir.Tensor, error) {
	if len(c.In[0].Shape()) < 2 {
		return nil, fmt.Errorf("the input is %v, wants [N, C, D1, …]", c.In[0].Type())
	}
	return groupedNorm[T](c, c.In[0].Shape()[1])
}

var groupNormalizationDef = &Def{
	Name: "GroupNormalization", Doc: "each group of channels of each sample scaled to mean 0 and variance 1, then scale and bias of each channel",
	Since: 18, Versions: []int{18, 21}, Types: "float, double, float16, bfloat16", In: Exactly(3), Out: Exactly(1), Widen: true,
	Upgrades: []Upgrade{{To: 21, Apply: groupNormChannels}},
	Infer:    same,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalFloat(c, []int{1, 2}, groupNorm[float32], groupNorm[float64])
	},
}

// groupNormChannels: opset 18 has a scale and bias for each group, opset 21 for each channel.
func groupNormChannels(u *Up) error {
	n := u.Node
	groups := n.Int("num_groups", 0)
	if groups < 1 {
		return fmt.Errorf("attribute num_groups is %d, wants at least 1", groups)
	}
	if err := u.Require(3); err != nil {
		return err
	}
	var shape *ir.Value // [num_groups, channels of a group]
	if ch := n.In(0).Type.Dim(1); ch.Known() {
		shape = u.Const("per_group", ir.Ints(groups, ch.Size/groups))
	} else {
		g := u.Const("groups", ir.Ints(groups))
		all := u.Value("channels", "Shape", []*ir.Value{n.In(0)}, ir.IntAttr("start", 1), ir.IntAttr("end", 2))
		per := u.Value("group_size", "Div", []*ir.Value{all, g})
		shape = u.Value("per_group", "Concat", []*ir.Value{g, per}, ir.IntAttr("axis", 0))
	}
	column := u.Const("column", ir.Ints(groups, 1))
	flat := u.Const("flat", ir.Ints(-1))
	for i, what := range []string{"", "scale", "bias"} {
		if i == 0 {
			continue
		}
		v := u.Value(what+"_column", "Reshape", []*ir.Value{n.In(i), column})
		v = u.Value(what+"_spread", "Expand", []*ir.Value{v, shape})
		n.SetIn(i, u.Value(what+"_each", "Reshape", []*ir.Value{v, flat}))
	}
	return nil
}

func groupNorm[T floatElem](c *Call) ([]*ir.Tensor, error) {
	s, groups := c.In[0].Shape(), int(c.Node.Int("num_groups", 0))
	if len(s) < 2 {
		return nil, fmt.Errorf("the input is %v, wants [N, C, D1, …]", c.In[0].Type())
	}
	if groups < 1 || s[1]%groups != 0 {
		return nil, fmt.Errorf("attribute num_groups is %d, wants a divisor of the %d channels", groups, s[1])
	}
	return groupedNorm[T](c, groups)
}

// groupedNorm normalizes each group of channels of each sample and applies scale and bias of each channel.
func groupedNorm[T floatElem](c *Call, groups int) ([]*ir.Tensor, error) {
	x := c.In[0]
	s := x.Shape()
	channels, size := s[1], product(s[2:])
	scale, err := vector[T](c, 1, channels, "the scale")
	if err != nil {
		return nil, err
	}
	bias, err := vector[T](c, 2, channels, "the bias")
	if err != nil {
		return nil, err
	}
	out, err := c.Like(x, x.Elem())
	if err != nil || out.Len() == 0 {
		return []*ir.Tensor{out}, err
	}
	in, y := ir.Data[T](x), ir.Data[T](out)
	per := channels / groups
	eps := float64(c.Node.Float("epsilon", 1e-5))
	if y, ok := any(y).([]float32); ok {
		kernel.GroupNorm(s[0], groups, y, any(in).([]float32), any(scale).([]float32), any(bias).([]float32), eps, &kernel.Epilogue{})
		return []*ir.Tensor{out}, nil
	}
	par.For(s[0]*groups, 1+(1<<14)/(per*size+1), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			src, dst := in[i*per*size:(i+1)*per*size], y[i*per*size:(i+1)*per*size]
			m := mean(src)
			inv := 1 / math.Sqrt(variance(src, m)+eps)
			for k := range per {
				ch := i%groups*per + k
				normalize(dst[k*size:(k+1)*size], src[k*size:(k+1)*size], T(m), T(inv*float64(scale[ch])), bias[ch])
			}
		}
	})
	return []*ir.Tensor{out}, nil
}

var meanVarianceNormalizationDef = &Def{
	Name: "MeanVarianceNormalization", Doc: "(x - mean)/√variance over the given axes", Since: 9, Versions: []int{9, 13},
	Types: "float, double, float16, bfloat16", In: Exactly(1), Out: Exactly(1), Widen: true, Infer: same,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalFloat(c, nil, meanVarianceNorm[float32], meanVarianceNorm[float64])
	},
}

func meanVarianceNorm[T floatElem](c *Call) ([]*ir.Tensor, error) {
	x := c.In[0]
	s := x.Shape()
	axes := c.Node.Ints("axes")
	if axes == nil {
		axes = []int64{0, 2, 3}
	}
	reduced := make([]bool, len(s))
	for _, a := range axes {
		i, err := Axis(a, len(s))
		if err != nil {
			return nil, err
		}
		reduced[i] = true
	}
	out, err := c.Like(x, x.Elem())
	if err != nil || out.Len() == 0 {
		return []*ir.Tensor{out}, err
	}
	// group[i]: the number of the group that element i belongs to, counted over the kept axes
	in, y := ir.Data[T](x), ir.Data[T](out)
	count := 1
	step := make([]int, len(s))
	for d := len(s) - 1; d >= 0; d-- {
		if !reduced[d] {
			step[d] = count
			count *= s[d]
		}
	}
	group := func(i int) int {
		g := 0
		for d := len(s) - 1; d >= 0; d-- {
			g += i % s[d] * step[d]
			i /= s[d]
		}
		return g
	}
	sum := make([]float64, count)
	n := float64(len(in)) / float64(max(count, 1))
	for i, v := range in {
		sum[group(i)] += float64(v)
	}
	vari := make([]float64, count)
	for i, v := range in {
		d := float64(v) - sum[group(i)]/n
		vari[group(i)] += float64(d * d)
	}
	const tiny = 1e-9 // added to the deviation by the operator's function body in the specification
	for i, v := range in {
		g := group(i)
		y[i] = T((float64(v) - sum[g]/n) / (math.Sqrt(vari[g]/n) + tiny))
	}
	return []*ir.Tensor{out}, nil
}
