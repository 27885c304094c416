package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
)

// Simulation is what a FakeQuant node computes, spelled in operators of ONNX: the same values bit for bit, on any runtime
// that rounds each operation to float32. Exponents are found by rounding errors alone (Rump, Zimmermann, Boldo and
// Melquiond's unit in the first place), not by logarithms or powers, which miss powers of two.
type Simulation struct {
	FakeQuant
	Rank   int         // of x; -1: unknown, which only schemes per tensor allow
	Length int         // of the axis that blocks or tokens run along; -1: unknown
	Native numfmt.Elem // type of a pair QuantizeLinear, DequantizeLinear for the elements; ElemNone: float arithmetic
	Factor float32     // what the scale is multiplied by for Native
	Opset  int         // of the default domain, at least 13
}

// Check says why the scheme cannot be spelled so, nil if it can.
func (s *Simulation) Check() error {
	f := s.Scheme
	switch {
	case s.Opset < 13:
		return fmt.Errorf("scheme %v wants operators of opset 13, found %d", f, s.Opset)
	case f.FromData():
		return fmt.Errorf("scheme %v is fitted to all values of a group, which is for weights", f)
	case f.Scaled() && !f.Dynamic && (f.Gran == numfmt.PerBlock || f.Gran == numfmt.PerToken):
		return fmt.Errorf("scheme %v: the nodes of static scales of an activation are per tensor or axis", f)
	case f.Gran != numfmt.PerTensor && s.Rank < 1:
		return fmt.Errorf("scheme %v wants a known rank", f)
	case f.Gran != numfmt.PerTensor && (s.axis() < 0 || s.axis() >= s.Rank):
		return fmt.Errorf("scheme %v: axis %d is not one of rank %d", f, s.axis(), s.Rank)
	}
	if s.Native == numfmt.ElemNone {
		return nil
	}
	switch blocks := f.Gran == numfmt.PerBlock || f.Gran == numfmt.PerToken; {
	case !f.Dynamic:
		return fmt.Errorf("scheme %v is static", f)
	case f.Arith != numfmt.ArithONNX, f.TwoLevel(), f.Format.Parity:
		return fmt.Errorf("scheme %v is not the arithmetic of QuantizeLinear", f)
	case f.Format.Kind == numfmt.Int && s.overflows():
		return fmt.Errorf("scheme %v has values beyond its range that %v would keep", f, s.Native)
	case blocks && s.Opset < 21:
		return fmt.Errorf("scheme %v has blocks, QuantizeLinear wants opset 21", f)
	case f.Gran == numfmt.PerToken && s.Length < 1:
		return fmt.Errorf("scheme %v: the length of axis %d is unknown, QuantizeLinear wants it as block_size", f, s.axis())
	case f.Gran == numfmt.PerBlock && s.Length == 0:
		return fmt.Errorf("scheme %v: axis %d is empty", f, s.axis())
	}
	return nil
}

// overflows reports whether codes beyond the scheme's own can occur that the native type has. With a scale made from the
// largest magnitude only three things lead there: a scale rounded down, a zero point in a wider type, and a reduced range.
func (s *Simulation) overflows() bool {
	f := s.Scheme
	wide := s.Native.Bits() != f.Format.Bits || f.Range == numfmt.Narrow7
	switch {
	case f.Affine:
		return wide
	case f.Range == numfmt.Full && !wide, !f.Format.Signed && !wide:
		return false
	case f.Scale == numfmt.ScaleE8M0:
		return f.MX != numfmt.MXCeil
	}
	return f.Format.Bits > 8 && f.Scale == numfmt.ScaleBF16
}

// axis is the one that scales go along, from the start.
func (s *Simulation) axis() int {
	a := s.Axes.K
	if s.Scheme.Gran == numfmt.PerAxis {
		if a = s.Scheme.Axis; a == numfmt.AxisOut {
			a = s.Axes.Out
		}
	}
	if a < 0 && a != numfmt.NoAxis {
		a += s.Rank
	}
	return a
}

// Function makes the model-local function of the given name that computes the simulation: inputs x, and scale and zero
// where the scheme is static and has them.
func (s *Simulation) Function(m *ir.Model, name string) (*ir.Function, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	g := ir.NewGraph(m, name)
	b := &builder{g: g, base: "v", opset: s.Opset}
	in := []*ir.Value{g.AddInput(m.FreshName("x"), ir.Type{})}
	if s.Scheme.Scaled() && !s.Scheme.Dynamic {
		in = append(in, g.AddInput(m.FreshName("scale"), ir.Type{}))
		if s.Scheme.Affine {
			in = append(in, g.AddInput(m.FreshName("zero"), ir.Type{}))
		}
	}
	y := s.build(b, in)
	if b.err != nil {
		return nil, b.err
	}
	g.AddOutput(y.Name, y)
	return &ir.Function{Domain: Domain, Name: name, Doc: "quantize and dequantize: " + s.Scheme.String(), Opset: map[string]int{"": s.Opset}, Body: g}, nil
}

// Insert puts the simulation's operators before a node of g and returns the result; in is x, and scale and zero where the
// scheme is static and has them. Names start with base.
func (s *Simulation) Insert(g *ir.Graph, before *ir.Node, base, origin string, in []*ir.Value) (*ir.Value, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	b := &builder{g: g, before: before, base: base, origin: origin, opset: s.Opset, typed: true}
	y := s.build(b, in)
	return y, b.err
}

// build emits the computation. The last node says in its description what it stands for, see Recognize.
func (s *Simulation) build(b *builder, in []*ir.Value) *ir.Value {
	var y *ir.Value
	switch f := s.Scheme; {
	case f.Format.Kind == numfmt.Cast:
		to := ir.DType(f.Format.Elem)
		y = b.cast(b.cast(in[0], to), ir.Float32)
	case s.Native != numfmt.ElemNone:
		y = s.native(b, in[0])
	default:
		y = s.float(b, in)
	}
	if b.err == nil {
		y.DefNode().Doc = s.text()
	}
	return y
}

// native is a pair QuantizeLinear, DequantizeLinear with a scale computed from x (METHODS §4.1).
func (s *Simulation) native(b *builder, x *ir.Value) *ir.Value {
	v, view := s.view(b, x, false)
	g := s.dynamic(b, v, view)
	d := g.div
	if s.Factor != 1 {
		d = b.n("Mul", d, b.scalar(s.Factor))
	}
	if view.back != nil {
		d = b.transpose(d, view.back)
	}
	in := []*ir.Value{x, d}
	var attrs []ir.Attr
	elem := ir.DType(s.Native)
	switch s.Scheme.Gran {
	case numfmt.PerTensor:
	case numfmt.PerAxis:
		attrs = append(attrs, ir.IntAttr("axis", int64(s.axis())))
	default:
		n := s.Scheme.Block
		if s.whole() {
			n = s.Length
		}
		attrs = append(attrs, ir.IntAttr("axis", int64(s.axis())), ir.IntAttr("block_size", int64(n)))
	}
	quant := attrs
	switch {
	case g.zero != nil:
		z := b.cast(g.zero, elem)
		if view.back != nil {
			z = b.transpose(z, view.back)
		}
		in = append(in, z)
	case s.Scheme.Gran == numfmt.PerTensor:
		zero := make([]byte, elem.Size(1))
		t, err := ir.TensorOf(elem, []int{}, zero)
		b.fail(err)
		in = append(in, b.constant("zero_point", t))
	case b.opset >= 21:
		quant = append(quant, ir.IntAttr("output_dtype", int64(elem)))
	default:
		shape := b.n("Shape", d)
		t, err := ir.TensorOf(elem, []int{1}, make([]byte, elem.Size(1)))
		b.fail(err)
		in = append(in, b.na("ConstantOfShape", []*ir.Value{shape}, ir.TensorAttr("value", t)))
	}
	q := b.named("QuantizeLinear", in, quant...)
	return b.named("DequantizeLinear", append([]*ir.Value{q}, in[1:]...), attrs...)
}

// float is the whole of the arithmetic in float32.
func (s *Simulation) float(b *builder, in []*ir.Value) *ir.Value {
	f := s.Scheme
	if !f.Scaled() {
		return s.levels(b, s.noNaN(b, in[0]), nil)
	}
	v, view := s.view(b, in[0], true)
	var g group
	if f.Dynamic {
		g = s.dynamic(b, v, view)
	} else {
		g.mul = in[1]
		if f.Affine {
			g.zero = in[2]
		}
		if f.Gran == numfmt.PerAxis && s.axis() != s.Rank-1 {
			shape := []int64{-1}
			for range s.Rank - 1 - s.axis() {
				shape = append(shape, 1)
			}
			g.mul = b.reshape(g.mul, shape...)
			if g.zero != nil {
				g.zero = b.reshape(g.zero, shape...)
			}
		}
		g.div = g.mul
	}
	forth, back := "Div", "Mul"
	if f.Arith == numfmt.ArithTRT {
		forth, back = back, forth
	}
	q := b.n(forth, v, g.div)
	if !f.Dynamic {
		q = s.noNaN(b, q)
	}
	y := b.n(back, s.levels(b, q, g.zero), g.mul)
	if f.TwoLevel() && f.Dynamic {
		y = b.where(g.none, b.scalar(0), y)
	}
	return view.restore(b, y)
}

// noNaN replaces NaN by what the format makes of it: 0 for integers, the largest value where no code is NaN.
func (s *Simulation) noNaN(b *builder, v *ir.Value) *ir.Value {
	f := s.Scheme.Format
	switch {
	case f.Kind == numfmt.Int:
		return b.where(b.n("IsNaN", v), b.scalar(0), v)
	case f.Kind == numfmt.Float && (f.Top == numfmt.TopAll || f.Parity):
		return b.where(b.n("IsNaN", v), b.scalar(f.Max()), v)
	}
	return v
}

// levels rounds values in units of the step to the format's levels.
func (s *Simulation) levels(b *builder, v, zero *ir.Value) *ir.Value {
	f := s.Scheme.Format
	switch f.Kind {
	case numfmt.Int:
		lo, hi := s.Scheme.Codes()
		r := b.n("Round", v)
		if zero != nil {
			r = b.n("Add", r, zero)
		}
		r = b.n("Clip", r, b.scalar(float32(lo)), b.scalar(float32(hi)))
		if zero != nil {
			return b.n("Sub", r, zero)
		}
		return b.n("Add", r, b.scalar(0)) // integers have no -0
	case numfmt.Book:
		return s.lookup(b, v)
	}
	if f.Parity {
		return b.roundAway(v, f)
	}
	y := b.roundFloat(v, f)
	if f.Top == numfmt.TopFNUZ {
		y = b.n("Add", y, b.scalar(0))
	}
	return y
}

// lookup counts the thresholds that v reaches (METHODS §4.1). NaN reaches them all.
func (s *Simulation) lookup(b *builder, v *ir.Value) *ir.Value {
	values, thresholds, mirrored, err := s.Scheme.Format.Thresholds()
	if b.fail(err); err != nil {
		return v
	}
	x := v
	if mirrored {
		x = b.n("Abs", v)
	}
	below := b.n("Less", b.unsqueeze(x), b.constant("thresholds", ir.Floats(thresholds, len(thresholds))))
	code := b.reduce("ReduceSum", b.cast(b.n("Not", below), ir.Float32), []int64{-1}, false)
	y := b.n("Gather", b.constant("grid", ir.Floats(values, len(values))), b.cast(code, ir.Int64))
	if mirrored {
		y = b.where(b.n("Less", v, b.scalar(0)), b.n("Sub", b.scalar(0), y), y) // codebooks have no -0
	}
	return y
}

// view is x arranged so that a group's values can be reduced along some axes and its scale broadcast again.
type view struct {
	axes   []int64 // to reduce; nil: all
	keep   bool    // keep reduced axes
	perm   []int64 // moves the axis last; nil where it is there
	back   []int64
	x      *ir.Value // before padding, transposed
	padded *ir.Value // its shape is what the result is brought back to; nil where nothing was reshaped
	cut    bool      // rows were padded
}

// whole reports that a group is the axis as a whole.
func (s *Simulation) whole() bool {
	return s.Scheme.Gran == numfmt.PerToken || s.Scheme.Gran == numfmt.PerBlock && s.Length >= 0 && s.Length <= s.Scheme.Block
}

// view arranges x; where the result has x's place (inPlace) groups keep the axes that were reduced.
func (s *Simulation) view(b *builder, x *ir.Value, inPlace bool) (*ir.Value, *view) {
	switch a := s.axis(); {
	case s.Scheme.Gran == numfmt.PerTensor:
		return x, &view{}
	case s.Scheme.Gran == numfmt.PerAxis:
		w := &view{keep: inPlace, axes: []int64{}}
		for i := range s.Rank {
			if i != a {
				w.axes = append(w.axes, int64(i))
			}
		}
		return x, w
	case s.whole():
		return x, &view{axes: []int64{int64(a)}, keep: true}
	default:
		w := &view{axes: []int64{-1}, keep: inPlace, x: x}
		if a != s.Rank-1 {
			for i := range s.Rank {
				if i != a {
					w.perm = append(w.perm, int64(i))
				}
			}
			w.perm = append(w.perm, int64(a))
			w.back = make([]int64, s.Rank)
			for i, p := range w.perm {
				w.back[p] = int64(i)
			}
			w.x = b.transpose(x, w.perm)
		}
		n := s.Scheme.Block
		w.padded, w.cut = w.x, true
		switch pad := 0; {
		case s.Length >= 0 && s.Length%n == 0:
			w.cut = false
		case s.Length >= 0:
			pad = n - s.Length%n
			pads := make([]int64, 2*s.Rank)
			pads[len(pads)-1] = int64(pad)
			w.padded = b.n("Pad", w.x, b.constant("pads", ir.Ints(pads...)))
		default: // the missing part of the last block, (-length) mod n
			length := b.length(w.x, s.Rank-1)
			missing := b.n("Mod", b.n("Neg", length), b.constant("block", ir.Ints(int64(n))))
			front := b.constant("front", ir.Ints(make([]int64, 2*s.Rank-1)...))
			w.padded = b.n("Pad", w.x, b.na("Concat", []*ir.Value{front, missing}, ir.IntAttr("axis", 0)))
		}
		shape := make([]int64, s.Rank+1)
		shape[s.Rank-1], shape[s.Rank] = -1, int64(n)
		return b.reshape(w.padded, shape...), w
	}
}

// restore gives a result the shape of x again.
func (w *view) restore(b *builder, y *ir.Value) *ir.Value {
	if w.padded == nil {
		return y
	}
	y = b.n("Reshape", y, b.n("Shape", w.padded))
	if w.cut {
		end := b.length(w.x, -1)
		y = b.n("Slice", y, b.constant("start", ir.Ints(0)), end, b.constant("last", ir.Ints(-1)))
	}
	if w.back != nil {
		y = b.transpose(y, w.back)
	}
	return y
}
