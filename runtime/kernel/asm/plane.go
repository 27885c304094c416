package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// planes writes the loops over the planes of single channels: depthwise convolutions and maximum pooling, and what lays a
// plane out for either.
func planes() {
	for _, w := range widths {
		regs := zs
		if !w.z() {
			regs = ys
		}
		// Six vectors at once: enough chains to keep the multipliers busy.
		for _, nv := range []int{3, 6} {
			f := &family{elem: "float32", size: 4, vec: w.bytes}
			(&convKernel{w: w, f: f, rows: 1, nv: nv}).depthwise(regs)
			(&convKernel{w: w, f: f, rows: 1, nv: nv}).maxima(regs)
		}
	}
	copyRows()
	splitRows()
}

// depthwise emits the loop over the vectors of one channel. Each value of the input is wanted once, so that the multiplications
// read it themselves.
func (c *convKernel) depthwise(regs []reg.VecPhysical) {
	name := fmt.Sprintf("convPlane%d_%s", c.nv, c.w.name)
	TEXT(name, NOSPLIT, "func(t *byte)")
	Doc(fmt.Sprintf("%s computes one output channel at runs of %d vectors of positions; see convTile.", name, c.nv))
	Pragma("noescape")
	c.sums, c.free = regs[:c.nv], regs[c.nv:]
	Label("run")
	for _, s := range c.sums {
		c.f.clear(s)
	}
	t, field := tileFields()
	a, offs, b, i, off := field(tileA), field(tileOffs), c.sources(t), GP64(), GP64()
	XORQ(i, i)
	Label("tap")
	MOVQ(operand.Mem{Base: offs, Index: i, Scale: 8}, off)
	VBROADCASTSS(operand.Mem{Base: a, Index: i, Scale: 4}, c.free[0])
	for v, s := range c.sums {
		VFMADD231PS(operand.Mem{Base: b[v], Index: off, Scale: 1}, c.free[0], s)
	}
	INCQ(i)
	CMPQ(i, operand.Mem{Base: t, Disp: tileK})
	JLT(operand.LabelRef("tap"))
	vecs := field(tileVecs)
	bias := field(tileBias)
	TESTQ(bias, bias)
	JZ(operand.LabelRef("biased"))
	VBROADCASTSS(operand.Mem{Base: bias}, c.free[0])
	for _, s := range c.sums {
		VADDPS(c.free[0], s, s)
	}
	Label("biased")
	c.add("res", field(tileRes), vecs)
	c.activate(t)
	c.store(field(tileDst), vecs)
	c.nextVectors()
}

// nextVectors ends a loop over runs of vectors.
func (c *convKernel) nextVectors() {
	t := Load(Param("t"), GP64())
	DECQ(operand.Mem{Base: t, Disp: tileN})
	JZ(operand.LabelRef("end"))
	ADDQ(operand.U32(c.nv*vecSize), operand.Mem{Base: t, Disp: tileVecs})
	JMP(operand.LabelRef("run"))
	Label("end")
	VZEROUPPER()
	RET()
}

// maxima emits the loop of maximum pooling over the vectors of one channel; of values and NaN as vecMaximum.
func (c *convKernel) maxima(regs []reg.VecPhysical) {
	name := fmt.Sprintf("pool%d_%s", c.nv, c.w.name)
	TEXT(name, NOSPLIT, "func(t *byte)")
	Doc(fmt.Sprintf("%s takes maxima at runs of %d vectors of positions; see convTile, of which it reads offs, k, src, vecs, dst and runs.", name, c.nv))
	Pragma("noescape")
	c.sums, c.free = regs[:c.nv], regs[c.nv:]
	Label("run")
	t, field := tileFields()
	offs, b, k := field(tileOffs), c.sources(t), field(tileK)
	off := GP64()
	MOVQ(operand.Mem{Base: offs}, off)
	for v, s := range c.sums {
		VMOVUPS(operand.Mem{Base: b[v], Index: off, Scale: 1}, s)
	}
	JMP(operand.LabelRef("next"))
	Label("loop")
	MOVQ(operand.Mem{Base: offs}, off)
	for v, s := range c.sums {
		x, y := c.free[v%2*2], c.free[v%2*2+1]
		VMOVUPS(operand.Mem{Base: b[v], Index: off, Scale: 1}, x)
		VMAXPS(x, s, y)
		VMAXPS(s, x, s)
		VORPS(y, s, s)
	}
	Label("next")
	ADDQ(operand.Imm(8), offs)
	DECQ(k)
	JNZ(operand.LabelRef("loop"))
	c.store(field(tileDst), field(tileVecs))
	c.nextVectors()
}

// copyRows copies rows; both vector levels use it.
func copyRows() {
	TEXT("copyRows", NOSPLIT, "func(dst *float32, ldd int, x *float32, ldx int, n int, rows int)")
	Doc("copyRows copies rows of n elements; strides are in bytes.")
	Pragma("noescape")
	dst, ldd := Load(Param("dst"), GP64()), Load(Param("ldd"), GP64())
	x, ldx := Load(Param("x"), GP64()), Load(Param("ldx"), GP64())
	n, rows := Load(Param("n"), GP64()), Load(Param("rows"), GP64())
	i, last, v := GP64(), GP64(), YMM()
	MOVQ(n, last)
	SUBQ(operand.Imm(8), last) // where the last vector starts
	JLT(operand.LabelRef("narrow"))
	Label("row")
	XORQ(i, i)
	Label("vector")
	CMPQ(i, last)
	JGE(operand.LabelRef("last"))
	VMOVUPS(operand.Mem{Base: x, Index: i, Scale: 4}, v)
	VMOVUPS(v, operand.Mem{Base: dst, Index: i, Scale: 4})
	ADDQ(operand.Imm(8), i)
	JMP(operand.LabelRef("vector"))
	Label("last")
	VMOVUPS(operand.Mem{Base: x, Index: last, Scale: 4}, v)
	VMOVUPS(v, operand.Mem{Base: dst, Index: last, Scale: 4})
	ADDQ(ldx, x)
	ADDQ(ldd, dst)
	DECQ(rows)
	JNZ(operand.LabelRef("row"))
	VZEROUPPER()
	RET()
	Label("narrow")
	XORQ(i, i)
	Label("element")
	t := GP32()
	MOVL(operand.Mem{Base: x, Index: i, Scale: 4}, t)
	MOVL(t, operand.Mem{Base: dst, Index: i, Scale: 4})
	INCQ(i)
	CMPQ(i, n)
	JLT(operand.LabelRef("element"))
	ADDQ(ldx, x)
	ADDQ(ldd, dst)
	DECQ(rows)
	JNZ(operand.LabelRef("narrow"))
	RET()
}

// splitRows parts elements of even and odd number; both vector levels use it.
func splitRows() {
	TEXT("splitRows", NOSPLIT, "func(even *float32, odd *float32, ldd int, x *float32, ldx int, n int, rows int)")
	Doc("splitRows writes the elements 0, 2, … of each row of n to even, the others to odd; strides are in bytes.")
	Pragma("noescape")
	even, odd, ldd := Load(Param("even"), GP64()), Load(Param("odd"), GP64()), Load(Param("ldd"), GP64())
	x, ldx := Load(Param("x"), GP64()), Load(Param("ldx"), GP64())
	n, rows := Load(Param("n"), GP64()), Load(Param("rows"), GP64())
	i, last := GP64(), GP64() // of even and odd; where the last vector starts
	sixteen := func(i reg.GPVirtual) {
		a, b, e, o := YMM(), YMM(), YMM(), YMM()
		VMOVUPS(operand.Mem{Base: x, Index: i, Scale: 8}, a)
		VMOVUPS(operand.Mem{Base: x, Index: i, Scale: 8, Disp: 32}, b)
		VSHUFPS(operand.Imm(0x88), b, a, e)
		VSHUFPS(operand.Imm(0xdd), b, a, o)
		VPERMPD(operand.Imm(0xd8), e, e)
		VPERMPD(operand.Imm(0xd8), o, o)
		VMOVUPS(e, operand.Mem{Base: even, Index: i, Scale: 4})
		VMOVUPS(o, operand.Mem{Base: odd, Index: i, Scale: 4})
	}
	pairs := func(label string) {
		t := GP32()
		Label(label)
		MOVL(operand.Mem{Base: x, Index: i, Scale: 8}, t)
		MOVL(t, operand.Mem{Base: even, Index: i, Scale: 4})
		LEAQ(operand.Mem{Base: i, Index: i, Scale: 1, Disp: 1}, last)
		CMPQ(last, n)
		JGE(operand.LabelRef(label + "Done"))
		MOVL(operand.Mem{Base: x, Index: i, Scale: 8, Disp: 4}, t)
		MOVL(t, operand.Mem{Base: odd, Index: i, Scale: 4})
		INCQ(i)
		INCQ(last)
		CMPQ(last, n)
		JLT(operand.LabelRef(label))
		Label(label + "Done")
	}
	next := func(row string) {
		ADDQ(ldx, x)
		ADDQ(ldd, even)
		ADDQ(ldd, odd)
		DECQ(rows)
		JNZ(operand.LabelRef(row))
		VZEROUPPER()
		RET()
	}
	CMPQ(n, operand.Imm(16))
	JLT(operand.LabelRef("narrow"))
	Label("row")
	XORQ(i, i)
	MOVQ(n, last)
	SUBQ(operand.Imm(16), last)
	SHRQ(operand.Imm(1), last)
	Label("vector")
	CMPQ(i, last)
	JGE(operand.LabelRef("reach"))
	sixteen(i)
	ADDQ(operand.Imm(8), i)
	JMP(operand.LabelRef("vector"))
	Label("reach")
	sixteen(last)
	LEAQ(operand.Mem{Base: last, Disp: 8}, i)
	LEAQ(operand.Mem{Base: i, Index: i, Scale: 1}, last)
	CMPQ(last, n)
	JGE(operand.LabelRef("even"))
	t := GP32() // an odd number of elements: one is left
	MOVL(operand.Mem{Base: x, Index: i, Scale: 8}, t)
	MOVL(t, operand.Mem{Base: even, Index: i, Scale: 4})
	Label("even")
	next("row")
	Label("narrow")
	XORQ(i, i)
	pairs("pair")
	next("narrow")
}
