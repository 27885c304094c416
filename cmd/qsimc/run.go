package main

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/backend"
	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime"
	"github.com/spf13/cobra"
)

type runFlags struct {
	inputs, out, maxMemory string
	count                  int
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run MODEL --inputs PATH [-o OUT.npz]",
		Short: "execute a model on the Go runtime",
		Long: `run executes a model on every sample of the inputs and prints the shape and a summary of each output, or writes the outputs to OUT.npz, those of
several samples one after the other along the leading axis.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error { return a.runModel(c, names[0], &f) },
	}
	c.Flags().StringVar(&f.inputs, "inputs", "", "inputs: .npz, .npy, a folder, or synthetic")
	c.Flags().StringVarP(&f.out, "output", "o", "", "write the outputs to this .npz")
	c.Flags().IntVar(&f.count, "count", 0, "samples to run (default: all)")
	c.Flags().StringVar(&f.maxMemory, "max-memory", "", "bound for tensors alive in a run, as 8GB or 512MiB (default: 80 % of the machine's)")
	return c
}

// outputSummary describes one output over all samples.
type outputSummary struct {
	Name  string  `json:"name"`
	Type  string  `json:"type"` // of the last sample
	Min   float64 `json:"min"`
	Max   float64 `json:"max"`
	Mean  float64 `json:"mean"`
	sum   float64
	count int
}

func (s *outputSummary) add(t *ir.Tensor) {
	s.Type = t.Type().String()
	x, ok := t.Float32s()
	if !ok {
		return
	}
	for _, v := range x {
		f := float64(v)
		if s.count == 0 {
			s.Min, s.Max = f, f
		}
		s.Min, s.Max = math.Min(s.Min, f), math.Max(s.Max, f)
		s.sum += f
		s.count++
	}
	s.Mean = s.sum / math.Max(float64(s.count), 1)
}

func (a *app) runModel(c *cobra.Command, path string, f *runFlags) error {
	if f.inputs == "" {
		return usagef("run: --inputs PATH is wanted (synthetic is an explicit choice)")
	}
	limit, err := parseSize(f.maxMemory)
	if err != nil {
		return usagef("run: --max-memory: %w", err)
	}
	m, err := frontend.Load(path)
	if err != nil {
		return err
	}
	p, err := runtime.CompileWith(c.Context(), m, runtime.Options{MaxMemory: limit})
	if err != nil {
		return err
	}
	data, err := frontend.OpenData(f.inputs, m, frontend.DataOptions{Count: f.count, Seed: uint64(a.seed)})
	if err != nil {
		return err
	}
	names := p.Outputs()
	sums := make([]outputSummary, len(names))
	kept := make([][]*ir.Tensor, len(names))
	bar := a.meter("run", data.Len)
	done := 0
	for feed, err := range data.Feeds() {
		if err != nil {
			return err
		}
		out, err := p.Run(c.Context(), feed.Tensors)
		if err != nil {
			return fmt.Errorf("sample %d: %w", done, err)
		}
		for i, n := range names {
			sums[i].Name = n
			sums[i].add(out[n])
			if f.out != "" {
				kept[i] = append(kept[i], out[n])
			}
		}
		done++
		bar.set(done)
	}
	bar.stop()
	if f.out != "" {
		result := ir.Tensors{}
		for i, n := range names {
			if result[n], err = concat(kept[i]); err != nil {
				return fmt.Errorf("output %q: %w", n, err)
			}
		}
		if err := backend.SaveNPZ(f.out, result); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(map[string]any{"model": path, "samples": done, "outputs": sums})
	}
	for _, s := range sums {
		fmt.Fprintf(a.out, "%s %s  min %.6g  max %.6g  mean %.6g\n", s.Name, s.Type, s.Min, s.Max, s.Mean)
	}
	return nil
}

// concat joins the results of several samples along the leading axis.
func concat(parts []*ir.Tensor) (*ir.Tensor, error) {
	if len(parts) == 1 {
		return parts[0], nil
	}
	if len(parts) == 0 {
		return nil, fmt.Errorf("no sample was run")
	}
	first := parts[0].Shape()
	if len(first) == 0 {
		first = []int{1}
	}
	lead := 0
	var data []byte
	for i, t := range parts {
		s := t.Shape()
		if len(s) == 0 {
			s = []int{1}
		}
		if t.Elem().Bits() < 8 || len(s) != len(first) || fmt.Sprint(s[1:]) != fmt.Sprint(first[1:]) {
			return nil, fmt.Errorf("sample %d has %v, the first %v: they do not join in one array", i, t.Type(), parts[0].Type())
		}
		lead += s[0]
		data = append(data, t.Bytes()...)
	}
	return ir.TensorOf(parts[0].Elem(), append([]int{lead}, first[1:]...), data)
}
