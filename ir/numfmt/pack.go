package numfmt

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// PackedLen is the number of bytes that n elements of the type take as ONNX stores them.
func PackedLen(e Elem, n int) int { return (n*e.Bits() + 7) / 8 }

// Pack stores codes as ONNX stores the element type: 2-bit codes four to a byte and 4-bit codes two, the first in the
// low bits, the last byte filled up with zeros; 8, 16 and 32 bits little-endian. Codes are taken modulo the type's bits.
func Pack(e Elem, codes []uint32) ([]byte, error) {
	bits := e.Bits()
	if bits == 0 {
		return nil, fmt.Errorf("cannot pack codes of element type %s", e)
	}
	out := make([]byte, PackedLen(e, len(codes)))
	pack(out, e, codes)
	return out, nil
}

// pack is Pack into bytes that are 0.
func pack(out []byte, e Elem, codes []uint32) {
	switch bits := e.Bits(); bits {
	case 32:
		for i, c := range codes {
			binary.LittleEndian.PutUint32(out[4*i:], c)
		}
	case 16:
		for i, c := range codes {
			binary.LittleEndian.PutUint16(out[2*i:], uint16(c))
		}
	case 8:
		out = out[:len(codes)]
		for i, c := range codes {
			out[i] = byte(c)
		}
	default:
		per, mask := 8/bits, uint32(1)<<bits-1
		for i, c := range codes {
			out[i/per] |= byte(c&mask) << (i % per * bits)
		}
	}
}

// Unpack reads n codes of the element type; codes are the type's bits, not sign-extended.
func Unpack(e Elem, data []byte, n int) ([]uint32, error) {
	bits := e.Bits()
	if bits == 0 {
		return nil, fmt.Errorf("cannot unpack element type %s", e)
	}
	if n < 0 || len(data) != PackedLen(e, n) {
		return nil, fmt.Errorf("%d bytes for %d elements of %s, want %d", len(data), n, e, PackedLen(e, n))
	}
	out := make([]uint32, n)
	switch bits {
	case 32:
		for i := range out {
			out[i] = binary.LittleEndian.Uint32(data[4*i:])
		}
	case 16:
		for i := range out {
			out[i] = uint32(binary.LittleEndian.Uint16(data[2*i:]))
		}
	case 8:
		for i := range out {
			out[i] = uint32(data[i])
		}
	default:
		per, mask := 8/bits, uint32(1)<<bits-1
		for i := range out {
			out[i] = uint32(data[i/per]) >> (i % per * bits) & mask
		}
	}
	return out, nil
}

// Codes are packed codes of an ONNX element type.
type Codes struct {
	Elem Elem
	Len  int
	Data []byte
}

// StoreElem is the element type that Encode packs a scheme's codes into: the format's ONNX type where it has one, with
// integers of other widths in the next larger type; else (3-bit and 6-bit floats, codebooks, parity formats) the unsigned
// integer that holds the bare code. It is ElemNone for codes of more than 16 bits and for no scheme.
func (s Scheme) StoreElem() Elem {
	switch {
	case s.IsNone():
		return ElemNone
	case s.Format.Elem != ElemNone:
		return s.Format.Elem
	case s.Format.Bits <= 4:
		return ElemUint4
	case s.Format.Bits <= 8:
		return ElemUint8
	case s.Format.Bits <= 16:
		return ElemUint16
	}
	return ElemNone
}

// Encode quantizes x to packed codes of StoreElem. Decoding them with the same parameters gives what Apply gives; only
// e1m2, which ONNX holds as integers of half the step, loses -0. Parameters with NaN scales are refused.
func (s Scheme) Encode(x []float32, l Layout, p Params) (Codes, error) {
	return s.encode(x, l, p, true)
}

// codesAtOnce is the number of values that Encode, on each core, and Decode have in work.
const codesAtOnce = 1 << 16

func (s Scheme) encode(x []float32, l Layout, p Params, saturate bool) (Codes, error) {
	if s.StoreElem() == ElemNone {
		return Codes{}, fmt.Errorf("scheme %s: codes of %d bits cannot be stored", s, s.Format.Bits)
	}
	if err := s.checkStore(l, p, len(x)); err != nil {
		return Codes{}, err
	}
	out := Codes{Elem: s.StoreElem(), Len: len(x), Data: make([]byte, PackedLen(s.StoreElem(), len(x)))}
	parts := slices.Collect(l.Parts(p, codesAtOnce))
	par.For(len(parts), 1, func(from, to int) {
		for _, part := range parts[from:to] {
			r := rooms.Get().(*room)
			pack(out.Data[PackedLen(out.Elem, part.From):], out.Elem, s.codes(r, x[part.From:part.To], part.Layout, part.Params, saturate))
			if cap(r.codes) <= 4*codesAtOnce {
				rooms.Put(r)
			}
		}
	})
	return out, nil
}

// room is where a part's codes are made.
type room struct {
	level []float32
	codes []uint32
}

var rooms = sync.Pool{New: func() any { return new(room) }}

// codes quantizes x to codes, one a word, in the given room.
func (s Scheme) codes(r *room, x []float32, l Layout, p Params, saturate bool) []uint32 {
	r.level, r.codes = slices.Grow(r.level[:0], len(x)), slices.Grow(r.codes[:0], len(x))
	level, codes := r.level[:len(x)], r.codes[:len(x)]
	s.levels(level, x, l, p)
	v := level // before rounding, where that makes a difference
	if !saturate {
		v = make([]float32, len(x))
		each(l, p.Scale, func(from, to int, scale []float32) { s.divide(v[from:to], x[from:to], scale) })
	}
	zero := p.Zero
	if zero == nil {
		zero = make([]float32, l.Groups())
	}
	over := s.Format.overflow()
	f := &s.Format
	if (f.Kind == Int || f.Kind == Ternary) && !f.isCarried() {
		each(l, zero, func(from, to int, zero []float32) {
			level, codes := level[from:to], codes[from:to]
			if len(zero) == 1 {
				for i, v := range level {
					codes[i] = uint32(int32(v + zero[0]))
				}
				return
			}
			for i, z := range zero {
				codes[i] = uint32(int32(level[i] + z))
			}
		})
		return codes
	}
	each(l, zero, func(from, to int, zero []float32) {
		for i := from; i < to; i++ {
			z := zero[(i-from)%len(zero)]
			switch {
			case f.isCarried():
				codes[i] = uint32(int32(level[i] * 2))
			case f.Kind == Book:
				codes[i] = f.Book.variant(z).code(level[i])
			default:
				codes[i] = f.bits(v[i], level[i], nil, saturate, over)
			}
		}
	})
	return codes
}

// checkStore tells whether parameters can code or decode n values of the layout.
func (s Scheme) checkStore(l Layout, p Params, n int) error {
	if err := l.check(n); err != nil {
		return fmt.Errorf("scheme %s: %w", s, err)
	}
	if err := p.check(s, l.Groups()); err != nil {
		return fmt.Errorf("shape %v: %w", l.Shape, err)
	}
	for g, v := range p.Scale {
		if v != v {
			return fmt.Errorf("scheme %s: group %d: scale is NaN, its values cannot be stored", s, g)
		}
	}
	return nil
}

// Decode dequantizes codes that Encode made: dst[i] = (code - zero)·scale.
func (s Scheme) Decode(dst []float32, c Codes, l Layout, p Params) error {
	if c.Elem != s.StoreElem() {
		return fmt.Errorf("scheme %s: codes are %s, want %s", s, c.Elem, s.StoreElem())
	}
	if c.Len != len(dst) {
		return fmt.Errorf("scheme %s: got room for %d values, want %d", s, len(dst), c.Len)
	}
	if err := s.checkStore(l, p, len(dst)); err != nil {
		return err
	}
	if len(c.Data) != PackedLen(c.Elem, c.Len) {
		return fmt.Errorf("scheme %s: %d bytes for %d elements of %s, want %d", s, len(c.Data), c.Len, c.Elem, PackedLen(c.Elem, c.Len))
	}
	for part := range l.Parts(p, codesAtOnce) {
		bits := c.Elem.Bits()
		data := c.Data[part.From*bits/8 : (part.To*bits+7)/8]
		if err := s.decode(dst[part.From:part.To], c.Elem, data, part.Layout, part.Params); err != nil {
			return fmt.Errorf("scheme %s: %w", s, err)
		}
	}
	return nil
}

// decode is Decode of a part.
func (s Scheme) decode(dst []float32, e Elem, data []byte, l Layout, p Params) error {
	f := s.Format
	value := func(code uint32) float32 {
		switch {
		case f.Kind == Int || f.Kind == Ternary:
			return signExtend(e, code)
		case f.isCarried():
			return signExtend(e, code) / 2
		}
		return f.Decode(code)
	}
	var codes []uint32
	if bits := e.Bits(); bits <= 8 && f.Kind != Book {
		lookUp(dst, data, bits, value)
	} else {
		var err error
		if codes, err = Unpack(e, data, len(dst)); err != nil {
			return err
		}
		for i, code := range codes {
			dst[i] = value(code)
		}
	}
	if p.Zero != nil {
		each(l, p.Zero, func(from, to int, zero []float32) {
			for i := from; i < to; i++ {
				switch z := zero[(i-from)%len(zero)]; {
				case f.Kind == Int:
					dst[i] -= z
				case f.Kind == Book && int(codes[i]) == f.Book.SpecialCode:
					dst[i] = z
				}
			}
		})
	}
	if s.Scaled() {
		each(l, p.Scale, func(from, to int, scale []float32) { s.multiply(dst[from:to], scale) })
	}
	return nil
}

// lookUp reads packed codes of at most 8 bits by a table of the values that are in a byte.
func lookUp(dst []float32, data []byte, bits int, value func(uint32) float32) {
	per := 8 / bits
	table := make([]float32, 256*per)
	for i := range table {
		table[i] = value(uint32(i/per) >> (i % per * bits) & (1<<bits - 1))
	}
	par.For(len(data), grain, func(lo, hi int) {
		if per == 2 && hi*per <= len(dst) {
			out := dst[2*lo : 2*hi]
			for i, b := range data[lo:hi] {
				pair := table[2*int(b):][:2]
				out[2*i], out[2*i+1] = pair[0], pair[1]
			}
			return
		}
		for i := lo; i < hi; i++ {
			copy(dst[i*per:min((i+1)*per, len(dst))], table[int(data[i])*per:])
		}
	})
}

// signExtend reads an integer code of the element type.
func signExtend(e Elem, code uint32) float32 {
	switch e {
	case ElemInt2, ElemInt4, ElemInt8, ElemInt16, ElemInt32:
		shift := 32 - e.Bits()
		return float32(int32(code<<shift) >> shift)
	}
	return float32(code)
}

// Widen stores integer codes in a wider integer type that holds their range, as for a file whose opset lacks the small
// type: INT2 to INT4 or INT8, UINT4 to UINT8 and so on.
func (c Codes) Widen(to Elem) (Codes, error) {
	from, ok := c.Elem.Format()
	into, ok2 := to.Format()
	if !ok || !ok2 || from.Kind != Int || into.Kind != Int || into.Bits < from.Bits || from.Signed != into.Signed && (from.Signed || into.Bits == from.Bits) {
		return Codes{}, fmt.Errorf("codes of %s cannot be widened to %s", c.Elem, to)
	}
	codes, err := Unpack(c.Elem, c.Data, c.Len)
	if err != nil {
		return Codes{}, err
	}
	for i, v := range codes {
		codes[i] = uint32(int32(signExtend(c.Elem, v)))
	}
	data, err := Pack(to, codes)
	return Codes{Elem: to, Len: c.Len, Data: data}, err
}

// linear is the scheme of Quantize/DequantizeLinear for an element type: all of its range, a zero point for integers.
func linear(e Elem) (Scheme, error) {
	f, ok := e.Format()
	if !ok || f.Kind != Int && f.Kind != Float {
		return Scheme{}, fmt.Errorf("no linear quantization to element type %s", e)
	}
	return Scheme{Format: f, Range: Full, Scale: ScaleFP32, Affine: f.Kind == Int}, nil
}

// QuantizeLinear is the ONNX operator on float32 data and scales: codes of the element type, packed, in its full range,
// with p.Zero as zero point (nil: 0). saturate is the attribute of that name and concerns 8-bit floats only.
func QuantizeLinear(x []float32, l Layout, p Params, e Elem, saturate bool) (Codes, error) {
	s, err := linear(e)
	if err != nil {
		return Codes{}, err
	}
	for g, z := range p.Zero {
		if s.Format.Kind == Float && z != 0 {
			return Codes{}, fmt.Errorf("element type %s: group %d: zero point %v, want 0: floats have none", e, g, z)
		}
	}
	return s.encode(x, l, Params{Scale: p.Scale, Zero: p.Zero}, saturate || s.Format.Kind == Int)
}

// DequantizeLinear is the ONNX operator with float32 scales: (code - zero)·scale, with p.Zero as zero point (nil: 0). It
// also reads INT32, whose difference from the zero point is exact in int64.
func DequantizeLinear(dst []float32, c Codes, l Layout, p Params) error {
	if c.Elem != ElemInt32 {
		s, err := linear(c.Elem)
		if err != nil {
			return err
		}
		return s.Decode(dst, c, l, Params{Scale: p.Scale, Zero: p.Zero})
	}
	if err := l.check(len(dst), c.Len, len(c.Data)/4); err != nil {
		return fmt.Errorf("dequantize INT32: %w", err)
	}
	if n := l.Groups(); len(p.Scale) != n || p.Zero != nil && len(p.Zero) != n {
		return fmt.Errorf("dequantize INT32: got %d scales and %d zero points, want %d", len(p.Scale), len(p.Zero), n)
	}
	for r := range l.Runs() {
		for i := range r.Len {
			g := r.Group + i*r.Step
			v := int64(int32(binary.LittleEndian.Uint32(c.Data[4*(r.Off+i):])))
			if p.Zero != nil {
				v -= int64(p.Zero[g])
			}
			dst[r.Off+i] = float32(v) * p.Scale[g]
		}
	}
	return nil
}
