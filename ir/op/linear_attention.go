package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

var linearAttentionDef = &Def{
	Name: "LinearAttention", Doc: "attention by a recurrent state: linear, gated, delta or gated delta rule", Since: 27, Versions: []int{27},
	Types: "float, float16, bfloat16", In: Between(3, 6), Out: Between(1, 2), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		q, k, v := c.Type(0), c.Type(1), c.Type(2)
		qh, kh := c.Node.Int("q_num_heads", 0), c.Node.Int("kv_num_heads", 0)
		if qh < 1 || kh < 1 || qh%kh != 0 {
			return nil, fmt.Errorf("attributes q_num_heads and kv_num_heads are %d and %d, want a multiple of the other", qh, kh)
		}
		part := func(d ir.Dim, by, times int64) ir.Dim {
			if !d.Known() {
				return ir.UnknownDim
			}
			return ir.Dim{Size: d.Size / by * times}
		}
		state := c.Type(3).Elem
		if state == ir.Undefined {
			state = q.Elem
		}
		return []ir.Type{ir.TensorType(q.Elem, q.Dim(0), q.Dim(1), part(v.Dim(2), kh, qh)),
			ir.TensorType(state, q.Dim(0), ir.Dim{Size: kh}, part(k.Dim(2), kh, 1), part(v.Dim(2), kh, 1))}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalFloat(c, []int{1, 2, 3, 4, 5}, linearAttention[float32], linearAttention[float64])
	},
}

// updateRules says which rule decays the state and which corrects it by what it already holds.
var updateRules = map[string]struct{ gated, delta bool }{
	"linear": {}, "gated": {gated: true}, "delta": {delta: true}, "gated_delta": {gated: true, delta: true},
}

func linearAttention[T floatElem](c *Call) ([]*ir.Tensor, error) {
	n := c.Node
	qh, kh := int(n.Int("q_num_heads", 0)), int(n.Int("kv_num_heads", 0))
	for i := range 3 {
		if c.In[i].Rank() != 3 {
			return nil, fmt.Errorf("input %d is %v, wants [batch, sequence, heads·size]", i, c.In[i].Type())
		}
	}
	q, err := headsOf[T](c.In[0], qh, "query")
	if err != nil {
		return nil, err
	}
	k, err := headsOf[T](c.In[1], kh, "key")
	if err != nil {
		return nil, err
	}
	v, err := headsOf[T](c.In[2], kh, "value")
	if err != nil {
		return nil, err
	}
	if qh%kh != 0 || q.size != k.size || q.rows != k.rows || k.rows != v.rows || q.batches != k.batches || k.batches != v.batches {
		return nil, fmt.Errorf("query %v, key %v and value %v in %d and %d heads do not fit", c.In[0].Shape(), c.In[1].Shape(), c.In[2].Shape(), qh, kh)
	}
	name := n.Str("update_rule", "gated_delta")
	rule, ok := updateRules[name]
	if !ok {
		return nil, fmt.Errorf("attribute update_rule is %q, wants linear, gated, delta or gated_delta", name)
	}
	if rule.gated && !c.Has(4) || rule.delta && !c.Has(5) {
		return nil, fmt.Errorf("rule %q: decay or beta is absent", name)
	}
	// the gates are read like heads: one number or k.size of them a head, or one for all heads
	decay, err := gateView[T](c, 4, kh, k, "decay", kh, kh*k.size)
	if err != nil {
		return nil, err
	}
	beta, err := gateView[T](c, 5, kh, k, "beta", kh, 1)
	if err != nil {
		return nil, err
	}
	scale := n.Float("scale", 0)
	if scale == 0 {
		scale = float32(1 / math.Sqrt(float64(max(k.size, 1))))
	}
	out, err := c.New(c.In[0].Elem(), q.batches, q.rows, qh*v.size)
	if err != nil {
		return nil, err
	}
	state, err := c.New(c.In[0].Elem(), q.batches, kh, k.size, v.size)
	if err != nil {
		return nil, err
	}
	s := ir.Data[T](state)
	clear(s)
	if c.Has(3) {
		if c.In[3].Len() != len(s) || c.In[3].Rank() != 4 {
			return nil, fmt.Errorf("past_state has shape %v, wants %v", c.In[3].Shape(), state.Shape())
		}
		copy(s, ir.Data[T](c.In[3]))
	}
	if out.Len() == 0 {
		return []*ir.Tensor{out, state}, nil
	}
	y, err := headsOf[T](out, qh, "output")
	if err != nil {
		return nil, err
	}
	share := qh / kh
	par.For(q.batches*kh, 1, func(lo, hi int) {
		add := make([]T, v.size)
		for i := lo; i < hi; i++ {
			b, h := i/kh, i%kh
			st := s[i*k.size*v.size : (i+1)*k.size*v.size]
			for t := range q.rows {
				key, value := k.at(b, h)[t*k.row:][:k.size], v.at(b, h)[t*v.row:][:v.size]
				if rule.gated {
					g := decay.at(b, h)[t*decay.row:]
					for d := range k.size {
						f := T(math.Exp(float64(g[d%decay.size])))
						scaleRow(st[d*v.size:(d+1)*v.size], f)
					}
				}
				copy(add, value)
				if rule.delta {
					for d, kd := range key {
						for e, x := range st[d*v.size : (d+1)*v.size] {
							add[e] -= T(kd * x)
						}
					}
					scaleRow(add, beta.at(b, h)[t*beta.row])
				}
				for d, kd := range key {
					addScaled(st[d*v.size:(d+1)*v.size], add, 1, kd)
				}
				for j := h * share; j < (h+1)*share; j++ {
					dst := y.at(b, j)[t*y.row:][:v.size]
					clear(dst)
					for d, qd := range q.at(b, j)[t*q.row:][:q.size] {
						addScaled(dst, st[d*v.size:(d+1)*v.size], 1, qd)
					}
					scaleRow(dst, T(scale))
				}
			}
		}
	})
	return []*ir.Tensor{out, state}, nil
}

// gateView reads an optional gate [batch, sequence, width], width being one of the two given.
func gateView[T floatElem](c *Call, i, heads int, like headView[T], name string, a, b int) (headView[T], error) {
	if !c.Has(i) {
		return headView[T]{}, nil
	}
	s := c.In[i].Shape()
	if len(s) != 3 || s[0] != like.batches || s[1] != like.rows || s[2] != a && s[2] != b {
		return headView[T]{}, fmt.Errorf("%s has shape %v, wants [%d %d %d] or [%d %d %d]", name, s, like.batches, like.rows, a, like.batches, like.rows, b)
	}
	g := headView[T]{data: ir.Data[T](c.In[i]), batch: s[1] * s[2], row: s[2], head: s[2] / heads, heads: heads, rows: s[1], size: max(s[2]/heads, 1), batches: s[0]}
	return g, nil
}

func scaleRow[T floatElem](x []T, f T) {
	for i := range x {
		x[i] *= f
	}
}
