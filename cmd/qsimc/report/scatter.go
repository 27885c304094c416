package report

import (
	"html/template"
	"math"
	"slices"
)

// Scatter is a plot of points, those of a front joined by a line and named.
type Scatter struct {
	Name   string // what is read out to those who cannot see it
	X, Y   string // titles of the axes
	Points []Point
	Front  []Point // from left to right; also among Points
}

// Point is one point of a Scatter; Tip is shown while the pointer is over it.
type Point struct {
	X, Y       float64
	Label, Tip string
}

// Plots lays drawings out side by side where there is room.
func Plots(list ...template.HTML) template.HTML {
	d := &drawing{}
	d.markup(`<div class="plots">`)
	for _, p := range list {
		d.markup(`<div>%s</div>`, p)
	}
	return d.markup("</div>\n").html()
}

// HTML draws the plot. An axis whose values differ by more than a factor of four is logarithmic.
func (s *Scatter) HTML() template.HTML {
	const width, height, left, right, top, bottom = 560.0, 330.0, 58.0, 14.0, 16.0, 42.0
	var xs, ys []float64
	for _, p := range s.Points {
		xs, ys = append(xs, p.X), append(ys, p.Y)
	}
	x := newScale(xs, left, width-right, 2)
	y := newScale(ys, height-bottom, top, 10)
	d := &drawing{}
	d.markup(`<svg class="scatter" viewBox="0 0 %s %s" role="img" aria-label="`, num(width), num(height)).text(s.Name).markup(`">`)
	for _, v := range x.ticks {
		at := num(x.at(v))
		d.markup(`<path class="axis" d="M%s %sV%s"/><text x="%s" y="%s" text-anchor="middle">%s</text>`, at, num(top), num(height-bottom), at, num(height-bottom+16), value(v))
	}
	for _, v := range y.ticks {
		at := y.at(v)
		d.markup(`<path class="axis" d="M%s %sH%s"/><text x="%s" y="%s" text-anchor="end">%s</text>`, num(left), num(at), num(width-right), num(left-7), num(at+4), value(v))
	}
	d.markup(`<text x="%s" y="%s" text-anchor="middle">`, num((left+width-right)/2), num(height-6)).text(s.X).markup(`</text>`)
	d.markup(`<text transform="translate(13 %s) rotate(-90)" text-anchor="middle">`, num((top+height-bottom)/2)).text(s.Y).markup("</text>\n")
	path := "M"
	for _, p := range s.Front {
		path += num(x.at(p.X)) + " " + num(y.at(p.Y)) + "L"
	}
	if len(s.Front) > 1 {
		d.markup(`<path class="front" d="%s"/>`, path[:len(path)-1])
	}
	circle := func(p Point, class string) {
		d.markup(`<circle%s cx="%s" cy="%s" r="4"><title>`, class, num(x.at(p.X)), num(y.at(p.Y))).text(p.Tip).markup("</title></circle>\n")
	}
	for _, p := range s.Points {
		if !slices.Contains(s.Front, p) {
			circle(p, "")
		}
	}
	for _, p := range s.Front {
		circle(p, ` class="best"`)
	}
	// Names stand beside their points, from the top down; one that would lie on another moves below it.
	named := slices.Clone(s.Front)
	slices.SortStableFunc(named, func(a, b Point) int {
		if y.at(a.Y) < y.at(b.Y) {
			return -1
		}
		return 1
	})
	free := top
	for _, p := range named {
		at := min(max(y.at(p.Y)+4, free), height-bottom-3)
		free = at + 13
		px, anchor := x.at(p.X)+8, "start"
		if px > width*0.8 {
			px, anchor = x.at(p.X)-8, "end"
		}
		d.markup(`<text class="name" x="%s" y="%s" text-anchor="%s">`, num(px), num(at), anchor).text(p.Label).markup("</text>\n")
	}
	return d.markup("</svg>").html()
}

// scale maps values to coordinates from lo to hi.
type scale struct {
	from, to, lo, hi float64 // of values, as logarithms where log
	log              bool
	ticks            []float64
}

// newScale covers the values with a margin. On a logarithmic scale ticks are the powers of two, or 1, 2 and 5 times the powers
// of ten.
func newScale(v []float64, lo, hi float64, base int) *scale {
	least, most := slices.Min(v), slices.Max(v)
	s := &scale{lo: lo, hi: hi, log: least > 0 && most/least > 4}
	a, b := least, most
	if s.log {
		a, b = math.Log(least), math.Log(most)
	}
	margin := (b - a) * 0.06
	if margin == 0 {
		margin = 0.5
	}
	s.from, s.to = a-margin, b+margin
	switch {
	case !s.log:
		step := niceStep((s.to - s.from) / 5)
		for t := math.Ceil(s.from / step); t*step <= s.to; t++ {
			s.ticks = append(s.ticks, t*step)
		}
	case base == 2:
		for e := math.Ceil(s.from / math.Ln2); e*math.Ln2 <= s.to; e++ {
			s.ticks = append(s.ticks, math.Exp2(e))
		}
	default:
		for e := math.Floor(s.from / math.Ln10); e*math.Ln10 <= s.to; e++ {
			for _, m := range []float64{1, 2, 5} {
				if t := math.Log(m) + e*math.Ln10; t >= s.from && t <= s.to {
					s.ticks = append(s.ticks, m*math.Pow(10, e))
				}
			}
		}
	}
	return s
}

func (s *scale) at(v float64) float64 {
	if s.log {
		v = math.Log(v)
	}
	return s.lo + (s.hi-s.lo)*(v-s.from)/(s.to-s.from)
}
