package kernel

import (
	"math"
	"sync/atomic"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// Attention describes a stack of products softmax(Q·Kᵀ·Scale + Mask)·V. Item i is head h = i%Heads of sequence b = i/Heads.
// It has Q at q[b*BatchQ+h*StrideQ:] (SQ×D), K at k[b*BatchK+h/Share*StrideK:] (SK×D, or D×SK where KColumns is set), V at
// v[b*BatchV+h/Share*StrideV:] (SK×DV) and its result at dst[b*BatchO+h*StrideO:] (SQ×DV), each with its leading
// dimension, so that heads may lie interleaved. Heads 0 stands for Count: one sequence.
type Attention struct {
	Count, SQ, SK, D, DV               int
	Heads                              int
	BatchQ, BatchK, BatchV, BatchO     int
	StrideQ, StrideK, StrideV, StrideO int
	LdQ, LdK, LdV, LdO                 int
	KColumns                           bool
	Share                              int // query heads to a key head; 0 counts as 1

	Scale      float32
	Mask       []float32 // added to the scaled scores, SQ×SK; nil: none
	MaskRow    bool      // the mask has one row of SK for all queries
	BatchMask  int       // from one sequence's mask to the next; 0: one for all
	StrideMask int       // from one head's mask to the next; 0: one for all
	Causal     bool      // query i sees keys up to i+SK-SQ; the others count as -Inf

	// Probs, where not nil, is applied to finished rows of the softmax in place before the product with V: rows rows of
	// seen elements, ld apart, row0 being the query of the first and item its item. The rest of the SK elements of a row is
	// zeros that it must leave zeros. It must not depend on how the rows are cut up, and may be called on several cores at once.
	Probs func(item, row0, rows, seen, ld int, p []float32)

	// Quantizers of the operands on their way into the products; nil: none. Blocks run along D in Q and K, along the keys in
	// the probabilities and in V. Those that are Relative look at the whole stack first: q, k and v must then hold nothing else.
	QuantQ, QuantK, QuantP, QuantV *BlockQuant

	// Codes lets products of operands that are quantized in the same blocks, of 64 elements or a multiple, run on codes, as GemmBlocks does.
	Codes bool
}

// attnRun is one run of an Attention.
type attnRun struct {
	*Attention
	q, k, p, v *BlockQuant
	qk, pv     bool      // the product of these two runs on codes
	kept       []float32 // the probabilities of the whole stack, where p has to see them all first
	top        atomic.Uint32
	infinite   par.Flag // a quantizer met infinity or NaN
}

// phase is what to compute: with probabilities that are kept, those of all items come before the products with V.
type phase int

const (
	both phase = iota
	scores
	context
)

// attnRows is how many query rows are held at once: their scores stay in the level-2 cache.
const attnRows = 56

// masked is the value of a mask from which on a key counts as hidden: its probability is 0 beside a key that is not.
const masked = -1e30

// Run computes the stack. But for products on codes the result has the bits of the separate steps MatMul, MulScalar, Add, Softmax, Probs, MatMul, each
// operand quantized, where these are finite: keys that the mask hides from a block of queries, to the right of all it does not,
// are not looked at, so a NaN in them does not spread. It reports false where a quantizer met infinity or NaN.
func (a *Attention) Run(dst, q, k, v []float32) (finite bool) {
	r := &attnRun{Attention: a, p: a.QuantP}
	for _, o := range []struct {
		from *BlockQuant
		to   **BlockQuant
		x    []float32
	}{{a.QuantQ, &r.q, q}, {a.QuantK, &r.k, k}, {a.QuantV, &r.v, v}} {
		*o.to = o.from
		if o.from != nil && o.from.Relative() {
			top := AbsMax(o.x)
			if !(top <= math.MaxFloat32) {
				return false
			}
			*o.to = o.from.Under(top)
		}
	}
	r.qk, r.pv = a.Codes && coded(r.q, r.k), a.Codes && coded(r.p, r.v) && a.Probs == nil
	if r.p == nil || !r.p.Relative() {
		r.run(both, dst, q, k, v)
		return !r.infinite.IsSet()
	}
	buf := scratch(a.Count * a.SQ * a.ldScores())
	defer release(buf)
	r.kept = buf.f
	r.run(scores, dst, q, k, v)
	top := math.Float32frombits(r.top.Load())
	if r.infinite.IsSet() || !(top <= math.MaxFloat32) {
		return false
	}
	r.p = r.p.Under(top)
	r.run(context, dst, q, k, v)
	return !r.infinite.IsSet()
}

// ldScores is the distance of rows of scores: never a multiple of 4096 bytes.
func (a *Attention) ldScores() int {
	ld := (a.SK+15)/16*16 + 16
	// Products write whole panels.
	nr := pickTile(cur.tiles, a.SK).nr
	ld = max(ld, (a.SK+nr-1)/nr*nr)
	if ld*4%4096 == 0 {
		ld += 16
	}
	return ld
}

func (r *attnRun) run(what phase, dst, q, k, v []float32) {
	a := r.Attention
	share, heads := max(a.Share, 1), a.Heads
	if heads == 0 {
		heads = a.Count
	}
	one := func(i int) {
		b, h := i/heads, i%heads
		r.item(what, i, b*a.BatchMask+h*a.StrideMask, dst[b*a.BatchO+h*a.StrideO:], q[b*a.BatchQ+h*a.StrideQ:],
			k[b*a.BatchK+h/share*a.StrideK:], v[b*a.BatchV+h/share*a.StrideV:])
	}
	eachItem(a.Count, one)
}

func (r *attnRun) item(what phase, i, maskAt int, dst, q, k, v []float32) {
	a := r.Attention
	need("Attention: q", len(q), a.SQ, a.D, a.LdQ)
	need("Attention: v", len(v), a.SK, a.DV, a.LdV)
	need("Attention: dst", len(dst), a.SQ, a.DV, a.LdO)
	if a.KColumns {
		need("Attention: k", len(k), a.D, a.SK, a.LdK)
	} else {
		need("Attention: k", len(k), a.SK, a.D, a.LdK)
	}
	var mask []float32
	if a.Mask != nil {
		mask = a.Mask[maskAt:]
		rows := a.SQ
		if a.MaskRow {
			rows = 1
		}
		need("Attention: mask", len(mask), rows, a.SK, a.SK)
	}
	var pk, pv *packed[float32]
	var ck, cv *PackedBlocks
	switch {
	case what == context:
	case r.qk:
		p, free, ok := r.packedK(k)
		defer free()
		r.note(ok)
		ck = p
	default:
		ldk := a.LdK
		if r.k != nil {
			buf := scratch(a.SK * a.D)
			defer release(buf)
			if a.KColumns {
				ldk = a.SK
				r.note(r.k.Cols(a.D, a.SK, buf.f, ldk, k, a.LdK, nil))
			} else {
				ldk = a.D
				r.note(r.k.Rows(a.SK, a.D, buf.f, ldk, k, a.LdK, nil))
			}
			k = buf.f
		}
		packed, free := packScratch(cur.tiles, a.D, a.SK, matrixSource(k, ldk, !a.KColumns))
		defer free()
		pk = packed
	}
	switch {
	case what == scores:
	case r.pv:
		p, free, ok := r.packedV(v)
		defer free()
		r.note(ok)
		cv = p
	default:
		ldv := a.LdV
		if r.v != nil {
			buf := scratch(a.SK * a.DV)
			defer release(buf)
			ldv = a.DV
			r.note(r.v.Cols(a.SK, a.DV, buf.f, ldv, v, a.LdV, nil))
			v = buf.f
		}
		packed, free := packScratch(cur.tiles, a.SK, a.DV, matrixSource(v, ldv, false))
		defer free()
		pv = packed
	}
	if r.infinite.IsSet() {
		return
	}
	ld := a.ldScores()
	grain := attnRows
	if a.SQ < attnRows+attnRows/4 {
		grain = a.SQ // rather than a few rows by themselves
	}
	par.For(a.SQ, grain, func(lo, hi int) {
		var s []float32
		if r.kept != nil {
			s = r.kept[(i*a.SQ+lo)*ld : (i*a.SQ+hi)*ld]
		} else {
			buf := scratch((hi - lo) * ld)
			defer release(buf)
			s = buf.f
		}
		seen := a.seen(lo, hi, mask)
		if what != context {
			r.probabilities(i, lo, hi, seen, ld, s, q[lo*a.LdQ:], pk, ck, mask)
		}
		switch {
		case what == scores:
		case r.pv:
			r.onCodes(r.p, hi-lo, seen, a.DV, s, ld, cv, dst[lo*a.LdO:], a.LdO)
		default:
			if what == context {
				r.note(r.p.Rows(hi-lo, seen, s, ld, s, ld, nil))
			}
			pv.part(hi-lo, seen, a.DV, s, ld, dst[lo*a.LdO:], a.LdO, a.DV)
		}
	})
}

// probabilities computes rows [lo,hi) of an item's softmax of the scores, seen elements each, and quantizes them where that
// can be done row by row.
func (r *attnRun) probabilities(i, lo, hi, seen, ld int, s, q []float32, pk *packed[float32], ck *PackedBlocks, mask []float32) {
	a, ldq := r.Attention, r.LdQ
	if r.q != nil && !r.qk {
		buf := scratch((hi - lo) * a.D)
		defer release(buf)
		r.note(r.q.Rows(hi-lo, a.D, buf.f, a.D, q, ldq, nil))
		q, ldq = buf.f, a.D
	}
	if r.qk {
		r.onCodes(r.q, hi-lo, a.D, seen, q, ldq, ck, s, ld)
	} else {
		pk.part(hi-lo, a.D, seen, q, ldq, s, ld, ld)
	}
	var steps []float32
	apply := r.p != nil && r.kept == nil && !r.pv
	if apply {
		buf := scratch((seen + r.p.Size() - 1) / r.p.Size())
		defer release(buf)
		steps = buf.f
	}
	const block = 8 // rows whose probabilities are quantized while they are in the level-1 cache
	for n := lo; n < hi; n++ {
		if (n-lo)%block == 0 {
			a.softmax(n, min(n+block, hi), seen, ld, s[(n-lo)*ld:], mask)
		}
		row := s[(n-lo)*ld:][:seen]
		switch {
		case r.kept != nil:
			r.raise(cur.absMax(row))
		case apply:
			r.note(r.p.row(row, row, steps))
		}
	}
	if a.Probs != nil {
		a.Probs(i, lo, hi-lo, seen, ld, s)
	}
}

// note remembers that a quantizer met infinity or NaN.
func (r *attnRun) note(finite bool) {
	if !finite {
		r.infinite.Set()
	}
}

// raise makes the largest magnitude seen so far at least m; NaN, by its bits, is above all.
func (r *attnRun) raise(m float32) {
	for b := math.Float32bits(m) &^ (1 << 31); ; {
		old := r.top.Load()
		if b <= old || r.top.CompareAndSwap(old, b) {
			return
		}
	}
}

// seen returns how many keys from the first on rows [lo,hi) need to look at: all that some row's mask does not hide, a
// multiple of a panel. Rows whose mask hides every key see them all.
func (a *Attention) seen(lo, hi int, mask []float32) int {
	const step = 48
	if mask == nil {
		if a.Causal && hi+a.SK-a.SQ > 0 && lo+1+a.SK-a.SQ > 0 {
			return min((hi+a.SK-a.SQ+step-1)/step*step, a.SK)
		}
		return a.SK
	}
	if a.MaskRow {
		hi = lo + 1
	}
	most := 0
	for r := lo; r < hi; r++ {
		row := mask[:a.SK]
		if !a.MaskRow {
			row = mask[r*a.SK : (r+1)*a.SK]
		}
		n := len(row)
		for n > 0 && cur.max(row[(n-1)/step*step:n]) <= masked {
			n = (n - 1) / step * step
		}
		if n == 0 {
			return a.SK
		}
		if most = max(most, n); most == a.SK {
			return most
		}
	}
	return most
}

// part computes C = A·B with the first k rows and n columns of B, on this core. It may write to the end of n's panel in the rows of
// C, which have room for that many columns.
func (p *packed[T]) part(m, k, n int, a []T, lda int, c []T, ldc, room int) {
	t := p.t
	if k == 0 {
		finish(0, m, 0, n, 0, c, ldc, false, nil)
	}
	for k0 := 0; k0 < k; k0 += kc {
		kb := min(kc, p.k-k0)
		for j := 0; j*t.nr < n; j++ {
			tiles(t, 0, m, a[k0:], lda, p.panel(k0, kb, j), t.nr, c[j*t.nr:], ldc, min(kb, k-k0), min(t.nr, room-j*t.nr), k0 > 0)
		}
	}
}

// softmax finishes rows [lo,hi) of scores in place, seen elements each, ld apart.
func (a *Attention) softmax(lo, hi, seen, ld int, s, mask []float32) {
	ldm := 0
	if mask != nil && !a.MaskRow {
		ldm = a.SK
		mask = mask[lo*ldm:]
	}
	if !a.Causal {
		softmaxRows(hi-lo, seen, s, ld, s, ld, a.Scale, mask, ldm)
		return
	}
	for r := range hi - lo {
		row := s[r*ld:][:seen]
		if a.Scale != 1 {
			cur.scalar[opMulS](row, row, a.Scale)
		}
		if mask != nil {
			cur.binary[opAdd](row, row, mask[r*ldm:][:seen])
		}
		past := min(max(lo+r+1+a.SK-a.SQ, 0), seen)
		fill(row[past:], negInf)
		softmaxRows(1, seen, row, ld, row, ld, 1, nil, 0)
	}
}

// packScratch packs into pooled memory.
func packScratch[T elem](ts []*tile[T], k, n int, src source[T]) (*packed[T], func()) {
	t := pickTile(ts, n)
	buf, data := scratchOf[T](k * ((n + t.nr - 1) / t.nr) * t.nr)
	p := &packed[T]{k: k, n: n, t: t, data: data}
	p.fill(src)
	return p, func() { release(buf) }
}
