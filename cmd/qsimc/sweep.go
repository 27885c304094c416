package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/qsimc/qsimc/cmd/qsimc/sweep"
	"github.com/spf13/cobra"
)

type sweepFlags struct {
	config, out, root, shard string
	dryRun, resume, retry    bool
}

func (a *app) sweepCommand() *cobra.Command {
	var f sweepFlags
	c := &cobra.Command{
		Use:   "sweep -c SWEEP.yaml -o DIR",
		Short: "a grid of recipes over models and data sets; resumable; a table at the end",
		Long: `sweep runs every recipe of a grid on every model and measures it on the model's data sets.

The file lists data, models (with the data they are measured on and the samples their recipes calibrate on), recipes (a grid lists values for ${key} in
them), tables and claims; examples/paper/tables.yaml is one. Every cell leaves a file in DIR/cells under the hash of all that went into it: model, data,
samples, recipe, seed and version of qsimc. Cells that have a file are not run again, so that a sweep that was killed goes on where it was. A cell that
fails has its error for a result.

--shard 2/3 runs the second of three parts. In a job array of Slurm (SLURM_ARRAY_TASK_ID and _COUNT) and an indexed job of Kubernetes
(JOB_COMPLETION_INDEX, with their number in JOB_COMPLETIONS) the part is taken from the environment. "sweep merge DIR… -o OUT" joins the parts; the
result is that of one sweep, byte for byte. DIR gets results.csv, results.json and report.html; what differs from run to run is in times.csv alone.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return a.sweep(c, &f) },
	}
	fl := c.Flags()
	fl.StringVarP(&f.config, "config", "c", "", "the sweep (YAML)")
	fl.StringVarP(&f.out, "output", "o", "", "folder of the results")
	fl.StringVar(&f.root, "root", "", "folder that relative paths in the file start from, in place of the file's own choice")
	fl.StringVar(&f.shard, "shard", "", "run part i of n, as 2/3 (default: from the environment of a job array, else all)")
	fl.BoolVar(&f.dryRun, "dry-run", false, "list the cells and run none")
	fl.BoolVar(&f.resume, "resume", true, "keep the results that are there; --resume=false runs their cells again")
	fl.BoolVar(&f.retry, "retry-failed", false, "run cells again whose result is an error")
	c.AddCommand(a.mergeCommand())
	return c
}

func (a *app) mergeCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "merge DIR… -o OUT",
		Short: "join the parts of a sweep that --shard split",
		Args:  args(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, dirs []string) error {
			if out == "" {
				return usagef("sweep merge: -o OUT is wanted")
			}
			plan, err := sweep.Merge(out, dirs)
			if err != nil {
				return err
			}
			return a.showSweep(plan, out)
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "folder of the joined results")
	return c
}

func (a *app) sweep(c *cobra.Command, f *sweepFlags) error {
	if f.config == "" || f.out == "" && !f.dryRun {
		return usagef("sweep: -c SWEEP.yaml and -o DIR are wanted")
	}
	if f.shard == "" {
		var err error
		if f.shard, err = sweep.ShardFromEnv(os.Getenv); err != nil {
			return usagef("sweep: %w", err)
		}
	}
	part, parts := 1, 1
	if f.shard != "" {
		var err error
		if part, parts, err = sweep.ParseShard(f.shard); err != nil {
			return usagef("sweep: --shard: %w", err)
		}
	}
	spec, err := sweep.ReadSpec(f.config)
	if err != nil {
		return err
	}
	if f.root != "" {
		spec.SetRoot(f.root)
	}
	build, err := buildID()
	if err != nil {
		return err
	}
	plan, err := spec.Plan(sweep.PlanOptions{Version: build, Seed: a.seed})
	if err != nil {
		return err
	}
	if f.dryRun {
		if a.json {
			return a.printJSON(plan)
		}
		t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
		if err := plan.List(t, f.out); err != nil {
			return err
		}
		if err := t.Flush(); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%d cells; dry run: none was run\n", len(plan.Cells))
		return nil
	}
	for _, err := range plan.Broken() {
		a.log().Warn("the cells of this recipe will fail: " + err.Error())
	}
	steps := &sweepMeter{app: a}
	err = plan.Run(c.Context(), f.out, sweep.RunOptions{Cells: plan.Shard(part, parts), Jobs: a.jobs, Again: !f.resume, RetryFailed: f.retry, Event: steps.at})
	steps.stop()
	if err != nil {
		return err
	}
	return a.showSweep(plan, f.out)
}

// showSweep writes the result files and prints the table.
func (a *app) showSweep(plan *sweep.Plan, dir string) error {
	r, err := plan.Collect(dir)
	if err != nil {
		return err
	}
	if err := r.Save(dir); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	return r.WriteTable(a.out)
}

// sweepMeter shows the progress of a sweep: the cells, and with --progress json the steps within each too.
type sweepMeter struct {
	*app
	cells, step *meter
	what        string
}

func (s *sweepMeter) at(e sweep.Event) {
	if s.cells == nil {
		s.cells = s.meter("sweep", e.Total)
	}
	name := e.Cell.Model + "/" + e.Cell.Data + "/" + e.Cell.Recipe
	switch e.What {
	case "kept":
		s.cells.set(e.Done)
	case "start":
		s.cells.describe("sweep " + name)
	case "done":
		s.cells.set(e.Done)
		if s.verbose && e.Result.Error != "" {
			fmt.Fprintf(s.err, "%s: %s\n", name, e.Result.Error)
		}
	default:
		if s.progress != "json" {
			return // one bar is enough
		}
		if what := name + ": " + e.What; s.step == nil || s.what != what {
			s.what, s.step = what, s.meter(what, e.Steps)
		}
		s.step.set(e.Step)
	}
}

func (s *sweepMeter) stop() {
	if s.cells != nil {
		s.cells.stop()
	}
}

// buildID is the program's version, and for a build that no release names the hash of the program itself: results of different
// programs are never taken for each other's.
func buildID() (id string, err error) {
	id = version()
	if id != "devel" && !strings.Contains(id, "+dirty") {
		return id, nil
	}
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return id + " " + hex.EncodeToString(h.Sum(nil))[:16], nil
}
