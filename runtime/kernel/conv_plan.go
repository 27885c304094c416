package kernel

import (
	"slices"
	"sync"
	"unsafe"
)

// convPlan says how a convolution is cut into tiles, and where each finds what it reads.
//
// The input is read from a lattice: each channel's padded plane is split by row modulo StrideH and column modulo StrideW
// into parts of h×w elements, so that a run of outputs sees a run of inputs at each position of the window. Where there are
// neither pads nor strides the input itself is one. Where the vectors would hold much between the end of an output row and
// the start of the next, there is a part for each column of the window in the place of those by column modulo StrideW: it
// is as wide as the output, so that its rows follow each other as those of the output do.
type convPlan struct {
	p       Conv2D
	oh, ow  int
	h, w    int
	plane   int // elements between channels
	fills   []convFill
	inPlace bool
	slack   int // elements that are read beyond the last channel, at most

	offs   []int // by position of the contraction axis: channel of the group, then position of the window; bytes
	taps   []int // by position of the window; elements
	vecs   []convVec
	panels []convPanel
	down   bool // the tiles of a panel follow each other, else those of the same channels
	wide   int  // vectors that the loops over planes take at once
}

// convPanel is a run of vectors that one tile takes, and the number of tiles of all panels up to its end.
type convPanel struct{ at, n, tiles int }

// convFill is a step of laying out a channel: rows of n elements, every so-manieth of the plane's, from src on. Where every
// is 2, the others go to odd.
type convFill struct {
	dst, odd, src int
	ldd, ldx      int // bytes between rows
	n, rows       int
	every         int
}

var plans = sync.Pool{New: func() any { return new(convPlan) }}

// lay makes the plan of a convolution with oh×ow outputs, at least one, for such kernels. dense: several channels are summed.
func (pl *convPlan) lay(p Conv2D, oh, ow int, k *convKernels, dense bool) {
	pl.p, pl.oh, pl.ow = p, oh, ow
	pl.h = (p.H + p.PadTop + p.PadBottom + p.StrideH - 1) / p.StrideH
	pl.w = (p.W + p.PadLeft + p.PadRight + p.StrideW - 1) / p.StrideW
	pl.fills, pl.taps, pl.vecs = pl.fills[:0], pl.taps[:0], pl.vecs[:0]
	lanes, n := k.lanes, (oh-1)*pl.w+ow
	pl.inPlace = p.StrideH == 1 && p.StrideW == 1 && p.PadTop|p.PadLeft|p.PadBottom|p.PadRight == 0 && n >= lanes
	byRows := oh * ((ow + lanes - 1) / lanes)
	if waste := min(byRows, (n+lanes-1)/lanes) - (oh*ow+lanes-1)/lanes; dense && !pl.inPlace && p.StrideW == 1 &&
		8*waste >= oh*ow/lanes && waste*p.KH*p.KW*p.M/p.Groups > 4*(p.KW-1)*pl.h*(ow/8+6) { // what the sums save against what the copies cost
		pl.columns()
	} else {
		pl.lattice()
	}
	pl.slack = lanes
	if pl.plane%1024 == 0 && !pl.inPlace {
		pl.plane += 16 // rows of a product a multiple of 4096 bytes apart evict each other
	}
	pl.offs = pl.offs[:0]
	for c := range p.C / p.Groups {
		for _, t := range pl.taps {
			pl.offs = append(pl.offs, (c*pl.plane+t)*4)
		}
	}
	n = (oh-1)*pl.w + ow
	if pl.w == ow || byRows > (n+lanes-1)/lanes || pl.inPlace && ow < lanes {
		if !pl.runs(n, lanes) {
			pl.inPlace = false
			pl.rows(lanes)
		}
	} else {
		pl.rows(lanes)
	}
	if dense {
		pl.cut(k)
		return
	}
	if pl.wide = 6; len(pl.vecs) <= 3 {
		pl.wide = 3
	}
	for len(pl.vecs)%pl.wide != 0 {
		pl.vecs = append(pl.vecs, pl.vecs[len(pl.vecs)-1])
	}
}

// cut makes panels of the vectors: of three, the last or the last two of four where that comes out even.
func (pl *convPlan) cut(k *convKernels) {
	pl.panels = pl.panels[:0]
	m := pl.p.M / pl.p.Groups
	// Tiles of one panel follow each other, which keeps its input in the cache; where the weights are too large to stay in
	// the level-2 cache from panel to panel it is the other way round, with tiles of as many channels in each panel.
	pl.down = m*len(pl.offs) <= 1<<18
	four := pl.down
	for v, tiles := 0, 0; v < len(pl.vecs); {
		left := len(pl.vecs) - v
		size := k.block(left, four)
		mr := k.rows(size)
		tiles += (m + mr - 1) / mr
		pl.panels = append(pl.panels, convPanel{v, size, tiles})
		v += size
	}
}

// tilesAt returns the tile number i of a group, its first channel, the number of channels, and for how many tiles from it on, at
// most, there are as many channels and they are next to each other.
func (pl *convPlan) tilesAt(k *convKernels, i, most int) (pn convPanel, first, rows, runs int) {
	m, j := pl.p.M/pl.p.Groups, 0
	if pl.down {
		j, _ = slices.BinarySearchFunc(pl.panels, i+1, func(p convPanel, i int) int { return p.tiles - i })
	} else {
		j = i % len(pl.panels)
	}
	pn = pl.panels[j]
	mr := k.rows(pn.n)
	tiles := (m + mr - 1) / mr
	r := i / len(pl.panels)
	if pl.down {
		r = i - (pn.tiles - tiles)
	}
	// The first m%tiles tiles have one channel more than the others.
	rows, more := m/tiles, m%tiles
	first, runs = r*rows+min(r, more), tiles-r
	if r < more {
		rows, runs = rows+1, more-r
	}
	if !pl.down {
		runs = 1
	}
	return pn, first, rows, min(runs, most)
}

// lattice settles where the window finds what it sees, and how a channel is laid out.
func (pl *convPlan) lattice() {
	p, part := &pl.p, pl.h*pl.w
	pl.plane = part * p.StrideH * p.StrideW
	seen := 0 // bits: rows modulo StrideH that the window sees; beyond 64 all
	for kh := range p.KH {
		for kw := range p.KW {
			r, c := kh*p.DilationH, kw*p.DilationW
			pl.taps = append(pl.taps, (r%p.StrideH*p.StrideW+c%p.StrideW)*part+r/p.StrideH*pl.w+c/p.StrideW)
		}
		seen |= 1 << (kh * p.DilationH % p.StrideH)
	}
	for iy := range min(p.StrideH, p.H) {
		// rows iy, iy+StrideH, … lie next to each other
		r := iy + p.PadTop
		if p.StrideH <= 64 && seen>>(r%p.StrideH)&1 == 0 {
			continue
		}
		to := func(c int) int {
			return (r%p.StrideH*p.StrideW+c%p.StrideW)*part + r/p.StrideH*pl.w + c/p.StrideW
		}
		f := convFill{dst: to(p.PadLeft), odd: to(p.PadLeft + 1), src: iy * p.W, ldd: pl.w * 4, ldx: p.W * p.StrideH * 4,
			n: p.W, rows: (p.H - iy + p.StrideH - 1) / p.StrideH, every: p.StrideW}
		if p.StrideW <= 2 && p.W >= p.StrideW {
			pl.fills = append(pl.fills, f)
			continue
		}
		for s := range min(p.StrideW, p.W) {
			f.dst, f.src, f.n = to(s+p.PadLeft), iy*p.W+s, (p.W-s+p.StrideW-1)/p.StrideW
			pl.fills = append(pl.fills, f)
		}
	}
}

// columns is lattice with a part for each column of the window. StrideW is 1.
func (pl *convPlan) columns() {
	p := &pl.p
	pl.w = pl.ow
	part := pl.h * pl.w
	pl.plane = part * p.StrideH * p.KW
	for kh := range p.KH {
		r := kh * p.DilationH
		for kw := range p.KW {
			pl.taps = append(pl.taps, (r%p.StrideH*p.KW+kw)*part+r/p.StrideH*pl.w)
		}
	}
	for iy := range min(p.StrideH, p.H) {
		r := iy + p.PadTop
		for kw := range p.KW {
			b := kw*p.DilationW - p.PadLeft // of the input, where the part starts
			lo, hi := max(0, -b), min(pl.ow, p.W-b)
			if lo < hi {
				pl.fills = append(pl.fills, convFill{dst: (r%p.StrideH*p.KW+kw)*part + r/p.StrideH*pl.w + lo, src: iy*p.W + lo + b,
					ldd: pl.w * 4, ldx: p.W * p.StrideH * 4, n: hi - lo, rows: (p.H - iy + p.StrideH - 1) / p.StrideH, every: 1})
			}
		}
	}
}

// rows gives each output row vectors of its own, the last of which reaches back where the row is long enough.
func (pl *convPlan) rows(lanes int) {
	pl.vecs = pl.vecs[:0]
	for oy := range pl.oh {
		for x := 0; x < pl.ow; x += lanes {
			from, n := x, min(lanes, pl.ow-x)
			if n < lanes && pl.ow >= lanes {
				from = pl.ow - lanes
			}
			v := convVec{src: (oy*pl.w + from) * 4, n: 1}
			v.segs[0] = segment(oy*pl.ow+from, x-from, x-from+n)
			pl.vecs = append(pl.vecs, v)
		}
	}
}

// runs covers the outputs as one row of n elements, those between the end of an output row and the start of the next being
// of no use. It reports false where a vector's results would lie in too many pieces.
func (pl *convPlan) runs(n, lanes int) bool {
	pl.vecs = pl.vecs[:0]
	for x := 0; x < n; x += lanes {
		from := x
		if n-x < lanes && n >= lanes {
			from = n - lanes
		}
		v := convVec{src: from * 4}
		for at, end := x, min(x+lanes, n); at < end; {
			oy, ox := at/pl.w, at%pl.w
			next := min((oy+1)*pl.w, end)
			if pl.w == pl.ow {
				next = end
			}
			if hi := min(next, oy*pl.w+pl.ow); pl.w == pl.ow || ox < pl.ow {
				if pl.w == pl.ow {
					hi = next
				}
				if v.n == maxSegs {
					return false
				}
				v.segs[v.n] = segment(from-oy*(pl.w-pl.ow), at-from, hi-from)
				v.n++
			}
			at = next
		}
		if v.n > 0 {
			pl.vecs = append(pl.vecs, v)
		}
	}
	return true
}

// fill writes one channel of the lattice, but for the padding.
func (pl *convPlan) fill(dst, plane []float32) {
	for i := range pl.fills {
		f := &pl.fills[i]
		switch f.every {
		case 1:
			cur.copyRows(&dst[f.dst], f.ldd, &plane[f.src], f.ldx, f.n, f.rows)
		case 2:
			cur.splitRows(&dst[f.dst], &dst[f.odd], f.ldd, &plane[f.src], f.ldx, f.n, f.rows)
		default:
			for y := range f.rows {
				out, in := dst[f.dst+y*f.ldd/4:][:f.n], plane[f.src+y*f.ldx/4:]
				for i := range out {
					out[i] = in[i*f.every]
				}
			}
		}
	}
}

// copyRowsGeneric copies rows of n elements; strides are in bytes.
func copyRowsGeneric(dst *float32, ldd int, x *float32, ldx, n, rows int) {
	for r := range rows {
		copy(at(dst, r*ldd, n), at(x, r*ldx, n))
	}
}

// splitRowsGeneric writes the elements 0, 2, … of each row of n to even, the others to odd; strides are in bytes.
func splitRowsGeneric(even, odd *float32, ldd int, x *float32, ldx, n, rows int) {
	for r := range rows {
		e, o := at(even, r*ldd, (n+1)/2), at(odd, r*ldd, n/2)
		for i, v := range at(x, r*ldx, n) {
			if i%2 == 0 {
				e[i/2] = v
			} else {
				o[i/2] = v
			}
		}
	}
}

// bytes is the tile as the kernels take it.
func (t *convTile) bytes() *byte { return (*byte)(unsafe.Pointer(t)) }
