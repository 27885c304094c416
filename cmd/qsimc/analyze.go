package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/passes/recipe"
	"github.com/qsimc/qsimc/passes/search"
	"github.com/qsimc/qsimc/runtime/eval"
	"github.com/spf13/cobra"
)

type analyzeFlags struct {
	recipeFlags
	loss, budget, target, data, out string
	choices                         []string
	measure, dataCount, effort      int
	proxy                           bool
}

func (a *app) analyzeCommand() *cobra.Command {
	var f analyzeFlags
	c := &cobra.Command{
		Use:   "analyze MODEL --samples PATH [-c RECIPE]",
		Short: "which site costs the accuracy: every site alone, and all up to it; a mixed-precision recipe for a budget",
		Long: `analyze quantizes each site of a model alone, and all sites up to it in the order of the graph, and measures how far the outputs move from the
float model's. Where the first output holds scores of classes (rank 2 or 3, made by a product or a Softmax) the loss is KL(softmax of float ‖ softmax of
quantized) in nats, a mean over rows; elsewhere Σ(x−y)²/Σx² over all float outputs. The schemes are those of the recipe; the model is calibrated once, on
all samples, and measured on the first --measure. Passes that fit the model to one policy (awq, rptq, gptq, biascorrect) are left out, and said to be.

--proxy ranks by estimates from each site's own operands instead and runs no quantized model: quick, and only a hint.

--budget bits=4.5 also searches for the width of each weight that costs the least with so many bits a weight, scales included; activations keep the recipe's
schemes. --target ppl+2% (top1-1%, ppl<25) with --data searches for the fewest bits that keep the metric that close to the float model's. Both start from
BAQ's closed form and go on with measured losses. -o writes the recipe that 'rewrite -c' takes. ONNX stores 3 bits in int4 and 5 and 6 bits in int8:
--choices int4,int8 keeps to what is stored as it is.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error { return a.analyze(c, names[0], &f) },
	}
	f.add(c)
	fl := c.Flags()
	fl.IntVar(&f.measure, "measure", 8, "samples on which losses are measured, from the first")
	fl.StringVar(&f.loss, "loss", "auto", "auto, kl or mse")
	fl.BoolVar(&f.proxy, "proxy", false, "rank by cheap estimates, labelled as such, instead of measured losses")
	fl.StringVar(&f.budget, "budget", "", "bits=N: search for the best recipe with N bits a weight")
	fl.StringVar(&f.target, "target", "", "METRIC+N%, METRIC-N% or METRIC<N: search for the smallest recipe that meets it on --data")
	fl.StringVar(&f.data, "data", "", "data for the metric of --target, as eval takes them; with --budget the metric is shown")
	fl.IntVar(&f.dataCount, "data-count", 0, "samples of --data to use (default: all)")
	fl.StringSliceVar(&f.choices, "choices", nil, "formats or schemes that a weight may get (default: 2, 3, 4, 5, 6 and 8 bits)")
	fl.IntVar(&f.effort, "effort", 32, "whole models to measure while the recipe is improved")
	fl.StringVarP(&f.out, "output", "o", "", "write the recipe that --budget or --target finds")
	return c
}

// check finds contradictions between the flags before anything is read.
func (f *analyzeFlags) check() error {
	searching := f.budget != "" || f.target != ""
	switch {
	case f.budget != "" && f.target != "":
		return usagef("analyze: --budget and --target exclude each other")
	case f.target != "" && f.data == "":
		return usagef("analyze: --target wants --data PATH")
	case f.proxy && searching:
		return usagef("analyze: --proxy measures nothing, so it does not go with --budget or --target")
	case f.out != "" && !searching:
		return usagef("analyze: -o writes what --budget or --target finds: give one")
	case !searching && (f.data != "" || f.choices != nil):
		return usagef("analyze: --data and --choices go with --budget or --target")
	case f.measure < 1 || f.effort < 0:
		return usagef("analyze: --measure must be at least 1, --effort at least 0")
	case !slices.Contains(search.Losses, f.loss):
		return usagef("analyze: --loss %s: wanted one of %v", f.loss, search.Losses)
	}
	return nil
}

// analysis is one run of the command.
type analysis struct {
	*app
	flags  *analyzeFlags
	path   string
	recipe *recipe.Recipe
	model  *ir.Model
	metric string       // of the data
	float  *eval.Result // nil without data
	data   *frontend.Data
	search *search.Analyzer
}

func (a *app) analyze(c *cobra.Command, path string, f *analyzeFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	goal, err := parseGoal(f)
	if err != nil {
		return err
	}
	rec, err := f.recipe(c)
	if err != nil {
		return err
	}
	if rec.Samples.Path == "" {
		return usagef("analyze: --samples PATH is wanted (synthetic is an explicit choice)")
	}
	pipeline, err := rec.Pipeline()
	if err != nil {
		return usageError{err}
	}
	m, err := frontend.Load(path)
	if err != nil {
		return err
	}
	samples, err := frontend.OpenData(rec.Samples.Path, m, frontend.DataOptions{Count: rec.Samples.Count, Seed: uint64(a.seed)})
	if err != nil {
		return err
	}
	j := &analysis{app: a, flags: f, path: path, recipe: rec, model: m, metric: goal.metric}
	steps := &stepMeter{app: a}
	j.search, err = search.Start(c.Context(), search.Config{
		Model: m, Policy: &rec.Policy, Pipeline: pipeline, Samples: samples.Samples(), Measure: f.measure, Loss: f.loss, Jobs: a.jobs, Seed: a.seed,
		Log: a.log(), Progress: func(what string, done, total int) {
			steps.at(passes.Step{Pass: "analyze", What: what, Done: done, Total: total})
		},
	})
	defer steps.stop()
	if err != nil {
		return err
	}
	for _, p := range j.search.LeftOut {
		a.log().Warn(fmt.Sprintf("the pass %s is left out: it fits the model to one policy, and sites are measured in many", p))
	}
	switch {
	case f.proxy:
		return j.proxies(c.Context(), steps)
	}
	found := &findings{Model: j.path, Kind: j.search.Metric, Samples: f.measure}
	if found.Sites, err = j.search.Sensitivity(c.Context()); err != nil {
		return err
	}
	if f.budget != "" || f.target != "" {
		if err := j.find(c.Context(), goal, found); err != nil {
			return err
		}
	}
	steps.stop()
	if j.json {
		return j.printJSON(found)
	}
	if err := j.printSites(found.Sites); err != nil || found.Plan == nil {
		return err
	}
	return j.printPlan(found)
}

// findings is the command's JSON document: what each site costs and, with --budget or --target, the recipe that was found.
type findings struct {
	Model   string       `json:"model"`
	Kind    string       `json:"loss"`
	Proxy   bool         `json:"proxy"`
	Samples int          `json:"samples"`
	Sites   []search.Row `json:"sites"`

	Plan    *search.Plan `json:"plan,omitempty"`
	Metric  string       `json:"metric,omitempty"`
	Float   *float64     `json:"metric_float,omitempty"`
	Value   *float64     `json:"metric_value,omitempty"`
	Compare *float64     `json:"metric_uniform,omitempty"`
	Recipe  string       `json:"recipe,omitempty"`
}

func (j *analysis) printSites(rows []search.Row) error {
	unit := lossUnit(j.search.Metric)
	t := tabwriter.NewWriter(j.out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "rank\tsite\top\tweights\tinputs\t%s alone\tup to it\torder\n", unit)
	for i, r := range rows {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%.4g\t%.4g\t%d\n", i+1, r.Site, r.Op, dash(r.Weights), dash(r.Inputs), r.Alone, r.Cumulative, r.Order)
	}
	return t.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func lossUnit(kind string) string {
	if kind == search.KL {
		return "KL (nats)"
	}
	return "relative MSE"
}

func (j *analysis) proxies(ctx context.Context, steps *stepMeter) error {
	rows, err := j.search.Proxies(ctx)
	steps.stop()
	if err != nil {
		return err
	}
	if j.json {
		return j.printJSON(map[string]any{"model": j.path, "proxy": true, "samples": j.flags.measure, "sites": rows})
	}
	t := tabwriter.NewWriter(j.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "rank\tsite\top\tweights\tinputs\tproxy: score\tproxy: Hessian-weighted\tproxy: weight SQNR\tproxy: input SQNR\torder")
	show := func(format string, m passes.Measure) string {
		if math.IsNaN(float64(m)) {
			return "-"
		}
		return fmt.Sprintf(format, float64(m))
	}
	for i, r := range rows {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%.4g\t%s\t%s\t%s\t%d\n", i+1, r.Site, r.Op, dash(r.Weights), dash(r.Inputs), r.Score,
			show("%.4g", r.Hessian), show("%.1f dB", r.WeightSQNR), show("%.1f dB", r.InputSQNR), r.Order)
	}
	return t.Flush()
}

// goal is what --budget or --target says.
type goal struct {
	bits   float64
	metric string
	meets  func(value, float float64) bool
}

var targetForm = regexp.MustCompile(`^([a-z0-9]*[a-z][0-9]?)([+<>-])([0-9.]+)(%?)$`)

// parseGoal reads bits=4.5, or ppl+2%, top1-1%, top1-0.5 (absolute), ppl<25, top1>0.8.
func parseGoal(f *analyzeFlags) (goal, error) {
	var g goal
	if f.budget != "" {
		num, ok := strings.CutPrefix(f.budget, "bits=")
		v, err := strconv.ParseFloat(num, 64)
		if !ok || err != nil || !(v > 0 && v <= 32) {
			return g, usagef("analyze: --budget %s: wanted bits=N, as bits=4.5", f.budget)
		}
		g.bits = v
	}
	if f.target == "" {
		if f.data != "" {
			g.metric = "auto"
		}
		return g, nil
	}
	m := targetForm.FindStringSubmatch(f.target)
	if m == nil || !slices.Contains(eval.Metrics, m[1]) || m[1] == "auto" || m[1] == "agree" {
		return g, usagef("analyze: --target %s: wanted ppl+2%%, top1-1%%, ppl<25 or the like", f.target)
	}
	v, err := strconv.ParseFloat(m[3], 64)
	percent := m[4] != ""
	if err != nil || percent && (m[2] == "<" || m[2] == ">") {
		return g, usagef("analyze: --target %s: wanted ppl+2%%, top1-1%%, ppl<25 or the like", f.target)
	}
	g.metric = m[1]
	g.meets = func(value, float float64) bool {
		by := v
		if percent {
			by = v / 100 * math.Abs(float)
		}
		switch m[2] {
		case "<":
			return value < v
		case ">":
			return value > v
		case "+":
			return value <= float+by
		}
		return value >= float-by
	}
	return g, nil
}

// evaluate takes the metric of a model on --data.
func (j *analysis) evaluate(ctx context.Context, m *ir.Model) (*eval.Result, error) {
	return eval.Run(ctx, m, j.data, eval.Options{Metric: j.metric, Jobs: j.jobs})
}

// find searches for the recipe, writes it to -o, and adds it to what was found.
func (j *analysis) find(ctx context.Context, g goal, found *findings) (err error) {
	f := j.flags
	if f.data != "" {
		if j.data, err = frontend.OpenData(f.data, j.model, frontend.DataOptions{Count: f.dataCount, Extra: true, Seed: uint64(j.seed)}); err != nil {
			return err
		}
		if j.float, err = j.evaluate(ctx, j.model); err != nil {
			return err
		}
		j.metric = j.float.Metric
	}
	plan, err := j.search.Budget(ctx, search.Goal{Bits: g.bits, Choices: f.choices, Effort: f.effort,
		Reached: func(ctx context.Context, m *ir.Model) (float64, bool, error) {
			r, err := j.evaluate(ctx, m)
			if err != nil {
				return 0, false, err
			}
			return r.Value, g.meets(r.Value, j.float.Value), nil
		}})
	if err != nil {
		return err
	}
	found.Plan = plan
	if j.data != nil {
		if err := j.metrics(ctx, found); err != nil {
			return err
		}
	}
	rec := *j.recipe
	rec.Policy.Sites = slices.Concat(rec.Policy.Sites, plan.Rules)
	found.Recipe = rec.String()
	if f.out == "" {
		return nil
	}
	text := fmt.Sprintf("# qsimc analyze: %.4g bits a weight, %s %.4g\n%s", plan.Bits, lossUnit(found.Kind), plan.Loss, found.Recipe)
	return replaceFile(f.out, func(w io.Writer) error { _, err := io.WriteString(w, text); return err })
}

// metrics evaluates the plan and the uniform choice on the data.
func (j *analysis) metrics(ctx context.Context, f *findings) error {
	f.Metric, f.Float = j.metric, &j.float.Value
	for _, uniform := range []bool{false, true} {
		if uniform && f.Plan.Uniform == nil {
			continue
		}
		m, err := j.search.Model(ctx, f.Plan, uniform)
		if err != nil {
			return err
		}
		r, err := j.evaluate(ctx, m)
		if err != nil {
			return err
		}
		if uniform {
			f.Compare = &r.Value
		} else {
			f.Value = &r.Value
		}
	}
	return nil
}

func (j *analysis) printPlan(f *findings) error {
	fmt.Fprintln(j.out)
	t := tabwriter.NewWriter(j.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "site\tvalues\twas\tscheme\tbits")
	for _, r := range f.Plan.Weights {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%.3g\n", strings.Join(r.Sites, ", "), r.Values, r.Was, r.Scheme, r.Bits)
	}
	metric := func(v *float64) string {
		if v == nil {
			return ""
		}
		return fmt.Sprintf("%.6g", *v)
	}
	fmt.Fprintf(t, "\n\tbits a weight\t%s\t%s\n", lossUnit(f.Kind), f.Metric)
	if f.Float != nil {
		fmt.Fprintf(t, "float\t32\t0\t%s\n", metric(f.Float))
	}
	if u := f.Plan.Uniform; u != nil {
		fmt.Fprintf(t, "uniform %s\t%.3f\t%.4g\t%s\n", u.Scheme, u.Bits, u.Loss, metric(f.Compare))
	}
	fmt.Fprintf(t, "this recipe\t%.3f\t%.4g\t%s\n", f.Plan.Bits, f.Plan.Loss, metric(f.Value))
	if err := t.Flush(); err != nil {
		return err
	}
	if j.flags.out == "" {
		_, err := fmt.Fprintf(j.out, "\n%s", f.Recipe)
		return err
	}
	_, err := fmt.Fprintf(j.out, "\nwritten to %s: qsimc rewrite -c %[1]s …\n", j.flags.out)
	return err
}
