package kernel_test

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
)

// Every vector level of every architecture gives one set of bits, and plain Go its own: the numbers below are a hash of
// results. They change only where an order of summation or an approximation is changed on purpose.
func TestBits(t *testing.T) {
	want := map[bool]uint64{true: 0x1223076f5eb089e7, false: 0x23bd1178237a3d8f}
	kernel.EachLevel(t, func(t *testing.T) {
		state := uint32(7)
		next := func() float32 { // in [-4,4), by integers alone
			state = state*1664525 + 1013904223
			return float32(int32(state>>8)-1<<23) / (1 << 21)
		}
		numbers := func(n int) []float32 {
			x := make([]float32, n)
			for i := range x {
				x[i] = next()
			}
			return x
		}
		h := fnv.New64a()
		add := func(x []float32) {
			for _, v := range x {
				binary.Write(h, binary.LittleEndian, math.Float32bits(v))
			}
		}
		const m, k, n = 13, 801, 53
		a, b, c := numbers(m*k), numbers(k*n), make([]float32, m*n)
		kernel.Gemm(m, a, k, kernel.PackB(k, n, b, n, false), c, n, false)
		add(c)
		for _, rows := range []int{1, 2, 3, 4} {
			kernel.Gemm(rows, a, k, kernel.PackB(k, n, b, n, false), c, n, true)
			add(c[:rows*n])
		}
		p := kernel.Conv2D{N: 1, C: 3, H: 11, W: 19, M: 13, KH: 3, KW: 3, StrideH: 2, StrideW: 1, DilationH: 1, DilationW: 1, PadTop: 1, PadRight: 1, Groups: 1}
		oh, ow := p.Out()
		d := make([]float32, p.M*oh*ow)
		kernel.Conv(p, d, numbers(p.C*p.H*p.W), numbers(p.M*p.C*9), &kernel.Epilogue{RowBias: numbers(p.M), Act: kernel.ActRelu})
		add(d)
		p = kernel.Conv2D{N: 2, C: 33, H: 9, W: 13, M: 19, KH: 3, KW: 3, StrideH: 1, StrideW: 1, DilationH: 1, DilationW: 1, PadTop: 1, PadRight: 1, Groups: 1}
		oh, ow = p.Out()
		d = make([]float32, p.N*p.M*oh*ow)
		wino := kernel.NewWinograd(nil, p.M, p.C, numbers(p.M*p.C*9), numbers(p.M))
		wino.Conv(p, d, numbers(p.N*p.C*p.H*p.W), &kernel.Epilogue{RowBias: numbers(p.M), Act: kernel.ActRelu})
		add(d)
		x, y := numbers(203), make([]float32, 203)
		for _, f := range []func(dst, x []float32){kernel.Exp, kernel.Erf, kernel.Gelu, kernel.GeluTanh, kernel.Sigmoid, kernel.Tanh, kernel.Silu} {
			f(y, x)
			add(y)
		}
		add([]float32{kernel.Sum(x), kernel.SumSquares(x, 0.25)})
		kernel.Blocks{Size: 64, Max: 7, Lo: -7, Hi: 7, BF16: true}.Int().AllRows(1, 203, y, x, nil)
		add(y)
		kernel.FakeQuantFloat(y, x, 0.37, kernel.Minifloat{ExpBits: 4, ManBits: 3, Bias: 7, Max: 448})
		add(y)
		if got := h.Sum64(); got != want[kernel.Level() != "none"] {
			t.Errorf("results hash to %#x, want %#x", got, want[kernel.Level() != "none"])
		}
	})
}
