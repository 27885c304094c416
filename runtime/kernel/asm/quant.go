package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func quantizers() {
	for _, w := range widths {
		w.grids()
		w.casts()
		w.blocks()
		w.halves()
		w.bytesOf8()
		w.add64()
	}
}

// grids are the integer quantizers; see FakeQuantInt.
func (w width) grids() {
	var scale, zero, lo, hi vv
	code := func(x vv) { w.gridCode(x, zero, lo, hi) }
	const params = "scale float32, zero float32, lo float32, hi float32, n int)"
	load := func() { scale, zero, lo, hi = w.param("scale"), w.param("zero"), w.param("lo"), w.param("hi") }
	w.mapLoop("vecFakeInt", "func(dst *float32, x *float32, "+params, "is fakeIntGeneric.", 4, dstX, load, func(in []vv) []vv {
		x := in[0]
		VDIVPS(scale, x, x)
		code(x)
		VSUBPS(zero, x, x)
		VMULPS(scale, x, x)
		return in
	})
	w.mapLoop("vecCodes", "func(dst *int32, x *float32, "+params, "is codesGeneric.", 4, dstX, load, func(in []vv) []vv {
		x := in[0]
		VDIVPS(scale, x, x)
		code(x)
		VCVTPS2DQ(x, x)
		return in
	})
	w.mapLoop("vecFakeIntV", "func(dst *float32, x *float32, y *float32, lo float32, hi float32, n int)",
		"is fakeIntVGeneric with the scales in y.", 4, dstXY,
		func() { zero, lo, hi = w.zero(), w.param("lo"), w.param("hi") },
		func(in []vv) []vv {
			x := in[0]
			VDIVPS(in[1], x, x)
			code(x)
			VMULPS(in[1], x, x)
			return in[:1]
		})
}

// gridCode is clamp(rne(x)+zero, lo, hi) with NaN as 0; x is already divided.
func (w width) gridCode(x, zero, lo, hi vv) {
	w.keep(ord, x, x, x)
	w.round(x, x)
	VADDPS(zero, x, x)
	VMAXPS(x, lo, x)
	VMINPS(x, hi, x)
}

// casts are the minifloat grids; see type minifloat.
func (w width) casts() {
	var minField, shift, top, nan, scale vv
	loadGrid := func() {
		p := Load(Param("grid"), GP64())
		for i, r := range []*vv{&minField, &shift, &top, &nan} {
			*r = w.reg()
			VBROADCASTSS(operand.Mem{Base: p, Disp: 4 * i}, *r)
		}
	}
	magnitude := func(a vv) { // the cast of |x|, in place; NaN passes
		c := w.reg()
		VMINPS(a, top, a)
		VANDPS(bits(0x7f800000), a, c)
		VPMAXUD(minField, c, c)
		VPADDD(shift, c, c)
		VADDPS(c, a, a)
		VSUBPS(c, a, a)
	}
	w.mapLoop("vecCast", "func(dst *float32, x *float32, grid *uint32, scale float32, n int)", "is castGeneric for grids that are not wide.", 2, dstX,
		func() {
			loadGrid()
			scale = w.param("scale")
		},
		func(in []vv) []vv {
			x, a, sign := in[0], w.reg(), w.reg()
			VDIVPS(scale, x, x)
			VANDPS(bits(1<<31-1), x, a)
			magnitude(a)
			VANDPS(bits(1<<31), x, sign)
			VORPS(sign, a, a)
			w.put(unord, x, x, nan, a)
			VMULPS(scale, a, a)
			return []vv{a}
		})
	for _, r := range rules {
		w.blockLoop(r, "Float", "grid *uint32, ", loadGrid, func(x, q, s vv) {
			// The sign is x's: a quotient that underflows may have lost it.
			VANDPS(bits(1<<31), x, x)
			VANDPS(bits(1<<31-1), q, q)
			magnitude(q)
			VORPS(x, q, q)
			VMULPS(s, q, q)
		})
	}
}

// blocks are the integer quantizers of blocks.
func (w width) blocks() {
	var lo, hi, zero vv
	for _, r := range rules {
		w.blockLoop(r, "Int", "lo float32, hi float32, ",
			func() { lo, hi, zero = w.param("lo"), w.param("hi"), w.zero() },
			func(_, q, s vv) {
				w.round(q, q)
				VADDPS(zero, q, q) // -0 to +0
				VMAXPS(q, lo, q)
				VMINPS(q, hi, q)
				VMULPS(s, q, q)
			})
	}
}

// add64 widens and adds.
func (w width) add64() {
	name := "vecAdd64_" + w.name
	TEXT(name, NOSPLIT, "func(dst *float64, x *float32, n int)")
	Doc(name + " adds x to dst; n is a multiple of 16.")
	Pragma("noescape")
	dst, x, n := Load(Param("dst"), GP64()), Load(Param("x"), GP64()), Load(Param("n"), GP64())
	w.sixteens(n, x, 4, dst, 8, func() {
		for i := 0; i < 16; i += w.lanes() / 2 {
			r, at := w.reg(), operand.Mem{Base: dst, Disp: 8 * i}
			VCVTPS2PD(operand.Mem{Base: x, Disp: 4 * i}, r)
			VADDPD(at, r, r)
			VMOVUPD(r, at)
		}
	})
}

// bytesOf8 writes the quantizer to codes of one byte and the way back; n is a multiple of 16.
func (w width) bytesOf8() {
	name := "vecQuant8_" + w.name
	TEXT(name, NOSPLIT, "func(dst *uint8, x *float32, scale float32, zero float32, lo float32, hi float32, n int)")
	Doc(name + " is codesGeneric to the low byte of each code; n is a multiple of 16.")
	Pragma("noescape")
	dst, x, n := Load(Param("dst"), GP64()), Load(Param("x"), GP64()), Load(Param("n"), GP64())
	scale, zero, lo, hi := w.param("scale"), w.param("zero"), w.param("lo"), w.param("hi")
	w.sixteens(n, x, 4, dst, 1, func() {
		var v []vv
		for off := 0; off < 64; off += w.bytes {
			r := w.reg()
			VMOVUPS(operand.Mem{Base: x, Disp: off}, r)
			VDIVPS(scale, r, r)
			w.gridCode(r, zero, lo, hi)
			VCVTPS2DQ(r, r)
			v = append(v, r)
		}
		if w.z() {
			b := XMM()
			VPMOVDB(v[0], b)
			VMOVUPS(b, operand.Mem{Base: dst})
			return
		}
		for _, r := range v {
			VANDPS(bits(255), r, r)
		}
		VPACKUSDW(v[1], v[0], v[0])           // 0-3 8-11 | 4-7 12-15
		VPERMQ(operand.Imm(0xd8), v[0], v[0]) // 0-3 4-7 | 8-11 12-15
		h := XMM()
		VEXTRACTI128(operand.Imm(1), v[0], h)
		VPACKUSWB(h, v[0].AsX(), h)
		VMOVUPS(h, operand.Mem{Base: dst})
	})
	for _, f := range []struct {
		name, elem string
		widen      func(m, r operand.Op)
	}{
		{"vecDequantI8", "int8", func(m, r operand.Op) { VPMOVSXBD(m, r) }},
		{"vecDequantU8", "uint8", func(m, r operand.Op) { VPMOVZXBD(m, r) }},
	} {
		name := f.name + "_" + w.name
		TEXT(name, NOSPLIT, "func(dst *float32, x *"+f.elem+", scale float32, zero int32, n int)")
		Doc(name + " sets dst = (x-zero)·scale; n is a multiple of 16.")
		Pragma("noescape")
		dst, x, n := Load(Param("dst"), GP64()), Load(Param("x"), GP64()), Load(Param("n"), GP64())
		scale, zero := w.param("scale"), w.param("zero")
		w.sixteens(n, x, 1, dst, 4, func() {
			for i := 0; i < 16; i += w.lanes() {
				r := w.reg()
				f.widen(operand.Mem{Base: x, Disp: i}, r)
				VPSUBD(zero, r, r)
				VCVTDQ2PS(r, r)
				VMULPS(scale, r, r)
				VMOVUPS(r, operand.Mem{Base: dst, Disp: 4 * i})
			}
		})
	}
}

// sixteens ends a function with a loop over sixteen elements at a time, of in and out bytes each.
func (w width) sixteens(n, x reg.Register, in int, dst reg.Register, out int, body func()) {
	Label("loop")
	SUBQ(operand.Imm(16), n)
	JLT(operand.LabelRef("done"))
	body()
	ADDQ(operand.Imm(uint64(16*in)), x)
	ADDQ(operand.I32(int32(16*out)), dst)
	JMP(operand.LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	RET()
}

// halves convert 16-bit floats; n is a multiple of 16, the rest is done in Go.
func (w width) halves() {
	half := func(r vv) reg.Register {
		if w.z() {
			return r.AsY()
		}
		return r.AsX()
	}
	loop := func(name, sig, doc string, in, out int, body func(src, dst operand.Mem)) {
		TEXT(name+"_"+w.name, NOSPLIT, sig)
		Doc(name + "_" + w.name + " " + doc + "; n is a multiple of 16.")
		Pragma("noescape")
		dst, x, n := Load(Param("dst"), GP64()), Load(Param("x"), GP64()), Load(Param("n"), GP64())
		w.sixteens(n, x, in, dst, out, func() {
			for i := 0; i < 16; i += w.lanes() {
				body(operand.Mem{Base: x, Disp: i * in}, operand.Mem{Base: dst, Disp: i * out})
			}
		})
	}
	const down, up = "func(dst *uint16, x *float32, n int)", "func(dst *float32, x *uint16, n int)"
	loop("vecToF16", down, "is toF16Generic", 4, 2, func(src, dst operand.Mem) {
		r := w.reg()
		VMOVUPS(src, r)
		VCVTPS2PH(operand.Imm(0), r, half(r))
		VMOVUPS(half(r), dst)
	})
	loop("vecFromF16", up, "is fromF16Generic", 2, 4, func(src, dst operand.Mem) {
		r := w.reg()
		VCVTPH2PS(src, r)
		VMOVUPS(r, dst)
	})
	loop("vecToBF16", down, "is toBF16Generic", 4, 2, func(src, dst operand.Mem) {
		x, u, q := w.reg(), w.reg(), w.reg()
		VMOVUPS(src, x)
		VPSRLD(operand.Imm(16), x, u)
		VANDPS(bits(1), u, u)
		VPADDD(bits(0x7fff), u, u)
		VPADDD(x, u, u)
		VORPS(bits(0x400000), x, q)
		w.put(unord, x, x, q, u)
		VPSRLD(operand.Imm(16), u, u)
		if w.z() {
			VPMOVDW(u, u.AsY())
		} else {
			VPACKUSDW(u, u, u)
			VPERMQ(operand.Imm(0x08), u, u)
		}
		VMOVUPS(half(u), dst)
	})
	loop("vecFromBF16", up, "is fromBF16Generic", 2, 4, func(src, dst operand.Mem) {
		r := w.reg()
		VPMOVZXWD(src, r)
		VPSLLD(operand.Imm(16), r, r)
		VMOVUPS(r, dst)
	})
}
