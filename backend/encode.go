// Package backend writes models as ONNX files.
//
//	err := backend.Save("q.onnx", m, backend.Options{})
//
// The same model gives the same bytes, and what frontend.Load read and nobody changed comes out as it went in.
package backend

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/qsimc/qsimc/ir"
)

// Encode returns the model as one protobuf message with all its data, which must stay below 2 GiB. See Save for what is
// written.
func Encode(m *ir.Model) ([]byte, error) {
	msg, err := encode(m, nil)
	if err != nil {
		return nil, err
	}
	return msg.flat()
}

// Size returns the bytes of the file that Save writes, external data included without its padding.
func Size(m *ir.Model) (int64, error) {
	msg, err := encode(m, nil)
	if err != nil {
		return 0, err
	}
	return msg.size, nil
}

// flat returns the message in one piece.
func (m *message) flat() ([]byte, error) {
	if err := fits(m); err != nil {
		return nil, err
	}
	b := bytes.NewBuffer(make([]byte, 0, m.size))
	err := m.write(b)
	return b.Bytes(), err
}

// EncodeTensor returns a tensor as a message of its own, as the input_K.pb and output_K.pb of ONNX's test cases are.
func EncodeTensor(name string, t *ir.Tensor) ([]byte, error) {
	e := &encoder{}
	msg, err := e.tensor(name, t, nil)
	if err != nil {
		return nil, err
	}
	return msg.flat()
}

// encoder holds what is the same for the whole model.
type encoder struct {
	m         *ir.Model
	irVersion int
	dropped   bool // inputs with default values are no longer listed as inputs
	place     func(*ir.Tensor) (offset int64, ok bool)
	location  string
	names     map[string]bool // of nodes; made when a node must be added
}

// outside decides which constants are stored in a file of their own, and where in it.
type outside struct {
	location string
	place    func(*ir.Tensor) (offset int64, ok bool)
}

func encode(m *ir.Model, o *outside) (*message, error) {
	e := &encoder{m: m}
	if o != nil {
		e.place, e.location = o.place, o.location
	}
	e.irVersion = max(m.IRVersion, needed(m))
	e.dropped = m.IRVersion < 4 && e.irVersion >= 4
	msg := &message{}
	msg.integer(1, int64(e.irVersion))
	msg.textIf(2, m.Producer)
	msg.textIf(3, m.ProducerVersion)
	msg.textIf(4, m.Domain)
	msg.integerIf(5, m.Version)
	msg.textIf(6, m.Doc)
	g, err := e.graph(m.Graph)
	if err != nil {
		return nil, fmt.Errorf("graph %q: %w", m.Graph.Name, err)
	}
	msg.message(7, g)
	opsets(msg, 8, m.Opset)
	msg.props(14, m.Props)
	for _, f := range m.Functions {
		b, err := e.function(f)
		if err != nil {
			return nil, fmt.Errorf("function %s.%s: %w", f.Domain, f.Name, err)
		}
		msg.message(25, b)
	}
	msg.add(m.Opaque)
	return msg, nil
}

// opsets writes opset imports, the default domain first and the others by name.
func opsets(msg *message, num protowire.Number, table map[string]int) {
	for _, domain := range slices.Sorted(maps.Keys(table)) {
		var e message
		e.text(1, domain)
		e.integer(2, int64(table[domain]))
		msg.message(num, &e)
	}
}

func (e *encoder) graph(g *ir.Graph) (*message, error) {
	msg := &message{}
	main := g == e.m.Graph
	for n := range g.Nodes() {
		if err := e.node(msg, 1, n); err != nil {
			return nil, err
		}
	}
	e.identities(msg, 1, g)
	if main || g.Name != "" {
		msg.text(2, g.Name)
	}
	sparse := map[string]ir.NamedSparse{}
	for _, s := range g.Sparse {
		sparse[s.Name] = s
	}
	for _, v := range g.Consts() {
		if s, ok := sparse[v.Name]; ok && s.Dense == v.Const() {
			continue
		}
		t, err := e.tensor(v.Name, v.Const(), e.place)
		if err != nil {
			return nil, fmt.Errorf("initializer %q: %w", v.Name, err)
		}
		msg.message(5, t)
	}
	msg.textIf(10, g.Doc)
	for _, v := range g.Inputs() {
		if main && e.dropped && v.Const() != nil {
			continue
		}
		msg.message(11, valueInfo(v.Name, declared(v, main), v.Doc, v.Meta, v.Opaque))
	}
	for _, o := range g.Outputs() {
		t := o.Type
		if main && !t.Known() {
			t = o.Value.Type
		}
		msg.message(12, valueInfo(o.Name, t, o.Doc, o.Meta, o.Opaque))
	}
	e.infos(msg, 13, g, false)
	for _, v := range g.Consts() {
		if s, ok := sparse[v.Name]; ok && s.Dense == v.Const() {
			b, err := e.sparse(s.Name, s.T)
			if err != nil {
				return nil, fmt.Errorf("sparse initializer %q: %w", v.Name, err)
			}
			msg.message(15, b)
		}
	}
	msg.props(16, g.Meta)
	msg.add(g.Opaque)
	return msg, nil
}

// declared returns the type to write for an input: what the file said, else, for the model's own inputs, what is known.
func declared(v *ir.Value, main bool) ir.Type {
	if main && !v.Decl.Known() {
		return v.Type
	}
	return v.Decl
}

// infos writes value_info: the values that the file described, new ones are left to shape inference.
func (e *encoder) infos(msg *message, num protowire.Number, g *ir.Graph, function bool) {
	for v := range g.Values() {
		listed := v.IsInput() && !function
		if !listed && (v.Decl.Known() || v.Doc != "" || v.Meta != nil || v.Opaque != nil) {
			msg.message(num, valueInfo(v.Name, v.Decl, v.Doc, v.Meta, v.Opaque))
		}
	}
}

func valueInfo(name string, t ir.Type, doc string, meta []ir.Prop, opaque []byte) *message {
	msg := &message{}
	msg.text(1, name)
	if t.Known() || t.Denot != "" {
		msg.message(2, typeProto(t))
	}
	msg.textIf(3, doc)
	msg.props(4, meta)
	msg.add(opaque)
	return msg
}

// identities writes the nodes that give output slots their names where the value that fills a slot has another: an output
// that is an input, a constant, a value of an enclosing graph, or one that fills two slots.
func (e *encoder) identities(msg *message, num protowire.Number, g *ir.Graph) {
	for _, o := range g.Outputs() {
		if o.Value.Name == o.Name {
			continue
		}
		var n message
		n.text(1, o.Value.Name)
		n.text(2, o.Name)
		n.text(3, e.freshNode(o.Name+"_Identity"))
		n.text(4, "Identity")
		msg.message(num, &n)
	}
}

func (e *encoder) freshNode(hint string) string {
	if e.names == nil {
		e.names = map[string]bool{}
		for g := range e.m.Graphs() {
			for n := range g.Nodes() {
				e.names[n.Name] = true
			}
		}
	}
	name := hint
	for i := 1; e.names[name]; i++ {
		name = hint + "_" + strconv.Itoa(i)
	}
	e.names[name] = true
	return name
}

func (e *encoder) node(msg *message, num protowire.Number, n *ir.Node) error {
	var b message
	for _, v := range n.Ins() {
		b.text(1, nameOf(v))
	}
	for _, v := range n.Outs() {
		b.text(2, nameOf(v))
	}
	b.textIf(3, n.Name)
	b.text(4, n.Op.Type)
	for i := range n.Attrs {
		a, err := e.attr(&n.Attrs[i])
		if err != nil {
			return fmt.Errorf("node %v: attribute %q: %w", n, n.Attrs[i].Name, err)
		}
		b.message(5, a)
	}
	b.textIf(6, n.Doc)
	b.textIf(7, n.Op.Domain)
	b.textIf(8, n.Op.Overload)
	b.props(9, n.Meta)
	if n.Origin != "" && e.irVersion >= 10 {
		b.props(9, []ir.Prop{{Key: ir.OriginKey, Value: n.Origin}})
	}
	b.add(n.Opaque)
	msg.message(num, &b)
	return nil
}

func nameOf(v *ir.Value) string {
	if v == nil {
		return ""
	}
	return v.Name
}

func (e *encoder) attr(a *ir.Attr) (*message, error) {
	msg := &message{}
	msg.text(1, a.Name)
	if a.Ref == "" {
		switch a.Kind {
		case ir.AttrFloat:
			msg.float(2, a.F)
		case ir.AttrInt:
			msg.integer(3, a.I)
		case ir.AttrString:
			msg.bytes(4, a.S)
		case ir.AttrTensor:
			if err := e.attrTensors(msg, 5, a.T); err != nil {
				return nil, err
			}
		case ir.AttrGraph:
			if err := e.attrGraphs(msg, 6, a.G); err != nil {
				return nil, err
			}
		case ir.AttrTensors:
			if err := e.attrTensors(msg, 10, a.Tensors...); err != nil {
				return nil, err
			}
		case ir.AttrGraphs:
			if err := e.attrGraphs(msg, 11, a.Graphs...); err != nil {
				return nil, err
			}
		case ir.AttrFloats:
			for _, v := range a.Floats {
				msg.float(7, v)
			}
		case ir.AttrInts:
			for _, v := range a.Ints {
				msg.integer(8, v)
			}
		case ir.AttrStrings:
			for _, v := range a.Strings {
				msg.bytes(9, v)
			}
		}
	}
	msg.textIf(13, a.Doc)
	if a.Ref == "" && (a.Kind == ir.AttrType || a.Kind == ir.AttrTypes) {
		num := protowire.Number(14)
		if a.Kind == ir.AttrTypes {
			num = 15
		}
		for _, t := range a.Types {
			msg.message(num, typeProto(t))
		}
	}
	msg.integerIf(20, int64(a.Kind))
	msg.textIf(21, a.Ref)
	if a.Ref == "" && (a.Kind == ir.AttrSparseTensor || a.Kind == ir.AttrSparseTensors) {
		num := protowire.Number(22)
		if a.Kind == ir.AttrSparseTensors {
			num = 23
		}
		for _, s := range a.Sparse {
			b, err := e.sparse(labelName(s.Values), s)
			if err != nil {
				return nil, err
			}
			msg.message(num, b)
		}
	}
	msg.add(a.Opaque)
	return msg, nil
}

func (e *encoder) attrTensors(msg *message, num protowire.Number, list ...*ir.Tensor) error {
	for _, t := range list {
		b, err := e.tensor(labelName(t), t, nil)
		if err != nil {
			return err
		}
		msg.message(num, b)
	}
	return nil
}

func (e *encoder) attrGraphs(msg *message, num protowire.Number, list ...*ir.Graph) error {
	for _, g := range list {
		b, err := e.graph(g)
		if err != nil {
			return fmt.Errorf("graph %q: %w", g.Name, err)
		}
		msg.message(num, b)
	}
	return nil
}

// function writes a function. Functions have no initializers, so constants of the body become Constant nodes.
func (e *encoder) function(f *ir.Function) (*message, error) {
	msg := &message{}
	msg.text(1, f.Name)
	for _, v := range f.Body.Inputs() {
		if v.Const() != nil {
			return nil, fmt.Errorf("input %q has a default value, which functions cannot have", v.Name)
		}
		msg.text(4, v.Name)
	}
	for _, o := range f.Body.Outputs() {
		msg.text(5, o.Name)
	}
	for _, a := range f.Attrs {
		msg.text(6, a)
	}
	for _, v := range f.Body.Consts() {
		t, err := e.tensor("", v.Const(), nil)
		if err != nil {
			return nil, fmt.Errorf("constant %q: %w", v.Name, err)
		}
		var a, n message
		a.text(1, "value")
		a.message(5, t)
		a.integer(20, int64(ir.AttrTensor))
		n.text(2, v.Name)
		n.text(3, e.freshNode(v.Name+"_Constant"))
		n.text(4, "Constant")
		n.message(5, &a)
		msg.message(7, &n)
	}
	for n := range f.Body.Nodes() {
		if err := e.node(msg, 7, n); err != nil {
			return nil, err
		}
	}
	e.identities(msg, 7, f.Body)
	msg.textIf(8, f.Doc)
	opsets(msg, 9, f.Opset)
	msg.text(10, f.Domain)
	for i := range f.Defaults {
		a, err := e.attr(&f.Defaults[i])
		if err != nil {
			return nil, fmt.Errorf("attribute %q: %w", f.Defaults[i].Name, err)
		}
		msg.message(11, a)
	}
	e.infos(msg, 12, f.Body, true)
	msg.textIf(13, f.Overload)
	msg.props(14, f.Props)
	msg.add(f.Opaque)
	return msg, nil
}

var errTooLarge = errors.New("the model takes 2 GiB or more, which one protobuf message cannot hold")

// fits refuses what protobuf cannot hold, even after large weights went elsewhere.
func fits(msg *message) error {
	if msg.size < 1<<31 {
		return nil
	}
	var largest int
	for _, p := range msg.pieces {
		if p.t != nil {
			largest = max(largest, p.t.Size())
		}
	}
	return fmt.Errorf("%w: %d bytes; its largest tensor has %d", errTooLarge, msg.size, largest)
}
