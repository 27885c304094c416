package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

var batchNormalizationDef = &Def{
	Name: "BatchNormalization", Doc: "(x - mean)/√(var + epsilon)·scale + bias of each channel", Since: 1,
	Versions: []int{1, 6, 7, 9, 14, 15}, Types: "float, double, float16, bfloat16", In: Exactly(5), Out: Between(1, 3), Widen: true,
	Upgrades: []Upgrade{
		{To: 6, Apply: func(u *Up) error { u.Node.DelAttr("consumed_inputs"); return nil }},
		{To: 7, Apply: func(u *Up) error { u.Node.DelAttr("is_test"); return nil }},
		{To: 9, Apply: batchNormSpatial},
		{To: 14, Apply: batchNormTraining},
	},
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		stat := ir.TensorType(c.Type(3).Elem, x.Dim(1))
		if x.Ranked {
			for i := 1; i < 5; i++ {
				t := c.Type(i)
				if a, b := t.Dim(0), x.Dim(1); t.Ranked && (len(t.Dims) != 1 || len(x.Dims) > 1 && a.Known() && b.Known() && a.Size != b.Size) {
					return nil, fmt.Errorf("input %d is %v, wants one number for each channel of %v", i, t, x)
				}
			}
		}
		return []ir.Type{x, stat, stat}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		for i := 1; i < 5; i++ { // their types may differ from the data's
			if t := c.In[i]; t.Elem() != c.In[0].Elem() && (t.Elem() == ir.Float64 || t.Elem() == ir.Float32) {
				c.In[i] = floatAs(t, c.In[0].Elem())
			}
		}
		return evalFloat(c, []int{1, 2, 3, 4}, batchNorm[float32], batchNorm[float64])
	},
}

// floatAs converts a float32 or float64 tensor to the other of them.
func floatAs(t *ir.Tensor, elem ir.DType) *ir.Tensor {
	if elem == ir.Float64 && t.Elem() == ir.Float32 {
		v := ir.Data[float32](t)
		out := make([]float64, len(v))
		for i, x := range v {
			out[i] = float64(x)
		}
		return ir.FromSlice(ir.Float64, t.Shape(), out)
	}
	if elem == ir.Float32 && t.Elem() == ir.Float64 {
		v, _ := t.Float32s()
		return ir.Floats(v, t.Shape()...)
	}
	return t
}

// batchNormSpatial writes the per-activation form of opsets below 9 (spatial=0: statistics of the shape of one sample) as
// arithmetic.
func batchNormSpatial(u *Up) error {
	n := u.Node
	spatial := n.Int("spatial", 1)
	n.DelAttr("spatial")
	if spatial != 0 {
		return nil
	}
	if err := u.Require(5); err != nil {
		return err
	}
	elem := n.In(0).Type.Elem
	if elem == ir.Undefined {
		elem = n.In(3).Type.Elem
	}
	eps := ir.Scalar(n.Float("epsilon", 1e-5))
	switch elem {
	case ir.Float64:
		eps = floatAs(eps, elem)
	case ir.Float16:
		eps = narrow(eps, elem)
	}
	std := u.Value("std", "Sqrt", []*ir.Value{u.Value("var_eps", "Add", []*ir.Value{n.In(4), u.Const("epsilon", eps)})})
	centred := u.Value("centred", "Sub", []*ir.Value{n.In(0), n.In(3)})
	scaled := u.Value("scaled", "Mul", []*ir.Value{u.Value("normed", "Div", []*ir.Value{centred, std}), n.In(1)})
	return u.Replace("Add", []*ir.Value{scaled, n.In(2)})
}

// batchNormTraining: below opset 14 a node that has its statistics as results is in training mode; saved_mean and saved_var
// are gone since.
func batchNormTraining(u *Up) error {
	old := u.Node
	used := func(i int) bool { v := old.Out(i); return v != nil && v.NumUses() > 0 }
	for i := 3; i < old.NumOut(); i++ {
		if used(i) {
			return fmt.Errorf("output %d, %q, is used and newer opsets do not have it: %w", i, old.Out(i).Name, ErrUnsupported)
		}
	}
	if old.NumOut() == 1 {
		return nil
	}
	g := old.Graph()
	n := g.Place(old, old.Name, old.Op, old.Ins(), nil, old.Attrs...)
	n.Doc, n.Meta, n.Origin = old.Doc, old.Meta, old.Origin
	n.TakeOut(0, old.Out(0))
	for i := 1; i < 3; i++ {
		if used(i) {
			n.TakeOut(i, old.Out(i))
			n.SetAttr(ir.IntAttr("training_mode", 1))
		}
	}
	u.Node = n
	return g.Remove(old)
}

func batchNorm[T floatElem](c *Call) ([]*ir.Tensor, error) {
	x := c.In[0]
	shape := x.Shape()
	if len(shape) == 0 {
		return nil, fmt.Errorf("the input is a scalar, wants [N, C, …]")
	}
	channels, size := 1, 1
	if len(shape) > 1 {
		channels, size = shape[1], product(shape[2:])
	}
	var param [4][]T
	for i, what := range []string{"scale", "bias", "mean", "variance"} {
		var err error
		if param[i], err = vector[T](c, i+1, channels, what); err != nil {
			return nil, err
		}
	}
	out, err := c.Like(x, x.Elem())
	if err != nil {
		return nil, err
	}
	in, y := ir.Data[T](x), ir.Data[T](out)
	eps := float64(c.Node.Float("epsilon", 1e-5))
	mean, vari := param[2], param[3]
	results := []*ir.Tensor{out}
	if c.Node.Int("training_mode", 0) != 0 {
		mean, vari = channelStatistics(in, shape[0], channels, size)
		keep := float64(c.Node.Float("momentum", 0.9))
		for i, now := range [][]T{mean, vari} {
			running, err := c.New(x.Elem(), channels)
			if err != nil {
				return nil, err
			}
			r := ir.Data[T](running)
			for k, was := range param[2+i] {
				r[k] = T(float64(was)*keep + float64(now[k])*(1-keep))
			}
			results = append(results, running)
		}
	}
	if out.Len() == 0 {
		return results, nil
	}
	par.For(shape[0]*channels, 1+(1<<15)/(size+1), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			k := i % channels
			f := T(float64(param[0][k]) / math.Sqrt(float64(vari[k])+eps))
			normalize(y[i*size:(i+1)*size], in[i*size:(i+1)*size], mean[k], f, param[1][k])
		}
	})
	return results, nil
}

// normalize sets dst to (x - mean)·f + bias, each step rounded.
func normalize[T floatElem](dst, x []T, mean, f, bias T) {
	if dst, ok := any(dst).([]float32); ok {
		x := any(x).([]float32)
		const piece = 4096 // stays in the first cache
		for len(x) > 0 {
			n := min(piece, len(x))
			kernel.SubScalar(dst[:n], x[:n], float32(mean))
			kernel.MulScalar(dst[:n], dst[:n], float32(f))
			kernel.AddScalar(dst[:n], dst[:n], float32(bias))
			dst, x = dst[n:], x[n:]
		}
		return
	}
	for i, v := range x {
		dst[i] = T((v-mean)*f) + bias
	}
}

// channelStatistics returns mean and variance of each channel of [batch, channels, size], over batch and positions.
func channelStatistics[T floatElem](x []T, batch, channels, size int) (mean, vari []T) {
	mean, vari = make([]T, channels), make([]T, channels)
	n := float64(batch * size)
	par.For(channels, 1, func(lo, hi int) {
		for k := lo; k < hi; k++ {
			sum := 0.0
			each := func(f func(float64)) {
				for b := range batch {
					for _, v := range x[(b*channels+k)*size:][:size] {
						f(float64(v))
					}
				}
			}
			each(func(v float64) { sum += v })
			m := sum / n
			sum = 0
			each(func(v float64) { sum += float64((v - m) * (v - m)) })
			mean[k], vari[k] = T(m), T(sum/n)
		}
	})
	return mean, vari
}
