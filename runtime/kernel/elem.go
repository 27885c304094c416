package kernel

// The elementwise loops each level provides.
const (
	opAdd = iota
	opSub
	opMul
	opDiv
	opMaximum
	numBinary
)

const (
	opAddS  = iota // a + s
	opSubS         // a - s
	opRSubS        // s - a
	opMulS         // a * s
	opDivS         // a / s
	opRDivS        // s / a
	numScalar
)

const (
	opRelu = iota
	opExp
	opErf
	opGelu
	opGeluTanh
	opSigmoid
	opTanh
	opSilu
	opSqrt
	numUnary
)

func binary(what string, op int, dst, a, b []float32) {
	same(what, len(dst), len(a), len(b))
	f := cur.binary[op]
	if len(dst) <= elemGrain {
		f(dst, a, b)
		return
	}
	each(len(dst), func(lo, hi int) { f(dst[lo:hi], a[lo:hi], b[lo:hi]) })
}

func scalar(what string, op int, dst, a []float32, s float32) {
	same(what, len(dst), len(a))
	f := cur.scalar[op]
	if len(dst) <= elemGrain {
		f(dst, a, s)
		return
	}
	each(len(dst), func(lo, hi int) { f(dst[lo:hi], a[lo:hi], s) })
}

func unary(what string, op int, dst, x []float32) {
	same(what, len(dst), len(x))
	f := cur.unary[op]
	if len(dst) <= elemGrain {
		f(dst, x)
		return
	}
	each(len(dst), func(lo, hi int) { f(dst[lo:hi], x[lo:hi]) })
}

// Add sets dst = a + b.
func Add(dst, a, b []float32) { binary("Add", opAdd, dst, a, b) }

// Sub sets dst = a - b.
func Sub(dst, a, b []float32) { binary("Sub", opSub, dst, a, b) }

// Mul sets dst = a * b.
func Mul(dst, a, b []float32) { binary("Mul", opMul, dst, a, b) }

// Div sets dst = a / b, correctly rounded.
func Div(dst, a, b []float32) { binary("Div", opDiv, dst, a, b) }

// Maximum sets dst = max(a, b): NaN where either is, -0 where both are zeros and one is negative.
func Maximum(dst, a, b []float32) { binary("Maximum", opMaximum, dst, a, b) }

// AddScalar sets dst = a + s.
func AddScalar(dst, a []float32, s float32) { scalar("AddScalar", opAddS, dst, a, s) }

// SubScalar sets dst = a - s.
func SubScalar(dst, a []float32, s float32) { scalar("SubScalar", opSubS, dst, a, s) }

// RSubScalar sets dst = s - a.
func RSubScalar(dst, a []float32, s float32) { scalar("RSubScalar", opRSubS, dst, a, s) }

// MulScalar sets dst = a * s.
func MulScalar(dst, a []float32, s float32) { scalar("MulScalar", opMulS, dst, a, s) }

// DivScalar sets dst = a / s, correctly rounded.
func DivScalar(dst, a []float32, s float32) { scalar("DivScalar", opDivS, dst, a, s) }

// RDivScalar sets dst = s / a, correctly rounded.
func RDivScalar(dst, a []float32, s float32) { scalar("RDivScalar", opRDivS, dst, a, s) }

// AddRows sets each of the rows of dst to the row of x plus v, which has cols elements: a bias along the last axis.
func AddRows(rows, cols int, dst, x, v []float32) { rowsOp("AddRows", opAdd, rows, cols, dst, x, v) }

// SubRows sets each row of dst to the row of x minus v.
func SubRows(rows, cols int, dst, x, v []float32) { rowsOp("SubRows", opSub, rows, cols, dst, x, v) }

// MulRows sets each row of dst to the row of x times v, element by element.
func MulRows(rows, cols int, dst, x, v []float32) { rowsOp("MulRows", opMul, rows, cols, dst, x, v) }

// DivRows sets each row of dst to the row of x divided by v, element by element.
func DivRows(rows, cols int, dst, x, v []float32) { rowsOp("DivRows", opDiv, rows, cols, dst, x, v) }

func rowsOp(what string, op, rows, cols int, dst, x, v []float32) {
	same(what, rows*cols, len(dst), len(x))
	same(what, cols, len(v))
	f := cur.binary[op]
	eachRow(rows, cols, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			f(dst[r*cols:(r+1)*cols], x[r*cols:(r+1)*cols], v)
		}
	})
}

// Relu sets dst = max(x, 0); NaN stays NaN, -0 becomes +0.
func Relu(dst, x []float32) { unary("Relu", opRelu, dst, x) }

// Clip sets dst = min(max(x, lo), hi); NaN stays NaN.
func Clip(dst, x []float32, lo, hi float32) {
	same("Clip", len(dst), len(x))
	f := cur.clip
	each(len(dst), func(a, b int) { f(dst[a:b], x[a:b], lo, hi) })
}

// Exp sets dst = e^x, within two units in the last place; results below the smallest normal number are 0.
func Exp(dst, x []float32) { unary("Exp", opExp, dst, x) }

// Erf sets dst = erf(x), within a few units in the last place for every x.
func Erf(dst, x []float32) { unary("Erf", opErf, dst, x) }

// Gelu sets dst = x/2·(1+erf(x/√2)), ONNX Gelu with approximate="none".
func Gelu(dst, x []float32) { unary("Gelu", opGelu, dst, x) }

// GeluTanh sets dst = x/2·(1+tanh(√(2/π)·(x+0.044715x³))), ONNX Gelu with approximate="tanh".
func GeluTanh(dst, x []float32) { unary("GeluTanh", opGeluTanh, dst, x) }

// Sigmoid sets dst = 1/(1+e^-x).
func Sigmoid(dst, x []float32) { unary("Sigmoid", opSigmoid, dst, x) }

// Tanh sets dst = tanh(x), within a few units in the last place for every x.
func Tanh(dst, x []float32) { unary("Tanh", opTanh, dst, x) }

// Silu sets dst = x/(1+e^-x).
func Silu(dst, x []float32) { unary("Silu", opSilu, dst, x) }

// Sqrt sets dst = √x, correctly rounded; NaN for negative x.
func Sqrt(dst, x []float32) { unary("Sqrt", opSqrt, dst, x) }

// Axpy adds s*x to dst, the product rounded before the sum.
func Axpy(dst, x []float32, s float32) {
	same("Axpy", len(dst), len(x))
	f := cur.axpy
	each(len(dst), func(lo, hi int) { f(dst[lo:hi], x[lo:hi], s) })
}
