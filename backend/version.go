package backend

import "github.com/qsimc/qsimc/ir"

// needed returns the oldest IR version that has everything the model uses. It does not follow the opset: files pair new
// opsets with older IR versions, and what they came with is kept. (Who raises an opset raises the version: ir.VersionFor.)
func needed(m *ir.Model) int {
	need := 3
	atLeast := func(v int) { need = max(need, v) }
	for _, v := range m.Graph.Consts() {
		if !v.IsInput() {
			atLeast(4) // until then every initializer was an input
			break
		}
	}
	for _, f := range m.Functions {
		atLeast(8)
		if len(f.Defaults) > 0 {
			atLeast(9)
		}
		if f.Overload != "" {
			atLeast(10)
		}
		for _, a := range f.Defaults {
			attrNeeds(&a, atLeast)
		}
	}
	for g := range m.Graphs() {
		if len(g.Sparse) > 0 {
			atLeast(5)
		}
		for v := range g.Values() {
			typeNeeds(v.Type, atLeast)
		}
		for n := range g.Nodes() {
			if n.Op.Overload != "" {
				atLeast(10)
			}
			for i := range n.Attrs {
				attrNeeds(&n.Attrs[i], atLeast)
			}
		}
	}
	return need
}

func attrNeeds(a *ir.Attr, atLeast func(int)) {
	if a.T != nil {
		typeNeeds(a.T.Type(), atLeast)
	}
	for _, t := range a.Tensors {
		typeNeeds(t.Type(), atLeast)
	}
	for _, t := range a.Types {
		typeNeeds(t, atLeast)
	}
	if len(a.Sparse) > 0 {
		atLeast(5)
	}
}

// typeNeeds raises the version to that which brought the element type or the kind of type.
func typeNeeds(t ir.Type, atLeast func(int)) {
	switch t.Elem {
	case ir.Float8E4M3FN, ir.Float8E4M3FNUZ, ir.Float8E5M2, ir.Float8E5M2FNUZ:
		atLeast(9)
	case ir.Uint4, ir.Int4:
		atLeast(10)
	case ir.Float4E2M1:
		atLeast(11)
	case ir.Float8E8M0:
		atLeast(12)
	case ir.Uint2, ir.Int2:
		atLeast(13)
	case ir.Float6E2M3, ir.Float6E3M2:
		atLeast(14)
	}
	if t.Kind == ir.OptionalKind {
		atLeast(8)
	}
	if t.Of != nil {
		typeNeeds(*t.Of, atLeast)
	}
}
