package op

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
)

// builder emits standard operators: into a function's body, untyped and with Constant nodes, or typed into a graph with
// constants of the graph. The first error stays; what is emitted after it is not used.
type builder struct {
	g            *ir.Graph
	before       *ir.Node
	base, origin string
	opset        int
	typed        bool
	consts       map[string]*ir.Value
	err          error
}

func (b *builder) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// n emits an operator without attributes.
func (b *builder) n(op string, in ...*ir.Value) *ir.Value { return b.na(op, in) }

// na emits an operator with attributes.
func (b *builder) na(op string, in []*ir.Value, attrs ...ir.Attr) *ir.Value {
	return b.put(b.base+"_"+op, b.base+"_"+op, op, in, attrs)
}

// named emits an operator whose result is named as ONNX Runtime's quantizer names it.
func (b *builder) named(op string, in []*ir.Value, attrs ...ir.Attr) *ir.Value {
	return b.put(b.base+"_"+op, b.base+"_"+op+"_Output", op, in, attrs)
}

func (b *builder) put(name, out, op string, in []*ir.Value, attrs []ir.Attr) *ir.Value {
	var n *ir.Node
	if b.typed && b.err == nil {
		var err error
		if n, err = Insert(b.g, b.before, name, ir.Op(op), in, []string{out}, attrs...); err != nil {
			b.fail(err)
		}
	}
	if n == nil {
		n = b.g.Insert(b.before, name, ir.Op(op), in, []string{out}, attrs...)
	}
	n.Origin = b.origin
	return n.Out(0)
}

// constant emits a constant, or returns the one of the same contents.
func (b *builder) constant(hint string, t *ir.Tensor) *ir.Value {
	if b.consts == nil {
		b.consts = map[string]*ir.Value{}
	}
	if t == nil {
		return nil
	}
	key := fmt.Sprint(t.Elem(), t.Shape(), t.Bytes())
	v := b.consts[key]
	if v == nil {
		if b.typed {
			v = b.g.Const(b.base+"_"+hint, t)
		} else {
			v = b.put(hint, b.base+"_"+hint, "Constant", nil, []ir.Attr{ir.TensorAttr("value", t)})
		}
		b.consts[key] = v
	}
	return v
}

func (b *builder) scalar(v float32) *ir.Value { return b.constant("const", ir.Scalar(v)) }

func (b *builder) cast(v *ir.Value, to ir.DType) *ir.Value {
	return b.na("Cast", []*ir.Value{v}, ir.IntAttr("to", int64(to)))
}

func (b *builder) where(cond, x, y *ir.Value) *ir.Value { return b.n("Where", cond, x, y) }

func (b *builder) transpose(v *ir.Value, perm []int64) *ir.Value {
	return b.na("Transpose", []*ir.Value{v}, ir.IntsAttr("perm", perm...))
}

func (b *builder) reshape(v *ir.Value, shape ...int64) *ir.Value {
	return b.n("Reshape", v, b.constant("shape", ir.Ints(shape...)))
}

// unsqueeze adds a last axis.
func (b *builder) unsqueeze(v *ir.Value) *ir.Value {
	return b.n("Unsqueeze", v, b.constant("last", ir.Ints(-1)))
}

// length is the size of an axis, a vector of one.
func (b *builder) length(v *ir.Value, axis int) *ir.Value {
	return b.na("Gather", []*ir.Value{b.n("Shape", v), b.constant("axis", ir.Ints(int64(axis)))}, ir.IntAttr("axis", 0))
}

// reduce emits a reduction over axes, nil for all; axes became an input at opset 18, of ReduceSum at 13.
func (b *builder) reduce(op string, v *ir.Value, axes []int64, keep bool) *ir.Value {
	in := []*ir.Value{v}
	attrs := []ir.Attr{ir.IntAttr("keepdims", 0)}
	if keep {
		attrs[0].I = 1
	}
	switch {
	case axes == nil:
	case len(axes) == 0:
		in = append(in, b.constant("axes", ir.Ints()))
		attrs = append(attrs, ir.IntAttr("noop_with_empty_axes", 1))
	case b.opset >= 18 || op == "ReduceSum":
		in = append(in, b.constant("axes", ir.Ints(axes...)))
	default:
		attrs = append([]ir.Attr{ir.IntsAttr("axes", axes...)}, attrs...)
	}
	return b.na(op, in, attrs...)
}

// saysQuantized begins the description of nodes and constants that hold quantized values in a float type.
const saysQuantized = "qsimc.FakeQuant "

// SaysQuantized reports whether a description tells that the node or constant holds quantized values in a float type.
func SaysQuantized(doc string) bool { return strings.HasPrefix(doc, saysQuantized) }

// QuantizedDoc is the description of a constant that holds values quantized by a scheme in a float type.
func QuantizedDoc(s numfmt.Scheme) string { return saysQuantized + s.Text(numfmt.Weight) }

// text describes the simulation in the description of its last node, for Recognize.
func (s *Simulation) text() string {
	t := fmt.Sprintf(saysQuantized+"%s rank=%d length=%d native=%d factor=%v", s.Scheme.Text(inputRole), s.Rank, s.Length, s.Native, s.Factor)
	if a := s.axis(); a >= 0 {
		t += fmt.Sprintf(" axis=%d", a)
	}
	return t
}

// numberField reads the field key=value of a description.
func numberField(fields []string, key string, def float64) (float64, error) {
	for _, f := range fields {
		if v, ok := strings.CutPrefix(f, key+"="); ok {
			return strconv.ParseFloat(v, 64)
		}
	}
	return def, nil
}

// Name is an identifier that tells simulations of the same opset apart.
func (s *Simulation) Name() string {
	name := "FakeQuant_" + strings.NewReplacer("/", "_", "=", "_").Replace(s.Scheme.Text(inputRole))
	if a := s.axis(); s.Scheme.Gran != numfmt.PerTensor && a >= 0 {
		name += fmt.Sprintf("_axis%dof%d", a, s.Rank)
		if s.Scheme.Gran != numfmt.PerAxis && s.Length >= 0 {
			name += fmt.Sprintf("_len%d", s.Length)
		}
	}
	return name
}
