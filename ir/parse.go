package ir

import (
	"bytes"
	"fmt"
)

// SyntaxError says where a text is not a model. Line and Col count from 1, columns in bytes.
type SyntaxError struct {
	File      string
	Line, Col int
	Msg       string
}

// Error returns "file:line:col: message".
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Msg)
}

// Parse reads a model in ONNX's text syntax, extensions as described at Print included. Values must be defined before
// they are used. Nothing is inferred; a value has the type the text gives it. file is for messages and becomes Model.Path;
// an error is a *SyntaxError, the first one met. A tensor type below 8 bits takes its data packed, as ONNX's own parser
// does, or one number an element.
func Parse(file string, src []byte) (m *Model, err error) {
	p := &parser{file: file, src: src, end: len(src), m: &Model{Path: file, Opset: map[string]int{}}}
	defer func() {
		switch e := recover().(type) {
		case nil:
		case *SyntaxError:
			m, err = nil, e
		default:
			panic(e)
		}
	}()
	p.model()
	return p.m, nil
}

// maxDepth bounds how deep graphs and types nest.
const maxDepth = 100

// parser reads by recursive descent; fail leaves it by a panic that Parse catches.
type parser struct {
	file   string
	src    []byte
	pos    int
	end    int // where reading stops: the end of src or, in a note, of its line
	m      *Model
	depth  int
	inNote bool
	notes  []int // where the text of "#!" lines starts that were skipped and not yet read
	noted  int   // notes before this offset are already listed
}

func (p *parser) fail(at int, format string, args ...any) {
	at = min(at, len(p.src))
	line := bytes.Count(p.src[:at], []byte("\n")) + 1
	col := at - (bytes.LastIndexByte(p.src[:at], '\n') + 1) + 1
	panic(&SyntaxError{p.file, line, col, fmt.Sprintf(format, args...)})
}

// found names what stands at the current position.
func (p *parser) found() string {
	p.skip()
	if p.pos >= p.end {
		return "the end"
	}
	if id := p.peekIdent(); id != "" {
		return fmt.Sprintf("%q", id)
	}
	return fmt.Sprintf("%q", p.src[p.pos:p.pos+1])
}

// skip passes space and comments; a comment that is a note is remembered.
func (p *parser) skip() {
	for p.pos < p.end {
		switch c := p.src[p.pos]; {
		case c == ' ' || c >= '\t' && c <= '\r':
			p.pos++
		case c == '#' && !p.inNote:
			if p.pos+1 < p.end && p.src[p.pos+1] == '!' && p.pos >= p.noted {
				p.notes = append(p.notes, p.pos+2)
				p.noted = p.pos + 1
			}
			p.pos = p.eol(p.pos)
		default:
			return
		}
	}
}

func (p *parser) eol(at int) int {
	if i := bytes.IndexByte(p.src[at:p.end], '\n'); i >= 0 {
		return at + i
	}
	return p.end
}

// peek returns the next byte after space; 0 at the end.
func (p *parser) peek() byte {
	p.skip()
	if p.pos < p.end {
		return p.src[p.pos]
	}
	return 0
}

func (p *parser) atEnd() bool { p.skip(); return p.pos >= p.end }

// eat passes c if it is next.
func (p *parser) eat(c byte) bool {
	if p.peek() == c && p.pos < p.end {
		p.pos++
		return true
	}
	return false
}

func (p *parser) expect(c byte, what string) {
	if !p.eat(c) {
		p.fail(p.pos, "wanted %q %s, found %s", string(c), what, p.found())
	}
}

// items reads a list separated by commas up to the closing character, whose opening one has been read.
func (p *parser) items(end byte, what string, item func()) {
	if p.eat(end) {
		return
	}
	for {
		item()
		if !p.eat(',') {
			break
		}
	}
	p.expect(end, "or \",\" in "+what)
}

// peekIdent returns the identifier that is next, "" if there is none.
func (p *parser) peekIdent() string {
	p.skip()
	i := p.pos
	for i < p.end && (isLetter(p.src[i]) || i > p.pos && isDigit(p.src[i])) {
		i++
	}
	return string(p.src[p.pos:i])
}

func (p *parser) ident(what string) string {
	id := p.peekIdent()
	if id == "" {
		p.fail(p.pos, "wanted %s, found %s", what, p.found())
	}
	p.pos += len(id)
	return id
}

// name reads an identifier or a quoted name.
func (p *parser) name(what string) string {
	if p.peek() == '"' {
		return p.text(what)
	}
	return p.ident(what)
}

func (p *parser) deeper() {
	if p.depth++; p.depth > maxDepth {
		p.fail(p.pos, "graphs or types are nested more than %d deep", maxDepth)
	}
}

func (p *parser) model() {
	m := p.m
	if p.eat('<') {
		p.items('>', "the model's header", func() {
			p.skip()
			at := p.pos
			key := p.ident("a header field")
			p.expect(':', "after "+key)
			switch key {
			case "ir_version":
				m.IRVersion = int(p.integer(32))
			case "opset_import":
				p.opsets(m.Opset)
			case "producer_name":
				m.Producer = p.text(key)
			case "producer_version":
				m.ProducerVersion = p.text(key)
			case "domain":
				m.Domain = p.text(key)
			case "model_version":
				m.Version = p.integer(64)
			case "doc_string":
				m.Doc = p.text(key)
			case "metadata_props":
				m.Props = append(m.Props, p.props()...)
			default:
				p.fail(at, "unknown header field %q", key)
			}
		})
	}
	name := p.name("the graph's name")
	p.modelNotes()
	m.Graph = p.graph(name, nil, nil)
	for p.modelNotes(); !p.atEnd(); p.modelNotes() {
		p.function()
	}
}

// modelNotes reads the notes that stand outside of graphs.
func (p *parser) modelNotes() {
	p.skip()
	for _, n := range p.takeNotes() {
		if n.subject != "model" {
			p.fail(n.at, "a note on %q does not stand outside of graphs", n.subject)
		}
		n.allow(p, "opaque")
		p.m.Opaque = n.opaque
	}
}

func (p *parser) opsets(into map[string]int) {
	p.expect('[', "to open the opsets")
	p.items(']', "the opsets", func() {
		p.skip()
		at := p.pos
		domain := canonicalDomain(p.text("a domain"))
		if _, ok := into[domain]; ok {
			p.fail(at, "a second opset for domain %q", domain)
		}
		p.expect(':', "after the domain")
		into[domain] = int(p.integer(32))
	})
}

// canonicalDomain maps the long name of the default domain to "".
func canonicalDomain(d string) string {
	if d == "ai.onnx" {
		return ""
	}
	return d
}

func (p *parser) props() []Prop {
	var props []Prop
	p.expect('[', "to open the metadata")
	p.items(']', "the metadata", func() {
		k := p.text("a key")
		p.expect(':', "after the key")
		props = append(props, Prop{k, p.text("a value")})
	})
	return props
}

func (p *parser) function() {
	f := &Function{Opset: map[string]int{}}
	if p.eat('<') {
		p.items('>', "the function's header", func() {
			p.skip()
			at := p.pos
			key := p.ident("a header field")
			p.expect(':', "after "+key)
			switch key {
			case "opset_import":
				p.opsets(f.Opset)
			case "doc_string":
				f.Doc = p.text(key)
			case "domain":
				f.Domain = canonicalDomain(p.text(key))
			case "overload":
				f.Overload = p.text(key)
			default:
				p.fail(at, "unknown header field %q of a function", key)
			}
		})
	}
	p.skip()
	at := p.pos
	f.Name = p.name("the function's name")
	if p.m.Function(OpID{f.Domain, f.Name, f.Overload}) != nil {
		p.fail(at, "function %q is defined twice", f.Name)
	}
	if p.eat('<') {
		p.items('>', "the function's attributes", func() {
			p.skip()
			at := p.pos
			name := p.name("an attribute's name")
			if f.hasAttr(name) {
				p.fail(at, "attribute %q appears twice", name)
			}
			if c := p.peek(); c == ':' || c == '=' {
				f.Defaults = append(f.Defaults, p.attr(name, nil))
			} else {
				f.Attrs = append(f.Attrs, name)
			}
		})
	}
	f.Body = p.graph(f.Name, f, nil)
	p.m.Functions = append(p.m.Functions, f)
}

func (f *Function) hasAttr(name string) bool {
	for _, a := range f.Attrs {
		if a == name {
			return true
		}
	}
	return f.defaultAttr(name) != nil
}

func (f *Function) defaultAttr(name string) *Attr {
	for i := range f.Defaults {
		if f.Defaults[i].Name == name {
			return &f.Defaults[i]
		}
	}
	return nil
}

// names is the scope of one graph inside those around it.
type names struct {
	outer  *names
	values map[string]*Value
}

func (s *names) find(name string) *Value {
	for ; s != nil; s = s.outer {
		if v := s.values[name]; v != nil {
			return v
		}
	}
	return nil
}

// declaration is a name with its type, as inputs, outputs and lists of types have them.
type declaration struct {
	at   int
	name string
	t    Type
}

func (p *parser) declaration(what string) declaration {
	var d declaration
	if p.nextIsType() {
		d.t = p.typ()
	}
	p.skip()
	d.at = p.pos
	if d.name = p.name(what); d.name == "" {
		p.fail(d.at, "%s is empty", what)
	}
	return d
}

// graph reads what follows a graph's name. f is the function whose body it is, outer the scope around it.
func (p *parser) graph(name string, f *Function, outer *names) *Graph {
	p.deeper()
	g := NewGraph(p.m, name)
	s := &names{outer, map[string]*Value{}}
	p.expect('(', "to open the inputs")
	p.items(')', "the inputs", func() {
		d := p.declaration("an input's name")
		p.free(s, d.at, d.name)
		v := g.AddInput(d.name, d.t)
		v.Decl = d.t
		s.values[d.name] = v
		if p.eat('=') {
			p.constant(g, s, f, d)
		}
	})
	p.expect('=', "before the outputs")
	if p.pos >= p.end || p.src[p.pos] != '>' {
		p.fail(p.pos, "wanted \"=>\" before the outputs")
	}
	p.pos++
	var outs, types []declaration
	p.expect('(', "to open the outputs")
	p.items(')', "the outputs", func() { outs = append(outs, p.declaration("an output's name")) })
	if p.eat('<') {
		p.items('>', "the constants and types", func() {
			d := p.declaration("a value's name")
			if p.eat('=') {
				p.constant(g, s, f, d)
			} else {
				types = append(types, d)
			}
		})
	}
	p.expect('{', "to open the nodes")
	var later []note
	for {
		p.skip()
		own := p.bodyNotes(&later)
		if p.eat('}') {
			if len(own) > 0 {
				p.fail(own[0].at, "no node follows the note on %s", own[0].subject)
			}
			break
		}
		p.node(g, s, own)
	}
	p.outputs(g, s, outs, types)
	for _, n := range later {
		p.describe(n, g, s, f)
	}
	p.depth--
	return g
}

// free fails if the name is already that of a value of the same graph.
func (p *parser) free(s *names, at int, name string) {
	if s.values[name] != nil {
		p.fail(at, "%q is already defined in this graph", name)
	}
}

// constant reads the data of a constant whose declaration and = have been read.
func (p *parser) constant(g *Graph, s *names, f *Function, d declaration) {
	if f != nil {
		p.fail(d.at, "%q: a function has no constants", d.name)
	}
	if v := s.values[d.name]; v != nil && (!v.input || v.data != nil) {
		p.free(s, d.at, d.name)
	}
	if d.t.Kind == SparseKind {
		sp := p.sparse(d.at, d.t)
		dense, err := sp.Dense()
		if err != nil {
			p.fail(d.at, "%q: %v", d.name, err)
		}
		g.Sparse = append(g.Sparse, NamedSparse{d.name, sp, dense})
		s.values[d.name] = g.AddConst(d.name, dense)
		return
	}
	s.values[d.name] = g.AddConst(d.name, p.data(d.at, d.t))
}

func (p *parser) outputs(g *Graph, s *names, outs, types []declaration) {
	for i, d := range outs {
		v := s.find(d.name)
		if v == nil {
			p.fail(d.at, "output %q is not defined", d.name)
		}
		g.AddOutput(d.name, v)
		g.DeclareOutput(i, d.t, "", nil)
	}
	seen := map[string]bool{}
	for _, d := range types {
		v := s.values[d.name]
		switch {
		case v == nil:
			p.fail(d.at, "a type for %q, which is not defined in this graph", d.name)
		case seen[d.name]:
			p.fail(d.at, "a second type for %q", d.name)
		case !d.t.Known():
			p.fail(d.at, "%q stands among the types without one", d.name)
		}
		seen[d.name] = true
		p.declareValue(v, d)
	}
	for i, d := range outs {
		if v := g.outputs[i].Value; v.graph == g && v.def != nil {
			t, err := Merge(v.Type, d.t)
			if err != nil {
				p.fail(d.at, "output %q: %v", d.name, err)
			}
			v.Type = t
		}
	}
}

// declareValue gives a value the type that stands behind the signature; an input has its own, which must be the same.
func (p *parser) declareValue(v *Value, d declaration) {
	t, err := Merge(v.Type, d.t)
	if err == nil && v.input && v.Decl.Known() && !v.Decl.same(d.t) {
		err = fmt.Errorf("type %v where the input has %v", d.t, v.Decl)
	}
	if err != nil {
		p.fail(d.at, "%q: %v", d.name, err)
	}
	v.Type, v.Decl = t, d.t
}

type placedName struct {
	at   int
	name string
}

// idents reads a list of names, "" for an absent one. An empty place before a comma is an absent name too.
func (p *parser) idents(end byte) []placedName {
	var ids []placedName
	for {
		c := p.peek()
		id := placedName{at: p.pos}
		if c == '"' {
			id.name = p.text("a name")
		} else if id.name = p.peekIdent(); id.name != "" {
			p.pos += len(id.name)
		} else if c != ',' {
			return ids
		}
		ids = append(ids, id)
		if !p.eat(',') {
			return ids
		}
	}
}

func (p *parser) node(g *Graph, s *names, notes []note) {
	label := ""
	if p.eat('[') {
		if p.peek() != ']' {
			label = p.name("a node's name")
		}
		p.expect(']', "after the node's name")
	}
	outs := p.idents('=')
	p.expect('=', "before the operator")
	op := p.operator()
	var attrs []Attr
	if p.peek() == '<' {
		attrs = p.attrs(s)
	}
	p.expect('(', "to open the inputs of "+op.String())
	ins := p.idents(')')
	p.expect(')', "after the inputs of "+op.String())
	if attrs == nil && p.peek() == '<' {
		attrs = p.attrs(s)
	}
	vals := make([]*Value, len(ins))
	for i, id := range ins {
		if id.name == "" {
			continue
		}
		if vals[i] = s.find(id.name); vals[i] == nil {
			p.fail(id.at, "%q is not defined before this use by %v", id.name, op)
		}
	}
	outNames := make([]string, len(outs))
	for i, id := range outs {
		outNames[i] = id.name
		for _, other := range outs[:i] {
			if id.name != "" && other.name == id.name {
				p.fail(id.at, "%q is already defined in this graph", id.name)
			}
		}
		p.free(s, id.at, id.name)
	}
	n := g.Place(nil, label, op, vals, outNames, attrs...)
	for _, v := range n.outs {
		if v != nil {
			s.values[v.Name] = v
		}
	}
	for _, note := range notes {
		p.describeNode(note, n)
	}
}

// operator reads domain.Type:overload.
func (p *parser) operator() OpID {
	var op OpID
	op.Type = p.name("an operator")
	for p.eat('.') {
		if op.Domain != "" {
			op.Domain += "."
		}
		op.Domain += op.Type
		op.Type = p.name("an operator")
	}
	op.Domain = canonicalDomain(op.Domain)
	if p.eat(':') {
		op.Overload = p.name("an overload")
	}
	return op
}

// attrs reads a node's attributes; s is the scope that graphs among them see.
func (p *parser) attrs(s *names) []Attr {
	attrs := []Attr{}
	p.expect('<', "to open the attributes")
	p.items('>', "the attributes", func() {
		p.skip()
		at := p.pos
		name := p.name("an attribute's name")
		for i := range attrs {
			if attrs[i].Name == name {
				p.fail(at, "attribute %q appears twice", name)
			}
		}
		attrs = append(attrs, p.attr(name, s))
	})
	return attrs
}
