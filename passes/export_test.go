package passes

import (
	"slices"

	"github.com/qsimc/qsimc/ir"
)

// AsMade returns what a constant holds in the order that it had before rptq has run, and whether rptq has changed it.
func (u *Unit) AsMade(v *ir.Value) (t *ir.Tensor, permuted bool, err error) {
	t = v.Const()
	order := u.orderOf(v)
	for _, m := range slices.Backward(order) {
		if t, err = m.inverse().apply(t); err != nil {
			return nil, false, err
		}
	}
	return t, len(order) > 0, nil
}
