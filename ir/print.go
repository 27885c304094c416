package ir

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// PrintOptions says how a model is printed. The zero value prints everything that Parse needs to make an equal model.
type PrintOptions struct {
	// Elide shortens tensors of more elements than this to their first few and a count; 0 prints all in full. Text with
	// elided tensors is for reading: Parse refuses it.
	Elide int
	// Types adds what is known of the types of values that the file does not declare. Parse takes them for declared.
	Types bool
	// Origin adds which pass inserted a node.
	Origin bool
}

// Print writes the model in ONNX's text syntax (the ONNX project's docs/Syntax.md), in the order the model has and with
// opsets sorted by domain, so that equal models give equal bytes. Parse reads it back as an equal model (see Equal), and
// so does ONNX's own parser wherever its grammar can say what the model holds.
//
// The text shows the model as a file would hold it: an output slot whose value has another name appears as an Identity
// node, a constant of a function's body as a Constant node. Element types without a literal of their own are written as
// ONNX's parser takes them: float16, bfloat16 and the 8-bit floats as bit patterns, types below 8 bits as packed bytes,
// with the values in a comment where there are few.
//
// Types are those the file declares (Value.Decl, Output.Type); an input or output of the main graph without a declaration
// has what is known of it, as in a file that the backend writes.
//
// What the official grammar cannot say takes one of two forms. Descriptions go into comment lines that start with "#!",
// which ONNX's parser skips and ours reads; strings in them are quoted as in Go, opaque bytes are base64:
//
//	#! model opaque "…"                                           after the header
//	#! graph name "…" doc "…" meta ["k": "v"] opaque "…"          inside the braces of a graph
//	#! value "x" type float[N@"DATA_BATCH"]@"TENSOR" doc "…" meta […] opaque "…"
//	#! output "y" type … doc "…" meta […] opaque "…"
//	#! tensor "w" 0 name "…" doc "…" meta […] opaque "…"          of a constant; 0 and 1: values and indices of a sparse one
//	#! node doc "…" meta […] opaque "…" origin "…"                before the node
//	#! attr "axis" doc "…" opaque "…"                             before the node
//	#! attrtensor "value" 0 name "…" doc "…" meta […] opaque "…"  likewise, on a tensor of the attribute
//	#! function meta […] opaque "…"                               inside the braces of a function
//	#! default "axis" doc "…" opaque "…"                          likewise, on an attribute's default
//	#! defaulttensor "value" 0 name "…" …
//
// Contents that an ONNX file can hold and the official grammar cannot spell use these extensions, at which ONNX's parser
// stops (or, with lists of tensors, graphs and types, skips the elements):
//
//	"any.domain"."any operator":"any overload" (x)     quoted pieces of an operator's name
//	<"any name" = 1>                                   quoted attribute names
//	a: tensors = [float {1}, float[2] {1, 2}]          and graphs, type_protos, sparse_tensors
//	sparse_tensor(float[3,4]) {float[2] {1, 2}, int64[2] {0, 5}}    values and indices; with a name among the constants
//	nan(0x7fa00000)                                    a NaN of these bits
//	undefined[2,N]                                     a shape without an element type; undefined[!] without dimensions
func Print(w io.Writer, m *Model) error { return PrintOptions{}.Print(w, m) }

// Print writes the model as the options say; see the function Print.
func (o PrintOptions) Print(w io.Writer, m *Model) error {
	p := &printer{PrintOptions: o, w: bufio.NewWriter(w)}
	p.model(m)
	p.flush(0)
	if p.err != nil {
		return fmt.Errorf("print: %w", p.err)
	}
	return p.w.Flush()
}

// lineWidth is where lists break into one item a line.
const lineWidth = 120

type printer struct {
	PrintOptions
	w      *bufio.Writer
	b      []byte // not yet written
	held   int    // > 0 while the end of b may be taken back
	indent int
	err    error // the first tensor that could not be loaded
}

func (p *printer) str(s string) { p.b = append(p.b, s...) }

func (p *printer) newline() {
	p.b = append(p.b, '\n')
	for range p.indent {
		p.b = append(p.b, "  "...)
	}
}

// flush hands the text on once there is more than limit of it.
func (p *printer) flush(limit int) {
	if p.held == 0 && len(p.b) > limit {
		p.w.Write(p.b) // the writer keeps its first error for Flush
		p.b = p.b[:0]
	}
}

// list writes n items between open and end: on one line if they fit there, else one a line. An item may return a comment
// to stand behind it, which needs a line. long says at once that one line will not do.
func (p *printer) list(open, end string, n int, long bool, item func(i int) (comment string)) {
	if !long {
		p.held++
		mark, fits := len(p.b), true
		p.str(open)
		for i := 0; i < n && fits; i++ {
			if i > 0 {
				p.str(", ")
			}
			fits = item(i) == "" && len(p.b)-mark < lineWidth
		}
		p.str(end)
		p.held--
		start := bytes.LastIndexByte(p.b[:mark], '\n') + 1
		if fits && len(p.b)-start <= lineWidth && !slices.Contains(p.b[mark:], '\n') {
			return
		}
		p.b = p.b[:mark]
	}
	p.str(open)
	p.indent++
	for i := range n {
		p.newline()
		comment := item(i)
		if i < n-1 {
			p.str(",")
		}
		if comment != "" {
			p.str("  # " + comment)
		}
		p.flush(1 << 16)
	}
	p.indent--
	p.newline()
	p.str(end)
}

// note writes a "#!" line if any of its fields says something.
func (p *printer) note(subject string, fields ...string) {
	fields = slices.DeleteFunc(fields, func(s string) bool { return s == "" })
	if len(fields) > 0 {
		p.newline()
		p.str("#! " + subject + " " + strings.Join(fields, " "))
	}
}

func noteString(key, v string) string {
	if v == "" {
		return ""
	}
	return key + " " + strconv.Quote(v)
}

func noteBytes(key string, v []byte) string {
	return noteString(key, base64.StdEncoding.EncodeToString(v))
}

func noteMeta(meta []Prop) string {
	if len(meta) == 0 {
		return ""
	}
	var s []string
	for _, m := range meta {
		s = append(s, strconv.Quote(m.Key)+": "+strconv.Quote(m.Value))
	}
	return "meta [" + strings.Join(s, ", ") + "]"
}

func (p *printer) model(m *Model) {
	var head []string
	if m.IRVersion != 0 {
		head = append(head, fmt.Sprintf("ir_version: %d", m.IRVersion))
	}
	head = append(head, opsets(m.Opset))
	field := func(key, v string) {
		if v != "" {
			head = append(head, key+": "+quote(v))
		}
	}
	field("producer_name", m.Producer)
	field("producer_version", m.ProducerVersion)
	field("domain", m.Domain)
	if m.Version != 0 {
		head = append(head, fmt.Sprintf("model_version: %d", m.Version))
	}
	field("doc_string", m.Doc)
	if len(m.Props) > 0 {
		var s []string
		for _, prop := range m.Props {
			s = append(s, quote(prop.Key)+": "+quote(prop.Value))
		}
		head = append(head, "metadata_props: ["+strings.Join(s, ", ")+"]")
	}
	p.list("<", ">", len(head), false, func(i int) string { p.str(head[i]); return "" })
	p.note("model", noteBytes("opaque", m.Opaque))
	if m.Graph != nil {
		p.newline()
		p.str(ident(m.Graph.Name))
		p.graph(m.Graph, nil, "")
	}
	for _, f := range m.Functions {
		p.newline()
		p.function(f)
	}
	p.newline()
}

func opsets(m map[string]int) string {
	var s []string
	for _, domain := range slices.Sorted(maps.Keys(m)) {
		s = append(s, fmt.Sprintf("%s : %d", quote(domain), m[domain]))
	}
	return "opset_import: [" + strings.Join(s, ", ") + "]"
}

func (p *printer) function(f *Function) {
	head := []string{"domain: " + quote(f.Domain)}
	if f.Overload != "" {
		head = append(head, "overload: "+quote(f.Overload))
	}
	if f.Doc != "" {
		head = append(head, "doc_string: "+quote(f.Doc))
	}
	head = append(head, opsets(f.Opset))
	p.list("<", ">", len(head), false, func(i int) string { p.str(head[i]); return "" })
	p.newline()
	p.str(ident(f.Name))
	if n := len(f.Attrs); n+len(f.Defaults) > 0 {
		p.list(" <", ">", n+len(f.Defaults), false, func(i int) string {
			if i < n {
				p.str(ident(f.Attrs[i]))
			} else {
				p.attr(&f.Defaults[i-n], true)
			}
			return ""
		})
	}
	p.graph(f.Body, f, "")
}

// graph writes what follows a graph's name: inputs, outputs, constants, types, nodes. f is the function whose body it is,
// name the note of the graph's true name if the one printed is another.
func (p *printer) graph(g *Graph, f *Function, name string) {
	inline := 0 // constants that are written as inputs' default values
	if f == nil {
		inline = inlineDefaults(g)
	}
	p.list(" (", ")", len(g.inputs), false, func(i int) string {
		v := g.inputs[i]
		p.declare(v.declared(), v.Name)
		if slices.Contains(g.consts[:inline], v) {
			p.str(" = ")
			return p.data(v.data)
		}
		return ""
	})
	p.list(" => (", ")", len(g.outputs), false, func(i int) string {
		o := g.outputs[i]
		p.declare(o.declared(g), o.Name)
		return ""
	})
	consts := g.consts[inline:]
	if f != nil {
		consts = nil
	}
	typed := p.typed(g, f != nil)
	if n := len(consts) + len(typed); n > 0 {
		size := 0
		for _, v := range consts {
			size = min(size, lineWidth) + min(v.data.Len(), lineWidth)
		}
		p.newline()
		p.list("<", ">", n, size > lineWidth, func(i int) string {
			if i < len(consts) {
				v := consts[i]
				if sp := g.sparse(v); sp != nil {
					p.sparse(sp.T, " "+ident(v.Name)+" = ")
					return ""
				}
				p.declare(v.data.Type(), v.Name)
				p.str(" = ")
				return p.data(v.data)
			}
			v := typed[i-len(consts)]
			p.declare(p.inner(v), v.Name)
			return ""
		})
	}
	p.newline()
	p.str("{")
	p.indent++
	if f != nil {
		p.note("function", noteMeta(f.Props), noteBytes("opaque", f.Opaque))
		p.attrNotes("default", f.Defaults)
	}
	p.note("graph", name, noteString("doc", g.Doc), noteMeta(g.Meta), noteBytes("opaque", g.Opaque))
	p.describe(g)
	if f != nil {
		for _, v := range g.consts {
			p.newline()
			p.str(ident(v.Name) + " = Constant <value = ")
			p.tensor(v.data)
			p.str("> ()")
		}
	}
	for n := range g.Nodes() {
		p.node(n)
		p.flush(1 << 16)
	}
	p.identities(g)
	p.indent--
	p.newline()
	p.str("}")
}

// declared returns the type an output is printed with: the file's, or, in the main graph, its value's if the file says
// nothing.
func (o *Output) declared(g *Graph) Type {
	if !o.Type.Known() && o.Value != nil && g == g.model.Graph {
		return o.Value.Type
	}
	return o.Type
}

// declared returns the type a value is printed with, by the same rule for inputs.
func (v *Value) declared() Type {
	if !v.Decl.Known() && v.input && v.graph == v.graph.model.Graph {
		return v.Type
	}
	return v.Decl
}

// sparse returns the sparse form of a constant, nil if it has none or its data have been replaced since.
func (g *Graph) sparse(v *Value) *NamedSparse {
	for i := range g.Sparse {
		if s := &g.Sparse[i]; s.Name == v.Name && s.Dense == v.data {
			return s
		}
	}
	return nil
}

// inlineDefaults returns how many of the graph's first constants can be written in the input list: those that are inputs,
// in the order of the inputs, and whose input declares just the shape of the data. Readers find input defaults before
// all other constants, so the others, input or not, are written behind the signature in their own order.
func inlineDefaults(g *Graph) int {
	next := 0
	for k, v := range g.consts {
		at := -1
		if v.input && bare(v.declared()).same(v.data.Type()) && g.sparse(v) == nil {
			at = slices.Index(g.inputs[next:], v)
		}
		if at < 0 {
			return k
		}
		next += at + 1
	}
	return len(g.consts)
}

// inner returns the type a value that is no input is printed with.
func (p *printer) inner(v *Value) Type {
	if p.Types && v.def != nil && v.Type.Known() {
		return v.Type
	}
	return v.Decl
}

// typed returns the values whose types stand behind the signature.
func (p *printer) typed(g *Graph, function bool) []*Value {
	var vs []*Value
	for v := range g.Values() {
		if !v.input && p.inner(v).Known() && (v.def != nil || !function) {
			vs = append(vs, v)
		}
	}
	return vs
}

// describe writes the notes on values, tensors and outputs.
func (p *printer) describe(g *Graph) {
	denoted := func(t Type) string {
		if bare(t).same(t) {
			return ""
		}
		return "type " + typeText(t, strconv.Quote)
	}
	for v := range g.Values() {
		t := v.declared()
		if !v.input {
			t = p.inner(v)
		}
		p.note("value "+strconv.Quote(v.Name), denoted(t), noteString("doc", v.Doc), noteMeta(v.Meta), noteBytes("opaque", v.Opaque))
	}
	for _, v := range g.consts {
		p.labels("tensor", v.Name, g.tensors(v), g.sparse(v) != nil)
	}
	for i := range g.outputs {
		o := &g.outputs[i]
		p.note("output "+strconv.Quote(o.Name), denoted(o.declared(g)), noteString("doc", o.Doc), noteMeta(o.Meta), noteBytes("opaque", o.Opaque))
	}
}

// tensors returns the tensors that a constant is written as.
func (g *Graph) tensors(v *Value) []*Tensor {
	if s := g.sparse(v); s != nil {
		return []*Tensor{s.T.Values, s.T.Indices}
	}
	return []*Tensor{v.data}
}

// tensors returns the tensors among an attribute's values, in the order they are written.
func (a *Attr) tensors() []*Tensor {
	ts := a.Tensors
	if a.T != nil {
		ts = []*Tensor{a.T}
	}
	for _, s := range a.Sparse {
		ts = append(ts, s.Values, s.Indices)
	}
	return ts
}

// labels writes the notes on tensors; named says that names which are identifiers stand in the tensors' literals.
func (p *printer) labels(subject, of string, ts []*Tensor, named bool) {
	for i, t := range ts {
		l := t.Label
		if l == nil {
			continue
		}
		name := l.Name
		if named && ident(name) == name {
			name = ""
		}
		p.note(fmt.Sprintf("%s %s %d", subject, strconv.Quote(of), i), noteString("name", name), noteString("doc", l.Doc),
			noteMeta(l.Meta), noteBytes("opaque", l.Opaque))
	}
}

func (p *printer) attrNotes(subject string, attrs []Attr) {
	for i := range attrs {
		a := &attrs[i]
		p.note(subject+" "+strconv.Quote(a.Name), noteString("doc", a.Doc), noteBytes("opaque", a.Opaque))
		p.labels(subject+"tensor", a.Name, a.tensors(), true)
	}
}

// identities writes the nodes that give output slots their names where their values have others.
func (p *printer) identities(g *Graph) {
	done := map[string]bool{}
	for _, o := range g.outputs {
		if o.Value != nil && o.Value.Name != o.Name && !done[o.Name] {
			done[o.Name] = true
			p.newline()
			p.str(ident(o.Name) + " = Identity (" + ident(o.Value.Name) + ")")
		}
	}
}

func (p *printer) declare(t Type, name string) {
	if t.Known() {
		p.str(typeText(bare(t), quote) + " ")
	}
	p.str(ident(name))
}

func (p *printer) node(n *Node) {
	origin := ""
	if p.Origin {
		origin = n.Origin
	}
	p.note("node", noteString("doc", n.Doc), noteMeta(n.Meta), noteBytes("opaque", n.Opaque), noteString("origin", origin))
	p.attrNotes("attr", n.Attrs)
	p.newline()
	if n.Name != "" {
		p.str("[" + ident(n.Name) + "] ")
	}
	p.idents(n.outs)
	if len(n.outs) > 0 {
		p.str(" ")
	}
	p.str("= " + opText(n.Op))
	attrs := func() {
		p.list(" <", ">", len(n.Attrs), false, func(i int) string { p.attr(&n.Attrs[i], false); return "" })
	}
	nested := len(n.Subgraphs()) > 0
	if len(n.Attrs) > 0 && !nested {
		attrs()
	}
	p.str(" (")
	p.idents(n.ins)
	p.str(")")
	if nested {
		attrs()
	}
}

func (p *printer) idents(vs []*Value) {
	for i, v := range vs {
		if i > 0 {
			p.str(", ")
		}
		if v == nil {
			p.str(`""`)
		} else {
			p.str(ident(v.Name))
		}
	}
}

func opText(op OpID) string {
	s := ident(op.Type)
	if !isIdent(op.Type) {
		s = quote(op.Type)
	}
	if op.Domain != "" {
		plain := true
		for part := range strings.SplitSeq(op.Domain, ".") {
			plain = plain && isIdent(part)
		}
		if plain {
			s = op.Domain + "." + s
		} else {
			s = quote(op.Domain) + "." + s
		}
	}
	if op.Overload != "" {
		s += ":" + ident(op.Overload)
	}
	return s
}
