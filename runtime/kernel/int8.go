package kernel

import "github.com/qsimc/qsimc/runtime/kernel/par"

// Int8 is the element of integer products.
type Int8 interface{ ~int8 | ~uint8 }

// PackedInt8 is a right-hand side of integer products with its zero points taken off, in the layout the loops want:
// int16 in pairs along K. It is immutable and safe for concurrent use.
type PackedInt8 struct {
	K, N int
	p    packed[int32]
}

// PackInt8 packs the k×n matrix b (n×k where transB is set). zero is nil (0), one zero point, or one for each column.
func PackInt8[T Int8](k, n int, b []T, ldb int, transB bool, zero []T) *PackedInt8 {
	if transB {
		need("PackInt8", len(b), n, k, ldb)
	} else {
		need("PackInt8", len(b), k, n, ldb)
	}
	return &PackedInt8{K: k, N: n, p: pack(cur.tilesI, (k+1)/2, n, int8Source(k, n, b, ldb, transB, zero))}
}

// int8Source delivers pairs of rows 2p, 2p+1 of b as one int32, the even row in the lower half; a missing last row is 0.
func int8Source[T Int8](k, n int, b []T, ldb int, trans bool, zero []T) source[int32] {
	at := zeros("PackInt8: zero", n, zero)
	stepK, stepN := ldb, 1
	if trans {
		stepK, stepN = 1, ldb
	}
	return source[int32]{func(dst []int32, k0, kb, j0, nn, nr int) {
		for p := range kb {
			row := dst[p*nr : (p+1)*nr]
			r := 2 * (k0 + p)
			in := b[r*stepK:]
			for j := range nn {
				z := at(j0 + j)
				v := int32(in[(j0+j)*stepN]) - z
				w := int32(0)
				if r+1 < k {
					w = int32(in[(j0+j)*stepN+stepK]) - z
				}
				row[j] = w<<16 | v&0xffff
			}
			clear(row[nn:])
		}
	}, sweepRows}
}

// zeros reads a zero point parameter: none, one for all, or one each.
func zeros[T Int8](what string, n int, zero []T) func(i int) int32 {
	switch len(zero) {
	case 0:
		return func(int) int32 { return 0 }
	case 1:
		z := int32(zero[0])
		return func(int) int32 { return z }
	}
	same(what, n, len(zero))
	return func(i int) int32 { return int32(zero[i]) }
}

// GemmInt8 computes C = (A - zero)·B exactly in int32 (sums beyond int32 wrap), A m×K. zero is nil (0), one zero point,
// or one for each row of A.
func GemmInt8[T Int8](m int, a []T, lda int, zero []T, b *PackedInt8, c []int32, ldc int) {
	need("GemmInt8: a", len(a), m, b.K, lda)
	need("GemmInt8: c", len(c), m, b.N, ldc)
	buf, pairs := pairsA(m, b.K, a, lda, zero)
	defer release(buf)
	b.p.multiply(m, pairs, (b.K+1)/2, c, ldc, false, nil)
}

// MatMulInt8 computes C = (A - za)·(B - zb) exactly in int32 (sums beyond int32 wrap): A m×k, B k×n, or n×k where transB
// is set; za is nil, one or m zero points, zb nil, one or n. It packs B itself.
func MatMulInt8[A, B Int8](m, n, k int, a []A, lda int, za []A, b []B, ldb int, transB bool, zb []B, c []int32, ldc int) {
	GemmInt8(m, a, lda, za, PackInt8(k, n, b, ldb, transB, zb), c, ldc)
}

// pairsA widens A to pairs of int16 along K.
func pairsA[T Int8](m, k int, a []T, lda int, zero []T) (*buffer, []int32) {
	half := (k + 1) / 2
	buf, out := scratchOf[int32](m * half)
	at := zeros("GemmInt8: zero", m, zero)
	par.For(m, max(1, elemGrain/max(k, 1)), func(lo, hi int) {
		for r := lo; r < hi; r++ {
			in, row, z := a[r*lda:][:k], out[r*half:(r+1)*half], at(r)
			for p := range k / 2 {
				row[p] = (int32(in[2*p+1])-z)<<16 | (int32(in[2*p])-z)&0xffff
			}
			if k%2 == 1 {
				row[half-1] = (int32(in[k-1]) - z) & 0xffff
			}
		}
	})
	return buf, out
}
