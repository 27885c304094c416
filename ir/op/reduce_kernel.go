package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
)

// accumulator is what elements are folded in: floats in float64, integers in 64 bits of their signedness.
type accumulator interface{ int64 | uint64 | float64 }

// start is the fold of nothing; lo and hi are the bounds of the element type.
func start[A accumulator](f fold, lo, hi A) A {
	switch f {
	case foldProd:
		return 1
	case foldMax:
		return lo
	case foldMin:
		return hi
	}
	return 0
}

// foldRun folds a run of elements into acc. Sums keep four partial sums, whatever the length.
func foldRun[T number, A accumulator](f fold, acc A, x []T) A {
	switch f {
	case foldSum:
		var a, b, c A
		for len(x) >= 4 {
			acc += A(x[0])
			a += A(x[1])
			b += A(x[2])
			c += A(x[3])
			x = x[4:]
		}
		for _, v := range x {
			acc += A(v)
		}
		acc += a + b + c
	case foldSquares:
		for _, v := range x {
			acc += A(A(v) * A(v))
		}
	case foldAbs:
		for _, v := range x {
			if v < 0 {
				acc -= A(v)
			} else {
				acc += A(v)
			}
		}
	case foldProd:
		for _, v := range x {
			acc *= A(v)
		}
	case foldMax:
		for _, v := range x {
			if w := A(v); w > acc || w != w {
				acc = w
			}
		}
	case foldMin:
		for _, v := range x {
			if w := A(v); w < acc || w != w {
				acc = w
			}
		}
	}
	return acc
}

// foldInto folds x[i] into acc[i].
func foldInto[T number, A accumulator](f fold, acc []A, x []T) {
	acc = acc[:len(x)]
	switch f {
	case foldSum:
		for i, v := range x {
			acc[i] += A(v)
		}
	case foldSquares:
		for i, v := range x {
			acc[i] += A(A(v) * A(v))
		}
	case foldAbs:
		for i, v := range x {
			if v < 0 {
				acc[i] -= A(v)
			} else {
				acc[i] += A(v)
			}
		}
	case foldProd:
		for i, v := range x {
			acc[i] *= A(v)
		}
	case foldMax:
		for i, v := range x {
			if w := A(v); w > acc[i] || w != w {
				acc[i] = w
			}
		}
	case foldMin:
		for i, v := range x {
			if w := A(v); w < acc[i] || w != w {
				acc[i] = w
			}
		}
	}
}

// sweepAll folds and hands each result's accumulator to put.
func sweepAll[T number, A accumulator](s *sweep, f fold, first A, src []T, put func(at int, acc A)) {
	s.run(func(base, at, width int) {
		if !s.across {
			acc := first
			for k := range s.inner.n {
				o := s.inner.at(k)
				acc = foldRun(f, acc, src[base+o:base+o+s.width])
			}
			put(at, acc)
			return
		}
		var buf [strip]A
		acc := buf[:width]
		for i := range acc {
			acc[i] = first
		}
		for k := range s.inner.n {
			o := base + s.inner.at(k)
			foldInto(f, acc, src[o:o+width])
		}
		for i, a := range acc {
			put(at+i, a)
		}
	})
}

// reduceTo plans a reduction and allocates its result.
func reduceTo(c *Call) (*sweep, *ir.Tensor, error) {
	x := c.In[0]
	reduced, ok, err := reduceAxes(c, x.Rank())
	if err != nil {
		return nil, nil, err
	}
	if !ok {
		return nil, nil, fmt.Errorf("input 1 is %v, wants integers, the axes", c.In[1].Type())
	}
	out, err := c.New(x.Elem(), reducedShape(x.Shape(), func(i int) bool { return reduced[i] }, c.Node.Int("keepdims", 1) != 0)...)
	if err != nil {
		return nil, nil, err
	}
	s := sweepOf(x.Shape(), reduced)
	return &s, out, nil
}

func reduceFloat[T float32 | float64](c *Call, r reduction) ([]*ir.Tensor, error) {
	s, out, err := reduceTo(c)
	if err != nil {
		return nil, err
	}
	src, dst := ir.Data[T](c.In[0]), ir.Data[T](out)
	if len(dst) == 0 {
		return []*ir.Tensor{out}, nil
	}
	if r.fold == foldExp {
		logSumExp(s, dst, src)
		return []*ir.Tensor{out}, nil
	}
	first := start(r.fold, math.Inf(-1), math.Inf(1))
	sweepAll(s, r.fold, first, src, func(at int, acc float64) {
		if r.done != nil {
			acc = r.done(acc, s.n)
		}
		dst[at] = T(acc)
	})
	return []*ir.Tensor{out}, nil
}

// logSumExp subtracts the maximum m of each result's elements first: m + ln Σ exp(x-m).
func logSumExp[T number](s *sweep, dst []T, src []T) {
	m := make([]float64, len(dst))
	sweepAll(s, foldMax, math.Inf(-1), src, func(at int, acc float64) { m[at] = acc })
	sum := make([]float64, len(dst))
	s.run(func(base, at, width int) {
		for i := range s.inner.n {
			o := s.inner.at(i)
			for k := range s.width {
				to := at
				if s.across {
					if k == width {
						break
					}
					to += k
				}
				sum[to] += math.Exp(float64(src[base+o+k]) - finite(m[to]))
			}
		}
	})
	for i := range dst {
		dst[i] = T(math.Log(sum[i]) + finite(m[i]))
	}
}

// finite makes an infinite maximum 0, so that nothing is subtracted and the sum says what comes out.
func finite(m float64) float64 {
	if math.IsInf(m, 0) {
		return 0
	}
	return m
}

// reduceInt folds integers in 64 bits, which wrap as the type itself would; lo and hi are the type's bounds.
func reduceInt[T integer, A int64 | uint64](c *Call, r reduction, lo, hi A) ([]*ir.Tensor, error) {
	s, out, err := reduceTo(c)
	if err != nil {
		return nil, err
	}
	src, dst := ir.Data[T](c.In[0]), ir.Data[T](out)
	if len(dst) == 0 {
		return []*ir.Tensor{out}, nil
	}
	if r.fold == foldExp {
		f := make([]float64, len(dst))
		wide := make([]float64, len(src))
		for i, v := range src {
			wide[i] = float64(v)
		}
		logSumExp(s, f, wide)
		for i, v := range f {
			dst[i] = T(truncate(v))
		}
		return []*ir.Tensor{out}, nil
	}
	if r.mean && s.n == 0 {
		return nil, fmt.Errorf("integer division by zero: the mean of no elements")
	}
	sweepAll(s, r.fold, start(r.fold, lo, hi), src, func(at int, acc A) {
		switch {
		case r.mean:
			acc /= A(s.n)
		case r.done != nil:
			acc = A(truncate(r.done(float64(acc), s.n)))
		}
		dst[at] = T(acc)
	})
	return []*ir.Tensor{out}, nil
}
