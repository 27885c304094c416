package kernel

import (
	"unsafe"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// kc is the depth of a block of the contraction axis. An element of a product is, at every level and for every tile
// shape, a sum over blocks of kc of one chain of fused multiply-adds each. Changing it changes results.
const kc = 384

// crowd is how many rows of A a tile takes at most when they lie a multiple of 4096 bytes apart: they then share one set of the
// level-1 cache, which has twelve ways or fewer, and B and C want some.
const crowd = 10

// kernFunc computes one tile, up to mr rows by nr columns of C: C = A·B (acc 0) or C += A·B (acc 1). Strides are in
// bytes; row r of A starts at ap + r*lda and holds k consecutive elements; row p of B starts at bp + p*ldb.
type kernFunc[T elem] func(ap *T, lda int, bp *T, ldb int, cp *T, ldc int, k, acc int)

// elem is what matrices are made of: float32, float64, and int32 for integer products, where an int32 of A or B holds
// two int16 that follow each other along the contraction axis (see int8.go).
type elem interface{ float32 | float64 | int32 }

// source is where a right-hand side comes from. read writes rows [k0,k0+kb), columns [j0,j0+nn) of it to dst as kb rows
// of nr, zero beyond nn. rows is how many rows to read before going on to the next panel.
type source[T elem] struct {
	read func(dst []T, k0, kb, j0, nn, nr int)
	rows int
}

// after is called for each finished block of C, rows [r0,r1) and columns [c0,c1); nil does nothing.
type after func(r0, r1, c0, c1 int)

// tile is a family of kernels, one for each row count.
type tile[T elem] struct {
	mr, nr int
	mc     int           // rows of a task: mc×kc of A stay in the level-2 cache
	kern   []kernFunc[T] // kern[r] computes r rows, 1 <= r <= mr
	cost   float64       // relative time per column, for choosing a tile; 0 counts as 1
}

// packed is a right-hand side, k×n, in the layout of the kernels: blocks of kc rows; in a block, panels of nr columns,
// each with its rows one after the other and its missing columns zero.
type packed[T elem] struct {
	k, n int
	t    *tile[T]
	data []T
}

func (p *packed[T]) panels() int { return (p.n + p.t.nr - 1) / p.t.nr }

// panel returns the rows [k0,k0+kb) of panel j, k0 a multiple of kc.
func (p *packed[T]) panel(k0, kb, j int) []T {
	nr := p.t.nr
	off := k0*p.panels()*nr + j*kb*nr
	return p.data[off : off+kb*nr]
}

// pickTile chooses the tile shape that wastes least on n columns.
func pickTile[T elem](ts []*tile[T], n int) *tile[T] {
	best, least := ts[0], 0.0
	for i, t := range ts {
		cost := float64((n+t.nr-1)/t.nr*t.nr) * max(t.cost, 1)
		if i == 0 || cost < least {
			best, least = t, cost
		}
	}
	return best
}

// matrixSource reads a plain k×n matrix, or an n×k one where trans is set.
func matrixSource[T elem](b []T, ldb int, trans bool) source[T] {
	if trans {
		return source[T]{func(dst []T, k0, kb, j0, nn, nr int) { packTrans(dst, b[j0*ldb+k0:], ldb, kb, nn, nr) }, kc}
	}
	var zero T
	four := unsafe.Sizeof(zero) == 4
	return source[T]{func(dst []T, k0, kb, j0, nn, nr int) {
		if four && nn == nr {
			cur.copyRows((*float32)(unsafe.Pointer(&dst[0])), nr*4, (*float32)(unsafe.Pointer(&b[k0*ldb+j0])), ldb*4, nr, kb)
			return
		}
		for p := range kb {
			row := dst[p*nr : (p+1)*nr]
			n := copy(row, b[(k0+p)*ldb+j0:][:nn])
			clear(row[n:])
		}
	}, sweepRows}
}

func (p *packed[T]) fill(src source[T]) {
	nr, panels := p.t.nr, p.panels()
	groups := (panels + packPanels - 1) / packPanels
	par.For(groups*((p.k+kc-1)/kc), max(1, elemGrain/(packPanels*nr*min(kc, max(p.k, 1)))), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			k0, j := i/groups*kc, i%groups*packPanels
			kb := min(kc, p.k-k0)
			packGroup(p.data[k0*panels*nr+j*kb*nr:], src, k0, kb, j, min(j+packPanels, panels), p.n, nr)
		}
	})
}

// packPanels is how many panels are packed together, and sweepRows how many rows of a plain matrix at a time: it is then
// read in runs of several cache lines, which hides more of the memory's delay than one panel's width.
const packPanels, sweepRows = 4, 32

// packGroup packs rows [k0,k0+kb) of panels [j0,j1), one panel after the other.
func packGroup[T elem](dst []T, src source[T], k0, kb, j0, j1, n, nr int) {
	for p := 0; p < kb; p += src.rows {
		rows := min(src.rows, kb-p)
		for j := j0; j < j1; j++ {
			src.read(dst[((j-j0)*kb+p)*nr:][:rows*nr], k0+p, rows, j*nr, min(nr, n-j*nr), nr)
		}
	}
}

// multiply computes C = A·B or C += A·B.
func (p *packed[T]) multiply(m int, a []T, lda int, c []T, ldc int, acc bool, then after) {
	p.multiplyUnits(m, a, lda, c, ldc, acc, then, 1)
}

// multiplyUnits is multiply where then gets whole units of panels, but at the right edge.
func (p *packed[T]) multiplyUnits(m int, a []T, lda int, c []T, ldc int, acc bool, then after, unit int) {
	t, panels := p.t, p.panels()
	rows, cols := split(m, panels, p.k, t, unit)
	rt, ct := (m+rows-1)/rows, (panels+cols-1)/cols
	par.For(rt*ct, 1, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			r0, p0 := i%rt*rows, i/rt*cols
			r1, p1 := min(r0+rows, m), min(p0+cols, panels)
			for k0 := 0; k0 < p.k; k0 += kc {
				kb := min(kc, p.k-k0)
				for j := p0; j < p1; j++ {
					tiles(t, r0, r1, a[k0:], lda, p.panel(k0, kb, j), t.nr, c[j*t.nr:], ldc, kb, min(t.nr, p.n-j*t.nr), acc || k0 > 0)
				}
			}
			finish(r0, r1, p0*t.nr, min(p1*t.nr, p.n), p.k, c, ldc, acc, then)
		}
	})
}

// split chooses how many rows and panels a task takes, so that a block of A stays in cache and every core finds work;
// the results do not depend on it. Panels come in units.
func split[T elem](m, panels, k int, t *tile[T], unit int) (rows, cols int) {
	rows, cols = max(m, 1), max(panels, 1)
	if float64(m)*float64(panels*t.nr)*float64(k) < 1<<19 {
		return rows, cols
	}
	if rows > t.mc {
		rows = (m + (m+t.mc-1)/t.mc - 1) / ((m + t.mc - 1) / t.mc)
	}
	whole := func(n int) int { return min((n+unit-1)/unit*unit, max(panels, 1)) }
	cols = whole(min(cols, max(1, 384/t.nr)))
	want := 3 * par.Cores()
	if par.Cores() == 1 || par.Busy() {
		want = 1
	}
	count := func() int { return ((m + rows - 1) / rows) * ((panels + cols - 1) / cols) }
	for count() < want && cols > max(2, unit) {
		cols = whole((cols + 1) / 2)
	}
	for count() < want && rows > 4*t.mr {
		rows = (rows + 1) / 2
	}
	for count() < want && cols > unit {
		cols = whole(1)
	}
	rows = min((rows+t.mr-1)/t.mr*t.mr, max(m, 1))
	return rows, cols
}

// finish clears a block of C that no kernel wrote (K = 0) and calls then.
func finish[T elem](r0, r1, c0, c1, k int, c []T, ldc int, acc bool, then after) {
	if k == 0 && !acc {
		for r := r0; r < r1; r++ {
			clear(c[r*ldc+c0 : r*ldc+c1])
		}
	}
	if then != nil {
		then(r0, r1, c0, c1)
	}
}

// tiles multiplies rows [r0,r1) of a with one panel of nn columns. The rows are spread evenly over the tiles, so that
// there is no thin one at the end. lda, ldb and ldc are in elements.
func tiles[T elem](t *tile[T], r0, r1 int, a []T, lda int, panel []T, ldb int, c []T, ldc, kb, nn int, acc bool) {
	var zero T
	size := int(unsafe.Sizeof(zero))
	mr := t.mr
	if lda*size%4096 == 0 {
		mr = min(mr, crowd)
	}
	count := (r1 - r0 + mr - 1) / mr
	flag := 0
	if acc {
		flag = 1
	}
	var side []T
	if nn < t.nr {
		buf := scratch(t.mr * t.nr * size / 4)
		defer release(buf)
		side = view[T](buf)
	}
	bp := unsafe.SliceData(panel)
	for i := range count {
		lo, hi := r0+(r1-r0)*i/count, r0+(r1-r0)*(i+1)/count
		kern := t.kern[hi-lo]
		if side == nil {
			kern(&a[lo*lda], lda*size, bp, ldb*size, &c[lo*ldc], ldc*size, kb, flag)
			continue
		}
		// A panel's tail: the kernel writes whole rows of nr, so it gets a copy.
		if acc {
			for r := range hi - lo {
				n := copy(side[r*t.nr:(r+1)*t.nr], c[(lo+r)*ldc:][:nn])
				clear(side[r*t.nr+n : (r+1)*t.nr])
			}
		}
		kern(&a[lo*lda], lda*size, bp, ldb*size, &side[0], t.nr*size, kb, flag)
		for r := range hi - lo {
			copy(c[(lo+r)*ldc:][:nn], side[r*t.nr:])
		}
	}
}
