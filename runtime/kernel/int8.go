package kernel

import (
	order "encoding/binary"
	"unsafe"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// Int8 is the element of integer products.
type Int8 interface{ ~int8 | ~uint8 }

// FastInt8 reports whether the level in use multiplies codes at least as fast as float32.
func FastInt8() bool { return cur.fastInt8 }

// PackedInt8 is a right-hand side of integer products, in the layout that the level's loops want. It is immutable and safe
// for concurrent use.
//
// Where the CPU multiplies unsigned with signed bytes (AVX512_VNNI), a word holds the codes of four rows of a column, shifted
// to signed bytes where they are not, and zero points are taken off the sums afterwards. Elsewhere a word holds two rows as
// int16, zero points taken off. Both are exact, so that the sums are the same.
type PackedInt8 struct {
	K, N  int
	p     packed[int32]
	quads bool
	zero  []int32 // quads: the zero points of the shifted codes, by column; nil: all are 0
	sums  []int32 // quads: the sums of the columns
}

// PackInt8 packs the k×n matrix b (n×k where transB is set). zero is nil (0), one zero point, or one for each column.
func PackInt8[T Int8](k, n int, b []T, ldb int, transB bool, zero []T) *PackedInt8 {
	t := pickTile(tileInt8(), n)
	words := (k + wordInt8() - 1) / wordInt8()
	return newPackedInt8(k, n, b, ldb, transB, zero, t, alignedOf[int32](words*paddedColumns(t, n)), make([]int32, n))
}

// tileInt8 lists the tiles that PackedInt8 is made for, and wordInt8 says how many rows a word of it holds.
func tileInt8() []*tile[int32] {
	if cur.tilesQ != nil {
		return cur.tilesQ
	}
	return cur.tilesI
}

func wordInt8() int {
	if cur.tilesQ != nil {
		return 4
	}
	return 2
}

func paddedColumns(t *tile[int32], n int) int { return (n + t.nr - 1) / t.nr * t.nr }

// newPackedInt8 packs into data; sums, of length n, receives the column sums where they are wanted.
func newPackedInt8[T Int8](k, n int, b []T, ldb int, transB bool, zero []T, t *tile[int32], data, sums []int32) *PackedInt8 {
	if transB {
		need("PackInt8", len(b), n, k, ldb)
	} else {
		need("PackInt8", len(b), k, n, ldb)
	}
	p := &PackedInt8{K: k, N: n, quads: cur.tilesQ != nil}
	per := wordInt8()
	p.p = packed[int32]{k: (k + per - 1) / per, n: n, t: t, data: data}
	if !p.quads {
		p.p.fill(pairSource(k, n, b, ldb, transB, zero))
		return p
	}
	shift := int32(0)
	if !signed[T]() {
		shift = 128
	}
	p.p.fill(quadSource(k, b, ldb, transB, uint32(shift)*0x01010101))
	at := zeros("PackInt8: zero", n, zero)
	for j := range n {
		if z := at(j) - shift; z != 0 {
			if p.zero == nil {
				p.zero = make([]int32, n)
			}
			p.zero[j] = z
		}
	}
	p.sums = sums
	buf, ones := scratchOf[int32](max(p.p.k, 1))
	defer release(buf)
	for i := range ones {
		ones[i] = 0x01010101
	}
	p.p.multiply(1, ones, p.p.k, sums, n, false, nil)
	return p
}

// signed reports which of the two 8-bit types T is.
func signed[T Int8]() bool {
	var zero T
	return zero-1 < 0
}

// quadSource delivers four rows 4p…4p+3 of b as one word, the first in the lowest byte, with the bits of flip inverted; rows
// beyond the last are 0.
func quadSource[T Int8](k int, b []T, ldb int, trans bool, flip uint32) source[int32] {
	raw := bytesOf(b)
	if trans {
		if w, ok := wordsOf(raw); ok && k%4 == 0 && ldb%4 == 0 {
			plain := matrixSource(w, ldb/4, true)
			return source[int32]{func(dst []int32, k0, kb, j0, nn, nr int) {
				plain.read(dst, k0, kb, j0, nn, nr)
				if flip != 0 {
					for p := range kb {
						for j := range nn {
							dst[p*nr+j] ^= int32(flip)
						}
					}
				}
			}, plain.rows}
		}
		return source[int32]{func(dst []int32, k0, kb, j0, nn, nr int) {
			for p := range kb {
				row, r := dst[p*nr:(p+1)*nr], 4*(k0+p)
				for j := range nn {
					row[j] = wordOf(raw[(j0+j)*ldb+r:], min(4, k-r), flip)
				}
				clear(row[nn:])
			}
		}, kc}
	}
	return source[int32]{func(dst []int32, k0, kb, j0, nn, nr int) {
		for p := range kb {
			row, r := dst[p*nr:(p+1)*nr], 4*(k0+p)
			interleave(row[:nn], raw[r*ldb+j0:], ldb, min(4, k-r), flip)
			clear(row[nn:])
		}
	}, sweepRows}
}

// wordOf makes a word of n bytes, at most 4, that follow each other.
func wordOf(x []byte, n int, flip uint32) int32 {
	if n == 4 {
		return int32(order.LittleEndian.Uint32(x) ^ flip)
	}
	var w uint32
	for i := range n {
		w |= (uint32(x[i]) ^ flip&0xff) << (8 * i)
	}
	return int32(w)
}

// interleave makes a word of each column of up to four rows of bytes, ld apart.
func interleave(dst []int32, x []byte, ld, rows int, flip uint32) {
	j := 0
	if rows == 4 && cur.quads != nil {
		if j = len(dst) &^ 15; j > 0 {
			cur.quads(&dst[0], &x[0], ld, flip, j)
		}
	}
	for ; j < len(dst); j++ {
		var w uint32
		for r := range rows {
			w |= (uint32(x[r*ld+j]) ^ flip&0xff) << (8 * r)
		}
		dst[j] = int32(w)
	}
}

// pairSource delivers rows 2p, 2p+1 of b, less their zero points, as one word, the even row in the lower half; a missing
// last row is 0.
func pairSource[T Int8](k, n int, b []T, ldb int, trans bool, zero []T) source[int32] {
	at := zeros("PackInt8: zero", n, zero)
	stepK, stepN := ldb, 1
	if trans {
		stepK, stepN = 1, ldb
	}
	return source[int32]{func(dst []int32, k0, kb, j0, nn, nr int) {
		for p := range kb {
			row := dst[p*nr : (p+1)*nr]
			r := 2 * (k0 + p)
			in := b[r*stepK:]
			for j := range nn {
				z := at(j0 + j)
				v := int32(in[(j0+j)*stepN]) - z
				w := int32(0)
				if r+1 < k {
					w = int32(in[(j0+j)*stepN+stepK]) - z
				}
				row[j] = w<<16 | v&0xffff
			}
			clear(row[nn:])
		}
	}, sweepRows}
}

// zeros reads a zero point parameter: none, one for all, or one each.
func zeros[T Int8](what string, n int, zero []T) func(i int) int32 {
	switch len(zero) {
	case 0:
		return func(int) int32 { return 0 }
	case 1:
		z := int32(zero[0])
		return func(int) int32 { return z }
	}
	same(what, n, len(zero))
	return func(i int) int32 { return int32(zero[i]) }
}

// GemmInt8 computes C = (A - zero)·B exactly in int32 (sums beyond int32 wrap), A m×K. zero is nil (0), one zero point,
// or one for each row of A.
func GemmInt8[T Int8](m int, a []T, lda int, zero []T, b *PackedInt8, c []int32, ldc int) {
	need("GemmInt8: a", len(a), m, b.K, lda)
	need("GemmInt8: c", len(c), m, b.N, ldc)
	l := leftOf(m, a, lda, zero, b)
	defer l.release()
	b.p.multiply(m, l.words, l.ld, c, ldc, false, func(r0, r1, c0, c1 int) {
		for r := r0; r < r1 && b.quads; r++ {
			row := c[r*ldc+c0 : r*ldc+c1]
			l.offset(r, row, c0, c1)
			if z := l.zero(r); z != 0 {
				cur.addMulI(row, b.sums[c0:c1], -z)
			}
		}
	})
}

// GemmInt8Scaled computes C = float32((A - zero)·B)·scale, the product as GemmInt8 does, with a scale for each column, and
// then ep on each block of C while it is in the cache; ep may be nil.
func GemmInt8Scaled[T Int8](m int, a []T, lda int, zero []T, b *PackedInt8, scale, c []float32, ldc int, ep *Epilogue) {
	need("GemmInt8Scaled: a", len(a), m, b.K, lda)
	need("GemmInt8Scaled: c", len(c), m, b.N, ldc)
	same("GemmInt8Scaled: scale", b.N, len(scale))
	ep.check("GemmInt8Scaled", m, b.N)
	l := leftOf(m, a, lda, zero, b)
	defer l.release()
	sums := intsOf(c) // C itself holds the sums until they are scaled
	b.p.multiply(m, l.words, l.ld, sums, ldc, false, func(r0, r1, c0, c1 int) {
		if c0 >= c1 {
			return
		}
		for r := r0; r < r1; r++ {
			row, out := sums[r*ldc+c0:r*ldc+c1], c[r*ldc+c0:r*ldc+c1]
			if b.quads {
				l.offset(r, row, c0, c1)
				cur.scaleI(out, row, b.sums[c0:c1], -l.zero(r), scale[c0:c1])
			} else {
				cur.scaleI(out, row, row, 0, scale[c0:c1])
			}
			if ep != nil {
				ep.apply(r, r+1, c0, c1, c, ldc)
			}
		}
	})
}

// MatMulInt8 computes C = (A - za)·(B - zb) exactly in int32 (sums beyond int32 wrap): A m×k, B k×n, or n×k where transB
// is set; za is nil, one or m zero points, zb nil, one or n. It packs B itself.
func MatMulInt8[A, B Int8](m, n, k int, a []A, lda int, za []A, b []B, ldb int, transB bool, zb []B, c []int32, ldc int) {
	p, done := borrowInt8(k, n, b, ldb, transB, zb)
	defer done()
	GemmInt8(m, a, lda, za, p, c, ldc)
}

// MatMulInt8Scaled is GemmInt8Scaled with a B that is used once.
func MatMulInt8Scaled[A, B Int8](m, n, k int, a []A, lda int, za []A, b []B, ldb int, transB bool, zb []B, scale, c []float32, ldc int, ep *Epilogue) {
	p, done := borrowInt8(k, n, b, ldb, transB, zb)
	defer done()
	GemmInt8Scaled(m, a, lda, za, p, scale, c, ldc, ep)
}

// borrowInt8 packs B into working memory, which done gives back.
func borrowInt8[T Int8](k, n int, b []T, ldb int, transB bool, zb []T) (p *PackedInt8, done func()) {
	t := pickTile(tileInt8(), n)
	buf, data := scratchOf[int32]((k + wordInt8() - 1) / wordInt8() * paddedColumns(t, n))
	side, sums := scratchOf[int32](n)
	return newPackedInt8(k, n, b, ldb, transB, zb, t, data, sums), func() {
		release(buf)
		release(side)
	}
}

// leftInt8 is the left-hand side of a product in the words of its right-hand side.
type leftInt8 struct {
	b     *PackedInt8
	words []int32
	ld    int
	buf   *buffer           // behind words; nil: they are A itself
	zero  func(i int) int32 // quads: the zero point of a row of the shifted codes
	sums  []int32           // quads, where b has zero points: the sums of the rows
	side  *buffer
}

func leftOf[T Int8](m int, a []T, lda int, zero []T, b *PackedInt8) *leftInt8 {
	at := zeros("GemmInt8: zero", m, zero)
	l := &leftInt8{b: b, ld: b.p.k}
	if !b.quads {
		l.buf, l.words = scratchOf[int32](m * l.ld)
		par.For(m, max(1, elemGrain/max(b.K, 1)), func(lo, hi int) {
			for r := lo; r < hi; r++ {
				pairs(l.words[r*l.ld:(r+1)*l.ld], a[r*lda:][:b.K], at(r))
			}
		})
		return l
	}
	l.zero = at
	raw, flip := bytesOf(a), uint64(0)
	if signed[T]() {
		l.zero, flip = func(i int) int32 { return at(i) + 128 }, 0x8080808080808080
	}
	if w, ok := wordsOf(raw); ok && flip == 0 && b.K%4 == 0 && lda%4 == 0 {
		l.words, l.ld = w, lda/4
	} else {
		l.buf, l.words = scratchOf[int32](m * l.ld)
		par.For(m, max(1, elemGrain/max(b.K, 1)), func(lo, hi int) {
			for r := lo; r < hi; r++ {
				shifted(l.words[r*l.ld:(r+1)*l.ld], raw[r*lda:][:b.K], flip)
			}
		})
	}
	if b.zero != nil {
		l.side, l.sums = scratchOf[int32](m)
		par.For(m, max(1, elemGrain/max(b.K, 1)), func(lo, hi int) {
			for r := lo; r < hi; r++ {
				l.sums[r] = byteSum(raw[r*lda:][:b.K], flip)
			}
		})
	}
	return l
}

func (l *leftInt8) release() {
	if l.buf != nil {
		release(l.buf)
	}
	if l.side != nil {
		release(l.side)
	}
}

// offset takes the zero points of B off sums c0…c1 of row r.
func (l *leftInt8) offset(r int, row []int32, c0, c1 int) {
	if l.sums != nil {
		cur.addMulI(row, l.b.zero[c0:c1], int32(l.b.K)*l.zero(r)-l.sums[r])
	}
}

// pairs widens a row to pairs of int16.
func pairs[T Int8](dst []int32, x []T, z int32) {
	for p := range len(x) / 2 {
		dst[p] = (int32(x[2*p+1])-z)<<16 | (int32(x[2*p])-z)&0xffff
	}
	if n := len(x); n%2 == 1 {
		dst[n/2] = (int32(x[n-1]) - z) & 0xffff
	}
}

// shifted copies a row of bytes to words, with the bits of flip inverted; what is missing in the last word is 0.
func shifted(dst []int32, x []byte, flip uint64) {
	out, i := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(dst))), 4*len(dst)), 0
	for ; i+8 <= len(x); i += 8 {
		order.LittleEndian.PutUint64(out[i:], order.LittleEndian.Uint64(x[i:])^flip)
	}
	for j := i; j < len(x); j++ {
		out[j] = x[j] ^ byte(flip)
	}
	clear(out[len(x):])
}

// byteSum adds the bytes of a row, with the bits of flip inverted.
func byteSum(x []byte, flip uint64) int32 {
	sum, i := 0, 0
	for i+8 <= len(x) {
		// sums of 16 bits: 128 words of two bytes each stay below their limit
		var even, odd uint64
		for range min(128, (len(x)-i)/8) {
			w := order.LittleEndian.Uint64(x[i:]) ^ flip
			even += w & 0x00ff00ff00ff00ff
			odd += w >> 8 & 0x00ff00ff00ff00ff
			i += 8
		}
		for s := range 4 {
			sum += int(even>>(16*s)&0xffff) + int(odd>>(16*s)&0xffff)
		}
	}
	for ; i < len(x); i++ {
		sum += int(x[i] ^ byte(flip))
	}
	return int32(sum)
}

// bytesOf views codes as bytes.
func bytesOf[T Int8](x []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}

// wordsOf views bytes as words; ok is false where they do not start at one, or the machine puts the highest byte first.
func wordsOf(x []byte) (w []int32, ok bool) {
	p := unsafe.Pointer(unsafe.SliceData(x))
	if uintptr(p)%4 != 0 || order.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, false
	}
	return unsafe.Slice((*int32)(p), len(x)/4), true
}

// intsOf views float32 storage as int32.
func intsOf(x []float32) []int32 {
	return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}
