// Package onnxgo puts qsimc's runtime behind the backend interface of github.com/owulveryck/onnx-go:
//
//	g := onnxgo.NewGraph(9) // the opset, which onnx-go's interface does not carry
//	m := onnx.NewModel(g)
//	err := m.UnmarshalBinary(data)
//	m.SetInput(0, t)
//	err = g.Run()
//	out, err := m.GetOutputTensors()
package onnxgo

import (
	"context"
	"fmt"

	"github.com/owulveryck/onnx-go"
	"github.com/owulveryck/onnx-go/backend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime"
	"gonum.org/v1/gonum/graph"
	"gonum.org/v1/gonum/graph/simple"
	"gorgonia.org/tensor"
)

// Graph records what onnx-go's decoder says and runs it. Nodes, here, are values; they are numbered 0, 1, 2 … in the order
// of their creation, as onnx-go's Model.SetInput expects.
type Graph struct {
	// WeightedDirectedGraph is the view for gonum's algorithms. It merges parallel edges, so it is not what runs.
	*simple.WeightedDirectedGraph

	opset   int
	nodes   []*Node
	uses    []use
	ops     []operation
	program *runtime.Program
	inputs  []*Node // what the program is fed
}

// use says that computing node out takes node in as input slot.
type use struct {
	out, in int64
	slot    int
}

type operation struct {
	onnx.Operation
	outs []*Node
}

var _ backend.ComputationBackend = (*Graph)(nil)

// NewGraph returns an empty graph for a model of the given opset.
func NewGraph(opset int) *Graph {
	return &Graph{WeightedDirectedGraph: simple.NewWeightedDirectedGraph(0, 0), opset: opset}
}

// Node is a value of the graph.
type Node struct {
	id    int64
	name  string
	named bool
	value tensor.Tensor
}

// ID implements graph.Node.
func (n *Node) ID() int64 { return n.id }

// SetName implements onnx.Namer.
func (n *Node) SetName(name string) { n.name, n.named = name, true }

// GetName implements onnx.Namer.
func (n *Node) GetName() string { return n.name }

// SetTensor implements onnx.DataCarrier.
func (n *Node) SetTensor(t tensor.Tensor) error { n.value = t; return nil }

// GetTensor implements onnx.DataCarrier.
func (n *Node) GetTensor() tensor.Tensor { return n.value }

// NewNode implements graph.NodeAdder.
func (g *Graph) NewNode() graph.Node {
	n := &Node{id: int64(len(g.nodes))}
	g.nodes = append(g.nodes, n)
	return n
}

// Node implements graph.Graph.
func (g *Graph) Node(id int64) graph.Node {
	if id < 0 || id >= int64(len(g.nodes)) {
		return nil
	}
	return g.nodes[id]
}

// SetWeightedEdge records that the node the edge comes from takes the node it goes to as the input numbered by its weight.
// The same pair may be set with several weights: Mul(x, x).
func (g *Graph) SetWeightedEdge(e graph.WeightedEdge) {
	g.uses = append(g.uses, use{e.From().ID(), e.To().ID(), int(e.Weight())})
	if e.From().ID() != e.To().ID() {
		g.WeightedDirectedGraph.SetWeightedEdge(e)
	}
}

// ApplyOperation records an operator and the nodes it computes.
func (g *Graph) ApplyOperation(op onnx.Operation, outs ...graph.Node) error {
	o := operation{Operation: op}
	for _, n := range outs {
		o.outs = append(o.outs, n.(*Node))
	}
	g.ops = append(g.ops, o)
	g.program = nil
	return nil
}

// Run implements backend.ComputationBackend: it computes every node from those that carry tensors.
func (g *Graph) Run() error {
	if g.program == nil {
		m, err := g.model()
		if err != nil {
			return err
		}
		if g.program, err = runtime.Compile(m); err != nil {
			return &onnx.ErrNotImplemented{Message: err.Error()}
		}
	}
	in := ir.Tensors{}
	for _, n := range g.inputs {
		if n.value == nil {
			return fmt.Errorf("onnxgo: node %d, %q, carries no tensor", n.id, n.name)
		}
		t, err := FromGorgonia(n.value)
		if err != nil {
			return fmt.Errorf("onnxgo: node %d, %q: %w", n.id, n.name, err)
		}
		in[g.valueName(n)] = t
	}
	out, err := g.program.Run(context.Background(), in)
	if err != nil {
		return err
	}
	for _, o := range g.ops {
		for _, n := range o.outs {
			t := out[g.valueName(n)]
			if t == nil {
				continue
			}
			if n.value, err = ToGorgonia(t); err != nil {
				return fmt.Errorf("onnxgo: node %d, %q: %w", n.id, n.name, err)
			}
		}
	}
	return nil
}

func (g *Graph) valueName(n *Node) string { return fmt.Sprintf("n%d", n.id) }

// absent reports whether a node stands for an optional input that is not there: onnx-go gives it the name "".
func (n *Node) absent() bool { return n.named && n.name == "" }

// model builds the IR: nodes no operation computes are inputs, every computed node is an output.
func (g *Graph) model() (*ir.Model, error) {
	m := ir.NewModel(g.opset)
	ins := map[int64][]int64{} // computed node → its operation's inputs by slot, -1 where absent
	for _, u := range g.uses {
		for len(ins[u.out]) <= u.slot {
			ins[u.out] = append(ins[u.out], -1)
		}
		ins[u.out][u.slot] = u.in
	}
	computed := map[int64]bool{}
	for _, o := range g.ops {
		for _, n := range o.outs {
			computed[n.id] = true
		}
	}
	values := map[int64]*ir.Value{}
	g.inputs = nil
	used := map[int64]bool{}
	for _, o := range g.ops {
		if o.Name == "Constant" {
			continue // its input is a placeholder of onnx-go's
		}
		for _, id := range ins[o.outs[0].id] {
			if id >= 0 {
				used[id] = true
			}
		}
	}
	for _, n := range g.nodes {
		if !computed[n.id] && used[n.id] && !n.absent() {
			t, err := inputType(n)
			if err != nil {
				return nil, err
			}
			values[n.id] = m.Graph.AddInput(g.valueName(n), t)
			g.inputs = append(g.inputs, n)
		}
	}
	for _, o := range g.ops {
		if err := g.place(m, o, ins, values); err != nil {
			return nil, err
		}
	}
	for _, o := range g.ops {
		for _, n := range o.outs {
			if v := values[n.id]; v != nil {
				m.Graph.AddOutput(v.Name, v)
			}
		}
	}
	return m, nil
}

func (g *Graph) place(m *ir.Model, o operation, ins map[int64][]int64, values map[int64]*ir.Value) error {
	var in []*ir.Value
	if o.Name != "Constant" {
		for slot, id := range ins[o.outs[0].id] {
			var v *ir.Value
			if id >= 0 && !g.nodes[id].absent() {
				if v = values[id]; v == nil {
					return fmt.Errorf("onnxgo: %s: input %d, node %d, is not computed before it", o.Name, slot, id)
				}
			}
			in = append(in, v)
		}
	}
	names := make([]string, len(o.outs))
	for i, n := range o.outs {
		if !n.absent() {
			names[i] = g.valueName(n)
		}
	}
	attrs, err := attributes(o.Attributes)
	if err != nil {
		return fmt.Errorf("onnxgo: %s: %w", o.Name, err)
	}
	n := m.Graph.Place(nil, fmt.Sprintf("%s_%d", o.Name, o.outs[0].id), ir.Op(o.Name), in, names, attrs...)
	for i, out := range o.outs {
		if v := n.Out(i); v != nil {
			values[out.id] = v
		}
	}
	return nil
}
