// Package store keeps bytes in files instead of memory: maps of files that are there, and a scratch file for results that
// would not fit. What lies in a map is read when it is used and leaves memory when the system wants it to, or at once by
// Release; only where files cannot be mapped (not Linux) bytes stay in memory.
//
//	b, err := store.Map(f, size)
//	use(b)
//	store.Release(b)
package store

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"unsafe"
)

// maps are the mapped regions, by address. Regions of models are never unmapped: tensors of any model may be slices of them,
// and all it takes is address space.
var maps struct {
	sync.RWMutex
	list []region
}

type region struct{ lo, hi uintptr }

// Map maps a file of the given size for reading; the result is nil where files cannot be mapped. The map is never undone. A
// file that is cut while it is mapped kills the program on the next use of its bytes (SIGBUS); writers that rename a new file
// into place, as backend.Save does, do no harm.
func Map(f *os.File, size int64) ([]byte, error) {
	b, err := mapFile(f, 0, size)
	if b == nil || err != nil {
		return nil, err
	}
	enter(b)
	return b[:size:size], nil
}

func span(b []byte) region {
	lo := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	return region{lo, lo + uintptr(len(b))}
}

func enter(b []byte) {
	r := span(b)
	maps.Lock()
	defer maps.Unlock()
	i, _ := slices.BinarySearchFunc(maps.list, r, func(a, b region) int { return compare(a.lo, b.lo) })
	maps.list = slices.Insert(maps.list, i, r)
}

func leave(b []byte) {
	r := span(b)
	maps.Lock()
	defer maps.Unlock()
	maps.list = slices.DeleteFunc(maps.list, func(a region) bool { return a == r })
}

func compare(a, b uintptr) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Mapped reports whether the bytes are part of a map.
func Mapped(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	r := span(b)
	maps.RLock()
	defer maps.RUnlock()
	i, found := slices.BinarySearchFunc(maps.list, r, func(a, b region) int { return compare(a.lo, b.lo) })
	if !found {
		i--
	}
	return i >= 0 && r.hi <= maps.list[i].hi
}

// Release says that the bytes are not needed soon: the whole pages among them leave memory, and are read from the file again
// when they are used. Bytes that are not mapped are left alone, so any tensor's may be given.
func Release(b []byte) {
	if page := os.Getpagesize(); len(b) >= page && Mapped(b) {
		r := span(b)
		first := int((r.lo+uintptr(page)-1)/uintptr(page)*uintptr(page) - r.lo)
		last := len(b) - int(r.hi%uintptr(page))
		if first < last {
			release(b[first:last])
		}
	}
}

// Scratch takes results of a model larger than memory: up to a budget they stay where they are, beyond it they go to a file
// without a name that is gone with the program. A nil *Scratch keeps all in memory. It is safe for concurrent use.
type Scratch struct {
	dir    string
	budget int64

	mu   sync.Mutex
	held int64 // bytes left in memory
	file *os.File
	end  int64 // of the file
	room []byte
	maps [][]byte
}

// NewScratch returns a store whose file will be in dir, if it comes to that: the place must have room for the results, and
// not be memory itself, as /tmp often is.
func NewScratch(dir string, budget int64) *Scratch { return &Scratch{dir: dir, budget: budget} }

const (
	extent = 64 << 20 // the file grows and is mapped by so much at least
	align  = 64
)

// Keep returns bytes equal to b that lie in the file, or b itself while the budget lasts. The result must not be written to.
func (s *Scratch) Keep(b []byte) ([]byte, error) {
	if s == nil || !canMap || len(b) == 0 || Mapped(b) {
		return b, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held+int64(len(b)) <= s.budget {
		s.held += int64(len(b))
		return b, nil
	}
	room, err := s.place(len(b))
	if err != nil {
		return nil, fmt.Errorf("results beyond %d bytes go to a file in %s: %w", s.budget, s.dir, err)
	}
	return room, s.write(room, b)
}

// write fills a piece of the map through the file, which leaves no page of it in memory as this program's.
func (s *Scratch) write(room, b []byte) error {
	last := s.maps[len(s.maps)-1]
	at := s.end - int64(len(last)) + int64(span(room).lo-span(last).lo)
	_, err := s.file.WriteAt(b, at)
	return err
}

// place takes room from the last map, or from a new one.
func (s *Scratch) place(n int) ([]byte, error) {
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, ".qsimc-*.scratch")
		if err != nil {
			return nil, err
		}
		if err := os.Remove(f.Name()); err != nil {
			return nil, err
		}
		s.file = f
	}
	if len(s.room) < n {
		size := max(int64(n+align-1)/align*align, extent)
		size = (size + int64(os.Getpagesize()) - 1) / int64(os.Getpagesize()) * int64(os.Getpagesize())
		if err := s.file.Truncate(s.end + size); err != nil {
			return nil, err
		}
		b, err := mapFile(s.file, s.end, size)
		if err != nil {
			return nil, err
		}
		enter(b)
		s.end += size
		s.room, s.maps = b, append(s.maps, b)
	}
	piece := s.room[:n:n]
	s.room = s.room[min((n+align-1)/align*align, len(s.room)):]
	return piece, nil
}

// Close gives the file back. What Keep returned must not be used any more.
func (s *Scratch) Close() error {
	if s == nil || s.file == nil {
		return nil
	}
	for _, b := range s.maps {
		leave(b)
		if err := unmap(b); err != nil {
			return err
		}
	}
	return s.file.Close()
}
