package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// floatElem is what floating-point kernels compute in; half types are widened to float32 before.
type floatElem interface{ float32 | float64 }

// productElem is what matrix products compute in.
type productElem interface {
	float32 | float64 | int32 | int64 | uint32 | uint64
}

// matrixProduct computes C[i] = op(A[i])·op(B[i]) for each i of a stack, all matrices row-major without gaps: op(A) is m×k,
// stored k×m where transA is set; op(B) k×n, stored n×k where transB is set. Integers wrap around. Every element is summed
// in one order whatever the number of cores.
func matrixProduct[T productElem](s kernel.Batch, m, n, k int, a []T, transA bool, b []T, transB bool, c []T) {
	if s.Count == 0 || m == 0 || n == 0 {
		return
	}
	if k == 0 {
		for i := range s.Count {
			clear(c[i*s.C : i*s.C+m*n])
		}
		return
	}
	lda, ldb := k, n
	if transA {
		lda = m
	}
	if transB {
		ldb = k
	}
	switch a := any(a).(type) {
	case []float32:
		kernel.MatMulBatch(s, m, n, k, a, lda, transA, any(b).([]float32), ldb, transB, any(c).([]float32), n, false)
		return
	case []float64:
		b, c := any(b).([]float64), any(c).([]float64)
		for i := range s.Count {
			kernel.MatMul64(m, n, k, a[i*s.A:], lda, transA, b[i*s.B:], ldb, transB, c[i*s.C:], n, false)
		}
		return
	}
	stepA, stepAK := lda, 1
	if transA {
		stepA, stepAK = 1, lda
	}
	stepB, stepBK := 1, ldb
	if transB {
		stepB, stepBK = ldb, 1
	}
	par.For(s.Count*m, 1+(1<<14)/(n*k), func(lo, hi int) {
		for r := lo; r < hi; r++ {
			i, row := r/m, r%m
			x, y, out := a[i*s.A+row*stepA:], b[i*s.B:], c[i*s.C+row*n:][:n]
			for j := range out {
				var sum T
				for p := range k {
					sum += x[p*stepAK] * y[j*stepB+p*stepBK]
				}
				out[j] = sum
			}
		}
	})
}

// productType fails for element types that products are not computed in; half types have been widened before.
func productType(elem ir.DType) error {
	switch elem {
	case ir.Float32, ir.Float64, ir.Int32, ir.Int64, ir.Uint32, ir.Uint64:
		return nil
	}
	return fmt.Errorf("element type %v: %w", elem, ErrUnsupported)
}

// sameElem fails where a present input of the call has another element type than input 0.
func sameElem(c *Call, slots ...int) error {
	want := c.In[0].Elem()
	for _, i := range slots {
		if c.Has(i) && c.In[i].Elem() != want {
			return fmt.Errorf("input %d has element type %v, input 0 has %v", i, c.In[i].Elem(), want)
		}
	}
	return nil
}

// evalFloat runs the kernel of the element type of input 0, float32 or float64; the listed inputs must have the same.
func evalFloat(c *Call, slots []int, f32, f64 func(*Call) ([]*ir.Tensor, error)) ([]*ir.Tensor, error) {
	if err := sameElem(c, slots...); err != nil {
		return nil, err
	}
	switch c.In[0].Elem() {
	case ir.Float32:
		return f32(c)
	case ir.Float64:
		return f64(c)
	}
	return nil, fmt.Errorf("element type %v: %w", c.In[0].Elem(), ErrUnsupported)
}

// optional returns the elements of input i, nil where it is absent.
func optional[T ir.Element](c *Call, i int) []T {
	if !c.Has(i) {
		return nil
	}
	return ir.Data[T](c.In[i])
}

// vector returns the elements of an optional input that must have the given number of them in one dimension.
func vector[T ir.Element](c *Call, i, n int, what string) ([]T, error) {
	if !c.Has(i) {
		return nil, nil
	}
	if s := c.In[i].Shape(); len(s) != 1 || s[0] != n {
		return nil, fmt.Errorf("%s has shape %v, wants [%d]", what, s, n)
	}
	return ir.Data[T](c.In[i]), nil
}
