package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// winograd writes the transformations of 3×3 convolutions by Winograd's algorithm: of rows and columns of the input, of the
// weights, and of the products.
func winograd() {
	for _, w := range widths {
		w.winogradColumns()
		w.winogradRows()
		for nv := 1; nv <= 3; nv++ {
			w.winogradProducts(nv)
		}
		w.winogradOut()
	}
	winogradFilters()
}

// table is a constant of 16 indices.
func table(name string, at func(i int) int) operand.Mem {
	m := GLOBL(name, 8|16)
	for i := range 16 {
		DATA(4*i, operand.U32(at(i)))
	}
	return m
}

// winogradColumns emits the transformation along rows. A pass of the inner loop takes as many tiles as a vector has lanes, of two
// rows: one of even, one of odd number.
func (w width) winogradColumns() {
	name := "winogradColumns_" + w.name
	TEXT(name, NOSPLIT, "func(d *float32, part int, p *float32, ldp int, pairs int, tiles int)")
	Doc(name + " is winogradColumnsGeneric.")
	Pragma("noescape")
	d, part := Load(Param("d"), GP64()), Load(Param("part"), GP64())
	p, ldp := Load(Param("p"), GP64()), Load(Param("ldp"), GP64())
	pairs, tiles := Load(Param("pairs"), GP64()), Load(Param("tiles"), GP64())
	var even, odd reg.VecVirtual
	if w.z() {
		even, odd = w.set(table("evens", func(i int) int { return 2 * i })), w.set(table("odds", func(i int) int { return 2*i + 1 }))
	}
	// of the even rows, parts 0 and 3; of the odd ones, parts 4 and 7
	to := [4]reg.GPVirtual{GP64(), GP64(), GP64(), GP64()}
	MOVQ(d, to[0])
	LEAQ(operand.Mem{Base: part, Index: part, Scale: 2}, to[1])
	ADDQ(d, to[1])
	LEAQ(operand.Mem{Base: to[0], Index: part, Scale: 4}, to[2])
	LEAQ(operand.Mem{Base: to[1], Index: part, Scale: 4}, to[3])
	at, left, done := GP64(), GP64(), GP64()
	Label("pair")
	MOVQ(p, at)
	MOVQ(tiles, left)
	XORQ(done, done)
	Label("chunk")
	row := func(base reg.Register, index operand.Mem, first, last reg.GPVirtual) {
		in := func(disp int) operand.Mem {
			index.Base, index.Disp = base, disp
			return index
		}
		parted := func(disp int) (e, o reg.VecVirtual) {
			if w.z() {
				e, o = w.reg(), w.reg()
				VMOVUPS(in(disp), e)
				VMOVAPS(e, o)
				b := w.reg()
				VMOVUPS(in(disp+64), b)
				VPERMT2PS(b, even, e)
				VPERMT2PS(b, odd, o)
				return e, o
			}
			a, b := w.reg(), w.reg()
			e, o = w.reg(), w.reg()
			VMOVUPS(in(disp), a)
			VMOVUPS(in(disp+32), b)
			VSHUFPS(operand.Imm(0x88), b, a, e)
			VSHUFPS(operand.Imm(0xdd), b, a, o)
			VPERMPD(operand.Imm(0xd8), e, e)
			VPERMPD(operand.Imm(0xd8), o, o)
			return e, o
		}
		p0, p1 := parted(0)
		p2, p3 := parted(8)
		r := w.reg()
		VSUBPS(p2, p0, p0)
		VMOVUPS(p0, operand.Mem{Base: first, Index: done, Scale: 1})
		tmp := GP64()
		LEAQ(operand.Mem{Base: first, Index: done, Scale: 1}, tmp)
		VADDPS(p2, p1, r)
		VMOVUPS(r, operand.Mem{Base: tmp, Index: part, Scale: 1})
		VSUBPS(p1, p2, p2)
		VMOVUPS(p2, operand.Mem{Base: tmp, Index: part, Scale: 2})
		VSUBPS(p3, p1, p1)
		VMOVUPS(p1, operand.Mem{Base: last, Index: done, Scale: 1})
	}
	row(at, operand.Mem{}, to[0], to[1])
	row(at, operand.Mem{Index: ldp, Scale: 1}, to[2], to[3])
	ADDQ(operand.U32(2*w.bytes), at)
	ADDQ(operand.U32(w.bytes), done)
	SUBQ(operand.U32(w.lanes()), left)
	JG(operand.LabelRef("chunk"))
	for _, r := range to {
		LEAQ(operand.Mem{Base: r, Index: tiles, Scale: 4}, r)
	}
	LEAQ(operand.Mem{Base: p, Index: ldp, Scale: 2}, p)
	DECQ(pairs)
	JNZ(operand.LabelRef("pair"))
	VZEROUPPER()
	RET()
}

// winogradRows emits the transformation along columns.
func (w width) winogradRows() {
	name := "winogradRows_" + w.name
	TEXT(name, NOSPLIT, "func(v *float32, pos int, d *float32, part int, down int, count int)")
	Doc(name + " is winogradRowsGeneric.")
	Pragma("noescape")
	v, pos := Load(Param("v"), GP64()), Load(Param("pos"), GP64())
	d, part, down := Load(Param("d"), GP64()), Load(Param("part"), GP64()), Load(Param("down"), GP64())
	count := Load(Param("count"), GP64())
	at, to := GP64(), GP64()
	four := GP64()
	MOVQ(part, four)
	SHLQ(operand.Imm(2), four)
	fourPos := GP64()
	MOVQ(pos, fourPos)
	SHLQ(operand.Imm(2), fourPos)
	Label("vector")
	MOVQ(d, at)
	MOVQ(v, to)
	for j := range 4 {
		below := GP64()
		LEAQ(operand.Mem{Base: at, Index: down, Scale: 1}, below)
		d0, d1, d2, r := w.reg(), w.reg(), w.reg(), w.reg()
		VMOVUPS(operand.Mem{Base: at}, d0)
		VMOVUPS(operand.Mem{Base: at, Index: four, Scale: 1}, d1)
		VMOVUPS(operand.Mem{Base: below}, d2)
		out := GP64()
		LEAQ(operand.Mem{Base: to, Index: fourPos, Scale: 2}, out)
		VSUBPS(d2, d0, d0)
		VMOVUPS(d0, operand.Mem{Base: to})
		VADDPS(d2, d1, r)
		VMOVUPS(r, operand.Mem{Base: to, Index: fourPos, Scale: 1})
		VSUBPS(d1, d2, d2)
		VMOVUPS(d2, operand.Mem{Base: out})
		VSUBPS(operand.Mem{Base: below, Index: four, Scale: 1}, d1, d1)
		VMOVUPS(d1, operand.Mem{Base: out, Index: fourPos, Scale: 1})
		if j < 3 {
			ADDQ(part, at)
			ADDQ(pos, to)
		}
	}
	ADDQ(operand.U32(w.bytes), d)
	ADDQ(operand.U32(w.bytes), v)
	DECQ(count)
	JNZ(operand.LabelRef("vector"))
	VZEROUPPER()
	RET()
}

// winogradFilters emits the transformation of the weights, a lane for each of eight output channels; both vector levels use it.
func winogradFilters() {
	w := widths[1]
	TEXT("winogradFilters", NOSPLIT, "func(u *float32, pos int, window *float32, stride int, by *float32, count int)")
	Doc("winogradFilters transforms windows; see winogradKernels.")
	Pragma("noescape")
	u, pos, g := Load(Param("u"), GP64()), Load(Param("pos"), GP64()), Load(Param("window"), GP64())
	stride, by, count := GP64(), Load(Param("by"), GP64()), Load(Param("count"), GP64())
	Load(Param("stride"), stride)
	half := num(0.5)
	index := w.reg()
	VMOVD(stride.As32(), index.AsX())
	VPBROADCASTD(index.AsX(), index)
	VPMULLD(table("channels", func(i int) int { return i }), index, index)
	fourPos := GP64()
	MOVQ(pos, fourPos)
	SHLQ(operand.Imm(2), fourPos)
	Label("input")
	var x [3][3]reg.VecVirtual
	factor := w.reg()
	VMOVUPS(operand.Mem{Base: by}, factor)
	for i := range 9 {
		r, all := w.reg(), w.reg()
		VPCMPEQD(index, index, all)
		VGATHERDPS(all, operand.Mem{Base: g, Index: index, Scale: 1, Disp: 4 * i}, r)
		VMULPS(factor, r, r)
		x[i/3][i%3] = r
	}
	// three makes four of three values
	three := func(a, b, c reg.VecVirtual) [4]reg.VecVirtual {
		s, t, r := w.reg(), w.reg(), w.reg()
		VADDPS(c, a, s)
		VSUBPS(b, s, r)
		VADDPS(b, s, t)
		VMULPS(half, t, t)
		VMULPS(half, r, r)
		return [4]reg.VecVirtual{a, t, r, c}
	}
	// Column by column of the window the four rows, then of each row the four columns. With 16 registers the rows are made
	// again for each row of the result, from the nine values.
	to := GP64()
	MOVQ(u, to)
	for i := range 4 {
		var row [3]reg.VecVirtual
		for j := range 3 {
			switch i {
			case 0:
				row[j] = x[0][j]
			case 3:
				row[j] = x[2][j]
			default:
				r := w.reg()
				VADDPS(x[2][j], x[0][j], r)
				if i == 1 {
					VADDPS(x[1][j], r, r)
				} else {
					VSUBPS(x[1][j], r, r)
				}
				VMULPS(half, r, r)
				row[j] = r
			}
		}
		out := GP64()
		LEAQ(operand.Mem{Base: to, Index: pos, Scale: 2}, out)
		f := three(row[0], row[1], row[2])
		VMOVUPS(f[0], operand.Mem{Base: to})
		VMOVUPS(f[1], operand.Mem{Base: to, Index: pos, Scale: 1})
		VMOVUPS(f[2], operand.Mem{Base: out})
		VMOVUPS(f[3], operand.Mem{Base: out, Index: pos, Scale: 1})
		if i < 3 {
			ADDQ(fourPos, to)
		}
	}
	ADDQ(operand.Imm(36), g)
	ADDQ(operand.U32(w.bytes), u)
	DECQ(count)
	JNZ(operand.LabelRef("input"))
	VZEROUPPER()
	RET()
}

// winogradOut emits the transformation of the products, and what follows it.
func (w width) winogradOut() {
	regs := zs
	if !w.z() {
		regs = ys
	}
	c := &convKernel{w: w, f: &family{elem: "float32", size: 4, vec: w.bytes}, rows: 1, nv: 4, sums: regs[:4], free: regs[4:]}
	name := "winogradOut_" + w.name
	TEXT(name, NOSPLIT, "func(t *byte)")
	Doc(name + " makes the results of runs of channels of products at k vectors of tiles; see winogradOutGeneric.")
	Pragma("noescape")
	left, vecs := GP64(), GP64()
	Label("run")
	tt, field := tileFields()
	src := field(tileSrc)
	MOVQ(operand.Mem{Base: tt, Disp: tileK}, left)
	MOVQ(operand.Mem{Base: tt, Disp: tileVecs}, vecs)
	Label("vector")
	// Where the next channel's results go is asked for: stores go to memory in order, and each would wait for the one before.
	next, at := GP64(), GP64()
	MOVQ(operand.Mem{Base: tt, Disp: tileDst}, next)
	ADDQ(operand.Mem{Base: tt, Disp: tileLdc}, next)
	for i := range 4 {
		MOVQ(operand.Mem{Base: vecs, Disp: i*vecSize + vecSegs + segOff}, at)
		PREFETCHT0(operand.Mem{Base: next, Index: at, Scale: 1})
	}
	pos := field(tileLda)
	three, rows := GP64(), [4]reg.GPVirtual{src, GP64(), GP64(), GP64()}
	LEAQ(operand.Mem{Base: pos, Index: pos, Scale: 2}, three)
	for i := 1; i < 4; i++ {
		LEAQ(operand.Mem{Base: rows[i-1], Index: pos, Scale: 4}, rows[i])
	}
	in := func(i, j int) operand.Mem {
		m := operand.Mem{Base: rows[i]}
		switch j {
		case 1, 2:
			m.Index, m.Scale = pos, uint8(j)
		case 3:
			m.Index, m.Scale = three, 1
		}
		return m
	}
	z, a, b := c.free[:8], c.free[8], c.free[9]
	for j := range 4 {
		VMOVUPS(in(1, j), a)
		VMOVUPS(in(2, j), b)
		VADDPS(in(0, j), a, z[j])
		VADDPS(b, z[j], z[j])
		VSUBPS(b, a, z[4+j])
		VSUBPS(in(3, j), z[4+j], z[4+j])
	}
	bias := field(tileBias)
	for r := range 2 {
		z := z[4*r:]
		VADDPS(z[1], z[0], z[0])
		VADDPS(z[2], z[0], z[0])
		VSUBPS(z[2], z[1], z[1])
		VSUBPS(z[3], z[1], z[1])
	}
	TESTQ(bias, bias)
	JZ(operand.LabelRef("biased"))
	VBROADCASTSS(operand.Mem{Base: bias}, a)
	for _, i := range []int{0, 1, 4, 5} {
		VADDPS(a, z[i], z[i])
	}
	Label("biased")
	for r := range 2 {
		x, y, lo, hi := z[4*r], z[4*r+1], c.sums[2*r], c.sums[2*r+1]
		if w.z() {
			VMOVUPS(interleaveLow(), lo)
			VMOVUPS(interleaveHigh(), hi)
			VPERMI2PS(y, x, lo)
			VPERMI2PS(y, x, hi)
			continue
		}
		VUNPCKLPS(y, x, a)
		VUNPCKHPS(y, x, b)
		VPERM2F128(operand.Imm(0x20), b, a, lo)
		VPERM2F128(operand.Imm(0x31), b, a, hi)
	}
	c.add("res", field(tileRes), vecs)
	c.activate(tt)
	c.store(field(tileDst), vecs)
	ADDQ(operand.U32(w.bytes), src)
	ADDQ(operand.U32(4*vecSize), vecs)
	DECQ(left)
	JNZ(operand.LabelRef("vector"))
	// The next channel. Nothing points behind the last.
	DECQ(operand.Mem{Base: tt, Disp: tileN})
	JZ(operand.LabelRef("end"))
	MOVQ(src, operand.Mem{Base: tt, Disp: tileSrc})
	by := field(tileLdc)
	ADDQ(by, operand.Mem{Base: tt, Disp: tileDst})
	for _, f := range []struct {
		field int
		by    operand.Op
	}{{tileRes, by}, {tileBias, operand.Imm(4)}} {
		skip := fmt.Sprintf("no%d", f.field)
		CMPQ(operand.Mem{Base: tt, Disp: f.field}, operand.Imm(0))
		JEQ(operand.LabelRef(skip))
		ADDQ(f.by, operand.Mem{Base: tt, Disp: f.field})
		Label(skip)
	}
	JMP(operand.LabelRef("run"))
	Label("end")
	VZEROUPPER()
	RET()
}

var low, high operand.Mem

// interleaveLow and interleaveHigh are the indices that put the lower and the upper halves of two vectors in turns.
func interleaveLow() operand.Mem {
	if low.Symbol.Name == "" {
		low = table("lowhalves", func(i int) int { return i/2 + i%2*16 })
	}
	return low
}

func interleaveHigh() operand.Mem {
	if high.Symbol.Name == "" {
		high = table("highhalves", func(i int) int { return 8 + i/2 + i%2*16 })
	}
	return high
}

// winogradProducts emits the products of one position at nv vectors of tiles. The weights lie in tiles of eight output channels,
// those of an input channel next to each other; with 16 registers half of such a tile is done at a time.
func (w width) winogradProducts(nv int) {
	regs, rows := zs, 8
	if !w.z() {
		regs, rows = ys, 4
	}
	f := &family{elem: "float32", size: 4, vec: w.bytes}
	sums, b, av := regs[:rows*nv], regs[rows*nv:rows*nv+nv], regs[rows*nv+nv:]
	if len(av) > 4 {
		av = av[:4]
	}
	name := fmt.Sprintf("winogradProducts%d_%s", nv, w.name)
	TEXT(name, NOSPLIT, "func(y, a, v *float32, tile int, pitch int, k int, tiles int, add int)")
	Doc(fmt.Sprintf("%s multiplies the weights of tiles of eight channels, tile bytes apart, by %d vectors of k rows, pitch bytes apart; the results lie next to each other. add: to what lies there.", name, nv))
	Pragma("noescape")
	y, a, v := Load(Param("y"), GP64()), Load(Param("a"), GP64()), Load(Param("v"), GP64())
	pitch, tiles := Load(Param("pitch"), GP64()), Load(Param("tiles"), GP64())
	ap, vp, k, flag := GP64(), GP64(), GP64(), GP64()
	Label("tile")
	for half := range 8 / rows {
		label := func(s string) string { return fmt.Sprintf("%s%d", s, half) }
		for _, s := range sums {
			f.clear(s)
		}
		MOVQ(a, ap)
		MOVQ(v, vp)
		Load(Param("k"), k)
		step := func(u int) {
			for i := range nv {
				VMOVUPS(operand.Mem{Base: vp, Disp: i * w.bytes}, b[i])
			}
			ADDQ(pitch, vp)
			for r := range rows {
				at := operand.Mem{Base: ap, Disp: 32*u + 16*half + 4*r}
				if w.z() && nv == 1 {
					VFMADD231PS_BCST(at, b[0], sums[r])
					continue
				}
				x := av[r%len(av)]
				VBROADCASTSS(at, x)
				for i := range nv {
					VFMADD231PS(b[i], x, sums[r*nv+i])
				}
			}
		}
		SUBQ(operand.Imm(4), k)
		JLT(operand.LabelRef(label("few")))
		Label(label("four"))
		for u := range 4 {
			step(u)
		}
		ADDQ(operand.U32(128), ap)
		SUBQ(operand.Imm(4), k)
		JGE(operand.LabelRef(label("four")))
		Label(label("few"))
		ADDQ(operand.Imm(4), k)
		JZ(operand.LabelRef(label("summed")))
		Label(label("one"))
		step(0)
		ADDQ(operand.Imm(32), ap)
		DECQ(k)
		JNZ(operand.LabelRef(label("one")))
		Label(label("summed"))
		Load(Param("add"), flag)
		TESTQ(flag, flag)
		JZ(operand.LabelRef(label("store")))
		for i, s := range sums {
			VADDPS(operand.Mem{Base: y, Disp: i * w.bytes}, s, s)
		}
		Label(label("store"))
		for i, s := range sums {
			VMOVUPS(s, operand.Mem{Base: y, Disp: i * w.bytes})
		}
		ADDQ(operand.U32(len(sums)*w.bytes), y)
	}
	Load(Param("tile"), k)
	ADDQ(k, a)
	DECQ(tiles)
	JNZ(operand.LabelRef("tile"))
	VZEROUPPER()
	RET()
}
