// Package report writes self-contained HTML pages: one file, no network, a few lines of script, dark and light. Page is the
// frame that all share — title, facts, sections, tables that sort — and Rewrite fills it with what a rewrite did.
//
//	p := report.Page{Title: "sweep", Facts: []report.Fact{{"cells", "12"}}}
//	p.Add("Results", "", table.HTML())
//	err := p.Write(w)
package report

import (
	_ "embed"
	"fmt"
	"html"
	"html/template"
	"io"
	"math"
	"strconv"
	"strings"
)

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

// Page is a report: a head with facts, then sections.
type Page struct {
	Title    string
	Subtitle string
	Facts    []Fact // shown as tiles under the title
	Sections []Section
	Footer   string
}

// Fact is one tile: a name and its value; Note is small print below it.
type Fact struct{ Name, Value, Note string }

// Section is a titled part of a page. Body is trusted markup: text in it has been escaped by whoever made it.
type Section struct {
	Title string
	Note  string // a sentence under the title
	Body  template.HTML
	Fold  bool // closed until it is clicked
}

// Add appends a section.
func (p *Page) Add(title, note string, body template.HTML) {
	p.Sections = append(p.Sections, Section{Title: title, Note: note, Body: body})
}

var frame = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{{.Page.Title}}</title>
<style>
{{.CSS}}</style>
</head>
<body>
<header>
<div><h1>{{.Page.Title}}</h1>{{with .Page.Subtitle}}<p class="sub">{{.}}</p>{{end}}</div>
<button id="theme" type="button" aria-label="switch between dark and light">◐</button>
</header>
<main>
{{with .Page.Facts}}<section class="facts">{{range .}}<div class="fact"><span>{{.Name}}</span><b>{{.Value}}</b>{{with .Note}}<small>{{.}}</small>{{end}}</div>{{end}}</section>
{{end}}{{range .Page.Sections}}{{if .Fold}}<section><details><summary><h2>{{.Title}}</h2></summary>
{{else}}<section><h2>{{.Title}}</h2>
{{end}}{{with .Note}}<p class="note">{{.}}</p>
{{end}}{{.Body}}
{{if .Fold}}</details>{{end}}</section>
{{end}}</main>
{{with .Page.Footer}}<footer>{{.}}</footer>
{{end}}<script>
{{.JS}}</script>
</body>
</html>
`))

// Write writes the page.
func (p *Page) Write(w io.Writer) error {
	return frame.Execute(w, struct {
		Page *Page
		CSS  template.CSS
		JS   template.JS
	}{p, template.CSS(pageCSS), template.JS(pageJS)}) //nolint:gosec // both are files of this package
}

// Table is a table that sorts by the column that is clicked. ID, if given, must be unique on the page.
type Table struct {
	ID      string
	Columns []Column
	Rows    [][]Cell // as many cells as columns
	Filter  bool     // a field above it that hides rows without the typed text
}

// Column is a column's head; numbers stand on the right.
type Column struct {
	Title  string
	Hint   string // shown while the pointer is over the head
	Number bool
	Wrap   bool // long text, on several lines
}

// Cell is one cell: its text, and for numbers what it sorts by (NaN last).
type Cell struct {
	Text string
	Key  float64 // of number columns
	HTML template.HTML
}

// Text is a cell of plain text.
func Text(s string) Cell { return Cell{Text: s} }

// Number is a cell that holds a number, printed by a verb such as "%.2f"; NaN is shown as a dash and sorts last.
func Number(format string, v float64) Cell {
	if math.IsNaN(v) {
		return Cell{Text: "–", Key: v}
	}
	return Cell{Text: fmt.Sprintf(format, v), Key: v}
}

// Decibels is a cell of a signal-to-noise ratio; one without noise is exact and sorts first.
func Decibels(format string, v float64) Cell {
	if math.IsInf(v, 1) {
		return Cell{Text: "exact", Key: v}
	}
	return Number(format, v)
}

// HTML renders the table.
func (t *Table) HTML() template.HTML {
	var b strings.Builder
	if t.Filter {
		b.WriteString(`<input class="filter" type="search" placeholder="filter…" aria-label="filter rows">`)
	}
	class := "scroll"
	if len(t.Rows) > 24 {
		class += " tall"
	}
	fmt.Fprintf(&b, `<div class="%s"><table class="sortable"`, class)
	if t.ID != "" {
		fmt.Fprintf(&b, ` id="%s"`, html.EscapeString(t.ID))
	}
	b.WriteString("><thead><tr>")
	for _, c := range t.Columns {
		class := ""
		if c.Number {
			class = ` class="num"`
		}
		fmt.Fprintf(&b, `<th%s scope="col" title="%s"><button type="button">%s</button></th>`, class, html.EscapeString(c.Hint), html.EscapeString(c.Title))
	}
	b.WriteString("</tr></thead>\n<tbody>\n")
	for _, r := range t.Rows {
		b.WriteString("<tr>")
		for i, c := range r {
			body := c.HTML
			if body == "" {
				body = template.HTML(html.EscapeString(c.Text)) //nolint:gosec // escaped
			}
			if t.Columns[i].Number {
				key := strconv.FormatFloat(c.Key, 'g', -1, 64)
				switch {
				case math.IsNaN(c.Key):
					key = ""
				case math.IsInf(c.Key, 0): // as scripts read it
					key = strings.Replace(strings.TrimPrefix(key, "+"), "Inf", "Infinity", 1)
				}
				fmt.Fprintf(&b, `<td class="num" data-v="%s">%s</td>`, key, body)
			} else if t.Columns[i].Wrap {
				fmt.Fprintf(&b, `<td class="wrap">%s</td>`, body)
			} else {
				fmt.Fprintf(&b, `<td>%s</td>`, body)
			}
		}
		b.WriteString("</tr>\n")
	}
	b.WriteString("</tbody></table></div>\n")
	return template.HTML(b.String()) //nolint:gosec // built from escaped parts
}
