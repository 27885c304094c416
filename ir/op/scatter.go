package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

var scatterElementsDef = &Def{
	Name: "ScatterElements", Doc: "its input with single elements replaced, or combined, at the places indices name along an axis",
	Since: 11, Versions: []int{11, 13, 16, 18}, Types: "all; reductions: all integers from 8 bits, float, double, float16, bfloat16",
	In: Exactly(3), Out: Exactly(1), Infer: inferScatter, Eval: evalScatterElements,
}

var scatterDef = &Def{
	Name: "Scatter", Doc: "ScatterElements under its first name", Since: 9, Versions: []int{9, 11}, Types: "all",
	In: Exactly(3), Out: Exactly(1), Infer: inferScatter, Eval: evalScatterElements,
	Upgrades: []Upgrade{{To: 11, Apply: func(u *Up) error {
		return u.Replace("ScatterElements", u.Node.Ins(), u.Node.Attrs...)
	}}},
}

var scatterNDDef = &Def{
	Name: "ScatterND", Doc: "its input with slices replaced, or combined, at the index tuples in the last dimension of indices",
	Since: 11, Versions: []int{11, 13, 16, 18}, Types: "all; reductions: all integers from 8 bits, float, double, float16, bfloat16",
	In: Exactly(3), Out: Exactly(1), Infer: inferScatter,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x, up := c.In[0], c.In[2]
		places, inner, err := tuplePlaces(c, x.Shape(), 1, 0)
		if err != nil {
			return nil, err
		}
		s := c.In[1].Shape()
		want := append(append([]int{}, s[:len(s)-1]...), x.Shape()[s[len(s)-1]:]...)
		if fmt.Sprint(want) != fmt.Sprint(up.Shape()) {
			return nil, fmt.Errorf("updates of shape %v, wants %v", up.Shape(), want)
		}
		return one(scatter(c, x, up, places, inner))
	},
}

func inferScatter(c *Call) ([]ir.Type, error) {
	x, up := c.Type(0), c.Type(2)
	if x.Elem != up.Elem && x.Elem != ir.Undefined && up.Elem != ir.Undefined {
		return nil, fmt.Errorf("updates of type %v for data of type %v", up.Elem, x.Elem)
	}
	return []ir.Type{x}, nil
}

func evalScatterElements(c *Call) ([]*ir.Tensor, error) {
	places, err := elementPlaces(c, c.In[0].Shape(), 1)
	if err != nil {
		return nil, err
	}
	if fmt.Sprint(c.In[1].Shape()) != fmt.Sprint(c.In[2].Shape()) {
		return nil, fmt.Errorf("updates of shape %v, wants that of indices, %v", c.In[2].Shape(), c.In[1].Shape())
	}
	return one(scatter(c, c.In[0], c.In[2], places, 1))
}

// scatter copies x and writes the i-th run of n elements of up to places[i], combined as the attribute reduction says.
func scatter(c *Call, x, up *ir.Tensor, places []int, n int) (*ir.Tensor, error) {
	how := c.Node.Str("reduction", "none")
	if how == "none" {
		return move(c, x.Elem(), x.Shape(), []*ir.Tensor{x, up}, func(dst []byte, src [][]byte, w int) {
			copy(dst, src[0])
			run := n * w
			for i, p := range places {
				copy(dst[p*w:p*w+run], src[1][i*run:])
			}
		})
	}
	elem := x.Elem()
	if up.Elem() != elem {
		return nil, fmt.Errorf("updates of type %v for data of type %v", up.Elem(), elem)
	}
	if isHalf(elem) {
		x, up = widen(x), widen(up)
	}
	out, err := c.Like(x, x.Elem())
	if err != nil {
		return nil, err
	}
	switch out.Elem() {
	case ir.Float32:
		err = combine(ir.Data[float32](out), ir.Data[float32](x), ir.Data[float32](up), places, n, how)
	case ir.Float64:
		err = combine(ir.Data[float64](out), ir.Data[float64](x), ir.Data[float64](up), places, n, how)
	case ir.Int8:
		err = combine(ir.Data[int8](out), ir.Data[int8](x), ir.Data[int8](up), places, n, how)
	case ir.Int16:
		err = combine(ir.Data[int16](out), ir.Data[int16](x), ir.Data[int16](up), places, n, how)
	case ir.Int32:
		err = combine(ir.Data[int32](out), ir.Data[int32](x), ir.Data[int32](up), places, n, how)
	case ir.Int64:
		err = combine(ir.Data[int64](out), ir.Data[int64](x), ir.Data[int64](up), places, n, how)
	case ir.Uint8:
		err = combine(ir.Data[uint8](out), ir.Data[uint8](x), ir.Data[uint8](up), places, n, how)
	case ir.Uint16:
		err = combine(ir.Data[uint16](out), ir.Data[uint16](x), ir.Data[uint16](up), places, n, how)
	case ir.Uint32:
		err = combine(ir.Data[uint32](out), ir.Data[uint32](x), ir.Data[uint32](up), places, n, how)
	case ir.Uint64:
		err = combine(ir.Data[uint64](out), ir.Data[uint64](x), ir.Data[uint64](up), places, n, how)
	default:
		return nil, fmt.Errorf("reduction %q of type %v: %w", how, elem, ErrUnsupported)
	}
	if err == nil && isHalf(elem) {
		out = narrow(out, elem)
	}
	return out, err
}

// combine copies x to out and combines the i-th run of n elements of up with what is at places[i], in order.
func combine[T number](out, x, up []T, places []int, n int, how string) error {
	copy(out, x)
	for i, p := range places {
		d := out[p : p+n]
		for k, v := range up[i*n : i*n+n] {
			switch how {
			case "add":
				d[k] += v
			case "mul":
				d[k] *= v
			case "max":
				d[k] = max(d[k], v)
			case "min":
				d[k] = min(d[k], v)
			default:
				return fmt.Errorf("reduction %q is not one of none, add, mul, max, min", how)
			}
		}
	}
	return nil
}

var tensorScatterDef = &Def{
	Name: "TensorScatter", Doc: "a cache with an update written into it along an axis, at a place for each batch",
	Since: 24, Versions: []int{24}, Types: "all",
	In: Between(2, 3), Out: Exactly(1), Infer: func(c *Call) ([]ir.Type, error) { return []ir.Type{c.Type(0)}, nil },
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x, up := c.In[0], c.In[1]
		s, u := x.Shape(), up.Shape()
		axis, err := Axis(c.Node.Int("axis", -2), len(s))
		if err != nil {
			return nil, err
		}
		if axis == 0 {
			return nil, fmt.Errorf("axis 0 is the batch, which cannot be written along")
		}
		for k := range s {
			if len(u) != len(s) || k != axis && u[k] != s[k] || u[axis] > s[axis] {
				return nil, fmt.Errorf("an update of shape %v does not fit a cache of shape %v along axis %d", u, s, axis)
			}
		}
		mode := c.Node.Str("mode", "linear")
		if mode != "linear" && mode != "circular" {
			return nil, fmt.Errorf("mode %q is not one of linear, circular", mode)
		}
		at := make([]int, s[0])
		if c.Has(2) {
			v, err := needInts(c, 2, "write_indices")
			if err != nil {
				return nil, err
			}
			if len(v) != s[0] {
				return nil, fmt.Errorf("%d write indices for a batch of %d", len(v), s[0])
			}
			for b, k := range v {
				switch {
				case mode == "circular" && s[axis] > 0:
					k = ((k % int64(s[axis])) + int64(s[axis])) % int64(s[axis])
				case k < 0 || k > int64(s[axis]-u[axis]):
					return nil, fmt.Errorf("write index %d of batch %d leaves no room for %d of %d", k, b, u[axis], s[axis])
				}
				at[b] = int(k)
			}
		}
		inner := product(s[axis+1:])
		per := product(s[1:axis])
		return one(move(c, x.Elem(), s, []*ir.Tensor{x, up}, func(dst []byte, src [][]byte, w int) {
			copy(dst, src[0])
			run := inner * w
			for b := range at {
				for o := b * per; o < (b+1)*per; o++ {
					for k := range u[axis] {
						p := (at[b] + k) % s[axis]
						copy(dst[(o*s[axis]+p)*run:(o*s[axis]+p+1)*run], src[1][(o*u[axis]+k)*run:])
					}
				}
			}
		}))
	},
}
