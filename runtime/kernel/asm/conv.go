package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets of the fields of convTile, convVec and convSeg in runtime/kernel; conv_tile.go there asserts them.
const (
	tileA    = 0
	tileLda  = 8
	tileOffs = 16
	tileK    = 24
	tileSrc  = 32
	tileVecs = 40
	tileDst  = 48
	tileLdc  = 56
	tileAcc  = 64
	tileBias = 72
	tileRes  = 80
	tileAct  = 88
	tileLo   = 96
	tileHi   = 100
	tileOff  = 104
	tileMul  = 112
	tileN    = 120

	vecSrc  = 0
	vecN    = 8
	vecSegs = 16
	vecSize = 88
	segOff  = 0
	segMask = 8
	segLane = 16
	segSize = 24
	maxSegs = 3
)

// convolutions writes the tiles of convolutions: products whose right-hand side is read where it lies, each row of it at an
// offset of its own, and whose results get their bias, residual and activation in the registers.
func convolutions() {
	for _, c := range []struct {
		w      width
		regs   []reg.VecPhysical
		nv, mr int
	}{
		{widths[0], zs, 4, 6}, {widths[0], zs, 3, 9}, {widths[0], zs, 2, 9}, {widths[0], zs, 1, 9},
		{widths[1], ys, 3, 4}, {widths[1], ys, 2, 4}, {widths[1], ys, 1, 4},
	} {
		for rows := 1; rows <= c.mr; rows++ {
			(&convKernel{w: c.w, f: &family{elem: "float32", size: 4, vec: c.w.bytes, mul: fma}, rows: rows, nv: c.nv}).emit(c.regs)
		}
	}
	for nv := 1; nv <= 3; nv++ {
		for rows := 1; rows <= 9; rows++ {
			f := &family{elem: "int32", size: 4, vec: 64, mul: func(b, a, _, acc reg.VecPhysical) { vpdpbusd(a, b, acc) }}
			(&convKernel{w: widths[0], f: f, rows: rows, nv: nv}).emit(zs)
		}
		for rows := 1; rows <= 3; rows++ {
			(&convKernel{w: widths[1], f: &family{elem: "int32", size: 4, vec: 32, mul: madd, temps: 2}, rows: rows, nv: nv}).emit(ys)
		}
	}
	planes()
}

type convKernel struct {
	w        width
	f        *family
	rows, nv int
	sums     []reg.VecPhysical // row by row
	free     []reg.VecPhysical // what the sums leave
	ldc      reg.GPVirtual
}

func (c *convKernel) emit(regs []reg.VecPhysical) {
	kind := ""
	if c.f.elem == "int32" {
		kind = "Int"
	}
	name := fmt.Sprintf("conv%s%dx%d_%s", kind, c.rows, c.nv, c.w.name)
	TEXT(name, NOSPLIT, "func(t *byte)")
	Doc(fmt.Sprintf("%s computes runs of %d output channels at %d vectors of positions; see convTile.", name, c.rows, c.nv))
	Pragma("noescape")
	Label("run")
	c.sums, c.free = regs[:c.rows*c.nv], regs[c.rows*c.nv:]
	for _, s := range c.sums {
		c.f.clear(s)
	}
	c.prefetch()
	c.products()
	t, field := tileFields()
	vecs := field(tileVecs)
	c.ldc = field(tileLdc)
	if kind != "" {
		c.scale(field(tileOff), field(tileMul))
	}
	c.add("acc", field(tileAcc), vecs)
	bias := field(tileBias)
	TESTQ(bias, bias)
	JZ(operand.LabelRef("biased"))
	for r := range c.rows {
		VBROADCASTSS(operand.Mem{Base: bias, Disp: 4 * r}, c.free[0])
		for v := range c.nv {
			s := c.sums[r*c.nv+v]
			VADDPS(c.free[0], s, s)
		}
	}
	Label("biased")
	c.add("res", field(tileRes), vecs)
	c.activate(t)
	c.store(field(tileDst), vecs)
	c.next(kind != "")
	VZEROUPPER()
	RET()
}

// next moves the tile on by its rows, and goes back to the start as long as there are runs to do.
func (c *convKernel) next(ints bool) {
	t := Load(Param("t"), GP64())
	DECQ(operand.Mem{Base: t, Disp: tileN})
	JZ(operand.LabelRef("end"))
	by := GP64()
	move := func(stride int, fields ...int) {
		MOVQ(operand.Mem{Base: t, Disp: stride}, by)
		IMUL3Q(operand.Imm(uint64(c.rows)), by, by)
		for _, f := range fields {
			ADDQ(by, operand.Mem{Base: t, Disp: f})
		}
	}
	given := func(field int, add operand.Op) {
		skip := fmt.Sprintf("no%d", field)
		CMPQ(operand.Mem{Base: t, Disp: field}, operand.Imm(0))
		JEQ(operand.LabelRef(skip))
		ADDQ(add, operand.Mem{Base: t, Disp: field})
		Label(skip)
	}
	move(tileLda, tileA)
	move(tileLdc, tileDst)
	given(tileAcc, by)
	given(tileRes, by)
	given(tileBias, operand.Imm(uint64(4*c.rows)))
	if ints {
		ADDQ(operand.Imm(uint64(4*c.rows)), operand.Mem{Base: t, Disp: tileOff})
		given(tileMul, operand.Imm(uint64(4*c.rows)))
	}
	JMP(operand.LabelRef("run"))
	Label("end")
}

// prefetch asks for the memory of the results, which are wanted when the sums are done. Stores go to memory in order: where
// they miss the cache each would wait for the one before.
func (c *convKernel) prefetch() {
	t := Load(Param("t"), GP64())
	vecs, ldc, at := GP64(), GP64(), GP64()
	MOVQ(operand.Mem{Base: t, Disp: tileVecs}, vecs)
	MOVQ(operand.Mem{Base: t, Disp: tileLdc}, ldc)
	for v := range c.nv {
		MOVQ(operand.Mem{Base: t, Disp: tileDst}, at)
		ADDQ(operand.Mem{Base: vecs, Disp: v*vecSize + vecSegs + segOff}, at)
		for r := range c.rows {
			PREFETCHT0(operand.Mem{Base: at})
			if v == c.nv-1 {
				PREFETCHT0(operand.Mem{Base: at, Disp: c.w.bytes - 1})
			}
			if r+1 < c.rows {
				ADDQ(ldc, at)
			}
		}
	}
}

// scale makes numbers of sums of integer products: plus a row's offset, times its factor; without factors they stay integers.
func (c *convKernel) scale(off, factor reg.Register) {
	for r := range c.rows {
		c.f.broadcast(operand.Mem{Base: off, Disp: 4 * r}, c.free[0])
		for v := range c.nv {
			s := c.sums[r*c.nv+v]
			VPADDD(c.free[0], s, s)
		}
	}
	TESTQ(factor, factor)
	JZ(operand.LabelRef("scaled"))
	for r := range c.rows {
		VBROADCASTSS(operand.Mem{Base: factor, Disp: 4 * r}, c.free[0])
		for v := range c.nv {
			s := c.sums[r*c.nv+v]
			VCVTDQ2PS(s, s)
			VMULPS(c.free[0], s, s)
		}
	}
	Label("scaled")
}

// tileFields loads the address of the tile, and its fields by their offset.
func tileFields() (t reg.Register, field func(off int) reg.GPVirtual) {
	t = Load(Param("t"), GP64())
	return t, func(off int) reg.GPVirtual {
		r := GP64()
		MOVQ(operand.Mem{Base: t, Disp: off}, r)
		return r
	}
}

// products sums over the contraction axis, two steps at a time. The weights of the tile below are asked for on the way: its rows are
// too far apart, and too short, for the processor to foresee.
func (c *convKernel) products() {
	t, field := tileFields()
	lda := field(tileLda)
	a := []reg.GPVirtual{field(tileA)}
	for r := 3; r < c.rows; r += 3 {
		p := GP64()
		LEAQ(operand.Mem{Base: a[len(a)-1], Index: lda, Scale: 2}, p)
		ADDQ(lda, p)
		a = append(a, p)
	}
	offs, b, k := field(tileOffs), c.sources(t), field(tileK)
	bv, temps, bcast := c.free[:c.nv], c.free[c.nv:c.nv+c.f.temps], c.free[c.nv+c.f.temps:]
	if len(bcast) > 4 {
		bcast = bcast[:4]
	}
	step := func(u int) {
		off := GP64()
		MOVQ(operand.Mem{Base: offs, Disp: 8 * u}, off)
		for v := range c.nv {
			VMOVUPS(operand.Mem{Base: b[v], Index: off, Scale: 1}, bv[v])
		}
		for r := range c.rows {
			at := operand.Mem{Base: a[r/3], Disp: 4 * u}
			if r%3 > 0 {
				at.Index, at.Scale = lda, uint8(r%3)
			}
			av := bcast[r%len(bcast)]
			c.f.broadcast(at, av)
			for v := range c.nv {
				var tmp reg.VecPhysical
				if c.f.temps > 0 {
					tmp = temps[(r*c.nv+v)%c.f.temps]
				}
				c.f.mul(bv[v], av, tmp, c.sums[r*c.nv+v])
			}
		}
	}
	advance := func(n int) {
		for _, p := range a {
			ADDQ(operand.Imm(uint64(4*n)), p)
		}
		ADDQ(operand.Imm(uint64(8*n)), offs)
	}
	below, count := GP64(), GP64()
	IMUL3Q(operand.Imm(uint64(c.rows)), lda, below)
	ADDQ(a[0], below)
	SUBQ(operand.Imm(16), k) // a cache line of each row
	JLT(operand.LabelRef("few"))
	Label("line")
	MOVQ(operand.U32(8), count)
	Label("pair")
	PREFETCHT1(operand.Mem{Base: below})
	ADDQ(lda, below)
	step(0)
	step(1)
	advance(2)
	DECQ(count)
	JNZ(operand.LabelRef("pair"))
	if c.rows > 8 {
		PREFETCHT1(operand.Mem{Base: below})
	}
	MOVQ(lda, count)
	SHLQ(operand.Imm(3), count)
	SUBQ(count, below)
	ADDQ(operand.Imm(64), below)
	SUBQ(operand.Imm(16), k)
	JGE(operand.LabelRef("line"))
	Label("few")
	ADDQ(operand.Imm(16), k)
	SUBQ(operand.Imm(2), k)
	JLT(operand.LabelRef("odd"))
	Label("two")
	step(0)
	step(1)
	advance(2)
	SUBQ(operand.Imm(2), k)
	JGE(operand.LabelRef("two"))
	Label("odd")
	ADDQ(operand.Imm(2), k)
	JZ(operand.LabelRef("summed"))
	step(0)
	Label("summed")
}

// sources returns where each vector lies in a row of the input.
func (c *convKernel) sources(t reg.Register) []reg.GPVirtual {
	vecs := GP64()
	MOVQ(operand.Mem{Base: t, Disp: tileVecs}, vecs)
	var b []reg.GPVirtual
	for v := range c.nv {
		p := GP64()
		MOVQ(operand.Mem{Base: t, Disp: tileSrc}, p)
		ADDQ(operand.Mem{Base: vecs, Disp: v*vecSize + vecSrc}, p)
		b = append(b, p)
	}
	return b
}

// store writes the sums to where they belong.
func (c *convKernel) store(dst, vecs reg.Register) {
	c.segments("out", dst, vecs, func(m operand.Mem, mask reg.Register, s reg.VecPhysical) {
		if c.w.z() {
			VMOVUPS(s, mask, m)
		} else {
			VMASKMOVPS(s, mask, m)
		}
	})
}

// segments calls body for each vector of each segment, with where it lies behind p and its mask.
func (c *convKernel) segments(label string, p, vecs reg.Register, body func(m operand.Mem, mask reg.Register, s reg.VecPhysical)) {
	n, at, lanes := GP64(), GP64(), GP64()
	var mask reg.Register = reg.K1
	if !c.w.z() {
		mask = c.free[0]
	}
	for v := range c.nv {
		end := fmt.Sprintf("%s%d", label, v)
		MOVQ(operand.Mem{Base: vecs, Disp: v*vecSize + vecN}, n)
		for s := range maxSegs {
			if s > 0 {
				CMPQ(n, operand.Imm(uint64(s)))
				JLE(operand.LabelRef(end))
			}
			seg := v*vecSize + vecSegs + s*segSize
			MOVQ(operand.Mem{Base: vecs, Disp: seg + segOff}, at)
			ADDQ(p, at)
			if c.w.z() {
				KMOVW(operand.Mem{Base: vecs, Disp: seg + segMask}, reg.K1)
			} else {
				MOVQ(operand.Mem{Base: vecs, Disp: seg + segLane}, lanes)
				VMOVUPS(operand.Mem{Base: lanes}, mask)
			}
			for r := range c.rows {
				body(operand.Mem{Base: at}, mask, c.sums[r*c.nv+v])
				if r+1 < c.rows {
					ADDQ(c.ldc, at)
				}
			}
		}
		Label(end)
	}
}

// add adds what lies behind p to the sums; nothing where p is nil.
func (c *convKernel) add(label string, p, vecs reg.Register) {
	TESTQ(p, p)
	JZ(operand.LabelRef(label + "Done"))
	c.segments(label, p, vecs, func(m operand.Mem, mask reg.Register, s reg.VecPhysical) {
		if c.w.z() {
			VADDPS(m, s, mask, s)
			return
		}
		tmp := c.free[1]
		VMASKMOVPS(m, mask, tmp)
		VADDPS(tmp, s, tmp)
		VBLENDVPS(mask, tmp, s, s)
	})
	Label(label + "Done")
}

// activate applies the activation: 1 is Relu, 2 Clip; the arithmetic is vecRelu's and vecClip's.
func (c *convKernel) activate(t reg.Register) {
	act := GP64()
	MOVQ(operand.Mem{Base: t, Disp: tileAct}, act)
	TESTQ(act, act)
	JZ(operand.LabelRef("active"))
	lo, hi := c.free[0], c.free[1]
	CMPQ(act, operand.Imm(2))
	JEQ(operand.LabelRef("clip"))
	c.f.clear(lo)
	for _, s := range c.sums {
		VMAXPS(s, lo, s)
		VADDPS(lo, s, s)
	}
	JMP(operand.LabelRef("active"))
	Label("clip")
	VBROADCASTSS(operand.Mem{Base: t, Disp: tileLo}, lo)
	VBROADCASTSS(operand.Mem{Base: t, Disp: tileHi}, hi)
	for _, s := range c.sums {
		VMAXPS(s, lo, s)
		VMINPS(s, hi, s)
	}
	Label("active")
}
