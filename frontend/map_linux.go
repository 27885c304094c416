package frontend

import (
	"os"
	"syscall"
)

// mapFile maps a file of the given size for reading. The map is never undone: tensors of any model may be slices of it, and
// all it takes is address space. A file that is cut while it is mapped kills the program on the next use of its bytes
// (SIGBUS); writers that rename a new file into place, as backend.Save does, do no harm.
func mapFile(f *os.File, size int64) ([]byte, error) {
	b, err := syscall.Mmap(int(f.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, &os.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	return b[:size:size], nil
}
