package runtime

import (
	"fmt"
	"os"
	"sync"

	"github.com/qsimc/qsimc/ir"
)

// spill holds tensors: in memory up to a budget, beyond it in a temporary file. It is safe for concurrent use.
type spill struct {
	budget int64

	mu   sync.Mutex
	held int64 // bytes in memory
	file *os.File
	end  int64
	free map[int][]int64 // places in the file by length
}

// kept is a tensor in a spill.
type kept struct {
	t     *ir.Tensor // nil: in the file
	elem  ir.DType
	shape []int
	size  int
	at    int64
}

// keep takes a tensor.
func (s *spill) keep(t *ir.Tensor) (*kept, error) {
	k := &kept{t: t, size: int(footprint(t.Elem(), t.Len()))}
	s.mu.Lock()
	if s.held+int64(k.size) <= s.budget || t.Elem() == ir.String || k.size == 0 {
		s.held += int64(k.size)
		s.mu.Unlock()
		return k, nil
	}
	err := s.place(k)
	s.mu.Unlock()
	if err == nil {
		_, err = s.file.WriteAt(t.Bytes(), k.at)
	}
	if err != nil {
		return nil, fmt.Errorf("values of all samples beyond %d bytes go to a temporary file: %w", s.budget, err)
	}
	k.t, k.elem, k.shape = nil, t.Elem(), t.Shape()
	return k, nil
}

// place finds room in the file.
func (s *spill) place(k *kept) error {
	if s.file == nil {
		f, err := os.CreateTemp("", "qsimc-*.values")
		if err != nil {
			return err
		}
		s.file, s.free = f, map[int][]int64{}
	}
	if l := s.free[k.size]; len(l) > 0 {
		k.at, s.free[k.size] = l[len(l)-1], l[:len(l)-1]
		return nil
	}
	k.at = s.end
	s.end += int64(k.size)
	return nil
}

// get returns the tensor.
func (s *spill) get(k *kept) (*ir.Tensor, error) {
	if k.t != nil {
		return k.t, nil
	}
	t := ir.NewTensor(k.elem, k.shape...)
	if _, err := s.file.ReadAt(t.Bytes(), k.at); err != nil {
		return nil, fmt.Errorf("values in a temporary file: %w", err)
	}
	return t, nil
}

// drop lets go of the tensor.
func (s *spill) drop(k *kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.t != nil {
		s.held -= int64(k.size)
		k.t = nil
		return
	}
	s.free[k.size] = append(s.free[k.size], k.at)
}

// close removes the file.
func (s *spill) close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	if rerr := os.Remove(s.file.Name()); err == nil {
		err = rerr
	}
	return err
}
