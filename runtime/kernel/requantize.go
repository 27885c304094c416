package kernel

import "unsafe"

// ScaleSums sets dst = float32(sums + bias)·scale + shift for rows of sums as integer products give them: scale has one number
// for each column, and so have bias and shift where they are not nil. Sums that leave int32 wrap.
func ScaleSums(rows, cols int, dst []float32, sums, bias []int32, scale, shift []float32) {
	same("ScaleSums", rows*cols, len(dst), len(sums))
	same("ScaleSums: scale", cols, len(scale))
	eachRow(rows, cols, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			out := dst[r*cols : (r+1)*cols]
			scaleRow(out, sums[r*cols:(r+1)*cols], bias, scale)
			if shift != nil {
				cur.binary[opAdd](out, out, shift)
			}
		}
	})
}

func scaleRow(dst []float32, sums, bias []int32, scale []float32) {
	if bias == nil {
		cur.scaleI(dst, sums, sums, 0, scale)
	} else {
		cur.scaleI(dst, sums, bias, 1, scale)
	}
}

// QuantizeSums sets dst to the codes clamp(rne(float32(sums + bias)·scale) + zero), within the range of T, of rows of sums as
// ScaleSums reads them. NaN, which only a scale that is not finite makes, counts as 0.
func QuantizeSums[T Int8](rows, cols int, dst []T, sums, bias []int32, scale []float32, zero T) {
	same("QuantizeSums", rows*cols, len(dst), len(sums))
	same("QuantizeSums: scale", cols, len(scale))
	eachRow(rows, cols, func(lo, hi int) {
		buf := scratch(cols)
		defer release(buf)
		for r := lo; r < hi; r++ {
			scaleRow(buf.f, sums[r*cols:(r+1)*cols], bias, scale)
			quantizeRow(dst[r*cols:(r+1)*cols], buf.f, zero)
		}
	})
}

// QuantizeSumsRows is QuantizeSums with a scale, and a bias unless it is nil, for each row; row r takes those of r modulo their
// number.
func QuantizeSumsRows[T Int8](rows, cols int, dst []T, sums, bias []int32, scale []float32, zero T) {
	same("QuantizeSumsRows", rows*cols, len(dst), len(sums))
	eachRow(rows, cols, func(lo, hi int) {
		buf := scratch(cols)
		defer release(buf)
		for r := lo; r < hi; r++ {
			b := int32(0)
			if bias != nil {
				b = bias[r%len(bias)]
			}
			cur.scaleIS(buf.f, sums[r*cols:(r+1)*cols], b, scale[r%len(scale)])
			quantizeRow(dst[r*cols:(r+1)*cols], buf.f, zero)
		}
	})
}

// quantizeRow rounds numbers in units of the step to codes.
func quantizeRow[T Int8](dst []T, x []float32, zero T) {
	g := intGrid{scale: 1, zero: float32(zero), hi: 255}
	if signed[T]() {
		g.lo, g.hi = -128, 127
	}
	n := 0
	if cur.quant8 != nil {
		if n = len(x) &^ 15; n > 0 {
			cur.quant8((*uint8)(unsafe.Pointer(&dst[0])), &x[0], g.scale, g.zero, g.lo, g.hi, n)
		}
	}
	for i := n; i < len(x); i++ {
		dst[i] = T(int32(gridCode(x[i], &g)))
	}
}
