package op

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

const castTypes = "all but complex64 and complex128"

var castDef = &Def{
	Name: "Cast", Doc: "its input in another element type, attribute to", Since: 1, Versions: []int{1, 6, 9, 13, 19, 21, 23, 24, 25, 28}, Types: castTypes,
	In: Exactly(1), Out: Exactly(1),
	Upgrades: []Upgrade{{6, func(u *Up) error {
		a := u.Node.Attr("to")
		if a == nil || a.Kind != ir.AttrString {
			return nil
		}
		t, ok := oldTypeNames[string(a.S)]
		if !ok {
			return fmt.Errorf("attribute to is %q, which names no element type", a.S)
		}
		u.Node.SetAttr(ir.IntAttr("to", int64(t)))
		return nil
	}}, {24, func(u *Up) error {
		to, err := castTarget(u.Node)
		if err != nil {
			return err
		}
		return saturated(u, to)
	}}},
	Infer: func(c *Call) ([]ir.Type, error) {
		to, err := castTarget(c.Node)
		if err != nil {
			return nil, err
		}
		return castType(c, to), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		to, err := castTarget(c.Node)
		if err != nil {
			return nil, err
		}
		return one(castCall(c, to))
	},
}

// saturated keeps what ONNX's reference and suite did before opset 24 with floats that 4-bit integers cannot hold, and the
// text leaves open: they saturated. Since then the integers' high bits are dropped.
func saturated(u *Up, to ir.DType) error {
	x := u.Node.In(0)
	if to != ir.Int4 && to != ir.Uint4 || x == nil || x.Type.Elem.Bits() < 16 || !x.Type.Elem.IsFloat() {
		return nil
	}
	lo, hi := float32(-8), float32(7)
	if to == ir.Uint4 {
		lo, hi = 0, 15
	}
	least, err := scalarOf(x.Type.Elem, lo)
	if err != nil {
		return err
	}
	greatest, err := scalarOf(x.Type.Elem, hi)
	if err != nil {
		return err
	}
	u.Node.SetIn(0, u.Value("saturated", "Clip", []*ir.Value{x, u.Const("min", least), u.Const("max", greatest)}))
	return nil
}

// oldTypeNames are the values of the attribute to in opset 1: the names in TensorProto.DataType.
var oldTypeNames = map[string]ir.DType{
	"FLOAT": ir.Float32, "UINT8": ir.Uint8, "INT8": ir.Int8, "UINT16": ir.Uint16, "INT16": ir.Int16, "INT32": ir.Int32,
	"INT64": ir.Int64, "STRING": ir.String, "BOOL": ir.Bool, "FLOAT16": ir.Float16, "DOUBLE": ir.Float64,
	"UINT32": ir.Uint32, "UINT64": ir.Uint64, "COMPLEX64": ir.Complex64, "COMPLEX128": ir.Complex128,
}

func castTarget(n *ir.Node) (ir.DType, error) {
	to, err := elemAttr(n, "to", ir.Undefined)
	if err == nil && to == ir.Undefined {
		err = fmt.Errorf("attribute to is absent or 0, which is no element type")
	}
	return to, err
}

// elemAttr returns the element type that an attribute names by number, def where it is absent or says so.
func elemAttr(n *ir.Node, name string, def ir.DType) (ir.DType, error) {
	v := n.Int(name, int64(def))
	if v != int64(def) && (v < 0 || v > math.MaxUint8 || !ir.DType(v).Valid()) {
		return 0, fmt.Errorf("attribute %s is %d, which is no element type", name, v)
	}
	return ir.DType(v), nil
}

func castType(c *Call, to ir.DType) []ir.Type {
	t := c.Type(0).Clone()
	if d, ok := c.Dims(0); ok && to.IsInt() && to.Bits() >= 32 {
		c.SetDims(0, d)
	}
	t.Elem = to
	return []ir.Type{t}
}

func castCall(c *Call, to ir.DType) (*ir.Tensor, error) {
	how, err := castModeOf(c.Node)
	if err != nil {
		return nil, err
	}
	return castTo(c, c.In[0], to, how)
}

var castLikeDef = &Def{
	Name: "CastLike", Doc: "its first input in the second's element type", Since: 15, Versions: []int{15, 19, 21, 23, 24, 25}, Types: castTypes,
	In: Exactly(2), Out: Exactly(1),
	Upgrades: []Upgrade{{24, func(u *Up) error {
		if like := u.Node.In(1); like != nil {
			return saturated(u, like.Type.Elem)
		}
		return nil
	}}},
	Infer: func(c *Call) ([]ir.Type, error) { return castType(c, c.Type(1).Elem), nil },
	Eval:  func(c *Call) ([]*ir.Tensor, error) { return one(castCall(c, c.In[1].Elem())) },
}

var bitCastDef = &Def{
	Name: "BitCast", Doc: "the same bits read as another element type of the same width", Since: 26, Versions: []int{26}, Types: "all but string",
	In: Exactly(1), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		to, err := castTarget(c.Node)
		if err != nil {
			return nil, err
		}
		t := c.Type(0).Clone()
		if t.Elem != ir.Undefined {
			if err := sameWidth(t.Elem, to); err != nil {
				return nil, err
			}
		}
		t.Elem = to
		return []ir.Type{t}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		to, err := castTarget(c.Node)
		if err != nil {
			return nil, err
		}
		x := c.In[0]
		if err := sameWidth(x.Elem(), to); err != nil {
			return nil, err
		}
		return one(ir.TensorOf(to, x.Shape(), x.Bytes()))
	},
}

func sameWidth(from, to ir.DType) error {
	if from.Bits() != to.Bits() || to.Bits() == 0 {
		return fmt.Errorf("%v of %d bits cannot be read as %v of %d bits", from, from.Bits(), to, to.Bits())
	}
	return nil
}

// castMode holds the attributes saturate and round_mode.
type castMode struct {
	saturate bool
	round    numfmt.RoundMode
}

func castModeOf(n *ir.Node) (castMode, error) {
	m := castMode{saturate: n.Int("saturate", 1) != 0}
	switch mode := n.Str("round_mode", "up"); mode {
	case "up":
		m.round = numfmt.RoundUp
	case "down":
		m.round = numfmt.RoundDown
	case "nearest":
		m.round = numfmt.RoundNearest
	default:
		return m, fmt.Errorf("attribute round_mode is %q, wants up, down or nearest", mode)
	}
	return m, nil
}

// castBlock is the number of elements that are converted at a time; a multiple of the elements in a byte.
const castBlock = 256

// block is elements between two types: in the widest type of their kind, the one that is not nil.
type block struct {
	f []float64
	i []int64
	u []uint64

	floats   [castBlock]float64
	ints     [castBlock]int64
	unsigned [castBlock]uint64
}

// castTo converts a tensor. A float becomes an integer by truncation, modulo the integer's range; NaN becomes 0. An
// integer out of another's range loses its high bits. Rounding to floats is to nearest, ties to even.
func castTo(c *Call, x *ir.Tensor, to ir.DType, how castMode) (*ir.Tensor, error) {
	if x.Elem() == to {
		return x, nil
	}
	switch ir.String {
	case to:
		return castToString(c, x)
	case x.Elem():
		return castFromString(c, x, to, how)
	}
	read, write := reader(x), (func(b *block, lo, n int))(nil)
	if read == nil {
		return nil, fmt.Errorf("cast from %v to %v: %w", x.Elem(), to, ErrUnsupported)
	}
	out, err := c.Like(x, to)
	if err != nil {
		return nil, err
	}
	if write = writer(out, how); write == nil {
		return nil, fmt.Errorf("cast from %v to %v: %w", x.Elem(), to, ErrUnsupported)
	}
	switch from := x.Elem(); {
	case isHalf(from) && to == ir.Float32:
		widenTo(out, x)
		return out, nil
	case from == ir.Float32 && isHalf(to):
		narrowTo(out, x)
		return out, nil
	}
	par.For(x.Len(), 64*castBlock, func(lo, hi int) {
		var b block
		for ; lo < hi; lo += castBlock {
			n := min(castBlock, hi-lo)
			read(&b, lo, n)
			write(&b, lo, n)
		}
	})
	return out, nil
}

// reader returns a function that reads n elements from lo on into a block; nil if the type cannot be read.
func reader(t *ir.Tensor) func(b *block, lo, n int) {
	switch t.Elem() {
	case ir.Float32:
		return readFloats(ir.Data[float32](t))
	case ir.Float64:
		return readFloats(ir.Data[float64](t))
	case ir.Float16:
		return readHalf(ir.Data[uint16](t), kernel.FromF16)
	case ir.BFloat16:
		return readHalf(ir.Data[uint16](t), kernel.FromBF16)
	case ir.Int8:
		return readInts(ir.Data[int8](t))
	case ir.Int16:
		return readInts(ir.Data[int16](t))
	case ir.Int32:
		return readInts(ir.Data[int32](t))
	case ir.Int64:
		return readInts(ir.Data[int64](t))
	case ir.Uint8:
		return readUnsigned(ir.Data[uint8](t))
	case ir.Uint16:
		return readUnsigned(ir.Data[uint16](t))
	case ir.Uint32:
		return readUnsigned(ir.Data[uint32](t))
	case ir.Uint64:
		return readUnsigned(ir.Data[uint64](t))
	case ir.Bool:
		v := ir.Data[uint8](t)
		return func(b *block, lo, n int) {
			b.f, b.i, b.u = nil, nil, b.unsigned[:n]
			for i := range b.u {
				b.u[i] = uint64(min(v[lo+i], 1))
			}
		}
	}
	return smallReader(t)
}

func readFloats[T float](v []T) func(b *block, lo, n int) {
	return func(b *block, lo, n int) {
		b.f, b.i, b.u = b.floats[:n], nil, nil
		for i, x := range v[lo : lo+n] {
			b.f[i] = float64(x)
		}
	}
}

func readHalf(v []uint16, decode func(dst []float32, x []uint16)) func(b *block, lo, n int) {
	return func(b *block, lo, n int) {
		var wide [castBlock]float32
		decode(wide[:n], v[lo:lo+n])
		b.f, b.i, b.u = b.floats[:n], nil, nil
		for i, x := range wide[:n] {
			b.f[i] = float64(x)
		}
	}
}

func readInts[T int8 | int16 | int32 | int64](v []T) func(b *block, lo, n int) {
	return func(b *block, lo, n int) {
		b.f, b.i, b.u = nil, b.ints[:n], nil
		for i, x := range v[lo : lo+n] {
			b.i[i] = int64(x)
		}
	}
}

func readUnsigned[T uint8 | uint16 | uint32 | uint64](v []T) func(b *block, lo, n int) {
	return func(b *block, lo, n int) {
		b.f, b.i, b.u = nil, nil, b.unsigned[:n]
		for i, x := range v[lo : lo+n] {
			b.u[i] = uint64(x)
		}
	}
}

// writer returns a function that writes a block of n elements from lo on; nil if the type cannot be written.
func writer(t *ir.Tensor, how castMode) func(b *block, lo, n int) {
	switch t.Elem() {
	case ir.Float32:
		v := ir.Data[float32](t)
		return func(b *block, lo, n int) { putFloats(v[lo:lo+n], b) }
	case ir.Float64:
		v := ir.Data[float64](t)
		return func(b *block, lo, n int) { putFloats(v[lo:lo+n], b) }
	case ir.Float16:
		return writeHalf(ir.Data[uint16](t), kernel.ToF16)
	case ir.BFloat16:
		return writeHalf(ir.Data[uint16](t), kernel.ToBF16)
	case ir.Int8:
		return writeInts(ir.Data[int8](t))
	case ir.Int16:
		return writeInts(ir.Data[int16](t))
	case ir.Int32:
		return writeInts(ir.Data[int32](t))
	case ir.Int64:
		return writeInts(ir.Data[int64](t))
	case ir.Uint8:
		return writeInts(ir.Data[uint8](t))
	case ir.Uint16:
		return writeInts(ir.Data[uint16](t))
	case ir.Uint32:
		return writeInts(ir.Data[uint32](t))
	case ir.Uint64:
		return writeInts(ir.Data[uint64](t))
	case ir.Bool:
		v := ir.Data[bool](t)
		return func(b *block, lo, n int) {
			for i := range n {
				v[lo+i] = b.f != nil && b.f[i] != 0 || b.i != nil && b.i[i] != 0 || b.u != nil && b.u[i] != 0
			}
		}
	}
	return smallWriter(t, how)
}

// putFloats converts a block to floats.
func putFloats[T float](dst []T, b *block) {
	switch {
	case b.f != nil:
		for i, x := range b.f {
			dst[i] = T(x)
		}
	case b.i != nil:
		for i, x := range b.i {
			dst[i] = T(x)
		}
	default:
		for i, x := range b.u {
			dst[i] = T(x)
		}
	}
}

// putInts converts a block to integers.
func putInts[T integer](dst []T, b *block) {
	switch {
	case b.f != nil:
		for i, x := range b.f {
			if x > -1<<62 && x < 1<<62 {
				dst[i] = T(int64(x))
			} else {
				dst[i] = T(truncate(x))
			}
		}
	case b.i != nil:
		for i, x := range b.i {
			dst[i] = T(x)
		}
	default:
		for i, x := range b.u {
			dst[i] = T(x)
		}
	}
}

func writeInts[T integer](v []T) func(b *block, lo, n int) {
	return func(b *block, lo, n int) { putInts(v[lo:lo+n], b) }
}

// writeHalf rounds to a format of fewer digits than float32, by way of float32 rounded to odd, so that the second rounding
// does not undo what the first one saw.
func writeHalf(v []uint16, encode func(dst []uint16, x []float32)) func(b *block, lo, n int) {
	return func(b *block, lo, n int) {
		var wide [castBlock]float32
		for i := range n {
			wide[i] = b.odd(i)
		}
		encode(v[lo:lo+n], wide[:n])
	}
}

// truncate rounds towards zero; NaN gives 0, what int64 cannot hold its nearest value or, up to 2⁶⁴, the same bits.
func truncate(x float64) int64 {
	switch {
	case x != x:
		return 0
	case x >= 1<<64:
		return math.MaxInt64
	case x >= 1<<63:
		return int64(uint64(x))
	case x < -1<<63:
		return math.MinInt64
	}
	return int64(x)
}

// odd returns element i as float32, rounded to odd: an inexact value is cut and its last bit set.
func (b *block) odd(i int) float32 {
	switch {
	case b.f != nil:
		return oddFloat32(b.f[i])
	case b.i != nil:
		if v := b.i[i]; v < 0 {
			return -oddFloat32(oddFloat64(-uint64(v)))
		}
		return oddFloat32(oddFloat64(uint64(b.i[i])))
	}
	return oddFloat32(oddFloat64(b.u[i]))
}

func oddFloat32(x float64) float32 {
	f := float32(x)
	if float64(f) == x || x != x {
		return f
	}
	u := math.Float32bits(f)
	if math.Abs(float64(f)) > math.Abs(x) {
		u--
	}
	return math.Float32frombits(u | 1)
}

func oddFloat64(v uint64) float64 {
	if lost := bits.Len64(v) - 53; lost > 0 && bits.TrailingZeros64(v) < lost {
		v = (v>>lost | 1) << lost
	}
	return float64(v)
}
