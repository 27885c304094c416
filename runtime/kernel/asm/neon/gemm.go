package main

import "fmt"

// family describes the kernels of one tile shape: rows of nv vectors, a multiple of four, of 16 bytes.
type family struct {
	name   string
	elem   string
	size   int // of an element, bytes
	mr, nv int
	one    bool // only the kernel of mr rows
}

func (a *asm) gemm() {
	for _, f := range []family{
		{name: "gemm6x16neonr%d", elem: "float32", size: 4, mr: 6, nv: 4},
		{name: "gemm6x8neond%d", elem: "float64", size: 8, mr: 6, nv: 4},
		{name: "thin%dx96neon", elem: "float32", size: 4, mr: 1, nv: 24, one: true},
		{name: "thin%dx48neon", elem: "float32", size: 4, mr: 2, nv: 12, one: true},
		{name: "thin%dx32neon", elem: "float32", size: 4, mr: 3, nv: 8, one: true},
		{name: "thin%dx16neon", elem: "float32", size: 4, mr: 4, nv: 4, one: true},
	} {
		for rows := 1; rows <= f.mr; rows++ {
			if rows == f.mr || !f.one {
				a.tile(&f, rows)
			}
		}
	}
}

// The registers of a tile: sums from 0, four vectors of B, broadcast elements of A. The rows of A are in R0 to R5.
const (
	tileB     v = 24
	tileA     v = 28
	lda       r = 6
	bp        r = 7
	ldb       r = 8
	at        r = 9
	cp        r = 10
	ldc       r = 11
	k         r = 12
	postIndex   = 31 // in place of a register: by the size of what is moved
)

// quad loads or stores four vectors from d on at n, which goes on by the register step.
func (a *asm) quad(f *family, store bool, d v, n, step r) {
	enc, name := uint32(0x4cc02000), "ld1"
	if store {
		enc, name = 0x4c802000, "st1"
	}
	by := fmt.Sprintf("x%d", step)
	if step == postIndex {
		by = "#64"
	}
	a.word(enc|f.width()<<10|uint32(step)<<16|uint32(n)<<5|uint32(d), "%s {v%d-v%d}, [x%d], %s", name, d, d+3, n, by)
}

// width is the field of the element size in loads: 2 for 4 bytes, 3 for 8.
func (f *family) width() uint32 {
	if f.size == 8 {
		return 3
	}
	return 2
}

// lanesOf writes an instruction on the family's lanes.
func (a *asm) lanesOf(f *family, enc uint32, name string, d, n, m v) {
	if f.size == 4 {
		a.three(enc, name, d, n, m)
		return
	}
	a.word(enc|1<<22|uint32(m)<<16|uint32(n)<<5|uint32(d), "%s v%d.2d, v%d.2d, v%d.2d", name, d, n, m)
}

func (a *asm) tile(f *family, rows int) {
	name := fmt.Sprintf(f.name, rows)
	a.fn(name, fmt.Sprintf("ap *%[1]s, lda int, bp *%[1]s, ldb int, cp *%[1]s, ldc int, k int, acc int", f.elem),
		fmt.Sprintf("computes %d rows of %d columns; see kernFunc.", rows, f.nv*16/f.size))
	sum := func(row, vec int) v { return v(row*f.nv + vec) }
	a.load("ap", 0)
	a.load("lda", lda)
	for row := 1; row < rows; row++ {
		a.op("ADD  R%d, R%d, R%d", lda, row-1, row)
	}
	a.load("bp", bp)
	a.load("ldb", ldb)
	a.load("cp", cp)
	a.load("ldc", ldc)
	a.load("k", k)
	for i := range rows * f.nv {
		a.zero(v(i))
	}
	step := func() {
		a.op("MOVD R%d, R%d", bp, at)
		for g := 0; g < f.nv; g += 4 {
			a.quad(f, false, tileB, at, postIndex)
			for row := range rows {
				x := tileA + v(row%4)
				if g == 0 || rows > 4 {
					a.word(0x4ddfc000|f.width()<<10|uint32(row)<<5|uint32(x), "ld1r {v%d}, [x%d], #%d", x, row, f.size)
				}
				for j := range 4 {
					a.lanesOf(f, 0x4e20cc00, "fmla", sum(row, g+j), tileB+v(j), x)
				}
			}
		}
		a.op("ADD  R%d, R%d", ldb, bp)
	}
	a.label("two")
	a.op("SUBS $2, R%d", k)
	a.op("BLT  rest")
	step()
	step()
	a.op("B    two")
	a.label("rest")
	a.op("ADDS $2, R%d", k)
	a.op("BEQ  out")
	step()
	a.label("out")
	a.load("acc", k)
	a.op("CBZ  R%d, store", k)
	c := r(0)
	a.op("MOVD R%d, R%d", cp, c)
	for row := range rows {
		a.op("MOVD R%d, R%d", c, at)
		for g := 0; g < f.nv; g += 4 {
			a.quad(f, false, tileB, at, postIndex)
			for j := range 4 {
				a.lanesOf(f, 0x4e20d400, "fadd", sum(row, g+j), sum(row, g+j), tileB+v(j))
			}
		}
		a.op("ADD  R%d, R%d", ldc, c)
	}
	a.label("store")
	for row := range rows {
		a.op("MOVD R%d, R%d", cp, at)
		for g := 0; g < f.nv; g += 4 {
			a.quad(f, true, sum(row, g), at, postIndex)
		}
		a.op("ADD  R%d, R%d", ldc, cp)
	}
	a.ret()
}
