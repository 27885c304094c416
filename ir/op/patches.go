package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

// Patches shows what the weights of a convolution (Conv) multiply: for each image and group of the float input x, and in
// pieces of its positions, the matrix cols of k rows and n columns, where k = C/group·taps counts in the order of the
// weight's elements of one output channel and the columns are output positions. weight is the weight's shape. cols is
// overwritten between calls.
func Patches(n *ir.Node, x *ir.Tensor, weight []int, visit func(group int, cols []float32, k, n int) error) error {
	if n.Op != ir.Op("Conv") {
		return fmt.Errorf("%v is no convolution", n)
	}
	data, ok := x.Float32s()
	if !ok {
		return fmt.Errorf("input of type %v, wanted floats", x.Elem())
	}
	v, err := convolutionOf(n, x.Shape(), weight)
	if err != nil {
		return err
	}
	v.tables()
	depth, step := v.cg*v.taps, v.block()
	cols := make([]float32, depth*step)
	for i := range v.batch * v.groups {
		in := data[i*v.cg*v.size : (i+1)*v.cg*v.size]
		for p0 := 0; p0 < v.positions; p0 += step {
			p1 := min(p0+step, v.positions)
			columns(v, cols, in, p0, p1, 0)
			if err := visit(i%v.groups, cols[:depth*(p1-p0)], depth, p1-p0); err != nil {
				return err
			}
		}
	}
	return nil
}
