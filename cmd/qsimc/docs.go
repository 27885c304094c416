package main

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/qsimc/qsimc/ir/op"
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

func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{a.conformCommand(), a.opsCommand()}
}
