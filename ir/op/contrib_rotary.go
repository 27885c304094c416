package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// turning rotates pairs of the first elements of each head by the angles of their position: the cache holds the cosine and
// sine of each position, half of the elements turned in a row.
type turning struct {
	cos, sin        []float32
	positions, half int
	interleaved     bool // pairs are neighbours, not half apart
}

// turningOf reads the caches at inputs i and i+1.
func turningOf(c *Call, i int, interleaved bool) (*turning, error) {
	cos, sin := intInput(c, i), intInput(c, i+1)
	if cos == nil || sin == nil || cos.Rank() != 2 || fmt.Sprint(cos.Shape()) != fmt.Sprint(sin.Shape()) || cos.Elem() != ir.Float32 || sin.Elem() != ir.Float32 {
		return nil, fmt.Errorf("cos_cache and sin_cache (inputs %d and %d): wants two float matrices of one shape", i, i+1)
	}
	return &turning{ir.Data[float32](cos), ir.Data[float32](sin), cos.Shape()[0], cos.Shape()[1], interleaved}, nil
}

// apply writes x turned to y; row r of batch b is at the given position.
func (t *turning) apply(y, x headView[float32], position func(b, r int) int64) error {
	if 2*t.half > x.size {
		return fmt.Errorf("the cache turns %d elements of heads of %d", 2*t.half, x.size)
	}
	for b := range x.batches {
		for r := range x.rows {
			if p := position(b, r); p < 0 || p >= int64(t.positions) {
				return fmt.Errorf("position %d is outside the cache of %d", p, t.positions)
			}
		}
	}
	second, step := t.half, 1
	if t.interleaved {
		second, step = 1, 2
	}
	par.For(x.batches*x.heads, 1, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			b, h := i/x.heads, i%x.heads
			for r := range x.rows {
				at := int(position(b, r)) * t.half
				src, dst := x.at(b, h)[r*x.row:][:x.size], y.at(b, h)[r*y.row:][:x.size]
				for k := range t.half {
					co, si, p, q := t.cos[at+k], t.sin[at+k], k*step, second+k*step
					dst[p], dst[q] = float32(co*src[p])-float32(si*src[q]), float32(si*src[p])+float32(co*src[q])
				}
				copy(dst[2*t.half:], src[2*t.half:])
			}
		}
	})
	return nil
}

var msRotaryEmbeddingDef = &Def{
	Domain: Microsoft, Name: "RotaryEmbedding", Doc: "pairs of each head's elements turned by the angle of their position", Since: 1, Versions: []int{1},
	Types: "float, float16, bfloat16", In: Exactly(4), Out: Exactly(1), Widen: true, Infer: same,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x := c.In[0]
		if x.Elem() != ir.Float32 {
			return nil, badType(c, 0)
		}
		t, err := turningOf(c, 2, c.Node.Int("interleaved", 0) != 0)
		if err != nil {
			return nil, err
		}
		heads := int(c.Node.Int("num_heads", 0))
		if heads == 0 && x.Rank() == 3 && t.half > 0 {
			heads = x.Shape()[2] / (2 * t.half)
		}
		in, err := headsOf[float32](x, heads, "the input")
		if err != nil {
			return nil, err
		}
		if d := c.Node.Int("rotary_embedding_dim", 0); d != 0 && d != int64(2*t.half) {
			return nil, fmt.Errorf("attribute rotary_embedding_dim is %d, the cache turns %d elements", d, 2*t.half)
		}
		ids, ok := c.ConstInts(1)
		if !ok || len(ids) != 1 && len(ids) != in.batches*in.rows {
			return nil, fmt.Errorf("position_ids are %v, wants one integer or [%d %d]", c.In[1].Type(), in.batches, in.rows)
		}
		out, err := c.Like(x, ir.Float32)
		if err != nil {
			return nil, err
		}
		y, err := headsOf[float32](out, in.heads, "the output")
		if err != nil {
			return nil, err
		}
		err = t.apply(y, in, func(b, r int) int64 {
			if len(ids) == 1 && c.In[1].Rank() < 2 {
				return ids[0] + int64(r)
			}
			return ids[b*in.rows+r]
		})
		return one(out, err)
	},
}
