package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Tiles of digits: see digits.go in runtime/kernel. A tile of high digits lies before that of low ones.
const digitTile = 1024

// digits writes the loops that make digits and multiply them.
func digits() {
	digitCodes()
	digitProducts()
}

// digitCodes writes the loop from numbers to digits.
func digitCodes() {
	TEXT("vecDigits", NOSPLIT, "func(dst *float32, x *float32, ldx int, inv *float32)")
	Doc("vecDigits rounds x·inv, within ±32639, for 64 rows of 16 columns, ldx bytes apart, to integers 256·high + low: a word of dst holds the high digits of four rows of a column, that 1024 bytes further on the low ones.")
	Pragma("noescape")
	dst, x, ldx, quads := Load(Param("dst"), GP64()), Load(Param("x"), GP64()), Load(Param("ldx"), GP64()), GP64()
	MOVQ(operand.I32(16), quads)
	inv, by := ZMM(), Load(Param("inv"), GP64())
	VMOVUPS(operand.Mem{Base: by}, inv)
	x3 := GP64()
	LEAQ(operand.Mem{Base: x, Index: ldx, Scale: 2}, x3)
	ADDQ(ldx, x3)
	order := GLOBL("digitOrder", 8|16)
	for lane := range 4 {
		for i, b := range []byte{0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15} {
			DATA(16*lane+i, operand.U8(b))
		}
	}
	places := ZMM()
	VMOVUPS(order, places)
	half, low := ZMM(), ZMM()
	VMOVUPS(bits(0x00800080), half)
	VMOVUPS(bits(0x00ff00ff), low)
	odd, ones := K(), GP64()
	MOVQ(operand.U32(0xaaaaaaaa), ones)
	KMOVD(ones.As32(), odd)
	Label("loop")
	var q [4]reg.VecVirtual
	for i, at := range []operand.Mem{{Base: x}, {Base: x, Index: ldx, Scale: 1}, {Base: x, Index: ldx, Scale: 2}, {Base: x3}} {
		q[i] = ZMM()
		VMULPS(at, inv, q[i])
		VCVTPS2DQ(q[i], q[i])
	}
	var lows, highs [2]reg.VecVirtual
	for i := range 2 { // two rows as pairs of int16
		pair := q[2*i]
		VPSLLD(operand.Imm(16), q[2*i+1], q[2*i+1])
		VPBLENDMW(q[2*i+1], pair, odd, pair)
		lows[i], highs[i] = ZMM(), ZMM()
		VPADDW(half, pair, highs[i])
		VPSRLW(operand.Imm(8), highs[i], highs[i])
		VPANDD(low, pair, lows[i])
	}
	for i, d := range [][2]reg.VecVirtual{highs, lows} {
		VPACKUSWB(d[1], d[0], d[0])
		VPSHUFB(places, d[0], d[0])
		VMOVUPS(d[0], operand.Mem{Base: dst, Disp: i * digitTile})
	}
	ADDQ(operand.I32(64), dst)
	LEAQ(operand.Mem{Base: x, Index: ldx, Scale: 4}, x)
	LEAQ(operand.Mem{Base: x3, Index: ldx, Scale: 4}, x3)
	DECQ(quads)
	JNZ(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// digitProducts writes the product of a group of 16 rows of digits with groups of 16 columns. While tiles multiply a group the vector
// unit adds the sums of the one before, which lie in tmp.
func digitProducts() {
	TEXT("digitsAMX", NOSPLIT, "func(ap *float32, bp *float32, tiles int, groups int, rows *float64, cols *float64, h *float64, ldh int, tmp *int32, config *byte)")
	Doc("digitsAMX adds to 16 rows of h, ldh bytes apart, the products of a group of rows with groups groups of columns, of tiles tiles of digits each, times the steps of rows and columns.")
	Pragma("noescape")
	load := func(name string, r reg.GPPhysical) reg.GPPhysical { Load(Param(name), r); return r }
	tileConfig(load("config", reg.RAX))
	ap, bp, tiles, groups := load("ap", reg.RAX), load("bp", reg.RCX), load("tiles", reg.RBX), load("groups", reg.RDX)
	rows, cols, h, ldh, tmp := load("rows", reg.RSI), load("cols", reg.RDI), load("h", reg.R8), load("ldh", reg.R9), load("tmp", reg.R10)
	line, a, n, out, t := reg.R11, reg.R12, reg.R13, reg.R14, reg.R15
	MOVQ(operand.I32(64), line)
	high, mid := reg.Z30, reg.Z31
	for i, v := range []float64{65536, 256} {
		MOVQ(operand.U64(math.Float64bits(v)), n)
		VPBROADCASTQ(n, []reg.VecPhysical{high, mid}[i])
	}

	multiply := func(label string) {
		for i := range 3 {
			tileZero(i)
		}
		MOVQ(ap, a)
		MOVQ(tiles, n)
		Label(label)
		// All loads before all products: where tiles have no spare registers (the core's other thread has them), each change from
		// one to the other waits.
		for i := range 2 {
			tileLoad(4+i, a, int32(i*digitTile), line)
			tileLoad(6+i, bp, int32(i*digitTile), line)
		}
		tileDot(0, 4, 6)
		tileDot(1, 4, 7)
		tileDot(2, 5, 7)
		tileDot(1, 5, 6)
		ADDQ(operand.I32(2*digitTile), a)
		ADDQ(operand.I32(2*digitTile), bp)
		DECQ(n)
		JNZ(operand.LabelRef(label))
	}
	save := func() {
		for i := range 3 {
			tileStore(i, tmp, int32(i*digitTile), line)
		}
	}
	// H += (65536·hh + (256·(hl+lh) + ll))·row·column, exact but for the last sum.
	drain := func(label string) {
		by := []reg.VecPhysical{reg.Z28, reg.Z29}
		for v := range 2 {
			VMOVUPD(operand.Mem{Base: cols, Disp: 64 * v}, by[v])
		}
		ADDQ(operand.I32(128), cols)
		MOVQ(h, out)
		ADDQ(operand.I32(128), h)
		MOVQ(tmp, t)
		MOVQ(operand.I32(0), n)
		Label(label)
		step := reg.Z27
		VBROADCASTSD(operand.Mem{Base: rows, Index: n, Scale: 8}, step)
		for v := range 2 {
			at := func(i int) operand.Mem { return operand.Mem{Base: t, Disp: i*digitTile + 32*v} }
			hh, ml, ll := []reg.VecPhysical{reg.Z0, reg.Z3}[v], []reg.VecPhysical{reg.Z1, reg.Z4}[v], []reg.VecPhysical{reg.Z2, reg.Z5}[v]
			VCVTDQ2PD(at(0), hh)
			VCVTDQ2PD(at(1), ml)
			VCVTDQ2PD(at(2), ll)
			VFMADD231PD(mid, ml, ll)
			VFMADD231PD(high, hh, ll)
			VMULPD(step, ll, ll)
			to := operand.Mem{Base: out, Disp: 64 * v}
			VFMADD213PD(to, by[v], ll)
			VMOVUPD(ll, to)
		}
		ADDQ(operand.I32(64), t)
		ADDQ(ldh, out)
		INCQ(n)
		CMPQ(n, operand.Imm(16))
		JLT(operand.LabelRef(label))
	}
	multiply("first")
	save()
	Label("group")
	DECQ(groups)
	JZ(operand.LabelRef("last"))
	multiply("next")
	drain("one")
	save()
	JMP(operand.LabelRef("group"))
	Label("last")
	drain("end")
	tileRelease()
	VZEROUPPER()
	RET()
}
