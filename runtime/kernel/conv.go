package kernel

import (
	"sync"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// Conv2D describes a 2-D convolution: x N×C×H×W, weights M×C/Groups×KH×KW, result N×M×OH×OW, all contiguous but for OutStride. Strides,
// dilations and Groups are at least 1; pads are the zeros added on each side.
type Conv2D struct {
	N, C, H, W                           int
	M, KH, KW                            int
	StrideH, StrideW                     int
	DilationH, DilationW                 int
	PadTop, PadLeft, PadBottom, PadRight int
	Groups                               int
	OutStride                            int // of the result: elements between images; 0: M×OH×OW
}

// Out returns the height and width of the result; 0 where the window does not fit.
func (p *Conv2D) Out() (oh, ow int) {
	return convOut(p.H+p.PadTop+p.PadBottom, p.KH, p.StrideH, p.DilationH),
		convOut(p.W+p.PadLeft+p.PadRight, p.KW, p.StrideW, p.DilationW)
}

func convOut(in, k, stride, dilation int) int {
	span := (k-1)*dilation + 1
	if in < span {
		return 0
	}
	return (in-span)/stride + 1
}

// Conv computes the convolution and then ep: its RowBias has one element for each of the M output channels, its
// Residual the shape of dst (ResidualLd is not read), and Bias must be nil. ep may be nil. dst must not overlap x.
func Conv(p Conv2D, dst, x, w []float32, ep *Epilogue) {
	same("Conv: w", p.M*p.C/p.Groups*p.KH*p.KW, len(w))
	tile, finish := p.begin(dst, x, ep)
	if len(dst) == 0 {
		return
	}
	defer finish()
	if ep == nil {
		ep = &Epilogue{}
	}
	oh, ow := p.Out()
	image := p.M * oh * ow
	stride := max(p.OutStride, image)
	pl := plans.Get().(*convPlan)
	defer plans.Put(pl)
	single := p.Groups > 1 && p.C == p.Groups
	pl.lay(p, oh, ow, cur.conv, !single)
	tile.lda = len(w) / p.M * 4
	one := func(n int) {
		to, res := dst[n*stride:][:image], ep.Residual
		if res != nil {
			res = res[n*image:][:image]
		}
		from := x[n*p.C*p.H*p.W:][:p.C*p.H*p.W]
		if single {
			pl.depthwise(tile, to, from, w, ep.RowBias, res)
		} else {
			pl.dense(tile, to, from, w, ep.RowBias, res)
		}
	}
	eachItem(p.N, one)
}

// begin checks the arguments of a convolution. It returns a tile with what is to be done with the sums, and what does the rest.
func (p *Conv2D) begin(dst, x []float32, ep *Epilogue) (tile convTile, finish func()) {
	oh, ow := p.Out()
	image := p.M * oh * ow
	stride := max(p.OutStride, image)
	same("Conv: x", p.N*p.C*p.H*p.W, len(x))
	same("Conv: dst", max(p.N-1, 0)*stride+min(p.N, 1)*image, len(dst))
	if ep == nil {
		ep = &Epilogue{}
	}
	ep.checkConv("Conv", p.M, p.N*image)
	tile, rest := ep.tile()
	tile.ldc = oh * ow * 4
	return tile, func() {
		if !rest {
			return
		}
		for n := range p.N {
			each(image, func(lo, hi int) { ep.act(dst[n*stride+lo : n*stride+hi]) })
		}
	}
}

// checkConv panics unless the epilogue is one of a convolution to m channels and n elements in all.
func (e *Epilogue) checkConv(what string, m, n int) {
	if e.Bias != nil {
		panic("BUG: kernel." + what + ": a bias for each pixel")
	}
	if e.Residual != nil {
		same(what+": residual", n, len(e.Residual))
	}
	if e.RowBias != nil {
		same(what+": row bias", m, len(e.RowBias))
	}
}

// InTiles reports whether convolutions apply the activation while they have their sums in registers.
func (e *Epilogue) InTiles() bool {
	_, rest := e.tile()
	return !rest
}

// tile is a tile that applies the activation, or, where the kernels do not know it, leaves it as the rest to do.
func (e *Epilogue) tile() (t convTile, rest bool) {
	switch e.Act {
	case ActNone:
	case ActRelu:
		t.act = tileRelu
	case ActClip:
		t.act, t.lo, t.hi = tileClip, e.Lo, e.Hi
	default:
		rest = true
	}
	return t, rest
}

// minConvWork is the number of multiplications that are worth a core's while.
const minConvWork = 1 << 17

// dense computes one image of a convolution whose groups have several input channels, or that has one group.
func (pl *convPlan) dense(tile convTile, dst, x, w, bias, res []float32) {
	src, plane, done := pl.source(x)
	defer done()
	pl.multiply(cur.conv, tile, dst, src, plane, w, bias, res)
}

// source is where the tiles find an image: x, or the lattice made of it. Channels are plane elements apart. done is to be called when
// it has been read.
func (pl *convPlan) source(x []float32) (src []float32, plane int, done func()) {
	p := &pl.p
	if pl.inPlace {
		return x, p.H * p.W, func() {}
	}
	plane = pl.plane
	buf := scratch(p.C*plane + pl.slack)
	par.For(p.C, max(1, elemGrain/plane), func(lo, hi int) {
		clear(buf.f[lo*plane : hi*plane])
		for c := lo; c < hi; c++ {
			pl.fill(buf.f[c*plane:(c+1)*plane], x[c*p.H*p.W:(c+1)*p.H*p.W])
		}
	})
	clear(buf.f[p.C*plane:])
	return buf.f, plane, func() { release(buf) }
}

// multiply computes one image from its channels, plane elements apart.
func (pl *convPlan) multiply(k *convKernels, tile convTile, dst, src []float32, plane int, w, bias, res []float32) {
	p := &pl.p
	m, group, depth := p.M/p.Groups, p.C/p.Groups, len(pl.offs)
	each := pl.panels[len(pl.panels)-1].tiles // tiles of a group
	total := p.Groups * each
	grain := total
	if work := p.M * depth * len(pl.vecs) * k.lanes; work > 2*minConvWork && par.Cores() > 1 {
		grain = max(1, total/(4*par.Cores()), minConvWork/(work/total+1))
	}
	par.For(total, grain, func(lo, hi int) {
		jb := convJobs.Get().(*convJob)
		defer convJobs.Put(jb)
		t := &jb.tile
		for i := lo; i < hi; {
			g := i / each
			pn, r0, rows, runs := pl.tilesAt(k, i-g*each, hi-i)
			r0 += g * m
			*t = tile
			t.src, t.runs = &src[g*group*plane], runs
			t.place(pl, r0, pn.at, dst, bias, res)
			t.offset, t.factor = moved(tile.offset, 4*r0), moved(tile.factor, 4*r0)
			jb.run(k.kern[pn.n][rows], w[r0*depth:], pl.offs)
			i += runs
		}
	})
}

// place points the tile at the results of channels from r on and vectors from v on.
func (t *convTile) place(pl *convPlan, r, v int, dst, bias, res []float32) {
	at := r * pl.oh * pl.ow
	t.vecs, t.dst = &pl.vecs[v], &dst[at]
	if bias != nil {
		t.bias = &bias[r]
	}
	if res != nil {
		t.res = &res[at]
	}
}

// convJob is what one core works with. The kernels get its address, so it cannot lie on the stack.
type convJob struct{ tile, part convTile }

var convJobs = sync.Pool{New: func() any { return new(convJob) }}

// run computes the tile, kc steps of the contraction at a time. What follows the sums is done with the last of them.
func (jb *convJob) run(kern func(*byte), w []float32, offs []int) {
	t := &jb.tile
	if len(offs) <= kc || t.offset != nil {
		t.a, t.offs, t.k, t.acc = &w[0], &offs[0], len(offs), nil
		kern(t.bytes())
		return
	}
	s := &jb.part
	for k0 := 0; k0 < len(offs); k0 += kc {
		*s = *t
		if k0+kc < len(offs) {
			s.bias, s.res, s.act = nil, nil, tileNone
		}
		s.a, s.offs, s.k, s.acc = &w[k0], &offs[k0], min(kc, len(offs)-k0), nil
		if k0 > 0 {
			s.acc = t.dst
		}
		kern(s.bytes())
	}
}

// depthwise computes one image of a convolution whose groups have one input channel each.
func (pl *convPlan) depthwise(tile convTile, dst, x, w, bias, res []float32) {
	mult, window := pl.p.M/pl.p.Groups, len(pl.offs)
	pl.planes(pl.p.C, mult, x, 0, func(jb *convJob, c int, src []float32) {
		for m := c * mult; m < (c+1)*mult; m++ {
			t := &jb.tile
			*t = tile
			t.src, t.runs = &src[0], len(pl.vecs)/pl.wide
			t.place(pl, m, 0, dst, bias, res)
			jb.run(cur.conv.plane[pl.wide], w[m*window:], pl.offs)
		}
	})
}

// planes calls body for each plane of x, with where it lies. pad fills the padding; mult is how many results each plane has.
func (pl *convPlan) planes(count, mult int, x []float32, pad float32, body func(jb *convJob, c int, src []float32)) {
	size := pl.p.H * pl.p.W
	par.For(count, max(1, count/(8*par.Cores()), elemGrain/(pl.oh*pl.ow*len(pl.taps)*mult)), func(lo, hi int) {
		jb := convJobs.Get().(*convJob)
		defer convJobs.Put(jb)
		buf := scratch(pl.plane + pl.slack)
		defer release(buf)
		buf.f[0] = pad
		for n := 1; n < len(buf.f); n *= 2 {
			copy(buf.f[n:], buf.f[:n])
		}
		for c := lo; c < hi; c++ {
			src := x[c*size:][:size]
			if !pl.inPlace {
				pl.fill(buf.f[:pl.plane], src)
				src = buf.f
			}
			body(jb, c, src)
		}
	})
}

// MaxPool sets each element of dst to the maximum of what its window covers, NaN where that holds one, -Inf where it
// covers padding only. p describes the windows as those of a convolution that maps each of the C channels to one: M and Groups are
// not read.
func MaxPool(p Conv2D, dst, x []float32) {
	oh, ow := p.Out()
	p.M, p.Groups = p.C, p.C
	same("MaxPool: x", p.N*p.C*p.H*p.W, len(x))
	same("MaxPool: dst", p.N*p.C*oh*ow, len(dst))
	if len(dst) == 0 {
		return
	}
	pl := plans.Get().(*convPlan)
	defer plans.Put(pl)
	pl.lay(p, oh, ow, cur.conv, false)
	pl.maxima(p.N*p.C, dst, x)
}

// maxima takes the maxima of count planes.
func (pl *convPlan) maxima(count int, dst, x []float32) {
	pl.planes(count, 1, x, negInf, func(jb *convJob, c int, src []float32) {
		jb.tile = convTile{src: &src[0], offs: &pl.offs[0], k: len(pl.offs), vecs: &pl.vecs[0], dst: &dst[c*pl.oh*pl.ow], runs: len(pl.vecs) / pl.wide}
		cur.conv.pool[pl.wide](jb.tile.bytes())
	})
}

// ConvMaxPool is Conv with MaxPool of its result, a few channels at a time: what lies between stays in the cache. p has one group and no
// OutStride; ep has no Residual, and an activation that Conv applies to its tiles (see Epilogue.InTiles). q describes the windows, as
// for MaxPool, on one plane.
func ConvMaxPool(p, q Conv2D, dst, x, w []float32, ep *Epilogue) {
	oh, ow := p.Out()
	ph, pw := q.Out()
	same("ConvMaxPool: rows and columns", oh*ow, q.H*q.W)
	same("ConvMaxPool: x", p.N*p.C*p.H*p.W, len(x))
	same("ConvMaxPool: w", p.M*p.C*p.KH*p.KW, len(w))
	same("ConvMaxPool: dst", p.N*p.M*ph*pw, len(dst))
	ep.checkConv("ConvMaxPool", p.M, 0)
	if len(dst) == 0 {
		return
	}
	k := cur.conv
	conv, pool := plans.Get().(*convPlan), plans.Get().(*convPlan)
	defer plans.Put(conv)
	defer plans.Put(pool)
	conv.lay(p, oh, ow, k, true)
	q.N, q.C, q.M, q.Groups = 1, 1, 1, 1
	pool.lay(q, ph, pw, k, false)
	first, _ := ep.tile()
	depth := len(conv.offs)
	first.lda, first.ldc = depth*4, oh*ow*4
	rows := k.rows(3)
	rows = (p.M + (p.M+rows-1)/rows - 1) / ((p.M + rows - 1) / rows) // of each tile, about the same
	for n := range p.N {
		src, _, done := conv.source(x[n*p.C*p.H*p.W:][:p.C*p.H*p.W])
		par.For((p.M+rows-1)/rows, 1, func(lo, hi int) {
			jb := convJobs.Get().(*convJob)
			defer convJobs.Put(jb)
			buf := scratch(rows * oh * ow)
			defer release(buf)
			for i := lo; i < hi; i++ {
				r := i * rows
				m := min(rows, p.M-r)
				for at := 0; at < len(conv.vecs); {
					size := k.block(len(conv.vecs)-at, false)
					t := &jb.tile
					*t = first
					t.src, t.runs, t.vecs, t.dst = &src[0], 1, &conv.vecs[at], &buf.f[0]
					if ep.RowBias != nil {
						t.bias = &ep.RowBias[r]
					}
					jb.run(k.kern[size][m], w[r*depth:], conv.offs)
					at += size
				}
				pool.maxima(m, dst[(n*p.M+r)*ph*pw:], buf.f)
			}
		})
		done()
	}
}
