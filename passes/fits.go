package passes

import (
	"github.com/qsimc/qsimc/ir/numfmt"
)

// Fits keeps what fakequant fitted and calibrated, for further runs on copies of the same model with other policies: what a
// run has fitted the next ones take as it is, and no sample is run again. Values are known by their names, so the copies must
// have the same values of the same names, and the samples and the calibrator must be the same. Reports of such runs lack the
// measures of what was not fitted anew. It is not for concurrent use.
type Fits struct{ by map[fitsKey]fit }

type fitsKey struct {
	value  string
	scheme numfmt.Scheme
	axes   numfmt.Axes
	role   numfmt.Role
}

type fit struct {
	params numfmt.Params
	amax   float32
	axis   int
	clip   bool
	drop   string
}

func (q *quantizer) fitsKey() fitsKey {
	return fitsKey{q.key.value.Name, q.key.scheme, q.key.axes, q.role}
}

// take fills in what is kept of a quantizer.
func (f *Fits) take(q *quantizer) bool {
	if f == nil {
		return false
	}
	v, ok := f.by[q.fitsKey()]
	if ok {
		q.params, q.amax, q.axis, q.clip, q.drop = v.params, v.amax, v.axis, v.clip, v.drop
	}
	return ok
}

// keep stores what was fitted.
func (f *Fits) keep(q *quantizer) {
	if f == nil {
		return
	}
	if f.by == nil {
		f.by = map[fitsKey]fit{}
	}
	f.by[q.fitsKey()] = fit{q.params, q.amax, q.axis, q.clip, q.drop}
}
