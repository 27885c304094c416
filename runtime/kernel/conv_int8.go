package kernel

import (
	"unsafe"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// ConvInt8Weights are the codes of a convolution's weights, M×C/Groups×KH×KW, with their zero points, in the layout that
// ConvInt8's loops want: a word holds four channels of one position of the window, or two as int16 (see PackedInt8). They
// are immutable and safe for concurrent use.
type ConvInt8Weights struct {
	m, group, window int
	per              int       // channels in a word
	words            []float32 // bits of int32: by output channel, word of channels, position of the window
	sums             []int32   // of each output channel's codes
	planes           []float32 // groups of one channel: the codes less their zero points, whose sums are exact in float32
}

// exactTaps is the number of products of differences of bytes that float32 adds without rounding.
const exactTaps = 1 << 24 / (255 * 255)

// PackConvInt8 prepares weights for ConvInt8. zero is nil (0), one zero point, or one for each of the m output channels.
func PackConvInt8[W Int8](m, group, kh, kw, groups int, w, zero []W) *ConvInt8Weights {
	window := kh * kw
	same("PackConvInt8", m*group*window, len(w))
	c := &ConvInt8Weights{m: m, group: group, window: window, per: 2}
	at := zeros("PackConvInt8: zero", m, zero)
	if group == 1 && groups > 1 && window <= exactTaps {
		c.planes = make([]float32, len(w))
		for i, v := range w {
			c.planes[i] = float32(int32(v) - at(i/window))
		}
		return c
	}
	if cur.convQuads != nil {
		c.per = 4
		middle := int32(0)
		if !signed[W]() {
			middle = 128
		}
		for i := range m {
			if at(i) != middle { // the differences do not fit signed bytes
				c.per = 2
			}
		}
	}
	words, size := (group+c.per-1)/c.per, 32/c.per
	c.words, c.sums = make([]float32, m*words*window), make([]int32, m)
	out := intsOf(c.words)
	par.For(m, max(1, elemGrain/(group*window)), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			for ch := range group {
				for t, v := range w[(i*group+ch)*window:][:window] {
					d := int32(v) - at(i)
					c.sums[i] += d
					out[(i*words+ch/c.per)*window+t] |= (d & (1<<size - 1)) << (ch % c.per * size)
				}
			}
		}
	})
	return c
}

// ConvInt8 computes the convolution of x - zero with the weights exactly in int32 (sums beyond int32 wrap); the padding
// is of zero. dst is as Conv's.
func ConvInt8[X Int8](p Conv2D, dst []int32, x []X, zero X, w *ConvInt8Weights) {
	if w.planes == nil {
		denseInt8(p, floatsOf(dst), x, zero, w, convTile{}, nil, nil, nil, nil)
		return
	}
	if p.OutStride != 0 {
		panic("BUG: kernel.ConvInt8: single channels with an OutStride")
	}
	// Every sum is a whole number below 2²⁴.
	in, out := scratch(len(x)), scratch(len(dst))
	defer release(in)
	defer release(out)
	z := int32(zero)
	each(len(x), func(lo, hi int) { widen(in.f[lo:hi], x[lo:hi], z) })
	Conv(p, out.f, in.f, w.planes, nil)
	each(len(dst), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			dst[i] = int32(out.f[i])
		}
	})
}

// widen sets dst = x - zero.
func widen[X Int8](dst []float32, x []X, zero int32) {
	n := 0
	if cur.dequantU8 != nil {
		if n = len(x) &^ 15; n > 0 && signed[X]() {
			cur.dequantI8(&dst[0], (*int8)(unsafe.Pointer(&x[0])), 1, zero, n)
		} else if n > 0 {
			cur.dequantU8(&dst[0], (*uint8)(unsafe.Pointer(&x[0])), 1, zero, n)
		}
	}
	for i := n; i < len(x); i++ {
		dst[i] = float32(int32(x[i]) - zero)
	}
}

// ConvInt8Scaled is ConvInt8 with each output channel multiplied by its scale, in float32, and then ep as Conv takes it. Only
// convolutions whose groups have several input channels, or that have one group, may have an OutStride.
func ConvInt8Scaled[X Int8](p Conv2D, dst []float32, x []X, zero X, w *ConvInt8Weights, scale []float32, ep *Epilogue) {
	same("ConvInt8Scaled: scale", p.M, len(scale))
	if ep == nil {
		ep = &Epilogue{}
	}
	oh, ow := p.Out()
	image := p.M * oh * ow
	ep.checkConv("ConvInt8Scaled", p.M, p.N*image)
	if w.planes == nil {
		tile, rest := ep.tile()
		denseInt8(p, dst, x, zero, w, tile, nil, scale, ep.RowBias, ep.Residual)
		if stride := max(p.OutStride, image); rest {
			for n := range p.N {
				each(image, func(lo, hi int) { ep.act(dst[n*stride+lo : n*stride+hi]) })
			}
		}
		return
	}
	sums := intsOf(dst)
	ConvInt8(p, sums, x, zero, w)
	eachRow(p.N*p.M, oh*ow, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			out := dst[r*oh*ow : (r+1)*oh*ow]
			cur.scaleIS(out, intsOf(out), 0, scale[r%p.M])
			if ep.RowBias != nil {
				cur.scalar[opAddS](out, out, ep.RowBias[r%p.M])
			}
			if ep.Residual != nil {
				cur.binary[opAdd](out, out, ep.Residual[r*oh*ow:(r+1)*oh*ow])
			}
			ep.act(out)
		}
	})
}

// ConvInt8Quantized is ConvInt8 plus a bias for each output channel (nil: none), times its scale, quantized as by
// QuantizeSums.
func ConvInt8Quantized[X, Y Int8](p Conv2D, dst []Y, x []X, zero X, w *ConvInt8Weights, bias []int32, scale []float32, to Y) {
	same("ConvInt8Quantized: scale", p.M, len(scale))
	oh, ow := p.Out()
	buf := scratch(len(dst))
	defer release(buf)
	if w.planes != nil {
		ConvInt8(p, intsOf(buf.f), x, zero, w)
		QuantizeSumsRows(p.N*p.M, oh*ow, dst, intsOf(buf.f), bias, scale, to)
		return
	}
	denseInt8(p, buf.f, x, zero, w, convTile{}, bias, scale, nil, nil)
	each(len(dst), func(lo, hi int) { quantizeRow(dst[lo:hi], buf.f[lo:hi], to) })
}

// denseInt8 computes act((sums + add)·scale + bias + res), without scale the sums alone.
func denseInt8[X Int8](p Conv2D, dst []float32, x []X, zero X, w *ConvInt8Weights, tile convTile, add []int32, scale, bias, res []float32) {
	oh, ow := p.Out()
	pixels, group := oh*ow, p.C/p.Groups
	same("ConvInt8: x", p.N*p.C*p.H*p.W, len(x))
	image := p.M * pixels
	stride := max(p.OutStride, image)
	same("ConvInt8: dst", max(p.N-1, 0)*stride+min(p.N, 1)*image, len(dst))
	same("ConvInt8: weights", p.M, w.m)
	same("ConvInt8: group", group, w.group)
	same("ConvInt8: window", p.KH*p.KW, w.window)
	if len(dst) == 0 {
		return
	}
	k, f := cur.convPairs, wordFill{size: p.H * p.W, per: w.per, zero: int32(zero), signed: signed[X]()}
	if w.per == 4 {
		k = cur.convQuads
	}
	offset := f.begin(w, add)
	tile.offset, tile.ldc, tile.lda = &offset[0], pixels*4, len(w.words)/w.m*4
	if scale != nil {
		tile.factor = &scale[0]
	}
	q := p
	words := (group + w.per - 1) / w.per
	q.C = words * p.Groups
	pl := plans.Get().(*convPlan)
	defer plans.Put(pl)
	pl.lay(q, oh, ow, k, true)
	one := func(n int) {
		to, add := dst[n*stride:][:image], res
		if add != nil {
			add = add[n*image:][:image]
		}
		buf := scratch(q.C*pl.plane + pl.slack)
		defer release(buf)
		from := bytesOf(x[n*p.C*f.size:][:p.C*f.size])
		par.For(q.C, max(1, elemGrain/pl.plane), func(lo, hi int) {
			side := scratch(f.size)
			defer release(side)
			for c := lo; c < hi; c++ {
				ch, out := c%words*w.per, buf.f[c*pl.plane:(c+1)*pl.plane]
				count := min(w.per, group-ch)
				in := from[(c/words*group+ch)*f.size:][:count*f.size]
				if pl.inPlace {
					f.words(intsOf(out[:f.size]), in, count)
					continue
				}
				f.words(intsOf(side.f), in, count)
				ints := intsOf(out)
				for i := range ints {
					ints[i] = f.pad
				}
				pl.fill(out, side.f)
			}
		})
		clear(buf.f[q.C*pl.plane:])
		pl.multiply(k, tile, to, buf.f, pl.plane, w.words, bias, add)
	}
	eachItem(p.N, one)
}

// wordFill makes words of planes of codes.
type wordFill struct {
	size, per int
	zero      int32
	signed    bool
	flip      uint32
	pad       int32 // a word of padding
}

// begin settles how codes become words, and returns what is to be added to the sums of each output channel.
func (f *wordFill) begin(w *ConvInt8Weights, add []int32) []int32 {
	offset := make([]int32, w.m)
	copy(offset, add)
	if f.per == 4 {
		z := f.zero
		if f.signed {
			f.flip = 0x80808080
			z += 128
		}
		f.pad = z * 0x01010101
		for i, s := range w.sums {
			offset[i] -= z * s
		}
	}
	return offset
}

// words makes a word of each element of n planes.
func (f *wordFill) words(dst []int32, x []byte, n int) {
	if f.per == 4 {
		interleave(dst, x, f.size, n, f.flip)
		return
	}
	code := func(b byte) int32 {
		if f.signed {
			return int32(int8(b)) - f.zero
		}
		return int32(b) - f.zero
	}
	for i := range dst {
		w := code(x[i]) & 0xffff
		if n == 2 {
			w |= code(x[f.size+i]) << 16
		}
		dst[i] = w
	}
}

// floatsOf views int32 storage as float32.
func floatsOf(x []int32) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}
