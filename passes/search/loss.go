package search

import (
	"context"
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
)

// The losses that Config.Loss may name beside auto.
const (
	KL  = "kl"  // Σ softmax(x)·(log softmax(x) − log softmax(y)) of the first output, a mean over rows, in nats
	MSE = "mse" // Σ(x−y)²/Σx² over all float outputs
)

// Losses lists what Config.Loss may be.
var Losses = []string{"auto", KL, MSE}

// reference is what the float model says of one sample.
type reference struct {
	outputs ir.Tensors
	probs   []float32 // softmax of the first output's rows, for KL
	lse     []float64 // their log-sum-exp
}

// partial is the loss on one sample: a sum, and what it is divided by in the end.
type partial struct{ sum, weight float64 }

// kind settles the loss: the divergence of probabilities where the first output holds scores of classes, that is, where it has
// rank 2 or 3 and a product or a Softmax makes it; the squared error elsewhere.
func (a *Analyzer) kind() (string, error) {
	switch a.c.Loss {
	case KL, MSE:
		return a.c.Loss, nil
	case "", "auto":
	default:
		return "", fmt.Errorf("loss %q is unknown, wanted one of %v", a.c.Loss, Losses)
	}
	v := a.c.Model.Graph.Outputs()[0].Value
	if !v.Type.Elem.IsFloat() || v.Type.Rank() != 2 && v.Type.Rank() != 3 {
		return MSE, nil
	}
	for range 8 {
		n := v.DefNode()
		if n == nil {
			return MSE, nil
		}
		switch op.RoleOf(n) {
		case op.ProductRole, op.SoftmaxRole:
			return KL, nil
		}
		if add := biasInput(n); add != nil {
			v = add
			continue
		}
		in, _, ok := op.Source(n)
		if !ok {
			return MSE, nil
		}
		v = in
	}
	return MSE, nil
}

// biasInput returns the product's result that a node adds a bias to, nil if it does not.
func biasInput(n *ir.Node) *ir.Value {
	for _, v := range n.Ins() {
		if v == nil {
			continue
		}
		if add, _ := op.BiasAdd(v); add == n {
			return v
		}
	}
	return nil
}

// float runs the float model on the measured samples and keeps its outputs.
func (a *Analyzer) float(ctx context.Context) error {
	p, err := runtime.CompileWith(ctx, a.c.Model, a.c.Runtime)
	if err != nil {
		return err
	}
	if a.Metric, err = a.kind(); err != nil {
		return err
	}
	name := p.Outputs()[0]
	err = runtime.ForEach(ctx, a.jobs(), a.measure(), func(ctx context.Context, i int, in ir.Tensors) (*reference, error) {
		out, err := p.Run(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("sample %d: %w", i, err)
		}
		r := &reference{outputs: out}
		if a.Metric == KL {
			if err := r.softmax(out[name]); err != nil {
				return nil, fmt.Errorf("output %q: %w", name, err)
			}
			r.outputs = ir.Tensors{name: out[name]}
		}
		return r, nil
	}, func(_ int, r *reference) { a.refs = append(a.refs, r) })
	if err == nil && len(a.refs) == 0 {
		err = fmt.Errorf("losses are measured on samples: there are none")
	}
	return err
}

func (a *Analyzer) jobs() int {
	if a.c.Jobs > 0 {
		return a.c.Jobs
	}
	return runtime.Cores()
}

// classes is the length of a row of scores.
func classes(t *ir.Tensor) (int, error) {
	s := t.Shape()
	if len(s) == 0 || s[len(s)-1] == 0 {
		return 0, fmt.Errorf("shape %v holds no scores of classes", s)
	}
	return s[len(s)-1], nil
}

func (r *reference) softmax(t *ir.Tensor) error {
	x, ok := t.Float32s()
	if !ok {
		return fmt.Errorf("%v is no float type", t.Elem())
	}
	c, err := classes(t)
	if err != nil {
		return err
	}
	r.probs = make([]float32, len(x))
	for i := 0; i < len(x); i += c {
		lse := logSumExp(x[i : i+c])
		r.lse = append(r.lse, lse)
		for k, v := range x[i : i+c] {
			r.probs[i+k] = float32(math.Exp(float64(v) - lse))
		}
	}
	return nil
}

func logSumExp(x []float32) float64 {
	m := math.Inf(-1)
	for _, v := range x {
		m = max(m, float64(v))
	}
	sum := 0.0
	for _, v := range x {
		sum += math.Exp(float64(v) - m)
	}
	return m + math.Log(sum)
}

// divergence runs a model on the measured samples and compares. What is not a number is as bad as can be.
func (a *Analyzer) divergence(ctx context.Context, m *ir.Model) (float64, error) {
	p, err := runtime.CompileWith(ctx, m, a.c.Runtime)
	if err != nil {
		return 0, err
	}
	names, own := outputNames(a.c.Model), p.Outputs()
	var sum partial
	err = runtime.ForEach(ctx, a.jobs(), a.measure(), func(ctx context.Context, i int, in ir.Tensors) (partial, error) {
		out, err := p.Run(ctx, in)
		if err != nil {
			return partial{}, fmt.Errorf("sample %d: %w", i, err)
		}
		if a.Metric == KL {
			return a.refs[i].kl(a.refs[i].outputs[names[0]], out[own[0]])
		}
		var d runtime.Difference
		for k, name := range names {
			if x := a.refs[i].outputs[name]; x.Elem().IsFloat() {
				if err := d.Add(x, out[own[k]]); err != nil {
					return partial{}, fmt.Errorf("output %q: %w", name, err)
				}
			}
		}
		return partial{d.Noise, d.Signal}, nil
	}, func(_ int, q partial) {
		sum.sum += q.sum
		sum.weight += q.weight
	})
	if err != nil {
		return 0, err
	}
	if v := sum.sum / max(sum.weight, math.SmallestNonzeroFloat64); v == v {
		return max(v, 0), nil
	}
	return math.Inf(1), nil
}

func outputNames(m *ir.Model) []string {
	var names []string
	for _, o := range m.Graph.Outputs() {
		names = append(names, o.Name)
	}
	return names
}

// kl sums the divergence of the rows of other from those of ref.
func (r *reference) kl(ref, other *ir.Tensor) (partial, error) {
	x, _ := ref.Float32s()
	y, ok := other.Float32s()
	if !ok || len(x) != len(y) {
		return partial{}, fmt.Errorf("outputs %v and %v cannot be compared", ref.Type(), other.Type())
	}
	c, err := classes(ref)
	if err != nil {
		return partial{}, err
	}
	var p partial
	for row, lse := range r.lse {
		at := row * c
		d := logSumExp(y[at:at+c]) - lse
		for k, q := range r.probs[at : at+c] {
			if q > 0 {
				d += float64(q) * (float64(x[at+k]) - float64(y[at+k]))
			}
		}
		p.sum += d
		p.weight++
	}
	return p, nil
}
