package conform_test

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// oddInts and oddFloats are the numbers that damage puts where others stood.
var (
	oddInts   = []int64{-1, 0, 1, 2, 3, 7, -2, -5, 255, 1 << 20, 1 << 31, 1 << 40, 1 << 62, math.MaxInt64, math.MinInt64}
	oddFloats = []float32{0, -1, 0.5, 3, 1e-30, -1e30, float32(math.Inf(1)), float32(math.NaN())}
	oddWords  = []string{"", "x", "linear", "cubic", "nearest", "reflect", "wrap", "edge", "SAME_LOWER", "VALID", "bidirectional", "reverse", "...i,i...->", "add", "max", "\xff"}
)

// damage changes a few things of a model that decoded: numbers and words of attributes, inputs of nodes, shapes, types and
// contents of constants, types of inputs, the opset. Zero leaves it whole. What it does is a function of model and seed.
func damage(m *ir.Model, seed uint64) {
	if seed == 0 {
		return
	}
	r := rand.New(rand.NewPCG(seed, 1))
	for range 1 + r.IntN(3) {
		damageOnce(m, r)
	}
}

func damageOnce(m *ir.Model, r *rand.Rand) {
	var nodes []*ir.Node
	var consts []*ir.Value
	for g := range m.Graphs() {
		nodes = slices.AppendSeq(nodes, g.Nodes())
		consts = append(consts, g.Consts()...)
	}
	if len(nodes) == 0 {
		return
	}
	n := nodes[r.IntN(len(nodes))]
	switch c := r.IntN(10); {
	case c < 3 && len(n.Attrs) > 0:
		damageAttr(n, r.IntN(len(n.Attrs)), r)
	case c < 4: // an attribute that the node may not have
		names := []string{"axis", "axes", "group", "to", "dtype", "k", "num_outputs", "block_size", "batch_dims", "output_shape", "pads", "strides"}
		name := names[r.IntN(len(names))]
		if r.IntN(2) == 0 {
			n.SetAttr(ir.IntAttr(name, pick(r, oddInts)))
		} else {
			n.SetAttr(ir.IntsAttr(name, pick(r, oddInts), pick(r, oddInts)))
		}
	case c < 6 && n.NumIn() > 0: // another input, or none
		i := r.IntN(n.NumIn())
		var v *ir.Value
		switch ins := n.Graph().Inputs(); {
		case r.IntN(3) == 0:
		case r.IntN(2) == 0:
			v = n.In(r.IntN(n.NumIn()))
		case len(ins) > 0:
			v = ins[r.IntN(len(ins))]
		}
		n.SetIn(i, v)
	case c < 7 && len(consts) > 0:
		v := consts[r.IntN(len(consts))]
		if t := v.Const(); t.Load() == nil {
			v.SetConst(damagedTensor(t.Elem(), t.Shape(), r))
		}
	case c < 8 && n.NumIn() > 0: // a constant instead of an input
		i := r.IntN(n.NumIn())
		if v := n.In(i); v != nil {
			shape := make([]int, len(v.Type.Dims))
			for k, d := range v.Type.Dims {
				shape[k] = int(min(max(d.Size, 0), 8))
			}
			elem := v.Type.Elem
			if !elem.Valid() {
				elem = ir.Float32
			}
			n.SetIn(i, n.Graph().Const("odd", damagedTensor(elem, shape, r)))
		}
	case c < 9 && len(m.Graph.Inputs()) > 0:
		ins := m.Graph.Inputs()
		v := ins[r.IntN(len(ins))]
		if v.Const() == nil {
			v.Type = damagedType(v.Type, r)
		}
	default:
		m.Opset[""] = 1 + r.IntN(op.Canonical)
	}
}

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

func damageAttr(n *ir.Node, i int, r *rand.Rand) {
	a := n.Attrs[i]
	if r.IntN(6) == 0 {
		n.DelAttr(a.Name)
		return
	}
	switch a.Kind {
	case ir.AttrInt:
		a.I = pick(r, oddInts)
	case ir.AttrFloat:
		a.F = pick(r, oddFloats)
	case ir.AttrString:
		a.S = []byte(pick(r, oddWords))
	case ir.AttrInts:
		a.Ints = slices.Clone(a.Ints)
		switch k := r.IntN(len(a.Ints) + 1); {
		case k == len(a.Ints):
			a.Ints = append(a.Ints, pick(r, oddInts))
		case r.IntN(4) == 0:
			a.Ints = slices.Delete(a.Ints, k, k+1)
		default:
			a.Ints[k] = pick(r, oddInts)
		}
	case ir.AttrFloats:
		a.Floats = append(slices.Clone(a.Floats), pick(r, oddFloats))
		a.Floats[r.IntN(len(a.Floats))] = pick(r, oddFloats)
		a.Floats = a.Floats[r.IntN(2):]
	case ir.AttrStrings:
		a.Strings = append(slices.Clone(a.Strings), []byte(pick(r, oddWords)))
		a.Strings[r.IntN(len(a.Strings))] = []byte(pick(r, oddWords))
		a.Strings = a.Strings[r.IntN(2):]
	case ir.AttrTensor:
		if a.T.Load() == nil {
			a.T = damagedTensor(a.T.Elem(), a.T.Shape(), r)
		}
	case ir.AttrType:
		a.Types = []ir.Type{damagedType(a.Types[0], r)}
	}
	n.SetAttr(a)
}

// damagedType changes a dimension, the rank or the element type.
func damagedType(t ir.Type, r *rand.Rand) ir.Type {
	t = t.Clone()
	switch k := r.IntN(7); {
	case k == 5:
		for range r.IntN(40) {
			t.Dims = append(t.Dims, ir.FixedDim(1))
		}
	case k == 6 && len(t.Dims) > 1: // empty, and astronomical otherwise
		i := r.IntN(len(t.Dims))
		t.Dims[i], t.Dims[(i+1)%len(t.Dims)] = ir.FixedDim(0), ir.FixedDim(pick(r, []int{1 << 20, 1 << 31, 1 << 40, 1 << 62}))
	case k == 0:
		t.Elem = ir.DType(1 + r.IntN(int(ir.Int2)))
	case k == 1:
		t.Dims = append(t.Dims, ir.FixedDim(1+r.IntN(2)))
	case k == 2 && len(t.Dims) > 0:
		t.Dims = t.Dims[1:]
	case k == 3:
		for i := range t.Dims {
			t.Dims[i] = ir.NamedDim("N")
		}
	case len(t.Dims) > 0:
		t.Dims[r.IntN(len(t.Dims))] = ir.FixedDim(pick(r, []int{0, 1, 2, 3, 5, 1 << 20, 1 << 31, 1 << 40}))
	}
	return t
}

// damagedTensor is a small tensor of about the given type with odd contents.
func damagedTensor(elem ir.DType, shape []int, r *rand.Rand) *ir.Tensor {
	shape = slices.Clone(shape)
	switch k := r.IntN(10); {
	case k == 8:
		for range r.IntN(40) {
			shape = append(shape, 1)
		}
	case k == 9 && len(shape) > 1:
		i := r.IntN(len(shape))
		shape[i], shape[(i+1)%len(shape)] = 0, pick(r, []int{1 << 20, 1 << 31, 1 << 40})
	case k == 0:
		elem = ir.DType(1 + r.IntN(int(ir.Int2)))
	case k == 1:
		shape = append(shape, r.IntN(3))
	case k == 2 && len(shape) > 0:
		shape = shape[1:]
	case k == 3 && len(shape) > 0:
		shape[r.IntN(len(shape))] = r.IntN(4)
	}
	if n, err := ir.Numel(shape); err != nil || n > 1<<12 {
		shape = nil
	}
	return oddTensor(elem, shape, r)
}

// oddTensor fills a tensor with small whole numbers, with those of the lists above, or with any bytes.
func oddTensor(elem ir.DType, shape []int, r *rand.Rand) *ir.Tensor {
	t := ir.NewTensor(elem, shape...)
	style := r.IntN(4)
	switch {
	case elem == ir.String:
	case style == 0 && elem == ir.Int64:
		for i := range ir.Data[int64](t) {
			ir.Data[int64](t)[i] = pick(r, oddInts)
		}
	case style == 0 && elem == ir.Float32:
		for i := range ir.Data[float32](t) {
			ir.Data[float32](t)[i] = pick(r, oddFloats)
		}
	case style == 1:
		for i := range t.Bytes() {
			t.Bytes()[i] = byte(r.Uint32())
		}
	case elem == ir.Int64:
		for i := range ir.Data[int64](t) {
			ir.Data[int64](t)[i] = int64(r.IntN(5)) - 1
		}
	case elem == ir.Float32:
		for i := range ir.Data[float32](t) {
			ir.Data[float32](t)[i] = float32(r.IntN(9)) - 3
		}
	default:
		for i := range t.Bytes() {
			t.Bytes()[i] = byte(i % 3) // small integers, tiny floats
		}
	}
	return t
}
