package op_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
)

// node builds a model of one node: inputs given as tensors are fed, those in fixed are constants; a nil input is absent.
type nodeCase struct {
	name  string
	opset int
	op    string
	in    []*ir.Tensor
	fed   int  // the first so many inputs are fed, the others are constants
	fixed bool // the inputs must be constants
	attrs []ir.Attr
	outs  int
	want  []*ir.Tensor
	fails string // part of the error
}

func (tc nodeCase) model() (*ir.Model, ir.Tensors) {
	opset := tc.opset
	if opset == 0 {
		opset = 25
	}
	m := ir.NewModel(opset)
	feed := ir.Tensors{}
	var ins []*ir.Value
	for i, t := range tc.in {
		name := fmt.Sprintf("in%d", i)
		switch {
		case t == nil:
			ins = append(ins, nil)
		case i < tc.fed:
			feed[name] = t
			ins = append(ins, m.Graph.AddInput(name, t.Type()))
		default:
			ins = append(ins, m.Graph.Const(name, t))
		}
	}
	outs := []string{}
	for i := range max(tc.outs, 1, len(tc.want)) {
		outs = append(outs, fmt.Sprintf("out%d", i))
	}
	n := m.Graph.Insert(nil, "node", ir.Op(tc.op), ins, outs, tc.attrs...)
	for i, o := range outs {
		m.Graph.AddOutput(o, n.Out(i))
	}
	return m, feed
}

func runModel(m *ir.Model, feed ir.Tensors) (ir.Tensors, error) {
	p, err := runtime.Compile(m)
	if err != nil {
		return nil, err
	}
	return p.Run(context.Background(), feed)
}

func equal(a, b *ir.Tensor) bool {
	if a.Elem() != b.Elem() || fmt.Sprint(a.Shape()) != fmt.Sprint(b.Shape()) {
		return false
	}
	if a.Elem() == ir.String {
		return fmt.Sprintf("%s", a.Strings()) == fmt.Sprintf("%s", b.Strings())
	}
	return bytes.Equal(a.Bytes(), b.Bytes())
}

func show(t *ir.Tensor) string {
	if t == nil {
		return "nothing"
	}
	if t.Elem() == ir.String {
		return fmt.Sprintf("%v %q", t.Type(), t.Strings())
	}
	if v, ok := t.Int64s(); ok {
		return fmt.Sprintf("%v %v", t.Type(), v)
	}
	if v, ok := t.Float32s(); ok {
		return fmt.Sprintf("%v %v", t.Type(), v)
	}
	return fmt.Sprintf("%v %x", t.Type(), t.Bytes())
}

// checkCases runs every case with its inputs fed, and again with all of them constant where inference may fold them; a case
// of an older opset also in the form that ToOpset gives it.
func checkCases(t *testing.T, cases []nodeCase) {
	for _, tc := range cases {
		t.Run(tc.op+"/"+tc.name, func(t *testing.T) {
			t.Parallel()
			for _, fed := range []int{tc.fed, len(tc.in), 0} {
				if fed < tc.fed || tc.fixed && fed > tc.fed {
					continue
				}
				c := tc
				c.fed = fed
				m, feed := c.model()
				got, err := runModel(m, feed)
				if tc.fails != "" {
					if err == nil || !strings.Contains(err.Error(), tc.fails) {
						t.Fatalf("error %v, want one with %q", err, tc.fails)
					}
					continue
				}
				if err != nil {
					t.Fatalf("%d inputs fed: %v", fed, err)
				}
				if err := op.Infer(m); err != nil {
					t.Fatal(err)
				}
				if tc.opset > 0 {
					if err := op.ToOpset(m, 25); err != nil {
						t.Fatalf("upgrade from opset %d: %v", tc.opset, err)
					}
					if err := ir.Check(m); err != nil {
						t.Fatalf("upgraded: %v", err)
					}
					again, err := runModel(m, feed)
					if err != nil {
						t.Fatalf("upgraded: %v", err)
					}
					for name, w := range got {
						if !equal(again[name], w) {
							t.Errorf("%s is %s, upgraded %s", name, show(w), show(again[name]))
						}
					}
				}
				for i, w := range tc.want {
					name := fmt.Sprintf("out%d", i)
					if !equal(got[name], w) {
						t.Errorf("%d inputs fed: %s is %s, want %s", fed, name, show(got[name]), show(w))
					}
					typ := m.Graph.Outputs()[i].Value.Type
					if _, err := ir.Merge(typ, w.Type()); err != nil || typ.Elem != w.Elem() {
						t.Errorf("%d inputs fed: %s is inferred %v, is %v", fed, name, typ, w.Type())
					}
				}
			}
		})
	}
}

func f32(shape []int, v ...float32) *ir.Tensor { return ir.Floats(v, shape...) }

func i64(shape []int, v ...int64) *ir.Tensor { return ir.FromSlice(ir.Int64, shape, v) }

func packed(elem ir.DType, shape []int, b ...byte) *ir.Tensor {
	t, err := ir.TensorOf(elem, shape, b)
	if err != nil {
		panic(err)
	}
	return t
}

func text(shape []int, v ...string) *ir.Tensor {
	var b [][]byte
	for _, s := range v {
		b = append(b, []byte(s))
	}
	t, err := ir.StringTensor(shape, b)
	if err != nil {
		panic(err)
	}
	return t
}

func iota32(shape ...int) *ir.Tensor {
	n, _ := ir.Numel(shape)
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(i)
	}
	return ir.Floats(v, shape...)
}

func TestMovement(t *testing.T) {
	t.Parallel()
	m23 := iota32(2, 3)
	checkCases(t, []nodeCase{
		{name: "zero and rest", op: "Reshape", in: []*ir.Tensor{iota32(2, 3, 4), ir.Ints(0, -1)}, want: []*ir.Tensor{iota32(2, 12)}},
		{name: "allowzero", op: "Reshape", in: []*ir.Tensor{iota32(0, 3), ir.Ints(3, 0)}, attrs: []ir.Attr{ir.IntAttr("allowzero", 1)}, want: []*ir.Tensor{iota32(3, 0)}},
		{name: "opset 1", opset: 1, op: "Reshape", in: []*ir.Tensor{iota32(2, 3)}, attrs: []ir.Attr{ir.IntsAttr("shape", 3, -1)}, want: []*ir.Tensor{iota32(3, 2)}},
		{name: "wrong count", op: "Reshape", in: []*ir.Tensor{m23, ir.Ints(4, 2)}, fails: "cannot reshape"},
		{name: "negative", op: "Reshape", in: []*ir.Tensor{m23, ir.Ints(-2, 2)}, fails: "-2"},
		{name: "two rests", op: "Reshape", in: []*ir.Tensor{m23, ir.Ints(-1, -1)}, fails: "more than one -1"},
		{name: "overflow", op: "Reshape", in: []*ir.Tensor{m23, ir.Ints(1<<32, 1<<32, 1<<32)}, fails: "more than"},
		{name: "reversed", op: "Transpose", in: []*ir.Tensor{m23}, want: []*ir.Tensor{f32([]int{3, 2}, 0, 3, 1, 4, 2, 5)}},
		{name: "4 bit", op: "Transpose", in: []*ir.Tensor{packed(ir.Int4, []int{2, 3}, 0x21, 0x43, 0x65)}, want: []*ir.Tensor{packed(ir.Int4, []int{3, 2}, 0x41, 0x52, 0x63)}},
		{name: "strings", op: "Transpose", in: []*ir.Tensor{text([]int{2, 2}, "a", "b", "c", "d")}, want: []*ir.Tensor{text([]int{2, 2}, "a", "c", "b", "d")}},
		{name: "bad perm", op: "Transpose", in: []*ir.Tensor{m23}, attrs: []ir.Attr{ir.IntsAttr("perm", 0, 0)}, fails: "twice"},
		{name: "axis 1", op: "Concat", in: []*ir.Tensor{m23, f32([]int{2, 1}, 7, 8)}, attrs: []ir.Attr{ir.IntAttr("axis", -1)}, want: []*ir.Tensor{f32([]int{2, 4}, 0, 1, 2, 7, 3, 4, 5, 8)}},
		{name: "opset 1 axis", opset: 1, op: "Concat", in: []*ir.Tensor{m23, f32([]int{2, 1}, 7, 8)}, want: []*ir.Tensor{f32([]int{2, 4}, 0, 1, 2, 7, 3, 4, 5, 8)}},
		{name: "2 bit", op: "Concat", in: []*ir.Tensor{packed(ir.Uint2, []int{3}, 0b100100), packed(ir.Uint2, []int{2}, 0b0111)}, attrs: []ir.Attr{ir.IntAttr("axis", 0)}, want: []*ir.Tensor{packed(ir.Uint2, []int{5}, 0b11100100, 0b01)}},
		{name: "mismatch", op: "Concat", in: []*ir.Tensor{m23, m23, f32([]int{1, 1}, 0)}, attrs: []ir.Attr{ir.IntAttr("axis", 0)}, fails: "dimension 1"},
		{name: "sizes", op: "Split", in: []*ir.Tensor{m23, ir.Ints(1, 2)}, attrs: []ir.Attr{ir.IntAttr("axis", 1)}, want: []*ir.Tensor{f32([]int{2, 1}, 0, 3), f32([]int{2, 2}, 1, 2, 4, 5)}},
		{name: "uneven", op: "Split", in: []*ir.Tensor{iota32(3)}, attrs: []ir.Attr{ir.IntAttr("num_outputs", 2)}, want: []*ir.Tensor{iota32(2), f32([]int{1}, 2)}},
		{name: "opset 2", opset: 2, op: "Split", in: []*ir.Tensor{iota32(4)}, outs: 2, want: []*ir.Tensor{iota32(2), f32([]int{2}, 2, 3)}},
		{name: "opset 11", opset: 11, op: "Split", in: []*ir.Tensor{iota32(3)}, attrs: []ir.Attr{ir.IntsAttr("split", 2, 1)}, want: []*ir.Tensor{iota32(2), f32([]int{1}, 2)}},
		{name: "bad sum", op: "Split", in: []*ir.Tensor{iota32(3), ir.Ints(2, 2)}, outs: 2, fails: "adds up to 4"},
		{name: "steps", op: "Slice", in: []*ir.Tensor{m23, ir.Ints(0, -1), ir.Ints(9, -9), ir.Ints(0, 1), ir.Ints(1, -2)}, want: []*ir.Tensor{f32([]int{2, 2}, 2, 0, 5, 3)}},
		{name: "empty", op: "Slice", in: []*ir.Tensor{m23, ir.Ints(5), ir.Ints(9)}, want: []*ir.Tensor{iota32(0, 3)}},
		{name: "int min", op: "Slice", in: []*ir.Tensor{iota32(2), ir.Ints(-1), ir.Ints(-1 << 63), ir.Ints(0), ir.Ints(-1)}, want: []*ir.Tensor{f32([]int{2}, 1, 0)}},
		{name: "opset 1", opset: 1, op: "Slice", in: []*ir.Tensor{m23}, attrs: []ir.Attr{ir.IntsAttr("starts", 1), ir.IntsAttr("ends", 3), ir.IntsAttr("axes", 1)}, want: []*ir.Tensor{f32([]int{2, 2}, 1, 2, 4, 5)}},
		{name: "step 0", op: "Slice", in: []*ir.Tensor{m23, ir.Ints(0), ir.Ints(1), ir.Ints(0), ir.Ints(0)}, fails: "is 0"},
		{name: "rows", op: "Gather", in: []*ir.Tensor{m23, i64([]int{1, 2}, 1, -2)}, want: []*ir.Tensor{f32([]int{1, 2, 3}, 3, 4, 5, 0, 1, 2)}},
		{name: "columns", op: "Gather", in: []*ir.Tensor{m23, i64(nil, 2)}, attrs: []ir.Attr{ir.IntAttr("axis", 1)}, want: []*ir.Tensor{f32([]int{2}, 2, 5)}},
		{name: "out of range", op: "Gather", in: []*ir.Tensor{m23, ir.Ints(2)}, fails: "index 2"},
		{name: "elements", op: "GatherElements", in: []*ir.Tensor{m23, i64([]int{1, 3}, 1, 0, -1)}, want: []*ir.Tensor{f32([]int{1, 3}, 3, 1, 5)}},
		{name: "tuples", op: "GatherND", in: []*ir.Tensor{m23, i64([]int{2, 2}, 0, 1, 1, 2)}, want: []*ir.Tensor{f32([]int{2}, 1, 5)}},
		{name: "batches", op: "GatherND", in: []*ir.Tensor{iota32(2, 2, 2), i64([]int{2, 1}, 1, 0)}, attrs: []ir.Attr{ir.IntAttr("batch_dims", 1)}, want: []*ir.Tensor{f32([]int{2, 2}, 2, 3, 4, 5)}},
		{name: "axes", op: "Squeeze", in: []*ir.Tensor{iota32(1, 3, 1), ir.Ints(-1)}, want: []*ir.Tensor{iota32(1, 3)}},
		{name: "all", op: "Squeeze", in: []*ir.Tensor{iota32(1, 3, 1)}, want: []*ir.Tensor{iota32(3)}},
		{name: "opset 1", opset: 1, op: "Squeeze", in: []*ir.Tensor{iota32(1, 3, 1)}, attrs: []ir.Attr{ir.IntsAttr("axes", 0)}, want: []*ir.Tensor{iota32(3, 1)}},
		{name: "not 1", op: "Squeeze", in: []*ir.Tensor{m23, ir.Ints(0)}, fails: "not 1"},
		{name: "axes", op: "Unsqueeze", in: []*ir.Tensor{iota32(3), ir.Ints(0, -1)}, want: []*ir.Tensor{iota32(1, 3, 1)}},
		{name: "opset 11", opset: 11, op: "Unsqueeze", in: []*ir.Tensor{iota32(3)}, attrs: []ir.Attr{ir.IntsAttr("axes", 1)}, want: []*ir.Tensor{iota32(3, 1)}},
		{name: "both ways", op: "Expand", in: []*ir.Tensor{iota32(3, 1), ir.Ints(2, 1, 2)}, want: []*ir.Tensor{f32([]int{2, 3, 2}, 0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2)}},
		{name: "impossible", op: "Expand", in: []*ir.Tensor{m23, ir.Ints(2, 2)}, fails: "broadcast"},
		{name: "negative", op: "Expand", in: []*ir.Tensor{m23, ir.Ints(-1, 3)}, fails: "-1"},
		{name: "default", op: "Flatten", in: []*ir.Tensor{iota32(2, 3, 4)}, want: []*ir.Tensor{iota32(2, 12)}},
		{name: "rank", op: "Flatten", in: []*ir.Tensor{iota32(2, 3)}, attrs: []ir.Attr{ir.IntAttr("axis", 2)}, want: []*ir.Tensor{iota32(6, 1)}},
		{name: "int64", op: "ConstantOfShape", in: []*ir.Tensor{ir.Ints(2, 2)}, attrs: []ir.Attr{ir.TensorAttr("value", ir.Ints(7))}, want: []*ir.Tensor{i64([]int{2, 2}, 7, 7, 7, 7)}},
		{name: "negative", op: "ConstantOfShape", in: []*ir.Tensor{ir.Ints(-2)}, fails: "-2"},
		{name: "huge", op: "ConstantOfShape", in: []*ir.Tensor{ir.Ints(1<<39, 1<<39)}, fails: "elements"},
		{name: "down", op: "Range", in: []*ir.Tensor{ir.ScalarInt(10), ir.ScalarInt(4), ir.ScalarInt(-2)}, want: []*ir.Tensor{ir.Ints(10, 8, 6)}},
		{name: "zero", op: "Range", in: []*ir.Tensor{ir.ScalarInt(10), ir.ScalarInt(4), ir.ScalarInt(0)}, fails: "delta is 0"},
		{name: "float", op: "Range", in: []*ir.Tensor{ir.Scalar(1), ir.Scalar(2), ir.Scalar(0.5)}, want: []*ir.Tensor{f32([]int{2}, 1, 1.5)}},
		{name: "constant", op: "Pad", in: []*ir.Tensor{m23, ir.Ints(0, -1, 1, 1), ir.Scalar(9)}, want: []*ir.Tensor{f32([]int{3, 3}, 1, 2, 9, 4, 5, 9, 9, 9, 9)}},
		{name: "reflect", op: "Pad", in: []*ir.Tensor{iota32(3), ir.Ints(2, 1)}, attrs: []ir.Attr{ir.StringAttr("mode", "reflect")}, want: []*ir.Tensor{f32([]int{6}, 2, 1, 0, 1, 2, 1)}},
		{name: "edge axes", op: "Pad", in: []*ir.Tensor{m23, ir.Ints(1, 0), nil, ir.Ints(-1)}, attrs: []ir.Attr{ir.StringAttr("mode", "edge")}, want: []*ir.Tensor{f32([]int{2, 4}, 0, 0, 1, 2, 3, 3, 4, 5)}},
		{name: "wrap", op: "Pad", in: []*ir.Tensor{iota32(3), ir.Ints(4, 1)}, attrs: []ir.Attr{ir.StringAttr("mode", "wrap")}, want: []*ir.Tensor{f32([]int{8}, 2, 0, 1, 2, 0, 1, 2, 0)}},
		{name: "opset 1", opset: 1, op: "Pad", in: []*ir.Tensor{iota32(2)}, attrs: []ir.Attr{ir.IntsAttr("paddings", 1, 0), ir.FloatAttr("value", 5)}, want: []*ir.Tensor{f32([]int{3}, 5, 0, 1)}},
		{name: "opset 2", opset: 2, op: "Pad", in: []*ir.Tensor{iota32(2)}, attrs: []ir.Attr{ir.IntsAttr("pads", 1, 0)}, want: []*ir.Tensor{f32([]int{3}, 0, 0, 1)}},
		{name: "cut too much", op: "Pad", in: []*ir.Tensor{iota32(2), ir.Ints(-2, -1)}, fails: "-1"},
		{name: "repeats", op: "Tile", in: []*ir.Tensor{iota32(1, 2), ir.Ints(2, 2)}, want: []*ir.Tensor{f32([]int{2, 4}, 0, 1, 0, 1, 0, 1, 0, 1)}},
		{name: "opset 1", opset: 1, op: "Tile", fed: 1, fixed: true, in: []*ir.Tensor{iota32(1, 2), ir.Scalar(2), ir.Scalar(0)}, want: []*ir.Tensor{f32([]int{2, 2}, 0, 1, 0, 1)}},
		{name: "count", op: "Size", in: []*ir.Tensor{m23}, want: []*ir.Tensor{ir.ScalarInt(6)}},
		{name: "lower", op: "Trilu", in: []*ir.Tensor{iota32(2, 2), ir.ScalarInt(-1)}, attrs: []ir.Attr{ir.IntAttr("upper", 0)}, want: []*ir.Tensor{f32([]int{2, 2}, 0, 0, 2, 0)}},
		{name: "upper far", op: "Trilu", in: []*ir.Tensor{iota32(2, 2), ir.ScalarInt(1 << 62)}, want: []*ir.Tensor{f32([]int{2, 2}, 0, 0, 0, 0)}},
		{name: "diagonal", op: "EyeLike", in: []*ir.Tensor{iota32(2, 3)}, attrs: []ir.Attr{ir.IntAttr("k", 1), ir.IntAttr("dtype", int64(ir.Uint8))}, want: []*ir.Tensor{packed(ir.Uint8, []int{2, 3}, 0, 1, 0, 0, 0, 1)}},
	})
}
