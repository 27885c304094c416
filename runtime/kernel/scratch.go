package kernel

import (
	"math/bits"
	"sync"
	"unsafe"
)

// buffer is pooled working memory. The slice starts on a cache line.
type buffer struct {
	f    []float32
	raw  []float32
	size int
}

var pools [48]sync.Pool // by size class, powers of two

// scratch returns a buffer of n elements with arbitrary contents. Give it back with release.
func scratch(n int) *buffer {
	class := bits.Len(uint(max(n, 64) - 1))
	p, _ := pools[class].Get().(*buffer)
	if p == nil {
		p = &buffer{raw: aligned(1 << class), size: class}
	}
	p.f = p.raw[:n]
	return p
}

func release(p *buffer) { pools[p.size].Put(p) }

// aligned returns n zeroed elements that start on a 64-byte boundary.
func aligned(n int) []float32 {
	raw := make([]float32, n+16)
	off := int(-uintptr(unsafe.Pointer(unsafe.SliceData(raw)))&63) / 4
	return raw[off : off+n : off+n]
}

// scratchOf is scratch for n elements of type T.
func scratchOf[T elem](n int) (*buffer, []T) {
	var zero T
	buf := scratch(n * int(unsafe.Sizeof(zero)) / 4)
	return buf, view[T](buf)[:n]
}

// view is the buffer as a slice of T.
func view[T elem](p *buffer) []T {
	var zero T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(p.raw))), len(p.raw)*4/int(unsafe.Sizeof(zero)))
}

// alignedOf is aligned for n elements of type T.
func alignedOf[T elem](n int) []T {
	var zero T
	raw := aligned(n * int(unsafe.Sizeof(zero)) / 4)
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(raw))), n)
}
