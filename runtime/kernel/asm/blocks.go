package main

import (
	"strings"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// rule is a way from a block's largest magnitude to its scale.
type rule struct {
	name, doc string
	// power says that scales are powers of two: dividing is multiplying by the inverse.
	power bool
	// scale emits the scale of a block as bits in word and as value in m. It gets the largest magnitude in top and as bits in
	// word; low is free; words are those of type rounding. It jumps to "zeros", with word 0, where the block becomes zeros, and
	// to "out" where it is not for this loop.
	scale func(words, word, low reg.GPVirtual, top, m reg.VecVirtual)
}

var rules = []rule{
	{name: "Blocks", doc: "scales of Blocks without Pow2 and Code", scale: func(words, word, low reg.GPVirtual, top, m reg.VecVirtual) {
		MOVL(word, low)
		SHRL(operand.Imm(16), low)
		ANDL(operand.Mem{Base: words, Disp: 12}, low)
		ADDL(operand.Mem{Base: words, Disp: 8}, word)
		ADDL(low, word)
		ANDL(operand.Mem{Base: words, Disp: 16}, word)
		VMOVD(word, m)
		VDIVSS(operand.Mem{Base: words}, m, m)
		VMOVD(m, word)
		XORL(low, low)
		VUCOMISS(operand.Mem{Base: words, Disp: 4}, top)
		CMOVLLS(low, word) // at most the threshold
	}},
	{name: "Pow2", doc: "scales of Blocks with Pow2", power: true, scale: func(words, word, low reg.GPVirtual, top, m reg.VecVirtual) {
		CMPL(word, operand.U32(254<<23)) // the inverse would be subnormal
		JCC(operand.LabelRef("out"))
		ANDL(operand.U32(255<<23), word)
		MOVL(operand.U32(1<<22), low) // 2^-127
		SUBL(operand.Mem{Base: words}, word)
		CMOVLLE(low, word)
		VMOVD(word, m)
	}},
	{name: "Rel", doc: "scales of Blocks with Code", scale: func(words, word, low reg.GPVirtual, top, m reg.VecVirtual) {
		c := XMM()
		VDIVSS(operand.Mem{Base: words}, top, m)
		VMULSS(operand.Mem{Base: words, Disp: 20}, m, m)
		VMINSS(operand.Mem{Base: words, Disp: 36}, m, m) // the scale's type saturates
		VMOVD(m, word)
		ANDL(operand.U32(255<<23), word)
		MOVL(operand.Mem{Base: words, Disp: 28}, low)
		CMPL(word, low)
		CMOVLCS(low, word) // the greater one
		ADDL(operand.Mem{Base: words, Disp: 32}, word)
		VMOVD(word, c)
		VADDSS(c, m, m)
		VSUBSS(c, m, m)
		VMULSS(operand.Mem{Base: words, Disp: 24}, m, m)
		VMOVD(m, word)
	}},
}

// blockLoop emits the loop over blocks of a row: the largest magnitude, the scale by the rule, then the grid. It stops at the
// first block that it is not made for, before it writes to it: one whose largest magnitude is infinite or NaN, or whose scale
// is outside [2^-64, 2^64]. It returns the number of blocks done. size is a multiple of 16.
//
// Quotients are those of a true division, found without one (Markstein): with y the inverse of the scale s, rounded, and
// z = (1-s·y)·y what it lacks, q = x·y + x·z is within one unit in the last place of x/s, its remainder r = x - q·s is exact,
// and q + r·y rounds to what x/s does. In that range of scales no step underflows unless x/s is below 2^-36, which every grid
// takes to zero. quantize gets x, the quotient and the scale, and leaves the result in the quotient.
func (w width) blockLoop(r rule, grid, params string, head func(), quantize func(x, q, s vv)) {
	name := "vec" + r.name + grid + "_" + w.name
	TEXT(name, NOSPLIT, "func(dst *float32, x *float32, count int, size int, scales *float32, words *uint32, "+strings.TrimSuffix(params, ", ")+") int")
	Doc(name + " quantizes count whole blocks of a row with the " + r.doc + "; see BlockQuant.row.")
	Pragma("noescape")
	dst, x := Load(Param("dst"), GP64()), Load(Param("x"), GP64())
	count, size := Load(Param("count"), GP64()), Load(Param("size"), GP64())
	scales, words := Load(Param("scales"), GP64()), Load(Param("words"), GP64()).(reg.GPVirtual)
	head()
	SHLQ(operand.Imm(2), size) // bytes
	done := GP64()
	XORQ(done, done)
	Label("block")
	CMPQ(done, count)
	JGE(operand.LabelRef("out"))

	acc, i := w.zero(), GP64()
	XORQ(i, i)
	Label("maximum")
	v := w.reg()
	VMOVUPS(operand.Mem{Base: x, Index: i, Scale: 1}, v)
	VANDPS(bits(1<<31-1), v, v)
	VPMAXUD(v, acc, acc)
	ADDQ(operand.Imm(uint64(w.bytes)), i)
	CMPQ(i, size)
	JLT(operand.LabelRef("maximum"))
	top := w.lower(acc, func(a, b, d operand.Op) { VPMAXUD(a, b, d) }).(reg.VecVirtual)

	// From here on scalar, in xmm registers and general ones.
	word, low, m := GP32(), GP32(), XMM()
	VMOVD(top, word)
	CMPL(word, operand.U32(0x7f800000))
	JCC(operand.LabelRef("out"))
	r.scale(words, word, low, top, m)
	MOVL(word, operand.Mem{Base: scales, Index: done, Scale: 4})
	scale, inverse, rest := w.reg(), w.reg(), w.reg()
	if r.power {
		// Zeros stay what they are by any scale; that of a block of zeros is subnormal, which would be slow.
		VMOVD(top, low)
		one := GP32()
		MOVL(operand.U32(127<<23), one)
		TESTL(low, low)
		CMOVLEQ(one, word)
		VMOVD(word, m)
		VBROADCASTSS(m, scale)
		ANDL(operand.U32(255<<23), word)
		MOVL(operand.U32(254<<23), low)
		SUBL(word, low)
		VMOVD(low, m)
		VBROADCASTSS(m, inverse)
	} else {
		TESTL(word, word)
		JZ(operand.LabelRef("zeros"))
		const least, most = (127 - 64) << 23, (127 + 64) << 23
		SUBL(operand.U32(least), word)
		CMPL(word, operand.U32(most-least))
		JHI(operand.LabelRef("out"))
		y, z := XMM(), XMM()
		VMOVSS(num(1), z)
		VDIVSS(m, z, y)
		VFNMADD231SS(y, m, z)
		VMULSS(y, z, z)
		VBROADCASTSS(m, scale)
		VBROADCASTSS(y, inverse)
		VBROADCASTSS(z, rest)
	}
	XORQ(i, i)
	Label("elements")
	e, q := w.reg(), w.reg()
	VMOVUPS(operand.Mem{Base: x, Index: i, Scale: 1}, e)
	if r.power {
		VMULPS(inverse, e, q)
	} else {
		left := w.reg()
		VMULPS(rest, e, q)
		VMOVAPS(e, left)
		VFMADD231PS(inverse, e, q)
		VFNMADD231PS(q, scale, left)
		VFMADD231PS(inverse, left, q)
	}
	quantize(e, q, scale)
	VMOVUPS(q, operand.Mem{Base: dst, Index: i, Scale: 1})
	ADDQ(operand.Imm(uint64(w.bytes)), i)
	CMPQ(i, size)
	JLT(operand.LabelRef("elements"))
	Label("next")
	ADDQ(size, x)
	ADDQ(size, dst)
	INCQ(done)
	JMP(operand.LabelRef("block"))
	if !r.power {
		Label("zeros")
		nought := w.zero()
		XORQ(i, i)
		Label("clear")
		VMOVUPS(nought, operand.Mem{Base: dst, Index: i, Scale: 1})
		ADDQ(operand.Imm(uint64(w.bytes)), i)
		CMPQ(i, size)
		JLT(operand.LabelRef("clear"))
		JMP(operand.LabelRef("next"))
	}
	Label("out")
	Store(done, ReturnIndex(0))
	VZEROUPPER()
	RET()
}
