package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// ONNX Runtime's attention operators. Attention projects its input itself, MultiHeadAttention takes queries, keys and
// values. Both compute in float32.

// lanes views columns [from, from+heads·size) of rows of width w: [batch, rows, w].
func lanes(data []float32, batches, rows, w, from, heads, size int) headView[float32] {
	return headView[float32]{data[min(from, len(data)):], rows * w, size, w, heads, rows, size, batches}
}

var msAttentionDef = &Def{
	Domain: Microsoft, Name: "Attention", Doc: "attention by heads of an input projected by one matrix to queries, keys and values", Since: 1,
	Versions: []int{1}, Types: "float, float16, bfloat16", In: Between(2, 7), Out: Between(1, 2), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		x, w := c.Type(0), c.Type(1)
		heads := c.Node.Int("num_heads", 0)
		if heads < 1 {
			return nil, fmt.Errorf("attribute num_heads is %d, wants at least 1", heads)
		}
		y, present := ir.Type{Elem: x.Elem}, ir.Type{Elem: x.Elem}
		hidden, total := ir.UnknownDim, ir.UnknownDim
		if d := w.Dim(1); d.Known() {
			hidden = ir.Dim{Size: d.Size / 3}
		}
		if s := c.Node.Ints("qkv_hidden_sizes"); len(s) == 3 {
			hidden = ir.Dim{Size: s[2]}
		}
		if x.Ranked {
			if len(x.Dims) != 3 {
				return nil, fmt.Errorf("the input is %v, wants [batch, sequence, hidden]", x)
			}
			y = ir.TensorType(x.Elem, x.Dims[0], x.Dims[1], hidden)
			total = x.Dims[1]
			if c.Has(4) {
				if p := c.Type(4).Dim(3); p.Known() && total.Known() {
					total = ir.Dim{Size: p.Size + total.Size}
				} else {
					total = ir.UnknownDim
				}
			}
			size := ir.UnknownDim
			if hidden.Known() && hidden.Size%heads == 0 {
				size = ir.Dim{Size: hidden.Size / heads}
			}
			present = ir.TensorType(x.Elem, ir.FixedDim(2), x.Dims[0], ir.Dim{Size: heads}, total, size)
		}
		return []ir.Type{y, present}, nil
	},
	Prepare: func(c *Call) (any, error) {
		w := c.In[1]
		if w == nil || w.Rank() != 2 || !packable(w) {
			return nil, nil
		}
		return packWeight(c.Stock, w, false), nil
	},
	Eval: evalMSAttention,
	Linear: func(n *ir.Node) (Linear, bool) {
		w := n.In(1)
		if w == nil || w.Const() == nil || w.Type.Rank() != 2 {
			return Linear{}, false
		}
		l := Linear{X: 0, W: 1, B: -1, XAxis: -1, InAxis: 0, OutAxis: 1, Groups: 1}
		if n.In(2) != nil {
			l.B = 2
		}
		return l, true
	},
}

func evalMSAttention(c *Call) ([]*ir.Tensor, error) {
	x, w := c.In[0], c.In[1]
	if x.Elem() != ir.Float32 {
		return nil, badType(c, 0)
	}
	if err := sameElem(c, 1, 2, 4, 5); err != nil {
		return nil, err
	}
	for _, name := range []string{"past_present_share_buffer", "do_rotary"} {
		if c.Node.Int(name, 0) != 0 {
			return nil, fmt.Errorf("attribute %s: %w", name, ErrUnsupported)
		}
	}
	s, ws := x.Shape(), w.Shape()
	heads := int(c.Node.Int("num_heads", 0))
	if len(s) != 3 || len(ws) != 2 || ws[0] != s[2] || heads < 1 {
		return nil, fmt.Errorf("input %v, weights %v and %d heads: wants [batch, sequence, hidden], [hidden, width] and at least one head", s, ws, heads)
	}
	sizes := []int64{int64(ws[1] / 3), int64(ws[1] / 3), int64(ws[1] / 3)}
	if v := c.Node.Ints("qkv_hidden_sizes"); v != nil {
		sizes = v
	}
	for _, v := range sizes {
		if len(sizes) != 3 || v < 0 || v%int64(heads) != 0 || sizes[0] != sizes[1] || sizes[0]+sizes[1]+sizes[2] != int64(ws[1]) {
			return nil, fmt.Errorf("weights %v and attribute qkv_hidden_sizes %v do not split into %d heads", ws, sizes, heads)
		}
	}
	flat, err := x.Reshape(s[0]*s[1], s[2])
	if err != nil {
		return nil, err
	}
	qkv, err := matMul[float32](c.within(matMulDef, []*ir.Tensor{flat, w}, c.State))
	if err != nil {
		return nil, err
	}
	v := ir.Data[float32](qkv[0])
	bias, err := vector[float32](c, 2, ws[1], "the bias")
	if err != nil {
		return nil, err
	}
	if bias != nil {
		kernel.AddRows(s[0]*s[1], ws[1], v, v, bias)
	}
	view := func(i int) headView[float32] {
		from := 0
		for _, n := range sizes[:i] {
			from += int(n)
		}
		return lanes(v, s[0], s[1], ws[1], from, heads, int(sizes[i])/heads)
	}
	m := &msAttention{c: c, causal: c.Node.Int("unidirectional", 0) != 0, mask: intInput(c, 3), extra: intInput(c, 5)}
	m.q, m.k, m.v = view(0), view(1), view(2)
	var pastK, pastV *ir.Tensor
	if c.Has(4) {
		p := c.In[4].Shape()
		if len(p) != 5 || p[0] != 2 {
			return nil, fmt.Errorf("past has shape %v, wants [2, batch, heads, past, size]", p)
		}
		n := product(p[1:])
		pastK, pastV = part(c.In[4], 0, p[1:]), part(c.In[4], n, p[1:])
	}
	keys, values, err := m.extend(pastK, pastV, c.HasOut(1))
	if err != nil {
		return nil, err
	}
	out, err := m.run(nil)
	if err != nil || !c.HasOut(1) {
		return []*ir.Tensor{out}, err
	}
	if m.k.size != m.v.size {
		return nil, fmt.Errorf("present of keys of %d and values of %d elements", m.k.size, m.v.size)
	}
	present, err := c.New(ir.Float32, append([]int{2}, keys.Shape()...)...)
	if err != nil {
		return nil, err
	}
	y := ir.Data[float32](present)
	copy(y, ir.Data[float32](keys))
	copy(y[keys.Len():], ir.Data[float32](values))
	return []*ir.Tensor{out, present}, nil
}

// msAttention is an attention of ONNX Runtime's about to run.
type msAttention struct {
	c           *Call
	q, k, v     headView[float32]
	past        int // keys before those of the call
	causal      bool
	mask, extra *ir.Tensor // which keys count, and what is added to the scores
	scoresStage int
}

// extend puts past keys and values, if any, in front of those of the call. Where the result is wanted, or there is a past,
// it returns them as [batch, heads, keys, size].
func (m *msAttention) extend(pastK, pastV *ir.Tensor, wanted bool) (keys, values *ir.Tensor, err error) {
	if (pastK == nil) != (pastV == nil) {
		return nil, nil, fmt.Errorf("past keys and past values: wants both or none")
	}
	if pastK == nil && !wanted {
		return nil, nil, nil
	}
	rows := m.k.rows
	if keys, err = concatHeads(m.c, pastK, m.k, "past keys"); err != nil {
		return nil, nil, err
	}
	if values, err = concatHeads(m.c, pastV, m.v, "past values"); err != nil {
		return nil, nil, err
	}
	if m.k, err = headsOf[float32](keys, 0, ""); err != nil {
		return nil, nil, err
	}
	if m.v, err = headsOf[float32](values, 0, ""); err != nil {
		return nil, nil, err
	}
	m.past = m.k.rows - rows
	return keys, values, nil
}

// run computes [batch, queries, heads·size]. scores, if not nil, receives the probabilities.
func (m *msAttention) run(scores []float32) (*ir.Tensor, error) {
	a := &attention[float32]{q: m.q, k: m.k, v: m.v, scores: scores, stage: m.scoresStage}
	if err := a.check(); err != nil {
		return nil, err
	}
	out, err := m.c.New(ir.Float32, a.q.batches, a.q.rows, a.q.heads*a.v.size)
	if err != nil {
		return nil, err
	}
	if a.y, err = headsOf[float32](out, a.q.heads, "the output"); err != nil {
		return nil, err
	}
	a.scale = scoreScale(m.c.Node, a.q.size)
	if err := m.bias(a); err != nil {
		return nil, err
	}
	a.run()
	return out, nil
}

// scoreScale returns the attribute scale, whose absence and 0 mean 1/√size.
func scoreScale(n *ir.Node, size int) float64 {
	if s := n.Float("scale", 0); s != 0 {
		return float64(s)
	}
	return 1 / math.Sqrt(float64(max(size, 1)))
}

// bias fills what is added to the scores: mask_filter_value where the mask says that a key does not count, the lowest
// float for keys after the query where the attention is causal, and the attention bias.
func (m *msAttention) bias(a *attention[float32]) error {
	if m.mask == nil && m.extra == nil && !m.causal {
		return nil
	}
	batch, rows, keys := a.q.batches, a.q.rows, a.k.rows
	out, err := m.extraBias(a)
	if err != nil {
		return err
	}
	hidden, err := m.hidden(batch, rows, keys)
	if err != nil {
		return err
	}
	filter := m.c.Node.Float("mask_filter_value", -10000)
	for i := range a.biasBatches * a.biasHeads * rows {
		b, r := i/rows/a.biasHeads, i%rows
		row := out[i*keys : (i+1)*keys]
		for t := range row {
			switch {
			case m.causal && t > m.past+r:
				row[t] = -math.MaxFloat32
			case hidden != nil && hidden(b, r, t):
				row[t] += filter
			}
		}
	}
	return nil
}

// extraBias allocates the bias and fills it with the attention bias, zeros if there is none.
func (m *msAttention) extraBias(a *attention[float32]) ([]float32, error) {
	batch, heads, rows, keys := a.q.batches, a.q.heads, a.q.rows, a.k.rows
	a.biasBatches, a.biasHeads = 1, 1
	if m.mask != nil {
		a.biasBatches = batch
	}
	var extra []float32
	s := []int{1, 1, rows, keys}
	if m.extra != nil {
		s = m.extra.Shape()
		if len(s) != 4 || s[0] != 1 && s[0] != batch || s[1] != 1 && s[1] != heads || s[2] != rows || s[3] != keys {
			return nil, fmt.Errorf("attention_bias has shape %v, wants [%d or 1, %d or 1, %d, %d]", s, batch, heads, rows, keys)
		}
		a.biasBatches, a.biasHeads = max(a.biasBatches, s[0]), s[1]
		extra = ir.Data[float32](m.extra)
	}
	t, err := m.c.New(ir.Float32, a.biasBatches, a.biasHeads, rows, keys)
	if err != nil {
		return nil, err
	}
	out := ir.Data[float32](t)
	clear(out)
	if n := s[1] * rows * keys; extra != nil && n > 0 {
		for b := range a.biasBatches {
			copy(out[b*n:(b+1)*n], extra[b%s[0]*n:])
		}
	}
	a.bias = out
	return out, nil
}

// hidden reads the mask: whether key t does not count for query r of batch b. nil: all count.
func (m *msAttention) hidden(batch, rows, keys int) (func(b, r, t int) bool, error) {
	if m.mask == nil {
		return nil, nil
	}
	v, ok := m.mask.Int64s()
	if !ok {
		return nil, fmt.Errorf("the mask is %v, wants integers", m.mask.Type())
	}
	s := m.mask.Shape()
	switch {
	case len(s) == 1 && s[0] == batch:
		return func(b, _, t int) bool { return int64(t) >= v[b] }, nil
	case len(s) == 1 && s[0] == 2*batch:
		return func(b, _, t int) bool { return int64(t) >= v[b] || int64(t) < v[batch+b] }, nil
	case len(s) == 2 && s[0] == batch && s[1] == keys:
		return func(b, _, t int) bool { return v[b*keys+t] <= 0 }, nil
	case len(s) == 3 && s[0] == batch && s[1] == rows && s[2] == keys:
		return func(b, r, t int) bool { return v[(b*rows+r)*keys+t] <= 0 }, nil
	case len(s) == 4 && s[0] == batch && s[1] == 1 && s[2] == s[3] && s[2] >= keys && s[2] >= m.past+rows:
		return func(b, r, t int) bool { return v[(b*s[2]+m.past+r)*s[3]+t] <= 0 }, nil
	}
	return nil, fmt.Errorf("the mask has shape %v for batch %d, %d queries and %d keys: %w", s, batch, rows, keys, ErrUnsupported)
}
