package passes

import (
	"context"

	"github.com/qsimc/qsimc/ir/op"
)

// Inline writes functions out.
var Inline = Define("inline", "writes model-local functions out: every call becomes the nodes of the function's body\n\n"+
	"Products inside functions become sites only then: a function's body is shared by all its calls.",
	struct{}{}, func(_ context.Context, u *Unit, _ struct{}) error {
		if len(u.Model.Functions) == 0 {
			return nil
		}
		if u.DryRun {
			u.Model, _ = u.Model.Clone()
		}
		calls, err := op.Inline(u.Model)
		u.entry.Edits += calls
		return err
	})
