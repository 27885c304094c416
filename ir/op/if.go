package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

var ifDef = &Def{
	Name: "If", Doc: "the outputs of one of two subgraphs", Since: 1, Versions: []int{1, 11, 13, 16, 19, 21, 23, 24, 25}, Types: "all",
	In: Exactly(1), Out: AtLeast(1),
	Infer: inferIf,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		yes, err := condition(c.In[0])
		if err != nil {
			return nil, err
		}
		g, err := bodyOf(c.Node, branchName(yes))
		if err != nil {
			return nil, err
		}
		return c.Run(g)
	},
}

func branchName(yes bool) string {
	if yes {
		return "then_branch"
	}
	return "else_branch"
}

// condition returns the value of a bool tensor of one element.
func condition(t *ir.Tensor) (bool, error) {
	if t.Elem() != ir.Bool || t.Len() != 1 {
		return false, fmt.Errorf("the condition is %v, wants one bool", t.Type())
	}
	return t.Bytes()[0] != 0, nil
}

// bodyOf returns a subgraph of the node.
func bodyOf(n *ir.Node, name string) (*ir.Graph, error) {
	if g := n.Subgraph(name); g != nil {
		return g, nil
	}
	return nil, fmt.Errorf("attribute %s is missing", name)
}

func inferIf(c *Call) ([]ir.Type, error) {
	cond := c.Const(0)
	known, taken := false, false
	if cond != nil {
		var err error
		if taken, err = condition(cond); err != nil {
			return nil, err
		}
		known = true
	}
	var types []ir.Type
	for _, yes := range []bool{true, false} {
		name := branchName(yes)
		g, err := bodyOf(c.Node, name)
		if err != nil {
			return nil, err
		}
		if len(g.Outputs()) != c.Node.NumOut() {
			return nil, fmt.Errorf("%s has %d outputs, the node %d", name, len(g.Outputs()), c.Node.NumOut())
		}
		if len(g.Inputs()) != 0 {
			return nil, fmt.Errorf("%s has %d inputs, wants none", name, len(g.Inputs()))
		}
		out, err := c.InferGraph(g, nil)
		switch {
		case known && yes != taken:
			// never run: exporters leave branches that contradict the shapes at hand
		case err != nil:
			return nil, fmt.Errorf("%s: %w", name, err)
		case types == nil:
			types = out
			if known {
				for i, o := range g.Outputs() {
					c.keep(i, o.Value)
				}
			}
		default:
			for i := range types {
				if types[i], err = joinTypes(types[i], out[i]); err != nil {
					return nil, fmt.Errorf("output %d of the branches: %w", i, err)
				}
			}
		}
	}
	return types, nil
}

// joinTypes returns what holds of a value that is of either type; another element type is an error.
func joinTypes(a, b ir.Type) (ir.Type, error) {
	if !a.Known() || !b.Known() {
		return ir.Type{}, nil
	}
	if a.Kind != b.Kind || a.Elem != b.Elem && a.Elem != ir.Undefined && b.Elem != ir.Undefined {
		return a, fmt.Errorf("one is %v, the other %v", a, b)
	}
	if a.Kind != ir.TensorKind {
		return a, nil
	}
	out := ir.Type{}
	if a.Elem == b.Elem {
		out.Elem = a.Elem
	}
	if !a.Ranked || !b.Ranked || len(a.Dims) != len(b.Dims) {
		return out, nil
	}
	out.Ranked = true
	out.Dims = cloneDims(a.Dims)
	for i := range out.Dims {
		if !out.Dims[i].Same(b.Dims[i]) {
			out.Dims[i] = ir.UnknownDim
		}
	}
	return out, nil
}

// sameType reports whether two tensor types say the same.
func sameType(a, b ir.Type) bool {
	if a.Kind != b.Kind || a.Elem != b.Elem || a.Ranked != b.Ranked || len(a.Dims) != len(b.Dims) {
		return false
	}
	for i := range a.Dims {
		if a.Dims[i].Size != b.Dims[i].Size || a.Dims[i].Name != b.Dims[i].Name {
			return false
		}
	}
	return true
}
