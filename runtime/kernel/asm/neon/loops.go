package main

import (
	"fmt"

	"github.com/qsimc/qsimc/runtime/kernel/asm/coeff"
)

var (
	dstX  = []stream{{"dst", true}, {"x", false}}
	dstXY = []stream{{"dst", true}, {"x", false}, {"y", false}}
)

const (
	sigX  = "dst *float32, x *float32, n int"
	sigXY = "dst *float32, x *float32, y *float32, n int"
	sigXS = "dst *float32, x *float32, s float32, n int"
	sigST = "dst *float32, x *float32, s float32, t float32, n int"
	signs = 1 << 31
)

func (a *asm) arithmetic() {
	for _, f := range []struct {
		name, doc string
		op        func(d, n, m v)
	}{
		{"vecAdd", "sets dst = x + y.", a.fadd},
		{"vecSub", "sets dst = x - y.", a.fsub},
		{"vecMul", "sets dst = x * y.", a.fmul},
		{"vecDiv", "sets dst = x / y.", a.fdiv},
	} {
		a.loop(f.name, sigXY, f.doc, 4, dstXY, func() {}, func(in []v) []v {
			f.op(in[0], in[0], in[1])
			return in[:1]
		})
	}
	a.loop("vecMaximum", sigXY, "sets dst = max(x, y), NaN where one is; of zeros the negative.", 2, dstXY, func() {}, func(in []v) []v {
		x, y, gt, lt := in[0], in[1], a.get(), a.get()
		both := a.get()
		a.fcmgt(gt, x, y)
		a.fcmgt(lt, y, x)
		a.or(both, x, y)
		a.put(both, x, gt)
		a.put(both, y, lt)
		return []v{both}
	})
	var s, t v
	for _, f := range []struct {
		name, doc string
		op        func(d, n, m v)
		swap      bool
	}{
		{"vecAddS", "sets dst = x + s.", a.fadd, false},
		{"vecSubS", "sets dst = x - s.", a.fsub, false},
		{"vecRSubS", "sets dst = s - x.", a.fsub, true},
		{"vecMulS", "sets dst = x * s.", a.fmul, false},
		{"vecDivS", "sets dst = x / s.", a.fdiv, false},
		{"vecRDivS", "sets dst = s / x.", a.fdiv, true},
	} {
		a.loop(f.name, sigXS, f.doc, 4, dstX, func() { s = a.param("s") }, func(in []v) []v {
			if f.swap {
				f.op(in[0], s, in[0])
			} else {
				f.op(in[0], in[0], s)
			}
			return in
		})
	}
	a.loop("vecAxpy", sigXS, "adds s*x to dst, rounding twice.", 4, []stream{{"dst", true}, {"x", false}, {"dst", false}},
		func() { s = a.param("s") },
		func(in []v) []v {
			a.fmul(in[0], in[0], s)
			a.fadd(in[1], in[1], in[0])
			return in[1:]
		})
	both := func() { s, t = a.param("s"), a.param("t") }
	a.loop("vecAffine", sigST, "sets dst = (x-s)*t.", 4, dstX, both, func(in []v) []v {
		a.fsub(in[0], in[0], s)
		a.fmul(in[0], in[0], t)
		return in
	})
	a.loop("vecClip", sigST, "sets dst = min(max(x, s), t).", 4, dstX, both, func(in []v) []v {
		m := a.get()
		a.fcmgt(m, s, in[0])
		a.put(in[0], s, m)
		a.fcmgt(m, in[0], t)
		a.put(in[0], t, m)
		return in
	})
	a.loop("vecRelu", sigX, "sets dst = max(x, 0).", 4, dstX, func() { s = a.bits(0) }, func(in []v) []v {
		m := a.get()
		a.fcmge(m, s, in[0])
		a.andNot(in[0], in[0], m)
		return in
	})
	a.loop("vecSqrt", sigX, "sets dst = √x.", 4, dstX, func() {}, func(in []v) []v {
		a.fsqrt(in[0], in[0])
		return in
	})
}

// exponential holds the constants of exp; see expGeneric for the method, and asm's exp for the same steps on amd64.
type exponential struct {
	lo, hi, log2e, ln2Hi, ln2Lo, one, bias v
	p                                      []v
}

func (a *asm) exponential() *exponential {
	e := &exponential{lo: a.num(coeff.ExpLo), hi: a.num(coeff.ExpHi), log2e: a.num(coeff.Log2E), ln2Hi: a.num(coeff.Ln2Hi),
		ln2Lo: a.num(coeff.Ln2Lo), one: a.num(1), bias: a.bits(127)}
	for _, c := range coeff.Exp {
		e.p = append(e.p, a.num(c))
	}
	return e
}

// horner evaluates the polynomial with coefficients c, highest power first, at x, fused.
func (a *asm) horner(x v, c []v) v {
	p, q := a.get(), a.get()
	a.mov(p, c[0])
	for _, k := range c[1:] {
		a.mov(q, k)
		a.fmla(q, p, x)
		p, q = q, p
	}
	return p
}

// exp is e^x; x keeps its value.
func (a *asm) exp(x v, e *exponential) v {
	c, n, t := a.get(), a.get(), a.get()
	a.fmax(c, x, e.lo)
	a.fmin(c, c, e.hi)
	a.fmul(n, c, e.log2e)
	a.frintn(n, n)
	a.fmls(c, n, e.ln2Hi)
	a.fmls(c, n, e.ln2Lo)
	p := a.horner(c, e.p)
	a.fmul(t, c, c)
	a.fmla(c, p, t)
	a.fadd(p, c, e.one)
	a.fcvtzs(n, n)
	a.sshr(t, n, 1)
	a.isub(n, n, t)
	for _, x := range []v{t, n} {
		a.iadd(x, x, e.bias)
		a.shl(x, x, 23)
		a.fmul(p, p, x)
	}
	a.fcmgt(t, e.lo, x)
	a.andNot(p, p, t)
	return p
}

// ratio holds a rational's constants.
type ratio struct {
	p, q              []v
	limit, one, signs v
}

func (a *asm) ratio(f *coeff.Rational) *ratio {
	k := &ratio{limit: a.num(f.Limit), one: a.num(1), signs: a.bits(signs)}
	for _, c := range f.P {
		k.p = append(k.p, a.num(c))
	}
	for _, c := range f.Q {
		k.q = append(k.q, a.num(c))
	}
	return k
}

// eval is f(x); x keeps its value.
func (a *asm) eval(x v, k *ratio) v {
	t := a.get()
	a.fmul(t, x, x)
	p := a.horner(t, k.p)
	q := a.horner(t, k.q)
	a.fmul(p, p, x)
	a.fdiv(p, p, q)
	a.and(q, x, k.signs)
	a.or(q, q, k.one)
	a.fabs(t, x)
	a.fcmgt(t, t, k.limit)
	a.put(p, q, t)
	return p
}

func (a *asm) functions() {
	var e *exponential
	var s v
	exps := func() { e = a.exponential() }
	a.loop("vecExp", sigX, "sets dst = e^x.", 2, dstX, exps, func(in []v) []v { return []v{a.exp(in[0], e)} })
	a.loop("vecExpSub", sigXS, "sets dst = e^(x-s).", 2, dstX, func() { exps(); s = a.param("s") }, func(in []v) []v {
		a.fsub(in[0], in[0], s)
		return []v{a.exp(in[0], e)}
	})
	a.expSum()
	negExp1 := func(x v) v { // 1 + e^-x
		t := a.get()
		a.fneg(t, x)
		y := a.exp(t, e)
		a.fadd(y, y, e.one)
		return y
	}
	a.loop("vecSigmoid", sigX, "sets dst = 1/(1+e^-x).", 2, dstX, exps, func(in []v) []v {
		y := negExp1(in[0])
		a.fdiv(y, e.one, y)
		return []v{y}
	})
	a.loop("vecSilu", sigX, "sets dst = x/(1+e^-x).", 2, dstX, exps, func(in []v) []v {
		y := negExp1(in[0])
		a.fdiv(y, in[0], y)
		return []v{y}
	})
	var k *ratio
	var c, d v
	a.loop("vecErf", sigX, "sets dst = erf(x).", 2, dstX, func() { k = a.ratio(&coeff.Erf) }, func(in []v) []v { return []v{a.eval(in[0], k)} })
	a.loop("vecTanh", sigX, "sets dst = tanh(x).", 2, dstX, func() { k = a.ratio(&coeff.Tanh) }, func(in []v) []v { return []v{a.eval(in[0], k)} })
	half := func(x, f v) []v { // x/2·(1+f)
		a.fadd(f, f, k.one)
		a.fmul(x, x, s)
		a.fmul(f, f, x)
		return []v{f}
	}
	a.loop("vecGelu", sigX, "sets dst = x/2·(1+erf(x/√2)).", 2, dstX,
		func() { k, s, c = a.ratio(&coeff.Erf), a.num(0.5), a.num(coeff.Sqrt1_2) },
		func(in []v) []v {
			t := a.get()
			a.fmul(t, in[0], c)
			return half(in[0], a.eval(t, k))
		})
	a.loop("vecGeluTanh", sigX, "sets dst = x/2·(1+tanh(√(2/π)·(x+0.044715x³))).", 2, dstX,
		func() { k, s, c, d = a.ratio(&coeff.Tanh), a.num(0.5), a.num(coeff.GeluTanhX2), a.num(coeff.GeluTanh) },
		func(in []v) []v {
			t := a.get()
			a.fmul(t, in[0], in[0])
			a.fmul(t, t, c)
			a.fadd(t, t, d)
			a.fmul(t, t, in[0])
			return half(in[0], a.eval(t, k))
		})
}

// expSum is expSub and the sum of its results in 32 lanes, in one pass.
func (a *asm) expSum() {
	a.fn("vecExpSum_neon", "dst *float32, x *float32, s float32, n int, acc *float32", "sets dst = e^(x-s) and adds it to 32 lanes; n is a multiple of 32.")
	const dst, x, n, acc r = 0, 1, 2, 3
	a.load("dst", dst)
	a.load("x", x)
	a.load("n", n)
	a.load("acc", acc)
	e := a.exponential()
	s := a.param("s")
	a.lanes32(x, n, acc, func(i int, sum v) {
		t := a.get()
		a.ldq(t, x, 16*i)
		a.fsub(t, t, s)
		y := a.exp(t, e)
		a.stq(y, dst, 16*i)
		a.fadd(sum, sum, y)
	}, func() { a.op("ADD  $128, R%d", dst) })
	a.ret()
}

// lanes32 loads 32 sums from acc, calls visit for each 4 of 32 elements at x until the n are done, and stores the sums.
func (a *asm) lanes32(x, n, acc r, visit func(i int, sum v), next func()) {
	var sums []v
	for i := range 8 {
		sums = append(sums, a.get())
		a.ldq(sums[i], acc, 16*i)
	}
	a.label("loop")
	a.op("SUBS $32, R%d", n)
	a.op("BLT  done")
	for i, sum := range sums {
		a.scope(func() { visit(i, sum) })
	}
	a.op("ADD  $128, R%d", x)
	next()
	a.op("B    loop")
	a.label("done")
	for i, sum := range sums {
		a.stq(sum, acc, 16*i)
	}
}

// reductions keep 32 lanes whatever the width; see lanes in reduce.go.
func (a *asm) reductions() {
	const x, n, out r = 0, 1, 2
	begin := func(name, sig, doc string) {
		a.fn(name+"_neon", sig, doc)
		a.load("x", x)
		a.load("n", n)
	}
	begin("sumLanes", "x *float32, n int, acc *float32", "adds x to 32 lanes; n is a multiple of 32.")
	a.load("acc", out)
	a.lanes32(x, n, out, func(i int, sum v) {
		t := a.get()
		a.ldq(t, x, 16*i)
		a.fadd(sum, sum, t)
	}, func() {})
	a.ret()
	begin("sumSqLanes", "x *float32, n int, acc *float32, s float32", "adds (x-s)² to 32 lanes; n is a multiple of 32.")
	a.load("acc", out)
	s := a.param("s")
	a.lanes32(x, n, out, func(i int, sum v) {
		t := a.get()
		a.ldq(t, x, 16*i)
		a.fsub(t, t, s)
		a.fmul(t, t, t)
		a.fadd(sum, sum, t)
	}, func() {})
	a.ret()

	begin("minMax", "x *float32, n int, out *float32", "sets out to the least and greatest of x and the largest |x| by bit pattern; n is at least one vector.")
	a.load("out", out)
	lo, hi, ab := a.bits(0x7f800000), a.bits(0xff800000), a.bits(0)
	a.overlapped(x, n, func(t v) {
		a.fmin(lo, lo, t)
		a.fmax(hi, hi, t)
		a.fabs(t, t)
		a.umax(ab, ab, t)
	})
	a.fminv(lo, lo)
	a.fmaxv(hi, hi)
	a.umaxv(ab, ab)
	for i, t := range []v{lo, hi, ab} {
		a.op("FMOVS F%d, %d(R%d)", t, 4*i, out)
	}
	a.ret()
	begin("absMax", "x *float32, n int) float32", "is the largest |x| by bit pattern, so that NaN wins; n is at least one vector.")
	ab = a.bits(0)
	a.overlapped(x, n, func(t v) {
		a.fabs(t, t)
		a.umax(ab, ab, t)
	})
	a.umaxv(ab, ab)
	a.op("FMOVS F%d, %s", ab, a.args["ret"])
	a.ret()
	begin("vecMax", "x *float32, n int) float32", "is the greatest of x; what it is where x holds a NaN is not defined. n is at least one vector.")
	hi = a.bits(0xff800000)
	a.overlapped(x, n, func(t v) { a.fmax(hi, hi, t) })
	a.fmaxv(hi, hi)
	a.op("FMOVS F%d, %s", hi, a.args["ret"])
	a.ret()
	a.loop("vecAbsMax", sigX, "sets dst = max(|dst|, |x|), NaN wins.", 4, []stream{{"dst", true}, {"x", false}, {"dst", false}}, func() {},
		func(in []v) []v {
			a.fabs(in[0], in[0])
			a.fabs(in[1], in[1])
			a.umax(in[1], in[1], in[0])
			return in[1:]
		})
}

// overlapped visits x vector by vector, then once more the last vector of x, which may overlap the one before: right for
// idempotent reductions. n is at least one vector.
func (a *asm) overlapped(x, n r, visit func(t v)) {
	const last r = 14
	a.op("ADD  R%d<<2, R%d, R%d", n, x, last)
	a.op("SUB  $16, R%d", last)
	a.label("loop")
	a.op("CMP  $4, R%d", n)
	a.op("BLT  last")
	a.scope(func() {
		t := a.get()
		a.ldq(t, x, 0)
		visit(t)
	})
	a.op("ADD  $16, R%d", x)
	a.op("SUB  $4, R%d", n)
	a.op("B    loop")
	a.label("last")
	a.scope(func() {
		t := a.get()
		a.ldq(t, last, 0)
		visit(t)
	})
}

// convolution is the products of a tile of a convolution: up to 8 rows at 8 positions; see convTile.
func (a *asm) convolution() {
	a.fn("convSums_neon", "w *float32, lda int, offs *int, k int, src *float32, out *float32, rows int",
		"sets out[8r+p], r below rows, to the sum over k of w[r·lda+k]·src[offs[k]+p]; lda and offs in bytes. rows is 1 to 8.")
	const offs, k, src, out, rows, lda, off r = 8, 9, 10, 11, 12, 13, 14
	a.load("w", 0)
	a.load("lda", lda)
	a.load("offs", offs)
	a.load("k", k)
	a.load("src", src)
	a.load("out", out)
	a.load("rows", rows)
	for row := r(1); row < 8; row++ {
		a.op("ADD  R%d, R%d, R%d", lda, row-1, row)
	}
	for i := range 16 {
		a.zero(v(i))
	}
	for n := 8; n >= 1; n-- {
		a.label(fmt.Sprintf("rows%d", n))
		if n > 1 {
			a.op("CMP  $%d, R%d", n, rows)
			a.op("BNE  rows%d", n-1)
		}
		a.op("CBZ  R%d, store", k)
		a.label(fmt.Sprintf("loop%d", n))
		a.op("MOVD.P 8(R%d), R%d", offs, off)
		a.op("ADD  R%d, R%d, R%d", src, off, off)
		a.ldq(16, off, 0)
		a.ldq(17, off, 16)
		for row := range n {
			x := v(18 + row%8)
			a.word(0x4ddfc800|uint32(row)<<5|uint32(x), "ld1r {v%d.4s}, [x%d], #4", x, row)
			a.fmla(v(2*row), 16, x)
			a.fmla(v(2*row+1), 17, x)
		}
		a.op("SUBS $1, R%d", k)
		a.op("BNE  loop%d", n)
		a.op("B    store")
	}
	a.label("store")
	for row := range 8 {
		if row > 0 {
			a.op("CMP  $%d, R%d", row, rows)
			a.op("BEQ  done")
		}
		a.stq(v(2*row), out, 32*row)
		a.stq(v(2*row+1), out, 32*row+16)
	}
	a.label("done")
	a.ret()
}

// gridCode is clamp(rne(x/s)+zero, lo, hi), NaN counting as 0; it is made in x.
func (a *asm) gridCode(x, s, zero, lo, hi v) {
	m := a.get()
	a.fdiv(x, x, s)
	a.fcmeq(m, x, x)
	a.and(x, x, m)
	a.frintn(x, x)
	a.fadd(x, x, zero)
	a.fmax(x, x, lo)
	a.fmin(x, x, hi)
}

func (a *asm) quantizers() {
	const sig = "x *float32, scale float32, zero float32, lo float32, hi float32, n int"
	var s, zero, lo, hi v
	grid := func() { s, zero, lo, hi = a.param("scale"), a.param("zero"), a.param("lo"), a.param("hi") }
	a.loop("vecFakeInt", "dst *float32, "+sig, "is fakeIntGeneric.", 4, dstX, grid, func(in []v) []v {
		a.gridCode(in[0], s, zero, lo, hi)
		a.fsub(in[0], in[0], zero)
		a.fmul(in[0], in[0], s)
		return in
	})
	a.loop("vecCodes", "dst *int32, "+sig, "is codesGeneric.", 4, dstX, grid, func(in []v) []v {
		a.gridCode(in[0], s, zero, lo, hi)
		a.fcvtzs(in[0], in[0])
		return in
	})
	a.loop("vecFakeIntV", "dst *float32, x *float32, y *float32, lo float32, hi float32, n int", "is fakeIntVGeneric with the scales in y.", 4, dstXY,
		func() { zero, lo, hi = a.bits(0), a.param("lo"), a.param("hi") },
		func(in []v) []v {
			a.gridCode(in[0], in[1], zero, lo, hi)
			a.fmul(in[0], in[0], in[1])
			return in[:1]
		})
	var least, shift, top, nan, sign, exponents v
	a.loop("vecCast", "dst *float32, x *float32, grid *uint32, scale float32, n int", "is castGeneric for grids that are not wide.", 2, dstX,
		func() {
			const g r = 14
			a.load("grid", g)
			for i, d := range []*v{&least, &shift, &top, &nan} {
				*d = a.get()
				a.op("FMOVS %d(R%d), F%d", 4*i, g, *d)
				a.first(*d, *d)
			}
			s, sign, exponents = a.param("scale"), a.bits(signs), a.bits(0x7f800000)
		},
		func(in []v) []v {
			x, y, c, ok := in[0], a.get(), a.get(), a.get()
			a.fdiv(x, x, s)
			a.fcmeq(ok, x, x)
			a.fabs(y, x)
			a.fmin(y, y, top)
			a.and(c, y, exponents)
			a.umax(c, c, least)
			a.iadd(c, c, shift)
			a.fadd(y, y, c)
			a.fsub(y, y, c)
			a.and(x, x, sign)
			a.or(y, y, x)
			a.mov(c, nan)
			a.put(c, y, ok)
			a.fmul(c, c, s)
			return []v{c}
		})
}
