package kernel_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
)

// blockSchemes are quantizers whose levels are integers of 8 bits in some unit.
var blockSchemes = map[string]func(size int) *kernel.BlockQuant{
	"abfp int4": func(size int) *kernel.BlockQuant {
		return kernel.Blocks{Size: size, Max: 7, Lo: -7, Hi: 7, BF16: true, Tiny: 1e-30}.Int()
	},
	"abfp int8": func(size int) *kernel.BlockQuant {
		return kernel.Blocks{Size: size, Max: 127, Lo: -128, Hi: 127, BF16: true, Tiny: 1e-30}.Int()
	},
	"mxint8": func(size int) *kernel.BlockQuant {
		return kernel.Blocks{Size: size, Max: 127, Lo: -127, Hi: 127, Pow2: true}.Int()
	},
	"mxfp4": func(size int) *kernel.BlockQuant {
		return kernel.Blocks{Size: size, Max: 6, Pow2: true}.Float(kernel.Minifloat{ExpBits: 2, ManBits: 1, Bias: 1, Max: 6})
	},
	"nvfp4": func(size int) *kernel.BlockQuant {
		return kernel.Blocks{Size: size, Max: 6, Code: &kernel.Minifloat{ExpBits: 4, ManBits: 3, Bias: 7, Max: 448}}.Float(kernel.Minifloat{ExpBits: 2, ManBits: 1, Bias: 1, Max: 6}).Under(4)
	},
}

// blockInput are m rows of k numbers of different magnitudes, with a row of zeros and one of subnormal numbers' neighbourhood.
func blockInput(m, k int, seed uint64) []float32 {
	x := randn(m*k, seed)
	for r := range m {
		for i := range k {
			switch {
			case r%7 == 3:
				x[r*k+i] = 0
			default:
				x[r*k+i] *= float32(math.Ldexp(1, r%5-2))
			}
		}
	}
	return x
}

// TestBlockProducts: a product on codes is, bit for bit at every level, the chain that its definition says, and as near to the
// product of the quantized numbers as float32 sums are.
func TestBlockProducts(t *testing.T) {
	for name, scheme := range blockSchemes {
		for _, s := range []struct{ m, n, k, size int }{{1, 1, 4, 4}, {3, 17, 64, 16}, {10, 50, 100, 32}, {29, 97, 384, 64}, {5, 64, 130, 8}, {70, 40, 1600, 64}, {2, 33, 1540, 128}, {35, 64, 512, 128}} {
			for _, tb := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%dx%dx%d/%d/transB=%v", name, s.m, s.n, s.k, s.size, tb), func(t *testing.T) {
					var first []float32
					kernel.EachLevel(t, func(t *testing.T) {
						for tile := range kernel.BlockTiles() {
							restore, ok := kernel.WithBlockTile(tile, s.size)
							if !ok {
								continue
							}
							got := blockProduct(t, scheme(s.size), s.m, s.n, s.k, tb)
							restore()
							if first == nil {
								first = got
							}
							for i, v := range got {
								if math.Float32bits(v) != math.Float32bits(first[i]) {
									t.Fatalf("tile %d, element %d: %v, the first one gives %v", tile, i, v, first[i])
								}
							}
						}
					})
				})
			}
		}
	}
}

func blockProduct(t *testing.T, q *kernel.BlockQuant, m, n, k int, tb bool) []float32 {
	t.Helper()
	x, w := blockInput(m, k, 1), blockInput(n, k, 2)
	xq, wq := make([]float32, m*k), make([]float32, n*k)
	q.AllRows(m, k, xq, x, nil)
	q.AllRows(n, k, wq, w, nil)
	b, ldb := wq, k
	if !tb {
		b, ldb = make([]float32, k*n), n
		kernel.Transpose(n, k, b, n, wq, k)
	}
	p, ok := kernel.PackBlocks(k, n, b, ldb, tb, q.Size())
	if !ok {
		t.Fatal("the weight's codes were not found")
	}
	codes := make([]byte, m*kernel.BlockRow(k, q.Size()))
	if !q.CanCode() || !q.Codes(m, k, codes, x, k) {
		t.Fatal("the quantizer wrote no codes")
	}
	back := make([]float32, m*k)
	kernel.Uncode(m, k, q.Size(), back, codes)
	for i, v := range back {
		if v != xq[i] {
			t.Fatalf("number %d became %v, want %v", i, v, xq[i])
		}
	}
	ldc := n + 3
	c := make([]float32, m*ldc)
	for i := range c {
		c[i] = -7
	}
	bias := randn(n, 3)
	kernel.GemmBlocks(m, codes, p, c, ldc, &kernel.Epilogue{Bias: bias})
	out := make([]float32, 0, m*n)
	for i := range m {
		for j := range n {
			sum, size := 0.0, 0.0
			for l := range k {
				v := float64(xq[i*k+l]) * float64(wq[j*k+l])
				sum, size = sum+v, size+math.Abs(v)
			}
			got := float64(c[i*ldc+j]) - float64(bias[j])
			if math.Abs(got-sum) > 0x1p-24*(3*float64((k+q.Size()-1)/q.Size()+2)*size+math.Abs(float64(bias[j]))+math.Abs(sum)) {
				t.Fatalf("(%d,%d): got %v, want %v, magnitudes add up to %v", i, j, got, sum, size)
			}
			out = append(out, c[i*ldc+j])
		}
		for j := n; j < ldc; j++ {
			if c[i*ldc+j] != -7 {
				t.Fatalf("(%d,%d), beyond the result, was written", i, j)
			}
		}
	}
	return out
}

// Numbers that are not codes times one Δ for each block are not packed, and what has no ordinary Δ has no codes.
func TestBlockLimits(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		w := randn(64*5, 1)
		if _, ok := kernel.PackBlocks(64, 5, w, 5, false, 32); ok {
			t.Error("arbitrary numbers were packed")
		}
		q := blockSchemes["abfp int4"](32)
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(-1)), 0x1p60, 0x1p-60} {
			x := make([]float32, 64)
			x[40] = bad
			if q.Codes(1, 64, make([]byte, kernel.BlockRow(64, 32)), x, 64) {
				t.Errorf("%v has codes", bad)
			}
			if _, ok := kernel.PackBlocks(64, 1, x, 1, false, 32); ok {
				t.Errorf("%v was packed", bad)
			}
		}
		if kernel.CanBlock(30) || (kernel.Blocks{Size: 32, Max: 448}).Float(kernel.Minifloat{ExpBits: 4, ManBits: 3, Bias: 7, Max: 448}).CanCode() {
			t.Error("blocks of 30, or e4m3, count as integers")
		}
	})
}

func BenchmarkBlockProducts(b *testing.B) {
	for _, s := range []struct{ m, n, k int }{{256, 384, 384}, {256, 1536, 384}, {256, 384, 1536}, {256, 8192, 384}} {
		x, w := randn(s.m*s.k, 1), randn(s.k*s.n, 2)
		ops := 2 * float64(s.m) * float64(s.n) * float64(s.k)
		y := make([]float32, s.m*s.n)
		report := func(b *testing.B) { b.ReportMetric(ops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GOP/s") }
		p := kernel.PackB(s.k, s.n, w, s.n, false)
		b.Run(fmt.Sprintf("%dx%dx%d/float", s.m, s.k, s.n), func(b *testing.B) {
			for b.Loop() {
				kernel.Gemm(s.m, x, s.k, p, y, s.n, false)
			}
			report(b)
		})
		for _, size := range []int{16, 32, 64, 128} {
			q := blockSchemes["abfp int4"](size)
			wq := make([]float32, len(w))
			q.AllCols(s.k, s.n, wq, w, nil)
			p, ok := kernel.PackBlocks(s.k, s.n, wq, s.n, false, size)
			if !ok {
				b.Fatal("not packed")
			}
			codes := make([]byte, s.m*kernel.BlockRow(s.k, size))
			b.Run(fmt.Sprintf("%dx%dx%d/blocks=%d", s.m, s.k, s.n, size), func(b *testing.B) {
				for b.Loop() {
					kernel.GemmBlocks(s.m, codes, p, y, s.n, nil)
				}
				report(b)
			})
			if s.n == 384 {
				b.Run(fmt.Sprintf("%dx%d/codes=%d", s.m, s.k, size), func(b *testing.B) {
					for b.Loop() {
						q.Codes(s.m, s.k, codes, x, s.k)
					}
					b.ReportMetric(float64(len(x))*float64(b.N)/b.Elapsed().Seconds()/1e9, "G/s")
				})
			}
		}
	}
}
