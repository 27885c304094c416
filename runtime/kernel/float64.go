package kernel

import (
	"math"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// MatMul64 computes C = op(A)·op(B), or C += where acc is set, in float64; see MatMul.
func MatMul64(m, n, k int, a []float64, lda int, transA bool, b []float64, ldb int, transB bool, c []float64, ldc int, acc bool) {
	if transB {
		need("MatMul64: b", len(b), n, k, ldb)
	} else {
		need("MatMul64: b", len(b), k, n, ldb)
	}
	if transA {
		need("MatMul64: a", len(a), k, m, lda)
		buf, t := scratchOf[float64](m * k)
		defer release(buf)
		Transpose(k, m, t, k, a, lda)
		a, lda = t, k
	}
	need("MatMul64: a", len(a), m, k, lda)
	need("MatMul64: c", len(c), m, n, ldc)
	product(cur.tilesD, m, n, k, a, lda, b, ldb, transB, c, ldc, acc, nil)
}

// MirrorLower copies the lower triangle of the n×n matrix h to the upper one.
func MirrorLower[T float32 | float64](n int, h []T, ldh int) {
	need("MirrorLower", len(h), n, n, ldh)
	const side = 32
	par.For((n+side-1)/side, 1, func(lo, hi int) {
		for i0 := lo * side; i0 < min(hi*side, n); i0 += side {
			for j0 := 0; j0 <= i0; j0 += side {
				for i := i0; i < min(i0+side, n); i++ {
					for j := j0; j < min(j0+side, i); j++ {
						h[j*ldh+i] = h[i*ldh+j]
					}
				}
			}
		}
	})
}

// syrkBlock is the side of the blocks of a trailing update.
const syrkBlock = 240

// triangle numbers the blocks of a lower triangle: 0 → (0,0), 1 → (1,0), 2 → (1,1), 3 → (2,0) …
func triangle(t int) (i, j int) {
	i = int((math.Sqrt(float64(8*t+1)) - 1) / 2)
	for i*(i+1)/2 > t {
		i--
	}
	for (i+1)*(i+2)/2 <= t {
		i++
	}
	return i, t - i*(i+1)/2
}

// Cholesky replaces the lower triangle of the symmetric n×n matrix a by L with A = L·Lᵀ; the strict upper triangle is
// neither read nor written. It reports false, with a in an undefined state, where a is not positive definite.
func Cholesky(n int, a []float64, lda int) bool {
	need("Cholesky", len(a), n, n, lda)
	// Right-looking, a panel at a time (J. Dongarra et al., LAPACK's dpotrf, lower variant).
	const panel = 192
	for j := 0; j < n; j += panel {
		w := min(panel, n-j)
		if !cholBlock(w, a[j*lda+j:], lda) {
			return false
		}
		rest := n - j - w
		if rest == 0 {
			break
		}
		below := a[(j+w)*lda+j:]
		solveRight(rest, w, a[j*lda+j:], lda, below, lda)
		trailing(rest, w, below, lda, a[(j+w)*lda+j+w:], lda)
	}
	return true
}

// trailing subtracts P·Pᵀ from the lower triangle of c, P n×k.
func trailing(n, k int, p []float64, ldp int, c []float64, ldc int) {
	nb, neg := scratchOf[float64](n * k)
	defer release(nb)
	par.For(n, 16, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			for t, v := range p[i*ldp:][:k] {
				neg[i*k+t] = -v
			}
		}
	})
	blocks := (n + syrkBlock - 1) / syrkBlock
	par.For(blocks*(blocks+1)/2, 1, func(lo, hi int) {
		for t := lo; t < hi; t++ {
			bi, bj := triangle(blocks*(blocks+1)/2 - 1 - t)
			i0, i1 := bi*syrkBlock, min((bi+1)*syrkBlock, n)
			j0, j1 := bj*syrkBlock, min((bj+1)*syrkBlock, n)
			if bi != bj {
				product(cur.tilesD, i1-i0, j1-j0, k, neg[i0*k:], k, p[j0*ldp:], ldp, true, c[i0*ldc+j0:], ldc, true, nil)
				continue
			}
			// The diagonal block goes through scratch: its upper half is not ours to write.
			buf, d := scratchOf[float64](syrkBlock * syrkBlock)
			product(cur.tilesD, i1-i0, i1-i0, k, neg[i0*k:], k, p[i0*ldp:], ldp, true, d, i1-i0, false, nil)
			for i := i0; i < i1; i++ {
				row := c[i*ldc+i0:]
				for j, v := range d[(i-i0)*(i1-i0):][:i-i0+1] {
					row[j] += v
				}
			}
			release(buf)
		}
	})
}

// cholBlock is Cholesky of a small block: halves down to a scalar loop.
func cholBlock(n int, a []float64, lda int) bool {
	if n <= 24 {
		return cholScalar(n, a, lda)
	}
	h := (n/2 + 7) / 8 * 8
	if !cholBlock(h, a, lda) {
		return false
	}
	low := a[h*lda:]
	solveRight(n-h, h, a, lda, low, lda)
	trailing(n-h, h, low, lda, a[h*lda+h:], lda)
	return cholBlock(n-h, a[h*lda+h:], lda)
}

func cholScalar(n int, a []float64, lda int) bool {
	for j := range n {
		rj := a[j*lda : j*lda+j+1]
		d := rj[j]
		for _, v := range rj[:j] {
			d -= v * v
		}
		if !(d > 0) || math.IsInf(d, 1) {
			return false
		}
		d = math.Sqrt(d)
		rj[j] = d
		for i := j + 1; i < n; i++ {
			ri := a[i*lda : i*lda+j+1]
			s := ri[j]
			for t, v := range rj[:j] {
				s -= v * ri[t]
			}
			ri[j] = s / d
		}
	}
	return true
}

// solveRight replaces B (m×n) by B·L⁻ᵀ, L lower n×n: halves down to 32, there by the explicit inverse of L and a product.
func solveRight(m, n int, l []float64, ldl int, b []float64, ldb int) {
	if n > 32 {
		h := (n/2 + 7) / 8 * 8
		solveRight(m, h, l, ldl, b, ldb)
		// B2 -= B1·L21ᵀ
		buf, neg := scratchOf[float64]((n - h) * h)
		for i := range n - h {
			for t, v := range l[(h+i)*ldl:][:h] {
				neg[i*h+t] = -v
			}
		}
		product(cur.tilesD, m, n-h, h, b, ldb, neg, h, true, b[h:], ldb, true, nil)
		release(buf)
		solveRight(m, n-h, l[h*ldl+h:], ldl, b[h:], ldb)
		return
	}
	var inv [32 * 32]float64
	for i := range n {
		copy(inv[i*n:i*n+i+1], l[i*ldl:])
	}
	triScalar(n, inv[:], n)
	buf, t := scratchOf[float64](m * n)
	defer release(buf)
	for i := range m {
		copy(t[i*n:(i+1)*n], b[i*ldb:])
	}
	product(cur.tilesD, m, n, n, t, n, inv[:n*n], n, true, b, ldb, false, nil)
}

// TriInverse replaces the lower triangle of the n×n matrix l by that of L⁻¹; the strict upper triangle is neither read
// nor written. L must have no zero on its diagonal.
func TriInverse(n int, l []float64, ldl int) {
	need("TriInverse", len(l), n, n, ldl)
	if n <= 32 {
		triScalar(n, l, ldl)
		return
	}
	// [A 0; B C]⁻¹ = [A⁻¹ 0; -C⁻¹·B·A⁻¹ C⁻¹]
	h := (n/2 + 7) / 8 * 8
	low, rest := l[h*ldl:], l[h*ldl+h:]
	TriInverse(h, l, ldl)
	TriInverse(n-h, rest, ldl)
	m := n - h
	ab, a := lowerCopy(h, l, ldl, 1)
	tb, t := scratchOf[float64](m * h)
	MatMul64(m, h, h, low, ldl, false, a, h, false, t, h, false)
	release(ab)
	cb, c := lowerCopy(m, rest, ldl, -1)
	MatMul64(m, h, m, c, m, false, t, h, false, low, ldl, false)
	release(cb)
	release(tb)
}

// lowerCopy is s times the lower triangle of l as a full matrix.
func lowerCopy(n int, l []float64, ldl int, s float64) (*buffer, []float64) {
	buf, out := scratchOf[float64](n * n)
	for i := range n {
		row := out[i*n : (i+1)*n]
		for j, v := range l[i*ldl:][:i+1] {
			row[j] = s * v
		}
		clear(row[i+1:])
	}
	return buf, out
}

func triScalar(n int, l []float64, ldl int) {
	for j := range n {
		l[j*ldl+j] = 1 / l[j*ldl+j]
		for i := j + 1; i < n; i++ {
			var s float64
			for t := j; t < i; t++ {
				s -= l[i*ldl+t] * l[t*ldl+j]
			}
			l[i*ldl+j] = s / l[i*ldl+i]
		}
	}
}

// CholeskyInverseUpper computes the factor that GPTQ works with: the upper U with UᵀU = H⁻¹. h is symmetric positive
// definite, only its lower triangle is read, and it is overwritten by U with zeros below the diagonal. It reports false
// where h is not positive definite. H is never inverted: with J the reversal of indices and J·H·J = L·Lᵀ,
// H = M·Mᵀ for the upper M = J·L·J, so that U = M⁻¹ = J·L⁻¹·J.
func CholeskyInverseUpper(n int, h []float64, ldh int) bool {
	need("CholeskyInverseUpper", len(h), n, n, ldh)
	buf, l := scratchOf[float64](n * n)
	defer release(buf)
	const side = 32
	par.For((n+side-1)/side, 1, func(lo, hi int) {
		for i0 := lo * side; i0 < min(hi*side, n); i0 += side {
			for j0 := 0; j0 <= i0; j0 += side {
				for i := i0; i < min(i0+side, n); i++ {
					for j := j0; j < min(j0+side, i+1); j++ {
						l[i*n+j] = h[(n-1-j)*ldh+n-1-i] // element (n-1-i, n-1-j) by symmetry, from the lower half
					}
				}
			}
		}
	})
	if !Cholesky(n, l, n) {
		return false
	}
	TriInverse(n, l, n)
	par.For(n, side, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			row := h[i*ldh : i*ldh+n]
			clear(row[:i])
			for j := i; j < n; j++ {
				row[j] = l[(n-1-i)*n+n-1-j]
			}
		}
	})
	return true
}
