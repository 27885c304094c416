package op_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir/op"
)

// TestTable checks every row: named once, documented, its versions rising from the first one, its upgrades in order, at
// versions it has.
func TestTable(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, d := range op.Table() {
		id := d.ID().String()
		if seen[id] {
			t.Errorf("%s has two rows", id)
		}
		seen[id] = true
		if got, ok := op.LookupID(d.ID()); !ok || got != d {
			t.Errorf("%s is not found by its id", id)
		}
		if d.Doc == "" || strings.HasSuffix(d.Doc, ".") || strings.Contains(d.Doc, "\n") {
			t.Errorf("%s: documentation %q, want one line without full stop", id, d.Doc)
		}
		if len(d.Versions) == 0 || d.Versions[0] != d.Since {
			t.Errorf("%s: versions %v, since %d", id, d.Versions, d.Since)
		}
		if !slices.IsSorted(d.Versions) || len(slices.Compact(slices.Clone(d.Versions))) != len(d.Versions) {
			t.Errorf("%s: versions %v do not rise", id, d.Versions)
		}
		if d.Domain == "" && len(d.Versions) > 0 && d.Versions[len(d.Versions)-1] > op.Canonical {
			t.Errorf("%s: version %d is beyond the canonical opset %d", id, d.Versions[len(d.Versions)-1], op.Canonical)
		}
		if d.Types == "" && d.Eval != nil {
			t.Errorf("%s: does not say which types it runs", id)
		}
		if d.Infer == nil {
			t.Errorf("%s: no inference", id)
		}
		for i, u := range d.Upgrades {
			if u.Apply == nil || i > 0 && u.To < d.Upgrades[i-1].To {
				t.Errorf("%s: upgrade %d, to %d, is out of order or empty", id, i, u.To)
			}
			if !slices.Contains(d.Versions, u.To) && d.Domain == "" {
				t.Errorf("%s: upgrade to %d, which is none of its versions %v", id, u.To, d.Versions)
			}
		}
	}
}
