package sweep

import (
	"cmp"
	"slices"
)

// frontier returns the rows that no other beats in one of cost and metric without being worse in the other, by cost.
func frontier(set []*Row, cost func(*Row) float64) []*Row {
	order := slices.Clone(set)
	better := func(a, b float64) bool {
		if higher(set[0].Metric) {
			return a > b
		}
		return a < b
	}
	slices.SortStableFunc(order, func(a, b *Row) int {
		if c := cmp.Compare(cost(a), cost(b)); c != 0 {
			return c
		}
		if higher(a.Metric) {
			return cmp.Compare(b.Value, a.Value)
		}
		return cmp.Compare(a.Value, b.Value)
	})
	var out []*Row
	for _, r := range order {
		if len(out) == 0 || better(r.Value, out[len(out)-1].Value) {
			out = append(out, r)
		}
	}
	return out
}
