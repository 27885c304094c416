package store

import (
	"os"
	"syscall"
)

const canMap = true

// mapFile maps a part of a file that begins at a page.
func mapFile(f *os.File, at, size int64) ([]byte, error) {
	b, err := syscall.Mmap(int(f.Fd()), at, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, &os.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	return b, nil
}

func release(b []byte) { _ = syscall.Madvise(b, syscall.MADV_DONTNEED) } // advice: nothing is lost where it is not taken

func unmap(b []byte) error { return syscall.Munmap(b) }
