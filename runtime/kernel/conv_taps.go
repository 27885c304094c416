package kernel

import (
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// ConvWeights are the weights of a convolution, M×C/Groups×KH×KW, in the layout that Conv's loops want. They are immutable
// and safe for concurrent use.
type ConvWeights struct {
	m, group, kh, kw int
	w                []float32
	taps             []float32 // by group and position of the window: m/groups × group; nil where that order is not used
}

// PackConv prepares weights for ConvPacked. w is kept, not copied: it must not change.
func PackConv(m, group, kh, kw, groups int, w []float32) *ConvWeights {
	same("PackConv", m*group*kh*kw, len(w))
	c := &ConvWeights{m: m, group: group, kh: kh, kw: kw, w: w}
	if kh*kw > 1 && group >= minTapDepth {
		c.taps = make([]float32, len(w))
		byTap(c.taps, w, m/groups, group, kh*kw)
	}
	return c
}

// minTapDepth is the number of input channels from which on a convolution is summed position by position of its window:
// the products are then deep enough to pay for reading and writing the result at each.
const minTapDepth = 16

// byTap reorders weights from group, output channel, input channel, position to group, position, output channel, input
// channel.
func byTap(dst, w []float32, m, group, window int) {
	par.For(len(w)/max(m*group*window, 1)*m, max(1, elemGrain/(group*window)), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			g, r := i/m, i%m
			for c := range group {
				for t, v := range w[(i*group+c)*window:][:window] {
					dst[((g*window+t)*m+r)*group+c] = v
				}
			}
		}
	})
}

// lattice is the layout in which a convolution reads its input: each channel's padded plane is split by row modulo StrideH and
// column modulo StrideW into parts of h×w elements. The input that position t of the window sees for output (oy,ox) is then
// at offs[t] + oy*w + ox, and a run of outputs is a run of inputs. The outputs are computed as one row of n, those
// between the end of an output row and the start of the next being of no use.
type lattice struct {
	h, w, plane int
	offs        []int
	n           int
}

func (p *Conv2D) lattice(oh, ow int) lattice {
	g := lattice{
		h: (p.H + p.PadTop + p.PadBottom + p.StrideH - 1) / p.StrideH,
		w: (p.W + p.PadLeft + p.PadRight + p.StrideW - 1) / p.StrideW,
	}
	part := g.h * g.w
	g.plane = part * p.StrideH * p.StrideW
	if g.plane%1024 == 0 {
		g.plane += 16 // rows of a product a multiple of 4096 bytes apart evict each other
	}
	for kh := range p.KH {
		for kw := range p.KW {
			r, c := kh*p.DilationH, kw*p.DilationW
			g.offs = append(g.offs, (r%p.StrideH*p.StrideW+c%p.StrideW)*part+r/p.StrideH*g.w+c/p.StrideW)
		}
	}
	g.n = (oh-1)*g.w + ow
	return g
}

// fill writes one channel.
func (g *lattice) fill(p *Conv2D, dst, plane []float32) {
	clear(dst)
	part := g.h * g.w
	for iy := range p.H {
		r := iy + p.PadTop
		row, out := plane[iy*p.W:(iy+1)*p.W], dst[r%p.StrideH*p.StrideW*part+r/p.StrideH*g.w:]
		if p.StrideW == 1 {
			copy(out[p.PadLeft:], row)
			continue
		}
		for s := range min(p.StrideW, p.W) {
			// columns s, s+StrideW, … of the row lie next to each other
			c := s + p.PadLeft
			to := out[c%p.StrideW*part+c/p.StrideW:]
			k := 0
			for ix := s; ix < len(row); ix += p.StrideW {
				to[k] = row[ix]
				k++
			}
		}
	}
}

// convLattice computes one image and group on a lattice.
func (p *Conv2D) convLattice(oh, ow, m int, dst, x, w, taps []float32, ep *Epilogue) {
	g := p.lattice(oh, ow)
	group, window := p.C/p.Groups, p.KH*p.KW
	t := pickTile(cur.tiles, g.n)
	buf := scratch(group*g.plane + 2*t.nr)
	defer release(buf)
	par.For(group, max(1, elemGrain/g.plane), func(lo, hi int) {
		for c := lo; c < hi; c++ {
			g.fill(p, buf.f[c*g.plane:(c+1)*g.plane], x[c*p.H*p.W:(c+1)*p.H*p.W])
		}
	})
	clear(buf.f[group*g.plane:])
	panels, depth := (g.n+t.nr-1)/t.nr, group*window
	rows, cols := split(m, panels, depth, t)
	cols = min(cols, max(1, (1<<14)/(rows*t.nr))) // a task's results stay in the cache until they are moved
	rt, ct := (m+rows-1)/rows, (panels+cols-1)/cols
	par.For(rt*ct, 1, func(lo, hi int) {
		ld := cols*t.nr + 16
		out := scratch(rows * ld)
		defer release(out)
		var pack *buffer
		if taps == nil {
			pack = scratch(min(kc, depth) * t.nr)
			defer release(pack)
		}
		for i := lo; i < hi; i++ {
			r0, p0 := i%rt*rows, i/rt*cols
			r1, p1 := min(r0+rows, m), min(p0+cols, panels)
			for j := p0; j < p1; j++ {
				c := out.f[(j-p0)*t.nr:]
				if taps != nil {
					g.tapPanel(t, r0, r1, m, group, taps, buf.f[j*t.nr:], c, ld)
				} else {
					g.copyPanel(t, r0, r1, depth, window, w, buf.f[j*t.nr:], pack.f, c, ld)
				}
			}
			c0, c1 := p0*t.nr, min(p1*t.nr, g.n)
			for r := r0; r < r1; r++ {
				row := out.f[(r-r0)*ld:]
				for at := c0; at < c1; {
					oy, ox := at/g.w, at%g.w
					next := (oy + 1) * g.w
					if n := min(ow-ox, c1-at); n > 0 {
						copy(dst[r*oh*ow+oy*ow+ox:][:n], row[at-c0:])
					}
					at = next
				}
				first, end := g.output(c0, oh, ow), g.output(c1, oh, ow)
				if ep != nil && first < end {
					ep.apply(r, r+1, first, end, dst, oh*ow)
				}
			}
		}
	})
}

// output returns the number of outputs before position at of the row.
func (g *lattice) output(at, oh, ow int) int {
	oy := at / g.w
	if oy >= oh {
		return oh * ow
	}
	return oy*ow + min(at%g.w, ow)
}

// tapPanel computes one panel: for each position of the window, a product with the input where it lies.
func (g *lattice) tapPanel(t *tile[float32], r0, r1, m, group int, taps, x, c []float32, ld int) {
	count := (r1 - r0 + t.mr - 1) / t.mr
	for i := range count {
		lo, hi := r0+(r1-r0)*i/count, r0+(r1-r0)*(i+1)/count
		kern, acc := t.kern[hi-lo], 0
		for tap, off := range g.offs {
			a := taps[(tap*m+lo)*group:]
			for k0 := 0; k0 < group; k0 += kc {
				kern(&a[k0], group*4, &x[k0*g.plane+off], g.plane*4, &c[(lo-r0)*ld], ld*4, min(kc, group-k0), acc)
				acc = 1
			}
		}
	}
}

// copyPanel computes one panel as a product of the weights as they are with the rows of patches.
func (g *lattice) copyPanel(t *tile[float32], r0, r1, depth, window int, w, x, pack, c []float32, ld int) {
	for k0 := 0; k0 < depth; k0 += kc {
		kb := min(kc, depth-k0)
		for k := range kb {
			ch, tap := (k0+k)/window, (k0+k)%window
			copy(pack[k*t.nr:(k+1)*t.nr], x[ch*g.plane+g.offs[tap]:])
		}
		tiles(t, 0, r1-r0, w[r0*depth+k0:], depth, pack[:kb*t.nr], t.nr, c, ld, kb, t.nr, k0 > 0)
	}
}
