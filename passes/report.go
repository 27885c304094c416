package passes

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// Report says what a pipeline did; its JSON form is the contract of CLI.md §5.
type Report struct {
	Tool        string        `json:"tool"`
	Version     string        `json:"version"`
	Model       string        `json:"model"`
	Recipe      string        `json:"recipe"`
	Seconds     float64       `json:"seconds"`
	PeakRSS     int64         `json:"peak_rss_bytes"`
	BytesBefore int64         `json:"bytes_before"`
	BytesAfter  int64         `json:"bytes_after"`
	Passes      []*PassEntry  `json:"passes"`
	Sites       []SiteEntry   `json:"sites"`
	Outputs     []OutputEntry `json:"outputs"`

	Profiles []*Profile `json:"-"` // pictures for people; filled if Unit.Profile asks for it
}

// PassEntry is the report of one pass.
type PassEntry struct {
	Name    string  `json:"name"`
	Options string  `json:"options"`
	Seconds float64 `json:"seconds"`
	Edits   int     `json:"edits"`
	Skipped []Skip  `json:"skipped"`

	Changed []Change `json:"changed,omitempty"` // what the pass did, for passes that have more to say of a site than its schemes

	Notes []string `json:"notes,omitempty"` // warnings, and what the pass has to say beside its sites
}

// Skip is a site that a pass left as it was.
type Skip struct {
	Site   string `json:"site"`
	Reason string `json:"reason"`
}

// Change is what a pass did to a site.
type Change struct {
	Site string `json:"site"`
	What string `json:"what"`
}

// SiteEntry is one operand of a site. The measures are absent for operands left float and where nothing was measured.
type SiteEntry struct {
	Site         string  `json:"site"`
	Node         string  `json:"node"`
	Op           string  `json:"op"`
	Role         string  `json:"role"`   // weight, input or output
	Scheme       string  `json:"scheme"` // "none": left float
	Amax         Measure `json:"amax"`   // largest magnitude seen
	ClipFraction Measure `json:"clip_fraction"`
	ZeroFraction Measure `json:"zero_fraction"`
	SQNR         Measure `json:"sqnr_db"`
	Bits         Measure `json:"bits_per_value"`
}

// OutputEntry compares one output of the rewritten model with the original's.
type OutputEntry struct {
	Name    string  `json:"name"`
	SQNR    Measure `json:"sqnr_db"`
	Cosine  Measure `json:"cosine"`
	MaxDiff Measure `json:"max_abs_error"`
}

// Measure is a number that may not have been taken (NaN: null in JSON). JSON has no infinity: the SQNR of an exact result is
// written as 999, that of a result with nothing but error as -999.
type Measure float64

// NotMeasured is the Measure of nothing.
var NotMeasured = Measure(math.NaN())

// MarshalJSON writes null for a measure that was not taken.
func (m Measure) MarshalJSON() ([]byte, error) {
	switch f := float64(m); {
	case math.IsNaN(f):
		return []byte("null"), nil
	case math.IsInf(f, 1):
		return []byte("999"), nil
	case math.IsInf(f, -1):
		return []byte("-999"), nil
	default:
		return json.Marshal(f)
	}
}

// WriteJSON writes the report as one indented JSON document.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r.filled())
}

// filled returns the report with empty lists in place of absent ones: the keys are always there.
func (r *Report) filled() *Report {
	c := *r
	c.Passes = append([]*PassEntry{}, r.Passes...)
	for i, p := range c.Passes {
		q := *p
		q.Skipped = append([]Skip{}, p.Skipped...)
		c.Passes[i] = &q
	}
	c.Sites = append([]SiteEntry{}, r.Sites...)
	c.Outputs = append([]OutputEntry{}, r.Outputs...)
	return &c
}

// WriteTable writes the report for people: passes, sites with their schemes, and what stays float with the reason.
func (r *Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")) }
	if len(r.Passes) > 0 {
		row("pass", "options", "edits", "seconds")
		for _, p := range r.Passes {
			row(p.Name, dash(p.Options), fmt.Sprint(p.Edits), fmt.Sprintf("%.2f", p.Seconds))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	quantized := false
	for _, s := range r.Sites {
		quantized = quantized || s.Scheme != "none"
	}
	if quantized {
		fmt.Fprintln(w)
		row("site", "op", "role", "scheme", "amax", "clipped", "zeros", "SQNR", "bits")
		for _, s := range r.Sites {
			if s.Scheme != "none" {
				row(s.Site, s.Op, s.Role, s.Scheme, s.Amax.text("%.4g"), s.ClipFraction.percent(), s.ZeroFraction.percent(),
					s.SQNR.Decibels(), s.Bits.text("%.3g"))
			}
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	first := true
	for _, p := range r.Passes {
		for _, c := range p.Changed {
			if first {
				fmt.Fprintln(w)
				row("changed", "by", "what")
				first = false
			}
			row(c.Site, p.Name, c.What)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	first = true
	for _, p := range r.Passes {
		for _, s := range p.Skipped {
			if first {
				fmt.Fprintln(w)
				row("left as it is", "by", "reason")
				first = false
			}
			row(s.Site, p.Name, s.Reason)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, p := range r.Passes {
		for _, n := range p.Notes {
			if _, err := fmt.Fprintf(w, "\nnote: %s: %s\n", p.Name, n); err != nil {
				return err
			}
		}
	}
	if len(r.Outputs) > 0 {
		fmt.Fprintln(w)
		row("output", "SQNR", "cosine", "max error")
		for _, o := range r.Outputs {
			row(o.Name, o.SQNR.Decibels(), o.Cosine.text("%.6f"), o.MaxDiff.text("%.3g"))
		}
	}
	return t.Flush()
}

func (m Measure) text(format string) string {
	if math.IsNaN(float64(m)) {
		return "-"
	}
	return fmt.Sprintf(format, float64(m))
}

// Decibels prints a signal-to-noise ratio; one without noise is exact.
func (m Measure) Decibels() string {
	if math.IsInf(float64(m), 1) {
		return "exact"
	}
	return m.text("%.1f dB")
}

func (m Measure) percent() string {
	if math.IsNaN(float64(m)) {
		return "-"
	}
	return fmt.Sprintf("%.2f%%", 100*float64(m))
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
