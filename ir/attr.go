package ir

// AttrKind is the type of an attribute; its values are the numbers of AttributeProto.AttributeType.
type AttrKind uint8

// The attribute types of ONNX.
const (
	AttrUndefined     AttrKind = 0
	AttrFloat         AttrKind = 1
	AttrInt           AttrKind = 2
	AttrString        AttrKind = 3
	AttrTensor        AttrKind = 4
	AttrGraph         AttrKind = 5
	AttrFloats        AttrKind = 6
	AttrInts          AttrKind = 7
	AttrStrings       AttrKind = 8
	AttrTensors       AttrKind = 9
	AttrGraphs        AttrKind = 10
	AttrSparseTensor  AttrKind = 11
	AttrSparseTensors AttrKind = 12
	AttrType          AttrKind = 13
	AttrTypes         AttrKind = 14
)

// Attr is one attribute of a node. Kind tells which field holds the value. Values are not edited in place once the
// attribute is in a graph: Node.SetAttr replaces it.
type Attr struct {
	Name    string
	Doc     string
	Ref     string // inside a function: the function attribute this one takes its value from
	Kind    AttrKind
	F       float32
	I       int64
	S       []byte
	T       *Tensor
	G       *Graph
	Floats  []float32
	Ints    []int64
	Strings [][]byte
	Tensors []*Tensor
	Graphs  []*Graph
	Types   []Type // one for AttrType
	Sparse  []*SparseTensor
	Opaque  []byte // wire bytes the IR does not model
}

// SparseTensor is a tensor in coordinate form: Values [nnz], Indices [nnz] or [nnz, rank], Shape of the dense tensor.
type SparseTensor struct {
	Values, Indices *Tensor
	Shape           []int
}

// IntAttr, FloatAttr, … make attributes.
func IntAttr(name string, v int64) Attr { return Attr{Name: name, Kind: AttrInt, I: v} }

// FloatAttr makes a float attribute.
func FloatAttr(name string, v float32) Attr { return Attr{Name: name, Kind: AttrFloat, F: v} }

// StringAttr makes a string attribute.
func StringAttr(name, v string) Attr { return Attr{Name: name, Kind: AttrString, S: []byte(v)} }

// IntsAttr makes a list-of-integers attribute.
func IntsAttr(name string, v ...int64) Attr { return Attr{Name: name, Kind: AttrInts, Ints: v} }

// FloatsAttr makes a list-of-floats attribute.
func FloatsAttr(name string, v ...float32) Attr { return Attr{Name: name, Kind: AttrFloats, Floats: v} }

// TensorAttr makes a tensor attribute.
func TensorAttr(name string, t *Tensor) Attr { return Attr{Name: name, Kind: AttrTensor, T: t} }

// GraphAttr makes a subgraph attribute.
func GraphAttr(name string, g *Graph) Attr { return Attr{Name: name, Kind: AttrGraph, G: g} }

// subgraphs returns the graphs an attribute holds.
func (a *Attr) subgraphs() []*Graph {
	if a.G != nil {
		return append([]*Graph{a.G}, a.Graphs...)
	}
	return a.Graphs
}
