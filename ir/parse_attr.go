package ir

import (
	"math"
	"slices"
)

// listKind returns the kind of a list of values of kind k.
func listKind(k AttrKind) AttrKind {
	switch {
	case k >= AttrFloat && k <= AttrGraph:
		return k + (AttrFloats - AttrFloat)
	case k == AttrSparseTensor || k == AttrType:
		return k + 1
	}
	return AttrUndefined
}

// elemKind returns the kind of the values of a list of kind k, AttrUndefined if k is no list.
func elemKind(k AttrKind) AttrKind {
	for e := AttrFloat; e <= AttrType; e++ {
		if k != AttrUndefined && listKind(e) == k {
			return e
		}
	}
	return AttrUndefined
}

// attr reads an attribute behind its name; s is the scope that graphs in it see.
func (p *parser) attr(name string, s *names) Attr {
	p.skip()
	var at int
	kind, annotated := AttrUndefined, p.eat(':')
	if annotated {
		p.skip()
		at = p.pos
		word := p.ident("an attribute type")
		k := slices.Index(kindNames[:], word)
		if k < 0 {
			p.fail(at, "%q is no attribute type", word)
		}
		kind = AttrKind(k)
	}
	p.expect('=', "after the attribute's name")
	p.skip()
	at = p.pos
	if p.eat('@') {
		ref := p.name("an attribute of the function")
		if ref == "" {
			p.fail(at, "the reference names no attribute")
		}
		return Attr{Name: name, Kind: kind, Ref: ref}
	}
	var a Attr
	if p.eat('[') {
		a = p.attrList(at, kind, annotated, s)
	} else {
		a = p.attrValue(kind, s)
		if annotated && a.Kind != kind {
			p.fail(at, "wanted a value of type %v, found one of type %v", kind, a.Kind)
		}
	}
	a.Name = name
	return a
}

// attrList reads the values of a list whose bracket has been read.
func (p *parser) attrList(at int, kind AttrKind, annotated bool, s *names) Attr {
	list := Attr{Kind: kind}
	want := elemKind(kind)
	if annotated && kind != AttrUndefined && want == AttrUndefined {
		p.fail(at, "a list where the attribute is declared as one %v", kind)
	}
	count := 0
	p.items(']', "the list", func() {
		p.skip()
		at := p.pos
		v := p.attrValue(want, s)
		if want == AttrUndefined && !annotated {
			want = v.Kind
			list.Kind = listKind(want)
		}
		if v.Kind != want {
			p.fail(at, "a value of type %v in a list of type %v", v.Kind, list.Kind)
		}
		count++
		switch v.Kind {
		case AttrFloat:
			list.Floats = append(list.Floats, v.F)
		case AttrInt:
			list.Ints = append(list.Ints, v.I)
		case AttrString:
			list.Strings = append(list.Strings, v.S)
		case AttrTensor:
			list.Tensors = append(list.Tensors, v.T)
		case AttrGraph:
			list.Graphs = append(list.Graphs, v.G)
		case AttrSparseTensor:
			list.Sparse = append(list.Sparse, v.Sparse...)
		case AttrType:
			list.Types = append(list.Types, v.Types...)
		}
	})
	if count == 0 && !annotated {
		p.fail(at, "an empty list needs its type: name: ints = []")
	}
	return list
}

// attrValue reads one value. If a float is wanted, an integer literal is one.
func (p *parser) attrValue(want AttrKind, s *names) Attr {
	c := p.peek()
	at := p.pos
	switch {
	case c == '"':
		v := p.text("a string")
		if p.peek() == '(' {
			return Attr{Kind: AttrGraph, G: p.graph(v, nil, s)}
		}
		return Attr{Kind: AttrString, S: []byte(v)}
	case isLetter(c):
		if p.nextIsType() {
			return p.typedValue(at)
		}
		if word := p.peekIdent(); !isFloatWord(word) {
			p.pos += len(word)
			if p.peek() != '(' {
				p.fail(at, "wanted a value, found %q", word)
			}
			return Attr{Kind: AttrGraph, G: p.graph(word, nil, s)}
		}
	}
	lit, float := p.number()
	if float || want == AttrFloat {
		return Attr{Kind: AttrFloat, F: math.Float32frombits(uint32(p.floatBits(at, lit, 32)))}
	}
	return Attr{Kind: AttrInt, I: p.toInt(at, lit, 64)}
}

// typedValue reads a value that starts with a type: a tensor, a sparse tensor or the type itself.
func (p *parser) typedValue(at int) Attr {
	t := p.typ()
	switch c := p.peek(); {
	case c == '{' && t.Kind == SparseKind:
		return Attr{Kind: AttrSparseTensor, Sparse: []*SparseTensor{p.sparse(at, t)}}
	case c == '{' || c == '=' || c == '"' || isLetter(c):
		return Attr{Kind: AttrTensor, T: p.namedData(at, t)}
	}
	return Attr{Kind: AttrType, Types: []Type{t}}
}
