package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

var gatherDef = &Def{
	Name: "Gather", Doc: "the slices of its input along an axis that indices name", Since: 1, Versions: []int{1, 11, 13}, Types: "all",
	In: Exactly(2), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		x, idx := c.Type(0), c.Type(1)
		if !x.Ranked || !idx.Ranked {
			return unranked(x.Elem), nil
		}
		axis, err := Axis(c.Node.Int("axis", 0), len(x.Dims))
		if err != nil {
			return nil, err
		}
		dims := append(cloneDims(x.Dims[:axis]), cloneDims(idx.Dims)...)
		dims = append(dims, cloneDims(x.Dims[axis+1:])...)
		if content, ok := c.Dims(0); ok && len(x.Dims) == 1 && len(idx.Dims) <= 1 {
			if at, ok := inputInts(c, 1); ok {
				out := make([]ir.Dim, len(at))
				for i, k := range at {
					if k < 0 {
						k += int64(len(content))
					}
					if k < 0 || k >= int64(len(content)) {
						return nil, fmt.Errorf("index %d is outside an input of %d", at[i], len(content))
					}
					out[i] = content[k]
				}
				c.SetDims(0, out)
			}
		}
		return typed(x.Elem, dims), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x, idx := c.In[0], c.In[1]
		s := x.Shape()
		axis, err := Axis(c.Node.Int("axis", 0), len(s))
		if err != nil {
			return nil, err
		}
		at, err := indices(c, 1, s[axis])
		if err != nil {
			return nil, err
		}
		shape := append(append(append([]int{}, s[:axis]...), idx.Shape()...), s[axis+1:]...)
		outer, inner := product(s[:axis]), product(s[axis+1:])
		if outer == 1 && len(at) == 1 {
			if v := part(x, at[0]*inner, shape); v != nil {
				return []*ir.Tensor{v}, nil
			}
		}
		return one(move(c, x.Elem(), shape, []*ir.Tensor{x}, func(dst []byte, src [][]byte, w int) {
			run, d := inner*w, 0
			for o := range outer {
				block := src[0][o*s[axis]*run:]
				for _, k := range at {
					copy(dst[d:d+run], block[k*run:])
					d += run
				}
			}
		}))
	},
}

// indices returns integer input i as indices of a dimension of n, negative ones counted from its end.
func indices(c *Call, i, n int) ([]int, error) {
	v, err := needInts(c, i, "indices")
	if err != nil {
		return nil, err
	}
	out := make([]int, len(v))
	for k, a := range v {
		if a < int64(-n) || a >= int64(n) {
			return nil, fmt.Errorf("index %d (entry %d of %v) is outside [%d, %d)", a, k, c.In[i].Shape(), -n, n)
		}
		if a < 0 {
			a += int64(n)
		}
		out[k] = int(a)
	}
	return out, nil
}

var gatherElementsDef = &Def{
	Name: "GatherElements", Doc: "single elements of its input, taken along an axis at the places indices name", Since: 11,
	Versions: []int{11, 13}, Types: "all",
	In: Exactly(2), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		x, idx := c.Type(0), c.Type(1)
		if !idx.Ranked {
			if x.Ranked {
				return typed(x.Elem, unknownDims(len(x.Dims))), nil
			}
			return unranked(x.Elem), nil
		}
		if x.Ranked && len(x.Dims) != len(idx.Dims) {
			return nil, fmt.Errorf("indices %v have another rank than data %v", idx, x)
		}
		return typed(x.Elem, cloneDims(idx.Dims)), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x, idx := c.In[0], c.In[1]
		places, err := elementPlaces(c, x.Shape(), 1)
		if err != nil {
			return nil, err
		}
		return one(move(c, x.Elem(), idx.Shape(), []*ir.Tensor{x}, func(dst []byte, src [][]byte, w int) {
			pick(dst, src[0], w, places)
		}))
	},
}

// pick copies single elements: dst[i] = src[from[i]].
func pick(dst, src []byte, w int, from []int) {
	switch w {
	case 1:
		pickWords(dst, src, from)
	case 2:
		pickWords(wordsOf[uint16](dst), wordsOf[uint16](src), from)
	case 4:
		pickWords(wordsOf[uint32](dst), wordsOf[uint32](src), from)
	case 8:
		pickWords(wordsOf[uint64](dst), wordsOf[uint64](src), from)
	default:
		for i, k := range from {
			copy(dst[i*w:(i+1)*w], src[k*w:])
		}
	}
}

func pickWords[T word](dst, src []T, from []int) {
	for i, k := range from {
		dst[i] = src[k]
	}
}

// elementPlaces returns, for each element of index input i, the offset in data of the element it names along the
// attribute axis; its other coordinates are the index element's own.
func elementPlaces(c *Call, data []int, i int) ([]int, error) {
	s := c.In[i].Shape()
	if len(s) != len(data) {
		return nil, fmt.Errorf("indices of shape %v have another rank than data of shape %v", s, data)
	}
	axis, err := Axis(c.Node.Int("axis", 0), len(data))
	if err != nil {
		return nil, err
	}
	for k := range s {
		if k != axis && s[k] > data[k] {
			return nil, fmt.Errorf("indices of shape %v exceed data of shape %v in dimension %d", s, data, k)
		}
	}
	at, err := indices(c, i, data[axis])
	if err != nil {
		return nil, err
	}
	st := stridesOf(data)
	steps := make([]step, len(s))
	for k := range s {
		steps[k] = step{s[k], 0, st[k]}
	}
	steps[axis].s = 0
	if len(at) == 0 {
		return at, nil
	}
	k := 0
	odometer(steps, 0, 0, func(_, base int) {
		at[k] = base + at[k]*st[axis]
		k++
	})
	return at, nil
}

var gatherNDDef = &Def{
	Name: "GatherND", Doc: "the slices of its input at the index tuples in the last dimension of indices", Since: 11,
	Versions: []int{11, 12, 13}, Types: "all",
	In: Exactly(2), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		x, idx := c.Type(0), c.Type(1)
		b := int(c.Node.Int("batch_dims", 0))
		if !x.Ranked || !idx.Ranked || len(idx.Dims) == 0 || !idx.Dims[len(idx.Dims)-1].Known() {
			return unranked(x.Elem), nil
		}
		q := len(idx.Dims) - 1
		k := int(idx.Dims[q].Size)
		if b < 0 || b > q || k < 1 || b+k > len(x.Dims) {
			return nil, fmt.Errorf("indices %v do not fit data %v with batch_dims %d", idx, x, b)
		}
		return typed(x.Elem, append(cloneDims(idx.Dims[:q]), cloneDims(x.Dims[b+k:])...)), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x, idx := c.In[0], c.In[1]
		s := idx.Shape()
		if len(s) == 0 {
			return nil, fmt.Errorf("indices have no dimensions")
		}
		b := int(c.Node.Int("batch_dims", 0))
		places, inner, err := tuplePlaces(c, x.Shape(), 1, b)
		if err != nil {
			return nil, err
		}
		shape := append(append([]int{}, s[:len(s)-1]...), x.Shape()[b+s[len(s)-1]:]...)
		return one(move(c, x.Elem(), shape, []*ir.Tensor{x}, func(dst []byte, src [][]byte, w int) {
			if inner == 1 {
				pick(dst, src[0], w, places)
				return
			}
			run := inner * w
			for i, p := range places {
				copy(dst[i*run:(i+1)*run], src[0][p*w:])
			}
		}))
	},
}

// tuplePlaces returns the offset in data of each slice that the index tuples of input i name, and the slices' length. The
// first b dimensions of both are batches.
func tuplePlaces(c *Call, data []int, i, b int) (places []int, inner int, err error) {
	s := c.In[i].Shape()
	if len(s) == 0 {
		return nil, 0, fmt.Errorf("indices have no dimensions")
	}
	q := len(s) - 1
	k := s[q]
	if b < 0 || b > q || k < 1 || b+k > len(data) {
		return nil, 0, fmt.Errorf("indices of shape %v do not fit data of shape %v with %d batch dimensions", s, data, b)
	}
	for d := range b {
		if s[d] != data[d] {
			return nil, 0, fmt.Errorf("indices of shape %v and data of shape %v differ in batch dimension %d", s, data, d)
		}
	}
	at, err := needInts(c, i, "indices")
	if err != nil {
		return nil, 0, err
	}
	st := stridesOf(data)
	inner = product(data[b+k:])
	per := product(s[b:q])
	places = make([]int, len(at)/k)
	for t := range places {
		if per > 0 && b > 0 {
			places[t] = t / per * st[b-1]
		}
		for j := range k {
			n, a := data[b+j], at[t*k+j]
			if a < int64(-n) || a >= int64(n) {
				return nil, 0, fmt.Errorf("index %d (tuple %d, entry %d) is outside [%d, %d) of data of shape %v", a, t, j, -n, n, data)
			}
			if a < 0 {
				a += int64(n)
			}
			places[t] += int(a) * st[b+j]
		}
	}
	return places, inner, nil
}
