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
	}}
	p := report.Page{Title: `x<script>alert(1)</script>`, Facts: []report.Fact{{Name: "n", Value: "1<2"}}}
	p.Add("Sites", "all of them", table.HTML())
	var b strings.Builder
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, want := range []string{"&lt;a&amp;b&gt;", `<td class="num" data-v="12.25">12.2</td>`, `<td class="num" data-v="">–</td>`, "1&lt;2", "<h2>Sites</h2>"} {
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
