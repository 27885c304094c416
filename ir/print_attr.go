package ir

import (
	"fmt"
	"strconv"
	"strings"
)

var kindNames = [...]string{
	AttrUndefined: "undefined", AttrFloat: "float", AttrInt: "int", AttrString: "string", AttrTensor: "tensor",
	AttrGraph: "graph", AttrFloats: "floats", AttrInts: "ints", AttrStrings: "strings", AttrTensors: "tensors",
	AttrGraphs: "graphs", AttrSparseTensor: "sparse_tensor", AttrSparseTensors: "sparse_tensors", AttrType: "type_proto",
	AttrTypes: "type_protos",
}

// String returns the name the text syntax has for the kind: int, floats, type_proto, ….
func (k AttrKind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// attr writes an attribute, with its kind where the value alone does not tell it.
func (p *printer) attr(a *Attr, function bool) {
	if isIdent(a.Name) {
		p.str(a.Name)
	} else {
		p.str(quote(a.Name))
	}
	if a.Ref != "" {
		if a.Kind != AttrUndefined {
			p.str(": " + a.Kind.String())
		}
		p.str(" = @" + ident(a.Ref))
		return
	}
	n := a.listLen()
	if n == 0 || a.Kind >= AttrTensors || function {
		p.str(": " + a.Kind.String())
	}
	p.str(" = ")
	if n < 0 {
		p.attrValue(a, 0)
		return
	}
	p.list("[", "]", n, false, func(i int) string { p.attrValue(a, i); return "" })
}

// listLen returns the number of values of a list attribute, -1 for the other kinds.
func (a *Attr) listLen() int {
	switch a.Kind {
	case AttrFloats:
		return len(a.Floats)
	case AttrInts:
		return len(a.Ints)
	case AttrStrings:
		return len(a.Strings)
	case AttrTensors:
		return len(a.Tensors)
	case AttrGraphs:
		return len(a.Graphs)
	case AttrTypes:
		return len(a.Types)
	case AttrSparseTensors:
		return len(a.Sparse)
	case AttrUndefined:
		return 0
	}
	return -1
}

func (p *printer) attrValue(a *Attr, i int) {
	switch a.Kind {
	case AttrFloat:
		p.b = appendFloatLiteral(p.b, a.F)
	case AttrFloats:
		p.b = appendFloatLiteral(p.b, a.Floats[i])
	case AttrInt:
		p.b = strconv.AppendInt(p.b, a.I, 10)
	case AttrInts:
		p.b = strconv.AppendInt(p.b, a.Ints[i], 10)
	case AttrString:
		p.str(quote(string(a.S)))
	case AttrStrings:
		p.str(quote(string(a.Strings[i])))
	case AttrTensor:
		p.tensor(a.T)
	case AttrTensors:
		p.tensor(a.Tensors[i])
	case AttrGraph:
		p.subgraph(a.G)
	case AttrGraphs:
		p.subgraph(a.Graphs[i])
	case AttrSparseTensor, AttrSparseTensors:
		p.sparse(a.Sparse[i], " ")
	case AttrType, AttrTypes:
		p.str(typeText(a.Types[i], quote))
	default:
		p.str(a.Kind.String())
	}
}

// subgraph writes a graph as an attribute's value. The official parser wants an identifier there as its name.
func (p *printer) subgraph(g *Graph) {
	plain, name := g.Name, ""
	if !isIdent(plain) || reserved(plain) {
		name = "name " + strconv.Quote(g.Name)
		plain = "_" + strings.Map(func(r rune) rune {
			if r < 0x80 && isIdent("_"+string(r)) {
				return r
			}
			return '_'
		}, plain)
	}
	p.str(plain)
	p.graph(g, nil, name)
}
