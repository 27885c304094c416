package passes

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
)

// params reads scale and zero point from the node's inputs. A scheme without scales has the scale 1.
func (l *lowered) params() (p numfmt.Params, scaleShape []int, err error) {
	if !l.fq.Scheme.Scaled() {
		return numfmt.Params{Scale: []float32{1}}, []int{}, nil
	}
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

// weightValues are the weight's elements, placed.
func (l *lowered) weightValues() (x []float32, layout numfmt.Layout, err error) {
	if err := l.weight.Load(); err != nil {
		return nil, layout, err
	}
	x, ok := l.weight.Float32s()
	if !ok {
		return nil, layout, fmt.Errorf("weight has type %v", l.weight.Elem())
	}
	layout, err = l.fq.Layout(l.weight.Shape())
	return x, layout, err
}

// writeCodes stores a weight in the small type.
func (l *lowered) writeCodes() error {
	x, layout, err := l.weightValues()
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
	t, err := ir.TensorOf(ir.DType(codes.Elem), l.weight.Shape(), codes.Data)
	if err != nil {
		return err
	}
	if t, err = l.u.keep(t); err != nil {
		return err
	}
	scale, zero, err := l.constants(p, shape)
	if err != nil {
		return err
	}
	attrs := l.attrs(layout)
	if l.carrier.Inner != numfmt.ElemNone {
		if scale, err = l.coarse(p, shape, layout); err != nil {
			return err
		}
	}
	if l.carrier.Scale == numfmt.ElemE8M0 {
		e8, err := numfmt.CastTo(numfmt.ElemE8M0, p.Scale, true, numfmt.RoundNearest)
		if err != nil {
			return err
		}
		t, err := ir.TensorOf(ir.Float8E8M0, shape, e8.Data)
		if err != nil {
			return err
		}
		scale.SetConst(t)
		attrs = append(attrs, ir.IntAttr("output_dtype", int64(ir.Float32)))
	}
	return l.dequantize(l.node.Graph().Const(l.base()+"_quantized", t), scale, zero, attrs)
}

// constant adds a constant named after the weight and the suffix.
func (l *lowered) constant(suffix string, t *ir.Tensor) (*ir.Value, error) {
	return l.u.constant(l.node.Graph(), l.base()+suffix, t)
}

// coarse stores a two-level scheme's scales in their small type and dequantizes them by the coarse scales.
func (l *lowered) coarse(p numfmt.Params, shape []int, layout numfmt.Layout) (*ir.Value, error) {
	g := l.node.Graph()
	top := op.ConstantOf(l.node.In(3))
	coarse, ok := top.Float32s()
	if !ok {
		return nil, fmt.Errorf("coarse scale has type %v", top.Elem())
	}
	var attrs []ir.Attr
	per := func(int) int { return 0 }
	if len(coarse) > 1 {
		stride := 1
		for _, d := range shape[layout.Coarse+1:] {
			stride *= d
		}
		per = func(i int) int { return i / stride % len(coarse) }
		attrs = []ir.Attr{ir.IntAttr("axis", int64(layout.Coarse))}
	}
	small := make([]float32, len(p.Scale))
	for i, s := range p.Scale {
		small[i] = s / coarse[per(i)] // the code, but for a rounding error that the cast takes away
	}
	whole := numfmt.Params{Scale: []float32{1}}
	flat, err := numfmt.Scheme{}.Layout([]int{len(small)}, numfmt.Axes{})
	if err != nil {
		return nil, err
	}
	codes, err := numfmt.QuantizeLinear(small, flat, whole, l.carrier.Inner, true)
	if err != nil {
		return nil, err
	}
	if err := numfmt.DequantizeLinear(small, codes, flat, whole); err != nil {
		return nil, err
	}
	for i, s := range p.Scale {
		if float32(small[i]*coarse[per(i)]) != s {
			return nil, fmt.Errorf("scale %v is no %v times %v", s, l.carrier.Inner, coarse[per(i)])
		}
	}
	t, err := ir.TensorOf(ir.DType(codes.Elem), shape, codes.Data)
	if err != nil {
		return nil, err
	}
	zero, err := zeros(l.carrier.Inner, top.Shape(), make([]float32, len(coarse)))
	if err != nil {
		return nil, err
	}
	return l.insert("_scale_DequantizeLinear", "DequantizeLinear", []*ir.Value{
		g.Const(l.base()+"_scale_quantized", t), own(g, l.node, 3, l.base()+"_coarse_scale", ir.Floats(coarse, top.Shape()...)),
		g.Const(l.base()+"_scale_zero_point", zero)}, attrs...)
}

// writeFolded replaces a weight by the float values it takes.
func (l *lowered) writeFolded() error {
	x, layout, err := l.weightValues()
	if err != nil {
		return err
	}
	p, _, err := l.params()
	if err != nil {
		return err
	}
	if !l.fq.Scheme.Scaled() {
		p = numfmt.Params{}
	}
	y := make([]float32, len(x))
	if err := l.fq.Scheme.Apply(y, x, layout, p); err != nil {
		return err
	}
	v, err := l.constant("_quantized", ir.Floats(y, l.weight.Shape()...))
	if err != nil {
		return err
	}
	v.Doc = op.QuantizedDoc(l.fq.Scheme)
	return l.finish(v, "_quantized_Cast")
}

// writeHalved stores a weight in a half type.
func (l *lowered) writeHalved() error {
	x, _, err := l.weightValues()
	if err != nil {
		return err
	}
	c, err := numfmt.CastTo(l.carrier.Elem, x, true, numfmt.RoundNearest)
	if err != nil {
		return err
	}
	t, err := ir.TensorOf(ir.DType(c.Elem), l.weight.Shape(), c.Data)
	if err != nil {
		return err
	}
	v, err := l.constant("_quantized", t)
	if err != nil {
		return err
	}
	v.Doc = op.QuantizedDoc(l.fq.Scheme)
	if to := l.node.Out(0).Type.Elem; to != t.Elem() {
		if v, err = l.insert("_quantized_Cast", "Cast", []*ir.Value{v}, ir.IntAttr("to", int64(to))); err != nil {
			return err
		}
	}
	l.node.Out(0).ReplaceUses(v)
	return nil
}

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
	zt, err := zeros(l.carrier.Elem, shape, codes)
	if err != nil {
		return nil, nil, err
	}
	st, err := l.u.keep(ir.Floats(stored, shape...))
	if err != nil {
		return nil, nil, err
	}
	if zt, err = l.u.keep(zt); err != nil {
		return nil, nil, err
	}
	return own(g, l.node, 1, l.base()+"_scale", st), own(g, l.node, 2, l.base()+"_zero_point", zt), nil
}

// zeros makes a tensor of zero points, which are integers: quantizing one with scale 1 and no offset gives its code.
func zeros(elem numfmt.Elem, shape []int, z []float32) (*ir.Tensor, error) {
	flat, err := numfmt.Scheme{}.Layout([]int{len(z)}, numfmt.Axes{})
	if err != nil {
		return nil, err
	}
	c, err := numfmt.QuantizeLinear(z, flat, numfmt.Params{Scale: []float32{1}}, elem, true)
	if err != nil {
		return nil, fmt.Errorf("zero point: %w", err)
	}
	t, err := ir.TensorOf(ir.DType(c.Elem), shape, c.Data)
	if err != nil {
		return nil, fmt.Errorf("zero point: %w", err)
	}
	return t, nil
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

// writePair writes a static activation as QuantizeLinear and DequantizeLinear.
func (l *lowered) writePair() error {
	p, shape, err := l.params()
	if err != nil {
		return err
	}
	g := l.node.Graph()
	x, err := l.input()
	if err != nil {
		return err
	}
	attrs, err := l.activationAttrs(x, shape)
	if err != nil {
		return err
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

// dequantize inserts the DequantizeLinear and hands its result on.
func (l *lowered) dequantize(q, scale, zero *ir.Value, attrs []ir.Attr) error {
	v, err := l.insert("_DequantizeLinear", "DequantizeLinear", []*ir.Value{q, scale, zero}, attrs...)
	if err != nil {
		return err
	}
	return l.finish(v, "_DequantizeLinear_Cast")
}
