package main

import (
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/eval"
	"github.com/spf13/cobra"
)

type evalFlags struct {
	data, against, metric string
	count, batch          int
}

func (a *app) evalCommand() *cobra.Command {
	var f evalFlags
	c := &cobra.Command{
		Use:   "eval MODEL --data PATH [--against FLOAT.onnx]",
		Short: "a task metric over a data set: perplexity, accuracy, error, agreement",
		Long: `eval runs a model over a data set and prints a metric.

Data: ids.npy (int64 [N, L]) is fed as the model's integer input of rank 2 and gives ppl = exp(mean −log softmax(logits[:, t])[ids[:, t+1]]);
data.npz holds arrays by input name, "labels" give top1 and top5 of the first output, arrays named as an output give mse and sqnr against it;
a folder holds test_data_set_N. agree, with --against, is the share of rows whose largest element is at the same index in both models.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error { return a.eval(c, names[0], &f) },
	}
	c.Flags().StringVar(&f.data, "data", "", "ids.npy, data.npz or a folder")
	c.Flags().StringVar(&f.against, "against", "", "model to compare with")
	c.Flags().StringVar(&f.metric, "metric", "auto", "auto, ppl, top1, top5, mse, sqnr or agree")
	c.Flags().IntVar(&f.count, "count", 0, "samples to use (default: all)")
	c.Flags().IntVar(&f.batch, "batch", 0, "samples in a run (default: 1, or what the model's shape fixes)")
	return c
}

// evaluated is the command's JSON document.
type evaluated struct {
	Model string `json:"model"`
	*eval.Result
	Against *against `json:"against,omitempty"`
}

type against struct {
	Model string   `json:"model"`
	Value *float64 `json:"value"`
	Delta *float64 `json:"delta"`
}

func (a *app) eval(c *cobra.Command, path string, f *evalFlags) error {
	if f.data == "" {
		return usagef("eval: --data PATH is wanted")
	}
	if !slices.Contains(eval.Metrics, f.metric) {
		return usagef("eval: --metric %s: wanted one of %v", f.metric, eval.Metrics)
	}
	m, err := frontend.Load(path)
	if err != nil {
		return err
	}
	var other *ir.Model
	if f.against != "" {
		if other, err = frontend.Load(f.against); err != nil {
			return err
		}
	}
	data, err := frontend.OpenData(f.data, m, frontend.DataOptions{Count: f.count, Batch: f.batch, Extra: true, Seed: uint64(a.seed)})
	if err != nil {
		return err
	}
	bar := a.meter("eval", data.Len)
	r, err := eval.Run(c.Context(), m, data, eval.Options{Metric: f.metric, Against: other, Jobs: a.jobs, Progress: bar.set})
	bar.stop()
	if err != nil {
		return err
	}
	doc := evaluated{Model: path, Result: r}
	if other != nil {
		doc.Against = &against{Model: f.against}
		if r.Against != nil {
			delta := r.Value - r.Against.Value
			doc.Against.Value, doc.Against.Delta = &r.Against.Value, &delta
		}
	}
	if a.json {
		return a.printJSON(doc)
	}
	fmt.Fprintf(a.out, "%s %.6g  (%d samples, %d positions, %.1f s)\n", r.Metric, r.Value, r.Samples, r.Positions, r.Seconds)
	if r.Against != nil {
		fmt.Fprintf(a.out, "%s %.6g for %s, difference %+.6g (%+.3f %%)\n", r.Metric, r.Against.Value, f.against,
			*doc.Against.Delta, 100**doc.Against.Delta/r.Against.Value)
	}
	return nil
}
