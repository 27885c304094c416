package op

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/qsimc/qsimc/ir"
)

// castToString writes numbers as the shortest decimal that reads back as the same float32 (float64 for double), without
// exponent from 1e-4 up to 1e16 and with ".0" where it would look like an integer; NaN, INF and -INF for the special
// values, 1 and 0 for bool. It is what ONNX's suite and text together ask for.
func castToString(c *Call, x *ir.Tensor) (*ir.Tensor, error) {
	read := reader(x)
	if read == nil {
		return nil, fmt.Errorf("cast from %v to string: %w", x.Elem(), ErrUnsupported)
	}
	out, err := c.Like(x, ir.String)
	if err != nil {
		return nil, err
	}
	size := 32
	if x.Elem() == ir.Float64 {
		size = 64
	}
	dst := out.Strings()
	var b block
	for lo := 0; lo < x.Len(); lo += castBlock {
		n := min(castBlock, x.Len()-lo)
		read(&b, lo, n)
		for i := range n {
			switch {
			case b.f != nil:
				dst[lo+i] = []byte(floatText(b.f[i], size))
			case b.i != nil:
				dst[lo+i] = strconv.AppendInt(nil, b.i[i], 10)
			default:
				dst[lo+i] = strconv.AppendUint(nil, b.u[i], 10)
			}
		}
	}
	return out, nil
}

func floatText(x float64, size int) string {
	switch a := math.Abs(x); {
	case x != x:
		return "NaN"
	case math.IsInf(x, 1):
		return "INF"
	case math.IsInf(x, -1):
		return "-INF"
	case a != 0 && (a < 1e-4 || a >= 1e16):
		return strconv.FormatFloat(x, 'e', -1, size)
	}
	s := strconv.FormatFloat(x, 'f', -1, size)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// castFromString reads decimal numbers, INF and NaN in any case; a fraction becomes an integer by truncation.
func castFromString(c *Call, x *ir.Tensor, to ir.DType, how castMode) (*ir.Tensor, error) {
	out, err := c.Like(x, to)
	if err != nil {
		return nil, err
	}
	write := writer(out, how)
	if write == nil {
		return nil, fmt.Errorf("cast from string to %v: %w", to, ErrUnsupported)
	}
	src := x.Strings()
	var b block
	for lo := 0; lo < len(src); lo += castBlock {
		n := min(castBlock, len(src)-lo)
		b.f, b.i, b.u = nil, nil, nil
		switch {
		case to.IsUnsigned():
			b.u = b.unsigned[:n]
		case to.IsInt():
			b.i = b.ints[:n]
		default:
			b.f = b.floats[:n]
		}
		for i, s := range src[lo : lo+n] {
			if err := b.parse(i, strings.TrimSpace(string(s)), to); err != nil {
				return nil, fmt.Errorf("element %d: %w", lo+i, err)
			}
		}
		write(&b, lo, n)
	}
	return out, nil
}

// parse sets element i to the number that s says.
func (b *block) parse(i int, s string, to ir.DType) error {
	if b.i != nil {
		if v, err := strconv.ParseInt(s, 10, 64); err == nil {
			b.i[i] = v
			return nil
		}
	}
	if b.u != nil {
		if v, err := strconv.ParseUint(s, 10, 64); err == nil {
			b.u[i] = v
			return nil
		}
	}
	size := 64
	if to == ir.Float32 {
		size = 32 // rounded once
	}
	v, err := strconv.ParseFloat(s, size)
	if err != nil && !math.IsInf(v, 0) { // beyond the range is infinity
		return fmt.Errorf("cast to %v: %q is no number", to, s)
	}
	switch {
	case b.i != nil:
		b.i[i] = truncate(v)
	case b.u != nil:
		b.u[i] = uint64(truncate(v))
	default:
		b.f[i] = v
	}
	return nil
}
