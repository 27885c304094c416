package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/qsimc/qsimc/runtime/kernel/asm/coeff"
)

type vv = reg.VecVirtual

func vectors() {
	for _, w := range widths {
		w.arithmetic()
		w.functions()
		w.reductions()
		w.moments()
	}
	comparisons()
}

var (
	dstX  = []stream{{"dst", true}, {"x", false}}
	dstXY = []stream{{"dst", true}, {"x", false}, {"y", false}}
)

func (w width) arithmetic() {
	for _, f := range []struct {
		name, doc string
		op        func(a, b, d operand.Op)
	}{
		{"vecAdd", "sets dst = x + y.", func(a, b, d operand.Op) { VADDPS(b, a, d) }},
		{"vecSub", "sets dst = x - y.", func(a, b, d operand.Op) { VSUBPS(b, a, d) }},
		{"vecMul", "sets dst = x * y.", func(a, b, d operand.Op) { VMULPS(b, a, d) }},
		{"vecDiv", "sets dst = x / y.", func(a, b, d operand.Op) { VDIVPS(b, a, d) }},
	} {
		w.mapLoop(f.name, "func(dst *float32, x *float32, y *float32, n int)", f.doc, 4, dstXY, func() {}, func(in []vv) []vv {
			f.op(in[0], in[1], in[0])
			return in[:1]
		})
	}
	// VMAXPS returns its last operand where one is a NaN: of both orders one holds it.
	w.mapLoop("vecMaximum", "func(dst *float32, x *float32, y *float32, n int)", "sets dst = max(x, y), NaN where one is; of zeros the negative.", 2, dstXY,
		func() {}, func(in []vv) []vv {
			r := w.reg()
			VMAXPS(in[1], in[0], r)
			VMAXPS(in[0], in[1], in[0])
			VORPS(r, in[0], in[0])
			return in[:1]
		})
	for _, f := range []struct {
		name, doc string
		op        func(a, s, d operand.Op)
	}{
		{"vecAddS", "sets dst = x + s.", func(a, s, d operand.Op) { VADDPS(s, a, d) }},
		{"vecSubS", "sets dst = x - s.", func(a, s, d operand.Op) { VSUBPS(s, a, d) }},
		{"vecRSubS", "sets dst = s - x.", func(a, s, d operand.Op) { VSUBPS(a, s, d) }},
		{"vecMulS", "sets dst = x * s.", func(a, s, d operand.Op) { VMULPS(s, a, d) }},
		{"vecDivS", "sets dst = x / s.", func(a, s, d operand.Op) { VDIVPS(s, a, d) }},
		{"vecRDivS", "sets dst = s / x.", func(a, s, d operand.Op) { VDIVPS(a, s, d) }},
	} {
		var s vv
		w.mapLoop(f.name, "func(dst *float32, x *float32, s float32, n int)", f.doc, 4, dstX,
			func() { s = w.param("s") },
			func(in []vv) []vv {
				f.op(in[0], s, in[0])
				return in
			})
	}
	var s, t vv
	w.mapLoop("vecAxpy", "func(dst *float32, x *float32, s float32, n int)", "adds s*x to dst, rounding twice.", 4,
		[]stream{{"dst", true}, {"x", false}, {"dst", false}},
		func() { s = w.param("s") },
		func(in []vv) []vv {
			VMULPS(s, in[0], in[0])
			VADDPS(in[0], in[1], in[1])
			return in[1:]
		})
	w.mapLoop("vecAffine", "func(dst *float32, x *float32, s float32, t float32, n int)", "sets dst = (x-s)*t.", 4, dstX,
		func() { s, t = w.param("s"), w.param("t") },
		func(in []vv) []vv {
			VSUBPS(s, in[0], in[0])
			VMULPS(t, in[0], in[0])
			return in
		})
	w.mapLoop("vecClip", "func(dst *float32, x *float32, s float32, t float32, n int)", "sets dst = min(max(x, s), t).", 4, dstX,
		func() { s, t = w.param("s"), w.param("t") },
		func(in []vv) []vv {
			VMAXPS(in[0], s, in[0]) // the second source is what comes out for NaN
			VMINPS(in[0], t, in[0])
			return in
		})
	w.mapLoop("vecRelu", "func(dst *float32, x *float32, n int)", "sets dst = max(x, 0).", 4, dstX,
		func() { s = w.zero() },
		func(in []vv) []vv {
			VMAXPS(in[0], s, in[0])
			VADDPS(s, in[0], in[0]) // -0 to +0
			return in
		})
	w.mapLoop("vecSqrt", "func(dst *float32, x *float32, n int)", "sets dst = √x.", 4, dstX, func() {}, func(in []vv) []vv {
		VSQRTPS(in[0], in[0])
		return in
	})
}

func (w width) functions() {
	const sig = "func(dst *float32, x *float32, n int)"
	var lo, hi, one, s vv
	limits := func() { lo, hi = w.set(num(coeff.ExpLo)), w.set(num(coeff.ExpHi)) }
	exp := func(x vv) vv { return w.exp(x, lo, hi) }
	w.mapLoop("vecExp", sig, "sets dst = e^x.", 2, dstX, limits, func(in []vv) []vv { return []vv{exp(in[0])} })
	w.mapLoop("vecExpSub", "func(dst *float32, x *float32, s float32, n int)", "sets dst = e^(x-s).", 2, dstX,
		func() { limits(); s = w.param("s") },
		func(in []vv) []vv {
			VSUBPS(s, in[0], in[0])
			return []vv{exp(in[0])}
		})
	w.expSum(exp, limits)
	negExp1 := func(x vv) vv { // 1 + e^-x
		t := w.reg()
		VXORPS(bits(1<<31), x, t)
		e := exp(t)
		VADDPS(num(1), e, e)
		return e
	}
	w.mapLoop("vecSigmoid", sig, "sets dst = 1/(1+e^-x).", 2, dstX,
		func() { limits(); one = w.set(num(1)) },
		func(in []vv) []vv {
			e := negExp1(in[0])
			VDIVPS(e, one, e)
			return []vv{e}
		})
	w.mapLoop("vecSilu", sig, "sets dst = x/(1+e^-x).", 2, dstX, limits, func(in []vv) []vv {
		e := negExp1(in[0])
		VDIVPS(e, in[0], e)
		return []vv{e}
	})
	w.mapLoop("vecErf", sig, "sets dst = erf(x).", 2, dstX, func() {}, func(in []vv) []vv { return []vv{w.ratio(in[0], &coeff.Erf)} })
	w.mapLoop("vecTanh", sig, "sets dst = tanh(x).", 2, dstX, func() {}, func(in []vv) []vv { return []vv{w.ratio(in[0], &coeff.Tanh)} })
	half := func(x, f vv) []vv { // x/2·(1+f)
		VADDPS(num(1), f, f)
		VMULPS(num(0.5), x, x)
		VMULPS(x, f, f)
		return []vv{f}
	}
	w.mapLoop("vecGelu", sig, "sets dst = x/2·(1+erf(x/√2)).", 2, dstX, func() {}, func(in []vv) []vv {
		t := w.reg()
		VMULPS(num(coeff.Sqrt1_2), in[0], t)
		return half(in[0], w.ratio(t, &coeff.Erf))
	})
	w.mapLoop("vecGeluTanh", sig, "sets dst = x/2·(1+tanh(√(2/π)·(x+0.044715x³))).", 2, dstX, func() {}, func(in []vv) []vv {
		t := w.reg()
		VMULPS(in[0], in[0], t)
		VMULPS(num(coeff.GeluTanhX2), t, t)
		VADDPS(num(coeff.GeluTanh), t, t)
		VMULPS(in[0], t, t)
		return half(in[0], w.ratio(t, &coeff.Tanh))
	})
}

// expSum is expSub and the sum of its results in 32 lanes, in one pass.
func (w width) expSum(exp func(vv) vv, limits func()) {
	name := "vecExpSum_" + w.name
	TEXT(name, NOSPLIT, "func(dst *float32, x *float32, s float32, n int, acc *float32)")
	Doc(name + " sets dst = e^(x-s) and adds it to 32 lanes; n is a multiple of 32.")
	Pragma("noescape")
	dst, x, n, acc := Load(Param("dst"), GP64()), Load(Param("x"), GP64()), Load(Param("n"), GP64()), Load(Param("acc"), GP64())
	limits()
	s := w.param("s")
	var sums []vv
	for off := 0; off < 128; off += w.bytes {
		r := w.reg()
		VMOVUPS(operand.Mem{Base: acc, Disp: off}, r)
		sums = append(sums, r)
	}
	Label("loop")
	SUBQ(operand.Imm(32), n)
	JLT(operand.LabelRef("done"))
	for i, r := range sums {
		t := w.reg()
		VMOVUPS(operand.Mem{Base: x, Disp: i * w.bytes}, t)
		VSUBPS(s, t, t)
		e := exp(t)
		VMOVUPS(e, operand.Mem{Base: dst, Disp: i * w.bytes})
		VADDPS(e, r, r)
	}
	ADDQ(operand.I32(128), x)
	ADDQ(operand.I32(128), dst)
	JMP(operand.LabelRef("loop"))
	Label("done")
	for i, r := range sums {
		VMOVUPS(r, operand.Mem{Base: acc, Disp: i * w.bytes})
	}
	VZEROUPPER()
	RET()
}

// exp is e^x; see expGeneric for the method. x keeps its value. hi nil says that no x is above it. Lanes below lo, which become 0,
// compute e^0: at lo itself the result may be subnormal, which costs a hundred times as much.
func (w width) exp(x, lo, hi vv) vv {
	c, n, r2 := w.reg(), w.reg(), w.reg()
	var k reg.OpmaskVirtual
	var m vv
	if w.z() {
		k = K()
		VCMPPS(operand.Imm(nlt), lo, x, k)
		VMOVAPS_Z(x, k, c)
	} else {
		m = w.reg()
		VCMPPS(operand.Imm(nlt), lo, x, m)
		VANDPS(m, x, c)
	}
	if hi != nil {
		VMINPS(c, hi, c) // the second source is what comes out for NaN
	}
	VMULPS(num(coeff.Log2E), c, n)
	w.round(n, n)
	VFNMADD231PS(num(coeff.Ln2Hi), n, c)
	VFNMADD231PS(num(coeff.Ln2Lo), n, c)
	p := w.horner(c, coeff.Exp)
	VMULPS(c, c, r2)
	VFMADD213PS(c, r2, p)
	VADDPS(num(1), p, p)
	if w.z() {
		VSCALEFPS_Z(n, p, k, p)
		return p
	}
	h := w.reg()
	VCVTPS2DQ(n, n)
	VPSRAD(operand.Imm(1), n, h)
	VPSUBD(h, n, n)
	for _, e := range []vv{h, n} {
		VPADDD(bits(127), e, e)
		VPSLLD(operand.Imm(23), e, e)
		VMULPS(e, p, p)
	}
	VANDPS(m, p, p)
	return p
}

// ratio evaluates f; x keeps its value.
func (w width) ratio(x vv, f *coeff.Rational) vv {
	t := w.reg()
	VMULPS(x, x, t)
	p := w.horner(t, f.P)
	q := w.horner(t, f.Q)
	VMULPS(x, p, p)
	VDIVPS(q, p, p)
	a, one := w.reg(), w.reg()
	VANDPS(bits(1<<31), x, one)
	VORPS(num(1), one, one)
	VANDPS(bits(1<<31-1), x, a)
	w.put(gt, num(f.Limit), a, one, p)
	return p
}

// reductions keep 32 lanes whatever the width; see lanes in reduce.go.
func (w width) reductions() {
	for _, f := range []struct {
		name, sig, doc string
		square         bool
	}{
		{"sumLanes", "func(x *float32, n int, acc *float32)", "adds x to 32 lanes; n is a multiple of 32.", false},
		{"sumSqLanes", "func(x *float32, n int, acc *float32, s float32)", "adds (x-s)² to 32 lanes; n is a multiple of 32.", true},
	} {
		TEXT(f.name+"_"+w.name, NOSPLIT, f.sig)
		Doc(f.name + "_" + w.name + " " + f.doc)
		Pragma("noescape")
		x, n, acc := Load(Param("x"), GP64()), Load(Param("n"), GP64()), Load(Param("acc"), GP64())
		var s vv
		if f.square {
			s = w.param("s")
		}
		var sums []vv
		for off := 0; off < 128; off += w.bytes {
			r := w.reg()
			VMOVUPS(operand.Mem{Base: acc, Disp: off}, r)
			sums = append(sums, r)
		}
		Label("loop")
		SUBQ(operand.Imm(32), n)
		JLT(operand.LabelRef("done"))
		for i, r := range sums {
			at := operand.Mem{Base: x, Disp: i * w.bytes}
			if !f.square {
				VADDPS(at, r, r)
				continue
			}
			d := w.reg()
			VMOVUPS(at, d)
			VSUBPS(s, d, d)
			VMULPS(d, d, d)
			VADDPS(d, r, r)
		}
		ADDQ(operand.I32(128), x)
		JMP(operand.LabelRef("loop"))
		Label("done")
		for i, r := range sums {
			VMOVUPS(r, operand.Mem{Base: acc, Disp: i * w.bytes})
		}
		VZEROUPPER()
		RET()
	}
	w.extremes()
	w.absMax()
	w.max()
	w.mapLoop("vecAbsMax", "func(dst *float32, x *float32, n int)", "sets dst = max(|dst|, |x|), NaN wins.", 4,
		[]stream{{"dst", true}, {"x", false}, {"dst", false}}, func() {},
		func(in []vv) []vv {
			VANDPS(bits(1<<31-1), in[0], in[0])
			VANDPS(bits(1<<31-1), in[1], in[1])
			VPMAXUD(in[0], in[1], in[1])
			return in[1:]
		})
}

// overlapped walks x in steps of four vectors, then one, then once more the last vector of x, which may overlap the one
// before: right for idempotent reductions. n is at least one vector.
func (w width) overlapped(x, n reg.Register, visit func(at operand.Mem, slot int)) {
	last := GP64()
	LEAQ(operand.Mem{Base: x, Index: n, Scale: 4, Disp: -w.bytes}, last)
	Label("four")
	CMPQ(n, operand.I32(int32(4*w.lanes())))
	JLT(operand.LabelRef("one"))
	for i := range 4 {
		visit(operand.Mem{Base: x, Disp: i * w.bytes}, i)
	}
	ADDQ(operand.I32(int32(4*w.bytes)), x)
	SUBQ(operand.I32(int32(4*w.lanes())), n)
	JMP(operand.LabelRef("four"))
	Label("one")
	CMPQ(n, operand.I32(int32(w.lanes())))
	JLT(operand.LabelRef("last"))
	visit(operand.Mem{Base: x}, 0)
	ADDQ(operand.I32(int32(w.bytes)), x)
	SUBQ(operand.I32(int32(w.lanes())), n)
	JMP(operand.LabelRef("one"))
	Label("last")
	visit(operand.Mem{Base: last}, 1)
}

// lower narrows r to one lane with op, halving the width each time.
func (w width) lower(r vv, op func(a, b, d operand.Op)) reg.Register {
	if w.z() {
		h := YMM()
		VEXTRACTF64X4(operand.Imm(1), r, h)
		op(h, r.AsY(), r.AsY())
	}
	h, x := XMM(), r.AsX()
	VEXTRACTF128(operand.Imm(1), r.AsY(), h)
	op(h, x, x)
	VPSHUFD(operand.Imm(0x4e), x, h)
	op(h, x, x)
	VPSHUFD(operand.Imm(0xb1), x, h)
	op(h, x, x)
	return x
}

func (w width) extremes() {
	name := "minMax_" + w.name
	TEXT(name, NOSPLIT, "func(x *float32, n int, out *float32)")
	Doc(name + " sets out to the least and greatest of x and the largest |x| by bit pattern; n is at least one vector.")
	Pragma("noescape")
	x, n, out := Load(Param("x"), GP64()), Load(Param("n"), GP64()), Load(Param("out"), GP64())
	mask := w.set(bits(1<<31 - 1))
	var lo, hi, ab [2]vv
	for i := range 2 {
		lo[i], hi[i], ab[i] = w.set(bits(0x7f800000)), w.set(bits(0xff800000)), w.zero()
	}
	w.overlapped(x, n, func(at operand.Mem, slot int) {
		i := slot % 2
		v := w.reg()
		VMOVUPS(at, v)
		VMINPS(v, lo[i], lo[i])
		VMAXPS(v, hi[i], hi[i])
		VANDPS(mask, v, v)
		VPMAXUD(v, ab[i], ab[i])
	})
	VMINPS(lo[1], lo[0], lo[0])
	VMAXPS(hi[1], hi[0], hi[0])
	VPMAXUD(ab[1], ab[0], ab[0])
	VMOVSS(w.lower(lo[0], func(a, b, d operand.Op) { VMINPS(a, b, d) }), operand.Mem{Base: out})
	VMOVSS(w.lower(hi[0], func(a, b, d operand.Op) { VMAXPS(a, b, d) }), operand.Mem{Base: out, Disp: 4})
	VMOVSS(w.lower(ab[0], func(a, b, d operand.Op) { VPMAXUD(a, b, d) }), operand.Mem{Base: out, Disp: 8})
	VZEROUPPER()
	RET()
}

func (w width) max() {
	name := "vecMax_" + w.name
	TEXT(name, NOSPLIT, "func(x *float32, n int) float32")
	Doc(name + " is the greatest of x; what it is where x holds a NaN is not defined. n is at least one vector.")
	Pragma("noescape")
	x, n := Load(Param("x"), GP64()), Load(Param("n"), GP64())
	var acc [4]vv
	for i := range acc {
		acc[i] = w.set(bits(0xff800000))
	}
	w.overlapped(x, n, func(at operand.Mem, slot int) { VMAXPS(at, acc[slot], acc[slot]) })
	VMAXPS(acc[1], acc[0], acc[0])
	VMAXPS(acc[3], acc[2], acc[2])
	VMAXPS(acc[2], acc[0], acc[0])
	Store(w.lower(acc[0], func(a, b, d operand.Op) { VMAXPS(a, b, d) }), ReturnIndex(0))
	VZEROUPPER()
	RET()
}

func (w width) absMax() {
	name := "absMax_" + w.name
	TEXT(name, NOSPLIT, "func(x *float32, n int) float32")
	Doc(name + " is the largest |x| by bit pattern, so that NaN wins; n is at least one vector.")
	Pragma("noescape")
	x, n := Load(Param("x"), GP64()), Load(Param("n"), GP64())
	mask := w.set(bits(1<<31 - 1))
	acc := [4]vv{w.zero(), w.zero(), w.zero(), w.zero()}
	w.overlapped(x, n, func(at operand.Mem, slot int) {
		v := w.reg()
		VANDPS(at, mask, v)
		VPMAXUD(v, acc[slot], acc[slot])
	})
	VPMAXUD(acc[1], acc[0], acc[0])
	VPMAXUD(acc[3], acc[2], acc[2])
	VPMAXUD(acc[2], acc[0], acc[0])
	r := w.lower(acc[0], func(a, b, d operand.Op) { VPMAXUD(a, b, d) })
	Store(r, ReturnIndex(0))
	VZEROUPPER()
	RET()
}
