package calib_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/calib"
)

// The loss without its constant part ranks weights as the error of the outputs does: differences between candidates are the
// same, channel by channel.
func TestOutputError(t *testing.T) {
	t.Parallel()
	const n, k, rows = 5, 7, 600
	r := rand.New(rand.NewPCG(1, 9))
	normal := func(n int, by float64) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64() * by)
		}
		return v
	}
	o := calib.NewOutputError(-1)
	w := normal(n*k, 1)
	var x, q [][]float32
	for range 2 {
		a := normal(rows*k, 2)
		b := normal(rows*k, 0.1)
		for i := range b {
			b[i] += a[i]
		}
		x, q = append(x, a), append(q, b)
		if err := o.Observe(ir.Floats(b, rows, k), ir.Floats(a, rows, k)); err != nil {
			t.Fatal(err)
		}
	}
	l, err := o.Loss(0, w, n)
	if err != nil {
		t.Fatal(err)
	}
	exact := func(delta []float32) []float64 {
		out := make([]float64, n)
		for s := range x {
			for i := range rows {
				for c := range n {
					d := 0.0
					for j := range k {
						d += float64(q[s][i*k+j])*float64(w[c*k+j]+delta[c*k+j]) - float64(x[s][i*k+j])*float64(w[c*k+j])
					}
					out[c] += d * d
				}
			}
		}
		return out
	}
	zero := exact(make([]float32, n*k))
	for range 3 {
		delta := normal(n*k, 0.2)
		got, want := l.Of(delta), exact(delta)
		for c := range got {
			if d := want[c] - zero[c]; math.Abs(got[c]-d) > 1e-4*math.Abs(d)+1e-3 {
				t.Errorf("channel %d: %v, want %v", c, got[c], d)
			}
		}
	}
	if err := o.Observe(ir.Floats(normal(2*k, 1), 2, k), ir.Floats(normal(k, 1), 1, k)); err == nil {
		t.Error("operands of different lengths were taken")
	}
}
