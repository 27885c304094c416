package ir_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir"
)

func check(t *testing.T, m *ir.Model) {
	t.Helper()
	if err := ir.Check(m); err != nil {
		t.Fatal(err)
	}
}

// slots are the rules of output slots: which values are renamed, and where an Identity is printed.
func TestSetOutput(t *testing.T) {
	t.Parallel()
	const src = "g (float x) => (float y, float z) <float c = {1}> { y = Neg (x)\n h = Abs (x)\n z = Exp (h) }"
	for _, c := range []struct{ fill, want string }{
		{"h", "h → y, y → y_inner"}, // takes the slot's name
		{"x", "y → y_inner"},        // an input keeps its name
		{"c", "y → y_inner"},        // so does a constant
		{"z", "y → y_inner"},        // and a value of another slot
		{"y", ""},                   // nothing to do
	} {
		m := parse(t, src)
		var vs []*ir.Value
		var was []string
		for v := range m.Graph.Values() {
			vs, was = append(vs, v), append(was, v.Name)
		}
		m.Graph.SetOutput(0, m.Find(c.fill))
		check(t, m)
		got := map[string]bool{}
		for i, v := range vs {
			if v.Name != was[i] {
				got[was[i]+" → "+v.Name] = true
			}
		}
		for _, w := range strings.Split(c.want, ", ") {
			if w != "" && !got[w] {
				t.Errorf("filling y with %s: want %s, got %v", c.fill, c.want, got)
			}
			delete(got, w)
		}
		if len(got) > 0 {
			t.Errorf("filling y with %s: also %v", c.fill, got)
		}
		fixedPoint(t, parse(t, text(t, m)))
	}
}

func TestSameValueTwice(t *testing.T) {
	t.Parallel()
	m := parse(t, "g (float x) => (float y) { y = Mul (x, x) }")
	x := m.Find("x")
	if x.NumUses() != 2 {
		t.Fatalf("Mul(x, x) makes %d uses, want 2", x.NumUses())
	}
	w := m.Graph.Const("w", ir.Scalar(2))
	x.Uses()[0].Set(w)
	check(t, m)
	n := m.Find("y").DefNode()
	if n.In(0) != w || n.In(1) != x {
		t.Errorf("one use replaced: inputs are %v and %v", n.In(0).Name, n.In(1).Name)
	}
	x.ReplaceUses(w)
	check(t, m)
	if x.NumUses() != 0 || w.NumUses() != 2 {
		t.Errorf("uses after ReplaceUses: %d and %d", x.NumUses(), w.NumUses())
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	m := parse(t, "g (float x) => (float y) { h = Neg (x)\n y = Abs (h)\n d = If (x) <then_branch = t () => (float r) { r = Exp (h) }> }")
	h := m.Find("h")
	if err := m.Graph.Remove(h.DefNode()); !errors.Is(err, ir.ErrInUse) {
		t.Errorf("removing a used node: %v", err)
	}
	check(t, m)
	if h.NumUses() != 2 {
		t.Errorf("a capture counts as a use: got %d uses, want 2", h.NumUses())
	}
	if n := m.Graph.Prune(); n != 1 || h.NumUses() != 1 {
		t.Errorf("pruned %d, uses of the captured value %d; want 1 and 1", n, h.NumUses())
	}
	check(t, m)
	n := h.DefNode()
	m.Find("y").DefNode().SetIn(0, m.Find("x"))
	if err := m.Graph.Remove(n); err != nil || n.Graph() != nil || m.Find("x").NumUses() != 1 {
		t.Errorf("removing an unused node: %v", err)
	}
	if err := m.Graph.Remove(n); err == nil {
		t.Error("a node can be removed twice")
	}
	check(t, m)
}

func TestEditWhileRanging(t *testing.T) {
	t.Parallel()
	m := parse(t, "g (float x) => (float y) { a = Neg (x)\n b = Abs (a)\n y = Exp (b) }")
	var seen []string
	for n := range m.Graph.Nodes() {
		seen = append(seen, n.Op.Type)
		switch n.Op.Type {
		case "Neg":
			m.Graph.Insert(n.Next(), "", ir.Op("New"), n.Outs(), []string{"a"})
		case "New":
			b := n.Next()
			b.Out(0).ReplaceUses(m.Find("a"))
			if err := m.Graph.Remove(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := strings.Join(seen, " "); got != "Neg New Exp" {
		t.Errorf("visited %s, want Neg New Exp", got)
	}
	check(t, m)
}

func TestFreshNames(t *testing.T) {
	t.Parallel()
	m := parse(t, "g (float a, float a_1) => () { a_3 = Neg (a) }")
	for _, c := range []struct{ hint, want string }{{"a", "a_2"}, {"a", "a_4"}, {"b", "b"}, {"b", "b_1"}, {"", "v"}} {
		if got := m.FreshName(c.hint); got != c.want {
			t.Errorf("FreshName(%q) = %q, want %q", c.hint, got, c.want)
		}
	}
}

func TestClone(t *testing.T) {
	t.Parallel()
	src, _ := ir.Parse("m", []byte("g (float x, float w = {1}) => (float y) <float[2] c = {1, 2}> { h = Neg (x)\n y = If (x) <then_branch = t () => (float r) { r = Mul (h, c) }> }"))
	c, mp := src.Clone()
	check(t, c)
	if err := ir.Equal(src, c); err != nil {
		t.Error(err)
	}
	if mp.Values[src.Find("c")].Const() != src.Find("c").Const() {
		t.Error("a clone copies tensors")
	}
	c.Find("c").SetConst(ir.Floats([]float32{3, 4}, 2))
	c.Find("h").DefNode().Op = ir.Op("Abs")
	if err := ir.Equal(src, c); err == nil || src.Find("h").DefNode().Op.Type != "Neg" || src.Find("c").Const().Bytes()[3] != 0x3f {
		t.Errorf("an edit of the clone shows in the original: %v", err)
	}
	if a, b := src.FreshName("h"), c.FreshName("h"); a != b {
		t.Errorf("fresh names of original and clone: %s, %s", a, b)
	}
}

func TestCloneAttrs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		edit func(*ir.Node)
	}{
		{"replace", func(n *ir.Node) { n.SetAttr(ir.IntAttr("a", 7)) }},
		{"add", func(n *ir.Node) { n.SetAttr(ir.IntAttr("d", 7)) }},
		{"delete", func(n *ir.Node) { n.DelAttr("a") }},
	} {
		for _, edited := range []string{"original", "clone"} {
			src, _ := ir.Parse("m", []byte("g (float x) => (float y) { y = Op <a = 1, b = 2, c = 3> (x) }"))
			n := src.Find("y").DefNode()
			n.DelAttr("c") // its list has room now
			clone, _ := src.Clone()
			a, b := n, clone.Find("y").DefNode()
			if edited == "clone" {
				a, b = b, a
			}
			c.edit(a)
			a.SetAttr(ir.IntAttr("e", 5))
			b.SetAttr(ir.IntAttr("f", 6))
			if len(b.Attrs) != 3 || b.Int("a", 0) != 1 || b.Int("b", 0) != 2 || b.Int("f", 0) != 6 || a.Int("e", 0) != 5 {
				t.Errorf("%s in the %s: the other has %v", c.name, edited, b.Attrs)
			}
		}
	}
}

func TestCheckFinds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, want string
		spoil      func(*ir.Model)
	}{
		{"order", "is not defined before it", func(m *ir.Model) { m.Graph.Move(m.Find("h").DefNode(), nil) }},
		{"name", "already that of another value", func(m *ir.Model) { m.Find("h").Name = "x" }},
		{"slot", "another value than its own", func(m *ir.Model) { m.Find("y").Name, m.Find("h").Name = "q", "y" }},
		{"type", "declared type and data disagree", func(m *ir.Model) { m.Find("c").Type = ir.FixedType(ir.Float32, 3) }},
		{"attribute", "appears twice", func(m *ir.Model) {
			n := m.Find("h").DefNode()
			n.Attrs = []ir.Attr{ir.IntAttr("a", 1), ir.IntAttr("a", 2)}
		}},
	} {
		m := parse(t, "g (float x) => (float y) <float[2] c = {1, 2}> { h = Neg (x)\n y = Mul (h, c) }")
		check(t, m)
		c.spoil(m)
		if err := ir.Check(m); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestTensor(t *testing.T) {
	t.Parallel()
	if _, err := ir.TensorOf(ir.Int4, []int{3}, make([]byte, 2)); err != nil {
		t.Errorf("three 4-bit elements in two bytes: %v", err)
	}
	if _, err := ir.TensorOf(ir.Float32, []int{3}, make([]byte, 4)); err == nil {
		t.Error("three floats in four bytes")
	}
	for _, shape := range [][]int{{-1}, {1 << 40, 2}, {1 << 62, 1 << 62, 0}} {
		if _, err := ir.Numel(shape); err == nil {
			t.Errorf("shape %v is accepted", shape)
		}
	}
	fail := errors.New("gone")
	lazy, err := ir.LazyTensor(ir.Float32, []int{1}, func() ([]byte, error) { return nil, fail })
	if err != nil || !errors.Is(lazy.Load(), fail) || !errors.Is(lazy.Load(), fail) {
		t.Errorf("a lazy tensor does not say why it cannot load: %v", err)
	}
	raw := append([]byte{9}, 0, 0, 0x80, 0x3f)[1:]
	x, err := ir.TensorOf(ir.Float32, []int{}, raw)
	if err != nil || ir.Data[float32](x)[0] != 1 {
		t.Errorf("misaligned data: %v", err)
	}
	for bits, want := range map[uint16]float32{0x3c00: 1, 0x0001: 0x1p-24, 0x8000: float32(math.Copysign(0, -1)), 0x7bff: 65504, 0xfc00: float32(math.Inf(-1))} {
		if got := ir.HalfToFloat(bits); math.Float32bits(got) != math.Float32bits(want) {
			t.Errorf("HalfToFloat(%#x) = %v, want %v", bits, got, want)
		}
	}
}

func TestSparseDense(t *testing.T) {
	t.Parallel()
	m := parse(t, "g () => () <sparse_tensor(float[2,3]) a = {float[2] {1, 2}, int64[2] {0, 5}}, sparse_tensor(int8[2,2]) b = {int8[1] {7}, int64[1,2] {1, 0}}, sparse_tensor(float[2]) bad = {float[1] {1}, int64[1] {2}}> {}")
	c := m.Graph.Consts()
	if got := ir.Data[float32](c[0].Const()); got[0] != 1 || got[5] != 2 || got[1] != 0 {
		t.Errorf("positions: %v", got)
	}
	if got := ir.Data[int8](c[1].Const()); got[2] != 7 || got[0] != 0 {
		t.Errorf("coordinates: %v", got)
	}
	if err := c[2].Const().Load(); err == nil {
		t.Error("an index beyond the shape is accepted")
	}
	c[0].SetConst(ir.Floats(make([]float32, 6), 2, 3))
	if s := text(t, m); !strings.Contains(s, "float[2,3] a = {0, 0") {
		t.Errorf("replaced data is printed in its sparse form:\n%s", s)
	}
}
