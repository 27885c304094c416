package kernel_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// units is the definition of what products are made of: the integers that stand for a piece of a column, and their step. Few rows
// stand for themselves.
func units(x []float32) (q []float64, step float64) {
	most := 0.0
	q = make([]float64, len(x))
	if len(x) < 64 {
		for i, v := range x {
			q[i] = float64(v)
		}
		return q, 1
	}
	for _, v := range x {
		if most = max(most, math.Abs(float64(v))); math.IsInf(most, 1) || most != most {
			return q, math.NaN()
		}
	}
	if most == 0 {
		return q, 1
	}
	step = math.Ldexp(1, -127)
	for most/step > 127*256+127 {
		step *= 2
	}
	for i, v := range x {
		q[i] = math.RoundToEven(float64(v) / step)
	}
	return q, step
}

// crossed is Yᵀ·X as SyrkAdd and CrossAdd define it, and how far it may be from what it stands for.
func crossed(rows, m, n int, y []float32, ldy int, x []float32, ldx int) (h, far []float64) {
	h, far = make([]float64, m*n), make([]float64, m*n)
	for r0 := 0; r0 < rows; r0 += 1024 {
		column := func(x []float32, ld, c int) []float32 {
			var out []float32
			for r := r0; r < min(r0+1024, rows); r++ {
				out = append(out, x[r*ld+c])
			}
			return out
		}
		for i := range m {
			yc := column(y, ldy, i)
			qy, sy := units(yc)
			for j := range n {
				xc := column(x, ldx, j)
				qx, sx := units(xc)
				sum := 0.0
				for r := range qy {
					sum += float64(qy[r] * qx[r])
					far[i*n+j] += 1e-15 * math.Abs(float64(yc[r])*float64(xc[r]))
					if len(yc) >= 64 {
						far[i*n+j] += math.Abs(float64(yc[r]))*sx/2 + math.Abs(float64(xc[r]))*sy/2 + sx*sy/4
					}
				}
				h[i*n+j] += float64(sum * sy * sx)
			}
		}
	}
	return h, far
}

// columns scales the columns of a matrix to sizes far apart, and makes one zero.
func columns(rows, n int, x []float32) {
	for c := range n {
		by := float32(math.Ldexp(1+float64(c%7)/7, c%31-15))
		switch {
		case c%11 == 5:
			by = 0
		case c%17 == 8:
			by = 0x1p-140
		case c%17 == 9:
			by = 0x1p100
		}
		for r := range rows {
			x[r*n+c] *= by
		}
	}
}

// Sums of products are those of the definition to the bit, at every level and on any number of cores, and near those of the numbers
// as they were.
func TestCrossAdd(t *testing.T) {
	for _, s := range [][3]int{{1, 1, 1}, {5, 33, 7}, {63, 18, 20}, {64, 16, 48}, {65, 16, 48}, {400, 40, 150}, {20, 3, 150}, {1050, 18, 20}, {1100, 18, 20}} {
		rows, m, n := s[0], s[1], s[2]
		y, x := randn(rows*m, 1), randn(rows*n, 2)
		columns(rows, m, y)
		columns(rows, n, x)
		want, far := crossed(rows, m, n, y, m, x, n)
		kernel.EachLevel(t, func(t *testing.T) {
			for _, cores := range []int{1, 0} {
				defer par.SetLimit(par.SetLimit(cores))
				h := make([]float64, m*n)
				kernel.CrossAdd(rows, m, n, y, m, x, n, h, n)
				for i, v := range h {
					if v != want[i] {
						t.Fatalf("%v, cores %d: (%d,%d): got %v, want %v", s, cores, i/n, i%n, v, want[i])
					}
				}
			}
		})
		for i := range m {
			for j := range n {
				exact := 0.0
				for r := range rows {
					exact += float64(y[r*m+i]) * float64(x[r*n+j])
				}
				if math.Abs(exact-want[i*n+j]) > far[i*n+j] {
					t.Errorf("%v: (%d,%d) is %v, the sum %v: more than %v apart", s, i, j, want[i*n+j], exact, far[i*n+j])
				}
			}
		}
	}
}

func TestSyrkAdd(t *testing.T) {
	for _, s := range [][2]int{{1, 1}, {5, 33}, {400, 130}, {70, 300}, {1100, 20}} {
		rows, n := s[0], s[1]
		ldx, ldh := n+3, n+5
		x := randn(rows*ldx, 1)
		columns(rows, ldx, x)
		want, _ := crossed(rows, n, n, x, ldx, x, ldx)
		kernel.EachLevel(t, func(t *testing.T) {
			h := make([]float64, n*ldh)
			for i := range h {
				if i%ldh > i/ldh {
					h[i] = 777 // not to be written
				}
			}
			kernel.SyrkAdd(rows, n, x, ldx, h, ldh)
			kernel.SyrkAdd(rows, n, x, ldx, h, ldh)
			for i, v := range h {
				r, c := i/ldh, i%ldh
				if c > r && v != 777 {
					t.Fatalf("%v: (%d,%d) above the diagonal was written", s, r, c)
				}
				if c <= r && rows <= 1024 && v != 2*want[r*n+c] {
					t.Fatalf("%v: (%d,%d): got %v, want %v", s, r, c, v, 2*want[r*n+c])
				}
				if c <= r && math.Abs(v-2*want[r*n+c]) > 1e-14*math.Abs(v) {
					t.Fatalf("%v: (%d,%d): got %v, want about %v", s, r, c, v, 2*want[r*n+c])
				}
			}
			kernel.MirrorLower(n, h, ldh)
			for i := range n {
				for j := range i {
					if h[i*ldh+j] != h[j*ldh+i] {
						t.Fatalf("%v: (%d,%d) is %v, its mirror %v", s, i, j, h[i*ldh+j], h[j*ldh+i])
					}
				}
			}
		})
	}
}

// A number that is not finite makes the products of its column NaN, and no others.
func TestSyrkAddNotFinite(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
			const rows, n, at = 70, 40, 17
			x := randn(rows*n, 1)
			x[33*n+at] = bad
			h := make([]float64, n*n)
			kernel.SyrkAdd(rows, n, x, n, h, n)
			for i := range n {
				for j := range i + 1 {
					if got, want := math.IsNaN(h[i*n+j]), i == at || j == at; got != want {
						t.Fatalf("%v: (%d,%d) is %v", bad, i, j, h[i*n+j])
					}
				}
			}
		}
	})
}

func BenchmarkSyrkAdd(b *testing.B) {
	for _, n := range []int{768, 3072} {
		x, h := randn(512*n, 1), make([]float64, n*n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				kernel.SyrkAdd(512, n, x, n, h, n)
			}
			b.ReportMetric(512*float64(n)*float64(n+1)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
