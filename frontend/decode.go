package frontend

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/qsimc/qsimc/ir"
)

// What this package accepts.
const (
	MinIRVersion = 3  // older files have no opset
	MaxIRVersion = 14 // ONNX 1.23
	MaxOpset     = 28 // of the default domain, ONNX 1.23
)

// maxDepth bounds how deep graphs may be nested in attributes.
const maxDepth = 64

// Decode decodes a model. Tensors stored in raw form are slices of data, which must not change while the model is in use.
// dir is where external data lies; it may be nil for models that have none.
//
// Names, order, opset imports, documentation, metadata and whatever this program does not know are kept, so that
// backend.Encode gives back the same model: only the form of tensors is unified (raw data), and graphs that are not sorted
// topologically are sorted, their order otherwise kept. The returned model has passed ir.Check. Errors name graph, node and
// tensor.
func Decode(data []byte, dir fs.FS) (*ir.Model, error) {
	d := &decoder{dir: dir, files: map[string]*dataFile{}}
	m, err := d.model(data)
	if err != nil {
		return nil, err
	}
	if err := ir.Check(m); err != nil {
		return nil, err
	}
	return m, nil
}

type decoder struct {
	dir   fs.FS
	files map[string]*dataFile
	m     *ir.Model
	depth int
}

func (d *decoder) model(data []byte) (*ir.Model, error) {
	m := &ir.Model{Opset: map[string]int{}}
	d.m = m
	var graph []byte
	var functions [][]byte
	hasGraph := false
	err := walk(data, func(f field) (err error) {
		switch f.tag {
		case 1<<3 | asVarint:
			if v := int64(f.num); v < MinIRVersion || v > MaxIRVersion {
				return fmt.Errorf("IR version %d, want %d to %d", v, MinIRVersion, MaxIRVersion)
			}
			m.IRVersion = int(f.num)
		case 2<<3 | asBytes:
			m.Producer = string(f.data)
		case 3<<3 | asBytes:
			m.ProducerVersion = string(f.data)
		case 4<<3 | asBytes:
			m.Domain = string(f.data)
		case 5<<3 | asVarint:
			m.Version = int64(f.num)
		case 6<<3 | asBytes:
			m.Doc = string(f.data)
		case 7<<3 | asBytes:
			if hasGraph {
				return errors.New("the model has two graphs")
			}
			graph, hasGraph = f.data, true
		case 8<<3 | asBytes:
			err = opset(m.Opset, f.data)
		case 14<<3 | asBytes:
			var p ir.Prop
			p, err = prop(f.data)
			m.Props = append(m.Props, p)
		case 25<<3 | asBytes:
			functions = append(functions, f.data)
		default:
			m.Opaque = append(m.Opaque, f.wire...)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !hasGraph:
		return nil, errors.New("not an ONNX model: it has no graph")
	case m.IRVersion == 0:
		return nil, errors.New("not an ONNX model: it has no IR version")
	case len(m.Opset) == 0:
		return nil, errors.New("the model imports no opset")
	}
	raw, err := d.parseGraph(graph)
	if err != nil {
		return nil, err
	}
	m.Graph = ir.NewGraph(m, raw.name)
	if err := d.connect(m.Graph, raw, nil); err != nil {
		return nil, fmt.Errorf("graph %q: %w", raw.name, err)
	}
	for _, b := range functions {
		if err := d.function(b); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// canonical returns the domain as the IR names it: "" for ai.onnx.
func canonical(domain string) string {
	if domain == "ai.onnx" {
		return ""
	}
	return domain
}

// opset reads an OperatorSetIdProto into the table.
func opset(table map[string]int, b []byte) error {
	domain, version := "", int64(0)
	err := walk(b, func(f field) error {
		switch f.tag {
		case 1<<3 | asBytes:
			domain = canonical(string(f.data))
		case 2<<3 | asVarint:
			version = int64(f.num)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("opset import: %w", err)
	}
	const top = 1 << 30
	if domain == "" && (version < 1 || version > MaxOpset) {
		return fmt.Errorf("opset %d, want 1 to %d", version, MaxOpset)
	}
	if version < 0 || version > top {
		return fmt.Errorf("opset %d of domain %q, want 0 to %d", version, domain, top)
	}
	if old, ok := table[domain]; ok && old != int(version) {
		return fmt.Errorf("domain %q is imported as opset %d and as opset %d", domain, old, version)
	}
	table[domain] = int(version)
	return nil
}

// rawGraph is a graph whose nodes are not yet connected.
type rawGraph struct {
	name, doc       string
	nodes           []*rawNode
	inits           []rawConst
	sparse          []ir.NamedSparse
	inputs, outputs []*described
	infos           []*described
	meta            []ir.Prop
	opaque          []byte
	free            []string // names used but not defined here, in order of first use
}

type rawConst struct {
	name string
	t    *ir.Tensor
}

type rawNode struct {
	ins, outs []string
	name      string
	op        ir.OpID
	doc       string
	attrs     []ir.Attr
	graphs    [][]*rawGraph // by attribute those of its G and Graphs; nil: no attribute has any
	meta      []ir.Prop
	origin    string
	opaque    []byte
}

// rawAttr is an attribute; graphs are those of its G and Graphs.
type rawAttr struct {
	ir.Attr
	graphs []*rawGraph
}

func (n *rawNode) String() string { return fmt.Sprintf("%q (%v)", n.name, n.op) }

func (d *decoder) parseGraph(b []byte) (*rawGraph, error) {
	if d.depth++; d.depth > maxDepth {
		return nil, fmt.Errorf("graphs are nested more than %d deep", maxDepth)
	}
	defer func() { d.depth-- }()
	g := &rawGraph{}
	err := walk(b, func(f field) (err error) {
		switch f.tag {
		case 1<<3 | asBytes:
			var n *rawNode
			if n, err = d.parseNode(f.data); err != nil {
				return fmt.Errorf("node %v: %w", n, err)
			}
			g.nodes = append(g.nodes, n)
		case 2<<3 | asBytes:
			g.name = string(f.data)
		case 5<<3 | asBytes:
			var c rawConst
			if c.name, c.t, err = d.tensor(f.data); err != nil {
				return fmt.Errorf("initializer %q: %w", c.name, err)
			}
			g.inits = append(g.inits, c)
		case 10<<3 | asBytes:
			g.doc = string(f.data)
		case 11<<3 | asBytes:
			err = describe(&g.inputs, f)
		case 12<<3 | asBytes:
			err = describe(&g.outputs, f)
		case 13<<3 | asBytes:
			err = describe(&g.infos, f)
		case 15<<3 | asBytes:
			var s ir.NamedSparse
			if s.Name, s.T, err = d.sparse(f.data); err == nil {
				s.Dense, err = dense(s.T)
			}
			if err != nil {
				return fmt.Errorf("sparse initializer %q: %w", s.Name, err)
			}
			g.sparse = append(g.sparse, s)
		case 16<<3 | asBytes:
			var p ir.Prop
			p, err = prop(f.data)
			g.meta = append(g.meta, p)
		default:
			g.opaque = append(g.opaque, f.wire...)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("graph %q: %w", graphName(b), err)
	}
	g.findFree()
	return g, nil
}

// graphName finds the name of a graph, which files have after the nodes.
func graphName(b []byte) (name string) {
	_ = walk(b, func(f field) error { // what is wrong with the message has been said
		if f.tag == 2<<3|asBytes {
			name = string(f.data)
		}
		return nil
	})
	return name
}

func describe(list *[]*described, f field) error {
	v, err := valueInfo(f)
	*list = append(*list, v)
	return err
}

// findFree lists the names that nodes of g and of its subgraphs use and g does not define.
func (g *rawGraph) findFree() {
	known := make(map[string]bool, 1+len(g.inputs)+len(g.inits)+len(g.nodes)) // about
	known[""] = true
	for _, v := range g.inputs {
		known[v.name] = true
	}
	for _, c := range g.inits {
		known[c.name] = true
	}
	for _, s := range g.sparse {
		known[s.Name] = true
	}
	for _, n := range g.nodes {
		for _, o := range n.outs {
			known[o] = true
		}
	}
	use := func(name string) {
		if !known[name] {
			known[name] = true
			g.free = append(g.free, name)
		}
	}
	for _, n := range g.nodes {
		n.reads(use)
	}
	for _, o := range g.outputs {
		use(o.name)
	}
}

// reads visits every name the node takes from the graph it is in: inputs, and what its subgraphs capture.
func (n *rawNode) reads(visit func(string)) {
	for _, name := range n.ins {
		visit(name)
	}
	for _, graphs := range n.graphs {
		for _, g := range graphs {
			for _, name := range g.free {
				visit(name)
			}
		}
	}
}

func (d *decoder) parseNode(b []byte) (*rawNode, error) {
	n := &rawNode{}
	var attrs [][]byte
	err := walk(b, func(f field) (err error) {
		switch f.tag {
		case 1<<3 | asBytes:
			n.ins = append(n.ins, string(f.data))
		case 2<<3 | asBytes:
			n.outs = append(n.outs, string(f.data))
		case 3<<3 | asBytes:
			n.name = string(f.data)
		case 4<<3 | asBytes:
			n.op.Type = string(f.data)
		case 5<<3 | asBytes:
			attrs = append(attrs, f.data)
		case 6<<3 | asBytes:
			n.doc = string(f.data)
		case 7<<3 | asBytes:
			n.op.Domain = canonical(string(f.data))
		case 8<<3 | asBytes:
			n.op.Overload = string(f.data)
		case 9<<3 | asBytes:
			var p ir.Prop
			if p, err = prop(f.data); p.Key == ir.OriginKey && n.origin == "" {
				n.origin = p.Value
			} else {
				n.meta = append(n.meta, p)
			}
		default:
			n.opaque = append(n.opaque, f.wire...)
		}
		return err
	})
	if err != nil {
		return n, err
	}
	n.attrs = make([]ir.Attr, len(attrs))
	for i, b := range attrs { // after the walk, so that the name of the node is known to messages
		a, err := d.parseAttr(b)
		if err != nil {
			return n, fmt.Errorf("attribute %q: %w", a.Name, err)
		}
		for j := range i {
			if n.attrs[j].Name == a.Name {
				return n, fmt.Errorf("attribute %q appears twice", a.Name)
			}
		}
		n.attrs[i] = a.Attr
		if a.graphs != nil {
			if n.graphs == nil {
				n.graphs = make([][]*rawGraph, len(attrs))
			}
			n.graphs[i] = a.graphs
		}
	}
	return n, nil
}

// function decodes a FunctionProto into the model.
func (d *decoder) function(b []byte) error {
	fn := &ir.Function{Opset: map[string]int{}}
	g := &rawGraph{}
	var nodes, defaults [][]byte
	err := walk(b, func(f field) (err error) {
		switch f.tag {
		case 1<<3 | asBytes:
			fn.Name = string(f.data)
		case 4<<3 | asBytes:
			g.inputs = append(g.inputs, &described{name: string(f.data)})
		case 5<<3 | asBytes:
			g.outputs = append(g.outputs, &described{name: string(f.data)})
		case 6<<3 | asBytes:
			fn.Attrs = append(fn.Attrs, string(f.data))
		case 7<<3 | asBytes:
			nodes = append(nodes, f.data)
		case 8<<3 | asBytes:
			fn.Doc = string(f.data)
		case 9<<3 | asBytes:
			err = opset(fn.Opset, f.data)
		case 10<<3 | asBytes:
			fn.Domain = canonical(string(f.data))
		case 11<<3 | asBytes:
			defaults = append(defaults, f.data)
		case 12<<3 | asBytes:
			err = describe(&g.infos, f)
		case 13<<3 | asBytes:
			fn.Overload = string(f.data)
		case 14<<3 | asBytes:
			var p ir.Prop
			p, err = prop(f.data)
			fn.Props = append(fn.Props, p)
		default:
			fn.Opaque = append(fn.Opaque, f.wire...)
		}
		return err
	})
	if err == nil {
		err = d.functionBody(fn, g, nodes, defaults)
	}
	if err != nil {
		return fmt.Errorf("function %s: %w", strings.TrimPrefix(fn.Domain+"."+fn.Name, "."), err)
	}
	if d.m.Function(ir.OpID{Domain: fn.Domain, Type: fn.Name, Overload: fn.Overload}) != nil {
		return fmt.Errorf("function %s.%s (overload %q) is defined twice", fn.Domain, fn.Name, fn.Overload)
	}
	d.m.Functions = append(d.m.Functions, fn)
	return nil
}

func (d *decoder) functionBody(fn *ir.Function, g *rawGraph, nodes, defaults [][]byte) error {
	for _, b := range nodes {
		n, err := d.parseNode(b)
		if err != nil {
			return fmt.Errorf("node %v: %w", n, err)
		}
		g.nodes = append(g.nodes, n)
	}
	for _, b := range defaults {
		a, err := d.parseAttr(b)
		if err == nil && len(a.graphs) > 0 {
			err = errors.New("a graph cannot be the default of a function's attribute")
		}
		if err != nil {
			return fmt.Errorf("attribute %q: %w", a.Name, err)
		}
		fn.Defaults = append(fn.Defaults, a.Attr)
	}
	g.findFree()
	fn.Body = ir.NewGraph(d.m, fn.Name)
	return d.connect(fn.Body, g, nil)
}
