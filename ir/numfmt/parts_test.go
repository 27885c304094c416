package numfmt_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/qsimc/qsimc/ir/numfmt"
)

// What is quantized part by part is what is quantized at once, for every way to lay scales out.
func TestParts(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"int8", "int4/axis=0", "int8/axis=1", "int4/axis=2", "int4/block=8", "uint4/asym/block=16", "int8/asym/axis=1", "e4m3/axis=0"} {
		for _, shape := range [][]int{{50, 7, 3}, {1, 60, 9}, {9, 1, 33}, {64, 40, 1}, {3, 5, 100}} {
			for k := range shape {
				name := fmt.Sprintf("%s %v k=%d", text, shape, k)
				s, err := numfmt.ParseScheme(text, numfmt.Weight)
				if err != nil {
					t.Fatal(err)
				}
				l, err := s.Layout(shape, numfmt.Axes{K: k, Out: (k + 1) % 3})
				if err != nil {
					t.Fatal(name, err)
				}
				x := make([]float32, l.Len())
				for i := range x {
					x[i] = float32((i*7919)%1009)/100 - 4
				}
				p, err := s.FitData(x, l)
				if err != nil {
					t.Fatal(name, err)
				}
				want := make([]float32, len(x))
				if err := s.Apply(want, x, l, p); err != nil {
					t.Fatal(name, err)
				}
				got, at, parts := make([]float32, len(x)), 0, 0
				for part := range l.Parts(p, 16) {
					if part.From != at || part.From%8 != 0 || part.To <= part.From {
						t.Fatalf("%s: part %d to %d behind %d", name, part.From, part.To, at)
					}
					at = part.To
					parts++
					if err := s.Apply(got[part.From:part.To], x[part.From:part.To], part.Layout, part.Params); err != nil {
						t.Fatal(name, err)
					}
				}
				if at != len(x) || !slices.Equal(got, want) {
					t.Errorf("%s: %d parts up to %d of %d differ from the whole", name, parts, at, len(x))
				}
			}
		}
	}
}
