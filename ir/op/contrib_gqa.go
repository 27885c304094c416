package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
)

var groupQueryAttentionDef = &Def{
	Domain: Microsoft, Name: "GroupQueryAttention", Doc: "causal attention in which groups of query heads share a key head, with a cache and rotary embedding",
	Since: 1, Versions: []int{1}, Types: "float, float16, bfloat16", In: Between(7, 16), Optional: []int{1, 2, 3, 4}, Out: Between(1, 4), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		q := c.Type(0)
		heads, kv := c.Node.Int("num_heads", 0), c.Node.Int("kv_num_heads", 0)
		if heads < 1 || kv < 1 || heads%kv != 0 {
			return nil, fmt.Errorf("attributes num_heads %d and kv_num_heads %d: wants a multiple of key heads", heads, kv)
		}
		y := ir.Type{Elem: q.Elem}
		if !q.Ranked {
			return []ir.Type{y, y, y, y}, nil
		}
		if len(q.Dims) != 3 {
			return nil, fmt.Errorf("query is %v, wants three dimensions", q)
		}
		all := heads
		if !c.Has(1) {
			all += 2 * kv
		}
		size, hidden := ir.UnknownDim, ir.UnknownDim
		if d := q.Dim(2); d.Known() && d.Size%all == 0 {
			size, hidden = ir.Dim{Size: d.Size / all}, ir.Dim{Size: d.Size / all * heads}
		}
		total := ir.UnknownDim
		if n, ok := c.ConstInts(6); ok && len(n) == 1 && !c.Has(3) && n[0] >= 0 {
			total = ir.Dim{Size: n[0]}
		}
		present := ir.TensorType(q.Elem, q.Dim(0), ir.Dim{Size: kv}, total, size)
		return []ir.Type{ir.TensorType(q.Elem, q.Dim(0), q.Dim(1), hidden), present, present,
			ir.TensorType(q.Elem, q.Dim(0), ir.Dim{Size: heads}, q.Dim(1), total)}, nil
	},
	Eval: evalGQA,
}

// groupQuery is a GroupQueryAttention about to run.
type groupQuery struct {
	c       *Call
	q, k, v headView[float32]
	past    []int // keys before the call's, by batch
	total   int   // rows of the cache after the call
}

func evalGQA(c *Call) ([]*ir.Tensor, error) {
	g := &groupQuery{c: c}
	if err := g.operands(); err != nil {
		return nil, err
	}
	if err := g.lengths(); err != nil {
		return nil, err
	}
	if c.Node.Int("do_rotary", 0) != 0 {
		if err := g.rotate(); err != nil {
			return nil, err
		}
	}
	keys, err := g.cache(intInput(c, 3), g.k, "past_key")
	if err != nil {
		return nil, err
	}
	values, err := g.cache(intInput(c, 4), g.v, "past_value")
	if err != nil {
		return nil, err
	}
	a := &attention[float32]{q: g.q, softcap: float64(c.Node.Float("softcap", 0)), scale: scoreScale(c.Node, g.q.size)}
	if a.k, err = headsOf[float32](keys, 0, ""); err != nil {
		return nil, err
	}
	if a.v, err = headsOf[float32](values, 0, ""); err != nil {
		return nil, err
	}
	if err := a.check(); err != nil {
		return nil, err
	}
	out, err := c.New(ir.Float32, a.q.batches, a.q.rows, a.q.heads*a.v.size)
	if err != nil {
		return nil, err
	}
	if a.y, err = headsOf[float32](out, a.q.heads, "the output"); err != nil {
		return nil, err
	}
	if err := g.bias(a); err != nil {
		return nil, err
	}
	if sink := intInput(c, 11); sink != nil {
		if a.sinks, err = vector[float32](c, 11, a.q.heads, "head_sink"); err != nil {
			return nil, err
		}
	} else if c.Node.Int("smooth_softmax", 0) > 0 {
		a.sinks = make([]float32, a.q.heads)
	}
	results := []*ir.Tensor{out, keys, values, nil}
	if c.HasOut(3) {
		if results[3], err = c.New(ir.Float32, a.q.batches, a.q.heads, a.q.rows, g.total); err != nil {
			return nil, err
		}
		a.scores, a.stage = ir.Data[float32](results[3]), 1+int(c.Node.Int("qk_output", 0))
	}
	a.run()
	if a.scores != nil && a.stage == 2 { // ONNX Runtime shows scores that do not count as 0
		for i, v := range a.scores {
			if math.IsInf(float64(v), -1) {
				a.scores[i] = 0
			}
		}
	}
	return results, nil
}

func (g *groupQuery) operands() error {
	c := g.c
	if c.In[0].Elem() != ir.Float32 {
		return badType(c, 0)
	}
	if err := sameElem(c, 1, 2, 3, 4, 7, 8, 10, 11); err != nil {
		return err
	}
	for _, i := range []int{12, 13, 14, 15} {
		if c.Has(i) {
			return fmt.Errorf("input %d (a quantized cache or norm of the heads): %w", i, ErrUnsupported)
		}
	}
	if c.Node.Int("sliding_window_cache", 0) != 0 {
		return fmt.Errorf("attribute sliding_window_cache: %w", ErrUnsupported)
	}
	heads, kv := int(c.Node.Int("num_heads", 0)), int(c.Node.Int("kv_num_heads", 0))
	s := c.In[0].Shape()
	if len(s) != 3 || heads < 1 || kv < 1 {
		return fmt.Errorf("query has shape %v, %d heads and %d key heads: wants [batch, sequence, hidden] and at least one head", s, heads, kv)
	}
	if !c.Has(1) {
		if s[2]%(heads+2*kv) != 0 {
			return fmt.Errorf("query has shape %v, which %d heads do not divide", s, heads+2*kv)
		}
		size, v := s[2]/(heads+2*kv), ir.Data[float32](c.In[0])
		g.q = lanes(v, s[0], s[1], s[2], 0, heads, size)
		g.k = lanes(v, s[0], s[1], s[2], heads*size, kv, size)
		g.v = lanes(v, s[0], s[1], s[2], (heads+kv)*size, kv, size)
		return nil
	}
	if !c.Has(2) {
		return fmt.Errorf("there is a key and no value")
	}
	var err error
	if g.q, err = headsOf[float32](c.In[0], heads, "query"); err != nil {
		return err
	}
	if g.k, err = headsOf[float32](c.In[1], kv, "key"); err != nil {
		return err
	}
	if g.v, err = headsOf[float32](c.In[2], kv, "value"); err != nil {
		return err
	}
	if g.k.rows != g.q.rows || g.v.rows != g.q.rows || g.k.batches != g.q.batches || g.v.batches != g.q.batches {
		return fmt.Errorf("query, key and value have shapes %v, %v and %v: wants one batch and sequence length", s, c.In[1].Shape(), c.In[2].Shape())
	}
	return nil
}

// lengths reads how many keys each batch has: seqlens_k, less 1, counts those of the call too. A call as long as the whole
// sequence is the first.
func (g *groupQuery) lengths() error {
	c := g.c
	lens, ok1 := c.ConstInts(5)
	all, ok2 := c.ConstInts(6)
	if !ok1 || !ok2 || len(lens) != g.q.batches || len(all) != 1 {
		return fmt.Errorf("seqlens_k is %v and total_sequence_length %v, wants %d integers and one", c.Type(5), c.Type(6), g.q.batches)
	}
	if all[0] < 0 || all[0] > ir.MaxElements {
		return fmt.Errorf("total_sequence_length is %d", all[0])
	}
	g.total = int(all[0])
	if c.Has(3) && c.In[3].Rank() == 4 {
		g.total = max(g.total, c.In[3].Shape()[2])
	}
	g.past = make([]int, g.q.batches)
	for b, n := range lens {
		if int64(g.q.rows) != all[0] {
			n += 1 - int64(g.q.rows)
		} else {
			n = 0
		}
		if n < 0 || n+int64(g.q.rows) > int64(g.total) {
			return fmt.Errorf("batch %d: seqlens_k is %d, which does not fit %d new keys and a cache of %d", b, lens[b], g.q.rows, g.total)
		}
		g.past[b] = int(n)
	}
	return nil
}

func (g *groupQuery) rotate() error {
	c := g.c
	t, err := turningOf(c, 7, c.Node.Int("rotary_interleaved", 0) != 0)
	if err != nil {
		return err
	}
	position := func(b, r int) int64 { return int64(g.past[b] + r) }
	if c.Has(9) {
		ids, ok := c.ConstInts(9)
		if !ok || len(ids) != g.q.batches*g.q.rows {
			return fmt.Errorf("position_ids are %v, wants integers [%d %d]", c.Type(9), g.q.batches, g.q.rows)
		}
		position = func(b, r int) int64 { return ids[b*g.q.rows+r] }
	}
	for _, h := range []*headView[float32]{&g.q, &g.k} {
		out, err := c.New(ir.Float32, h.batches, h.heads, h.rows, h.size)
		if err != nil {
			return err
		}
		y, err := headsOf[float32](out, 0, "")
		if err != nil {
			return err
		}
		if err := t.apply(y, *h, position); err != nil {
			return err
		}
		*h = y
	}
	return nil
}

// cache returns past rows followed by those of the call, batch by batch, and zeros behind them.
func (g *groupQuery) cache(past *ir.Tensor, h headView[float32], what string) (*ir.Tensor, error) {
	before := 0
	var old []float32
	if past != nil {
		s := past.Shape()
		if len(s) != 4 || s[0] != h.batches || s[1] != h.heads || s[3] != h.size {
			return nil, fmt.Errorf("%s has shape %v, wants [%d %d past %d]", what, s, h.batches, h.heads, h.size)
		}
		before, old = s[2], ir.Data[float32](past)
	}
	out, err := g.c.New(ir.Float32, h.batches, h.heads, g.total, h.size)
	if err != nil {
		return nil, err
	}
	y := ir.Data[float32](out)
	clear(y)
	for b := range h.batches {
		if g.past[b] > before {
			return nil, fmt.Errorf("%s has %d rows, batch %d has %d past keys", what, before, b, g.past[b])
		}
		for k := range h.heads {
			i := b*h.heads + k
			dst := y[i*g.total*h.size : (i+1)*g.total*h.size]
			copy(dst, old[i*before*h.size:][:g.past[b]*h.size])
			for r := range h.rows {
				copy(dst[(g.past[b]+r)*h.size:][:h.size], h.at(b, k)[r*h.row:])
			}
		}
	}
	return out, nil
}

// bias hides what a query must not see: keys after it, keys before its window, and what lies behind the batch's keys.
func (g *groupQuery) bias(a *attention[float32]) error {
	c := g.c
	rows, keys := a.q.rows, a.k.rows
	a.biasBatches, a.biasHeads = a.q.batches, 1
	var extra []float32
	var s []int
	if t := intInput(c, 10); t != nil {
		s = t.Shape()
		if len(s) != 4 || s[0] != 1 && s[0] != a.q.batches || s[1] != 1 && s[1] != a.q.heads || s[2] != rows {
			return fmt.Errorf("attention_bias has shape %v, wants [%d or 1, %d or 1, %d, keys]", s, a.q.batches, a.q.heads, rows)
		}
		a.biasHeads, extra = s[1], ir.Data[float32](t)
	}
	t, err := c.New(ir.Float32, a.biasBatches, a.biasHeads, rows, keys)
	if err != nil {
		return err
	}
	a.bias = ir.Data[float32](t)
	causal, window := c.Node.Int("causal", 1) != 0, c.Node.Int("local_window_size", -1)
	inf := float32(math.Inf(-1))
	for i := range a.biasBatches * a.biasHeads * rows {
		b, h, r := i/rows/a.biasHeads, i/rows%a.biasHeads, i%rows
		at := g.past[b] + r
		row := a.bias[i*keys : (i+1)*keys]
		for j := range row {
			switch {
			case j > at && causal || j >= g.past[b]+rows || window >= 0 && int64(j) <= int64(at)-window:
				row[j] = inf
			case extra != nil && j < s[3]:
				row[j] = extra[((b%s[0]*s[1]+h)*rows+r)*s[3]+j]
			default:
				row[j] = 0
			}
		}
	}
	return nil
}
