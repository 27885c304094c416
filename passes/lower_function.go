package passes

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
)

// writeSpelled writes an activation's quantizer in operators of ONNX: in place where a pair QuantizeLinear, DequantizeLinear
// or two Casts do it or functions are not wanted, else as a call of a model-local function.
func (w *lowering) writeSpelled(l *lowered) error {
	x, err := l.input()
	if err != nil {
		return err
	}
	in := []*ir.Value{x}
	for i := 1; i < 3; i++ {
		if v := l.node.In(i); v != nil {
			in = append(in, v)
		}
	}
	if w.o.Inline || l.sim.Native != numfmt.ElemNone || l.fq.Scheme.Format.Kind == numfmt.Cast {
		y, err := l.sim.Insert(l.node.Graph(), l.node, l.base(), l.node.Origin, in)
		if err != nil {
			return err
		}
		return l.finish(y, "_DequantizeLinear_Cast")
	}
	if l.reason != "" {
		w.note("value %q is simulated in float operators: %s", l.base(), l.reason)
	}
	id, err := w.function(&l.sim)
	if err != nil {
		return err
	}
	n := l.node.Graph().Insert(l.node, l.base()+"_FakeQuant", id, in, []string{l.base() + "_FakeQuant_Output"})
	n.Origin = l.node.Origin
	n.Out(0).Type = x.Type
	return l.finish(n.Out(0), "_FakeQuant_Cast")
}

// function returns the operator that calls the simulation, whose function it adds to the model on first use.
func (w *lowering) function(s *op.Simulation) (ir.OpID, error) {
	name := s.Name()
	if id, ok := w.functions[name]; ok {
		return id, nil
	}
	m := w.u.Model
	id := ir.OpID{Domain: op.Domain, Type: name}
	for i := 2; m.Function(id) != nil; i++ {
		id.Type = fmt.Sprintf("%s_%d", name, i)
	}
	f, err := s.Function(m, id.Type)
	if err != nil {
		return id, err
	}
	m.Functions = append(m.Functions, f)
	m.Opset[op.Domain] = 1
	m.IRVersion = max(m.IRVersion, 8) // the first with functions
	w.functions[name] = id
	return id, nil
}
