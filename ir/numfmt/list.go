package numfmt

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Entry is one format of a listing.
type Entry struct {
	Name         string
	Bits         int
	BitsPerValue float64 // a preset's block scale counted
	Grid         string
	Max          float32 // in units of the step
	MinSubnormal float32 // the smallest positive value, in units of the step
	Carrier      string  // the ONNX element type, "-" for none
	Opset        int     // the first opset that has it in Quantize/DequantizeLinear at the format's granularity, 0 for none
	Note         string
}

// List describes every format of the table, in its order.
func List() []Entry {
	var out []Entry
	for _, f := range table {
		e := Entry{Name: f.Name, Bits: f.Bits, BitsPerValue: float64(f.Bits), Grid: f.Grid(), Max: f.Max(),
			MinSubnormal: f.MinSubnormal(), Carrier: f.Elem.String(), Opset: f.Opset, Note: f.Note}
		if s, err := ParseScheme(f.Name, Weight); err == nil {
			e.BitsPerValue = s.NominalBits()
			if c, err := s.Carriers(); err == nil {
				for _, c := range c {
					if c.Elem == f.Elem {
						e.Opset = c.Opset
					}
				}
			}
		}
		out = append(out, e)
	}
	return out
}

// Grid describes the format's values in units of the step: all of them for formats of at most 4 bits, else the range and
// how dense it is.
func (f Format) Grid() string {
	switch {
	case f.Kind == None:
		return ""
	case f.Kind == Int && f.Signed:
		return fmt.Sprintf("-%v..%v", f.Max(), f.Max())
	case f.Kind == Int:
		return fmt.Sprintf("0..%v", f.Max())
	case f.Kind == Ternary:
		return "-1 0 1"
	case f.Kind == Book && f.Book.sorted[0].val == -f.Book.max && len(f.Book.sorted)%2 == 1:
		return "±{" + f.list(f.positive()) + "}"
	case f.Kind == Book:
		var all []float32
		for _, e := range f.Book.sorted {
			all = append(all, e.val)
		}
		return f.list(all)
	case f.Bits <= 4:
		return "±{" + f.list(f.positive()) + "}"
	}
	sign, special := "±", ""
	if !f.Signed {
		sign = ""
	}
	switch f.Top {
	case TopIEEE:
		special = ", ±Inf, NaN"
	case TopFN:
		special = ", NaN"
	case TopFNUZ:
		special = ", NaN, no -0"
	}
	switch {
	case f.isE8M0():
		return "2^-127..2^127, powers of two, NaN"
	case f.Man == 0:
		return fmt.Sprintf("%s{0, %s..%s}, powers of two%s", sign, short(f.MinNormal()), short(f.Max()), special)
	}
	return fmt.Sprintf("%s{0..%s step %s, then %d a binade to %s}%s", sign, short(f.MinNormal()), short(f.MinSubnormal()), 1<<f.Man, short(f.Max()), special)
}

// positive lists the values from 0 up.
func (f Format) positive() []float32 {
	var out []float32
	if f.Kind == Book {
		for _, e := range f.Book.sorted {
			if e.val >= 0 {
				out = append(out, e.val)
			}
		}
		return out
	}
	for c := range uint32(1) << (f.Exp + f.Man) {
		if v := f.Decode(c); v <= float32(f.max64()) {
			out = append(out, v)
		}
	}
	return out
}

func (f Format) list(v []float32) string {
	s := make([]string, len(v))
	for i, v := range v {
		s[i] = short(v)
	}
	return strings.Join(s, " ")
}

// short prints powers of two beyond three digits as such, other values with the fewest digits.
func short(v float32) string {
	frac, e := math.Frexp(float64(v))
	if frac == 0.5 && (e < -5 || e > 11) {
		return "2^" + strconv.Itoa(e-1)
	}
	return strconv.FormatFloat(float64(v), 'g', 7, 32)
}

// Thresholds gives the grid of a float format or codebook of at most 8 bits as a table for subgraphs of standard
// operators (METHODS §4.1): the level of v is values[n], n the number of thresholds t with v >= t; ties are in the
// thresholds, so the result is exactly what Apply rounds to. Formats that mirror their positive half are given by it
// (mirrored true): look up |v| and restore the sign. It fails for integers, which have Round and Clip, wider floats, and
// codebooks whose groups choose a value.
func (f Format) Thresholds() (values, thresholds []float32, mirrored bool, err error) {
	switch {
	case f.Kind == Float && f.Bits <= 8:
		values = f.positive()
	case f.Kind == Book && len(f.Book.Specials) == 0:
		for _, e := range f.Book.sorted {
			values = append(values, e.val)
		}
		if mirrored = len(values)%2 == 1 && values[len(values)/2] == 0 && values[0] == -values[len(values)-1]; mirrored {
			values = f.positive()
		}
	default:
		return nil, nil, false, fmt.Errorf("format %s has no table of thresholds", f.Name)
	}
	g := f.grid()
	up := func(v, next float32) bool {
		x := []float32{v}
		g.round(x, x, 0, f.Book)
		return x[0] >= next
	}
	for i, next := range values[1:] {
		// Positive floats are ordered as their bits, so bisection finds the least that rounds up.
		lo, hi := ordered(values[i]), ordered(next)
		for lo+1 < hi {
			if m := lo + (hi-lo)/2; up(unordered(m), next) {
				hi = m
			} else {
				lo = m
			}
		}
		thresholds = append(thresholds, unordered(hi))
	}
	return values, thresholds, mirrored || f.Kind == Float, nil
}

// ordered maps floats to integers of the same order.
func ordered(v float32) int64 {
	b := int64(math.Float32bits(v))
	if b >= 1<<31 {
		return 1<<31 - b
	}
	return b
}

func unordered(o int64) float32 {
	if o < 0 {
		return math.Float32frombits(uint32(1<<31 - o))
	}
	return math.Float32frombits(uint32(o))
}
