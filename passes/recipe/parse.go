package recipe

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/runtime/calib"
)

// Error is a mistake in a recipe, with its place.
type Error struct {
	File         string
	Line, Column int // from 1
	Msg          string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Msg)
}

// Parse decodes a recipe strictly: unknown keys, wrong types, schemes, calibrators and steps that do not parse are errors
// with their place. file is for messages.
func Parse(file string, data []byte) (*Recipe, error) {
	f, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	d := &decoder{file: file, r: &Recipe{}}
	if len(f.Docs) > 1 {
		return nil, fmt.Errorf("%s: holds %d documents, wanted one", file, len(f.Docs))
	}
	if len(f.Docs) == 0 || f.Docs[0].Body == nil {
		return d.r, nil
	}
	if _, null := f.Docs[0].Body.(*ast.NullNode); null {
		return d.r, nil
	}
	if err := d.mapping(f.Docs[0].Body, "recipe", map[string]reader{
		"preset":  d.preset,
		"samples": d.samples,
		"policy":  d.policy,
		"passes":  d.passes,
	}, d.foreign); err != nil {
		return nil, err
	}
	return d.r, d.finishForeign()
}

// ParsePolicy decodes the text that Policy.String prints: a recipe's policy by itself.
func ParsePolicy(file string, data []byte) (*passes.Policy, error) {
	f, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	d := &decoder{file: file, r: &Recipe{}}
	if len(f.Docs) == 0 || f.Docs[0].Body == nil {
		return &d.r.Policy, nil
	}
	if err := d.policy(f.Docs[0].Body); err != nil {
		return nil, err
	}
	return &d.r.Policy, d.finishForeign()
}

// reader decodes the value of one key.
type reader func(ast.Node) error

type decoder struct {
	file string
	r    *Recipe
	ort  ortKeys
}

func (d *decoder) errorf(n ast.Node, format string, args ...any) error {
	e := &Error{File: d.file, Line: 1, Column: 1, Msg: fmt.Sprintf(format, args...)}
	if t := n.GetToken(); t != nil && t.Position != nil {
		e.Line, e.Column = t.Position.Line, t.Position.Column
	}
	return e
}

// at puts the place of a node before an error of another package.
func (d *decoder) at(n ast.Node, err error) error {
	if err == nil {
		return nil
	}
	return d.errorf(n, "%v", err)
}

// entries returns the key-value pairs of a mapping.
func (d *decoder) entries(n ast.Node, what string) ([]*ast.MappingValueNode, error) {
	switch m := n.(type) {
	case *ast.MappingNode:
		return m.Values, nil
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{m}, nil
	}
	return nil, d.errorf(n, "%s: wanted keys and values, found %s", what, kindOf(n))
}

// mapping decodes a mapping by its keys; other decodes the keys that are not listed (nil: they are errors).
func (d *decoder) mapping(n ast.Node, what string, keys map[string]reader, other func(key string, k, v ast.Node) (known bool, err error)) error {
	entries, err := d.entries(n, what)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, e := range entries {
		key := e.Key.GetToken().Value
		if seen[key] {
			return d.errorf(e.Key, "%s: key %q appears twice", what, key)
		}
		seen[key] = true
		if read, ok := keys[key]; ok {
			if err := read(e.Value); err != nil {
				return err
			}
			continue
		}
		if other != nil {
			known, err := other(key, e.Key, e.Value)
			if err != nil {
				return err
			}
			if known {
				continue
			}
		}
		var names []string
		for k := range keys {
			names = append(names, k)
		}
		slices.Sort(names)
		return d.errorf(e.Key, "%s: unknown key %q, wanted one of %s", what, key, strings.Join(names, ", "))
	}
	return nil
}

// text decodes a scalar as the text it was written as.
func (d *decoder) text(n ast.Node, what string) (string, error) {
	switch s := n.(type) {
	case *ast.StringNode:
		return s.Value, nil
	case *ast.LiteralNode:
		return s.Value.Value, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, nil
	}
	return "", d.errorf(n, "%s: wanted text, found %s", what, kindOf(n))
}

func (d *decoder) count(n ast.Node, what string) (int, error) {
	s, err := d.text(n, what)
	if err != nil {
		return 0, err
	}
	k, err := strconv.Atoi(s)
	if err != nil || k < 1 {
		return 0, d.errorf(n, "%s: wanted a number from 1 on, found %q", what, s)
	}
	return k, nil
}

func (d *decoder) list(n ast.Node, what string) ([]ast.Node, error) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		return nil, d.errorf(n, "%s: wanted a list, found %s", what, kindOf(n))
	}
	return s.Values, nil
}

func kindOf(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys and values"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	}
	return fmt.Sprintf("%q", n.GetToken().Value)
}

func (d *decoder) preset(n ast.Node) (err error) {
	if d.r.Preset, err = d.text(n, "preset"); err != nil {
		return err
	}
	if !slices.ContainsFunc(Presets, func(p PresetInfo) bool { return p.Name == d.r.Preset }) {
		_, err = Preset(d.r.Preset)
	}
	return d.at(n, err)
}

func (d *decoder) samples(n ast.Node) error {
	return d.mapping(n, "samples", map[string]reader{
		"path":  func(n ast.Node) (err error) { d.r.Samples.Path, err = d.text(n, "samples.path"); return err },
		"count": func(n ast.Node) (err error) { d.r.Samples.Count, err = d.count(n, "samples.count"); return err },
		"tokenizer": func(n ast.Node) (err error) {
			d.r.Samples.Tokenizer, err = d.text(n, "samples.tokenizer")
			return err
		},
		"seq-len": func(n ast.Node) (err error) { d.r.Samples.SeqLen, err = d.count(n, "samples.seq-len"); return err },
		"preprocess": func(n ast.Node) (err error) {
			d.r.Samples.Preprocess, err = d.text(n, "samples.preprocess")
			return err
		},
	}, nil)
}

func (d *decoder) passes(n ast.Node) error {
	nodes, err := d.list(n, "passes")
	if err != nil {
		return err
	}
	d.r.Passes = []string{}
	for _, s := range nodes {
		step, err := d.text(s, "passes")
		if err != nil {
			return err
		}
		if _, err := passes.ParsePipeline(step); err != nil {
			return d.at(s, err)
		}
		d.r.Passes = append(d.r.Passes, step)
	}
	_, err = passes.ParsePipeline(d.r.Passes...)
	return d.at(n, err)
}

func (d *decoder) policy(n ast.Node) error {
	p := &d.r.Policy
	return d.mapping(n, "policy", map[string]reader{
		"default":   func(n ast.Node) error { return d.schemes(n, "policy.default", &p.Default, nil) },
		"attention": func(n ast.Node) error { return d.schemes(n, "policy.attention", &p.Attention, nil) },
		"lookup":    func(n ast.Node) error { return d.schemes(n, "policy.lookup", &p.Lookup, nil) },
		"head":      func(n ast.Node) error { return d.schemes(n, "policy.head", &p.Head, nil) },
		"sites":     d.sites,
		"calibrate": d.calibrate,
	}, d.foreign)
}

func (d *decoder) calibrate(n ast.Node) error {
	s, err := d.text(n, "calibrate")
	if err != nil {
		return err
	}
	m, err := calib.ParseMethod(s)
	d.r.Policy.Calibrate = m.String()
	return d.at(n, err)
}

// schemes decodes weights, inputs and outputs, and the further keys of more.
func (d *decoder) schemes(n ast.Node, what string, into *passes.Schemes, more map[string]reader) error {
	keys := map[string]reader{}
	for _, role := range []numfmt.Role{numfmt.Weight, numfmt.Input, numfmt.Output} {
		key := role.String() + "s"
		keys[key] = func(n ast.Node) error {
			s, err := d.text(n, what+"."+key)
			if err != nil {
				return err
			}
			return d.at(n, into.Set(role, s))
		}
	}
	for k, r := range more {
		keys[k] = r
	}
	return d.mapping(n, what, keys, nil)
}

func (d *decoder) sites(n ast.Node) error {
	nodes, err := d.list(n, "policy.sites")
	if err != nil {
		return err
	}
	for _, s := range nodes {
		var r passes.Rule
		err := d.schemes(s, "policy.sites", &r.Schemes, map[string]reader{
			"match": func(n ast.Node) (err error) { r.Match, err = d.text(n, "match"); return err },
			"op":    func(n ast.Node) (err error) { r.Op, err = d.text(n, "op"); return err },
		})
		if err != nil {
			return err
		}
		if r.Match == "" && r.Op == "" {
			return d.errorf(s, "policy.sites: an entry selects by match or op, this one has neither")
		}
		if r.Schemes == (passes.Schemes{}) {
			return d.errorf(s, "policy.sites: %v gives no scheme: wanted weights, inputs or outputs", r)
		}
		if t := s.GetToken(); t != nil && t.Position != nil {
			line := t.Position.Line
			if es, err := d.entries(s, "sites"); err == nil && len(es) > 0 {
				line = es[0].Key.GetToken().Position.Line
			}
			r.Where = fmt.Sprintf("%s:%d", d.file, line)
		}
		d.r.Policy.Sites = append(d.r.Policy.Sites, r)
	}
	return nil
}
