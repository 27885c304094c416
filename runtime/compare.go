package runtime

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// Difference accumulates how far one value is from another over any number of samples.
type Difference struct {
	Signal, Noise     float64 // Σx² of the reference, Σ(x−y)²
	dot, norm, normed float64
	MaxAbs            float64
	Count             int
}

// Add takes one sample of the reference and of what is compared with it.
func (d *Difference) Add(reference, other *ir.Tensor) error {
	x, ok1 := reference.Float32s()
	y, ok2 := other.Float32s()
	if !ok1 || !ok2 {
		return fmt.Errorf("%v and %v cannot be compared", reference.Type(), other.Type())
	}
	if len(x) != len(y) {
		return fmt.Errorf("shapes %v and %v differ", reference.Shape(), other.Shape())
	}
	d.Count += len(x)
	if c := kernel.Compare(x, y); c.XX+c.YY <= math.MaxFloat64 { // all are finite
		d.Signal += c.XX
		d.Noise += c.DD
		d.dot += c.XY
		d.norm += c.XX
		d.normed += c.YY
		d.MaxAbs = max(d.MaxAbs, c.MaxD)
		return nil
	}
	for i := range x {
		a, b := float64(x[i]), float64(y[i])
		if a == b || a != a && b != b {
			if !math.IsInf(a, 0) && a == a {
				d.Signal += a * a
				d.dot += a * b
				d.norm += a * a
				d.normed += b * b
			}
			continue
		}
		e := a - b
		d.Signal += a * a
		d.Noise += e * e
		d.dot += a * b
		d.norm += a * a
		d.normed += b * b
		if math.IsNaN(e) {
			e = math.Inf(1)
		}
		d.MaxAbs = max(d.MaxAbs, math.Abs(e))
	}
	return nil
}

// SQNR returns 10·log10(Σx²/Σ(x−y)²) in decibels: +Inf for equal values, −Inf where the reference is zero and y is not.
func (d *Difference) SQNR() float64 {
	if d.Noise == 0 {
		return math.Inf(1)
	}
	return 10 * math.Log10(d.Signal/d.Noise)
}

// Cosine returns the cosine of the angle between the two; 1 for two zeros.
func (d *Difference) Cosine() float64 {
	if d.norm == 0 && d.normed == 0 {
		return 1
	}
	if d.norm == 0 || d.normed == 0 {
		return 0
	}
	return d.dot / math.Sqrt(d.norm*d.normed)
}
