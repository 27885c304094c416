package eval

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
)

// Score is a partial result of a metric: a sum over Positions things, and, for ratios of sums, a second sum.
type Score struct {
	Sum, Ref  float64
	Positions int
}

// Add accumulates; adding scores in the order of the samples makes results independent of scheduling.
func (s *Score) Add(t Score) {
	s.Sum += t.Sum
	s.Ref += t.Ref
	s.Positions += t.Positions
}

// NLL sums −log softmax(logits[b, t])[ids[b, t+1]] over the first rows sequences and their L−1 positions, the softmax in
// float64. logits is [B, L, V], ids [B, L].
func NLL(logits, ids *ir.Tensor, rows int) (Score, error) {
	s := logits.Shape()
	if len(s) != 3 || ids.Rank() != 2 || ids.Shape()[0] != s[0] || ids.Shape()[1] != s[1] {
		return Score{}, fmt.Errorf("perplexity wants logits [B, L, V] for ids [B, L], found %v for %v", s, ids.Shape())
	}
	x, ok := logits.Float32s()
	if !ok {
		return Score{}, fmt.Errorf("logits are %v, wanted floats", logits.Elem())
	}
	id, ok := ids.Int64s()
	if !ok {
		return Score{}, fmt.Errorf("ids are %v, wanted integers", ids.Elem())
	}
	length, vocab := s[1], s[2]
	var score Score
	for b := range min(rows, s[0]) {
		for t := range length - 1 {
			next := id[b*length+t+1]
			if next < 0 || next >= int64(vocab) {
				return Score{}, fmt.Errorf("id %d at position %d is outside the vocabulary of %d", next, t+1, vocab)
			}
			row := x[(b*length+t)*vocab : (b*length+t+1)*vocab]
			score.Sum += logSumExp(row) - float64(row[next])
			score.Positions++
		}
	}
	return score, nil
}

func logSumExp(x []float32) float64 {
	m := math.Inf(-1)
	for _, v := range x {
		m = max(m, float64(v))
	}
	if math.IsInf(m, 0) {
		return m
	}
	sum := 0.0
	for _, v := range x {
		sum += math.Exp(float64(v) - m)
	}
	return m + math.Log(sum)
}

// TopK counts the rows whose label is among the k largest scores; equal scores rank by lower index. scores is [B, C] or
// [B, C, 1, …], labels has at least rows elements.
func TopK(scores *ir.Tensor, labels []int64, k, rows int) (Score, error) {
	x, ok := scores.Float32s()
	if !ok || scores.Rank() < 1 {
		return Score{}, fmt.Errorf("scores are %v, wanted floats [B, C]", scores.Type())
	}
	batch := scores.Shape()[0]
	if batch == 0 || rows > batch || rows > len(labels) {
		return Score{}, fmt.Errorf("scores %v do not fit %d labels", scores.Shape(), len(labels))
	}
	classes := len(x) / batch
	s := Score{Positions: rows}
	for b := range rows {
		row, label := x[b*classes:(b+1)*classes], labels[b]
		if label < 0 || label >= int64(classes) {
			return Score{}, fmt.Errorf("label %d is outside the %d classes", label, classes)
		}
		before := 0
		for i, v := range row {
			if v > row[label] || v == row[label] && int64(i) < label || v != v {
				before++
			}
		}
		if before < k && row[label] == row[label] {
			s.Sum++
		}
	}
	return s, nil
}

// SquaredError sums (got − want)² and want² over the first rows of the leading axis.
func SquaredError(got, want *ir.Tensor, rows int) (Score, error) {
	g, ok1 := got.Float32s()
	w, ok2 := want.Float32s()
	if !ok1 || !ok2 || len(g) != len(w) {
		return Score{}, fmt.Errorf("output %v does not compare with %v", got.Type(), want.Type())
	}
	n := len(w)
	if got.Rank() > 0 && got.Shape()[0] > 0 {
		n = n / got.Shape()[0] * min(rows, got.Shape()[0])
	}
	s := Score{Positions: n}
	for i := range n {
		d := float64(g[i]) - float64(w[i])
		s.Sum += d * d
		s.Ref += float64(w[i]) * float64(w[i])
	}
	return s, nil
}

// Agree counts the rows along the last axis (of [B, …, C], the first rows of the leading axis) whose largest element is at
// the same index in both.
func Agree(got, want *ir.Tensor, rows int) (Score, error) {
	g, ok1 := got.Float32s()
	w, ok2 := want.Float32s()
	if !ok1 || !ok2 || len(g) != len(w) || got.Rank() < 1 {
		return Score{}, fmt.Errorf("output %v does not compare with %v", got.Type(), want.Type())
	}
	shape := got.Shape()
	classes := shape[len(shape)-1]
	if len(shape) > 1 && shape[0] > 0 {
		spatial := 1
		for _, d := range shape[2:] {
			spatial *= d
		}
		if spatial == 1 { // [B, C, 1, 1]
			classes = shape[1]
		}
	}
	if classes == 0 {
		return Score{}, nil
	}
	n := len(g) / classes
	if len(shape) > 1 && shape[0] > 0 {
		n = n / shape[0] * min(rows, shape[0])
	}
	s := Score{Positions: n}
	for i := range n {
		if argmax(g[i*classes:(i+1)*classes]) == argmax(w[i*classes:(i+1)*classes]) {
			s.Sum++
		}
	}
	return s, nil
}

func argmax(x []float32) int {
	at := 0
	for i, v := range x {
		if v > x[at] {
			at = i
		}
	}
	return at
}
