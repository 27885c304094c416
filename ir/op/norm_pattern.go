package op

import (
	"github.com/qsimc/qsimc/ir"
)

// NormKind tells normalizations apart.
type NormKind uint8

// The kinds of normalization.
const (
	LayerNorm NormKind = iota // over the last axis, mean taken off
	RMSNorm                   // over the last axis, by the root mean square
	InstanceNorm
	GroupNorm
	BatchNorm
)

// String names the kind in listings.
func (k NormKind) String() string {
	return [...]string{"LayerNorm", "RMSNorm", "InstanceNorm", "GroupNorm", "BatchNorm"}[k]
}

// Norm is a normalization with its gain and bias, in one operator or spelled out in several.
type Norm struct {
	Kind  NormKind
	Fused bool      // one operator does it all
	X     *ir.Value // what is normalized
	Core  *ir.Node  // the node whose result is the normalized value, before gain and bias where these are nodes of their own
	Gain  *ir.Node  // multiplies by a constant; Core itself if fused; nil if there is none
	Bias  *ir.Node  // adds a constant; likewise
	Out   *ir.Value // the result, gain and bias included
}

var fusedNorms = map[string]NormKind{
	"LayerNormalization": LayerNorm, "RMSNormalization": RMSNorm, "SimplifiedLayerNormalization": RMSNorm,
	"InstanceNormalization": InstanceNorm, "GroupNormalization": GroupNorm, "BatchNormalization": BatchNorm,
}

// NormOf recognizes the normalization whose core the node is. Spelled-out forms are those of exporters before opset 17
// (layer norm: ReduceMean, Sub, Pow or Mul, ReduceMean, Add, Sqrt, Div) and of RMS norms (Pow, ReduceMean, Add, Sqrt,
// Reciprocal or Div, Mul), with casts anywhere; a group norm is an InstanceNormalization between two Reshapes.
func NormOf(n *ir.Node) (Norm, bool) {
	if !standard(n) || n.Out(0) == nil {
		return Norm{}, false
	}
	if kind, ok := fusedNorms[n.Op.Type]; ok {
		r := Norm{Kind: kind, Fused: true, X: n.In(0), Core: n, Gain: n, Out: n.Out(0)}
		if f := normed[n.Op.Type]; n.In(f.Bias) != nil {
			r.Bias = n
		}
		if before, after := reshapeAround(n); kind == InstanceNorm && before != nil {
			r = Norm{Kind: GroupNorm, X: before.In(0), Core: n, Out: after.Out(0)}
			r.affine(after.Out(0))
		}
		return r, true
	}
	var x *ir.Value
	var kind NormKind
	ok := false
	switch n.Op.Type {
	case "Div":
		x, kind, ok = normalized(n.In(0), n.In(1), false)
	case "Mul":
		if x, kind, ok = normalized(n.In(0), n.In(1), true); !ok {
			x, kind, ok = normalized(n.In(1), n.In(0), true)
		}
	}
	if !ok {
		return Norm{}, false
	}
	r := Norm{Kind: kind, X: x, Core: n, Out: n.Out(0)}
	r.affine(n.Out(0))
	return r, true
}

// reshapeAround returns the Reshapes before and after a node, nil if it is not between two.
func reshapeAround(n *ir.Node) (before, after *ir.Node) {
	u, ok := n.Out(0).SingleUse()
	b := n.In(0).DefNode()
	if !ok || u.Node == nil || u.Slot != 0 || b == nil || b.Op != ir.Op("Reshape") || u.Node.Op != ir.Op("Reshape") {
		return nil, nil
	}
	return b, u.Node
}

// affine finds the nodes that multiply the normalized value by a constant and add one.
func (r *Norm) affine(v *ir.Value) {
	for range 4 { // a gain, a bias, casts before them
		u, ok := v.SingleUse()
		if !ok || u.Node == nil || u.Graph != v.Graph() || !standard(u.Node) {
			return
		}
		n := u.Node
		other := n.In(1 - u.Slot)
		switch {
		case n.Op.Type == "Cast" && r.Gain == nil && n.Out(0).Type.Elem.IsFloat():
		case n.Op.Type == "Mul" && r.Gain == nil && r.Bias == nil && isVector(other):
			r.Gain, r.Out = n, n.Out(0)
		case n.Op.Type == "Add" && r.Bias == nil && isVector(other):
			r.Bias, r.Out = n, n.Out(0)
		default:
			return
		}
		v = n.Out(0)
	}
}

// isVector reports whether a value is a constant with more than one element in one axis only.
func isVector(v *ir.Value) bool {
	t := ConstantOf(v)
	if t == nil || !t.Elem().IsFloat() {
		return false
	}
	wide := 0
	for _, d := range t.Shape() {
		if d > 1 {
			wide++
		}
	}
	return wide == 1
}

// normalized recognizes value divided by (or, inverse, times the reciprocal of) the root of its mean square.
func normalized(value, scale *ir.Value, inverse bool) (x *ir.Value, kind NormKind, ok bool) {
	if value == nil || scale == nil {
		return nil, 0, false
	}
	src := rootMeanSquare(scale, inverse)
	if src == nil {
		return nil, 0, false
	}
	value, src = uncast(value), uncast(src)
	a, b := centred(value), centred(src)
	switch {
	case a != nil && a == b:
		return a, LayerNorm, true
	case value == src && a == nil:
		return value, RMSNorm, true
	}
	return nil, 0, false
}

// rootMeanSquare follows the denominator of a normalization back to the value whose squares are averaged; nil if it is no
// such thing.
func rootMeanSquare(v *ir.Value, inverse bool) *ir.Value {
	inverted, rooted := false, false
	for range 10 {
		n := v.DefNode()
		if n == nil || !standard(n) {
			return nil
		}
		switch n.Op.Type {
		case "Sqrt":
			rooted = true
			v = n.In(0)
		case "Reciprocal":
			inverted = !inverted
			v = n.In(0)
		case "Cast", "Identity", "Clip", "Max":
			v = n.In(0)
		case "Div":
			if ConstantOf(n.In(0)) == nil {
				return nil
			}
			inverted = !inverted
			v = n.In(1)
		case "Add":
			if v = n.In(0); ConstantOf(v) != nil {
				v = n.In(1)
			}
		case "Pow":
			e := soleNumber(n.In(1))
			if e != .5 && e != -.5 {
				return nil
			}
			rooted = true
			if e < 0 {
				inverted = !inverted
			}
			v = n.In(0)
		case "ReduceMean":
			if !rooted || inverted != inverse || !overLast(n) {
				return nil
			}
			return squared(n.In(0))
		default:
			return nil
		}
		if v == nil {
			return nil
		}
	}
	return nil
}

// overLast reports whether a reduction is over the last axis alone.
func overLast(n *ir.Node) bool {
	rank := n.In(0).Type.Rank()
	axes, ok := axesArg(n, 1, rank, ConstantOf)
	return ok && len(axes) == 1 && axes[0] == rank-1
}

func squared(v *ir.Value) *ir.Value {
	n := uncast(v).DefNode()
	switch {
	case n == nil || !standard(n):
	case n.Op.Type == "Pow" && soleNumber(n.In(1)) == 2:
		return n.In(0)
	case n.Op.Type == "Mul" && n.In(0) == n.In(1):
		return n.In(0)
	}
	return nil
}

// centred returns x if v is x less its mean over the last axis, else nil.
func centred(v *ir.Value) *ir.Value {
	n := v.DefNode()
	if n == nil || !standard(n) || n.Op.Type != "Sub" {
		return nil
	}
	x := uncast(n.In(0))
	m := uncast(n.In(1)).DefNode()
	if m == nil || !standard(m) || m.Op.Type != "ReduceMean" || !overLast(m) || uncast(m.In(0)) != x {
		return nil
	}
	return x
}

// uncast follows a value back through casts between float types and identities.
func uncast(v *ir.Value) *ir.Value {
	for {
		n := v.DefNode()
		if n == nil || !standard(n) || n.Op.Type != "Cast" && n.Op.Type != "Identity" || !n.In(0).Type.Elem.IsFloat() {
			return v
		}
		v = n.In(0)
	}
}

// soleNumber returns the number that a constant of one element holds, 0 for all other values.
func soleNumber(v *ir.Value) float32 {
	if t := ConstantOf(v); t != nil && t.Len() == 1 {
		if x, ok := t.Float32s(); ok {
			return x[0]
		}
	}
	return 0
}
