package kernel

import (
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// PackedB is a right-hand side of products, K×N, in the layout that the loops want. It is immutable and safe for
// concurrent use.
type PackedB struct {
	K, N int
	p    packed[float32]
}

// PackB packs the k×n matrix b (n×k where transB is set) for use with Gemm. It copies; b may change afterwards.
func PackB(k, n int, b []float32, ldb int, transB bool) *PackedB {
	return (*Stock)(nil).PackB(k, n, b, ldb, transB)
}

// PackB is PackB into memory of the stock.
func (s *Stock) PackB(k, n int, b []float32, ldb int, transB bool) *PackedB {
	if transB {
		need("PackB", len(b), n, k, ldb)
	} else {
		need("PackB", len(b), k, n, ldb)
	}
	return &PackedB{K: k, N: n, p: pack(s, cur.tiles, k, n, matrixSource(b, ldb, transB))}
}

func pack[T elem](s *Stock, ts []*tile[T], k, n int, src source[T]) packed[T] {
	p := packed[T]{k: k, n: n, t: pickTile(ts, n)}
	p.data = stockOf[T](s, k*p.panels()*p.t.nr)
	p.fill(src)
	return p
}

// Gemm computes C = A·B, or C += A·B where acc is set, with A m×K and C m×N. A is read in place. C must not overlap A.
func Gemm(m int, a []float32, lda int, b *PackedB, c []float32, ldc int, acc bool) {
	GemmEpilogue(m, a, lda, b, c, ldc, acc, nil)
}

// GemmEpilogue is Gemm followed by ep on each block of C while it is in the cache; nil does nothing.
func GemmEpilogue(m int, a []float32, lda int, b *PackedB, c []float32, ldc int, acc bool, ep *Epilogue) {
	need("Gemm: a", len(a), m, b.K, lda)
	need("Gemm: c", len(c), m, b.N, ldc)
	ep.check("Gemm", m, b.N)
	b.p.multiplyUnits(m, a, lda, c, ldc, acc, ep.after(c, ldc), ep.unit(b.p.t.nr))
}

// MatMul computes C = op(A)·op(B), or C += where acc is set: op(A) is m×k, op(B) k×n; A is stored k×m where transA is
// set, B n×k where transB is set. It packs B itself; use PackB and Gemm where B is used again.
func MatMul(m, n, k int, a []float32, lda int, transA bool, b []float32, ldb int, transB bool, c []float32, ldc int, acc bool) {
	MatMulEpilogue(m, n, k, a, lda, transA, b, ldb, transB, c, ldc, acc, nil)
}

// MatMulEpilogue is MatMul followed by ep; nil does nothing.
func MatMulEpilogue(m, n, k int, a []float32, lda int, transA bool, b []float32, ldb int, transB bool, c []float32, ldc int, acc bool, ep *Epilogue) {
	if transB {
		need("MatMul: b", len(b), n, k, ldb)
	} else {
		need("MatMul: b", len(b), k, n, ldb)
	}
	a, lda, done := plainA(m, k, a, lda, transA)
	defer done()
	need("MatMul: a", len(a), m, k, lda)
	need("MatMul: c", len(c), m, n, ldc)
	ep.check("MatMul", m, n)
	then := ep.after(c, ldc)
	j := 0
	if t := inPlace(m); t != nil && !transB {
		j = n / t.nr * t.nr
		if j > 0 {
			direct(m, j, k, t, a, lda, b, ldb, c, ldc, acc, then)
		}
	}
	if j < n {
		var rest after
		if then != nil {
			rest = func(r0, r1, c0, c1 int) { then(r0, r1, j+c0, j+c1) }
		}
		product(cur.tiles, m, n-j, k, a, lda, b[min(j, len(b)):], ldb, transB, c[min(j, len(c)):], ldc, acc, rest)
	}
}

// product multiplies with a B that is used once.
func product[T elem](ts []*tile[T], m, n, k int, a []T, lda int, b []T, ldb int, transB bool, c []T, ldc int, acc bool, then after) {
	t := pickTile(ts, n)
	src := matrixSource(b, ldb, transB)
	if m > t.mc {
		// Several row blocks share the packed B.
		buf, data := scratchOf[T](k * ((n + t.nr - 1) / t.nr) * t.nr)
		defer release(buf)
		p := &packed[T]{k: k, n: n, t: t, data: data}
		p.fill(src)
		p.multiply(m, a, lda, c, ldc, acc, then)
		return
	}
	stream(m, n, k, t, a, lda, src, c, ldc, acc, then)
}

// inPlace is the tile to use for m rows with a B that is not worth packing; nil where it is, or in plain Go.
func inPlace(m int) *tile[float32] {
	switch {
	case m == 0 || cur.thin[1] == nil:
		return nil
	case m < len(cur.thin):
		return cur.thin[m]
	case m <= cur.tiles[0].mr:
		return cur.tiles[0]
	}
	return nil
}

// plainA returns A as stored m×k, transposing it into scratch where it is not.
func plainA(m, k int, a []float32, lda int, trans bool) (out []float32, ld int, done func()) {
	if !trans {
		return a, lda, func() {}
	}
	need("MatMul: a", len(a), k, m, lda)
	buf := scratch(m * k)
	Transpose(k, m, buf.f, k, a, lda)
	return buf.f, k, func() { release(buf) }
}

// stream multiplies without packing all of B: a few panels of kc rows at a time are brought into the kernels' layout by
// src and used at once by every row.
func stream[T elem](m, n, k int, t *tile[T], a []T, lda int, src source[T], c []T, ldc int, acc bool, then after) {
	panels := (n + t.nr - 1) / t.nr
	rows, cols := split(m, panels, k, t, 1)
	if m <= 4*t.mr { // packing again for each row block would cost more than it gives
		rows = max(m, 1)
	}
	rt, ct := (m+rows-1)/rows, (panels+cols-1)/cols
	par.For(rt*ct, 1, func(lo, hi int) {
		buf, group := scratchOf[T](min(kc, max(k, 1)) * t.nr * min(packPanels, cols))
		defer release(buf)
		for i := lo; i < hi; i++ {
			r0, p0 := i%rt*rows, i/rt*cols
			r1, p1 := min(r0+rows, m), min(p0+cols, panels)
			for k0 := 0; k0 < k; k0 += kc {
				kb := min(kc, k-k0)
				for g0 := p0; g0 < p1; g0 += packPanels {
					g1 := min(g0+packPanels, p1)
					packGroup(group, src, k0, kb, g0, g1, n, t.nr)
					for j := g0; j < g1; j++ {
						tiles(t, r0, r1, a[k0:], lda, group[(j-g0)*kb*t.nr:][:kb*t.nr], t.nr, c[j*t.nr:], ldc, kb, min(t.nr, n-j*t.nr), acc || k0 > 0)
					}
				}
			}
			finish(r0, r1, p0*t.nr, min(p1*t.nr, n), k, c, ldc, acc, then)
		}
	})
}

// direct multiplies m rows, at most one tile's, with a B that is read where it lies; n is a multiple of nr.
func direct(m, n, k int, t *tile[float32], a []float32, lda int, b []float32, ldb int, c []float32, ldc int, acc bool, then after) {
	panels := n / t.nr
	_, cols := split(m, panels, k, t, 1)
	par.For(panels, cols, func(p0, p1 int) {
		for k0 := 0; k0 < k; k0 += kc {
			for j := p0; j < p1; j++ {
				tiles(t, 0, m, a[k0:], lda, b[k0*ldb+j*t.nr:], ldb, c[j*t.nr:], ldc, min(kc, k-k0), t.nr, acc || k0 > 0)
			}
		}
		finish(0, m, p0*t.nr, p1*t.nr, k, c, ldc, acc, then)
	})
}

// Batch says where the matrices of a stack of products lie: product i uses a[i*A:], b[i*B:] and c[i*C:]. A stride of 0
// shares one operand; C must keep the results apart.
type Batch struct{ Count, A, B, C int }

// MatMulBatch runs MatMul on each product of a stack. Products are spread over the cores; where there are too few of
// them the cores share each one.
func MatMulBatch(s Batch, m, n, k int, a []float32, lda int, transA bool, b []float32, ldb int, transB bool, c []float32, ldc int, acc bool) {
	grain := 1
	if work := m * n * k; work < 1<<16 {
		grain = 1 + (1<<16)/max(work, 1)
	}
	one := func(lo, hi int) {
		for i := lo; i < hi; i++ {
			MatMul(m, n, k, a[i*s.A:], lda, transA, b[i*s.B:], ldb, transB, c[i*s.C:], ldc, acc)
		}
	}
	if s.Count >= 2*par.Cores() || m*n*k < 1<<19 {
		par.For(s.Count, grain, one)
		return
	}
	one(0, s.Count)
}
