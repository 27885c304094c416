// Package kernel holds the fast loops of qsimc on plain slices: matrix products, elementwise functions, reductions,
// normalizations, fake quantization, convolutions and the float64 linear algebra of GPTQ.
//
//	w := kernel.PackB(768, 3072, weight, 3072, false)          // once
//	kernel.Gemm(rows, x, 768, w, y, 3072, false)               // y = x·w
//
// It is the leaf of the module and knows nothing of tensors, graphs or operators. Matrices are row-major: element (i,j)
// of a matrix with leading dimension ld is at i*ld+j. Unless a function says otherwise, dst may be the same slice as an
// input but must not overlap it in part, and work is spread over the cores by package par.
//
// The loops exist at levels, chosen once at start from the CPU: "avx512" and "avx2" on amd64, "neon" on arm64 (where
// integer products, quantizers of whole blocks and conversions are plain Go), and "none", plain Go on every architecture
// (the build tag noasm leaves nothing else). The environment variable QSIMC_SIMD may name a lower level than the CPU offers; tests use it. Results
// never depend on the number of cores. Matrix products, transcendental functions and normalizations give the same bits
// at all vector levels and differ in the last bits in plain Go; quantizers, casts, conversions, integer products,
// elementwise arithmetic and the reductions give the same bits at every level.
//
// Slices that are too short for the shape given are the caller's bug and panic; values never do.
package kernel

import (
	"fmt"
	"os"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// impl is the table of loops of one level. Vector functions take slices of equal length.
type impl struct {
	name   string
	tiles  []*tile[float32] // for packed products
	tilesD []*tile[float64]
	tilesI []*tile[int32] // pairs of int16
	tilesQ []*tile[int32] // bytes in fours, unsigned of A with signed ones of B; nil: none

	blockTiles []*blockTile                                            // tiles of products of blocks, all of one kind of words
	blockCodes func(dst *byte, x, by *float32, count, size, shift int) // see BlockQuant.encode, whole blocks of a multiple of 16; nil: none
	// see finder.tryAll: words words of each of as many columns as a vector has, rows ld bytes apart; nil: none
	blockTry   func(out *int32, x, by, step *float32, sums *int32, ld, words int) (bad int)
	fastBlocks bool // see FastBlocks

	digits *digitKernels // see digits.go; nil: none

	copyRows  func(dst *float32, ldd int, x *float32, ldx, n, rows int)       // see copyRowsGeneric; at least one row and element
	splitRows func(even, odd *float32, ldd int, x *float32, ldx, n, rows int) // see splitRowsGeneric
	conv      *convKernels                                                    // tiles of convolutions
	winograd  *winogradKernels                                                // what stands around the products of Winograd
	convQuads *convKernels                                                    // tiles of convolutions of bytes in fours, signed of the weights with unsigned ones of the input; nil: none
	convPairs *convKernels                                                    // tiles of convolutions of pairs of int16
	fastInt8  bool                                                            // integer products are no slower than those of float32
	thin      [5]*tile[float32]                                               // by row count: few rows, B read in place; nil: none
	trans8    func(dst *float32, ldd int, x *float32, ldx, n int)             // 8 rows to 8 columns; nil: none

	binary  [numBinary]func(dst, a, b []float32)
	scalar  [numScalar]func(dst, a []float32, s float32)
	unary   [numUnary]func(dst, x []float32)
	clip    func(dst, x []float32, lo, hi float32)
	axpy    func(dst, x []float32, s float32)         // dst += s*x, rounded twice
	add64   func(dst []float64, x []float32)          // dst += x
	expSum  func(dst, x []float32, m float32) float32 // dst = exp(x-m), and the sum of it
	max     func(x []float32) float32                 // anything where x holds a NaN
	affine  func(dst, x []float32, mean, inv float32) // dst = (x-mean)*inv
	sum     func(x []float32) float32                 // lane order of reduce.go
	sumSq   func(x []float32, mean float32) float32   // Σ (x-mean)², lane order
	sum64   func(x []float32) float64                 // sum in float64
	sumSq64 func(x []float32, mean float64) float64   // sumSq in float64
	compare func(x, y []float32) Comparison           // of one piece
	outside func(x, lo, hi []float32) int             // see Outside
	minMax  func(x []float32) (lo, hi float32)        // NaN where x holds one
	absMax  func(x []float32) float32                 // NaN where x holds one
	absMaxV func(acc, x []float32)                    // acc = max(acc, |x|), NaN wins

	softmaxRows func(dst *float32, ldd int, x *float32, ldx, rows, n int, scale float32, mask *float32, ldm int) // see the function of this name, distances in bytes; nil: none
	normRows    func(dst, x *float32, rows, n int, gamma, beta *float32, eps, size float32)                      // centered where beta is not nil; size is n; nil: none

	fakeInt     func(dst, x []float32, q intGrid)
	fakeIntV    func(dst, x, scale []float32, lo, hi float32) // a scale per element, zero point 0
	cast        func(dst, x []float32, f *minifloat, scale float32)
	blocksInt   intBlocks // see BlockQuant.vector; nil: none
	blocksFloat floatBlocks
	pow2Int     intBlocks
	pow2Float   floatBlocks
	relInt      intBlocks
	relFloat    floatBlocks
	codes       func(dst []int32, x []float32, q intGrid)
	quant8      func(dst *uint8, x *float32, scale, zero, lo, hi float32, n int) // codes of a byte, n a multiple of 16; nil: none
	dequantI8   func(dst *float32, x *int8, scale float32, zero int32, n int)
	dequantU8   func(dst *float32, x *uint8, scale float32, zero int32, n int)
	quads       func(dst *int32, x *uint8, ld int, flip uint32, n int)      // see interleave, n a multiple of 16; nil: none
	addMulI     func(dst, x []int32, s int32)                               // dst += x·s
	scaleI      func(dst []float32, x, y []int32, s int32, scale []float32) // dst = float32(x + y·s)·scale
	scaleIS     func(dst []float32, x []int32, s int32, scale float32)      // dst = float32(x + s)·scale
	toBF16      func(dst []uint16, x []float32)
	fromBF16    func(dst []float32, x []uint16)
	toF16       func(dst []uint16, x []float32)
	fromF16     func(dst []float32, x []uint16)
}

// cur is the level in use. Only init and tests set it.
var cur = pick(os.Getenv("QSIMC_SIMD"))

// levels lists the levels this machine can run, best first; the last is plain Go.
func levels() []*impl { return append(simdLevels(), &generic) }

// pick returns the level named, or the best one where the name is empty.
func pick(name string) *impl {
	ls := levels()
	if name == "" {
		return ls[0]
	}
	for _, l := range ls {
		if l.name == name {
			return l
		}
	}
	// Refusing to start beats measuring the wrong code; there is no caller yet to give an error to.
	fmt.Fprintf(os.Stderr, "qsimc: QSIMC_SIMD=%q: this machine has", name)
	for _, l := range ls {
		fmt.Fprintf(os.Stderr, " %s", l.name)
	}
	fmt.Fprintln(os.Stderr)
	os.Exit(2)
	return nil
}

// Level names the level in use: "avx512", "avx2", "neon" or "none".
func Level() string { return cur.name }

// elemGrain is the number of elements an elementwise loop hands to one core at a time: 64 KB of float32, some
// microseconds of work, and a multiple of every vector width so that chunk borders never change a vector's lanes.
const elemGrain = 16 << 10

// each runs body over [0,n) in pieces of elemGrain.
func each(n int, body func(lo, hi int)) {
	if n <= elemGrain {
		if n > 0 {
			body(0, n)
		}
		return
	}
	par.For(n, elemGrain, body)
}

// eachRow runs body over rows of cols elements, a few rows to a piece.
func eachRow(rows, cols int, body func(lo, hi int)) {
	if rows <= 0 {
		return
	}
	grain := max(1, elemGrain/max(cols, 1))
	if rows <= grain {
		body(0, rows)
		return
	}
	par.For(rows, grain, body)
}

// eachItem runs one for each of n items: on a core each where there are enough of them, else in turn, with the cores left to
// what one does.
func eachItem(n int, one func(i int)) {
	if n < 2*par.Cores() {
		for i := range n {
			one(i)
		}
		return
	}
	par.For(n, 1, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			one(i)
		}
	})
}

// same panics unless the lengths are equal.
func same(what string, n int, lens ...int) {
	for _, l := range lens {
		if l != n {
			panic(fmt.Sprintf("BUG: kernel.%s: lengths %d and %d differ", what, n, l))
		}
	}
}

// need panics unless a slice of length have can hold rows rows of cols elements, ld apart.
func need(what string, have, rows, cols, ld int) {
	if rows <= 0 || cols <= 0 {
		return
	}
	if ld < cols || have < (rows-1)*ld+cols {
		panic(fmt.Sprintf("BUG: kernel.%s: %d elements cannot hold %d rows of %d, %d apart", what, have, rows, cols, ld))
	}
}
