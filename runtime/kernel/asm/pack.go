package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// thin writes kernels for few rows and many columns. They read B where it lies, row by row, so the wider a row the
// better; every sum is the same chain as in the tiles.
func thin() {
	for _, w := range widths {
		regs, sums := ys, 12
		if w.z() {
			regs, sums = zs, 24
		}
		for rows := 1; rows <= 4; rows++ {
			nv := sums / rows
			if w.z() && rows == 1 {
				nv = 16
			}
			if !w.z() && rows == 4 {
				nv = 2
			}
			w.thinKernel(rows, nv, regs)
		}
	}
}

func (w width) thinKernel(rows, nv int, regs []reg.VecPhysical) {
	f := &family{elem: "float32", size: 4, vec: w.bytes}
	name := fmt.Sprintf("thin%dx%d_%s", rows, nv*w.lanes(), w.name)
	TEXT(name, NOSPLIT, "func(ap *float32, lda int, bp *float32, ldb int, cp *float32, ldc int, k int, acc int)")
	Doc(fmt.Sprintf("%s computes %d rows of %d columns; see kernFunc.", name, rows, nv*w.lanes()))
	Pragma("noescape")
	sums, a, b := regs[:rows*nv], regs[rows*nv:rows*nv+rows], regs[rows*nv+rows:]
	ap, lda := Load(Param("ap"), GP64()), Load(Param("lda"), GP64())
	lda3 := GP64()
	LEAQ(operand.Mem{Base: lda, Index: lda, Scale: 2}, lda3)
	bp, ldb := Load(Param("bp"), GP64()), Load(Param("ldb"), GP64())
	cp, ldc := Load(Param("cp"), GP64()), Load(Param("ldc"), GP64())
	k := Load(Param("k"), GP64())
	for _, s := range sums {
		f.clear(s)
	}
	Label("loop")
	for r := range rows {
		at := operand.Mem{Base: ap}
		switch r {
		case 1, 2:
			at.Index, at.Scale = lda, uint8(r)
		case 3:
			at.Index, at.Scale = lda3, 1
		}
		VBROADCASTSS(at, a[r])
	}
	for v := range nv {
		at := operand.Mem{Base: bp, Disp: v * w.bytes}
		if rows == 1 {
			VFMADD231PS(at, a[0], sums[v])
			continue
		}
		t := b[v%min(len(b), 4)]
		VMOVUPS(at, t)
		for r := range rows {
			VFMADD231PS(t, a[r], sums[r*nv+v])
		}
	}
	ADDQ(operand.Imm(4), ap)
	ADDQ(ldb, bp)
	DECQ(k)
	JNZ(operand.LabelRef("loop"))
	flag := Load(Param("acc"), GP64())
	for r := range rows {
		skip := fmt.Sprintf("store%d", r)
		TESTQ(flag, flag)
		JZ(operand.LabelRef(skip))
		for v := range nv {
			VADDPS(operand.Mem{Base: cp, Disp: v * w.bytes}, sums[r*nv+v], sums[r*nv+v])
		}
		Label(skip)
		for v := range nv {
			VMOVUPS(sums[r*nv+v], operand.Mem{Base: cp, Disp: v * w.bytes})
		}
		if r+1 < rows {
			ADDQ(ldc, cp)
		}
	}
	VZEROUPPER()
	RET()
}

// transpose8 writes the transposition of eight rows, eight columns at a time; both vector levels use it.
func transpose8() {
	TEXT("transpose8", NOSPLIT, "func(dst *float32, ldd int, x *float32, ldx int, n int)")
	Doc("transpose8 sets the n rows of 8 elements at dst to the n columns of the 8 rows at x; n is a multiple of 8, strides are in bytes.")
	Pragma("noescape")
	rows := func(ptr, ld string) (func(i int) operand.Mem, func(step func(p reg.Register))) {
		l := Load(Param(ld), GP64())
		base := []reg.Register{Load(Param(ptr), GP64()), GP64(), GP64()}
		for i := range 2 {
			LEAQ(operand.Mem{Base: base[i], Index: l, Scale: 2}, base[i+1])
			ADDQ(l, base[i+1])
		}
		at := func(i int) operand.Mem {
			m := operand.Mem{Base: base[i/3]}
			if i%3 > 0 {
				m.Index, m.Scale = l, uint8(i%3)
			}
			return m
		}
		return at, func(step func(p reg.Register)) {
			for _, p := range base {
				step(p)
			}
		}
	}
	src, eachSrc := rows("x", "ldx")
	dst, eachDst := rows("dst", "ldd")
	n := Load(Param("n"), GP64())
	ldd8 := Load(Param("ldd"), GP64())
	SHLQ(operand.Imm(3), ldd8)
	Label("loop")
	SUBQ(operand.Imm(8), n)
	JLT(operand.LabelRef("done"))
	var t [8]reg.VecVirtual
	for i := 0; i < 8; i += 2 {
		r := YMM()
		t[i], t[i+1] = YMM(), YMM()
		VMOVUPS(src(i), r)
		VUNPCKLPS(src(i+1), r, t[i])
		VUNPCKHPS(src(i+1), r, t[i+1])
	}
	var u [8]reg.VecVirtual
	for i := 0; i < 8; i += 4 {
		for j := range 2 {
			u[i+2*j], u[i+2*j+1] = YMM(), YMM()
			VSHUFPS(operand.Imm(0x44), t[i+j+2], t[i+j], u[i+2*j])
			VSHUFPS(operand.Imm(0xee), t[i+j+2], t[i+j], u[i+2*j+1])
		}
	}
	for i := range 4 {
		lo := YMM()
		VPERM2F128(operand.Imm(0x20), u[i+4], u[i], lo)
		VMOVUPS(lo, dst(i))
		VPERM2F128(operand.Imm(0x31), u[i+4], u[i], lo)
		VMOVUPS(lo, dst(i+4))
	}
	eachSrc(func(p reg.Register) { ADDQ(operand.Imm(32), p) })
	eachDst(func(p reg.Register) { ADDQ(ldd8, p) })
	JMP(operand.LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	RET()
}
