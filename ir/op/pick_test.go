package op_test

import (
	"math"
	"testing"

	"github.com/qsimc/qsimc/ir"
)

func str(name, v string) ir.Attr { return ir.StringAttr(name, v) }

func TestPicking(t *testing.T) {
	t.Parallel()
	m23 := iota32(2, 3)
	nan := float32(math.NaN())
	boxes := f32([]int{1, 3, 4}, 0, 0, 1, 1, 0, 0, 1, 1.01, 0, 5, 1, 6)
	scores := f32([]int{1, 1, 3}, .5, .75, .6)
	checkCases(t, []nodeCase{
		{name: "replace", op: "ScatterElements", in: []*ir.Tensor{m23, i64([]int{1, 2}, 1, -2), f32([]int{1, 2}, 8, 9)}, want: []*ir.Tensor{f32([]int{2, 3}, 0, 9, 2, 8, 4, 5)}},
		{name: "add twice", op: "ScatterElements", in: []*ir.Tensor{ir.Ints(1, 2), ir.Ints(1, 1), ir.Ints(10, 20)}, attrs: []ir.Attr{str("reduction", "add")}, want: []*ir.Tensor{ir.Ints(1, 32)}},
		{name: "unknown reduction", op: "ScatterElements", in: []*ir.Tensor{ir.Ints(1, 2), ir.Ints(1), ir.Ints(10)}, attrs: []ir.Attr{str("reduction", "xor")}, fails: "xor"},
		{name: "out of range", op: "ScatterElements", in: []*ir.Tensor{ir.Ints(1, 2), ir.Ints(2), ir.Ints(10)}, fails: "index 2"},
		{name: "half", op: "ScatterElements", in: []*ir.Tensor{packed(ir.Float16, []int{1}, 0, 0x3c), ir.Ints(0), packed(ir.Float16, []int{1}, 0, 0x40)}, attrs: []ir.Attr{str("reduction", "mul")}, want: []*ir.Tensor{packed(ir.Float16, []int{1}, 0, 0x40)}},
		{name: "opset 9", opset: 9, op: "Scatter", in: []*ir.Tensor{m23, i64([]int{1, 1}, 1), f32([]int{1, 1}, 8)}, attrs: []ir.Attr{ir.IntAttr("axis", 1)}, want: []*ir.Tensor{f32([]int{2, 3}, 0, 8, 2, 3, 4, 5)}},
		{name: "rows", op: "ScatterND", in: []*ir.Tensor{m23, i64([]int{1, 1}, -1), f32([]int{1, 3}, 7, 8, 9)}, want: []*ir.Tensor{f32([]int{2, 3}, 0, 1, 2, 7, 8, 9)}},
		{name: "max", op: "ScatterND", in: []*ir.Tensor{ir.Ints(5, 5), i64([]int{2, 1}, 0, 1), ir.Ints(4, 6)}, attrs: []ir.Attr{str("reduction", "max")}, want: []*ir.Tensor{ir.Ints(5, 6)}},
		{name: "wrong updates", op: "ScatterND", in: []*ir.Tensor{m23, i64([]int{1, 1}, 0), f32([]int{1, 2}, 7, 8)}, fails: "updates of shape"},
		{name: "4 bit", op: "ScatterND", in: []*ir.Tensor{packed(ir.Uint4, []int{3}, 0x21, 0x03), i64([]int{1, 1}, 1), packed(ir.Uint4, []int{1}, 0x0f)}, want: []*ir.Tensor{packed(ir.Uint4, []int{3}, 0xf1, 0x03)}},
		{name: "circular", op: "TensorScatter", in: []*ir.Tensor{iota32(1, 3, 1), f32([]int{1, 2, 1}, 8, 9), ir.Ints(5)}, attrs: []ir.Attr{str("mode", "circular")}, want: []*ir.Tensor{f32([]int{1, 3, 1}, 9, 1, 8)}},
		{name: "no room", op: "TensorScatter", in: []*ir.Tensor{iota32(1, 3, 1), f32([]int{1, 2, 1}, 8, 9), ir.Ints(2)}, fails: "no room"},
		{name: "largest", op: "TopK", in: []*ir.Tensor{f32([]int{5}, 1, 3, 2, 3, nan), ir.Ints(3)}, want: []*ir.Tensor{f32([]int{3}, nan, 3, 3), ir.Ints(4, 1, 3)}},
		{name: "smallest", op: "TopK", in: []*ir.Tensor{i64([]int{2, 2}, 1, 0, 3, 3), ir.Ints(1)}, attrs: []ir.Attr{ir.IntAttr("largest", 0)}, want: []*ir.Tensor{i64([]int{2, 1}, 0, 3), i64([]int{2, 1}, 1, 0)}},
		{name: "few of many", op: "TopK", in: []*ir.Tensor{f32([]int{9}, 4, 9, 2, 9, 7, 1, 8, 9, 0), ir.Ints(2)}, want: []*ir.Tensor{f32([]int{2}, 9, 9), ir.Ints(1, 3)}},
		{name: "opset 1", opset: 1, op: "TopK", in: []*ir.Tensor{f32([]int{3}, 1, 3, 2)}, attrs: []ir.Attr{ir.IntAttr("k", 1)}, want: []*ir.Tensor{f32([]int{1}, 3), ir.Ints(1)}},
		{name: "half", op: "TopK", in: []*ir.Tensor{packed(ir.Float16, []int{2}, 0, 0x3c, 0, 0x40), ir.Ints(1)}, want: []*ir.Tensor{packed(ir.Float16, []int{1}, 0, 0x40), ir.Ints(1)}},
		{name: "too many", op: "TopK", in: []*ir.Tensor{f32([]int{3}, 1, 3, 2), ir.Ints(4)}, outs: 2, fails: "4"},
		{name: "negative", op: "TopK", in: []*ir.Tensor{f32([]int{3}, 1, 3, 2), ir.Ints(-1)}, outs: 2, fails: "-1"},
		{name: "unsorted", op: "Unique", in: []*ir.Tensor{f32([]int{5}, 2, 1, 1, 3, 2)}, attrs: []ir.Attr{ir.IntAttr("sorted", 0)}, want: []*ir.Tensor{f32([]int{3}, 2, 1, 3), ir.Ints(0, 1, 3), ir.Ints(0, 1, 1, 2, 0), ir.Ints(2, 2, 1)}},
		{name: "columns", op: "Unique", in: []*ir.Tensor{i64([]int{2, 3}, 1, 0, 1, 2, 2, 2)}, attrs: []ir.Attr{ir.IntAttr("axis", 1)}, want: []*ir.Tensor{i64([]int{2, 2}, 0, 1, 2, 2), ir.Ints(1, 0), ir.Ints(1, 0, 1), ir.Ints(1, 2)}},
		{name: "strings", op: "Unique", in: []*ir.Tensor{text([]int{3}, "b", "a", "b")}, want: []*ir.Tensor{text([]int{2}, "a", "b")}},
		{name: "last axis", op: "OneHot", in: []*ir.Tensor{ir.Ints(1, -1, 7), ir.ScalarInt(3), ir.Ints(0, 5)}, want: []*ir.Tensor{i64([]int{3, 3}, 0, 5, 0, 0, 0, 5, 0, 0, 0)}},
		{name: "first axis", op: "OneHot", in: []*ir.Tensor{f32([]int{2}, 1, 0), f32([]int{1}, 2), bools([]int{2}, false, true)}, attrs: []ir.Attr{ir.IntAttr("axis", 0)}, want: []*ir.Tensor{bools([]int{2, 2}, false, true, true, false)}},
		{name: "negative depth", op: "OneHot", in: []*ir.Tensor{ir.Ints(1), ir.ScalarInt(-3), ir.Ints(0, 5)}, fails: "-3"},
		{name: "minus zero", op: "NonZero", in: []*ir.Tensor{f32([]int{2, 2}, 1, float32(math.Copysign(0, -1)), 0, 2)}, want: []*ir.Tensor{i64([]int{2, 2}, 0, 1, 0, 1)}},
		{name: "scalar", op: "NonZero", in: []*ir.Tensor{ir.ScalarInt(3)}, want: []*ir.Tensor{i64([]int{0, 1})}},
		{name: "axis", op: "Compress", in: []*ir.Tensor{m23, bools([]int{2}, false, true)}, attrs: []ir.Attr{ir.IntAttr("axis", 1)}, want: []*ir.Tensor{f32([]int{2, 1}, 1, 4)}},
		{name: "flat", op: "Compress", in: []*ir.Tensor{m23, bools([]int{5}, true, false, false, false, true)}, want: []*ir.Tensor{f32([]int{2}, 0, 4)}},
		{name: "too long", op: "Compress", in: []*ir.Tensor{m23, bools([]int{3}, false, false, true)}, attrs: []ir.Attr{ir.IntAttr("axis", 0)}, fails: "selects 2"},
		{name: "time first", op: "ReverseSequence", in: []*ir.Tensor{iota32(3, 2), ir.Ints(3, 2)}, want: []*ir.Tensor{f32([]int{3, 2}, 4, 3, 2, 1, 0, 5)}},
		{name: "too long", op: "ReverseSequence", in: []*ir.Tensor{iota32(3, 2), ir.Ints(4, 2)}, fails: "length 4"},
		{name: "depth first", op: "DepthToSpace", in: []*ir.Tensor{iota32(1, 8, 1, 1)}, attrs: []ir.Attr{ir.IntAttr("blocksize", 2)}, want: []*ir.Tensor{f32([]int{1, 2, 2, 2}, 0, 2, 4, 6, 1, 3, 5, 7)}},
		{name: "column first", op: "DepthToSpace", in: []*ir.Tensor{iota32(1, 8, 1, 1)}, attrs: []ir.Attr{ir.IntAttr("blocksize", 2), str("mode", "CRD")}, want: []*ir.Tensor{iota32(1, 2, 2, 2)}},
		{name: "back", op: "SpaceToDepth", in: []*ir.Tensor{f32([]int{1, 2, 2, 2}, 0, 2, 4, 6, 1, 3, 5, 7)}, attrs: []ir.Attr{ir.IntAttr("blocksize", 2)}, want: []*ir.Tensor{iota32(1, 8, 1, 1)}},
		{name: "does not divide", op: "SpaceToDepth", in: []*ir.Tensor{iota32(1, 1, 3, 3)}, attrs: []ir.Attr{ir.IntAttr("blocksize", 2)}, fails: "divide"},
		{name: "both", op: "CenterCropPad", in: []*ir.Tensor{iota32(1, 4), ir.Ints(2, 3)}, want: []*ir.Tensor{f32([]int{2, 3}, 0, 1, 2, 0, 0, 0)}},
		{name: "corners", op: "NonMaxSuppression", in: []*ir.Tensor{boxes, scores, ir.ScalarInt(9), ir.Scalar(.5)}, want: []*ir.Tensor{i64([]int{2, 3}, 0, 0, 1, 0, 0, 2)}},
		{name: "no output", op: "NonMaxSuppression", in: []*ir.Tensor{boxes, scores}, want: []*ir.Tensor{i64([]int{0, 3})}},
		{name: "score", op: "NonMaxSuppression", in: []*ir.Tensor{boxes, scores, ir.ScalarInt(9), ir.Scalar(1), ir.Scalar(.7)}, want: []*ir.Tensor{i64([]int{1, 3}, 0, 0, 1)}},
		{name: "overlapping", op: "Col2Im", in: []*ir.Tensor{f32([]int{1, 2, 2}, 1, 2, 3, 4), ir.Ints(1, 3), ir.Ints(1, 2)}, want: []*ir.Tensor{f32([]int{1, 1, 1, 3}, 1, 5, 4)}},
		{name: "block too big", op: "Col2Im", in: []*ir.Tensor{f32([]int{1, 2, 2}, 1, 2, 3, 4), ir.Ints(1, 1), ir.Ints(1, 2)}, fails: "does not fit"},
		{name: "corners", op: "GridSample", in: []*ir.Tensor{iota32(1, 1, 2, 2), f32([]int{1, 1, 3, 2}, -1, -1, 0, 0, 1, nan)}, attrs: []ir.Attr{ir.IntAttr("align_corners", 1)}, want: []*ir.Tensor{f32([]int{1, 1, 1, 3}, 0, 1.5, 0)}},
		{name: "opset 16 nearest", opset: 16, op: "GridSample", in: []*ir.Tensor{iota32(1, 1, 2, 2), f32([]int{1, 1, 2, 2}, .5, -.5, 9, 9)}, attrs: []ir.Attr{str("mode", "nearest"), str("padding_mode", "border")}, want: []*ir.Tensor{f32([]int{1, 1, 1, 2}, 1, 3)}},
		{name: "opset 16 bicubic", opset: 16, op: "GridSample", in: []*ir.Tensor{iota32(1, 1, 1, 4), f32([]int{1, 1, 1, 2}, .25, 0)}, attrs: []ir.Attr{str("mode", "bicubic"), str("padding_mode", "reflection")}, want: []*ir.Tensor{f32([]int{1, 1, 1, 1}, 2)}},
		{name: "average", op: "RoiAlign", in: []*ir.Tensor{iota32(1, 1, 2, 2), f32([]int{1, 4}, .5, .5, 1.5, 1.5), ir.Ints(0)}, attrs: []ir.Attr{ir.IntAttr("sampling_ratio", 1)}, want: []*ir.Tensor{f32([]int{1, 1, 1, 1}, 1.5)}},
		{name: "opset 10", opset: 10, op: "RoiAlign", in: []*ir.Tensor{iota32(1, 1, 2, 2), f32([]int{1, 4}, 0, 0, 1, 1), ir.Ints(0)}, attrs: []ir.Attr{ir.IntAttr("sampling_ratio", 1)}, want: []*ir.Tensor{f32([]int{1, 1, 1, 1}, 1.5)}},
		{name: "bad batch", op: "RoiAlign", in: []*ir.Tensor{iota32(1, 1, 2, 2), f32([]int{1, 4}, 0, 0, 1, 1), ir.Ints(1)}, fails: "index 1"},
	})
}

func TestResize(t *testing.T) {
	t.Parallel()
	row, wide := iota32(1, 1, 1, 2), []float32{1, 1, 1, 2}
	scales := func(v ...float32) *ir.Tensor { return f32([]int{len(v)}, v...) }
	checkCases(t, []nodeCase{
		{name: "opset 1", opset: 1, op: "Upsample", in: []*ir.Tensor{row}, attrs: []ir.Attr{ir.FloatAttr("height_scale", 1), ir.FloatAttr("width_scale", 2)}, want: []*ir.Tensor{f32([]int{1, 1, 1, 4}, 0, 0, 1, 1)}},
		{name: "opset 7", opset: 7, op: "Upsample", in: []*ir.Tensor{row}, attrs: []ir.Attr{ir.FloatsAttr("scales", wide...)}, want: []*ir.Tensor{f32([]int{1, 1, 1, 4}, 0, 0, 1, 1)}},
		{name: "opset 9 linear", opset: 9, op: "Upsample", in: []*ir.Tensor{row, scales(wide...)}, attrs: []ir.Attr{str("mode", "linear")}, want: []*ir.Tensor{f32([]int{1, 1, 1, 4}, 0, .5, 1, 1)}},
		{name: "opset 10 shrinks", opset: 10, op: "Resize", fed: 1, fixed: true, in: []*ir.Tensor{f32([]int{1, 1, 2, 4}, 1, 2, 3, 4, 5, 6, 7, 8), scales(1, 1, .6, .6)}, want: []*ir.Tensor{f32([]int{1, 1, 1, 2}, 1, 3)}},
		{name: "opset 10 linear", opset: 10, op: "Resize", in: []*ir.Tensor{row, scales(wide...)}, attrs: []ir.Attr{str("mode", "linear")}, want: []*ir.Tensor{f32([]int{1, 1, 1, 4}, 0, .5, 1, 1)}},
		{name: "opset 11 sizes", opset: 11, op: "Resize", in: []*ir.Tensor{row, f32([]int{0}), f32([]int{0}), ir.Ints(1, 1, 2, 2)}, want: []*ir.Tensor{f32([]int{1, 1, 2, 2}, 0, 1, 0, 1)}},
		{name: "linear", op: "Resize", in: []*ir.Tensor{row, nil, scales(wide...)}, attrs: []ir.Attr{str("mode", "linear")}, want: []*ir.Tensor{f32([]int{1, 1, 1, 4}, 0, .25, .75, 1)}},
		{name: "axes", op: "Resize", in: []*ir.Tensor{row, nil, nil, ir.Ints(4)}, attrs: []ir.Attr{ir.IntsAttr("axes", -1), str("mode", "linear")}, want: []*ir.Tensor{f32([]int{1, 1, 1, 4}, 0, .25, .75, 1)}},
		{name: "antialias", op: "Resize", in: []*ir.Tensor{iota32(4), nil, nil, ir.Ints(2)}, attrs: []ir.Attr{ir.IntAttr("antialias", 1), str("mode", "linear")}, want: []*ir.Tensor{f32([]int{2}, .625, 2.375)}},
		{name: "bytes", op: "Resize", in: []*ir.Tensor{packed(ir.Uint8, []int{2}, 0, 10), nil, scales(2)}, attrs: []ir.Attr{str("mode", "linear")}, want: []*ir.Tensor{packed(ir.Uint8, []int{4}, 0, 2, 7, 10)}},
		{name: "double", op: "Resize", in: []*ir.Tensor{ir.FromSlice(ir.Float64, []int{2}, []float64{0, 1}), nil, scales(2)}, attrs: []ir.Attr{str("mode", "linear")}, want: []*ir.Tensor{ir.FromSlice(ir.Float64, []int{4}, []float64{0, .25, .75, 1})}},
		{name: "strings", op: "Resize", in: []*ir.Tensor{text([]int{2}, "a", "b"), nil, scales(2)}, want: []*ir.Tensor{text([]int{4}, "a", "a", "b", "b")}},
		{name: "crop", op: "Resize", in: []*ir.Tensor{iota32(3), f32([]int{2}, -.5, 1), nil, ir.Ints(4)}, attrs: []ir.Attr{str("mode", "linear"), str("coordinate_transformation_mode", "tf_crop_and_resize"), ir.FloatAttr("extrapolation_value", 9)}, want: []*ir.Tensor{f32([]int{4}, 9, 0, 1, 2)}},
		{name: "neither", op: "Resize", in: []*ir.Tensor{row}, fails: "either scales or sizes"},
		{name: "negative scale", op: "Resize", in: []*ir.Tensor{iota32(2), nil, scales(-1)}, fails: "scale -1"},
		{name: "nothing to enlarge", op: "Resize", in: []*ir.Tensor{iota32(0), nil, nil, ir.Ints(2)}, fails: "size 0"},
		{name: "unknown mode", op: "Resize", in: []*ir.Tensor{iota32(2), nil, scales(2)}, attrs: []ir.Attr{str("mode", "area")}, fails: "area"},
	})
}
