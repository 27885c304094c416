package calib_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/runtime/calib"
)

// Every range that is found is as good as any of a fine grid, group by group, by the error that the method names.
func TestWeightBounds(t *testing.T) {
	t.Parallel()
	const rows, cols = 6, 40
	r := rand.New(rand.NewPCG(7, 8))
	x := make([]float32, rows*cols)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	for i := range cols {
		x[i], x[cols+i] = 0, -1.5 // a row of zeros, a constant one
	}
	x[3*cols] = 9
	for _, text := range []string{"int4/axis=out", "int4", "int3/block=16", "int4/axis=out/asym", "e2m1/axis=out", "nf4/block=16", "mxfp4/block=16", "int4/block=16/scale2=4"} {
		s, err := numfmt.ParseScheme(text, numfmt.Weight)
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.Layout([]int{rows, cols}, numfmt.Axes{K: 1, Out: 0})
		if err != nil {
			t.Fatal(err)
		}
		full := func(share float64, power float64) []float64 {
			lo, hi := numfmt.Ranges(x, l)
			for g := range lo {
				lo[g], hi[g] = calib.Shrink(s, lo[g], hi[g], share)
			}
			return groupErrors(t, s, x, l, lo, hi, power)
		}
		for how, power := range map[string]float64{"max": 2, "mse": 2.4, "mse-exact": 2} {
			lo, hi, err := calib.WeightBounds(how, s, x, l)
			if err != nil {
				t.Fatal(err)
			}
			got := groupErrors(t, s, x, l, lo, hi, power)
			if s.TwoLevel() {
				if sum(got) > sum(full(1, power))*1.0001 {
					t.Errorf("%s %s: error %v, whole range %v", text, how, sum(got), sum(full(1, power)))
				}
				continue
			}
			for k := range 80 {
				share := 1 - float64(k)/100
				if how == "max" && k > 0 {
					break
				}
				for g, e := range full(share, power) {
					if got[g] > e*1.002+1e-12 {
						t.Errorf("%s %s: group %d has error %v, %v of its range %v", text, how, g, got[g], share, e)
					}
				}
			}
		}
	}
	s, _ := numfmt.ParseScheme("int4", numfmt.Weight)
	l, _ := s.Layout([]int{2}, numfmt.Axes{K: numfmt.NoAxis, Out: numfmt.NoAxis})
	if _, _, err := calib.WeightBounds("mse", s, []float32{1, float32(math.NaN())}, l); err == nil {
		t.Error("NaN was taken")
	}
	if _, _, err := calib.WeightBounds("best", s, []float32{1, 2}, l); err == nil {
		t.Error("an unknown method was taken")
	}
}

func sum(v []float64) float64 {
	s := 0.0
	for _, x := range v {
		s += x
	}
	return s
}

func groupErrors(t *testing.T, s numfmt.Scheme, x []float32, l numfmt.Layout, lo, hi []float32, power float64) []float64 {
	t.Helper()
	p, err := s.FitLayout(lo, hi, l)
	if err != nil {
		t.Fatal(err)
	}
	q := make([]float32, len(x))
	if err := s.Apply(q, x, l, p); err != nil {
		t.Fatal(err)
	}
	e := make([]float64, l.Groups())
	for i := range x {
		e[l.GroupOf(i)] += math.Pow(math.Abs(float64(q[i])-float64(x[i])), power)
	}
	return e
}
