package op_test

import (
	"math"
	"testing"

	"github.com/qsimc/qsimc/ir"
)

func TestAttention(t *testing.T) {
	t.Parallel()
	q, k, v := noise(1, 1, 2, 3, 4), noise(2, 1, 2, 3, 4), noise(3, 1, 2, 3, 5)
	run := func(in []*ir.Tensor, outs int, attrs ...ir.Attr) []*ir.Tensor {
		return results(t, nnCase{op: "Attention", in: in, attrs: attrs}, outs)
	}
	y := run([]*ir.Tensor{q, k, v}, 1)[0]
	t.Run("step by step as at once", func(t *testing.T) {
		sameTensor(t, run([]*ir.Tensor{q, k, v}, 4)[0], y)
	})
	t.Run("float64", func(t *testing.T) {
		got, _ := run([]*ir.Tensor{double(q), double(k), double(v)}, 1)[0].Float32s()
		sameTensor(t, ir.Floats(got, y.Shape()...), y)
	})
	t.Run("heads side by side", func(t *testing.T) {
		flat := func(x *ir.Tensor) *ir.Tensor { // [1, heads, rows, size] to [1, rows, heads·size]
			s := x.Shape()
			h, _ := x.Reshape(s[1:]...)
			out, _ := swap(h).Reshape(1, s[2], s[1]*s[3])
			return out
		}
		got := run([]*ir.Tensor{flat(q), flat(k), flat(v)}, 1, ir.IntAttr("q_num_heads", 2), ir.IntAttr("kv_num_heads", 2))[0]
		sameTensor(t, got, flat(y))
	})
	t.Run("causal as a mask", func(t *testing.T) {
		want := run([]*ir.Tensor{q, k, v}, 1, ir.IntAttr("is_causal", 1))[0]
		mask := ir.FromSlice(ir.Bool, []int{3, 3}, []bool{true, false, false, true, true, false, true, true, true})
		sameTensor(t, run([]*ir.Tensor{q, k, v, mask}, 1)[0], want)
		sameTensor(t, run([]*ir.Tensor{q, k, v}, 4, ir.IntAttr("is_causal", 1))[0], want)
		sameTensor(t, run([]*ir.Tensor{q, k, v}, 1, ir.IntAttr("right_window_size", 0))[0], want)
	})
	t.Run("past", func(t *testing.T) {
		past := noise(4, 1, 2, 2, 4)
		pastV := noise(5, 1, 2, 2, 5)
		got := run([]*ir.Tensor{q, k, v, nil, past, pastV}, 3)
		sameTensor(t, run([]*ir.Tensor{q, got[1], got[2]}, 1)[0], got[0])
	})
	t.Run("blind row", func(t *testing.T) {
		mask := ir.FromSlice(ir.Bool, []int{3, 3}, []bool{false, false, false, true, true, true, true, true, true})
		got := run([]*ir.Tensor{q, k, v, mask}, 1)[0]
		for i, x := range ir.Data[float32](got)[:5] {
			if x != 0 {
				t.Errorf("element %d of a row that sees nothing is %v", i, x)
			}
		}
	})
	t.Run("lengths", func(t *testing.T) {
		got := run([]*ir.Tensor{q, k, v, nil, nil, nil, longs([]int{1}, 1)}, 1)[0]
		sameTensor(t, f([]int{5}, ir.Data[float32](got)[:5]...), f([]int{5}, ir.Data[float32](v)[:5]...))
	})
	runNNCases(t, attentionCases())
}

// attentionCases are one that runs and some that fail.
func attentionCases() []nnCase {
	q, k, v := noise(1, 1, 2, 3, 4), noise(2, 1, 2, 3, 4), noise(3, 1, 2, 3, 5)
	past, pastV := noise(4, 1, 2, 2, 4), noise(5, 1, 2, 2, 5)
	return []nnCase{
		{name: "all inputs", op: "Attention", in: []*ir.Tensor{q, k, v, count(3, 5), past, pastV}, want: []*ir.Tensor{nil, nil, nil, nil},
			attrs: []ir.Attr{ir.IntAttr("is_causal", 1), ir.FloatAttr("softcap", 2)}},
		{name: "cache outside", op: "Attention", in: []*ir.Tensor{q, k, v, count(2, 3, 3), nil, nil, longs([]int{1}, 2)}},
		{name: "heads", op: "Attention", in: []*ir.Tensor{noise(1, 1, 3, 2, 4), noise(1, 1, 2, 2, 4), noise(1, 1, 2, 2, 4)}, err: "divisor of the query heads"},
		{name: "mask", op: "Attention", in: []*ir.Tensor{q, k, v, count(2, 3)}, err: "does not broadcast"},
		{name: "no heads", op: "Attention", in: []*ir.Tensor{noise(1, 1, 2, 4), noise(1, 1, 2, 4), noise(1, 1, 2, 4)}, err: "q_num_heads is absent"},
		{name: "half past", op: "Attention", in: []*ir.Tensor{q, k, v, nil, noise(1, 1, 2, 2, 4)}, err: "both or none"},
	}
}

func TestSequenceOperators(t *testing.T) {
	t.Parallel()
	runNNCases(t, sequenceCases())
}

func sequenceCases() []nnCase {
	e := float32(math.E)
	return []nnCase{
		{name: "halves", op: "RotaryEmbedding", in: []*ir.Tensor{f([]int{1, 1, 1, 4}, 1, 2, 3, 4), f([]int{1, 1, 2}, 0, 1), f([]int{1, 1, 2}, 1, 0)}, want: []*ir.Tensor{f([]int{1, 1, 1, 4}, -3, 2, 1, 4)}},
		{name: "interleaved, partial, positions", op: "RotaryEmbedding", attrs: []ir.Attr{ir.IntAttr("interleaved", 1), ir.IntAttr("rotary_embedding_dim", 2)},
			in:   []*ir.Tensor{f([]int{1, 1, 1, 4}, 1, 2, 3, 4), f([]int{2, 1}, 1, 0), f([]int{2, 1}, 0, 1), longs([]int{1, 1}, 1)},
			want: []*ir.Tensor{f([]int{1, 1, 1, 4}, -2, 1, 3, 4)}},
		{name: "position", op: "RotaryEmbedding", in: []*ir.Tensor{f([]int{1, 1, 1, 2}, 1, 2), f([]int{2, 1}, 1, 0), f([]int{2, 1}, 0, 1), longs([]int{1, 1}, 2)}, err: "outside the cache"},
		{name: "state", op: "CausalConvWithState", in: []*ir.Tensor{f([]int{1, 1, 2}, 1, 2), f([]int{1, 1, 3}, 1, 10, 100), nil, f([]int{1, 1, 2}, 3, 4)},
			want: []*ir.Tensor{f([]int{1, 1, 2}, 143, 214), f([]int{1, 1, 2}, 1, 2)}},
		{name: "linear", op: "LinearAttention", attrs: []ir.Attr{ir.IntAttr("q_num_heads", 1), ir.IntAttr("kv_num_heads", 1), ir.StringAttr("update_rule", "linear"), ir.FloatAttr("scale", 1)},
			in: []*ir.Tensor{f([]int{1, 2, 1}, 1, 2), f([]int{1, 2, 1}, 3, 4), f([]int{1, 2, 1}, 5, 6)}, want: []*ir.Tensor{f([]int{1, 2, 1}, 15, 78), f([]int{1, 1, 1, 1}, 39)}},
		{name: "gated delta", op: "LinearAttention", attrs: []ir.Attr{ir.IntAttr("q_num_heads", 1), ir.IntAttr("kv_num_heads", 1), ir.FloatAttr("scale", 1)},
			in:   []*ir.Tensor{f([]int{1, 1, 1}, 1), f([]int{1, 1, 1}, 2), f([]int{1, 1, 1}, 3), f([]int{1, 1, 1, 1}, 1), f([]int{1, 1, 1}, 1), f([]int{1, 1, 1}, 0.5)},
			want: []*ir.Tensor{f([]int{1, 1, 1}, e+(3-2*e))}},
		{name: "plain", op: "LRN", attrs: []ir.Attr{ir.IntAttr("size", 3), ir.FloatAttr("alpha", 3), ir.FloatAttr("beta", 1)}, in: []*ir.Tensor{f([]int{1, 3, 1}, 1, 2, 3)},
			want: []*ir.Tensor{f([]int{1, 3, 1}, 1.0/6, 2.0/15, 3.0/14)}},
		{name: "zero", op: "LpNormalization", attrs: []ir.Attr{ir.IntAttr("axis", 0)}, in: []*ir.Tensor{f([]int{2, 2}, 3, 0, 4, 0)}, want: []*ir.Tensor{f([]int{2, 2}, 0.6, 0, 0.8, 0)}},
		{name: "order", op: "LpNormalization", attrs: []ir.Attr{ir.IntAttr("p", 3)}, in: []*ir.Tensor{count(2)}, err: "wants 1 or 2"},
		{name: "half a step", op: "DeformConv", in: []*ir.Tensor{f([]int{1, 1, 2, 2}, 1, 2, 3, 4), f([]int{1, 1, 1, 1}, 2), f([]int{1, 2, 2, 2}, 0.5, 0, 0, 0, 0, 0, 0, 0.5)},
			want: []*ir.Tensor{f([]int{1, 1, 2, 2}, 4, 4, 6, 4)}},
		{name: "regions", op: "MaxRoiPool", attrs: []ir.Attr{ir.IntsAttr("pooled_shape", 1, 2)}, in: []*ir.Tensor{count(1, 1, 2, 4), f([]int{1, 5}, 0, 0, 0, 3, 0)}, want: []*ir.Tensor{f([]int{1, 1, 1, 2}, 1, 3)}},
		{name: "region of no number", op: "MaxRoiPool", attrs: []ir.Attr{ir.IntsAttr("pooled_shape", 1, 2)}, in: []*ir.Tensor{count(1, 1, 2, 4), f([]int{1, 5}, 0, float32(math.NaN()), 0, 3, 0)}, err: "finite corners"},
	}
}
