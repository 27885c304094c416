package frontend

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
)

// convertible reports whether samples of one element type can be fed to an input of another: integers to integers, floats to
// floats of at least 32 bits. An input of unknown type takes anything.
func convertible(from, to ir.DType) bool {
	switch {
	case from == to || to == ir.Undefined:
		return true
	case from.IsInt():
		return to.IsInt() && to.Bits() >= 8
	case from == ir.Float64:
		return to == ir.Float32
	case from == ir.Float32 || from == ir.Float16 || from == ir.BFloat16:
		return to == ir.Float32 || to == ir.Float64
	}
	return false
}

// convert changes the element type. Integers that do not fit are an error.
func convert(t *ir.Tensor, to ir.DType) (*ir.Tensor, error) {
	from := t.Elem()
	if from == to || to == ir.Undefined {
		return t, nil
	}
	if !convertible(from, to) {
		return nil, fmt.Errorf("want %v, found %v", to, from)
	}
	out := ir.NewTensor(to, t.Shape()...)
	b := out.Bytes()
	if to.IsFloat() {
		v, ok := t.Float32s()
		if !ok {
			return nil, fmt.Errorf("want %v, found %v", to, from)
		}
		for i, x := range v {
			if to == ir.Float32 {
				binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(x))
			} else {
				binary.LittleEndian.PutUint64(b[8*i:], math.Float64bits(float64(x)))
			}
		}
		return out, nil
	}
	v, ok := t.Int64s()
	if !ok {
		return nil, fmt.Errorf("want %v, found %v", to, from)
	}
	bits := to.Bits()
	lo, hi := int64(0), int64(math.MaxInt64)
	if to.IsSigned() {
		lo, hi = math.MinInt64>>(64-bits), math.MaxInt64>>(64-bits)
	} else if bits < 64 {
		hi = 1<<bits - 1
	}
	for i, x := range v {
		if x < lo || x > hi {
			return nil, fmt.Errorf("element %d is %d, which is no %v", i, x, to)
		}
		switch bits {
		case 8:
			b[i] = byte(x)
		case 16:
			binary.LittleEndian.PutUint16(b[2*i:], uint16(x))
		case 32:
			binary.LittleEndian.PutUint32(b[4*i:], uint32(x))
		case 64:
			binary.LittleEndian.PutUint64(b[8*i:], uint64(x))
		}
	}
	return out, nil
}
