package calib_test

import (
	"math"
	"testing"

	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/runtime/calib"
)

func scheme(t *testing.T, text string) numfmt.Scheme {
	t.Helper()
	s, err := numfmt.ParseScheme(text, numfmt.Input)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func histogram(hi float64, x []float64) *calib.Histogram {
	h := calib.NewHistogram(0, hi)
	h.Sum = make([]float64, len(h.Count))
	for _, v := range x {
		h.Add(v, false)
	}
	return h
}

func near(t *testing.T, what string, got, want, tol float64) {
	t.Helper()
	if math.Abs(got-want) > tol {
		t.Errorf("%s: got %.9g, want %.9g", what, got, want)
	}
}

// METHODS.md §16, example 26: the start bin of the search forbids the good clip points.
func TestGolden26(t *testing.T) {
	t.Parallel()
	var x []float64
	for range 1000 {
		for i := 1; i <= 1000; i++ {
			x = append(x, float64(float32(float64(i)/1000)))
		}
	}
	h := histogram(100, append(x, 100))
	for _, c := range []struct {
		format     string
		start, bin int
		amax, sum  float64
	}{
		{"int4", 128, 128, 6.2744141, 69126.5},
		{"int4", 1, 19, .9521484, 11332.7},
		{"int8", 128, 254, 12.4267578, 0},
		{"int8", 1, 254, 12.4267578, 0},
	} {
		bin, amax, mean, err := h.MSE(scheme(t, c.format), c.start)
		if err != nil {
			t.Fatal(err)
		}
		if bin != c.bin {
			t.Errorf("%s from %d: bin %d, want %d", c.format, c.start, bin, c.bin)
		}
		near(t, c.format+" amax", amax, c.amax, 5e-8)
		if c.sum > 0 {
			near(t, c.format+" error", mean*calib.Bins, c.sum, .05)
		}
	}
}

// METHODS.md §16, example 27.
func TestGolden27(t *testing.T) {
	t.Parallel()
	var x []float64
	for i := 1; i <= 99; i++ {
		x = append(x, float64(float32(float64(i)/100)))
	}
	x = append(x, 10)
	h := histogram(10, x)
	for _, c := range []struct {
		format string
		bin    int
		amax   float64
	}{{"int4", 1613, 7.878418}, {"int8", 2046, 9.992676}} {
		bin, amax, mean, err := h.MSE(scheme(t, c.format), 128)
		if err != nil {
			t.Fatal(err)
		}
		if bin != c.bin {
			t.Errorf("%s: bin %d, want %d", c.format, bin, c.bin)
		}
		near(t, c.format+" amax", amax, c.amax, 5e-7)
		if c.format == "int4" {
			near(t, "objective", mean, .0079605, 5e-8)
		}
	}
	for _, c := range []struct{ p, amax float64 }{{50.5, .5078125}, {90.5, .90820313}, {98.5, .98632813}, {99.9, 9.995117}} {
		near(t, "percentile", h.Percentile(c.p), c.amax, 5e-7)
	}
	near(t, "octav", h.Octav(4), 8.8581315, 5e-7)
}
