package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

var multiHeadAttentionDef = &Def{
	Domain: Microsoft, Name: "MultiHeadAttention", Doc: "attention by heads of projected queries, keys and values, with a cache", Since: 1,
	Versions: []int{1}, Types: "float, float16, bfloat16", In: Between(1, 10), Out: Between(1, 4), Widen: true,
	Infer: inferMHA,
	Eval:  evalMHA,
}

func inferMHA(c *Call) ([]ir.Type, error) {
	q, k, v := c.Type(0), c.Type(1), c.Type(2)
	heads := c.Node.Int("num_heads", 0)
	if heads < 1 {
		return nil, fmt.Errorf("attribute num_heads is %d, wants at least 1", heads)
	}
	y := ir.Type{Elem: q.Elem}
	if !q.Ranked {
		return []ir.Type{y, y, y, y}, nil
	}
	over := func(d ir.Dim) ir.Dim {
		if d.Known() && d.Size%heads == 0 {
			return ir.Dim{Size: d.Size / heads}
		}
		return ir.UnknownDim
	}
	h := ir.Dim{Size: heads}
	batch, rows, keys, vsize, hidden := q.Dim(0), q.Dim(1), ir.UnknownDim, ir.UnknownDim, ir.UnknownDim
	var size ir.Dim
	switch {
	case len(q.Dims) == 5:
		keys, size, vsize = rows, q.Dim(4), q.Dim(4)
		hidden = mulDims(h, vsize)
	case len(q.Dims) != 3:
		return nil, fmt.Errorf("query is %v, wants three or five dimensions", q)
	default:
		size = over(q.Dim(2))
		switch {
		case len(k.Dims) == 5:
			keys, vsize, hidden = k.Dim(1), k.Dim(4), mulDims(h, k.Dim(4))
		case len(v.Dims) == 4:
			keys, vsize, hidden = v.Dim(2), v.Dim(3), mulDims(h, v.Dim(3))
		case v.Ranked:
			keys, vsize, hidden = v.Dim(1), over(v.Dim(2)), v.Dim(2)
		}
	}
	if c.Has(6) {
		keys = addDims(keys, c.Type(6).Dim(2))
	}
	return []ir.Type{ir.TensorType(q.Elem, batch, rows, hidden), ir.TensorType(q.Elem, batch, h, keys, size),
		ir.TensorType(q.Elem, batch, h, keys, vsize), ir.TensorType(q.Elem, batch, h, rows, keys)}, nil
}

func evalMHA(c *Call) ([]*ir.Tensor, error) {
	if c.In[0].Elem() != ir.Float32 {
		return nil, badType(c, 0)
	}
	if err := sameElem(c, 1, 2, 3, 5, 6, 7); err != nil {
		return nil, err
	}
	if c.Has(8) || c.Has(9) {
		return nil, fmt.Errorf("a shared cache (inputs 8 and 9): %w", ErrUnsupported)
	}
	heads := int(c.Node.Int("num_heads", 0))
	m := &msAttention{c: c, causal: c.Node.Int("unidirectional", 0) != 0, mask: intInput(c, 4), extra: intInput(c, 5)}
	if err := m.operands(heads); err != nil {
		return nil, err
	}
	keys, values, err := m.extend(intInput(c, 6), intInput(c, 7), c.HasOut(1) || c.HasOut(2))
	if err != nil {
		return nil, err
	}
	var probs *ir.Tensor
	var scores []float32
	if c.HasOut(3) {
		if probs, err = c.New(ir.Float32, m.q.batches, m.q.heads, m.q.rows, m.k.rows); err != nil {
			return nil, err
		}
		scores, m.scoresStage = ir.Data[float32](probs), 2
	}
	out, err := m.run(scores)
	return []*ir.Tensor{out, keys, values, probs}, err
}

// operands views query, key and value by heads, the projections' bias added.
func (m *msAttention) operands(heads int) error {
	c := m.c
	in := [3]*ir.Tensor{c.In[0], intInput(c, 1), intInput(c, 2)}
	q := in[0].Shape()
	if heads < 1 {
		return fmt.Errorf("attribute num_heads is %d, wants at least 1", heads)
	}
	packed := func(t *ir.Tensor, count int) ([]headView[float32], error) {
		s := t.Shape() // [batch, sequence, heads, count, size]
		if s[2] != heads || s[3] != count {
			return nil, fmt.Errorf("packed operand has shape %v, wants [batch, sequence, %d, %d, size]", s, heads, count)
		}
		views := make([]headView[float32], count)
		for i := range views {
			d := ir.Data[float32](t)
			views[i] = headView[float32]{d[min(i*s[4], len(d)):], s[1] * heads * count * s[4], count * s[4], heads * count * s[4], heads, s[1], s[4], s[0]}
		}
		return views, nil
	}
	biases := [3]bool{true, true, true}
	var err error
	switch {
	case len(q) == 5:
		var v []headView[float32]
		if v, err = packed(in[0], 3); err != nil {
			return err
		}
		m.q, m.k, m.v = v[0], v[1], v[2]
	case in[1] == nil:
		return fmt.Errorf("query has shape %v and there is no key", q)
	case in[1].Rank() == 5:
		var v []headView[float32]
		if v, err = packed(in[1], 2); err != nil {
			return err
		}
		m.k, m.v = v[0], v[1]
	case in[2] == nil:
		return fmt.Errorf("key has shape %v and there is no value", in[1].Shape())
	default:
		biases[1], biases[2] = in[1].Rank() == 3, in[2].Rank() == 3
		if m.k, err = headsOf[float32](in[1], heads, "key"); err != nil {
			return err
		}
		if m.v, err = headsOf[float32](in[2], heads, "value"); err != nil {
			return err
		}
	}
	if len(q) != 5 {
		if m.q, err = headsOf[float32](in[0], heads, "query"); err != nil {
			return err
		}
	}
	if !c.Has(3) {
		return nil
	}
	views := []*headView[float32]{&m.q, &m.k, &m.v}
	width := 0
	for _, h := range views {
		width += h.heads * h.size
	}
	bias, err := vector[float32](c, 3, width, "the bias")
	if err != nil {
		return err
	}
	at := 0
	for i, h := range views {
		n := h.heads * h.size
		if biases[i] {
			if *h, err = m.biased(*h, bias[at:at+n]); err != nil {
				return err
			}
		}
		at += n
	}
	return nil
}

// biased copies an operand with a bias of one number for each element of a row of all heads.
func (m *msAttention) biased(h headView[float32], bias []float32) (headView[float32], error) {
	t, err := m.c.New(ir.Float32, h.batches, h.heads, h.rows, h.size)
	if err != nil {
		return h, err
	}
	out, err := headsOf[float32](t, 0, "")
	if err != nil {
		return h, err
	}
	for b := range h.batches {
		for k := range h.heads {
			for r := range h.rows {
				kernel.Add(out.at(b, k)[r*out.row:][:h.size], h.at(b, k)[r*h.row:][:h.size], bias[k*h.size:(k+1)*h.size])
			}
		}
	}
	return out, nil
}
