package op

import (
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
)

var oneHotDef = &Def{
	Name: "OneHot", Doc: "a new axis with one value at the place an index names and another elsewhere", Since: 9,
	Versions: []int{9, 11, 28}, Types: "all",
	In: Exactly(3), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		idx, elem := c.Type(0), c.Type(2).Elem
		if !idx.Ranked {
			return unranked(elem), nil
		}
		axis, err := Axis(c.Node.Int("axis", -1), len(idx.Dims)+1)
		if err != nil {
			return nil, err
		}
		depth := ir.UnknownDim
		if t := c.Const(1); t != nil {
			n, err := oneNumber(t, "depth")
			if err != nil {
				return nil, err
			}
			if n < 0 {
				return nil, fmt.Errorf("depth is %d", n)
			}
			depth = ir.Dim{Size: n}
		} else if d, ok := c.Dims(1); ok && len(d) == 1 {
			if d, err = sizeDims(d); err != nil {
				return nil, err
			}
			depth = d[0]
		}
		return typed(elem, slices.Insert(cloneDims(idx.Dims), axis, depth)), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		idx, values := c.In[0], c.In[2]
		depth, err := oneNumber(c.In[1], "depth")
		if err != nil {
			return nil, err
		}
		if depth < 0 || depth > ir.MaxElements {
			return nil, fmt.Errorf("depth is %d", depth)
		}
		if values.Len() != 2 {
			return nil, fmt.Errorf("values is %v, wants two elements", values.Type())
		}
		axis, err := Axis(c.Node.Int("axis", -1), idx.Rank()+1)
		if err != nil {
			return nil, err
		}
		at, ok := idx.Int64s()
		if !ok {
			f, isFloat := idx.Float32s()
			if !isFloat {
				return nil, fmt.Errorf("indices of type %v: %w", idx.Elem(), ErrUnsupported)
			}
			at = make([]int64, len(f))
			for i, x := range f {
				at[i] = int64(x)
			}
		}
		shape := slices.Insert(slices.Clone(idx.Shape()), axis, int(depth))
		inner := product(shape[axis+1:])
		return one(move(c, values.Elem(), shape, []*ir.Tensor{values}, func(dst []byte, src [][]byte, w int) {
			fill(dst, src[0][:w])
			for i, k := range at {
				if k < 0 {
					k += depth
				}
				if k >= 0 && k < depth {
					p := (i/inner*int(depth)+int(k))*inner + i%inner
					copy(dst[p*w:(p+1)*w], src[0][w:])
				}
			}
		}))
	},
}

// oneNumber returns the single element of a tensor of any number type as an integer.
func oneNumber(t *ir.Tensor, what string) (int64, error) {
	if t.Len() == 1 {
		if v, ok := t.Int64s(); ok {
			return v[0], nil
		}
		if v, ok := t.Float32s(); ok {
			return int64(v[0]), nil
		}
	}
	return 0, fmt.Errorf("%s is %v, wants one number", what, t.Type())
}

var nonZeroDef = &Def{
	Name: "NonZero", Doc: "the indices of the elements that are not zero, a column each", Since: 9, Versions: []int{9, 13},
	Types: "bool, numbers from 8 bits",
	In:    Exactly(1), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		rows := ir.UnknownDim
		if x := c.Type(0); x.Ranked {
			rows = ir.FixedDim(len(x.Dims))
		}
		return typed(ir.Int64, []ir.Dim{rows, ir.UnknownDim}), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x := c.In[0]
		w := x.Elem().Bits() / 8
		if w == 0 {
			return nil, fmt.Errorf("type %v: %w", x.Elem(), ErrUnsupported)
		}
		var at []int
		b, float := x.Bytes(), x.Elem().IsFloat()
		for i := range x.Len() {
			e := b[i*w : (i+1)*w]
			any := byte(0)
			for k, v := range e {
				if float && k == w-1 {
					v &= 0x7f // minus zero is zero
				}
				any |= v
			}
			if any != 0 {
				at = append(at, i)
			}
		}
		out, err := c.New(ir.Int64, x.Rank(), len(at))
		if err != nil {
			return nil, err
		}
		v := ir.Data[int64](out)
		for d, st := range stridesOf(x.Shape()) {
			for k, i := range at {
				v[d*len(at)+k] = int64(i / st % x.Shape()[d])
			}
		}
		return []*ir.Tensor{out}, nil
	},
}

var compressDef = &Def{
	Name: "Compress", Doc: "the elements, or slices along an axis, that a condition selects", Since: 9, Versions: []int{9, 11, 28}, Types: "all",
	In: Exactly(2), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		a := c.Node.Attr("axis")
		if a == nil {
			return typed(x.Elem, []ir.Dim{ir.UnknownDim}), nil
		}
		if !x.Ranked {
			return unranked(x.Elem), nil
		}
		axis, err := Axis(a.I, len(x.Dims))
		if err != nil {
			return nil, err
		}
		dims := cloneDims(x.Dims)
		dims[axis] = ir.UnknownDim
		return typed(x.Elem, dims), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x, cond := c.In[0], c.In[1]
		if cond.Elem() != ir.Bool || cond.Rank() != 1 {
			return nil, fmt.Errorf("condition is %v, wants a list of bools", cond.Type())
		}
		shape, axis := []int{x.Len()}, 0
		if a := c.Node.Attr("axis"); a != nil {
			var err error
			if axis, err = Axis(a.I, x.Rank()); err != nil {
				return nil, err
			}
			shape = append([]int{}, x.Shape()...)
		}
		var at []int
		for i, b := range cond.Bytes() {
			if b != 0 {
				if i >= shape[axis] {
					return nil, fmt.Errorf("the condition selects %d, the axis has %d", i, shape[axis])
				}
				at = append(at, i)
			}
		}
		outer, n, inner := product(shape[:axis]), shape[axis], product(shape[axis+1:])
		shape[axis] = len(at)
		return one(move(c, x.Elem(), shape, []*ir.Tensor{x}, func(dst []byte, src [][]byte, w int) {
			run, d := inner*w, 0
			for o := range outer {
				for _, k := range at {
					copy(dst[d:d+run], src[0][(o*n+k)*run:])
					d += run
				}
			}
		}))
	},
}

var reverseSequenceDef = &Def{
	Name: "ReverseSequence", Doc: "each batch's first elements along time in reverse", Since: 10, Versions: []int{10, 28}, Types: "all",
	In: Exactly(2), Out: Exactly(1), Infer: same,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x := c.In[0]
		s := x.Shape()
		batch, time := c.Node.Int("batch_axis", 1), c.Node.Int("time_axis", 0)
		if len(s) < 2 || batch < 0 || batch > 1 || time != 1-batch {
			return nil, fmt.Errorf("batch axis %d and time axis %d of %v, want 0 and 1 in either order", batch, time, x.Type())
		}
		lens, err := needInts(c, 1, "sequence_lens")
		if err != nil {
			return nil, err
		}
		if len(lens) != s[batch] {
			return nil, fmt.Errorf("%d sequence lengths for a batch of %d", len(lens), s[batch])
		}
		for b, n := range lens {
			if n < 0 || n > int64(s[time]) {
				return nil, fmt.Errorf("sequence length %d of batch %d is outside [0, %d]", n, b, s[time])
			}
		}
		inner := product(s[2:])
		return one(move(c, x.Elem(), s, []*ir.Tensor{x}, func(dst []byte, src [][]byte, w int) {
			run := inner * w
			for i := range s[0] * s[1] {
				at := [2]int{i / s[1], i % s[1]}
				if n := int(lens[at[batch]]); at[time] < n {
					at[time] = n - 1 - at[time]
				}
				copy(dst[i*run:(i+1)*run], src[0][(at[0]*s[1]+at[1])*run:])
			}
		}))
	},
}
