package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
)

// inputs of Attention
const (
	attnQ = iota
	attnK
	attnV
	attnMask
	attnPastKey
	attnPastValue
	attnLengths
)

var attentionDef = &Def{
	Name: "Attention", Doc: "softmax(Q·Kᵀ·scale + bias)·V by heads, with a cache of past keys and values", Since: 23,
	Versions: []int{23, 24, 25}, Types: "float, double, float16, bfloat16", In: Between(3, 7), Out: Between(1, 4), Widen: true,
	Infer: inferAttention,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalFloat(c, []int{attnK, attnV, attnPastKey, attnPastValue}, evalAttention[float32], evalAttention[float64])
	},
}

func inferAttention(c *Call) ([]ir.Type, error) {
	q, k, v := c.Type(attnQ), c.Type(attnK), c.Type(attnV)
	four := func(t ir.Type, heads, name string) ([]ir.Dim, error) { // as [batch, heads, sequence, size]
		unknown := []ir.Dim{ir.UnknownDim, ir.UnknownDim, ir.UnknownDim, ir.UnknownDim}
		switch {
		case !t.Ranked:
			return unknown, nil
		case len(t.Dims) == 4:
			return t.Dims, nil
		case len(t.Dims) != 3:
			return nil, fmt.Errorf("%s is %v, wants three or four dimensions", name, t)
		}
		h := c.Node.Int(heads, 0)
		if h < 1 {
			return nil, fmt.Errorf("%s is %v and attribute %s is absent", name, t, heads)
		}
		size := ir.UnknownDim
		if d := t.Dims[2]; d.Known() {
			if d.Size%h != 0 {
				return nil, fmt.Errorf("%s is %v, %d heads do not divide %d", name, t, h, d.Size)
			}
			size = ir.Dim{Size: d.Size / h}
		}
		return []ir.Dim{t.Dims[0], {Size: h}, t.Dims[1], size}, nil
	}
	qd, err := four(q, "q_num_heads", "Q")
	if err != nil {
		return nil, err
	}
	kd, err := four(k, "kv_num_heads", "K")
	if err != nil {
		return nil, err
	}
	vd, err := four(v, "kv_num_heads", "V")
	if err != nil {
		return nil, err
	}
	total := kd[2]
	if c.Has(attnPastKey) {
		past := c.Type(attnPastKey).Dim(2)
		if past.Known() && total.Known() {
			total = ir.Dim{Size: past.Size + total.Size}
		} else {
			total = ir.UnknownDim
		}
	}
	y := ir.Type{Elem: q.Elem}
	switch {
	case q.Ranked && len(q.Dims) == 4:
		y = ir.TensorType(q.Elem, qd[0], qd[1], qd[2], vd[3])
	case q.Ranked:
		hidden := ir.UnknownDim
		if vd[3].Known() {
			hidden = ir.Dim{Size: vd[3].Size * qd[1].Size}
		}
		y = ir.TensorType(q.Elem, qd[0], qd[2], hidden)
	}
	return []ir.Type{y, ir.TensorType(k.Elem, kd[0], kd[1], total, kd[3]), ir.TensorType(v.Elem, vd[0], vd[1], total, vd[3]),
		ir.TensorType(q.Elem, qd[0], qd[1], qd[2], total)}, nil
}

// headView reads matrices [rows, size] by batch and head from either layout: [batch, heads, rows, size] or
// [batch, rows, heads·size]. Its numbers are distances in elements.
type headView[T floatElem] struct {
	data              []T
	batch, head, row  int
	heads, rows, size int
	batches           int
}

func (h headView[T]) at(b, k int) []T {
	if len(h.data) == 0 {
		return nil
	}
	return h.data[b*h.batch+k*h.head:]
}

// headsOf views a tensor; heads is the attribute that splits three dimensions.
func headsOf[T floatElem](t *ir.Tensor, heads int, name string) (headView[T], error) {
	s := t.Shape()
	switch len(s) {
	case 4:
		return headView[T]{ir.Data[T](t), s[1] * s[2] * s[3], s[2] * s[3], s[3], s[1], s[2], s[3], s[0]}, nil
	case 3:
		if heads < 1 || s[2]%heads != 0 {
			return headView[T]{}, fmt.Errorf("%s has shape %v, which %d heads do not divide", name, s, heads)
		}
		size := s[2] / heads
		return headView[T]{ir.Data[T](t), s[1] * s[2], size, s[2], heads, s[1], size, s[0]}, nil
	}
	return headView[T]{}, fmt.Errorf("%s has shape %v, wants three or four dimensions", name, s)
}

// concatHeads copies past (if any) and h, one after the other along the rows, to a tensor [batch, heads, rows, size].
func concatHeads[T floatElem](c *Call, past *ir.Tensor, h headView[T], name string) (*ir.Tensor, error) {
	before := 0
	var old []T
	if past != nil {
		s := past.Shape()
		if len(s) != 4 || s[0] != h.batches || s[1] != h.heads || s[3] != h.size {
			return nil, fmt.Errorf("%s has shape %v, wants [%d %d past %d]", name, s, h.batches, h.heads, h.size)
		}
		before, old = s[2], ir.Data[T](past)
	}
	out, err := c.New(c.In[0].Elem(), h.batches, h.heads, before+h.rows, h.size)
	if err != nil {
		return nil, err
	}
	if out.Len() == 0 {
		return out, nil
	}
	y := ir.Data[T](out)
	for b := range h.batches {
		for k := range h.heads {
			i := b*h.heads + k
			to := y[i*(before+h.rows)*h.size:]
			copy(to[:before*h.size], old[min(i*before*h.size, len(old)):])
			for r := range h.rows {
				copy(to[(before+r)*h.size:][:h.size], h.at(b, k)[r*h.row:])
			}
		}
	}
	return out, nil
}

func evalAttention[T floatElem](c *Call) ([]*ir.Tensor, error) {
	n := c.Node
	qHeads, kvHeads := int(n.Int("q_num_heads", 0)), int(n.Int("kv_num_heads", 0))
	a := &attention[T]{}
	var err error
	if a.q, err = headsOf[T](c.In[attnQ], qHeads, "Q"); err != nil {
		return nil, err
	}
	if a.k, err = headsOf[T](c.In[attnK], kvHeads, "K"); err != nil {
		return nil, err
	}
	if a.v, err = headsOf[T](c.In[attnV], kvHeads, "V"); err != nil {
		return nil, err
	}
	if c.Has(attnPastKey) != c.Has(attnPastValue) {
		return nil, fmt.Errorf("past_key and past_value: want both or none")
	}
	results := make([]*ir.Tensor, 4)
	offset := 0 // keys before the first query
	for i, h := range []*headView[T]{&a.k, &a.v} {
		var past *ir.Tensor
		if c.Has(attnPastKey) {
			past = c.In[attnPastKey+i]
		} else if !c.HasOut(1 + i) {
			continue
		}
		t, err := concatHeads(c, past, *h, [...]string{"past_key", "past_value"}[i])
		if err != nil {
			return nil, err
		}
		results[1+i] = t
		offset = t.Shape()[2] - h.rows
		if *h, err = headsOf[T](t, 0, ""); err != nil {
			return nil, err
		}
	}
	if err := a.check(); err != nil {
		return nil, err
	}
	shape := []int{a.q.batches, a.q.heads, a.q.rows, a.v.size}
	if c.In[attnQ].Rank() == 3 {
		shape = []int{a.q.batches, a.q.rows, a.q.heads * a.v.size}
	}
	if results[0], err = c.New(c.In[0].Elem(), shape...); err != nil {
		return nil, err
	}
	if a.y, err = headsOf[T](results[0], a.q.heads, "Y"); err != nil {
		return nil, err
	}
	a.scale = float64(n.Float("scale", float32(1/math.Sqrt(float64(max(a.q.size, 1))))))
	a.softcap = float64(n.Float("softcap", 0))
	if err := a.setBias(c, offset); err != nil {
		return nil, err
	}
	if c.HasOut(3) {
		if results[3], err = c.New(c.In[0].Elem(), a.q.batches, a.q.heads, a.q.rows, a.k.rows); err != nil {
			return nil, err
		}
		a.scores, a.stage = ir.Data[T](results[3]), int(n.Int("qk_matmul_output_mode", 0))
		if a.stage < 0 || a.stage > 3 {
			return nil, fmt.Errorf("attribute qk_matmul_output_mode is %d, wants 0 to 3", a.stage)
		}
	}
	p, err := elemAttr(n, "softmax_precision", ir.Undefined)
	if err != nil {
		return nil, err
	}
	if p != ir.Undefined && p != c.In[0].Elem() {
		if !isHalf(p) && p != ir.Float32 && p != ir.Float64 {
			return nil, fmt.Errorf("attribute softmax_precision is %v, wants a float type", p)
		}
		a.precision = p
	}
	a.run()
	return results, nil
}

// setBias builds what is added to the scores: the mask, the causal frontier, the window and the padding of the keys.
// offset is the number of past keys.
func (a *attention[T]) setBias(c *Call, offset int) error {
	n := c.Node
	left, right := n.Int("left_window_size", -1), n.Int("right_window_size", -1)
	causal := n.Int("is_causal", 0) != 0
	if causal && (right < 0 || right > 0) {
		right = 0
	}
	var lengths []int64
	if c.Has(attnLengths) {
		var ok bool
		if lengths, ok = c.ConstInts(attnLengths); !ok || len(lengths) != a.q.batches {
			return fmt.Errorf("nonpad_kv_seqlen is %v, wants %d integers", c.In[attnLengths].Type(), a.q.batches)
		}
	}
	if !c.Has(attnMask) && lengths == nil && left < 0 {
		if right < 0 {
			return nil
		}
		if right == 0 && offset == a.k.rows-a.q.rows {
			a.causal = true
			return nil
		}
	}
	a.biasBatches, a.biasHeads = 1, 1
	if lengths != nil {
		a.biasBatches = a.q.batches
	}
	var mask *ir.Tensor
	var full [4]int // the mask's shape in four dimensions
	if c.Has(attnMask) {
		mask = c.In[attnMask]
		s := mask.Shape()
		want := [4]int{a.q.batches, a.q.heads, a.q.rows, a.k.rows}
		full = [4]int{1, 1, 1, 1}
		bad := len(s) > 4
		for i, d := range s {
			if k := i + 4 - len(s); !bad {
				full[k] = d
				bad = d != 1 && d != want[k] && (k < 3 || d > want[k])
			}
		}
		if bad {
			return fmt.Errorf("attn_mask has shape %v, which does not broadcast to %v", s, want)
		}
		a.biasBatches, a.biasHeads = max(a.biasBatches, full[0]), full[1]
	}
	value, err := maskValues[T](mask)
	if err != nil {
		return err
	}
	inf := T(math.Inf(-1))
	rows, keys := a.q.rows, a.k.rows
	bias, err := c.New(c.In[0].Elem(), a.biasBatches, a.biasHeads, rows, keys)
	if err != nil {
		return err
	}
	a.bias = ir.Data[T](bias)
	for i := range a.biasBatches * a.biasHeads * rows {
		b, h, r := i/rows/a.biasHeads, i/rows%a.biasHeads, i%rows
		row := a.bias[i*keys : (i+1)*keys]
		at, seen := offset+r, keys
		if lengths != nil {
			seen = int(min(max(lengths[b], 0), int64(keys)))
			if !c.Has(attnPastKey) {
				at = int(lengths[b]) - rows + r
			}
		}
		base := (((b%max(full[0], 1))*full[1]+h)*full[2] + r%max(full[2], 1)) * full[3]
		for j := range row {
			switch {
			case j >= seen || left >= 0 && int64(j) < int64(at)-left || right >= 0 && int64(j) > int64(at)+right:
				row[j] = inf
			case mask == nil:
				row[j] = 0
			case full[3] == 1:
				row[j] = value[base]
			case j < full[3]:
				row[j] = value[base+j]
			default:
				row[j] = inf
			}
		}
	}
	return nil
}

// maskValues returns what a mask adds to the scores: 0 or -Inf for bool, its numbers for other types.
func maskValues[T floatElem](mask *ir.Tensor) ([]T, error) {
	if mask == nil {
		return nil, nil
	}
	out := make([]T, mask.Len())
	if mask.Elem() == ir.Bool {
		for i, on := range ir.Data[uint8](mask) {
			if on == 0 {
				out[i] = T(math.Inf(-1))
			}
		}
		return out, nil
	}
	if mask.Elem() == ir.Float64 {
		for i, v := range ir.Data[float64](mask) {
			out[i] = T(v)
		}
		return out, nil
	}
	v, ok := mask.Float32s()
	if !ok {
		return nil, fmt.Errorf("attn_mask is %v: %w", mask.Type(), ErrUnsupported)
	}
	for i, x := range v {
		out[i] = T(x)
	}
	return out, nil
}
