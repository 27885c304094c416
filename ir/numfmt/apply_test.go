package numfmt_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// everyScheme has each format and each way to scale at least once; granularities are appended by the tests.
var everyScheme = []string{
	"int2", "int3", "int4", "int4/full", "int8", "int8/narrow7", "int8/asym", "int12", "int16", "uint2", "uint4", "uint8", "uint8/sym",
	"uint8/narrow7", "uint16", "int8/scale=bf16", "int8/scale=bf16up", "int8/scale=pow2", "int8/scale=e8m0", "int4/scale=e4m3",
	"int4/scale=ue5m3", "uint8/scale=bf16", "uint8/scale=pow2", "int8/arith=trt", "e4m3", "e5m2", "e4m3fnuz", "e5m2fnuz", "e2m1", "e1m2",
	"e3m0", "e2m3", "e3m2", "e3m4", "e2m1/scale=bf16", "e4m3/scale=e8m0/mx=ceil", "e4m3/scale=e8m0/mx=even", "e2m1/scale=ue4m3", "nf4",
	"nf4/scale=bf16", "flint4", "bitmod4", "bitmod3", "ternary", "ternary-median", "qpt-e4m3/scale=fp32",
}

var granularities = []string{"", "/axis=0", "/axis=1", "/axis=-1", "/block=3", "/block=16", "/block=100"}

// sites calls f with every scheme and granularity on tensors of rank 1 to 4 with a K axis at each place.
func sites(t *testing.T, f func(t *testing.T, s numfmt.Scheme, l numfmt.Layout)) {
	t.Helper()
	schemes := append([]string{"fp16", "bf16", "e4m3/scale=none", "qpt-e4m3", "mxfp4", "mxfp6e2m3", "mxfp6e3m2", "mxfp8e4m3", "mxfp8e5m2", "mxint8",
		"mxint8/mx=even", "nvfp4", "nvint4"}, everyScheme...)
	for _, text := range schemes {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			for _, g := range granularities {
				for _, extra := range []string{"", "/scale2=4", "/scale2=6/min1"} {
					s, err := numfmt.ParseScheme(text+g+extra, numfmt.Weight)
					if err != nil {
						continue // the combination is refused, TestParseSchemeErrors has why
					}
					for _, tt := range []struct {
						shape []int
						k     int
					}{{[]int{37}, 0}, {[]int{7, 19}, 1}, {[]int{19, 7}, 0}, {[]int{2, 3, 20}, 2}, {[]int{2, 20, 3}, 1}, {[]int{3, 5, 2, 2}, 1}, {[]int{4, 1}, 1}} {
						l, err := s.Layout(tt.shape, numfmt.Axes{K: tt.k, Out: 0})
						if err != nil {
							if len(tt.shape) > 1 {
								t.Error(err)
							}
							continue
						}
						f(t, s, l)
					}
				}
			}
		})
	}
}

// sample is a tensor with an empty, a tiny and an outlying region.
func sample(l numfmt.Layout, seed uint64) []float32 {
	r := rand.New(rand.NewPCG(seed, 7))
	x := make([]float32, l.Len())
	for i := range x {
		x[i] = float32(r.NormFloat64())
		switch i % 11 {
		case 3:
			x[i] = 0
		case 5:
			x[i] *= 30
		case 7:
			x[i] *= 1e-6
		}
		if i >= len(x)/2 && i < len(x)/2+6 {
			x[i] = 0
		}
	}
	return x
}

func fit(t *testing.T, s numfmt.Scheme, l numfmt.Layout, x []float32) numfmt.Params {
	t.Helper()
	p, err := s.FitData(x, l)
	if err != nil {
		t.Fatalf("%s on %v: %v", s, l.Shape, err)
	}
	return p
}

func apply(t *testing.T, s numfmt.Scheme, l numfmt.Layout, p numfmt.Params, x []float32) []float32 {
	t.Helper()
	out := make([]float32, len(x))
	if err := s.Apply(out, x, l, p); err != nil {
		t.Fatalf("%s on %v: %v", s, l.Shape, err)
	}
	return out
}

func equal(t *testing.T, what string, s numfmt.Scheme, l numfmt.Layout, got, want []float32) {
	t.Helper()
	for i := range got {
		if got[i] != want[i] && (got[i] == got[i] || want[i] == want[i]) {
			t.Fatalf("%s on %v: %s: value %d: got %v, want %v", s, l.Shape, what, i, got[i], want[i])
		}
	}
}

// TestPathsAgree holds whole-tensor Apply, in place too, against one value at a time, stored codes against simulation,
// RoundEach against both, and dynamic against fitted parameters.
func TestPathsAgree(t *testing.T) {
	t.Parallel()
	sites(t, func(t *testing.T, s numfmt.Scheme, l numfmt.Layout) {
		x := sample(l, 1)
		p := fit(t, s, l, x)
		got := apply(t, s, l, p, x)

		one := make([]float32, len(x))
		each := numfmt.Params{}
		for i, v := range x {
			g := l.GroupOf(i)
			q, err := s.Quantizer(p, g)
			if err != nil {
				t.Fatal(err)
			}
			one[i] = q.Round(v)
			if s.Scaled() {
				each.Scale = append(each.Scale, p.Scale[g])
				if p.Zero != nil {
					each.Zero = append(each.Zero, p.Zero[g])
				}
			}
		}
		equal(t, "whole against single", s, l, got, one)

		rows := make([]float32, len(x))
		if err := s.RoundEach(rows, x, each); err != nil {
			t.Fatal(err)
		}
		equal(t, "RoundEach", s, l, rows, one)

		in := append([]float32(nil), x...)
		if err := s.Apply(in, in, l, p); err != nil {
			t.Fatal(err)
		}
		equal(t, "in place", s, l, in, one)

		if err := s.ApplyDynamic(rows, x, l); err != nil {
			t.Fatal(err)
		}
		equal(t, "dynamic", s, l, rows, one)

		c, err := s.Encode(x, l, p)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Data) != numfmt.PackedLen(c.Elem, len(x)) {
			t.Fatalf("%s: %d bytes for %d values of %s", s, len(c.Data), len(x), c.Elem)
		}
		if err := s.Decode(rows, c, l, p); err != nil {
			t.Fatal(err)
		}
		equal(t, "decoded", s, l, rows, one)
	})
}

// TestCores: tensors large enough to be shared out come out the same on one core.
func TestCores(t *testing.T) { // not parallel: it limits the cores of the process
	for _, text := range everyScheme {
		for _, g := range []string{"", "/axis=0", "/axis=1", "/block=48"} {
			s, err := numfmt.ParseScheme(text+g, numfmt.Weight)
			if err != nil {
				t.Fatal(err)
			}
			for k := range 2 {
				l, err := s.Layout([]int{60, 300}, numfmt.Axes{K: k, Out: 1 - k})
				if err != nil {
					t.Fatal(err)
				}
				x := sample(l, 9)
				many := apply(t, s, l, fit(t, s, l, x), x)
				before := par.SetLimit(1)
				one := apply(t, s, l, fit(t, s, l, x), x)
				par.SetLimit(before)
				equal(t, "cores", s, l, many, one)
			}
		}
	}
}

// TestIdempotent: quantized values stay as they are, under the parameters they were made with.
func TestIdempotent(t *testing.T) {
	t.Parallel()
	sites(t, func(t *testing.T, s numfmt.Scheme, l numfmt.Layout) {
		if s.Format.Kind == numfmt.Ternary && !s.Format.Median {
			return // divides by another number than it multiplies by
		}
		x := sample(l, 2)
		p := fit(t, s, l, x)
		once := apply(t, s, l, p, x)
		equal(t, "idempotence", s, l, apply(t, s, l, p, once), once)
	})
}

// TestDynamicIdempotent: fitting again to what was quantized by its own maximum changes nothing.
func TestDynamicIdempotent(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"int4", "int8", "int4/scale=bf16", "int8/scale=bf16", "e2m1", "e4m3", "e2m1/scale=bf16", "e1m2/scale=bf16"} {
		s, err := numfmt.ParseScheme(text+"/block=16", numfmt.Input)
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.Layout([]int{64, 40}, numfmt.Axes{K: 1})
		if err != nil {
			t.Fatal(err)
		}
		x := sample(l, 3)
		once, twice := make([]float32, len(x)), make([]float32, len(x))
		if err := s.ApplyDynamic(once, x, l); err != nil {
			t.Fatal(err)
		}
		if err := s.ApplyDynamic(twice, once, l); err != nil {
			t.Fatal(err)
		}
		equal(t, "dynamic idempotence", s, l, twice, once)
	}
}

// TestSymmetric: fq(-x) = -fq(x) for grids that mirror.
func TestSymmetric(t *testing.T) {
	t.Parallel()
	sites(t, func(t *testing.T, s numfmt.Scheme, l numfmt.Layout) {
		f := s.Format
		if !f.Signed || s.Affine || s.Range == numfmt.Full || f.Name == "nf4" || strings.HasPrefix(f.Name, "bitmod") {
			return
		}
		x := sample(l, 4)
		p := fit(t, s, l, x)
		want := apply(t, s, l, p, x)
		neg := make([]float32, len(x))
		for i := range x {
			neg[i], want[i] = -x[i], -want[i]
		}
		equal(t, "symmetry", s, l, apply(t, s, l, p, neg), want)
	})
}

// TestMonotone: a larger value never rounds to a smaller one.
func TestMonotone(t *testing.T) {
	t.Parallel()
	for _, text := range append([]string{"fp16", "bf16"}, everyScheme...) {
		s, err := numfmt.ParseScheme(text, numfmt.Input)
		if err != nil {
			t.Fatal(err)
		}
		const n = 4001
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(i-n/2) / 800
		}
		l, err := s.Layout([]int{n}, numfmt.Axes{})
		if err != nil {
			t.Fatal(err)
		}
		y := apply(t, s, l, fit(t, s, l, x), x)
		for i := 1; i < n; i++ {
			if y[i] < y[i-1] {
				t.Fatalf("%s: %v gives %v but %v gives %v", s, x[i-1], y[i-1], x[i], y[i])
			}
		}
	}
}

// TestPowerOfTwoScaling: fq(c·x) = c·fq(x) for powers of two, where scales have the exponents for it.
func TestPowerOfTwoScaling(t *testing.T) {
	t.Parallel()
	sites(t, func(t *testing.T, s numfmt.Scheme, l numfmt.Layout) {
		if !s.Scaled() || s.Format.Kind == numfmt.Ternary {
			return
		}
		x := sample(l, 5)
		for i := range x {
			if math.Abs(float64(x[i])) < 1e-4 {
				x[i] = 0 // groups that are nearly zero fall below 2^-24 when scaled down
			}
		}
		want := apply(t, s, l, fit(t, s, l, x), x)
		for _, c := range []float32{0x1p-8, 0x1p5} {
			y, z := make([]float32, len(x)), make([]float32, len(x))
			for i := range x {
				y[i], z[i] = c*x[i], c*want[i]
			}
			equal(t, fmt.Sprintf("scaled by %v", c), s, l, apply(t, s, l, fit(t, s, l, y), y), z)
		}
	})
}

// TestBlockIndependence: a block quantizes as it would alone, but for schemes with a tensor-wide second level.
func TestBlockIndependence(t *testing.T) {
	t.Parallel()
	sites(t, func(t *testing.T, s numfmt.Scheme, l numfmt.Layout) {
		if s.Gran != numfmt.PerBlock || s.TwoLevel() {
			return
		}
		x := sample(l, 6)
		want := apply(t, s, l, fit(t, s, l, x), x)
		for g := range l.Groups() {
			var in, out []float32
			for i := range x {
				if l.GroupOf(i) == g {
					in, out = append(in, x[i]), append(out, want[i])
				}
			}
			alone, err := s.Layout([]int{len(in)}, numfmt.Axes{K: 0, Out: 0})
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "block alone", s, alone, apply(t, s, alone, fit(t, s, alone, in), in), out)
		}
	})
}

// TestE1M2IsInt4: both have the same levels, so the values agree to one float32 ulp.
func TestE1M2IsInt4(t *testing.T) {
	t.Parallel()
	for _, g := range append([]string{"/abfp:16"}, granularities...) {
		a, err := numfmt.ParseScheme("e1m2"+g, numfmt.Weight)
		if err != nil {
			t.Fatal(err)
		}
		b, err := numfmt.ParseScheme("int4"+g, numfmt.Weight)
		if err != nil {
			t.Fatal(err)
		}
		l, err := a.Layout([]int{24, 50}, numfmt.Axes{K: 1, Out: 0})
		if err != nil {
			t.Fatal(err)
		}
		x := sample(l, 8)
		ya, yb := apply(t, a, l, fit(t, a, l, x), x), apply(t, b, l, fit(t, b, l, x), x)
		for i := range ya {
			if ulp := math.Abs(float64(ya[i])) * 0x1p-23; math.Abs(float64(ya[i]-yb[i])) > ulp {
				t.Fatalf("%s: value %d (%v): e1m2 %v, int4 %v", g, i, x[i], ya[i], yb[i])
			}
		}
	}
}

// TestThresholds looks levels up in the tables for subgraphs and compares them with what Apply rounds to.
func TestThresholds(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"e4m3", "e5m2", "e2m1", "e1m2", "e3m0", "e2m3", "e3m2", "e3m4", "nf4", "flint4", "qpt-e4m3", "qpt-e2m1"} {
		f, err := numfmt.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		values, at, mirrored, err := f.Thresholds()
		if err != nil {
			t.Fatal(err)
		}
		if len(at) != len(values)-1 {
			t.Fatalf("%s: %d values, %d thresholds", name, len(values), len(at))
		}
		s := numfmt.Scheme{Format: f, Scale: numfmt.ScaleFP32}
		q, err := s.Quantizer(numfmt.Params{Scale: []float32{1}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		var x []float32
		for _, v := range at {
			x = append(x, v, math.Nextafter32(v, -9), math.Nextafter32(v, 9e9), -v, 1.1*v)
		}
		for _, v := range append(x, 0, 1e9, -1e9) {
			a := v
			if mirrored && a < 0 {
				a = -a
			}
			n := 0
			for n < len(at) && a >= at[n] {
				n++
			}
			want := values[n]
			if mirrored && v < 0 {
				want = -want
			}
			if got := q.Level(v); got != want {
				t.Errorf("%s: %v: rounds to %v, table says %v", name, v, got, want)
			}
		}
	}
}

// TestBounds: the bounds are what the largest and the least numbers round to.
func TestBounds(t *testing.T) {
	t.Parallel()
	for _, text := range everyScheme {
		s, err := numfmt.ParseScheme(text, numfmt.Input)
		if err != nil {
			t.Fatal(err)
		}
		x := []float32{-3, 1, 2, -1}
		l, err := s.Layout([]int{4}, numfmt.Axes{})
		if err != nil {
			t.Fatal(err)
		}
		p := fit(t, s, l, x)
		zero := float32(0)
		if p.Zero != nil {
			zero = p.Zero[0]
		}
		got := apply(t, s, l, p, []float32{-1e30, 0, 0, 1e30})
		if lo, hi := s.Bounds(p.Scale[0], zero); got[0] != lo || got[3] != hi {
			t.Errorf("%s: bounds %v, %v, but values reach %v, %v", s, lo, hi, got[0], got[3])
		}
	}
}

// TestCarriers checks METHODS §1.7's table.
func TestCarriers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		scheme string
		role   numfmt.Role
		want   string
	}{
		{"int8", numfmt.Input, "INT8@10 clip"},
		{"int8/full", numfmt.Input, "INT8@10"},
		{"uint8", numfmt.Input, "UINT8@10"},
		{"int8/axis=out", numfmt.Weight, "INT8@13 clip"},
		{"int4/axis=out/full", numfmt.Weight, "INT4@21 INT8@13 clip"},
		{"int4/block=64", numfmt.Weight, "INT4@21 clip INT8@21 clip"},
		{"uint16", numfmt.Input, "UINT16@21"},
		{"int3", numfmt.Input, "INT8@10 clip"},
		{"uint2", numfmt.Weight, "UINT2@25 UINT4@21 clip UINT8@10 clip"},
		{"ternary", numfmt.Weight, "INT2@25 clip INT4@21 clip INT8@10 clip"},
		{"e4m3", numfmt.Input, "FLOAT8E4M3FN@19"},
		{"e2m1", numfmt.Input, "FLOAT4E2M1@23"},
		{"e1m2", numfmt.Input, "INT4@21 clip ×0.5"},
		{"mxfp4", numfmt.Weight, "FLOAT4E2M1@24 scale FLOAT8E8M0 FLOAT4E2M1@23"},
		{"mxfp8e4m3", numfmt.Weight, "FLOAT8E4M3FN@24 scale FLOAT8E8M0 FLOAT8E4M3FN@21"},
		{"nvfp4", numfmt.Weight, "FLOAT4E2M1@23 inner FLOAT8E4M3FN"},
		{"nvfp4", numfmt.Input, "FLOAT4E2M1@23"},
		{"int4/block=16/scale2=4", numfmt.Weight, "INT4@21 clip inner UINT4 INT8@21 clip inner UINT4"},
		{"fp16", numfmt.Input, "FLOAT16@6"},
		{"e3m0", numfmt.Weight, "ONNX has no element type for e3m0"},
		{"nf4", numfmt.Weight, "ONNX has no element type for nf4"},
		{"qpt-e4m3", numfmt.Weight, "QPyTorch"},
		{"int8/arith=trt", numfmt.Input, "reciprocal"},
	} {
		s, err := numfmt.ParseScheme(tt.scheme, tt.role)
		if err != nil {
			t.Fatal(err)
		}
		cs, err := s.Carriers()
		if err != nil {
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want %s", tt.scheme, err, tt.want)
			}
			continue
		}
		var got []string
		for _, c := range cs {
			g := fmt.Sprintf("%s@%d", c.Elem, c.Opset)
			if c.Clip {
				g += " clip"
			}
			if c.Scale != numfmt.ElemFloat && c.Scale != numfmt.ElemNone {
				g += " scale " + c.Scale.String()
			}
			if c.Inner != numfmt.ElemNone {
				g += " inner " + c.Inner.String()
			}
			if c.Factor != 1 {
				g += fmt.Sprintf(" ×%v", c.Factor)
			}
			got = append(got, g)
		}
		if g := strings.Join(got, " "); g != tt.want {
			t.Errorf("%s (%s): got %s, want %s", tt.scheme, tt.role, g, tt.want)
		}
	}
}

func TestBitsPerValue(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		scheme string
		want   float64
	}{
		{"none", 32}, {"int4/abfp:64", 4.25}, {"mxfp4", 4.25}, {"nvfp4", 4.5 + 32.0/8192}, {"int8", 8 + 32.0/8192},
		{"uint4/block=64", 4 + 36.0/64}, {"int4/axis=out", 4 + 32.0*64/8192}, {"int4/block=16/scale2=4", 4 + 4.0/16 + 32.0*64/8192},
		{"fp16", 16}, {"bitmod4/block=128", 4 + 34.0/128},
	} {
		s, err := numfmt.ParseScheme(tt.scheme, numfmt.Weight)
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.Layout([]int{64, 128}, numfmt.Axes{K: 1, Out: 0})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.BitsPerValue(l); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.scheme, got, tt.want)
		}
	}
}
