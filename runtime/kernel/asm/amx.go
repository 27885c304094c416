package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Instructions of AMX, which neither avo nor Go's assembler knows, by their encodings: VEX of three bytes, map 0F38, W0, 128 bits.

// Prefixes of the encodings.
const (
	vexNone = iota
	vex66
	vexF3
	vexF2
)

func emit(bytes ...byte) {
	for _, b := range bytes {
		Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []operand.Op{operand.U8(b)}})
	}
}

// number is that of a general register in encodings.
func number(r reg.GPPhysical) byte { return byte(r.PhysicalIndex()) }

// tileMem encodes an instruction on tile t and the rows at base + disp, index bytes apart.
func tileMem(prefix, opcode byte, t int, base reg.GPPhysical, disp int32, index reg.GPPhysical) {
	x, b := ^number(index)>>3&1, ^number(base)>>3&1
	emit(0xc4, 1<<7|x<<6|b<<5|2, 15<<3|prefix, opcode, 2<<6|byte(t)<<3|4, number(index)&7<<3|number(base)&7,
		byte(disp), byte(disp>>8), byte(disp>>16), byte(disp>>24))
}

func tileLoad(t int, base reg.GPPhysical, disp int32, index reg.GPPhysical) {
	tileMem(vexF2, 0x4b, t, base, disp, index)
}

func tileStore(t int, base reg.GPPhysical, disp int32, index reg.GPPhysical) {
	tileMem(vexF3, 0x4b, t, base, disp, index)
}

// tileDot is TDPBUSD: sums += the products of the unsigned bytes of a with the signed ones of b.
func tileDot(sums, a, b int) {
	emit(0xc4, 7<<5|2, byte(^b&15)<<3|vex66, 0x5e, 3<<6|byte(sums)<<3|byte(a))
}

// tileConfig loads the shapes of the tiles from the 64 bytes at base, one of the first eight registers.
func tileConfig(base reg.GPPhysical) { emit(0xc4, 7<<5|2, 15<<3|vexNone, 0x49, number(base)) }

func tileRelease() { emit(0xc4, 7<<5|2, 15<<3|vexNone, 0x49, 0xc0) }

// blockTiles writes the product of one or two groups of up to 16 rows with a panel of 32 columns; see amxKernels. While tiles
// multiply a block the vector unit scales the sums of the one before, which lie in tmp.
func blockTiles(groups int) {
	const nv = 2
	TEXT(fmt.Sprintf("blockAMX%d", groups), NOSPLIT, "func(ap *byte, lda int, bp *byte, cp *float32, ldc int, sp *float32, blocks int, words int, acc int, tmp *int32, config *byte, rows int)")
	Doc(fmt.Sprintf("blockAMX%d computes rows rows, more than %d, of 32 columns; see blockKern.", groups, 16*(groups-1)))
	Pragma("noescape")
	load := func(name string, r reg.GPPhysical) reg.GPPhysical { Load(Param(name), r); return r }
	frame := func(name string) operand.Mem {
		p, err := Param(name).Resolve()
		if err != nil {
			panic(err)
		}
		return p.Addr
	}
	config := load("config", reg.RAX)
	tileConfig(config)
	ap, lda, bp := load("ap", reg.RAX), load("lda", reg.RBX), load("bp", reg.RCX)
	tmp := load("tmp", reg.R10)
	width, none, ap2 := reg.R11, reg.R12, reg.R13
	MOVQ(operand.I32(nv*64), width)
	XORQ(none, none)
	n, c, s, t := reg.R8, reg.R9, reg.R14, reg.R15
	sp, back := load("sp", reg.RDI), reg.RSI // back: Δ of the block before
	rows := reg.RDX

	multiply := func(label string) {
		for v := range nv {
			for g := range groups {
				tileLoad(2*g+v, bp, int32(64*v), none)
			}
		}
		ADDQ(operand.I32(nv*64), bp)
		MOVQ(frame("words"), n)
		Label(label)
		LEAQ(operand.Mem{Base: lda, Index: lda, Scale: 2}, ap2) // 16 rows on
		LEAQ(operand.Mem{Base: ap2, Index: lda, Scale: 1}, ap2)
		LEAQ(operand.Mem{Base: ap, Index: ap2, Scale: 4}, ap2)
		tileLoad(4, ap, 0, lda)
		if groups == 2 {
			tileLoad(5, ap2, 0, lda)
		}
		for v := range nv {
			tileLoad(6+v, bp, int32(64*v), width)
			for g := range groups {
				tileDot(2*g+v, 4+g, 6+v)
			}
		}
		ADDQ(operand.I32(64), ap)
		ADDQ(operand.I32(16*nv*64), bp)
		SUBQ(operand.I32(16), n)
		JNZ(operand.LabelRef(label))
	}
	save := func() {
		for v := range nv {
			for g := range groups {
				tileStore(2*g+v, tmp, int32(g*16*128+64*v), width)
			}
		}
	}
	drain := func(label string) {
		by := []reg.VecPhysical{reg.Z30, reg.Z31}
		for v := range nv {
			VMOVUPS(operand.Mem{Base: back, Disp: 64 * v}, by[v])
		}
		MOVQ(frame("cp"), c)
		MOVQ(sp, s)
		ADDQ(operand.Imm(4), sp)
		MOVQ(tmp, t)
		MOVQ(frame("rows"), rows)
		CMPQ(frame("acc"), operand.Imm(0))
		JEQ(operand.LabelRef(label + "first"))
		body := func(loop string, last func(v int, at operand.Mem, sum reg.VecPhysical)) {
			Label(loop)
			VBROADCASTSS(operand.Mem{Base: s}, reg.Z29)
			for v := range nv {
				sum, at := []reg.VecPhysical{reg.Z0, reg.Z1}[v], operand.Mem{Base: c, Disp: 64 * v}
				VCVTDQ2PS(operand.Mem{Base: t, Disp: 64 * v}, sum)
				VMULPS(reg.Z29, sum, sum)
				last(v, at, sum)
				VMOVUPS(sum, at)
			}
			ADDQ(operand.I32(nv*64), t)
			ADDQ(lda, s)
			ADDQ(frame("ldc"), c)
			DECQ(rows)
			JNZ(operand.LabelRef(loop))
		}
		body(label+"add", func(v int, at operand.Mem, sum reg.VecPhysical) { VFMADD213PS(at, by[v], sum) })
		JMP(operand.LabelRef(label + "done"))
		Label(label + "first")
		MOVQ(operand.I32(1), frame("acc"))
		body(label+"set", func(v int, _ operand.Mem, sum reg.VecPhysical) { VMULPS(by[v], sum, sum) })
		Label(label + "done")
	}
	multiply("words")
	save()
	Label("block")
	MOVQ(bp, back)
	ADDQ(operand.I32(nv*64), bp)
	DECQ(frame("blocks"))
	JZ(operand.LabelRef("last"))
	multiply("more")
	drain("one")
	save()
	JMP(operand.LabelRef("block"))
	Label("last")
	drain("end")
	tileRelease()
	VZEROUPPER()
	RET()
}
