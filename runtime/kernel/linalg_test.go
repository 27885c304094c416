package kernel_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// spd is a well conditioned symmetric positive definite matrix.
func spd(n int) []float64 {
	r := rand.New(rand.NewPCG(uint64(n), 3))
	x := make([]float64, n*n)
	for i := range x {
		x[i] = r.NormFloat64()
	}
	h := make([]float64, n*n)
	kernel.MatMul64(n, n, n, x, n, true, x, n, false, h, n, false)
	for i := range n {
		for j := range n {
			h[i*n+j] /= float64(n)
		}
		h[i*n+i] += 0.1
	}
	return h
}

func TestMatMul64(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		for _, s := range [][3]int{{1, 1, 1}, {13, 19, 7}, {15, 33, 400}, {130, 40, 20}} {
			m, n, k := s[0], s[1], s[2]
			for v := range 8 {
				ta, tb, acc := v&1 != 0, v&2 != 0, v&4 != 0
				a32, b32 := randn(m*k, 1), randn(k*n, 2)
				a, b, c := make([]float64, m*k), make([]float64, k*n), make([]float64, m*n)
				for i, x := range a32 {
					a[i] = float64(x)
				}
				for i, x := range b32 {
					b[i] = float64(x)
				}
				for i := range c {
					c[i] = 3
				}
				lda, ldb := k, n
				if ta {
					lda = m
				}
				if tb {
					ldb = k
				}
				want, _ := naive(m, n, k, a32, lda, ta, b32, ldb, tb, nil, n, false)
				kernel.MatMul64(m, n, k, a, lda, ta, b, ldb, tb, c, n, acc)
				for i := range c {
					if acc {
						want[i] += 3
					}
					if math.Abs(c[i]-want[i]) > 1e-12*float64(k) {
						t.Fatalf("%v %d: element %d: got %v, want %v", s, v, i, c[i], want[i])
					}
				}
			}
		}
	})
}

func TestCholesky(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		for _, n := range []int{1, 2, 5, 24, 25, 33, 64, 100, 192, 193, 250, 500} {
			h := spd(n)
			ld := n + 3
			l := make([]float64, n*ld)
			for i := range l {
				l[i] = 777 // the upper triangle and the gap must stay
			}
			for i := range n {
				copy(l[i*ld:i*ld+i+1], h[i*n:])
			}
			if !kernel.Cholesky(n, l, ld) {
				t.Fatalf("n %d: not positive definite", n)
			}
			for i := range n {
				for j := range ld {
					if j > i && l[i*ld+j] != 777 {
						t.Fatalf("n %d: (%d,%d) was written", n, i, j)
					}
				}
				for j := range i + 1 {
					var s float64
					for p := range j + 1 {
						s += l[i*ld+p] * l[j*ld+p]
					}
					if math.Abs(s-h[i*n+j]) > 1e-12 {
						t.Fatalf("n %d: L·Lᵀ (%d,%d): got %v, want %v", n, i, j, s, h[i*n+j])
					}
				}
			}
			inv := append([]float64(nil), l...)
			kernel.TriInverse(n, inv, ld)
			for i := range n {
				for j := range i + 1 {
					var s, want float64
					for p := j; p <= i; p++ {
						s += l[i*ld+p] * inv[p*ld+j]
					}
					if i == j {
						want = 1
					}
					if math.Abs(s-want) > 1e-10 {
						t.Fatalf("n %d: L·L⁻¹ (%d,%d): got %v, want %v", n, i, j, s, want)
					}
				}
			}
			u := append([]float64(nil), h...)
			if !kernel.CholeskyInverseUpper(n, u, n) {
				t.Fatal("not positive definite")
			}
			// H·UᵀU = I, checked on one vector to stay quick: y = UᵀU·v, H·y = v.
			v, w, y := make([]float64, n), make([]float64, n), make([]float64, n)
			for i := range v {
				v[i] = float64(i%7) - 3
			}
			for i := range n {
				for j := range n {
					if j < i && u[i*n+j] != 0 {
						t.Fatalf("n %d: U has %v below the diagonal", n, u[i*n+j])
					}
					w[i] += u[i*n+j] * v[j]
				}
			}
			for i := range n {
				for j := range n {
					y[j] += u[i*n+j] * w[i]
				}
			}
			for i := range n {
				var s float64
				for j := range n {
					s += h[i*n+j] * y[j]
				}
				if math.Abs(s-v[i]) > 1e-9 {
					t.Fatalf("n %d: H·UᵀU·v at %d: got %v, want %v", n, i, s, v[i])
				}
			}
		}
		if kernel.Cholesky(2, []float64{1, 0, 2, 1}, 2) || kernel.Cholesky(1, []float64{0}, 1) || kernel.Cholesky(1, []float64{math.NaN()}, 1) {
			t.Error("an indefinite matrix was factored")
		}
	})
}

// The upper factor of the GPTQ example in the methods reference (golden 30).
func TestCholeskyInverseUpperGolden(t *testing.T) {
	h := []float64{4, 2, 1, 0, 2, 5, 2, 1, 1, 2, 3, 1, 0, 1, 1, 2}
	for i := range 4 {
		h[i*5] += 0.035
	}
	want := []float64{.568017649, -.219012865, -.093416809, .153528095, 0, .523506063, -.310489519, -.104676434, 0, 0, .627011684, -.30811385, 0, 0, 0, .700999637}
	if !kernel.CholeskyInverseUpper(4, h, 4) {
		t.Fatal("not positive definite")
	}
	for i := range want {
		if math.Abs(h[i]-want[i]) > 1e-8 {
			t.Errorf("element %d: got %v, want %v", i, h[i], want[i])
		}
	}
}

func TestLinalgBitsAgree(t *testing.T) {
	n := 300
	h := spd(n)
	var ref []float64
	for _, level := range []string{"avx512", "avx2"} {
		restore, ok := kernel.SetLevel(level)
		for _, cores := range []int{1, 0} {
			if !ok {
				continue
			}
			old := par.SetLimit(cores)
			u := append([]float64(nil), h...)
			kernel.CholeskyInverseUpper(n, u, n)
			if ref == nil {
				ref = u
			}
			for i := range u {
				if u[i] != ref[i] {
					t.Fatalf("%s, cores %d: element %d: %v and %v", level, cores, i, u[i], ref[i])
				}
			}
			par.SetLimit(old)
		}
		restore()
	}
}

func BenchmarkCholesky(b *testing.B) {
	for _, n := range []int{768, 1536} {
		h := spd(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				l := append([]float64(nil), h...)
				b.StartTimer()
				kernel.Cholesky(n, l, n)
			}
			b.ReportMetric(float64(n)*float64(n)*float64(n)/3*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
