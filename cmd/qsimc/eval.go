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
	sourceFlags
	data, text, images, against, metric string
	count, batch                        int
}

func (a *app) evalCommand() *cobra.Command {
	var f evalFlags
	c := &cobra.Command{
		Use:   "eval MODEL --data PATH|--text FILE|--images DIR [--against FLOAT.onnx]",
		Short: "a task metric over a data set: perplexity, accuracy, error, agreement",
		Long: `eval runs a model over a data set and prints a metric.

Data: ids.npy (int64 [N, L]) is fed as the model's integer input of rank 2 and gives ppl = exp(mean −log softmax(logits[:, t])[ids[:, t+1]]);
data.npz holds arrays by input name, "labels" give top1 and top5 of the first output, arrays named as an output give mse and sqnr against it;
a folder holds test_data_set_N. --text reads a text file: its ids by a Hugging Face tokenizer.json (byte-level BPE, no special tokens added), one stream
cut into sequences of --seq-len, the rest dropped. --images reads a folder of JPEG and PNG files, those that --labels lists (columns file and label or
class_index), as --preprocess says. agree, with --against, is the share of rows whose largest element is at the same index in both models.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error { return a.eval(c, names[0], &f) },
	}
	c.Flags().StringVar(&f.data, "data", "", "ids.npy, data.npz or a folder")
	c.Flags().StringVar(&f.text, "text", "", "text file, with --tokenizer and --seq-len")
	c.Flags().StringVar(&f.images, "images", "", "folder of images, with --preprocess and, for top1 and top5, --labels")
	f.add(c)
	c.Flags().StringVar(&f.labels, "labels", "", "CSV table of the images and their classes")
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

// source returns the path of the data, of which there is one, and checks that what it needs is there.
func (f *evalFlags) source() (string, error) {
	var paths []string
	for _, p := range []string{f.data, f.text, f.images} {
		if p != "" {
			paths = append(paths, p)
		}
	}
	switch {
	case len(paths) != 1:
		return "", usagef("eval: wanted one of --data PATH, --text FILE and --images DIR, found %d of them", len(paths))
	case f.text != "" && (f.tokenizer == "" || f.seqLen == 0):
		return "", usagef("eval: --text wants --tokenizer FILE and --seq-len N")
	case f.images != "" && f.preprocess == "":
		return "", usagef("eval: --images wants --preprocess, as in 'resize=256 crop=224'")
	case f.text == "" && (f.tokenizer != "" || f.seqLen != 0), f.images == "" && (f.preprocess != "" || f.labels != ""):
		return "", usagef("eval: --tokenizer and --seq-len go with --text, --preprocess and --labels with --images")
	}
	return paths[0], nil
}

func (a *app) eval(c *cobra.Command, path string, f *evalFlags) error {
	data, err := f.source()
	if err != nil {
		return err
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
	o := f.options(f.count, a.seed)
	o.Batch, o.Extra = f.batch, true
	set, err := frontend.OpenData(data, m, o)
	if err != nil {
		return err
	}
	bar := a.meter("eval", set.Len)
	r, err := eval.Run(c.Context(), m, set, eval.Options{Metric: f.metric, Against: other, Jobs: a.jobs, Progress: bar.set})
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
