package kernel

import (
	"fmt"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// CopyRows copies a rows×cols matrix with leading dimension ldx to one with ldd.
func CopyRows(rows, cols int, dst []float32, ldd int, x []float32, ldx int) {
	need("CopyRows: dst", len(dst), rows, cols, ldd)
	need("CopyRows: x", len(x), rows, cols, ldx)
	for r := range rows {
		each(cols, func(lo, hi int) { copy(dst[r*ldd+lo:r*ldd+hi], x[r*ldx+lo:]) })
	}
}

// Permute sets dst to x, a contiguous array of the given dims, with its axes in another order: axis i of dst is axis
// perm[i] of x. dst must not overlap x.
func Permute[T any](dst, x []T, dims, perm []int) {
	n := 1
	for _, d := range dims {
		n *= d
	}
	same("Permute", n, len(dst), len(x))
	same("Permute: perm", len(dims), len(perm))
	seen := make([]bool, len(perm))
	for _, a := range perm {
		if a < 0 || a >= len(perm) || seen[a] {
			panic(fmt.Sprintf("BUG: kernel.Permute: perm %v is no permutation", perm))
		}
		seen[a] = true
	}
	if n == 0 {
		return
	}
	size, step := joined(dims, perm)
	// size and step are the axes of dst, outermost first, and how far apart their elements are in x.
	last := len(size) - 1
	switch {
	case last < 0 || last == 0 && step[0] == 1:
		copy(dst, x)
	case step[last] == 1:
		runs(dst, x, size[:last], step[:last], size[last])
	default:
		// The axis along which x is contiguous is another one: 2-D transpositions over these two.
		inner := 0
		for step[inner] != 1 {
			inner++
		}
		planes(dst, x, size, step, inner)
	}
}

// joined drops axes of size 1 and joins axes that stay neighbours.
func joined(dims, perm []int) (size, step []int) {
	stride := make([]int, len(dims))
	s := 1
	for i := len(dims) - 1; i >= 0; i-- {
		stride[i] = s
		s *= dims[i]
	}
	for _, a := range perm {
		if dims[a] == 1 {
			continue
		}
		if k := len(size) - 1; k >= 0 && step[k] == stride[a]*dims[a] {
			size[k] *= dims[a]
			step[k] = stride[a]
			continue
		}
		size, step = append(size, dims[a]), append(step, stride[a])
	}
	return size, step
}

// place is the offset in x of the i-th element of the outer axes.
func place(i int, size, step []int) int {
	off := 0
	for k := len(size) - 1; k >= 0; k-- {
		off += i % size[k] * step[k]
		i /= size[k]
	}
	return off
}

func volume(size []int) int {
	n := 1
	for _, s := range size {
		n *= s
	}
	return n
}

// runs copies runs of n elements.
func runs[T any](dst, x []T, size, step []int, n int) {
	par.For(volume(size), max(1, elemGrain/n), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			off := place(i, size, step)
			copy(dst[i*n:(i+1)*n], x[off:off+n])
		}
	})
}

// planes transposes, for each position of the other axes, the plane of axis inner (contiguous in x) and the last axis
// (contiguous in dst).
func planes[T any](dst, x []T, size, step []int, inner int) {
	last := len(size) - 1
	rows, cols := size[last], size[inner]
	// How far apart axis inner's elements are in dst, and the axes that are left.
	ldd := volume(size[inner+1:])
	var osize, ostep, odst []int
	for k := range last {
		if k != inner {
			osize, ostep, odst = append(osize, size[k]), append(ostep, step[k]), append(odst, volume(size[k+1:]))
		}
	}
	par.For(volume(osize), max(1, elemGrain/(rows*cols)), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			Transpose(rows, cols, dst[place(i, osize, odst):], ldd, x[place(i, osize, ostep):], step[last])
		}
	})
}
