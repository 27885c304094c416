// Package sweep runs a grid of recipes over models and data sets and shows the results: a file for each cell, found again by
// the hash of all that went into it, so that a sweep that was killed continues and several machines share one.
//
//	spec, err := sweep.ReadSpec("paper.yaml")
//	plan, err := spec.Plan(sweep.PlanOptions{Version: version})
//	err = plan.Run(ctx, "out", sweep.RunOptions{})
//	results, err := plan.Collect("out")
package sweep

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/qsimc/qsimc/passes/recipe"
	"github.com/qsimc/qsimc/runtime/eval"
)

// Spec is a decoded sweep file. Relative paths in it start from the first of Root that exists, by default the file's folder.
type Spec struct {
	Title   string       `yaml:"title"`
	Root    []string     `yaml:"root"` // relative to the file; ~ is the user's home
	Data    []DataSpec   `yaml:"data"`
	Models  []ModelSpec  `yaml:"models"`
	Recipes []RecipeSpec `yaml:"recipes"`
	Tables  []TableSpec  `yaml:"tables"`
	Claims  []ClaimSpec  `yaml:"claims"`

	file string
	dir  string // what relative paths start from
}

// Source says where samples are and how they are read, as the flags of eval do.
type Source struct {
	Path       string `yaml:"path"`
	Count      int    `yaml:"count"`
	Tokenizer  string `yaml:"tokenizer"`
	SeqLen     int    `yaml:"seq-len"`
	Preprocess string `yaml:"preprocess"`
	Labels     string `yaml:"labels"`
}

// DataSpec is a data set to evaluate on.
type DataSpec struct {
	Name   string `yaml:"name"`
	Metric string `yaml:"metric"`
	Batch  int    `yaml:"batch"`
	Source `yaml:",inline"`
}

// ModelSpec is a model with the data sets it is evaluated on and the samples its recipes calibrate on.
type ModelSpec struct {
	Name    string   `yaml:"name"`
	Path    string   `yaml:"path"`
	Data    []string `yaml:"data"`
	Samples Source   `yaml:"samples"`
}

// RecipeSpec is a recipe, or a family of them: where Grid lists values, the recipe is taken once for each combination, with
// ${key} replaced in its name and in all its texts.
type RecipeSpec struct {
	Name   string        `yaml:"name"`
	Models []string      `yaml:"models"` // none: all
	Grid   yaml.MapSlice `yaml:"grid"`
	Recipe yaml.MapSlice `yaml:"recipe"`
}

// TableSpec is a table of the results: a row for each model, a column for each recipe or fixed text.
type TableSpec struct {
	Title   string       `yaml:"title" json:"title"`
	Rows    []string     `yaml:"rows" json:"rows"` // models, or model/data
	Columns []ColumnSpec `yaml:"columns" json:"columns"`
}

// ColumnSpec is a column of a table.
type ColumnSpec struct {
	Head   string `yaml:"head" json:"head"`
	Recipe string `yaml:"recipe" json:"recipe"` // whose metric is shown
	Text   string `yaml:"text" json:"text"`     // shown in every row instead
}

// ClaimSpec is a statement and the comparisons that decide whether it holds.
type ClaimSpec struct {
	Name   string      `yaml:"name" json:"name"`
	Says   string      `yaml:"says" json:"says"`
	Checks []CheckSpec `yaml:"checks" json:"checks"`
}

// CheckSpec compares two expressions, see Eval.
type CheckSpec struct {
	Left     string  `yaml:"left" json:"left"`
	Relation string  `yaml:"relation" json:"relation"` // <, <=, >, >= or ==
	Right    string  `yaml:"right" json:"right"`
	Within   float64 `yaml:"within" json:"within"` // of ==: the relative difference allowed
}

// Float is the name of the recipe that changes nothing. Every sweep has it.
const Float = "float"

// ReadSpec reads a sweep file strictly: unknown keys and wrong types are errors with their place, names that name nothing
// with what there is.
func ReadSpec(path string) (*Spec, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := &Spec{file: path}
	if err := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(s); err != nil {
		return nil, fmt.Errorf("%s: %s", path, strings.TrimSpace(yaml.FormatError(err, false, true)))
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s.dir = filepath.Dir(path)
	for _, r := range s.Root {
		if dir := s.expand(r); isDir(dir) {
			s.dir = dir
			break
		}
	}
	return s, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// expand resolves a path of the file against its folder.
func (s *Spec) expand(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(s.file), path)
}

// SetRoot overrides the folder that relative paths start from.
func (s *Spec) SetRoot(dir string) { s.dir = dir }

func (s *Spec) path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(s.dir, p)
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.=+-]*$`)

// check finds mistakes that can be told without files.
func (s *Spec) check() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	unique := func(what string) func(string) {
		seen := map[string]bool{}
		return func(name string) {
			switch {
			case !plainName.MatchString(name):
				add("%s %q: a name is letters, digits and _ . = + -", what, name)
			case seen[name]:
				add("%s %q: listed twice", what, name)
			}
			seen[name] = true
		}
	}
	data, models := unique("data"), unique("model")
	for _, d := range s.Data {
		data(d.Name)
		if d.Path == "" {
			add("data %q: has no path", d.Name)
		}
		if d.Metric != "" && !slices.Contains(eval.Metrics, d.Metric) || d.Metric == "agree" {
			add("data %q: metric %q, wanted one of auto, ppl, top1, top5, mse, sqnr", d.Name, d.Metric)
		}
	}
	for _, m := range s.Models {
		models(m.Name)
		if m.Path == "" || len(m.Data) == 0 {
			add("model %q: wanted a path and data", m.Name)
		}
		for _, d := range m.Data {
			if s.data(d) == nil {
				add("model %q: there is no data %q", m.Name, d)
			}
		}
	}
	if len(s.Models) == 0 {
		add("there are no models")
	}
	names, err := s.recipes()
	if err != nil {
		errs = append(errs, err)
	}
	recipes := unique("recipe")
	for _, r := range names {
		recipes(r.name)
		for _, m := range r.models {
			if s.model(m) == nil {
				add("recipe %q: there is no model %q", r.name, m)
			}
		}
	}
	known := func(name string) bool {
		return slices.ContainsFunc(names, func(r namedRecipe) bool { return r.name == name })
	}
	for _, t := range s.Tables {
		for _, row := range t.Rows {
			if m, d, _ := strings.Cut(row, "/"); s.model(m) == nil || d != "" && s.data(d) == nil {
				add("table %q: row %q is no model", t.Title, row)
			}
		}
		for _, c := range t.Columns {
			if (c.Recipe == "") == (c.Text == "") || c.Recipe != "" && err == nil && !known(c.Recipe) {
				add("table %q: column %q: recipe %q is unknown, or not one of recipe and text is given", t.Title, c.Head, c.Recipe)
			}
		}
	}
	for _, c := range s.Claims {
		for _, k := range c.Checks {
			if !slices.Contains([]string{"<", "<=", ">", ">=", "=="}, k.Relation) {
				add("claim %q: relation %q, wanted <, <=, >, >= or ==", c.Name, k.Relation)
			}
			for _, e := range []string{k.Left, k.Right} {
				if _, err := parseExpr(e); err != nil {
					add("claim %q: %w", c.Name, err)
				}
			}
		}
	}
	return errors.Join(errs...)
}

func (s *Spec) data(name string) *DataSpec {
	if i := slices.IndexFunc(s.Data, func(d DataSpec) bool { return d.Name == name }); i >= 0 {
		return &s.Data[i]
	}
	return nil
}

func (s *Spec) model(name string) *ModelSpec {
	if i := slices.IndexFunc(s.Models, func(m ModelSpec) bool { return m.Name == name }); i >= 0 {
		return &s.Models[i]
	}
	return nil
}

// namedRecipe is one recipe of the grid.
type namedRecipe struct {
	name   string
	models []string
	recipe *recipe.Recipe // without preset
	err    error          // why it is none: its cells fail with this
}

// recipes expands the families. Float is the first. What is wrong within a recipe is the error of its cells: an unknown preset
// or pass, a scheme that does not parse.
func (s *Spec) recipes() ([]namedRecipe, error) {
	out := []namedRecipe{{name: Float, recipe: &recipe.Recipe{Passes: []string{}}}}
	for _, r := range s.Recipes {
		for _, set := range combinations(r.Grid) {
			name := substitute(r.Name, set)
			text, err := yaml.Marshal(replaced(r.Recipe, set))
			if err != nil {
				return nil, fmt.Errorf("recipe %q: %w", name, err)
			}
			if name == Float {
				return nil, fmt.Errorf("recipe %q: this name is that of the recipe that changes nothing, which every sweep has", name)
			}
			rec, err := recipe.Parse("recipe "+name, text)
			if err == nil {
				rec, err = rec.Resolved()
			}
			if err == nil {
				_, err = rec.Pipeline()
			}
			if err == nil && rec.Samples.Path != "" {
				err = fmt.Errorf("recipe %s: samples are given with the models", name)
			}
			if err != nil {
				rec = &recipe.Recipe{}
			}
			out = append(out, namedRecipe{name, r.Models, rec, err})
		}
	}
	return out, nil
}

// combinations lists the assignments of a grid, the last key running fastest; one empty assignment if there is no grid.
func combinations(grid yaml.MapSlice) []map[string]string {
	out := []map[string]string{{}}
	for _, item := range grid {
		values, ok := item.Value.([]any)
		if !ok {
			values = []any{item.Value}
		}
		var next []map[string]string
		for _, set := range out {
			for _, v := range values {
				more := map[string]string{fmt.Sprint(item.Key): fmt.Sprint(v)}
				for k, old := range set {
					more[k] = old
				}
				next = append(next, more)
			}
		}
		out = next
	}
	return out
}

var placeholder = regexp.MustCompile(`\$\{[^}]*\}`)

func substitute(text string, set map[string]string) string {
	return placeholder.ReplaceAllStringFunc(text, func(p string) string {
		if v, ok := set[p[2:len(p)-1]]; ok {
			return v
		}
		return p
	})
}

// replaced returns a decoded YAML value with the placeholders in its texts replaced.
func replaced(v any, set map[string]string) any {
	switch x := v.(type) {
	case string:
		return substitute(x, set)
	case []any:
		out := make([]any, len(x))
		for i := range x {
			out[i] = replaced(x[i], set)
		}
		return out
	case yaml.MapSlice:
		out := make(yaml.MapSlice, len(x))
		for i, item := range x {
			out[i] = yaml.MapItem{Key: item.Key, Value: replaced(item.Value, set)}
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k := range x {
			out[k] = replaced(x[k], set)
		}
		return out
	}
	return v
}
