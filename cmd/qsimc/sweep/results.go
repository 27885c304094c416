package sweep

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Results are a sweep's results as they stand.
type Results struct {
	Title   string    `json:"title"`
	Version string    `json:"version"`
	Rows    []Row     `json:"results"`
	Claims  []Verdict `json:"claims"`

	tables []TableSpec
}

// Row is one cell's result. Those that have not run, or failed, have no measures.
type Row struct {
	Model         string   `json:"model"`
	Data          string   `json:"data"`
	Recipe        string   `json:"recipe"`
	Done          bool     `json:"done"`
	Metric        string   `json:"metric"`
	Value         float64  `json:"value"`
	Change        *float64 `json:"change"` // value / value of float − 1; nil where float has not run
	Samples       int      `json:"samples"`
	Positions     int      `json:"positions"`
	BitsPerWeight float64  `json:"bits_per_weight"`
	Bytes         int64    `json:"bytes"`
	Error         string   `json:"error"`
	Key           string   `json:"key"`

	seconds float64
	sites   []Site
}

// Verdict is one comparison of a claim. Left and Right are nil where they could not be computed; Why says why.
type Verdict struct {
	Claim    string   `json:"claim"`
	Says     string   `json:"says"`
	Check    string   `json:"check"`
	Left     *float64 `json:"left"`
	Relation string   `json:"relation"`
	Right    *float64 `json:"right"`
	Holds    *bool    `json:"holds"`
	Why      string   `json:"why,omitempty"`
}

// Text says how the comparison came out.
func (v *Verdict) Text() string {
	switch {
	case v.Holds == nil:
		return "not decided"
	case *v.Holds:
		return "holds"
	}
	return "does not hold"
}

// Collect reads the results of the plan's cells in dir and decides the claims.
func (p *Plan) Collect(dir string) (*Results, error) {
	r := &Results{Title: p.Title, Version: p.Version, Rows: []Row{}, Claims: []Verdict{}, tables: p.Tables}
	base := map[string]float64{}
	for i := range p.Cells {
		c := &p.Cells[i]
		row := Row{Model: c.Model, Data: c.Data, Recipe: c.Recipe, Key: c.Key}
		got, err := c.load(dir)
		if err != nil {
			return nil, err
		}
		if got != nil {
			row.Done = got.Error == ""
			row.Metric, row.Value, row.Samples, row.Positions = got.Metric, got.Value, got.Samples, got.Positions
			row.BitsPerWeight, row.Bytes, row.Error = got.BitsPerWeight, got.Bytes, got.Error
			row.seconds, row.sites = got.Seconds, got.Sites
			if c.Recipe == Float && row.Done {
				base[c.Model+"/"+c.Data] = row.Value
			}
		}
		r.Rows = append(r.Rows, row)
	}
	for i := range r.Rows {
		w := &r.Rows[i]
		if b, ok := base[w.Model+"/"+w.Data]; ok && w.Done && b != 0 {
			change := w.Value/b - 1
			w.Change = &change
		}
	}
	for _, c := range p.Claims {
		for _, k := range c.Checks {
			r.Claims = append(r.Claims, r.decide(c, k))
		}
	}
	return r, nil
}

func (r *Results) decide(c ClaimSpec, k CheckSpec) Verdict {
	v := Verdict{Claim: c.Name, Says: c.Says, Check: k.Left + " " + k.Relation + " " + k.Right, Relation: k.Relation}
	if k.Relation == "==" {
		v.Check += fmt.Sprintf(" within %g %%", 100*k.Within)
	}
	side := func(text string) (*float64, error) {
		e, err := parseExpr(text)
		if err != nil {
			return nil, err
		}
		x, err := e(r)
		if err == nil && (math.IsNaN(x) || math.IsInf(x, 0)) {
			err = fmt.Errorf("%s is %v", text, x)
		}
		if err != nil {
			return nil, err
		}
		return &x, nil
	}
	var err1, err2 error
	v.Left, err1 = side(k.Left)
	v.Right, err2 = side(k.Right)
	if err := errors.Join(err1, err2); err != nil {
		v.Why = err.Error()
		return v
	}
	a, b := *v.Left, *v.Right
	holds := false
	switch k.Relation {
	case "<":
		holds = a < b
	case "<=":
		holds = a <= b
	case ">":
		holds = a > b
	case ">=":
		holds = a >= b
	case "==":
		holds = math.Abs(a-b) <= k.Within*math.Abs(b)
	}
	v.Holds = &holds
	return v
}

// Save writes results.csv, results.json, report.html and times.csv into dir. What differs from run to run is in times.csv alone.
func (r *Results) Save(dir string) error {
	table, err := r.csv()
	if err != nil {
		return err
	}
	doc, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	page, err := r.html()
	if err != nil {
		return err
	}
	var times bytes.Buffer
	w := csv.NewWriter(&times)
	_ = w.Write([]string{"model", "data", "recipe", "seconds"}) // a buffer takes everything
	for _, row := range r.Rows {
		if row.Done || row.Error != "" {
			_ = w.Write([]string{row.Model, row.Data, row.Recipe, fmt.Sprintf("%.2f", row.seconds)})
		}
	}
	w.Flush()
	return errors.Join(
		writeFile(filepath.Join(dir, "results.csv"), table), writeFile(filepath.Join(dir, "results.json"), append(doc, '\n')),
		writeFile(filepath.Join(dir, "report.html"), page), writeFile(filepath.Join(dir, "times.csv"), times.Bytes()))
}

func (r *Results) csv() ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	_ = w.Write([]string{"model", "data", "recipe", "metric", "value", "change", "samples", "positions", "bits_per_weight", "bytes", "error", "key"})
	for _, row := range r.Rows {
		number := func(v float64) string {
			if !row.Done {
				return ""
			}
			return strconv.FormatFloat(v, 'g', -1, 64)
		}
		change := ""
		if row.Change != nil {
			change = number(*row.Change)
		}
		_ = w.Write([]string{row.Model, row.Data, row.Recipe, row.Metric, number(row.Value), change, number(float64(row.Samples)),
			number(float64(row.Positions)), number(row.BitsPerWeight), number(float64(row.Bytes)), row.Error, row.Key})
	}
	w.Flush()
	return b.Bytes(), w.Error()
}

// value prints a metric for people.
func (row *Row) value() string {
	switch {
	case row.Error != "":
		return "failed"
	case !row.Done:
		return "–"
	case row.Metric == "top1" || row.Metric == "top5":
		return fmt.Sprintf("%.1f %%", 100*row.Value)
	case math.Abs(row.Value) >= 1:
		return fmt.Sprintf("%.2f", row.Value)
	}
	return fmt.Sprintf("%.4g", row.Value)
}

func (row *Row) change() string {
	if row.Change == nil {
		return ""
	}
	return fmt.Sprintf("%+.1f %%", 100**row.Change)
}

// WriteTable writes the results for people: every cell, the tables, the claims.
func (r *Results) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")) }
	line("model", "data", "recipe", "metric", "value", "change", "bits/weight", "bytes", "seconds", "")
	for i := range r.Rows {
		row := &r.Rows[i]
		if !row.Done {
			line(row.Model, row.Data, row.Recipe, row.Metric, row.value(), "", "", "", "", firstLine(row.Error))
			continue
		}
		line(row.Model, row.Data, row.Recipe, row.Metric, row.value(), row.change(), fmt.Sprintf("%.2f", row.BitsPerWeight),
			strconv.FormatInt(row.Bytes, 10), fmt.Sprintf("%.1f", row.seconds), "")
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, spec := range r.tables {
		fmt.Fprintf(w, "\n%s\n", spec.Title)
		head, rows := r.table(spec)
		line(head...)
		for _, cells := range rows {
			var text []string
			for _, c := range cells {
				text = append(text, c.text)
			}
			line(text...)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if len(r.Claims) > 0 {
		fmt.Fprintln(w, "\nclaims")
		for _, v := range r.Claims {
			line(v.Claim, v.Check, number(v.Left)+" "+v.Relation+" "+number(v.Right), v.Text(), firstLine(v.Why))
		}
	}
	return t.Flush()
}

// entry is an entry of a table: its text, and its value where it has one (NaN: it has none).
type entry struct {
	text  string
	value float64
}

// table lays a table of the results out; its first two columns are the model and the metric.
func (r *Results) table(spec TableSpec) (head []string, rows [][]entry) {
	head = []string{"model", "metric"}
	for _, c := range spec.Columns {
		head = append(head, c.Head)
	}
	for _, name := range spec.Rows {
		cells := []entry{{name, math.NaN()}, {"", math.NaN()}}
		for _, c := range spec.Columns {
			e := entry{c.Text, math.NaN()}
			if c.Recipe != "" {
				e.text = "–"
				model, data, _ := strings.Cut(name, "/")
				if i := slices.IndexFunc(r.Rows, func(w Row) bool {
					return w.Model == model && (data == "" || w.Data == data) && w.Recipe == c.Recipe
				}); i >= 0 {
					row := &r.Rows[i]
					e.text = row.value()
					if row.Done {
						e.value = row.Value
					}
					cells[1].text = cmp.Or(cells[1].text, row.Metric)
				}
			}
			cells = append(cells, e)
		}
		rows = append(rows, cells)
	}
	return head, rows
}

func number(v *float64) string {
	if v == nil {
		return "–"
	}
	return fmt.Sprintf("%.5g", *v)
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
