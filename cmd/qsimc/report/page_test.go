package report_test

import (
	"math"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/cmd/qsimc/report"
)

func TestPage(t *testing.T) {
	t.Parallel()
	table := report.Table{ID: "t", Columns: []report.Column{{Title: "name"}, {Title: "dB", Number: true}}, Rows: [][]report.Cell{
		{report.Text("<a&b>"), report.Number("%.1f", 12.25)},
		{report.Text("c"), report.Number("%.1f", math.NaN())},
		{report.Text("d"), report.Decibels("%.1f", math.Inf(1))},
		{report.Text("e"), report.Decibels("%.1f", 7)},
	}}
	p := report.Page{Title: `x<script>alert(1)</script>`, Facts: []report.Fact{{Name: "n", Value: "1<2"}}}
	p.Add("Sites", "all of them", table.HTML())
	var b strings.Builder
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, want := range []string{"&lt;a&amp;b&gt;", `<td class="num" data-v="12.25">12.2</td>`, `<td class="num" data-v="">–</td>`, `<td class="num" data-v="Infinity">exact</td>`, `data-v="7">7.0</td>`, "1&lt;2", "<h2>Sites</h2>"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, never := range []string{"<script>alert", "http://", "https://", "ZgotmplZ"} {
		if strings.Contains(page, never) {
			t.Errorf("the page has %q", never)
		}
	}
}

func TestScatter(t *testing.T) {
	t.Parallel()
	p := []report.Point{{X: 4, Y: 200, Label: "a&b", Tip: "a&b: 200"}, {X: 4.25, Y: 40, Label: "c", Tip: "c: 40"}, {X: 32, Y: 30, Label: "float", Tip: "float: 30"}, {X: 8, Y: 90, Tip: "d: 90"}}
	wide := report.Scatter{Name: "ppl < 201", X: "bits", Y: "ppl", Points: p, Front: p[:3]}
	for _, tc := range []struct {
		plot        report.Scatter
		want, never []string
	}{
		{wide, []string{">4</text>", ">32</text>", ">50</text>", ">200</text>", ">a&amp;b</text>", "a&amp;b: 200", "ppl &lt; 201"}, []string{">d</text>", ">5</text>"}},
		{report.Scatter{X: "bits", Y: "top1", Points: p[:1], Front: p[:1]}, []string{">a&amp;b</text>"}, []string{`class="front"`}},
		{report.Scatter{X: "MB", Y: "mse", Points: []report.Point{{X: 0, Y: -1}, {X: 10, Y: 0}}}, []string{">5</text>", ">-0.5</text>"}, nil},
	} {
		got := string(tc.plot.HTML())
		for _, w := range tc.want {
			if !strings.Contains(got, w) {
				t.Errorf("the plot lacks %q:\n%s", w, got)
			}
		}
		for _, n := range append(tc.never, "NaN", "Inf", "%!") {
			if strings.Contains(got, n) {
				t.Errorf("the plot has %q:\n%s", n, got)
			}
		}
	}
}
