package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
)

var rangeDef = &Def{
	Name: "Range", Doc: "the numbers start, start+delta, … before limit", Since: 11, Versions: []int{11, 27},
	Types: "float, double, float16, bfloat16, int16, int32, int64",
	In:    Exactly(3), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		elem := c.Type(0).Elem
		dim := ir.UnknownDim
		start, limit, delta := c.Const(0), c.Const(1), c.Const(2)
		if start != nil && limit != nil && delta != nil {
			n, err := rangeCount(start, limit, delta)
			if err != nil {
				return nil, err
			}
			dim = ir.Dim{Size: n}
		} else if a, ok := inputInts(c, 0); ok && len(a) == 1 && a[0] == 0 {
			if d, ok := inputInts(c, 2); ok && len(d) == 1 && d[0] == 1 {
				if l, ok := c.Dims(1); ok && len(l) == 1 && l[0].Name != "" {
					dim = ir.NamedDim(l[0].Name)
				}
			}
		}
		return typed(elem, []ir.Dim{dim}), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		elem := c.In[0].Elem()
		n, err := rangeCount(c.In[0], c.In[1], c.In[2])
		if err != nil {
			return nil, err
		}
		out, err := c.New(elem, int(n))
		if err != nil {
			return nil, err
		}
		switch elem {
		case ir.Float32:
			rangeFloats(ir.Data[float32](out), ir.Data[float32](c.In[0])[0], ir.Data[float32](c.In[2])[0])
		case ir.Float64:
			rangeFloats(ir.Data[float64](out), ir.Data[float64](c.In[0])[0], ir.Data[float64](c.In[2])[0])
		case ir.Int16:
			rangeFloats(ir.Data[int16](out), ir.Data[int16](c.In[0])[0], ir.Data[int16](c.In[2])[0])
		case ir.Int32:
			rangeFloats(ir.Data[int32](out), ir.Data[int32](c.In[0])[0], ir.Data[int32](c.In[2])[0])
		case ir.Int64:
			rangeFloats(ir.Data[int64](out), ir.Data[int64](c.In[0])[0], ir.Data[int64](c.In[2])[0])
		default:
			return nil, fmt.Errorf("type %v: %w", elem, ErrUnsupported)
		}
		return []*ir.Tensor{out}, nil
	},
}

func rangeFloats[T float32 | float64 | int16 | int32 | int64](out []T, start, delta T) {
	for i := range out {
		out[i] = start + T(T(i)*delta)
	}
}

// rangeCount returns ceil((limit-start)/delta), at least 0.
func rangeCount(start, limit, delta *ir.Tensor) (int64, error) {
	for _, t := range []*ir.Tensor{start, limit, delta} {
		if t.Len() != 1 || t.Elem() != start.Elem() {
			return 0, fmt.Errorf("start, limit and delta are %v, %v and %v, want three numbers of one type", start.Type(), limit.Type(), delta.Type())
		}
	}
	if start.Elem().IsInt() {
		a, ok := start.Int64s()
		b, _ := limit.Int64s()
		d, _ := delta.Int64s()
		if !ok {
			return 0, fmt.Errorf("type %v: %w", start.Elem(), ErrUnsupported)
		}
		if d[0] == 0 {
			return 0, fmt.Errorf("delta is 0")
		}
		// unsigned differences cannot overflow
		var n uint64
		switch {
		case d[0] > 0 && b[0] > a[0]:
			n = (uint64(b[0])-uint64(a[0])-1)/uint64(d[0]) + 1
		case d[0] < 0 && b[0] < a[0]:
			n = (uint64(a[0])-uint64(b[0])-1)/-uint64(d[0]) + 1
		}
		if n > ir.MaxElements {
			return 0, fmt.Errorf("range from %d to %d by %d has more than %d numbers", a[0], b[0], d[0], int64(ir.MaxElements))
		}
		return int64(n), nil
	}
	var v [3]float64
	for i, t := range []*ir.Tensor{start, limit, delta} {
		if t.Elem() == ir.Float64 {
			v[i] = ir.Data[float64](t)[0]
			continue
		}
		f, ok := t.Float32s()
		if !ok {
			return 0, fmt.Errorf("type %v: %w", t.Elem(), ErrUnsupported)
		}
		v[i] = float64(f[0])
	}
	n := math.Ceil((v[1] - v[0]) / v[2])
	if math.IsNaN(n) || n > ir.MaxElements {
		return 0, fmt.Errorf("range from %v to %v by %v is not finite or too long", v[0], v[1], v[2])
	}
	return int64(max(n, 0)), nil
}
