package op

import (
	"math"

	"github.com/qsimc/qsimc/ir"
)

// FlowKind says how a node carries channels: what happens to its results when the channels of an operand are scaled.
type FlowKind uint8

// The kinds. An operator that is none of the others is Opaque: it mixes channels or bends them.
const (
	Opaque    FlowKind = iota
	Same               // each element of input 0 to the same place, homogeneous for positive factors: copies, casts, Relu
	Permuted           // input 0 with its axes in the order Perm
	Reshaped           // input 0 in another shape
	Inserted           // input 0 with axes of size 1 at Axes (of the result)
	Dropped            // input 0 without the axes Axes (of the operand), which have size 1
	Taken              // positions Index along Axis of input 0; Index nil: which ones is not known. Drop: the axis is gone
	Joined             // the inputs one behind the other along Axis
	Spread             // input 0, axes of size 1 repeated
	Pooled             // axes 0 and 1 of input 0 stay, the others are pooled or resized channel by channel
	Padded             // input 0 with zeros (or copies of itself) around it along Axes
	Reduced            // input 0 summed, averaged, … along Axes; Drop: the axes are gone
	Product            // input 0 times input 1, broadcast
	Quotient           // input 0 by input 1, broadcast
	Summed             // input 0 plus or minus input 1, broadcast
	Matrix             // matrix product of inputs 0 and 1
	Normed             // normalization of input 0, then Scale and Bias by channel
	ShapeOnly          // only the shape of input 0 counts
)

// Flow describes how one result of a node comes from its operands. Axes count from 0.
type Flow struct {
	Kind  FlowKind
	Perm  []int
	Axis  int // Normed: 1 if Scale and Bias hold one number for each position of axis 1, -1 if they broadcast from the last axis
	Index []int
	Axes  []int
	Drop  bool
	Scale int // Normed: slots of the parameters, -1 where absent
	Bias  int
}

// homogeneous holds the operators with f(s·x) = s·f(x) for s > 0, element by element. PRelu's slope counts as a constant.
var homogeneous = map[string]bool{"Identity": true, "Relu": true, "LeakyRelu": true, "PRelu": true, "Abs": true, "Neg": true}

var pooled = map[string]bool{
	"MaxPool": true, "AveragePool": true, "GlobalAveragePool": true, "GlobalMaxPool": true, "LpPool": true, "GlobalLpPool": true,
	"Resize": true, "Upsample": true,
}

var reduced = map[string]bool{"ReduceMean": true, "ReduceSum": true, "ReduceMax": true, "ReduceMin": true, "ReduceL1": true, "ReduceL2": true}

// normed holds the normalizations with the slots of scale and bias and where their channels are.
var normed = map[string]Flow{
	"LayerNormalization":           {Kind: Normed, Axis: -1, Scale: 1, Bias: 2},
	"RMSNormalization":             {Kind: Normed, Axis: -1, Scale: 1, Bias: -1},
	"SimplifiedLayerNormalization": {Kind: Normed, Axis: -1, Scale: 1, Bias: -1},
	"InstanceNormalization":        {Kind: Normed, Axis: 1, Scale: 1, Bias: 2},
	"BatchNormalization":           {Kind: Normed, Axis: 1, Scale: 1, Bias: 2},
	"GroupNormalization":           {Kind: Normed, Axis: 1, Scale: 1, Bias: 2},
}

// Known returns the contents of a value if they can be told without running the model, nil otherwise. ConstantOf is one;
// inference knows more.
type Known func(*ir.Value) *ir.Tensor

// FlowOf describes how result out of a node comes from its operands. Types must have been inferred.
func FlowOf(n *ir.Node, out int, known Known) Flow {
	opaque := Flow{Kind: Opaque, Scale: -1, Bias: -1}
	if !standard(n) {
		return opaque
	}
	name := n.Op.Type
	x := n.In(0)
	if x == nil || n.Out(out) == nil {
		return opaque
	}
	rank := x.Type.Rank()
	if f, ok := normed[name]; ok {
		if out > 0 {
			return opaque
		}
		if n.In(f.Bias) == nil {
			f.Bias = -1
		}
		return f
	}
	switch {
	case homogeneous[name]:
		return Flow{Kind: Same}
	case pooled[name]:
		if out == 0 && resizesFrom2(n) {
			return Flow{Kind: Pooled}
		}
		return opaque
	case reduced[name]:
		axes, ok := axesArg(n, 1, rank, known)
		if !ok || rank < 0 {
			return opaque
		}
		if len(axes) == 0 {
			if n.Int("noop_with_empty_axes", 0) != 0 {
				return Flow{Kind: Same}
			}
			for a := range rank {
				axes = append(axes, a)
			}
		}
		return Flow{Kind: Reduced, Axes: axes, Drop: n.Int("keepdims", 1) == 0}
	}
	switch name {
	case "Dropout":
		if out == 0 && Copies(n) {
			return Flow{Kind: Same}
		}
	case "Cast":
		if x.Type.Elem.IsFloat() && ir.DType(n.Int("to", 0)).IsFloat() {
			return Flow{Kind: Same}
		}
	case "CastLike":
		if x.Type.Elem.IsFloat() && n.Out(0).Type.Elem.IsFloat() {
			return Flow{Kind: Same}
		}
	case "Clip":
		if lo, hi := clipBounds(n, known); lo == 0 && math.IsInf(hi, 1) {
			return Flow{Kind: Same}
		}
	case "Max":
		if c := known(n.In(1)); n.NumIn() == 2 && c != nil && c.Len() == 1 && zeros(c) {
			return Flow{Kind: Same}
		}
	case "Transpose":
		if rank < 0 {
			break
		}
		f := Flow{Kind: Permuted, Perm: make([]int, rank)}
		perm := n.Ints("perm")
		if perm != nil && len(perm) != rank {
			break
		}
		for i := range f.Perm {
			if f.Perm[i] = rank - 1 - i; perm != nil {
				f.Perm[i] = int(perm[i])
			}
		}
		return f
	case "Reshape", "Flatten":
		return Flow{Kind: Reshaped}
	case "Unsqueeze":
		if axes, ok := axesArg(n, 1, n.Out(0).Type.Rank(), known); ok && rank >= 0 {
			return Flow{Kind: Inserted, Axes: axes}
		}
	case "Squeeze":
		axes, ok := axesArg(n, 1, rank, known)
		if !ok || rank < 0 {
			break
		}
		if len(axes) == 0 {
			for i, d := range x.Type.Dims {
				if d.Size == 1 {
					axes = append(axes, i)
				}
			}
			if len(axes) != rank-n.Out(0).Type.Rank() {
				break
			}
		}
		return Flow{Kind: Dropped, Axes: axes}
	case "Slice":
		return sliceFlow(n, known)
	case "Split":
		return splitFlow(n, out, known)
	case "Gather":
		return gatherFlow(n, known)
	case "Concat":
		if a, err := Axis(n.Int("axis", 0), max(rank, 0)); rank >= 0 && err == nil {
			return Flow{Kind: Joined, Axis: a}
		}
	case "Expand":
		return Flow{Kind: Spread}
	case "Pad":
		return padFlow(n, known)
	case "Mul":
		return Flow{Kind: Product}
	case "Div":
		return Flow{Kind: Quotient}
	case "Add", "Sub":
		return Flow{Kind: Summed}
	case "MatMul":
		return Flow{Kind: Matrix}
	case "Shape", "Size":
		return Flow{Kind: ShapeOnly}
	}
	return opaque
}

// resizesFrom2 reports whether a pooling or resizing leaves axes 0 and 1 as they are.
func resizesFrom2(n *ir.Node) bool {
	x, y := n.In(0).Type, n.Out(0).Type
	if x.Rank() < 3 || y.Rank() != x.Rank() {
		return false
	}
	return x.Dim(1).Same(y.Dim(1)) && (x.Dim(0).Same(y.Dim(0)) || !x.Dim(0).Known())
}

// axesArg reads axes that are an attribute in older opsets and an input in newer ones, normalized to [0, rank).
func axesArg(n *ir.Node, slot, rank int, known Known) ([]int, bool) {
	v := n.Ints("axes")
	if in := n.In(slot); in != nil {
		t := known(in)
		if t == nil {
			return nil, false
		}
		v, _ = t.Int64s()
	}
	axes := make([]int, len(v))
	for i, a := range v {
		k, err := Axis(a, max(rank, 0))
		if err != nil {
			return nil, false
		}
		axes[i] = k
	}
	return axes, true
}

func clipBounds(n *ir.Node, known Known) (lo, hi float64) {
	lo, hi = float64(n.Float("min", float32(math.Inf(-1)))), float64(n.Float("max", float32(math.Inf(1))))
	for i, b := range []*float64{&lo, &hi} {
		in := n.In(i + 1)
		if in == nil {
			continue
		}
		*b = math.NaN()
		if t := known(in); t != nil && t.Len() == 1 {
			if v, ok := t.Float32s(); ok {
				*b = float64(v[0])
			}
		}
	}
	if hi >= math.MaxFloat32 {
		hi = math.Inf(1)
	}
	return lo, hi
}

func zeros(t *ir.Tensor) bool {
	v, ok := t.Float32s()
	return ok && allZero(v)
}

func sliceFlow(n *ir.Node, known Known) Flow {
	opaque := Flow{Kind: Opaque}
	x := n.In(0).Type
	ints := func(slot int, attr string) ([]int64, bool) {
		if in := n.In(slot); in != nil {
			t := known(in)
			if t == nil {
				return nil, false
			}
			return t.Int64s()
		}
		return n.Ints(attr), true
	}
	starts, ok1 := ints(1, "starts")
	ends, ok2 := ints(2, "ends")
	axes, ok3 := ints(3, "axes")
	steps, ok4 := ints(4, "steps")
	if x.Rank() < 0 || !ok3 {
		return opaque
	}
	if axes == nil && ok1 {
		for i := range starts {
			axes = append(axes, int64(i))
		}
	}
	if len(axes) != 1 {
		return opaque
	}
	a, err := Axis(axes[0], x.Rank())
	if err != nil {
		return opaque
	}
	d := x.Dim(a)
	if !ok1 || !ok2 || !ok4 || !d.Known() || len(starts) != 1 || len(ends) != 1 {
		return Flow{Kind: Taken, Axis: a}
	}
	step := int64(1)
	if len(steps) == 1 {
		step = steps[0]
	}
	f := Flow{Kind: Taken, Axis: a, Index: []int{}}
	clamp := func(v, lo, hi int64) int64 {
		if v < 0 {
			v += d.Size
		}
		return min(max(v, lo), hi)
	}
	switch {
	case step > 0:
		for i := clamp(starts[0], 0, d.Size); i < clamp(ends[0], 0, d.Size); i += step {
			f.Index = append(f.Index, int(i))
		}
	case step < 0:
		end := int64(-1)
		if ends[0] >= -d.Size {
			end = clamp(ends[0], -1, d.Size-1)
		}
		for i := clamp(starts[0], 0, d.Size-1); i > end; i += step {
			f.Index = append(f.Index, int(i))
		}
	default:
		return opaque
	}
	return f
}

func splitFlow(n *ir.Node, out int, known Known) Flow {
	x := n.In(0).Type
	if x.Rank() < 0 {
		return Flow{Kind: Opaque}
	}
	a, err := Axis(n.Int("axis", 0), x.Rank())
	if err != nil {
		return Flow{Kind: Opaque}
	}
	f := Flow{Kind: Taken, Axis: a}
	if !x.Dim(a).Known() {
		return f
	}
	at := int64(0)
	for i := range out {
		v := n.Out(i)
		if v == nil || !v.Type.Dim(a).Known() {
			sizes := n.Ints("split")
			if t := known(n.In(1)); t != nil {
				sizes, _ = t.Int64s()
			}
			if i >= len(sizes) {
				return f
			}
			at += sizes[i]
			continue
		}
		at += v.Type.Dim(a).Size
	}
	d := n.Out(out).Type.Dim(a)
	if !d.Known() || at+d.Size > x.Dim(a).Size {
		return f
	}
	f.Index = make([]int, d.Size)
	for i := range f.Index {
		f.Index[i] = int(at) + i
	}
	return f
}

func gatherFlow(n *ir.Node, known Known) Flow {
	x := n.In(0).Type
	if x.Rank() < 0 || n.In(1) == nil {
		return Flow{Kind: Opaque}
	}
	a, err := Axis(n.Int("axis", 0), x.Rank())
	if err != nil {
		return Flow{Kind: Opaque}
	}
	r := n.In(1).Type.Rank()
	if r != 0 && r != 1 {
		return Flow{Kind: Opaque}
	}
	f := Flow{Kind: Taken, Axis: a, Drop: r == 0}
	t, d := known(n.In(1)), x.Dim(a)
	if t == nil || !d.Known() {
		return f
	}
	v, ok := t.Int64s()
	if !ok {
		return f
	}
	f.Index = make([]int, len(v))
	for i, k := range v {
		if k < 0 {
			k += d.Size
		}
		if k < 0 || k >= d.Size {
			return Flow{Kind: Opaque}
		}
		f.Index[i] = int(k)
	}
	return f
}

func padFlow(n *ir.Node, known Known) Flow {
	rank := n.In(0).Type.Rank()
	if rank < 0 || n.In(3) != nil || n.Float("value", 0) != 0 {
		return Flow{Kind: Opaque}
	}
	if c := n.In(2); c != nil {
		if t := known(c); t == nil || !zeros(t) {
			return Flow{Kind: Opaque}
		}
	}
	pads := n.Ints("pads")
	if in := n.In(1); in != nil {
		t := known(in)
		if t == nil {
			return Flow{Kind: Opaque}
		}
		pads, _ = t.Int64s()
	}
	if len(pads) != 2*rank {
		return Flow{Kind: Opaque}
	}
	f := Flow{Kind: Padded}
	for a := range rank {
		if pads[a] != 0 || pads[a+rank] != 0 {
			f.Axes = append(f.Axes, a)
		}
	}
	return f
}

// TakesNoBias reports whether a linear operator has no input for a bias, which is then a node of its own: MatMul.
func TakesNoBias(n *ir.Node) bool {
	d, ok := Lookup(n)
	return !ok || d.In.Max >= 0 && d.In.Max < 3
}
