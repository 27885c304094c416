package sweep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/qsimc/qsimc/backend"
	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/runtime/calib"
	"github.com/qsimc/qsimc/runtime/eval"
)

// Result is what a cell's file holds.
type Result struct {
	Key           string  `json:"key"`
	Metric        string  `json:"metric"`
	Value         float64 `json:"value"`
	Samples       int     `json:"samples"`
	Positions     int     `json:"positions"`
	BitsPerWeight float64 `json:"bits_per_weight"` // over the weights of products, scales included; those left float count as they are
	Bytes         int64   `json:"bytes"`           // of the written model
	Sites         []Site  `json:"sites"`           // quantized operands
	Error         string  `json:"error,omitempty"` // why there is no value
	Seconds       float64 `json:"seconds"`
}

// Site is a quantized operand and the error of its rounding on the first samples, in dB; nil where nothing was measured.
type Site struct {
	Name   string   `json:"name"`
	Role   string   `json:"role"`
	Scheme string   `json:"scheme"`
	SQNR   *float64 `json:"sqnr_db"`
}

// RunOptions of Run.
type RunOptions struct {
	Cells       []int // indices; nil: all
	Jobs        int   // samples at a time; 0: one for each core
	Again       bool  // run cells that have a result too
	RetryFailed bool  // run cells whose result is an error
	Event       func(Event)
}

// Event is one step of a sweep's progress.
type Event struct {
	Cell        *Cell
	Done, Total int    // cells
	What        string // "start", "done", "kept", or the step within the cell
	Step, Steps int    // of that step; Steps 0: not known
	Result      *Result
}

const cellFolder = "cells"

func (c *Cell) file(dir string) string { return filepath.Join(dir, cellFolder, c.Key+".json") }

// load reads a cell's result; nil if there is none.
func (c *Cell) load(dir string) (*Result, error) {
	data, err := os.ReadFile(c.file(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &Result{}
	if err := json.Unmarshal(data, r); err != nil || r.Key != c.Key {
		return nil, fmt.Errorf("%s is not the result of its cell: %w; remove it to run the cell again", c.file(dir), errors.Join(err, errors.New("key "+r.Key)))
	}
	return r, nil
}

// Run runs the cells that have no result in dir. A cell that fails has its error for a result; only interruption and trouble
// with dir itself end the sweep.
func (p *Plan) Run(ctx context.Context, dir string, o RunOptions) error {
	if err := os.MkdirAll(filepath.Join(dir, cellFolder), 0o755); err != nil {
		return err
	}
	if err := p.save(dir); err != nil {
		return err
	}
	cells := o.Cells
	if cells == nil {
		cells = p.Shard(1, 1)
	}
	say := func(e Event) {
		if o.Event != nil {
			e.Total = len(cells)
			o.Event(e)
		}
	}
	shared := &statistics{}
	ran := map[string]bool{}
	for i, k := range cells {
		c := &p.Cells[k]
		r, err := c.load(dir)
		if err != nil {
			return err
		}
		if r != nil && (ran[c.Key] || !o.Again && (r.Error == "" || !o.RetryFailed)) {
			say(Event{Cell: c, Done: i + 1, What: "kept", Result: r})
			continue
		}
		say(Event{Cell: c, Done: i, What: "start"})
		start := time.Now()
		r, err = c.run(ctx, o.Jobs, shared, func(what string, step, steps int) {
			say(Event{Cell: c, Done: i, What: what, Step: step, Steps: steps})
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r = &Result{Error: err.Error()}
		}
		r.Key, r.Seconds = c.Key, time.Since(start).Seconds()
		data, err := json.MarshalIndent(r, "", " ")
		if err != nil {
			return err
		}
		if err := writeFile(c.file(dir), append(data, '\n')); err != nil {
			return err
		}
		ran[c.Key] = true
		say(Event{Cell: c, Done: i + 1, What: "done", Result: r})
	}
	return nil
}

// statistics are what calibration has seen of models, for further cells on the same one. They are kept for one model at a
// time.
type statistics struct {
	key   string
	stats *calib.Stats
}

func (s *statistics) of(key string) *calib.Stats {
	if s.key != key {
		s.key, s.stats = key, &calib.Stats{}
	}
	return s.stats
}

// run does a cell's work.
func (c *Cell) run(ctx context.Context, jobs int, shared *statistics, progress func(string, int, int)) (*Result, error) {
	j := &c.job
	if j.err != nil {
		return nil, j.err
	}
	m, err := frontend.Load(j.model)
	if err != nil {
		return nil, err
	}
	pipeline, err := j.recipe.Pipeline()
	if err != nil {
		return nil, err
	}
	weights, _ := countWeights(m)
	u := &passes.Unit{Model: m, Policy: &j.recipe.Policy, Seed: j.seed, Jobs: jobs, Report: &passes.Report{}}
	u.Progress = func(s passes.Step) { progress(s.Pass+": "+s.What, s.Done, s.Total) }
	u.Debug.After = func(_ string, m *ir.Model) error {
		if len(u.Report.Sites) == 0 { // fakequant has not decided yet
			if w, ok := countWeights(m); ok {
				weights = w
			}
		}
		return nil
	}
	if j.samples != nil {
		data, err := frontend.OpenData(j.samples.Path, m, j.samples.options(j.seed))
		if err != nil {
			return nil, fmt.Errorf("samples: %w", err)
		}
		u.Samples = data.Samples()
	}
	if key, ok := j.statisticsKey(pipeline); ok {
		u.Stats = shared.of(key)
	}
	if err := pipeline.Run(ctx, u); err != nil {
		return nil, err
	}
	data, err := frontend.OpenData(j.path, u.Model, j.data)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	e, err := eval.Run(ctx, u.Model, data, eval.Options{Metric: j.metric, Jobs: jobs, Progress: func(done int) { progress("eval", done, data.Len) }})
	if err != nil {
		return nil, err
	}
	if math.IsNaN(e.Value) || math.IsInf(e.Value, 0) {
		return nil, fmt.Errorf("%s is %v", e.Metric, e.Value)
	}
	r := &Result{Metric: e.Metric, Value: e.Value, Samples: e.Samples, Positions: e.Positions, Sites: sites(u.Report), BitsPerWeight: bits(u.Report, weights)}
	r.Bytes, err = backend.Size(u.Model)
	return r, err
}

// statisticsKey names the model as calibration sees it; false where the passes before have changed it by the policy.
func (j *job) statisticsKey(p *passes.Pipeline) (string, bool) {
	key := j.hash
	for _, step := range p.Steps() {
		switch step {
		case "fakequant":
			return key, true
		case "fold", "inline":
			key = digest(key, step)
		default:
			return "", false
		}
	}
	return "", false
}

type weight struct {
	values int
	bits   float64
}

// countWeights counts the values of the products' weights, by site; false where a pass has begun to quantize the sites.
func countWeights(m *ir.Model) (map[string]weight, bool) {
	out := map[string]weight{}
	for _, s := range passes.FindSites(m) {
		if s.Already {
			return nil, false
		}
		if s.Kind != passes.Linear {
			continue
		}
		for _, o := range s.Operands {
			if t := o.Value.Const(); o.Role == numfmt.Weight && t != nil {
				out[s.Name] = weight{t.Len(), float64(t.Elem().Bits())}
			}
		}
	}
	return out, true
}

// bits returns the bits of a weight's value on average, over all products.
func bits(r *passes.Report, weights map[string]weight) float64 {
	quantized := map[string]float64{}
	for _, s := range r.Sites {
		if s.Role == numfmt.Weight.String() && s.Scheme != "none" && !math.IsNaN(float64(s.Bits)) {
			quantized[s.Site] = float64(s.Bits)
		}
	}
	values, sum := 0, 0.0
	for _, name := range sortedKeys(weights) {
		w := weights[name]
		b, ok := quantized[name]
		if !ok {
			b = w.bits
		}
		values += w.values
		sum += float64(w.values) * b
	}
	if values == 0 {
		return 0
	}
	return sum / float64(values)
}

func sites(r *passes.Report) []Site {
	out := []Site{}
	for _, s := range r.Sites {
		if s.Scheme == "none" {
			continue
		}
		site := Site{Name: s.Site, Role: s.Role, Scheme: s.Scheme}
		if v := float64(s.SQNR); !math.IsNaN(v) && !math.IsInf(v, 0) {
			site.SQNR = &v
		}
		out = append(out, site)
	}
	return out
}
