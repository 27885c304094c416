package op

import (
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// inferGlobalPool infers [N, C, 1, 1, …] from [N, C, D1, D2, …].
func inferGlobalPool(c *Call) ([]ir.Type, error) {
	x := c.Type(0)
	if !x.Ranked {
		return []ir.Type{{Elem: x.Elem}}, nil
	}
	if _, err := spatialRank(x, "the input"); err != nil {
		return nil, err
	}
	dims := append([]ir.Dim(nil), x.Dims...)
	for i := range dims[2:] {
		dims[i+2] = ir.FixedDim(1)
	}
	return []ir.Type{ir.TensorType(x.Elem, dims...)}, nil
}

// globalPool computes one number of each plane [n, c].
func globalPool[T floatElem](c *Call, f func(plane []T) T) ([]*ir.Tensor, error) {
	x := c.In[0]
	if _, err := spatialRank(x.Type(), "the input"); err != nil {
		return nil, err
	}
	shape := append([]int{}, x.Shape()...)
	size := product(shape[2:])
	for i := range shape[2:] {
		shape[i+2] = 1
	}
	out, err := c.New(x.Elem(), shape...)
	if err != nil {
		return nil, err
	}
	in, y := ir.Data[T](x), ir.Data[T](out)
	par.For(len(y), 1+(1<<15)/(size+1), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			y[i] = f(in[i*size : (i+1)*size])
		}
	})
	return []*ir.Tensor{out}, nil
}

var globalAveragePoolDef = &Def{
	Name: "GlobalAveragePool", Doc: "the mean over all spatial axes", Since: 1, Versions: []int{1, 22},
	Types: "float, double, float16, bfloat16", In: Exactly(1), Out: Exactly(1), Widen: true, Infer: inferGlobalPool,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalFloat(c, nil, globalAverage[float32], globalAverage[float64])
	},
}

func globalAverage[T floatElem](c *Call) ([]*ir.Tensor, error) {
	return globalPool(c, func(plane []T) T { return T(mean(plane)) })
}

// mean returns the mean of x, summed in float64.
func mean[T floatElem](x []T) float64 {
	if x, ok := any(x).([]float32); ok {
		return kernel.Mean(x)
	}
	var s0, s1, s2, s3 float64
	i := 0
	for ; i+4 <= len(x); i += 4 {
		s0 += float64(x[i])
		s1 += float64(x[i+1])
		s2 += float64(x[i+2])
		s3 += float64(x[i+3])
	}
	for ; i < len(x); i++ {
		s0 += float64(x[i])
	}
	return (s0 + s1 + s2 + s3) / float64(len(x))
}

// variance returns the mean of (x-m)².
func variance[T floatElem](x []T, m float64) float64 {
	if x, ok := any(x).([]float32); ok {
		return kernel.Variance(x, m)
	}
	var s0, s1 float64
	i := 0
	for ; i+2 <= len(x); i += 2 {
		d0, d1 := float64(x[i])-m, float64(x[i+1])-m
		s0 += float64(d0 * d0)
		s1 += float64(d1 * d1)
	}
	for ; i < len(x); i++ {
		d := float64(x[i]) - m
		s0 += float64(d * d)
	}
	return (s0 + s1) / float64(len(x))
}

var globalMaxPoolDef = &Def{
	Name: "GlobalMaxPool", Doc: "the maximum over all spatial axes", Since: 1, Versions: []int{1, 22},
	Types: "float, double, float16, bfloat16", In: Exactly(1), Out: Exactly(1), Widen: true, Infer: inferGlobalPool,
	Eval: func(c *Call) ([]*ir.Tensor, error) { return evalFloat(c, nil, globalMax[float32], globalMax[float64]) },
}

func globalMax[T floatElem](c *Call) ([]*ir.Tensor, error) {
	return globalPool(c, func(plane []T) T {
		var m T
		for i, v := range plane {
			if i == 0 || v > m || v != v {
				m = v
			}
		}
		return m
	})
}

var globalLpPoolDef = &Def{
	Name: "GlobalLpPool", Doc: "the p-norm over all spatial axes", Since: 1, Versions: []int{1, 2, 22},
	Types: "float, double, float16, bfloat16", In: Exactly(1), Out: Exactly(1), Widen: true, Infer: inferGlobalPool,
	Upgrades: []Upgrade{{To: 2, Apply: intNorm}},
	Eval:     func(c *Call) ([]*ir.Tensor, error) { return evalFloat(c, nil, globalLp[float32], globalLp[float64]) },
}

func globalLp[T floatElem](c *Call) ([]*ir.Tensor, error) {
	order, err := normOrder(c.Node)
	if err != nil {
		return nil, err
	}
	return globalPool(c, func(plane []T) T {
		sum := 0.0
		for _, v := range plane {
			sum += normPower(float64(v), order)
		}
		return T(normRoot(sum, order))
	})
}
