package kernel

import "math"

// Mean returns the mean of x, added up in float64 in 32 lanes as those of Sum; NaN where x is empty.
func Mean(x []float32) float64 { return cur.sum64(x) / float64(len(x)) }

// Variance returns the mean of (x-mean)², as Mean.
func Variance(x []float32, mean float64) float64 { return cur.sumSq64(x, mean) / float64(len(x)) }

// GroupNorm sets each group of channels of each of batch items to (x-mean)/√(var+eps)·scale + shift and then ep's
// activation. The channels, as many as scale and shift have elements, are of one size; statistics are in float64.
func GroupNorm(batch, groups int, dst, x, scale, shift []float32, eps float64, ep *Epilogue) {
	same("GroupNorm", len(dst), len(x))
	same("GroupNorm: shift", len(scale), len(shift))
	per, size := len(scale)/groups, len(x)/(batch*len(scale))
	same("GroupNorm: x", batch*groups*per*size, len(x))
	eachRow(batch*groups, per*size, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			in, out := x[r*per*size:(r+1)*per*size], dst[r*per*size:(r+1)*per*size]
			mean := Mean(in)
			inv := 1 / math.Sqrt(Variance(in, mean)+eps)
			for k, c := 0, r%groups*per; k < per; k, c = k+1, c+1 {
				row := out[k*size : (k+1)*size]
				cur.affine(row, in[k*size:(k+1)*size], float32(mean), float32(inv*float64(scale[c])))
				cur.scalar[opAddS](row, row, shift[c])
				ep.act(row)
			}
		}
	})
}

// fold64 is fold for lanes of float64.
func fold64(acc *[lanes]float64) float64 {
	for h := lanes / 2; h > 0; h /= 2 {
		for i := range h {
			acc[i] += acc[i+h]
		}
	}
	return acc[0]
}

func sum64Generic(x []float32) float64 {
	var acc [lanes]float64
	for ; len(x) >= lanes; x = x[lanes:] {
		for i, v := range x[:lanes] {
			acc[i] += float64(v)
		}
	}
	return sum64Tail(&acc, x)
}

// sum64Tail adds the last, at most 31 elements to the lanes and folds them.
func sum64Tail(acc *[lanes]float64, x []float32) float64 {
	for i, v := range x {
		acc[i] += float64(v)
	}
	return fold64(acc)
}

func sumSq64Generic(x []float32, mean float64) float64 {
	var acc [lanes]float64
	for ; len(x) >= lanes; x = x[lanes:] {
		for i, v := range x[:lanes] {
			d := float64(v) - mean
			acc[i] += float64(d * d)
		}
	}
	return sumSq64Tail(&acc, x, mean)
}

func sumSq64Tail(acc *[lanes]float64, x []float32, mean float64) float64 {
	for i, v := range x {
		d := float64(v) - mean
		acc[i] += float64(d * d)
	}
	return fold64(acc)
}
