package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// comparisons tell how far one slice is from another. They keep 8 lanes, in 256 bits at every level: memory is slower.
func comparisons() {
	compareLanes()
	outsideLanes()
}

// compareLanes adds to lanes of float64 that lie one kind behind the other, as the struct of the same name has them.
func compareLanes() {
	TEXT("compareEight", NOSPLIT, "func(x *float32, y *float32, n int, out *float64)")
	Doc("compareEight adds x², y², xy and (x-y)² to 8 lanes each, keeps the largest (x-y)² and |x| of each lane, and counts zeros of y; n is a multiple of 8. out is that of compareLanes.")
	Pragma("noescape")
	x, y, n, out := Load(Param("x"), GP64()), Load(Param("y"), GP64()), Load(Param("n"), GP64()), Load(Param("out"), GP64())
	const top, zeros = 5 * 64, 5*64 + 32
	var sums [5][2]reg.VecVirtual // x², y², xy, (x-y)², the largest (x-y)²
	for i := range sums {
		for h := range sums[i] {
			sums[i][h] = YMM()
			VMOVUPD(operand.Mem{Base: out, Disp: i*64 + h*32}, sums[i][h])
		}
	}
	most, zero := YMM(), YMM()
	VMOVUPS(operand.Mem{Base: out, Disp: top}, most)
	VXORPS(zero, zero, zero)
	count, few := GP64(), GP64()
	MOVQ(operand.Mem{Base: out, Disp: zeros}, count)
	Label("loop")
	SUBQ(operand.Imm(8), n)
	JLT(operand.LabelRef("done"))
	t := YMM()
	VCMPPS(operand.Imm(0), operand.Mem{Base: y}, zero, t)
	VMOVMSKPS(t, few.As32())
	POPCNTQ(few, few)
	ADDQ(few, count)
	VMOVUPS(operand.Mem{Base: x}, t)
	VANDPS(bits(1<<31-1), t, t)
	VPMAXUD(t, most, most)
	for h := range 2 {
		a, b, d := YMM(), YMM(), YMM()
		VCVTPS2PD(operand.Mem{Base: x, Disp: 16 * h}, a)
		VCVTPS2PD(operand.Mem{Base: y, Disp: 16 * h}, b)
		VSUBPD(b, a, d)
		VMULPD(d, d, d)
		VADDPD(d, sums[3][h], sums[3][h])
		VMAXPD(d, sums[4][h], sums[4][h])
		VMULPD(a, a, d)
		VADDPD(d, sums[0][h], sums[0][h])
		VMULPD(b, b, d)
		VADDPD(d, sums[1][h], sums[1][h])
		VMULPD(b, a, a)
		VADDPD(a, sums[2][h], sums[2][h])
	}
	ADDQ(operand.Imm(32), x)
	ADDQ(operand.Imm(32), y)
	JMP(operand.LabelRef("loop"))
	Label("done")
	for i := range sums {
		for h, r := range sums[i] {
			VMOVUPD(r, operand.Mem{Base: out, Disp: i*64 + h*32})
		}
	}
	VMOVUPS(most, operand.Mem{Base: out, Disp: top})
	MOVQ(count, operand.Mem{Base: out, Disp: zeros})
	VZEROUPPER()
	RET()
}

// outsideLanes counts what lies beyond bounds, which advance with x or stay.
func outsideLanes() {
	TEXT("outsideEight", NOSPLIT, "func(x *float32, lo *float32, hi *float32, step int, n int) int")
	Doc("outsideEight counts the elements of x below lo or above hi; n is a multiple of 8, and lo and hi move on by step bytes for each eight.")
	Pragma("noescape")
	x, lo, hi := Load(Param("x"), GP64()), Load(Param("lo"), GP64()), Load(Param("hi"), GP64())
	step, n := Load(Param("step"), GP64()), Load(Param("n"), GP64())
	count, few := GP64(), GP64()
	XORQ(count, count)
	v, below, above := YMM(), YMM(), YMM()
	Label("loop")
	SUBQ(operand.Imm(8), n)
	JLT(operand.LabelRef("done"))
	VMOVUPS(operand.Mem{Base: x}, v)
	VCMPPS(operand.Imm(17), operand.Mem{Base: lo}, v, below)
	VCMPPS(operand.Imm(30), operand.Mem{Base: hi}, v, above)
	VORPS(below, above, above)
	VMOVMSKPS(above, few.As32())
	POPCNTQ(few, few)
	ADDQ(few, count)
	ADDQ(operand.Imm(32), x)
	ADDQ(step, lo)
	ADDQ(step, hi)
	JMP(operand.LabelRef("loop"))
	Label("done")
	Store(count, ReturnIndex(0))
	VZEROUPPER()
	RET()
}
