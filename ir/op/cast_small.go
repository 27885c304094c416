package op

import (
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
)

// packed views a tensor of elements of up to eight bits, stored one after the other from the low bits of the first byte.
type packed struct {
	data  []byte
	width int
}

func (p packed) get(i int) uint32 {
	at := i * p.width
	w := uint32(p.data[at/8])
	if at%8+p.width > 8 {
		w |= uint32(p.data[at/8+1]) << 8
	}
	return w >> (at % 8) & (1<<p.width - 1)
}

// set stores a code over zero bits.
func (p packed) set(i int, code uint32) {
	at := i * p.width
	w := (code & (1<<p.width - 1)) << (at % 8)
	p.data[at/8] |= byte(w)
	if at%8+p.width > 8 {
		p.data[at/8+1] |= byte(w >> 8)
	}
}

// clear zeroes n elements from lo on, which start at a byte's first bit.
func (p packed) clear(lo, n int) { clear(p.data[lo*p.width/8 : ((lo+n)*p.width+7)/8]) }

// smallFloat returns the number format of the float types of up to eight bits.
func smallFloat(t ir.DType) (numfmt.Format, bool) {
	switch t {
	case ir.Float6E2M3:
		f, err := numfmt.Lookup("e2m3")
		return f, err == nil
	case ir.Float6E3M2:
		f, err := numfmt.Lookup("e3m2")
		return f, err == nil
	}
	if !t.IsFloat() || t.Bits() > 8 {
		return numfmt.Format{}, false
	}
	return numfmt.Elem(t).Format()
}

// smallReader reads integers and floats of less than 16 bits that have no Go type.
func smallReader(t *ir.Tensor) func(b *block, lo, n int) {
	p := packed{t.Bytes(), t.Elem().Bits()}
	if t.Elem().IsInt() {
		sign := t.Elem().IsSigned()
		return func(b *block, lo, n int) {
			b.f, b.i, b.u = nil, b.ints[:n], nil
			for i := range b.i {
				v := int64(p.get(lo + i))
				if sign {
					v = v << (64 - p.width) >> (64 - p.width)
				}
				b.i[i] = v
			}
		}
	}
	f, ok := smallFloat(t.Elem())
	if !ok {
		return nil
	}
	values := make([]float64, f.Codes())
	for code := range values {
		values[code] = float64(f.Decode(uint32(code)))
	}
	return func(b *block, lo, n int) {
		b.f, b.i, b.u = b.floats[:n], nil, nil
		for i := range b.f {
			b.f[i] = values[p.get(lo+i)]
		}
	}
}

// smallWriter writes integers and floats of less than 16 bits that have no Go type.
func smallWriter(t *ir.Tensor, how castMode) func(b *block, lo, n int) {
	p := packed{t.Bytes(), t.Elem().Bits()}
	if t.Elem().IsInt() {
		return func(b *block, lo, n int) {
			var v [castBlock]int64
			putInts(v[:n], b)
			p.clear(lo, n)
			for i, x := range v[:n] {
				p.set(lo+i, uint32(x))
			}
		}
	}
	f, ok := smallFloat(t.Elem())
	if !ok {
		return nil
	}
	encode := func(code []uint32, x []float32) { f.EncodeAll(code, x, how.saturate) }
	switch t.Elem() {
	case ir.Float8E8M0:
		encode = func(code []uint32, x []float32) {
			for i, x := range x {
				code[i] = encodeE8M0(x, how)
			}
		}
	case ir.Float4E2M1:
		encode = func(code []uint32, x []float32) {
			f.EncodeAll(code, x, true)
			for i, x := range x {
				if x != x {
					code[i] = 8 // the type has no NaN; ONNX's suite (test_cast_FLOAT16_to_FLOAT4E2M1) wants -0
				}
			}
		}
	}
	return func(b *block, lo, n int) {
		var x [castBlock]float32
		var code [castBlock]uint32
		for i := range n {
			x[i] = b.odd(i)
		}
		encode(code[:n], x[:n])
		p.clear(lo, n)
		for i, c := range code[:n] {
			p.set(lo+i, c)
		}
	}
}

// encodeE8M0 is the cast to float8e8m0 of opset 24, which leaves negative values open: they count by magnitude. Without
// saturate everything outside [2⁻¹²⁷, 2¹²⁷] is NaN.
func encodeE8M0(x float32, how castMode) uint32 {
	const least, nan, greatest = 0x1p-127, 255, 254
	a := float32(math.Abs(float64(x)))
	code := uint32(numfmt.EncodeE8M0(a, how.round))
	switch {
	case x != x:
		return nan
	case how.saturate:
		return min(code, greatest)
	case a < least || math.IsInf(float64(a), 0):
		return nan
	case code == greatest && numfmt.EncodeE8M0(a/2, how.round) == greatest: // rounded up beyond the last power
		return nan
	}
	return code
}
