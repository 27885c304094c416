package op

import (
	"fmt"
	"unsafe"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// move makes a result of the given type by a kernel that only moves elements: dst and src hold elements as w bytes each,
// aligned for their width; dst's contents are undefined before. Types below 8 bits are unpacked and packed again; strings
// travel as indices into a table whose entry 0 is the empty string. All of src must have the type elem.
func move(c *Call, elem ir.DType, shape []int, src []*ir.Tensor, kernel func(dst []byte, src [][]byte, w int)) (*ir.Tensor, error) {
	for _, t := range src {
		if t.Elem() != elem {
			return nil, fmt.Errorf("inputs of types %v and %v, wanted one type", elem, t.Elem())
		}
	}
	out, err := c.New(elem, shape...)
	if err != nil || out.Len() == 0 { // other dimensions of an empty result may be astronomical
		return out, err
	}
	in := make([][]byte, len(src))
	switch bits := elem.Bits(); {
	case elem == ir.String:
		table := [][]byte{{}}
		for i, t := range src {
			ids := make([]uint64, t.Len())
			for k, s := range t.Strings() {
				ids[k] = uint64(len(table))
				table = append(table, s)
			}
			in[i] = bytesOf(ids)
		}
		ids := make([]uint64, out.Len())
		kernel(bytesOf(ids), in, 8)
		dst := out.Strings()
		for k, id := range ids {
			dst[k] = table[id]
		}
	case bits < 8:
		for i, t := range src {
			in[i] = unpackCells(t)
		}
		cells := make([]byte, out.Len())
		kernel(cells, in, 1)
		packCells(out, cells)
	default:
		for i, t := range src {
			in[i] = alignedCells(t)
		}
		kernel(out.Bytes(), in, bits/8)
	}
	return out, nil
}

// alignedCells returns the bytes of a tensor, aligned for its element type.
func alignedCells(t *ir.Tensor) []byte {
	switch t.Elem().Bits() {
	case 16:
		return bytesOf(ir.Data[uint16](t))
	case 32:
		return bytesOf(ir.Data[uint32](t))
	case 64:
		return bytesOf(ir.Data[uint64](t))
	case 128:
		b := t.Bytes()
		if len(b) > 0 && uintptr(unsafe.Pointer(&b[0]))%8 != 0 {
			c := bytesOf(make([]uint64, len(b)/8))
			copy(c, b)
			return c
		}
		return b
	}
	return t.Bytes()
}

// unpackCells returns one byte per element of a type below 8 bits; the upper bits are zero.
func unpackCells(t *ir.Tensor) []byte {
	bits, b := t.Elem().Bits(), t.Bytes()
	per, mask := 8/bits, byte(1<<bits-1)
	out := make([]byte, t.Len())
	for i := range out {
		out[i] = b[i/per] >> (i % per * bits) & mask
	}
	return out
}

// packCells fills a tensor of a type below 8 bits from one byte per element.
func packCells(t *ir.Tensor, cells []byte) {
	bits, b := t.Elem().Bits(), t.Bytes()
	per, mask := 8/bits, byte(1<<bits-1)
	clear(b)
	for i, x := range cells {
		b[i/per] |= x & mask << (i % per * bits)
	}
}

type word interface {
	uint8 | uint16 | uint32 | uint64 | [2]uint64
}

// wordsOf views aligned bytes as words.
func wordsOf[T word](b []byte) []T {
	var z T
	if len(b) == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), len(b)/int(unsafe.Sizeof(z)))
}

func bytesOf[T word](v []T) []byte {
	var z T
	if len(v) == 0 {
		return []byte{}
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(v)*int(unsafe.Sizeof(z)))
}

// step is one dimension of a strided copy: n elements, d and s apart in destination and source.
type step struct{ n, d, s int }

// strided copies elements of w bytes, do and so being the offsets of the first; all in elements. Destination elements must
// not overlap; source strides may be zero or negative.
func strided(dst, src []byte, w, do, so int, steps []step) {
	var m []step
	for _, t := range steps {
		if t.n == 0 {
			return
		}
		if t.n == 1 {
			continue
		}
		if k := len(m) - 1; k >= 0 && m[k].d == t.n*t.d && m[k].s == t.n*t.s {
			m[k] = step{m[k].n * t.n, t.d, t.s}
			continue
		}
		m = append(m, t)
	}
	if len(m) == 0 {
		m = []step{{1, 1, 1}}
	}
	if n := m[0].n; len(m) > 1 && n > 1 {
		rest := w
		for _, t := range m[1:] {
			rest *= t.n
		}
		if n*rest > parallelBytes {
			par.For(n, max(1, parallelBytes/8/rest), func(lo, hi int) {
				chunk := append([]step{{hi - lo, m[0].d, m[0].s}}, m[1:]...)
				copySteps(dst, src, w, do+lo*m[0].d, so+lo*m[0].s, chunk)
			})
			return
		}
	}
	copySteps(dst, src, w, do, so, m)
}

// parallelBytes is the size from which on a copy is split among the cores.
const parallelBytes = 1 << 22

// copySteps is strided on steps that cannot be merged.
func copySteps(dst, src []byte, w, do, so int, m []step) {
	if last := m[len(m)-1]; last.d == 1 && last.s == 1 {
		run := last.n * w
		odometer(m[:len(m)-1], do, so, func(d, s int) { copy(dst[d*w:d*w+run], src[s*w:]) })
		return
	}
	switch w {
	case 1:
		stridedWords(dst, src, do, so, m)
	case 2:
		stridedWords(wordsOf[uint16](dst), wordsOf[uint16](src), do, so, m)
	case 4:
		stridedWords(wordsOf[uint32](dst), wordsOf[uint32](src), do, so, m)
	case 8:
		stridedWords(wordsOf[uint64](dst), wordsOf[uint64](src), do, so, m)
	case 16:
		stridedWords(wordsOf[[2]uint64](dst), wordsOf[[2]uint64](src), do, so, m)
	default:
		panic(fmt.Sprintf("BUG: op: elements of %d bytes", w))
	}
}

func stridedWords[T word](dst, src []T, do, so int, m []step) {
	k := len(m) - 1
	in := m[k]
	for j := k - 1; j >= 0; j-- {
		if in.d == 1 && m[j].s == 1 && in.s > 0 && m[j].d > 0 {
			outer := append(append([]step{}, m[:j]...), m[j+1:k]...)
			rows, ld := m[j].n, m[j].d
			if rows*in.n < 1<<10 {
				odometer(outer, do, so, func(d, s int) {
					for c := range in.n {
						at := d + c
						for _, x := range src[s+c*in.s:][:rows] {
							dst[at] = x
							at += ld
						}
					}
				})
				return
			}
			odometer(outer, do, so, func(d, s int) { kernel.Transpose(in.n, rows, dst[d:], ld, src[s:], in.s) })
			return
		}
	}
	odometer(m[:k], do, so, func(d, s int) {
		if in.s == 0 && in.d == 1 {
			x, row := src[s], dst[d:d+in.n]
			for i := range row {
				row[i] = x
			}
			return
		}
		for range in.n {
			dst[d] = src[s]
			d += in.d
			s += in.s
		}
	})
}

// odometer calls f with the destination and source offsets of every index of the steps, the last step fastest.
func odometer(m []step, d, s int, f func(d, s int)) {
	if len(m) == 0 {
		f(d, s)
		return
	}
	last := len(m) - 1
	idx := make([]int, last)
	for {
		dd, ss := d, s
		for range m[last].n {
			f(dd, ss)
			dd += m[last].d
			ss += m[last].s
		}
		k := last - 1
		for ; k >= 0; k-- {
			idx[k]++
			d += m[k].d
			s += m[k].s
			if idx[k] < m[k].n {
				break
			}
			d -= m[k].d * m[k].n
			s -= m[k].s * m[k].n
			idx[k] = 0
		}
		if k < 0 {
			return
		}
	}
}

// stridesOf returns the row-major strides of a shape, in elements.
func stridesOf(shape []int) []int {
	st := make([]int, len(shape))
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		st[i] = n
		n *= shape[i]
	}
	return st
}

// product of the sizes; shapes of tensors at hand cannot overflow.
func product(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// part returns elements [from, from+product(shape)) of t as a tensor that shares its storage; nil for types that cannot.
func part(t *ir.Tensor, from int, shape []int) *ir.Tensor {
	n := product(shape)
	if t.Elem().Bits() < 8 {
		return nil
	}
	w := t.Elem().Bits() / 8
	v, err := ir.TensorOf(t.Elem(), shape, t.Bytes()[from*w:(from+n)*w:(from+n)*w])
	if err != nil {
		return nil
	}
	return v
}
