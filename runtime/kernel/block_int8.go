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
// comes of it where acc is not 0, else c = . sp is the Δ of the first row's first block, lda from row to row; ldc is in bytes. tmp are tmp words of the tile.
type blockKern func(ap *byte, lda int, bp *byte, cp *float32, ldc int, sp *float32, blocks, words, acc int, tmp *int32)

// blockTile is a family of kernels. per is how many codes a word holds: four bytes, those of the left side shifted by 128, or
// two int16.
type blockTile struct {
	tile[int32]
	per  int
	kern []blockKern
	tmp  int // words of working memory of a kernel
	unit int // blocks are whole units of so many words; 0: of any number
}

// header is how many words for each column a block of a panel has besides codes: bytes begin with what takes the shift off the
// sums; Δ stands last.
func (t *blockTile) header() int { return t.per / 2 }

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
func codeBytes(k, size int) int { return (k + size - 1) / size * size * 4 / cur.blockTiles[0].per }

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
	t := p.t
	panels := (n + t.nr - 1) / t.nr
	p.data = alignedOf[int32](panels * p.panel())
	stepK, stepN := ldb, 1
	if transB {
		stepK, stepN = 1, ldb
	}
	var bad par.Flag
	par.For(panels, 1, func(lo, hi int) {
		f := newFinder(size)
		for j := lo; j < hi && !bad.IsSet(); j++ {
			for g := range p.blocks {
				out := p.data[j*p.panel()+g*p.block():][:p.block()]
				rows := min(size, k-g*size)
				for c := range min(t.nr, n-j*t.nr) {
					at := g*size*stepK + (j*t.nr+c)*stepN
					for i := range rows {
						f.v[i] = b[at+i*stepK]
					}
					clear(f.v[rows:])
					step, ok := f.find()
					if !ok {
						bad.Set()
						return
					}
					p.put(out, c, f.codes, step)
				}
			}
		}
	})
	return p, !bad.IsSet()
}

func newPackedBlocks(k, n, size int) *PackedBlocks {
	t := cur.blockTiles[0]
	for _, o := range cur.blockTiles[1:] {
		if o.takes(size) && (o.width(n) < t.width(n) || !t.takes(size)) {
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
	if p.t.per == 4 {
		sum := int32(0)
		for i := range p.words {
			q := codes[4*i:][:4]
			sum += q[0] + q[1] + q[2] + q[3]
			out[(i+1)*nr+c] = q[0]&255 | q[1]&255<<8 | q[2]&255<<16 | q[3]<<24
		}
		out[c] = -128 * sum
	} else {
		for i := range p.words {
			out[i*nr+c] = codes[2*i]&0xffff | codes[2*i+1]<<16
		}
	}
	out[len(out)-nr+c] = int32(math.Float32bits(step))
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
			b.part(r0, r1, p0, p1, a, lda, c, ldc)
			finish(r0, r1, p0*t.nr, min(p1*t.nr, b.N), b.K, c, ldc, false, then)
		}
	})
}

// panelBytes is how much of a panel is multiplied with all rows before its next blocks: it stays in the level-1 cache.
const panelBytes = 24 << 10

// part multiplies rows [r0,r1) with panels [p0,p1) on this core.
func (p *PackedBlocks) part(r0, r1, p0, p1 int, a []byte, lda int, c []float32, ldc int) {
	t, size, codes := p.t, p.Size*4/p.t.per, codeBytes(p.K, p.Size)
	some := max(1, panelBytes/(4*p.block()))
	count := (r1 - r0 + t.mr - 1) / t.mr
	var side []float32
	var tmp *int32
	if t.tmp > 0 {
		buf, words := scratchOf[int32](t.tmp)
		defer release(buf)
		tmp = &words[0]
	}
	if p1*t.nr > p.N {
		buf := scratch(t.mr * t.nr)
		defer release(buf)
		side = buf.f
	}
	for g0 := 0; g0 < p.blocks; g0 += some {
		blocks, acc := min(some, p.blocks-g0), min(g0, 1)
		for j := p0; j < p1; j++ {
			bp := (*byte)(unsafe.Pointer(&p.data[j*p.panel()+g0*p.block()]))
			nn := min(t.nr, p.N-j*t.nr)
			for i := range count {
				lo, hi := r0+(r1-r0)*i/count, r0+(r1-r0)*(i+1)/count
				ap, sp := &a[lo*lda+g0*size], (*float32)(unsafe.Pointer(&a[lo*lda+codes+4*g0]))
				if nn == t.nr {
					t.kern[hi-lo](ap, lda, bp, &c[lo*ldc+j*t.nr], ldc*4, sp, blocks, p.words, acc, tmp)
					continue
				}
				// A panel's tail: the kernel writes whole rows of nr, so it gets a copy.
				for r := range hi - lo {
					n := copy(side[r*t.nr:(r+1)*t.nr], c[(lo+r)*ldc+j*t.nr:][:nn])
					clear(side[r*t.nr+n : (r+1)*t.nr])
				}
				t.kern[hi-lo](ap, lda, bp, &side[0], t.nr*4, sp, blocks, p.words, acc, tmp)
				for r := range hi - lo {
					copy(c[(lo+r)*ldc+j*t.nr:][:nn], side[r*t.nr:])
				}
			}
		}
	}
}

// genericBlocks are the kernels in plain Go: 8 columns wide.
func genericBlocks(rows int) (ks []blockKern) {
	for r := range rows + 1 {
		ks = append(ks, func(ap *byte, lda int, bp *byte, cp *float32, ldc int, sp *float32, blocks, words, acc int, _ *int32) {
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
