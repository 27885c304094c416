//go:build !noasm

package kernel

import "golang.org/x/sys/cpu"

//go:generate go -C asm run . -part gemm -out ../gemm_amd64.s -stubs ../gemm_amd64.go -pkg kernel
//go:generate go -C asm run . -part int8 -out ../int8_amd64.s -stubs ../int8_amd64.go -pkg kernel
//go:generate go -C asm run . -part digits -out ../digits_amd64.s -stubs ../digits_amd64.go -pkg kernel
//go:generate go -C asm run . -part conv -out ../conv_amd64.s -stubs ../conv_amd64.go -pkg kernel
//go:generate go -C asm run . -part winograd -out ../winograd_amd64.s -stubs ../winograd_amd64.go -pkg kernel
//go:generate go -C asm run . -part vector -out ../vector_amd64.s -stubs ../vector_amd64.go -pkg kernel
//go:generate go -C asm run . -part rows -out ../rows_amd64.s -stubs ../rows_amd64.go -pkg kernel
//go:generate go -C asm run . -part quant -out ../quant_amd64.s -stubs ../quant_amd64.go -pkg kernel

// simdLevels lists the vector levels of this CPU, best first.
func simdLevels() []*impl {
	var ls []*impl
	x := &cpu.X86
	fma := x.HasAVX2 && x.HasFMA
	if fma && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL {
		l := avx512
		if !x.HasAVX512VNNI {
			l.tilesI, l.tilesQ, l.convQuads, l.quads = avx2.tilesI, nil, nil, nil
			l.blockTiles, l.blockCodes, l.blockTry = avx2.blockTiles, avx2.blockCodes, avx2.blockTry
		} else if x.HasAMXTile && x.HasAMXInt8 && allowTiles() {
			l.blockTiles = append([]*blockTile{blockAMX}, l.blockTiles...)
			l.digits = &digitKernels{codes: vecDigits, add: addDigitsAMX}
		}
		ls = append(ls, &l)
	}
	if fma {
		ls = append(ls, &avx2)
	}
	return ls
}

// The tiles: the kernels by row count, and the rows of A that stay in the level-2 cache.
var (
	tile9x48   = &tile[float32]{mr: 9, nr: 48, mc: 252, kern: []kernFunc[float32]{nil, gemm9x48avx512r1, gemm9x48avx512r2, gemm9x48avx512r3, gemm9x48avx512r4, gemm9x48avx512r5, gemm9x48avx512r6, gemm9x48avx512r7, gemm9x48avx512r8, gemm9x48avx512r9}}
	tile14x32  = &tile[float32]{mr: 14, nr: 32, mc: 252, cost: 1.02, kern: []kernFunc[float32]{nil, gemm14x32avx512r1, gemm14x32avx512r2, gemm14x32avx512r3, gemm14x32avx512r4, gemm14x32avx512r5, gemm14x32avx512r6, gemm14x32avx512r7, gemm14x32avx512r8, gemm14x32avx512r9, gemm14x32avx512r10, gemm14x32avx512r11, gemm14x32avx512r12, gemm14x32avx512r13, gemm14x32avx512r14}}
	tile4x24   = &tile[float32]{mr: 4, nr: 24, mc: 144, kern: []kernFunc[float32]{nil, gemm4x24avx2r1, gemm4x24avx2r2, gemm4x24avx2r3, gemm4x24avx2r4}}
	tile14x16d = &tile[float64]{mr: 14, nr: 16, mc: 112, kern: []kernFunc[float64]{nil, gemm14x16avx512d1, gemm14x16avx512d2, gemm14x16avx512d3, gemm14x16avx512d4, gemm14x16avx512d5, gemm14x16avx512d6, gemm14x16avx512d7, gemm14x16avx512d8, gemm14x16avx512d9, gemm14x16avx512d10, gemm14x16avx512d11, gemm14x16avx512d12, gemm14x16avx512d13, gemm14x16avx512d14}}
	tile6x8d   = &tile[float64]{mr: 6, nr: 8, mc: 72, kern: []kernFunc[float64]{nil, gemm6x8avx2d1, gemm6x8avx2d2, gemm6x8avx2d3, gemm6x8avx2d4, gemm6x8avx2d5, gemm6x8avx2d6}}
	tile9x48i  = &tile[int32]{mr: 9, nr: 48, mc: 252, kern: []kernFunc[int32]{nil, gemm9x48avx512i1, gemm9x48avx512i2, gemm9x48avx512i3, gemm9x48avx512i4, gemm9x48avx512i5, gemm9x48avx512i6, gemm9x48avx512i7, gemm9x48avx512i8, gemm9x48avx512i9}}
	tileVNNI   = &tile[int32]{mr: 9, nr: 48, mc: 252, kern: []kernFunc[int32]{nil, gemm9x48vnni1, gemm9x48vnni2, gemm9x48vnni3, gemm9x48vnni4, gemm9x48vnni5, gemm9x48vnni6, gemm9x48vnni7, gemm9x48vnni8, gemm9x48vnni9}}
	tile4x16i  = &tile[int32]{mr: 4, nr: 16, mc: 144, kern: []kernFunc[int32]{nil, gemm4x16avx2i1, gemm4x16avx2i2, gemm4x16avx2i3, gemm4x16avx2i4}}
)

// The tiles of products of blocks.
var (
	blockVNNI = []*blockTile{
		{tile: tile[int32]{mr: 9, nr: 48, mc: 252, cost: 1}, per: 4, kern: []blockKern{nil, block9x48vnni1, block9x48vnni2, block9x48vnni3, block9x48vnni4, block9x48vnni5, block9x48vnni6, block9x48vnni7, block9x48vnni8, block9x48vnni9}},
		{tile: tile[int32]{mr: 14, nr: 32, mc: 252, cost: 1.02}, per: 4, kern: []blockKern{nil, block14x32vnni1, block14x32vnni2, block14x32vnni3, block14x32vnni4, block14x32vnni5, block14x32vnni6, block14x32vnni7, block14x32vnni8, block14x32vnni9, block14x32vnni10, block14x32vnni11, block14x32vnni12, block14x32vnni13, block14x32vnni14}},
	}
	blockAVX2 = []*blockTile{{tile: tile[int32]{mr: 4, nr: 16, mc: 144, cost: 1}, per: 2, kern: []blockKern{nil, block4x16avx2i1, block4x16avx2i2, block4x16avx2i3, block4x16avx2i4}}}
	blockAMX  = &blockTile{tile: tile[int32]{mr: 16, nr: 32, mc: 256, cost: 0.6}, per: 4, signed: true, stack: amxStack, unit: 16}
)

// The thin tiles, each for one row count.
var (
	thinAVX512 = [5]*tile[float32]{
		nil,
		{mr: 1, nr: 256, mc: 1, kern: []kernFunc[float32]{nil, thin1x256_avx512}},
		{mr: 2, nr: 192, mc: 2, kern: []kernFunc[float32]{nil, nil, thin2x192_avx512}},
		{mr: 3, nr: 128, mc: 3, kern: []kernFunc[float32]{nil, nil, nil, thin3x128_avx512}},
		{mr: 4, nr: 96, mc: 4, kern: []kernFunc[float32]{nil, nil, nil, nil, thin4x96_avx512}},
	}
	thinAVX2 = [5]*tile[float32]{
		nil,
		{mr: 1, nr: 96, mc: 1, kern: []kernFunc[float32]{nil, thin1x96_avx2}},
		{mr: 2, nr: 48, mc: 2, kern: []kernFunc[float32]{nil, nil, thin2x48_avx2}},
		{mr: 3, nr: 32, mc: 3, kern: []kernFunc[float32]{nil, nil, nil, thin3x32_avx2}},
		{mr: 4, nr: 16, mc: 4, kern: []kernFunc[float32]{nil, nil, nil, nil, thin4x16_avx2}},
	}
)

// The tiles of convolutions.
var (
	convAVX512 = &convKernels{lanes: 16, kern: [5][]func(*byte){1: {nil, conv1x1_avx512, conv2x1_avx512, conv3x1_avx512, conv4x1_avx512, conv5x1_avx512, conv6x1_avx512, conv7x1_avx512, conv8x1_avx512, conv9x1_avx512}, 2: {nil, conv1x2_avx512, conv2x2_avx512, conv3x2_avx512, conv4x2_avx512, conv5x2_avx512, conv6x2_avx512, conv7x2_avx512, conv8x2_avx512, conv9x2_avx512}, 3: {nil, conv1x3_avx512, conv2x3_avx512, conv3x3_avx512, conv4x3_avx512, conv5x3_avx512, conv6x3_avx512, conv7x3_avx512, conv8x3_avx512, conv9x3_avx512}, 4: {nil, conv1x4_avx512, conv2x4_avx512, conv3x4_avx512, conv4x4_avx512, conv5x4_avx512, conv6x4_avx512}},
		plane: [7]func(*byte){3: convPlane3_avx512, 6: convPlane6_avx512}, pool: [7]func(*byte){3: pool3_avx512, 6: pool6_avx512}}
	convIntAVX512 = &convKernels{lanes: 16, kern: [5][]func(*byte){1: {nil, convInt1x1_avx512, convInt2x1_avx512, convInt3x1_avx512, convInt4x1_avx512, convInt5x1_avx512, convInt6x1_avx512, convInt7x1_avx512, convInt8x1_avx512, convInt9x1_avx512}, 2: {nil, convInt1x2_avx512, convInt2x2_avx512, convInt3x2_avx512, convInt4x2_avx512, convInt5x2_avx512, convInt6x2_avx512, convInt7x2_avx512, convInt8x2_avx512, convInt9x2_avx512}, 3: {nil, convInt1x3_avx512, convInt2x3_avx512, convInt3x3_avx512, convInt4x3_avx512, convInt5x3_avx512, convInt6x3_avx512, convInt7x3_avx512, convInt8x3_avx512, convInt9x3_avx512}}}
	convIntAVX2   = &convKernels{lanes: 8, kern: [5][]func(*byte){1: {nil, convInt1x1_avx2, convInt2x1_avx2, convInt3x1_avx2}, 2: {nil, convInt1x2_avx2, convInt2x2_avx2, convInt3x2_avx2}, 3: {nil, convInt1x3_avx2, convInt2x3_avx2, convInt3x3_avx2}}}
	convAVX2      = &convKernels{lanes: 8, kern: [5][]func(*byte){1: {nil, conv1x1_avx2, conv2x1_avx2, conv3x1_avx2, conv4x1_avx2}, 2: {nil, conv1x2_avx2, conv2x2_avx2, conv3x2_avx2, conv4x2_avx2}, 3: {nil, conv1x3_avx2, conv2x3_avx2, conv3x3_avx2, conv4x3_avx2}},
		plane: [7]func(*byte){3: convPlane3_avx2, 6: convPlane6_avx2}, pool: [7]func(*byte){3: pool3_avx2, 6: pool6_avx2}}
)

// amxStack computes tiles of products of blocks on AMX: sums of a block in tile registers, their scales in vector registers.
func amxStack(rows, count int, ap *byte, lda int, bp *byte, cp *float32, ldc int, sp *float32, blocks, words, acc int) {
	// Tiles 0 and 1 are sums of 16 columns each, 4 their rows of codes, 6 and 7 the columns.
	high, wide := byte(rows), byte(64)
	config := [64]byte{0: 1, 16: wide, 18: wide, 24: wide, 28: wide, 30: wide, 48: high, 49: high, 52: high, 54: 16, 55: 16}
	buf, tmp := scratchOf[int32](2 * 16 * 32)
	amxTiles[rows](ap, lda, bp, cp, ldc, sp, blocks, words, acc, count, &tmp[0], &config[0])
	release(buf)
}

var amxTiles = [17]func(ap *byte, lda int, bp *byte, cp *float32, ldc int, sp *float32, blocks, words, acc, count int, tmp *int32, config *byte){
	nil, block16x32amx1, block16x32amx2, block16x32amx3, block16x32amx4, block16x32amx5, block16x32amx6, block16x32amx7,
	block16x32amx8, block16x32amx9, block16x32amx10, block16x32amx11, block16x32amx12, block16x32amx13, block16x32amx14, block16x32amx15, block16x32amx16,
}

// addDigitsAMX is digitKernels.add on tiles, all of 16 rows of 64 bytes.
func addDigitsAMX(left, right *float32, tiles, groups int, rows, cols, h *float64, ldh int) {
	config := [64]byte{0: 1}
	for t := range 8 {
		config[16+2*t], config[48+t] = 64, 16
	}
	buf, sums := scratchOf[int32](3 * 256)
	defer release(buf)
	digitsAMX(left, right, tiles, groups, rows, cols, h, ldh, &sums[0], &config[0])
}
