package conform

import (
	"bytes"
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
)

// Tolerance bounds a difference: |got − want| ≤ ATol + RTol·|want|. Floor, if set, raises ATol to that share of the
// largest finite |want| of the tensor.
type Tolerance struct{ RTol, ATol, Floor float64 }

// For returns the tolerance CLI.md states for a tensor of the given type out of the given graph, before overrides.
func For(elem ir.DType, g *ir.Graph) Tolerance {
	t := Tolerance{RTol: 1e-3, ATol: 1e-5}
	if elem == ir.Float16 || elem == ir.BFloat16 {
		t = Tolerance{RTol: 1e-2, ATol: 1e-2}
	}
	if g != nil && g.Len() > 50 {
		t.Floor = 1e-4
		for n := range g.Model().Nodes() {
			switch n.Op.Type {
			case "LSTM", "GRU", "RNN", "Loop", "Scan":
				t.Floor = 1e-3
			}
		}
	}
	return t
}

// Compare reports the first thing in which got is not want: element type, shape, or an element outside the tolerance. NaN
// equals NaN, integers, bools and strings are exact, floats of 8 bits and fewer may differ by one code.
func Compare(got, want *ir.Tensor, tol Tolerance) error {
	if got.Elem() != want.Elem() {
		return fmt.Errorf("element type %v, wanted %v", got.Elem(), want.Elem())
	}
	if !sameShape(got.Shape(), want.Shape()) {
		return fmt.Errorf("shape %v, wanted %v", got.Shape(), want.Shape())
	}
	if err := want.Load(); err != nil {
		return err
	}
	switch e := want.Elem(); e {
	case ir.String:
		for i, s := range want.Strings() {
			if !bytes.Equal(s, got.Strings()[i]) {
				return fmt.Errorf("element %d is %q, wanted %q", i, got.Strings()[i], s)
			}
		}
		return nil
	case ir.Float64:
		g, w := ir.Data[float64](got), ir.Data[float64](want)
		return tol.each(len(w), func(i int) (float64, float64) { return g[i], w[i] })
	case ir.Float32, ir.Float16, ir.BFloat16:
		g, _ := got.Float32s()
		w, _ := want.Float32s()
		return tol.each(len(w), func(i int) (float64, float64) { return float64(g[i]), float64(w[i]) })
	case ir.Complex64, ir.Complex128:
		return fmt.Errorf("%v tensors are not compared", e)
	default:
		return codes(got, want)
	}
}

func (tol Tolerance) each(n int, at func(int) (got, want float64)) error {
	atol := tol.ATol
	if tol.Floor > 0 {
		peak := 0.0
		for i := range n {
			if _, w := at(i); !math.IsInf(w, 0) && !math.IsNaN(w) {
				peak = max(peak, math.Abs(w))
			}
		}
		atol = max(atol, tol.Floor*peak)
	}
	worst, where, bad := 0.0, 0, 0
	for i := range n {
		g, w := at(i)
		if g == w || math.IsNaN(g) && math.IsNaN(w) {
			continue
		}
		if d := math.Abs(g - w); !(d <= atol+tol.RTol*math.Abs(w)) || math.IsInf(w, 0) {
			bad++
			if math.IsNaN(d) {
				d = math.Inf(1)
			}
			if d > worst || bad == 1 {
				worst, where = d, i
			}
		}
	}
	if bad > 0 {
		g, w := at(where)
		return fmt.Errorf("%d of %d elements differ, most at %d: %v, wanted %v (tolerance %.3g + %.3g·|wanted|)", bad, n, where, g, w, atol, tol.RTol)
	}
	return nil
}

// codes compares the stored codes of integer, bool and small float tensors.
func codes(got, want *ir.Tensor) error {
	g, w := got.Bytes(), want.Bytes()
	if bytes.Equal(g, w) {
		return nil
	}
	bits := want.Elem().Bits()
	small := want.Elem().IsFloat()
	for i := range want.Len() {
		a, b := code(g, i, bits), code(w, i, bits)
		if a == b || small && nextTo(a, b, bits, want.Elem() == ir.Float8E8M0) {
			continue
		}
		return fmt.Errorf("element %d of %d has code %#x, wanted %#x", i, want.Len(), a, b)
	}
	return nil
}

func code(data []byte, i, bits int) uint64 {
	if bits < 8 {
		at := i * bits
		return uint64(data[at/8]>>(at%8)) & (1<<bits - 1)
	}
	var v uint64
	for k := bits/8 - 1; k >= 0; k-- {
		v = v<<8 | uint64(data[i*bits/8+k])
	}
	return v
}

// nextTo reports whether two codes of a sign-magnitude float are the same value or neighbours.
func nextTo(a, b uint64, bits int, unsigned bool) bool {
	order := func(c uint64) int {
		if unsigned {
			return int(c)
		}
		mag := int(c & (1<<(bits-1) - 1))
		if c>>(bits-1) != 0 {
			return -mag
		}
		return mag
	}
	d := order(a) - order(b)
	return d >= -1 && d <= 1
}

func sameShape(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
