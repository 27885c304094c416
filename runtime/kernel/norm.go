package kernel

import "math"

// Softmax sets each row of dst to e^(x-m)·(1/Σ e^(x-m)) with m the row's maximum. A row that is all -Inf, or holds a NaN or
// +Inf, becomes NaN, as the formula says.
func Softmax(rows, cols int, dst, x []float32) {
	same("Softmax", rows*cols, len(dst), len(x))
	eachRow(rows, cols, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			softmaxRow(dst[r*cols:(r+1)*cols], x[r*cols:(r+1)*cols])
		}
	})
}

func softmaxRow(dst, x []float32) {
	// Where x holds a NaN the sum is NaN whatever m is.
	sum := cur.expSum(dst, x, cur.max(x))
	cur.scalar[opMulS](dst, dst, 1/sum)
}

// LogSoftmax sets each row of dst to x - m - ln Σ e^(x-m).
func LogSoftmax(rows, cols int, dst, x []float32) {
	same("LogSoftmax", rows*cols, len(dst), len(x))
	eachRow(rows, cols, func(lo, hi int) {
		tmp := scratch(cols)
		defer release(tmp)
		for r := lo; r < hi; r++ {
			row := x[r*cols : (r+1)*cols]
			m := cur.max(row)
			log := float32(math.Log(float64(cur.expSum(tmp.f, row, m))))
			cur.scalar[opSubS](dst[r*cols:(r+1)*cols], row, m)
			cur.scalar[opSubS](dst[r*cols:(r+1)*cols], dst[r*cols:(r+1)*cols], log)
		}
	})
}

// LayerNorm sets each row of dst to (x-mean)/√(var+eps)·gamma + beta, var being the mean of (x-mean)². gamma and beta
// have cols elements; nil stands for ones and zeros. Where mean and invStd are not nil they receive each row's mean and
// 1/√(var+eps).
func LayerNorm(rows, cols int, dst, x, gamma, beta []float32, eps float32, mean, invStd []float32) {
	same("LayerNorm", rows*cols, len(dst), len(x))
	eachRow(rows, cols, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			in, out := x[r*cols:(r+1)*cols], dst[r*cols:(r+1)*cols]
			m := cur.sum(in) / float32(cols)
			inv := rsqrt(cur.sumSq(in, m)/float32(cols) + eps)
			if mean != nil {
				mean[r] = m
			}
			if invStd != nil {
				invStd[r] = inv
			}
			normRow(out, in, gamma, beta, m, inv)
		}
	})
}

// RMSNorm sets each row of dst to x/√(mean(x²)+eps)·gamma; gamma has cols elements, nil stands for ones.
func RMSNorm(rows, cols int, dst, x, gamma []float32, eps float32) {
	same("RMSNorm", rows*cols, len(dst), len(x))
	eachRow(rows, cols, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			in := x[r*cols : (r+1)*cols]
			inv := rsqrt(cur.sumSq(in, 0)/float32(cols) + eps)
			normRow(dst[r*cols:(r+1)*cols], in, gamma, nil, 0, inv)
		}
	})
}

// normRow is one row's (x-mean)*inv, then times gamma, then plus beta; each step rounds.
func normRow(dst, x, gamma, beta []float32, mean, inv float32) {
	cur.affine(dst, x, mean, inv)
	if gamma != nil {
		cur.binary[opMul](dst, dst, gamma[:len(dst)])
	}
	if beta != nil {
		cur.binary[opAdd](dst, dst, beta[:len(dst)])
	}
}

// negInf is -∞.
var negInf = float32(math.Inf(-1))

func rsqrt(v float32) float32 { return 1 / float32(math.Sqrt(float64(v))) }
