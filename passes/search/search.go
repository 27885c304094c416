// Package search finds out what quantizing each site costs, and searches for the bits that each weight is worth. It measures:
// it quantizes some sites of the model, runs it, and compares the outputs with those of the float model.
//
//	a, err := search.Start(ctx, search.Config{Model: m, Policy: p, Pipeline: pl, Samples: s})
//	rows, err := a.Sensitivity(ctx)   // each site alone, and all up to it
//	plan, err := a.Budget(ctx, search.Goal{Bits: 4.5})
package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"regexp"
	"slices"
	"strings"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/runtime"
)

// Config says what is analyzed.
type Config struct {
	Model  *ir.Model // float; left as it is
	Policy *passes.Policy
	// Pipeline's steps before fakequant prepare the model; those that round weights to one policy are left out (Analyzer.LeftOut),
	// since sites are quantized in many combinations. Its later steps are not run.
	Pipeline *passes.Pipeline
	Samples  ir.Samples // for calibration
	Measure  int        // samples, from the first, on which losses are measured; 0: 8
	Loss     string     // kl, mse or auto
	Jobs     int        // samples at a time; 0: one for each core
	Seed     int64
	Runtime  runtime.Options
	Log      *slog.Logger
	Progress func(what string, done, total int) // nil: nobody listens
}

// rounding lists the passes whose result holds only for the policy they ran with: they round weights, choose scales or correct
// biases for the schemes of that policy.
var rounding = []*passes.Pass{passes.AWQ, passes.RPTQ, passes.GPTQ, passes.BiasCorrect}

// Analyzer holds what all measurements share: the prepared model, one calibration, and the outputs of the float model.
type Analyzer struct {
	LeftOut []string // passes of the pipeline that were left out
	Metric  string   // the loss: KL or relative MSE

	c       Config
	base    *ir.Model // prepared, nothing quantized
	report  *passes.Report
	fits    passes.Fits
	insert  *passes.Pipeline
	sites   []*site
	refs    []*reference
	known   map[string]float64 // loss by assignment
	measure ir.Samples
}

// site is a site with the schemes that the policy gives it.
type site struct {
	*passes.Decision
	schemes passes.Schemes
	weight  *passes.Choice // nil for products of activations
}

// assignment says which sites are quantized, and how.
type assignment map[*site]passes.Schemes

// Start prepares the model, calibrates it once and runs it in float.
func Start(ctx context.Context, c Config) (*Analyzer, error) {
	if c.Measure == 0 {
		c.Measure = 8
	}
	if c.Samples == nil {
		return nil, errors.New("losses are measured on samples: there are none")
	}
	if !c.Pipeline.Has(passes.FakeQuant.Name) {
		return nil, fmt.Errorf("the pipeline %q has no fakequant: it quantizes nothing", c.Pipeline)
	}
	a := &Analyzer{c: c, known: map[string]float64{}}
	a.measure = first(c.Samples, c.Measure)
	for _, p := range rounding {
		if c.Pipeline.Has(p.Name) {
			a.LeftOut = append(a.LeftOut, p.Name)
		}
	}
	var err error
	if a.insert, err = passes.ParsePipeline(fmt.Sprintf("%s measure=%d", passes.FakeQuant.Name, c.Measure)); err != nil {
		return nil, err
	}
	a.base, _ = c.Model.Clone()
	u := a.unit(a.base, c.Policy)
	if err := c.Pipeline.Before(passes.FakeQuant.Name, a.LeftOut...).Run(ctx, u); err != nil {
		return nil, err
	}
	a.base = u.Model
	if err := a.gather(); err != nil {
		return nil, err
	}
	all, _ := a.base.Clone()
	u = a.unit(all, c.Policy)
	if err := a.insert.Run(ctx, u); err != nil { // fills a.fits
		return nil, err
	}
	a.report = u.Report
	if a.insert, err = passes.ParsePipeline(passes.FakeQuant.Name + " measure=0"); err != nil {
		return nil, err
	}
	return a, a.float(ctx)
}

func (a *Analyzer) unit(m *ir.Model, p *passes.Policy) *passes.Unit {
	return &passes.Unit{Model: m, Policy: p, Samples: a.c.Samples, Log: a.c.Log, Seed: a.c.Seed, Jobs: a.c.Jobs, Runtime: a.c.Runtime, Fits: &a.fits,
		Progress: func(s passes.Step) {
			if s.What != "weights" {
				a.progress(s.What, s.Done, s.Total)
			}
		}}
}

func (a *Analyzer) progress(what string, done, total int) {
	if a.c.Progress != nil {
		a.c.Progress(what, done, total)
	}
}

// gather finds the sites that the policy quantizes. A lookup that reads a product's weight as the product stores it is no site
// of its own: it follows the product.
func (a *Analyzer) gather() error {
	ds, err := a.c.Policy.Decide(passes.FindSites(a.base))
	if err != nil {
		return err
	}
	shared := map[*ir.Value]bool{}
	for _, d := range ds {
		for _, c := range d.Choices {
			if d.Kind == passes.Linear && c.Role == numfmt.Weight && !c.Scheme.IsNone() {
				shared[c.Value] = true
			}
		}
	}
	for _, d := range ds {
		s := &site{Decision: d}
		quantized := false
		for i := range d.Choices {
			c := &d.Choices[i]
			if c.Scheme.IsNone() || d.Kind == passes.Table && shared[c.Value] {
				continue
			}
			quantized = true
			scheme := c.Scheme
			switch c.Role {
			case numfmt.Weight:
				s.schemes.Weights, s.weight = &scheme, c
			case numfmt.Input:
				s.schemes.Inputs = &scheme
			default:
				s.schemes.Outputs = &scheme
			}
		}
		if quantized {
			a.sites = append(a.sites, s)
		}
	}
	if a.sites == nil {
		return errors.New("the policy quantizes no site of the model")
	}
	return nil
}

// policy quantizes the sites of the assignment and nothing else.
func (a *Analyzer) policy(as assignment) *passes.Policy {
	p := &passes.Policy{Calibrate: a.c.Policy.Calibrate}
	for _, s := range a.sites {
		if sc, ok := as[s]; ok {
			p.Sites = append(p.Sites, passes.Rule{Match: "re:^" + regexp.QuoteMeta(s.Name) + "$", Schemes: sc})
		}
	}
	return p
}

// model returns the model with the sites of the assignment quantized.
func (a *Analyzer) model(ctx context.Context, as assignment) (*ir.Model, error) {
	m, _ := a.base.Clone()
	u := a.unit(m, a.policy(as))
	u.Log = nil // it would tell of every variant
	if err := a.insert.Run(ctx, u); err != nil {
		return nil, err
	}
	return u.Model, nil
}

// key tells assignments apart.
func (a *Analyzer) key(as assignment) string {
	var b strings.Builder
	for i, s := range a.sites {
		if sc, ok := as[s]; ok {
			fmt.Fprintf(&b, "%d", i)
			for _, v := range []*numfmt.Scheme{sc.Weights, sc.Inputs, sc.Outputs} {
				b.WriteByte(' ')
				if v != nil {
					b.WriteString(v.String())
				}
			}
			b.WriteByte(';')
		}
	}
	return b.String()
}

// loss measures how far the outputs are from the float model's with the sites of the assignment quantized.
func (a *Analyzer) loss(ctx context.Context, as assignment) (float64, error) {
	k := a.key(as)
	if v, ok := a.known[k]; ok {
		return v, nil
	}
	m, err := a.model(ctx, as)
	if err != nil {
		return 0, err
	}
	v, err := a.divergence(ctx, m)
	if err == nil {
		a.known[k] = v
	}
	return v, err
}

// Row is what quantizing one site costs.
type Row struct {
	Site  string `json:"site"`
	Op    string `json:"op"`
	Order int    `json:"order"` // of the site in the graph, from 1

	Weights string `json:"weights"` // schemes; "none": float, "" the site has no weight
	Inputs  string `json:"inputs"`

	Alone      float64 `json:"alone"`      // loss with this site alone quantized
	Cumulative float64 `json:"cumulative"` // loss with all sites up to this one quantized
}

func (s *site) row(order int) Row {
	r := Row{Site: s.Name, Op: s.OpType(), Order: order, Inputs: "none"}
	if s.schemes.Inputs != nil {
		r.Inputs = s.schemes.Inputs.Text(numfmt.Input)
	}
	if slices.ContainsFunc(s.Choices, func(c passes.Choice) bool { return c.Role == numfmt.Weight }) {
		r.Weights = "none"
		if s.schemes.Weights != nil {
			r.Weights = s.schemes.Weights.Text(numfmt.Weight)
		}
	}
	return r
}

// Sensitivity measures every site alone, and all sites up to it in the order of the graph. The rows come with the largest loss
// alone first.
func (a *Analyzer) Sensitivity(ctx context.Context) ([]Row, error) {
	var rows []Row
	upto := assignment{}
	for i, s := range a.sites {
		a.progress("sites", i, len(a.sites))
		r := s.row(i + 1)
		var err error
		if r.Alone, err = a.loss(ctx, assignment{s: s.schemes}); err != nil {
			return nil, fmt.Errorf("site %q alone: %w", s.Name, err)
		}
		upto[s] = s.schemes
		if r.Cumulative, err = a.loss(ctx, upto); err != nil {
			return nil, fmt.Errorf("sites up to %q: %w", s.Name, err)
		}
		rows = append(rows, r)
	}
	a.progress("sites", len(a.sites), len(a.sites))
	slices.SortStableFunc(rows, func(x, y Row) int { return cmp.Compare(y.Alone, x.Alone) })
	return rows, nil
}

// first returns the first n samples.
func first(s ir.Samples, n int) ir.Samples {
	return func() iter.Seq2[ir.Tensors, error] {
		return func(yield func(ir.Tensors, error) bool) {
			i := 0
			for t, err := range s() {
				if i++; i > n || !yield(t, err) {
					return
				}
			}
		}
	}
}
