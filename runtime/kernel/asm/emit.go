package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// width is a vector width: the emitters below write the same arithmetic for either.
type width struct {
	name  string // suffix of function names
	bytes int
}

var widths = []width{{"avx512", 64}, {"avx2", 32}}

func (w width) z() bool    { return w.bytes == 64 }
func (w width) lanes() int { return w.bytes / 4 }

// reg is a fresh vector register.
func (w width) reg() reg.VecVirtual {
	if w.z() {
		return ZMM()
	}
	return YMM()
}

// consts holds the constants of a file by bit pattern: 64 bytes each, the value in every lane.
var consts = map[uint32]operand.Mem{}

func bits(u uint32) operand.Mem {
	m, ok := consts[u]
	if !ok {
		m = GLOBL(fmt.Sprintf("k%08x", u), 8|16) // RODATA, NOPTR
		for i := range 16 {
			DATA(i*4, operand.U32(u))
		}
		consts[u] = m
	}
	return m
}

func num(v float64) operand.Mem { return bits(math.Float32bits(float32(v))) }

// set loads a constant.
func (w width) set(m operand.Mem) reg.VecVirtual {
	r := w.reg()
	VMOVUPS(m, r)
	return r
}

// param broadcasts a float32 parameter.
func (w width) param(name string) reg.VecVirtual {
	r := w.reg()
	a, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSS(a.Addr, r)
	return r
}

func (w width) zero() reg.VecVirtual {
	r := w.reg()
	VXORPS(r, r, r)
	return r
}

// round rounds to nearest even.
func (w width) round(src, dst reg.VecVirtual) {
	if w.z() {
		VRNDSCALEPS(operand.Imm(8), src, dst)
	} else {
		VROUNDPS(operand.Imm(8), src, dst)
	}
}

// Predicates of VCMPPS, of the form cmp(pred, b, a): a pred b.
const (
	unord = 3
	ord   = 7
	nlt   = 5  // not less than, NaN included
	gt    = 30 // greater than, no NaN
)

// keep zeroes the lanes of r where a pred b does not hold.
func (w width) keep(pred uint64, b operand.Op, a, r reg.VecVirtual) {
	if w.z() {
		k := K()
		VCMPPS(operand.Imm(pred), b, a, k)
		VMOVAPS_Z(r, k, r)
		return
	}
	m := w.reg()
	VCMPPS(operand.Imm(pred), b, a, m)
	VANDPS(m, r, r)
}

// put sets the lanes of r to v where a pred b holds.
func (w width) put(pred uint64, b operand.Op, a, v, r reg.VecVirtual) {
	if w.z() {
		k := K()
		VCMPPS(operand.Imm(pred), b, a, k)
		VBLENDMPS(v, r, k, r)
		return
	}
	m := w.reg()
	VCMPPS(operand.Imm(pred), b, a, m)
	VBLENDVPS(m, v, r, r)
}

// stream is one slice walked by a loop.
type stream struct {
	param string
	write bool
}

// tailMask is a table of 8 ones and 8 zeros for VMASKMOVPS.
var tailTable operand.Mem

func tailMasks() operand.Mem {
	if tailTable.Symbol.Name == "" {
		tailTable = GLOBL("tailmask", 8|16)
		for i := range 16 {
			v := uint32(math.MaxUint32)
			if i >= 8 {
				v = 0
			}
			DATA(i*4, operand.U32(v))
		}
	}
	return tailTable
}

// mapLoop emits a function over n elements, any n: head once, then body for every vector, unroll at a time; the last
// vector is masked, and what lies behind it is neither read nor written. body gets the loaded inputs and returns the
// outputs, in the order of the streams.
func (w width) mapLoop(name, sig, doc string, unroll int, streams []stream, head func(), body func(in []reg.VecVirtual) []reg.VecVirtual) {
	name += "_" + w.name
	TEXT(name, NOSPLIT, sig)
	Doc(name + " " + doc)
	Pragma("noescape")
	var ptr []reg.Register
	for _, s := range streams {
		ptr = append(ptr, Load(Param(s.param), GP64()))
	}
	n := Load(Param("n"), GP64())
	head()
	step := func(off int) {
		var in []reg.VecVirtual
		for i, s := range streams {
			if !s.write {
				r := w.reg()
				VMOVUPS(operand.Mem{Base: ptr[i], Disp: off}, r)
				in = append(in, r)
			}
		}
		out := body(in)
		for i, s := range streams {
			if s.write {
				VMOVUPS(out[0], operand.Mem{Base: ptr[i], Disp: off})
				out = out[1:]
			}
		}
	}
	loop := func(label, next string, u int) {
		Label(label)
		CMPQ(n, operand.I32(int32(u*w.lanes())))
		JLT(operand.LabelRef(next))
		for i := range u {
			step(i * w.bytes)
		}
		for _, p := range ptr {
			ADDQ(operand.I32(int32(u*w.bytes)), p)
		}
		SUBQ(operand.I32(int32(u*w.lanes())), n)
		JMP(operand.LabelRef(label))
	}
	if unroll > 1 {
		loop("many", "one", unroll)
	}
	loop("one", "tail", 1)
	Label("tail")
	TESTQ(n, n)
	JZ(operand.LabelRef("done"))
	w.masked(n, ptr, streams, body)
	Label("done")
	VZEROUPPER()
	RET()
}

// mask returns loads and stores of the first n lanes, 0 < n < lanes; n is used up.
func (w width) mask(n reg.Register) (load func(m operand.Mem, r reg.VecVirtual), save func(r reg.VecVirtual, m operand.Mem)) {
	if w.z() {
		ones, k := GP64(), K()
		MOVQ(operand.I32(-1), ones)
		BZHIQ(n, ones, ones)
		KMOVW(ones.As32(), k)
		return func(m operand.Mem, r reg.VecVirtual) { VMOVUPS_Z(m, k, r) },
			func(r reg.VecVirtual, m operand.Mem) { VMOVUPS(r, k, m) }
	}
	table, mask := GP64(), w.reg()
	LEAQ(tailMasks().Offset(32), table)
	SHLQ(operand.Imm(2), n)
	SUBQ(n, table)
	VMOVUPS(operand.Mem{Base: table}, mask)
	return func(m operand.Mem, r reg.VecVirtual) { VMASKMOVPS(m, mask, r) },
		func(r reg.VecVirtual, m operand.Mem) { VMASKMOVPS(r, mask, m) }
}

func (w width) masked(n reg.Register, ptr []reg.Register, streams []stream, body func(in []reg.VecVirtual) []reg.VecVirtual) {
	load, save := w.mask(n)
	var in []reg.VecVirtual
	for i, s := range streams {
		if !s.write {
			r := w.reg()
			load(operand.Mem{Base: ptr[i]}, r)
			in = append(in, r)
		}
	}
	out := body(in)
	for i, s := range streams {
		if s.write {
			save(out[0], operand.Mem{Base: ptr[i]})
			out = out[1:]
		}
	}
}

// horner evaluates the polynomial with coefficients c, highest power first, at r, fused.
func (w width) horner(r reg.VecVirtual, c []float64) reg.VecVirtual {
	p := w.set(num(c[0]))
	for _, v := range c[1:] {
		VFMADD213PS(num(v), r, p)
	}
	return p
}
