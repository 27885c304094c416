package numfmt

import "math"

// Kind says how a format's codes are read.
type Kind uint8

// The kinds of format.
const (
	None     Kind = iota // the zero Format: not quantized
	Int                  // integers times a step
	Float                // sign, exponent, mantissa
	Cast                 // a float16 or bfloat16 cast: never scaled, overflows to infinity
	Book                 // a table of values
	Ternary              // -1, 0, 1 times the mean or median magnitude of the group
	ScaleFmt             // a format for scales only: E8M0, UE4M3, UE5M3
)

// Top says what the codes with the largest exponent of a Float mean (METHODS §1.3).
type Top uint8

// The top-code policies.
const (
	TopAll  Top = iota // every code is a value; NaN casts to the largest value
	TopFN              // the all-ones code is NaN, there is no infinity
	TopIEEE            // the largest exponent is infinity and NaN
	TopFNUZ            // every code is a value but minus zero, which is NaN
)

// Format is one row of the format table: how one element is coded, and for the block presets (MX, NVFP4) also the block
// length and the type of the block's scale. Formats are comparable; the zero Format stands for "not quantized".
type Format struct {
	Name           string
	Kind           Kind
	Bits           int // of one code
	Exp, Man, Bias int // Float, Cast and ScaleFmt only
	Top            Top
	Signed         bool
	Parity         bool      // QPyTorch semantics: half away from zero, no reserved code (METHODS [DIFF 4])
	Median         bool      // Ternary: lower median instead of mean
	Book           *Codebook // Kind Book
	Block          int       // block presets: the block length, else 0
	BlockScale     ScaleType // block presets: the scale type, else ScaleDefault
	Elem           Elem      // the ONNX element type that holds the codes, 0 when ONNX has none
	Opset          int       // the first opset of Elem in QuantizeLinear (in Cast for Kind Cast)
	Note           string    // a remark for listings
}

// Max is the largest finite magnitude of the format's grid, in units of the step: 127 for int8 (restricted), 448 for
// e4m3. It is what amax is divided by to give the step of symmetric quantization.
func (f Format) Max() float32 {
	switch f.Kind {
	case Int:
		if f.Signed {
			return float32(int(1)<<(f.Bits-1) - 1)
		}
		return float32(int(1)<<f.Bits - 1)
	case Ternary:
		return 1
	case Book:
		return f.Book.max
	case Float, Cast, ScaleFmt:
		return float32(f.max64())
	}
	return 0
}

// max64 is the largest finite value of a float format.
func (f Format) max64() float64 {
	top := 1<<f.Exp - 1 - f.Bias // the exponent of the last exponent code
	man := 2 - math.Ldexp(1, -f.Man)
	switch f.Top {
	case TopIEEE:
		top--
	case TopFN:
		if f.Man == 0 {
			top--
		} else {
			man -= math.Ldexp(1, -f.Man)
		}
	}
	return math.Ldexp(man, top)
}

// MinSubnormal is the smallest positive value of the format's grid, in units of the step.
func (f Format) MinSubnormal() float32 {
	switch f.Kind {
	case Int, Ternary:
		return 1
	case Book:
		m := float32(math.Inf(1))
		for _, v := range f.Book.Values {
			if v > 0 && v < m {
				m = v
			}
		}
		return m
	case Float, Cast, ScaleFmt:
		if f.isE8M0() {
			return float32(math.Ldexp(1, -127))
		}
		// With no mantissa there is no subnormal but zero: the smallest value is the smallest normal one.
		return float32(math.Ldexp(1, 1-f.Bias-f.Man))
	}
	return 0
}

// MinNormal is the smallest value of a float format with an exponent code above zero.
func (f Format) MinNormal() float32 { return float32(math.Ldexp(1, 1-f.Bias)) }

func (f Format) isE8M0() bool { return f.Kind == ScaleFmt && f.Exp == 8 }

// Scaled reports whether the format is normally used with a step. Casts are not, nor are the QPyTorch parity formats,
// nor floats with the exponent range of float32.
func (f Format) Scaled() bool {
	switch f.Kind {
	case Int, Book, Ternary:
		return true
	case Float:
		return !f.Parity && f.Exp < 8
	}
	return false
}

// Codes is the number of codes of the format, 2^Bits, for formats of at most 16 bits.
func (f Format) Codes() int { return 1 << f.Bits }

// Decode gives the value of a code, in units of the step; codes use the low Bits bits. Integers are two's complement,
// floats have the sign bit first, NaN and infinity as the top-code policy says. A codebook whose groups choose a special
// value decodes the special code as 0.
func (f Format) Decode(code uint32) float32 {
	code &= 1<<f.Bits - 1
	switch f.Kind {
	case Int, Ternary:
		if f.Signed && code>>(f.Bits-1) != 0 {
			return float32(int64(code) - int64(1)<<f.Bits)
		}
		return float32(code)
	case Book:
		return f.Book.Values[code]
	case Float, Cast, ScaleFmt:
		return f.decodeFloat(code)
	}
	return 0
}

func (f Format) decodeFloat(code uint32) float32 {
	nan := float32(math.NaN())
	if f.isE8M0() {
		return DecodeE8M0(uint8(code))
	}
	man := code & (1<<f.Man - 1)
	exp := code >> f.Man & (1<<f.Exp - 1)
	neg := f.Signed && code>>(f.Exp+f.Man) != 0
	last := exp == 1<<f.Exp-1
	switch f.Top {
	case TopIEEE:
		if last && man != 0 {
			return nan
		}
		if last && neg {
			return float32(math.Inf(-1))
		}
		if last {
			return float32(math.Inf(1))
		}
	case TopFN:
		if last && man == 1<<f.Man-1 {
			return nan
		}
	case TopFNUZ:
		if neg && exp == 0 && man == 0 {
			return nan
		}
	}
	v := math.Ldexp(float64(man), 1-f.Bias-f.Man)
	if exp > 0 {
		v = math.Ldexp(float64(man|1<<f.Man), int(exp)-f.Bias-f.Man)
	}
	if neg {
		v = math.Copysign(v, -1)
	}
	return float32(v)
}

// Encode gives the code of the value nearest to v; see EncodeAll, which is much faster on many.
func (f Format) Encode(v float32, saturate bool) uint32 {
	var code [1]uint32
	f.EncodeAll(code[:], []float32{v}, saturate)
	return code[0]
}

// EncodeAll sets dst to the codes of the values nearest to v, which are in units of the step; dst is as long as v. It
// rounds as Apply does and saturates, or, when saturate is false, follows ONNX's Cast: beyond the largest value floats
// become infinity or NaN, whichever the format has. Integers saturate to their full range either way, and NaN gives 0.
func (f Format) EncodeAll(dst []uint32, v []float32, saturate bool) {
	if f.isE8M0() {
		for i, v := range v {
			dst[i] = uint32(EncodeE8M0(v, RoundNearest))
		}
		return
	}
	level := make([]float32, len(v))
	g := f.grid()
	g.round(level, v, 0, f.Book)
	over := f.overflow()
	for i, l := range level {
		dst[i] = f.bits(v[i], l, f.Book, saturate, over)
	}
}

// bits is the code of the level that v rounds to.
func (f *Format) bits(v, level float32, book *Codebook, saturate bool, over limit) uint32 {
	switch {
	case f.Kind == Int || f.Kind == Ternary:
		return uint32(int32(level)) & (1<<f.Bits - 1)
	case f.Kind == Book:
		return book.code(level)
	case !saturate && over.passed(v):
		past := math.NaN()
		if f.Top == TopIEEE {
			past = math.Inf(1)
		}
		return f.code(float32(math.Copysign(past, float64(v))))
	}
	return f.code(level)
}

// fullRange is the range of an integer format's type.
func (f Format) fullRange() (lo, hi int) {
	if f.Signed {
		return -1 << (f.Bits - 1), 1<<(f.Bits-1) - 1
	}
	return 0, 1<<f.Bits - 1
}

// String gives the format's name, "none" for the zero Format.
func (f Format) String() string {
	if f.Kind == None {
		return "none"
	}
	return f.Name
}

// Codebook is a table of values, one for each code. A codebook with specials leaves the value of its SpecialCode open:
// each group chooses one of Specials, and keeps the choice in its zero parameter.
type Codebook struct {
	Values      []float32 // by code
	Specials    []float32
	SpecialCode int
	max         float32
	sorted      []bookEntry
	from        [16]float32 // the least float32 that rounds to the sorted entry of that index, +Inf where there is none
	variants    []*Codebook // one for each special
}

type bookEntry struct {
	val  float32
	code uint32
}

// newBook makes a codebook of at most 16 values; equal values (0 and -0) keep the lower code. Ties between neighbours go to the even code,
// and where both or neither are even, towards zero.
func newBook(values []float32, specials ...float32) *Codebook {
	b := &Codebook{Values: values, Specials: specials, SpecialCode: -1}
	if len(specials) > 0 {
		b.SpecialCode = len(values) / 2 // the code of -0
		for _, s := range specials {
			v := append([]float32(nil), values...)
			v[b.SpecialCode] = s
			b.variants = append(b.variants, newBook(v))
		}
	}
	for c, v := range values {
		at := 0
		for at < len(b.sorted) && b.sorted[at].val < v {
			at++
		}
		if at < len(b.sorted) && b.sorted[at].val == v {
			continue
		}
		b.sorted = append(b.sorted, bookEntry{})
		copy(b.sorted[at+1:], b.sorted[at:])
		b.sorted[at] = bookEntry{val: v, code: uint32(c)}
		b.max = max(b.max, v, -v)
	}
	for i := range b.from {
		b.from[i] = float32(math.Inf(1))
	}
	for i := 1; i < len(b.sorted); i++ {
		lo, hi := b.sorted[i-1], b.sorted[i]
		mid := (float64(lo.val) + float64(hi.val)) / 2
		up := hi.code%2 == 0
		if lo.code%2 == hi.code%2 {
			up = math.Abs(float64(hi.val)) < math.Abs(float64(lo.val))
		}
		b.from[i] = leastAbove(mid, up)
	}
	return b
}

// leastAbove is the least float32 v with v > mid, or v >= mid when inclusive.
func leastAbove(mid float64, inclusive bool) float32 {
	v := float32(mid) // the nearest, so no other lies between it and mid
	if float64(v) > mid || inclusive && float64(v) == mid {
		return v
	}
	return math.Nextafter32(v, float32(math.Inf(1)))
}

// index is that of the sorted entry nearest to v; NaN counts as the largest value, as ONNX casts NaN to float4e2m1.
func (b *Codebook) index(v float32) int {
	if v != v {
		return len(b.sorted) - 1
	}
	f := &b.from
	i := 0
	if v >= f[8] {
		i = 8
	}
	if v >= f[i+4] {
		i += 4
	}
	if v >= f[i+2] {
		i += 2
	}
	if v >= f[i+1] {
		i++
	}
	return min(i, len(b.sorted)-1) // infinity passes the entries that are not there
}

func (b *Codebook) code(v float32) uint32 { return b.sorted[b.index(v)].code }

// variant is the codebook with the given special value in place, nil when it has no such; a book without specials is its
// own.
func (b *Codebook) variant(special float32) *Codebook {
	if len(b.Specials) == 0 {
		return b
	}
	for i, s := range b.Specials {
		if s == special {
			return b.variants[i]
		}
	}
	return nil
}
