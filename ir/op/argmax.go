package op

import "github.com/qsimc/qsimc/ir"

var (
	argMaxDef = argDef("ArgMax", "the index of the greatest element along the axis", true)
	argMinDef = argDef("ArgMin", "the index of the least element along the axis", false)
)

// argDef defines ArgMax and ArgMin. A NaN counts as greater and as less than every number, as in NumPy.
func argDef(name, doc string, greatest bool) *Def {
	return &Def{
		Name: name, Doc: doc, Since: 1, Versions: []int{1, 11, 12, 13}, Types: numericTypes,
		In: Exactly(1), Out: Exactly(1), Widen: true,
		Infer: func(c *Call) ([]ir.Type, error) {
			t := c.Type(0)
			if !t.Ranked {
				return []ir.Type{{Elem: ir.Int64}}, nil
			}
			a, err := Axis(c.Node.Int("axis", 0), max(len(t.Dims), 1))
			if err != nil {
				return nil, err
			}
			dims := reducedDims(t.Dims, func(i int) bool { return i == a }, c.Node.Int("keepdims", 1) != 0)
			return []ir.Type{ir.TensorType(ir.Int64, dims...)}, nil
		},
		Eval: func(c *Call) ([]*ir.Tensor, error) {
			switch c.In[0].Elem() {
			case ir.Float32:
				return argBest[float32](c, greatest)
			case ir.Float64:
				return argBest[float64](c, greatest)
			case ir.Int8:
				return argBest[int8](c, greatest)
			case ir.Int16:
				return argBest[int16](c, greatest)
			case ir.Int32:
				return argBest[int32](c, greatest)
			case ir.Int64:
				return argBest[int64](c, greatest)
			case ir.Uint8:
				return argBest[uint8](c, greatest)
			case ir.Uint16:
				return argBest[uint16](c, greatest)
			case ir.Uint32:
				return argBest[uint32](c, greatest)
			case ir.Uint64:
				return argBest[uint64](c, greatest)
			}
			return nil, badType(c, 0)
		},
	}
}

func argBest[T number](c *Call, greatest bool) ([]*ir.Tensor, error) {
	x := c.In[0]
	a, err := Axis(c.Node.Int("axis", 0), max(x.Rank(), 1))
	if err != nil {
		return nil, err
	}
	shape := reducedShape(x.Shape(), func(i int) bool { return i == a }, c.Node.Int("keepdims", 1) != 0)
	out, err := c.New(ir.Int64, shape...)
	if err != nil {
		return nil, err
	}
	s := spanOf(x.Shape(), a)
	if s.n == 0 && out.Len() > 0 {
		return nil, emptyAxis(a)
	}
	last := c.Node.Int("select_last_index", 0) != 0
	src, dst := ir.Data[T](x), ir.Data[int64](out)
	s.lines(func(at int) {
		best, k := src[at], 0
		for i := 1; i < s.n; i++ {
			v := src[at+i*s.inner]
			if greatest && v < best || !greatest && v > best {
				continue
			}
			better := v != best
			if better && best == best || v != v && (best == best || last) || last && v == best {
				best, k = v, i
			}
		}
		dst[at/(s.n*s.inner)*s.inner+at%s.inner] = int64(k)
	})
	return []*ir.Tensor{out}, nil
}
