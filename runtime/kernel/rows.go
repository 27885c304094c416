package kernel

import "unsafe"

// rowCost is the number of elements of rows handed to one call of a function on rows: microseconds of work, for goroutines are
// not preempted in it.
const rowCost = 16 << 10

// softmaxRows sets rows of n elements, ldd apart in dst, to the softmax of x·scale + mask, where they are ldx and ldm apart;
// mask may be nil. dst may be x.
func softmaxRows(rows, n int, dst []float32, ldd int, x []float32, ldx int, scale float32, mask []float32, ldm int) {
	if n == 0 {
		return
	}
	if cur.softmaxRows != nil {
		for r, some := 0, max(1, rowCost/n); r < rows; r += some {
			var m *float32
			if mask != nil {
				m = &mask[r*ldm]
			}
			cur.softmaxRows(&dst[r*ldd], ldd*4, &x[r*ldx], ldx*4, min(some, rows-r), n, scale, m, ldm*4)
		}
		return
	}
	for r := range rows {
		out, in := dst[r*ldd:][:n], x[r*ldx:][:n]
		if scale != 1 {
			cur.scalar[opMulS](out, in, scale)
			in = out
		}
		if mask != nil {
			cur.binary[opAdd](out, in, mask[r*ldm:][:n])
			in = out
		}
		// Where the row holds a NaN the sum is NaN whatever the maximum is.
		sum := cur.expSum(out, in, cur.max(in))
		cur.scalar[opMulS](out, out, 1/sum)
	}
}

// normRows sets rows of n elements to (x-mean)/√(var+eps)·gamma + beta, or to x/√(mean(x²)+eps)·gamma where center is not set;
// gamma and beta may be nil. Where mean and invStd are not nil they get each row's mean and 1/√(var+eps).
func normRows(rows, n int, dst, x, gamma, beta []float32, eps float32, center bool, mean, invStd []float32) {
	if n > 0 && cur.normRows != nil && gamma != nil && center == (beta != nil) && mean == nil && invStd == nil {
		for r, some := 0, max(1, rowCost/n); r < rows; r += some {
			cur.normRows(&dst[r*n], &x[r*n], min(some, rows-r), n, &gamma[0], unsafe.SliceData(beta), eps, float32(n))
		}
		return
	}
	for r := range rows {
		in, out := x[r*n:][:n], dst[r*n:][:n]
		var m float32
		if center {
			m = cur.sum(in) / float32(n)
		}
		inv := rsqrt(cur.sumSq(in, m)/float32(n) + eps)
		if mean != nil {
			mean[r] = m
		}
		if invStd != nil {
			invStd[r] = inv
		}
		cur.affine(out, in, m, inv)
		if gamma != nil {
			cur.binary[opMul](out, out, gamma)
		}
		if beta != nil {
			cur.binary[opAdd](out, out, beta)
		}
	}
}
