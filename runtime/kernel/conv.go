package kernel

import (
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// Conv2D describes a 2-D convolution: x N×C×H×W, weights M×C/Groups×KH×KW, result N×M×OH×OW, all contiguous. Strides,
// dilations and Groups are at least 1; pads are the zeros added on each side.
type Conv2D struct {
	N, C, H, W                           int
	M, KH, KW                            int
	StrideH, StrideW                     int
	DilationH, DilationW                 int
	PadTop, PadLeft, PadBottom, PadRight int
	Groups                               int
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
	group := p.C / p.Groups
	same("Conv: w", p.M*group*p.KH*p.KW, len(w))
	if p.KH*p.KW > 1 && group >= minTapDepth {
		buf := scratch(len(w))
		defer release(buf)
		byTap(buf.f, w, p.M/p.Groups, group, p.KH*p.KW)
		ConvPacked(p, dst, x, &ConvWeights{p.M, group, p.KH, p.KW, w, buf.f}, ep)
		return
	}
	ConvPacked(p, dst, x, &ConvWeights{p.M, group, p.KH, p.KW, w, nil}, ep)
}

// ConvPacked is Conv with weights that were prepared.
func ConvPacked(p Conv2D, dst, x []float32, weights *ConvWeights, ep *Epilogue) {
	oh, ow := p.Out()
	pixels, group := oh*ow, p.C/p.Groups
	w := weights.w
	same("Conv: x", p.N*p.C*p.H*p.W, len(x))
	same("Conv: w", p.M*group*p.KH*p.KW, len(w))
	same("Conv: group", group, weights.group)
	same("Conv: window", p.KW, weights.kw)
	same("Conv: dst", p.N*p.M*pixels, len(dst))
	if ep != nil {
		if ep.Bias != nil {
			panic("BUG: kernel.Conv: a bias for each pixel")
		}
		if ep.Residual != nil {
			same("Conv: residual", len(dst), len(ep.Residual))
		}
		if ep.RowBias != nil {
			same("Conv: row bias", p.M, len(ep.RowBias))
		}
	}
	if len(dst) == 0 {
		return
	}
	if group == 1 && p.Groups > 1 {
		convDepthwise(&p, oh, ow, dst, x, w, ep)
		return
	}
	m, k := p.M/p.Groups, group*p.KH*p.KW
	plain := p.KH == 1 && p.KW == 1 && p.StrideH == 1 && p.StrideW == 1 && p.PadTop|p.PadLeft|p.PadBottom|p.PadRight == 0
	one := func(i int) {
		n, g := i/p.Groups, i%p.Groups
		in := x[(n*p.C+g*group)*p.H*p.W:][:group*p.H*p.W]
		off := (n*p.M + g*m) * pixels
		out, own, ep := dst[off:off+m*pixels], w[g*m*k:(g+1)*m*k], ep.slice(off, g*m, m, pixels)
		switch {
		case plain:
			convPlane(&p, m, pixels, k, out, in, own, ep)
		case weights.taps != nil:
			p.convLattice(oh, ow, m, out, in, own, weights.taps[g*m*k:(g+1)*m*k], ep)
		default:
			p.convLattice(oh, ow, m, out, in, own, nil, ep)
		}
	}
	count := p.N * p.Groups
	if count >= 2*par.Cores() {
		par.For(count, 1, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				one(i)
			}
		})
		return
	}
	for i := range count {
		one(i)
	}
}

// slice is the epilogue for m channels of pixels elements from off on.
func (e *Epilogue) slice(off, ch, m, pixels int) *Epilogue {
	if e == nil {
		return nil
	}
	s := *e
	if s.RowBias != nil {
		s.RowBias = s.RowBias[ch : ch+m]
	}
	if s.Residual != nil {
		s.Residual, s.ResidualLd = s.Residual[off:off+m*pixels], pixels
	}
	return &s
}

// convPlane is one image and group of a convolution of single pixels: a product of the weights (m×k) with the planes.
func convPlane(p *Conv2D, m, pixels, k int, dst, x, w []float32, ep *Epilogue) {
	src := matrixSource(x, pixels, false)
	t := pickTile(cur.tiles, pixels)
	then := ep.after(dst, pixels)
	panels := (pixels + t.nr - 1) / t.nr
	if m > t.mc && panels < 6*par.Cores() {
		buf, data := scratchOf[float32](k * panels * t.nr)
		defer release(buf)
		b := &packed[float32]{k: k, n: pixels, t: t, data: data}
		b.fill(src)
		b.multiply(m, w, k, dst, pixels, false, then)
		return
	}
	stream(m, pixels, k, t, w, k, src, dst, pixels, false, then)
}

// convDepthwise is the case of one input channel for each group: a weighted sum of shifted planes.
func convDepthwise(p *Conv2D, oh, ow int, dst, x, w []float32, ep *Epilogue) {
	pixels, window, mult := oh*ow, p.KH*p.KW, p.M/p.Groups
	g := p.lattice(oh, ow)
	plain := p.StrideH == 1 && p.StrideW == 1 && p.PadTop|p.PadLeft|p.PadBottom|p.PadRight == 0
	par.For(p.N*p.C, max(1, elemGrain/(pixels*window*mult)), func(lo, hi int) {
		buf := scratch(g.plane + g.n)
		defer release(buf)
		line := buf.f[g.plane:]
		for i := lo; i < hi; i++ {
			plane := x[i*p.H*p.W:][:p.H*p.W]
			if !plain {
				g.fill(p, buf.f[:g.plane], plane)
				plane = buf.f[:g.plane]
			}
			for m := range mult {
				ch, out := i%p.C*mult+m, dst[(i*mult+m)*pixels:][:pixels]
				if g.w == ow {
					cur.taps(out, plane, g.offs, w[ch*window:(ch+1)*window])
				} else {
					cur.taps(line, plane, g.offs, w[ch*window:(ch+1)*window])
					for oy := range oh {
						copy(out[oy*ow:(oy+1)*ow], line[oy*g.w:])
					}
				}
				if ep != nil {
					ep.slice((i*mult+m)*pixels, ch, 1, pixels).apply(0, 1, 0, pixels, out, pixels)
				}
			}
		}
	})
}
