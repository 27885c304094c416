package numfmt_test

import (
	"fmt"
	"testing"

	"github.com/qsimc/qsimc/ir/numfmt"
)

// BenchmarkApply quantizes a 1024×1024 tensor, K its last axis for activations and its first for weights.
func BenchmarkApply(b *testing.B) {
	for _, tt := range []struct {
		scheme string
		role   numfmt.Role
	}{
		{"int8", numfmt.Input}, {"uint8", numfmt.Input}, {"int8/dynamic", numfmt.Input}, {"int8/token", numfmt.Input}, {"int4/abfp:64", numfmt.Input},
		{"e4m3/abfp:64", numfmt.Input}, {"mxfp4", numfmt.Input}, {"nvfp4", numfmt.Input}, {"int8/axis=out", numfmt.Weight},
		{"e4m3/axis=out", numfmt.Weight}, {"int4/abfp:64", numfmt.Weight}, {"e2m1/block=32", numfmt.Weight}, {"nf4/block=64", numfmt.Weight},
		{"uint4/block=64", numfmt.Weight}, {"qpt-e4m3", numfmt.Input}, {"bf16", numfmt.Output},
	} {
		s, err := numfmt.ParseScheme(tt.scheme, tt.role)
		if err != nil {
			b.Fatal(err)
		}
		ax := numfmt.Axes{K: 1, Out: numfmt.NoAxis}
		if tt.role == numfmt.Weight {
			ax = numfmt.Axes{K: 0, Out: 1}
		}
		l, err := s.Layout([]int{1024, 1024}, ax)
		if err != nil {
			b.Fatal(err)
		}
		x := sample(l, 1)
		y := make([]float32, len(x))
		p, err := s.FitData(x, l)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("%s/%s", tt.role, tt.scheme), func(b *testing.B) {
			b.SetBytes(int64(4 * len(x)))
			b.ReportAllocs()
			for b.Loop() {
				if s.Dynamic {
					err = s.ApplyDynamic(y, x, l)
				} else {
					err = s.Apply(y, x, l, p)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRoundEach rounds a column of 1024 rows, each with its own scale, as GPTQ does.
func BenchmarkRoundEach(b *testing.B) {
	for _, text := range []string{"int4", "uint4", "e2m1", "nf4"} {
		s, err := numfmt.ParseScheme(text+"/axis=out", numfmt.Weight)
		if err != nil {
			b.Fatal(err)
		}
		l, err := s.Layout([]int{1024, 32}, numfmt.Axes{K: 1, Out: 0})
		if err != nil {
			b.Fatal(err)
		}
		x := sample(l, 1)
		p, err := s.FitData(x, l)
		if err != nil {
			b.Fatal(err)
		}
		col := x[:1024]
		out := make([]float32, 1024)
		b.Run(text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := s.RoundEach(out, col, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
