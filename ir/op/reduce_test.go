package op_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/qsimc/qsimc/ir"
)

// reductions are the operators' definitions, on the elements of one result.
var reductions = map[string]func(v []float64) float64{
	"ReduceSum":       sum,
	"ReduceMean":      func(v []float64) float64 { return sum(v) / float64(len(v)) },
	"ReduceProd":      func(v []float64) float64 { return total(v, 1, func(a, x float64) float64 { return a * x }) },
	"ReduceMax":       func(v []float64) float64 { return total(v, math.Inf(-1), math.Max) },
	"ReduceMin":       func(v []float64) float64 { return total(v, math.Inf(1), math.Min) },
	"ReduceL1":        func(v []float64) float64 { return total(v, 0, func(a, x float64) float64 { return a + math.Abs(x) }) },
	"ReduceL2":        func(v []float64) float64 { return math.Sqrt(squares(v)) },
	"ReduceSumSquare": squares,
	"ReduceLogSum":    func(v []float64) float64 { return math.Log(sum(v)) },
	"ReduceLogSumExp": func(v []float64) float64 {
		return math.Log(total(v, 0, func(a, x float64) float64 { return a + math.Exp(x) }))
	},
}

func total(v []float64, a float64, f func(a, x float64) float64) float64 {
	for _, x := range v {
		a = f(a, x)
	}
	return a
}

func sum(v []float64) float64 { return total(v, 0, func(a, x float64) float64 { return a + x }) }

func squares(v []float64) float64 {
	return total(v, 0, func(a, x float64) float64 { return a + x*x })
}

// TestReduce compares every reduction with its definition over random shapes and every set of axes of rank up to 4.
func TestReduce(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for name, def := range reductions {
		for rank := range 5 {
			for mask := range 1 << rank {
				shape := make([]int, rank)
				for i := range shape {
					shape[i] = 1 + rng.IntN(4)
				}
				n, _ := ir.Numel(shape)
				x := make([]float64, n)
				for i := range x {
					x[i] = 0.5 + rng.Float64()
				}
				var axes []int64
				groups, outShape := map[int][]float64{}, []int{}
				for i := range rank {
					if mask>>i&1 == 1 {
						axes = append(axes, int64(i))
						outShape = append(outShape, 1)
					} else {
						outShape = append(outShape, shape[i])
					}
				}
				for i, v := range x {
					at, stride, rest := 0, 1, i
					for k := rank - 1; k >= 0; k-- {
						if mask>>k&1 == 0 {
							at += rest % shape[k] * stride
							stride *= shape[k]
						}
						rest /= shape[k]
					}
					groups[at] = append(groups[at], v)
				}
				tc := nodeCase{op: name, opset: 20, fed: 1, in: []*ir.Tensor{f64(shape, x...), ir.Ints(axes...)}, attrs: []ir.Attr{ir.IntAttr("noop_with_empty_axes", 1)}}
				m, feed := tc.model()
				got, err := runModel(m, feed)
				if err != nil {
					t.Fatalf("%s %v over %v: %v", name, shape, axes, err)
				}
				y := got["out0"]
				if fmt.Sprint(y.Shape()) != fmt.Sprint(outShape) {
					t.Fatalf("%s %v over %v: shape %v, want %v", name, shape, axes, y.Shape(), outShape)
				}
				for at, v := range ir.Data[float64](y) {
					if want := def(groups[at]); math.Abs(v-want) > 1e-12*math.Abs(want) {
						t.Fatalf("%s %v over %v: element %d is %v, want %v", name, shape, axes, at, v, want)
					}
				}
			}
		}
	}
}

func TestReduceForms(t *testing.T) {
	t.Parallel()
	none := f32([]int{2, 0, 3})
	checkCases(t, []nodeCase{
		{name: "of nothing", op: "ReduceSum", in: []*ir.Tensor{none, i64([]int{1}, 1)}, want: []*ir.Tensor{f32([]int{2, 1, 3}, 0, 0, 0, 0, 0, 0)}},
		{name: "of nothing", op: "ReduceProd", opset: 18, in: []*ir.Tensor{f32([]int{0})}, want: []*ir.Tensor{f32([]int{1}, 1)}},
		{name: "of nothing", op: "ReduceMax", opset: 20, in: []*ir.Tensor{f32([]int{0})}, want: []*ir.Tensor{f32([]int{1}, -inf32)}},
		{name: "of no integers", op: "ReduceMin", opset: 20, in: []*ir.Tensor{i32([]int{0})}, want: []*ir.Tensor{i32([]int{1}, math.MaxInt32)}},
		{name: "of nothing", op: "ReduceLogSumExp", opset: 18, in: []*ir.Tensor{f32([]int{0})}, want: []*ir.Tensor{f32([]int{1}, -inf32)}},
		{name: "of no integers", op: "ReduceMean", opset: 18, in: []*ir.Tensor{i32([]int{0})}, fails: "division by zero"},
		{name: "an empty result", op: "ReduceMean", opset: 18, in: []*ir.Tensor{none, i64([]int{1}, 2)}, want: []*ir.Tensor{f32([]int{2, 0, 1})}},
		{name: "bools", op: "ReduceMax", opset: 20, in: []*ir.Tensor{bools([]int{2, 2}, false, true, false, false), i64([]int{1}, 1)}, attrs: []ir.Attr{ir.IntAttr("keepdims", 0)}, want: []*ir.Tensor{bools([]int{2}, true, false)}},
		{name: "nan", op: "ReduceMax", opset: 20, in: []*ir.Tensor{f32([]int{3}, nan32, 5, 1)}, want: []*ir.Tensor{f32([]int{1}, nan32)}},
		{name: "infinities", op: "ReduceLogSumExp", opset: 18, in: []*ir.Tensor{f32([]int{2, 2}, inf32, 0, -inf32, -inf32), i64([]int{1}, 1)}, want: []*ir.Tensor{f32([]int{2, 1}, inf32, -inf32)}},
		{name: "no overflow", op: "ReduceLogSumExp", opset: 18, in: []*ir.Tensor{f32([]int{1, 2}, 1000, -inf32), i64([]int{1}, 1)}, want: []*ir.Tensor{f32([]int{1, 1}, 1000)}},
		{name: "integers truncate", op: "ReduceMean", opset: 18, in: []*ir.Tensor{i32([]int{2}, -3, 0)}, want: []*ir.Tensor{i32([]int{1}, -1)}},
		{name: "integers", op: "ReduceL1", opset: 18, in: []*ir.Tensor{i32([]int{2}, -3, 1)}, want: []*ir.Tensor{i32([]int{1}, 4)}},
		{name: "no operation", op: "ReduceSumSquare", opset: 18, in: []*ir.Tensor{f32([]int{2}, -3, 1)}, attrs: []ir.Attr{ir.IntAttr("noop_with_empty_axes", 1)}, want: []*ir.Tensor{f32([]int{2}, 9, 1)}},
		{name: "many small", op: "ReduceSum", in: []*ir.Tensor{tenths(1 << 20)}, want: []*ir.Tensor{f32([]int{1}, float32(float64(float32(0.1))*(1<<20)))}},
		{name: "axis twice", op: "ReduceSum", in: []*ir.Tensor{none, i64([]int{2}, 0, -3)}, fails: "twice"},
		{name: "bad axis", op: "ReduceSum", in: []*ir.Tensor{none, i64([]int{1}, 3)}, fails: "axis 3"},
	})
}

// tenths would lose two digits if summed up one by one in float32.
func tenths(n int) *ir.Tensor {
	v := make([]float32, n)
	for i := range v {
		v[i] = 0.1
	}
	return ir.Floats(v, n)
}
