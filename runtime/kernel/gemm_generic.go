package kernel

import "unsafe"

// genericKernels are the plain Go kernels: 8 columns wide, 1 to 4 rows, a row at a time.
func genericKernels[T elem](row func(a []T, bp *T, ldb int, c []T, acc int)) []kernFunc[T] {
	ks := make([]kernFunc[T], 5)
	for r := 1; r <= 4; r++ {
		ks[r] = func(ap *T, lda int, bp *T, ldb int, cp *T, ldc int, k, acc int) {
			for i := range r {
				row(at(ap, i*lda, k), bp, ldb, at(cp, i*ldc, 8), acc)
			}
		}
	}
	return ks
}

// at views n elements off bytes behind p.
func at[T elem](p *T, off, n int) []T {
	return unsafe.Slice((*T)(unsafe.Add(unsafe.Pointer(p), off)), n)
}

func rowFloat[T float32 | float64](a []T, bp *T, ldb int, c []T, acc int) {
	var s0, s1, s2, s3, s4, s5, s6, s7 T
	for p, v := range a {
		b := (*[8]T)(at(bp, p*ldb, 8))
		s0 += T(v * b[0])
		s1 += T(v * b[1])
		s2 += T(v * b[2])
		s3 += T(v * b[3])
		s4 += T(v * b[4])
		s5 += T(v * b[5])
		s6 += T(v * b[6])
		s7 += T(v * b[7])
	}
	store(c, [8]T{s0, s1, s2, s3, s4, s5, s6, s7}, acc)
}

// rowInt multiplies pairs of int16, the lower half first.
func rowInt(a []int32, bp *int32, ldb int, c []int32, acc int) {
	var sum [8]int32
	for p, v := range a {
		b := (*[8]int32)(at(bp, p*ldb, 8))
		lo, hi := int32(int16(v)), v>>16
		for j, w := range b {
			sum[j] += lo*int32(int16(w)) + hi*(w>>16)
		}
	}
	store(c, sum, acc)
}

func store[T elem](c []T, sum [8]T, acc int) {
	for i, s := range sum {
		if acc != 0 {
			s += c[i]
		}
		c[i] = s
	}
}
