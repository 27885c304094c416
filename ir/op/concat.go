package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

var concatDef = &Def{
	Name: "Concat", Doc: "its inputs one after another along an axis", Since: 1, Versions: []int{1, 4, 11, 13}, Types: "all",
	In: AtLeast(1), Out: Exactly(1),
	Upgrades: []Upgrade{{To: 4, Apply: func(u *Up) error {
		if u.Node.Attr("axis") == nil {
			u.Node.SetAttr(ir.IntAttr("axis", 1))
		}
		return nil
	}}},
	Infer: inferConcat,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		axis, err := concatAxis(c, c.In[0].Rank())
		if err != nil {
			return nil, err
		}
		return one(concat(c, c.In, axis))
	},
}

func concatAxis(c *Call, rank int) (int, error) {
	a := c.Node.Attr("axis")
	if a == nil {
		return 0, fmt.Errorf("attribute axis is missing")
	}
	return Axis(a.I, rank)
}

func inferConcat(c *Call) ([]ir.Type, error) {
	n := c.Node.NumIn()
	var first ir.Type
	for i := range n {
		t := c.Type(i)
		if !c.Has(i) {
			return nil, fmt.Errorf("input %d is absent", i)
		}
		if t.Elem != ir.Undefined && first.Elem == ir.Undefined {
			first.Elem = t.Elem
		}
		if t.Elem != ir.Undefined && t.Elem != first.Elem {
			return nil, fmt.Errorf("input %d has type %v, those before it %v", i, t.Elem, first.Elem)
		}
		if t.Ranked && !first.Ranked {
			first.Ranked, first.Dims = true, t.Dims
		}
		if t.Ranked && len(t.Dims) != len(first.Dims) {
			return nil, fmt.Errorf("input %d has type %v, another has rank %d", i, t, len(first.Dims))
		}
	}
	if !first.Ranked {
		return unranked(first.Elem), nil
	}
	axis, err := concatAxis(c, len(first.Dims))
	if err != nil {
		return nil, err
	}
	dims := unknownDims(len(first.Dims))
	sum := make([]ir.Dim, n)
	for i := range n {
		t := c.Type(i)
		if !t.Ranked {
			sum[i] = ir.UnknownDim
			continue
		}
		sum[i] = t.Dims[axis]
		for k, d := range t.Dims {
			switch {
			case k == axis:
			case dims[k].Known() && d.Known() && dims[k].Size != d.Size:
				return nil, fmt.Errorf("input %d has type %v, whose dimension %d is %d in another input", i, t, k, dims[k].Size)
			case d.Known() || dims[k].Name == "" && !dims[k].Known():
				dims[k] = ir.Dim{Size: d.Size, Name: d.Name}
			}
		}
	}
	dims[axis] = addDims(sum...)
	if len(dims) == 1 {
		var all []ir.Dim
		for i := range n {
			d, ok := c.Dims(i)
			if !ok {
				return typed(first.Elem, dims), nil
			}
			all = append(all, d...)
		}
		c.SetDims(0, all)
	}
	return typed(first.Elem, dims), nil
}

// concat joins tensors along an axis; the other dimensions must agree.
func concat(c *Call, in []*ir.Tensor, axis int) (*ir.Tensor, error) {
	shape := append([]int{}, in[0].Shape()...)
	shape[axis] = 0
	for i, t := range in {
		s := t.Shape()
		if len(s) != len(shape) {
			return nil, fmt.Errorf("input %d has shape %v, input 0 %v", i, s, in[0].Shape())
		}
		for k, d := range s {
			if k != axis && d != shape[k] {
				return nil, fmt.Errorf("input %d has shape %v, which differs from input 0's %v in dimension %d", i, s, in[0].Shape(), k)
			}
		}
		shape[axis] += s[axis]
	}
	if len(in) == 1 {
		return in[0], nil
	}
	outer, inner := product(shape[:axis]), product(shape[axis+1:])
	return move(c, in[0].Elem(), shape, in, func(dst []byte, src [][]byte, w int) {
		row, at := shape[axis]*inner, 0
		for i, s := range src {
			n := in[i].Shape()[axis] * inner
			strided(dst, s, w, at, 0, []step{{outer, row, n}, {n, 1, 1}})
			at += n
		}
	})
}

var splitDef = &Def{
	Name: "Split", Doc: "the parts of its input along an axis", Since: 1, Versions: []int{1, 2, 11, 13, 18}, Types: "all",
	In: Between(1, 2), Out: AtLeast(1),
	Upgrades: []Upgrade{
		{To: 2, Apply: func(u *Up) error {
			if v := u.Node.In(1); v != nil { // opset 1 only: sizes as a tensor of the data's type
				t := v.Const()
				if t == nil {
					return fmt.Errorf("input split is computed: %w", ErrUnsupported)
				}
				f, ok := t.Float32s()
				if !ok {
					return fmt.Errorf("input split has type %v: %w", t.Elem(), ErrUnsupported)
				}
				sizes := make([]int64, len(f))
				for i, x := range f {
					sizes[i] = int64(x)
				}
				u.Node.SetAttr(ir.IntsAttr("split", sizes...))
				u.Node.TrimIns(1)
			}
			return nil
		}},
		{To: 13, Apply: func(u *Up) error { u.AttrToInput("split", 1); return nil }},
		{To: 18, Apply: func(u *Up) error {
			if u.Node.In(1) == nil {
				u.Node.SetAttr(ir.IntAttr("num_outputs", int64(u.Node.NumOut())))
			}
			return nil
		}},
	},
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		types := make([]ir.Type, c.Node.NumOut())
		for i := range types {
			types[i] = ir.Type{Elem: x.Elem}
		}
		if !x.Ranked {
			return types, nil
		}
		axis, err := Axis(c.Node.Int("axis", 0), len(x.Dims))
		if err != nil {
			return nil, err
		}
		sizes := unknownDims(len(types))
		if given, ok := c.Dims(1); c.Has(1) && ok {
			if len(given) != len(types) {
				return nil, fmt.Errorf("split gives %d sizes for %d outputs", len(given), len(types))
			}
			if sizes, err = sizeDims(given); err != nil {
				return nil, err
			}
		}
		total := x.Dims[axis]
		if len(types) == 1 {
			sizes[0] = ir.Dim{Size: total.Size, Name: total.Name}
		}
		if _, ok := literals(sizes); total.Known() && (ok || !c.Has(1)) {
			exact, err := splitSizes(c, int(total.Size))
			if err != nil {
				return nil, err
			}
			for i, n := range exact {
				sizes[i] = ir.FixedDim(n)
			}
		}
		content, has := c.Dims(0)
		at := int64(0)
		for i := range types {
			dims := cloneDims(x.Dims)
			dims[axis] = sizes[i]
			types[i] = ir.TensorType(x.Elem, dims...)
			if has = has && sizes[i].Known() && at+sizes[i].Size <= int64(len(content)); has {
				c.SetDims(i, content[at:at+sizes[i].Size])
				at += sizes[i].Size
			}
		}
		return types, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x := c.In[0]
		s := x.Shape()
		axis, err := Axis(c.Node.Int("axis", 0), len(s))
		if err != nil {
			return nil, err
		}
		sizes, err := splitSizes(c, s[axis])
		if err != nil {
			return nil, err
		}
		out := make([]*ir.Tensor, len(sizes))
		outer, inner := product(s[:axis]), product(s[axis+1:])
		at := 0
		for i, n := range sizes {
			shape := append([]int{}, s...)
			shape[axis] = n
			from := at * inner
			at += n
			if !c.HasOut(i) {
				continue
			}
			if outer == 1 {
				if out[i] = part(x, from, shape); out[i] != nil {
					continue
				}
			}
			out[i], err = move(c, x.Elem(), shape, []*ir.Tensor{x}, func(dst []byte, src [][]byte, w int) {
				strided(dst, src[0], w, 0, from, []step{{outer, n * inner, s[axis] * inner}, {n * inner, 1, 1}})
			})
			if err != nil {
				return nil, err
			}
		}
		return out, nil
	},
}

// splitSizes returns the sizes of the outputs of a Split of n elements.
func splitSizes(c *Call, n int) ([]int, error) {
	outs := c.Node.NumOut()
	sizes := make([]int, outs)
	if !c.Has(1) {
		if k := c.Node.Int("num_outputs", int64(outs)); k != int64(outs) {
			return nil, fmt.Errorf("num_outputs is %d, the node has %d outputs", k, outs)
		}
		chunk := (n + outs - 1) / outs
		for i := range sizes {
			sizes[i] = max(0, min(chunk, n-i*chunk))
		}
		return sizes, nil
	}
	given, ok := inputInts(c, 1)
	if !ok {
		return nil, fmt.Errorf("split (input 1) is %v, wants integers", c.Type(1))
	}
	if len(given) != outs {
		return nil, fmt.Errorf("split gives %d sizes for %d outputs", len(given), outs)
	}
	sum := int64(0)
	for i, k := range given {
		if k < 0 || k > int64(n) {
			return nil, fmt.Errorf("split %v: size %d is outside [0, %d]", given, k, n)
		}
		sizes[i] = int(k)
		sum += k
	}
	if sum != int64(n) {
		return nil, fmt.Errorf("split %v adds up to %d, the axis has %d", given, sum, n)
	}
	return sizes, nil
}
