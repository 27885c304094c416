package ir

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
)

// Equal reports the first difference between two models, nil if there is none. They are equal if they have the same header
// fields, functions, graphs, nodes in the same order, connections, names, attributes in the same order, declared types,
// descriptions and opaque bytes, and tensors of the same bits. Not compared are the path a model came from, the origin of
// nodes, what inference knows of types beyond their declarations, and the name of a function's body, which no file holds.
// An input or output of a main graph without a declared type counts as declared with what is known of it.
func Equal(a, b *Model) error {
	e := &equality{at: "model", values: map[*Value]*Value{}}
	e.model(a, b)
	return e.err
}

type equality struct {
	at     string
	err    error
	values map[*Value]*Value // of a → of b
}

// is records a difference in what if same is false, and reports whether all has been the same so far.
func (e *equality) is(same bool, what string, a, b any) bool {
	if !same && e.err == nil {
		e.err = fmt.Errorf("%s: %s: %v against %v", e.at, what, a, b)
	}
	return e.err == nil
}

func same[T comparable](e *equality, what string, a, b T) bool {
	if s, ok := any(a).(string); ok {
		return e.is(a == b, what, fmt.Sprintf("%q", s), fmt.Sprintf("%q", any(b)))
	}
	return e.is(a == b, what, a, b)
}

func (e *equality) bytes(what string, a, b []byte) bool {
	return e.is(bytes.Equal(a, b), what, fmt.Sprintf("%d bytes", len(a)), fmt.Sprintf("%d other bytes", len(b)))
}

func (e *equality) props(what string, a, b []Prop) bool { return e.is(slices.Equal(a, b), what, a, b) }

// in runs a comparison whose differences are reported as of where.
func (e *equality) in(where string, compare func()) {
	if e.err != nil {
		return
	}
	outer := e.at
	e.at += ": " + where
	compare()
	e.at = outer
}

func (e *equality) model(a, b *Model) {
	same(e, "ir version", a.IRVersion, b.IRVersion)
	e.is(maps.Equal(a.Opset, b.Opset), "opsets", a.Opset, b.Opset)
	same(e, "producer", a.Producer, b.Producer)
	same(e, "producer version", a.ProducerVersion, b.ProducerVersion)
	same(e, "domain", a.Domain, b.Domain)
	same(e, "version", a.Version, b.Version)
	same(e, "doc", a.Doc, b.Doc)
	e.props("metadata", a.Props, b.Props)
	e.bytes("opaque", a.Opaque, b.Opaque)
	if same(e, "presence of a graph", a.Graph != nil, b.Graph != nil) && a.Graph != nil {
		e.is(a.Graph.Name == b.Graph.Name, "graph name", a.Graph.Name, b.Graph.Name)
		e.graph(a.Graph, b.Graph, false)
	}
	if !same(e, "number of functions", len(a.Functions), len(b.Functions)) {
		return
	}
	for i := range a.Functions {
		f, g := a.Functions[i], b.Functions[i]
		e.in(fmt.Sprintf("function %v", OpID{f.Domain, f.Name, f.Overload}), func() {
			same(e, "id", OpID{f.Domain, f.Name, f.Overload}, OpID{g.Domain, g.Name, g.Overload})
			same(e, "doc", f.Doc, g.Doc)
			e.is(maps.Equal(f.Opset, g.Opset), "opsets", f.Opset, g.Opset)
			e.is(slices.Equal(f.Attrs, g.Attrs), "attributes", f.Attrs, g.Attrs)
			e.props("metadata", f.Props, g.Props)
			e.bytes("opaque", f.Opaque, g.Opaque)
			e.attrs(f.Defaults, g.Defaults)
			e.graph(f.Body, g.Body, true)
		})
	}
}

func (e *equality) graph(a, b *Graph, body bool) {
	e.in(fmt.Sprintf("graph %q", a.Name), func() {
		if !body {
			same(e, "name", a.Name, b.Name)
		}
		same(e, "doc", a.Doc, b.Doc)
		e.props("metadata", a.Meta, b.Meta)
		e.bytes("opaque", a.Opaque, b.Opaque)
		if !same(e, "number of inputs", len(a.inputs), len(b.inputs)) ||
			!same(e, "number of constants", len(a.consts), len(b.consts)) ||
			!same(e, "number of outputs", len(a.outputs), len(b.outputs)) ||
			!same(e, "number of nodes", a.count, b.count) {
			return
		}
		for i := range a.inputs {
			e.define(fmt.Sprintf("input %d", i), a.inputs[i], b.inputs[i])
		}
		for i, v := range a.consts {
			w := b.consts[i]
			if same(e, fmt.Sprintf("constant %d is an input", i), v.input, w.input) && v.input {
				e.use(fmt.Sprintf("constant %d", i), v, w)
			} else if e.err == nil {
				e.define(fmt.Sprintf("constant %d", i), v, w)
			}
			what := fmt.Sprintf("constant %q", v.Name)
			s, t := a.sparse(v), b.sparse(w)
			if same(e, what+" is sparse", s != nil, t != nil) && s != nil {
				e.sparse(what, s.T, t.T)
			} else {
				e.tensor(what, v.data, w.data)
			}
		}
		for n, m := a.first, b.first; n != nil && m != nil && e.err == nil; n, m = n.next, m.next {
			e.in("node "+n.String(), func() { e.node(n, m) })
		}
		for i := range a.outputs {
			o, q := &a.outputs[i], &b.outputs[i]
			e.in(fmt.Sprintf("output %q", o.Name), func() {
				same(e, "name", o.Name, q.Name)
				e.use("value", o.Value, q.Value)
				e.types("type", o.declared(a), q.declared(b))
				e.bytes("opaque", o.Opaque, q.Opaque)
				same(e, "doc", o.Doc, q.Doc)
				e.props("metadata", o.Meta, q.Meta)
			})
		}
	})
}

// define compares two values where they are defined and pairs them.
func (e *equality) define(what string, a, b *Value) {
	if e.err != nil || !same(e, what+" is absent", a == nil, b == nil) || a == nil {
		return
	}
	e.in(fmt.Sprintf("%s, %q", what, a.Name), func() {
		same(e, "name", a.Name, b.Name)
		e.types("type", a.declared(), b.declared())
		e.bytes("opaque", a.Opaque, b.Opaque)
		same(e, "doc", a.Doc, b.Doc)
		e.props("metadata", a.Meta, b.Meta)
	})
	e.values[a] = b
}

// use compares two uses of values that have been paired.
func (e *equality) use(what string, a, b *Value) {
	if e.err == nil && e.values[a] != b {
		e.is(false, what, valueName(a), valueName(b))
	}
}

func valueName(v *Value) string {
	if v == nil {
		return "none"
	}
	return fmt.Sprintf("%q", v.Name)
}

func (e *equality) types(what string, a, b Type) {
	e.is(a.same(b), what, a, b)
}

func (e *equality) node(a, b *Node) {
	same(e, "name", a.Name, b.Name)
	same(e, "operator", a.Op, b.Op)
	same(e, "doc", a.Doc, b.Doc)
	e.props("metadata", a.Meta, b.Meta)
	e.bytes("opaque", a.Opaque, b.Opaque)
	if !same(e, "number of inputs", len(a.ins), len(b.ins)) || !same(e, "number of outputs", len(a.outs), len(b.outs)) {
		return
	}
	for i := range a.ins {
		e.use(fmt.Sprintf("input %d", i), a.ins[i], b.ins[i])
	}
	e.attrs(a.Attrs, b.Attrs)
	for i := range a.outs {
		e.define(fmt.Sprintf("output %d", i), a.outs[i], b.outs[i])
	}
}

func (e *equality) attrs(a, b []Attr) {
	if !same(e, "number of attributes", len(a), len(b)) {
		return
	}
	for i := range a {
		e.in(fmt.Sprintf("attribute %q", a[i].Name), func() { e.attr(&a[i], &b[i]) })
	}
}

func (e *equality) attr(a, b *Attr) {
	same(e, "name", a.Name, b.Name)
	same(e, "kind", a.Kind, b.Kind)
	same(e, "reference", a.Ref, b.Ref)
	same(e, "doc", a.Doc, b.Doc)
	e.bytes("opaque", a.Opaque, b.Opaque)
	n := a.listLen()
	if !same(e, "number of values", n, b.listLen()) || a.Ref != "" {
		return
	}
	if n < 0 {
		n = 1
	}
	for i := 0; i < n && e.err == nil; i++ {
		switch a.Kind {
		case AttrFloat:
			e.is(sameFloat(a.F, b.F), "value", a.F, b.F)
		case AttrFloats:
			e.is(sameFloat(a.Floats[i], b.Floats[i]), "value", a.Floats[i], b.Floats[i])
		case AttrInt:
			same(e, "value", a.I, b.I)
		case AttrInts:
			same(e, "value", a.Ints[i], b.Ints[i])
		case AttrString:
			same(e, "value", string(a.S), string(b.S))
		case AttrStrings:
			same(e, "value", string(a.Strings[i]), string(b.Strings[i]))
		case AttrTensor:
			e.tensor("value", a.T, b.T)
		case AttrTensors:
			e.tensor("value", a.Tensors[i], b.Tensors[i])
		case AttrGraph:
			e.graph(a.G, b.G, false)
		case AttrGraphs:
			e.graph(a.Graphs[i], b.Graphs[i], false)
		case AttrSparseTensor, AttrSparseTensors:
			e.sparse("value", a.Sparse[i], b.Sparse[i])
		case AttrType, AttrTypes:
			e.types("value", a.Types[i], b.Types[i])
		}
	}
}

// tensor compares element type, shape and every bit.
func (e *equality) tensor(what string, a, b *Tensor) {
	if e.err != nil || !e.is(a.Type().same(b.Type()), what, a.Type(), b.Type()) {
		return
	}
	l, m := a.Label, b.Label
	if l == nil {
		l = &Label{}
	}
	if m == nil {
		m = &Label{}
	}
	same(e, what+": name", l.Name, m.Name)
	same(e, what+": doc", l.Doc, m.Doc)
	e.props(what+": metadata", l.Meta, m.Meta)
	e.bytes(what+": opaque", l.Opaque, m.Opaque)
	if a.elem == String {
		e.is(slices.EqualFunc(a.strings, b.strings, bytes.Equal), what, "strings", "other strings")
		return
	}
	for _, t := range []*Tensor{a, b} {
		if err := t.Load(); err != nil {
			e.is(false, what, err, "data")
			return
		}
	}
	x, y := a.data, b.data
	for i := range x {
		if x[i] != y[i] {
			e.is(false, what, fmt.Sprintf("%v: byte %d is %#02x", a.Type(), i, x[i]), fmt.Sprintf("%#02x", y[i]))
			return
		}
	}
}

func (e *equality) sparse(what string, a, b *SparseTensor) {
	e.is(slices.Equal(a.Shape, b.Shape), what+": shape", a.Shape, b.Shape)
	e.tensor(what+": values", a.Values, b.Values)
	e.tensor(what+": indices", a.Indices, b.Indices)
}

func sameFloat(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }
