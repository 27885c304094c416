package op

import (
	"bytes"
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

// compare holds the row kernels of one comparison by element type.
type compare struct {
	f32 row[float32, bool]
	f64 row[float64, bool]
	i8  row[int8, bool]
	i16 row[int16, bool]
	i32 row[int32, bool]
	i64 row[int64, bool]
	u8  row[uint8, bool]
	u16 row[uint16, bool]
	u32 row[uint32, bool]
	u64 row[uint64, bool]
}

func (k *compare) apply(c *Call, a, b *ir.Tensor) (*ir.Tensor, error) {
	switch a.Elem() {
	case ir.Float32:
		return zip(c, a, b, ir.Bool, k.f32)
	case ir.Float64:
		return zip(c, a, b, ir.Bool, k.f64)
	case ir.Int8:
		return zip(c, a, b, ir.Bool, k.i8)
	case ir.Int16:
		return zip(c, a, b, ir.Bool, k.i16)
	case ir.Int32:
		return zip(c, a, b, ir.Bool, k.i32)
	case ir.Int64:
		return zip(c, a, b, ir.Bool, k.i64)
	case ir.Uint8:
		return zip(c, a, b, ir.Bool, k.u8)
	case ir.Uint16:
		return zip(c, a, b, ir.Bool, k.u16)
	case ir.Uint32:
		return zip(c, a, b, ir.Bool, k.u32)
	case ir.Uint64:
		return zip(c, a, b, ir.Bool, k.u64)
	}
	return nil, fmt.Errorf("element type %v: %w", a.Elem(), ErrUnsupported)
}

func compareDef(name, doc string, versions []int, k *compare) *Def {
	d := &Def{
		Name: name, Doc: doc, Since: versions[0], Versions: versions, Types: numericTypes,
		In: Exactly(2), Out: Exactly(1), Widen: true,
		Infer: inferZip(ir.Bool),
		Eval: func(c *Call) ([]*ir.Tensor, error) {
			if c.In[0].Elem() != c.In[1].Elem() {
				return nil, fmt.Errorf("inputs are of element types %v and %v", c.In[0].Elem(), c.In[1].Elem())
			}
			return one(k.apply(c, c.In[0], c.In[1]))
		},
	}
	if d.Since < 7 {
		d.Upgrades = []Upgrade{alignedBroadcast}
	}
	return d
}

var (
	lessDef           = compareDef("Less", "a < b", []int{1, 7, 9, 13}, lessRows)
	greaterDef        = compareDef("Greater", "a > b", []int{1, 7, 9, 13}, greaterRows)
	lessOrEqualDef    = compareDef("LessOrEqual", "a ≤ b", []int{12, 16}, lessOrEqualRows)
	greaterOrEqualDef = compareDef("GreaterOrEqual", "a ≥ b", []int{12, 16}, greaterOrEqualRows)
	equalDef          = equal()
)

// equal is a comparison that also knows bool and strings.
func equal() *Def {
	d := compareDef("Equal", "a = b", []int{1, 7, 11, 13, 19}, equalRows)
	d.Types += ", bool, string"
	d.Infer = func(c *Call) ([]ir.Type, error) {
		equalSizes(c)
		return inferZip(ir.Bool)(c)
	}
	numeric := d.Eval
	d.Eval = func(c *Call) ([]*ir.Tensor, error) {
		a, b := c.In[0], c.In[1]
		switch {
		case a.Elem() != b.Elem():
		case a.Elem() == ir.Bool:
			return one(zip(c, a, b, ir.Bool, rowOf(func(x, y uint8) bool { return (x != 0) == (y != 0) })))
		case a.Elem() == ir.String:
			return one(zipStrings(c, a, b))
		}
		return numeric(c)
	}
	return d
}

// equalSizes tells whether integers known as dimensions are equal, if that is certain of all of them: a symbol equals
// itself and no negative number. Exported Expand targets are made so: Where(Equal(shape, -1), ones, shape).
func equalSizes(c *Call) {
	a, ok := c.Dims(0)
	b, ok2 := c.Dims(1)
	if !ok || !ok2 || len(a) != len(b) || c.Type(0).Rank() != 1 || c.Type(1).Rank() != 1 {
		return
	}
	out := make([]bool, len(a))
	for i := range out {
		x, numX := literal(a[i])
		y, numY := literal(b[i])
		switch {
		case numX && numY:
			out[i] = x == y
		case a[i].Same(b[i]):
			out[i] = true
		case numX && x < 0 && b[i].Name != "", numY && y < 0 && a[i].Name != "":
		default:
			return
		}
	}
	c.SetConst(0, ir.FromSlice(ir.Bool, []int{len(out)}, out))
}

func zipStrings(c *Call, a, b *ir.Tensor) (*ir.Tensor, error) {
	p, err := spreadOf(a.Shape(), b.Shape())
	if err != nil {
		return nil, err
	}
	out, err := c.New(ir.Bool, p.shape...)
	if err != nil {
		return nil, err
	}
	x, y, z := a.Strings(), b.Strings(), ir.Data[bool](out)
	last := len(p.dims) - 1
	p.run(func(i, n int, at []int) {
		for k := range n {
			z[i+k] = bytes.Equal(x[at[0]+k*p.steps[0][last]], y[at[1]+k*p.steps[1][last]])
		}
	})
	return out, nil
}

var equalRows = &compare{
	rowOf(eq[float32]), rowOf(eq[float64]), rowOf(eq[int8]), rowOf(eq[int16]), rowOf(eq[int32]), rowOf(eq[int64]),
	rowOf(eq[uint8]), rowOf(eq[uint16]), rowOf(eq[uint32]), rowOf(eq[uint64]),
}

var lessRows = &compare{
	rowOf(lt[float32]), rowOf(lt[float64]), rowOf(lt[int8]), rowOf(lt[int16]), rowOf(lt[int32]), rowOf(lt[int64]),
	rowOf(lt[uint8]), rowOf(lt[uint16]), rowOf(lt[uint32]), rowOf(lt[uint64]),
}

var greaterRows = &compare{
	rowOf(gt[float32]), rowOf(gt[float64]), rowOf(gt[int8]), rowOf(gt[int16]), rowOf(gt[int32]), rowOf(gt[int64]),
	rowOf(gt[uint8]), rowOf(gt[uint16]), rowOf(gt[uint32]), rowOf(gt[uint64]),
}

var lessOrEqualRows = &compare{
	rowOf(le[float32]), rowOf(le[float64]), rowOf(le[int8]), rowOf(le[int16]), rowOf(le[int32]), rowOf(le[int64]),
	rowOf(le[uint8]), rowOf(le[uint16]), rowOf(le[uint32]), rowOf(le[uint64]),
}

var greaterOrEqualRows = &compare{
	rowOf(ge[float32]), rowOf(ge[float64]), rowOf(ge[int8]), rowOf(ge[int16]), rowOf(ge[int32]), rowOf(ge[int64]),
	rowOf(ge[uint8]), rowOf(ge[uint16]), rowOf(ge[uint32]), rowOf(ge[uint64]),
}

func eq[T number](x, y T) bool { return x == y }
func lt[T number](x, y T) bool { return x < y }
func gt[T number](x, y T) bool { return x > y }
func le[T number](x, y T) bool { return x <= y }
func ge[T number](x, y T) bool { return x >= y }

// truthRow makes a row kernel of a function of two truth values, by its table.
func truthRow(f func(x, y bool) bool) row[uint8, uint8] {
	bit := func(x uint8) uint8 {
		if x != 0 {
			return 1
		}
		return 0
	}
	var table [4]uint8
	for i := range table {
		if f(i&2 != 0, i&1 != 0) {
			table[i] = 1
		}
	}
	return func(dst, a, b []uint8) {
		switch {
		case len(b) == 1:
			y := bit(b[0])
			of := [2]uint8{table[y], table[2|y]}
			for i, x := range a {
				dst[i] = of[bit(x)]
			}
		case len(a) == 1:
			x := bit(a[0]) << 1
			of := [2]uint8{table[x], table[x|1]}
			for i, y := range b {
				dst[i] = of[bit(y)]
			}
		default:
			for i, x := range a {
				dst[i] = table[bit(x)<<1|bit(b[i])]
			}
		}
	}
}

// logicDef defines And, Or and Xor.
func logicDef(name, doc string, f func(x, y bool) bool) *Def {
	k := truthRow(f)
	return &Def{
		Name: name, Doc: doc, Since: 1, Versions: []int{1, 7}, Types: "bool",
		In: Exactly(2), Out: Exactly(1),
		Upgrades: []Upgrade{alignedBroadcast},
		Infer:    inferZip(ir.Bool),
		Eval: func(c *Call) ([]*ir.Tensor, error) {
			for i, t := range c.In {
				if t.Elem() != ir.Bool {
					return nil, badType(c, i)
				}
			}
			return one(zip(c, c.In[0], c.In[1], ir.Bool, k))
		},
	}
}

var (
	andDef = logicDef("And", "a ∧ b", func(x, y bool) bool { return x && y })
	orDef  = logicDef("Or", "a ∨ b", func(x, y bool) bool { return x || y })
	xorDef = logicDef("Xor", "a ≠ b", func(x, y bool) bool { return x != y })
)

var notDef = &Def{
	Name: "Not", Doc: "¬a", Since: 1, Versions: []int{1}, Types: "bool",
	In: Exactly(1), Out: Exactly(1), Infer: same,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		if c.In[0].Elem() != ir.Bool {
			return nil, badType(c, 0)
		}
		return one(mapOf(c, c.In[0], ir.Bool, func(x uint8) bool { return x == 0 }))
	},
}
