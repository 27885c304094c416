package numfmt_test

import (
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir/numfmt"
)

func TestParseScheme(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text          string
		role          numfmt.Role
		normal, text2 string // String and Text(role)
	}{
		{"none", numfmt.Weight, "none", "none"},
		{"int8", numfmt.Input, "int8", "int8"},
		{"int8/tensor/static/sym", numfmt.Input, "int8", "int8"},
		{"int8/axis=out", numfmt.Weight, "int8/axis=out", "int8/axis=out"},
		{"int8/axis=-1/full", numfmt.Input, "int8/axis=-1/full", "int8/axis=-1/full"},
		{"uint8", numfmt.Input, "uint8", "uint8"},
		{"uint8/sym", numfmt.Input, "uint8/sym", "uint8/sym"},
		{"uint8/narrow7", numfmt.Input, "uint8/narrow7", "uint8/narrow7"},
		{"int8/asym/full", numfmt.Input, "int8/asym", "int8/asym"},
		{"int4/block=64", numfmt.Weight, "int4/block=64/static", "int4/block=64"},
		{"int4/block=64", numfmt.Input, "int4/block=64/dynamic", "int4/block=64"},
		{"int4/abfp:64", numfmt.Input, "int4/block=64/dynamic/scale=bf16", "int4/block=64/scale=bf16"},
		{"e4m3/abfp:64", numfmt.Weight, "e4m3/block=64/static/scale=bf16", "e4m3/block=64/scale=bf16"},
		{"int8/token", numfmt.Input, "int8/token/dynamic", "int8/token"},
		{"int8/dynamic", numfmt.Output, "int8/dynamic", "int8/dynamic"},
		{"mxfp4", numfmt.Weight, "mxfp4/static", "mxfp4"},
		{"mxfp4/block=16/mx=ceil", numfmt.Input, "mxfp4/block=16/dynamic/mx=ceil", "mxfp4/block=16/mx=ceil"},
		{"nvfp4", numfmt.Input, "nvfp4/dynamic", "nvfp4"},
		{"fp16", numfmt.Output, "fp16", "fp16"},
		{"qpt-e4m3", numfmt.Weight, "qpt-e4m3", "qpt-e4m3"},
		{"qpt-e4m3/scale=fp32/axis=0", numfmt.Weight, "qpt-e4m3/axis=0/scale=fp32", "qpt-e4m3/axis=0/scale=fp32"},
		{"e4m3/scale=none", numfmt.Input, "e4m3/scale=none", "e4m3/scale=none"},
		{"int4/scale2=4/block=16/min1", numfmt.Weight, "int4/block=16/static/scale2=4/min1", "int4/block=16/scale2=4/min1"},
		{"int8/arith=trt", numfmt.Input, "int8/arith=trt", "int8/arith=trt"},
		{"e2m1b1all", numfmt.Weight, "e2m1", "e2m1"},
		{"e4m3b11fnuz/token", numfmt.Input, "e4m3b11fnuz/token/dynamic", "e4m3b11fnuz/token"},
	} {
		s, err := numfmt.ParseScheme(tt.text, tt.role)
		if err != nil {
			t.Error(err)
			continue
		}
		if s.String() != tt.normal || s.Text(tt.role) != tt.text2 {
			t.Errorf("%s (%s): got %q and %q, want %q and %q", tt.text, tt.role, s, s.Text(tt.role), tt.normal, tt.text2)
		}
	}
}

func TestParseSchemeErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		role numfmt.Role
		want string
	}{
		{"", numfmt.Input, "want a format first"},
		{"none/axis=1", numfmt.Input, "none alone"},
		{"int17", numfmt.Input, "near names: int7"},
		{"mxpf4", numfmt.Input, "near names: mxfp4"},
		{"e9m1", numfmt.Input, "want 1 to 8 exponent bits"},
		{"e1m2ieee", numfmt.Input, "nothing below infinity"},
		{"e8m3all", numfmt.Input, "do not fit float32"},
		{"e8m0", numfmt.Input, "for scales only"},
		{"int8/dynamic", numfmt.Weight, "static"},
		{"int8/token", numfmt.Weight, "axis=out"},
		{"int8/axis=x", numfmt.Weight, "axis=out or an axis number"},
		{"int8/block=0", numfmt.Weight, "from 1 to"},
		{"int8/blok=8", numfmt.Weight, "unknown part"},
		{"int8/block=8/token", numfmt.Input, "both set the granularity"},
		{"int8/abfp:8/scale=fp32", numfmt.Input, "both set the scale type"},
		{"e4m3/asym", numfmt.Input, "no zero point"},
		{"uint8/full", numfmt.Input, "always uses all"},
		{"int4/narrow7", numfmt.Input, "int8 and uint8"},
		{"fp16/scale=fp32", numfmt.Input, "has no scale"},
		{"fp16/block=8", numfmt.Input, "no granularity"},
		{"mxfp4/scale=fp32", numfmt.Input, "fixes its scales"},
		{"mxfp4/token", numfmt.Input, "scaled by blocks"},
		{"int8/mx=ceil", numfmt.Input, "e8m0"},
		{"int8/scale2=4", numfmt.Input, "more than one scale"},
		{"int8/block=8/min1", numfmt.Input, "second-level"},
		{"uint8/arith=trt", numfmt.Input, "symmetric integers"},
		{"uint8/scale=e4m3", numfmt.Input, "zero point"},
		{"nf4/scale=none", numfmt.Input, "needs a scale"},
		{"ternary/scale=bf16", numfmt.Weight, "fp32 scales"},
		{"int8/arith=onnx", numfmt.Weight, "arith=trt"},
	} {
		s, err := numfmt.ParseScheme(tt.text, tt.role)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, %v, want an error with %q", tt.text, s, err, tt.want)
		}
	}
}

// FuzzScheme parses any text; what parses has normal forms that read back, and quantizes a small tensor.
func FuzzScheme(f *testing.F) {
	for _, fm := range numfmt.All() {
		f.Add(fm.Name, byte(0))
	}
	for _, s := range everyScheme {
		f.Add(s, byte(1))
	}
	f.Add("e4m3b11fnuz/axis=-1/static", byte(2))
	f.Add("int8/block=8/asym/scale=bf16up/dynamic", byte(1))
	f.Fuzz(func(t *testing.T, text string, r byte) {
		role := numfmt.Role(r % 3)
		s, err := numfmt.ParseScheme(text, role)
		if err != nil {
			return
		}
		for _, again := range []string{s.String(), s.Text(role)} {
			if b, err := numfmt.ParseScheme(again, role); err != nil || b != s {
				t.Fatalf("%q: normal form %q reads as %+v, %v, want %+v", text, again, b, err, s)
			}
		}
		x := []float32{1, -2, .5, 0, 3, -4, 100, -.01, 7, 1e-9, 2, 2}
		l, err := s.Layout([]int{3, 4}, numfmt.Axes{K: 1, Out: 0})
		if err != nil {
			return // an axis beyond this tensor
		}
		p, err := s.FitData(x, l)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if err := s.Apply(make([]float32, len(x)), x, l, p); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
