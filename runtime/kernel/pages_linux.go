package kernel

import (
	"os"
	"syscall"
	"unsafe"
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
	const populateWrite = 23 // MADV_POPULATE_WRITE, Linux 5.14
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, first, last-first, populateWrite)
}
