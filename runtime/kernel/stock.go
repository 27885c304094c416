package kernel

import (
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Stock is memory for what is made once and read often, as packed weights are. Where the system can it lies outside the garbage
// collector's heap, in large pages: making the first result of a program then takes neither collections nor a fault for every
// few kilobytes. All of it lasts as long as the owner of the stock; what lies in it must not be used after that. A nil *Stock
// takes memory from the heap. It is safe for concurrent use.
type Stock struct {
	mu   sync.Mutex
	free []float32 // what is left of the last region
	held int64     // bytes handed out
	maps [][]byte
}

const (
	largePage  = 2 << 20
	stockAbove = 64 << 10 // bytes of a piece; smaller ones lie on the heap
	region     = 32 << 20 // least bytes of address space taken at once; what nobody writes to takes no memory
)

// NewStock returns an empty stock that gives its memory back once owner cannot be reached. Users of what lies in it keep the
// owner alive (runtime.KeepAlive).
func NewStock[T any](owner *T) *Stock {
	s := &Stock{}
	runtime.AddCleanup(owner, (*Stock).drop, s)
	return s
}

// Floats returns n zeroed elements that start on a cache line.
func (s *Stock) Floats(n int) []float32 {
	if s == nil || 4*n < stockAbove {
		return aligned(n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	whole := (n + 15) &^ 15
	if whole > len(s.free) && !s.grow(4*whole) {
		return aligned(n)
	}
	s.held += int64(4 * whole)
	stocked.Add(int64(4 * whole))
	f := s.free[:n:n]
	s.free = s.free[whole:]
	return f
}

// stockOf is Floats for n elements of type T.
func stockOf[T elem](s *Stock, n int) []T {
	var zero T
	raw := s.Floats(n * int(unsafe.Sizeof(zero)) / 4)
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(raw))), n)
}

// grow maps a region of at least so many bytes.
func (s *Stock) grow(bytes int) bool {
	pace(bytes)
	size := max(region, (bytes+largePage-1)&^(largePage-1))
	raw := mapMemory(size + largePage)
	if raw == nil {
		return false
	}
	s.maps = append(s.maps, raw)
	off := int(-uintptr(unsafe.Pointer(unsafe.SliceData(raw))) & (largePage - 1))
	whole := raw[off : off+size]
	inLargePages(whole)
	s.free = unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(whole))), size/4)
	return true
}

// drop gives all memory back.
func (s *Stock) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, raw := range s.maps {
		unmapMemory(raw)
	}
	stocked.Add(-s.held)
	s.maps, s.free, s.held = nil, nil, 0
	collectAt.Store(max(2*stocked.Load(), paceAbove))
}

// The garbage collector, which finds out that owners are gone, does not see how much memory they hold. So that dropped ones do
// not pile up it is called when stocks have doubled since some were last given back.
const paceAbove = 128 << 20

var stocked, collectAt atomic.Int64 // bytes handed out; those from which a collection is due, 0: paceAbove

func pace(more int) {
	now := stocked.Load() + int64(more)
	if now > max(collectAt.Load(), paceAbove) {
		collectAt.Store(now + now/2)
		runtime.GC()
	}
}
