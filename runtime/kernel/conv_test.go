package kernel_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// directConv is the definition, in float64.
func directConv(p kernel.Conv2D, x, w []float32) (want, mag []float64) {
	oh, ow := p.Out()
	cg, mg := p.C/p.Groups, p.M/p.Groups
	for n := range p.N {
		for m := range p.M {
			for oy := range oh {
				for ox := range ow {
					var s, g float64
					for c := range cg {
						for kh := range p.KH {
							for kw := range p.KW {
								iy, ix := oy*p.StrideH-p.PadTop+kh*p.DilationH, ox*p.StrideW-p.PadLeft+kw*p.DilationW
								if iy < 0 || iy >= p.H || ix < 0 || ix >= p.W {
									continue
								}
								v := float64(x[((n*p.C+m/mg*cg+c)*p.H+iy)*p.W+ix]) * float64(w[((m*cg+c)*p.KH+kh)*p.KW+kw])
								s += v
								g += math.Abs(v)
							}
						}
					}
					want, mag = append(want, s), append(mag, g)
				}
			}
		}
	}
	return want, mag
}

func TestConv(t *testing.T) {
	base := kernel.Conv2D{N: 1, C: 3, H: 9, W: 11, M: 5, KH: 3, KW: 3, StrideH: 1, StrideW: 1, DilationH: 1, DilationW: 1, Groups: 1}
	cases := map[string]func(p *kernel.Conv2D){
		"plain":     func(p *kernel.Conv2D) {},
		"same":      func(p *kernel.Conv2D) { p.PadTop, p.PadLeft, p.PadBottom, p.PadRight = 1, 1, 1, 1 },
		"lopsided":  func(p *kernel.Conv2D) { p.PadTop, p.PadRight, p.StrideH, p.StrideW = 2, 4, 2, 3 },
		"dilated":   func(p *kernel.Conv2D) { p.DilationH, p.DilationW, p.PadLeft = 2, 3, 5 },
		"pointwise": func(p *kernel.Conv2D) { p.KH, p.KW = 1, 1 },
		"strided 1x1": func(p *kernel.Conv2D) {
			p.KH, p.KW, p.StrideH, p.StrideW = 1, 1, 2, 2
		},
		"batch":      func(p *kernel.Conv2D) { p.N = 5; p.PadTop = 1 },
		"grouped":    func(p *kernel.Conv2D) { p.C, p.M, p.Groups = 6, 4, 2 },
		"depthwise":  func(p *kernel.Conv2D) { p.C, p.M, p.Groups, p.PadTop, p.PadLeft, p.PadRight = 6, 6, 6, 1, 1, 1 },
		"multiplier": func(p *kernel.Conv2D) { p.C, p.M, p.Groups, p.StrideH, p.StrideW, p.PadLeft = 3, 6, 3, 2, 2, 1 },
		"big window": func(p *kernel.Conv2D) { p.KH, p.KW, p.PadLeft, p.PadRight = 9, 13, 3, 3 },
		"many channels": func(p *kernel.Conv2D) {
			p.C, p.M, p.H, p.W, p.PadTop = 50, 300, 7, 7, 1
		},
		"one row": func(p *kernel.Conv2D) { p.H, p.KH, p.W = 1, 1, 100 },
		"too big": func(p *kernel.Conv2D) { p.KH = 20 },
	}
	kernel.EachLevel(t, func(t *testing.T) {
		for name, edit := range cases {
			p := base
			edit(&p)
			oh, ow := p.Out()
			x, w := randn(p.N*p.C*p.H*p.W, 1), randn(p.M*p.C/p.Groups*p.KH*p.KW, 2)
			want, mag := directConv(p, x, w)
			got := guarded(1, p.N*p.M*oh*ow, p.N*p.M*oh*ow)
			n := len(got) - 64
			t.Log(name)
			kernel.Conv(p, got[:n], x, w, nil)
			checkGuard(t, got, 1, n, max(n, 1))
			checkProduct(t, got, n, 1, n, p.C/p.Groups*p.KH*p.KW, want, mag)

			bias, res := randn(p.M, 3), randn(n, 4)
			ep := make([]float32, n)
			kernel.Conv(p, ep, x, w, &kernel.Epilogue{RowBias: bias, Residual: res, Act: kernel.ActRelu})
			for i := range n {
				v := got[i] + bias[i/(oh*ow)%p.M] + res[i]
				if w := max(v, 0); ep[i] != w {
					t.Fatalf("%s: epilogue: element %d: got %v, want %v", name, i, ep[i], w)
				}
			}
			old := par.SetLimit(1)
			serial := make([]float32, n)
			kernel.Conv(p, serial, x, w, nil)
			par.SetLimit(old)
			checkBits(t, name+": one core", serial, got[:n])
		}
	})
}

// Winograd's algorithm against the definition: within what rounding sums of at most 4·9 input values with windows' sums makes, and on
// average within a few times the direct convolution's error.
func TestWinograd(t *testing.T) {
	base := kernel.Conv2D{N: 1, C: 16, H: 8, W: 8, M: 16, KH: 3, KW: 3, StrideH: 1, StrideW: 1, DilationH: 1, DilationW: 1, Groups: 1,
		PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}
	cases := map[string]func(p *kernel.Conv2D){
		"same":       func(p *kernel.Conv2D) {},
		"odd":        func(p *kernel.Conv2D) { p.H, p.W, p.M, p.C = 13, 27, 19, 21 },
		"no pads":    func(p *kernel.Conv2D) { p.PadTop, p.PadLeft, p.PadBottom, p.PadRight = 0, 0, 0, 0; p.H, p.W = 9, 10 },
		"lopsided":   func(p *kernel.Conv2D) { p.PadTop, p.PadLeft, p.PadBottom, p.PadRight = 0, 3, 4, 0; p.W = 33 },
		"batch":      func(p *kernel.Conv2D) { p.N, p.H, p.W = 5, 7, 7 },
		"deep":       func(p *kernel.Conv2D) { p.C, p.M, p.H, p.W = 390, 17, 7, 7 },
		"strips":     func(p *kernel.Conv2D) { p.N, p.C, p.H, p.W = 2, 40, 30, 31 },
		"one column": func(p *kernel.Conv2D) { p.W, p.H = 7, 20 },
	}
	kernel.EachLevel(t, func(t *testing.T) {
		for name, edit := range cases {
			p := base
			edit(&p)
			oh, ow := p.Out()
			x, w, by := randn(p.N*p.C*p.H*p.W, 1), randn(p.M*p.C*9, 2), randn(p.M, 5)
			scaled, abs, absX := make([]float32, len(w)), make([]float32, len(w)), make([]float32, len(x))
			for i := range w {
				scaled[i] = w[i] * by[i/(p.C*9)]
			}
			want, _ := directConv(p, x, scaled)
			// A bound of the magnitudes: each window as its greatest value, over 5×5 input values.
			for i := range w {
				for k := range 9 {
					abs[i] = max(abs[i], float32(math.Abs(float64(scaled[i/9*9+k]))))
				}
			}
			for i := range x {
				absX[i] = float32(math.Abs(float64(x[i])))
			}
			wide := p
			wide.KH, wide.KW = 5, 5
			wide.PadTop, wide.PadLeft, wide.PadBottom, wide.PadRight = p.PadTop+1, p.PadLeft+1, p.PadBottom+1, p.PadRight+1
			ones := make([]float32, p.M*p.C*25)
			for i := range ones {
				ones[i] = abs[i/25*9]
			}
			_, mag := directConv(wide, absX, ones)
			weights := kernel.NewWinograd(nil, p.M, p.C, w, by)
			got := guarded(1, p.N*p.M*oh*ow, p.N*p.M*oh*ow)
			n := len(got) - 64
			if !kernel.WinogradTakes(p) {
				t.Fatalf("%s: not taken", name)
			}
			weights.Conv(p, got[:n], x, nil)
			checkGuard(t, got, 1, n, n)
			checkProduct(t, got, n, 1, n, p.C+16, want, mag)
			direct := make([]float32, n)
			kernel.Conv(p, direct, x, scaled, nil)
			var mine, other float64
			for i := range want {
				mine += math.Pow(float64(got[i])-want[i], 2)
				other += math.Pow(float64(direct[i])-want[i], 2)
			}
			t.Logf("%s: %.2f times the root mean square error of the direct convolution", name, math.Sqrt(mine/other))
			if mine > 9*other {
				t.Errorf("%s: root mean square error %.3g, of the direct convolution %.3g", name, math.Sqrt(mine/float64(n)), math.Sqrt(other/float64(n)))
			}

			bias, res := randn(p.M, 3), randn(n, 4)
			ep := make([]float32, n)
			weights.Conv(p, ep, x, &kernel.Epilogue{RowBias: bias, Residual: res, Act: kernel.ActRelu})
			for i := range n {
				if w := max(got[i]+bias[i/(oh*ow)%p.M]+res[i], 0); ep[i] != w {
					t.Fatalf("%s: epilogue: element %d: got %v, want %v", name, i, ep[i], w)
				}
			}
			old := par.SetLimit(1)
			serial := make([]float32, n)
			weights.Conv(p, serial, x, nil)
			par.SetLimit(old)
			checkBits(t, name+": one core", serial, got[:n])

			// Every other image's worth of room between the images.
			image := n / p.N
			apart := p
			apart.OutStride = 2 * image
			sparse := make([]float32, (2*p.N-1)*image)
			weights.Conv(apart, sparse, x, &kernel.Epilogue{Residual: make([]float32, n)})
			for i := range p.N {
				checkBits(t, name+": apart", sparse[2*i*image:][:image], got[i*image:][:image])
			}
		}
	})
}

func TestAttention(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		for _, c := range []struct {
			heads, share, sq, sk, d, dv int
			mask, causal, columns       bool
		}{
			{3, 1, 70, 70, 16, 16, false, true, false},
			{9, 1, 5, 130, 64, 32, true, false, false},
			{4, 2, 60, 33, 8, 8, true, true, true},
			{1, 1, 1, 500, 20, 24, false, false, false},
		} {
			name := fmt.Sprintf("%+v", c)
			// Heads lie interleaved in Q and the result, one after the other in K and V.
			hd, hv := c.heads*c.d, c.heads*c.dv
			q, k, v, mask := randn(c.sq*hd, 1), randn(c.heads*c.sk*c.d, 2), randn(c.heads*c.sk*c.dv, 3), randn(c.sq*c.sk, 4)
			a := kernel.Attention{Count: c.heads, SQ: c.sq, SK: c.sk, D: c.d, DV: c.dv, StrideQ: c.d, StrideK: c.sk * c.d,
				StrideV: c.sk * c.dv, StrideO: c.dv, LdQ: hd, LdK: c.d, LdV: c.dv, LdO: hv, Share: c.share, Scale: 0.3, Causal: c.causal,
				KColumns: c.columns,
				Probs: func(_, _, rows, seen, ld int, p []float32) {
					for r := range rows {
						kernel.FakeQuantInt(p[r*ld:r*ld+seen], p[r*ld:r*ld+seen], 1./255, 0, 0, 255)
					}
				}}
			if c.columns {
				a.LdK = c.sk
			}
			if c.mask {
				a.Mask = mask
			}
			got := guarded(c.sq, hv, hv)
			a.Run(got, q, k, v)
			checkGuard(t, got, c.sq, hv, hv)
			want := make([]float32, c.sq*hv)
			for h := range c.heads {
				kv := h / c.share
				s := make([]float32, c.sq*c.sk)
				kernel.MatMul(c.sq, c.sk, c.d, q[h*c.d:], hd, false, k[kv*c.sk*c.d:], a.LdK, !c.columns, s, c.sk, false)
				kernel.MulScalar(s, s, 0.3)
				if c.mask {
					kernel.Add(s, s, mask)
				}
				if c.causal {
					for i := range c.sq {
						for j := max(i+1+c.sk-c.sq, 0); j < c.sk; j++ {
							s[i*c.sk+j] = float32(math.Inf(-1))
						}
					}
				}
				kernel.Softmax(c.sq, c.sk, s, s)
				kernel.FakeQuantInt(s, s, 1./255, 0, 0, 255)
				kernel.MatMul(c.sq, c.dv, c.sk, s, c.sk, false, v[kv*c.sk*c.dv:], c.dv, false, want[h*c.dv:], hv, false)
			}
			checkBits(t, name, got[:len(want)], want)
		}
	})
}

func TestTranspose(t *testing.T) {
	for _, s := range [][2]int{{1, 1}, {3, 70}, {70, 3}, {33, 17}, {200, 300}} {
		r, c := s[0], s[1]
		x := randn(r*(c+2), 1)
		d := guarded(c, r, r+1)
		kernel.Transpose(r, c, d, r+1, x, c+2)
		checkGuard(t, d, c, r, r+1)
		for i := range r {
			for j := range c {
				if d[j*(r+1)+i] != x[i*(c+2)+j] {
					t.Fatalf("%v: (%d,%d) is wrong", s, j, i)
				}
			}
		}
	}
}

// Vector functions must not touch what lies behind their slices.
func TestNoOverwrite(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		for n := 1; n < 70; n++ {
			for name, f := range map[string]func(d, x []float32){
				"Exp": kernel.Exp, "Gelu": kernel.Gelu, "Relu": kernel.Relu, "Tanh": kernel.Tanh,
				"Add":       func(d, x []float32) { kernel.Add(d, x, x) },
				"Axpy":      func(d, x []float32) { kernel.Axpy(d, x, 2) },
				"Softmax":   func(d, x []float32) { kernel.Softmax(1, n, d, x) },
				"FakeQuant": func(d, x []float32) { kernel.FakeQuantInt(d, x, 1, 0, -7, 7) },
				"Cast": func(d, x []float32) {
					kernel.CastMinifloat(d, x, kernel.Minifloat{ExpBits: 2, ManBits: 1, Bias: 1, Max: 6})
				},
				"Blocks": func(d, x []float32) {
					kernel.Blocks{Size: 16, Max: 7, Lo: -7, Hi: 7}.Int().AllRows(1, n, d, x, nil)
				},
				"Round": kernel.RoundBF16,
			} {
				d := guarded(1, n, n)
				f(d[:n], randn(n, 1))
				for i, v := range d[n:] {
					if v != canary {
						t.Fatalf("%s/%d: element %d behind the slice was overwritten", name, n, i)
					}
				}
			}
		}
	})
}

// Geometries of every kind give the definition's results, the same bits at both vector levels, and touch nothing but dst.
func TestConvGeometries(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	vector := map[int][]float32{}
	var ps []kernel.Conv2D
	for range 150 {
		p := kernel.Conv2D{N: 1 + rng.IntN(2), C: 1 + rng.IntN(12), M: 1 + rng.IntN(24), H: 1 + rng.IntN(20), W: 1 + rng.IntN(40), KH: 1 + rng.IntN(3), KW: 1 + rng.IntN(3),
			StrideH: 1 + rng.IntN(2), StrideW: 1 + rng.IntN(3), DilationH: 1 + rng.IntN(2), DilationW: 1, PadTop: rng.IntN(2), PadLeft: rng.IntN(3), PadBottom: rng.IntN(2), PadRight: rng.IntN(3), Groups: 1}
		switch rng.IntN(4) {
		case 0:
			p.C *= 3
			p.M *= 3
			p.Groups = 3
		case 1:
			p.Groups = p.C
			p.M = p.C * (1 + rng.IntN(2))
		case 2:
			p.KH, p.KW, p.StrideH, p.StrideW, p.PadTop, p.PadLeft, p.PadBottom, p.PadRight = 1, 1, 1, 1, 0, 0, 0, 0
		}
		ps = append(ps, p)
	}
	deep := kernel.Conv2D{N: 1, C: 100, M: 11, H: 6, W: 7, KH: 3, KW: 3, StrideH: 1, StrideW: 1, DilationH: 1, DilationW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1}
	ps = append(ps, deep) // more than one block of the contraction axis
	kernel.EachLevel(t, func(t *testing.T) {
		for i, p := range ps {
			oh, ow := p.Out()
			x, w := randn(p.N*p.C*p.H*p.W, 1), randn(p.M*p.C/p.Groups*p.KH*p.KW, 2)
			n := p.N * p.M * oh * ow
			got := guarded(1, n, n)
			kernel.Conv(p, got[:n], x, w, nil)
			checkGuard(t, got, 1, n, max(n, 1))
			want, mag := directConv(p, x, w)
			checkProduct(t, got, n, 1, n, p.C/p.Groups*p.KH*p.KW, want, mag)
			kernel.Conv(p, got[:n], x, w, &kernel.Epilogue{RowBias: randn(p.M, 3), Residual: randn(n, 4), Act: kernel.ActClip, Lo: -1, Hi: 2})
			checkGuard(t, got, 1, n, max(n, 1))
			if t.Failed() {
				t.Fatalf("%+v", p)
			}
			if kernel.Level() == "none" {
				continue
			}
			if first, ok := vector[i]; ok {
				checkBits(t, fmt.Sprintf("%+v", p), got[:n], first)
			}
			vector[i] = got[:n]
		}
	})
}
