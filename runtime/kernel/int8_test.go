package kernel_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
)

// codes fills a matrix with codes: of any value, or of the least and the greatest alone.
func codes[T kernel.Int8](r *rand.Rand, n int, extreme bool) []T {
	v, least := make([]T, n), T(0)
	if least-1 < 0 {
		least -= 64
		least -= 64
	}
	for i := range v {
		if v[i] = T(r.UintN(256)); extreme {
			v[i] = least - T(r.UintN(2)) // one below the least is the greatest
		}
	}
	return v
}

// products compares every way of multiplying codes with the definition.
func products[A, B kernel.Int8](t *testing.T, m, n, k int, tb, extreme bool, countA, countB int) {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(m*n*k), 2))
	a, b := codes[A](r, m*k, extreme), codes[B](r, k*n, extreme)
	za, zb := codes[A](r, countA, extreme), codes[B](r, countB, extreme)
	zero := func(i, count int, at func(i int) int32) int32 {
		if count == 0 {
			return 0
		}
		return at(i % count)
	}
	ldb, stepK, stepN := n, n, 1
	if tb {
		ldb, stepK, stepN = k, 1, k
	}
	scale, want := randn(n, 1), make([]int32, m*n)
	for i := range m {
		z := zero(i, countA, func(i int) int32 { return int32(za[i]) })
		for j := range n {
			w := zero(j, countB, func(j int) int32 { return int32(zb[j]) })
			for p := range k {
				want[i*n+j] += (int32(a[i*k+p]) - z) * (int32(b[p*stepK+j*stepN]) - w)
			}
		}
	}
	ldc := n + 3
	c := make([]int32, m*ldc)
	for i := range c {
		c[i] = -7
	}
	kernel.MatMulInt8(m, n, k, a, k, za, b, ldb, tb, zb, c, ldc)
	f := make([]float32, m*ldc)
	kernel.MatMulInt8Scaled(m, n, k, a, k, za, b, ldb, tb, zb, scale, f, ldc, &kernel.Epilogue{Bias: scale})
	for i := range m {
		for j := range n {
			if c[i*ldc+j] != want[i*n+j] {
				t.Fatalf("(%d,%d): got %d, want %d", i, j, c[i*ldc+j], want[i*n+j])
			}
			if w := float32(float32(want[i*n+j])*scale[j]) + scale[j]; math.Float32bits(f[i*ldc+j]) != math.Float32bits(w) {
				t.Fatalf("(%d,%d): got %v, want %v", i, j, f[i*ldc+j], w)
			}
		}
		for j := n; j < ldc; j++ {
			if c[i*ldc+j] != -7 || f[i*ldc+j] != 0 {
				t.Fatalf("(%d,%d), beyond the result, was written", i, j)
			}
		}
	}
}

// TestInt8Products: integer products are exact, whatever the signs of the operands, the zero points and the level.
func TestInt8Products(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		for _, s := range [][3]int{{1, 1, 1}, {3, 17, 5}, {10, 49, 64}, {9, 48, 4}, {30, 100, 201}, {270, 50, 18}, {2, 5, 4096}, {1, 97, 3072}} {
			for i, tb := range []bool{false, true} {
				for j, extreme := range []bool{false, true} {
					m, n, k := s[0], s[1], s[2]
					t.Run(fmt.Sprintf("%dx%dx%d/transB=%v/extreme=%v", m, n, k, tb, extreme), func(t *testing.T) {
						products[uint8, int8](t, m, n, k, tb, extreme, []int{1, m}[i], []int{0, n}[j])
						products[int8, int8](t, m, n, k, tb, extreme, []int{m, 1}[i], []int{0, 1}[i])
						products[uint8, uint8](t, m, n, k, tb, extreme, []int{0, 1}[j], []int{n, 1}[i])
						products[int8, uint8](t, m, n, k, tb, extreme, []int{0, m}[i], []int{0, n}[j])
					})
				}
			}
		}
	})
}

// Rows that do not start at a word, and are apart by what is no multiple of one, are no different.
func TestInt8Unaligned(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		const m, n, k = 11, 50, 64
		for off := range 4 {
			lda := k + off
			a, b := codes[uint8](r, off+m*lda, false)[off:], codes[int8](r, n*k, false)
			got, want := make([]int32, m*n), make([]int32, m*n)
			kernel.GemmInt8(m, a, lda, []uint8{3}, kernel.PackInt8(k, n, b, k, true, nil), got, n)
			for i := range m {
				for j := range n {
					for p := range k {
						want[i*n+j] += (int32(a[i*lda+p]) - 3) * int32(b[j*k+p])
					}
					if got[i*n+j] != want[i*n+j] {
						t.Fatalf("offset %d: (%d,%d): got %d, want %d", off, i, j, got[i*n+j], want[i*n+j])
					}
				}
			}
		}
	})
}

// TestQuantizeSums: sums become codes as one float32 product, rounded to even, gives them.
func TestQuantizeSums(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		const rows, cols = 7, 37
		r := rand.New(rand.NewPCG(5, 6))
		sums, bias, scale := make([]int32, rows*cols), make([]int32, cols), make([]float32, cols)
		for i := range sums {
			sums[i] = r.Int32N(1<<18) - 1<<17
		}
		for i := range bias {
			bias[i], scale[i] = r.Int32N(1<<16), r.Float32()/400
		}
		sums[0], bias[0], scale[0] = 5, 0, 0.5 // a tie
		signed, rest, floats := make([]int8, rows*cols), make([]uint8, rows*cols), make([]float32, rows*cols)
		kernel.QuantizeSums(rows, cols, signed, sums, bias, scale, -3)
		kernel.QuantizeSumsRows(rows, cols, rest, sums, bias[:rows], scale[:rows], 120)
		kernel.ScaleSums(rows, cols, floats, sums, nil, scale, scale)
		for i := range rows {
			for j := range cols {
				at := i*cols + j
				code := func(b int32, s float32, zero, lo, hi float64) float64 {
					return min(max(math.RoundToEven(float64(float32(sums[at]+b)*s))+zero, lo), hi)
				}
				if got, want := float64(signed[at]), code(bias[j], scale[j], -3, -128, 127); got != want {
					t.Errorf("by column (%d,%d): got %v, want %v", i, j, got, want)
				}
				if got, want := float64(rest[at]), code(bias[i], scale[i], 120, 0, 255); got != want {
					t.Errorf("by row (%d,%d): got %v, want %v", i, j, got, want)
				}
				if want := float32(float32(sums[at])*scale[j]) + scale[j]; floats[at] != want {
					t.Errorf("scaled (%d,%d): got %v, want %v", i, j, floats[at], want)
				}
			}
		}
	})
}
