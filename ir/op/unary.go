package op

import (
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// mapGrain is the number of elements of a function of one argument that are worth a core's while.
const mapGrain = 1 << 12

// mapOf applies f to every element.
func mapOf[T, U ir.Element](c *Call, x *ir.Tensor, elem ir.DType, f func(x T) U) (*ir.Tensor, error) {
	out, err := c.Like(x, elem)
	if err != nil {
		return nil, err
	}
	src, dst := ir.Data[T](x), ir.Data[U](out)
	par.For(len(src), mapGrain, func(lo, hi int) {
		d := dst[lo:hi]
		for i, v := range src[lo:hi] {
			d[i] = f(v)
		}
	})
	return out, nil
}

// mapFloat applies a function of float64 to a float32 or float64 tensor; fast, if given, does the float32 work.
func mapFloat(c *Call, f func(float64) float64, fast func(dst, x []float32)) ([]*ir.Tensor, error) {
	x := c.In[0]
	switch x.Elem() {
	case ir.Float64:
		return one(mapOf(c, x, ir.Float64, f))
	case ir.Float32:
		if fast == nil {
			return one(mapOf(c, x, ir.Float32, func(v float32) float32 { return float32(f(float64(v))) }))
		}
		out, err := c.Like(x, ir.Float32)
		if err != nil {
			return nil, err
		}
		fast(ir.Data[float32](out), ir.Data[float32](x))
		return []*ir.Tensor{out}, nil
	}
	return nil, badType(c, 0)
}

// floatFn is a floating-point function of one argument; fast, if set, computes it for float32 slices.
type floatFn struct {
	f    func(float64) float64
	fast func(dst, x []float32)
}

// inParallel makes a loop over float32 slices run on all cores.
func inParallel(loop func(dst, x []float32)) func(dst, x []float32) {
	return func(dst, x []float32) {
		par.For(len(x), mapGrain, func(lo, hi int) { loop(dst[lo:hi:hi], x[lo:hi]) })
	}
}

// unaryDef defines an elementwise function of floating-point type. Its float32 form is the float64 function rounded,
// unless fast is given.
func unaryDef(name, doc string, versions []int, k floatFn) *Def {
	return paramDef(name, doc, versions, func(*ir.Node) floatFn { return k })
}

// paramDef is unaryDef for functions with attributes.
func paramDef(name, doc string, versions []int, fn func(n *ir.Node) floatFn) *Def {
	d := &Def{
		Name: name, Doc: doc, Since: versions[0], Versions: versions, Types: floatTypes,
		In: Exactly(1), Out: Exactly(1), Widen: true, Infer: same,
		Eval: func(c *Call) ([]*ir.Tensor, error) {
			k := fn(c.Node)
			return mapFloat(c, k.f, k.fast)
		},
	}
	if len(versions) > 1 && versions[1] == 6 {
		d.Upgrades = []Upgrade{dropConsumed}
	}
	return d
}

var (
	ceilDef = unaryDef("Ceil", "⌈x⌉", []int{1, 6, 13}, floatFn{math.Ceil, inParallel(func(dst, x []float32) {
		for i, v := range x {
			dst[i] = float32(math.Ceil(float64(v)))
		}
	})})
	floorDef = unaryDef("Floor", "⌊x⌋", []int{1, 6, 13}, floatFn{math.Floor, inParallel(func(dst, x []float32) {
		for i, v := range x {
			dst[i] = float32(math.Floor(float64(v)))
		}
	})})
	roundDef      = unaryDef("Round", "the nearest integer, ties to even", []int{11, 22}, floatFn{f: math.RoundToEven})
	sqrtDef       = unaryDef("Sqrt", "√x", []int{1, 6, 13}, floatFn{math.Sqrt, kernel.Sqrt})
	expDef        = unaryDef("Exp", "eˣ", []int{1, 6, 13}, floatFn{math.Exp, kernel.Exp})
	logDef        = unaryDef("Log", "the natural logarithm", []int{1, 6, 13}, floatFn{f: math.Log})
	reciprocalDef = unaryDef("Reciprocal", "1/x", []int{1, 6, 13}, floatFn{func(x float64) float64 { return 1 / x },
		func(dst, x []float32) { kernel.RDivScalar(dst, x, 1) }})
	erfDef   = unaryDef("Erf", "the error function", []int{9, 13}, floatFn{math.Erf, kernel.Erf})
	sinDef   = unaryDef("Sin", "sine", []int{7, 22}, floatFn{f: math.Sin})
	cosDef   = unaryDef("Cos", "cosine", []int{7, 22}, floatFn{f: math.Cos})
	tanDef   = unaryDef("Tan", "tangent", []int{7, 22}, floatFn{f: math.Tan})
	asinDef  = unaryDef("Asin", "arc sine", []int{7, 22}, floatFn{f: math.Asin})
	acosDef  = unaryDef("Acos", "arc cosine", []int{7, 22}, floatFn{f: math.Acos})
	atanDef  = unaryDef("Atan", "arc tangent", []int{7, 22}, floatFn{f: math.Atan})
	sinhDef  = unaryDef("Sinh", "hyperbolic sine", []int{9, 22}, floatFn{f: math.Sinh})
	coshDef  = unaryDef("Cosh", "hyperbolic cosine", []int{9, 22}, floatFn{f: math.Cosh})
	tanhDef  = unaryDef("Tanh", "hyperbolic tangent", []int{1, 6, 13}, floatFn{math.Tanh, kernel.Tanh})
	asinhDef = unaryDef("Asinh", "inverse hyperbolic sine", []int{9, 22}, floatFn{f: math.Asinh})
	acoshDef = unaryDef("Acosh", "inverse hyperbolic cosine", []int{9, 22}, floatFn{f: math.Acosh})
	atanhDef = unaryDef("Atanh", "inverse hyperbolic tangent", []int{9, 22}, floatFn{f: math.Atanh})
)

// signed holds the forms of a function of one argument that also exists for integers; nil where there is none.
type signed struct {
	f32 func(float32) float32
	f64 func(float64) float64
	i8  func(int8) int8
	i16 func(int16) int16
	i32 func(int32) int32
	i64 func(int64) int64
}

// unsigned likewise, for unsigned types.
type unsigned struct {
	u8  func(uint8) uint8
	u16 func(uint16) uint16
	u32 func(uint32) uint32
	u64 func(uint64) uint64
}

func numericMap(c *Call, s signed, u unsigned) ([]*ir.Tensor, error) {
	x := c.In[0]
	switch e := x.Elem(); {
	case e == ir.Float32 && s.f32 != nil:
		return one(mapOf(c, x, e, s.f32))
	case e == ir.Float64 && s.f64 != nil:
		return one(mapOf(c, x, e, s.f64))
	case e == ir.Int8 && s.i8 != nil:
		return one(mapOf(c, x, e, s.i8))
	case e == ir.Int16 && s.i16 != nil:
		return one(mapOf(c, x, e, s.i16))
	case e == ir.Int32 && s.i32 != nil:
		return one(mapOf(c, x, e, s.i32))
	case e == ir.Int64 && s.i64 != nil:
		return one(mapOf(c, x, e, s.i64))
	case e == ir.Uint8 && u.u8 != nil:
		return one(mapOf(c, x, e, u.u8))
	case e == ir.Uint16 && u.u16 != nil:
		return one(mapOf(c, x, e, u.u16))
	case e == ir.Uint32 && u.u32 != nil:
		return one(mapOf(c, x, e, u.u32))
	case e == ir.Uint64 && u.u64 != nil:
		return one(mapOf(c, x, e, u.u64))
	}
	return nil, badType(c, 0)
}

// numericDef defines an elementwise function that exists for integers too; fast, if given, does the float32 work.
func numericDef(name, doc, types string, versions []int, s signed, u unsigned, fast ...func(dst, x []float32)) *Def {
	d := &Def{
		Name: name, Doc: doc, Since: versions[0], Versions: versions, Types: types,
		In: Exactly(1), Out: Exactly(1), Widen: true, Infer: same,
		Eval: func(c *Call) ([]*ir.Tensor, error) {
			if len(fast) > 0 && c.In[0].Elem() == ir.Float32 {
				return mapFloat(c, s.f64, fast[0])
			}
			return numericMap(c, s, u)
		},
	}
	if len(versions) > 1 && versions[1] == 6 {
		d.Upgrades = []Upgrade{dropConsumed}
	}
	return d
}

const signedTypes = "float16, bfloat16, float, double, int8, int16, int32, int64"

var absDef = numericDef("Abs", "|x|", numericTypes, []int{1, 6, 13},
	signed{
		func(x float32) float32 { return float32(math.Abs(float64(x))) }, math.Abs,
		abs[int8], abs[int16], abs[int32], abs[int64],
	},
	unsigned{itself[uint8], itself[uint16], itself[uint32], itself[uint64]},
	inParallel(func(dst, x []float32) {
		for i, v := range x {
			dst[i] = float32(math.Abs(float64(v)))
		}
	}))

var negDef = numericDef("Neg", "-x", signedTypes, []int{1, 6, 13},
	signed{neg[float32], neg[float64], neg[int8], neg[int16], neg[int32], neg[int64]}, unsigned{},
	inParallel(func(dst, x []float32) {
		for i, v := range x {
			dst[i] = -v
		}
	}))

var signDef = numericDef("Sign", "-1, 0 or 1 by the sign of x", numericTypes, []int{9, 13},
	signed{sign[float32], sign[float64], sign[int8], sign[int16], sign[int32], sign[int64]},
	unsigned{sign[uint8], sign[uint16], sign[uint32], sign[uint64]})

var reluDef = numericDef("Relu", "max(x, 0)", signedTypes, []int{1, 6, 13, 14},
	signed{relu[float32], relu[float64], relu[int8], relu[int16], relu[int32], relu[int64]}, unsigned{}, kernel.Relu)

var bitwiseNotDef = numericDef("BitwiseNot", "the bits of x inverted", integerTypes, []int{18},
	signed{i8: flip[int8], i16: flip[int16], i32: flip[int32], i64: flip[int64]},
	unsigned{flip[uint8], flip[uint16], flip[uint32], flip[uint64]})

func itself[T number](x T) T { return x }

func abs[T integer](x T) T {
	if x < 0 {
		return -x
	}
	return x
}

func neg[T number](x T) T { return -x }

// sign keeps NaN and the zeros as they are.
func sign[T number](x T) T {
	switch {
	case x > 0:
		return 1
	case x < 0:
		var zero T
		return zero - 1
	}
	return x
}

func relu[T number](x T) T {
	if x < 0 {
		return 0
	}
	return x
}

func flip[T integer](x T) T { return ^x }

var isNaNDef = &Def{
	Name: "IsNaN", Doc: "whether x is NaN", Since: 9, Versions: []int{9, 13, 20}, Types: floatTypes + ", float8",
	In: Exactly(1), Out: Exactly(1), Widen: true, Infer: boolean,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return floatTest(c, func(x float64) bool { return x != x })
	},
}

var isInfDef = &Def{
	Name: "IsInf", Doc: "whether x is infinite", Since: 10, Versions: []int{10, 20}, Types: floatTypes + ", float8",
	In: Exactly(1), Out: Exactly(1), Widen: true, Infer: boolean,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		neg, pos := c.Node.Int("detect_negative", 1) != 0, c.Node.Int("detect_positive", 1) != 0
		return floatTest(c, func(x float64) bool { return pos && math.IsInf(x, 1) || neg && math.IsInf(x, -1) })
	},
}

// boolean infers a bool of input 0's shape.
func boolean(c *Call) ([]ir.Type, error) {
	t := c.Type(0).Clone()
	t.Elem = ir.Bool
	return []ir.Type{t}, nil
}

func floatTest(c *Call, f func(x float64) bool) ([]*ir.Tensor, error) {
	x := c.In[0]
	switch x.Elem() {
	case ir.Float32:
		return one(mapOf(c, x, ir.Bool, func(v float32) bool { return f(float64(v)) }))
	case ir.Float64:
		return one(mapOf(c, x, ir.Bool, f))
	}
	if _, ok := smallFloat(x.Elem()); !ok {
		return nil, badType(c, 0)
	}
	wide, err := castTo(c, x, ir.Float32, castMode{})
	if err != nil {
		return nil, err
	}
	return one(mapOf(c, wide, ir.Bool, func(v float32) bool { return f(float64(v)) }))
}
