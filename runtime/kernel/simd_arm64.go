//go:build !noasm

package kernel

import "unsafe"

//go:generate go -C asm run ./neon -out ../neon_arm64.s -stubs ../neon_arm64.go

// simdLevels is the one vector level of arm64: every such CPU that Go runs on has it.
func simdLevels() []*impl {
	l := generic
	l.name = "neon"
	l.tiles = []*tile[float32]{{mr: 6, nr: 16, mc: 120, kern: []kernFunc[float32]{nil, gemm6x16neonr1, gemm6x16neonr2, gemm6x16neonr3, gemm6x16neonr4, gemm6x16neonr5, gemm6x16neonr6}}}
	l.tilesD = []*tile[float64]{{mr: 6, nr: 8, mc: 72, kern: []kernFunc[float64]{nil, gemm6x8neond1, gemm6x8neond2, gemm6x8neond3, gemm6x8neond4, gemm6x8neond5, gemm6x8neond6}}}
	l.thin = [5]*tile[float32]{
		nil,
		{mr: 1, nr: 96, mc: 1, kern: []kernFunc[float32]{nil, thin1x96neon}},
		{mr: 2, nr: 48, mc: 2, kern: []kernFunc[float32]{nil, nil, thin2x48neon}},
		{mr: 3, nr: 32, mc: 3, kern: []kernFunc[float32]{nil, nil, nil, thin3x32neon}},
		{mr: 4, nr: 16, mc: 4, kern: []kernFunc[float32]{nil, nil, nil, nil, thin4x16neon}},
	}
	l.binary = [numBinary]func(dst, a, b []float32){
		opAdd: two(vecAdd_neon), opSub: two(vecSub_neon), opMul: two(vecMul_neon), opDiv: two(vecDiv_neon),
		opMaximum: two(vecMaximum_neon),
	}
	l.scalar = [numScalar]func(dst, a []float32, s float32){
		opAddS: with(vecAddS_neon), opSubS: with(vecSubS_neon), opRSubS: with(vecRSubS_neon),
		opMulS: with(vecMulS_neon), opDivS: with(vecDivS_neon), opRDivS: with(vecRDivS_neon),
	}
	l.unary = [numUnary]func(dst, x []float32){
		opRelu: one(vecRelu_neon), opExp: one(vecExp_neon), opErf: one(vecErf_neon), opGelu: one(vecGelu_neon),
		opGeluTanh: one(vecGeluTanh_neon), opSigmoid: one(vecSigmoid_neon), opTanh: one(vecTanh_neon),
		opSilu: one(vecSilu_neon), opSqrt: one(vecSqrt_neon),
	}
	l.clip = with2(vecClip_neon)
	l.axpy = with(vecAxpy_neon)
	l.conv = eightLanes(8, (*convTile).computeNEON)
	l.fastInt8 = false
	l.expSum = expSumNEON
	l.max = greatest(4, vecMax_neon)
	l.affine = with2(vecAffine_neon)
	l.sum = sumNEON
	l.sumSq = sumSqNEON
	l.minMax = extremes(4, minMax_neon)
	l.absMax = largest(4, absMax_neon)
	l.absMaxV = one(vecAbsMax_neon)
	l.fakeInt = grid(vecFakeInt_neon)
	l.fakeIntV = gridV(vecFakeIntV_neon)
	l.cast = cast(vecCast_neon)
	l.codes = codes(vecCodes_neon)
	return []*impl{&l}
}

// The sums keep their lanes on the stack: hence no function values here.

func sumNEON(x []float32) float32 {
	var acc [lanes]float32
	n := len(x) &^ (lanes - 1)
	sumLanes_neon(data(x), n, &acc[0])
	return sumTail(&acc, x[n:])
}

func sumSqNEON(x []float32, mean float32) float32 {
	var acc [lanes]float32
	n := len(x) &^ (lanes - 1)
	sumSqLanes_neon(data(x), n, &acc[0], mean)
	return sumSqTail(&acc, x[n:], mean)
}

func expSumNEON(dst, x []float32, m float32) float32 {
	var acc [lanes]float32
	n := len(x) &^ (lanes - 1)
	vecExpSum_neon(data(dst), data(x), m, n, &acc[0])
	vecExpSub_neon(data(dst[n:]), data(x[n:]), m, len(x)-n)
	return sumTail(&acc, dst[n:])
}

func (t *convTile) computeNEON(rows, vecs int) {
	var s [8 * 8]float32
	for _, vec := range unsafe.Slice(t.vecs, vecs) {
		convSums_neon(t.a, t.lda, t.offs, t.k, (*float32)(unsafe.Add(unsafe.Pointer(t.src), vec.src)), &s[0], rows)
		for r := range rows {
			t.segments(&vec, r, s[8*r:8*r+8])
		}
	}
}
