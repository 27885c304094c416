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
	if s.oneSweep(l) {
		return s.sweep(dst, x, l)
	}
	p, err := s.FitData(x, l)
	if err != nil {
		return err
	}
	s.apply(dst, x, l, p)
	return nil
}

// oneSweep reports whether a kernel finds each block's scale and applies it while the block is in cache.
func (s Scheme) oneSweep(l Layout) bool {
	// Groups at or below deadAmax become zeros there, which step 1 gives too unless the grid is that fine.
	return s.plain(l, nil) && !s.Affine && l.Gran == PerBlock && !s.TwoLevel() && (s.Scale == ScaleFP32 || s.Scale == ScaleBF16) &&
		s.Format.MinSubnormal() > 4*deadAmax
}

func (s Scheme) sweep(dst, x []float32, l Layout) error {
	g := s.grid()
	b := kernel.Blocks{Size: l.Block, Max: s.Max(), Lo: g.lo, Hi: g.hi, BF16: s.Scale == ScaleBF16, Tiny: deadAmax}
	ok := true
	switch n := l.dim * l.post; {
	case len(x) == 0:
	case l.post == 1 && s.Format.Kind == Int:
		ok = kernel.FakeQuantBlocksInt(l.pre, l.dim, dst, x, nil, b)
	case l.post == 1:
		ok = kernel.FakeQuantBlocksFloat(l.pre, l.dim, dst, x, nil, b, g.mini)
	default:
		for at := 0; at < len(x); at += n {
			if s.Format.Kind == Int {
				ok = kernel.FakeQuantBlocksIntCols(l.dim, l.post, dst[at:at+n], x[at:at+n], nil, b) && ok
			} else {
				ok = kernel.FakeQuantBlocksFloatCols(l.dim, l.post, dst[at:at+n], x[at:at+n], nil, b, g.mini) && ok
			}
		}
	}
	if !ok {
		return fmt.Errorf("scheme %s: a block holds NaN or infinity, so it has no scale", s)
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
