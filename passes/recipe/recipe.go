// Package recipe reads the YAML file that says how a model is to be rewritten (CLI.md §3), and holds the presets, which are
// recipes too.
//
//	r, err := recipe.Parse("qsimc.yaml", data)
//	full, err := r.Resolved()          // its preset, overridden by its own keys
//	pipeline, err := full.Pipeline()
package recipe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/qsimc/qsimc/passes"
)

// Recipe is a decoded recipe.
type Recipe struct {
	Preset  string // base that the other keys override; "" none
	Samples Samples
	Policy  passes.Policy
	Passes  []string // steps; nil if the recipe does not say
}

// Samples says where calibration inputs are.
type Samples struct {
	Path  string
	Count int // 0: all

	Tokenizer  string // tokenizer.json, where Path is a text file
	SeqLen     int    // tokens in a sequence of it
	Preprocess string // where Path is a folder of images
}

// Resolved returns the recipe laid over its preset: single keys override the preset's, rules for sites come after the
// preset's and so win, passes replace the preset's.
func (r *Recipe) Resolved() (*Recipe, error) {
	if r.Preset == "" {
		return r, nil
	}
	p, err := Preset(r.Preset)
	if err != nil {
		return nil, err
	}
	return r.Over(p), nil
}

// Over returns the recipe laid over a base. The result names no preset.
func (r *Recipe) Over(base *Recipe) *Recipe {
	c := *r
	c.Preset = ""
	if s, b := &c.Samples, base.Samples; s.Path == "" {
		s.Path, s.Tokenizer, s.SeqLen, s.Preprocess = b.Path, b.Tokenizer, b.SeqLen, b.Preprocess
	}
	if c.Samples.Count == 0 {
		c.Samples.Count = base.Samples.Count
	}
	over := func(s *passes.Schemes, b passes.Schemes) {
		if s.Weights == nil {
			s.Weights = b.Weights
		}
		if s.Inputs == nil {
			s.Inputs = b.Inputs
		}
		if s.Outputs == nil {
			s.Outputs = b.Outputs
		}
	}
	over(&c.Policy.Default, base.Policy.Default)
	over(&c.Policy.Attention, base.Policy.Attention)
	over(&c.Policy.Lookup, base.Policy.Lookup)
	over(&c.Policy.Head, base.Policy.Head)
	c.Policy.Sites = slices.Concat(base.Policy.Sites, r.Policy.Sites)
	if c.Policy.Calibrate == "" {
		c.Policy.Calibrate = base.Policy.Calibrate
	}
	if c.Passes == nil {
		c.Passes = base.Passes
	}
	return &c
}

// Pipeline parses the recipe's passes; a recipe without passes has an empty pipeline.
func (r *Recipe) Pipeline() (*passes.Pipeline, error) { return passes.ParsePipeline(r.Passes...) }

// String prints the recipe in normal form, which Parse reads back: keys in fixed order, schemes and steps in normal form.
// Steps that do not parse are printed as they are.
func (r *Recipe) String() string {
	var b strings.Builder
	if r.Preset != "" {
		fmt.Fprintf(&b, "preset: %s\n", r.Preset)
	}
	if r.Samples != (Samples{}) {
		var parts []string
		if r.Samples.Path != "" {
			parts = append(parts, "path: "+quote(r.Samples.Path))
		}
		if r.Samples.Count != 0 {
			parts = append(parts, fmt.Sprintf("count: %d", r.Samples.Count))
		}
		if r.Samples.Tokenizer != "" {
			parts = append(parts, "tokenizer: "+quote(r.Samples.Tokenizer))
		}
		if r.Samples.SeqLen != 0 {
			parts = append(parts, fmt.Sprintf("seq-len: %d", r.Samples.SeqLen))
		}
		if r.Samples.Preprocess != "" {
			parts = append(parts, "preprocess: "+quote(r.Samples.Preprocess))
		}
		fmt.Fprintf(&b, "samples: {%s}\n", strings.Join(parts, ", "))
	}
	if p := r.Policy.String(); p != "" {
		b.WriteString("policy:\n")
		for l := range strings.Lines(p) {
			b.WriteString("  " + l)
		}
	}
	if r.Passes != nil {
		steps := r.Passes
		if pl, err := r.Pipeline(); err == nil {
			steps = pl.Steps()
		}
		quoted := make([]string, len(steps))
		for i, s := range steps {
			quoted[i] = quote(s)
		}
		fmt.Fprintf(&b, "passes: [%s]\n", strings.Join(quoted, ", "))
	}
	return b.String()
}

// quote puts text into double quotes where YAML could read it as something else than this text.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_./-", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 && (s[0] >= 'a' && s[0] <= 'z' || s[0] >= 'A' && s[0] <= 'Z' || s[0] == '/') {
		switch strings.ToLower(s) {
		case "true", "false", "yes", "no", "on", "off", "null", "y", "n":
		default:
			return s
		}
	}
	return fmt.Sprintf("%q", s)
}
