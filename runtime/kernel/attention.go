package kernel

import "github.com/qsimc/qsimc/runtime/kernel/par"

// Attention describes a stack of products softmax(Q·Kᵀ·Scale + Mask)·V. Item i (a head of a sequence) has Q at
// q[i*StrideQ:] (SQ×D), K at k[i/Share*StrideK:] (SK×D, or D×SK where KColumns is set), V at v[i/Share*StrideV:] (SK×DV)
// and its result at dst[i*StrideO:] (SQ×DV), each with its leading dimension, so that heads may lie interleaved.
type Attention struct {
	Count, SQ, SK, D, DV               int
	StrideQ, StrideK, StrideV, StrideO int
	LdQ, LdK, LdV, LdO                 int
	KColumns                           bool
	Share                              int // query heads to a key head; 0 counts as 1

	Scale      float32
	Mask       []float32 // added to the scaled scores, SQ×SK; nil: none
	StrideMask int       // from one item's mask to the next; 0: one for all
	Causal     bool      // query i sees keys up to i+SK-SQ; the others count as -Inf

	// Probs, where not nil, is applied to finished rows of the softmax in place before the product with V: rows rows of
	// SK elements, ld apart, row0 being the query of the first and item its item. It must not depend on how the rows are
	// cut up, and may be called on several cores at once.
	Probs func(item, row0, rows, ld int, p []float32)
}

// attnRows is how many query rows are held at once: their scores stay in the level-2 cache.
const attnRows = 56

// Run computes the stack. The result has the bits of the separate steps MatMul, MulScalar, Add, Softmax, Probs, MatMul.
func (a *Attention) Run(dst, q, k, v []float32) {
	share := max(a.Share, 1)
	one := func(i int) {
		kv := i / share
		a.item(i, dst[i*a.StrideO:], q[i*a.StrideQ:], k[kv*a.StrideK:], v[kv*a.StrideV:])
	}
	if a.Count >= 2*par.Cores() {
		par.For(a.Count, 1, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				one(i)
			}
		})
		return
	}
	for i := range a.Count {
		one(i)
	}
}

func (a *Attention) item(i int, dst, q, k, v []float32) {
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
		mask = a.Mask[i*a.StrideMask:]
		need("Attention: mask", len(mask), a.SQ, a.SK, a.SK)
	}
	pk, freeK := packScratch(a.D, a.SK, matrixSource(k, a.LdK, !a.KColumns))
	defer freeK()
	pv, freeV := packScratch(a.SK, a.DV, matrixSource(v, a.LdV, false))
	defer freeV()
	ld := (a.SK+15)/16*16 + 16 // never a multiple of 4096 bytes
	if ld*4%4096 == 0 {
		ld += 16
	}
	par.For(a.SQ, attnRows, func(lo, hi int) {
		buf := scratch((hi - lo) * ld)
		defer release(buf)
		s := buf.f
		pk.multiply(hi-lo, q[lo*a.LdQ:], a.LdQ, s, ld, false, nil)
		for r := lo; r < hi; r++ {
			a.softmax(r, s[(r-lo)*ld:][:a.SK], mask)
		}
		if a.Probs != nil {
			a.Probs(i, lo, hi-lo, ld, s)
		}
		pv.multiply(hi-lo, s, ld, dst[lo*a.LdO:], a.LdO, false, nil)
	})
}

// softmax finishes one row of scores in place.
func (a *Attention) softmax(r int, row, mask []float32) {
	if a.Scale != 1 {
		cur.scalar[opMulS](row, row, a.Scale)
	}
	if mask != nil {
		cur.binary[opAdd](row, row, mask[r*a.SK:(r+1)*a.SK])
	}
	if a.Causal {
		seen := min(max(r+1+a.SK-a.SQ, 0), a.SK)
		fill(row[seen:], negInf)
	}
	softmaxRow(row, row)
}

// packScratch packs into pooled memory.
func packScratch(k, n int, src source[float32]) (*packed[float32], func()) {
	t := pickTile(cur.tiles, n)
	buf, data := scratchOf[float32](k * ((n + t.nr - 1) / t.nr) * t.nr)
	p := &packed[float32]{k: k, n: n, t: t, data: data}
	p.fill(src)
	return p, func() { release(buf) }
}
