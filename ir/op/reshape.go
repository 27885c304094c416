package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

var reshapeDef = &Def{
	Name: "Reshape", Doc: "its input's elements in another shape", Since: 1,
	Versions: []int{1, 5, 13, 14, 19, 21, 23, 24, 25}, Types: "all",
	In: Exactly(2), Out: Exactly(1),
	Upgrades: []Upgrade{{To: 5, Apply: func(u *Up) error {
		u.AttrToInput("shape", 1)
		u.Node.DelAttr("consumed_inputs")
		return nil
	}}},
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		want, ok := c.Dims(1)
		if !ok {
			return unranked(x.Elem), nil
		}
		dims, err := reshapeDims(x, want, c.Node.Int("allowzero", 0) != 0)
		if err != nil {
			return nil, err
		}
		keepDims(c, len(dims))
		return typed(x.Elem, dims), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		want, err := needInts(c, 1, "shape")
		if err != nil {
			return nil, err
		}
		shape, err := reshapeShape(c.In[0].Shape(), want, c.Node.Int("allowzero", 0) != 0)
		if err != nil {
			return nil, err
		}
		return one(c.In[0].Reshape(shape...))
	},
}

// reshapeShape resolves 0 (keep, unless allowzero) and -1 (what remains) of a wanted shape.
func reshapeShape(in []int, want []int64, allowzero bool) ([]int, error) {
	out := make([]int, len(want))
	rest, n := -1, 1
	for i, w := range want {
		switch {
		case w == 0 && !allowzero:
			if i >= len(in) {
				return nil, fmt.Errorf("shape %v keeps dimension %d, input %v has none", want, i, in)
			}
			out[i] = in[i]
		case w == -1:
			if rest >= 0 {
				return nil, fmt.Errorf("shape %v has more than one -1", want)
			}
			rest = i
			continue
		case w < 0 || w > ir.MaxElements:
			return nil, fmt.Errorf("shape %v: dimension %d is %d", want, i, w)
		default:
			out[i] = int(w)
		}
		if out[i] > 0 && n > ir.MaxElements/out[i] {
			return nil, fmt.Errorf("shape %v has more than %d elements", want, int64(ir.MaxElements))
		}
		n *= out[i]
	}
	if total := product(in); rest >= 0 {
		if n == 0 || total%n != 0 {
			return nil, fmt.Errorf("cannot reshape %v to %v: %d elements are no multiple of %d", in, want, total, n)
		}
		out[rest] = total / n
	}
	return out, nil
}

// reshapeDims is reshapeShape on what inference knows: symbols are kept, and cancelled where -1 asks for what remains. Counts
// that do not fit are the run's to report: files have such nodes where they are never run.
func reshapeDims(x ir.Type, want []ir.Dim, allowzero bool) ([]ir.Dim, error) {
	out := make([]ir.Dim, len(want))
	rest := -1
	for i, w := range want {
		n, ok := literal(w)
		switch {
		case !ok:
			out[i] = ir.NamedDim(w.Name)
		case n == 0 && !allowzero:
			out[i] = ir.UnknownDim
			if x.Ranked {
				if i >= len(x.Dims) {
					return nil, fmt.Errorf("the wanted shape keeps dimension %d, input %v has none", i, x)
				}
				out[i] = ir.Dim{Size: x.Dims[i].Size, Name: x.Dims[i].Name}
			}
		case n == -1:
			if rest >= 0 {
				return nil, fmt.Errorf("the wanted shape has more than one -1")
			}
			rest = i
			out[i] = ir.UnknownDim
		case n < 0:
			return nil, fmt.Errorf("the wanted shape's dimension %d is %d", i, n)
		default:
			out[i] = ir.Dim{Size: n}
		}
	}
	if !x.Ranked {
		return out, nil
	}
	// what the dimensions of both sides have in common cancels; the single unknown of the wanted shape gets the rest
	open := rest
	if open < 0 {
		unknown := 0
		for i, d := range out {
			if !d.Known() && d.Name == "" {
				open = i
				unknown++
			}
		}
		if unknown != 1 {
			open = -1
		}
	}
	left := cloneDims(x.Dims)
	n := int64(1)
	for i, d := range out {
		if i == open {
			continue
		}
		if k := findDim(left, d); k >= 0 && (d.Known() || d.Name != "") {
			left = append(left[:k], left[k+1:]...)
			continue
		}
		if !d.Known() {
			return out, nil
		}
		if d.Size == 0 || n > ir.MaxElements/d.Size {
			return out, nil
		}
		n *= d.Size
	}
	total, ok := int64(1), true
	var symbol []ir.Dim
	for _, d := range left {
		switch {
		case !d.Known():
			symbol = append(symbol, d)
		case d.Size == 0 || total > ir.MaxElements/d.Size:
			ok = false
		default:
			total *= d.Size
		}
	}
	switch {
	case !ok || open < 0:
	case len(symbol) == 0 && total%n == 0:
		out[open] = ir.Dim{Size: total / n}
	case len(symbol) == 1 && total == n:
		out[open] = symbol[0]
	}
	return out, nil
}

func findDim(dims []ir.Dim, d ir.Dim) int {
	for i, e := range dims {
		if e.Same(d) {
			return i
		}
	}
	return -1
}

var flattenDef = &Def{
	Name: "Flatten", Doc: "a matrix: the dimensions before axis, and those from it on", Since: 1,
	Versions: []int{1, 9, 11, 13, 21, 23, 24, 25}, Types: "all",
	In: Exactly(1), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		if !x.Ranked {
			return typed(x.Elem, unknownDims(2)), nil
		}
		k, err := flattenAxis(c, len(x.Dims))
		if err != nil {
			return nil, err
		}
		return typed(x.Elem, []ir.Dim{mulDims(x.Dims[:k]...), mulDims(x.Dims[k:]...)}), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		s := c.In[0].Shape()
		k, err := flattenAxis(c, len(s))
		if err != nil {
			return nil, err
		}
		return one(c.In[0].Reshape(product(s[:k]), product(s[k:])))
	},
}

// flattenAxis returns the attribute axis, which unlike others may be the rank.
func flattenAxis(c *Call, rank int) (int, error) {
	a := c.Node.Int("axis", 1)
	if a == int64(rank) {
		return rank, nil
	}
	return Axis(a, rank)
}

var sizeDef = &Def{
	Name: "Size", Doc: "the number of its input's elements", Since: 1,
	Versions: []int{1, 13, 19, 21, 23, 24, 25}, Types: "all",
	In: Exactly(1), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		if x := c.Type(0); x.Ranked {
			c.SetDims(0, []ir.Dim{mulDims(x.Dims...)})
		}
		return []ir.Type{ir.FixedType(ir.Int64)}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) { return []*ir.Tensor{ir.ScalarInt(int64(c.In[0].Len()))}, nil },
}
