package kernel

import (
	"math"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// Sums of products over rows, Yᵀ·X, in integers.
//
// Rows are taken in pieces of pieceRows. In a piece each column has a step, a power of two, such that its largest magnitude is
// between 16319 and 32639 steps, and its numbers are rounded to the nearest multiple of the step. What is summed are the products of
// these integers, exactly, whichever way; then
//
//	h[i][j] += Σᵣ y[r][i]·x[r][j] · stepᵢ·stepⱼ
//
// in float64, of which the last sum alone rounds: the bits are the same at every level and on any number of cores.
//
// A rounded number is at most half a step off, 2⁻¹⁵ of the largest magnitude of its column in the piece. A sum over R rows is then
// off by at most 2⁻¹⁵·(aᵢ·Σ|x[r][j]| + aⱼ·Σ|y[r][i]|) with a the largest magnitudes, and as the errors of rows are independent,
// by about 2⁻¹⁷·√R·(aᵢ·σⱼ + aⱼ·σᵢ), σ the columns' root mean squares: with magnitudes up to 16·σ a few 10⁻⁴/√R of √(hᵢᵢ·hⱼⱼ). A
// piece of fewer than leastRows rows, over which little would even out, is summed in float64 as it is: its products are exact there.

// leastRows is how many rows a piece has, at least, that is rounded. Changing it changes results.
const leastRows = 64

// pieceRows is how many rows have their steps in common, at most. Changing it changes results.
const pieceRows = 1024

// mostUnits is the largest integer of two digits in ±127, ±128.
const mostUnits = 127*256 + 127

// digitKernels multiply integers as two digits of a byte each, high·256 + low, in tiles of 16 columns by 64 rows: the tile of the
// high digits, then that of the low ones. There are two layouts. In one, that of the right-hand side, four bytes of a column stand
// together and then the same rows of the next column; in the other, that of the left-hand side, all 64 bytes of a column.
type digitKernels struct {
	// codes writes the tiles of the right-hand side of 64 rows of 16 columns, ldx bytes apart; inv are the inverse steps.
	codes func(dst, x *float32, ldx int, inv *float32)
	// add adds the products of 16 columns of the left with 16·groups columns of the right, of tiles tiles of either digit, times
	// the steps rows and cols, to 16 rows of h, ldh bytes apart.
	add func(left, right *float32, tiles, groups int, rows, cols, h *float64, ldh int)
}

const (
	digitSide  = 16 // columns of a tile
	digitDepth = 64 // rows of a tile
	digitTile  = digitSide * digitDepth
)

// SyrkAdd adds the lower triangle of Xᵀ·X to that of the n×n float64 matrix h, X rows×n in float32. X counts as rounded to 15
// bits and sign of the largest magnitude of each column in each piece of 1024 rows; the products of these numbers are summed
// exactly and added to h, piece after piece. A last piece of fewer than 64 rows is not rounded and summed in float64. A column that
// holds NaN or infinity makes its square NaN or infinite. The strict upper triangle of h is neither read nor written; MirrorLower
// completes it.
func SyrkAdd(rows, n int, x []float32, ldx int, h []float64, ldh int) {
	need("SyrkAdd: x", len(x), rows, n, ldx)
	need("SyrkAdd: h", len(h), n, n, ldh)
	for r := 0; r < rows; r += pieceRows {
		p := newPiece(min(pieceRows, rows-r), n, x[r*ldx:], ldx)
		addProducts(p, p, h, ldh)
		p.release()
	}
}

// CrossAdd adds Yᵀ·X to the m×n float64 matrix h, Y rows×m and X rows×n in float32; it rounds and sums as SyrkAdd does.
func CrossAdd(rows, m, n int, y []float32, ldy int, x []float32, ldx int, h []float64, ldh int) {
	need("CrossAdd: y", len(y), rows, m, ldy)
	need("CrossAdd: x", len(x), rows, n, ldx)
	need("CrossAdd: h", len(h), m, n, ldh)
	for r := 0; r < rows; r += pieceRows {
		rb := min(pieceRows, rows-r)
		left, right := newPiece(rb, m, y[r*ldy:], ldy), newPiece(rb, n, x[r*ldx:], ldx)
		addProducts(left, right, h, ldh)
		left.release()
		right.release()
	}
}

// piece is one operand's part of at most pieceRows rows.
type piece struct {
	rows, n, ld int
	x           []float32
	inv         []float32 // 1/step of each column, and of columns up to a whole tile
	step        []float64
	bufs        [2]*buffer
}

func newPiece(rows, n int, x []float32, ldx int) *piece {
	p := &piece{rows: rows, n: n, ld: ldx, x: x}
	padded := (n + digitSide - 1) / digitSide * digitSide
	p.bufs[0], p.inv = scratchOf[float32](padded)
	p.bufs[1], p.step = scratchOf[float64](padded)
	return p
}

func (p *piece) release() {
	for _, b := range p.bufs {
		release(b)
	}
}

// rounds reports that the piece is to be rounded.
func (p *piece) rounds() bool { return p.rows >= leastRows }

// fit finds the steps of columns [c0,c1), which are whole tiles but for the last.
func (p *piece) fit(c0, c1 int) {
	if !p.rounds() {
		for c := c0; c < c1; c++ {
			p.inv[c], p.step[c] = 1, 1
		}
		return
	}
	most := p.inv[c0:c1]
	clear(p.inv[c0 : (c1+digitSide-1)/digitSide*digitSide])
	for r := range p.rows {
		cur.absMaxV(most, p.x[r*p.ld+c0:r*p.ld+c1])
	}
	for i, m := range most {
		p.inv[c0+i], p.step[c0+i] = unitsOf(m)
	}
	for c := c1; c%digitSide != 0; c++ {
		p.inv[c], p.step[c] = 0, 0
	}
}

// unitsOf returns the step of a column with the largest magnitude most, and its inverse: NaN and 0 where most is not finite.
func unitsOf(most float32) (inv float32, step float64) {
	if !(most <= math.MaxFloat32) {
		return 0, math.NaN()
	}
	if most == 0 {
		return 1, 1
	}
	frac, exp := math.Frexp(float64(most)) // most = frac·2^exp, frac in [1/2,1)
	e := 15 - exp
	if frac*(1<<15) > mostUnits {
		e--
	}
	e = min(e, 127) // the largest that a float32 can be: steps of subnormal numbers are finer than these are
	return float32(math.Ldexp(1, e)), math.Ldexp(1, -e)
}

// addProducts adds leftᵀ·right to h; where they are one, what is above the diagonal is left out.
func addProducts(left, right *piece, h []float64, ldh int) {
	if cur.digits != nil && left.rounds() {
		addDigits(left, right, h, ldh)
	} else {
		addWhole(left, right, h, ldh)
	}
}

// stripe is how many columns are read together: runs of several cache lines, and few enough that the rows of a piece are still in
// the level-2 cache when they are read again.
const stripe = 192

// eachStripe calls f for all columns in stripes, on all cores.
func (p *piece) eachStripe(f func(c0, c1 int)) {
	par.For((p.n+stripe-1)/stripe, 1, func(lo, hi int) {
		for s := lo; s < hi; s++ {
			f(s*stripe, min((s+1)*stripe, p.n))
		}
	})
}

// tiles is how many tiles deep the piece is.
func (p *piece) tiles() int { return (p.rows + digitDepth - 1) / digitDepth }

// digitsOf fits the piece and writes its digits: in the layouts of a left-hand and of a right-hand side, either of which may be nil.
func (p *piece) digitsOf(left, right []float32) {
	const tile = digitTile / 4 // words
	deep := p.tiles()
	p.eachStripe(func(c0, c1 int) {
		p.fit(c0, c1)
		side := scratch(digitDepth*digitSide + 2*tile)
		defer release(side)
		edge, spare := side.f[:digitDepth*digitSide], side.f[digitDepth*digitSide:]
		for t := range deep {
			rows := min(digitDepth, p.rows-t*digitDepth)
			for c := c0; c < c1; c += digitSide {
				x, ld := p.x[t*digitDepth*p.ld+c:], p.ld
				if cols := min(digitSide, c1-c); rows < digitDepth || cols < digitSide {
					clear(edge)
					for r := range rows {
						copy(edge[r*digitSide:], x[r*ld:][:cols])
					}
					x, ld = edge, digitSide
				}
				at, out := (c/digitSide*deep+t)*2*tile, spare
				if right != nil {
					out = right[at:]
				}
				cur.digits.codes(&out[0], &x[0], ld*4, &p.inv[c])
				for d := 0; d < 2*tile && left != nil; d += tile {
					for r := 0; r < digitSide; r += 8 {
						trans8(&left[at+d+r], digitSide, &out[d+r*digitSide], digitSide, digitSide)
					}
				}
			}
		}
	})
}

// digitBlock is how many groups of 16 columns a task multiplies with as many: their digits stay in the level-2 cache.
const digitBlock = 8

// addDigits is addProducts by digits.
func addDigits(left, right *piece, h []float64, ldh int) {
	deep, lower := left.tiles(), left == right
	m, n := (left.n+digitSide-1)/digitSide, (right.n+digitSide-1)/digitSide
	group := deep * 2 * digitTile / 4 // words
	a, b := scratch(m*group), scratch(n*group)
	defer release(a)
	defer release(b)
	if lower {
		left.digitsOf(a.f, b.f)
	} else {
		left.digitsOf(a.f, nil)
		right.digitsOf(nil, b.f)
	}
	add := func(i, j, groups int, to []float64, ld int) {
		cur.digits.add(&a.f[i*group], &b.f[j*group], deep, groups, &left.step[i*digitSide], &right.step[j*digitSide], &to[0], ld*8)
	}
	eachBlock(m, n, lower, digitBlock, func(i0, i1, j0, j1 int) {
		var side [digitSide * digitSide]float64
		for i := i0; i < i1; i++ {
			end, whole := j1, min(j1, right.n/digitSide) // groups wanted, groups that are wanted in all rows and columns
			if lower {
				end, whole = min(end, i+1), min(whole, i)
			}
			r0, r1 := i*digitSide, min((i+1)*digitSide, left.n)
			if r1-r0 < digitSide {
				whole = j0
			}
			if whole > j0 {
				add(i, j0, whole-j0, h[r0*ldh+j0*digitSide:], ldh)
			}
			for j := max(whole, j0); j < end; j++ {
				clear(side[:])
				add(i, j, 1, side[:], digitSide)
				for r := r0; r < r1; r++ {
					row := h[r*ldh+j*digitSide:][:wanted(r, j*digitSide, min((j+1)*digitSide, right.n), lower)]
					for c := range row {
						row[c] += side[(r-r0)*digitSide+c]
					}
				}
			}
		}
	})
}

// wanted is how many of the elements [c0,c1) of row r are wanted, where those above the diagonal are not if lower is set.
func wanted(r, c0, c1 int, lower bool) int {
	if lower {
		c1 = min(c1, r+1)
	}
	return max(c1-c0, 0)
}

// eachBlock calls f on all cores for square blocks of an m×n matrix, rows [i0,i1) and columns [j0,j1); lower leaves out those
// above the diagonal.
func eachBlock(m, n int, lower bool, side int, f func(i0, i1, j0, j1 int)) {
	down, across := (m+side-1)/side, (n+side-1)/side
	count := down * across
	if lower {
		count = down * (down + 1) / 2
	}
	par.For(count, 1, func(lo, hi int) {
		for t := lo; t < hi; t++ {
			i, j := t/max(across, 1), t%max(across, 1)
			if lower {
				i, j = triangle(count - 1 - t)
			}
			f(i*side, min((i+1)*side, m), j*side, min((j+1)*side, n))
		}
	})
}

// units fits the piece and returns its numbers in steps, rows×n.
func (p *piece) units() *buffer {
	const half = 3 << 22 // added and taken away, it rounds
	out := scratch(p.rows * p.n)
	p.eachStripe(func(c0, c1 int) {
		p.fit(c0, c1)
		for r := range p.rows {
			row := out.f[r*p.n+c0 : r*p.n+c1]
			if !p.rounds() {
				copy(row, p.x[r*p.ld+c0:])
				continue
			}
			cur.binary[opMul](row, p.x[r*p.ld+c0:r*p.ld+c1], p.inv[c0:c1])
			cur.scalar[opAddS](row, row, half)
			cur.scalar[opSubS](row, row, half)
		}
	})
	return out
}

// addWhole is addProducts in float64, whose sums of integers are exact too: they stay below 2⁵³. Those of a piece that is not rounded
// are taken in the order of the rows.
func addWhole(left, right *piece, h []float64, ldh int) {
	rows, m, n, lower := left.rows, left.n, right.n, left == right
	units := right.units()
	p, free := packScratch(cur.tilesD, rows, n, source[float64]{func(dst []float64, k0, kb, j0, nn, nr int) {
		for k := range kb {
			row := dst[k*nr : (k+1)*nr]
			for j, v := range units.f[(k0+k)*n+j0:][:nn] {
				row[j] = float64(v)
			}
			clear(row[nn:])
		}
	}, sweepRows})
	defer free()
	if !lower {
		release(units)
		units = left.units()
	}
	turned := scratch(m * rows)
	Transpose(rows, m, turned.f, rows, units.f, m)
	release(units)
	buf, a := scratchOf[float64](m * rows)
	defer release(buf)
	par.For(m, 16, func(lo, hi int) {
		for i := lo * rows; i < hi*rows; i++ {
			a[i] = float64(turned.f[i])
		}
	})
	release(turned)
	nr := p.t.nr
	side := (112 + nr - 1) / nr * nr
	eachBlock(m, n, lower, side, func(i0, i1, j0, j1 int) {
		buf, out := scratchOf[float64](side * side)
		defer release(buf)
		for k0 := 0; k0 < rows; k0 += kc {
			kb := min(kc, rows-k0)
			for j := j0; j < j1; j += nr {
				tiles(p.t, 0, i1-i0, a[i0*rows+k0:], rows, p.panel(k0, kb, j/nr), nr, out[j-j0:], side, kb, min(nr, n-j), k0 > 0)
			}
		}
		for i := i0; i < i1; i++ {
			row, sums := h[i*ldh+j0:][:wanted(i, j0, j1, lower)], out[(i-i0)*side:]
			for j := range row {
				row[j] += sums[j] * (left.step[i] * right.step[j0+j])
			}
		}
	})
}
