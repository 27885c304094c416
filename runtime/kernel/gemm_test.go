package kernel_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// randn returns n values around 0 from a fixed seed.
func randn(n int, seed uint64) []float32 {
	r := rand.New(rand.NewPCG(seed, 7))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// canary marks elements that nothing may write.
const canary = 12345.5

func guarded(rows, cols, ld int) []float32 {
	x := make([]float32, rows*ld+64)
	for i := range x {
		x[i] = canary
	}
	for r := range rows {
		clear(x[r*ld : r*ld+cols])
	}
	return x
}

func checkGuard(t *testing.T, x []float32, rows, cols, ld int) {
	t.Helper()
	for i, v := range x {
		if r := i / ld; (r >= rows || i%ld >= cols) && v != canary {
			t.Fatalf("element %d, outside the %d×%d matrix, was overwritten with %v", i, rows, cols, v)
		}
	}
}

// naive is op(A)·op(B) + C in float64, with the sum of magnitudes to scale the error.
func naive(m, n, k int, a []float32, lda int, ta bool, b []float32, ldb int, tb bool, c []float32, ldc int, acc bool) (want, mag []float64) {
	want, mag = make([]float64, m*n), make([]float64, m*n)
	for i := range m {
		for j := range n {
			var s, g float64
			for p := range k {
				ai, bi := i*lda+p, p*ldb+j
				if ta {
					ai = p*lda + i
				}
				if tb {
					bi = j*ldb + p
				}
				v := float64(a[ai]) * float64(b[bi])
				s += v
				g += math.Abs(v)
			}
			if acc {
				s += float64(c[i*ldc+j])
				g += math.Abs(float64(c[i*ldc+j]))
			}
			want[i*n+j], mag[i*n+j] = s, g
		}
	}
	return want, mag
}

func checkProduct(t *testing.T, got []float32, ldc, m, n, k int, want, mag []float64) {
	t.Helper()
	// A chain of k roundings errs by at most k·2^-24 of the sum of magnitudes; its usual error is far below.
	tol := 0x1p-24 * (4 + math.Sqrt(float64(k))*2)
	for i := range m {
		for j := range n {
			if d := math.Abs(float64(got[i*ldc+j]) - want[i*n+j]); !(d <= tol*mag[i*n+j]+1e-30) {
				t.Fatalf("(%d,%d): got %v, want %v", i, j, got[i*ldc+j], want[i*n+j])
			}
		}
	}
}

func sizes() [][3]int {
	var s [][3]int
	for m := 1; m <= 29; m++ {
		s = append(s, [3]int{m, 49, 17})
	}
	for _, n := range []int{1, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 33, 47, 48, 63, 64, 65, 95, 96, 97, 200} {
		s = append(s, [3]int{5, n, 9})
	}
	for _, k := range []int{0, 1, 2, 3, 4, 5, 383, 384, 385, 768, 770} {
		s = append(s, [3]int{10, 50, k})
	}
	return append(s, [3]int{300, 100, 40}, [3]int{1, 1000, 500}, [3]int{500, 33, 400})
}

func TestProducts(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		for shape := range kernel.TileCount() {
			restore := kernel.WithTile(shape)
			defer restore()
			for _, s := range sizes() {
				m, n, k := s[0], s[1], s[2]
				for v := range 8 {
					ta, tb, acc := v&1 != 0, v&2 != 0, v&4 != 0
					if v > 0 && m*n*k > 1<<20 && v != 7 {
						continue
					}
					name := fmt.Sprintf("tile %d: %dx%dx%d ta=%v tb=%v acc=%v", shape, m, n, k, ta, tb, acc)
					lda, ldb, ldc := k+3, n+5, n+2
					if ta {
						lda = m + 3
					}
					if tb {
						ldb = k + 5
					}
					a, b := randn((max(m, k))*lda, 1), randn(max(n, k)*ldb, 2)
					c := guarded(m, n, ldc)
					for i := range m {
						copy(c[i*ldc:i*ldc+n], randn(n, uint64(i)))
					}
					before := append([]float32(nil), c...)
					want, mag := naive(m, n, k, a, lda, ta, b, ldb, tb, c, ldc, acc)
					kernel.MatMul(m, n, k, a, lda, ta, b, ldb, tb, c, ldc, acc)
					t.Log(name)
					checkProduct(t, c, ldc, m, n, k, want, mag)
					checkGuard(t, c, m, n, ldc)
					if ta {
						continue
					}
					c2 := append([]float32(nil), before...)
					kernel.Gemm(m, a, lda, kernel.PackB(k, n, b, ldb, tb), c2, ldc, acc)
					checkBits(t, name+": Gemm against MatMul", c2, c)
				}
			}
			restore()
		}
	})
}

// checkBits compares bit by bit; NaNs count as equal.
func checkBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d elements, want %d", what, len(got), len(want))
	}
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) && !(got[i] != got[i] && want[i] != want[i]) {
			t.Fatalf("%s: element %d: got %v (%#x), want %v (%#x)", what, i, got[i], math.Float32bits(got[i]), want[i], math.Float32bits(want[i]))
		}
	}
}

// The bits of a product depend neither on the vector level nor on the tile shape nor on the number of cores.
func TestProductBitsAgree(t *testing.T) {
	for _, s := range [][3]int{{67, 130, 900}, {1, 300, 800}, {300, 96, 385}, {5, 64, 64}} {
		m, n, k := s[0], s[1], s[2]
		a, b := randn(m*k, 3), randn(k*n, 4)
		var ref []float32
		for _, level := range []string{"avx512", "avx2"} {
			restore, ok := kernel.SetLevel(level)
			if !ok {
				continue
			}
			for shape := range kernel.TileCount() {
				whole := kernel.WithTile(shape)
				for _, cores := range []int{1, 0} {
					old := par.SetLimit(cores)
					c := make([]float32, m*n)
					kernel.MatMul(m, n, k, a, k, false, b, n, false, c, n, false)
					if ref == nil {
						ref = c
					}
					checkBits(t, fmt.Sprintf("%v %s tile %d cores %d", s, level, shape, cores), c, ref)
					par.SetLimit(old)
				}
				whole()
			}
			restore()
		}
	}
}

func TestMatMulSpecials(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	kernel.EachLevel(t, func(t *testing.T) {
		a := []float32{1, inf, 0, nan, 0, 1, 0, 0, 1}
		b := []float32{1, 2, 3, 0, 0, 1, 1, 1, 1}
		c := make([]float32, 9)
		kernel.MatMul(3, 3, 3, a, 3, false, b, 3, false, c, 3, false)
		checkBits(t, "specials", c, []float32{nan, nan, inf, nan, nan, nan, 1, 1, 1})
	})
}

func TestEmptyProducts(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		kernel.MatMul(0, 5, 4, nil, 4, false, make([]float32, 20), 5, false, nil, 5, false)
		kernel.MatMul(3, 0, 4, make([]float32, 12), 4, false, nil, 0, false, nil, 0, false)
		kernel.Gemm(2, make([]float32, 8), 4, kernel.PackB(4, 0, nil, 0, false), nil, 0, false)
		c := []float32{1, 2, 3, 4}
		kernel.MatMul(2, 2, 0, nil, 0, false, nil, 2, false, c, 2, true)
		checkBits(t, "K = 0 added", c, []float32{1, 2, 3, 4})
		kernel.MatMulEpilogue(2, 2, 0, nil, 0, false, nil, 2, false, c, 2, false, &kernel.Epilogue{Bias: []float32{5, 6}})
		checkBits(t, "K = 0", c, []float32{5, 6, 5, 6})
		kernel.Softmax(0, 4, nil, nil)
		kernel.Softmax(3, 0, nil, nil)
		kernel.LayerNorm(2, 0, nil, nil, nil, nil, 1e-5, nil, nil)
		kernel.Blocks{Size: 16, Max: 7, Lo: -7, Hi: 7}.Int().AllRows(2, 0, nil, nil, nil)
	})
}

func TestMatMulBatch(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		for _, count := range []int{1, 3, 40} {
			m, n, k := 7, 20, 9
			a, b := randn(count*m*k, 5), randn(k*n, 6)
			got, want := make([]float32, count*m*n), make([]float32, count*m*n)
			kernel.MatMulBatch(kernel.Batch{Count: count, A: m * k, C: m * n}, m, n, k, a, k, false, b, n, false, got, n, false)
			for i := range count {
				kernel.MatMul(m, n, k, a[i*m*k:], k, false, b, n, false, want[i*m*n:], n, false)
			}
			checkBits(t, "batch", got, want)
		}
	})
}

func TestEpilogue(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		m, n, k := 20, 70, 33
		a, b, bias, rb, res := randn(m*k, 1), randn(k*n, 2), randn(n, 3), randn(m, 4), randn(m*(n+1), 5)
		p := kernel.PackB(k, n, b, n, false)
		want := make([]float32, m*n)
		kernel.Gemm(m, a, k, p, want, n, false)
		kernel.AddRows(m, n, want, want, bias)
		for i := range m {
			row := want[i*n : (i+1)*n]
			kernel.AddScalar(row, row, rb[i])
			kernel.Add(row, row, res[i*(n+1):i*(n+1)+n])
		}
		acts := map[kernel.Act]func(dst, x []float32){
			kernel.ActNone: func(dst, x []float32) { copy(dst, x) },
			kernel.ActRelu: kernel.Relu, kernel.ActGelu: kernel.Gelu, kernel.ActGeluTanh: kernel.GeluTanh,
			kernel.ActSigmoid: kernel.Sigmoid, kernel.ActTanh: kernel.Tanh, kernel.ActSilu: kernel.Silu,
			kernel.ActClip: func(dst, x []float32) { kernel.Clip(dst, x, -0.5, 6) },
		}
		for act, f := range acts {
			w := make([]float32, m*n)
			f(w, want)
			got := make([]float32, m*n)
			kernel.GemmEpilogue(m, a, k, p, got, n, false, &kernel.Epilogue{Bias: bias, RowBias: rb, Residual: res, ResidualLd: n + 1, Act: act, Lo: -0.5, Hi: 6})
			checkBits(t, fmt.Sprintf("activation %d", act), got, w)
		}
	})
}

func BenchmarkGemm(b *testing.B) {
	for _, s := range [][3]int{{512, 768, 768}, {1024, 3072, 768}, {1, 3072, 768}} {
		m, n, k := s[0], s[1], s[2]
		x, w, c := randn(m*k, 1), kernel.PackB(k, n, randn(k*n, 2), n, false), make([]float32, m*n)
		b.Run(fmt.Sprintf("%dx%dx%d", m, k, n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				kernel.Gemm(m, x, k, w, c, n, false)
			}
			b.ReportMetric(2*float64(m)*float64(n)*float64(k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
