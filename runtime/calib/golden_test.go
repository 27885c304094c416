package calib_test

import (
	"math"
	"slices"
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
		h.Add(v)
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
	// the same through observers; INT-FP-QSim's dynamic percentile sorts
	values := make([]float32, len(x))
	for i, v := range x {
		values[i] = float32(v)
	}
	for _, c := range []struct {
		method, format string
		amax           float64
	}{
		{"mse", "int4", 7.878418}, {"mse", "int8", 9.992676}, {"percentile p=90.5", "int8", .90820313}, {"octav", "int4", 8.8581315},
		{"percentile p=99 hist=none", "int8", 5.495},
	} {
		_, hi, err := observe(t, calib.NewRange(method(t, c.method), scheme(t, c.format), -1), values)
		if err != nil {
			t.Fatal(err)
		}
		near(t, c.method+" "+c.format, float64(hi[0]), c.amax, 5e-7)
	}
}

// What example 26 says of the recommended search: no start bin stands in its way, and the raw values decide.
func TestMSEExact(t *testing.T) {
	t.Parallel()
	var x []float32
	for range 5 {
		for i := 1; i <= 1000; i++ {
			x = append(x, float32(i)/1000)
		}
	}
	x = append(x, 4, 2e-5)
	for _, format := range []string{"int4", "int8", "uint4", "int3/asym", "e2m1", "nf4"} {
		s := scheme(t, format)
		lo, hi, err := observe(t, calib.NewRange(method(t, "mse-exact"), s, -1), x[:2000], x[2000:])
		if err != nil {
			t.Fatal(err)
		}
		if !s.Affine && lo[0] != -hi[0] {
			t.Errorf("%s: [%v, %v]", format, lo, hi)
		}
		least := squared(t, s, x, lo[0], hi[0])
		for k := range 300 { // no other range is better by more than the resolution of the search
			a := 4 * math.Exp2(-float64(k)/60)
			l := -a
			if s.Affine {
				l = 0
			}
			if e := squared(t, s, x, float32(l), float32(a)); e < least*0.999 {
				t.Errorf("%s: range of %v has error %v, %v has %v", format, hi[0], least, a, e)
				break
			}
		}
	}
	if _, hi, _ := observe(t, calib.NewRange(method(t, "mse-exact"), scheme(t, "int4"), -1), x); hi[0] > 2 {
		t.Errorf("int4 clips at %v, most values are below 1", hi[0])
	}
}

func squared(t *testing.T, s numfmt.Scheme, x []float32, lo, hi float32) float64 {
	t.Helper()
	p, err := s.Fit([]float32{lo}, []float32{hi})
	if err != nil {
		t.Fatal(err)
	}
	q := make([]float32, len(x))
	if err := s.RoundEach(q, x, repeated(p, len(x))); err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for i := range x {
		d := float64(q[i]) - float64(x[i])
		sum += d * d
	}
	return sum
}

func repeated(p numfmt.Params, n int) numfmt.Params {
	out := numfmt.Params{Scale: slices.Repeat(p.Scale, n)}
	if p.Zero != nil {
		out.Zero = slices.Repeat(p.Zero, n)
	}
	return out
}
