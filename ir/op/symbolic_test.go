package op_test

import (
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// TestSymbolicShapes follows the shape arithmetic of exported attention: sizes taken from Shape, joined, and given to
// Reshape, Expand, Slice and Range.
func TestSymbolicShapes(t *testing.T) {
	t.Parallel()
	m := ir.NewModel(17)
	g := m.Graph
	x := g.AddInput("x", ir.TensorType(ir.Float32, ir.NamedDim("batch"), ir.NamedDim("seq"), ir.FixedDim(12)))
	k := func(name string, v ...int64) *ir.Value { return g.Const(name, ir.Ints(v...)) }
	scalar := func(name string, v int64) *ir.Value { return g.Const(name, ir.ScalarInt(v)) }
	shape := insert(g, "Shape", []*ir.Value{x}, "shape")
	batch := insert(g, "Gather", []*ir.Value{shape, scalar("i0", 0)}, "batch")
	batch1 := insert(g, "Unsqueeze", []*ir.Value{batch, k("axes0", 0)}, "batch1")
	seq1 := insert(g, "Slice", []*ir.Value{shape, k("from", 1), k("to", 2), k("axes1", 0)}, "seq1")
	seq := insert(g, "Squeeze", []*ir.Value{seq1, k("axes2", 0)}, "seq")
	cat := func(name string, in ...*ir.Value) *ir.Value {
		return insert(g, "Concat", in, name, ir.IntAttr("axis", 0))
	}
	one, zero := k("one", 1), k("zero", 0)
	heads := insert(g, "Reshape", []*ir.Value{x, cat("s1", batch1, k("rest", -1), k("three", 3), k("four", 4))}, "heads")
	turned := insert(g, "Transpose", []*ir.Value{heads}, "turned", ir.IntsAttr("perm", 0, 2, 1, 3))
	merged := insert(g, "Reshape", []*ir.Value{turned, k("merge", 0, 0, -1)}, "merged")
	flat := insert(g, "Reshape", []*ir.Value{x, k("flat", -1, 12)}, "flat")
	back := insert(g, "Reshape", []*ir.Value{flat, cat("s2", batch1, seq1, k("rest2", -1))}, "back")
	kept := insert(g, "Reshape", []*ir.Value{x, k("kept", 0, -1, 2, 6)}, "kept")
	positions := insert(g, "Range", []*ir.Value{scalar("start", 0), seq, scalar("delta", 1)}, "positions")
	row := insert(g, "Unsqueeze", []*ir.Value{positions, k("axes3", 0)}, "row")
	wide := insert(g, "Expand", []*ir.Value{row, cat("s3", batch1, seq1)}, "wide")
	mask := insert(g, "ConstantOfShape", []*ir.Value{cat("s4", batch1, one, seq1, seq1)}, "mask")
	cut := insert(g, "Slice", []*ir.Value{mask, zero, seq1, k("axes4", 3)}, "cut")
	table := insert(g, "Slice", []*ir.Value{g.Const("table", i64([]int{1, 64}, make([]int64, 64)...)), zero, seq1, k("axes6", 1)}, "positions_of")
	all := insert(g, "Slice", []*ir.Value{mask, zero, k("max", 1<<62), k("axes5", 2)}, "all")
	matrix := insert(g, "Flatten", []*ir.Value{x}, "matrix", ir.IntAttr("axis", 1))
	count := insert(g, "Size", []*ir.Value{batch1}, "count")
	repeated := insert(g, "Tile", []*ir.Value{x, cat("s5", one, one, k("two", 2))}, "repeated")
	joined := insert(g, "Concat", []*ir.Value{x, x}, "joined", ir.IntAttr("axis", 2))
	rows := insert(g, "Gather", []*ir.Value{x, positions}, "rows", ir.IntAttr("axis", 1))
	padded := insert(g, "Pad", []*ir.Value{x, k("pads", 0, 0, 1, 0, 0, 1)}, "padded")
	ranked := insert(g, "Reshape", []*ir.Value{x, cat("s6", insert(g, "Mul2", []*ir.Value{batch1}, "unknown"), k("rest3", -1))}, "ranked")
	want := map[*ir.Value]string{
		heads: "float[batch,seq,3,4]", turned: "float[batch,3,seq,4]", merged: "float[batch,3,?]", flat: "float[?,12]",
		back: "float[batch,seq,?]", kept: "float[batch,seq,2,6]", positions: "int64[seq]", wide: "int64[batch,seq]",
		mask: "float[batch,1,seq,seq]", cut: "float[batch,1,seq,seq]", all: "float[batch,1,seq,seq]", matrix: "float[batch,?]",
		count: "int64", repeated: "float[batch,seq,24]", joined: "float[batch,seq,24]", rows: "float[batch,seq,12]",
		table: "int64[1,seq]", padded: "float[batch,seq,14]", ranked: "float[]",
	}
	for v := range want {
		g.AddOutput(v.Name, v)
	}
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	for v, w := range want {
		if got := v.Type.String(); got != w {
			t.Errorf("%s is inferred %s, want %s", v.Name, got, w)
		}
	}
}
