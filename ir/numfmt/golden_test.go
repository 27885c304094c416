package numfmt_test

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir/numfmt"
)

// printed checks values against the digits printed in METHODS §16: within half a unit of the last digit, or one float32
// ulp for seven digits and more.
func printed(t *testing.T, what string, got []float32, want string) {
	t.Helper()
	fields := strings.Fields(want)
	if len(got) != len(fields) {
		t.Fatalf("%s: got %d values %v, want %d", what, len(got), got, len(fields))
	}
	for i, f := range fields {
		w, err := strconv.ParseFloat(f, 64)
		if err != nil {
			t.Fatal(err)
		}
		tol := math.Abs(float64(math.Nextafter32(float32(w), float32(math.Inf(1)))) - float64(float32(w)))
		if _, dec, ok := strings.Cut(f, "."); ok && !strings.Contains(dec, "e") {
			tol = max(tol, 0.5001*math.Pow(10, -float64(len(dec))))
		}
		if d := math.Abs(float64(got[i]) - w); d > tol {
			t.Errorf("%s: value %d: got %v, want %s", what, i, got[i], f)
		}
		if w == 0 && math.Signbit(w) != math.Signbit(float64(got[i])) {
			t.Errorf("%s: value %d: got %v, want %s with its sign", what, i, got[i], f)
		}
	}
}

// site is one tensor under one scheme.
type site struct {
	t *testing.T
	s numfmt.Scheme
	l numfmt.Layout
	p numfmt.Params
	x []float32
}

// fitted parses the scheme and fits it to the values; the shape defaults to one axis.
func fitted(t *testing.T, scheme string, x []float32, shape ...int) *site {
	t.Helper()
	role := numfmt.Input
	s, err := numfmt.ParseScheme(scheme, role)
	if err != nil {
		t.Fatal(err)
	}
	if len(shape) == 0 {
		shape = []int{len(x)}
	}
	l, err := s.Layout(shape, numfmt.Axes{K: -1, Out: numfmt.NoAxis})
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.FitData(x, l)
	if err != nil {
		t.Fatal(err)
	}
	return &site{t, s, l, p, x}
}

// ranged is fitted with the range given instead of measured.
func ranged(t *testing.T, scheme string, lo, hi float32, x []float32) *site {
	t.Helper()
	c := fitted(t, scheme, x)
	p, err := c.s.Fit([]float32{lo}, []float32{hi})
	if err != nil {
		t.Fatal(err)
	}
	c.p = p
	return c
}

// codes are the stored codes, integers sign-extended.
func (c *site) codes() []int {
	c.t.Helper()
	enc, err := c.s.Encode(c.x, c.l, c.p)
	if err != nil {
		c.t.Fatal(err)
	}
	raw, err := numfmt.Unpack(enc.Elem, enc.Data, enc.Len)
	if err != nil {
		c.t.Fatal(err)
	}
	out := make([]int, len(raw))
	for i, r := range raw {
		out[i] = int(r)
		switch enc.Elem {
		case numfmt.ElemInt2, numfmt.ElemInt4, numfmt.ElemInt8, numfmt.ElemInt16:
			out[i] = int(int32(r<<(32-enc.Elem.Bits())) >> (32 - enc.Elem.Bits()))
		}
	}
	return out
}

// levels are the grid values before scaling.
func (c *site) levels() []float32 {
	c.t.Helper()
	out := make([]float32, len(c.x))
	for i, v := range c.x {
		q, err := c.s.Quantizer(c.p, c.l.GroupOf(i))
		if err != nil {
			c.t.Fatal(err)
		}
		out[i] = q.Level(v)
	}
	return out
}

// values are the simulated values; they must be what decoding the stored codes gives.
func (c *site) values() []float32 {
	c.t.Helper()
	out := make([]float32, len(c.x))
	if err := c.s.Apply(out, c.x, c.l, c.p); err != nil {
		c.t.Fatal(err)
	}
	enc, err := c.s.Encode(c.x, c.l, c.p)
	if err != nil {
		c.t.Fatal(err)
	}
	dec := make([]float32, len(c.x))
	if err := c.s.Decode(dec, enc, c.l, c.p); err != nil {
		c.t.Fatal(err)
	}
	for i := range dec {
		if dec[i] != out[i] {
			c.t.Errorf("%s: value %d: decoded %v, applied %v", c.s, i, dec[i], out[i])
		}
	}
	return out
}

func wantCodes(t *testing.T, got []int, want ...int) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("codes: got %v, want %v", got, want)
	}
}

func TestGolden01Int8Restricted(t *testing.T) {
	c := ranged(t, "int8", -2, 2, []float32{-2, -.51, 0, .26, 1})
	printed(t, "step", c.p.Scale, "0.015748031")
	wantCodes(t, c.codes(), -127, -32, 0, 17, 64)
	printed(t, "values", c.values(), "-2 -0.503937 0 0.2677165 1.007874")
}

func TestGolden02Int4Restricted(t *testing.T) {
	c := ranged(t, "int4", -1.75, 1.75, []float32{.875, -1.75, .125, .375, -.625, 1.3125, -.6})
	wantCodes(t, c.codes(), 4, -7, 0, 2, -2, 5, -2)
	printed(t, "values", c.values(), "1 -1.75 0 .5 -.5 1.25 -.5")
}

func TestGolden03Uint4Asym(t *testing.T) {
	c := ranged(t, "uint4", -1.25, 2.5, []float32{-1.5, -1.25, -.3, 0, .125, .375, 1, 2.5, 3})
	printed(t, "step", c.p.Scale, "0.25")
	printed(t, "zero", c.p.Zero, "5")
	wantCodes(t, c.codes(), 0, 0, 4, 5, 5, 7, 9, 15, 15)
	printed(t, "values", c.values(), "-1.25 -1.25 -.25 0 0 .5 1 2.5 2.5")
}

func TestGolden04GPTQSymmetric(t *testing.T) {
	c := ranged(t, "uint4", -1, 1, []float32{-1, -.5, 0, .5, 1})
	p, err := c.s.FitShifted([]float32{-1}, []float32{1})
	if err != nil {
		t.Fatal(err)
	}
	c.p = p
	printed(t, "zero", p.Zero, "8")
	wantCodes(t, c.codes(), 0, 4, 8, 12, 15)
	printed(t, "values", c.values(), "-1.0666667 -.5333333 0 .5333333 .9333333")
}

func TestGolden05RPTQCentred(t *testing.T) {
	c := fitted(t, "int4/asym", []float32{1.2, -1.2, .3})
	p, err := c.s.FitCentred([]float32{-1.2}, []float32{1.2})
	if err != nil {
		t.Fatal(err)
	}
	c.p = p
	printed(t, "step", p.Scale, "0.15")
	wantCodes(t, c.codes(), 7, -8, 2)
	printed(t, "values", c.values(), "1.05 -1.2 .3")
}

func TestGolden06ArithmeticOrder(t *testing.T) {
	x := []float32{0.7857142686843872, -.5}
	wantCodes(t, ranged(t, "int4", -1, 1, x).codes(), 5, -3)
	wantCodes(t, ranged(t, "int4/arith=trt", -1, 1, x[:1]).codes(), 6)
}

func TestGolden07DynamicQuantizeLinear(t *testing.T) {
	c := fitted(t, "uint8", []float32{0, 2, -3, -2.5, 1.34, .5})
	printed(t, "step", c.p.Scale, "0.019607844")
	printed(t, "zero", c.p.Zero, "153")
	wantCodes(t, c.codes(), 153, 255, 0, 26, 221, 179)
}

func TestGolden08PerToken(t *testing.T) {
	c := fitted(t, "int8/token", []float32{1, -2, .5, .25, .1, .2, -.05, 0}, 2, 4)
	printed(t, "steps", c.p.Scale, "0.015748031 0.001574803")
	wantCodes(t, c.codes(), 64, -127, 32, 16, 64, 127, -32, 0)
	if got := c.l.ScaleShape(); !slices.Equal(got, []int{2, 1}) {
		t.Errorf("scale shape: got %v, want [2 1]", got)
	}
}

func TestGolden09PerChannel(t *testing.T) {
	c := fitted(t, "int4/axis=1", []float32{1, -4, 2, .5, -7, 1}, 3, 2)
	printed(t, "steps", c.p.Scale, "1 0.5714286")
	wantCodes(t, c.codes(), 1, -7, 2, 1, -7, 2)
}

func TestGolden10E2M1(t *testing.T) {
	x := []float32{.25, .75, 1.25, 1.75, 2.5, 3.5, 5, 7, -.2, .26, -2.75, 5.01}
	printed(t, "values", fitted(t, "e2m1/scale=none", x).values(), "0 1 1 2 2 4 4 6 -0 .5 -3 6")
	printed(t, "half away", fitted(t, "qpt-e2m1", []float32{.25, .75, 1.25, 2.5, 5}).values(), ".5 1 1.5 3 6")
}

func TestGolden11E1M2(t *testing.T) {
	x := []float32{.25, .75, 1.25, 1.74, 2.25, 3.25, 9, -.3}
	printed(t, "values", fitted(t, "e1m2/scale=none", x).values(), "0 1 1 1.5 2 3 3.5 -.5")
}

var golden12 = []float32{0x1p-10, 0x3p-10, .001, 17, 19, 447, 464, 465, 500, 1e6, -.3}

func TestGolden12E4M3FN(t *testing.T) {
	printed(t, "values", fitted(t, "e4m3/scale=none", golden12).values(),
		"0 .00390625 .001953125 16 20 448 448 448 448 448 -.3125")
}

func TestGolden13QPyTorch(t *testing.T) {
	printed(t, "e4m3", fitted(t, "qpt-e4m3", golden12).values(),
		".001953125 .00390625 .001953125 18 20 448 480 480 480 480 -.3125")
	printed(t, "fp16", fitted(t, "qpt-e5m10", []float32{65504, 65520, 70000, 200000, 1.00048828125}).values(),
		"65504 65536 70016 131008 1.0009765625")
}

func TestGolden14E5M2(t *testing.T) {
	x := []float32{1.125, 1.375, 3.5, 60000, 61440, 0x1p-17, 0x1.8p-16}
	printed(t, "values", fitted(t, "e5m2/scale=none", x).values(), "1 1.5 3.5 57344 57344 0 3.0517578125e-05")
}

func TestGolden15BF16(t *testing.T) {
	x := []float32{1.00390625, 1.01171875, 3.14159265, .1, -2.7182818, 3.0234375}
	printed(t, "values", fitted(t, "bf16", x).values(), "1 1.015625 3.140625 .10009765625 -2.71875 3.03125")
}

func TestGolden16ScaledFP4(t *testing.T) {
	printed(t, "e2m1", fitted(t, "e2m1", []float32{3, -1.3, .26, .2, 1.75, .6}).values(), "3 -1.5 .25 .25 2 .5")
	x := []float32{7, -3.4, 2.6, .4, 5.5, 1.2}
	printed(t, "e1m2", fitted(t, "e1m2", x).values(), "7 -3 3 0 6 1")
	printed(t, "int4", fitted(t, "int4", x).values(), "7 -3 3 0 6 1")
}

// block pads values with zeros to a multiple of n.
func block(n int, x ...float32) []float32 {
	return append(x, make([]float32, (n-len(x)%n)%n)...)
}

func TestGolden17MXFP4(t *testing.T) {
	c := fitted(t, "mxfp4", block(32, 7.5, -3, .4, .25, -.26, 1.3, 5, -.1))
	printed(t, "scale", c.p.Scale, "1")
	printed(t, "values", c.values()[:8], "6 -3 .5 0 -.5 1.5 4 -0")
	c = fitted(t, "mxfp4", block(32, .09, -.05, .011, 0))
	printed(t, "scale", c.p.Scale, "0.015625")
	printed(t, "levels", c.levels()[:4], "6 -3 .5 0")
	printed(t, "values", c.values()[:4], ".09375 -.046875 .0078125 0")
}

func TestGolden18MXFP6(t *testing.T) {
	x := block(32, 7.5, -3, .4, .25, -.26, 1.3, 5, -.1)
	c := fitted(t, "mxfp6e2m3", x)
	printed(t, "scale", c.p.Scale, "1")
	printed(t, "values", c.values()[:8], "7.5 -3 .375 .25 -.25 1.25 5 -.125")
	c = fitted(t, "mxfp6e3m2", x)
	printed(t, "scale", c.p.Scale, "0.25")
	printed(t, "values", c.values()[:8], "7 -3 .375 .25 -.25 1.25 5 -.09375")
}

func TestGolden19MXFP8(t *testing.T) {
	x := block(32, 500, -3, .3, .001, 0)
	c := fitted(t, "mxfp8e4m3", x)
	printed(t, "scale", c.p.Scale, "1")
	printed(t, "values", c.values()[:5], "448 -3 .3125 .001953125 0")
	c = fitted(t, "mxfp8e5m2", x)
	printed(t, "scale", c.p.Scale, "0.0078125")
	printed(t, "values", c.values()[:5], "448 -3 .3125 .0009765625 0")
}

func TestGolden20MXINT8(t *testing.T) {
	c := fitted(t, "mxint8", block(32, 1.99609375, -1, .0078125, .3, -1.999, .0234375))
	printed(t, "step", c.p.Scale, "0.015625")
	wantCodes(t, c.codes()[:6], 127, -64, 0, 19, -127, 2)
}

func TestGolden21NVFP4(t *testing.T) {
	x := append(block(16, 1, -.5, .3, .11), block(16, 8, -6, 3.3, 1.1, .7, -.2)...)
	c := fitted(t, "nvfp4", x)
	printed(t, "block scales", c.p.Code, "56 448")
	l := c.levels()
	printed(t, "levels", append(l[:4:4], l[16:23]...), "6 -3 2 .5 6 -4 2 1 .5 -0 0")
	v := c.values()
	printed(t, "values", append(v[:4:4], v[16:22]...), "1 -.5 .3333333 .0833333 8 -5.333333 2.666667 1.333333 .6666667 -0")
	c = fitted(t, "nvfp4", append(block(16, 2, .3, -.7, .05), block(16, .011, -.004, .002, .0005)...))
	printed(t, "block scales", c.p.Code, "448 2.5")
	l = c.levels()
	printed(t, "levels", append(l[:4:4], l[16:20]...), "6 1 -2 0 6 -2 1 .5")
	printed(t, "values", c.values()[16:20], ".01116071 -.003720238 .001860119 .00093006")
}

func TestGolden22Ternary(t *testing.T) {
	w := []float32{.9, -.2, .05, -1.4, .6, .3}
	c := fitted(t, "ternary", w)
	printed(t, "mean", c.p.Scale, ".575")
	wantCodes(t, c.codes(), 1, 0, 0, -1, 1, 1)
	c = fitted(t, "ternary-median", w)
	printed(t, "median", c.p.Scale, ".3")
	wantCodes(t, c.codes(), 1, -1, 0, -1, 1, 1)
}

func TestGolden23ABFP(t *testing.T) {
	x := []float32{1.003, -.55, .25, .1, 10.06, -4, .7, 2, .03, -.02}
	c := fitted(t, "int4/abfp:4", x)
	printed(t, "bf16 scales", []float32{c.p.Scale[0] * 7, c.p.Scale[1] * 7, c.p.Scale[2] * 7}, "1 10.0625 .030029297")
	wantCodes(t, c.codes(), 7, -4, 2, 1, 7, -3, 0, 1, 7, -5)
	printed(t, "values", c.values(), "1 -.5714286 .2857143 .14285715 10.0625 -4.3125 0 1.4375 .030029297 -.021449497")
	wantCodes(t, fitted(t, "int8/abfp:4", x).codes(), 127, -70, 32, 13, 127, -50, 9, 25, 127, -85)
}

func TestGolden24ABFPMatMul(t *testing.T) {
	x := fitted(t, "int4/abfp:4", []float32{1.1, -2, .5, .25, 3, -.1, .2, .1, -.4, .05, -1.5, .8}, 2, 6)
	wantCodes(t, x.codes(), 4, -7, 2, 1, 7, 0, 3, 2, -7, 1, -7, 4)
	// W is [K=6, N=2]: blocks run along axis 0.
	s, err := numfmt.ParseScheme("int4/abfp:4", numfmt.Weight)
	if err != nil {
		t.Fatal(err)
	}
	w := []float32{.55, -1, .25, .75, -1, .1, .3, .2, 2, -.4, -.5, .9}
	l, err := s.Layout([]int{6, 2}, numfmt.Axes{K: 0, Out: 1})
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.FitData(w, l)
	if err != nil {
		t.Fatal(err)
	}
	c := &site{t, s, l, p, w}
	wantCodes(t, c.codes(), 4, -7, 2, 5, -7, 1, 2, 1, 7, -3, -2, 7)
	printed(t, "weight scales", []float32{p.Scale[0] * 7, p.Scale[1] * 7, p.Scale[2] * 7, p.Scale[3] * 7}, "1 1 2 .8984375")
	xv, wv := x.values(), c.values()
	var y []float32
	for i := range 2 {
		for j := range 2 {
			sum := 0.0
			for k := range 6 {
				sum += float64(xv[i*6+k]) * float64(wv[k*2+j])
			}
			y = append(y, float32(sum))
		}
	}
	printed(t, "product", y, "5.5918367 -3.6041135 -2.9423230 1.2087452")
}

func TestGolden25VSQuant(t *testing.T) {
	scales := []float32{.14, .04, .09, .002}
	one := func(int) int { return 0 }
	code, gamma := numfmt.SecondLevel(scales, 4, false, one, 1)
	printed(t, "gamma", gamma, ".00933333")
	printed(t, "codes", code, "15 4 10 0")
	printed(t, "scales", []float32{code[0] * gamma[0], code[1] * gamma[0], code[2] * gamma[0], code[3] * gamma[0]}, ".14 .0373333 .0933333 0")
	code, gamma = numfmt.SecondLevel(scales, 4, true, one, 1)
	printed(t, "min1", []float32{code[3] * gamma[0]}, ".0093333")
}

func TestGolden34RPTQParameters(t *testing.T) {
	// The clusters of golden 33: their ranges are those of the channels in them.
	lo, hi := []float32{-1.2, -.5, -7}, []float32{1.2, 9, .2}
	s, err := numfmt.ParseScheme("int4/asym", numfmt.Input)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.FitCentred(lo, hi)
	if err != nil {
		t.Fatal(err)
	}
	printed(t, "reference steps", p.Scale, ".15 .59375 .45")
	printed(t, "reference zeros", p.Zero, "0 -7 8")
	if s, err = numfmt.ParseScheme("uint4", numfmt.Input); err != nil {
		t.Fatal(err)
	}
	if p, err = s.Fit(lo, hi); err != nil {
		t.Fatal(err)
	}
	printed(t, "steps", p.Scale, ".16 .6333333 .48")
	printed(t, "zeros", p.Zero, "8 1 15")
}

// TestGolden40ExponentBias: a fitted step is the real-valued exponent bias B = β - log2(step) that makes amax the largest
// code.
func TestGolden40ExponentBias(t *testing.T) {
	for _, tt := range []struct {
		scheme string
		amax   float32
		want   string
	}{{"e2m1", 3, "2.0"}, {"e4m3all", 448, "7.0995357"}} {
		c := ranged(t, tt.scheme, -tt.amax, tt.amax, []float32{0})
		printed(t, tt.scheme, []float32{float32(float64(c.s.Format.Bias) - math.Log2(float64(c.p.Scale[0])))}, tt.want)
	}
}

func TestGolden41Packing(t *testing.T) {
	for _, tt := range []struct {
		elem  numfmt.Elem
		codes []int
		want  string
	}{
		{numfmt.ElemInt4, []int{1, -2, 7, -8, 3}, "\xe1\x87\x03"},
		{numfmt.ElemInt2, []int{1, -1, 0, -2, 1}, "\x8d\x01"},
	} {
		var raw []uint32
		for _, c := range tt.codes {
			raw = append(raw, uint32(int32(c)))
		}
		got, err := numfmt.Pack(tt.elem, raw)
		if err != nil || string(got) != tt.want {
			t.Errorf("%s %v: got %x, %v, want %x", tt.elem, tt.codes, got, err, tt.want)
		}
		back, err := numfmt.Unpack(tt.elem, got, len(raw))
		if err != nil {
			t.Fatal(err)
		}
		for i := range back {
			if back[i] != raw[i]&(1<<tt.elem.Bits()-1) {
				t.Errorf("%s: code %d: got %x back, want %x", tt.elem, i, back[i], raw[i])
			}
		}
	}
}

func TestGolden42BlockRange(t *testing.T) {
	for _, tt := range []struct{ k, scales, lo, hi int }{{80, 2, 40, 79}, {129, 3, 43, 64}} {
		s, err := numfmt.ParseScheme("int4/block=64", numfmt.Weight)
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.Layout([]int{tt.k}, numfmt.Axes{K: 0})
		if err != nil {
			t.Fatal(err)
		}
		lo, hi := l.BlockRange()
		if l.Groups() != tt.scales || lo != tt.lo || hi != tt.hi {
			t.Errorf("K=%d: got %d scales, block_size %d..%d, want %d, %d..%d", tt.k, l.Groups(), lo, hi, tt.scales, tt.lo, tt.hi)
		}
	}
}

func TestGolden43NF4AndPowerOfTwo(t *testing.T) {
	c := ranged(t, "nf4", -1, 1, []float32{.1, -.6, .5, 1, -.04})
	printed(t, "nf4", c.values(), ".0795803 -.5250731 .4407098 1 0")
	c = ranged(t, "int8/scale=pow2", -.3, .3, []float32{.1})
	printed(t, "step", c.p.Scale, "0.00390625")
}
