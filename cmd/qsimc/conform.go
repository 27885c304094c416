package main

import (
	"fmt"

	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/conform"
	"github.com/spf13/cobra"
)

func (a *app) conformCommand() *cobra.Command {
	var o conform.Options
	c := &cobra.Command{
		Use:   "conform DIR…",
		Short: "run ONNX backend-test folders (model.onnx, test_data_set_N/{input,output}_K.pb), recursively",
		Long: `conform runs every folder below DIR that holds a model.onnx on the Go runtime and compares the results with the stored outputs.

Tolerance: |Δ| ≤ atol + rtol·|y| with rtol 1e-3 and atol 1e-5 (float16, bfloat16: 1e-2 both; floats of 8 bits and fewer: one code); in graphs of
more than 50 nodes atol is at least 1e-4·max|y| of the output, 1e-3 with LSTM, GRU, RNN, Loop or Scan. NaN equals NaN; integers and bools are exact.`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, dirs []string) error {
			folders, err := conform.Find(dirs...)
			if err != nil {
				return err
			}
			if len(folders) == 0 {
				return fmt.Errorf("conform: no model.onnx below %v", dirs)
			}
			m := a.meter("conform", len(folders))
			done := 0
			if o.Jobs == 0 {
				o.Jobs = runtime.Cores()
			}
			s := conform.Run(c.Context(), folders, o, func(k conform.Case) {
				done++
				m.set(done)
				if !a.json && k.Status != conform.Pass {
					fmt.Fprintf(a.out, "%-11s %s: %s\n", k.Status, k.Name, k.Detail)
				}
			})
			m.stop()
			if err := c.Context().Err(); err != nil {
				return err
			}
			if a.json {
				if err := a.printJSON(s); err != nil {
					return err
				}
			} else {
				fmt.Fprintf(a.out, "%d passed, %d failed, %d unsupported, %d skipped\n", s.Passed, s.Failed, s.Unsupported, s.Skipped)
			}
			if s.Failed > 0 {
				return errCheck
			}
			return nil
		},
	}
	c.Flags().Float64Var(&o.RTol, "rtol", 0, "relative tolerance in place of the above")
	c.Flags().Float64Var(&o.ATol, "atol", 0, "absolute tolerance in place of the above")
	return c
}
