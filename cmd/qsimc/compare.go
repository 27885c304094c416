package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"text/tabwriter"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/spf13/cobra"
)

// difference is how far a value of one model is from the same value of another.
type difference struct {
	name string
	view bool // it only rearranges another value
	runtime.Difference
}

// compareOutputs runs both models over the first feeds (0: all) and compares their outputs by position.
func compareOutputs(ctx context.Context, a, b *ir.Model, data *frontend.Data, feeds int, o runtime.Options) ([]difference, error) {
	pa, err := runtime.CompileWith(ctx, a, o)
	if err != nil {
		return nil, err
	}
	pb, err := runtime.CompileWith(ctx, b, o)
	if err != nil {
		return nil, err
	}
	names, others := pa.Outputs(), pb.Outputs()
	if len(names) != len(others) {
		return nil, fmt.Errorf("%d outputs do not compare with %d", len(names), len(others))
	}
	diffs := make([]difference, len(names))
	n := 0
	for f, err := range data.Feeds() {
		if err != nil {
			return nil, err
		}
		x, err := pa.Run(ctx, f.Tensors)
		if err != nil {
			return nil, err
		}
		y, err := pb.Run(ctx, f.Tensors)
		if err != nil {
			return nil, err
		}
		for i, name := range names {
			diffs[i].name = name
			if err := diffs[i].Add(x[name], y[others[i]]); err != nil {
				return nil, fmt.Errorf("output %q: %w", name, err)
			}
		}
		if n++; n == feeds {
			break
		}
	}
	return diffs, nil
}

func (a *app) compareCommand() *cobra.Command {
	var samples string
	var count int
	c := &cobra.Command{
		Use:   "compare A.onnx B.onnx --samples PATH",
		Short: "run two models on the same inputs: SQNR, cosine and largest error of outputs and of matched inner values",
		Long: `compare runs two models on the same inputs and measures how far the outputs of the second, by position, and its inner values, by name, are from those
of the first. A value <t>_DequantizeLinear_Output or <t>_FakeQuant_Output of a quantized model is compared with the value or weight <t> of the other. The values come worst
first; ten that more than rearrange others are shown, all with -v or --json.`,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, names []string) error {
			if samples == "" {
				return usagef("compare: --samples PATH is wanted (synthetic is an explicit choice)")
			}
			return a.compare(c.Context(), names[0], names[1], samples, count)
		},
	}
	c.Flags().StringVar(&samples, "samples", "", "inputs: .npz, .npy, a folder, or synthetic")
	c.Flags().IntVar(&count, "count", 0, "samples to use (default: all)")
	return c
}

// comparison is a row of the result.
type comparison struct {
	Name   string   `json:"name"`
	SQNR   *float64 `json:"sqnr_db"` // null: no difference
	Cosine float64  `json:"cosine"`
	MaxAbs float64  `json:"max_abs_error"`
}

func (a *app) compare(ctx context.Context, first, second, samples string, count int) error {
	ma, err := frontend.Load(first)
	if err != nil {
		return err
	}
	mb, err := frontend.Load(second)
	if err != nil {
		return err
	}
	data, err := frontend.OpenData(samples, ma, frontend.DataOptions{Count: count, Seed: uint64(a.seed)})
	if err != nil {
		return err
	}
	outputs, err := compareOutputs(ctx, ma, mb, data, 0, runtime.Options{})
	if err != nil {
		return err
	}
	inner, err := a.compareInner(ctx, ma, mb, data)
	if err != nil {
		return err
	}
	slices.SortStableFunc(inner, func(x, y difference) int { return cmp.Compare(x.SQNR(), y.SQNR()) })
	if a.json {
		return a.printJSON(map[string]any{"a": first, "b": second, "outputs": rows(outputs), "values": rows(inner)})
	}
	t := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	list := func(what string, d []difference) {
		fmt.Fprintf(t, "%s\tSQNR\tcosine\tmax error\n", what)
		for _, r := range rows(d) {
			sqnr := "equal"
			if r.SQNR != nil {
				sqnr = fmt.Sprintf("%.2f dB", *r.SQNR)
			}
			fmt.Fprintf(t, "%s\t%s\t%.6f\t%.3g\n", r.Name, sqnr, r.Cosine, r.MaxAbs)
		}
	}
	list("output", outputs)
	if len(inner) > 0 {
		fmt.Fprintln(t)
		shown := inner
		if !a.verbose {
			shown = slices.DeleteFunc(slices.Clone(inner), func(d difference) bool { return d.view })
			shown = shown[:min(10, len(shown))]
		}
		list(fmt.Sprintf("value (worst %d of %d matched)", len(shown), len(inner)), shown)
	}
	return t.Flush()
}

func rows(d []difference) []comparison {
	out := make([]comparison, len(d))
	for i, x := range d {
		out[i] = comparison{Name: x.name, Cosine: x.Cosine(), MaxAbs: x.MaxAbs}
		if s := x.SQNR(); !math.IsInf(s, 1) {
			s = max(s, -999) // as reports say that there is no signal
			out[i].SQNR = &s
		}
	}
	return out
}

// dequantized finds the names that rewrite gives to the quantized form of a value <t>.
var dequantized = regexp.MustCompile(`^(.+)_(?:DequantizeLinear|FakeQuant)(?:_Output|_Cast)?(?:_[0-9]+)?$`)

// counterpart returns the first model's value that the second's value of this name stands for: the one of the same name, or
// for <t>_DequantizeLinear_Output the value or weight <t>.
func counterpart(name string, values ir.Tensors, weights map[string]*ir.Value) *ir.Tensor {
	if t := values[name]; t != nil {
		return t
	}
	m := dequantized.FindStringSubmatch(name)
	if m == nil {
		return nil
	}
	if t := values[m[1]]; t != nil {
		return t
	}
	if w := weights[m[1]]; w != nil {
		return w.Const()
	}
	return nil
}

// compareInner compares the float values that both models compute, matched by name. One feed's values of the first model are
// held at a time.
func (a *app) compareInner(ctx context.Context, ma, mb *ir.Model, data *frontend.Data) ([]difference, error) {
	pa, err := runtime.CompileWith(ctx, ma, runtime.Options{})
	if err != nil {
		return nil, err
	}
	pb, err := runtime.CompileWith(ctx, mb, runtime.Options{})
	if err != nil {
		return nil, err
	}
	computed := func(v *ir.Value, t *ir.Tensor) bool {
		return v.DefNode() != nil && t.Elem().IsFloat() && v.Graph().Owner() == nil
	}
	weights := map[string]*ir.Value{}
	for v := range ma.Graph.Values() {
		if v.Const() != nil {
			weights[v.Name] = v
		}
	}
	byName := map[string]int{}
	var diffs []difference
	done := 0
	m := a.meter("compare", data.Len)
	defer m.stop()
	for f, err := range data.Feeds() {
		if err != nil {
			return nil, err
		}
		values := ir.Tensors{}
		if _, err := pa.Watch(ctx, f.Tensors, func(v *ir.Value, t *ir.Tensor) error {
			if computed(v, t) {
				values[v.Name] = t
			}
			return nil
		}); err != nil {
			return nil, err
		}
		if _, err := pb.Watch(ctx, f.Tensors, func(v *ir.Value, t *ir.Tensor) error {
			x := counterpart(v.Name, values, weights)
			if x == nil || !computed(v, t) || x.Len() != t.Len() || x.Elem() != t.Elem() {
				return nil
			}
			i, ok := byName[v.Name]
			if !ok {
				i = len(diffs)
				byName[v.Name] = i
				_, _, view := op.Source(v.DefNode())
				diffs = append(diffs, difference{name: v.Name, view: view})
			}
			return diffs[i].Add(x, t)
		}); err != nil {
			return nil, err
		}
		done++
		m.set(done)
	}
	return diffs, nil
}
