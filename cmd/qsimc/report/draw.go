package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/qsimc/qsimc/passes"
)

// drawing builds markup: what comes from outside goes through text, which escapes it.
type drawing struct{ b strings.Builder }

func (d *drawing) markup(format string, args ...any) *drawing {
	fmt.Fprintf(&d.b, format, args...)
	return d
}

func (d *drawing) text(s string) *drawing {
	d.b.WriteString(html.EscapeString(s))
	return d
}

func (d *drawing) html() template.HTML { return template.HTML(d.b.String()) } //nolint:gosec // text escapes

// num prints a coordinate.
func num(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

// bar is one bar of a column chart.
type bar struct {
	series int
	value  float64
	title  string
}

// maxLabel is the length of names below a chart, in characters.
const maxLabel = 32

// columns draws groups of bars over names, values up from 0.
func columns(names []string, groups [][]bar, unit string, series []string) template.HTML {
	const top, height, left, right = 12, 200, 44, 8
	labels := 20.0
	for _, n := range names {
		labels = max(labels, 6*float64(min(len([]rune(n)), maxLabel))+14)
	}
	per := 0
	most := 1.0
	for _, g := range groups {
		per = max(per, len(g))
		for _, b := range g {
			most = max(most, b.value)
		}
	}
	step := niceStep(most / 4)
	most = math.Ceil(most/step) * step
	slot := max(8*float64(per)+8, min(1130/float64(max(len(names), 1)), 60))
	width := left + right + slot*float64(len(names))
	y := func(v float64) float64 { return top + height*(1-min(max(v, 0), most)/most) }
	d := &drawing{}
	d.markup(`<div class="scroll"><svg role="img" width="%s" height="%s" viewBox="0 0 %[1]s %[2]s" style="max-width:none">`, num(width), num(top+height+labels))
	for v := 0.0; v <= most+step/2; v += step {
		d.markup(`<path class="axis" d="M%d %sH%s"/><text x="%d" y="%s" text-anchor="end">%s</text>`, left, num(y(v)), num(width-right), left-6, num(y(v)+4), num(v))
	}
	d.markup(`<text x="2" y="10">%s</text>`, html.EscapeString(unit))
	for i, g := range groups {
		w := min((slot-6)/float64(max(per, 1)), 14)
		x := left + slot*(float64(i)+0.5) - w*float64(len(g))/2
		for k, b := range g {
			d.markup(`<rect class="k%d" x="%s" y="%s" width="%s" height="%s" rx="1.5"><title>`, b.series+1, num(x+w*float64(k)), num(y(b.value)),
				num(max(w-1.5, 1)), num(top+height-y(b.value))).text(b.title).markup(`</title></rect>`)
		}
		cx := left + slot*(float64(i)+0.5) + 3.5
		d.markup(`<text transform="translate(%s %d) rotate(-90)" text-anchor="end">`, num(cx), top+height+8).text(shorten(names[i], maxLabel)).markup(`</text>`)
	}
	d.markup(`</svg></div><div class="legend">`)
	for i, s := range series {
		d.markup(`<span><i class="k%d"></i>`, i+1).text(s).markup(`</span>`)
	}
	return d.markup(`</div>`).html()
}

// niceStep rounds up to 1, 2 or 5 times a power of ten.
func niceStep(v float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if v <= m*p*1.0001 {
			return m * p
		}
	}
	return 10 * p
}

// shorten keeps the end of long names, where those of one model differ.
func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return "…" + string(r[len(r)-n+1:])
}

// histogram draws a profile: counts as logarithmic columns, the grid's levels as ticks below them, what the grid cannot hold
// shaded.
func histogram(p *passes.Profile) template.HTML {
	const width, height, base = 320.0, 96.0, 78.0
	most := max(slices.Max(p.Count), p.Below, p.Above)
	span := p.Hi - p.Lo
	x := func(u float64) float64 { return 8 + (width-16)*(u-p.Lo)/span }
	col := func(n float64) float64 { // four decades, and what is rarer just visible
		if n == 0 {
			return base
		}
		return base - max((base-6)*(1+math.Log10(n/most)/4), 1.5)
	}
	d := &drawing{}
	d.markup(`<svg role="img" viewBox="0 0 %s %s">`, num(width), num(height))
	if n := len(p.Levels); n > 0 {
		half := (p.Levels[n-1] - p.Levels[n-2]) / 2
		l, r := x(p.Levels[0]-half), x(p.Levels[n-1]+half)
		d.markup(`<path class="clip" d="M0 4H%sV%sH0ZM%s 4H%sV%[2]sH%[3]sZ"/>`, num(max(l, 0)), num(base), num(min(r, width)), num(width))
	}
	// One outline of all columns.
	var path strings.Builder
	fmt.Fprintf(&path, "M%s %s", num(x(p.Lo)), num(base))
	w := (width - 16) / float64(len(p.Count))
	for _, n := range p.Count {
		fmt.Fprintf(&path, "V%sh%s", num(col(n)), strconv.FormatFloat(w, 'f', 3, 64))
	}
	fmt.Fprintf(&path, "V%sZ", num(base))
	d.markup(`<path class="hist" d="%s"/>`, path.String())
	for i, n := range []float64{p.Below, p.Above} {
		if n > 0 {
			side := []string{"below", "above"}[i]
			d.markup(`<rect class="out" x="%s" y="%s" width="5" height="%s"><title>%.0f values %s</title></rect>`, num(float64(i)*(width-6)+0.5), num(col(n)), num(base-col(n)), n, side)
		}
	}
	d.markup(`<path class="axis" d="M0 %sH%s"/>`, num(base), num(width))
	var ticks strings.Builder
	for _, l := range p.Levels {
		fmt.Fprintf(&ticks, "M%s %sv5", strconv.FormatFloat(x(l), 'f', 2, 64), num(base))
	}
	if ticks.Len() > 0 {
		weight := min(max((width-16)/float64(len(p.Levels))*0.45, 0.35), 1.4)
		d.markup(`<path class="levels" stroke-width="%.2f" d="%s"/>`, weight, ticks.String())
	}
	for _, t := range histogramLabels(p) {
		anchor := "middle"
		switch at := x(t.at); {
		case at < 24:
			anchor = "start"
		case at > width-24:
			anchor = "end"
		}
		d.markup(`<text x="%s" y="%s" text-anchor="%s">`, num(min(max(x(t.at), 1), width-1)), num(height-1), anchor).text(t.text).markup(`</text>`)
	}
	return d.markup(`</svg>`).html()
}

type axisLabel struct {
	at   float64
	text string
}

// histogramLabels names the ends of the grid and zero: in values where one scale serves the tensor, else in steps.
func histogramLabels(p *passes.Profile) []axisLabel {
	if len(p.Levels) == 0 && p.Scale == 0 && p.Entry.Scheme != "" && !p.Scheme.Scaled() {
		return []axisLabel{{p.Lo, value(p.Lo)}, {0, "0"}, {p.Hi, value(p.Hi)}}
	}
	margin := (p.Hi - p.Lo) / 18 // Lo and Hi lie a sixteenth of the grid outside it
	ends := []float64{p.Lo + margin, p.Hi - margin}
	if n := len(p.Levels); n > 0 {
		ends = []float64{p.Levels[0], p.Levels[n-1]}
	}
	if p.Scale > 0 {
		labels := []axisLabel{{ends[0], value(p.Scale * (ends[0] - p.Zero))}, {ends[1], value(p.Scale * (ends[1] - p.Zero))}}
		if far := (p.Zero - ends[0]) / (ends[1] - ends[0]); far > 0.15 && far < 0.85 {
			labels = append(labels, axisLabel{p.Zero, "0"})
		}
		return labels
	}
	labels := []axisLabel{{ends[0], value(ends[0]) + " steps"}, {ends[1], value(ends[1]) + " steps"}}
	if ends[0] < 0 {
		labels = append(labels, axisLabel{0, "0"})
	}
	return labels
}

func value(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }
