package passes

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/qsimc/qsimc/runtime/calib"
)

// bounds is a calibrated range for each group.
type bounds struct{ lo, hi []float32 }

// cacheKey names all that a calibrated range depends on: the model's file and the samples, what earlier passes did by which
// policy, the calibrator, and the value with the scheme that its observer served.
func (in *inserter) cacheKey(q *quantizer, m calib.Method) string {
	var before []string
	for _, p := range in.u.Report.Passes {
		if p != in.u.entry {
			before = append(before, p.Name+" "+p.Options)
		}
	}
	text := strings.Join([]string{in.u.CacheKey, fmt.Sprint(in.u.Seed), strings.Join(before, "; "), in.u.Policy.String(), m.String(),
		q.key.graph.Name, q.key.value.Name, q.key.scheme.String(), fmt.Sprint(q.axis)}, "\x00")
	return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
}

// cached returns the range that an earlier run stored, nil without.
func (in *inserter) cached(q *quantizer, m calib.Method) *bounds {
	if in.u.Cache == nil {
		return nil
	}
	lo, hi, ok := in.u.Cache.Get(in.cacheKey(q, m))
	if !ok {
		return nil
	}
	return &bounds{lo, hi}
}

// cache stores a range for later runs.
func (in *inserter) cache(q *quantizer, m calib.Method, lo, hi []float32) {
	if in.u.Cache != nil {
		in.u.Cache.Put(in.cacheKey(q, m), lo, hi)
	}
}
