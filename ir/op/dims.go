package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
)

// The contents of shape-like integer values travel as dimensions (Call.Dims). A negative number n among them, such as
// Reshape's -1, is a dimension of size n-1: unknown to all who do not ask literal, and never part of a type.

// literalDim is the dimension that stands for the number n.
func literalDim(n int64) ir.Dim {
	if n < 0 {
		return ir.Dim{Size: max(n, math.MinInt64+1) - 1}
	}
	return ir.Dim{Size: n}
}

// literal returns the number a dimension of Call.Dims stands for, if it is known.
func literal(d ir.Dim) (int64, bool) {
	switch {
	case d.Size >= 0:
		return d.Size, true
	case d.Size < -1:
		return d.Size + 1, true
	}
	return 0, false
}

// literals returns all numbers, if they are known.
func literals(dims []ir.Dim) ([]int64, bool) {
	out := make([]int64, len(dims))
	for i, d := range dims {
		n, ok := literal(d)
		if !ok {
			return nil, false
		}
		out[i] = n
	}
	return out, true
}

// sizeDims returns dims as dimensions of a type; numbers below zero are an error.
func sizeDims(dims []ir.Dim) ([]ir.Dim, error) {
	out := make([]ir.Dim, len(dims))
	for i, d := range dims {
		if n, ok := literal(d); ok && n < 0 {
			return nil, fmt.Errorf("dimension %d of the wanted shape is negative: %d", i, n)
		}
		out[i] = ir.Dim{Size: d.Size, Name: d.Name}
	}
	return out, nil
}

// unknownDims returns n unknown dimensions.
func unknownDims(n int) []ir.Dim {
	dims := make([]ir.Dim, n)
	for i := range dims {
		dims[i] = ir.UnknownDim
	}
	return dims
}

// cloneDims returns a copy without denotations, which do not outlive operators.
func cloneDims(dims []ir.Dim) []ir.Dim {
	out := make([]ir.Dim, len(dims))
	for i, d := range dims {
		out[i] = ir.Dim{Size: d.Size, Name: d.Name}
	}
	return out
}

// mulDims returns the product of dimensions: the number if all are known, a symbol if all others are 1, 0 if one is 0.
func mulDims(dims ...ir.Dim) ir.Dim {
	n, rest, known := int64(1), ir.UnknownDim, true
	for _, d := range dims {
		if d.Known() {
			if d.Size != 0 && n > math.MaxInt64/d.Size {
				return ir.UnknownDim
			}
			n *= d.Size
			continue
		}
		if !known || d.Size < -1 {
			d.Name = ""
		}
		rest, known = ir.NamedDim(d.Name), false
	}
	switch {
	case known || n == 0:
		return ir.Dim{Size: n}
	case n == 1:
		return rest
	}
	return ir.UnknownDim
}

// addDims returns the sum of dimensions: the number if all are known, a symbol if all others are 0.
func addDims(dims ...ir.Dim) ir.Dim {
	n, rest, known := int64(0), ir.UnknownDim, true
	for _, d := range dims {
		if d.Known() {
			if n > math.MaxInt64-d.Size {
				return ir.UnknownDim
			}
			n += d.Size
			continue
		}
		if !known || d.Size < -1 {
			d.Name = ""
		}
		rest, known = ir.NamedDim(d.Name), false
	}
	switch {
	case known:
		return ir.Dim{Size: n}
	case n == 0:
		return rest
	}
	return ir.UnknownDim
}

// keepDims passes the contents of input 0 on as those of output 0: for operators that change only the shape, to rank 0 or 1.
func keepDims(c *Call, rank int) {
	if d, ok := c.Dims(0); ok && rank <= 1 {
		c.SetDims(0, d)
	}
}

// inputInts returns integer input i as a list; in evaluation it is there, in inference it may be unknown.
func inputInts(c *Call, i int) ([]int64, bool) {
	if v, ok := c.ConstInts(i); ok {
		return v, true
	}
	if d, ok := c.Dims(i); ok {
		return literals(d)
	}
	return nil, false
}

// needInts is inputInts in evaluation.
func needInts(c *Call, i int, what string) ([]int64, error) {
	v, ok := c.ConstInts(i)
	if !ok {
		return nil, fmt.Errorf("%s (input %d) is %v, wants integers", what, i, c.Type(i))
	}
	return v, nil
}

// toShape converts sizes to a shape, which must not be negative or overflow.
func toShape(sizes []int64) ([]int, error) {
	shape := make([]int, len(sizes))
	for i, n := range sizes {
		if n < 0 || n > ir.MaxElements {
			return nil, fmt.Errorf("shape %v: dimension %d is outside [0, %d]", sizes, i, int64(ir.MaxElements))
		}
		shape[i] = int(n)
	}
	_, err := ir.Numel(shape)
	return shape, err
}

// axesOf normalizes a list of axes and refuses repeated ones.
func axesOf(axes []int64, rank int) ([]int, error) {
	out := make([]int, len(axes))
	seen := make([]bool, rank)
	for i, a := range axes {
		k, err := Axis(a, rank)
		if err != nil {
			return nil, err
		}
		if seen[k] {
			return nil, fmt.Errorf("axis %d appears twice in %v", k, axes)
		}
		seen[k] = true
		out[i] = k
	}
	return out, nil
}

// unranked is a tensor type of which only the element type is known.
func unranked(elem ir.DType) []ir.Type { return []ir.Type{{Elem: elem}} }

// typed is the result of inference for one output.
func typed(elem ir.DType, dims []ir.Dim) []ir.Type { return []ir.Type{ir.TensorType(elem, dims...)} }
