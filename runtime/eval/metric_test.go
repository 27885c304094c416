package eval_test

import (
	"math"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/eval"
)

func TestNLL(t *testing.T) {
	t.Parallel()
	logits := ir.Floats([]float32{0, 0, 0, 1, 2, 3, 9, 9, 9}, 1, 3, 3)
	ids := ir.FromSlice(ir.Int64, []int{1, 3}, []int64{0, 2, 1})
	s, err := eval.NLL(logits, ids, 1)
	if err != nil {
		t.Fatal(err)
	}
	want := math.Log(3) + math.Log(math.Exp(1)+math.Exp(2)+math.Exp(3)) - 2
	if math.Abs(s.Sum-want) > 1e-12 || s.Positions != 2 {
		t.Errorf("got %v over %d, want %v over 2", s.Sum, s.Positions, want)
	}
	ids = ir.FromSlice(ir.Int64, []int{1, 3}, []int64{0, 3, 1})
	if _, err := eval.NLL(logits, ids, 1); err == nil {
		t.Error("an id outside the vocabulary: want an error")
	}
	if _, err := eval.NLL(ir.Floats(make([]float32, 4), 2, 2), ids, 1); err == nil {
		t.Error("logits of rank 2: want an error")
	}
}

func TestTopK(t *testing.T) {
	t.Parallel()
	scores := ir.Floats([]float32{1, 3, 2, 5, 5, 0}, 2, 3)
	for _, c := range []struct {
		labels []int64
		k      int
		want   float64
	}{
		{[]int64{1, 0}, 1, 2},
		{[]int64{2, 1}, 1, 0}, // of equal scores the lower index comes first
		{[]int64{2, 1}, 2, 2},
		{[]int64{0, 2}, 2, 0},
	} {
		s, err := eval.TopK(scores, c.labels, c.k, 2)
		if err != nil || s.Sum != c.want || s.Positions != 2 {
			t.Errorf("labels %v, k %d: got %v of %d, %v, want %v", c.labels, c.k, s.Sum, s.Positions, err, c.want)
		}
	}
	if s, err := eval.TopK(scores, []int64{1}, 1, 1); err != nil || s.Positions != 1 {
		t.Errorf("one row: %v, %v", s, err)
	}
	if _, err := eval.TopK(scores, []int64{1, 7}, 1, 2); err == nil {
		t.Error("a label outside the classes: want an error")
	}
}

func TestAgree(t *testing.T) {
	t.Parallel()
	a := ir.Floats([]float32{1, 2, 4, 3}, 2, 2)
	b := ir.Floats([]float32{1, 9, 1, 3}, 2, 2)
	if s, err := eval.Agree(a, b, 2); err != nil || s.Sum != 1 || s.Positions != 2 {
		t.Errorf("got %v of %d, %v, want 1 of 2", s.Sum, s.Positions, err)
	}
	flat := func(v ...float32) *ir.Tensor { return ir.Floats(v, 1, len(v), 1, 1) }
	if s, err := eval.Agree(flat(1, 3, 2), flat(0, 1, 0), 1); err != nil || s.Sum != 1 || s.Positions != 1 {
		t.Errorf("[1, C, 1, 1]: got %v of %d, %v", s.Sum, s.Positions, err)
	}
}
