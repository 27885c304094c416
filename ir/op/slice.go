package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
)

var sliceDef = &Def{
	Name: "Slice", Doc: "every step-th element of [start, end) along axes", Since: 1, Versions: []int{1, 10, 11, 13}, Types: "all",
	In: Between(3, 5), Out: Exactly(1),
	Upgrades: []Upgrade{{To: 10, Apply: func(u *Up) error {
		u.AttrToInput("starts", 1)
		u.AttrToInput("ends", 2)
		u.AttrToInput("axes", 3)
		return nil
	}}},
	Infer: inferSlice,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x := c.In[0]
		in := x.Shape()
		starts, err := needInts(c, 1, "starts")
		if err != nil {
			return nil, err
		}
		ends, err := needInts(c, 2, "ends")
		if err != nil {
			return nil, err
		}
		if len(ends) != len(starts) {
			return nil, fmt.Errorf("%d starts, %d ends", len(starts), len(ends))
		}
		axes, err := sliceAxes(c, len(starts), len(in))
		if err != nil {
			return nil, err
		}
		st := stridesOf(in)
		shape := append([]int{}, in...)
		from := 0
		for i, a := range axes {
			by, err := sliceStep(c, i, len(axes))
			if err != nil {
				return nil, err
			}
			lo, n := sliceRange(starts[i], ends[i], by, in[a])
			from += lo * st[a]
			shape[a] = n
			if n > 1 {
				st[a] *= int(by)
			}
		}
		if product(shape) == 0 {
			return one(c.New(x.Elem(), shape...))
		}
		if contiguous(shape, st) {
			if v := part(x, from, shape); v != nil {
				return []*ir.Tensor{v}, nil
			}
		}
		return one(move(c, x.Elem(), shape, []*ir.Tensor{x}, func(dst []byte, src [][]byte, w int) {
			steps := make([]step, len(shape))
			for i, d := range stridesOf(shape) {
				steps[i] = step{shape[i], d, st[i]}
			}
			strided(dst, src[0], w, 0, from, steps)
		}))
	},
}

func contiguous(shape, strides []int) bool {
	for i, d := range stridesOf(shape) {
		if shape[i] != 1 && strides[i] != d {
			return false
		}
	}
	return true
}

// sliceAxes returns the axes that n starts belong to.
func sliceAxes(c *Call, n, rank int) ([]int, error) {
	if !c.Has(3) {
		if n > rank {
			return nil, fmt.Errorf("%d starts for an input of rank %d", n, rank)
		}
		axes := make([]int, n)
		for i := range axes {
			axes[i] = i
		}
		return axes, nil
	}
	list, ok := inputInts(c, 3)
	if !ok {
		return nil, fmt.Errorf("axes (input 3) is %v, wants integers", c.Type(3))
	}
	if len(list) != n {
		return nil, fmt.Errorf("%d starts, %d axes", n, len(list))
	}
	return axesOf(list, rank)
}

// sliceStep returns step i of n.
func sliceStep(c *Call, i, n int) (int64, error) {
	if !c.Has(4) {
		return 1, nil
	}
	list, ok := inputInts(c, 4)
	if !ok || len(list) != n {
		return 0, fmt.Errorf("steps (input 4) is %v, wants %d integers", c.Type(4), n)
	}
	if list[i] == 0 {
		return 0, fmt.Errorf("step %d is 0", i)
	}
	return max(list[i], -math.MaxInt64), nil
}

// sliceRange returns the first index and the number of elements that a slice takes of a dimension of n.
func sliceRange(start, end, by int64, n int) (lo, count int) {
	d := int64(n)
	if start < 0 {
		start += d
	}
	if end < 0 {
		end += d
	}
	if by > 0 {
		start, end = min(max(start, 0), d), min(max(end, 0), d)
		if end <= start {
			return 0, 0
		}
		return int(start), int((end-start-1)/by + 1)
	}
	start, end = min(max(start, 0), d-1), min(max(end, -1), d-1)
	if start <= end {
		return 0, 0
	}
	return int(start), int((start-end-1)/-by + 1)
}

func inferSlice(c *Call) ([]ir.Type, error) {
	x := c.Type(0)
	if !x.Ranked {
		return unranked(x.Elem), nil
	}
	rank := len(x.Dims)
	starts, ok1 := c.Dims(1)
	ends, ok2 := c.Dims(2)
	if ok1 && ok2 && len(starts) != len(ends) {
		return nil, fmt.Errorf("%d starts, %d ends", len(starts), len(ends))
	}
	n := -1
	if ok1 {
		n = len(starts)
	} else if ok2 {
		n = len(ends)
	} else if d, ok := c.Dims(3); ok && c.Has(3) {
		n = len(d)
	}
	if _, ok := inputInts(c, 3); n < 0 || c.Has(3) && !ok {
		return typed(x.Elem, unknownDims(rank)), nil
	}
	axes, err := sliceAxes(c, n, rank)
	if err != nil {
		return nil, err
	}
	dims := cloneDims(x.Dims)
	steps, stepsKnown := inputInts(c, 4)
	exact := ok1 && ok2 && (!c.Has(4) || stepsKnown)
	for i, a := range axes {
		if !exact {
			dims[a] = ir.UnknownDim
			continue
		}
		by, err := sliceStep(c, i, n)
		if err != nil {
			return nil, err
		}
		dims[a] = sliceDim(starts[i], ends[i], by, x.Dims[a])
	}
	if content, ok := c.Dims(0); ok && rank == 1 && exact && len(axes) == 1 {
		lo, known1 := literal(starts[0])
		hi, known2 := literal(ends[0])
		if known1 && known2 {
			by := int64(1)
			if c.Has(4) {
				by = steps[0]
			}
			from, count := sliceRange(lo, hi, by, len(content))
			out := make([]ir.Dim, count)
			for i := range out {
				out[i] = content[from+i*int(by)]
			}
			c.SetDims(0, out)
		}
	}
	return typed(x.Elem, dims), nil
}

// sliceDim returns the size of dimension d's slice. A slice up to a symbolic end is taken to stay inside the dimension: tables
// of positions and masks are cut that way, and a run past their end fails where the result meets what has the symbol's size.
func sliceDim(start, end ir.Dim, by int64, d ir.Dim) ir.Dim {
	lo, ok1 := literal(start)
	hi, ok2 := literal(end)
	whole := ir.Dim{Size: d.Size, Name: d.Name}
	switch {
	case ok1 && ok2 && d.Known():
		_, n := sliceRange(lo, hi, by, int(d.Size))
		return ir.FixedDim(n)
	case ok1 && lo == 0 && by == 1 && (ok2 && hi >= math.MaxInt32 || end.Same(d)):
		return whole
	case ok1 && lo == 0 && by == 1 && !ok2 && end.Name != "" && d.Known():
		return ir.NamedDim(end.Name)
	case ok1 && ok2 && by == -1 && lo == -1 && hi <= -math.MaxInt32:
		return whole
	case ok1 && ok2 && by > 0 && (lo >= 0) == (hi >= 0) && hi <= lo:
		return ir.FixedDim(0)
	}
	return ir.UnknownDim
}
