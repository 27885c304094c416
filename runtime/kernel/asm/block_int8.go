package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// blockFamilies are the tiles of products of codes that have a scale for each block of the contraction axis: of bytes, and where
// there are temps, which hold products before they are summed, of int16.
func blockFamilies() []*family {
	return []*family{
		{name: "block9x48vnni", elem: "int32", size: 4, vec: 64, mr: 9, nv: 3},
		{name: "block14x32vnni", elem: "int32", size: 4, vec: 64, mr: 14, nv: 2},
		{name: "block4x16avx2i", elem: "int32", size: 4, vec: 32, mr: 4, nv: 2, temps: 2},
	}
}

// blockProducts writes them, and the loops that make codes of quantized numbers.
func blockProducts() {
	for _, f := range blockFamilies() {
		for rows := 1; rows <= f.mr; rows++ {
			f.blockKernel(rows)
		}
	}
	for rows := 1; rows <= amxRows; rows++ {
		blockTiles(rows)
	}
	for _, w := range widths {
		w.blockCodes()
		w.blockTry()
	}
}

// blockKernel writes one tile; see blockKern.
func (f *family) blockKernel(rows int) {
	name := fmt.Sprintf("%s%d", f.name, rows)
	TEXT(name, NOSPLIT, "func(ap *byte, lda int, bp *byte, cp *float32, ldc int, sp *float32, blocks int, words int, acc int)")
	Doc(fmt.Sprintf("%s computes %d rows of %d columns; see blockKern.", name, rows, f.nv*f.vec/f.size))
	Pragma("noescape")

	sums, b, temps, bcast := f.registers(rows)

	a, lda := rowPointers(rows, 3)
	bp := Load(Param("bp"), GP64())
	cp := Load(Param("cp"), GP64())
	ldc := Load(Param("ldc"), GP64())
	sp := Load(Param("sp"), GP64())
	n, c, s := GP64(), GP64(), GP64()
	frame := func(name string) operand.Mem {
		p, err := Param(name).Resolve()
		if err != nil {
			panic(err)
		}
		return p.Addr
	}
	row := func(v int) operand.Mem { return operand.Mem{Base: bp, Disp: v * f.vec} }
	pass := func() { ADDQ(operand.I32(int32(f.nv*f.vec)), bp) } // a row of the panel

	Label("block")
	if f.temps == 0 { // bytes: what the shift of the left codes will add is taken off beforehand
		for v := range f.nv {
			VMOVDQU32(row(v), b[v])
		}
		pass()
		for r := range rows {
			for v := range f.nv {
				VMOVDQA64(b[v], sums[r*f.nv+v])
			}
		}
	} else {
		for _, s := range sums {
			f.clear(s)
		}
	}
	step := func(u int) {
		for v := range f.nv {
			VMOVUPS(row(v), b[v])
		}
		pass()
		for r := range rows {
			at := operand.Mem{Base: a[r/3], Disp: u * f.size}
			if r%3 > 0 {
				at.Index, at.Scale = lda, uint8(r%3)
			}
			av := bcast[r%len(bcast)]
			f.broadcast(at, av)
			for v := range f.nv {
				if k := r*f.nv + v; f.temps == 0 {
					vpdpbusd(b[v], av, sums[k])
				} else {
					madd(b[v], av, temps[k%f.temps], sums[k])
				}
			}
		}
	}
	MOVQ(frame("words"), n)
	SHRQ(operand.Imm(2), n)
	JZ(operand.LabelRef("rest"))
	Label("four")
	for u := range 4 {
		step(u)
	}
	advance(a, 4*f.size)
	DECQ(n)
	JNZ(operand.LabelRef("four"))
	Label("rest")
	MOVQ(frame("words"), n)
	ANDQ(operand.Imm(3), n)
	JZ(operand.LabelRef("scale"))
	Label("one")
	step(0)
	advance(a, f.size)
	DECQ(n)
	JNZ(operand.LabelRef("one"))

	Label("scale")
	for v := range f.nv {
		VMOVUPS(row(v), b[v])
	}
	pass()
	MOVQ(cp, c)
	MOVQ(sp, s)
	ADDQ(operand.Imm(4), sp)
	CMPQ(frame("acc"), operand.Imm(0))
	JEQ(operand.LabelRef("first"))
	finish := func(last func(b reg.VecPhysical, at operand.Mem, sum reg.VecPhysical)) {
		for r := range rows {
			by := bcast[r%len(bcast)]
			VBROADCASTSS(operand.Mem{Base: s}, by)
			for v := range f.nv {
				sum, at := sums[r*f.nv+v], operand.Mem{Base: c, Disp: v * f.vec}
				VCVTDQ2PS(sum, sum)
				VMULPS(by, sum, sum)
				last(b[v], at, sum)
				VMOVUPS(sum, at)
			}
			if r+1 < rows {
				ADDQ(ldc, c)
				ADDQ(lda, s)
			}
		}
	}
	finish(func(b reg.VecPhysical, at operand.Mem, sum reg.VecPhysical) { VFMADD213PS(at, b, sum) })
	DECQ(frame("blocks"))
	JNZ(operand.LabelRef("block"))
	JMP(operand.LabelRef("done"))
	Label("first")
	finish(func(b reg.VecPhysical, _ operand.Mem, sum reg.VecPhysical) { VMULPS(b, sum, sum) })
	MOVQ(operand.I32(1), frame("acc"))
	DECQ(frame("blocks"))
	JNZ(operand.LabelRef("block"))
	Label("done")
	VZEROUPPER()
	RET()
}

// blockCodes writes the loop from quantized numbers to codes.
func (w width) blockCodes() {
	name, doc := "vecBlockCodes_"+w.name, "bytes, plus shift"
	if !w.z() {
		doc = "int16; shift is 0"
	}
	TEXT(name, NOSPLIT, "func(dst *byte, x *float32, by *float32, count int, size int, shift int)")
	Doc(name + " writes x·by rounded, for count blocks of size elements, a multiple of 16, with a by each, as " + doc + ".")
	Pragma("noescape")
	dst, x, by := Load(Param("dst"), GP64()), Load(Param("x"), GP64()), Load(Param("by"), GP64())
	count, size := Load(Param("count"), GP64()), Load(Param("size"), GP64())
	n, factor := GP64(), w.reg()
	var shift vv
	if w.z() {
		shift = w.reg()
		a, err := Param("shift").Resolve()
		if err != nil {
			panic(err)
		}
		VPBROADCASTD(a.Addr, shift)
	}
	Label("block")
	VBROADCASTSS(operand.Mem{Base: by}, factor)
	ADDQ(operand.Imm(4), by)
	MOVQ(size, n)
	Label("elements")
	var v []vv
	for off := 0; off < 64; off += w.bytes {
		r := w.reg()
		VMULPS(operand.Mem{Base: x, Disp: off}, factor, r)
		VCVTPS2DQ(r, r)
		v = append(v, r)
	}
	ADDQ(operand.Imm(64), x)
	if w.z() {
		b := XMM()
		VPADDD(shift, v[0], v[0])
		VPMOVDB(v[0], b)
		VMOVUPS(b, operand.Mem{Base: dst})
		ADDQ(operand.Imm(16), dst)
	} else {
		VPACKSSDW(v[1], v[0], v[0])           // 0-3 8-11 | 4-7 12-15
		VPERMQ(operand.Imm(0xd8), v[0], v[0]) // 0-3 4-7 | 8-11 12-15
		VMOVUPS(v[0], operand.Mem{Base: dst})
		ADDQ(operand.Imm(32), dst)
	}
	SUBQ(operand.Imm(16), n)
	JNZ(operand.LabelRef("elements"))
	DECQ(count)
	JNZ(operand.LabelRef("block"))
	VZEROUPPER()
	RET()
}

// blockTry writes the loop that looks whether the numbers of a block are codes times a Δ.
func (w width) blockTry() {
	per, lanes := 4, w.lanes()
	if !w.z() {
		per = 2
	}
	TEXT("vecBlockTry_"+w.name, NOSPLIT, "func(out *int32, x *float32, by *float32, step *float32, sums *int32, ld int, words int) (bad int)")
	Doc(fmt.Sprintf("vecBlockTry_%s takes words times %d numbers of each of %d columns, rows ld bytes apart, to codes x·by in words of", w.name, per, lanes),
		"out, rows as far apart, and their sum, and returns a bit for each column where codes times step are not the numbers.")
	Pragma("noescape")
	out, x := Load(Param("out"), GP64()), Load(Param("x"), GP64())
	by, step, sums := Load(Param("by"), GP64()), Load(Param("step"), GP64()), Load(Param("sums"), GP64())
	ld, words := Load(Param("ld"), GP64()), Load(Param("words"), GP64())
	factor, delta, sum, word, bad := w.reg(), w.reg(), w.zero(), w.reg(), w.zero()
	VMOVUPS(operand.Mem{Base: by}, factor)
	VMOVUPS(operand.Mem{Base: step}, delta)
	low := w.set(bits(1<<(32/per) - 1))
	badK := K()
	if w.z() {
		KXORW(badK, badK, badK)
	}
	Label("words")
	for i := range per {
		v, c, back := w.reg(), w.reg(), w.reg()
		VMOVUPS(operand.Mem{Base: x}, v)
		ADDQ(ld, x)
		VMULPS(factor, v, c)
		VCVTPS2DQ(c, c)
		VCVTDQ2PS(c, back)
		VMULPS(delta, back, back)
		if w.z() {
			k := K()
			VCMPPS(operand.Imm(4), v, back, k)
			KORW(k, badK, badK)
		} else {
			VCMPPS(operand.Imm(4), v, back, back)
			VORPS(back, bad, bad)
		}
		VPADDD(c, sum, sum)
		if i < per-1 {
			VANDPS(low, c, c)
		}
		if i == 0 {
			VMOVAPS(c, word)
			continue
		}
		VPSLLD(operand.Imm(uint64(i*32/per)), c, c)
		VORPS(c, word, word)
	}
	VMOVUPS(word, operand.Mem{Base: out})
	ADDQ(ld, out)
	DECQ(words)
	JNZ(operand.LabelRef("words"))
	VMOVUPS(sum, operand.Mem{Base: sums})
	mask := GP64() // its upper half becomes zero
	if w.z() {
		KMOVW(badK, mask.As32())
	} else {
		VMOVMSKPS(bad, mask.As32())
	}
	Store(mask, ReturnIndex(0))
	VZEROUPPER()
	RET()
}
