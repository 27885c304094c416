package numfmt_test

import (
	"flag"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"sort"
	"testing"

	"github.com/qsimc/qsimc/ir/numfmt"
)

var randoms = flag.Int("randoms", 1<<20, "random float32 through each format; -short takes a sixteenth")

// spec describes a float format independently of the table: METHODS §1.3 in numbers.
type spec struct {
	name              string
	exp, man, bias    int
	reserved          int // codes at the top of the magnitude range that are infinity or NaN
	negZero, nanIsNaN bool
}

var specs = []spec{
	{"e4m3", 4, 3, 7, 1, true, true},
	{"e5m2", 5, 2, 15, 4, true, true},
	{"e4m3fnuz", 4, 3, 8, 0, false, true},
	{"e5m2fnuz", 5, 2, 16, 0, false, true},
	{"e2m1", 2, 1, 1, 0, true, false},
	{"e1m2", 1, 2, 0, 0, true, false},
	{"e3m0", 3, 0, 3, 0, true, false},
	{"e2m3", 2, 3, 1, 0, true, false},
	{"e3m2", 3, 2, 3, 0, true, false},
	{"e3m4", 3, 4, 3, 0, true, false},
	{"e4m3all", 4, 3, 7, 0, true, false},
	{"e4m3b11fnuz", 4, 3, 11, 0, false, true},
	{"e6m1", 6, 1, 31, 0, true, false},
	{"e7m0", 7, 0, 63, 0, true, false},
	{"e5m2fn", 5, 2, 15, 1, true, true},
	{"e4m7", 4, 7, 7, 0, true, false},
	{"fp16", 5, 10, 15, 1024, true, true},
	{"bf16", 8, 7, 127, 128, true, true},
}

// model is a format's non-negative values with the midpoints between them, all exact: computed in big.Float and then
// checked to be float64 values.
type model struct {
	spec
	value, mid []float64
}

func exact(t testing.TB, v *big.Float) float64 {
	f, acc := v.Float64()
	if acc != big.Exact {
		t.Fatalf("%v is not a float64", v)
	}
	return f
}

func newModel(t testing.TB, s spec) model {
	m := model{spec: s}
	var before *big.Float
	for code := range 1<<(s.exp+s.man) - s.reserved {
		e, mant := code>>s.man, code&(1<<s.man-1)
		if e > 0 {
			mant += 1 << s.man
		} else {
			e = 1
		}
		v := new(big.Float).SetPrec(200).SetMantExp(big.NewFloat(float64(mant)), e-s.bias-s.man)
		m.value = append(m.value, exact(t, v))
		if before != nil {
			sum := new(big.Float).SetPrec(400).Add(v, before)
			m.mid = append(m.mid, exact(t, sum.SetMantExp(sum, -1)))
		}
		before = v
	}
	return m
}

// top is the value above the largest, were there one: it decides where casts without saturation overflow.
func (m model) top() float64 {
	v := m.value
	n := len(v)
	if m.man == 0 {
		return 2 * v[n-1]
	}
	return v[n-1] + (v[n-1] - v[n-2])
}

// round is nearest with ties to the even mantissa, saturating; overflow tells what passes the largest value.
func (m model) round(x float32) (want float32, overflow bool) {
	if x != x {
		if m.nanIsNaN {
			return x, false
		}
		return float32(m.value[len(m.value)-1]), false
	}
	a := math.Abs(float64(x))
	i := sort.Search(len(m.mid), func(i int) bool { return a <= m.mid[i] })
	// The tie goes to the even multiple of the upper value's spacing: with mantissa bits the even code, without any
	// always the upper one, which is an even multiple of the lower, but for the first, an odd multiple above zero.
	if i < len(m.mid) && a == m.mid[i] {
		if m.man == 0 && i > 0 || m.man > 0 && i%2 == 1 {
			i++
		}
	}
	n := len(m.value)
	limit := (m.value[n-1] + m.top()) / 2
	tieUp := m.man == 0 || n%2 == 0
	overflow = a > limit || a == limit && tieUp
	v := m.value[i]
	if math.Signbit(float64(x)) && (v != 0 || m.negZero) {
		v = math.Copysign(v, -1)
	}
	return float32(v), overflow
}

func same32(a, b float32) bool {
	return a == b && math.Signbit(float64(a)) == math.Signbit(float64(b)) || a != a && b != b
}

// inputs are n random float32: half of them any bits, a quarter spread evenly and a quarter as a bell below twice max;
// and all float16 values, zeros, subnormals, the largest numbers, infinities and NaN.
func inputs(n int, max float64) []float32 {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	out := make([]float32, 0, n+1<<16+16)
	for range n / 4 {
		out = append(out, math.Float32frombits(r.Uint32()), math.Float32frombits(r.Uint32()),
			float32((4*r.Float64()-2)*max), float32(r.NormFloat64()*max/3))
	}
	for h := range 1 << 16 {
		m, e := float64(h&0x3ff), h>>10&31
		v := math.Ldexp(m, -24)
		switch {
		case e == 31 && m == 0:
			v = math.Inf(1)
		case e == 31:
			v = math.NaN()
		case e > 0:
			v = math.Ldexp(m+1024, e-25)
		}
		if h>>15 != 0 {
			v = math.Copysign(v, -1)
		}
		out = append(out, float32(v))
	}
	return append(out, 0, float32(math.Copysign(0, -1)), math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32, 0x1p-126, 0x0.fffffep-126,
		math.MaxFloat32, -math.MaxFloat32, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()))
}

func count() int {
	if testing.Short() {
		return *randoms / 16
	}
	return *randoms
}

// unscaled applies a format as it is.
func unscaled(t *testing.T, name string, x []float32) []float32 {
	t.Helper()
	if name != "fp16" && name != "bf16" {
		name += "/scale=none"
	}
	s, err := numfmt.ParseScheme(name, numfmt.Input)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Layout([]int{len(x)}, numfmt.Axes{K: 0, Out: numfmt.NoAxis})
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float32, len(x))
	if err := s.Apply(out, x, l, numfmt.Params{}); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestFloatsAgainstModel sends every float16 value and a million random float32 through every float format.
func TestFloatsAgainstModel(t *testing.T) {
	t.Parallel()
	for _, s := range specs {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			m := newModel(t, s)
			x := inputs(count(), m.value[len(m.value)-1])
			got := unscaled(t, s.name, x)
			cast := s.name == "fp16" || s.name == "bf16"
			bad := 0
			for i, v := range x {
				want, overflow := m.round(v)
				if cast && overflow {
					want = float32(math.Copysign(math.Inf(1), float64(v)))
				}
				if !same32(got[i], want) {
					if t.Errorf("%v (%#08x): got %v, want %v", v, math.Float32bits(v), got[i], want); bad > 10 {
						t.FailNow()
					}
					bad++
				}
			}
		})
	}
}

// TestCastsAgainstModel checks the codes of ONNX's casts, saturating and not, on the same values.
func TestCastsAgainstModel(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		elem numfmt.Elem
		name string
		over []uint32 // codes of +, - beyond the largest value, not saturating
		nan  uint32
	}{
		{numfmt.ElemE4M3FN, "e4m3", []uint32{0x7f, 0xff}, 0x7f},
		{numfmt.ElemE5M2, "e5m2", []uint32{0x7c, 0xfc}, 0x7e},
		{numfmt.ElemE4M3FNUZ, "e4m3fnuz", []uint32{0x80, 0x80}, 0x80},
		{numfmt.ElemE5M2FNUZ, "e5m2fnuz", []uint32{0x80, 0x80}, 0x80},
		{numfmt.ElemFloat4E2M1, "e2m1", []uint32{0x7, 0xf}, 0x7},
		{numfmt.ElemFloat16, "fp16", []uint32{0x7c00, 0xfc00}, 0x7e00},
		{numfmt.ElemBFloat16, "bf16", []uint32{0x7f80, 0xff80}, 0x7fc0},
	} {
		t.Run(tt.elem.String(), func(t *testing.T) {
			t.Parallel()
			var m model
			for _, s := range specs {
				if s.name == tt.name {
					m = newModel(t, s)
				}
			}
			sign := uint32(1) << (m.exp + m.man)
			x := inputs(count()/8, m.value[len(m.value)-1])
			for _, saturate := range []bool{true, false} {
				c, err := numfmt.CastTo(tt.elem, x, saturate, numfmt.RoundUp)
				if err != nil {
					t.Fatal(err)
				}
				codes, err := numfmt.Unpack(tt.elem, c.Data, c.Len)
				if err != nil {
					t.Fatal(err)
				}
				back := make([]float32, len(x))
				if err := numfmt.CastFrom(back, c); err != nil {
					t.Fatal(err)
				}
				for i, v := range x {
					value, overflow := m.round(v)
					neg := math.Signbit(float64(value))
					want := uint32(sort.SearchFloat64s(m.value, math.Abs(float64(value))))
					if neg {
						want |= sign
					}
					switch {
					case v != v:
						want = tt.nan
						if codes[i]&^sign == want || codes[i]>>m.man == sign>>m.man|(1<<m.exp-1) || codes[i]>>m.man == 1<<m.exp-1 && codes[i]&(1<<m.man-1) != 0 {
							want = codes[i] // any NaN, of either sign
						}
					case overflow && (!saturate || m.exp+m.man > 8):
						want = tt.over[0]
						if math.Signbit(float64(v)) {
							want = tt.over[1]
						}
					}
					if codes[i] != want {
						t.Fatalf("saturate %v: %v (%#08x): got code %#x, want %#x", saturate, v, math.Float32bits(v), codes[i], want)
					}
					if v == v && !overflow && !same32(back[i], value) {
						t.Fatalf("%v: cast back %v, want %v", v, back[i], value)
					}
				}
			}
		})
	}
}

// TestIntegersAgainstModel rounds every integer format in full range with and without zero point.
func TestIntegersAgainstModel(t *testing.T) {
	t.Parallel()
	for bits := 2; bits <= 16; bits++ {
		for _, signed := range []bool{true, false} {
			name := fmt.Sprintf("uint%d/sym", bits)
			lo, hi := 0.0, math.Ldexp(1, bits)-1
			if signed {
				name = fmt.Sprintf("int%d/full", bits)
				lo, hi = -math.Ldexp(1, bits-1), math.Ldexp(1, bits-1)-1
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				x := inputs(count()/16, hi)
				for _, tt := range []struct{ scale, zero float64 }{{1, 0}, {0.5, 0}, {0.3, 0}, {7e-5, math.Floor(hi / 3)}} {
					scheme := name
					p := numfmt.Params{Scale: []float32{float32(tt.scale)}}
					if tt.zero != 0 {
						if signed {
							continue
						}
						scheme = fmt.Sprintf("uint%d", bits)
						p.Zero = []float32{float32(tt.zero)}
					}
					s, err := numfmt.ParseScheme(scheme, numfmt.Input)
					if err != nil {
						t.Fatal(err)
					}
					l, err := s.Layout([]int{len(x)}, numfmt.Axes{})
					if err != nil {
						t.Fatal(err)
					}
					got := make([]float32, len(x))
					if err := s.Apply(got, x, l, p); err != nil {
						t.Fatal(err)
					}
					for i, v := range x {
						want := bigInt(v, p.Scale[0], tt.zero, lo, hi)
						if !same32(got[i], want) {
							t.Fatalf("scale %v zero %v: %v: got %v, want %v", tt.scale, tt.zero, v, got[i], want)
						}
					}
				}
			})
		}
	}
}

// bigInt is (clip(rne(x/Δ)+z) - z)·Δ with exact quotient and product, each rounded once to float32.
func bigInt(x, scale float32, zero, lo, hi float64) float32 {
	if x != x {
		return 0
	}
	q := math.Inf(1)
	if !math.IsInf(float64(x), 0) {
		// A float64 quotient of two float32 rounds to the same float32 as the exact one: 53 ≥ 2·24+2.
		q = float64(float32(math.Abs(float64(x)) / float64(scale)))
	}
	q = math.Copysign(q, float64(x))
	if math.Abs(q) < 1<<40 {
		f := math.Floor(q)
		switch d := q - f; {
		case d > 0.5 || d == 0.5 && math.Mod(f, 2) != 0:
			f++
		}
		q = f
	}
	q = min(max(q+zero, lo), hi) - zero
	return float32(q*float64(scale)) + 0
}

// TestQPyTorchAgainstModel emulates the parity formats in big.Float.
func TestQPyTorchAgainstModel(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ exp, man int }{{4, 3}, {5, 2}, {2, 1}, {5, 10}, {3, 0}} {
		name := fmt.Sprintf("qpt-e%dm%d", tt.exp, tt.man)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bias := 1<<(tt.exp-1) - 1
			most := math.Ldexp(2-math.Ldexp(1, -tt.man), 1<<tt.exp-1-bias)
			least := math.Ldexp(1, 1-bias)
			x := inputs(count()/16, most)
			got := unscaled(t, name, x)
			for i, v := range x {
				a, want := math.Abs(float64(v)), 0.0
				switch {
				case v != v || a >= most:
					want = most
				case a < least:
					sum := new(big.Float).SetPrec(24).Add(big.NewFloat(a).SetPrec(60), big.NewFloat(least).SetPrec(60))
					f, _ := sum.Float64()
					want = halfAway(f, tt.man) - least
				default:
					want = min(halfAway(a, tt.man), most)
				}
				if math.Signbit(float64(v)) && want != 0 {
					want = -want
				}
				if !same32(got[i], float32(want)) {
					t.Fatalf("%v (%#08x): got %v, want %v", v, math.Float32bits(v), got[i], want)
				}
			}
		})
	}
}

func halfAway(a float64, man int) float64 {
	_, e := math.Frexp(a)
	u := math.Ldexp(1, e-1-man)
	return math.Floor(a/u+0.5) * u
}

// TestEveryCode decodes every code of every format of at most 8 bits and codes it again.
func TestEveryCode(t *testing.T) {
	t.Parallel()
	names := []string{"e4m3b11fnuz", "e6m1", "e7m0", "e5m2fn", "e1m3", "e1m6", "e2m5"}
	for _, f := range numfmt.All() {
		names = append(names, f.Name)
	}
	for _, name := range names {
		f, err := numfmt.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		if f.Bits > 8 {
			continue
		}
		seen := map[float32]uint32{}
		for code := range uint32(f.Codes()) {
			v := f.Decode(code)
			if again := f.Encode(v, false); again != code {
				other := f.Decode(again)
				first, dup := seen[v]
				switch {
				case v != v && other != other: // one NaN stands for all
				case f.Kind == numfmt.Book && dup && first == again: // -0 of a codebook
				case f.Parity && v == 0: // QPyTorch has no -0
				case f.Kind == numfmt.Ternary && code == 2: // -2 is not a value
				default:
					t.Errorf("%s: code %#x is %v, coded again %#x", name, code, v, again)
				}
			}
			if _, dup := seen[v]; !dup {
				seen[v] = code
			}
		}
	}
	for _, s := range specs {
		m := newModel(t, s)
		f, err := numfmt.Lookup(s.name)
		if err != nil {
			t.Fatal(err)
		}
		for code, want := range m.value {
			if got := f.Decode(uint32(code)); got != float32(want) {
				t.Errorf("%s: code %#x: got %v, want %v", s.name, code, got, want)
			}
		}
		if got := f.Max(); got != float32(m.value[len(m.value)-1]) {
			t.Errorf("%s: largest value %v, want %v", s.name, got, m.value[len(m.value)-1])
		}
		if got := f.MinSubnormal(); got != float32(m.value[1]) {
			t.Errorf("%s: least value %v, want %v", s.name, got, m.value[1])
		}
	}
}
