package sweep

import (
	"bytes"
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"

	"github.com/qsimc/qsimc/cmd/qsimc/report"
)

// html renders the results as a page of its own: plots, tables, claims.
func (r *Results) html() ([]byte, error) {
	done, failed := 0, 0
	for _, row := range r.Rows {
		if row.Done {
			done++
		}
		if row.Error != "" {
			failed++
		}
	}
	title := r.Title
	if title == "" {
		title = "sweep"
	}
	p := report.Page{Title: title, Subtitle: "metric of every recipe on every model", Footer: "qsimc " + r.Version, Facts: []report.Fact{
		{Name: "cells", Value: fmt.Sprint(len(r.Rows))}, {Name: "done", Value: fmt.Sprint(done)}, {Name: "failed", Value: fmt.Sprint(failed)}}}
	if n := len(r.Claims); n > 0 {
		holds := 0
		for _, v := range r.Claims {
			if v.Holds != nil && *v.Holds {
				holds++
			}
		}
		p.Facts = append(p.Facts, report.Fact{Name: "checks that hold", Value: fmt.Sprintf("%d of %d", holds, n)})
		p.Add("Claims", "each comparison with its two numbers", r.claimsTable().HTML())
	}
	for _, spec := range r.tables {
		head, rows := r.table(spec)
		t := report.Table{}
		for _, h := range head {
			t.Columns = append(t.Columns, report.Column{Title: h})
		}
		for _, cells := range rows {
			var out []report.Cell
			for _, c := range cells {
				out = append(out, report.Text(c))
			}
			t.Rows = append(t.Rows, out)
		}
		p.Add(spec.Title, "", t.HTML())
	}
	for _, set := range r.sets() {
		var b strings.Builder
		b.WriteString(plotStyle)
		b.WriteString(plot(set, "bits per weight", func(w *Row) float64 { return w.BitsPerWeight }))
		b.WriteString(plot(set, "megabytes", func(w *Row) float64 { return float64(w.Bytes) / 1e6 }))
		p.Add(set[0].Model+" on "+set[0].Data, "points on the line are not beaten in both directions; "+direction(set),
			template.HTML(b.String())) //nolint:gosec // built from escaped parts
	}
	p.Add("All cells", "", r.cellsTable().HTML())
	var b bytes.Buffer
	err := p.Write(&b)
	return b.Bytes(), err
}

func (r *Results) claimsTable() *report.Table {
	t := &report.Table{ID: "claims", Columns: []report.Column{{Title: "claim"}, {Title: "says"}, {Title: "check"}, {Title: "left", Number: true},
		{Title: ""}, {Title: "right", Number: true}, {Title: "verdict"}}}
	value := func(v *float64) report.Cell {
		if v == nil {
			return report.Number("", math.NaN())
		}
		return report.Number("%.5g", *v)
	}
	for _, v := range r.Claims {
		text := v.Text()
		if v.Why != "" {
			text += ": " + firstLine(v.Why)
		}
		t.Rows = append(t.Rows, []report.Cell{report.Text(v.Claim), report.Text(v.Says), report.Text(v.Check), value(v.Left), report.Text(v.Relation), value(v.Right), report.Text(text)})
	}
	return t
}

func (r *Results) cellsTable() *report.Table {
	t := &report.Table{ID: "cells", Filter: true, Columns: []report.Column{{Title: "model"}, {Title: "data"}, {Title: "recipe"}, {Title: "metric"},
		{Title: "value", Number: true}, {Title: "change", Number: true}, {Title: "bits/weight", Number: true}, {Title: "MB", Number: true}, {Title: "error"}}}
	for i := range r.Rows {
		row := &r.Rows[i]
		nan := math.NaN()
		value, change, bits, mb := nan, nan, nan, nan
		if row.Done {
			value, bits, mb = row.Value, row.BitsPerWeight, float64(row.Bytes)/1e6
			if row.Change != nil {
				change = 100 * *row.Change
			}
		}
		v := report.Cell{Text: row.value(), Key: value}
		t.Rows = append(t.Rows, []report.Cell{report.Text(row.Model), report.Text(row.Data), report.Text(row.Recipe), report.Text(row.Metric), v,
			report.Number("%+.1f %%", change), report.Number("%.2f", bits), report.Number("%.3f", mb), report.Text(row.Error)})
	}
	return t
}

// sets groups the finished rows by model and data.
func (r *Results) sets() [][]*Row {
	var out [][]*Row
	for i := range r.Rows {
		row := &r.Rows[i]
		if !row.Done {
			continue
		}
		if n := len(out); n > 0 && out[n-1][0].Model == row.Model && out[n-1][0].Data == row.Data {
			out[n-1] = append(out[n-1], row)
		} else {
			out = append(out, []*Row{row})
		}
	}
	return out
}

// higher reports whether more is better.
func higher(metric string) bool { return metric == "top1" || metric == "top5" || metric == "sqnr" }

func direction(set []*Row) string {
	if higher(set[0].Metric) {
		return "higher is better"
	}
	return "lower is better"
}

// The plots follow the page's colours.
const plotStyle = `<style>
.pareto{width:100%;max-width:640px;height:auto;font:12px system-ui,sans-serif;color:inherit}
.pareto text{fill:currentColor}.pareto .axis{stroke:currentColor;opacity:.35}.pareto .front{fill:none;stroke:#2a7de1;stroke-width:1.5}
.pareto circle{fill:#8a8f98}.pareto circle.best{fill:#2a7de1}.pareto circle:hover{stroke:currentColor}
</style>
`

// plot draws the metric against a cost. The metric's axis is logarithmic where it spans more than a factor of four.
func plot(set []*Row, title string, cost func(*Row) float64) string {
	const w, h, left, right, top, bottom = 640.0, 320.0, 64.0, 110.0, 14.0, 40.0
	lo, hi, xhi := math.Inf(1), math.Inf(-1), 0.0
	for _, r := range set {
		lo, hi, xhi = min(lo, r.Value), max(hi, r.Value), max(xhi, cost(r))
	}
	log := lo > 0 && hi/lo > 4
	scale := func(v float64) float64 { return v }
	if log {
		scale = math.Log
	}
	a, z := scale(lo), scale(hi)
	if z <= a {
		a, z = a-0.5, z+0.5
	}
	pad := (z - a) * 0.06
	a, z = a-pad, z+pad
	x := func(v float64) float64 { return left + (w-left-right)*v/max(xhi*1.05, 1e-9) }
	y := func(v float64) float64 { return h - bottom - (h-top-bottom)*(scale(v)-a)/(z-a) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="pareto" viewBox="0 0 %g %g" role="img" aria-label="%s">`+"\n", w, h,
		html.EscapeString(set[0].Metric+" against "+title+" for "+set[0].Model))
	fmt.Fprintf(&b, `<path class="axis" fill="none" d="M%g %gV%gH%g"/>`+"\n", left, top, h-bottom, w-right)
	for i := range 5 {
		v := xhi * float64(i) / 4
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle">%.3g</text>`, x(v), h-bottom+16, v)
		m := a + (z-a)*float64(i)/4
		if log {
			m = math.Exp(m)
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="end">%.3g</text>`+"\n", left-6, y(m)+4, m)
	}
	fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, (left+w-right)/2, h-6, html.EscapeString(title))
	fmt.Fprintf(&b, `<text transform="translate(14 %.1f) rotate(-90)" text-anchor="middle">%s</text>`+"\n", h/2, html.EscapeString(set[0].Metric))
	front := frontier(set, cost)
	var path strings.Builder
	for i, r := range front {
		letter := "L"
		if i == 0 {
			letter = "M"
		}
		fmt.Fprintf(&path, "%s%.1f %.1f", letter, x(cost(r)), y(r.Value))
	}
	fmt.Fprintf(&b, `<path class="front" d="%s"/>`+"\n", path.String())
	var labels []float64
	for _, r := range set {
		class, best := "", false
		for _, f := range front {
			best = best || f == r
		}
		if best {
			class = ` class="best"`
		}
		fmt.Fprintf(&b, `<circle%s cx="%.1f" cy="%.1f" r="4"><title>%s: %s, %.4g %s</title></circle>`+"\n", class, x(cost(r)), y(r.Value),
			html.EscapeString(r.Recipe), html.EscapeString(r.value()), cost(r), html.EscapeString(title))
		if best {
			at := y(r.Value) + 4
			for _, l := range labels {
				if math.Abs(l-at) < 12 {
					at = l - 12
				}
			}
			labels = append(labels, at)
			fmt.Fprintf(&b, `<text x="%.1f" y="%.1f">%s</text>`+"\n", x(cost(r))+7, at, html.EscapeString(r.Recipe))
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}
