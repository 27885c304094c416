package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/qsimc/qsimc/backend"
	"github.com/qsimc/qsimc/cmd/qsimc/report"
	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/ir/store"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/passes/recipe"
	"github.com/qsimc/qsimc/runtime"
	"github.com/spf13/cobra"
)

// rewriteFlags are the flags of rewrite; those of recipeFlags are shared with inspect.
type rewriteFlags struct {
	recipeFlags
	out        string
	format     string
	opset      int
	reports    []string
	repro      string
	printAfter string
	maxMemory  string
	stopAfter  int
	dryRun     bool
	noCheck    bool
	external   bool
	inline     bool
	style      string
	cache      string
	keep       bool
	memory     int64
}

// recipeFlags choose a recipe.
type recipeFlags struct {
	sourceFlags
	config, preset, passes, samples string
	count                           int
	hasPasses                       bool
}

func (f *recipeFlags) add(c *cobra.Command) {
	c.Flags().StringVarP(&f.config, "config", "c", "", "recipe (YAML)")
	c.Flags().StringVar(&f.preset, "preset", "", "preset that the recipe's keys override; `qsimc presets` lists them")
	c.Flags().StringVarP(&f.passes, "passes", "p", "", `"STEP; STEP" in place of the recipe's passes; '' is the empty pipeline`)
	c.Flags().StringVar(&f.samples, "samples", "", "calibration inputs: .npz, .npy, a folder, or synthetic")
	c.Flags().IntVar(&f.count, "count", 0, "samples to use (default: all)")
	f.sourceFlags.add(c)
}

// recipe resolves the flags to a recipe without preset.
func (f *recipeFlags) recipe(c *cobra.Command) (*recipe.Recipe, error) {
	f.hasPasses = c.Flags().Changed("passes")
	r := &recipe.Recipe{}
	if f.config != "" {
		data, err := os.ReadFile(f.config)
		if err != nil {
			return nil, err
		}
		if r, err = recipe.Parse(f.config, data); err != nil {
			return nil, err
		}
	}
	if f.preset != "" {
		r.Preset = f.preset
	}
	if f.config == "" && f.preset == "" && !(f.hasPasses && strings.TrimSpace(f.passes) == "") {
		r.Preset = "w8"
		if f.samples != "" {
			r.Preset = "w8a8"
		}
	}
	full, err := r.Resolved()
	if err != nil {
		return nil, usageError{err}
	}
	if f.hasPasses {
		full.Passes = []string{}
		for step := range strings.SplitSeq(f.passes, ";") {
			if step = strings.TrimSpace(step); step != "" {
				full.Passes = append(full.Passes, step)
			}
		}
	}
	if s := &full.Samples; f.samples != "" {
		s.Path, s.Tokenizer, s.SeqLen, s.Preprocess = f.samples, f.tokenizer, f.seqLen, f.preprocess
	} else if f.tokenizer != "" || f.seqLen != 0 || f.preprocess != "" {
		return nil, usagef("--tokenizer, --seq-len and --preprocess say how --samples are read: --samples PATH is wanted")
	}
	if f.count != 0 {
		full.Samples.Count = f.count
	}
	return full, nil
}

func (a *app) rewriteCommand() *cobra.Command {
	var f rewriteFlags
	c := &cobra.Command{
		Use:   "rewrite MODEL -o OUT.onnx",
		Short: "run the pass pipeline on a model, check the result, write ONNX",
		Long: `rewrite loads a model, runs the passes of a recipe on its graph, and writes the result.

The recipe comes from -c, --preset and -p: -c overrides single keys of the preset, -p replaces the passes and leaves the policy. With neither -c nor
--preset, the preset is w8, or w8a8 when --samples are given. The written file is read back, verified, and run on one sample against the graph in
memory; --no-check leaves that out. Where no samples are given that one run takes synthetic inputs.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error { return a.rewrite(c, names[0], &f) },
	}
	f.add(c)
	fl := c.Flags()
	fl.StringVarP(&f.out, "output", "o", "", "file to write")
	fl.IntVar(&f.opset, "opset", 0, "output opset (default: the smallest that carries the result, not below the input's)")
	fl.StringVar(&f.format, "format", "", "what lower emits; `qsimc passes lower` lists the forms")
	fl.StringArrayVar(&f.reports, "report", nil, "write the report to FILE.json or FILE.html; may repeat")
	fl.BoolVar(&f.dryRun, "dry-run", false, "print the plan: every site, its schemes, what stays float and why; write nothing")
	fl.BoolVar(&f.noCheck, "no-check", false, "do not read the written file back and run it")
	fl.StringVar(&f.printAfter, "print-after", "", "print the graph to stderr after this pass, or after all")
	fl.IntVar(&f.stopAfter, "stop-after", 0, "end the pipeline after N steps")
	fl.BoolVar(&f.inline, "inline", false, "write model-local functions out: the model's own first, so that products inside them become sites, and those of lower where it would call them")
	fl.StringVar(&f.style, "qdq-style", "plain", "plain, or ort: placed so that ONNX Runtime runs integer kernels (pass-through operators share parameters, int32 bias, quantizers behind activations)")
	fl.StringVar(&f.cache, "calib-cache", "", "file that keeps calibrated ranges, keyed by model, samples, calibrator and what precedes the calibration")
	fl.BoolVar(&f.external, "external-data", false, "put weights into OUT.onnx.data")
	fl.StringVar(&f.maxMemory, "max-memory", "", "bound for tensors alive in a run of the model, as 8GB or 512MiB (default: 80 % of the machine's)")
	fl.BoolVar(&f.keep, "keep-quantized", false, "leave sites that are already quantized as they are instead of refusing the model")
	fl.StringVar(&f.repro, "repro", "", "where a pass fails: write the model before it and the rest of the pipeline to FILE (txtar)")
	return c
}

func (a *app) rewrite(c *cobra.Command, path string, f *rewriteFlags) (err error) {
	if f.out == "" && !f.dryRun {
		return usagef("rewrite: -o OUT.onnx is wanted, or --dry-run")
	}
	for _, r := range f.reports {
		if ext := filepath.Ext(r); ext != ".json" && ext != ".html" {
			return usagef("rewrite: --report %s: wanted a name that ends in .json or .html", r)
		}
	}
	if f.memory, err = parseSize(f.maxMemory); err != nil {
		return usagef("rewrite: --max-memory: %w", err)
	}
	rec, err := f.recipe(c)
	if err != nil {
		return err
	}
	pipeline, err := rec.Pipeline()
	if err != nil {
		return usageError{err}
	}
	if f.inline && !pipeline.Has(passes.Inline.Name) {
		rec.Passes = append([]string{passes.Inline.Name}, rec.Passes...)
		if pipeline, err = rec.Pipeline(); err != nil {
			return usageError{err}
		}
	}
	if pipeline, err = f.lowerOptions(c, pipeline); err != nil {
		return err
	}
	if f.printAfter != "" && f.printAfter != "all" && !pipeline.Has(f.printAfter) {
		return usagef("rewrite: --print-after %s: the pipeline is %q", f.printAfter, pipeline)
	}
	m, err := frontend.Load(path)
	if err != nil {
		return err
	}
	job := &rewriting{app: a, flags: f, recipe: rec, path: path}
	return job.run(c.Context(), m, pipeline)
}

// lowerOptions hands --format and --opset to the pass that writes the file's form.
func (f *rewriteFlags) lowerOptions(c *cobra.Command, p *passes.Pipeline) (*passes.Pipeline, error) {
	var opts []string
	if f.format != "" {
		opts = append(opts, "format="+f.format)
	}
	if c.Flags().Changed("opset") {
		opts = append(opts, "opset="+strconv.Itoa(f.opset))
	}
	place := f.style
	if f.format == "qoperator" && !c.Flags().Changed("qdq-style") {
		f.style, place = "ort", "qoperator" // operators on quantized numbers want quantized results
	}
	if c.Flags().Changed("qdq-style") || f.style == "ort" {
		opts = append(opts, "style="+f.style)
		if p.Has("fakequant") {
			var err error
			if p, err = p.With("fakequant", "style="+place); err != nil {
				return nil, usageError{err}
			}
		}
	}
	if f.inline {
		opts = append(opts, "inline=true")
	}
	if opts == nil || !p.Has("lower") {
		if f.format != "" {
			return nil, usagef("rewrite: --format %s: the pipeline %q has no lower", f.format, p)
		}
		return p, nil
	}
	p, err := p.With("lower", opts...)
	if err != nil {
		return nil, usageError{err}
	}
	return p, nil
}

// rewriting is one run of the command.
type rewriting struct {
	*app
	flags  *rewriteFlags
	recipe *recipe.Recipe
	path   string
	data   *frontend.Data // nil without samples
	unit   *passes.Unit
	before []report.Part // of the file: for the HTML report

	results []ir.Tensors // of the file for the first samples
}

// scratchAbove is the size of results from which they go to a file beside the output, where --max-memory leaves room for them.
const scratchAbove = 128 << 20

// scratch makes the store of results. With --max-memory the collector, too, keeps the heap near that bound: it lets nothing lie
// that is not in use.
func (f *rewriteFlags) scratch() *store.Scratch {
	budget := int64(scratchAbove)
	if f.memory > 0 {
		budget = min(budget, f.memory/4)
		debug.SetMemoryLimit(f.memory)
	}
	return store.NewScratch(filepath.Dir(f.out), budget)
}

func (j *rewriting) run(ctx context.Context, m *ir.Model, pipeline *passes.Pipeline) error {
	f := j.flags
	before := fileSize(j.path)
	original, _ := m.Clone()
	u := &passes.Unit{
		Model: m, Policy: &j.recipe.Policy, Log: j.log(), Seed: j.seed, Jobs: j.jobs, DryRun: f.dryRun, KeepQuantized: f.keep,
		Runtime: runtime.Options{MaxMemory: f.memory}, Profile: j.html(),
		Scratch: f.scratch(),
		Report:  &passes.Report{Tool: "qsimc", Version: version(), Model: j.path, Recipe: j.recipe.String(), BytesBefore: before},
	}
	j.unit = u
	if j.html() {
		j.before = report.Sizes(m, before)
	}
	if s := j.recipe.Samples; s.Path != "" {
		var err error
		if j.data, err = frontend.OpenData(s.Path, m, sampleOptions(s, j.seed)); err != nil {
			return err
		}
		u.Samples = j.data.Samples()
	}
	if j.data != nil && !f.noCheck {
		u.Reference = &passes.Reference{Samples: measured}
	}
	if err := j.openCache(u); err != nil {
		return err
	}
	steps := &stepMeter{app: j.app}
	u.Progress = steps.at
	u.Debug = passes.Debug{StopAfter: f.stopAfter, After: j.printer()}
	if f.repro != "" {
		u.Debug.Repro = j.writeRepro
	}
	err := pipeline.Run(ctx, u)
	steps.stop()
	if err != nil {
		return err
	}
	if u.Cache != nil && !f.dryRun {
		if err := u.Cache.Save(); err != nil {
			return err
		}
	}
	if f.opset > u.Model.Opset[""] && !f.dryRun {
		if err := op.ToOpset(u.Model, f.opset); err != nil {
			return fmt.Errorf("--opset %d: %w", f.opset, err)
		}
	}
	if !f.dryRun {
		j.stamp()
		if err := j.write(ctx); err != nil {
			return err
		}
		if err := j.measure(ctx, original); err != nil {
			return err
		}
		u.Report.BytesAfter = fileSize(f.out) + fileSize(f.out+".data")
	}
	u.Report.PeakRSS = peakRSS()
	return j.report()
}

// printer prints the graph after the passes that --print-after names.
func (j *rewriting) printer() func(string, *ir.Model) error {
	want := j.flags.printAfter
	if want == "" {
		return nil
	}
	return func(pass string, m *ir.Model) error {
		if want != "all" && want != pass {
			return nil
		}
		fmt.Fprintf(j.err, "# after %s\n", pass)
		return ir.PrintOptions{Elide: 16, Types: true, Origin: true}.Print(j.err, m)
	}
}

func (j *rewriting) writeRepro(r passes.Repro) error {
	return replaceFile(j.flags.repro, func(w io.Writer) error { return r.Write(w) })
}

// stamp records in the model what made it.
func (j *rewriting) stamp() {
	m := j.unit.Model
	text := j.recipe.String()
	m.Producer, m.ProducerVersion = "qsimc", version()
	m.SetProp("qsimc.version", version())
	m.SetProp("qsimc.recipe", text)
	m.SetProp("qsimc.recipe.sha256", fmt.Sprintf("%x", sha256.Sum256([]byte(text))))
	samples := "none"
	if s := j.recipe.Samples; s.Path != "" {
		samples = filepath.Base(s.Path)
		if s.Count > 0 {
			samples += fmt.Sprintf(" count=%d", s.Count)
		}
	}
	m.SetProp("qsimc.samples", samples)
}

// write saves the model into a folder of its own beside the target, checks it there, and moves it into place.
func (j *rewriting) write(ctx context.Context) (err error) {
	out := j.flags.out
	dir, err := os.MkdirTemp(filepath.Dir(out), ".qsimc-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tmp := filepath.Join(dir, filepath.Base(out))
	if err := backend.Save(tmp, j.unit.Model, backend.Options{ExternalData: j.flags.external, Stop: ctx.Done()}); err != nil {
		return err
	}
	if !j.flags.noCheck {
		if err := j.check(ctx, tmp); err != nil {
			return fmt.Errorf("the written file does not hold (--no-check writes it all the same): %w", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, suffix := range []string{".data", ""} {
		if _, err := os.Stat(tmp + suffix); err == nil {
			if err := os.Rename(tmp+suffix, out+suffix); err != nil {
				return err
			}
		}
	}
	return nil
}

// report writes the report files and the table or JSON on stdout.
func (j *rewriting) report() error {
	r := j.unit.Report
	for _, file := range j.flags.reports {
		write := r.WriteJSON
		if filepath.Ext(file) == ".html" {
			write = report.Rewrite(r, j.before, report.Sizes(j.unit.Model, r.BytesAfter)).Write
		}
		if err := replaceFile(file, write); err != nil {
			return err
		}
	}
	if j.json {
		return r.WriteJSON(j.out)
	}
	if err := r.WriteTable(j.out); err != nil {
		return err
	}
	if j.flags.dryRun {
		fmt.Fprintln(j.out, "\ndry run: nothing was written")
		return nil
	}
	fmt.Fprintf(j.out, "\n%s: %s → %s: %s (%.2f×), %.1f s\n", j.path, report.Bytes(r.BytesBefore), j.flags.out, report.Bytes(r.BytesAfter),
		float64(r.BytesAfter)/float64(max(r.BytesBefore, 1)), r.Seconds)
	return nil
}

// html tells whether a report with pictures is wanted.
func (j *rewriting) html() bool {
	return slices.ContainsFunc(j.flags.reports, func(f string) bool { return filepath.Ext(f) == ".html" })
}

// stepMeter shows the progress of passes.
type stepMeter struct {
	*app
	key   string
	meter *meter
}

func (s *stepMeter) at(step passes.Step) {
	key := step.Pass + ": " + step.What
	if s.meter == nil || key != s.key {
		s.stop()
		s.key, s.meter = key, s.app.meter(key, step.Total)
	}
	s.meter.set(step.Done)
}

func (s *stepMeter) stop() {
	if s.meter != nil {
		s.meter.stop()
		s.meter = nil
	}
}

// replaceFile writes a file under a temporary name in its folder and renames it.
func replaceFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".qsimc-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := write(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// parseSize reads 8GB, 512MiB, 1000000; "" is 0.
func parseSize(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	units := []struct {
		suffix string
		factor float64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"K", 1e3}, {"M", 1e6}, {"G", 1e9}, {"B", 1}, {"", 1}}
	for _, u := range units {
		if num, ok := strings.CutSuffix(text, u.suffix); ok {
			v, err := strconv.ParseFloat(num, 64)
			if err != nil || !(v > 0) || v*u.factor > 1<<60 {
				return 0, fmt.Errorf("found %q, wanted a size as 8GB or 512MiB", text)
			}
			return int64(v * u.factor), nil
		}
	}
	return 0, fmt.Errorf("found %q, wanted a size as 8GB or 512MiB", text)
}
