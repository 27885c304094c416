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
	Format   string `opt:"format" enum:"qdq|fakequant|qoperator|matmulnbits" doc:"what quantizers become: qdq is QuantizeLinear and DequantizeLinear where ONNX has the type and the granularity, else as fakequant; fakequant is exact simulation of activations in float operators; qoperator is qdq with QLinearConv, QLinearMatMul and QGemm in place of products whose operands and results are quantized (fakequant style=qoperator quantizes results; --format qoperator sets it); matmulnbits is qdq, but products of float activations with integer weights of 2, 4 or 8 bits become com.microsoft.MatMulNBits"`
	Accuracy int    `opt:"accuracy" doc:"accuracy_level of MatMulNBits: 0 is the runtime's choice, 1 float32, 2 float16, 3 bfloat16, 4 int8"`
	Opset    int    `opt:"opset" doc:"opset of the result; 0: the smallest that can carry it, not below the model's"`
	Style    string `opt:"style" enum:"plain|ort" doc:"ort: biases of products of quantized operands become int32, as ONNX Runtime's integer kernels add them, and activations that a quantizer takes in are left out"`
	Inline   bool   `opt:"inline" doc:"write simulations out where they are used instead of calling model-local functions"`
}

// Lower turns FakeQuant nodes into operators of ONNX.
var Lower = Define("lower", lowerDoc, LowerOptions{Format: "qdq", Style: "plain"}, lower)

const lowerDoc = `turns qsimc.FakeQuant nodes into operators of ONNX

A weight becomes an initializer of the small type and one DequantizeLinear that all its users read; the scales of two-level
schemes are dequantized by a DequantizeLinear of their own. A weight whose format ONNX has no type for is folded to the float
values it takes, and the report says so. An activation becomes a pair QuantizeLinear, DequantizeLinear, behind a Clip where
the type has codes that the scheme does not use and values beyond the range occur; a dynamic scale is computed from the
values by operators before the pair. What QuantizeLinear cannot say (element types ONNX lacks, second-level scales, clipping
to a dynamic range) becomes a call of a model-local function of domain qsimc whose body is standard operators: the same
values bit for bit on any runtime. Scales stay float32: a model of another float type gets Casts around. The model is
upgraded to a newer opset only where the result needs it: 13 for scales per channel, 19 for 8-bit floats, 21 for int4,
int16 and blocks, 23 for float4e2m1, 25 for int2; block scales that are powers of two are stored as float8e8m0 where the
opset is 24 or newer anyway.`

// form is how a FakeQuant node is written.
type form uint8

const (
	codes   form = iota // a weight in the small type and a DequantizeLinear
	folded              // a weight as the float values it takes
	halved              // a weight in a half type and a Cast
	pair                // QuantizeLinear, DequantizeLinear with constant scales
	spelled             // operators of op.Simulation
)

// lowered is one FakeQuant node with the way it is written.
type lowered struct {
	u       *Unit
	node    *ir.Node
	fq      *op.FakeQuant
	form    form
	carrier numfmt.Carrier // of codes, halved and pair
	weight  *ir.Tensor     // nil for activations
	clip    bool
	sim     op.Simulation // of spelled
	reason  string        // why the form is folded or a function
}

// lowering is one run of the pass.
type lowering struct {
	u         *Unit
	o         LowerOptions
	all       []*lowered
	functions map[string]ir.OpID // by the simulation they compute
}

func lower(_ context.Context, u *Unit, o LowerOptions) error {
	if o.Accuracy < 0 || o.Accuracy > 4 {
		return fmt.Errorf("accuracy=%d, wanted 0 to 4", o.Accuracy)
	}
	if u.DryRun {
		return nil
	}
	w := &lowering{u: u, o: o, functions: map[string]ir.OpID{}}
	if err := w.plan(); err != nil {
		return err
	}
	for _, l := range w.all {
		u.at(l.base())
		if err := w.write(l); err != nil {
			return fmt.Errorf("value %q: %w", l.base(), err)
		}
		if l.weight != nil {
			release(l.weight)
		}
		u.edit()
	}
	if o.Style == "ort" || o.Format == "qoperator" {
		if err := w.integerBiases(); err != nil {
			return err
		}
		if err := w.absorbActivations(); err != nil {
			return err
		}
	}
	for _, l := range w.all {
		if err := l.node.Graph().Remove(l.node); err != nil {
			return err
		}
	}
	if o.Format == "qoperator" {
		u.Model.Graph.Prune() // an activation that was left out still reads its product
		if err := w.integerOperators(); err != nil {
			return err
		}
	}
	if len(w.all) > 0 {
		if len(w.functions) == 0 {
			delete(u.Model.Opset, op.Domain)
		}
		u.Model.Graph.Prune()
		nameNodes(u.Model)
	}
	return nil
}

// plan chooses every node's form and raises the model to the opset that they need.
func (w *lowering) plan() error {
	var errs []error
	need := 0
	for g := range w.u.Model.Graphs() {
		for n := range g.Nodes() {
			if n.Op != op.FakeQuantOp {
				continue
			}
			l, opset, err := w.choose(n)
			if err != nil {
				errs = append(errs, fmt.Errorf("value %q: %w", n.In(0).Name, err))
				continue
			}
			w.all = append(w.all, l)
			need = max(need, opset)
		}
	}
	if errs != nil {
		return errors.Join(errs...)
	}
	if err := raiseOpset(w.u.Model, max(need, w.o.Opset)); err != nil {
		return err
	}
	for _, l := range w.all {
		l.sim.Opset = w.u.Model.Opset[""]
		l.smallScale(w.u.Model.Opset[""])
	}
	return nil
}

// limit is the newest opset that the result may have.
func (w *lowering) limit() int {
	if w.o.Opset == 0 {
		return op.Canonical
	}
	return max(w.o.Opset, w.u.Model.Opset[""])
}

// choose decides how one FakeQuant node is written, and which opset that needs.
func (w *lowering) choose(n *ir.Node) (l *lowered, opset int, err error) {
	f, err := op.ReadFakeQuant(n)
	if err != nil {
		return nil, 0, err
	}
	l = &lowered{u: w.u, node: n, fq: f, weight: op.ConstantOf(n.In(0))}
	if f.Scheme.Scaled() && !f.Scheme.Dynamic && (n.In(1) == nil || op.ConstantOf(n.In(1)) == nil) {
		return nil, 0, errors.New("the scale of a static scheme is no constant")
	}
	if l.weight != nil {
		return l, l.chooseWeight(w.limit()), nil
	}
	l.sim = op.Simulation{FakeQuant: *f, Rank: n.In(0).Type.Rank(), Length: -1, Factor: 1}
	if k := f.Axes.K; k >= 0 && k < l.sim.Rank && n.In(0).Type.Dims[k].Known() {
		l.sim.Length = int(n.In(0).Type.Dims[k].Size)
	}
	opset, err = l.chooseActivation(w.limit(), w.u.Model.Opset[""], w.o.Format)
	return l, opset, err
}

// fitting returns the carriers with float scales of opsets up to the limit, or says why there are none.
func (l *lowered) fitting(limit int) (fit []numfmt.Carrier, reason string) {
	carriers, err := l.fq.Scheme.Carriers()
	if err != nil {
		return nil, err.Error()
	}
	first := 0
	for _, c := range carriers {
		switch {
		case c.Scale == numfmt.ElemE8M0:
		case c.Opset <= limit:
			fit = append(fit, c)
		case first == 0 || c.Opset < first:
			first = c.Opset
		}
	}
	if fit == nil {
		reason = fmt.Sprintf("ONNX stores %v from opset %d on, opset %d was asked for", l.fq.Scheme.Format, first, limit)
	}
	return fit, reason
}

func (l *lowered) chooseWeight(limit int) (opset int) {
	fit, reason := l.fitting(limit)
	if fit == nil {
		l.form, l.reason = folded, reason
		return 0
	}
	l.carrier = fit[0]
	if l.fq.Scheme.Format.Kind == numfmt.Cast {
		l.form = halved
		return l.carrier.Opset
	}
	l.form = codes
	if l.node.In(3) == nil {
		l.carrier.Inner = numfmt.ElemNone
	}
	return max(l.carrier.Opset, 10)
}

// smallScale stores an MX weight's scales as powers of two where the opset has their type.
func (l *lowered) smallScale(opset int) {
	if l.form != codes || l.fq.Scheme.Scale != numfmt.ScaleE8M0 || opset < 24 || l.carrier.Factor != 1 {
		return
	}
	carriers, _ := l.fq.Scheme.Carriers()
	for _, c := range carriers {
		if c.Scale == numfmt.ElemE8M0 && c.Elem == l.carrier.Elem && c.Opset <= opset {
			l.carrier = c
		}
	}
}

func (l *lowered) chooseActivation(limit, model int, format string) (opset int, err error) {
	s := l.fq.Scheme
	l.form = spelled
	if format != "fakequant" && s.Format.Kind != numfmt.Cast {
		fit, reason := l.fitting(limit)
		for _, c := range fit {
			if !s.Dynamic {
				l.form, l.carrier = pair, c
				l.clip = c.Clip && (l.fq.Clip || !s.Scaled() || s.Format.Bits > 8 || c.Elem.Bits() != s.Format.Bits)
				if l.clip {
					return max(c.Opset, 11), nil // Clip takes its bounds as inputs
				}
				return c.Opset, nil
			}
			l.sim.Native, l.sim.Factor, l.sim.Opset = c.Elem, c.Factor, max(c.Opset, model, 13)
			if err := l.sim.Check(); err != nil {
				reason = err.Error()
				continue
			}
			return max(c.Opset, 13), nil
		}
		l.reason = reason
	}
	l.sim.Native, l.sim.Factor, l.sim.Opset = numfmt.ElemNone, 1, max(model, 13)
	if limit < 13 {
		return 0, fmt.Errorf("scheme %v needs opset 13, opset=%d was asked for", s, limit)
	}
	return 13, l.sim.Check()
}

func (w *lowering) write(l *lowered) error {
	switch l.form {
	case codes:
		if w.o.Format == "matmulnbits" {
			return w.writeNBits(l)
		}
		return l.writeCodes()
	case folded:
		w.note("weight %q is stored as float: %s", l.base(), l.reason)
		return l.writeFolded()
	case halved:
		return l.writeHalved()
	case pair:
		return l.writePair()
	}
	return w.writeSpelled(l)
}

// note adds a remark to the pass's report.
func (w *lowering) note(format string, args ...any) {
	w.u.entry.Notes = append(w.u.entry.Notes, fmt.Sprintf(format, args...))
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

// base is the name that the new nodes and tensors are named after.
func (l *lowered) base() string { return l.node.In(0).Name }

// insert puts a node before the FakeQuant node and returns its result; both are named after the value and the suffix.
func (l *lowered) insert(suffix, opType string, in []*ir.Value, attrs ...ir.Attr) (*ir.Value, error) {
	n, err := op.Insert(l.node.Graph(), l.node, l.base()+suffix, ir.Op(opType), in, []string{l.base() + suffix + "_Output"}, attrs...)
	if err != nil {
		return nil, err
	}
	n.Origin = l.node.Origin
	return n.Out(0), nil
}

// input is the value to quantize as float32, through a Cast in a model of another float type.
func (l *lowered) input() (*ir.Value, error) {
	x := l.node.In(0)
	if x.Type.Elem == ir.Float32 {
		return x, nil
	}
	return l.insert("_Cast", "Cast", []*ir.Value{x}, ir.IntAttr("to", int64(ir.Float32)))
}

// finish hands a float32 result to all that read the FakeQuant's, through a Cast where the model computes in another float
// type.
func (l *lowered) finish(v *ir.Value, castName string) (err error) {
	if t := l.node.Out(0).Type.Elem; t != ir.Float32 {
		if v, err = l.insert(castName, "Cast", []*ir.Value{v}, ir.IntAttr("to", int64(t))); err != nil {
			return err
		}
	}
	l.node.Out(0).ReplaceUses(v)
	return nil
}
