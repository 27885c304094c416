package op_test

import (
	"math"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

func bools(shape []int, v ...bool) *ir.Tensor { return ir.FromSlice(ir.Bool, shape, v) }

func i32(shape []int, v ...int32) *ir.Tensor { return ir.FromSlice(ir.Int32, shape, v) }

func i8(shape []int, v ...int8) *ir.Tensor { return ir.FromSlice(ir.Int8, shape, v) }

func f64(shape []int, v ...float64) *ir.Tensor { return ir.FromSlice(ir.Float64, shape, v) }

func half(shape []int, bits ...uint16) *ir.Tensor { return ir.FromSlice(ir.Float16, shape, bits) }

var (
	nan32 = float32(math.NaN())
	inf32 = float32(math.Inf(1))
)

func TestElementwise(t *testing.T) {
	t.Parallel()
	checkCases(t, []nodeCase{
		{name: "column and row", op: "Add", in: []*ir.Tensor{f32([]int{2, 1}, 10, 20), f32([]int{3}, 1, 2, 3)},
			want: []*ir.Tensor{f32([]int{2, 3}, 11, 12, 13, 21, 22, 23)}},
		{name: "scalar", op: "Sub", in: []*ir.Tensor{f32([]int{}, 1), f32([]int{2}, 1, 2)}, want: []*ir.Tensor{f32([]int{2}, 0, -1)}},
		{name: "scalars", op: "Mul", in: []*ir.Tensor{i64([]int{}, 3), i64([]int{}, 4)}, want: []*ir.Tensor{i64([]int{}, 12)}},
		{name: "empty", op: "Add", in: []*ir.Tensor{f32([]int{0, 3}), f32([]int{1, 3}, 1, 2, 3)}, want: []*ir.Tensor{f32([]int{0, 3})}},
		{name: "mismatch", op: "Add", in: []*ir.Tensor{f32([]int{2}, 1, 2), f32([]int{3}, 1, 2, 3)}, fails: "do not broadcast"},
		{name: "types differ", op: "Add", in: []*ir.Tensor{f32([]int{1}, 1), i64([]int{1}, 1)}, fails: "element type"},
		{name: "wraps", op: "Add", in: []*ir.Tensor{i8([]int{1}, 127), i8([]int{1}, 1)}, want: []*ir.Tensor{i8([]int{1}, -128)}},
		{name: "truncates", op: "Div", in: []*ir.Tensor{i64([]int{2}, -7, 7), i64([]int{}, 2)}, want: []*ir.Tensor{i64([]int{2}, -3, 3)}},
		{name: "least by -1", op: "Div", in: []*ir.Tensor{i8([]int{1}, -128), i8([]int{1}, -1)}, want: []*ir.Tensor{i8([]int{1}, -128)}},
		{name: "by zero", op: "Div", in: []*ir.Tensor{i64([]int{1}, 1), i64([]int{1}, 0)}, fails: "division by zero"},
		{name: "float by zero", op: "Div", in: []*ir.Tensor{f32([]int{1}, 1), f32([]int{1}, 0)}, want: []*ir.Tensor{f32([]int{1}, inf32)}},
		{name: "half", op: "Mul", in: []*ir.Tensor{half([]int{1}, 0x3c01), half([]int{1}, 0x3c01)}, want: []*ir.Tensor{half([]int{1}, 0x3c02)}},
		{name: "zero", op: "Mod", in: []*ir.Tensor{i32([]int{1}, 1), i32([]int{1}, 0)}, fails: "division by zero"},
		{name: "floor", op: "Mod", in: []*ir.Tensor{i32([]int{4}, -4, 7, 5, -5), i32([]int{4}, 3, -3, 8, -5)}, want: []*ir.Tensor{i32([]int{4}, 2, -2, 5, 0)}},
		{name: "fmod", op: "Mod", in: []*ir.Tensor{i32([]int{2}, -4, 7), i32([]int{2}, 3, -3)}, attrs: []ir.Attr{ir.IntAttr("fmod", 1)}, want: []*ir.Tensor{i32([]int{2}, -1, 1)}},
		{name: "floats", op: "Mod", opset: 28, in: []*ir.Tensor{f32([]int{3}, -1, 1, 5), f32([]int{3}, 4, -inf32, 2.5)}, want: []*ir.Tensor{f32([]int{3}, 3, -inf32, 0)}},
		{name: "small whole powers", op: "Pow", in: []*ir.Tensor{f32([]int{3}, -2, 0.5, 3), f32([]int{}, 3)}, want: []*ir.Tensor{f32([]int{3}, -8, 0.125, 27)}},
		{name: "integer to fraction", op: "Pow", in: []*ir.Tensor{i64([]int{2}, 16, 9), f32([]int{1}, 0.5)}, want: []*ir.Tensor{i64([]int{2}, 4, 3)}},
		{name: "float to integer", op: "Pow", in: []*ir.Tensor{f32([]int{2}, 2, 3), i64([]int{2}, 10, -1)}, want: []*ir.Tensor{f32([]int{2}, 1024, 1./3)}},
		{name: "negative", op: "Pow", in: []*ir.Tensor{i32([]int{3}, 1, -1, 2), i32([]int{1}, -3)}, want: []*ir.Tensor{i32([]int{3}, 1, -1, 0)}},
		{name: "zero to negative", op: "Pow", in: []*ir.Tensor{i32([]int{1}, 0), i32([]int{1}, -3)}, fails: "division by zero"},
		{name: "nan", op: "Max", in: []*ir.Tensor{f32([]int{2}, nan32, 1), f32([]int{1}, 2)}, want: []*ir.Tensor{f32([]int{2}, nan32, 2)}},
		{name: "three", op: "Min", in: []*ir.Tensor{i32([]int{2}, 5, 1), i32([]int{1}, 2), i32([]int{2, 1}, 0, 9)}, want: []*ir.Tensor{i32([]int{2, 2}, 0, 0, 2, 1)}},
		{name: "one", op: "Sum", in: []*ir.Tensor{f32([]int{2}, 5, 1)}, want: []*ir.Tensor{f32([]int{2}, 5, 1)}},
		{name: "two", op: "Mean", in: []*ir.Tensor{f64([]int{2}, 5, 1), f64([]int{}, 2)}, want: []*ir.Tensor{f64([]int{2}, 3.5, 1.5)}},
		{name: "bools", op: "Equal", in: []*ir.Tensor{bools([]int{2}, true, false), bools([]int{1}, true)}, want: []*ir.Tensor{bools([]int{2}, true, false)}},
		{name: "strings", op: "Equal", opset: 19, in: []*ir.Tensor{text([]int{2}, "a", "b"), text([]int{}, "b")}, want: []*ir.Tensor{bools([]int{2}, false, true)}},
		{name: "nan", op: "LessOrEqual", in: []*ir.Tensor{f32([]int{2}, nan32, 1), f32([]int{}, 1)}, want: []*ir.Tensor{bools([]int{2}, false, true)}},
		{name: "bools", op: "Xor", in: []*ir.Tensor{bools([]int{2}, true, false), bools([]int{1}, true)}, want: []*ir.Tensor{bools([]int{2}, false, true)}},
		{name: "three shapes", op: "Where", in: []*ir.Tensor{bools([]int{2, 1}, true, false), i64([]int{2}, 1, 2), i64([]int{}, 9)}, want: []*ir.Tensor{i64([]int{2, 2}, 1, 2, 9, 9)}},
		{name: "strings", op: "Where", in: []*ir.Tensor{bools([]int{2}, true, false), text([]int{1}, "x"), text([]int{1}, "y")}, want: []*ir.Tensor{text([]int{2}, "x", "y")}},
		{name: "right", op: "BitShift", opset: 28, in: []*ir.Tensor{i8([]int{3}, -8, -8, 8), i8([]int{3}, 1, 8, -1)}, attrs: []ir.Attr{ir.StringAttr("direction", "RIGHT")}, want: []*ir.Tensor{i8([]int{3}, -4, -1, 0)}},
		{name: "left", op: "BitShift", opset: 28, in: []*ir.Tensor{i8([]int{2}, 127, 1), i8([]int{2}, 1, 100)}, attrs: []ir.Attr{ir.StringAttr("direction", "LEFT")}, want: []*ir.Tensor{i8([]int{2}, -2, 0)}},
		{name: "no direction", op: "BitShift", in: []*ir.Tensor{i8([]int{1}, 1), i8([]int{1}, 1)}, fails: "direction"},
		{name: "ties", op: "Round", in: []*ir.Tensor{f32([]int{3}, 0.5, 1.5, -2.5)}, want: []*ir.Tensor{f32([]int{3}, 0, 2, float32(math.Copysign(2, -1)))}},
		{name: "keeps nan", op: "Relu", in: []*ir.Tensor{f64([]int{3}, math.NaN(), -1, 2)}, want: []*ir.Tensor{f64([]int{3}, math.NaN(), 0, 2)}},
		{name: "integers", op: "Relu", in: []*ir.Tensor{i8([]int{2}, -1, 2)}, want: []*ir.Tensor{i8([]int{2}, 0, 2)}},
		{name: "integers", op: "Sign", in: []*ir.Tensor{i8([]int{3}, -5, 0, 2)}, want: []*ir.Tensor{i8([]int{3}, -1, 0, 1)}},
		{name: "one side", op: "IsInf", in: []*ir.Tensor{f32([]int{3}, inf32, -inf32, 1)}, attrs: []ir.Attr{ir.IntAttr("detect_negative", 0)}, want: []*ir.Tensor{bools([]int{3}, true, false, false)}},
		{name: "half", op: "IsNaN", in: []*ir.Tensor{half([]int{2}, 0x7e00, 0x7c00)}, want: []*ir.Tensor{bools([]int{2}, true, false)}},
		{name: "float8", op: "IsNaN", in: []*ir.Tensor{packed(ir.Float8E4M3FN, []int{2}, 0x7f, 0x7e)}, want: []*ir.Tensor{bools([]int{2}, true, false)}},
		{name: "float8", op: "IsInf", in: []*ir.Tensor{packed(ir.Float8E5M2, []int{2}, 0xfc, 0x7e)}, want: []*ir.Tensor{bools([]int{2}, true, false)}},
		{name: "infinite", op: "ThresholdedRelu", in: []*ir.Tensor{f32([]int{3}, -inf32, 1, 1.5)}, want: []*ir.Tensor{f32([]int{3}, 0, 0, 1.5)}},
		{name: "crossed bounds", op: "Clip", in: []*ir.Tensor{i32([]int{3}, 0, 5, 9), i32([]int{}, 6), i32([]int{}, 4)}, want: []*ir.Tensor{i32([]int{3}, 4, 4, 4)}},
		{name: "upper only", op: "Clip", in: []*ir.Tensor{f32([]int{2}, -9, 9), nil, f32([]int{}, 4)}, want: []*ir.Tensor{f32([]int{2}, -9, 4)}},
		{name: "bound is a vector", op: "Clip", in: []*ir.Tensor{f32([]int{2}, -9, 9), f32([]int{2}, 1, 2)}, fails: "wants a single"},
		{name: "shapes differ", op: "SwiGLU", opset: 28, in: []*ir.Tensor{f32([]int{2}, 1, 2), f32([]int{1}, 1)}, fails: "shape"},
	})
}

// TestOldForms runs what older opsets wrote otherwise.
func TestOldForms(t *testing.T) {
	t.Parallel()
	cube := f32([]int{2, 2, 2}, 0, 1, 2, 3, 4, 5, 6, 7)
	checkCases(t, []nodeCase{
		{name: "broadcast at axis", op: "Add", opset: 6, in: []*ir.Tensor{cube, f32([]int{2}, 10, 20)},
			attrs: []ir.Attr{ir.IntAttr("broadcast", 1), ir.IntAttr("axis", 1)}, want: []*ir.Tensor{f32([]int{2, 2, 2}, 10, 11, 22, 23, 14, 15, 26, 27)}},
		{name: "broadcast at the end", op: "Mul", opset: 1, in: []*ir.Tensor{f32([]int{2, 2}, 1, 2, 3, 4), f32([]int{2}, 10, 20)},
			attrs: []ir.Attr{ir.IntAttr("broadcast", 1), ir.IntsAttr("consumed_inputs", 0, 0)}, want: []*ir.Tensor{f32([]int{2, 2}, 10, 40, 30, 80)}},
		{name: "does not fit", op: "Sub", opset: 6, in: []*ir.Tensor{f32([]int{2}, 1, 2), f32([]int{2}, 10, 20)},
			attrs: []ir.Attr{ir.IntAttr("broadcast", 1), ir.IntAttr("axis", 1)}, fails: "does not fit"},
		{name: "axis 0", op: "Greater", opset: 1, in: []*ir.Tensor{f32([]int{2, 2}, 1, 2, 3, 4), f32([]int{2}, 1, 3)},
			attrs: []ir.Attr{ir.IntAttr("broadcast", 1), ir.IntAttr("axis", 0)}, want: []*ir.Tensor{bools([]int{2, 2}, false, true, false, true)}},
		{name: "slope per channel", op: "PRelu", opset: 6, in: []*ir.Tensor{f32([]int{1, 2, 2}, -1, -2, -3, 4), f32([]int{2}, 2, 3)},
			want: []*ir.Tensor{f32([]int{1, 2, 2}, -2, -4, -9, 4)}},
		{name: "bounds", op: "Clip", opset: 6, in: []*ir.Tensor{f32([]int{3}, -2, 0, 2)},
			attrs: []ir.Attr{ir.FloatAttr("min", -1), ir.FloatAttr("max", 1)}, want: []*ir.Tensor{f32([]int{3}, -1, 0, 1)}},
		{name: "half bounds", op: "Clip", opset: 6, in: []*ir.Tensor{half([]int{1}, 0x4000)}, attrs: []ir.Attr{ir.FloatAttr("max", 1)}, want: []*ir.Tensor{half([]int{1}, 0x3c00)}},
		{name: "joined axes", op: "Hardmax", opset: 1, in: []*ir.Tensor{cube}, want: []*ir.Tensor{f32([]int{2, 2, 2}, 0, 0, 0, 1, 0, 0, 0, 1)}},
		{name: "last axis", op: "Hardmax", opset: 11, in: []*ir.Tensor{cube}, attrs: []ir.Attr{ir.IntAttr("axis", -1)}, want: []*ir.Tensor{f32([]int{2, 2, 2}, 0, 1, 0, 1, 0, 1, 0, 1)}},
		{name: "ones after the axis", op: "Softmax", opset: 7, in: []*ir.Tensor{f32([]int{1, 2, 1}, 0, 0)}, want: []*ir.Tensor{f32([]int{1, 2, 1}, 0.5, 0.5)}},
		{name: "axes attribute", op: "ReduceSum", opset: 11, in: []*ir.Tensor{cube}, attrs: []ir.Attr{ir.IntsAttr("axes", 0, -1), ir.IntAttr("keepdims", 0)}, want: []*ir.Tensor{f32([]int{2}, 10, 18)}},
		{name: "axes attribute", op: "ReduceMean", opset: 17, in: []*ir.Tensor{cube}, attrs: []ir.Attr{ir.IntsAttr("axes", 1)}, want: []*ir.Tensor{f32([]int{2, 1, 2}, 1, 2, 5, 6)}},
		{name: "named type", op: "Cast", opset: 1, in: []*ir.Tensor{f32([]int{1}, 2.5)}, attrs: []ir.Attr{ir.StringAttr("to", "INT64")}, want: []*ir.Tensor{i64([]int{1}, 2)}},
		{name: "unknown name", op: "Cast", opset: 1, in: []*ir.Tensor{f32([]int{1}, 2.5)}, attrs: []ir.Attr{ir.StringAttr("to", "INT65")}, fails: "names no element type"},
	})
}

func TestAxes(t *testing.T) {
	t.Parallel()
	square := f32([]int{2, 2}, 4, 1, 4, 3)
	checkCases(t, []nodeCase{
		{name: "first of equals", op: "ArgMax", in: []*ir.Tensor{square}, want: []*ir.Tensor{i64([]int{1, 2}, 0, 1)}},
		{name: "last of equals", op: "ArgMax", in: []*ir.Tensor{square}, attrs: []ir.Attr{ir.IntAttr("select_last_index", 1), ir.IntAttr("keepdims", 0)}, want: []*ir.Tensor{i64([]int{2}, 1, 1)}},
		{name: "nan", op: "ArgMin", in: []*ir.Tensor{f32([]int{3}, 1, nan32, 0)}, want: []*ir.Tensor{i64([]int{1}, 1)}},
		{name: "no elements", op: "ArgMin", in: []*ir.Tensor{f32([]int{0})}, fails: "no elements"},
		{name: "bad axis", op: "ArgMin", in: []*ir.Tensor{square}, attrs: []ir.Attr{ir.IntAttr("axis", 2)}, fails: "axis 2"},
		{name: "exclusive reverse", op: "CumSum", in: []*ir.Tensor{i64([]int{3}, 1, 2, 3), i64([]int{}, 0)}, attrs: []ir.Attr{ir.IntAttr("exclusive", 1), ir.IntAttr("reverse", 1)}, want: []*ir.Tensor{i64([]int{3}, 5, 3, 0)}},
		{name: "columns", op: "CumProd", opset: 26, in: []*ir.Tensor{square, i64([]int{}, -2)}, want: []*ir.Tensor{f32([]int{2, 2}, 4, 1, 16, 3)}},
		{name: "bad axis", op: "CumSum", in: []*ir.Tensor{square, i64([]int{}, 7)}, fails: "axis 7"},
		{name: "middle", op: "Softmax", in: []*ir.Tensor{f64([]int{1, 2, 2}, 0, 1, 0, 1)}, attrs: []ir.Attr{ir.IntAttr("axis", 1)}, want: []*ir.Tensor{f64([]int{1, 2, 2}, .5, .5, .5, .5)}},
		{name: "scalar", op: "LogSoftmax", in: []*ir.Tensor{f32([]int{}, 3)}, want: []*ir.Tensor{f32([]int{}, 0)}},
		{name: "empty", op: "Softmax", in: []*ir.Tensor{f32([]int{2, 0})}, want: []*ir.Tensor{f32([]int{2, 0})}},
	})
}

// TestBroadcastDims: symbols stay where they are certain.
func TestBroadcastDims(t *testing.T) {
	t.Parallel()
	m := ir.NewModel(20)
	g := m.Graph
	n, s := ir.NamedDim("N"), ir.NamedDim("S")
	x := g.AddInput("x", ir.TensorType(ir.Float32, n, ir.FixedDim(1), s))
	y := g.AddInput("y", ir.TensorType(ir.Float32, ir.FixedDim(8), ir.FixedDim(1)))
	z := g.AddInput("z", ir.TensorType(ir.Float32, n, ir.UnknownDim, s))
	w := g.AddInput("w", ir.TensorType(ir.Float32, s, ir.FixedDim(1), n))
	b := g.AddInput("b", ir.TensorType(ir.Bool, ir.FixedDim(1)))
	shape := insert(g, "Shape", []*ir.Value{x}, "shape")
	twice := insert(g, "Mul", []*ir.Value{shape, g.Const("ones", ir.Ints(1, 6, 1))}, "twice")
	wide := insert(g, "Cast", []*ir.Value{twice}, "wide", ir.IntAttr("to", int64(ir.Int32)))
	back := insert(g, "Cast", []*ir.Value{wide}, "back", ir.IntAttr("to", int64(ir.Int64)))
	shown := insert(g, "Expand", []*ir.Value{g.Const("k", ir.Scalar(1)), insert(g, "Add", []*ir.Value{back, g.Const("zeros", ir.Ints(0, -0, 0))}, "same")}, "shown")
	target := insert(g, "Concat", []*ir.Value{insert(g, "Slice", []*ir.Value{shape, g.Const("from", ir.Ints(0)), g.Const("to", ir.Ints(1))}, "first"), g.Const("rest", ir.Ints(-1, 4))}, "target", ir.IntAttr("axis", 0))
	isRest := insert(g, "Equal", []*ir.Value{target, insert(g, "Mul", []*ir.Value{g.Const("onces", ir.Ints(1, 1, 1)), g.Const("minus", ir.ScalarInt(-1))}, "minuses")}, "isRest")
	chosen := insert(g, "Where", []*ir.Value{isRest, g.Const("ones3", ir.Ints(1, 1, 1)), target}, "chosen")
	for _, c := range []struct {
		v    *ir.Value
		want string
	}{
		{insert(g, "Add", []*ir.Value{x, y}, "a1"), "float[N,8,S]"},
		{insert(g, "Mul", []*ir.Value{x, z}, "a2"), "float[N,?,S]"},
		{insert(g, "Sub", []*ir.Value{z, y}, "a3"), "float[N,8,S]"},
		{insert(g, "Less", []*ir.Value{x, w}, "a4"), "bool[?,1,?]"},
		{insert(g, "Where", []*ir.Value{b, x, y}, "a5"), "float[N,8,S]"},
		{insert(g, "Sum", []*ir.Value{x, y, z}, "a6"), "float[N,8,S]"},
		{insert(g, "ReduceSum", []*ir.Value{x, g.Const("axes", ir.Ints(-1))}, "a7", ir.IntAttr("keepdims", 0)), "float[N,1]"},
		{insert(g, "ArgMax", []*ir.Value{x}, "a8"), "int64[1,1,S]"},
		{insert(g, "Cast", []*ir.Value{x}, "a9", ir.IntAttr("to", int64(ir.Float16))), "float16[N,1,S]"},
		{shown, "float[N,6,S]"},
		{insert(g, "Expand", []*ir.Value{g.Const("k2", ir.Scalar(1)), chosen}, "chosenShape"), "float[N,1,4]"},
	} {
		g.AddOutput(c.v.Name, c.v)
		defer func() {
			if got := c.v.Type.String(); got != c.want {
				t.Errorf("%v: %s, want %s", c.v.DefNode(), got, c.want)
			}
		}()
	}
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
}

// TestSameOnAnyCores: broadcasts, reductions and maps give the same bits whatever the number of cores.
func TestSameOnAnyCores(t *testing.T) {
	x := iota32(40, 33, 65)
	for i, v := range ir.Data[float32](x) {
		ir.Data[float32](x)[i] = float32(math.Sin(float64(v)))
	}
	for _, tc := range []nodeCase{
		{op: "Add", in: []*ir.Tensor{x, iota32(33, 1)}},
		{op: "Mul", in: []*ir.Tensor{x, iota32(65)}},
		{op: "Where", in: []*ir.Tensor{bools([]int{33, 1}, make([]bool, 33)...), x, iota32(1)}},
		{op: "Softplus", in: []*ir.Tensor{x}},
		{op: "ReduceMean", in: []*ir.Tensor{x}},
		{op: "ReduceL2", in: []*ir.Tensor{x, i64([]int{2}, 0, 2)}},
		{op: "ReduceLogSumExp", in: []*ir.Tensor{x, i64([]int{1}, 1)}},
		{op: "CumSum", in: []*ir.Tensor{x, i64([]int{}, 1)}},
		{op: "Softmax", in: []*ir.Tensor{x}, attrs: []ir.Attr{ir.IntAttr("axis", 1)}},
	} {
		tc.fed = len(tc.in)
		var want *ir.Tensor
		for _, cores := range []int{1, 2, 3} {
			old := par.SetLimit(cores)
			m, feed := tc.model()
			got, err := runModel(m, feed)
			par.SetLimit(old)
			if err != nil {
				t.Fatalf("%s: %v", tc.op, err)
			}
			if want == nil {
				want = got["out0"]
			} else if !equal(got["out0"], want) {
				t.Errorf("%s: other bits on %d cores than on one", tc.op, cores)
			}
		}
	}
}
