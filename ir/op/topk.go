package op

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
)

var topKDef = &Def{
	Name: "TopK", Doc: "the k largest or smallest elements along an axis, and their indices", Since: 1, Versions: []int{1, 10, 11, 24},
	Types: "float, double, float16, bfloat16, integers from 8 bits",
	In:    Exactly(2), Out: Between(1, 2), Widen: true,
	Upgrades: []Upgrade{{To: 10, Apply: func(u *Up) error { u.AttrToInput("k", 1); return nil }}},
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		out := []ir.Type{{Elem: x.Elem}, {Elem: ir.Int64}}
		if !x.Ranked {
			return out, nil
		}
		axis, err := Axis(c.Node.Int("axis", -1), len(x.Dims))
		if err != nil {
			return nil, err
		}
		k := ir.UnknownDim
		if d, ok := c.Dims(1); ok && len(d) == 1 {
			if d, err = sizeDims(d); err != nil {
				return nil, fmt.Errorf("k: %w", err)
			}
			if k = d[0]; k.Known() && x.Dims[axis].Known() && k.Size > x.Dims[axis].Size {
				return nil, fmt.Errorf("k is %d, axis %d of %v has fewer", k.Size, axis, x)
			}
		}
		for i := range out {
			out[i].Ranked, out[i].Dims = true, cloneDims(x.Dims)
			out[i].Dims[axis] = k
		}
		return out, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x := c.In[0]
		s := x.Shape()
		axis, err := Axis(c.Node.Int("axis", -1), len(s))
		if err != nil {
			return nil, err
		}
		kk, err := needInts(c, 1, "k")
		if err != nil {
			return nil, err
		}
		if len(kk) != 1 || kk[0] < 0 || kk[0] > int64(s[axis]) {
			return nil, fmt.Errorf("k is %v, wants one number from 0 to %d", kk, s[axis])
		}
		k := int(kk[0])
		shape := append([]int{}, s...)
		shape[axis] = k
		at, err := c.New(ir.Int64, shape...)
		if err != nil {
			return nil, err
		}
		if at.Len() == 0 {
			values, err := c.New(x.Elem(), shape...)
			return []*ir.Tensor{values, at}, err
		}
		order := topKOf(x)
		if order == nil {
			return nil, fmt.Errorf("type %v: %w", x.Elem(), ErrUnsupported)
		}
		idx := ir.Data[int64](at)
		places := make([]int, len(idx))
		outer, inner := product(s[:axis]), product(s[axis+1:])
		largest := c.Node.Int("largest", 1) != 0
		for o := range outer {
			for i := range inner {
				from := o*s[axis]*inner + i
				for r, j := range order(from, inner, s[axis], k, largest) {
					p := (o*k+r)*inner + i
					idx[p] = int64(j)
					places[p] = from + j*inner
				}
			}
		}
		values, err := move(c, x.Elem(), shape, []*ir.Tensor{x}, func(dst []byte, src [][]byte, w int) { pick(dst, src[0], w, places) })
		return []*ir.Tensor{values, at}, err
	},
}

// topKOf returns a function that ranks n elements of x, from an offset in steps, and gives the indices of the first k;
// equal elements rank in order of their indices, NaN as the largest. nil: the type has no order.
func topKOf(x *ir.Tensor) func(from, by, n, k int, largest bool) []int {
	switch x.Elem() {
	case ir.Float32:
		return topKIn(ir.Data[float32](x))
	case ir.Float64:
		return topKIn(ir.Data[float64](x))
	case ir.Int8:
		return topKIn(ir.Data[int8](x))
	case ir.Int16:
		return topKIn(ir.Data[int16](x))
	case ir.Int32:
		return topKIn(ir.Data[int32](x))
	case ir.Int64:
		return topKIn(ir.Data[int64](x))
	case ir.Uint8:
		return topKIn(ir.Data[uint8](x))
	case ir.Uint16:
		return topKIn(ir.Data[uint16](x))
	case ir.Uint32:
		return topKIn(ir.Data[uint32](x))
	case ir.Uint64:
		return topKIn(ir.Data[uint64](x))
	}
	return nil
}

func topKIn[T cmp.Ordered](v []T) func(from, by, n, k int, largest bool) []int {
	var idx []int
	return func(from, by, n, k int, largest bool) []int {
		sign := -1
		if largest {
			sign = 1
		}
		order := func(a, b int) int {
			x, y := v[from+a*by], v[from+b*by]
			switch xn, yn := x != x, y != y; {
			case xn && yn || x == y:
				return a - b
			case xn || !yn && x > y:
				return -sign
			}
			return sign
		}
		idx = idx[:0]
		if k == 0 {
			return idx
		}
		if k > 64 || k > n/4 {
			for i := range n {
				idx = append(idx, i)
			}
			slices.SortFunc(idx, order)
			return idx[:k]
		}
		// few of many: keep the best so far in order
		for i := range n {
			if len(idx) == k && order(i, idx[k-1]) > 0 {
				continue
			}
			p, _ := slices.BinarySearchFunc(idx, i, order)
			if len(idx) == k {
				idx = idx[:k-1]
			}
			idx = slices.Insert(idx, p, i)
		}
		return idx
	}
}

var uniqueDef = &Def{
	Name: "Unique", Doc: "the distinct elements, or slices along an axis, where they occur and how often", Since: 11,
	Versions: []int{11, 28}, Types: "float, double, float16, bfloat16, integers from 8 bits, bool, string",
	In: Exactly(1), Out: Between(1, 4),
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		list := ir.TensorType(ir.Int64, ir.UnknownDim)
		out := []ir.Type{ir.TensorType(x.Elem, ir.UnknownDim), list, list, list}
		inverse := ir.UnknownDim
		if a := c.Node.Attr("axis"); a != nil {
			out[0] = ir.Type{Elem: x.Elem}
			if x.Ranked {
				axis, err := Axis(a.I, len(x.Dims))
				if err != nil {
					return nil, err
				}
				inverse = x.Dims[axis]
				out[0] = ir.TensorType(x.Elem, cloneDims(x.Dims)...)
				out[0].Dims[axis] = ir.UnknownDim
			}
		} else if x.Ranked {
			inverse = mulDims(x.Dims...)
		}
		out[2] = ir.TensorType(ir.Int64, ir.Dim{Size: inverse.Size, Name: inverse.Name})
		return out, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x := c.In[0]
		shape := []int{x.Len()}
		axis := 0
		if a := c.Node.Attr("axis"); a != nil {
			var err error
			if axis, err = Axis(a.I, x.Rank()); err != nil {
				return nil, err
			}
			shape = append([]int{}, x.Shape()...)
		}
		compare := compareOf(x)
		if compare == nil {
			return nil, fmt.Errorf("type %v: %w", x.Elem(), ErrUnsupported)
		}
		outer, n, inner := product(shape[:axis]), shape[axis], product(shape[axis+1:])
		if x.Len() == 0 && n > 0 {
			return nil, fmt.Errorf("slices of %v along axis %d are empty: %w", x.Type(), axis, ErrUnsupported)
		}
		slice := func(a, b int) int {
			for o := range outer {
				for i := range inner {
					if d := compare((o*n+a)*inner+i, (o*n+b)*inner+i); d != 0 {
						return d
					}
				}
			}
			return 0
		}
		byValue := make([]int, n)
		for i := range byValue {
			byValue[i] = i
		}
		slices.SortStableFunc(byValue, slice)
		var first []int64 // first occurrence of each distinct slice
		group := make([]int, n)
		for r, i := range byValue {
			if r == 0 || slice(byValue[r-1], i) != 0 {
				first = append(first, int64(i))
			}
			group[i] = len(first) - 1
		}
		rank := make([]int, len(first))
		order := make([]int, len(first))
		for i := range order {
			order[i] = i
		}
		if c.Node.Int("sorted", 1) == 0 {
			slices.SortFunc(order, func(a, b int) int { return cmp.Compare(first[a], first[b]) })
		}
		places := make([]int64, len(first))
		for r, g := range order {
			rank[g] = r
			places[r] = first[g]
		}
		inverse, counts := make([]int64, n), make([]int64, len(first))
		for i, g := range group {
			inverse[i] = int64(rank[g])
			counts[rank[g]]++
		}
		shape[axis] = len(first)
		y, err := move(c, x.Elem(), shape, []*ir.Tensor{x}, func(dst []byte, src [][]byte, w int) {
			for r, p := range places {
				strided(dst, src[0], w, r*inner, int(p)*inner, []step{{outer, len(places) * inner, n * inner}, {inner, 1, 1}})
			}
		})
		return []*ir.Tensor{y, ir.Ints(places...), ir.Ints(inverse...), ir.Ints(counts...)}, err
	},
}

// compareOf returns a comparison of two elements of x; nil: the type has no order.
func compareOf(x *ir.Tensor) func(a, b int) int {
	switch x.Elem() {
	case ir.Float64:
		return compareIn(ir.Data[float64](x))
	case ir.Int64:
		return compareIn(ir.Data[int64](x))
	case ir.Uint64:
		return compareIn(ir.Data[uint64](x))
	case ir.String:
		s := x.Strings()
		return func(a, b int) int { return slices.Compare(s[a], s[b]) }
	}
	if v, ok := x.Int64s(); ok {
		return compareIn(v)
	}
	if v, ok := x.Float32s(); ok {
		return compareIn(v)
	}
	return nil
}

func compareIn[T cmp.Ordered](v []T) func(a, b int) int {
	return func(a, b int) int { return cmp.Compare(v[a], v[b]) }
}
