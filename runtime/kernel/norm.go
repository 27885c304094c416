package kernel

import "math"

// Softmax sets each row of dst to e^(x-m)·(1/Σ e^(x-m)) with m the row's maximum. A row that is all -Inf, or holds a NaN or
// +Inf, becomes NaN, as the formula says.
func Softmax(rows, cols int, dst, x []float32) {
	same("Softmax", rows*cols, len(dst), len(x))
	eachRow(rows, cols, func(lo, hi int) {
		softmaxRows(hi-lo, cols, dst[lo*cols:], cols, x[lo*cols:], cols, 1, nil, 0)
	})
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
	vectors("LayerNorm", cols, gamma, beta)
	eachRow(rows, cols, func(lo, hi int) {
		var mu, inv []float32
		if mean != nil {
			mu = mean[lo:hi]
		}
		if invStd != nil {
			inv = invStd[lo:hi]
		}
		normRows(hi-lo, cols, dst[lo*cols:hi*cols], x[lo*cols:hi*cols], gamma, beta, eps, true, mu, inv)
	})
}

// RMSNorm sets each row of dst to x/√(mean(x²)+eps)·gamma; gamma has cols elements, nil stands for ones.
func RMSNorm(rows, cols int, dst, x, gamma []float32, eps float32) {
	same("RMSNorm", rows*cols, len(dst), len(x))
	vectors("RMSNorm", cols, gamma, nil)
	eachRow(rows, cols, func(lo, hi int) {
		normRows(hi-lo, cols, dst[lo*cols:hi*cols], x[lo*cols:hi*cols], gamma, nil, eps, false, nil, nil)
	})
}

// vectors panics unless gamma and beta have n elements or are nil.
func vectors(what string, n int, gamma, beta []float32) {
	for _, v := range [][]float32{gamma, beta} {
		if v != nil {
			same(what, n, len(v))
		}
	}
}

// negInf is -∞.
var negInf = float32(math.Inf(-1))

func rsqrt(v float32) float32 { return 1 / float32(math.Sqrt(float64(v))) }
