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
// neither pads nor strides the input itself is one.
type convPlan struct {
	p       Conv2D
	oh, ow  int
	h, w    int
	plane   int    // elements between channels
	parts   []bool // by row and column modulo: whether the window sees it
	inPlace bool
	slack   int // elements that are read beyond the last channel, at most

	offs   []int // by position of the contraction axis: channel of the group, then position of the window; bytes
	taps   []int // by position of the window; elements
	vecs   []convVec
	panels []convPanel
}

// convPanel is a run of vectors that one tile takes.
type convPanel struct{ at, n int }

var plans = sync.Pool{New: func() any { return new(convPlan) }}

// lay makes the plan of a convolution with oh×ow outputs, at least one, for kernels that take so many lanes.
func (pl *convPlan) lay(p Conv2D, oh, ow, lanes int) {
	pl.p, pl.oh, pl.ow = p, oh, ow
	pl.h = (p.H + p.PadTop + p.PadBottom + p.StrideH - 1) / p.StrideH
	pl.w = (p.W + p.PadLeft + p.PadRight + p.StrideW - 1) / p.StrideW
	part := pl.h * pl.w
	n := (oh-1)*pl.w + ow
	pl.inPlace = p.StrideH == 1 && p.StrideW == 1 && p.PadTop|p.PadLeft|p.PadBottom|p.PadRight == 0 && n >= lanes
	pl.plane, pl.slack = part*p.StrideH*p.StrideW, lanes
	if pl.plane%1024 == 0 && !pl.inPlace {
		pl.plane += 16 // rows of a product a multiple of 4096 bytes apart evict each other
	}
	pl.parts = append(pl.parts[:0], make([]bool, p.StrideH*p.StrideW)...)
	pl.taps = pl.taps[:0]
	for kh := range p.KH {
		for kw := range p.KW {
			r, c := kh*p.DilationH, kw*p.DilationW
			which := r%p.StrideH*p.StrideW + c%p.StrideW
			pl.parts[which] = true
			pl.taps = append(pl.taps, which*part+r/p.StrideH*pl.w+c/p.StrideW)
		}
	}
	pl.offs = pl.offs[:0]
	for c := range p.C / p.Groups {
		for _, t := range pl.taps {
			pl.offs = append(pl.offs, (c*pl.plane+t)*4)
		}
	}
	if rows := oh * ((ow + lanes - 1) / lanes); pl.w == ow || rows > (n+lanes-1)/lanes || pl.inPlace && ow < lanes {
		if !pl.runs(n, lanes) {
			pl.inPlace = false
			pl.rows(lanes)
		}
	} else {
		pl.rows(lanes)
	}
	pl.panels = pl.panels[:0]
	for v := 0; v < len(pl.vecs); {
		size := min(3, len(pl.vecs)-v)
		if len(pl.vecs)-v == 4 {
			size = 2
		}
		pl.panels = append(pl.panels, convPanel{v, size})
		v += size
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
	p, part := &pl.p, pl.h*pl.w
	for iy := range min(p.StrideH, p.H) {
		// rows iy, iy+StrideH, … lie next to each other
		r := iy + p.PadTop
		first, rows := r%p.StrideH*p.StrideW, (p.H-iy+p.StrideH-1)/p.StrideH
		row := r / p.StrideH * pl.w
		from, ldx := plane[iy*p.W:], p.W*p.StrideH
		to := func(c int) []float32 { return dst[(first+c%p.StrideW)*part+row+c/p.StrideW:] }
		switch {
		case !slices.Contains(pl.parts[first:first+p.StrideW], true):
		case p.StrideW == 1:
			cur.copyRows(&to(p.PadLeft)[0], pl.w*4, &from[0], ldx*4, p.W, rows)
		case p.StrideW == 2 && p.W > 1:
			cur.splitRows(&to(p.PadLeft)[0], &to(p.PadLeft + 1)[0], pl.w*4, &from[0], ldx*4, p.W, rows)
		default:
			for s := range min(p.StrideW, p.W) {
				for y, out := 0, to(s+p.PadLeft); y < rows; y++ {
					for i, x := 0, s; x < p.W; i, x = i+1, x+p.StrideW {
						out[y*pl.w+i] = from[y*ldx+x]
					}
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
