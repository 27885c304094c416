package ir

import (
	"errors"
	"fmt"
)

// maxDense bounds the bytes a sparse tensor may take when written out.
const maxDense = 1 << 31

// Dense returns a tensor that writes the sparse one out on first use: zeros but for Values at Indices, which are positions
// in row-major order [nnz] or coordinates [nnz, rank]. It fails if values, indices and shape do not fit; loading it fails
// on an index outside of the shape.
func (s *SparseTensor) Dense() (*Tensor, error) {
	elem, rank, nnz := s.Values.Elem(), len(s.Shape), s.Values.Len()
	n, err := Numel(s.Shape)
	if err != nil {
		return nil, err
	}
	if elem.Bits() == 0 || elem.Bits()%8 != 0 || n*(elem.Bits()/8) > maxDense {
		return nil, fmt.Errorf("a sparse tensor %v cannot be written out", FixedType(elem, s.Shape...))
	}
	k := s.Indices.Shape()
	if s.Values.Rank() != 1 || s.Indices.Elem() != Int64 || len(k) == 0 || len(k) > 2 || k[0] != nnz || len(k) == 2 && k[1] != rank {
		return nil, fmt.Errorf("values %v and indices %v do not fit: want [n] and int64[n] or int64[n,%d]", s.Values.Type(), s.Indices.Type(), rank)
	}
	return LazyTensor(elem, s.Shape, func() ([]byte, error) {
		if err := errors.Join(s.Values.Load(), s.Indices.Load()); err != nil {
			return nil, err
		}
		width := elem.Bits() / 8
		out := alignedBytes(n * width)
		at, sizes := Data[int64](s.Indices), []int{n}
		if len(k) == 2 {
			sizes = s.Shape
		}
		for i := range nnz {
			flat := 0
			for j, size := range sizes {
				x := at[i*len(sizes)+j]
				if x < 0 || x >= int64(size) {
					return nil, fmt.Errorf("index %d of a sparse tensor is %d where the size is %d", i, x, size)
				}
				flat = flat*size + int(x)
			}
			copy(out[flat*width:], s.Values.Bytes()[i*width:(i+1)*width])
		}
		return out, nil
	})
}
