package main

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/passes/recipe"
	"github.com/spf13/cobra"
)

// table writes rows of cells, or the same as JSON objects keyed by the header.
func (a *app) table(header []string, rows [][]string) error {
	if a.json {
		list := make([]map[string]string, len(rows))
		for i, r := range rows {
			list[i] = map[string]string{}
			for k, h := range header {
				list[i][h] = r[k]
			}
		}
		return a.printJSON(list)
	}
	t := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(header, "\t"))
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	return t.Flush()
}

func (a *app) opsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ops",
		Short: "the operators the runtime knows: versions and types",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			var rows [][]string
			for _, d := range op.Sorted() {
				var vs []string
				for _, v := range d.Versions {
					vs = append(vs, strconv.Itoa(v))
				}
				rows = append(rows, []string{d.ID().String(), strings.Join(vs, ","), d.Types, d.Doc})
			}
			return a.table([]string{"operator", "versions", "types", "what"}, rows)
		},
	}
}

func (a *app) formatsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "formats",
		Short: "the number formats: grid, bits per value, ONNX carrier",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			var rows [][]string
			for _, e := range numfmt.List() {
				opset := "-"
				if e.Opset > 0 {
					opset = strconv.Itoa(e.Opset)
				}
				rows = append(rows, []string{e.Name, strconv.FormatFloat(e.BitsPerValue, 'g', 4, 64), e.Grid, e.Carrier, opset, e.Note})
			}
			return a.table([]string{"format", "bits/value", "grid", "carrier", "opset", "note"}, rows)
		},
	}
}

func (a *app) passesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "passes [NAME]",
		Short: "the passes and their options",
		Args:  args(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, names []string) error {
			if len(names) == 0 {
				var rows [][]string
				for _, p := range passes.All {
					first, _, _ := strings.Cut(p.Doc, "\n")
					rows = append(rows, []string{p.Name, first})
				}
				return a.table([]string{"pass", "what"}, rows)
			}
			p, ok := passes.Lookup(names[0])
			if !ok {
				return usagef("passes: no pass is named %q", names[0])
			}
			if a.json {
				return a.printJSON(p)
			}
			fmt.Fprintf(a.out, "%s: %s\n", p.Name, p.Doc)
			var rows [][]string
			for _, o := range p.Options {
				rows = append(rows, []string{o.Name, o.Type, o.Default, o.Doc})
			}
			if rows != nil {
				fmt.Fprintln(a.out)
				return a.table([]string{"option", "type", "default", "what"}, rows)
			}
			return nil
		},
	}
}

func (a *app) presetsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "presets [NAME]",
		Short: "the presets: recipes by name",
		Args:  args(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, names []string) error {
			if len(names) == 0 {
				var rows [][]string
				for _, p := range recipe.Presets {
					rows = append(rows, []string{p.Name, p.Doc})
				}
				return a.table([]string{"preset", "what"}, rows)
			}
			r, err := recipe.Preset(names[0])
			if err != nil {
				return usageError{err}
			}
			_, err = fmt.Fprint(a.out, r)
			return err
		},
	}
}

func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.rewriteCommand(), a.runCommand(), a.evalCommand(), a.compareCommand(), a.analyzeCommand(), a.inspectCommand(), a.conformCommand(),
		a.sweepCommand(), a.passesCommand(), a.formatsCommand(), a.opsCommand(), a.presetsCommand(),
	}
}
