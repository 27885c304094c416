package runtime

import (
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// attention is the state of a joined softmax(Q·K·scale + mask)·V over stacks [batch, heads, …].
type attention struct {
	q, k, v operand
	scale   float32
	by      int // input: a scalar that multiplies the scores; -1: none
	divide  bool
	mask    int // input; -1: none
	probs   grid
	blocks  *blocks // of the probabilities; nil: probs
	swap    bool    // the result is [batch, queries, heads, …]
	codes   bool    // products of operands quantized in blocks may run on codes
}

// operand is where Q, K or V comes from.
type operand struct {
	in     int // input
	quant  *blocks
	swap   bool // [batch, rows, heads, cols]: a transposition that is not carried out
	cols   bool // K is [batch, heads, cols, rows] as it stands
	expand int  // input: the shape to which an Expand spreads [batch, heads, 1, rows, cols]; -1: none
	flat   int  // input: the shape to which a Reshape brings that
}

// attention joins the steps around the Softmax of step i.
func (f *fuser) attention(i int) {
	st := &f.steps[i]
	if !f.is(i, "Softmax") {
		return
	}
	if rank := st.node.Out(0).Type.Rank(); rank != 4 || st.node.Int("axis", -1) != -1 && st.node.Int("axis", -1) != 3 {
		return
	}
	a := &attention{scale: 1, by: -1, mask: -1, codes: !f.plain}
	parts := []int{i}
	var in []int
	input := func(s int) int {
		in = append(in, s)
		return len(in) - 1
	}
	// Backward to the scores.
	s := st.in[0]
	reader := i
	scores := -1
	for scores < 0 {
		k, ok := f.by[s]
		if !ok || f.gone[k] || f.steps[k].out[0] != s || !f.private(s, reader) {
			return
		}
		switch {
		case f.is(k, "MatMul"):
			scores = k
		case f.is(k, "Add") && a.mask < 0 && a.by < 0 && a.scale == 1:
			next := -1
			for j, o := range f.steps[k].in {
				if f.leadsTo(o) {
					next = j
					break
				}
			}
			if next < 0 {
				return
			}
			a.mask = input(f.steps[k].in[1-next])
			s = f.steps[k].in[next]
		case (f.is(k, "Mul") || f.is(k, "Div")) && a.by < 0:
			next := 0
			if !f.leadsTo(f.steps[k].in[0]) {
				next = 1
			}
			by := f.steps[k].in[1-next]
			a.divide = f.is(k, "Div")
			if a.divide && next == 1 {
				return
			}
			if v, ok := scalarOf(f.constant(by)); ok {
				if a.divide {
					v = 1 / v
				}
				a.scale *= v
			} else if f.constant(by) != nil || !f.scalar(by) {
				return
			} else {
				a.by = input(by)
			}
			s = f.steps[k].in[next]
		default:
			return
		}
		parts = append(parts, k)
		reader = k
	}
	// Forward to the context, by way of a quantizer of the probabilities.
	p := st.out[0]
	ctx, ok := f.next(p)
	if ok && !f.is(ctx, "MatMul") {
		quant := []int{ctx}
		if a.blocks = f.blocks(ctx, 3); a.blocks == nil {
			if a.probs, quant, ok = f.grid(ctx); !ok {
				return
			}
		}
		parts = append(parts, quant...)
		p = f.steps[quant[len(quant)-1]].out[0]
		ctx, ok = f.next(p)
	}
	if !ok || !f.is(ctx, "MatMul") || f.steps[ctx].in[0] != p || f.steps[ctx].in[1] == p {
		return
	}
	parts = append(parts, ctx)
	sc, cx := f.steps[scores], f.steps[ctx]
	if f.constant(sc.in[0]) != nil || f.constant(sc.in[1]) != nil || f.constant(cx.in[1]) != nil {
		return
	}
	var more []int
	a.q, more = f.operand(sc.in[0], scores, false, input)
	parts = append(parts, more...)
	a.k, more = f.operand(sc.in[1], scores, true, input)
	parts = append(parts, more...)
	a.v, more = f.operand(cx.in[1], ctx, false, input)
	parts = append(parts, more...)
	if t, ok := f.next(cx.out[0]); ok && f.is(t, "Transpose") && slices.Equal(f.steps[t].node.Ints("perm"), []int64{0, 2, 1, 3}) {
		a.swap = true
		parts = append(parts, t)
	}
	slices.Sort(parts)
	if len(slices.Compact(slices.Clone(parts))) != len(parts) {
		return
	}
	f.join(attentionDef, a, in, parts...)
}

// leadsTo reports that slot s is made by a product of two matrices, or scales one.
func (f *fuser) leadsTo(s int) bool {
	for range 3 {
		k, ok := f.by[s]
		if !ok || f.gone[k] {
			return false
		}
		switch {
		case f.is(k, "MatMul"):
			return true
		case f.is(k, "Mul") || f.is(k, "Div"):
			in := f.steps[k].in
			if s = in[0]; f.constant(s) != nil || f.scalar(s) {
				s = in[1]
			}
		default:
			return false
		}
	}
	return false
}

// scalar reports that slot s is known to hold one float32.
func (f *fuser) scalar(s int) bool {
	i, ok := f.by[s]
	if !ok {
		return false
	}
	for k, o := range f.steps[i].out {
		if o == s {
			t := f.steps[i].node.Out(k).Type
			return t.Elem == ir.Float32 && t.Ranked && len(t.Dims) == 0
		}
	}
	return false
}

// operand follows slot s, which step reader multiplies, to where its numbers lie before they are transposed and repeated.
func (f *fuser) operand(s, reader int, isK bool, input func(int) int) (o operand, parts []int) {
	o = operand{expand: -1, flat: -1, cols: isK}
	if i, ok := f.by[s]; ok && !f.gone[i] && f.private(s, reader) {
		axis := 2 // that is contracted: rows of K as it is multiplied and of V
		if f.steps[reader].in[0] == s {
			axis = 3
		}
		if o.quant = f.blocks(i, axis); o.quant != nil {
			parts = append(parts, i)
			s, reader = f.steps[i].in[0], i
		}
	}
	if t, ok := f.maker(s, "Transpose"); ok {
		perm := f.steps[t].node.Ints("perm")
		swap := slices.Equal(perm, []int64{0, 2, 1, 3}) && !isK || slices.Equal(perm, []int64{0, 2, 3, 1}) && isK
		if swap || isK && slices.Equal(perm, []int64{0, 1, 3, 2}) {
			private := f.private(s, reader)
			if private {
				parts = append(parts, t)
			}
			o.swap, o.cols = swap, false
			s, reader = f.steps[t].in[0], t
			if swap || !private {
				o.in = input(s)
				return o, parts
			}
		}
	}
	if o.cols {
		o.in = input(s)
		return o, parts
	}
	// Repeated heads: [b, h, r, c] → [b, h, 1, r, c] → [b, h, n, r, c] → [b, h·n, r, c].
	if flat, ok := f.maker(s, "Reshape"); ok && f.private(s, reader) {
		wide := f.steps[flat].in[0]
		if ex, ok := f.maker(wide, "Expand"); ok && f.private(wide, flat) {
			one := f.steps[ex].in[0]
			if un, ok := f.maker(one, "Unsqueeze"); ok && f.private(one, ex) && f.axes(un, 2) {
				parts = append(parts, flat, ex, un)
				o.in = input(f.steps[un].in[0])
				o.expand, o.flat = input(f.steps[ex].in[1]), input(f.steps[flat].in[1])
				return o, parts
			}
		}
	}
	o.in = input(s)
	return o, parts
}

// axes reports that the second input of step i is the constant [axis].
func (f *fuser) axes(i, axis int) bool {
	if len(f.steps[i].in) < 2 {
		return false
	}
	t := f.constant(f.steps[i].in[1])
	if t == nil || t.Len() != 1 {
		return false
	}
	v, ok := t.Int64s()
	return ok && v[0] == int64(axis)
}

// stack is an operand at run time.
type stack struct {
	data              []float32
	batch, heads      int
	rows, cols, share int
	batchStep, step   int // from one batch and head to the next
	ld                int
}

func (o *operand) stack(c *op.Call) (s stack, ok bool) {
	t := c.In[o.in]
	if t.Rank() != 4 || t.Elem() != ir.Float32 {
		return s, false
	}
	d := t.Shape()
	s = stack{data: ir.Data[float32](t), batch: d[0], heads: d[1], rows: d[2], cols: d[3], share: 1}
	switch {
	case o.swap:
		s.heads, s.rows = d[2], d[1]
		s.step, s.ld = s.cols, s.heads*s.cols
	case o.cols:
		s.rows, s.cols = d[3], d[2]
		s.step, s.ld = s.rows*s.cols, s.rows
	default:
		s.step, s.ld = s.rows*s.cols, s.cols
	}
	s.batchStep = s.heads * s.rows * s.cols
	if o.expand < 0 {
		return s, true
	}
	wide, ok1 := c.In[o.expand].Int64s()
	flat, ok2 := c.In[o.flat].Int64s()
	if !ok1 || !ok2 || len(wide) != 5 || len(flat) != 4 || wide[2] < 1 {
		return s, false
	}
	s.share = int(wide[2])
	for i, want := range []int{s.batch, s.heads, s.share, s.rows, s.cols} {
		if wide[i] != int64(want) && wide[i] != 1 {
			return s, false
		}
	}
	for i, want := range []int{s.batch, s.heads * s.share, s.rows, s.cols} {
		if flat[i] != int64(want) {
			return s, false
		}
	}
	s.heads *= s.share
	return s, true
}

var attentionDef = &op.Def{Name: "attention", Eval: func(c *op.Call) ([]*ir.Tensor, error) {
	a := c.State.(*attention)
	q, ok1 := a.q.stack(c)
	k, ok2 := a.k.stack(c)
	v, ok3 := a.v.stack(c)
	if !ok1 || !ok2 || !ok3 || q.batch != k.batch || q.batch != v.batch || q.heads != k.heads || q.heads != v.heads ||
		q.cols != k.cols || k.rows != v.rows || q.share != 1 || k.share != v.share ||
		len(q.data) == 0 || len(k.data) == 0 || len(v.data) == 0 {
		return nil, errUnfit
	}
	t := &kernel.Attention{
		Count: q.batch * q.heads, Heads: q.heads, SQ: q.rows, SK: k.rows, D: q.cols, DV: v.cols, Share: k.share, KColumns: a.k.cols,
		BatchQ: q.batchStep, BatchK: k.batchStep, BatchV: v.batchStep, BatchO: q.heads * q.rows * v.cols,
		StrideQ: q.step, StrideK: k.step, StrideV: v.step, StrideO: q.rows * v.cols,
		LdQ: q.ld, LdK: k.ld, LdV: v.ld, LdO: v.cols, Scale: a.scale, Codes: a.codes,
	}
	shape := []int{q.batch, q.heads, q.rows, v.cols}
	if a.swap {
		shape[1], shape[2] = shape[2], shape[1]
		t.StrideO, t.LdO = v.cols, q.heads*v.cols
	}
	if a.by >= 0 {
		by, ok := scalarOf(c.In[a.by])
		if !ok {
			return nil, errUnfit
		}
		if a.divide {
			by = 1 / by
		}
		t.Scale *= by
	}
	if a.mask >= 0 && !a.masked(t, c.In[a.mask], q.batch, q.heads) || math.IsNaN(float64(t.Scale)) {
		return nil, errUnfit
	}
	out, err := c.New(ir.Float32, shape...)
	if err != nil {
		return nil, err
	}
	t.QuantQ, t.QuantK, t.QuantV, t.QuantP = a.q.quant.along(q.cols), a.k.quant.along(k.cols), a.v.quant.along(v.rows), a.blocks.along(k.rows)
	if p := a.probs; p.scale != 0 {
		t.Probs = func(_, _, rows, seen, ld int, x []float32) {
			for r := range rows {
				row := x[r*ld:][:seen]
				kernel.FakeQuantInt(row, row, p.scale, p.zero, p.lo, p.hi)
			}
		}
	}
	if !t.Run(ir.Data[float32](out), q.data, k.data, v.data) {
		return nil, errUnfit // the parts say what is wrong, if anything is
	}
	return []*ir.Tensor{out}, nil
}}

// grid is fake quantization with one scale; scale 0: none.
type grid struct{ scale, zero, lo, hi float32 }

// grid finds QuantizeLinear and DequantizeLinear with one scale from step i on.
func (f *fuser) grid(i int) (g grid, parts []int, ok bool) {
	st := &f.steps[i]
	if st.node.Op != (ir.OpID{Type: "QuantizeLinear"}) || len(st.in) != 3 {
		return g, nil, false
	}
	zero := f.constant(st.in[2])
	scale, one := scalarOf(f.constant(st.in[1]))
	back, ok := f.next(st.out[0])
	if !one || zero == nil || zero.Len() != 1 || !ok || !f.is(back, "DequantizeLinear") || len(f.steps[back].in) != 3 || scale <= 0 {
		return g, nil, false
	}
	d := f.steps[back].in
	scale2, one := scalarOf(f.constant(d[1]))
	zero2 := f.constant(d[2])
	if d[0] != st.out[0] || !one || scale2 != scale || zero2 == nil || zero2.Elem() != zero.Elem() || zero2.Len() != 1 || zero2.Bytes()[0] != zero.Bytes()[0] {
		return g, nil, false
	}
	g = grid{scale: scale}
	switch zero.Elem() {
	case ir.Int8:
		g.zero, g.lo, g.hi = float32(int8(zero.Bytes()[0])), -128, 127
	case ir.Uint8:
		g.zero, g.lo, g.hi = float32(zero.Bytes()[0]), 0, 255
	default:
		return g, nil, false
	}
	return g, []int{i, back}, true
}

// masked lays the mask over the scores; ok is false where it does not broadcast to them without making them larger.
func (a *attention) masked(t *kernel.Attention, mask *ir.Tensor, batch, heads int) (ok bool) {
	if mask.Elem() != ir.Float32 || mask.Rank() > 4 {
		return false
	}
	d := []int{1, 1, 1, 1}
	copy(d[4-mask.Rank():], mask.Shape())
	if d[0] != 1 && d[0] != batch || d[1] != 1 && d[1] != heads || d[2] != 1 && d[2] != t.SQ || d[3] != t.SK {
		return false
	}
	t.Mask = ir.Data[float32](mask)
	t.MaskRow = d[2] == 1 && t.SQ > 1
	if d[1] > 1 {
		t.StrideMask = d[2] * d[3]
	}
	if d[0] > 1 {
		t.BatchMask = d[1] * d[2] * d[3]
	}
	return true
}
