package numfmt

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/runtime/kernel"
)

// ApplyDynamic quantizes and dequantizes x into dst with parameters fitted to x itself; dst and x have the layout's
// length and may be the same slice. NaN or infinity in x is an error where the scale cannot be made, and dst then holds
// nothing of use; in MX formats a block with NaN or infinity becomes NaN.
func (s Scheme) ApplyDynamic(dst, x []float32, l Layout) error {
	if err := l.check(len(dst), len(x)); err != nil {
		return fmt.Errorf("scheme %s: %w", s, err)
	}
	if q, ok := s.BlockQuant(l.dim); ok && l.Gran == PerBlock {
		return s.sweep(dst, x, l, q)
	}
	p, err := s.FitData(x, l)
	if err != nil {
		return err
	}
	s.apply(dst, x, l, p)
	return nil
}

// BlockQuant returns the kernel that finds each block's scale and applies it while the block is in cache, for blocks along an
// axis of n elements; ok is false where there is none for the scheme. It computes what ApplyDynamic does; NotFinite says what
// it means that a block held NaN or infinity.
func (s Scheme) BlockQuant(n int) (q *kernel.BlockQuant, ok bool) {
	// Groups at or below deadAmax become zeros there, which step 1 gives too unless the grid is that fine.
	if !s.plain(Layout{Gran: PerBlock}, nil) || s.Affine || s.Gran != PerBlock && s.Gran != PerToken || s.Scale2 > 0 ||
		s.Format.MinSubnormal() <= 4*deadAmax {
		return nil, false
	}
	g := s.grid()
	b := kernel.Blocks{Size: s.Block, Max: s.Max(), Lo: g.lo, Hi: g.hi, Tiny: deadAmax}
	if s.Gran == PerToken || b.Size > n {
		b.Size = max(n, 1)
	}
	switch {
	case s.Scale == ScaleFP32:
	case s.Scale == ScaleBF16:
		b.BF16 = true
	case s.Scale == ScaleE8M0 && s.MX == MXFloor:
		b.Pow2 = true
	case s.Scale.relative():
		f := scaleFormat(s.Scale)
		scales := f.grid()
		b.Code = &scales.mini
	default:
		return nil, false
	}
	if s.Format.Kind == Int {
		return b.Int(), true
	}
	return b.Float(g.mini), true
}

// NotFinite is the error of a scheme for a block that holds NaN or infinity; nil for microscaling, where such a block becomes
// NaN.
func (s Scheme) NotFinite() error {
	if s.Scale == ScaleE8M0 {
		return nil
	}
	return fmt.Errorf("scheme %s: a block holds NaN or infinity, so it has no scale", s)
}

func (s Scheme) sweep(dst, x []float32, l Layout, q *kernel.BlockQuant) error {
	if len(x) == 0 {
		return nil
	}
	if q.Relative() {
		top := kernel.AbsMax(x)
		if !(top <= maxFloat32) {
			return s.NotFinite()
		}
		q = q.Under(top)
	}
	ok := true
	if l.post == 1 {
		ok = q.AllRows(l.pre, l.dim, dst, x, nil)
	} else {
		for n, at := l.dim*l.post, 0; at < len(x); at += n {
			ok = q.AllCols(l.dim, l.post, dst[at:at+n], x[at:at+n], nil) && ok
		}
	}
	if !ok {
		return s.NotFinite()
	}
	return nil
}

// Ranges gives the least and the largest value of each group. A group holding NaN has NaN for both; an empty group has
// lo = +Inf and hi = -Inf.
func Ranges(x []float32, l Layout) (lo, hi []float32) {
	n := l.Groups()
	lo, hi = make([]float32, n), make([]float32, n)
	for i := range lo {
		lo[i], hi[i] = float32(math.Inf(1)), float32(math.Inf(-1))
	}
	for r := range l.Runs() {
		v := x[r.Off : r.Off+r.Len]
		if r.Step == 0 {
			a, b := kernel.MinMax(v)
			lo[r.Group], hi[r.Group] = min(lo[r.Group], a), max(hi[r.Group], b) // the built-ins keep NaN
			continue
		}
		for i, v := range v {
			g := r.Group + i
			lo[g], hi[g] = min(lo[g], v), max(hi[g], v)
		}
	}
	return lo, hi
}

// AbsMax gives the largest magnitude of each group: NaN where it holds NaN, 0 where it is empty.
func AbsMax(x []float32, l Layout) []float32 {
	out := make([]float32, l.Groups())
	pre, dim, post := l.pre, l.dim, l.post
	switch {
	case len(x) == 0:
	case l.Gran == PerTensor:
		out[0] = kernel.AbsMax(x)
	case l.Gran == PerBlock && post == 1:
		kernel.AbsMaxBlocks(pre, dim, l.Block, out, x)
	case l.Gran == PerBlock:
		for k := range pre * l.blocks() {
			first, rows := l.blockRows(k)
			kernel.AbsMaxCols(rows, post, out[k*post:(k+1)*post], x[first*post:(first+rows)*post])
		}
	case post == 1:
		kernel.AbsMaxCols(pre, dim, out, x)
	default:
		rows := make([]float32, dim)
		for at := 0; at < len(x); at += dim * post {
			kernel.AbsMaxRows(dim, post, rows, x[at:at+dim*post])
			for c, m := range rows {
				out[c] = max(out[c], m)
			}
		}
	}
	return out
}
