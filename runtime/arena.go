package runtime

import (
	"math/bits"
	"sync"
	"unsafe"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// arena recycles the storage of tensors that died, so that a program allocates nothing for results once it has run. It
// belongs to a program; all of its runs share it.
type arena struct {
	mu    sync.Mutex
	free  map[int][][]uint64 // by number of words
	bound int                // of the words in free; 0: none
	held  int
}

// buffer is the storage behind one or more tensors of a run: reshapes and other views share it.
type buffer struct {
	words []uint64
	refs  int // slots of the frame whose tensors lie in it
}

// class rounds a size up to one of four steps in each power of two, so that sizes which differ little share buffers.
func class(bytes int) int {
	words := max((bytes+7)/8, 8)
	step := 1 << max(bits.Len(uint(words-1))-3, 0)
	return (words + step - 1) / step * step
}

// slack is how many times its size a tensor's buffer may be: one that is there has its pages, and may be in the cache.
const slack = 4

// get returns a buffer of at least so many bytes: the smallest that is free, or a new one where all are taken or more than slack
// times too large.
func (a *arena) get(bytes int) *buffer {
	c := class(bytes)
	a.mu.Lock()
	defer a.mu.Unlock()
	for size := c; size <= slack*c && len(a.free) > 0; size = class(8*size + 1) {
		if l := a.free[size]; len(l) > 0 {
			w := l[len(l)-1]
			a.free[size] = l[:len(l)-1]
			a.held -= size
			return &buffer{words: w}
		}
	}
	w := make([]uint64, c)
	kernel.Touch(w[:(bytes+7)/8])
	return &buffer{words: w}
}

func (a *arena) put(b *buffer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.free == nil {
		a.free = map[int][][]uint64{}
	}
	if a.bound > 0 && a.held+len(b.words) > a.bound {
		return
	}
	a.held += len(b.words)
	a.free[len(b.words)] = append(a.free[len(b.words)], b.words)
}

// tensor lays a tensor over the buffer.
func (b *buffer) tensor(elem ir.DType, shape []int, n int) (*ir.Tensor, error) {
	data := unsafe.Slice((*byte)(unsafe.Pointer(&b.words[0])), len(b.words)*8)[:elem.Size(n)]
	return ir.TensorOf(elem, shape, data)
}

// holds reports whether the tensor's storage is the buffer's.
func (b *buffer) holds(t *ir.Tensor) bool {
	if t.Elem() == ir.String {
		return false
	}
	data := t.Bytes()
	if len(data) == 0 {
		return false
	}
	lo := uintptr(unsafe.Pointer(&b.words[0]))
	p := uintptr(unsafe.Pointer(&data[0]))
	return p >= lo && p < lo+uintptr(len(b.words))*8
}

// own finds the buffer behind a result: one allocated in this step, or one of an input that the result is a view of.
func (r *run) own(st *step, t *ir.Tensor) *buffer {
	for _, b := range r.fresh {
		if b.holds(t) {
			return b
		}
	}
	for _, s := range st.in {
		if s >= 0 && r.owner[s] != nil && r.owner[s].holds(t) {
			return r.owner[s]
		}
	}
	if len(st.node.Subgraphs()) > 0 { // a branch may hand out a value it captured
		for _, b := range r.owner {
			if b != nil && b.holds(t) {
				return b
			}
		}
	}
	return nil
}

// settle assigns the step's results to their slots' buffers and gives back what the step allocated for itself only.
func (r *run) settle(st *step) {
	for _, s := range st.out {
		if s < 0 {
			continue
		}
		if b := r.own(st, r.frame[s]); b != nil {
			b.refs++
			r.owner[s] = b
		}
	}
	for _, b := range r.fresh {
		if b.refs == 0 {
			r.p.arena.put(b)
		}
	}
	r.fresh = r.fresh[:0]
}

// release lets go of a slot's storage, which is recycled when no other slot lies in it.
func (r *run) release(s int) {
	if b := r.owner[s]; b != nil {
		r.owner[s] = nil
		if b.refs--; b.refs == 0 {
			r.p.arena.put(b)
		}
	}
}
