package op

import (
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

type integer interface {
	~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64
}

type float interface{ ~float32 | ~float64 }

type number interface{ integer | float }

// arith holds the row kernels of one binary operator, T to T, by element type; nil where it has none.
type arith struct {
	f32 row[float32, float32]
	f64 row[float64, float64]
	i8  row[int8, int8]
	i16 row[int16, int16]
	i32 row[int32, int32]
	i64 row[int64, int64]
	u8  row[uint8, uint8]
	u16 row[uint16, uint16]
	u32 row[uint32, uint32]
	u64 row[uint64, uint64]
}

// apply computes the operator on two tensors of one element type.
func (k *arith) apply(c *Call, a, b *ir.Tensor) (*ir.Tensor, error) {
	if a.Elem() != b.Elem() {
		return nil, fmt.Errorf("inputs are of element types %v and %v", a.Elem(), b.Elem())
	}
	switch e := a.Elem(); {
	case e == ir.Float32 && k.f32 != nil:
		return zip(c, a, b, e, k.f32)
	case e == ir.Float64 && k.f64 != nil:
		return zip(c, a, b, e, k.f64)
	case e == ir.Int8 && k.i8 != nil:
		return zip(c, a, b, e, k.i8)
	case e == ir.Int16 && k.i16 != nil:
		return zip(c, a, b, e, k.i16)
	case e == ir.Int32 && k.i32 != nil:
		return zip(c, a, b, e, k.i32)
	case e == ir.Int64 && k.i64 != nil:
		return zip(c, a, b, e, k.i64)
	case e == ir.Uint8 && k.u8 != nil:
		return zip(c, a, b, e, k.u8)
	case e == ir.Uint16 && k.u16 != nil:
		return zip(c, a, b, e, k.u16)
	case e == ir.Uint32 && k.u32 != nil:
		return zip(c, a, b, e, k.u32)
	case e == ir.Uint64 && k.u64 != nil:
		return zip(c, a, b, e, k.u64)
	}
	return nil, fmt.Errorf("element type %v: %w", a.Elem(), ErrUnsupported)
}

func (k *arith) eval(c *Call) ([]*ir.Tensor, error) { return one(k.apply(c, c.In[0], c.In[1])) }

const (
	numericTypes = "float16, bfloat16, float, double, int8, int16, int32, int64, uint8, uint16, uint32, uint64"
	floatTypes   = "float16, bfloat16, float, double"
)

// arithDef defines Add, Sub, Mul and Div; dims is the operator on sizes.
func arithDef(name, doc string, dims sizeRule, eval func(*Call) ([]*ir.Tensor, error)) *Def {
	return &Def{
		Name: name, Doc: doc, Since: 1, Versions: []int{1, 6, 7, 13, 14}, Types: numericTypes,
		In: Exactly(2), Out: Exactly(1), Widen: true,
		Upgrades: []Upgrade{dropConsumed, alignedBroadcast},
		Infer: func(c *Call) ([]ir.Type, error) {
			dims.record(c)
			return inferZip(ir.Undefined)(c)
		},
		Eval: eval,
	}
}

// sizeRule is an operator of two integers that are known as dimensions: numbers gives the result of two numbers, ok is
// false where it has none; symbols says what is certain of others.
type sizeRule struct {
	numbers func(x, y int64) (z int64, ok bool)
	symbols func(x, y ir.Dim) ir.Dim
}

// maxSize bounds the numbers of a sizeRule, so that products do not overflow.
const maxSize = 1 << 31

// record notes the contents of output 0 where those of both inputs are known as dimensions.
func (r *sizeRule) record(c *Call) {
	a, ok := c.Dims(0)
	b, ok2 := c.Dims(1)
	if !ok || !ok2 || len(a) != len(b) && len(a) != 1 && len(b) != 1 {
		return
	}
	out := make([]ir.Dim, max(len(a), len(b)))
	if len(a) == 0 || len(b) == 0 {
		out = nil
	}
	for i := range out {
		out[i] = r.of(a[min(i, len(a)-1)], b[min(i, len(b)-1)])
	}
	c.SetDims(0, out)
}

func (r *sizeRule) of(a, b ir.Dim) ir.Dim {
	x, ok := literal(a)
	y, ok2 := literal(b)
	if !ok || !ok2 {
		return r.symbols(a, b)
	}
	if max(x, y, -x, -y) > maxSize {
		return ir.UnknownDim
	}
	if z, ok := r.numbers(x, y); ok {
		return literalDim(z)
	}
	return ir.UnknownDim
}

var addDef = arithDef("Add", "a + b", sizeRule{
	func(x, y int64) (int64, bool) { return x + y, true },
	func(x, y ir.Dim) ir.Dim {
		switch {
		case x.Size == 0:
			return y
		case y.Size == 0:
			return x
		}
		return ir.UnknownDim
	},
}, addRows.eval)

var subDef = arithDef("Sub", "a - b", sizeRule{
	func(x, y int64) (int64, bool) { return x - y, true },
	func(x, y ir.Dim) ir.Dim {
		switch {
		case y.Size == 0:
			return x
		case x.Same(y):
			return ir.FixedDim(0)
		}
		return ir.UnknownDim
	},
}, subRows.eval)

var mulDef = arithDef("Mul", "a · b", sizeRule{
	func(x, y int64) (int64, bool) { return x * y, true },
	func(x, y ir.Dim) ir.Dim {
		switch {
		case x.Size == 0 || y.Size == 0:
			return ir.FixedDim(0)
		case x.Size == 1:
			return y
		case y.Size == 1:
			return x
		}
		return ir.UnknownDim
	},
}, mulRows.eval)

var divDef = arithDef("Div", "a / b; integers truncate, and division by zero is an error", sizeRule{
	func(x, y int64) (int64, bool) {
		if y == 0 {
			return 0, false
		}
		return x / y, true
	},
	func(x, y ir.Dim) ir.Dim {
		if y.Size == 1 {
			return x
		}
		return ir.UnknownDim
	},
}, func(c *Call) ([]*ir.Tensor, error) {
	if err := noZero(c.In[1]); err != nil {
		return nil, err
	}
	return divRows.eval(c)
})

// noZero fails if an integer tensor, a divisor, holds a zero.
func noZero(t *ir.Tensor) error {
	zero := false
	switch t.Elem() {
	case ir.Int8, ir.Uint8:
		zero = slices.Contains(ir.Data[uint8](t), 0)
	case ir.Int16, ir.Uint16:
		zero = slices.Contains(ir.Data[uint16](t), 0)
	case ir.Int32, ir.Uint32:
		zero = slices.Contains(ir.Data[uint32](t), 0)
	case ir.Int64, ir.Uint64:
		zero = slices.Contains(ir.Data[uint64](t), 0)
	}
	if zero {
		return fmt.Errorf("integer division by zero: the divisor %v%v holds a zero", t.Elem(), t.Shape())
	}
	return nil
}

var addRows = &arith{
	addRow32, addRow[float64], addRow[int8], addRow[int16], addRow[int32], addRow[int64],
	addRow[uint8], addRow[uint16], addRow[uint32], addRow[uint64],
}

var subRows = &arith{
	subRow32, subRow[float64], subRow[int8], subRow[int16], subRow[int32], subRow[int64],
	subRow[uint8], subRow[uint16], subRow[uint32], subRow[uint64],
}

var mulRows = &arith{
	mulRow32, mulRow[float64], mulRow[int8], mulRow[int16], mulRow[int32], mulRow[int64],
	mulRow[uint8], mulRow[uint16], mulRow[uint32], mulRow[uint64],
}

var divRows = &arith{
	divRow32, divRow[float64], divRow[int8], divRow[int16], divRow[int32], divRow[int64],
	divRow[uint8], divRow[uint16], divRow[uint32], divRow[uint64],
}

// shortRow is the length below which a call of the kernel costs more than it saves.
const shortRow = 32

func addRow32(dst, a, b []float32) {
	switch {
	case len(dst) < shortRow:
		addRow(dst, a, b)
	case len(b) == 1:
		kernel.AddScalar(dst, a, b[0])
	case len(a) == 1:
		kernel.AddScalar(dst, b, a[0])
	default:
		kernel.Add(dst, a, b)
	}
}

func subRow32(dst, a, b []float32) {
	switch {
	case len(dst) < shortRow:
		subRow(dst, a, b)
	case len(b) == 1:
		kernel.SubScalar(dst, a, b[0])
	case len(a) == 1:
		kernel.RSubScalar(dst, b, a[0])
	default:
		kernel.Sub(dst, a, b)
	}
}

func mulRow32(dst, a, b []float32) {
	switch {
	case len(dst) < shortRow:
		mulRow(dst, a, b)
	case len(b) == 1:
		kernel.MulScalar(dst, a, b[0])
	case len(a) == 1:
		kernel.MulScalar(dst, b, a[0])
	default:
		kernel.Mul(dst, a, b)
	}
}

func divRow32(dst, a, b []float32) {
	switch {
	case len(dst) < shortRow:
		divRow(dst, a, b)
	case len(b) == 1:
		kernel.DivScalar(dst, a, b[0])
	case len(a) == 1:
		kernel.RDivScalar(dst, b, a[0])
	default:
		kernel.Div(dst, a, b)
	}
}

func addRow[T number](dst, a, b []T) {
	switch {
	case len(b) == 1:
		y := b[0]
		for i, x := range a {
			dst[i] = x + y
		}
	case len(a) == 1:
		addRow(dst, b, a)
	default:
		b, dst = b[:len(a)], dst[:len(a)]
		for i, x := range a {
			dst[i] = x + b[i]
		}
	}
}

func subRow[T number](dst, a, b []T) {
	switch {
	case len(b) == 1:
		y := b[0]
		for i, x := range a {
			dst[i] = x - y
		}
	case len(a) == 1:
		x := a[0]
		for i, y := range b {
			dst[i] = x - y
		}
	default:
		b, dst = b[:len(a)], dst[:len(a)]
		for i, x := range a {
			dst[i] = x - b[i]
		}
	}
}

func mulRow[T number](dst, a, b []T) {
	switch {
	case len(b) == 1:
		y := b[0]
		for i, x := range a {
			dst[i] = x * y
		}
	case len(a) == 1:
		mulRow(dst, b, a)
	default:
		b, dst = b[:len(a)], dst[:len(a)]
		for i, x := range a {
			dst[i] = x * b[i]
		}
	}
}

func divRow[T number](dst, a, b []T) {
	switch {
	case len(b) == 1:
		y := b[0]
		for i, x := range a {
			dst[i] = x / y
		}
	case len(a) == 1:
		x := a[0]
		for i, y := range b {
			dst[i] = x / y
		}
	default:
		b, dst = b[:len(a)], dst[:len(a)]
		for i, x := range a {
			dst[i] = x / b[i]
		}
	}
}

// variadicDef defines Sum, Max, Min and Mean: one or more inputs, broadcast together (all of one shape before opset 8).
func variadicDef(name, doc, types string, versions []int, k *arith, finish func(c *Call, t *ir.Tensor) (*ir.Tensor, error)) *Def {
	return &Def{
		Name: name, Doc: doc, Since: 1, Versions: versions, Types: types,
		In: AtLeast(1), Out: Exactly(1), Widen: true,
		Upgrades: []Upgrade{dropConsumed},
		Infer: func(c *Call) ([]ir.Type, error) {
			t, err := broadcastType(c, 0, c.Node.NumIn(), ir.Undefined)
			if err != nil {
				return nil, err
			}
			return []ir.Type{t}, nil
		},
		Eval: func(c *Call) ([]*ir.Tensor, error) {
			t := c.In[0]
			for _, next := range c.In[1:] {
				if next == nil {
					return nil, fmt.Errorf("one of %d inputs is absent", len(c.In))
				}
				var err error
				if t, err = k.apply(c, t, next); err != nil {
					return nil, err
				}
			}
			if finish == nil {
				return []*ir.Tensor{t}, nil
			}
			return one(finish(c, t))
		},
	}
}

var sumDef = variadicDef("Sum", "the sum of all inputs", floatTypes, []int{1, 6, 8, 13}, addRows, nil)

var meanDef = variadicDef("Mean", "the mean of all inputs", floatTypes, []int{1, 6, 8, 13}, addRows,
	func(c *Call, t *ir.Tensor) (*ir.Tensor, error) {
		n := ir.Scalar(float32(len(c.In)))
		if t.Elem() == ir.Float64 {
			n = ir.FromSlice(ir.Float64, []int{}, []float64{float64(len(c.In))})
		}
		return divRows.apply(c, t, n)
	})

var maxDef = variadicDef("Max", "the greatest of all inputs, element by element; NaN if one is NaN", numericTypes, []int{1, 6, 8, 12, 13}, maxRows, nil)

var minDef = variadicDef("Min", "the least of all inputs, element by element; NaN if one is NaN", numericTypes, []int{1, 6, 8, 12, 13}, minRows, nil)

var maxRows = &arith{
	rowOf(maxOf[float32]), rowOf(maxOf[float64]), rowOf(maxOf[int8]), rowOf(maxOf[int16]), rowOf(maxOf[int32]), rowOf(maxOf[int64]),
	rowOf(maxOf[uint8]), rowOf(maxOf[uint16]), rowOf(maxOf[uint32]), rowOf(maxOf[uint64]),
}

var minRows = &arith{
	rowOf(minOf[float32]), rowOf(minOf[float64]), rowOf(minOf[int8]), rowOf(minOf[int16]), rowOf(minOf[int32]), rowOf(minOf[int64]),
	rowOf(minOf[uint8]), rowOf(minOf[uint16]), rowOf(minOf[uint32]), rowOf(minOf[uint64]),
}

func maxOf[T number](x, y T) T { return max(x, y) }

func minOf[T number](x, y T) T { return min(x, y) }
