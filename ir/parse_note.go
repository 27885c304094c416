package ir

import (
	"encoding/base64"
	"slices"
)

// note is what a "#!" line says.
type note struct {
	at      int
	subject string // as listed at Print
	of      string // the name of the value, output or attribute
	index   int    // of a tensor among the attribute's or constant's
	fields  []string

	name, doc, origin string
	meta              []Prop
	opaque            []byte
	typ               Type
}

// takeNotes reads the notes skipped so far.
func (p *parser) takeNotes() []note {
	if len(p.notes) == 0 {
		return nil
	}
	var notes []note
	for _, at := range p.notes {
		line := &parser{file: p.file, src: p.src, pos: at, end: p.eol(at), m: p.m, inNote: true}
		notes = append(notes, line.note())
	}
	p.notes = nil
	return notes
}

func (p *parser) note() note {
	p.skip()
	n := note{at: p.pos}
	n.subject = p.ident("what the note is on")
	switch n.subject {
	case "model", "graph", "function", "node":
	case "value", "output", "attr", "default":
		n.of = p.text("the name of the " + n.subject)
	case "tensor", "attrtensor", "defaulttensor":
		n.of = p.text("the name of the " + n.subject)
		n.index = int(p.integer(32))
	default:
		p.fail(n.at, "unknown note on %q", n.subject)
	}
	for !p.atEnd() {
		at := p.pos
		key := p.ident("a field of the note")
		if slices.Contains(n.fields, key) {
			p.fail(at, "field %q appears twice", key)
		}
		n.fields = append(n.fields, key)
		switch key {
		case "name":
			n.name = p.text(key)
		case "doc":
			n.doc = p.text(key)
		case "origin":
			n.origin = p.text(key)
		case "meta":
			n.meta = p.props()
		case "type":
			n.typ = p.typ()
		case "opaque":
			b, err := base64.StdEncoding.DecodeString(p.text(key))
			if err != nil {
				p.fail(at, "opaque: %v", err)
			}
			n.opaque = b
		default:
			p.fail(at, "unknown field %q of a note", key)
		}
	}
	return n
}

// allow fails on a field that the note's subject does not have.
func (n *note) allow(p *parser, fields ...string) {
	for _, f := range n.fields {
		if !slices.Contains(fields, f) {
			p.fail(n.at, "a note on %s has no field %q", n.subject, f)
		}
	}
}

// bodyNotes reads the notes before a node: those on the node are returned, those on the graph put aside until its values
// are known.
func (p *parser) bodyNotes(later *[]note) (own []note) {
	for _, n := range p.takeNotes() {
		switch n.subject {
		case "model":
			p.fail(n.at, "a note on the model stands outside of graphs")
		case "node", "attr", "attrtensor":
			own = append(own, n)
		default:
			*later = append(*later, n)
		}
	}
	return own
}

// describe applies a note to a graph, its function, or one of its values.
func (p *parser) describe(n note, g *Graph, s *names, f *Function) {
	switch n.subject {
	case "graph":
		n.allow(p, "name", "doc", "meta", "opaque")
		if slices.Contains(n.fields, "name") {
			g.Name = n.name
		}
		g.Doc, g.Meta, g.Opaque = n.doc, n.meta, n.opaque
	case "function":
		n.allow(p, "meta", "opaque")
		if f == nil {
			p.fail(n.at, "a note on a function outside of one")
		}
		f.Props, f.Opaque = n.meta, n.opaque
	case "default":
		p.describeAttr(n, defaultOf(f, n.of))
	case "defaulttensor":
		p.label(n, defaultOf(f, n.of).tensorsOrNone())
	case "tensor":
		v := s.values[n.of]
		if v == nil || v.graph != g || v.data == nil {
			p.fail(n.at, "a note on tensor %q, which the graph does not have", n.of)
		}
		p.label(n, g.tensors(v))
	case "value":
		n.allow(p, "type", "doc", "meta", "opaque")
		v := s.values[n.of]
		if v == nil {
			p.fail(n.at, "a note on %q, which is not defined in this graph", n.of)
		}
		v.Doc, v.Meta, v.Opaque = n.doc, n.meta, n.opaque
		if n.typ.Known() {
			v.Type, v.Decl = n.typ, n.typ
		}
	case "output":
		n.allow(p, "type", "doc", "meta", "opaque")
		i := slices.IndexFunc(g.outputs, func(o Output) bool { return o.Name == n.of })
		if i < 0 {
			p.fail(n.at, "a note on output %q, which the graph does not have", n.of)
		}
		o := &g.outputs[i]
		if n.typ.Known() {
			o.Type = n.typ
		}
		o.Doc, o.Meta, o.Opaque = n.doc, n.meta, n.opaque
	}
}

func (p *parser) describeNode(note note, n *Node) {
	if note.subject == "node" {
		note.allow(p, "doc", "meta", "opaque", "origin")
		n.Doc, n.Meta, n.Opaque, n.Origin = note.doc, note.meta, note.opaque, note.origin
		return
	}
	a := n.Attr(note.of)
	if note.subject == "attrtensor" {
		p.label(note, a.tensorsOrNone())
		return
	}
	p.describeAttr(note, a)
}

func (p *parser) describeAttr(n note, a *Attr) {
	n.allow(p, "doc", "opaque")
	if a == nil {
		p.fail(n.at, "a note on attribute %q, which is not there", n.of)
	}
	a.Doc, a.Opaque = n.doc, n.opaque
}

func defaultOf(f *Function, name string) *Attr {
	if f == nil {
		return nil
	}
	return f.defaultAttr(name)
}

func (a *Attr) tensorsOrNone() []*Tensor {
	if a == nil {
		return nil
	}
	return a.tensors()
}

// label applies a note to one of some tensors, which keeps the name it may have in its literal.
func (p *parser) label(n note, ts []*Tensor) {
	n.allow(p, "name", "doc", "meta", "opaque")
	if n.index < 0 || n.index >= len(ts) {
		p.fail(n.at, "a note on tensor %d of %q, which is not there", n.index, n.of)
	}
	l := &Label{Name: n.name, Doc: n.doc, Meta: n.meta, Opaque: n.opaque}
	if old := ts[n.index].Label; old != nil && n.name == "" {
		l.Name = old.Name
	}
	ts[n.index].Label = l
}
