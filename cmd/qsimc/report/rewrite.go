package report

import (
	"fmt"
	"html/template"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/passes"
)

// Rewrite makes the page of a rewrite: a summary, the size before and after, the error of each site as bars and as a table,
// the distribution of each quantized tensor against its grid, what stayed float and why, and the recipe. before and after
// split the two files (Sizes); profiles must have been taken (Unit.Profile).
func Rewrite(r *passes.Report, before, after []Part) *Page {
	p := &Page{
		Title:    filepath.Base(filepath.Dir(r.Model)) + "/" + filepath.Base(r.Model),
		Subtitle: "rewritten by " + r.Tool + " " + r.Version,
		Footer:   "Histograms count values in units of their group's step on a logarithmic scale; ticks are the grid's levels, shaded is what the grid cannot hold. SQNR = 10·log10(Σx²/Σ(x−x̂)²).",
	}
	if strings.HasPrefix(p.Title, "./") || strings.HasPrefix(p.Title, "/") {
		p.Title = filepath.Base(r.Model)
	}
	p.Facts = rewriteFacts(r)
	if r.BytesAfter > 0 {
		p.Add("Size", "", sizeBars([]sizeFile{{"before", r.BytesBefore, before}, {"after", r.BytesAfter, after}}))
	}
	if len(r.Outputs) > 0 {
		p.Add("Outputs", "the rewritten model against the original on the first samples", outputTable(r))
	}
	if chart := siteChart(r); chart != "" {
		p.Add("Error of each site", "signal to quantization noise of what each site reads, in the order of the graph: higher is better", chart)
		p.Add("Sites", "", siteTable(r))
	}
	if len(r.Profiles) > 0 {
		p.Add("Distributions", "every quantized tensor against its grid", cards(r))
	}
	if t := floatTable(r); t != "" {
		p.Add("Left as it is", "", t)
	}
	p.Add("Passes", "", passTable(r))
	if r.Recipe != "" {
		d := &drawing{}
		p.Add("Recipe", "", d.markup("<pre>").text(r.Recipe).markup("</pre>").html())
	}
	return p
}

func rewriteFacts(r *passes.Report) []Fact {
	var facts []Fact
	if r.BytesAfter > 0 {
		facts = append(facts, Fact{"size", Bytes(r.BytesAfter), fmt.Sprintf("%.1f %% of %s", 100*float64(r.BytesAfter)/float64(max(r.BytesBefore, 1)), Bytes(r.BytesBefore))})
	}
	bits, values := 0.0, 0.0
	for _, q := range r.Profiles {
		if q.Role == numfmt.Weight && !math.IsNaN(float64(q.Entry.Bits)) {
			bits += float64(q.Entry.Bits) * float64(q.Elements)
			values += float64(q.Elements)
		}
	}
	if values > 0 {
		facts = append(facts, Fact{"bits a weight", fmt.Sprintf("%.2f", bits/values), fmt.Sprintf("with scales, over %s quantized", count(values))})
	}
	sites, quantized := map[string]bool{}, map[string]bool{}
	for _, s := range r.Sites {
		sites[s.Site] = true
		if s.Scheme != "none" {
			quantized[s.Site] = true
		}
	}
	facts = append(facts, Fact{"sites quantized", fmt.Sprintf("%d of %d", len(quantized), len(sites)), ""})
	if len(r.Outputs) > 0 {
		worst := slices.MinFunc(r.Outputs, func(a, b passes.OutputEntry) int { return int(math.Copysign(1, float64(a.SQNR-b.SQNR))) })
		facts = append(facts, Fact{"output SQNR", worst.SQNR.Decibels(), worst.Name})
	}
	memory := ""
	if r.PeakRSS > 0 {
		memory = "peak memory " + Bytes(r.PeakRSS)
	}
	return append(facts, Fact{"time", fmt.Sprintf("%.1f s", r.Seconds), memory})
}

func count(n float64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.1f M", n/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f k", n/1e3)
	}
	return fmt.Sprintf("%.0f", n)
}

func outputTable(r *passes.Report) template.HTML {
	t := Table{ID: "outputs", Columns: []Column{{Title: "output"}, {Title: "SQNR dB", Number: true}, {Title: "cosine", Number: true}, {Title: "largest error", Number: true}}}
	for _, o := range r.Outputs {
		t.Rows = append(t.Rows, []Cell{Text(o.Name), Decibels("%.2f", float64(o.SQNR)), Number("%.6f", float64(o.Cosine)), Number("%.3g", float64(o.MaxDiff))})
	}
	return t.HTML()
}

// shortNames drops the leading parts that all names share.
func shortNames(names []string) map[string]string {
	split := make([][]string, len(names))
	for i, n := range names {
		split[i] = strings.Split(strings.Trim(n, "/"), "/")
	}
	shared := 0
	for len(names) > 1 && !slices.ContainsFunc(split, func(s []string) bool { return len(s) <= shared+1 || s[shared] != split[0][shared] }) {
		shared++
	}
	short := map[string]string{}
	for i, n := range names {
		short[n] = strings.Join(split[i][shared:], "/")
	}
	return short
}

var roles = []string{"weight", "input", "output"}

func siteChart(r *passes.Report) template.HTML {
	var names []string
	groups := map[string][]bar{}
	for _, s := range r.Sites {
		v := float64(s.SQNR)
		if s.Scheme == "none" || math.IsNaN(v) || math.IsInf(v, 0) {
			continue
		}
		if groups[s.Site] == nil {
			names = append(names, s.Site)
		}
		groups[s.Site] = append(groups[s.Site], bar{slices.Index(roles, s.Role), v, fmt.Sprintf("%s · %s %s · %.1f dB", s.Site, s.Role, s.Scheme, v)})
	}
	if names == nil {
		return ""
	}
	short := shortNames(names)
	list := make([][]bar, len(names))
	labels := make([]string, len(names))
	used := 1
	for i, n := range names {
		list[i], labels[i] = groups[n], short[n]
		for _, b := range groups[n] {
			used = max(used, b.series+1)
		}
	}
	return columns(labels, list, "dB", roles[:used])
}

func siteTable(r *passes.Report) template.HTML {
	t := Table{ID: "sites", Filter: true, Columns: []Column{
		{Title: "site"}, {Title: "op"}, {Title: "role"}, {Title: "scheme"}, {Title: "SQNR dB", Hint: "signal to quantization noise", Number: true},
		{Title: "bits", Hint: "bits a value, scales included", Number: true}, {Title: "largest", Hint: "largest magnitude", Number: true},
		{Title: "clipped %", Hint: "share of values beyond the grid", Number: true}, {Title: "zeros %", Hint: "share of values that become zero", Number: true},
		{Title: "max/median", Hint: "largest channel's magnitude against the median channel's", Number: true},
	}}
	outlier := map[[2]string]float64{}
	for _, p := range r.Profiles {
		_, ratio := p.Outlier()
		for _, s := range p.Sites {
			key := [2]string{s, p.Role.String()}
			if old, ok := outlier[key]; !ok || ratio > old {
				outlier[key] = ratio
			}
		}
	}
	for _, s := range r.Sites {
		if s.Scheme == "none" {
			continue
		}
		ratio, ok := outlier[[2]string{s.Site, s.Role}]
		if !ok {
			ratio = math.NaN()
		}
		t.Rows = append(t.Rows, []Cell{
			Text(s.Site), Text(s.Op), Text(s.Role), Text(s.Scheme), Decibels("%.1f", float64(s.SQNR)), Number("%.3g", float64(s.Bits)),
			Number("%.4g", float64(s.Amax)), Number("%.2f", 100*float64(s.ClipFraction)), Number("%.2f", 100*float64(s.ZeroFraction)), Number("%.1f", ratio),
		})
	}
	return t.HTML()
}

// cards draws each profile with its numbers.
func cards(r *passes.Report) template.HTML {
	d := &drawing{}
	d.markup(`<input class="filter" type="search" placeholder="filter…" aria-label="filter tensors"><div class="cards">`)
	for _, p := range r.Profiles {
		e := p.Entry
		title := p.Value
		if p.Role == numfmt.Weight { // exporters name weights by numbers
			title = p.Sites[0]
		}
		d.markup(`<figure class="card"><h3 title="`).text(p.Value+"\n"+strings.Join(p.Sites, "\n")).markup(`">`).text(shorten(title, 28)).markup(`</h3><p><span class="tag k%d"></span>`, slices.Index(roles, e.Role)+1).
			text(e.Role+" · "+e.Scheme).markup(`</p>`).markup("%s", histogram(p)).markup(`<figcaption>`)
		d.text(fmt.Sprintf("SQNR %s · zeros %s", e.SQNR.Decibels(), percent(e.ZeroFraction)))
		if float64(e.ClipFraction) > 0 {
			d.markup(` · <b class="warn">`).text("clipped " + percent(e.ClipFraction)).markup(`</b>`)
		}
		if c, ratio := p.Outlier(); c >= 0 && ratio >= 4 {
			d.markup(`<br>`).text(fmt.Sprintf("channel %d of %d reaches %.1f× the median", c, len(p.Channels), ratio))
		}
		if n := len(p.Sites); n > 1 {
			d.markup(`<br>`).text(fmt.Sprintf("read by %d sites", n))
		}
		d.markup(`</figcaption></figure>`)
	}
	return d.markup(`</div>`).html()
}

func percent(m passes.Measure) string {
	switch v := 100 * float64(m); {
	case math.IsNaN(v):
		return "–"
	case v > 0 && v < 0.01:
		return "<0.01 %"
	default:
		return fmt.Sprintf("%.2f %%", v)
	}
}

func floatTable(r *passes.Report) template.HTML {
	t := Table{ID: "float", Columns: []Column{{Title: "site"}, {Title: "by"}, {Title: "reason"}}}
	for _, p := range r.Passes {
		for _, s := range p.Skipped {
			t.Rows = append(t.Rows, []Cell{Text(s.Site), Text(p.Name), Text(s.Reason)})
		}
	}
	if t.Rows == nil {
		return ""
	}
	return t.HTML()
}

func passTable(r *passes.Report) template.HTML {
	t := Table{ID: "passes", Columns: []Column{{Title: "pass"}, {Title: "options"}, {Title: "edits", Number: true}, {Title: "seconds", Number: true}, {Title: "notes"}}}
	for _, p := range r.Passes {
		t.Rows = append(t.Rows, []Cell{Text(p.Name), Text(p.Options), Number("%.0f", float64(p.Edits)), Number("%.2f", p.Seconds), Text(strings.Join(p.Notes, " "))})
	}
	return t.HTML()
}
