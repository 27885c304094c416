package numfmt

import (
	"fmt"
	"strconv"
	"strings"
)

// Role is what a scheme quantizes; it decides the defaults of ParseScheme.
type Role uint8

// The roles.
const (
	Weight Role = iota // a constant operand: scales are static
	Input              // an activation entering an operator
	Output             // an activation leaving an operator
)

// String names the role as reports do.
func (r Role) String() string { return [...]string{"weight", "input", "output"}[r] }

// Granularity says which elements share a scale.
type Granularity uint8

// The granularities.
const (
	PerTensor Granularity = iota
	PerAxis               // one scale for each index of an axis
	PerBlock              // one for each run of Block elements along the contraction axis
	PerToken              // one for each row along the contraction axis: a block as long as the axis
)

// AxisOut is the Axis of a scheme that names its operator's output axis ("axis=out").
const AxisOut = -1 << 31

// Range says which part of an integer type is used.
type Range uint8

// The ranges.
const (
	Restricted Range = iota // symmetric: -(2^(b-1)-1) to 2^(b-1)-1; no meaning for unsigned and affine
	Full                    // all of the type
	Narrow7                 // 7 of 8 bits, ONNX Runtime's reduce_range: -64 to 64, 0 to 127
)

// ScaleType says in which type a scale is kept.
type ScaleType uint8

// The scale types. BF16 rounds the group's largest magnitude (ABFP), pow2 and e8m0 the step; the 8-bit floats hold the
// step relative to one float32 scale of the whole tensor (NVFP4).
const (
	ScaleDefault ScaleType = iota // fp32; a preset's own type; none for formats that are not Scaled
	ScaleFP32
	ScaleBF16
	ScaleBF16Up // BF16 rounded up: never below the largest magnitude
	ScaleE8M0
	ScaleE4M3
	ScaleUE4M3
	ScaleUE5M3
	ScalePow2
	ScaleNone // no scale: values are cast to the grid as they are
)

var scaleNames = [...]string{"", "fp32", "bf16", "bf16up", "e8m0", "e4m3", "ue4m3", "ue5m3", "pow2", "none"}

// String is the type's name in a scheme.
func (t ScaleType) String() string { return scaleNames[t] }

// bits is the storage of one scale.
func (t ScaleType) bits() float64 {
	switch t {
	case ScaleFP32:
		return 32
	case ScaleBF16, ScaleBF16Up:
		return 16
	case ScaleE8M0, ScaleE4M3, ScaleUE4M3, ScaleUE5M3, ScalePow2:
		return 8
	}
	return 0
}

// relative reports whether scales of this type are relative to a tensor scale.
func (t ScaleType) relative() bool { return t == ScaleE4M3 || t == ScaleUE4M3 || t == ScaleUE5M3 }

// MXMode says how an E8M0 scale is rounded to a power of two (METHODS §1.4).
type MXMode uint8

// The modes.
const (
	MXFloor MXMode = iota // 2^(floor(log2 amax) - emax): the largest values may saturate
	MXCeil                // amax/max rounded up: nothing saturates
	MXEven                // as floor, after rounding amax to the element's mantissa
)

// Arith says in which order the quotient is computed (METHODS [DIFF 1]).
type Arith uint8

// The orders.
const (
	ArithONNX Arith = iota // x / (amax/qmax), times amax/qmax
	ArithTRT               // x * (qmax/amax), divided by qmax/amax, as pytorch-quantization
)

// Scheme says how the numbers of a tensor are stored: the element format, which elements share a scale, and how the
// scale is made. The zero Scheme is "none". Schemes are comparable; ParseScheme makes only consistent ones.
type Scheme struct {
	Format  Format
	Gran    Granularity
	Axis    int // of PerAxis: an axis, negative from the end, or AxisOut
	Block   int // of PerBlock
	Dynamic bool
	Affine  bool // with a zero point; integers only
	Range   Range
	Scale   ScaleType // never ScaleDefault but in the zero Scheme
	Scale2  int       // bits of the second-level integer scale (VS-Quant), 0 for none
	Min1    bool      // second-level codes are at least 1
	MX      MXMode
	Arith   Arith
}

// IsNone reports whether the scheme leaves the tensor as it is.
func (s Scheme) IsNone() bool { return s.Format.Kind == None }

// Scaled reports whether the scheme has scales, that is parameters to fit.
func (s Scheme) Scaled() bool { return !s.IsNone() && s.Scale != ScaleNone }

// TwoLevel reports whether a group's scale is a small code times a coarser scale.
func (s Scheme) TwoLevel() bool { return s.Scale2 > 0 || s.Scale.relative() }

// FromData reports whether parameters follow from all values of a group and not from its range alone: ternary formats
// and codebooks that choose a special value. FitData serves them, Fit refuses.
func (s Scheme) FromData() bool {
	return s.Format.Kind == Ternary || s.Format.Kind == Book && len(s.Format.Book.Specials) > 0
}

// Codes is the range of integer codes the scheme uses, for integer and ternary formats.
func (s Scheme) Codes() (lo, hi int) {
	lo, hi = s.Format.fullRange()
	switch {
	case s.Format.Kind == Ternary:
		return -1, 1
	case s.Range == Narrow7 && s.Format.Signed:
		return -64, 64
	case s.Range == Narrow7:
		return 0, 127
	case s.Format.Signed && s.Range == Restricted && !s.Affine:
		return -hi, hi
	}
	return lo, hi
}

// Max is what the largest magnitude is divided by to give the step: the largest positive code, or the largest value of a
// float format or codebook.
func (s Scheme) Max() float32 {
	if s.Format.Kind == Int {
		_, hi := s.Codes()
		return float32(hi)
	}
	return s.Format.Max()
}

// Bounds is the range of values that a group with the given parameters can take: what lies outside is clipped. For
// formats with infinity it is the finite range.
func (s Scheme) Bounds(scale, zero float32) (lo, hi float32) {
	if s.Format.Kind == Int || s.Format.Kind == Ternary {
		l, h := s.Codes()
		lo, hi = float32(l)-zero, float32(h)-zero
	} else {
		hi = s.Format.Max()
		lo = -hi
		if b := s.Format.Book; b != nil {
			if v := b.variant(zero); v != nil {
				b = v
			}
			lo, hi = b.sorted[0].val, b.sorted[len(b.sorted)-1].val
		}
	}
	if s.Arith == ArithTRT {
		return lo / scale, hi / scale
	}
	return lo * scale, hi * scale
}

// ParseScheme reads a scheme:
//
//	FORMAT[/axis=out|/axis=N|/block=N|/token|/tensor][/dynamic|/static][/asym|/sym][/full|/narrow7]
//	      [/scale=fp32|bf16|bf16up|e8m0|e4m3|ue4m3|ue5m3|pow2|none][/scale2=M[/min1]][/mx=floor|ceil|even][/arith=trt]
//
// or "none", or FORMAT/abfp:N, which is FORMAT/block=N/scale=bf16. Parts may come in any order, each once. Defaults:
// per tensor; weights static, activations static per tensor and axis, dynamic with block or token; intN symmetric and
// restricted, uintN asymmetric. Contradictions and parts without effect are errors.
func ParseScheme(text string, role Role) (Scheme, error) {
	s, err := parseScheme(text, role)
	if err != nil {
		return Scheme{}, fmt.Errorf("scheme %q: %w", text, err)
	}
	return s, nil
}

func parseScheme(text string, role Role) (Scheme, error) {
	parts := strings.Split(strings.TrimSpace(text), "/")
	if parts[0] == "none" || parts[0] == "" {
		if parts[0] == "" || len(parts) > 1 {
			return Scheme{}, fmt.Errorf("want a format first, as in int8/axis=out, or none alone")
		}
		return Scheme{}, nil
	}
	f, err := Lookup(parts[0])
	if err != nil {
		return Scheme{}, err
	}
	if f.Kind == ScaleFmt {
		return Scheme{}, fmt.Errorf("%s is a format for scales only (scale=%s)", f.Name, f.Name)
	}
	s := Scheme{Format: f, Affine: f.Kind == Int && !f.Signed}
	if f.Block > 0 {
		s.Gran, s.Block = PerBlock, f.Block
	}
	said := map[string]string{} // what each part sets → the part
	for _, part := range parts[1:] {
		sets, err := s.part(part)
		if err != nil {
			return Scheme{}, err
		}
		for _, what := range sets {
			if before, twice := said[what]; twice {
				return Scheme{}, fmt.Errorf("%q and %q both set the %s", before, part, what)
			}
			said[what] = part
		}
	}
	if s.Scale == ScaleDefault {
		switch {
		case f.BlockScale != ScaleDefault:
			s.Scale = f.BlockScale
		case f.Scaled():
			s.Scale = ScaleFP32
		default:
			s.Scale = ScaleNone
		}
	}
	if said["timing"] == "" {
		s.Dynamic = role != Weight && (s.Gran == PerBlock || s.Gran == PerToken)
	}
	return s, s.check(said, role)
}

// part reads one part of a scheme into s, and says what it set.
func (s *Scheme) part(part string) (sets []string, err error) {
	key, val, hasVal := strings.Cut(part, "=")
	if n, ok := strings.CutPrefix(part, "abfp:"); ok {
		s.Gran, s.Scale = PerBlock, ScaleBF16
		s.Block, err = count(part, n, 1<<30)
		return []string{"granularity", "scale type"}, err
	}
	if hasVal {
		switch key {
		case "axis":
			s.Gran, s.Axis = PerAxis, AxisOut
			if val != "out" {
				if s.Axis, err = strconv.Atoi(val); err != nil || s.Axis < -32 || s.Axis > 32 {
					return nil, fmt.Errorf("%q: want axis=out or an axis number", part)
				}
			}
			return []string{"granularity"}, nil
		case "block":
			s.Gran = PerBlock
			s.Block, err = count(part, val, 1<<30)
			return []string{"granularity"}, err
		case "scale":
			for t, n := range scaleNames {
				if n == val && t > 0 {
					s.Scale = ScaleType(t)
					return []string{"scale type"}, nil
				}
			}
			return nil, fmt.Errorf("%q: want one of %s", part, strings.Join(scaleNames[1:], ", "))
		case "scale2":
			s.Scale2, err = count(part, val, 16)
			return []string{"second-level scale"}, err
		case "mx":
			for m, n := range mxNames {
				if n == val {
					s.MX = MXMode(m)
					return []string{"mx mode"}, nil
				}
			}
			return nil, fmt.Errorf("%q: want one of %s", part, strings.Join(mxNames[:], ", "))
		case "arith":
			if val != "trt" {
				return nil, fmt.Errorf("%q: want arith=trt", part)
			}
			s.Arith = ArithTRT
			return []string{"arithmetic"}, nil
		}
	} else {
		switch part {
		case "tensor":
			s.Gran, s.Block = PerTensor, 0
			return []string{"granularity"}, nil
		case "token":
			s.Gran, s.Block = PerToken, 0
			return []string{"granularity"}, nil
		case "dynamic", "static":
			s.Dynamic = part == "dynamic"
			return []string{"timing"}, nil
		case "asym", "sym":
			s.Affine = part == "asym"
			return []string{"symmetry"}, nil
		case "full":
			s.Range = Full
			return []string{"range"}, nil
		case "narrow7":
			s.Range = Narrow7
			return []string{"range"}, nil
		case "min1":
			s.Min1 = true
			return []string{"second-level minimum"}, nil
		}
	}
	return nil, fmt.Errorf("unknown part %q; known are axis=, block=, token, tensor, abfp:N, dynamic, static, asym, sym, full, narrow7, scale=, scale2=, min1, mx=, arith=trt", part)
}

var mxNames = [...]string{"floor", "ceil", "even"}

func count(part, val string, most int) (int, error) {
	n, err := strconv.Atoi(val)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%q: want a number from 1 to %d", part, most)
	}
	return n, nil
}

// check refuses combinations that contradict each other or have a part without effect; said tells which parts were
// written.
func (s *Scheme) check(said map[string]string, role Role) error {
	f := s.Format
	isInt := f.Kind == Int
	preset := f.Block > 0
	switch {
	case s.Dynamic && role == Weight:
		return fmt.Errorf("a weight's scales are static, dynamic is for activations")
	case s.Gran == PerToken && role == Weight:
		return fmt.Errorf("token is for activations; a weight's rows are axis=out")
	case said["symmetry"] != "" && !isInt:
		return fmt.Errorf("%s has no zero point, so %s says nothing", f.Name, said["symmetry"])
	case said["range"] == "full" && (!isInt || !f.Signed):
		return fmt.Errorf("full is for signed integers, %s always uses all its codes", f.Name)
	case s.Range == Narrow7 && (!isInt || f.Bits != 8):
		return fmt.Errorf("narrow7 is for int8 and uint8, not %s", f.Name)
	case s.Arith == ArithTRT && (!isInt || s.Affine):
		return fmt.Errorf("arith=trt is for symmetric integers")
	case preset && (said["scale type"] != "" || said["symmetry"] != "" || said["range"] != "" || said["second-level scale"] != "" || s.Arith != ArithONNX):
		return fmt.Errorf("%s fixes its scales and range; only block, dynamic, static and mx fit it", f.Name)
	case preset && s.Gran != PerBlock:
		return fmt.Errorf("%s is scaled by blocks, not by %s", f.Name, said["granularity"])
	case said["mx mode"] != "" && s.Scale != ScaleE8M0:
		return fmt.Errorf("mx=%s is for e8m0 scales, not scale=%s", mxNames[s.MX], s.Scale)
	case f.Kind == Cast && s.Scale != ScaleNone, f.Kind == Float && f.Exp == 8 && s.Scale != ScaleNone:
		return fmt.Errorf("%s is a cast and has no scale", f.Name)
	case s.Scale == ScaleNone && (f.Kind == Book || f.Kind == Ternary):
		return fmt.Errorf("%s needs a scale", f.Name)
	case s.Scale == ScaleNone && (s.Gran != PerTensor || said["timing"] != "" || s.Affine && said["symmetry"] != "" || s.Arith != ArithONNX):
		return fmt.Errorf("without a scale there is no granularity, no timing and no zero point")
	case s.Affine && (s.TwoLevel() || s.Scale == ScaleE8M0):
		return fmt.Errorf("a zero point does not go with scale=%s and scale2", s.Scale)
	case s.Scale2 > 0 && s.Scale != ScaleFP32 && s.Scale != ScaleBF16:
		return fmt.Errorf("scale2 refines fp32 or bf16 scales, not scale=%s", s.Scale)
	case s.Scale2 > 0 && s.Gran == PerTensor:
		return fmt.Errorf("scale2 needs more than one scale: block, axis or token")
	case s.Min1 && s.Scale2 == 0:
		return fmt.Errorf("min1 is for second-level scales (scale2=M)")
	case s.FromData() && s.Scale != ScaleFP32 && s.Scale != ScaleBF16:
		return fmt.Errorf("%s has fp32 or bf16 scales, not %s", f.Name, s.Scale)
	case f.Kind == Ternary && s.Scale2 > 0, f.Kind == Ternary && s.Scale != ScaleFP32:
		return fmt.Errorf("%s has fp32 scales", f.Name)
	case s.Arith == ArithTRT && (s.Scale2 > 0 || s.Scale != ScaleFP32):
		return fmt.Errorf("arith=trt has fp32 scales")
	}
	if s.Scale == ScaleNone {
		s.Affine = false
	}
	if s.Affine && s.Range == Full {
		s.Range = Restricted // an affine integer always uses its full type
	}
	return nil
}

// String is the scheme's normal form: it says whatever is not the same default in every role, so ParseScheme reads it
// back to the same scheme for any role (but refuses dynamic or token for a weight).
func (s Scheme) String() string { return s.text(nil) }

// Text is the shortest form that ParseScheme reads back for the role.
func (s Scheme) Text(role Role) string { return s.text(&role) }

func (s Scheme) text(role *Role) string {
	if s.IsNone() {
		return "none"
	}
	f := s.Format
	b := f.Name
	switch {
	case s.Gran == PerAxis && s.Axis == AxisOut:
		b += "/axis=out"
	case s.Gran == PerAxis:
		b += "/axis=" + strconv.Itoa(s.Axis)
	case s.Gran == PerBlock && s.Block != f.Block:
		b += "/block=" + strconv.Itoa(s.Block)
	case s.Gran == PerToken:
		b += "/token"
	}
	blocks := s.Gran == PerBlock || s.Gran == PerToken
	usual := role != nil && s.Dynamic == (*role != Weight && blocks) || role == nil && !blocks && !s.Dynamic
	if !usual && s.Dynamic {
		b += "/dynamic"
	} else if !usual {
		b += "/static"
	}
	if f.Kind == Int && s.Scale != ScaleNone && s.Affine == f.Signed {
		b += map[bool]string{true: "/asym", false: "/sym"}[s.Affine]
	}
	switch s.Range {
	case Full:
		b += "/full"
	case Narrow7:
		b += "/narrow7"
	}
	if f.Block == 0 && (s.Scale != ScaleFP32 || !f.Scaled()) && (s.Scale != ScaleNone || f.Scaled()) {
		b += "/scale=" + s.Scale.String()
	}
	if s.Scale2 > 0 {
		b += "/scale2=" + strconv.Itoa(s.Scale2)
	}
	if s.Min1 {
		b += "/min1"
	}
	if s.MX != MXFloor {
		b += "/mx=" + mxNames[s.MX]
	}
	if s.Arith == ArithTRT {
		b += "/arith=trt"
	}
	return b
}
