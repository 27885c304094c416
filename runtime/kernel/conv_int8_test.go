package kernel_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
)

// convSums is the definition of an integer convolution.
func convSums[X, W kernel.Int8](p kernel.Conv2D, x []X, zx X, w, zw []W) []int32 {
	var sums []int32
	oh, ow := p.Out()
	cg, mg := p.C/p.Groups, p.M/p.Groups
	for n := range p.N {
		for m := range p.M {
			z := int32(0)
			if len(zw) > 0 {
				z = int32(zw[m%len(zw)])
			}
			for o := range oh * ow {
				s := int32(0)
				for i := range cg * p.KH * p.KW {
					c, kh, kw := i/(p.KH*p.KW), i/p.KW%p.KH, i%p.KW
					iy, ix := o/ow*p.StrideH-p.PadTop+kh*p.DilationH, o%ow*p.StrideW-p.PadLeft+kw*p.DilationW
					if iy >= 0 && iy < p.H && ix >= 0 && ix < p.W {
						s += (int32(x[((n*p.C+m/mg*cg+c)*p.H+iy)*p.W+ix]) - int32(zx)) * (int32(w[m*cg*p.KH*p.KW+i]) - z)
					}
				}
				sums = append(sums, s)
			}
		}
	}
	return sums
}

func convolveInt8[X, W kernel.Int8](t *testing.T, p kernel.Conv2D, extreme bool, zeros int) {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(p.C*p.M), 7))
	x, zx := codes[X](r, p.N*p.C*p.H*p.W, extreme), codes[X](r, 1, extreme)[0]
	w, zw := codes[W](r, p.M*p.C/p.Groups*p.KH*p.KW, extreme), codes[W](r, max(zeros, 0), extreme)
	if zeros < 0 { // the zero point of unsigned codes that are signed ones shifted
		zw = []W{1 << 6}
		zw[0] *= 2
	}
	want := convSums(p, x, zx, w, zw)
	packed := kernel.PackConvInt8(p.M, p.C/p.Groups, p.KH, p.KW, p.Groups, w, zw)
	got := make([]int32, len(want))
	kernel.ConvInt8(p, got, x, zx, packed)
	scale, bias, res := make([]float32, p.M), make([]int32, p.M), randn(len(want), 3)
	rows := randn(p.M, 4)
	for m := range scale {
		scale[m], bias[m] = 1/float32(100+m), r.Int32N(1000)
	}
	floats, quantized := make([]float32, len(want)), make([]uint8, len(want))
	kernel.ConvInt8Scaled(p, floats, x, zx, packed, scale, &kernel.Epilogue{RowBias: rows, Residual: res, Act: kernel.ActRelu})
	kernel.ConvInt8Quantized(p, quantized, x, zx, packed, bias, scale, 100)
	oh, ow := p.Out()
	for i, s := range want {
		m := i / (oh * ow) % p.M
		if got[i] != s {
			t.Fatalf("sum %d: got %d, want %d", i, got[i], s)
		}
		if f := max(float32(float32(s)*scale[m])+rows[m]+res[i], 0); floats[i] != f {
			t.Fatalf("element %d: got %v, want %v", i, floats[i], f)
		}
		if c := min(max(math.RoundToEven(float64(float32(s+bias[m])*scale[m]))+100, 0), 255); float64(quantized[i]) != c {
			t.Fatalf("code %d: got %v, want %v", i, quantized[i], c)
		}
	}
}

// TestConvInt8: integer convolutions are exact at every level.
func TestConvInt8(t *testing.T) {
	base := kernel.Conv2D{N: 1, C: 3, H: 9, W: 11, M: 5, KH: 3, KW: 3, StrideH: 1, StrideW: 1, DilationH: 1, DilationW: 1, Groups: 1}
	cases := map[string]func(p *kernel.Conv2D){
		"plain":       func(p *kernel.Conv2D) {},
		"same":        func(p *kernel.Conv2D) { p.PadTop, p.PadLeft, p.PadBottom, p.PadRight, p.C = 1, 1, 1, 1, 8 },
		"lopsided":    func(p *kernel.Conv2D) { p.PadTop, p.PadRight, p.StrideH, p.StrideW, p.C = 2, 4, 2, 3, 5 },
		"strided":     func(p *kernel.Conv2D) { p.PadTop, p.PadLeft, p.StrideH, p.StrideW, p.W = 1, 1, 2, 2, 37 },
		"dilated":     func(p *kernel.Conv2D) { p.DilationH, p.DilationW, p.PadLeft = 2, 3, 5 },
		"pointwise":   func(p *kernel.Conv2D) { p.KH, p.KW, p.C, p.M = 1, 1, 17, 23 },
		"strided 1x1": func(p *kernel.Conv2D) { p.KH, p.KW, p.StrideH, p.StrideW = 1, 1, 2, 2 },
		"batch":       func(p *kernel.Conv2D) { p.N, p.PadTop = 5, 1 },
		"grouped":     func(p *kernel.Conv2D) { p.C, p.M, p.Groups = 10, 6, 2 },
		"depthwise":   func(p *kernel.Conv2D) { p.C, p.M, p.Groups, p.PadTop, p.PadLeft = 6, 6, 6, 1, 1 },
		"multiplier":  func(p *kernel.Conv2D) { p.C, p.M, p.Groups, p.StrideH, p.StrideW = 3, 6, 3, 2, 2 },
		"deep":        func(p *kernel.Conv2D) { p.C, p.M, p.H, p.W, p.PadTop = 455, 3, 4, 4, 1 },
		"narrow":      func(p *kernel.Conv2D) { p.H, p.W, p.PadLeft, p.PadRight, p.PadTop, p.PadBottom = 3, 2, 1, 1, 1, 1 },
	}
	kernel.EachLevel(t, func(t *testing.T) {
		for name, change := range cases {
			p := base
			change(&p)
			t.Run(name, func(t *testing.T) {
				for _, extreme := range []bool{false, true} {
					convolveInt8[uint8, int8](t, p, extreme, 0)
					convolveInt8[int8, int8](t, p, extreme, p.M)
					convolveInt8[int8, uint8](t, p, extreme, 1)
					convolveInt8[uint8, uint8](t, p, extreme, 0)
					convolveInt8[int8, uint8](t, p, extreme, -1)
				}
			})
		}
	})
}
