package passes

import (
	"context"
	"errors"
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
)

// LowerOptions are the options of the pass lower.
type LowerOptions struct {
	Format string `opt:"format" enum:"qdq" doc:"what quantizers become: qdq is QuantizeLinear and DequantizeLinear of ONNX"`
	Opset  int    `opt:"opset" doc:"opset of the result; 0: the smallest that can carry it, not below the model's"`
}

// Lower turns FakeQuant nodes into operators of ONNX.
var Lower = Define("lower", lowerDoc, LowerOptions{Format: "qdq"}, lower)

const lowerDoc = `turns qsimc.FakeQuant nodes into QuantizeLinear and DequantizeLinear

A weight becomes an initializer of the small type and one DequantizeLinear that all its users read; an activation becomes a
pair QuantizeLinear, DequantizeLinear with an explicit zero point, behind a Clip where the type has codes that the scheme
does not use and values beyond the range occur. Scales stay float32: a model of another float type gets Casts around the
pair. The model is upgraded to a newer opset only where the result needs it: 13 for scales per channel, 21 for int4, int16
and blocks.`

// lowered is one FakeQuant node with the way ONNX carries its scheme.
type lowered struct {
	node    *ir.Node
	fq      *op.FakeQuant
	carrier numfmt.Carrier
	weight  *ir.Tensor // nil for activations
	clip    bool
}

func lower(_ context.Context, u *Unit, o LowerOptions) error {
	if u.DryRun {
		return nil
	}
	var all []*lowered
	var errs []error
	need := 0
	for g := range u.Model.Graphs() {
		for n := range g.Nodes() {
			if n.Op != op.FakeQuantOp {
				continue
			}
			l, err := carry(n, o.Opset)
			if err != nil {
				errs = append(errs, fmt.Errorf("value %q: %w", n.In(0).Name, err))
				continue
			}
			all = append(all, l)
			need = max(need, l.carrier.Opset)
			if l.clip {
				need = max(need, 11) // Clip takes its bounds as inputs
			}
		}
	}
	if errs != nil {
		return errors.Join(errs...)
	}
	if err := raiseOpset(u.Model, max(need, o.Opset)); err != nil {
		return err
	}
	for _, l := range all {
		u.at(l.node.In(0).Name)
		var err error
		if l.weight != nil {
			err = l.lowerWeight()
		} else {
			err = l.lowerActivation()
		}
		if err != nil {
			return fmt.Errorf("value %q: %w", l.node.In(0).Name, err)
		}
		u.edit()
	}
	for _, l := range all {
		if err := l.node.Graph().Remove(l.node); err != nil {
			return err
		}
	}
	if len(all) > 0 {
		delete(u.Model.Opset, op.Domain)
		u.Model.Graph.Prune()
		nameNodes(u.Model)
	}
	return nil
}

// nameNodes gives every node a name of its own: tools that read quantized files go by names. The first that has a name keeps
// it.
func nameNodes(m *ir.Model) {
	taken := map[string]bool{}
	for g := range m.Graphs() {
		for n := range g.Nodes() {
			if n.Name == "" {
				n.Name = m.FreshNode(nodeHint(n))
			} else if taken[n.Name] {
				n.Name = m.FreshNode(n.Name)
			}
			taken[n.Name] = true
		}
	}
}

// nodeHint names a node after its first result, else after its operator.
func nodeHint(n *ir.Node) string {
	for _, v := range n.Outs() {
		if v != nil {
			return v.Name
		}
	}
	return n.Op.Type
}

// carry chooses how ONNX holds a FakeQuant's scheme: the smallest storage with float scales that the opset limit (0: none)
// allows.
func carry(n *ir.Node, limit int) (*lowered, error) {
	f, err := op.ReadFakeQuant(n)
	if err != nil {
		return nil, err
	}
	l := &lowered{node: n, fq: f, weight: op.ConstantOf(n.In(0))}
	if f.Scheme.Dynamic {
		return nil, fmt.Errorf("scheme %v is dynamic, QuantizeLinear wants a scale that is known", f.Scheme)
	}
	if !f.Scheme.Scaled() {
		return nil, fmt.Errorf("scheme %v has no scale, QuantizeLinear wants one", f.Scheme)
	}
	if n.In(1) == nil || op.ConstantOf(n.In(1)) == nil {
		return nil, errors.New("the scale of a static scheme is no constant")
	}
	carriers, err := f.Scheme.Carriers()
	if err != nil {
		return nil, err
	}
	first := 0
	for _, c := range carriers {
		if c.Scale != numfmt.ElemFloat {
			continue
		}
		if limit == 0 || c.Opset <= limit {
			l.carrier = c
			l.clip = c.Clip && l.weight == nil && (f.Clip || f.Scheme.Format.Bits > 8 || elemBits(c) != f.Scheme.Format.Bits)
			return l, nil
		}
		if first == 0 || c.Opset < first {
			first = c.Opset
		}
	}
	return nil, fmt.Errorf("scheme %v needs opset %d, opset=%d was asked for", f.Scheme, first, limit)
}

func elemBits(c numfmt.Carrier) int { return c.Elem.Bits() }

// raiseOpset upgrades the model where it is below the opset, and its IR version with it.
func raiseOpset(m *ir.Model, to int) error {
	if m.Opset[""] >= to {
		return nil
	}
	if err := op.ToOpset(m, to); err != nil {
		return fmt.Errorf("upgrade to opset %d: %w", to, err)
	}
	m.IRVersion = max(m.IRVersion, ir.VersionFor(to))
	return nil
}

// params reads scale and zero point from the node's inputs.
func (l *lowered) params() (p numfmt.Params, scaleShape []int, err error) {
	t := op.ConstantOf(l.node.In(1))
	scale, ok := t.Float32s()
	if !ok {
		return p, nil, fmt.Errorf("scale has type %v", t.Elem())
	}
	p.Scale = append([]float32(nil), scale...)
	if z := l.node.In(2); z != nil {
		if p.Zero, ok = op.ConstantOf(z).Float32s(); !ok {
			return p, nil, fmt.Errorf("zero point has type %v", z.Type.Elem)
		}
	}
	return p, t.Shape(), nil
}

// base is the name that the new nodes and tensors are named after.
func (l *lowered) base() string { return l.node.In(0).Name }

// constants makes the scale and zero-point initializers. They take over the FakeQuant node's own where nothing else reads
// these, so that the names stay.
func (l *lowered) constants(p numfmt.Params, shape []int) (scale, zero *ir.Value, err error) {
	g := l.node.Graph()
	stored := make([]float32, len(p.Scale))
	for i, s := range p.Scale {
		stored[i] = s * l.carrier.Factor
		if s == 0 { // a group of zeros: no scale that is stored may be 0 (METHODS §0)
			stored[i] = 1 // the weight's codes are 0 already
			if l.weight == nil {
				stored[i] = 0x1p126 // all that enters becomes code 0
			}
		}
	}
	codes := make([]float32, len(p.Scale))
	copy(codes, p.Zero)
	ones := make([]float32, len(codes))
	for i := range ones {
		ones[i] = 1
	}
	// a zero point is an integer: quantizing it with scale 1 and no offset gives its code
	one, err := numfmt.Scheme{}.Layout([]int{len(codes)}, numfmt.Axes{})
	if err != nil {
		return nil, nil, err
	}
	c, err := numfmt.QuantizeLinear(codes, one, numfmt.Params{Scale: []float32{1}}, l.carrier.Elem, true)
	if err != nil {
		return nil, nil, fmt.Errorf("zero point: %w", err)
	}
	zt, err := ir.TensorOf(ir.DType(c.Elem), shape, c.Data)
	if err != nil {
		return nil, nil, fmt.Errorf("zero point: %w", err)
	}
	return own(g, l.node, 1, l.base()+"_scale", ir.Floats(stored, shape...)), own(g, l.node, 2, l.base()+"_zero_point", zt), nil
}

// own gives the constant at an input of the node new data if the node is its only user, else makes a new constant.
func own(g *ir.Graph, n *ir.Node, slot int, name string, t *ir.Tensor) *ir.Value {
	v := n.In(slot)
	if v != nil && v.Const() != nil && v.NumUses() == 1 && v.Graph() == g {
		v.SetConst(t)
		return v
	}
	return g.Const(name, t)
}

func (l *lowered) lowerWeight() error {
	if err := l.weight.Load(); err != nil {
		return err
	}
	x, ok := l.weight.Float32s()
	if !ok {
		return fmt.Errorf("weight has type %v", l.weight.Elem())
	}
	layout, err := l.fq.Layout(l.weight.Shape())
	if err != nil {
		return err
	}
	p, shape, err := l.params()
	if err != nil {
		return err
	}
	codes, err := l.fq.Scheme.Encode(x, layout, p)
	if err != nil {
		return err
	}
	if codes.Elem != l.carrier.Elem {
		if codes, err = codes.Widen(l.carrier.Elem); err != nil {
			return err
		}
	}
	q, err := ir.TensorOf(ir.DType(codes.Elem), l.weight.Shape(), codes.Data)
	if err != nil {
		return err
	}
	scale, zero, err := l.constants(p, shape)
	if err != nil {
		return err
	}
	return l.dequantize(l.node.Graph().Const(l.base()+"_quantized", q), scale, zero, l.attrs(layout))
}

func (l *lowered) lowerActivation() error {
	p, shape, err := l.params()
	if err != nil {
		return err
	}
	x, g := l.node.In(0), l.node.Graph()
	attrs, err := l.activationAttrs(x, shape)
	if err != nil {
		return err
	}
	if x.Type.Elem != ir.Float32 {
		if x, err = l.insert("_Cast", "Cast", []*ir.Value{x}, ir.IntAttr("to", int64(ir.Float32))); err != nil {
			return err
		}
	}
	if l.clip {
		if x, err = l.clipTo(x, p, shape); err != nil {
			return err
		}
	}
	scale, zero, err := l.constants(p, shape)
	if err != nil {
		return err
	}
	n, err := op.Insert(g, l.node, l.base()+"_QuantizeLinear", ir.Op("QuantizeLinear"), []*ir.Value{x, scale, zero},
		[]string{l.base() + "_QuantizeLinear_Output"}, attrs...)
	if err != nil {
		return err
	}
	n.Origin = l.node.Origin
	return l.dequantize(n.Out(0), scale, zero, attrs)
}

// attrs are axis and block_size for a layout.
func (l *lowered) attrs(layout numfmt.Layout) []ir.Attr {
	switch layout.Gran {
	case numfmt.PerAxis:
		return []ir.Attr{ir.IntAttr("axis", int64(layout.Axis))}
	case numfmt.PerBlock:
		return []ir.Attr{ir.IntAttr("axis", int64(layout.Axis)), ir.IntAttr("block_size", int64(layout.Block))}
	}
	return nil
}

// activationAttrs are the attributes for a value whose dimensions need not be known: per tensor or per axis.
func (l *lowered) activationAttrs(x *ir.Value, scale []int) ([]ir.Attr, error) {
	switch l.fq.Scheme.Gran {
	case numfmt.PerTensor:
		return nil, nil
	case numfmt.PerAxis:
		axis := l.fq.Scheme.Axis
		if axis == numfmt.AxisOut {
			axis = l.fq.Axes.Out
		}
		return []ir.Attr{ir.IntAttr("axis", int64(axis))}, nil
	}
	shape, ok := x.Type.Shape()
	if !ok {
		return nil, fmt.Errorf("scheme %v is static and its blocks need a fixed shape, found %v", l.fq.Scheme, x.Type)
	}
	layout, err := l.fq.Layout(shape)
	return l.attrs(layout), err
}

// clipTo limits x to what the scheme's codes hold, per tensor by a Clip, per axis by Max and Min.
func (l *lowered) clipTo(x *ir.Value, p numfmt.Params, shape []int) (*ir.Value, error) {
	lo, hi := make([]float32, len(p.Scale)), make([]float32, len(p.Scale))
	for g, s := range p.Scale {
		z := float32(0)
		if p.Zero != nil {
			z = p.Zero[g]
		}
		lo[g], hi[g] = l.fq.Scheme.Bounds(s, z)
	}
	g := l.node.Graph()
	if l.fq.Scheme.Gran == numfmt.PerTensor {
		return l.insert("_Clip", "Clip", []*ir.Value{x, g.Const(l.base()+"_min", ir.Scalar(lo[0])), g.Const(l.base()+"_max", ir.Scalar(hi[0]))})
	}
	if l.fq.Scheme.Gran != numfmt.PerAxis || !x.Type.Ranked {
		return nil, fmt.Errorf("scheme %v: its range cannot be clipped to", l.fq.Scheme)
	}
	axis := l.fq.Scheme.Axis
	if axis == numfmt.AxisOut {
		axis = l.fq.Axes.Out
	}
	if axis < 0 {
		axis += x.Type.Rank()
	}
	bound := []int{shape[0]}
	for range x.Type.Rank() - 1 - axis {
		bound = append(bound, 1)
	}
	x, err := l.insert("_Max", "Max", []*ir.Value{x, g.Const(l.base()+"_min", ir.Floats(lo, bound...))})
	if err != nil {
		return nil, err
	}
	return l.insert("_Min", "Min", []*ir.Value{x, g.Const(l.base()+"_max", ir.Floats(hi, bound...))})
}

// insert puts a node before the FakeQuant node and returns its result; both are named after the value and the suffix.
func (l *lowered) insert(suffix, opType string, in []*ir.Value, attrs ...ir.Attr) (*ir.Value, error) {
	n, err := op.Insert(l.node.Graph(), l.node, l.base()+suffix, ir.Op(opType), in, []string{l.base() + suffix + "_Output"}, attrs...)
	if err != nil {
		return nil, err
	}
	n.Origin = l.node.Origin
	return n.Out(0), nil
}

// dequantize inserts the DequantizeLinear, and a Cast where the model computes in another float type, and hands its result to
// all that read the FakeQuant's.
func (l *lowered) dequantize(q, scale, zero *ir.Value, attrs []ir.Attr) error {
	v, err := l.insert("_DequantizeLinear", "DequantizeLinear", []*ir.Value{q, scale, zero}, attrs...)
	if err != nil {
		return err
	}
	if t := l.node.Out(0).Type.Elem; t != ir.Float32 {
		if v, err = l.insert("_DequantizeLinear_Cast", "Cast", []*ir.Value{v}, ir.IntAttr("to", int64(t))); err != nil {
			return err
		}
	}
	l.node.Out(0).ReplaceUses(v)
	return nil
}
