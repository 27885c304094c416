package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

var rotaryEmbeddingDef = &Def{
	Name: "RotaryEmbedding", Doc: "pairs of each head's elements turned by the angle of their position", Since: 23, Versions: []int{23},
	Types: "float, float16, bfloat16", In: Between(3, 4), Out: Exactly(1), Widen: true, Infer: same,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalFloat(c, []int{1, 2}, evalRotary[float32], evalRotary[float64])
	},
}

func evalRotary[T floatElem](c *Call) ([]*ir.Tensor, error) {
	x, err := headsOf[T](c.In[0], int(c.Node.Int("num_heads", 0)), "X")
	if err != nil {
		return nil, err
	}
	turned := int(c.Node.Int("rotary_embedding_dim", 0))
	if turned == 0 {
		turned = x.size
	}
	half := turned / 2
	if turned < 0 || turned > x.size || turned%2 != 0 {
		return nil, fmt.Errorf("attribute rotary_embedding_dim is %d, wants an even number up to the head's %d", turned, x.size)
	}
	var at []int64
	want := []int{x.batches, x.rows, half}
	if c.Has(3) {
		var ok bool
		if at, ok = c.ConstInts(3); !ok || fmt.Sprint(c.In[3].Shape()) != fmt.Sprint(want[:2]) {
			return nil, fmt.Errorf("position_ids are %v, want int64%v", c.In[3].Type(), want[:2])
		}
		if c.In[1].Rank() != 2 {
			return nil, fmt.Errorf("cos_cache is %v, wants [positions, %d]", c.In[1].Type(), half)
		}
		want = []int{c.In[1].Shape()[0], half}
	}
	for i := 1; i < 3; i++ {
		if s := c.In[i].Shape(); fmt.Sprint(s) != fmt.Sprint(want) {
			return nil, fmt.Errorf("input %d has shape %v, wants %v", i, s, want)
		}
	}
	for _, p := range at {
		if p < 0 || p >= int64(want[0]) {
			return nil, fmt.Errorf("position %d is outside the cache of %d", p, want[0])
		}
	}
	out, err := c.Like(c.In[0], c.In[0].Elem())
	if err != nil {
		return nil, err
	}
	if out.Len() == 0 {
		return []*ir.Tensor{out}, nil
	}
	y, err := headsOf[T](out, x.heads, "Y")
	if err != nil {
		return nil, err
	}
	cos, sin := ir.Data[T](c.In[1]), ir.Data[T](c.In[2])
	first, second, step := 0, half, 1
	if c.Node.Int("interleaved", 0) != 0 {
		first, second, step = 0, 1, 2
	}
	par.For(x.batches*x.heads, 1, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			b, h := i/x.heads, i%x.heads
			for r := range x.rows {
				pos := b*x.rows + r
				if at != nil {
					pos = int(at[pos])
				}
				co, si := cos[pos*half:][:half], sin[pos*half:][:half]
				src, dst := x.at(b, h)[r*x.row:][:x.size], y.at(b, h)[r*y.row:][:x.size]
				for k := range half {
					p, q := first+k*step, second+k*step
					dst[p] = T(co[k]*src[p]) - T(si[k]*src[q])
					dst[q] = T(si[k]*src[p]) + T(co[k]*src[q])
				}
				copy(dst[turned:], src[turned:])
			}
		}
	})
	return []*ir.Tensor{out}, nil
}
