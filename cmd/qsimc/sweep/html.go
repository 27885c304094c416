package sweep

import (
	"bytes"
	"fmt"
	"html"
	"html/template"
	"math"

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
		p.Add("Claims", "", r.claimsTable().HTML())
		p.Add("Checks", "each comparison with its two numbers", r.checksTable().HTML())
	}
	for _, spec := range r.tables {
		head, rows := r.table(spec)
		t := report.Table{}
		for i, h := range head {
			t.Columns = append(t.Columns, report.Column{Title: h, Number: i >= 2})
		}
		for _, cells := range rows {
			var out []report.Cell
			for _, c := range cells {
				out = append(out, report.Cell{Text: c.text, Key: c.value})
			}
			t.Rows = append(t.Rows, out)
		}
		p.Add(spec.Title, "", t.HTML())
	}
	for _, set := range r.sets() {
		p.Add(set[0].Model+" on "+set[0].Data, "points on the line are not beaten in both directions; "+direction(set), report.Plots(
			plot(set, "bits per weight", func(w *Row) float64 { return w.BitsPerWeight }),
			plot(set, "megabytes", func(w *Row) float64 { return float64(w.Bytes) / 1e6 })))
	}
	p.Add("All cells", "", r.cellsTable().HTML())
	var b bytes.Buffer
	err := p.Write(&b)
	return b.Bytes(), err
}

// claimsTable lists the claims: how many of each one's checks hold.
func (r *Results) claimsTable() *report.Table {
	t := &report.Table{ID: "claims", Columns: []report.Column{{Title: "claim"}, {Title: "verdict"}, {Title: "checks", Number: true}, {Title: "says", Wrap: true}}}
	for i := 0; i < len(r.Claims); {
		first, n, hold, decided := r.Claims[i], 0, 0, 0
		for ; i < len(r.Claims) && r.Claims[i].Claim == first.Claim; i++ {
			n++
			if h := r.Claims[i].Holds; h != nil {
				decided++
				if *h {
					hold++
				}
			}
		}
		verdict := "holds in part"
		switch {
		case decided < n:
			verdict = fmt.Sprintf("%d not decided", n-decided)
		case hold == n:
			verdict = "holds"
		case hold == 0:
			verdict = "does not hold"
		}
		t.Rows = append(t.Rows, []report.Cell{report.Text(first.Claim), judged(verdict),
			{Text: fmt.Sprintf("%d of %d", hold, n), Key: float64(hold) / float64(n)}, report.Text(first.Says)})
	}
	return t
}

// judged is a verdict in its colour.
func judged(verdict string) report.Cell {
	class := "warn"
	switch verdict {
	case "holds":
		class = "good"
	case "holds in part":
		class = "part"
	}
	return report.Cell{HTML: template.HTML(fmt.Sprintf(`<span class="%s">%s</span>`, class, html.EscapeString(verdict)))} //nolint:gosec // escaped
}

// checksTable lists each comparison with its two numbers.
func (r *Results) checksTable() *report.Table {
	t := &report.Table{ID: "checks", Filter: true, Columns: []report.Column{{Title: "claim"}, {Title: "verdict"}, {Title: "left", Number: true},
		{Title: "is"}, {Title: "right", Number: true}, {Title: "check", Wrap: true}}}
	value := func(v *float64) report.Cell {
		if v == nil {
			return report.Number("", math.NaN())
		}
		return report.Number("%.5g", *v)
	}
	for _, v := range r.Claims {
		check := v.Check
		if v.Why != "" {
			check += ": " + firstLine(v.Why)
		}
		t.Rows = append(t.Rows, []report.Cell{report.Text(v.Claim), judged(v.Text()), value(v.Left), report.Text(v.Relation), value(v.Right), report.Text(check)})
	}
	return t
}

func (r *Results) cellsTable() *report.Table {
	t := &report.Table{ID: "cells", Filter: true, Columns: []report.Column{{Title: "model"}, {Title: "data"}, {Title: "recipe"}, {Title: "metric"},
		{Title: "value", Number: true}, {Title: "change", Number: true}, {Title: "bits/weight", Number: true}, {Title: "MB", Number: true}, {Title: "error", Wrap: true}}}
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

// plot draws the metric against a cost.
func plot(set []*Row, title string, cost func(*Row) float64) template.HTML {
	s := report.Scatter{Name: set[0].Metric + " against " + title + " for " + set[0].Model, X: title, Y: set[0].Metric}
	point := func(r *Row) report.Point {
		return report.Point{X: cost(r), Y: r.Value, Label: r.Recipe, Tip: fmt.Sprintf("%s: %s, %.4g %s", r.Recipe, r.value(), cost(r), title)}
	}
	for _, r := range set {
		s.Points = append(s.Points, point(r))
	}
	for _, r := range frontier(set, cost) {
		s.Front = append(s.Front, point(r))
	}
	return s.HTML()
}
