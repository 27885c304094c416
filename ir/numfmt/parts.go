package numfmt

import "iter"

// Part is a stretch of whole runs of a layout: elements From to To, with a layout and parameters of its own.
type Part struct {
	From, To int
	Layout   Layout
	Params   Params
}

// Parts cuts a layout into pieces of about most elements that can be treated one after the other, so that work space need not
// be as large as a tensor. From is a multiple of 8, so that packed codes of the parts join without gaps. A layout of less than
// two such pieces, and one whose parameters have two levels, is one part.
func (l Layout) Parts(p Params, most int) iter.Seq[Part] {
	return func(yield func(Part) bool) {
		if l.Len() < 2*most || p.Code != nil || p.Coarse != nil {
			yield(Part{0, l.Len(), l, p})
			return
		}
		count, unit, groups := l.units()
		step := max((most/max(unit, 1)+7)/8*8, 8)
		for first := 0; first < count; first += step {
			n := min(step, count-first)
			part := Part{From: first * unit, To: min((first+n)*unit, l.Len()), Layout: l, Params: p}
			part.Layout.cut(part.To-part.From, n)
			if groups > 0 {
				part.Params.Scale = cutTo(p.Scale, first*groups, (first+n)*groups)
				part.Params.Zero = cutTo(p.Zero, first*groups, (first+n)*groups)
			}
			if !yield(part) {
				return
			}
		}
	}
}

// units are the pieces that parts are made of: how many, of how many elements (the last may be smaller), and how many groups
// each has to itself; 0: all pieces have the same groups.
func (l Layout) units() (count, size, groups int) {
	switch {
	case l.Gran == PerTensor:
		return l.Len(), 1, 0
	case l.Gran == PerAxis && l.pre > 1:
		return l.pre, l.dim * l.post, 0
	case l.Gran == PerAxis:
		return l.dim, l.post, 1
	case l.pre > 1:
		return l.pre, l.dim * l.post, l.blocks() * l.post
	}
	return l.blocks(), l.Block * l.post, l.post
}

// cut makes the layout that of size elements in n units.
func (l *Layout) cut(size, n int) {
	switch {
	case l.Gran == PerTensor:
		l.post = size
		l.Shape = []int{size}
		return
	case l.pre > 1:
		l.pre = n
	default:
		l.dim = size / l.post
	}
	l.Shape, l.Axis = []int{l.pre, l.dim, l.post}, 1
}

func cutTo(v []float32, lo, hi int) []float32 {
	if v == nil {
		return nil
	}
	return v[lo:min(hi, len(v))]
}
