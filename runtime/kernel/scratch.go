package kernel

import (
	"math/bits"
	"runtime"
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
		p = &buffer{size: class}
		if class < smallestMapped || class > largestMapped || !p.mapped() {
			p.raw = aligned(1 << class)
		}
		Touch(p.raw[:n])
	}
	p.f = p.raw[:n]
	return p
}

// Classes of scratch that lies outside the garbage collector's heap: a program's first run would set off collections with it
// otherwise. Smaller ones do not matter, and larger ones are too much to go unseen by the collector.
const (
	smallestMapped = 16 // 256 KiB
	largestMapped  = 20 // 4 MiB
)

// mapped gives the buffer memory of its own, which it keeps until nobody has the buffer.
func (p *buffer) mapped() bool {
	raw := mapMemory(4 << p.size)
	if raw == nil {
		return false
	}
	runtime.AddCleanup(p, unmapMemory, raw)
	p.raw = unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(raw))), len(raw)/4)
	return true
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
func alignedOf[T elem](n int) []T { return stockOf[T](nil, n) }
