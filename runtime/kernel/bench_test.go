package kernel_test

import (
	"fmt"
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
)

func BenchmarkMatMul(b *testing.B) {
	for _, c := range []struct {
		m, n, k int
		tb      bool
	}{{1, 3072, 768, false}, {1, 3072, 768, true}, {4, 3072, 768, false}, {128, 768, 768, false}, {128, 768, 768, true}, {1024, 1024, 64, true}, {1024, 64, 1024, false}, {512, 3072, 768, true}} {
		x, w, y := randn(c.m*c.k, 1), randn(c.k*c.n, 2), make([]float32, c.m*c.n)
		ldb := c.n
		if c.tb {
			ldb = c.k
		}
		b.Run(fmt.Sprintf("%dx%dx%d/transB=%v", c.m, c.k, c.n, c.tb), func(b *testing.B) {
			for b.Loop() {
				kernel.MatMul(c.m, c.n, c.k, x, c.k, false, w, ldb, c.tb, y, c.n, false)
			}
			b.ReportMetric(2*float64(c.m)*float64(c.n)*float64(c.k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}

func BenchmarkAttention(b *testing.B) {
	heads, s, d := 12, 512, 64
	q, k, v, o := randn(heads*s*d, 1), randn(heads*s*d, 2), randn(heads*s*d, 3), make([]float32, heads*s*d)
	a := kernel.Attention{Count: heads, SQ: s, SK: s, D: d, DV: d, StrideQ: s * d, StrideK: s * d, StrideV: s * d, StrideO: s * d,
		LdQ: d, LdK: d, LdV: d, LdO: d, Scale: 0.125}
	b.Run(fmt.Sprintf("%dx%dx%d", heads, s, d), func(b *testing.B) {
		for b.Loop() {
			a.Run(o, q, k, v)
		}
		b.ReportMetric(4*float64(heads)*float64(s)*float64(s)*float64(d)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
	})
}

func BenchmarkConv(b *testing.B) {
	for name, p := range map[string]kernel.Conv2D{
		"3x3/64x56x56":   {N: 1, C: 64, H: 56, W: 56, M: 64, KH: 3, KW: 3, StrideH: 1, StrideW: 1, DilationH: 1, DilationW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1},
		"3x3/512x7x7":    {N: 1, C: 512, H: 7, W: 7, M: 512, KH: 3, KW: 3, StrideH: 1, StrideW: 1, DilationH: 1, DilationW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1},
		"7x7s2/3x224":    {N: 1, C: 3, H: 224, W: 224, M: 64, KH: 7, KW: 7, StrideH: 2, StrideW: 2, DilationH: 1, DilationW: 1, PadTop: 3, PadLeft: 3, PadBottom: 3, PadRight: 3, Groups: 1},
		"1x1/256x14x14":  {N: 1, C: 256, H: 14, W: 14, M: 1024, KH: 1, KW: 1, StrideH: 1, StrideW: 1, DilationH: 1, DilationW: 1, Groups: 1},
		"dw3x3/96x56x56": {N: 1, C: 96, H: 56, W: 56, M: 96, KH: 3, KW: 3, StrideH: 1, StrideW: 1, DilationH: 1, DilationW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 96},
	} {
		oh, ow := p.Out()
		x, w, y := randn(p.N*p.C*p.H*p.W, 1), randn(p.M*p.C/p.Groups*p.KH*p.KW, 2), make([]float32, p.N*p.M*oh*ow)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				kernel.Conv(p, y, x, w, nil)
			}
			b.ReportMetric(2*float64(len(y))*float64(len(w)/p.M)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}

func BenchmarkInt8(b *testing.B) {
	m, n, k := 256, 768, 768
	x, w, y := make([]uint8, m*k), make([]int8, k*n), make([]int32, m*n)
	p := kernel.PackInt8(k, n, w, n, false, nil)
	b.Run(fmt.Sprintf("%dx%dx%d", m, k, n), func(b *testing.B) {
		for b.Loop() {
			kernel.GemmInt8(m, x, k, nil, p, y, n)
		}
		b.ReportMetric(2*float64(m)*float64(n)*float64(k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GOP/s")
	})
}

func BenchmarkNorm(b *testing.B) {
	rows, cols := 512, 768
	x, y, g, z := randn(rows*cols, 1), make([]float32, rows*cols), randn(cols, 2), randn(cols, 3)
	for name, f := range map[string]func(){
		"layernorm": func() { kernel.LayerNorm(rows, cols, y, x, g, z, 1e-5, nil, nil) },
		"rmsnorm":   func() { kernel.RMSNorm(rows, cols, y, x, g, 1e-5) },
		"softmax":   func() { kernel.Softmax(rows, cols, y, x) },
		"abfp64cols": func() {
			kernel.Blocks{Size: 64, Max: 7, Lo: -7, Hi: 7, BF16: true}.Int().AllCols(rows, cols, y, x, nil)
		},
		"transpose": func() { kernel.Transpose(rows, cols, y, rows, x, cols) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(8 * rows * cols))
			for b.Loop() {
				f()
			}
		})
	}
}
