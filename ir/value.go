package ir

// Value is a tensor-to-be: a graph input, a constant (initializer) or an output of a node.
type Value struct {
	Name   string
	Type   Type // what is known: declared by the file and refined by op.Infer
	Decl   Type // as the file declares it (value_info or input); zero if it does not. The backend writes this one
	Doc    string
	Meta   []Prop
	Opaque []byte // wire bytes of the value's description that the IR does not model

	graph *Graph
	def   *Node
	index int
	data  *Tensor
	input bool
	uses  []Use
}

// Use is one place a value is used: input Slot of Node, or, if Node is nil, output slot Slot of Graph.
type Use struct {
	Node  *Node
	Graph *Graph // the graph the use is in
	Slot  int
}

// Graph returns the graph that defines the value.
func (v *Value) Graph() *Graph { return v.graph }

// Def returns the node and output index that produce the value; nil for inputs and constants.
func (v *Value) Def() (*Node, int) { return v.def, v.index }

// DefNode returns the node that produces the value, nil for inputs and constants.
func (v *Value) DefNode() *Node { return v.def }

// Const returns the value's constant, nil if it has none. An input with a default value (an initializer of the same name)
// has one too.
func (v *Value) Const() *Tensor { return v.data }

// IsInput reports whether the value is listed among its graph's inputs.
func (v *Value) IsInput() bool { return v.input }

// Uses returns the places the value is used, in the order they came to be; the slice is a copy.
func (v *Value) Uses() []Use { return append([]Use(nil), v.uses...) }

// NumUses returns the number of uses.
func (v *Value) NumUses() int { return len(v.uses) }

// SingleUse returns the value's only use.
func (v *Value) SingleUse() (Use, bool) {
	if len(v.uses) != 1 {
		return Use{}, false
	}
	return v.uses[0], true
}

// ReplaceUses makes every use of v a use of by.
func (v *Value) ReplaceUses(by *Value) {
	if v == by {
		return
	}
	for _, u := range v.Uses() {
		u.Set(by)
	}
}

// Set makes the use one of value v. A graph output keeps its name.
func (u Use) Set(v *Value) {
	if u.Node != nil {
		u.Node.SetIn(u.Slot, v)
	} else {
		u.Graph.SetOutput(u.Slot, v)
	}
}

func (v *Value) addUse(u Use) { v.uses = append(v.uses, u) }

func (v *Value) dropUse(u Use) {
	for i, w := range v.uses {
		if w.Node == u.Node && w.Slot == u.Slot && (u.Node != nil || w.Graph == u.Graph) {
			v.uses = append(v.uses[:i], v.uses[i+1:]...)
			return
		}
	}
	panic("BUG: ir: use of " + v.Name + " is not recorded")
}
