package kernel

import (
	"unsafe"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// Transpose sets dst (cols×rows, leading dimension ldd) to the transpose of x (rows×cols, leading dimension ldx). They
// must not overlap. The element type is any of the widths tensors have.
func Transpose[T any](rows, cols int, dst []T, ldd int, x []T, ldx int) {
	need("Transpose: x", len(x), rows, cols, ldx)
	need("Transpose: dst", len(dst), cols, rows, ldd)
	const side = 16 // a strip of 16 rows: one cache line of float32 in the result
	var zero T
	fast := cur.trans8 != nil && unsafe.Sizeof(zero) == 4
	strips := (rows + side - 1) / side
	par.For(strips, max(1, elemGrain/(side*max(cols, 1))), func(lo, hi int) {
		for s := lo; s < hi; s++ {
			r0, r1 := s*side, min((s+1)*side, rows)
			whole := 0 // columns done
			if fast && r1-r0 == side && cols >= 8 {
				whole = cols &^ 7
				for r := r0; r < r1; r += 8 {
					trans8(&dst[r], ldd, &x[r*ldx], ldx, whole)
				}
			}
			for c := whole; c < cols; c++ {
				out := dst[c*ldd+r0 : c*ldd+r1]
				for i := range out {
					out[i] = x[(r0+i)*ldx+c]
				}
			}
		}
	})
}

// trans8 calls the level's loop on elements of four bytes; leading dimensions are in elements.
func trans8[T any](dst *T, ldd int, x *T, ldx, n int) {
	cur.trans8((*float32)(unsafe.Pointer(dst)), ldd*4, (*float32)(unsafe.Pointer(x)), ldx*4, n)
}

// packTrans writes kb rows of nr to dst: element (p,j) is b[j*ldb+p], zero for j >= nn.
func packTrans[T elem](dst, b []T, ldb, kb, nn, nr int) {
	var zero T
	j, whole := 0, kb&^7
	if cur.trans8 != nil && unsafe.Sizeof(zero) == 4 && whole > 0 {
		for ; j+8 <= nn; j += 8 {
			trans8(&dst[j], nr, &b[j*ldb], ldb, whole)
			for p := whole; p < kb; p++ {
				for i := range 8 {
					dst[p*nr+j+i] = b[(j+i)*ldb+p]
				}
			}
		}
	}
	for ; j < nn; j++ {
		for p, v := range b[j*ldb:][:kb] {
			dst[p*nr+j] = v
		}
	}
	if nn < nr {
		for p := range kb {
			clear(dst[p*nr+nn : (p+1)*nr])
		}
	}
}
