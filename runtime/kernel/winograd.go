package kernel

import (
	"fmt"
	"sync"
	"unsafe"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// Winograd holds the weights of a 3×3 convolution as Winograd's minimal filtering algorithm F(2×2, 3×3) takes them (Lavin and
// Gray, Fast Algorithms for Convolutional Neural Networks, 2015): a tile of 2×2 results takes 16 multiplications for each
// pair of channels, where the definition takes 36.
//
// Of each tile's 4×4 input values d and each pair's window g it forms
//
//	U = G·g·Gᵀ    V = Bᵀ·d·B    y = Aᵀ·(Σ U⊙V)·A
//
// with sums and halves only. The sums over channels are 16 matrix products, in the order of all others (see kc). An infinity among the
// input values makes NaN of the results whose tiles see it, also of those whose window does not.
type Winograd struct {
	m, c int
	pos  int       // elements between the 16 positions of a tile
	u    []float32 // by position, output channel, input channel; where the level has products of its own by position, tile, input channel, output channel
}

// winogradTile is the number of output channels whose weights lie next to each other where the level has products of its own.
const winogradTile = 8

// The least size of a convolution that is worth the transformations: channels on each side, results each way.
const (
	winogradChannels = 16
	winogradSize     = 7
)

// NewWinograd transforms m×c×3×3 weights, into memory of the stock. by, if not nil, holds a factor for each of the m channels.
func NewWinograd(s *Stock, m, c int, w, by []float32) *Winograd {
	same("NewWinograd: weights", m*c*9, len(w))
	k, rows := cur.winograd, 1
	if k.products[1] != nil {
		rows = winogradTile
	}
	padded := (m + rows - 1) / rows * rows
	t := &Winograd{m: m, c: c, pos: padded*c + 16} // a cache line more: else the positions would evict each other
	t.u = s.Floats(16 * t.pos)
	par.For(padded/rows, 1+(1<<10)/(rows*c), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			n := min(rows, m-i*rows)
			f, g := [winogradTile]float32{1, 1, 1, 1, 1, 1, 1, 1}, w[i*rows*c*9:][:n*c*9]
			if by != nil {
				copy(f[:n], by[i*rows:])
			}
			u := t.u[i*rows*c:]
			if rows == 1 {
				for k := range c {
					winogradFilter(u[k:], t.pos, g[9*k:], f[0])
				}
				continue
			}
			if n < rows {
				buf := scratch(rows * c * 9)
				clear(buf.f[copy(buf.f, g):])
				k.filters(&u[0], t.pos*4, &buf.f[0], c*36, &f[0], c)
				release(buf)
				continue
			}
			k.filters(&u[0], t.pos*4, &g[0], c*36, &f[0], c)
		}
	})
	return t
}

// WinogradTakes reports whether a Winograd computes p, and is worth it: a window of 3×3, strides and dilations of 1, one group, channels and
// results enough.
func WinogradTakes(p Conv2D) bool {
	oh, ow := p.Out()
	return p.KH == 3 && p.KW == 3 && p.StrideH == 1 && p.StrideW == 1 && p.DilationH == 1 && p.DilationW == 1 && p.Groups == 1 &&
		p.C >= winogradChannels && p.M >= winogradChannels && oh >= winogradSize && ow >= winogradSize
}

// Conv is the function Conv with these weights, for what WinogradTakes says.
func (u *Winograd) Conv(p Conv2D, dst, x []float32, ep *Epilogue) {
	if !WinogradTakes(p) || p.M != u.m || p.C != u.c {
		panic(fmt.Sprintf("BUG: kernel.Winograd.Conv: not for %+v", p))
	}
	tile, finish := p.begin(dst, x, ep)
	if len(dst) == 0 {
		return
	}
	defer finish()
	oh, ow := p.Out()
	image := p.M * oh * ow
	if stride := max(p.OutStride, image); ep != nil && ep.Residual != nil && stride > image {
		// the residual lies otherwise than the result: image by image
		for n := range p.N {
			one := p
			one.N, one.OutStride = 1, 0
			u.images(one, tile, dst[n*stride:][:image], x[n*p.C*p.H*p.W:][:p.C*p.H*p.W], ep.RowBias, ep.Residual[n*image:][:image])
		}
		return
	}
	var bias, res []float32
	if ep != nil {
		bias, res = ep.RowBias, ep.Residual
	}
	u.images(p, tile, dst, x, bias, res)
}

// winogradPlan says how a strip of a convolution is computed. The tiles of all images lie in rows one below the other. A strip of such rows is
// transformed, channel by channel; then blocks of a few vectors of its tiles are multiplied and transformed back.
type winogradPlan struct {
	p            Conv2D
	oh, ow       int
	th, tw       int // tiles of an image
	r, n         int // the strip: its first row of tiles, and their number
	cores        int // how many compute it
	lanes        int
	pitch, pos   int // elements between the channels, and the positions, of a transformed strip
	part         int // elements between the eight parts of a channel whose rows are transformed
	ldp          int // elements between the rows of a padded channel
	offs         []int
	unit         [4]convVec // vectors next to each other
	vecs         []convVec  // four for each vector of tiles: two rows of results, of each the lower and upper half
	sizes        []int      // of the blocks, in vectors
	group, total int        // output channels that a block takes at once; how many such groups there are
}

var winogradPlans = sync.Pool{New: func() any { return new(winogradPlan) }}

// winogradStrip is the number of elements that a transformed strip has at most, where it has several rows: 256 kB, which stay in the
// level-2 cache with the weights.
const winogradStrip = 1 << 16

// winogradRows is the number of rows of tw tiles in a strip, of so many: at most as many as winogradStrip allows, or most, with as few
// vectors in all as may be, counting the two rows of the input that each strip transforms again as an eighth of a row of tiles.
func winogradRows(rows, tw, c, lanes, most int) int {
	best, least := 1, 0
	for r := 1; r <= min(rows, most, max(1, winogradStrip/(16*c*tw))); r++ {
		vectors := func(n int) int { return (n*tw + lanes - 1) / lanes }
		full, rest := rows/r, rows%r
		cost := 8*(full*vectors(r)+vectors(rest)) + full*vectors(1)
		if least == 0 || cost <= least {
			best, least = r, cost
		}
	}
	return best
}

func (u *Winograd) images(p Conv2D, tile convTile, dst, x, bias, res []float32) {
	oh, ow := p.Out()
	rows, tw, cores := p.N*((oh+1)/2), (ow+1)/2, par.Cores()
	most := rows / (2 * cores)
	if most*tw < 2*cur.conv.lanes { // a strip for each core, rather than of vectors by themselves
		most = rows / cores
	}
	strip := winogradRows(rows, tw, p.C, cur.conv.lanes, max(1, most))
	strips, grain := (rows+strip-1)/strip, 1
	if strip*tw >= cur.conv.lanes {
		cores = 1 // for each strip
	} else { // too few tiles for the cores: each strip is the work of all
		strip = winogradRows(rows, tw, p.C, cur.conv.lanes, rows)
		strips = (rows + strip - 1) / strip
		grain = strips
	}
	par.For(strips, grain, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			pl := winogradPlans.Get().(*winogradPlan)
			pl.lay(p, i*strip, min(strip, rows-i*strip), cores)
			v := scratch(16 * pl.pos)
			pl.transform(v.f, x)
			u.multiply(pl, tile, dst, v.f, bias, res)
			release(v)
			winogradPlans.Put(pl)
		}
	})
}

// transform sets v to the transformed values of the strip.
func (pl *winogradPlan) transform(v, x []float32) {
	p, k, r, n := &pl.p, cur.winograd, pl.r, pl.n
	grain := p.C
	if pl.cores > 1 {
		grain = max(1, p.C/(8*pl.cores), elemGrain/(32*n*pl.tw))
	}
	par.For(p.C, grain, func(lo, hi int) {
		height := 2*n + 2
		buf := scratch(height*pl.ldp + 8*pl.part)
		defer release(buf)
		clear(buf.f)
		pad, d := buf.f[:height*pl.ldp], buf.f[height*pl.ldp:]
		for c := lo; c < hi; c++ {
			// The vectors of one image may write more than their tiles: what belongs to the next one is written after that.
			for at := r; at < r+n; {
				img, s := at/pl.th, at%pl.th
				count := min(pl.th-s, r+n-at)
				pl.fill(pad, x[(img*p.C+c)*p.H*p.W:][:p.H*p.W], 2*s-p.PadTop, 2*count+2)
				k.columns(&d[0], 4*pl.part, &pad[0], 4*pl.ldp, count+1, pl.tw)
				k.rows(&v[c*pl.pitch+(at-r)*pl.tw], 4*pl.pos, &d[0], 4*pl.part, 4*pl.tw, (count*pl.tw+pl.lanes-1)/pl.lanes)
				at += count
			}
		}
	})
}

// fill sets rows of the padded plane to those of x from row y on; those outside are zero.
func (pl *winogradPlan) fill(pad, x []float32, y, rows int) {
	w := pl.p.W
	lo, hi := min(max(0, -y), rows), min(rows, max(0, pl.p.H-y))
	clear(pad[:lo*pl.ldp])
	if lo < hi {
		cur.copyRows(&pad[lo*pl.ldp+pl.p.PadLeft], 4*pl.ldp, &x[(y+lo)*w], 4*w, w, hi-lo)
	}
	clear(pad[max(lo, hi)*pl.ldp : rows*pl.ldp])
}

// lay makes the plan of n rows of tiles from row r on, for so many cores: where what is, and where the results belong.
func (pl *winogradPlan) lay(p Conv2D, r, n, cores int) {
	pl.p, pl.lanes, pl.r, pl.n, pl.cores = p, cur.conv.lanes, r, n, cores
	pl.oh, pl.ow = p.Out()
	pl.th, pl.tw = (pl.oh+1)/2, (pl.ow+1)/2
	count := n * pl.tw
	// Channels an even number of cache lines apart, and positions a multiple of 4096 bytes, would evict each other. The last vector of
	// any image may lie half beyond the strip.
	pl.pitch = (count+pl.lanes-1+15)/16*16 | 16
	pl.pos = p.C*pl.pitch + 16
	pl.part = (n+2)*pl.tw + 2*pl.lanes
	pl.ldp = 2*pl.tw + 2 + 4*pl.lanes
	pl.offs = pl.offs[:0]
	for c := range p.C {
		pl.offs = append(pl.offs, 4*c*pl.pitch)
	}
	half := pl.lanes / 2
	pl.vecs, pl.sizes = pl.vecs[:0], pl.sizes[:0]
	stride := max(pl.p.OutStride, pl.p.M*pl.oh*pl.ow)
	for f := 0; f < count; f += half {
		if f%pl.lanes == 0 {
			pl.vecs = append(pl.vecs, convVec{}, convVec{}, convVec{}, convVec{})
		}
		at := len(pl.vecs) - 4 + f%pl.lanes/half
		for i := range 2 {
			pl.vecs[at+2*i] = pl.results(r, f, min(f+half, count), i, stride)
		}
	}
	for i := range pl.vecs {
		if v := &pl.vecs[i]; v.n == 0 {
			v.segs[0] = segment(0, 0, 0)
		}
	}
	for i := range pl.unit {
		pl.unit[i] = convVec{src: 4 * i * pl.lanes, n: 1}
		pl.unit[i].segs[0] = segment(i*pl.lanes, 0, pl.lanes)
	}
	for left := len(pl.vecs) / 4; left > 0; {
		size := cur.conv.block(left, cur.winograd.products[1] == nil)
		pl.sizes = append(pl.sizes, size)
		left -= size
	}
	// A few tiles of channels at once, fewer where there would be too little for the cores.
	m := pl.p.M
	pl.group = 4 * winogradTile
	for pl.group > winogradTile && len(pl.sizes)*((m+pl.group-1)/pl.group) < 3*pl.cores {
		pl.group /= 2
	}
	pl.total = (m + pl.group - 1) / pl.group
}

// results is where row i of the results of the tiles [f,end) of the strip that starts with row r belongs: in turns the left and the
// right result of each.
func (pl *winogradPlan) results(r, f, end, i, stride int) (v convVec) {
	for at := f; at < end; {
		row, t := r+at/pl.tw, at%pl.tw
		n := min(pl.tw-t, end-at)
		if y := row%pl.th*2 + i; y < pl.oh {
			lo := 2 * (at - f)
			v.segs[v.n] = segment(row/pl.th*stride+y*pl.ow+2*t-lo, lo, lo+min(2*n, pl.ow-2*t))
			v.n++
		}
		at += n
	}
	return v
}

// multiply computes the results of a strip.
func (u *Winograd) multiply(pl *winogradPlan, tile convTile, dst, v, bias, res []float32) {
	grain := 1
	if pl.cores == 1 {
		grain = len(pl.sizes) * pl.total
	}
	par.For(len(pl.sizes)*pl.total, grain, func(lo, hi int) {
		jb := convJobs.Get().(*convJob)
		defer convJobs.Put(jb)
		buf := scratch(16 * (pl.group*4*pl.lanes + 16))
		defer release(buf)
		for i := lo; i < hi; i++ {
			at, size := 0, pl.sizes[i/pl.total]
			for _, s := range pl.sizes[:i/pl.total] {
				at += s
			}
			m0 := i % pl.total * pl.group
			m := min(pl.group, pl.p.M-m0)
			ld := size * pl.lanes
			pos := (m+winogradTile-1)/winogradTile*winogradTile*ld + 16
			pl.products(u, jb, buf.f, pos, v[at*pl.lanes:], m0, m, size)
			t := &jb.tile
			*t = tile
			t.src, t.lda, t.k, t.runs, t.vecs = &buf.f[0], 4*pos, size, m, &pl.vecs[4*at]
			t.dst = &dst[m0*pl.oh*pl.ow]
			if bias != nil {
				t.bias = &bias[m0]
			}
			if res != nil {
				t.res = &res[m0*pl.oh*pl.ow]
			}
			cur.winograd.out(t.bytes())
		}
	})
}

// products sets y, with a position every pos elements, to the products of m output channels from m0 on with size vectors of v.
func (pl *winogradPlan) products(u *Winograd, jb *convJob, y []float32, pos int, v []float32, m0, m, size int) {
	ld := size * pl.lanes
	if k := cur.winograd.products[size]; k != nil {
		tiles := (m + winogradTile - 1) / winogradTile
		for q := range 16 {
			y, a, v := y[q*pos:], u.u[q*u.pos+m0*u.c:], v[q*pl.pos:]
			for k0 := 0; k0 < u.c; k0 += kc {
				k(&y[0], &a[k0*winogradTile], &v[k0*pl.pitch], u.c*winogradTile*4, pl.pitch*4, min(kc, u.c-k0), tiles, k0)
			}
		}
		return
	}
	mr := cur.conv.rows(size)
	tiles := (m + mr - 1) / mr
	for q := range 16 {
		// The first m%tiles tiles have one channel more than the others.
		rows, more := m/tiles, m%tiles
		for first, done := 0, 0; done < tiles; {
			n, runs := rows, tiles-done
			if done < more {
				n, runs = rows+1, more-done
			}
			t := &jb.tile
			*t = convTile{lda: 4 * u.c, src: &v[q*pl.pos], vecs: &pl.unit[0], dst: &y[q*pos+first*ld], ldc: 4 * ld, runs: runs}
			jb.run(cur.conv.kern[size][n], u.u[q*u.pos+(m0+first)*u.c:], pl.offs)
			first, done = first+n*runs, done+runs
		}
	}
}

// winogradKernels are the transformations of a level; distances are in bytes.
type winogradKernels struct {
	columns func(d *float32, part int, p *float32, ldp int, pairs, tiles int)
	rows    func(v *float32, pos int, d *float32, part, down, count int)
	out     func(t *byte)

	// filters transforms count windows of each of winogradTile output channels, stride bytes apart, times the factors by. In u the channels
	// lie next to each other.
	filters func(u *float32, pos int, window *float32, stride int, by *float32, count int)
	// products by number of vectors: of tiles of winogradTile rows of weights with k rows, added to y where add is not 0; where both are nil the tiles
	// of convolutions do it
	products [4]func(y, a, v *float32, tile, pitch, k, tiles, add int)
}

// winogradGeneric are those in plain Go, for vectors of 8 lanes.
var winogradGeneric = &winogradKernels{columns: winogradColumnsGeneric, rows: winogradRowsGeneric, out: winogradOutGeneric}

// winogradColumnsGeneric transforms pairs of rows of a padded channel: of row y, column j of a tile's four goes to part y%2·4+j, where
// the row y/2 has as many elements as there are tiles. The last vector of a row may write beyond it, to where the next row goes.
func winogradColumnsGeneric(d *float32, part int, p *float32, ldp int, pairs, tiles int) {
	for y := range 2 * pairs {
		row := at(p, y*ldp, 2*tiles+2)
		var out [4][]float32
		for j := range out {
			out[j] = at(d, (y%2*4+j)*part+y/2*tiles*4, tiles)
		}
		for t := range tiles {
			p := row[2*t:][:4]
			out[0][t], out[1][t], out[2][t], out[3][t] = p[0]-p[2], p[1]+p[2], p[2]-p[1], p[1]-p[3]
		}
	}
}

// winogradRowsGeneric transforms the other way count vectors of what winogradColumns wrote; down is the length of a row.
func winogradRowsGeneric(v *float32, pos int, d *float32, part, down, count int) {
	n := 8 * count
	for j := range 4 {
		d0, d1, d2, d3 := at(d, j*part, n), at(d, (4+j)*part, n), at(d, j*part+down, n), at(d, (4+j)*part+down, n)
		v0, v1, v2, v3 := at(v, j*pos, n), at(v, (4+j)*pos, n), at(v, (8+j)*pos, n), at(v, (12+j)*pos, n)
		for i := range n {
			v0[i], v1[i], v2[i], v3[i] = d0[i]-d2[i], d1[i]+d2[i], d2[i]-d1[i], d1[i]-d3[i]
		}
	}
}

// winogradFilter transforms one window; u has a position every pos elements.
func winogradFilter(u []float32, pos int, g []float32, by float32) {
	var x [3][3]float32
	for i := range 9 {
		x[i/3][i%3] = float32(g[i] * by)
	}
	three := func(a, b, c float32) [4]float32 {
		s := a + c
		return [4]float32{a, float32((s + b) * 0.5), float32((s - b) * 0.5), c}
	}
	var col [3][4]float32
	for j := range 3 {
		col[j] = three(x[0][j], x[1][j], x[2][j])
	}
	for i := range 4 {
		for j, v := range three(col[0][i], col[1][i], col[2][i]) {
			u[(4*i+j)*pos] = v
		}
	}
}

// winogradOutGeneric makes the results of runs channels of their products. Of the tile it reads: src, k vectors of tiles of each channel
// next to each other, the positions lda apart; vecs, four for each of them (see winogradPlan); and what is to be done with the results.
func winogradOutGeneric(b *byte) {
	t := (*convTile)(unsafe.Pointer(b))
	for c := range t.runs {
		if c > 0 { // nothing points behind the last
			t.src = moved(t.src, 32*t.k)
			t.dst, t.res, t.bias = moved(t.dst, t.ldc), moved(t.res, t.ldc), moved(t.bias, 4)
		}
		for v := range t.k {
			var y [2][16]float32
			for i := range 8 {
				var z [2][4]float32
				for j := range 4 {
					y := func(row int) float32 { return at(t.src, (4*row+j)*t.lda+32*v, 8)[i] }
					y0, y1, y2, y3 := y(0), y(1), y(2), y(3)
					z[0][j], z[1][j] = y0+y1+y2, y1-y2-y3
				}
				for r, z := range z {
					y[r][2*i], y[r][2*i+1] = z[0]+z[1]+z[2], z[1]-z[2]-z[3]
				}
			}
			vecs := unsafe.Slice(t.vecs, 4*t.k)[4*v:][:4]
			for i := range vecs {
				t.segments(&vecs[i], 0, y[i/2][i%2*8:][:8])
			}
		}
	}
}
