package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// moments are sums in float64. They keep 32 lanes whatever the width; see lanes in reduce.go.
func (w width) moments() {
	for _, f := range []struct {
		name, sig, doc string
		square         bool
	}{
		{"sumLanes64", "func(x *float32, n int, acc *float64)", "adds x to 32 lanes; n is a multiple of 32.", false},
		{"sumSqLanes64", "func(x *float32, n int, acc *float64, s float64)", "adds (x-s)² to 32 lanes; n is a multiple of 32.", true},
	} {
		TEXT(f.name+"_"+w.name, NOSPLIT, f.sig)
		Doc(f.name + "_" + w.name + " " + f.doc)
		Pragma("noescape")
		x, n, acc := Load(Param("x"), GP64()), Load(Param("n"), GP64()), Load(Param("acc"), GP64())
		var s reg.VecVirtual
		if f.square {
			s = w.reg()
			at, err := Param("s").Resolve()
			if err != nil {
				panic(err)
			}
			VBROADCASTSD(at.Addr, s)
		}
		var sums []reg.VecVirtual
		for off := 0; off < 256; off += w.bytes {
			r := w.reg()
			VMOVUPD(operand.Mem{Base: acc, Disp: off}, r)
			sums = append(sums, r)
		}
		Label("loop")
		SUBQ(operand.Imm(32), n)
		JLT(operand.LabelRef("done"))
		for i, r := range sums {
			d := w.reg()
			VCVTPS2PD(operand.Mem{Base: x, Disp: i * w.bytes / 2}, d)
			if f.square {
				VSUBPD(s, d, d)
				VMULPD(d, d, d)
			}
			VADDPD(d, r, r)
		}
		ADDQ(operand.I32(128), x)
		JMP(operand.LabelRef("loop"))
		Label("done")
		for i, r := range sums {
			VMOVUPD(r, operand.Mem{Base: acc, Disp: i * w.bytes})
		}
		VZEROUPPER()
		RET()
	}
}
