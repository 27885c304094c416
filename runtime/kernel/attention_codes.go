package kernel

import "unsafe"

// Where both operands of a product of attention are quantized in the same blocks, it runs on their codes, as GemmBlocks does: Q·Kᵀ
// in blocks along D, the probabilities and V in blocks along the keys.

// coded reports that products of what x and y make run on codes: at every level that has such products where blocks are whole tiles
// of 64. Products with shorter blocks are no faster than in float32 here, where K and V are packed each time.
func coded(x, y *BlockQuant) bool {
	return FastBlocks() && x != nil && y != nil && x.Size() == y.Size() && x.Size()%64 == 0 && x.CanCode() && y.CanCode()
}

// packCodes packs the transpose of n rows of k elements, which it quantizes, in pooled memory; free gives that back. ok is as in Codes.
func (q *BlockQuant) packCodes(k, n int, x []float32, ldx int) (p *PackedBlocks, free func(), ok bool) {
	p = newPackedBlocks(k, n, q.b.Size)
	t, nr := p.t, p.t.nr
	ld, panels := BlockRow(k, p.Size), (n+nr-1)/nr
	codes := scratch(n * ld / 4)
	defer release(codes)
	buf, data := scratchOf[int32](panels * p.panel())
	p.data = data
	free = func() { release(buf) }
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(&codes.f[0])), n*ld)
	if !q.codeRows(n, k, k, bytes, x, ldx, 0) {
		return p, free, false
	}
	words, at := view[int32](codes), codeBytes(k, p.Size)/4
	for j := range panels {
		nn := min(nr, n-j*nr)
		rows := words[j*nr*ld/4:]
		for g := range p.blocks {
			out := data[j*p.panel()+g*p.block():][:p.block()]
			packTrans(out[(t.header()-1)*nr:], rows[g*p.words:], ld/4, p.words, nn, nr)
			packTrans(out[len(out)-nr:], rows[at+g:], ld/4, 1, nn, nr)
			if shift := int32(t.shift()); shift != 0 {
				for c := range nn {
					const flip = 0x8080808080808080 // 128 more, and unsigned
					sum := byteSum(bytes[(j*nr+c)*ld+g*p.Size:][:p.Size], flip)
					out[c] = -shift * (sum - 128*int32(p.Size))
				}
				clear(out[nn:nr])
			}
		}
	}
	return p, free, true
}

// packedK packs an item's K.
func (r *attnRun) packedK(k []float32) (*PackedBlocks, func(), bool) {
	if !r.KColumns {
		return r.k.packCodes(r.D, r.SK, k, r.LdK)
	}
	buf := scratch(r.SK * r.D)
	defer release(buf)
	packTrans(buf.f, k, r.LdK, r.SK, r.D, r.D)
	return r.k.packCodes(r.D, r.SK, buf.f, r.D)
}

// packedV packs an item's V.
func (r *attnRun) packedV(v []float32) (*PackedBlocks, func(), bool) {
	buf := scratch(r.SK * r.DV)
	defer release(buf)
	packTrans(buf.f, v, r.LdV, r.DV, r.SK, r.SK)
	return r.v.packCodes(r.SK, r.DV, buf.f, r.SK)
}

// onCodes computes rows of C = A·B, with the first k rows and at least n columns of B; a quantizes A, m rows of k elements.
func (r *attnRun) onCodes(q *BlockQuant, m, k, n int, a []float32, lda int, b *PackedBlocks, c []float32, ldc int) {
	ld := BlockRow(b.K, b.Size)
	buf := scratch(m * ld / 4)
	defer release(buf)
	codes := unsafe.Slice((*byte)(unsafe.Pointer(&buf.f[0])), m*ld)
	if !q.codeRows(m, k, b.K, codes, a, lda, b.t.shift()) {
		r.infinite.Set()
		return
	}
	b.part(0, m, 0, (n+b.t.nr-1)/b.t.nr, (k+b.Size-1)/b.Size, codes, ld, c, ldc)
}
