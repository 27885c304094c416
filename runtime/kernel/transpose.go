package kernel

import "github.com/qsimc/qsimc/runtime/kernel/par"

// Transpose sets dst (cols×rows, leading dimension ldd) to the transpose of x (rows×cols, leading dimension ldx). They
// must not overlap. The element type is any of the widths tensors have.
func Transpose[T any](rows, cols int, dst []T, ldd int, x []T, ldx int) {
	need("Transpose: x", len(x), rows, cols, ldx)
	need("Transpose: dst", len(dst), cols, rows, ldd)
	const side = 16 // a block of 16×16: one cache line of float32 each way
	strips := (rows + side - 1) / side
	par.For(strips, max(1, elemGrain/(side*max(cols, 1))), func(lo, hi int) {
		for s := lo; s < hi; s++ {
			r0, r1 := s*side, min((s+1)*side, rows)
			for c0 := 0; c0 < cols; c0 += side {
				c1 := min(c0+side, cols)
				for c := c0; c < c1; c++ {
					out := dst[c*ldd+r0 : c*ldd+r1]
					for i := range out {
						out[i] = x[(r0+i)*ldx+c]
					}
				}
			}
		}
	})
}

// packTrans writes kb rows of nr to dst: element (p,j) is b[j*ldb+p], zero for j >= nn.
func packTrans[T elem](dst, b []T, ldb, kb, nn, nr int) {
	const side = 16
	for p0 := 0; p0 < kb; p0 += side {
		p1 := min(p0+side, kb)
		for j := range nn {
			for i, v := range b[j*ldb+p0 : j*ldb+p1] {
				dst[(p0+i)*nr+j] = v
			}
		}
		if nn < nr {
			for p := p0; p < p1; p++ {
				clear(dst[p*nr+nn : (p+1)*nr])
			}
		}
	}
}
