package calib

import (
	"errors"
	"fmt"
	"iter"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// SeqCandidates is the number of shares of a range that seqmse tries: k/20, k = 1…20 (METHODS.md §3).
const SeqCandidates = 20

// OutputError measures what the rounding of a weight does to the outputs of its product when the product's inputs are
// quantized: for inputs x̂ in place of x and a rounded column ŵ = w + δ
//
//	Σ (x̂·ŵ - x·w)² = δᵀ(x̂ᵀx̂)δ + 2δᵀ(x̂ᵀ(x̂-x))w + a part without δ.
//
// It keeps the two K×K matrices, however many samples there are, so that candidates need no further look at them. Samples
// come in order.
type OutputError struct {
	gram  *Gram
	cross [][]float64 // by group: x̂ᵀ(x̂-x)
}

// NewOutputError observes an operand whose axis (negative: from the end) is contracted.
func NewOutputError(axis int) *OutputError { return &OutputError{gram: NewGram(axis)} }

// NewConvOutputError observes the input of a convolution whose weight has the given shape.
func NewConvOutputError(n *ir.Node, weight []int) *OutputError {
	return &OutputError{gram: NewConvGram(n, weight)}
}

// piece is a stretch of rows.
type piece struct {
	group, n, k int
	rows        []float32
}

// Observe adds one sample: the operand as it comes from what is quantized before it, and as the float model has it.
func (o *OutputError) Observe(quantized, float *ir.Tensor) error {
	q, ok1 := quantized.Float32s()
	f, ok2 := float.Float32s()
	if !ok1 || !ok2 || len(q) != len(f) {
		return fmt.Errorf("operands %v and %v: wanted the same floats, quantized and not", quantized.Type(), float.Type())
	}
	if err := o.gram.Observe(0, 0, quantized); err != nil {
		return err
	}
	diff, same := make([]float32, len(q)), true
	for i, v := range q {
		diff[i] = v - f[i]
		same = same && diff[i] == 0
	}
	if same || o.gram.K == 0 {
		return nil
	}
	k := o.gram.K
	if o.cross == nil {
		o.cross = make([][]float64, len(o.gram.H))
		for i := range o.cross {
			o.cross[i] = make([]float64, k*k)
		}
	}
	next, stop := iter.Pull2(o.pieces(ir.Floats(diff, quantized.Shape()...)))
	defer stop()
	part := make([]float32, k*k)
	return o.gram.rows(quantized, func(group int, rows []float32, n, _ int) error {
		d, err, ok := next()
		if err != nil {
			return err
		}
		if !ok || d.n != n || d.group != group {
			return errors.New("the two operands fall into different rows")
		}
		for at := 0; at < n; at += crossRows { // float32 sums of a few rows, float64 sums of those
			m := min(crossRows, n-at)
			kernel.MatMul(k, k, m, rows[at*k:(at+m)*k], k, true, d.rows[at*k:(at+m)*k], k, false, part, k, false)
			sum := o.cross[group]
			for i, v := range part {
				sum[i] += float64(v)
			}
		}
		return nil
	})
}

// crossRows is the number of rows that are summed in float32.
const crossRows = 384

// pieces are the rows of a tensor.
func (o *OutputError) pieces(t *ir.Tensor) iter.Seq2[piece, error] {
	return func(yield func(piece, error) bool) {
		done := errors.New("done")
		err := o.gram.rows(t, func(group int, rows []float32, n, k int) error {
			if !yield(piece{group, n, k, rows}, nil) {
				return done
			}
			return nil
		})
		if err != nil && !errors.Is(err, done) {
			yield(piece{}, err)
		}
	}
}

// Seen reports whether a sample had rows.
func (o *OutputError) Seen() bool { return o.gram.K > 0 }

// Loss evaluates candidates for the weight of one group of a convolution (group 0 of other products).
type Loss struct {
	n, k int
	gram []float32 // K×K
	lin  []float32 // n×K: w·(x̂ᵀ(x̂-x))ᵀ
}

// Loss prepares the candidates of a weight given as n rows, one for each output channel.
func (o *OutputError) Loss(group int, w []float32, n int) (*Loss, error) {
	k := o.gram.K
	if len(w) != n*k || group >= len(o.gram.H) {
		return nil, fmt.Errorf("weight of %d values, wanted %d rows of %d", len(w), n, k)
	}
	l := &Loss{n: n, k: k, gram: make([]float32, k*k), lin: make([]float32, n*k)}
	for i := range k {
		for j := range i + 1 {
			l.gram[i*k+j] = float32(o.gram.H[group][i*k+j])
			l.gram[j*k+i] = l.gram[i*k+j]
		}
	}
	if o.cross != nil {
		cross := make([]float32, k*k)
		for i, v := range o.cross[group] {
			cross[i] = float32(v)
		}
		kernel.MatMul(n, k, k, w, k, false, cross, k, true, l.lin, k, false)
	}
	return l, nil
}

// Of returns the loss of each output channel for δ, n rows, less the part that no candidate changes.
func (l *Loss) Of(delta []float32) []float64 {
	m := make([]float32, l.n*l.k)
	kernel.MatMul(l.n, l.k, l.k, delta, l.k, false, l.gram, l.k, false, m, l.k, false)
	out := make([]float64, l.n)
	for c := range out {
		sum := 0.0
		for i := c * l.k; i < (c+1)*l.k; i++ {
			sum += float64(float64(delta[i]) * (float64(m[i]) + 2*float64(l.lin[i])))
		}
		out[c] = sum
	}
	return out
}
