package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// QuantizeLinear and DequantizeLinear share scale, zero point, axis and block_size; this file holds them both.

var quantizeLinearDef = &Def{
	Name: "QuantizeLinear", Doc: "saturate(round(x / scale) + zero point), per tensor, axis or block", Since: 10,
	Versions: []int{10, 13, 19, 21, 23, 24, 25}, Types: "float, float16, bfloat16, int32 → all quantized types",
	In: Between(2, 3), Out: Exactly(1),
	Upgrades: []Upgrade{{To: 13, Apply: dropScalarVector}},
	Infer: func(c *Call) ([]ir.Type, error) {
		if err := checkScaleShape(c); err != nil {
			return nil, err
		}
		t := c.Type(0)
		var zero ir.DType
		if c.Has(2) {
			zero = c.Type(2).Elem
		}
		var err error
		t.Elem, err = quantizedType(c.Node, zero, c.Has(2))
		return []ir.Type{t}, err
	},
	Eval: evalQuantizeLinear,
}

var dequantizeLinearDef = &Def{
	Name: "DequantizeLinear", Doc: "(x - zero point) · scale, per tensor, axis or block", Since: 10,
	Versions: []int{10, 13, 19, 21, 23, 24, 25}, Types: "all quantized types, int32 → float, float16, bfloat16",
	In: Between(2, 3), Out: Exactly(1),
	Upgrades: []Upgrade{{To: 13, Apply: dropScalarVector}},
	Infer: func(c *Call) ([]ir.Type, error) {
		if err := checkScaleShape(c); err != nil {
			return nil, err
		}
		if c.Has(2) {
			if z := c.Type(2).Elem; z != ir.Undefined && c.Type(0).Elem != ir.Undefined && z != c.Type(0).Elem {
				return nil, fmt.Errorf("zero point is %v, wanted x's type %v", z, c.Type(0).Elem)
			}
		}
		t := c.Type(0)
		var err error
		if t.Elem, err = elemAttr(c.Node, "output_dtype", ir.Undefined); err != nil {
			return nil, err
		}
		if t.Elem == ir.Undefined {
			t.Elem = c.Type(1).Elem
		}
		if t.Elem == ir.Float8E8M0 {
			return nil, fmt.Errorf("a scale of type %v wants the attribute output_dtype", t.Elem)
		}
		return []ir.Type{t}, nil
	},
	Eval: evalDequantizeLinear,
}

// dropScalarVector: before opset 13 a scale of shape [1] was per tensor whatever the axis; now it would be per axis.
func dropScalarVector(u *Up) error {
	for i := 1; i < u.Node.NumIn(); i++ {
		v := u.Node.In(i)
		if v == nil || v.Type.Rank() != 1 {
			continue
		}
		u.Node.SetIn(i, u.Value("scalar"+string(rune('0'+i)), "Reshape", []*ir.Value{v, u.Const("none", ir.Ints())}))
	}
	return nil
}

// quantizedType returns the element type QuantizeLinear gives.
func quantizedType(n *ir.Node, zero ir.DType, hasZero bool) (ir.DType, error) {
	t, err := elemAttr(n, "output_dtype", ir.Undefined)
	switch {
	case err != nil:
		return t, err
	case t == ir.Undefined && hasZero:
		t = zero
	case t == ir.Undefined:
		t = ir.Uint8
	case hasZero && zero != ir.Undefined && zero != t:
		return t, fmt.Errorf("output_dtype is %v, the zero point's type %v", t, zero)
	}
	return t, nil
}

// checkScaleShape checks the scale against x, and the zero point against the scale, as far as shapes are known.
func checkScaleShape(c *Call) error {
	x, s := c.Type(0), c.Type(1)
	if c.Has(2) && s.Ranked && c.Type(2).Ranked && !(single(s) && single(c.Type(2))) {
		if _, err := ir.Merge(ir.Type{Ranked: true, Dims: s.Dims}, ir.Type{Ranked: true, Dims: c.Type(2).Dims}); err != nil {
			return fmt.Errorf("zero point's shape must be the scale's: %w", err)
		}
	}
	xs, ok1 := x.Shape()
	ss, ok2 := s.Shape()
	if !ok1 || !ok2 {
		return nil
	}
	_, err := scaleLayout(c.Node, xs, ss)
	return err
}

// single reports whether a type is known to be of one element: a scalar and a vector of one are the same to scales.
func single(t ir.Type) bool {
	s, ok := t.Shape()
	n, err := ir.Numel(s)
	return ok && err == nil && n == 1
}

// scaleLayout places a scale of the given shape on x: per tensor, axis or block.
func scaleLayout(n *ir.Node, x, scale []int) (numfmt.Layout, error) {
	block := n.Int("block_size", 0)
	count := 1
	for _, d := range scale {
		count *= d
	}
	s := numfmt.Scheme{}
	switch {
	case block > 0:
		if len(scale) != len(x) {
			return numfmt.Layout{}, fmt.Errorf("block_size %d wants a scale of x's rank %d, found shape %v", block, len(x), scale)
		}
		s.Gran, s.Block = numfmt.PerBlock, int(block)
	case count == 1 && (len(scale) == 0 || len(x) <= 1 || len(scale) != 1):
		return s.Layout(x, numfmt.Axes{})
	case len(scale) == 1:
		s.Gran, s.Axis = numfmt.PerAxis, int(n.Int("axis", 1))
		if len(x) == 1 {
			s.Axis = 0
		}
	default:
		return numfmt.Layout{}, fmt.Errorf("scale has shape %v, wanted a scalar, a vector, or block_size", scale)
	}
	axis, err := Axis(n.Int("axis", 1), len(x))
	if err != nil && len(x) != 1 {
		return numfmt.Layout{}, err
	}
	if s.Gran == numfmt.PerAxis && len(x) > 1 && scale[0] == 1 && x[axis] != 1 {
		return numfmt.Scheme{}.Layout(x, numfmt.Axes{}) // a vector of one is per tensor, as runtimes take it
	}
	l, err := s.Layout(x, numfmt.Axes{K: axis, Out: numfmt.NoAxis})
	if err != nil {
		return l, err
	}
	want := l.ScaleShape()
	for i := range want {
		if want[i] != scale[i] {
			return l, fmt.Errorf("scale has shape %v, wanted %v for x of shape %v along axis %d", scale, want, x, axis)
		}
	}
	return l, nil
}

// scaleParams reads scale and zero point as float32.
func scaleParams(scale, zero *ir.Tensor) (numfmt.Params, error) {
	var p numfmt.Params
	var err error
	if p.Scale, err = floats(scale); err != nil {
		return p, fmt.Errorf("scale: %w", err)
	}
	if zero != nil && zero.Len() != scale.Len() {
		return p, fmt.Errorf("zero point is %v, wants the scale's shape %v", zero.Type(), scale.Shape())
	}
	if zero != nil {
		if zero.Elem() == ir.Int32 {
			z, _ := zero.Float32s()
			p.Zero = z
			return p, nil
		}
		if p.Zero, err = floats(zero); err != nil {
			return p, fmt.Errorf("zero point: %w", err)
		}
		if allZero(p.Zero) {
			p.Zero = nil
		}
	}
	return p, nil
}

func allZero(v []float32) bool {
	for _, x := range v {
		if x != 0 {
			return false
		}
	}
	return true
}

// floats decodes a tensor of any numeric type, the small ones included, to float32.
func floats(t *ir.Tensor) ([]float32, error) {
	if v, ok := t.Float32s(); ok {
		return v, nil
	}
	out := make([]float32, t.Len())
	err := numfmt.CastFrom(out, numfmt.Codes{Elem: numfmt.Elem(t.Elem()), Len: t.Len(), Data: t.Bytes()})
	return out, err
}

// rounder returns the rounding of a type that a division or product is computed in; nil for float32.
func rounder(t ir.DType) func([]float32) {
	switch t {
	case ir.Float16:
		return func(v []float32) { kernel.RoundF16(v, v) }
	case ir.BFloat16:
		return func(v []float32) { kernel.RoundBF16(v, v) }
	}
	return nil
}

func evalQuantizeLinear(c *Call) ([]*ir.Tensor, error) {
	x, scale := c.In[0], c.In[1]
	var zero *ir.Tensor
	zt := ir.Undefined
	if c.Has(2) {
		zero = c.In[2]
		zt = zero.Elem()
	}
	elem, err := quantizedType(c.Node, zt, zero != nil)
	if err != nil {
		return nil, err
	}
	l, err := scaleLayout(c.Node, x.Shape(), scale.Shape())
	if err != nil {
		return nil, err
	}
	p, err := scaleParams(scale, zero)
	if err != nil {
		return nil, err
	}
	v, ok := x.Float32s()
	if !ok {
		return nil, fmt.Errorf("x is %v: %w", x.Elem(), ErrUnsupported)
	}
	precision, err := elemAttr(c.Node, "precision", ir.Undefined)
	if err != nil {
		return nil, err
	}
	if precision == ir.Undefined {
		precision = scale.Elem()
	}
	if round := rounder(precision); round != nil {
		// The quotient itself is rounded to the half type: divide first, then quantize by 1.
		v = divided(v, l, p.Scale)
		round(v)
		p.Scale = ones(len(p.Scale))
	}
	out, err := c.New(elem, x.Shape()...)
	if err != nil {
		return nil, err
	}
	if l.Gran != numfmt.PerBlock && (elem == ir.Int8 || elem == ir.Uint8) {
		quantize8(out, v, l, p)
		return []*ir.Tensor{out}, nil
	}
	codes, err := numfmt.QuantizeLinear(v, l, p, numfmt.Elem(elem), c.Node.Int("saturate", 1) != 0)
	if err != nil {
		return nil, err
	}
	copy(out.Bytes(), codes.Data)
	return []*ir.Tensor{out}, nil
}

// quantize8 is the hot form: 8-bit integers per tensor or per axis.
func quantize8(out *ir.Tensor, x []float32, l numfmt.Layout, p numfmt.Params) {
	zero := func(g int) float32 {
		if p.Zero == nil {
			return 0
		}
		return p.Zero[g]
	}
	groups := l.Groups()
	inner := len(x)
	if l.Gran == numfmt.PerAxis {
		inner = 1
		for _, d := range l.Shape[l.Axis+1:] {
			inner *= d
		}
	}
	if inner == 0 || len(x) == 0 {
		return
	}
	if inner == 1 && groups > 1 {
		zeros := make([]int32, groups)
		for g := range zeros {
			zeros[g] = int32(zero(g))
		}
		if out.Elem() == ir.Int8 {
			quantizeChannels(ir.Data[int8](out), x, p.Scale, zeros, -128, 127)
		} else {
			quantizeChannels(ir.Data[uint8](out), x, p.Scale, zeros, 0, 255)
		}
		return
	}
	rows := len(x) / inner
	span := max(1, 16384/inner)
	if rows == 1 {
		par.For(len(x), 16384, func(lo, hi int) { quantizeRow(out, x, lo, hi, p.Scale[0], zero(0)) })
		return
	}
	par.For(rows, span, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			quantizeRow(out, x, r*inner, (r+1)*inner, p.Scale[r%groups], zero(r%groups))
		}
	})
}

// quantizeChannels quantizes rows of channels, each of which has its own scale and zero point. The codes are those of quantizeRow:
// a quotient that is beyond ±2²⁴ is beyond any code, and others are rounded before an integer is added.
func quantizeChannels[T int8 | uint8](out []T, x, scale []float32, zero []int32, lo, hi int32) {
	n := len(scale)
	par.For(len(x)/n, max(1, 16384/n), func(from, to int) {
		quotient, code := make([]float32, n), make([]int32, n)
		for r := from; r < to; r++ {
			kernel.Div(quotient, x[r*n:(r+1)*n], scale)
			kernel.QuantizeInt(code, quotient, 1, 0, -1<<24, 1<<24)
			for i, c := range code {
				out[r*n+i] = T(min(max(c+zero[i], lo), hi))
			}
		}
	})
}

func quantizeRow(out *ir.Tensor, x []float32, lo, hi int, scale, zero float32) {
	if out.Elem() == ir.Int8 {
		kernel.QuantizeInt(ir.Data[int8](out)[lo:hi], x[lo:hi], scale, zero, -128, 127)
	} else {
		kernel.QuantizeInt(ir.Data[uint8](out)[lo:hi], x[lo:hi], scale, zero, 0, 255)
	}
}

func ones(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = 1
	}
	return v
}

// divided returns x divided by each element's scale.
func divided(x []float32, l numfmt.Layout, scale []float32) []float32 {
	out := make([]float32, len(x))
	for r := range l.Runs() {
		for i := range r.Len {
			out[r.Off+i] = x[r.Off+i] / scale[r.Group+i*r.Step]
		}
	}
	return out
}

func evalDequantizeLinear(c *Call) ([]*ir.Tensor, error) {
	x, scale := c.In[0], c.In[1]
	var zero *ir.Tensor
	if c.Has(2) {
		zero = c.In[2]
	}
	l, err := scaleLayout(c.Node, x.Shape(), scale.Shape())
	if err != nil {
		return nil, err
	}
	p, err := scaleParams(scale, zero)
	if err != nil {
		return nil, err
	}
	elem, err := elemAttr(c.Node, "output_dtype", ir.Undefined)
	if err != nil {
		return nil, err
	}
	if elem == ir.Undefined {
		elem = scale.Elem()
	}
	if elem != ir.Float32 && !isHalf(elem) {
		return nil, fmt.Errorf("a result of element type %v: %w", elem, ErrUnsupported)
	}
	out, err := c.New(ir.Float32, x.Shape()...)
	if err != nil {
		return nil, err
	}
	dst := ir.Data[float32](out)
	if l.Gran == numfmt.PerTensor && (x.Elem() == ir.Int8 || x.Elem() == ir.Uint8) {
		z := int32(0)
		if p.Zero != nil {
			z = int32(p.Zero[0])
		}
		par.For(len(dst), 16384, func(lo, hi int) {
			if x.Elem() == ir.Int8 {
				kernel.DequantizeInt(dst[lo:hi], ir.Data[int8](x)[lo:hi], p.Scale[0], z)
			} else {
				kernel.DequantizeInt(dst[lo:hi], ir.Data[uint8](x)[lo:hi], p.Scale[0], z)
			}
		})
	} else if err := numfmt.DequantizeLinear(dst, numfmt.Codes{Elem: numfmt.Elem(x.Elem()), Len: x.Len(), Data: x.Bytes()}, l, p); err != nil {
		return nil, err
	}
	if isHalf(elem) {
		out = narrow(out, elem)
	}
	return []*ir.Tensor{out}, nil
}
