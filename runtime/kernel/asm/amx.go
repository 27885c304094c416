package main

import (
	"encoding/binary"
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
	put := func(opcode string, o operand.Op) {
		Instruction(&ir.Instruction{Opcode: opcode, Operands: []operand.Op{o}})
	}
	for ; len(bytes) >= 4; bytes = bytes[4:] {
		put("LONG", operand.U32(binary.LittleEndian.Uint32(bytes)))
	}
	for _, b := range bytes {
		put("BYTE", operand.U8(b))
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

// tileDot is TDPBSSD: sums += the products of the signed bytes of a with those of b.
func tileDot(sums, a, b int) {
	emit(0xc4, 7<<5|2, byte(^b&15)<<3|vexF2, 0x5e, 3<<6|byte(sums)<<3|byte(a))
}

func tileZero(t int) { emit(0xc4, 7<<5|2, 15<<3|vexF2, 0x49, 3<<6|byte(t)<<3) }

// tileConfig loads the shapes of the tiles from the 64 bytes at base, one of the first eight registers.
func tileConfig(base reg.GPPhysical) { emit(0xc4, 7<<5|2, 15<<3|vexNone, 0x49, number(base)) }

func tileRelease() { emit(0xc4, 7<<5|2, 15<<3|vexNone, 0x49, 0xc0) }

// prefetchWrite is PREFETCHW of the line at base + disp, base being one of the first eight registers.
func prefetchWrite(base reg.GPPhysical, disp int8) {
	emit(0x0f, 0x0d, 1<<6|1<<3|number(base), byte(disp))
}

// amxRows is how many rows a tile has; the two vectors of 16 columns of the first amxHeld stay in registers.
const amxRows, amxHeld = 16, 14

// blockTiles writes the product of tiles of rows rows, one below the other, with a panel of 32 columns. The sums of a block are made
// in tile registers and go by way of tmp, which has room for two blocks, into vector registers: while tiles multiply one block, the first of
// the next rows after the last, the vector unit scales the sums of the one before. Lines of the result are asked for beforehand.
func blockTiles(rows int) {
	const nv = 2
	name := fmt.Sprintf("block16x32amx%d", rows)
	TEXT(name, NOSPLIT, "func(ap *byte, lda int, bp *byte, cp *float32, ldc int, sp *float32, blocks int, words int, acc int, count int, tmp *int32, config *byte)")
	Doc(fmt.Sprintf("%s computes count times %d rows of 32 columns; see blockStack.", name, rows))
	Pragma("noescape")
	frame := func(name string) operand.Mem {
		p, err := Param(name).Resolve()
		if err != nil {
			panic(err)
		}
		return p.Addr
	}
	ap, lda, bp, width := reg.RAX, reg.RBX, reg.RCX, reg.R11
	tmp, other := reg.R10, reg.R15
	n, blocks, by := reg.RDX, reg.R14, reg.R13 // by: Δ of the columns of the block to be scaled
	// Δ of the rows: of the first one and of those 3, 6, 9 and 11 further on; the others lie 1, 2, 4 or 8 rows behind these.
	delta := []reg.GPPhysical{reg.RDI, reg.RSI, reg.R8, reg.R9, reg.R12}[:min((rows+2)/3, 5)]
	scale := func(r int) operand.Mem {
		from := [amxRows]int{0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 2, 4}[r]
		m := operand.Mem{Base: delta[from]}
		if down := r - []int{0, 3, 6, 9, 11}[from]; down > 0 {
			m.Index, m.Scale = lda, uint8(down)
		}
		return m
	}
	z := []reg.VecPhysical{reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
		reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31}

	Load(Param("config"), ap)
	tileConfig(ap)
	Load(Param("lda"), lda)
	MOVQ(operand.I32(nv*64), width)
	Load(Param("tmp"), tmp)
	LEAQ(operand.Mem{Base: tmp, Disp: amxRows * nv * 64}, other)

	// multiply makes the sums of the block at ap and bp and writes them to other, step by step.
	multiply := func(label string) (steps []func()) {
		tileZero(0)
		tileZero(1)
		MOVQ(frame("words"), n)
		Label(label)
		SUBQ(operand.Imm(16), n)
		JZ(operand.LabelRef(label + "last"))
		part := []func(){
			func() { tileLoad(4, ap, 0, lda); tileLoad(6, bp, 0, width) },
			func() { tileDot(0, 4, 6); tileLoad(7, bp, 64, width) },
			func() { tileDot(1, 4, 7) },
		}
		for _, f := range part {
			f()
		}
		ADDQ(operand.I32(64), ap)
		ADDQ(operand.I32(16*nv*64), bp)
		JMP(operand.LabelRef(label))
		Label(label + "last")
		return append(part, func() { tileStore(0, other, 0, width) }, func() { tileStore(1, other, 64, width) })
	}
	forward := func() {
		ADDQ(operand.I32(64), ap)
		ADDQ(operand.I32(16*nv*64), bp)
		MOVQ(bp, by)
		ADDQ(operand.I32(nv*64), bp)
		XCHGQ(tmp, other)
	}
	// drain scales the sums in tmp and adds them up.
	drain := func() (steps []func()) {
		steps = append(steps, func() {
			VMOVUPS(operand.Mem{Base: by}, z[28])
			VMOVUPS(operand.Mem{Base: by, Disp: 64}, z[29])
		})
		for r := range rows {
			steps = append(steps, func() {
				for v := range nv {
					VCVTDQ2PS(operand.Mem{Base: tmp, Disp: (r*nv + v) * 64}, z[30+v])
				}
				for v := range nv {
					VMULPS_BCST(scale(r), z[30+v], z[30+v])
				}
				if r == amxHeld {
					MOVQ(frame("ldc"), n)
					IMUL3Q(operand.Imm(amxHeld), n, n)
					ADDQ(frame("cp"), n)
				}
				for v := range nv {
					if r < amxHeld {
						VFMADD231PS(z[28+v], z[30+v], z[r*nv+v])
						continue
					}
					at := operand.Mem{Base: n, Disp: 64 * v}
					VFMADD213PS(at, z[28+v], z[30+v])
					VMOVUPS(z[30+v], at)
				}
				if r >= amxHeld && r+1 < rows {
					ADDQ(frame("ldc"), n)
				}
			})
		}
		return append(steps, func() {
			for _, d := range delta {
				ADDQ(operand.Imm(4), d)
			}
		})
	}
	all := func(steps ...func()) {
		for _, f := range steps {
			f()
		}
	}
	// mix puts the steps of m between those of d.
	mix := func(m, d []func()) {
		for i, done := 0, 0; i < len(d); i++ {
			for ; done < len(m) && (done*len(d) <= i*len(m) || i == len(d)-1); done++ {
				m[done]()
			}
			d[i]()
		}
	}
	// each visits the elements of the result, whose row n points to.
	each := func(f func(r, v int, at operand.Mem)) {
		MOVQ(frame("cp"), n)
		for r := range rows {
			for v := range nv {
				f(r, v, operand.Mem{Base: n, Disp: 64 * v})
			}
			if r+1 < rows {
				ADDQ(frame("ldc"), n)
			}
		}
	}

	// start sets Δ and the number of blocks of a tile.
	start := func() {
		Load(Param("sp"), delta[0])
		Load(Param("blocks"), blocks)
		for i, d := range delta[1:] {
			LEAQ(operand.Mem{Base: delta[i], Index: lda, Scale: 2}, d)
			if i < 3 {
				ADDQ(lda, d)
			}
		}
	}
	store := func() {
		each(func(r, v int, at operand.Mem) {
			if r < amxHeld {
				VMOVUPS(z[r*nv+v], at)
			}
		})
	}

	Load(Param("ap"), ap)
	Load(Param("bp"), bp)
	start()
	all(multiply("words")...)
	forward()
	Label("tile")
	each(func(_, v int, _ operand.Mem) { prefetchWrite(n, int8(64*v)) })
	CMPQ(frame("acc"), operand.Imm(0))
	JEQ(operand.LabelRef("fresh"))
	each(func(r, v int, at operand.Mem) {
		if r < amxHeld {
			VMOVUPS(at, z[r*nv+v])
		}
	})
	JMP(operand.LabelRef("block"))
	Label("fresh")
	// -0: added to it, everything stays what it is.
	VBROADCASTSS(bits(1<<31), z[0])
	for i := 1; i < min(rows, amxHeld)*nv; i++ {
		VMOVAPS(z[0], z[i])
	}
	each(func(r, _ int, at operand.Mem) {
		if r >= amxHeld {
			VMOVUPS(z[0], at)
		}
	})
	Label("block")
	DECQ(blocks)
	JZ(operand.LabelRef("last"))
	mix(multiply("more"), drain())
	forward()
	JMP(operand.LabelRef("block"))
	Label("last")
	DECQ(frame("count"))
	JZ(operand.LabelRef("end"))
	IMUL3Q(operand.Imm(uint64(rows)), lda, n)
	ADDQ(n, frame("ap"))
	ADDQ(n, frame("sp"))
	Load(Param("ap"), ap)
	Load(Param("bp"), bp)
	mix(multiply("next"), drain())
	store()
	ADDQ(frame("ldc"), n)
	MOVQ(n, frame("cp"))
	start()
	forward()
	JMP(operand.LabelRef("tile"))
	Label("end")
	all(drain()...)
	store()
	tileRelease()
	VZEROUPPER()
	RET()
}
