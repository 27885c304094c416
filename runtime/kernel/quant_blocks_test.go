package kernel_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
)

var (
	e2m1 = kernel.Minifloat{ExpBits: 2, ManBits: 1, Bias: 1, Max: 6, NaN: 6}
	e4m3 = kernel.Minifloat{ExpBits: 4, ManBits: 3, Bias: 7, Max: 448, NaN: float32(math.NaN())}
)

// blockRules are quantizers by each rule, on integer and on float grids.
func blockRules(size int) map[string]*kernel.BlockQuant {
	int4 := kernel.Blocks{Size: size, Max: 7, Lo: -7, Hi: 7}
	int8 := kernel.Blocks{Size: size, Max: 127, Lo: -127, Hi: 127}
	with := func(b kernel.Blocks, change func(*kernel.Blocks)) kernel.Blocks {
		change(&b)
		return b
	}
	abfp := func(b *kernel.Blocks) { b.BF16, b.Tiny = true, 0x1p-24 }
	pow2 := func(b *kernel.Blocks) { b.Pow2 = true }
	code := func(b *kernel.Blocks) { b.Code, b.Tiny = &e4m3, 0x1p-24 }
	fp4, fp8 := kernel.Blocks{Size: size, Max: 6}, kernel.Blocks{Size: size, Max: 448}
	return map[string]*kernel.BlockQuant{
		"int4": int4.Int(), "int4 abfp": with(int4, abfp).Int(), "int8 abfp": with(int8, abfp).Int(), "int8 mx": with(int8, pow2).Int(),
		"int4 coded": with(int4, code).Int().Under(30), "e2m1": fp4.Float(e2m1), "e2m1 abfp": with(fp4, abfp).Float(e2m1),
		"e4m3 abfp": with(fp8, abfp).Float(e4m3), "mxfp4": with(fp4, pow2).Float(e2m1), "mxfp8": with(fp8, pow2).Float(e4m3),
		"nvfp4": with(fp4, code).Float(e2m1).Under(30), "nvfp4 of little": with(fp4, code).Float(e2m1).Under(1e-9),
		"nvfp4 of much": with(fp4, code).Float(e2m1).Under(3e38),
	}
}

// All levels give the same bits, by rows and by columns: for ordinary values, tiny and huge ones, zeros and specials.
func TestBlockRulesAgreeAcrossLevels(t *testing.T) {
	const rows, cols = 6, 200
	for _, size := range []int{4, 16, 32, 64, 200} {
		for name, q := range blockRules(size) {
			for kind, scale := range map[string]float32{"plain": 1, "tiny": 0x1p-120, "small": 0x1p-70, "large": 0x1p100, "huge": 0x1p125, "mixed": 0} {
				x := randn(rows*cols, 21)
				if scale == 0 {
					x = mixed(rows*cols, 22)
				}
				for i := range x {
					x[i] *= max(scale, float32(1)*b2f(scale == 0))
				}
				clear(x[cols : cols+150])
				x[cols+3] = float32(math.Copysign(0, -1))
				agree(t, fmt.Sprintf("%s rows of %d, %s", name, size, kind), func() []float32 {
					d, s := make([]float32, len(x)), make([]float32, rows*((cols+size-1)/size))
					ok := q.AllRows(rows, cols, d, x, s)
					return append(append(d, s...), b2f(ok))
				})
				agree(t, fmt.Sprintf("%s columns of %d, %s", name, size, kind), func() []float32 {
					d, s := make([]float32, len(x)), make([]float32, cols*((rows+size-1)/size))
					ok := q.AllCols(rows, cols, d, x, s)
					return append(append(d, s...), b2f(ok))
				})
			}
		}
	}
}

func b2f(b bool) float32 {
	if b {
		return 1
	}
	return 0
}

// The vector loops divide without dividing: quotients within a few units in the last place of a tie must fall as a true
// division has them.
func TestBlockQuotients(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const n = 64
	x, got := make([]float32, n), make([]float32, n)
	int8 := kernel.Blocks{Size: n, Max: 127, Lo: -127, Hi: 127}.Int()
	fp8 := kernel.Blocks{Size: n, Max: 448}.Float(e4m3)
	for range 4000 {
		m := float32(math.Ldexp(1+rng.Float64(), rng.IntN(100)-50))
		for _, c := range []struct {
			q   *kernel.BlockQuant
			max float32
			ref func(s float32) []float32
		}{
			{int8, 127, func(s float32) []float32 {
				out := make([]float32, n)
				for i, v := range x {
					out[i] = (float32(math.RoundToEven(float64(v/s))) + 0) * s
				}
				return out
			}},
			{fp8, 448, func(s float32) []float32 {
				out := make([]float32, n)
				for i, v := range x {
					out[i] = v / s
				}
				kernel.CastMinifloat(out, out, e4m3)
				for i := range out {
					out[i] *= s
				}
				return out
			}},
		} {
			s := m / c.max
			x[0] = m
			for i := 1; i < n; i++ {
				tie := (float32(rng.IntN(250)) + 0.5) / 2
				if c.max == 448 {
					tie = float32(math.Ldexp(float64(17+2*rng.IntN(8)), rng.IntN(17)-13))
				}
				v := tie * s
				for range rng.IntN(4) {
					v = math.Nextafter32(v, float32(rng.IntN(2))*2*m)
				}
				if v > m {
					v = m
				}
				x[i] = v * float32(1-2*rng.IntN(2))
			}
			c.q.Rows(1, n, got, n, x, n, nil)
			checkBits(t, fmt.Sprintf("largest %v, %v", m, c.max), got, c.ref(s))
		}
	}
}

// The scales of microscaling (METHODS.md §1.4) and of two levels (§1.5).
func TestBlockScalesGolden(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		x := make([]float32, 32)
		d, s := make([]float32, 32), make([]float32, 1)
		for _, c := range []struct{ m, want float32 }{{6, 1}, {7.9, 1}, {8, 2}, {3.9, 0.5}, {0, 0x1p-127}, {0x1p-140, 0x1p-127}, {0x1.8p127, 0x1p125}} {
			x[5] = -c.m
			kernel.Blocks{Size: 32, Max: 6, Pow2: true}.Float(e2m1).AllRows(1, 32, d, x, s)
			if s[0] != c.want {
				t.Errorf("mxfp4: largest %v: scale %v, want %v", c.m, s[0], c.want)
			}
		}
		x[5] = 3
		nv := kernel.Blocks{Size: 32, Max: 6, Code: &e4m3}.Float(e2m1)
		if !nv.Relative() {
			t.Error("not relative")
		}
		nv.Under(6*448).AllRows(1, 32, d, x, s)
		if s[0] != 0.5 || d[5] != 3 {
			t.Errorf("nvfp4: scale %v, value %v, want 0.5, 3", s[0], d[5])
		}
	})
}

// Attention with quantizers on its operands is the separate steps, each operand quantized; by rules that look at the whole
// stack first too.
func TestAttentionQuantizesOperands(t *testing.T) {
	const heads, sq, sk, d, dv = 3, 60, 100, 24, 16
	kernel.EachLevel(t, func(t *testing.T) {
		for name, rule := range map[string]func(size int) *kernel.BlockQuant{
			"abfp":  func(size int) *kernel.BlockQuant { return blockRules(size)["int4 abfp"] },
			"mxfp4": func(size int) *kernel.BlockQuant { return blockRules(size)["mxfp4"] },
			"nvfp4": func(size int) *kernel.BlockQuant { return blockRules(size)["nvfp4"] },
		} {
			for _, columns := range []bool{false, true} {
				q, k, v, mask := randn(heads*sq*d, 1), randn(heads*sk*d, 2), randn(heads*sk*dv, 3), make([]float32, sq*sk)
				for i := range sq {
					for j := i + 41; j < sk; j++ {
						mask[i*sk+j] = float32(math.Inf(-1))
					}
				}
				a := kernel.Attention{Count: heads, SQ: sq, SK: sk, D: d, DV: dv, StrideQ: sq * d, StrideK: sk * d, StrideV: sk * dv, StrideO: sq * dv,
					LdQ: d, LdK: d, LdV: dv, LdO: dv, Scale: 0.3, Mask: mask, KColumns: columns,
					QuantQ: rule(16), QuantK: rule(d), QuantP: rule(32), QuantV: rule(64)}
				if columns {
					a.LdK = sk
				}
				got := make([]float32, heads*sq*dv)
				if !a.Run(got, q, k, v) {
					t.Error("finite operands were not")
				}
				under := func(b *kernel.BlockQuant, x []float32) *kernel.BlockQuant { return b.Under(kernel.AbsMax(x)) }
				under(a.QuantQ, q).AllRows(heads*sq, d, q, q, nil)
				if columns {
					by := under(a.QuantK, k)
					for h := range heads {
						by.AllCols(d, sk, k[h*sk*d:][:sk*d], k[h*sk*d:][:sk*d], nil)
					}
				} else {
					under(a.QuantK, k).AllRows(heads*sk, d, k, k, nil)
				}
				by := under(a.QuantV, v)
				for h := range heads {
					by.AllCols(sk, dv, v[h*sk*dv:][:sk*dv], v[h*sk*dv:][:sk*dv], nil)
				}
				p, want := make([]float32, heads*sq*sk), make([]float32, len(got))
				for h := range heads {
					s := p[h*sq*sk:][:sq*sk]
					kernel.MatMul(sq, sk, d, q[h*sq*d:], d, false, k[h*sk*d:], a.LdK, !columns, s, sk, false)
					kernel.MulScalar(s, s, 0.3)
					kernel.Add(s, s, mask)
				}
				kernel.Softmax(heads*sq, sk, p, p)
				under(a.QuantP, p).AllRows(heads*sq, sk, p, p, nil)
				for h := range heads {
					kernel.MatMul(sq, dv, sk, p[h*sq*sk:], sk, false, v[h*sk*dv:], dv, false, want[h*sq*dv:], dv, false)
				}
				checkBits(t, name, got, want)
				q[5] = float32(math.NaN())
				if a.Run(got, q, k, v) {
					t.Errorf("%s: NaN went unnoticed", name)
				}
			}
		}
	})
}

// Attention whose operands are quantized in the same blocks is the separate steps on codes, where powers of two make Δ what PackBlocks
// finds, and has the same bits at all vector levels by any rule.
func TestAttentionOnCodes(t *testing.T) {
	const heads, sq, sk, d, dv = 2, 60, 200, 130, 40
	mask := make([]float32, sq*sk)
	for i := range sq {
		for j := i + 101; j < sk; j++ {
			mask[i*sk+j] = float32(math.Inf(-1))
		}
	}
	first := map[string][]float32{}
	kernel.EachLevel(t, func(t *testing.T) {
		if !kernel.FastBlocks() {
			t.Skip("products of blocks are not used at this level")
		}
		for name, rule := range blockSchemes {
			for _, size := range []int{64, 128} {
				for _, columns := range []bool{false, true} {
					q, k, v := randn(heads*sq*d, 1), randn(heads*sk*d, 2), randn(heads*sk*dv, 3)
					by := rule(size)
					a := kernel.Attention{Count: heads, SQ: sq, SK: sk, D: d, DV: dv, StrideQ: sq * d, StrideK: sk * d, StrideV: sk * dv, StrideO: sq * dv,
						LdQ: d, LdK: d, LdV: dv, LdO: dv, Scale: 0.3, Mask: mask, KColumns: columns, QuantQ: by, QuantK: by, QuantP: by, QuantV: by, Codes: true}
					if columns {
						a.LdK = sk
					}
					got := make([]float32, heads*sq*dv)
					if !a.Run(got, q, k, v) {
						t.Fatalf("%s: finite operands were not", name)
					}
					what := fmt.Sprintf("%s/%d/columns=%v", name, size, columns)
					if kernel.Level() != "none" { // whose Softmax has other bits
						if first[what] == nil {
							first[what] = slices.Clone(got)
						}
						checkBits(t, what+" beside the best level", got, first[what])
					}
					if name == "mxfp4" || name == "mxint8" {
						checkBits(t, what, got, attentionSteps(t, &a, by, heads, q, k, v))
					}
					q[5] = float32(math.NaN())
					if a.Run(got, q, k, v) {
						t.Errorf("%s: NaN went unnoticed", what)
					}
				}
			}
		}
	})
}

// attentionSteps is a.Run step by step, both products by GemmBlocks.
func attentionSteps(t *testing.T, a *kernel.Attention, by *kernel.BlockQuant, heads int, q, k, v []float32) []float32 {
	t.Helper()
	product := func(m, n, k int, x, w []float32, ldw int, trans bool, out []float32) {
		codes := make([]byte, m*kernel.BlockRow(k, by.Size()))
		p, ok := kernel.PackBlocks(k, n, w, ldw, trans, by.Size())
		if !ok || !by.Codes(m, k, codes, x, k) {
			t.Fatal("no codes")
		}
		kernel.GemmBlocks(m, codes, p, out, n, nil)
	}
	out, s := make([]float32, heads*a.SQ*a.DV), make([]float32, a.SQ*a.SK)
	for h := range heads {
		k, v := k[h*a.StrideK:][:a.SK*a.D], v[h*a.StrideV:][:a.SK*a.DV]
		if a.KColumns {
			by.AllCols(a.D, a.SK, k, k, nil)
		} else {
			by.AllRows(a.SK, a.D, k, k, nil)
		}
		by.AllCols(a.SK, a.DV, v, v, nil)
		product(a.SQ, a.SK, a.D, q[h*a.StrideQ:], k, a.LdK, !a.KColumns, s)
		kernel.MulScalar(s, s, a.Scale)
		kernel.Add(s, s, a.Mask)
		kernel.Softmax(a.SQ, a.SK, s, s)
		product(a.SQ, a.DV, a.SK, s, v, a.DV, false, out[h*a.StrideO:])
	}
	return out
}
