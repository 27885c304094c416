package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"github.com/qsimc/qsimc/cmd/qsimc/report"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/runtime"
	"github.com/spf13/cobra"
)

// inspection is the command's JSON document.
type inspection struct {
	Model       string            `json:"model"`
	IRVersion   int               `json:"ir_version"`
	Opsets      map[string]int    `json:"opsets"`
	Producer    string            `json:"producer"`
	Inputs      []port            `json:"inputs"`
	Outputs     []port            `json:"outputs"`
	Nodes       int               `json:"nodes"`
	Operators   map[string]int    `json:"operators"`
	Parameters  int               `json:"parameters"`
	Bytes       int64             `json:"parameter_bytes"`
	Formats     map[string]int    `json:"formats"` // element types of constants: number of elements
	Sites       []siteInfo        `json:"sites"`
	Structure   *passes.Structure `json:"structure"` // null where the model's operators contradict themselves
	Unsupported []string          `json:"unsupported"`
	Gaps        []string          `json:"inference_gaps"`
}

type port struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

type siteInfo struct {
	Name     string        `json:"name"`
	Kind     string        `json:"kind"`
	Op       string        `json:"op"`
	Float    string        `json:"float,omitempty"` // why it stays float
	Operands []operandInfo `json:"operands"`
}

type operandInfo struct {
	Role  string `json:"role"`
	Value string `json:"value"`
	Type  string `json:"type"`
	Float string `json:"float,omitempty"`
}

func (a *app) inspectCommand() *cobra.Command {
	var f recipeFlags
	var sites, pipeline bool
	c := &cobra.Command{
		Use:   "inspect MODEL",
		Short: "operators, opsets, inputs and outputs, parameters, sites, what the runtime cannot run",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			if pipeline {
				r, err := f.recipe(c)
				if err != nil {
					return err
				}
				_, err = fmt.Fprint(a.out, r)
				return err
			}
			return a.inspect(c.Context(), names[0], sites)
		},
	}
	f.add(c)
	c.Flags().BoolVar(&sites, "sites", false, "list every site and its operands")
	c.Flags().BoolVar(&pipeline, "pipeline", false, "print the recipe that -c, --preset and -p make, in normal form")
	return c
}

func (a *app) inspect(ctx context.Context, path string, sites bool) error {
	m, err := frontend.Load(path)
	if err != nil {
		return err
	}
	doc := inspection{Model: path, IRVersion: m.IRVersion, Opsets: m.Opset, Producer: strings.TrimSpace(m.Producer + " " + m.ProducerVersion),
		Operators: map[string]int{}, Formats: map[string]int{}, Inputs: []port{}, Outputs: []port{}, Sites: []siteInfo{}, Unsupported: []string{}, Gaps: []string{}}
	for _, v := range m.Graph.FreeInputs() {
		doc.Inputs = append(doc.Inputs, port{v.Name, v.Type.String()})
	}
	for _, o := range m.Graph.Outputs() {
		doc.Outputs = append(doc.Outputs, port{o.Name, o.Value.Type.String()})
	}
	for n := range m.Nodes() {
		doc.Nodes++
		doc.Operators[n.Op.String()]++
	}
	for g := range m.Graphs() {
		for _, c := range g.Consts() {
			t := c.Const()
			doc.Parameters += t.Len()
			doc.Bytes += int64(t.Size())
			doc.Formats[t.Elem().String()] += t.Len()
		}
	}
	for _, s := range passes.FindSites(m) {
		info := siteInfo{Name: s.Name, Kind: s.Kind.String(), Op: s.OpType(), Float: s.Float, Operands: []operandInfo{}}
		for _, o := range s.Operands {
			info.Operands = append(info.Operands, operandInfo{o.Role.String(), o.Value.Name, o.Value.Type.String(), o.Float})
		}
		doc.Sites = append(doc.Sites, info)
	}
	if doc.Structure, err = passes.Recognize(m); err != nil {
		doc.Gaps = append(doc.Gaps, err.Error())
	}
	var u *runtime.Unsupported
	if _, err := runtime.CompileWith(ctx, m, runtime.Options{}); errors.As(err, &u) {
		doc.Unsupported = u.Nodes
	} else if ctx.Err() != nil {
		return ctx.Err()
	} else if err != nil {
		doc.Unsupported = []string{err.Error()}
	}
	if gaps, err := op.InferReport(m); err == nil && gaps != nil {
		doc.Gaps = append(doc.Gaps, gaps...)
	}
	if a.json {
		return a.printJSON(doc)
	}
	return a.printInspection(m, &doc, sites)
}

func (a *app) printInspection(m *ir.Model, d *inspection, sites bool) error {
	w := a.out
	var opsets []string
	for _, k := range slices.Sorted(maps.Keys(m.Opset)) {
		opsets = append(opsets, fmt.Sprintf("%s %d", cmp.Or(k, "ai.onnx"), m.Opset[k]))
	}
	fmt.Fprintf(w, "%s: IR version %d, opset %s, by %s\n", d.Model, d.IRVersion, strings.Join(opsets, ", "), cmp.Or(d.Producer, "an unnamed producer"))
	fmt.Fprintf(w, "%d nodes, %d parameters in %s\n", d.Nodes, d.Parameters, report.Bytes(d.Bytes))
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, p := range d.Inputs {
		fmt.Fprintf(t, "input\t%s\t%s\n", p.Name, p.Type)
	}
	for _, p := range d.Outputs {
		fmt.Fprintf(t, "output\t%s\t%s\n", p.Name, p.Type)
	}
	names := slices.SortedFunc(maps.Keys(d.Operators), func(x, y string) int {
		return cmp.Or(d.Operators[y]-d.Operators[x], cmp.Compare(x, y))
	})
	var ops []string
	for _, n := range names {
		ops = append(ops, fmt.Sprintf("%s %d", n, d.Operators[n]))
	}
	fmt.Fprintf(t, "operators\t%s\n", strings.Join(ops, ", "))
	for _, f := range slices.Sorted(maps.Keys(d.Formats)) {
		fmt.Fprintf(t, "constants\t%s\t%d elements\n", f, d.Formats[f])
	}
	kinds := map[string]int{}
	for _, s := range d.Sites {
		kinds[s.Kind]++
	}
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Fprintf(t, "sites\t%s\t%d\n", k, kinds[k])
	}
	for _, n := range d.Unsupported {
		fmt.Fprintf(t, "cannot run\t%s\n", n)
	}
	for _, g := range d.Gaps {
		fmt.Fprintf(t, "inference\t%s\n", g)
	}
	if sites {
		fmt.Fprintln(t)
		fmt.Fprintln(t, "site\tkind\trole\tvalue\ttype\tstays float because")
		for _, s := range d.Sites {
			if len(s.Operands) == 0 {
				fmt.Fprintf(t, "%s\t%s %s\t\t\t\t%s\n", s.Name, s.Kind, s.Op, s.Float)
			}
			for _, o := range s.Operands {
				fmt.Fprintf(t, "%s\t%s %s\t%s\t%s\t%s\t%s\n", s.Name, s.Kind, s.Op, o.Role, o.Value, o.Type, cmp.Or(s.Float, o.Float))
			}
		}
		if d.Structure != nil {
			printStructure(t, d.Structure)
		}
	}
	return t.Flush()
}

// printStructure lists what channel rewrites recognize: groups of products that read the same value, attention, gated MLPs, shared
// weights, residual sums.
func printStructure(t *tabwriter.Writer, s *passes.Structure) {
	fmt.Fprintln(t, "\nread by the same products\tmade by\tfactors of its channels\tproducts")
	for _, g := range s.Groups {
		made := cmp.Or(g.Norm, "-")
		if g.Spelled {
			made += ", spelled out"
		}
		absorbed := g.Absorbed
		if absorbed == "" {
			absorbed = "Mul: " + g.Blocked
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", g.Value, made, absorbed, strings.Join(g.Sites, ", "))
	}
	if len(s.Attentions) > 0 {
		fmt.Fprintln(t, "\nattention\tform\tquery, key, value\toutput")
	}
	for _, a := range s.Attentions {
		fmt.Fprintf(t, "%s\t%v\t%s; %s; %s\t%s\n", a.Scores, a, strings.Join(a.Query, ", "), strings.Join(a.Key, ", "), strings.Join(a.Value, ", "), strings.Join(a.Output, ", "))
	}
	if len(s.Gates) > 0 {
		fmt.Fprintln(t, "\ngated\tgate\tup\tdown")
	}
	for _, g := range s.Gates {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", g.Value, strings.Join(g.Gate, ", "), strings.Join(g.Up, ", "), strings.Join(g.Down, ", "))
	}
	for _, k := range s.Tied {
		fmt.Fprintf(t, "\nshared\t%s\tby\t%s\n", k.Const, strings.Join(k.Sites, ", "))
	}
	if len(s.Residuals) > 0 {
		fmt.Fprintf(t, "\nresidual sums\t%d\n", len(s.Residuals))
	}
}
