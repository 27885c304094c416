package numfmt_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir/numfmt"
)

var (
	inf = float32(math.Inf(1))
	nan = float32(math.NaN())
)

// TestFitEdges holds Fit to its documented answers.
func TestFitEdges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		scheme      string
		lo, hi      float32
		scale, zero float32
		err         string
	}{
		{scheme: "int8", scale: 1},
		{scheme: "int8", lo: -0x1p-24, hi: 0x1p-25, scale: 1},
		{scheme: "int8", lo: -0x1p-23, hi: 0, scale: 0x1p-23 / 127.0},
		{scheme: "int8", lo: 5, hi: 5, scale: 5 / 127.0},
		{scheme: "int8", lo: -6, hi: -5, scale: 6 / 127.0},
		{scheme: "uint8", scale: 1},
		{scheme: "int8/asym", scale: 1},
		{scheme: "uint8", lo: 5, hi: 5, scale: 5 / 255.0},
		{scheme: "uint8", lo: -5, hi: -5, scale: 5 / 255.0, zero: 255},
		{scheme: "int8/asym", lo: -5, hi: -5, scale: 5 / 255.0, zero: 127},
		{scheme: "int8/asym", lo: 5, hi: 5, scale: 5 / 255.0, zero: -128},
		{scheme: "uint8/narrow7", lo: -1, hi: 1, scale: 2 / 127.0, zero: 64},
		{scheme: "int8/narrow7", lo: -1, hi: 1, scale: 1 / 64.0},
		{scheme: "uint8", lo: -math.MaxFloat32, hi: math.MaxFloat32, scale: math.MaxFloat32 / 255.0, zero: 255},
		{scheme: "int8/scale=bf16", lo: -math.MaxFloat32, scale: 0x1.fep127 / 127.0},
		{scheme: "int8/scale=bf16", hi: 1.003, scale: 1 / 127.0},
		{scheme: "int8/scale=bf16up", hi: 1.003, scale: 1.0078125 / 127.0},
		{scheme: "int8/scale=bf16up", hi: 1, scale: 1 / 127.0},
		{scheme: "int8/scale=pow2", hi: 127, scale: 1},
		{scheme: "int8/scale=pow2", hi: 127.00001, scale: 2},
		{scheme: "e2m1/scale=e8m0", scale: 0x1p-127},
		{scheme: "e2m1/scale=e8m0", hi: math.SmallestNonzeroFloat32, scale: 0x1p-127},
		{scheme: "e2m1/scale=e8m0", hi: 4, scale: 1},
		{scheme: "e2m1/scale=e8m0", hi: 7.999, scale: 1},
		{scheme: "e2m1/scale=e8m0/mx=ceil", hi: 6, scale: 1},
		{scheme: "e2m1/scale=e8m0/mx=ceil", hi: 6.0000005, scale: 2},
		{scheme: "e2m1/scale=e8m0/mx=even", hi: 6.9999995, scale: 1}, // 1.75·4 is the tie between 6 and 8
		{scheme: "e2m1/scale=e8m0/mx=even", hi: 7, scale: 2},
		{scheme: "e4m3/scale=e8m0/mx=even", hi: 479.9, scale: 1},
		{scheme: "e4m3/scale=e8m0/mx=even", hi: 496, scale: 2},
		{scheme: "int8/scale=e8m0/mx=even", hi: 1.99, scale: 0x1p-6},
		{scheme: "int8/scale=e8m0/mx=even", hi: 1.9921875, scale: 0x1p-5},
		{scheme: "e2m1/scale=e8m0", hi: inf, scale: nan},
		{scheme: "e2m1/scale=e8m0", lo: nan, hi: nan, scale: nan},
		{scheme: "nvfp4", scale: 0},
		{scheme: "e4m3", hi: 448, scale: 1},
		{scheme: "int8", hi: inf, err: "not finite"},
		{scheme: "int8", lo: nan, hi: nan, err: "not finite"},
		{scheme: "uint8", lo: -inf, hi: 1, err: "not finite"},
		{scheme: "nvfp4", lo: -inf, err: "not finite"},
		{scheme: "int8", lo: inf, hi: -inf, err: "no value was observed"},
		{scheme: "e2m1/scale=e8m0", lo: inf, hi: -inf, err: "no value was observed"},
		{scheme: "int8", lo: 2, hi: 1, err: "upside down"},
		{scheme: "ternary", hi: 1, err: "fitted to values"},
		{scheme: "bitmod4", hi: 1, err: "fitted to values"},
	} {
		s, err := numfmt.ParseScheme(tt.scheme, numfmt.Weight)
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Fit([]float32{tt.lo}, []float32{tt.hi})
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s [%v, %v]: got %v, want an error with %q", tt.scheme, tt.lo, tt.hi, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		zero := float32(0)
		if p.Zero != nil {
			zero = p.Zero[0]
		}
		if !same32(p.Scale[0], tt.scale) || zero != tt.zero {
			t.Errorf("%s [%v, %v]: got scale %v, zero %v, want %v, %v", tt.scheme, tt.lo, tt.hi, p.Scale[0], zero, tt.scale, tt.zero)
		}
	}
}

// TestSpecialInputs: NaN and infinity in the data, static and dynamic.
func TestSpecialInputs(t *testing.T) {
	t.Parallel()
	x := []float32{1, nan, inf, -inf, -2, 0}
	for _, tt := range []struct {
		scheme  string
		static  []float32 // with the parameters of [-2, 2]
		dynamic []float32 // nil: an error
	}{
		{"int8/full/block=6", []float32{64 * (2 / 127.0), 0, 2, -128 * float32(2/127.0), -2, 0}, nil},
		{"int4/block=6", []float32{3 * float32(2/7.0), 0, 2, -2, -2, 0}, nil}, // 2/7 rounds up, so 1 lies below the tie
		{"e4m3/block=6", []float32{1, nan, 2, -2, -2, 0}, nil},
		{"e2m1/block=6", []float32{1, 2, 2, -2, -2, 0}, nil},
		{"nvfp4", []float32{1, 2, 2, -2, -2, 0}, nil},
		{"mxfp4", []float32{1, 3, 3, -3, -2, 0}, []float32{nan, nan, nan, nan, nan, nan}},
		{"mxint8", []float32{1, 0, 127 / 32.0, -127 / 32.0, -2, 0}, []float32{nan, nan, nan, nan, nan, nan}},
		{"bf16", x, x},
		{"e5m2/scale=none", []float32{1, nan, 57344, -57344, -2, 0}, []float32{1, nan, 57344, -57344, -2, 0}},
	} {
		s, err := numfmt.ParseScheme(tt.scheme, numfmt.Input)
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.Layout([]int{6}, numfmt.Axes{K: 0})
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Fit([]float32{-2}, []float32{2})
		if err != nil {
			t.Fatal(err)
		}
		got := apply(t, s, l, p, x)
		for i := range got {
			if !same32(got[i], tt.static[i]) {
				t.Errorf("%s static: got %v, want %v", tt.scheme, got, tt.static)
				break
			}
		}
		err = s.ApplyDynamic(got, x, l)
		if tt.dynamic == nil {
			if err == nil || !strings.Contains(err.Error(), "NaN or infinity") {
				t.Errorf("%s dynamic: got %v, %v, want an error", tt.scheme, got, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s dynamic: %v", tt.scheme, err)
		}
		for i := range got {
			if !same32(got[i], tt.dynamic[i]) {
				t.Errorf("%s dynamic: got %v, want %v", tt.scheme, got, tt.dynamic)
				break
			}
		}
	}
}

// TestZeroBlocks: dead groups are all zeros, and no scale that ONNX would divide by is zero.
func TestZeroBlocks(t *testing.T) {
	t.Parallel()
	sites(t, func(t *testing.T, s numfmt.Scheme, l numfmt.Layout) {
		x := make([]float32, l.Len())
		for i := range x {
			if i%2 == 0 && s.Scale != numfmt.ScaleE8M0 && s.Scaled() && s.Format.Kind != numfmt.Ternary {
				x[i] = 1e-9
			}
		}
		p := fit(t, s, l, x)
		for _, v := range apply(t, s, l, p, x) {
			if v != 0 {
				t.Fatalf("%s on %v: got %v from a dead tensor", s, l.Shape, v)
			}
		}
		for _, v := range p.Scale {
			if v == 0 && !s.TwoLevel() && s.Format.Kind != numfmt.Ternary {
				t.Fatalf("%s on %v: zero scale", s, l.Shape)
			}
		}
	})
}

func TestEmptyTensor(t *testing.T) {
	t.Parallel()
	for _, text := range append([]string{"mxfp4", "nvfp4", "int8/block=4", "int8/token", "fp16"}, everyScheme...) {
		s, err := numfmt.ParseScheme(text, numfmt.Output)
		if err != nil {
			t.Fatal(err)
		}
		for _, shape := range [][]int{{0}, {3, 0}, {0, 3}} {
			l, err := s.Layout(shape, numfmt.Axes{K: -1})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.ApplyDynamic(nil, nil, l); err != nil {
				t.Errorf("%s on %v: %v", text, shape, err)
			}
			if p := fit(t, s, l, nil); s.Scaled() && len(p.Scale) != l.Groups() {
				t.Errorf("%s on %v: %d scales, want %d", text, shape, len(p.Scale), l.Groups())
			}
		}
	}
}

// TestLayouts checks METHODS §2's table.
func TestLayouts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		what, scheme string
		shape        []int
		ax           numfmt.Axes
		scales       []int
	}{
		{"MatMul B", "int4/axis=out", []int{10, 6}, numfmt.Axes{K: 0, Out: 1}, []int{6}},
		{"MatMul B", "int4/block=4", []int{10, 6}, numfmt.Axes{K: 0, Out: 1}, []int{3, 6}},
		{"Gemm transB", "int4/block=4", []int{6, 10}, numfmt.Axes{K: 1, Out: 0}, []int{6, 3}},
		{"Conv W", "int4/block=4", []int{8, 6, 3, 3}, numfmt.Axes{K: 1, Out: 0}, []int{8, 2, 3, 3}},
		{"ConvTranspose W", "int4/block=4", []int{6, 8, 3, 3}, numfmt.Axes{K: 0, Out: 1}, []int{2, 8, 3, 3}},
		{"activation", "int8/token", []int{2, 5, 10}, numfmt.Axes{K: -1}, []int{2, 5, 1}},
		{"activation", "int8/abfp:4", []int{2, 5, 10}, numfmt.Axes{K: -1}, []int{2, 5, 3}},
		{"batched B", "int8/abfp:4", []int{2, 3, 10, 5}, numfmt.Axes{K: -2, Out: -1}, []int{2, 3, 3, 5}},
		{"Conv input", "int8/abfp:4", []int{2, 6, 5, 5}, numfmt.Axes{K: 1}, []int{2, 2, 5, 5}},
		{"tensor", "int8", []int{2, 6}, numfmt.Axes{}, []int{}},
		{"scalar", "int8", nil, numfmt.Axes{}, []int{}},
		{"long block", "int4/block=64", []int{10, 6}, numfmt.Axes{K: 0}, []int{1, 6}},
	} {
		s, err := numfmt.ParseScheme(tt.scheme, numfmt.Input)
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.Layout(tt.shape, tt.ax)
		if err != nil {
			t.Fatal(err)
		}
		n := 1
		for _, d := range tt.scales {
			n *= d
		}
		if !slices.Equal(l.ScaleShape(), tt.scales) || l.Groups() != n {
			t.Errorf("%s %s: got scales %v (%d), want %v", tt.what, tt.scheme, l.ScaleShape(), l.Groups(), tt.scales)
		}
		seen := 0
		for r := range l.Runs() {
			if r.Off != seen {
				t.Fatalf("%s %s: run at %d, want %d", tt.what, tt.scheme, r.Off, seen)
			}
			for i := range r.Len {
				if g := l.GroupOf(r.Off + i); g != r.Group+i*r.Step {
					t.Fatalf("%s %s: element %d is in group %d and in run's %d", tt.what, tt.scheme, r.Off+i, g, r.Group+i*r.Step)
				}
			}
			seen += r.Len
		}
		if seen != l.Len() {
			t.Errorf("%s %s: runs cover %d of %d", tt.what, tt.scheme, seen, l.Len())
		}
	}
	for _, tt := range []struct {
		scheme string
		shape  []int
		ax     numfmt.Axes
		want   string
	}{
		{"int4/axis=out", []int{4, 4}, numfmt.Axes{Out: numfmt.NoAxis}, "missing"},
		{"int4/axis=2", []int{4, 4}, numfmt.Axes{}, "out of range for rank 2"},
		{"int4/block=4", []int{4}, numfmt.Axes{K: 1}, "out of range"},
		{"int4", []int{-1}, numfmt.Axes{}, "negative dimension"},
	} {
		s, err := numfmt.ParseScheme(tt.scheme, numfmt.Input)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Layout(tt.shape, tt.ax); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s on %v: got %v, want an error with %q", tt.scheme, tt.shape, err, tt.want)
		}
	}
}

// TestVSQuantChannels: a weight's second-level scales are one for each output channel.
func TestVSQuantChannels(t *testing.T) {
	t.Parallel()
	s, err := numfmt.ParseScheme("int4/block=2/scale2=4", numfmt.Weight)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Layout([]int{6, 2}, numfmt.Axes{K: 0, Out: 1}) // K×N
	if err != nil {
		t.Fatal(err)
	}
	// Column 0 has blocks with amax 7, 4, 0; column 1 ten times that.
	x := []float32{7, 70, -1, 10, 4, -40, 1, 10, 0, 0, 0, 0}
	p := fit(t, s, l, x)
	printed(t, "coarse", p.Coarse, "0.0666667 0.6666667")
	printed(t, "codes", p.Code, "15 15 9 9 0 0")
	printed(t, "scales", p.Scale, "1 10 .6 6 0 0")
}

// TestFitUnder: groups fitted a few at a time under the tensor's largest magnitude get what FitData gives the tensor.
func TestFitUnder(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"nvfp4/block=4", "int4/block=4/scale2=6", "int4/block=4/scale=bf16", "uint4/block=4"} {
		s, err := numfmt.ParseScheme(text, numfmt.Weight)
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.Layout([]int{40}, numfmt.Axes{K: 0, Out: numfmt.NoAxis})
		if err != nil {
			t.Fatal(err)
		}
		x := sample(l, 11)
		lo, hi := numfmt.Ranges(x, l)
		top := max(slices.Max(hi), -slices.Min(lo))
		want := fit(t, s, l, x)
		for g := range lo {
			p, err := s.FitUnder(lo[g:g+1], hi[g:g+1], top)
			if err != nil || p.Scale[0] != want.Scale[g] || s.TwoLevel() && (p.Code[0] != want.Code[g] || p.Coarse[0] != want.Coarse[0]) {
				t.Errorf("%s: group %d: got %+v, %v, want scale %v", text, g, p, err, want.Scale[g])
			}
		}
	}
}

func TestCastIntegersWrap(t *testing.T) {
	t.Parallel()
	var x []float32
	for v := float32(-9); v <= 15; v++ {
		x = append(x, v)
	}
	x = append(x, 1.9, -1.9, nan, inf, -inf)
	for _, tt := range []struct {
		elem   numfmt.Elem
		lo, hi int
	}{{numfmt.ElemInt4, -8, 7}, {numfmt.ElemUint4, 0, 15}, {numfmt.ElemInt2, -2, 1}, {numfmt.ElemUint2, 0, 3}, {numfmt.ElemInt8, -128, 127}} {
		c, err := numfmt.CastTo(tt.elem, x, true, numfmt.RoundUp)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]float32, len(x))
		if err := numfmt.CastFrom(got, c); err != nil {
			t.Fatal(err)
		}
		for i, v := range x {
			want := 0
			if v-v == 0 {
				span := tt.hi - tt.lo + 1
				want = int(v)
				for want < tt.lo {
					want += span
				}
				for want > tt.hi {
					want -= span
				}
			}
			if got[i] != float32(want) {
				t.Errorf("%s: %v: got %v, want %d", tt.elem, v, got[i], want)
			}
		}
	}
}

func TestE8M0(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		x                 float32
		up, down, nearest uint8
	}{
		{0, 0, 0, 0}, {1, 127, 127, 127}, {-1, 127, 127, 127}, {1.25, 128, 127, 127}, {1.5, 128, 127, 128}, {1.75, 128, 127, 128},
		{0x1p127, 254, 254, 254}, {math.MaxFloat32, 254, 254, 254}, {0x1p-126, 1, 1, 1}, {0x1p-127, 1, 0, 0}, {0x1.8p-127, 1, 0, 1},
		{math.SmallestNonzeroFloat32, 1, 0, 0}, {nan, 255, 255, 255}, {inf, 255, 255, 255},
	} {
		for mode, want := range []uint8{tt.up, tt.down, tt.nearest} {
			if got := numfmt.EncodeE8M0(tt.x, numfmt.RoundMode(mode)); got != want {
				t.Errorf("%v mode %d: got %d, want %d", tt.x, mode, got, want)
			}
		}
	}
	for c := range 256 {
		v := numfmt.DecodeE8M0(uint8(c))
		if want := math.Ldexp(1, c-127); c < 255 && float64(v) != want || c == 255 && v == v {
			t.Errorf("code %d: got %v", c, v)
		}
		if got := numfmt.EncodeE8M0(v, numfmt.RoundDown); int(got) != c {
			t.Errorf("code %d: %v is coded %d", c, v, got)
		}
	}
}

// TestQuantizeLinear holds the operators' own entry points to ONNX's definitions: full range, zero points, saturation.
func TestQuantizeLinear(t *testing.T) {
	t.Parallel()
	s, err := numfmt.ParseScheme("int8", numfmt.Input)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		elem        numfmt.Elem
		scale, zero float32
		saturate    bool
		x, want     []float32 // want as cast from the codes
	}{
		{numfmt.ElemUint8, 2, 128, true, []float32{0, 2, 3, 1000, -254, -1000}, []float32{128, 129, 130, 255, 1, 0}},
		{numfmt.ElemInt8, 1, 0, true, []float32{-128, -200, 127.5, 2.5}, []float32{-128, -128, 127, 2}},
		{numfmt.ElemInt4, 2, 1, true, []float32{0, 2.5, 4.8, 8.6, -30, 20}, []float32{1, 2, 3, 5, -8, 7}},
		{numfmt.ElemUint16, 2, 32767, true, []float32{0, -128, 3, -324, 1e6}, []float32{32767, 32703, 32769, 32605, 65535}},
		{numfmt.ElemE4M3FN, 2, 0, true, []float32{0, 1, 2, 100000, 200}, []float32{0, .5, 1, 448, 96}},
		{numfmt.ElemE4M3FN, 2, 0, false, []float32{0, 928, 930, nan}, []float32{0, 448, nan, nan}},
		{numfmt.ElemE5M2, 2, 0, false, []float32{1e6, -1e6, 2}, []float32{inf, -inf, 1}},
		{numfmt.ElemFloat4E2M1, 2, 0, true, []float32{0, 2.5, 4.8, 8.6, -20, 50}, []float32{0, 1, 2, 4, -6, 6}},
	} {
		l, err := s.Layout([]int{len(tt.x)}, numfmt.Axes{})
		if err != nil {
			t.Fatal(err)
		}
		p := numfmt.Params{Scale: []float32{tt.scale}}
		if tt.zero != 0 {
			p.Zero = []float32{tt.zero}
		}
		c, err := numfmt.QuantizeLinear(tt.x, l, p, tt.elem, tt.saturate)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]float32, len(tt.x))
		if err := numfmt.CastFrom(got, c); err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if !same32(got[i], tt.want[i]) {
				t.Errorf("%s: %v: got %v, want %v", tt.elem, tt.x[i], got[i], tt.want[i])
			}
		}
		if err := numfmt.DequantizeLinear(got, c, l, p); err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if want := (tt.want[i] - tt.zero) * tt.scale; !same32(got[i], want) {
				t.Errorf("%s: dequantized %v, want %v", tt.elem, got[i], want)
			}
		}
	}
	l, err := s.Layout([]int{2}, numfmt.Axes{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := numfmt.Pack(numfmt.ElemInt32, []uint32{1 << 30, 0xffffffff})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]float32, 2)
	if err := numfmt.DequantizeLinear(got, numfmt.Codes{Elem: numfmt.ElemInt32, Len: 2, Data: data}, l, numfmt.Params{Scale: []float32{.5}}); err != nil || got[0] != 1<<29 || got[1] != -.5 {
		t.Errorf("INT32: got %v, %v", got, err)
	}
}

func TestWiden(t *testing.T) {
	t.Parallel()
	data, err := numfmt.Pack(numfmt.ElemInt2, []uint32{1, 3, 2, 0, 1}) // 1 -1 -2 0 1
	if err != nil {
		t.Fatal(err)
	}
	c := numfmt.Codes{Elem: numfmt.ElemInt2, Len: 5, Data: data}
	for _, to := range []numfmt.Elem{numfmt.ElemInt4, numfmt.ElemInt8, numfmt.ElemInt16} {
		w, err := c.Widen(to)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]float32, 5)
		if err := numfmt.CastFrom(got, w); err != nil || !slices.Equal(got, []float32{1, -1, -2, 0, 1}) {
			t.Errorf("%s: got %v, %v", to, got, err)
		}
	}
	for _, to := range []numfmt.Elem{numfmt.ElemUint8, numfmt.ElemFloat16, numfmt.ElemE4M3FN} {
		if _, err := c.Widen(to); err == nil {
			t.Errorf("INT2 codes were widened to %s", to)
		}
	}
}

// TestErrors: what does not fit is refused with what was wanted and found, and nothing is written.
func TestErrors(t *testing.T) {
	t.Parallel()
	s, err := numfmt.ParseScheme("uint8/block=4", numfmt.Input)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Layout([]int{8}, numfmt.Axes{K: 0})
	if err != nil {
		t.Fatal(err)
	}
	x, dst := make([]float32, 8), make([]float32, 8)
	one := []float32{1, 1}
	for _, tt := range []struct {
		what string
		err  error
		want string
	}{
		{"short dst", s.Apply(dst[:7], x, l, numfmt.Params{Scale: one}), "got 7 values for shape [8], want 8"},
		{"short x", s.ApplyDynamic(dst, x[:7], l), "got 7 values"},
		{"scales", s.Apply(dst, x, l, numfmt.Params{Scale: one[:1]}), "got 1 scales and 0 zero points, want 2"},
		{"zeros", s.Apply(dst, x, l, numfmt.Params{Scale: one, Zero: one[:1]}), "got 2 scales and 1 zero points"},
		{"fraction", s.Apply(dst, x, l, numfmt.Params{Scale: one, Zero: []float32{1, .5}}), "zero point 0.5 is not an integer"},
		{"bytes", s.Decode(dst, numfmt.Codes{Elem: numfmt.ElemUint8, Len: 8}, l, numfmt.Params{Scale: one}), "0 bytes for 8 elements of UINT8, want 8"},
		{"element type", s.Decode(dst, numfmt.Codes{Elem: numfmt.ElemInt8, Len: 8}, l, numfmt.Params{Scale: one}), "codes are INT8, want UINT8"},
	} {
		if tt.err == nil || !strings.Contains(tt.err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.what, tt.err, tt.want)
		}
	}
	if s, err = numfmt.ParseScheme("bitmod4", numfmt.Weight); err != nil {
		t.Fatal(err)
	}
	if l, err = s.Layout([]int{8}, numfmt.Axes{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(dst, x, l, numfmt.Params{Scale: one[:1], Zero: []float32{5}}); err == nil || !strings.Contains(err.Error(), "special value 5 is not one of") {
		t.Errorf("bitmod special: got %v", err)
	}
	if _, err := s.Encode(x, l, numfmt.Params{Scale: []float32{nan}, Zero: []float32{10}}); err == nil || !strings.Contains(err.Error(), "NaN") {
		t.Errorf("NaN scale: got %v", err)
	}
}

func TestBitMoDChoosesSpecial(t *testing.T) {
	t.Parallel()
	s, err := numfmt.ParseScheme("bitmod4/block=4", numfmt.Weight)
	if err != nil {
		t.Fatal(err)
	}
	// Four groups that one special value each represents exactly.
	x := []float32{12, 10, 1, 0, 12, -10, 2, 0, 16, 12, 1, -3, -16, 12, 1, -3}
	l, err := s.Layout([]int{16}, numfmt.Axes{K: 0})
	if err != nil {
		t.Fatal(err)
	}
	p := fit(t, s, l, x)
	if !slices.Equal(p.Zero, []float32{10, -10, 16, -16}) || !slices.Equal(apply(t, s, l, p, x), x) {
		t.Errorf("got specials %v, values %v", p.Zero, apply(t, s, l, p, x))
	}
}

// TestList: every row has what qsimc formats prints.
func TestList(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, e := range numfmt.List() {
		if seen[e.Name] || e.Grid == "" || !(e.Max > 0) || !(e.MinSubnormal > 0) || e.BitsPerValue < float64(e.Bits) || (e.Carrier == "-") != (e.Opset == 0) {
			t.Errorf("bad entry %+v", e)
		}
		seen[e.Name] = true
		f, err := numfmt.Lookup(e.Name)
		if err != nil || f.Name != e.Name {
			t.Errorf("%s: %v", e.Name, err)
		}
	}
	for name, want := range map[string]string{
		"e2m1": "±{0 0.5 1 1.5 2 3 4 6}", "e3m0": "±{0 0.25 0.5 1 2 4 8 16}", "int4": "-7..7", "uint8": "0..255",
		"e4m3": "±{0..0.015625 step 2^-9, then 8 a binade to 448}, NaN", "flint4": "±{0 1 2 3 4 6 8 16}",
	} {
		f, err := numfmt.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Grid(); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
