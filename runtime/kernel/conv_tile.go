package kernel

import (
	"math"
	"math/bits"
	"unsafe"
)

// convTile is one step of a convolution: runs of rows output channels at a few vectors of positions,
//
//	dst[r·ldc + p] = act(acc[…] + Σ_k a[r·lda+k]·src[offs[k]+p] + bias[r] + res[…])
//
// where acc, bias and res are left out where nil; acc and res lie as dst does. Strides and offsets are in bytes. The sum is
// one chain of fused multiply-adds, the other sums are rounded each.
type convTile struct {
	a      *float32
	lda    int
	offs   *int
	k      int
	src    *float32
	vecs   *convVec // as many as the kernel takes
	dst    *float32
	ldc    int
	acc    *float32
	bias   *float32
	res    *float32
	act    int // tileNone, tileRelu or tileClip
	lo, hi float32

	// Of integer products, whose a and src are words of codes (see ConvInt8Weights): acc is nil, and a row's sums are numbers
	// once its offset is added and they are multiplied by its factor. Without factors the results are the int32.
	offset *int32
	factor *float32

	// runs is how often the kernel is to be done, at least once: those of several channels go on to the next rows channels,
	// those of one channel to the next vectors. The kernel moves the fields above on as it does.
	runs int
}

// convVec says where the positions of one vector lie: from byte src on in a row of the input, and in n segments, each at
// its own place, in a channel of the result.
type convVec struct {
	src, n int
	segs   [maxSegs]convSeg
}

// The activations that the kernels know.
const (
	tileNone = iota
	tileRelu
	tileClip
)

// maxSegs is the number of pieces that the results of a vector may go to.
const maxSegs = 3

// convSeg is a piece of a vector: lane i, where mask has bit i, belongs to the element i behind byte off.
type convSeg struct {
	off   int
	mask  uint64
	lanes *[8]int32 // the mask again, all ones or zero for each lane, where a vector has 8 lanes
}

// The assembly (asm/conv.go) knows this layout.
var (
	_ = [1]int{}[unsafe.Offsetof(convTile{}.hi)-100]
	_ = [1]int{}[unsafe.Offsetof(convTile{}.vecs)-40]
	_ = [1]int{}[unsafe.Offsetof(convTile{}.offset)-104]
	_ = [1]int{}[unsafe.Offsetof(convTile{}.factor)-112]
	_ = [1]int{}[unsafe.Offsetof(convTile{}.runs)-120]
	_ = [1]int{}[unsafe.Offsetof(convVec{}.segs)-16]
	_ = [1]int{}[unsafe.Sizeof(convVec{})-88]
	_ = [1]int{}[unsafe.Sizeof(convSeg{})-24]
)

// convKernels are the kernels of a level. Each takes a tile.
type convKernels struct {
	lanes int
	kern  [5][]func(t *byte) // by number of vectors and of rows; where there are none of 4 vectors, nil
	plane [7]func(t *byte)   // one channel at 3 or 6 vectors
	pool  [7]func(t *byte)   // the same with maxima in the place of sums
}

// rows is the most channels that a tile of v vectors takes.
func (k *convKernels) rows(v int) int { return len(k.kern[v]) - 1 }

// block is the number of vectors that the next tile takes of those that are left: three, or what makes the last come out even. four: it
// may be four.
func (k *convKernels) block(left int, four bool) int {
	four = four && k.rows(4) > 0
	switch {
	case four && (left == 4 || left == 8):
		return 4
	case left == 4:
		return 2
	}
	return min(3, left)
}

// laneMasks holds the masks of 8 lanes by their bits.
var laneMasks = func() (m [256][8]int32) {
	for bits := range m {
		for i := range m[bits] {
			if bits>>i&1 == 1 {
				m[bits][i] = -1
			}
		}
	}
	return m
}()

// segment is the piece of lanes [lo,hi) that lies, lane 0 where it would be, off elements behind the start.
func segment(off, lo, hi int) convSeg {
	mask := uint64(1)<<hi - uint64(1)<<lo
	s := convSeg{off: off * 4, mask: mask}
	if mask < 256 {
		s.lanes = &laneMasks[mask]
	}
	return s
}

// genericConv are the kernels in plain Go.
var genericConv = eightLanes(4, (*convTile).compute)

// eightLanes makes kernels of 8 lanes, up to mr rows, of a function for any number of rows and vectors.
func eightLanes(mr int, compute func(t *convTile, rows, vecs int)) *convKernels {
	k := &convKernels{lanes: 8}
	for v := 1; v <= 3; v++ {
		k.kern[v] = make([]func(*byte), mr+1)
		for r := 1; r <= mr; r++ {
			k.kern[v][r] = func(p *byte) {
				t := (*convTile)(unsafe.Pointer(p))
				for compute(t, r, v); t.runs > 1; compute(t, r, v) {
					t.runs--
					t.below(r)
				}
			}
		}
	}
	along := func(v int, compute func(t *convTile)) func(*byte) {
		return func(p *byte) {
			t := (*convTile)(unsafe.Pointer(p))
			for compute(t); t.runs > 1; compute(t) {
				t.runs--
				t.vecs = moved(t.vecs, v*int(unsafe.Sizeof(convVec{})))
			}
		}
	}
	for _, v := range []int{3, 6} {
		k.plane[v] = along(v, func(t *convTile) { compute(t, 1, v) })
		k.pool[v] = along(v, func(t *convTile) { t.maxima(v) })
	}
	return k
}

// below moves the tile on by rows channels.
func (t *convTile) below(rows int) {
	t.a = moved(t.a, rows*t.lda)
	t.dst, t.acc, t.res = moved(t.dst, rows*t.ldc), moved(t.acc, rows*t.ldc), moved(t.res, rows*t.ldc)
	t.bias, t.offset, t.factor = moved(t.bias, 4*rows), moved(t.offset, 4*rows), moved(t.factor, 4*rows)
}

// moved is p plus n bytes, nil where p is.
func moved[T any](p *T, n int) *T {
	if p == nil {
		return nil
	}
	return (*T)(unsafe.Add(unsafe.Pointer(p), n))
}

// genericConvInt are the kernels for pairs of int16 in plain Go.
var genericConvInt = eightLanes(4, (*convTile).computeInt)

func (t *convTile) computeInt(rows, vecs int) {
	offs := unsafe.Slice(t.offs, t.k)
	for _, vec := range unsafe.Slice(t.vecs, vecs) {
		for r := range rows {
			var sums [8]int32
			for p, a := range intsOf(at(t.a, r*t.lda, t.k)) {
				lo, hi := int32(int16(a)), a>>16
				for i, x := range intsOf(at(t.src, vec.src+offs[p], 8)) {
					sums[i] += lo*int32(int16(x)) + hi*(x>>16)
				}
			}
			var s [8]float32
			for i, v := range sums {
				v += unsafe.Slice(t.offset, r+1)[r]
				if t.factor == nil {
					s[i] = math.Float32frombits(uint32(v))
				} else {
					s[i] = float32(v) * unsafe.Slice(t.factor, r+1)[r]
				}
			}
			t.segments(&vec, r, s[:])
		}
	}
}

func (t *convTile) compute(rows, vecs int) {
	offs := unsafe.Slice(t.offs, t.k)
	for _, vec := range unsafe.Slice(t.vecs, vecs) {
		for r := range rows {
			var s [8]float32
			for p, a := range at(t.a, r*t.lda, t.k) {
				for i, x := range at(t.src, vec.src+offs[p], 8) {
					s[i] += float32(a * x)
				}
			}
			t.segments(&vec, r, s[:])
		}
	}
}

// segments finishes the sums s of row r at one vector of positions.
func (t *convTile) segments(vec *convVec, r int, s []float32) {
	for _, seg := range vec.segs[:vec.n] {
		lo, hi := bits.TrailingZeros64(seg.mask), bits.Len64(seg.mask)
		t.finish(r, seg.off+r*t.ldc+4*lo, s[lo:hi])
	}
}

// finish adds what is to be added to the sums s of row r and writes them to where they belong, byte off.
func (t *convTile) finish(r, off int, s []float32) {
	add := func(x []float32) {
		for i, v := range x {
			s[i] += v
		}
	}
	if t.acc != nil {
		add(at(t.acc, off, len(s)))
	}
	if t.bias != nil {
		for i := range s {
			s[i] += at(t.bias, 4*r, 1)[0]
		}
	}
	if t.res != nil {
		add(at(t.res, off, len(s)))
	}
	switch t.act {
	case tileRelu:
		reluGeneric(s, s)
	case tileClip:
		clipGeneric(s, s, t.lo, t.hi)
	}
	copy(at(t.dst, off, len(s)), s)
}

func (t *convTile) maxima(vecs int) {
	offs := unsafe.Slice(t.offs, t.k)
	for _, vec := range unsafe.Slice(t.vecs, vecs) {
		s := *(*[8]float32)(at(t.src, vec.src+offs[0], 8))
		for _, off := range offs[1:] {
			for i, x := range at(t.src, vec.src+off, 8) {
				s[i] = maximum(s[i], x)
			}
		}
		for _, seg := range vec.segs[:vec.n] {
			lo, hi := bits.TrailingZeros64(seg.mask), bits.Len64(seg.mask)
			copy(at(t.dst, seg.off+4*lo, hi-lo), s[lo:hi])
		}
	}
}
