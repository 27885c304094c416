package passes

import (
	"fmt"
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir/numfmt"
)

// Profile is the distribution of one quantized tensor against its grid, for pictures. Values are counted in units of their
// own group's step, so that one picture serves tensors with a scale for each channel or block.
type Profile struct {
	Value  string
	Role   numfmt.Role
	Scheme numfmt.Scheme
	Sites  []string // those that read it

	// Lo and Hi bound the histogram, whose bins are equally wide; Below and Above count what lies outside.
	Lo, Hi       float64
	Count        []float64
	Below, Above float64
	// Levels are the grid's values in the histogram's unit, ascending; nil where the format has more than 256 or none to list.
	Levels []float64
	// Scale and Zero are those of a tensor with one static scale: value = Scale·(unit − Zero). Scale 0: several, or made at run time.
	Scale, Zero float64
	// Channels is the largest magnitude in each channel: along the contraction axis of activations, the output axis of weights.
	// Nil where there is no such axis, or where its length differs between samples.
	Channels []float32

	Elements int       // of a weight
	Entry    SiteEntry // the report's line of the first of the sites

	first, last float64 // of the values, where the format has no scale and the bounds come from them
	uneven      bool
}

// profileBins is the number of bins of a profile: eight for each level of a 4-bit format.
const profileBins = 128

// Outlier returns the channel with the largest magnitude and how many times it is the median channel's; (-1, NaN) where there
// are no channels or the median is 0.
func (p *Profile) Outlier() (channel int, ratio float64) {
	if len(p.Channels) == 0 {
		return -1, math.NaN()
	}
	s := slices.Sorted(slices.Values(p.Channels))
	median := float64(s[len(s)/2])
	if len(s)%2 == 0 {
		median = (median + float64(s[len(s)/2-1])) / 2
	}
	if median == 0 {
		return -1, math.NaN()
	}
	return slices.Index(p.Channels, s[len(s)-1]), float64(s[len(s)-1]) / median
}

func newProfile(q *quantizer) *Profile {
	s := q.key.scheme
	p := &Profile{Value: q.key.value.Name, Role: q.role, Scheme: s, Count: make([]float64, profileBins), first: math.Inf(1), last: math.Inf(-1)}
	if s.Scaled() {
		p.Lo, p.Hi = gridRange(s)
		p.Levels = gridLevels(s)
		margin := (p.Hi - p.Lo) / 16
		p.Lo, p.Hi = p.Lo-margin, p.Hi+margin
	}
	return p
}

// gridRange is the range of a scaled scheme in units of the step; of codes for schemes with a zero point.
func gridRange(s numfmt.Scheme) (lo, hi float64) {
	switch s.Format.Kind {
	case numfmt.Int, numfmt.Ternary:
		l, h := s.Codes()
		return float64(l), float64(h)
	}
	return -float64(s.Max()), float64(s.Max())
}

// gridLevels lists the grid of formats with at most 8 bits.
func gridLevels(s numfmt.Scheme) []float64 {
	var levels []float64
	if k := s.Format.Kind; k == numfmt.Int || k == numfmt.Ternary {
		lo, hi := s.Codes()
		if hi-lo >= 256 {
			return nil
		}
		for c := lo; c <= hi; c++ {
			levels = append(levels, float64(c))
		}
		return levels
	}
	values, _, mirrored, err := s.Format.Thresholds()
	if err != nil { // wider formats, and codebooks whose groups choose a value
		return nil
	}
	for _, v := range values {
		levels = append(levels, float64(v))
		if mirrored && v != 0 {
			levels = append(levels, -float64(v))
		}
	}
	slices.Sort(levels)
	return levels
}

// bounds widens the range of a format without scales to the values of x; it is the first of two passes.
func (p *Profile) bounds(x []float32) {
	for _, v := range x {
		p.first, p.last = min(p.first, float64(v)), max(p.last, float64(v))
	}
}

// add counts x, laid out by l, whose groups have the parameters params. channel is an axis of it, NoAxis for none.
func (p *Profile) add(l numfmt.Layout, params numfmt.Params, x []float32, channel int) error {
	s := p.Scheme
	if !s.Scaled() {
		m := max(math.Abs(p.first), math.Abs(p.last), math.SmallestNonzeroFloat32)
		p.Lo, p.Hi = -m, m
		p.run(x, 1, 0)
	} else {
		for r := range l.Runs() {
			if r.Step == 0 {
				f, z := p.factor(params, r.Group)
				p.run(x[r.Off:r.Off+r.Len], f, z)
				continue
			}
			for i := range r.Len {
				f, z := p.factor(params, r.Group+i)
				p.run(x[r.Off+i:r.Off+i+1], f, z)
			}
		}
		if len(params.Scale) == 1 && !s.Dynamic {
			f, z := p.factor(params, 0)
			p.Scale, p.Zero = 1/f, z
		}
	}
	return p.channels(l.Shape, x, channel)
}

// factor is what a group's values are multiplied by to be in units of the step, and the zero point to add; 0 for a dead group.
func (p *Profile) factor(params numfmt.Params, g int) (factor, zero float64) {
	scale := float64(params.Scale[g])
	switch {
	case scale == 0 || math.IsNaN(scale):
		return 0, 0
	case p.Scheme.Arith == numfmt.ArithTRT:
		factor = scale
	default:
		factor = 1 / scale
	}
	if p.Scheme.Affine && params.Zero != nil {
		zero = float64(params.Zero[g])
	}
	return factor, zero
}

func (p *Profile) run(x []float32, factor, zero float64) {
	inv := float64(len(p.Count)) / (p.Hi - p.Lo)
	for _, v := range x {
		switch u := float64(v)*factor + zero; {
		case u < p.Lo:
			p.Below++
		case u > p.Hi:
			p.Above++
		case u == u:
			p.Count[min(int((u-p.Lo)*inv), len(p.Count)-1)]++
		}
	}
}

func (p *Profile) channels(shape []int, x []float32, axis int) error {
	if axis == numfmt.NoAxis || p.uneven {
		return nil
	}
	if axis < 0 {
		axis += len(shape)
	}
	if axis < 0 || axis >= len(shape) {
		return fmt.Errorf("shape %v has no axis %d", shape, axis)
	}
	n, post := shape[axis], 1
	for _, d := range shape[axis+1:] {
		post *= d
	}
	if p.Channels == nil {
		p.Channels = make([]float32, n)
	}
	if len(p.Channels) != n {
		p.Channels, p.uneven = nil, true
		return nil
	}
	for i := 0; i < len(x); i += post {
		c := i / post % n
		m := p.Channels[c]
		for _, v := range x[i : i+post] {
			m = max(m, v, -v)
		}
		p.Channels[c] = m
	}
	return nil
}

// profileFor fits what the scheme fits at run time and counts x.
func (q *quantizer) profileFor(l numfmt.Layout, x []float32) error {
	p := q.profile
	_, params := q.placed()
	if p.Scheme.Dynamic && p.Scheme.Scaled() {
		var err error
		if params, err = p.Scheme.FitData(x, l); err != nil {
			return err
		}
	}
	if q.role == numfmt.Weight {
		p.Elements = len(x)
	}
	return p.add(l, params, x, q.channels())
}

// channels is the axis of the channels that a profile compares.
func (q *quantizer) channels() int {
	if q.users == nil { // an earlier pass placed it, before it came to the order in which a site reads it
		if s := q.key.scheme; s.Gran == numfmt.PerAxis && s.Axis != numfmt.AxisOut {
			return s.Axis
		}
		return -1
	}
	axes := q.users[0].Axes
	if q.role == numfmt.Weight && axes.Out != numfmt.NoAxis {
		return axes.Out
	}
	return axes.K
}

// profiles hands the profiles to the report, with the measures beside them.
func (in *inserter) profiles() {
	if !in.u.Profile {
		return
	}
	for _, d := range in.decisions {
		for i := range d.Choices {
			c := &d.Choices[i]
			q := in.of[c]
			if made := in.before[c]; len(made) == 1 {
				q = made[0]
			}
			if q != nil && q.profile != nil && !slices.Contains(q.profile.Sites, d.Name) {
				q.profile.Sites = append(q.profile.Sites, d.Name)
				if q.profile.Entry == (SiteEntry{}) {
					q.profile.Entry = in.entry(d, c)
					q.profile.Entry.Scheme = q.key.scheme.Text(q.role)
					q.describe(&q.profile.Entry)
				}
			}
		}
	}
	for _, q := range slices.Concat(in.quants, in.others) {
		if q.profile != nil && q.drop == "" && slices.Max(q.profile.Count)+q.profile.Below+q.profile.Above > 0 {
			in.u.Report.Profiles = append(in.u.Report.Profiles, q.profile)
		}
	}
}
