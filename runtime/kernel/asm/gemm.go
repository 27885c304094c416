package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// zs and ys are the vector registers by number. They are assigned by hand: the tiles fill the register file.
var (
	zs = []reg.VecPhysical{reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11,
		reg.Z12, reg.Z13, reg.Z14, reg.Z15, reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24,
		reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31}
	ys = []reg.VecPhysical{reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7, reg.Y8, reg.Y9, reg.Y10, reg.Y11,
		reg.Y12, reg.Y13, reg.Y14, reg.Y15}
)

// family describes the kernels of one tile shape.
type family struct {
	name   string // function names are name, then the row count
	elem   string // Go type
	size   int    // of an element, bytes
	vec    int    // bytes of a vector
	mr, nv int    // rows, vectors in a row
	mul    func(b, a, tmp, acc reg.VecPhysical)
	temps  int // registers that mul needs besides

	// bcast, where not nil, is mul with an element of A that is broadcast from memory by the instruction itself. It saves an
	// instruction where a row has its pointer: an index beside it would split it in two again. Every other row takes it, which
	// keeps the loads below what the core can do.
	bcast func(at operand.Op, b, acc reg.VecPhysical)
}

func fma(b, a, _, acc reg.VecPhysical) { VFMADD231PS(b, a, acc) }

// madd multiplies pairs of int16.
func madd(b, a, tmp, acc reg.VecPhysical) {
	VPMADDWD(b, a, tmp)
	VPADDD(tmp, acc, acc)
}

func families() []family {
	fmaAt := func(at operand.Op, b, acc reg.VecPhysical) { VFMADD231PS_BCST(at, b, acc) }
	fmaDAt := func(at operand.Op, b, acc reg.VecPhysical) { VFMADD231PD_BCST(at, b, acc) }
	fmaD := func(b, a, _, acc reg.VecPhysical) { VFMADD231PD(b, a, acc) }
	vnni := func(b, a, _, acc reg.VecPhysical) { vpdpwssd(b, a, acc) }
	return []family{
		{name: "gemm9x48avx512r", elem: "float32", size: 4, vec: 64, mr: 9, nv: 3, mul: fma, bcast: fmaAt},
		{name: "gemm14x32avx512r", elem: "float32", size: 4, vec: 64, mr: 14, nv: 2, mul: fma, bcast: fmaAt},
		{name: "gemm4x24avx2r", elem: "float32", size: 4, vec: 32, mr: 4, nv: 3, mul: fma},
		{name: "gemm14x16avx512d", elem: "float64", size: 8, vec: 64, mr: 14, nv: 2, mul: fmaD, bcast: fmaDAt},
		{name: "gemm6x8avx2d", elem: "float64", size: 8, vec: 32, mr: 6, nv: 2, mul: fmaD},
		{name: "gemm9x48avx512i", elem: "int32", size: 4, vec: 64, mr: 9, nv: 3, mul: vnni},
		{name: "gemm4x16avx2i", elem: "int32", size: 4, vec: 32, mr: 4, nv: 2, mul: madd, temps: 2},
	}
}

func gemm() {
	for _, f := range families() {
		for rows := 1; rows <= f.mr; rows++ {
			f.kernel(rows)
		}
	}
	thin()
	transpose8()
	peak("fmaPeakAVX512", zs)
	peak("fmaPeakAVX2", ys)
}

// registers shares out the vector registers: sums, a row of B, room for products, and up to four for elements of A.
func (f *family) registers(rows int) (sums, b, temps, bcast []reg.VecPhysical) {
	regs := ys
	if f.vec == 64 {
		regs = zs
	}
	take := func(n int) []reg.VecPhysical {
		r := regs[:n]
		regs = regs[n:]
		return r
	}
	sums, b, temps = take(rows*f.nv), take(f.nv), take(f.temps)
	return sums, b, temps, regs[:min(len(regs), 4)]
}

// rowPointers loads a pointer into A for each group of 2 or 3 rows; the others of a group are at it and lda, once or twice.
func rowPointers(rows, group int) (a []reg.GPVirtual, lda reg.Register) {
	lda = Load(Param("lda"), GP64())
	a = []reg.GPVirtual{Load(Param("ap"), GP64()).(reg.GPVirtual)}
	for r := group; r < rows; r += group {
		p := GP64()
		LEAQ(operand.Mem{Base: a[len(a)-1], Index: lda, Scale: 2}, p)
		if group == 3 {
			ADDQ(lda, p)
		}
		a = append(a, p)
	}
	return a, lda
}

// advance moves row pointers on by bytes.
func advance(a []reg.GPVirtual, bytes int) {
	for _, p := range a {
		ADDQ(operand.Imm(uint64(bytes)), p)
	}
}

func (f *family) kernel(rows int) {
	name := fmt.Sprintf("%s%d", f.name, rows)
	TEXT(name, NOSPLIT, fmt.Sprintf("func(ap *%[1]s, lda int, bp *%[1]s, ldb int, cp *%[1]s, ldc int, k int, acc int)", f.elem))
	Doc(fmt.Sprintf("%s computes %d rows of %d columns; see kernFunc.", name, rows, f.nv*f.vec/f.size))
	Pragma("noescape")

	sums, b, temps, bcast := f.registers(rows)

	group := 3
	if f.bcast != nil {
		group = 2
	}
	a, lda := rowPointers(rows, group)
	bp := Load(Param("bp"), GP64())
	ldb := Load(Param("ldb"), GP64())

	// C will be wanted when the loop ends.
	c := Load(Param("cp"), GP64())
	ldc := Load(Param("ldc"), GP64())
	for r := range rows {
		for off := 0; off < f.nv*f.vec; off += 64 {
			PREFETCHT0(operand.Mem{Base: c, Disp: off})
		}
		if r+1 < rows {
			ADDQ(ldc, c)
		}
	}
	for _, s := range sums {
		f.clear(s)
	}

	step := func(u int) {
		for v := range f.nv {
			VMOVUPS(operand.Mem{Base: bp, Disp: v * f.vec}, b[v])
		}
		ADDQ(ldb, bp)
		for r := range rows {
			at := operand.Mem{Base: a[r/group], Disp: u * f.size}
			if r%group > 0 {
				at.Index, at.Scale = lda, uint8(r%group)
			} else if f.bcast != nil {
				for v := range f.nv {
					f.bcast(at, b[v], sums[r*f.nv+v])
				}
				continue
			}
			av := bcast[r%len(bcast)]
			f.broadcast(at, av)
			for v := range f.nv {
				var tmp reg.VecPhysical
				if f.temps > 0 {
					tmp = temps[(r*f.nv+v)%f.temps]
				}
				f.mul(b[v], av, tmp, sums[r*f.nv+v])
			}
		}
	}
	k := Load(Param("k"), GP64())
	n := GP64()
	MOVQ(k, n)
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
	ANDQ(operand.Imm(3), k)
	JZ(operand.LabelRef("out"))
	Label("one")
	step(0)
	advance(a, f.size)
	DECQ(k)
	JNZ(operand.LabelRef("one"))

	Label("out")
	flag := Load(Param("acc"), GP64())
	cp := Load(Param("cp"), GP64())
	ldc = Load(Param("ldc"), GP64())
	TESTQ(flag, flag)
	JZ(operand.LabelRef("store"))
	c = GP64()
	MOVQ(cp, c)
	for r := range rows {
		for v := range f.nv {
			f.add(operand.Mem{Base: c, Disp: v * f.vec}, sums[r*f.nv+v])
		}
		if r+1 < rows {
			ADDQ(ldc, c)
		}
	}
	Label("store")
	for r := range rows {
		for v := range f.nv {
			VMOVUPS(sums[r*f.nv+v], operand.Mem{Base: cp, Disp: v * f.vec})
		}
		if r+1 < rows {
			ADDQ(ldc, cp)
		}
	}
	VZEROUPPER()
	RET()
}

func (f *family) clear(r reg.VecPhysical) {
	if f.vec == 64 {
		VPXORD(r, r, r)
	} else {
		VPXOR(r, r, r)
	}
}

func (f *family) broadcast(at operand.Mem, r reg.VecPhysical) {
	switch f.elem {
	case "float32":
		VBROADCASTSS(at, r)
	case "float64":
		VBROADCASTSD(at, r)
	default:
		VPBROADCASTD(at, r)
	}
}

func (f *family) add(at operand.Mem, r reg.VecPhysical) {
	switch f.elem {
	case "float32":
		VADDPS(at, r, r)
	case "float64":
		VADDPD(at, r, r)
	default:
		VPADDD(at, r, r)
	}
}

// peak is a loop of twelve independent chains of fused multiply-adds: the yardstick of the speed test.
func peak(name string, regs []reg.VecPhysical) {
	TEXT(name, NOSPLIT, "func(n int)")
	Doc(name + " does 12·n vector fused multiply-adds on nothing in particular; the speed test measures against it.")
	n := Load(Param("n"), GP64())
	for _, r := range regs[:14] {
		if regs[0] == reg.Z0 {
			VPXORD(r, r, r)
		} else {
			VPXOR(r, r, r)
		}
	}
	Label("loop")
	for _, r := range regs[:12] {
		VFMADD231PS(regs[12], regs[13], r)
	}
	DECQ(n)
	JNZ(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// vpdpwssd is AVX512_VNNI's VPDPWSSD, which avo 0.5.0 does not know: acc += the two products of int16 in each int32.
func vpdpwssd(b, a, acc reg.VecPhysical) {
	Instruction(&ir.Instruction{
		Opcode:   "VPDPWSSD",
		Operands: []operand.Op{b, a, acc},
		Inputs:   []operand.Op{b, a, acc},
		Outputs:  []operand.Op{acc},
	})
}
