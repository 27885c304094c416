package kernel_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
)

// special are the values that go wrong first.
func special() []float32 {
	inf := float32(math.Inf(1))
	sub := math.Float32frombits(1)
	neg0 := float32(math.Copysign(0, -1))
	return []float32{0, neg0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, inf, -inf, float32(math.NaN()), sub, -sub, math.MaxFloat32,
		-math.MaxFloat32, 0x1p-126, 0x1p-127, 65504, 65519.99, 65520, 448, 464, 465, 6, 5, 0.25, 0.75, -0.2, 126.5, 127.5, 1e-3}
}

// mixed is n values of many magnitudes, special ones among them.
func mixed(n int, seed uint64) []float32 {
	x := randn(n, seed)
	sp := special()
	for i := range x {
		switch i % 5 {
		case 0:
			x[i] *= 30
		case 1:
			x[i] *= 1e-3
		case 2:
			x[i] = sp[(i/5)%len(sp)]
		}
	}
	return x
}

// agree runs f at every level and compares the bits with plain Go's.
func agree(t *testing.T, what string, f func() []float32) {
	t.Helper()
	restore, _ := kernel.SetLevel("none")
	want := f()
	restore()
	for _, level := range []string{"avx512", "avx2"} {
		restore, ok := kernel.SetLevel(level)
		if ok {
			checkBits(t, what+" at "+level, f(), want)
		}
		restore()
	}
}

var lengths = []int{0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 129, 1000, 40000}

func TestFakeQuantIntGolden(t *testing.T) {
	for _, c := range []struct {
		name                string
		scale, zero, lo, hi float32
		x, want             []float32
	}{
		{"int4 restricted", .25, 0, -7, 7, []float32{.875, -1.75, .125, .375, -.625, 1.3125, -.6}, []float32{1, -1.75, 0, .5, -.5, 1.25, -.5}},
		{"uint4 asymmetric", .25, 5, 0, 15, []float32{-1.5, -1.25, -.3, 0, .125, .375, 1, 2.5, 3}, []float32{-1.25, -1.25, -.25, 0, 0, .5, 1, 2.5, 2.5}},
		{"onnx order", 1. / 7, 0, -7, 7, []float32{0.7857142686843872}, []float32{5 * float32(1./7)}},
		{"specials", 1, 0, -127, 127, []float32{float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), 0.5, 1.5, 1e30}, []float32{127, -127, 0, 0, 2, 127}},
	} {
		kernel.EachLevel(t, func(t *testing.T) {
			got := make([]float32, len(c.x))
			kernel.FakeQuantInt(got, c.x, c.scale, c.zero, c.lo, c.hi)
			checkBits(t, c.name, got, c.want)
		})
	}
}

func TestQuantizersAgreeAcrossLevels(t *testing.T) {
	formats := map[string]kernel.Minifloat{
		"e2m1": {ExpBits: 2, ManBits: 1, Bias: 1, Max: 6, NaN: 6},
		"e1m2": {ExpBits: 1, ManBits: 2, Bias: 0, Max: 3.5},
		"e4m3": {ExpBits: 4, ManBits: 3, Bias: 7, Max: 448, NaN: float32(math.NaN())},
		"e5m2": {ExpBits: 5, ManBits: 2, Bias: 15, Max: 57344, NaN: float32(math.NaN())},
		"e8m7": {ExpBits: 8, ManBits: 7, Bias: 127, Max: 3.3895314e38, NaN: float32(math.NaN())},
	}
	for _, n := range lengths {
		x := mixed(n, 11)
		out := func(f func(dst []float32)) func() []float32 {
			return func() []float32 {
				dst := make([]float32, n)
				f(dst)
				return dst
			}
		}
		agree(t, fmt.Sprintf("FakeQuantInt/%d", n), out(func(d []float32) { kernel.FakeQuantInt(d, x, 0.037, 3, -128, 127) }))
		agree(t, fmt.Sprintf("QuantizeInt/%d", n), out(func(d []float32) {
			q := make([]int8, n)
			kernel.QuantizeInt(q, x, 0.037, 3, -128, 127)
			kernel.DequantizeInt(d, q, 0.037, 3)
		}))
		agree(t, fmt.Sprintf("QuantizeInt/uint8/%d", n), out(func(d []float32) {
			q := make([]uint8, n)
			kernel.QuantizeInt(q, x, 0.02, 100, 0, 255)
			kernel.DequantizeInt(d, q, 0.02, 100)
		}))
		agree(t, fmt.Sprintf("QuantizeInt/int16/%d", n), out(func(d []float32) {
			q := make([]int16, n)
			kernel.QuantizeInt(q, x, 0.002, 100, -32768, 32767)
			kernel.DequantizeInt(d, q, 0.002, 100)
		}))
		for name, f := range formats {
			agree(t, fmt.Sprintf("%s/%d", name, n), out(func(d []float32) { kernel.CastMinifloat(d, x, f) }))
			agree(t, fmt.Sprintf("scaled %s/%d", name, n), out(func(d []float32) { kernel.FakeQuantFloat(d, x, 0.3, f) }))
		}
		agree(t, fmt.Sprintf("RoundBF16/%d", n), out(func(d []float32) { kernel.RoundBF16(d, x) }))
		agree(t, fmt.Sprintf("RoundF16/%d", n), out(func(d []float32) { kernel.RoundF16(d, x) }))
		agree(t, fmt.Sprintf("AbsMax/%d", n), func() []float32 { return []float32{kernel.AbsMax(x)} })
		y := randn(n, 12)
		agree(t, fmt.Sprintf("reductions/%d", n), func() []float32 {
			lo, hi := kernel.MinMax(y)
			l2, h2 := kernel.MinMax(x)
			return []float32{lo, hi, l2, h2, kernel.AbsMax(y), kernel.Sum(y), kernel.SumSquares(y, 0.25)}
		})
	}
	for _, cols := range []int{1, 5, 63, 64, 65, 80, 129, 200} {
		rows := 9
		for _, bad := range []bool{false, true} {
			x := randn(rows*cols, 13)
			clear(x[cols : cols+cols/2])
			if bad {
				x = mixed(rows*cols, 14)
			}
			for _, size := range []int{4, 16, 32, 64} {
				bl := kernel.Blocks{Size: size, Max: 7, Lo: -7, Hi: 7, BF16: true}
				fl := kernel.Blocks{Size: size, Max: 6}
				e2m1 := formats["e2m1"]
				for name, f := range map[string]func(d, s []float32) bool{
					"BlocksInt":       func(d, s []float32) bool { return bl.Int().AllRows(rows, cols, d, x, s) },
					"BlocksFloat":     func(d, s []float32) bool { return fl.Float(e2m1).AllRows(rows, cols, d, x, s) },
					"BlocksIntCols":   func(d, s []float32) bool { return bl.Int().AllCols(rows, cols, d, x, s) },
					"BlocksFloatCols": func(d, s []float32) bool { return fl.Float(e2m1).AllCols(rows, cols, d, x, s) },
				} {
					ns := rows * ((cols + size - 1) / size)
					if name == "BlocksIntCols" || name == "BlocksFloatCols" {
						ns = cols * ((rows + size - 1) / size)
					}
					agree(t, fmt.Sprintf("%s %d/%d", name, cols, size), func() []float32 {
						d := make([]float32, rows*cols)
						s := make([]float32, ns)
						if ok := f(d, s); ok == bad && !bad {
							t.Errorf("%s: finite %v", name, ok)
						}
						return append(d, s...)
					})
				}
			}
		}
	}
}

// Quantizing to codes and back is FakeQuantInt.
func TestQuantizeIsFakeQuant(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		x := mixed(1000, 17)
		want, got := make([]float32, len(x)), make([]float32, len(x))
		kernel.FakeQuantInt(want, x, 0.037, 3, -128, 127)
		q := make([]int8, len(x))
		kernel.QuantizeInt(q, x, 0.037, 3, -128, 127)
		kernel.DequantizeInt(got, q, 0.037, 3)
		checkBits(t, "int8", got, want)
		u := make([]uint8, len(x))
		kernel.FakeQuantInt(want, x, 0.02, 100, 0, 255)
		kernel.QuantizeInt(u, x, 0.02, 100, 0, 255)
		kernel.DequantizeInt(got, u, 0.02, 100)
		checkBits(t, "uint8", got, want)
	})
}

// Blocks along columns are blocks along the rows of the transpose.
func TestBlocksColsAreTransposedBlocks(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		rows, cols := 37, 21
		x := randn(rows*cols, 15)
		for r := range 16 {
			x[r*cols+3] = 0
		}
		x[20*cols+5] = float32(math.NaN())
		b := kernel.Blocks{Size: 16, Max: 7, Lo: -7, Hi: 7, BF16: true}
		got, xt, want, back := make([]float32, len(x)), make([]float32, len(x)), make([]float32, len(x)), make([]float32, len(x))
		if b.Int().AllCols(rows, cols, got, x, nil) {
			t.Error("a NaN went unreported")
		}
		kernel.Transpose(rows, cols, xt, rows, x, cols)
		b.Int().AllRows(cols, rows, want, xt, nil)
		kernel.Transpose(cols, rows, back, cols, want, rows)
		checkBits(t, "columns", got, back)
	})
}

func TestABFPGolden(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		x := []float32{1.003, -.55, .25, .1, 10.06, -4, .7, 2, .03, -.02}
		d, s := make([]float32, 10), make([]float32, 3)
		kernel.Blocks{Size: 4, Max: 7, Lo: -7, Hi: 7, BF16: true}.Int().AllRows(1, 10, d, x, s)
		want := []float32{1, -.5714286, .2857143, .14285715, 10.0625, -4.3125, 0, 1.4375, .030029297, -.021449497}
		for i := range want {
			if math.Abs(float64(d[i]-want[i])) > 1e-7*math.Abs(float64(want[i])) {
				t.Errorf("element %d: got %v, want %v", i, d[i], want[i])
			}
		}
		if s[1] != 10.0625/7 {
			t.Errorf("scale %v, want 10.0625/7", s[1])
		}
	})
}

func TestCastMinifloatGolden(t *testing.T) {
	neg0 := float32(math.Copysign(0, -1))
	for _, c := range []struct {
		name    string
		f       kernel.Minifloat
		x, want []float32
	}{
		{"e2m1", kernel.Minifloat{ExpBits: 2, ManBits: 1, Bias: 1, Max: 6, NaN: 6}, []float32{.25, .75, 1.25, 1.75, 2.5, 3.5, 5, 7, -.2, .26, -2.75, 5.01, float32(math.NaN())}, []float32{0, 1, 1, 2, 2, 4, 4, 6, neg0, .5, -3, 6, 6}},
		{"e1m2", kernel.Minifloat{ExpBits: 1, ManBits: 2, Bias: 0, Max: 3.5}, []float32{.25, .75, 1.25, 1.74, 2.25, 3.25, 9, -.3}, []float32{0, 1, 1, 1.5, 2, 3, 3.5, -.5}},
		{"e4m3fn", kernel.Minifloat{ExpBits: 4, ManBits: 3, Bias: 7, Max: 448}, []float32{0x1p-10, 0x3p-10, .001, 17, 19, 447, 464, 465, 500, 1e6, -.3}, []float32{0, .00390625, .001953125, 16, 20, 448, 448, 448, 448, 448, -.3125}},
		{"e5m2", kernel.Minifloat{ExpBits: 5, ManBits: 2, Bias: 15, Max: 57344}, []float32{1.125, 1.375, 3.5, 60000, 61440, 0x1p-17, 0x1.8p-16}, []float32{1, 1.5, 3.5, 57344, 57344, 0, 3.0517578125e-05}},
	} {
		kernel.EachLevel(t, func(t *testing.T) {
			got := make([]float32, len(c.x))
			kernel.CastMinifloat(got, c.x, c.f)
			checkBits(t, c.name, got, c.want)
		})
	}
}

// Every half and every bfloat16 survives the trip through float32, and conversion picks the nearest.
func TestConversions(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		all, back := make([]uint16, 1<<16), make([]uint16, 1<<16)
		for i := range all {
			all[i] = uint16(i)
		}
		x := make([]float32, 1<<16)
		kernel.FromF16(x, all)
		kernel.ToF16(back, x)
		for i := range all {
			want := all[i]
			if want&0x7c00 == 0x7c00 && want&0x3ff != 0 {
				want |= 0x200
			}
			if back[i] != want {
				t.Fatalf("half %#x came back as %#x, want %#x", i, back[i], want)
			}
			if e := want >> 10 & 31; e < 31 {
				exact := math.Ldexp(float64(want&0x3ff), -24)
				if e > 0 {
					exact = math.Ldexp(1+float64(want&0x3ff)/1024, int(e)-15)
				}
				if math.Abs(float64(x[i])) != exact || math.Signbit(float64(x[i])) != (want>>15 == 1) {
					t.Fatalf("half %#x is %v, want ±%v", i, x[i], exact)
				}
			}
		}
		// Midpoints between neighbours go to the even one.
		for i := uint16(0); i < 0x7bff; i++ {
			mid := []float32{(x[i] + x[i+1]) / 2}
			var q [1]uint16
			kernel.ToF16(q[:], mid)
			if want := (i + 1) &^ 1; q[0] != want {
				t.Fatalf("midpoint above half %#x went to %#x, want %#x", i, q[0], want)
			}
		}
		kernel.FromBF16(x, all)
		kernel.ToBF16(back, x)
		for i := range all {
			want := all[i]
			if want&0x7f80 == 0x7f80 && want&0x7f != 0 {
				want |= 0x40
			}
			if back[i] != want {
				t.Fatalf("bfloat16 %#x came back as %#x, want %#x", i, back[i], want)
			}
		}
		in := []float32{1.00390625, 1.01171875, 3.14159265, .1, -2.7182818, 3.0234375, math.MaxFloat32}
		out := make([]float32, len(in))
		kernel.RoundBF16(out, in)
		checkBits(t, "bfloat16", out, []float32{1, 1.015625, 3.140625, .10009765625, -2.71875, 3.03125, float32(math.Inf(1))})
	})
}

func BenchmarkFakeQuant(b *testing.B) {
	n := 1 << 20
	x, d := randn(n, 1), make([]float32, n)
	for name, f := range map[string]func(){
		"int8": func() { kernel.FakeQuantInt(d, x, 0.02, 0, -127, 127) },
		"abfp64": func() {
			kernel.Blocks{Size: 64, Max: 7, Lo: -7, Hi: 7, BF16: true}.Int().AllRows(n/1024, 1024, d, x, nil)
		},
		"e4m3":    func() { kernel.CastMinifloat(d, x, kernel.Minifloat{ExpBits: 4, ManBits: 3, Bias: 7, Max: 448}) },
		"softmax": func() { kernel.Softmax(n/1024, 1024, d, x) },
		"exp":     func() { kernel.Exp(d, x) },
		"gelu":    func() { kernel.Gelu(d, x) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(8 * n))
			for b.Loop() {
				f()
			}
		})
	}
}
