package passes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// Pipeline is a list of passes with their options. It is immutable.
type Pipeline struct{ steps []pipelineStep }

type pipelineStep struct {
	pass *Pass
	conf config
}

// ParsePipeline reads steps such as "gptq damp=0.01": a pass's name, then key=value. A step may hold several, separated by
// semicolons. Unknown passes and options are errors, and so is an order that a constraint forbids.
func ParsePipeline(steps ...string) (*Pipeline, error) {
	p := &Pipeline{}
	for _, s := range strings.Split(strings.Join(steps, ";"), ";") {
		words := strings.Fields(s)
		if len(words) == 0 {
			continue
		}
		pass, ok := Lookup(words[0])
		if !ok {
			return nil, fmt.Errorf("passes: %q is no pass, wanted one of %s", words[0], strings.Join(passNames(), ", "))
		}
		args, err := parseArgs(words[1:])
		if err != nil {
			return nil, fmt.Errorf("passes: %s: %w", pass.Name, err)
		}
		conf, err := pass.parse(args)
		if err != nil {
			return nil, fmt.Errorf("passes: %s: %w", pass.Name, err)
		}
		p.steps = append(p.steps, pipelineStep{pass, conf})
	}
	return p, p.ordered()
}

func parseArgs(words []string) ([]arg, error) {
	var args []arg
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%q: wanted key=value", w)
		}
		args = append(args, arg{key, value})
	}
	return args, nil
}

func passNames() []string {
	var names []string
	for _, p := range All {
		names = append(names, p.Name)
	}
	return names
}

// ordered checks the constraints of Orders.
func (p *Pipeline) ordered() error {
	for _, o := range Orders {
		after := slices.IndexFunc(p.steps, func(s pipelineStep) bool { return s.pass.Name == o.After })
		if after < 0 {
			continue
		}
		for _, s := range p.steps[after:] {
			if s.pass.Name == o.Before {
				return fmt.Errorf("passes: %s must come before %s: %s", o.Before, o.After, o.Reason)
			}
		}
	}
	return nil
}

// Has reports whether the pipeline holds the pass.
func (p *Pipeline) Has(name string) bool {
	return slices.ContainsFunc(p.steps, func(s pipelineStep) bool { return s.pass.Name == name })
}

// Before returns the steps before the first of the named pass, all if it has none; steps of the passes left out are dropped.
func (p *Pipeline) Before(name string, leaveOut ...string) *Pipeline {
	q := &Pipeline{}
	for _, s := range p.steps {
		if s.pass.Name == name {
			break
		}
		if !slices.Contains(leaveOut, s.pass.Name) {
			q.steps = append(q.steps, s)
		}
	}
	return q
}

// Len returns the number of steps.
func (p *Pipeline) Len() int { return len(p.steps) }

// With returns the pipeline with options, given as key=value, set in every step of the named pass. It fails if there is no
// such step.
func (p *Pipeline) With(name string, options ...string) (*Pipeline, error) {
	args, err := parseArgs(options)
	if err != nil {
		return nil, fmt.Errorf("passes: %s: %w", name, err)
	}
	q := &Pipeline{slices.Clone(p.steps)}
	found := false
	for i := range q.steps {
		if q.steps[i].pass.Name != name {
			continue
		}
		found = true
		if q.steps[i].conf, err = q.steps[i].conf.with(args); err != nil {
			return nil, fmt.Errorf("passes: %s: %w", name, err)
		}
	}
	if !found {
		return nil, fmt.Errorf("passes: %s is not in the pipeline %q, its option %s has no effect", name, p, strings.Join(options, " "))
	}
	return q, nil
}

// Steps returns the steps in normal form: the name, then the options that differ from their defaults in the pass's order.
func (p *Pipeline) Steps() []string {
	var out []string
	for _, s := range p.steps {
		out = append(out, strings.TrimSpace(s.pass.Name+" "+s.conf.text()))
	}
	return out
}

// String prints the pipeline in normal form, which ParsePipeline reads back.
func (p *Pipeline) String() string { return strings.Join(p.Steps(), "; ") }

// Debug are switches of the driver that no pass knows of.
type Debug struct {
	// After is called with the model after each pass has run and been verified.
	After func(pass string, m *ir.Model) error
	// StopAfter ends the pipeline after so many steps; 0: never.
	StopAfter int
	// Repro is called when a pass fails, with the model as it was before the pass.
	Repro func(r Repro) error
	// Shuffle puts the nodes of every graph into another topological order before each pass, chosen by Unit.Seed: a pass
	// that leans on the order of nodes then fails a test.
	Shuffle bool
}

// Run runs the steps in order on u.Model, verifies the model after each, and fills u.Report. When a pass fails or breaks the
// model, u.Model is the model as it was before that pass.
func (p *Pipeline) Run(ctx context.Context, u *Unit) error {
	if u.Report == nil {
		u.Report = &Report{}
	}
	if u.Policy == nil {
		u.Policy = &Policy{}
	}
	if u.Log == nil {
		u.Log = slog.New(slog.DiscardHandler)
	}
	start := time.Now()
	defer func() { u.Report.Seconds += time.Since(start).Seconds() }()
	for i, s := range p.steps {
		if u.Debug.StopAfter > 0 && i >= u.Debug.StopAfter {
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.step(ctx, u, i); err != nil {
			return fmt.Errorf("%s: %w", s.pass.Name, err)
		}
		if u.Debug.After != nil {
			if err := u.Debug.After(s.pass.Name, u.Model); err != nil {
				return fmt.Errorf("%s: %w", s.pass.Name, err)
			}
		}
	}
	return nil
}

func (p *Pipeline) step(ctx context.Context, u *Unit, i int) error {
	s := p.steps[i]
	if u.Debug.Shuffle {
		shuffle(u.Model, rand.New(rand.NewPCG(uint64(u.Seed), uint64(i))))
	}
	before, _ := u.Model.Clone()
	u.entry = &PassEntry{Name: s.pass.Name, Options: s.conf.text()}
	u.site = ""
	u.Report.Passes = append(u.Report.Passes, u.entry)
	start := time.Now()
	err := guarded(ctx, u, s.conf)
	u.entry.Seconds = time.Since(start).Seconds()
	u.changed = u.changed || s.pass != Inline && s.pass != Fold // fold says so where it moves arithmetic
	if err == nil {
		if err = op.Verify(u.Model); err != nil {
			err = fmt.Errorf("left a model that does not verify: %w", err)
		}
	}
	if err == nil {
		err = u.settle()
	}
	if err == nil {
		u.Log.Info("pass done", "pass", s.pass.Name, "edits", u.entry.Edits, "skipped", len(u.entry.Skipped), "seconds", u.entry.Seconds)
		return nil
	}
	u.Model = before
	if u.Debug.Repro != nil && ctx.Err() == nil {
		rest := &Pipeline{p.steps[i:]}
		if rerr := u.Debug.Repro(Repro{Model: before, Pipeline: rest, Policy: u.Policy, Err: err}); rerr != nil {
			err = errors.Join(err, fmt.Errorf("the reproducer could not be written: %w", rerr))
		}
	}
	return err
}

// guarded runs a pass and turns a panic into an error that names the site it was at.
func guarded(ctx context.Context, u *Unit, c config) (err error) {
	defer func() {
		if x := recover(); x != nil {
			at := ""
			if u.site != "" {
				at = fmt.Sprintf(" at site %q", u.site)
			}
			err = fmt.Errorf("panic%s: %v", at, x)
		}
	}()
	return c.run(ctx, u)
}

// shuffle puts the nodes of every graph into a random topological order.
func shuffle(m *ir.Model, r *rand.Rand) {
	for g := range m.Graphs() {
		waits := map[*ir.Node]int{}        // node → producers in g not yet placed
		feeds := map[*ir.Node][]*ir.Node{} // node → those that wait for it, with repetition
		var ready, order []*ir.Node
		for n := range g.Nodes() {
			for _, v := range reads(n) {
				if d := v.DefNode(); d != nil && d.Graph() == g {
					waits[n]++
					feeds[d] = append(feeds[d], n)
				}
			}
			if waits[n] == 0 {
				ready = append(ready, n)
			}
		}
		for len(ready) > 0 {
			i := r.IntN(len(ready))
			n := ready[i]
			ready[i] = ready[len(ready)-1]
			ready = ready[:len(ready)-1]
			order = append(order, n)
			for _, f := range feeds[n] {
				if waits[f]--; waits[f] == 0 {
					ready = append(ready, f)
				}
			}
		}
		for _, n := range order {
			g.Move(n, nil)
		}
	}
}

// reads returns the values that a node and its subgraphs use.
func reads(n *ir.Node) []*ir.Value {
	var vs []*ir.Value
	for _, v := range n.Ins() {
		if v != nil {
			vs = append(vs, v)
		}
	}
	for _, g := range n.Subgraphs() {
		for k := range g.Nodes() {
			vs = append(vs, reads(k)...)
		}
		for _, o := range g.Outputs() {
			vs = append(vs, o.Value)
		}
	}
	return vs
}
