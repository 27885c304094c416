// Package ir is qsimc's intermediate representation of an ONNX model: a graph of nodes and values with use lists, tensors
// whose bytes load on demand, a checker, and ONNX's own text syntax as its printed form.
//
//	m := ir.NewModel(17)
//	x := m.Graph.AddInput("x", ir.FixedType(ir.Float32, 2, 3))
//	n := m.Graph.Insert(nil, "relu", ir.Op("Relu"), []*ir.Value{x}, []string{"y"})
//	m.Graph.AddOutput("y", n.Out(0))
//
// The package knows nothing of protobuf (frontend and backend do) and nothing of what operators mean (ir/op does).
package ir

import "iter"

// Model is an ONNX model. Fields the compiler has no use for are carried through unchanged.
type Model struct {
	Graph     *Graph
	Opset     map[string]int // domain ("" is ai.onnx) → version
	Functions []*Function
	Props     []Prop // metadata_props

	IRVersion       int
	Producer        string
	ProducerVersion string
	Domain          string
	Version         int64
	Doc             string
	Opaque          []byte // wire bytes of fields the IR does not model: training info, device configurations, fields newer than this program
	Path            string // the file it came from, for messages

	names nameTable
}

// Prop is one entry of metadata.
type Prop struct{ Key, Value string }

// Function is a model-local function.
type Function struct {
	Domain, Name, Overload string
	Doc                    string
	Opset                  map[string]int
	Attrs                  []string // attributes without default
	Defaults               []Attr   // attributes with default
	Body                   *Graph   // its inputs and outputs are the function's
	Props                  []Prop
	Opaque                 []byte
}

// Tensors is a feed or a result: tensors by value name.
type Tensors map[string]*Tensor

// Samples yields calibration or test inputs; it may be ranged over any number of times, each time from the start.
type Samples func() iter.Seq2[Tensors, error]

// VersionFor returns the IR version that came with an opset of the default domain, following the table of releases in ONNX's
// documentation. It serves those who raise a model's opset; files may pair a new opset with an older IR version.
func VersionFor(opset int) int {
	switch {
	case opset <= 8:
		return 3
	case opset <= 11: // 9, 10, 11: one IR version each
		return opset - 5
	case opset <= 14:
		return 7
	case opset <= 18:
		return 8
	case opset <= 20:
		return 9
	case opset <= 22:
		return 10
	case opset <= 24: // 23, 24: one each
		return opset - 12
	case opset <= 27:
		return 13
	}
	return 14
}

// NewModel returns an empty model of the given default-domain opset.
func NewModel(opset int) *Model {
	m := &Model{Opset: map[string]int{"": opset}, IRVersion: 8}
	m.Graph = NewGraph(m, "main")
	return m
}

// Prop returns the metadata value under key.
func (m *Model) Prop(key string) (string, bool) {
	for _, p := range m.Props {
		if p.Key == key {
			return p.Value, true
		}
	}
	return "", false
}

// SetProp sets the metadata value under key.
func (m *Model) SetProp(key, value string) {
	for i := range m.Props {
		if m.Props[i].Key == key {
			m.Props[i].Value = value
			return
		}
	}
	m.Props = append(m.Props, Prop{key, value})
}

// Function returns the model-local function an operator calls, nil if there is none.
func (m *Model) Function(op OpID) *Function {
	for _, f := range m.Functions {
		if f.Name == op.Type && f.Domain == op.Domain && f.Overload == op.Overload {
			return f
		}
	}
	return nil
}

// Graphs yields every graph of the model: the main graph, function bodies, and all nested subgraphs, outer before inner.
func (m *Model) Graphs() iter.Seq[*Graph] {
	return func(yield func(*Graph) bool) {
		if !m.Graph.walk(yield) {
			return
		}
		for _, f := range m.Functions {
			if !f.Body.walk(yield) {
				return
			}
		}
	}
}

// Nodes yields every node of the main graph and its subgraphs (not of functions), outer before inner.
func (m *Model) Nodes() iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		m.Graph.walk(func(g *Graph) bool {
			for n := range g.Nodes() {
				if !yield(n) {
					return false
				}
			}
			return true
		})
	}
}

// Find returns the value with the given name in the main graph or a subgraph, nil if there is none. It searches linearly.
func (m *Model) Find(name string) *Value {
	var found *Value
	m.Graph.walk(func(g *Graph) bool {
		for v := range g.Values() {
			if v.Name == name {
				found = v
				return false
			}
		}
		return true
	})
	return found
}
