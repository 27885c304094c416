package op_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
)

func insert(g *ir.Graph, opType string, in []*ir.Value, out string, attrs ...ir.Attr) *ir.Value {
	return g.Insert(nil, opType, ir.Op(opType), in, []string{out}, attrs...).Out(0)
}

// loopModel concatenates the carried value with itself once an iteration and stacks an outer value.
func loopModel(trips int64, cond *bool) *ir.Model {
	m := ir.NewModel(21)
	g := m.Graph
	x := g.AddInput("x", ir.TensorType(ir.Float32, ir.NamedDim("n")))
	outer := g.Const("outer", f32([]int{2}, 5, 6))
	body := ir.NewGraph(m, "body")
	i := body.AddInput("i", ir.FixedType(ir.Int64))
	c := body.AddInput("c", ir.FixedType(ir.Bool))
	v := body.AddInput("v", ir.Type{})
	_ = i
	w := insert(body, "Concat", []*ir.Value{v, v}, "w", ir.IntAttr("axis", 0))
	s := insert(body, "Identity", []*ir.Value{outer}, "s")
	body.AddOutput("c_out", insert(body, "Identity", []*ir.Value{c}, "c_out"))
	body.AddOutput("w", w)
	body.AddOutput("s", s)
	in := []*ir.Value{nil, nil, x}
	if trips >= 0 {
		in[0] = g.Const("trips", ir.ScalarInt(trips))
	}
	if cond != nil {
		in[1] = g.Const("cond", ir.FromSlice(ir.Bool, []int{}, []bool{*cond}))
	}
	n := g.Insert(nil, "loop", ir.Op("Loop"), in, []string{"y", "z"}, ir.GraphAttr("body", body))
	g.AddOutput("y", n.Out(0))
	g.AddOutput("z", n.Out(1))
	return m
}

func TestLoop(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	for _, tc := range []struct {
		name  string
		trips int64
		cond  *bool
		y, z  *ir.Tensor
	}{
		{"two", 2, &yes, f32([]int{4}, 1, 1, 1, 1), f32([]int{2, 2}, 5, 6, 5, 6)},
		{"without condition", 1, nil, f32([]int{2}, 1, 1), f32([]int{1, 2}, 5, 6)},
		{"none", 0, &yes, f32([]int{1}, 1), iota32(0, 2)},
		{"false", 9, &no, f32([]int{1}, 1), iota32(0, 2)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := loopModel(tc.trips, tc.cond)
			got, err := runModel(m, ir.Tensors{"x": f32([]int{1}, 1)})
			if err != nil {
				t.Fatal(err)
			}
			if !equal(got["y"], tc.y) || !equal(got["z"], tc.z) {
				t.Errorf("y is %s, z is %s, want %s and %s", show(got["y"]), show(got["z"]), show(tc.y), show(tc.z))
			}
			if err := op.Infer(m); err != nil {
				t.Fatal(err)
			}
			if y, z := m.Find("y").Type.String(), m.Find("z").Type.String(); y != "float[?]" || z != "float[?,2]" {
				t.Errorf("inferred %s and %s, want float[?] and float[?,2]", y, z)
			}
		})
	}
}

func TestLoopStops(t *testing.T) {
	t.Parallel()
	m := ir.NewModel(21)
	body := ir.NewGraph(m, "body")
	body.AddInput("i", ir.FixedType(ir.Int64))
	c := body.AddInput("c", ir.FixedType(ir.Bool))
	v := body.AddInput("v", ir.Type{})
	body.AddOutput("c_out", insert(body, "Identity", []*ir.Value{c}, "c_out"))
	body.AddOutput("w", insert(body, "Identity", []*ir.Value{v}, "w"))
	x := m.Graph.AddInput("x", ir.FixedType(ir.Float32, 1000))
	n := m.Graph.Insert(nil, "loop", ir.Op("Loop"), []*ir.Value{nil, nil, x}, []string{"y"}, ir.GraphAttr("body", body))
	m.Graph.AddOutput("y", n.Out(0))
	p, err := runtime.CompileWith(t.Context(), m, runtime.Options{MaxMemory: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.Run(ctx, ir.Tensors{"x": iota32(1000)}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want that of the context: endless loops stop with it, and memory given back is not counted", err)
	}
}

func TestIf(t *testing.T) {
	t.Parallel()
	m := ir.NewModel(13)
	cond := m.Graph.AddInput("cond", ir.FixedType(ir.Bool))
	x := m.Graph.AddInput("x", ir.TensorType(ir.Float32, ir.NamedDim("n"), ir.FixedDim(2)))
	branch := func(name, opType string, in ...*ir.Value) ir.Attr {
		g := ir.NewGraph(m, name)
		out := insert(g, opType, in, name+"_out")
		g.AddOutput(name+"_out", out)
		return ir.GraphAttr(name, g)
	}
	n := m.Graph.Insert(nil, "if", ir.Op("If"), []*ir.Value{cond}, []string{"y"},
		branch("then_branch", "Identity", x), branch("else_branch", "Transpose", x))
	m.Graph.AddOutput("y", n.Out(0))
	for _, yes := range []bool{true, false} {
		want := iota32(2, 2)
		if !yes {
			want = f32([]int{2, 2}, 0, 2, 1, 3)
		}
		got, err := runModel(m, ir.Tensors{"x": iota32(2, 2), "cond": ir.FromSlice(ir.Bool, []int{}, []bool{yes})})
		if err != nil {
			t.Fatal(err)
		}
		if !equal(got["y"], want) {
			t.Errorf("%v: %s, want %s", yes, show(got["y"]), show(want))
		}
	}
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	if y := m.Find("y").Type.String(); y != "float[?,?]" {
		t.Errorf("inferred %s, want float[?,?]", y)
	}
}

// scanModel sums along the scan and stacks the sums.
func scanModel(opset int, attrs ...ir.Attr) *ir.Model {
	m := ir.NewModel(opset)
	g := m.Graph
	var in []*ir.Value
	stateDims, scanDims := []ir.Dim{ir.FixedDim(2)}, []ir.Dim{ir.FixedDim(3), ir.FixedDim(2)}
	if opset < 9 {
		in = append(in, nil)
		stateDims, scanDims = append([]ir.Dim{ir.NamedDim("b")}, stateDims...), append([]ir.Dim{ir.NamedDim("b")}, scanDims...)
	}
	in = append(in, g.AddInput("s", ir.TensorType(ir.Float32, stateDims...)), g.AddInput("x", ir.TensorType(ir.Float32, scanDims...)))
	body := ir.NewGraph(m, "body")
	s := body.AddInput("s_in", ir.Type{})
	x := body.AddInput("x_in", ir.Type{})
	joined := insert(body, "Concat", []*ir.Value{s, x}, "joined", ir.IntAttr("axis", 0))
	from, to := body.Const("from", ir.Ints(1)), body.Const("to", ir.Ints(3))
	next := joined
	if opset >= 10 {
		next = insert(body, "Slice", []*ir.Value{joined, from, to}, "next")
	} else {
		next = insert(body, "Slice", []*ir.Value{joined}, "next", ir.IntsAttr("starts", 1), ir.IntsAttr("ends", 3))
	}
	body.AddOutput("next", next)
	body.AddOutput("joined", joined)
	attrs = append(attrs, ir.IntAttr("num_scan_inputs", 1), ir.GraphAttr("body", body))
	n := g.Insert(nil, "scan", ir.Op("Scan"), in, []string{"y", "z"}, attrs...)
	g.AddOutput("y", n.Out(0))
	g.AddOutput("z", n.Out(1))
	return m
}

func TestScan(t *testing.T) {
	t.Parallel()
	// the state drops its first element and takes the slice's first
	s, x := f32([]int{2}, 10, 11), iota32(3, 2)
	for _, tc := range []struct {
		name  string
		opset int
		attrs []ir.Attr
		s, x  *ir.Tensor
		y, z  *ir.Tensor
	}{
		{"forward", 21, nil, s, x, f32([]int{2}, 2, 4), f32([]int{3, 4}, 10, 11, 0, 1, 11, 0, 2, 3, 0, 2, 4, 5)},
		{"input reversed", 21, []ir.Attr{ir.IntsAttr("scan_input_directions", 1)}, s, x, f32([]int{2}, 2, 0), f32([]int{3, 4}, 10, 11, 4, 5, 11, 4, 2, 3, 4, 2, 0, 1)},
		{"output reversed", 16, []ir.Attr{ir.IntsAttr("scan_output_directions", 1)}, s, x, f32([]int{2}, 2, 4), f32([]int{3, 4}, 0, 2, 4, 5, 11, 0, 2, 3, 10, 11, 0, 1)},
		{"output axis", 9, []ir.Attr{ir.IntsAttr("scan_output_axes", -1)}, s, x, f32([]int{2}, 2, 4), f32([]int{4, 3}, 10, 11, 0, 11, 0, 2, 0, 2, 4, 1, 3, 5)},
		{"input axis", 11, []ir.Attr{ir.IntsAttr("scan_input_axes", 1)}, s, f32([]int{2, 3}, 0, 2, 4, 1, 3, 5), f32([]int{2}, 2, 4), f32([]int{3, 4}, 10, 11, 0, 1, 11, 0, 2, 3, 0, 2, 4, 5)},
		{"none", 11, nil, s, iota32(0, 2), s, iota32(0, 4)},
		{"opset 8", 8, []ir.Attr{ir.IntsAttr("directions", 1)}, f32([]int{1, 2}, 10, 11), iota32(1, 3, 2), f32([]int{1, 2}, 2, 0), f32([]int{1, 3, 4}, 10, 11, 4, 5, 11, 4, 2, 3, 4, 2, 0, 1)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := scanModel(tc.opset, tc.attrs...)
			if tc.opset > 8 {
				m.Graph.Inputs()[1].Type = ir.TensorType(ir.Float32, ir.UnknownDim, ir.UnknownDim)
			}
			if tc.name == "none" {
				m.Graph.Inputs()[1].Type.Dims[1] = ir.FixedDim(2)
			}
			got, err := runModel(m, ir.Tensors{"s": tc.s, "x": tc.x})
			if err != nil {
				t.Fatal(err)
			}
			if !equal(got["y"], tc.y) || !equal(got["z"], tc.z) {
				t.Errorf("y is %s, z is %s, want %s and %s", show(got["y"]), show(got["z"]), show(tc.y), show(tc.z))
			}
			if err := op.Infer(m); err != nil {
				t.Fatal(err)
			}
			if err := op.ToOpset(m, 25); err != nil {
				t.Fatal(err)
			}
			if err := ir.Check(m); err != nil {
				t.Fatal(err)
			}
			again, err := runModel(m, ir.Tensors{"s": tc.s, "x": tc.x})
			if err != nil {
				t.Fatalf("at opset 25: %v", err)
			}
			if !equal(again["y"], tc.y) || !equal(again["z"], tc.z) {
				t.Errorf("at opset 25 y is %s, z is %s, want %s and %s", show(again["y"]), show(again["z"]), show(tc.y), show(tc.z))
			}
		})
	}
	m := scanModel(8)
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	if y, z := m.Find("y").Type.String(), m.Find("z").Type.String(); y != "float[b,2]" || z != "float[b,3,4]" {
		t.Errorf("inferred %s and %s, want float[b,2] and float[b,3,4]", y, z)
	}
}

// TestIfKnown has a branch that cannot be meant: exporters write both, and only the shapes tell which one runs.
func TestIfKnown(t *testing.T) {
	t.Parallel()
	m := ir.NewModel(11)
	x := m.Graph.AddInput("x", ir.TensorType(ir.Float32, ir.FixedDim(2), ir.FixedDim(3)))
	size := insert(m.Graph, "Gather", []*ir.Value{insert(m.Graph, "Shape", []*ir.Value{x}, "shape"), m.Graph.Const("at", ir.ScalarInt(0))}, "size")
	cond := insert(m.Graph, "Equal", []*ir.Value{size, m.Graph.Const("one", ir.ScalarInt(1))}, "cond")
	then := ir.NewGraph(m, "then")
	then.AddOutput("squeezed", insert(then, "Squeeze", []*ir.Value{x}, "squeezed", ir.IntsAttr("axes", 0)))
	other := ir.NewGraph(m, "else")
	other.AddOutput("kept", insert(other, "Identity", []*ir.Value{x}, "kept"))
	n := m.Graph.Insert(nil, "if", ir.Op("If"), []*ir.Value{cond}, []string{"y"}, ir.GraphAttr("then_branch", then), ir.GraphAttr("else_branch", other))
	m.Graph.AddOutput("y", n.Out(0))
	got, err := runModel(m, ir.Tensors{"x": iota32(2, 3)})
	if err != nil {
		t.Fatal(err)
	}
	if !equal(got["y"], iota32(2, 3)) {
		t.Errorf("y is %s", show(got["y"]))
	}
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	if y := m.Find("y").Type.String(); y != "float[2,3]" {
		t.Errorf("inferred %s, want float[2,3]", y)
	}
}
