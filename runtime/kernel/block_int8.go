package kernel

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// Products of two operands that are both quantized in blocks along the contraction axis: an element of either is code·Δ with an
// integer code and a Δ for each block. For one block Σ x·w is the integer Σ cx·cw, which is exact, times Δx·Δw. An element of the
// product is, at every level,
//
//	y = ((Σ₀·Δx₀)·Δw₀), then y = fma(Σᵦ·Δxᵦ, Δwᵦ, y) for b = 1, 2, …
//
// in float32, with one rounding for each of Σ (beyond 2²⁴ alone), Σ·Δx and the fused sum.

// blockKern computes one tile: rows of codes, lda bytes apart, with blocks blocks of words words each, times a panel; c += what
// comes of it where acc is not 0, else c = . sp is the Δ of the first row's first block, lda from row to row; ldc is in bytes.
type blockKern func(ap *byte, lda int, bp *byte, cp *float32, ldc int, sp *float32, blocks, words, acc int)

// blockStack is a blockKern for count tiles of rows rows each, one below the other.
type blockStack func(rows, count int, ap *byte, lda int, bp *byte, cp *float32, ldc int, sp *float32, blocks, words, acc int)

// blockTile is a family of kernels. per is how many codes a word holds: four bytes, those of the left side shifted by 128 unless
// they are to be signed, or two int16.
type blockTile struct {
	tile[int32]
	per    int
	signed bool
	kern   []blockKern
	stack  blockStack // nil: kern
	unit   int        // blocks are whole units of so many words; 0: of any number
}

// header is how many words for each column a block of a panel has besides codes: those of shifted bytes begin with what takes the
// shift off the sums; Δ stands last.
func (t *blockTile) header() int {
	if t.shift() != 0 {
		return 2
	}
	return 1
}

// shift is what is added to codes of the left side.
func (t *blockTile) shift() int {
	if t.per == 4 && !t.signed {
		return 128
	}
	return 0
}

// run computes count tiles of rows rows.
func (t *blockTile) run(rows, count int, ap *byte, lda int, bp *byte, cp *float32, ldc int, sp *float32, blocks, words, acc int) {
	if t.stack != nil {
		t.stack(rows, count, ap, lda, bp, cp, ldc, sp, blocks, words, acc)
		return
	}
	t.kern[rows](ap, lda, bp, cp, ldc, sp, blocks, words, acc)
}

// coding is the first tile that is made for blocks of size elements: codes are written as it wants them.
func coding(size int) *blockTile {
	for _, t := range cur.blockTiles {
		if t.takes(size) {
			return t
		}
	}
	panic(fmt.Sprintf("BUG: kernel: no products of blocks of %d", size))
}

// FastBlocks reports whether products of blocks are to run on codes at the level in use: where the CPU multiplies bytes that is
// several times as fast as float32, with AVX2 and in plain Go it is not, but tells the same numbers. The loops of arm64 have no such
// products.
func FastBlocks() bool { return cur.fastBlocks }

// BlockRow returns the length in bytes of a row of k codes in blocks of size: the codes, of whole blocks, then a Δ for each, filled
// up to whole cache lines.
func BlockRow(k, size int) int {
	return (codeBytes(k, size) + 4*((k+size-1)/size) + 63) &^ 63
}

// codeBytes is how many of these are codes.
func codeBytes(k, size int) int { return (k + size - 1) / size * size * 4 / coding(size).per }

// Scales of blocks that products on codes are made for: no step of theirs overflows or underflows.
const leastStep, mostStep = 0x1p-48, 0x1p48

// PackedBlocks is a right-hand side, K×N, of products of blocks, in the layout that the loops want: for each panel of columns
// the blocks of Size rows, one after the other. It is immutable and safe for concurrent use.
type PackedBlocks struct {
	K, N, Size int
	t          *blockTile
	words      int // of a block
	blocks     int
	data       []int32
}

// CanBlock reports that products of blocks of size elements can be exact.
func CanBlock(size int) bool { return size%4 == 0 && size > 0 && size <= math.MaxInt32/(255*127) }

// PackBlocks packs the k×n matrix b (n×k where transB is set) if its values are those of codes within ±127 times a Δ for each
// block of size rows of a column, all of them bit for bit; else ok is false. What the codes and the Δ are it finds out from the
// values.
func PackBlocks(k, n int, b []float32, ldb int, transB bool, size int) (p *PackedBlocks, ok bool) {
	if transB {
		need("PackBlocks", len(b), n, k, ldb)
	} else {
		need("PackBlocks", len(b), k, n, ldb)
	}
	if !CanBlock(size) {
		panic(fmt.Sprintf("BUG: kernel.PackBlocks: blocks of %d", size))
	}
	p = newPackedBlocks(k, n, size)
	panels := (n + p.t.nr - 1) / p.t.nr
	p.data = alignedOf[int32](panels * p.panel())
	src := matrixSource(b, ldb, transB)
	var bad par.Flag
	par.For(panels, 1, func(lo, hi int) { newFinder(p).panels(lo, hi, src, &bad) })
	return p, !bad.IsSet()
}

func newPackedBlocks(k, n, size int) *PackedBlocks {
	t := coding(size)
	for _, o := range cur.blockTiles {
		if o.takes(size) && o.per == t.per && o.signed == t.signed && o.width(n) < t.width(n) {
			t = o
		}
	}
	return &PackedBlocks{K: k, N: n, Size: size, t: t, words: size / t.per, blocks: (k + size - 1) / size}
}

// width is the time that n columns take.
func (t *blockTile) width(n int) float64 {
	return float64((n+t.nr-1)/t.nr*t.nr) * t.cost
}

// takes reports that the kernels are made for blocks of size elements.
func (t *blockTile) takes(size int) bool {
	return t.unit == 0 || size/t.per%t.unit == 0
}

// block and panel are lengths in words.
func (p *PackedBlocks) block() int { return (p.words + p.t.header()) * p.t.nr }
func (p *PackedBlocks) panel() int { return p.blocks * p.block() }

// put writes column c of a block.
func (p *PackedBlocks) put(out []int32, c int, codes []int32, step float32) {
	nr := p.t.nr
	out[len(out)-nr+c] = int32(math.Float32bits(step))
	if shift := p.t.shift(); shift != 0 {
		sum := int32(0)
		for _, q := range codes {
			sum += q
		}
		out[c] = -int32(shift) * sum
		out = out[nr:]
	}
	for i := range p.words {
		if p.t.per == 4 {
			q := codes[4*i:][:4]
			out[i*nr+c] = q[0]&255 | q[1]&255<<8 | q[2]&255<<16 | q[3]<<24
		} else {
			out[i*nr+c] = codes[2*i]&0xffff | codes[2*i+1]<<16
		}
	}
}

// GemmBlocks computes C = A·B, and then ep on each block of C while it is in the cache; ep may be nil. A is m rows of codes,
// each BlockRow(K, Size) bytes, as BlockQuant.Codes writes them at the same level.
func GemmBlocks(m int, a []byte, b *PackedBlocks, c []float32, ldc int, ep *Epilogue) {
	lda := BlockRow(b.K, b.Size)
	need("GemmBlocks: a", len(a), m, lda, lda)
	need("GemmBlocks: c", len(c), m, b.N, ldc)
	ep.check("Gemm", m, b.N)
	t, panels := b.t, (b.N+b.t.nr-1)/b.t.nr
	then := ep.after(c, ldc)
	rows, cols := split(m, panels, b.K, &t.tile, ep.unit(t.nr))
	rt, ct := (m+rows-1)/rows, (panels+cols-1)/cols
	par.For(rt*ct, 1, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			r0, p0 := i%rt*rows, i/rt*cols
			r1, p1 := min(r0+rows, m), min(p0+cols, panels)
			b.part(r0, r1, p0, p1, b.blocks, a, lda, c, ldc)
			finish(r0, r1, p0*t.nr, min(p1*t.nr, b.N), b.K, c, ldc, false, then)
		}
	})
}

// panelBytes is how much of a panel is multiplied with all rows before its next blocks: it stays in the level-1 cache.
const panelBytes = 24 << 10

// part multiplies the first count blocks of rows [r0,r1) with those of panels [p0,p1), on this core.
func (p *PackedBlocks) part(r0, r1, p0, p1, count int, a []byte, lda int, c []float32, ldc int) {
	t, size, codes := p.t, p.Size*4/p.t.per, codeBytes(p.K, p.Size)
	some := max(1, panelBytes/(4*p.block()))
	var side []float32
	if p1*t.nr > p.N {
		buf := scratch(t.mr * t.nr)
		defer release(buf)
		side = buf.f
	}
	for g0 := 0; g0 < count; g0 += some {
		blocks, acc := min(some, count-g0), min(g0, 1)
		for j := p0; j < p1; j++ {
			bp := (*byte)(unsafe.Pointer(&p.data[j*p.panel()+g0*p.block()]))
			nn := min(t.nr, p.N-j*t.nr)
			for lo := r0; lo < r1; {
				rows, count := t.next(r1 - lo)
				ap, sp := &a[lo*lda+g0*size], (*float32)(unsafe.Pointer(&a[lo*lda+codes+4*g0]))
				if nn == t.nr {
					t.run(rows, count, ap, lda, bp, &c[lo*ldc+j*t.nr], ldc*4, sp, blocks, p.words, acc)
					lo += rows * count
					continue
				}
				// A panel's tail: the kernel writes whole rows of nr, so it gets a copy.
				for r := range rows {
					n := copy(side[r*t.nr:(r+1)*t.nr], c[(lo+r)*ldc+j*t.nr:][:nn])
					clear(side[r*t.nr+n : (r+1)*t.nr])
				}
				t.run(rows, 1, ap, lda, bp, &side[0], t.nr*4, sp, blocks, p.words, acc)
				for r := range rows {
					copy(c[(lo+r)*ldc+j*t.nr:][:nn], side[r*t.nr:])
				}
				lo += rows
			}
		}
	}
}

// next returns the height of the next tile where left rows are left, and how many of this height follow each other.
func (t *blockTile) next(left int) (rows, count int) {
	if t.stack != nil {
		rows = min(left, t.mr)
		return rows, left / rows
	}
	count = (left + t.mr - 1) / t.mr
	return (left + count - 1) / count, 1
}

// genericBlocks are the kernels in plain Go: 8 columns wide.
func genericBlocks(rows int) (ks []blockKern) {
	for r := range rows + 1 {
		ks = append(ks, func(ap *byte, lda int, bp *byte, cp *float32, ldc int, sp *float32, blocks, words, acc int) {
			const nr = 8
			for i := range r {
				codes := at((*int32)(unsafe.Pointer(ap)), i*lda, blocks*words)
				steps, c := at(sp, i*lda, blocks), at(cp, i*ldc, nr)
				for g, step := range steps {
					panel := at((*int32)(unsafe.Pointer(bp)), g*(words+1)*nr*4, (words+1)*nr)
					var sums [nr]int32
					rowInt(codes[g*words:(g+1)*words], &panel[0], nr*4, sums[:], 0)
					for j, s := range sums {
						t, by := float32(s)*step, math.Float32frombits(uint32(panel[words*nr+j]))
						if g == 0 && acc == 0 {
							c[j] = t * by
						} else {
							c[j] = fma32(t, by, c[j])
						}
					}
				}
			}
		})
	}
	return ks
}

// fma32 is x·y + z, rounded once.
func fma32(x, y, z float32) float32 {
	p, w := float64(x)*float64(y), float64(z)
	s := p + w
	// Rounded to odd the sum keeps what the second rounding has to know.
	v := s - p
	if e := (p - (s - v)) + (w - v); e != 0 && !math.IsInf(s, 0) && s == s {
		b := math.Float64bits(s)
		if b&1 == 0 {
			if (e > 0) == (s > 0) {
				b++
			} else {
				b--
			}
		}
		s = math.Float64frombits(b)
	}
	return float32(s)
}
