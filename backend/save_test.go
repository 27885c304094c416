package backend_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/qsimc/qsimc/backend"
	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/frontend/onnxpb"
	"github.com/qsimc/qsimc/ir"
)

// weights returns a model y = (x + big) * small + big2, where big2 shares its tensor with big.
func weights() *ir.Model {
	m := ir.NewModel(17)
	x := m.Graph.AddInput("x", ir.FixedType(ir.Float32, 3000))
	v := make([]float32, 3000)
	for i := range v {
		v[i] = float32(i)
	}
	t := ir.Floats(v, 3000)
	big := m.Graph.AddConst("big", t)
	odd := m.Graph.AddConst("odd", ir.FromSlice(ir.Uint8, []int{5001}, make([]uint8, 5001)))
	small := m.Graph.AddConst("small", ir.Floats([]float32{2}, 1))
	again := m.Graph.AddConst("again", t)
	a := m.Graph.Insert(nil, "a", ir.Op("Add"), []*ir.Value{x, big}, []string{"a"})
	b := m.Graph.Insert(nil, "b", ir.Op("Mul"), []*ir.Value{a.Out(0), small}, []string{"b"})
	c := m.Graph.Insert(nil, "c", ir.Op("Add"), []*ir.Value{b.Out(0), again}, []string{"c"})
	d := m.Graph.Insert(nil, "d", ir.Op("Cast"), []*ir.Value{odd}, []string{"d"}, ir.IntAttr("to", 1))
	m.Graph.AddOutput("c", c.Out(0))
	m.Graph.AddOutput("d", d.Out(0))
	return m
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func listed(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestSaveExternal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "m.onnx")
	if err := backend.Save(path, weights(), backend.Options{ExternalThreshold: 20000}); err != nil {
		t.Fatal(err)
	}
	if got, want := listed(t, dir), []string{"m.onnx", "m.onnx.data"}; !slices.Equal(got, want) {
		t.Errorf("the folder has %q, want %q", got, want)
	}
	once, data := read(t, path), read(t, path+".data")
	if len(data) != 12288+5001 {
		t.Errorf("the data file has %d bytes; big (12000, once) and odd (5001) at pages of their own take %d", len(data), 12288+5001)
	}
	var p onnxpb.ModelProto
	if err := proto.Unmarshal(once, &p); err != nil {
		t.Fatal(err)
	}
	places := map[string]string{}
	for _, i := range p.Graph.Initializer {
		for _, e := range i.ExternalData {
			places[i.GetName()] += e.GetKey() + "=" + e.GetValue() + " "
		}
	}
	want := map[string]string{
		"big": "location=m.onnx.data offset=0 length=12000 ", "again": "location=m.onnx.data offset=0 length=12000 ",
		"odd": "location=m.onnx.data offset=12288 length=5001 ",
	}
	if len(places) != len(want) || places["big"] != want["big"] || places["again"] != want["again"] || places["odd"] != want["odd"] {
		t.Errorf("places %q, want %q", places, want)
	}
	m, err := frontend.Decode(once, frontend.Folder(dir))
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := m.Find("again").Const().Float32s(); v[2999] != 2999 {
		t.Errorf("again ends with %v", v[2999])
	}
	// over the file it was loaded from, and into one file
	if err := backend.Save(path, m, backend.Options{ExternalData: true}); err != nil {
		t.Fatal(err)
	}
	m2, err := frontend.Decode(read(t, path), frontend.Folder(dir))
	if err != nil {
		t.Fatal(err)
	}
	inner, err := backend.Encode(m2)
	if err != nil {
		t.Fatal(err)
	}
	direct, err := backend.Encode(weights())
	if err != nil {
		t.Fatal(err)
	}
	if diff, err := difference(direct, inner); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	// the file is what Encode gives
	if err := backend.Save(path, weights(), backend.Options{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, path), direct) {
		t.Error("Save and Encode differ")
	}
}

func TestSaveFailures(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "m.onnx")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	close(stop)
	if err := backend.Save(path, weights(), backend.Options{ExternalData: true, Stop: stop}); !errors.Is(err, backend.ErrStopped) {
		t.Errorf("stopped: %v", err)
	}
	m := weights()
	broken, err := ir.LazyTensor(ir.Float32, []int{3000}, func() ([]byte, error) { return nil, errors.New("gone") })
	if err != nil {
		t.Fatal(err)
	}
	m.Find("big").SetConst(broken)
	if err := backend.Save(path, m, backend.Options{}); err == nil || !strings.HasSuffix(err.Error(), "gone") {
		t.Errorf("unreadable tensor: %v", err)
	}
	if got := string(read(t, path)); got != "old" || len(listed(t, dir)) != 1 {
		t.Errorf("a failed writing left %q with %q", listed(t, dir), got)
	}
	if err := backend.Save(filepath.Join(dir, "no", "m.onnx"), weights(), backend.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

// message returns the encoded model as a message.
func message(t *testing.T, m *ir.Model) *onnxpb.ModelProto {
	t.Helper()
	b, err := backend.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	var p onnxpb.ModelProto
	if err := proto.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	return &p
}

// Slots whose value has another name get an Identity, whose name is that of no other node.
func TestOutputSlots(t *testing.T) {
	t.Parallel()
	m := ir.NewModel(17)
	x := m.Graph.AddInput("x", ir.FixedType(ir.Float32, 2))
	r := m.Graph.Insert(nil, "b_Identity", ir.Op("Relu"), []*ir.Value{x}, []string{"a"})
	m.Graph.AddOutput("a", r.Out(0))
	m.Graph.AddOutput("b", r.Out(0))
	m.Graph.AddOutput("c", x)
	for range 2 {
		p := message(t, m)
		var got []string
		for _, n := range p.Graph.Node[1:] {
			got = append(got, n.GetName()+" "+n.GetOpType()+" "+n.Input[0]+" "+n.Output[0])
		}
		if want := []string{"b_Identity_1 Identity a b", "c_Identity Identity x c"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestIRVersion(t *testing.T) {
	t.Parallel()
	tensor := func(elem ir.DType) func(*ir.Model) {
		return func(m *ir.Model) { m.Graph.AddConst("w", ir.NewTensor(elem, 2)) }
	}
	function := func(overload string, defaults ...ir.Attr) func(*ir.Model) {
		return func(m *ir.Model) {
			f := &ir.Function{Domain: "d", Name: "f", Overload: overload, Defaults: defaults, Body: ir.NewGraph(m, "f")}
			m.Functions = append(m.Functions, f)
		}
	}
	for name, c := range map[string]struct {
		have int
		edit func(*ir.Model)
		want int64
	}{
		"as it came":    {3, func(*ir.Model) {}, 3},
		"initializer":   {3, tensor(ir.Float32), 4},
		"int8":          {7, tensor(ir.Int8), 7},
		"float8":        {8, tensor(ir.Float8E5M2), 9},
		"int4":          {8, tensor(ir.Int4), 10},
		"e2m1":          {8, tensor(ir.Float4E2M1), 11},
		"e8m0":          {8, tensor(ir.Float8E8M0), 12},
		"int2":          {8, tensor(ir.Int2), 13},
		"e3m2":          {8, tensor(ir.Float6E3M2), 14},
		"function":      {7, function(""), 8},
		"default":       {7, function("", ir.IntAttr("i", 1)), 9},
		"overload":      {7, function("o"), 10},
		"newer already": {14, tensor(ir.Int4), 14},
		"optional":      {7, func(m *ir.Model) { m.Graph.AddInput("o", ir.Type{Kind: ir.OptionalKind}) }, 8},
		"tensor attribute": {7, func(m *ir.Model) {
			m.Graph.Insert(nil, "c", ir.Op("Constant"), nil, []string{"c"}, ir.TensorAttr("value", ir.NewTensor(ir.Uint4, 1)))
		}, 10},
	} {
		m := ir.NewModel(17)
		m.IRVersion = c.have
		m.Graph.AddOutput("x", m.Graph.AddInput("x", ir.FixedType(ir.Float32, 2)))
		c.edit(m)
		if got := message(t, m).GetIrVersion(); got != c.want {
			t.Errorf("%s: IR version %d became %d, want %d", name, c.have, got, c.want)
		}
	}
}

// Below IR version 4 initializers are inputs by rule; above, only defaults that a caller may replace are.
func TestInputsOfOldModels(t *testing.T) {
	t.Parallel()
	m := ir.NewModel(8)
	m.IRVersion = 3
	x := m.Graph.AddInput("x", ir.FixedType(ir.Float32, 1))
	m.Graph.AddInput("w", ir.FixedType(ir.Float32, 1))
	w := m.Graph.AddConst("w", ir.Floats([]float32{1}, 1))
	n := m.Graph.Insert(nil, "a", ir.Op("Add"), []*ir.Value{x, w}, []string{"y"})
	m.Graph.AddOutput("y", n.Out(0))
	if got := len(message(t, m).Graph.Input); got != 2 {
		t.Errorf("IR version 3: %d inputs, want 2", got)
	}
	m.IRVersion = 4
	if got := len(message(t, m).Graph.Input); got != 2 {
		t.Errorf("IR version 4: %d inputs, want the 2 it came with", got)
	}
	m.IRVersion = 3
	m.Graph.AddConst("scale", ir.Scalar(1))
	if p := message(t, m); len(p.Graph.Input) != 1 || p.GetIrVersion() != 4 || len(p.Graph.Initializer) != 2 {
		t.Errorf("raised: IR version %d with %d inputs and %d initializers, want 4, 1, 2", p.GetIrVersion(), len(p.Graph.Input), len(p.Graph.Initializer))
	}
}

// Where a node came from is written where the IR version knows metadata of nodes, and read again.
func TestOrigin(t *testing.T) {
	t.Parallel()
	m := ir.NewModel(21)
	x := m.Graph.AddInput("x", ir.FixedType(ir.Float32, 1))
	n := m.Graph.Insert(nil, "a", ir.Op("Relu"), []*ir.Value{x}, []string{"y"})
	m.Graph.AddOutput("y", n.Out(0))
	n.Origin = "lower:fc1"
	n.Meta = []ir.Prop{{Key: "k", Value: "v"}}
	m.IRVersion = 8
	if p := message(t, m); len(p.Graph.Node[0].MetadataProps) != 1 {
		t.Errorf("IR version 8: %v", p.Graph.Node[0].MetadataProps)
	}
	m.IRVersion = 10
	b, err := backend.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	again, err := frontend.Decode(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range again.Graph.Nodes() {
		if n.Origin != "lower:fc1" || len(n.Meta) != 1 {
			t.Errorf("origin %q, metadata %v", n.Origin, n.Meta)
		}
	}
}

// A constant that a pass puts into a function becomes a node: functions have no initializers.
func TestFunctionConstants(t *testing.T) {
	t.Parallel()
	m := ir.NewModel(17)
	m.Graph.AddOutput("x", m.Graph.AddInput("x", ir.FixedType(ir.Float32, 1)))
	f := &ir.Function{Domain: "d", Name: "f", Opset: map[string]int{"": 17}, Body: ir.NewGraph(m, "f")}
	a := f.Body.AddInput("a", ir.Type{})
	k := f.Body.AddConst("k", ir.Scalar(2))
	n := f.Body.Insert(nil, "mul", ir.Op("Mul"), []*ir.Value{a, k}, []string{"b"})
	f.Body.AddOutput("b", n.Out(0))
	m.Functions = append(m.Functions, f)
	p := message(t, m)
	if nodes := p.Functions[0].Node; len(nodes) != 2 || nodes[0].GetOpType() != "Constant" || nodes[0].Output[0] != "k" {
		t.Errorf("nodes of the function: %v", nodes)
	}
}

// A sparse initializer that a pass replaces is written as the dense tensor it became.
func TestSparse(t *testing.T) {
	t.Parallel()
	m, err := frontend.Decode(everythingModel(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := m.Find("s")
	if v, ok := s.Const().Float32s(); !ok || !slices.Equal(v, []float32{0, 0, 3, 0}) {
		t.Errorf("written out, the sparse initializer is %v", v)
	}
	s.SetConst(ir.Floats([]float32{1, 2, 3, 4}, 2, 2))
	p := message(t, m)
	if len(p.Graph.SparseInitializer) != 0 || !slices.ContainsFunc(p.Graph.Initializer, func(t *onnxpb.TensorProto) bool { return t.GetName() == "s" }) {
		t.Error("the sparse initializer was not replaced")
	}
}
