package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/qsimc/qsimc/runtime/kernel/asm/coeff"
)

// Functions on rows: several passes over one row while it is in the level-1 cache, and no call between them. Their sums are
// those of reduce.go, bit for bit.

func rows() {
	for _, w := range widths {
		w.softmaxRows()
		w.normRows()
	}
}

// slots is how many vectors hold the 32 lanes of a sum.
func (w width) slots() int { return 32 / w.lanes() }

// rowWalk is a loop over the n elements of rows, which begin at the pointers given.
type rowWalk struct {
	w     width
	n     reg.Register
	label string
}

// part is what a pass does to one vector: at is its distance from the start of the row, slot its number modulo slots. load and
// save move a vector, or what there is of the last one; merge sets acc to v where there are elements.
type part func(at operand.Mem, slot int, load func(m operand.Mem, r vv), save func(r vv, m operand.Mem), merge func(v, acc vv))

// pass emits the loop. in(p) of at is the place of the vector in the row at p.
func (l rowWalk) pass(name string, visit part) {
	w := l.w
	label := func(format string, a ...any) string { return l.label + name + fmt.Sprintf(format, a...) }
	at, left := GP64(), GP64()
	XORQ(at, at)
	MOVQ(l.n, left)
	load := func(m operand.Mem, r vv) { VMOVUPS(m, r) }
	save := func(r vv, m operand.Mem) { VMOVUPS(r, m) }
	merge := func(v, acc vv) { VMOVAPS(v, acc) }
	place := func(i int) operand.Mem { return operand.Mem{Index: at, Scale: 1, Disp: i * w.bytes} }
	Label(label("many"))
	CMPQ(left, operand.I32(32))
	JLT(operand.LabelRef(label("rest0")))
	for i := range w.slots() {
		visit(place(i), i, load, save, merge)
	}
	ADDQ(operand.I32(128), at)
	SUBQ(operand.I32(32), left)
	JMP(operand.LabelRef(label("many")))
	for i := range w.slots() {
		Label(label("rest%d", i))
		if i+1 < w.slots() {
			CMPQ(left, operand.I32(int32(w.lanes())))
			JLT(operand.LabelRef(label("last%d", i)))
			visit(place(0), i, load, save, merge)
			ADDQ(operand.I32(int32(w.bytes)), at)
			SUBQ(operand.I32(int32(w.lanes())), left)
			JMP(operand.LabelRef(label("rest%d", i+1)))
		}
		Label(label("last%d", i))
		TESTQ(left, left)
		JZ(operand.LabelRef(label("end")))
		load, save, merge := w.some(left)
		visit(place(0), i, load, save, merge)
		if i+1 < w.slots() {
			JMP(operand.LabelRef(label("end")))
		}
	}
	Label(label("end"))
}

// some is mask with merge, which sets acc to v in the first n lanes.
func (w width) some(n reg.Register) (load func(m operand.Mem, r vv), save func(r vv, m operand.Mem), merge func(v, acc vv)) {
	if w.z() {
		ones, k := GP64(), K()
		MOVQ(operand.I32(-1), ones)
		BZHIQ(n, ones, ones)
		KMOVW(ones.As32(), k)
		return func(m operand.Mem, r vv) { VMOVUPS_Z(m, k, r) },
			func(r vv, m operand.Mem) { VMOVUPS(r, k, m) },
			func(v, acc vv) { VMOVAPS(v, k, acc) }
	}
	table, mask := GP64(), w.reg()
	LEAQ(tailMasks().Offset(32), table)
	SHLQ(operand.Imm(2), n)
	SUBQ(n, table)
	VMOVUPS(operand.Mem{Base: table}, mask)
	return func(m operand.Mem, r vv) { VMASKMOVPS(m, mask, r) },
		func(r vv, m operand.Mem) { VMASKMOVPS(r, mask, m) },
		func(v, acc vv) { VBLENDVPS(mask, v, acc, acc) }
}

// in is the place of a vector in the row at p.
func in(p reg.Register, at operand.Mem) operand.Mem {
	at.Base = p
	return at
}

func arg(name string) operand.Mem {
	a, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return a.Addr
}

// spread fills a vector with the lowest lane of x.
func (w width) spread(x reg.Register) vv {
	r := w.reg()
	VBROADCASTSS(x, r)
	return r
}

func plus(a, b, d operand.Op) { VADDPS(a, b, d) }

// total folds the lanes of a sum.
func (w width) total(acc []vv) reg.Register {
	for h := len(acc) / 2; h > 0; h /= 2 {
		for i := range h {
			VADDPS(acc[i+h], acc[i], acc[i])
		}
	}
	return w.lower(acc[0], plus)
}

func (w width) softmaxRows() {
	name := "softmaxRows_" + w.name
	TEXT(name, NOSPLIT, "func(dst *float32, ldd int, x *float32, ldx int, rows int, n int, scale float32, mask *float32, ldm int)")
	Doc(name + " sets rows of n elements, at least one, to the softmax of x·scale + mask. The rows lie ldd, ldx and ldm bytes apart; mask may be nil.")
	Pragma("noescape")
	dst, x, mask := Load(Param("dst"), GP64()), Load(Param("x"), GP64()), Load(Param("mask"), GP64())
	count, n := Load(Param("rows"), GP64()), Load(Param("n"), GP64())
	lo := w.set(num(coeff.ExpLo))
	Label("row")
	acc := make([]vv, w.slots())
	for i := range acc {
		acc[i] = w.set(bits(0xff800000))
	}
	scale := w.param("scale")
	scores := func(label string, masked bool) {
		rowWalk{w, n, label}.pass("scores", func(at operand.Mem, slot int, load func(operand.Mem, vv), save func(vv, operand.Mem), merge func(v, acc vv)) {
			t := w.reg()
			load(in(x, at), t)
			VMULPS(scale, t, t)
			if masked {
				m := w.reg()
				load(in(mask, at), m)
				VADDPS(m, t, t)
			}
			save(t, in(dst, at))
			VMAXPS(acc[slot], t, t)
			merge(t, acc[slot])
		})
	}
	TESTQ(mask, mask)
	JZ(operand.LabelRef("bare"))
	scores("masked", true)
	JMP(operand.LabelRef("exp"))
	Label("bare")
	scores("bare", false)
	Label("exp")
	for h := len(acc) / 2; h > 0; h /= 2 {
		for i := range h {
			VMAXPS(acc[i+h], acc[i], acc[i])
		}
	}
	top := w.spread(w.lower(acc[0], func(a, b, d operand.Op) { VMAXPS(a, b, d) }))
	sums := w.zeros()
	rowWalk{w, n, ""}.pass("sum", func(at operand.Mem, slot int, load func(operand.Mem, vv), save func(vv, operand.Mem), merge func(v, acc vv)) {
		t := w.reg()
		load(in(dst, at), t)
		VSUBPS(top, t, t)
		e := w.exp(t, lo, nil) // nothing is above the greatest
		save(e, in(dst, at))
		VADDPS(e, sums[slot], e)
		merge(e, sums[slot])
	})
	sum := w.total(sums)
	one := XMM()
	VMOVSS(num(1), one)
	VDIVSS(sum, one, one)
	inverse := w.spread(one)
	rowWalk{w, n, ""}.pass("scale", func(at operand.Mem, _ int, load func(operand.Mem, vv), save func(vv, operand.Mem), _ func(v, acc vv)) {
		t := w.reg()
		load(in(dst, at), t)
		VMULPS(inverse, t, t)
		save(t, in(dst, at))
	})
	ADDQ(arg("ldd"), dst)
	ADDQ(arg("ldx"), x)
	TESTQ(mask, mask)
	JZ(operand.LabelRef("next"))
	ADDQ(arg("ldm"), mask)
	Label("next")
	DECQ(count)
	JNZ(operand.LabelRef("row"))
	VZEROUPPER()
	RET()
}

// zeros are partial sums of a row, one for each slot.
func (w width) zeros() []vv {
	sums := make([]vv, w.slots())
	for i := range sums {
		sums[i] = w.zero()
	}
	return sums
}

func (w width) normRows() {
	name := "normRows_" + w.name
	TEXT(name, NOSPLIT, "func(dst *float32, x *float32, rows int, n int, gamma *float32, beta *float32, eps float32, size float32)")
	Doc(name + " normalizes rows of n elements, at least one, size being n too: with beta (x-mean)/√(var+eps)·gamma + beta, else (beta nil) x/√(mean(x²)+eps)·gamma.")
	Pragma("noescape")
	dst, x := Load(Param("dst"), GP64()), Load(Param("x"), GP64())
	gamma, beta := Load(Param("gamma"), GP64()), Load(Param("beta"), GP64())
	count, n := Load(Param("rows"), GP64()), Load(Param("n"), GP64())
	step := GP64()
	MOVQ(n, step)
	SHLQ(operand.Imm(2), step)
	Label("row")
	mean := w.zero()
	TESTQ(beta, beta)
	JZ(operand.LabelRef("spread"))
	sums := w.zeros()
	rowWalk{w, n, ""}.pass("mean", func(at operand.Mem, slot int, load func(operand.Mem, vv), _ func(vv, operand.Mem), merge func(v, acc vv)) {
		t := w.reg()
		load(in(x, at), t)
		VADDPS(t, sums[slot], t)
		merge(t, sums[slot])
	})
	m := w.total(sums).(reg.VecVirtual)
	VDIVSS(arg("size"), m, m)
	VBROADCASTSS(m, mean)
	Label("spread")
	squares := w.zeros()
	rowWalk{w, n, ""}.pass("square", func(at operand.Mem, slot int, load func(operand.Mem, vv), _ func(vv, operand.Mem), merge func(v, acc vv)) {
		t := w.reg()
		load(in(x, at), t)
		VSUBPS(mean, t, t)
		VMULPS(t, t, t)
		VADDPS(t, squares[slot], t)
		merge(t, squares[slot])
	})
	s := w.total(squares).(reg.VecVirtual)
	VDIVSS(arg("size"), s, s)
	VADDSS(arg("eps"), s, s)
	VSQRTSS(s, s, s)
	one := XMM()
	VMOVSS(num(1), one)
	VDIVSS(s, one, one)
	inverse := w.spread(one)
	result := func(label string, centered bool) {
		rowWalk{w, n, label}.pass("result", func(at operand.Mem, _ int, load func(operand.Mem, vv), save func(vv, operand.Mem), _ func(v, acc vv)) {
			t, g := w.reg(), w.reg()
			load(in(x, at), t)
			VSUBPS(mean, t, t)
			VMULPS(inverse, t, t)
			load(in(gamma, at), g)
			VMULPS(g, t, t)
			if centered {
				load(in(beta, at), g)
				VADDPS(g, t, t)
			}
			save(t, in(dst, at))
		})
	}
	TESTQ(beta, beta)
	JZ(operand.LabelRef("root"))
	result("layer", true)
	JMP(operand.LabelRef("next"))
	Label("root")
	result("root", false)
	Label("next")
	ADDQ(step, dst)
	ADDQ(step, x)
	DECQ(count)
	JNZ(operand.LabelRef("row"))
	VZEROUPPER()
	RET()
}
