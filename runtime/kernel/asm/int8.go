package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// integers writes the products of bytes and what is done to their sums.
func integers() {
	f := family{name: "gemm9x48vnni", elem: "int32", size: 4, vec: 64, mr: 9, nv: 3, mul: func(b, a, _, acc reg.VecPhysical) { vpdpbusd(b, a, acc) }}
	for rows := 1; rows <= f.mr; rows++ {
		f.kernel(rows)
	}
	blockProducts()
	quads()
	for _, w := range widths {
		w.sums()
	}
}

// vpdpbusd is AVX512_VNNI's VPDPBUSD, which avo 0.5.0 does not know: acc += the four products of the unsigned bytes of u with
// the signed bytes of s in each int32.
func vpdpbusd(s, u, acc reg.VecPhysical) {
	Instruction(&ir.Instruction{
		Opcode:   "VPDPBUSD",
		Operands: []operand.Op{s, u, acc},
		Inputs:   []operand.Op{s, u, acc},
		Outputs:  []operand.Op{acc},
	})
}

// quads writes the loop that brings four rows of bytes into the layout of the products.
func quads() {
	TEXT("vecQuads", NOSPLIT, "func(dst *int32, x *uint8, ld int, flip uint32, n int)")
	Doc("vecQuads sets each of n words to the bytes of one column of four rows, ld bytes apart, the first row's lowest, with the bits of flip inverted; n is a multiple of 16.")
	Pragma("noescape")
	dst, x, ld, n := Load(Param("dst"), GP64()), Load(Param("x"), GP64()), Load(Param("ld"), GP64()), Load(Param("n"), GP64())
	x3 := GP64()
	LEAQ(operand.Mem{Base: x, Index: ld, Scale: 2}, x3)
	ADDQ(ld, x3)
	flip := XMM()
	VMOVD(Load(Param("flip"), GP32()), flip)
	VPBROADCASTD(flip, flip)
	Label("loop")
	SUBQ(operand.Imm(16), n)
	JLT(operand.LabelRef("done"))
	var r [4]reg.VecVirtual
	for i, at := range []operand.Mem{{Base: x}, {Base: x, Index: ld, Scale: 1}, {Base: x, Index: ld, Scale: 2}, {Base: x3}} {
		r[i] = XMM()
		VMOVUPS(at, r[i])
	}
	for half := range 2 {
		lo, hi := XMM(), XMM()
		if half == 0 {
			VPUNPCKLBW(r[1], r[0], lo)
			VPUNPCKLBW(r[3], r[2], hi)
		} else {
			VPUNPCKHBW(r[1], r[0], lo)
			VPUNPCKHBW(r[3], r[2], hi)
		}
		words := XMM()
		VPUNPCKLWD(hi, lo, words)
		VPXOR(flip, words, words)
		VMOVUPS(words, operand.Mem{Base: dst, Disp: half * 32})
		VPUNPCKHWD(hi, lo, words)
		VPXOR(flip, words, words)
		VMOVUPS(words, operand.Mem{Base: dst, Disp: half*32 + 16})
	}
	ADDQ(operand.Imm(16), x)
	ADDQ(operand.Imm(16), x3)
	ADDQ(operand.Imm(64), dst)
	JMP(operand.LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	RET()
}

// sums writes the loops on sums of products.
func (w width) sums() {
	ints := func(name string) reg.VecVirtual {
		r := w.reg()
		VMOVD(Load(Param(name), GP32()), r.AsX())
		VPBROADCASTD(r.AsX(), r)
		return r
	}
	var factor, scale vv
	w.mapLoop("vecAddMulI", "func(dst *int32, x *int32, s int32, n int)", "adds x·s to dst.", 4,
		[]stream{{"dst", false}, {"x", false}, {"dst", true}}, func() { factor = ints("s") }, func(in []vv) []vv {
			VPMULLD(factor, in[1], in[1])
			VPADDD(in[1], in[0], in[0])
			return in[:1]
		})
	w.mapLoop("vecScaleI", "func(dst *float32, x *int32, y *int32, s int32, scale *float32, n int)", "sets dst = float32(x + y·s)·scale.", 4,
		[]stream{{"x", false}, {"y", false}, {"scale", false}, {"dst", true}}, func() { factor = ints("s") }, func(in []vv) []vv {
			VPMULLD(factor, in[1], in[1])
			VPADDD(in[1], in[0], in[0])
			VCVTDQ2PS(in[0], in[0])
			VMULPS(in[2], in[0], in[0])
			return in[:1]
		})
	w.mapLoop("vecScaleIS", "func(dst *float32, x *int32, s int32, scale float32, n int)", "sets dst = float32(x + s)·scale.", 4,
		[]stream{{"x", false}, {"dst", true}}, func() { factor, scale = ints("s"), w.param("scale") }, func(in []vv) []vv {
			VPADDD(factor, in[0], in[0])
			VCVTDQ2PS(in[0], in[0])
			VMULPS(scale, in[0], in[0])
			return in[:1]
		})
}
