package passes

import (
	"context"
	"slices"

	"github.com/qsimc/qsimc/ir"
)

// Prune removes what no output needs.
var Prune = Define("prune", "removes what no output depends on: nodes, constants, and functions that nothing calls",
	struct{}{}, func(_ context.Context, u *Unit, _ struct{}) error {
		if u.DryRun {
			return nil
		}
		u.entry.Edits += u.Model.Graph.Prune() + pruneFunctions(u.Model)
		return nil
	})

// pruneFunctions removes the model-local functions that are reachable from no graph, and returns their number.
func pruneFunctions(m *ir.Model) int {
	called := map[*ir.Function]bool{}
	var visit func(g *ir.Graph)
	visit = func(g *ir.Graph) {
		for n := range g.Nodes() {
			if f := m.Function(n.Op); f != nil && !called[f] {
				called[f] = true
				visit(f.Body)
			}
			for _, sub := range n.Subgraphs() {
				visit(sub)
			}
		}
	}
	visit(m.Graph)
	before := len(m.Functions)
	m.Functions = slices.DeleteFunc(m.Functions, func(f *ir.Function) bool { return !called[f] })
	return before - len(m.Functions)
}
