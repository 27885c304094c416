// Package eval measures models over data sets: perplexity, accuracy, error against stored outputs, agreement with another
// model. Results do not depend on the number of cores: samples are scored apart and summed in their order.
package eval

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"
	"time"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime"
)

// Metrics lists the names of metrics; auto chooses by the data.
var Metrics = []string{"auto", "ppl", "top1", "top5", "mse", "sqnr", "agree"}

// Options of Run.
type Options struct {
	Metric   string // one of Metrics
	Against  *ir.Model
	Jobs     int // feeds at a time; 0: one for each core
	Progress func(done int)
	Runtime  runtime.Options
}

// Result is a metric's value.
type Result struct {
	Metric    string  `json:"metric"`
	Value     float64 `json:"value"`
	Samples   int     `json:"samples"`
	Positions int     `json:"positions"`
	Seconds   float64 `json:"seconds"`

	// Against is the same metric of the model compared with; nil without one.
	Against *Result `json:"-"`
}

// Run evaluates m over the data. With Options.Against the other model sees the same feeds: its own metric is in
// Result.Against, and the metric agree compares the two.
func Run(ctx context.Context, m *ir.Model, data *frontend.Data, o Options) (*Result, error) {
	start := time.Now()
	e := &evaluation{o: o, model: m}
	var err error
	if e.program, err = runtime.CompileWith(ctx, m, o.Runtime); err != nil {
		return nil, err
	}
	if o.Against != nil {
		if e.against, err = runtime.CompileWith(ctx, o.Against, o.Runtime); err != nil {
			return nil, fmt.Errorf("the model compared with: %w", err)
		}
	}
	if err := e.choose(data.Feeds()); err != nil {
		return nil, err
	}
	if err := e.run(ctx, data); err != nil {
		return nil, err
	}
	r := e.result(e.own)
	if e.against != nil && e.metric != "agree" {
		r.Against = e.result(e.other)
	}
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}

type evaluation struct {
	o                Options
	model            *ir.Model
	program, against *runtime.Program
	metric           string
	own, other       Score
	samples          int
}

// choose settles the metric from the first feed.
func (e *evaluation) choose(feeds iter.Seq2[frontend.Feed, error]) error {
	e.metric = e.o.Metric
	if e.metric == "agree" && e.against == nil {
		return errors.New("metric agree wants a model to compare with (--against)")
	}
	for f, err := range feeds {
		if err != nil {
			return err
		}
		if e.metric != "" && e.metric != "auto" {
			return nil
		}
		switch _, ids := e.ids(f); {
		case f.Extra["labels"] != nil:
			e.metric = "top1"
		case e.expected(f) != nil:
			e.metric = "mse"
		case ids && len(e.model.Graph.Outputs()) > 0:
			e.metric = "ppl"
		case e.against != nil:
			e.metric = "agree"
		default:
			return errors.New("the data hold token ids, labels or outputs for no metric: name one with --metric, or give --against")
		}
		return nil
	}
	return errors.New("the data hold no samples")
}

// ids returns the feed's token ids: the tensor of the model's only integer input of rank 2, the first if there are several.
func (e *evaluation) ids(f frontend.Feed) (*ir.Tensor, bool) {
	for _, v := range e.model.Graph.FreeInputs() {
		if t := f.Tensors[v.Name]; t != nil && t.Rank() == 2 && t.Elem().IsInt() {
			return t, true
		}
	}
	return nil, false
}

// expected returns the names of outputs that the data hold.
func (e *evaluation) expected(f frontend.Feed) []string {
	var names []string
	for _, o := range e.model.Graph.Outputs() {
		if f.Extra[o.Name] != nil {
			names = append(names, o.Name)
		}
	}
	return names
}

type scored struct {
	own, other Score
	samples    int
}

func (e *evaluation) run(ctx context.Context, data *frontend.Data) error {
	jobs := e.o.Jobs
	if jobs == 0 {
		jobs = runtime.Cores()
	}
	done := 0
	return runtime.ForEach(ctx, jobs, data.Feeds(), func(ctx context.Context, i int, f frontend.Feed) (scored, error) {
		s, err := e.feed(ctx, f)
		if err != nil {
			err = fmt.Errorf("sample %d: %w", i, err)
		}
		return s, err
	}, func(_ int, s scored) {
		e.own.Add(s.own)
		e.other.Add(s.other)
		e.samples += s.samples
		if done++; e.o.Progress != nil {
			e.o.Progress(done)
		}
	})
}

func (e *evaluation) feed(ctx context.Context, f frontend.Feed) (s scored, err error) {
	s.samples = f.N
	err = e.program.Lend(ctx, f.Tensors, func(out ir.Tensors) error {
		if e.against == nil {
			return e.measure(&s, f, out, nil)
		}
		var bad error // of the measure, which is not the other model's fault
		err := e.against.Lend(ctx, f.Tensors, func(ref ir.Tensors) error {
			bad = e.measure(&s, f, out, ref)
			return nil
		})
		if err != nil {
			return fmt.Errorf("the model compared with: %w", err)
		}
		return bad
	})
	return s, err
}

// measure scores the outputs of one feed; ref is nil without a model to compare with.
func (e *evaluation) measure(s *scored, f frontend.Feed, out, ref ir.Tensors) (err error) {
	first := e.program.Outputs()[0]
	if e.metric == "agree" {
		s.own, err = Agree(out[first], ref[e.against.Outputs()[0]], f.N)
		return err
	}
	if s.own, err = e.score(f, out, e.program.Outputs()); err == nil && ref != nil {
		s.other, err = e.score(f, ref, e.against.Outputs())
	}
	return err
}

func (e *evaluation) score(f frontend.Feed, out ir.Tensors, names []string) (Score, error) {
	switch e.metric {
	case "ppl":
		ids, ok := e.ids(f)
		if !ok {
			return Score{}, errors.New("perplexity wants token ids: an integer input of rank 2")
		}
		return NLL(out[names[0]], ids, f.N)
	case "top1", "top5":
		t := f.Extra["labels"]
		if t == nil {
			return Score{}, fmt.Errorf("%s wants an array \"labels\" in the data", e.metric)
		}
		labels, ok := t.Int64s()
		if !ok {
			return Score{}, fmt.Errorf("labels are %v, wanted integers", t.Type())
		}
		k := 1
		if e.metric == "top5" {
			k = 5
		}
		return TopK(out[names[0]], labels, k, f.N)
	case "mse", "sqnr":
		want := e.expected(f)
		if want == nil {
			return Score{}, fmt.Errorf("%s wants arrays in the data named as an output of the model: %s", e.metric, strings.Join(names, ", "))
		}
		var s Score
		for _, n := range want {
			part, err := SquaredError(out[n], f.Extra[n], f.N)
			if err != nil {
				return s, fmt.Errorf("output %q: %w", n, err)
			}
			s.Add(part)
		}
		return s, nil
	}
	return Score{}, fmt.Errorf("metric %q is unknown, wanted one of %s", e.metric, strings.Join(Metrics, ", "))
}

func (e *evaluation) result(s Score) *Result {
	r := &Result{Metric: e.metric, Samples: e.samples, Positions: s.Positions}
	n := float64(s.Positions)
	switch e.metric {
	case "ppl":
		r.Value = math.Exp(s.Sum / n)
	case "sqnr":
		r.Value = 10 * math.Log10(s.Ref/s.Sum)
	default:
		r.Value = s.Sum / n
	}
	return r
}
