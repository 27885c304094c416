//go:build amd64 && !noasm

package kernel

// avx512 and avx2 are the vector levels.
var (
	avx512 = impl{
		name:   "avx512",
		tiles:  []*tile[float32]{tile9x48, tile14x32},
		tilesD: []*tile[float64]{tile14x16d},
		tilesI: []*tile[int32]{tile9x48i},
		tilesQ: []*tile[int32]{tileVNNI},
		conv:   convAVX512,
		winograd: &winogradKernels{columns: winogradColumns_avx512, rows: winogradRows_avx512, out: winogradOut_avx512, filters: winogradFilters,
			products: [4]func(y, a, v *float32, tile, pitch, k, tiles, add int){nil, winogradProducts1_avx512, winogradProducts2_avx512, winogradProducts3_avx512}},
		convQuads:  convIntAVX512,
		convPairs:  convIntAVX2,
		fastInt8:   true,
		blockTiles: blockVNNI, blockCodes: vecBlockCodes_avx512, blockTry: vecBlockTry_avx512, fastBlocks: true,
		copyRows:  copyRows,
		splitRows: splitRows,
		binary: [numBinary]func(dst, a, b []float32){
			opAdd: two(vecAdd_avx512), opSub: two(vecSub_avx512), opMul: two(vecMul_avx512), opDiv: two(vecDiv_avx512),
			opMaximum: two(vecMaximum_avx512),
		},
		scalar: [numScalar]func(dst, a []float32, s float32){
			opAddS: with(vecAddS_avx512), opSubS: with(vecSubS_avx512), opRSubS: with(vecRSubS_avx512),
			opMulS: with(vecMulS_avx512), opDivS: with(vecDivS_avx512), opRDivS: with(vecRDivS_avx512),
		},
		unary: [numUnary]func(dst, x []float32){
			opRelu: one(vecRelu_avx512), opExp: one(vecExp_avx512), opErf: one(vecErf_avx512), opGelu: one(vecGelu_avx512),
			opGeluTanh: one(vecGeluTanh_avx512), opSigmoid: one(vecSigmoid_avx512), opTanh: one(vecTanh_avx512),
			opSilu: one(vecSilu_avx512), opSqrt: one(vecSqrt_avx512),
		},
		thin:        thinAVX512,
		trans8:      transpose8,
		clip:        with2(vecClip_avx512),
		axpy:        with(vecAxpy_avx512),
		add64:       sixteen(vecAdd64_avx512, generic.add64),
		expSum:      expSumAVX512,
		max:         greatest(16, vecMax_avx512),
		affine:      with2(vecAffine_avx512),
		softmaxRows: softmaxRows_avx512, normRows: normRows_avx512,
		sum:     sumAVX512,
		sumSq:   sumSqAVX512,
		sum64:   sum64AVX512,
		sumSq64: sumSq64AVX512,
		compare: compareAVX2, outside: outsideAVX2,
		minMax:    extremes(16, minMax_avx512),
		absMax:    largest(16, absMax_avx512),
		absMaxV:   one(vecAbsMax_avx512),
		fakeInt:   grid(vecFakeInt_avx512),
		fakeIntV:  gridV(vecFakeIntV_avx512),
		cast:      cast(vecCast_avx512),
		blocksInt: blocksInt(vecBlocksInt_avx512), blocksFloat: blocksFloat(vecBlocksFloat_avx512),
		pow2Int: blocksInt(vecPow2Int_avx512), pow2Float: blocksFloat(vecPow2Float_avx512),
		relInt: blocksInt(vecRelInt_avx512), relFloat: blocksFloat(vecRelFloat_avx512),
		codes:     codes(vecCodes_avx512),
		quads:     vecQuads,
		addMulI:   addMulI(vecAddMulI_avx512),
		scaleI:    scaleI(vecScaleI_avx512),
		scaleIS:   scaleIS(vecScaleIS_avx512),
		quant8:    vecQuant8_avx512,
		dequantI8: vecDequantI8_avx512,
		dequantU8: vecDequantU8_avx512,
		toBF16:    sixteen(vecToBF16_avx512, toBF16Generic),
		fromBF16:  sixteen(vecFromBF16_avx512, fromBF16Generic),
		toF16:     sixteen(vecToF16_avx512, toF16Generic),
		fromF16:   sixteen(vecFromF16_avx512, fromF16Generic),
	}
	avx2 = impl{
		name:   "avx2",
		tiles:  []*tile[float32]{tile4x24},
		tilesD: []*tile[float64]{tile6x8d},
		tilesI: []*tile[int32]{tile4x16i},
		conv:   convAVX2,
		winograd: &winogradKernels{columns: winogradColumns_avx2, rows: winogradRows_avx2, out: winogradOut_avx2, filters: winogradFilters,
			products: [4]func(y, a, v *float32, tile, pitch, k, tiles, add int){nil, winogradProducts1_avx2, winogradProducts2_avx2, winogradProducts3_avx2}},
		convPairs:  convIntAVX2,
		fastInt8:   true,
		blockTiles: blockAVX2, blockCodes: vecBlockCodes_avx2, blockTry: vecBlockTry_avx2, fastBlocks: true,
		copyRows:  copyRows,
		splitRows: splitRows,
		binary: [numBinary]func(dst, a, b []float32){
			opAdd: two(vecAdd_avx2), opSub: two(vecSub_avx2), opMul: two(vecMul_avx2), opDiv: two(vecDiv_avx2),
			opMaximum: two(vecMaximum_avx2),
		},
		scalar: [numScalar]func(dst, a []float32, s float32){
			opAddS: with(vecAddS_avx2), opSubS: with(vecSubS_avx2), opRSubS: with(vecRSubS_avx2),
			opMulS: with(vecMulS_avx2), opDivS: with(vecDivS_avx2), opRDivS: with(vecRDivS_avx2),
		},
		unary: [numUnary]func(dst, x []float32){
			opRelu: one(vecRelu_avx2), opExp: one(vecExp_avx2), opErf: one(vecErf_avx2), opGelu: one(vecGelu_avx2),
			opGeluTanh: one(vecGeluTanh_avx2), opSigmoid: one(vecSigmoid_avx2), opTanh: one(vecTanh_avx2),
			opSilu: one(vecSilu_avx2), opSqrt: one(vecSqrt_avx2),
		},
		thin:        thinAVX2,
		trans8:      transpose8,
		clip:        with2(vecClip_avx2),
		axpy:        with(vecAxpy_avx2),
		add64:       sixteen(vecAdd64_avx2, generic.add64),
		expSum:      expSumAVX2,
		max:         greatest(8, vecMax_avx2),
		affine:      with2(vecAffine_avx2),
		softmaxRows: softmaxRows_avx2, normRows: normRows_avx2,
		sum:     sumAVX2,
		sumSq:   sumSqAVX2,
		sum64:   sum64AVX2,
		sumSq64: sumSq64AVX2,
		compare: compareAVX2, outside: outsideAVX2,
		minMax:    extremes(8, minMax_avx2),
		absMax:    largest(8, absMax_avx2),
		absMaxV:   one(vecAbsMax_avx2),
		fakeInt:   grid(vecFakeInt_avx2),
		fakeIntV:  gridV(vecFakeIntV_avx2),
		cast:      cast(vecCast_avx2),
		blocksInt: blocksInt(vecBlocksInt_avx2), blocksFloat: blocksFloat(vecBlocksFloat_avx2),
		pow2Int: blocksInt(vecPow2Int_avx2), pow2Float: blocksFloat(vecPow2Float_avx2),
		relInt: blocksInt(vecRelInt_avx2), relFloat: blocksFloat(vecRelFloat_avx2),
		codes:     codes(vecCodes_avx2),
		addMulI:   addMulI(vecAddMulI_avx2),
		scaleI:    scaleI(vecScaleI_avx2),
		scaleIS:   scaleIS(vecScaleIS_avx2),
		quant8:    vecQuant8_avx2,
		dequantI8: vecDequantI8_avx2,
		dequantU8: vecDequantU8_avx2,
		toBF16:    sixteen(vecToBF16_avx2, toBF16Generic),
		fromBF16:  sixteen(vecFromBF16_avx2, fromBF16Generic),
		toF16:     sixteen(vecToF16_avx2, toF16Generic),
		fromF16:   sixteen(vecFromF16_avx2, fromF16Generic),
	}
)

// The sums keep their lanes on the stack: hence no function values here.

func sumAVX512(x []float32) float32 {
	var acc [lanes]float32
	n := len(x) &^ (lanes - 1)
	sumLanes_avx512(data(x), n, &acc[0])
	return sumTail(&acc, x[n:])
}

func sumAVX2(x []float32) float32 {
	var acc [lanes]float32
	n := len(x) &^ (lanes - 1)
	sumLanes_avx2(data(x), n, &acc[0])
	return sumTail(&acc, x[n:])
}

func sumSqAVX512(x []float32, mean float32) float32 {
	var acc [lanes]float32
	n := len(x) &^ (lanes - 1)
	sumSqLanes_avx512(data(x), n, &acc[0], mean)
	return sumSqTail(&acc, x[n:], mean)
}

func sumSqAVX2(x []float32, mean float32) float32 {
	var acc [lanes]float32
	n := len(x) &^ (lanes - 1)
	sumSqLanes_avx2(data(x), n, &acc[0], mean)
	return sumSqTail(&acc, x[n:], mean)
}

func compareAVX2(x, y []float32) Comparison {
	var l compareLanes
	n := len(x) &^ 7
	compareEight(data(x), data(y), n, &l.xx[0])
	return l.finish(x[n:], y[n:])
}

func outsideAVX2(x, lo, hi []float32) int {
	n := len(x) &^ 7
	if len(lo) > 1 {
		return outsideEight(data(x), data(lo), data(hi), 32, n) + outsideGeneric(x[n:], lo[n:], hi[n:])
	}
	var below, above [8]float32
	for i := range below {
		below[i], above[i] = lo[0], hi[0]
	}
	return outsideEight(data(x), &below[0], &above[0], 0, n) + outsideGeneric(x[n:], lo, hi)
}

func sum64AVX512(x []float32) float64 {
	var acc [lanes]float64
	n := len(x) &^ (lanes - 1)
	sumLanes64_avx512(data(x), n, &acc[0])
	return sum64Tail(&acc, x[n:])
}

func sumSq64AVX512(x []float32, mean float64) float64 {
	var acc [lanes]float64
	n := len(x) &^ (lanes - 1)
	sumSqLanes64_avx512(data(x), n, &acc[0], mean)
	return sumSq64Tail(&acc, x[n:], mean)
}

func expSumAVX512(dst, x []float32, m float32) float32 {
	var acc [lanes]float32
	n := len(x) &^ (lanes - 1)
	vecExpSum_avx512(data(dst), data(x), m, n, &acc[0])
	vecExpSub_avx512(data(dst[n:]), data(x[n:]), m, len(x)-n)
	return sumTail(&acc, dst[n:])
}

func sum64AVX2(x []float32) float64 {
	var acc [lanes]float64
	n := len(x) &^ (lanes - 1)
	sumLanes64_avx2(data(x), n, &acc[0])
	return sum64Tail(&acc, x[n:])
}

func sumSq64AVX2(x []float32, mean float64) float64 {
	var acc [lanes]float64
	n := len(x) &^ (lanes - 1)
	sumSqLanes64_avx2(data(x), n, &acc[0], mean)
	return sumSq64Tail(&acc, x[n:], mean)
}

func expSumAVX2(dst, x []float32, m float32) float32 {
	var acc [lanes]float32
	n := len(x) &^ (lanes - 1)
	vecExpSum_avx2(data(dst), data(x), m, n, &acc[0])
	vecExpSub_avx2(data(dst[n:]), data(x[n:]), m, len(x)-n)
	return sumTail(&acc, dst[n:])
}
