package kernel

import (
	"os"
	"syscall"
	"unsafe"
)

// Advice of madvise that package syscall does not name.
const (
	hugePage      = 14 // MADV_HUGEPAGE
	populateWrite = 23 // MADV_POPULATE_WRITE, Linux 5.14
)

// fewPages is the size up to which faults cost about as little as asking for the pages.
const fewPages = 64 << 10

// Touch asks the system for the pages of memory that is about to be written from end to end. Together they come for half of what
// they cost one by one, each at the first write to it. Systems that cannot do that leave it to the writes.
func Touch[T any](s []T) {
	var zero T
	n := len(s) * int(unsafe.Sizeof(zero))
	if n < fewPages {
		return
	}
	page := uintptr(os.Getpagesize())
	lo := uintptr(unsafe.Pointer(unsafe.SliceData(s)))
	first, last := (lo+page-1)/page*page, (lo+uintptr(n))/page*page
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, first, last-first, populateWrite)
}

// mapMemory maps memory, which is zero; nil if there is none.
func mapMemory(bytes int) []byte {
	b, err := syscall.Mmap(-1, 0, bytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_NORESERVE)
	if err != nil {
		return nil
	}
	return b
}

// inLargePages asks for large pages, which is advice.
func inLargePages(b []byte) { _ = syscall.Madvise(b, hugePage) }

func unmapMemory(b []byte) {
	if err := syscall.Munmap(b); err != nil {
		panic("BUG: kernel: memory cannot be unmapped: " + err.Error())
	}
}
