package numfmt_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/qsimc/qsimc/ir/numfmt"
)

// Blocks whose scales all rows share round the same as scales per index of the axis, and the spread scheme has a name.
func TestSpread(t *testing.T) {
	t.Parallel()
	const rows, k = 3, 21
	r := rand.New(rand.NewPCG(3, 4))
	x := make([]float32, rows*k)
	for i := range x {
		x[i] = float32(r.NormFloat64() * math.Exp2(float64(r.IntN(8))))
	}
	for _, text := range []string{
		"int8/block=8", "int4/asym/block=8", "uint4/block=8", "e4m3/abfp:8", "int4/block=8/scale2=4", "mxfp4/block=8", "mxfp6e2m3/block=8", "mxfp6e3m2/block=8",
		"mxfp8e4m3/block=8", "mxfp8e5m2/block=8", "mxint8/block=8", "nvfp4/block=8", "nvint4/block=8", "nf4/block=8", "int8/block=64",
	} {
		s, err := numfmt.ParseScheme(text+"/static", numfmt.Input)
		if err != nil {
			t.Fatal(err)
		}
		n := (k + s.Block - 1) / s.Block
		lo, hi := make([]float32, n), make([]float32, n)
		for i, v := range x {
			lo[i%k/s.Block], hi[i%k/s.Block] = min(lo[i%k/s.Block], v), max(hi[i%k/s.Block], v)
		}
		p, err := s.Fit(lo, hi)
		if err != nil {
			t.Fatal(err)
		}
		spread, q := s.Spread(p, 1, k)
		if back, err := numfmt.ParseScheme(spread.String(), numfmt.Input); err != nil || back != spread {
			t.Errorf("%s spreads to %s, which reads as %v, %v", s, spread, back, err)
		}
		l, err := spread.Layout([]int{rows, k}, numfmt.Axes{K: numfmt.NoAxis, Out: numfmt.NoAxis})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]float32, len(x))
		if err := spread.Apply(got, x, l, q); err != nil {
			t.Fatal(err)
		}
		want := make([]float32, len(x))
		for i := range rows { // a row alone is a tensor with blocks
			one, err := s.Layout([]int{k}, numfmt.Axes{K: 0, Out: numfmt.NoAxis})
			if err == nil {
				err = s.Apply(want[i*k:(i+1)*k], x[i*k:(i+1)*k], one, p)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", s, got, want)
		}
	}
}
