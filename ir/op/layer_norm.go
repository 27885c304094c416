package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

var layerNormalizationDef = &Def{
	Name: "LayerNormalization", Doc: "the axes from axis on scaled to mean 0 and variance 1, then scale and bias", Since: 17,
	Versions: []int{17}, Types: "float, double, float16, bfloat16", In: Between(2, 3), Out: Between(1, 3), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		stat := ir.Type{Elem: stashType(c.Node)}
		if x.Ranked {
			axis, err := Axis(c.Node.Int("axis", -1), len(x.Dims))
			if err != nil {
				return nil, err
			}
			dims := append([]ir.Dim(nil), x.Dims...)
			for i := axis; i < len(dims); i++ {
				dims[i] = ir.FixedDim(1)
			}
			stat = ir.TensorType(stat.Elem, dims...)
		}
		return []ir.Type{x, stat, stat}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		if err := sameElem(c, 1, 2); err != nil {
			return nil, err
		}
		switch c.In[0].Elem() {
		case ir.Float32:
			return layerNorm(c, kernel.LayerNorm)
		case ir.Float64:
			return layerNorm(c, layerNorm64)
		}
		return nil, fmt.Errorf("element type %v: %w", c.In[0].Elem(), ErrUnsupported)
	},
}

// stashType returns the element type of a normalization's saved statistics.
func stashType(n *ir.Node) ir.DType {
	if t := ir.DType(n.Int("stash_type", int64(ir.Float32))); t.Valid() {
		return t
	}
	return ir.Float32
}

func layerNorm64(rows, cols int, dst, x, gamma, beta []float64, eps float32, mu, invStd []float64) {
	par.For(rows, 1+(1<<14)/(cols+1), func(lo, hi int) {
		for r := lo; r < hi; r++ {
			in, out := x[r*cols:(r+1)*cols], dst[r*cols:(r+1)*cols]
			m := mean(in)
			inv := 1 / math.Sqrt(variance(in, m)+float64(eps))
			if mu != nil {
				mu[r], invStd[r] = m, inv
			}
			for i, v := range in {
				out[i] = (v - m) * inv
				if gamma != nil {
					out[i] = float64(out[i]*gamma[i]) + beta[i]
				}
			}
		}
	})
}

// layerNorm normalizes rows with the given kernel, which takes nil for an absent scale, bias, mean and deviation.
func layerNorm[T floatElem](c *Call, norm func(rows, cols int, dst, x, gamma, beta []T, eps float32, mu, invStd []T)) ([]*ir.Tensor, error) {
	x := c.In[0]
	s := x.Shape()
	axis, err := Axis(c.Node.Int("axis", -1), len(s))
	if err != nil {
		return nil, err
	}
	rows, cols := product(s[:axis]), product(s[axis:])
	out, err := c.Like(x, x.Elem())
	if err != nil {
		return nil, err
	}
	shape := append([]int{}, s...)
	for i := axis; i < len(s); i++ {
		shape[i] = 1
	}
	var saved [2]*ir.Tensor
	var stats [2][]T
	if c.HasOut(1) || c.HasOut(2) {
		for i := range saved {
			if saved[i], err = c.New(x.Elem(), shape...); err != nil {
				return nil, err
			}
			stats[i] = ir.Data[T](saved[i])
			setAll(stats[i], T(math.NaN())) // of rows without elements
		}
	}
	results := func() ([]*ir.Tensor, error) {
		all := []*ir.Tensor{out}
		for i, t := range saved {
			if t == nil || !c.HasOut(i+1) {
				all = append(all, nil)
			} else {
				all = append(all, floatAs(t, stashType(c.Node)))
			}
		}
		return all, nil
	}
	if out.Len() == 0 {
		return results()
	}
	in, y := ir.Data[T](x), ir.Data[T](out)
	gamma, err := normParam[T](c, 1, s, axis)
	if err != nil {
		return nil, err
	}
	beta, err := normParam[T](c, 2, s, axis)
	if err != nil {
		return nil, err
	}
	if beta == nil {
		beta = make([]T, len(gamma))
	}
	eps := c.Node.Float("epsilon", 1e-5)
	if len(gamma) == cols && len(beta) == cols {
		norm(rows, cols, y, in, gamma, beta, eps, stats[0], stats[1])
	} else { // scale or bias differ from row to row
		norm(rows, cols, y, in, nil, nil, eps, stats[0], stats[1])
		for i := range y {
			y[i] = T(y[i]*gamma[i%len(gamma)]) + beta[i%len(beta)]
		}
	}
	return results()
}

// normParam returns scale or bias of a normalization of shape s from the given axis on: the elements of one row where it
// broadcasts along whole axes, those of the whole result otherwise; nil if absent.
func normParam[T floatElem](c *Call, i int, s []int, axis int) ([]T, error) {
	if !c.Has(i) {
		return nil, nil
	}
	t := c.In[i]
	p := t.Shape()
	if len(p) > len(s) {
		return nil, fmt.Errorf("input %d has shape %v, which does not broadcast to %v", i, p, s)
	}
	full := make([]int, len(s))
	for k := range full {
		full[k] = 1
	}
	copy(full[len(s)-len(p):], p)
	for k, d := range full {
		if d != 1 && d != s[k] {
			return nil, fmt.Errorf("input %d has shape %v, which does not broadcast to %v", i, p, s)
		}
	}
	target := append([]int{}, s...)
	if product(full[:axis]) == 1 {
		for k := range axis {
			target[k] = 1
		}
	}
	v := ir.Data[T](t)
	if t.Len() == product(target) {
		return v, nil
	}
	out := make([]T, product(target))
	for k := range out {
		rest, at, step := k, 0, 1
		for d := len(s) - 1; d >= 0; d-- {
			at += rest % target[d] % full[d] * step
			rest /= target[d]
			step *= full[d]
		}
		out[k] = v[at]
	}
	return out, nil
}

var rmsNormalizationDef = &Def{
	Name: "RMSNormalization", Doc: "x/√(mean(x²) + epsilon)·scale over the axes from axis on", Since: 23,
	Versions: []int{23}, Types: "float, double, float16, bfloat16", In: Exactly(2), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		if e := c.Type(1).Elem; e != ir.Undefined {
			x.Elem = e
		}
		return []ir.Type{x}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		if e := c.In[1].Elem(); e == ir.Float32 || e == ir.Float64 { // the result has the scale's type
			c.In[0] = floatAs(c.In[0], e)
		}
		if err := sameElem(c, 1); err != nil {
			return nil, err
		}
		switch c.In[0].Elem() {
		case ir.Float32:
			return rmsNorm(c, kernel.RMSNorm)
		case ir.Float64:
			return rmsNorm(c, rmsNorm64)
		}
		return nil, fmt.Errorf("element type %v: %w", c.In[0].Elem(), ErrUnsupported)
	},
}

func rmsNorm64(rows, cols int, dst, x, gamma []float64, eps float32) {
	par.For(rows, 1+(1<<14)/(cols+1), func(lo, hi int) {
		for r := lo; r < hi; r++ {
			in, out := x[r*cols:(r+1)*cols], dst[r*cols:(r+1)*cols]
			inv := 1 / math.Sqrt(variance(in, 0)+float64(eps))
			for i, v := range in {
				out[i] = v * inv
				if gamma != nil {
					out[i] *= gamma[i]
				}
			}
		}
	})
}

func rmsNorm[T floatElem](c *Call, norm func(rows, cols int, dst, x, gamma []T, eps float32)) ([]*ir.Tensor, error) {
	x := c.In[0]
	s := x.Shape()
	axis, err := Axis(c.Node.Int("axis", -1), len(s))
	if err != nil {
		return nil, err
	}
	rows, cols := product(s[:axis]), product(s[axis:])
	out, err := c.Like(x, x.Elem())
	if err != nil {
		return nil, err
	}
	if out.Len() == 0 {
		return []*ir.Tensor{out}, nil
	}
	gamma, err := normParam[T](c, 1, s, axis)
	if err != nil {
		return nil, err
	}
	in, y := ir.Data[T](x), ir.Data[T](out)
	eps := c.Node.Float("epsilon", 1e-5)
	if len(gamma) == cols {
		norm(rows, cols, y, in, gamma, eps)
		return []*ir.Tensor{out}, nil
	}
	norm(rows, cols, y, in, nil, eps)
	for i := range y {
		y[i] *= gamma[i%len(gamma)]
	}
	return []*ir.Tensor{out}, nil
}
