package numfmt

import (
	"fmt"
	"math"
	"slices"

	"github.com/qsimc/qsimc/runtime/kernel"
)

// deadAmax is the largest magnitude at and below which a group counts as zero: its step is 1 (METHODS §0). E8M0 scales
// reach further down and ignore it.
const deadAmax = DeadAmax

// DeadAmax is the largest magnitude at and below which a group of values counts as zero.
const DeadAmax = 0x1p-24

// Fit makes parameters from the least and the largest value of each group. The answers at the edges:
//
//   - zero range, or all magnitudes at most 2^-24: step 1, zero point 0; E8M0 scales: 2^-127; relative and second-level scales: 0;
//   - constant range lo = hi: affine schemes widen it to hold 0;
//   - lo > hi, a group that was never observed: an error;
//   - NaN or infinity: an error, except for E8M0 scales, which become NaN.
//
// The second level of two-level schemes is one scale for all groups; FitData also makes one per output channel. Fit
// fails for schemes that need the data (FromData).
func (s Scheme) Fit(lo, hi []float32) (Params, error) {
	if len(lo) != len(hi) {
		return Params{}, fmt.Errorf("scheme %s: got %d lower and %d upper bounds", s, len(lo), len(hi))
	}
	if !s.Scaled() {
		return Params{}, nil
	}
	if s.FromData() {
		return Params{}, fmt.Errorf("scheme %s is fitted to values, not to a range", s)
	}
	amax, err := s.magnitudes(lo, hi)
	if err != nil {
		return Params{}, err
	}
	if s.Affine {
		return s.affine(lo, hi), nil
	}
	return s.symmetric(amax, func(int) int { return 0 }, 1), nil
}

// FitLayout is Fit for all groups of a layout: as in FitData, output channels may have second-level scales of their own.
func (s Scheme) FitLayout(lo, hi []float32, l Layout) (Params, error) {
	if !s.Scaled() || s.Affine || s.FromData() || l.Coarse < 0 {
		return s.Fit(lo, hi)
	}
	if len(lo) != l.Groups() || len(hi) != len(lo) {
		return Params{}, fmt.Errorf("scheme %s: got %d lower and %d upper bounds, want %d", s, len(lo), len(hi), l.Groups())
	}
	amax, err := s.magnitudes(lo, hi)
	if err != nil {
		return Params{}, err
	}
	return s.symmetric(amax, l.coarse, l.coarseGroups()), nil
}

// FitUnder is Fit for a few groups of a larger tensor, as GPTQ meets them: top is the largest magnitude of the tensor that
// the groups belong to (of their output channel, for second-level scales), which sets the coarse scale of two-level
// schemes. Other schemes fit as ever.
func (s Scheme) FitUnder(lo, hi []float32, top float32) (Params, error) {
	if !s.Scaled() || !s.TwoLevel() {
		return s.Fit(lo, hi)
	}
	if err := checkRange(0, top, false); err != nil {
		return Params{}, fmt.Errorf("scheme %s: tensor: %w", s, err)
	}
	lo, hi = append(slices.Clone(lo), 0), append(slices.Clone(hi), top) // as if top were one more group
	p, err := s.Fit(lo, hi)
	if err != nil {
		return Params{}, err
	}
	n := len(lo) - 1
	p.Scale, p.Code = p.Scale[:n], p.Code[:n]
	return p, nil
}

// magnitudes are the groups' largest magnitudes; NaN stays NaN.
func (s Scheme) magnitudes(lo, hi []float32) ([]float32, error) {
	amax := make([]float32, len(lo))
	for g := range lo {
		if err := checkRange(lo[g], hi[g], s.Scale == ScaleE8M0); err != nil {
			return nil, fmt.Errorf("scheme %s: group %d: %w", s, g, err)
		}
		amax[g] = max(-lo[g], hi[g])
	}
	return amax, nil
}

func checkRange(lo, hi float32, specials bool) error {
	switch bad := lo != lo || hi != hi || math.IsInf(float64(lo), 0) || math.IsInf(float64(hi), 0); {
	case math.IsInf(float64(lo), 1) && math.IsInf(float64(hi), -1):
		return fmt.Errorf("no value was observed")
	case bad && !specials:
		return fmt.Errorf("range [%v, %v] is not finite", lo, hi)
	case lo > hi:
		return fmt.Errorf("range [%v, %v] is upside down", lo, hi)
	}
	return nil
}

// symmetric makes parameters from each group's largest magnitude.
func (s Scheme) symmetric(amax []float32, coarse func(int) int, coarseGroups int) Params {
	if s.Scale.relative() {
		return s.relativeScales(amax)
	}
	p := Params{Scale: s.round(amax)}
	qmax := s.Max()
	for g, a := range amax {
		switch {
		case s.Scale == ScaleE8M0:
			p.Scale[g] = s.e8m0Step(a, qmax)
		case a <= deadAmax:
			p.Scale[g] = 1
		case s.Scale == ScalePow2:
			p.Scale[g] = pow2Above(float64(a) / float64(qmax))
		case s.Arith == ArithTRT:
			p.Scale[g] = qmax / a
		default:
			p.Scale[g] /= qmax
		}
	}
	if s.Scale2 > 0 {
		for g, a := range amax {
			if a <= deadAmax {
				p.Scale[g] = 0 // a dead group's step of 1 must not set the pace
			}
		}
		p.Code, p.Coarse = SecondLevel(p.Scale, s.Scale2, s.Min1, coarse, coarseGroups)
		for g := range p.Scale {
			p.Scale[g] = p.Code[g] * p.Coarse[coarse(g)]
		}
	}
	return p
}

// round gives the magnitudes as the scale type holds them, where it is a type of magnitudes and not of steps.
func (s Scheme) round(amax []float32) []float32 {
	out := slices.Clone(amax)
	switch s.Scale {
	case ScaleBF16:
		kernel.RoundBF16(out, amax)
	case ScaleBF16Up:
		for i, a := range amax {
			out[i] = roundBF16Up(a)
		}
	default:
		return out
	}
	for i, a := range out {
		out[i] = min(a, maxBF16)
	}
	return out
}

// pow2Above is the least power of two not below r, within float32.
func pow2Above(r float64) float32 {
	f, e := math.Frexp(r)
	if f == 0.5 {
		e--
	}
	return float32(math.Ldexp(1, min(max(e, -149), 127)))
}

// e8m0Step is the step of an MX block: a power of two from 2^-127 to 2^127. For integers the step is the block scale
// times the implied 2^-emax, so that MXINT8 has steps of S/64.
func (s *Scheme) e8m0Step(amax, qmax float32) float32 {
	switch {
	case !(amax <= maxFloat32):
		return float32(math.NaN())
	case amax == 0:
		return 0x1p-127
	case s.MX == MXCeil:
		return min(max(pow2Above(float64(amax)/float64(qmax)), 0x1p-127), 0x1p127)
	}
	e, top := exponent(amax), exponent(qmax)
	if s.MX == MXEven {
		// Rounding to m mantissa bits changes the exponent when all of them are set and the next one too; a tie there
		// has an odd last bit, so it goes up.
		man := s.Format.Man
		if s.Format.Kind != Float {
			man = top
		}
		if math.Float64bits(float64(amax))<<12>>(63-man) == 1<<(man+1)-1 {
			e++
		}
	}
	return DecodeE8M0(uint8(min(max(e-top, -127), 127) + 127))
}

// exponent is the floor of the binary logarithm of a positive value.
func exponent(v float32) int { return int(math.Float64bits(float64(v))>>52) - 1023 }

// affine makes the steps and zero points of asymmetric groups (METHODS §1.1): the range is widened to hold zero.
func (s Scheme) affine(lo, hi []float32) Params {
	clo, chi := s.Codes()
	width := make([]float32, len(lo))
	for g := range lo {
		width[g] = min(max(hi[g], 0)-min(lo[g], 0), math.MaxFloat32)
	}
	p := Params{Scale: s.round(width), Zero: make([]float32, len(lo))}
	n := float32(chi - clo)
	for g, w := range width {
		switch {
		case w <= deadAmax:
			p.Scale[g] = 1
			continue
		case s.Scale == ScalePow2:
			p.Scale[g] = pow2Above(float64(w) / float64(n))
		default:
			p.Scale[g] /= n
		}
		p.Zero[g] = float32(clo) - min(lo[g], 0)/p.Scale[g]
	}
	kernel.FakeQuantInt(p.Zero, p.Zero, 1, 0, float32(clo), float32(chi))
	return p
}

// relativeScales makes NVFP4's two levels (METHODS §1.5) from each group's amax: with A the largest of all and m the
// largest value of the block scale's type, the tensor scale is A/(qmax·m) and a block's is amax/qmax in units of it.
func (s Scheme) relativeScales(amax []float32) Params {
	qmax := s.Max()
	block := scaleFormat(s.Scale)
	top := float32(0)
	for _, a := range amax {
		top = max(top, a)
	}
	p := Params{Scale: make([]float32, len(amax)), Code: make([]float32, len(amax))}
	if top <= deadAmax {
		p.Coarse = []float32{1}
		return p
	}
	both := qmax * block.Max()
	enc, dec := both/top, top/both
	p.Coarse = []float32{dec}
	for i, a := range amax {
		p.Code[i] = float32(a/qmax) * enc
	}
	g := block.grid()
	g.round(p.Code, p.Code, 0, nil)
	for i, c := range p.Code {
		p.Scale[i] = c * dec
	}
	return p
}

// scaleFormat is the format of a relative scale.
func scaleFormat(t ScaleType) Format {
	name := t.String()
	if t == ScaleE4M3 {
		name = ScaleUE4M3.String()
	}
	f, err := Lookup(name)
	if err != nil {
		panic("BUG: scale type without a format: " + err.Error())
	}
	return f
}

// SecondLevel splits scales into integer codes of the given bits and coarse scales (VS-Quant, METHODS §4): for each
// coarse group γ = max(scale)/(2^bits-1), code = clip(rne(scale/γ), 0 or, with min1, 1, 2^bits-1). A coarse group
// of zeros has γ = 1 and codes 0. coarse maps a scale's index to one of n coarse groups.
func SecondLevel(scale []float32, bits int, min1 bool, coarse func(int) int, n int) (code, gamma []float32) {
	code, gamma = make([]float32, len(scale)), make([]float32, n)
	for i, s := range scale {
		gamma[coarse(i)] = max(gamma[coarse(i)], s)
	}
	most := float32(int(1)<<bits - 1)
	for c, g := range gamma {
		if gamma[c] = g / most; gamma[c] == 0 {
			gamma[c] = 1
		}
	}
	for i, s := range scale {
		code[i] = s / gamma[coarse(i)]
	}
	kernel.FakeQuantInt(code, code, 1, 0, 0, most)
	for i, s := range scale {
		if min1 && s > 0 && code[i] < 1 {
			code[i] = 1
		}
	}
	return code, gamma
}

// FitData makes parameters from all values of a tensor, group by group. Errors are Fit's.
func (s Scheme) FitData(x []float32, l Layout) (Params, error) {
	if err := l.check(len(x)); err != nil {
		return Params{}, fmt.Errorf("scheme %s: %w", s, err)
	}
	if !s.Scaled() {
		return Params{}, nil
	}
	if len(x) == 0 {
		return s.emptyParams(l), nil
	}
	if s.FromData() {
		return s.fitValues(x, l)
	}
	if s.Affine {
		return s.Fit(Ranges(x, l))
	}
	amax := AbsMax(x, l)
	for g, a := range amax {
		if !(a <= maxFloat32) && s.Scale != ScaleE8M0 {
			return Params{}, fmt.Errorf("scheme %s: group %d holds NaN or infinity, so it has no scale", s, g)
		}
	}
	return s.symmetric(amax, l.coarse, l.coarseGroups()), nil
}

// emptyParams are the parameters of a tensor without elements: step 1 for each group.
func (s Scheme) emptyParams(l Layout) Params {
	n := l.Groups()
	p := Params{Scale: slices.Repeat([]float32{1}, n)}
	if s.Affine {
		p.Zero = make([]float32, n)
	}
	if s.TwoLevel() {
		p.Code, p.Coarse = slices.Repeat([]float32{1}, n), slices.Repeat([]float32{1}, l.coarseGroups())
	}
	return p
}

// fitValues gathers each group's values and fits ternary formats and codebooks with specials.
func (s Scheme) fitValues(x []float32, l Layout) (Params, error) {
	groups := make([][]float32, l.Groups())
	for r := range l.Runs() {
		if r.Step == 0 {
			groups[r.Group] = append(groups[r.Group], x[r.Off:r.Off+r.Len]...)
			continue
		}
		for i := range r.Len {
			groups[r.Group+i] = append(groups[r.Group+i], x[r.Off+i])
		}
	}
	p := Params{Scale: make([]float32, len(groups))}
	if s.Format.Kind == Book {
		p.Zero = make([]float32, len(groups))
	}
	for g, v := range groups {
		for _, v := range v {
			if v != v || math.IsInf(float64(v), 0) {
				return Params{}, fmt.Errorf("scheme %s: group %d: value %v is not finite", s, g, v)
			}
		}
		switch {
		case s.Format.Kind == Book:
			p.Scale[g], p.Zero[g] = s.fitSpecial(v)
		case s.Format.Median:
			p.Scale[g] = max(lowerMedian(v), ternaryEps)
		default:
			sum := 0.0
			for _, v := range v {
				sum += math.Abs(float64(v))
			}
			p.Scale[g] = float32(sum / float64(len(v)))
		}
	}
	return p, nil
}

// lowerMedian is the median magnitude, the lower of the two middle ones for even counts.
func lowerMedian(v []float32) float32 {
	mag := make([]float32, len(v))
	for i, v := range v {
		mag[i] = float32(math.Abs(float64(v)))
	}
	slices.Sort(mag)
	return mag[(len(mag)-1)/2]
}

// fitSpecial tries every special value of the codebook with the step that makes amax its largest value, and keeps the
// first with the least squared error (BitMoD).
func (s Scheme) fitSpecial(v []float32) (scale, special float32) {
	amax := float32(0)
	for _, v := range v {
		amax = max(amax, v, -v)
	}
	best := math.Inf(1)
	for i, sp := range s.Format.Book.Specials {
		b := s.Format.Book.variants[i]
		step := float32(1)
		if amax > deadAmax {
			step = s.round([]float32{amax})[0] / b.max
		}
		sum := 0.0
		for _, v := range v {
			d := float64(v) - float64(b.sorted[b.index(v/step)].val*step)
			sum += d * d
		}
		if sum < best {
			best, scale, special = sum, step, sp
		}
	}
	return scale, special
}

// FitCentred is RPTQ's affine grid (METHODS §1.1): step (hi-lo)/2^b, zero point rne(-(hi+lo)/(2·step)), not forced into
// the range of the type. A dead range has step 1 and zero point 0. The scheme is a signed affine integer.
func (s Scheme) FitCentred(lo, hi []float32) (Params, error) {
	if s.Format.Kind != Int || !s.Format.Signed || !s.Affine || len(lo) != len(hi) {
		return Params{}, fmt.Errorf("scheme %s: the centred grid is for signed asymmetric integers and paired bounds", s)
	}
	p := Params{Scale: make([]float32, len(lo)), Zero: make([]float32, len(lo))}
	for g := range lo {
		if err := checkRange(lo[g], hi[g], false); err != nil {
			return Params{}, fmt.Errorf("scheme %s: group %d: %w", s, g, err)
		}
		p.Scale[g] = 1
		if width := hi[g] - lo[g]; width > deadAmax {
			p.Scale[g] = width / float32(s.Format.Codes())
			p.Zero[g] = -(hi[g] + lo[g]) / (2 * p.Scale[g])
		}
	}
	kernel.FakeQuantInt(p.Zero, p.Zero, 1, 0, -maxZero, maxZero)
	return p, nil
}

// FitShifted is the symmetric grid of the GPTQ reference (METHODS §1.1): step 2·amax/(2^b-1), zero point 2^(b-1). The
// step is rounded towards zero: -amax lies halfway between the codes 0 and 1, and is to take code 0 for every amax. The
// scheme is an unsigned affine integer.
func (s Scheme) FitShifted(lo, hi []float32) (Params, error) {
	if s.Format.Kind != Int || s.Format.Signed || !s.Affine || len(lo) != len(hi) {
		return Params{}, fmt.Errorf("scheme %s: the shifted grid is for unsigned asymmetric integers and paired bounds", s)
	}
	p := Params{Scale: make([]float32, len(lo)), Zero: make([]float32, len(lo))}
	for g := range lo {
		if err := checkRange(lo[g], hi[g], false); err != nil {
			return Params{}, fmt.Errorf("scheme %s: group %d: %w", s, g, err)
		}
		p.Scale[g], p.Zero[g] = 1, float32(s.Format.Codes()/2)
		if amax := max(-lo[g], hi[g]); amax > deadAmax {
			step := 2 * float64(amax) / float64(s.Max())
			p.Scale[g] = float32(step)
			if float64(p.Scale[g]) > step {
				p.Scale[g] = math.Nextafter32(p.Scale[g], 0)
			}
		}
	}
	return p, nil
}
