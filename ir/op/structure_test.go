package op_test

import (
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

func parsed(t *testing.T, src string) *ir.Model {
	t.Helper()
	m, err := ir.Parse(t.Name(), []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	return m
}

func node(t *testing.T, m *ir.Model, result string) *ir.Node {
	t.Helper()
	v := m.Find(result)
	if v == nil || v.DefNode() == nil {
		t.Fatalf("no node gives %q", result)
	}
	return v.DefNode()
}

func TestSource(t *testing.T) {
	t.Parallel()
	m := parsed(t, `<ir_version: 8, opset_import: ["" : 17]>
g (float[2,3,4] x) => (float[4,2,3] a, float[4,3,2] b, float16[2,3,4] c, int32[2,3,4] d, float[2,3,4] e, float[6,4] f)
<int64[2] s = {6, 4}> {
  a = Transpose <perm = [2, 0, 1]> (x)
  b = Transpose (x)
  c = Cast <to = 10> (x)
  d = Cast <to = 6> (x)
  e = Identity (x)
  f = Reshape (x, s)
}`)
	for result, want := range map[string][]int{"a": {2, 0, 1}, "b": {2, 1, 0}, "c": {0, 1, 2}, "d": nil, "e": {0, 1, 2}, "f": nil} {
		in, axis, ok := op.Source(node(t, m, result))
		if ok != (want != nil) {
			t.Errorf("%s: found a source: %v, wanted %v", result, ok, want != nil)
			continue
		}
		for a, w := range want {
			if in != m.Find("x") || axis(a) != w {
				t.Errorf("%s: axis %d comes from axis %d of %q, wanted %d of x", result, a, axis(a), in.Name, w)
			}
		}
	}
}

func TestLinearThroughChains(t *testing.T) {
	t.Parallel()
	m := parsed(t, `<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3] x, float[3,2] v) => (float[N,2] a, float[N,2] b, float[N,2] c, float[N,2] d)
<float[2,3] w = {1, 2, 3, 4, 5, 6}, float16[3,2] h = {1, 2, 3, 4, 5, 6}> {
  t = Transpose (w)
  a = MatMul (x, t)
  k = Cast <to = 1> (h)
  b = Gemm (x, k)
  c = MatMul (x, v)
  d = Gemm <transB = 1> (x, w)
}`)
	for result, want := range map[string]struct {
		ok      bool
		in, out int
	}{"a": {true, 0, 1}, "b": {true, 0, 1}, "c": {}, "d": {true, 1, 0}} {
		n := node(t, m, result)
		def, _ := op.Lookup(n)
		l, ok := def.Linear(n)
		if ok != want.ok || ok && (l.InAxis != want.in || l.OutAxis != want.out) {
			t.Errorf("%s: got %+v, %v, wanted axes %d, %d, %v", result, l, ok, want.in, want.out, want.ok)
		}
	}
}

func TestBiasAdd(t *testing.T) {
	t.Parallel()
	m := parsed(t, `<ir_version: 8, opset_import: ["" : 17]>
g (float[N,2] x) => (float[N,2] a, float[N,2] d, float[N,2] e, float[2,2] f)
<float[2,2] w = {1, 2, 3, 4}, float[2] b = {1, 2}> {
  p = MatMul (x, w)
  a = Add (b, p)
  q = MatMul (x, w)
  d = Add (q, q)
  r = MatMul (x, w)
  e = Add (r, b)
  f = Add (r, w)
}`)
	for value, want := range map[string]string{"p": "a", "q": "", "r": ""} {
		got := ""
		if n, slot := op.BiasAdd(m.Find(value)); n != nil {
			got = n.Out(0).Name
			if n.In(slot) != m.Find("b") {
				t.Errorf("%s: slot %d is not the bias", value, slot)
			}
		}
		if got != want {
			t.Errorf("%s: the bias is added in %q, wanted %q", value, got, want)
		}
	}
}

// Every operator of the default domain that passes ask after by role is one the table knows.
func TestRolesAreKnown(t *testing.T) {
	t.Parallel()
	m := ir.NewModel(op.Canonical)
	known := 0
	for _, d := range op.Table() {
		n := m.Graph.Insert(nil, "n", d.ID(), nil, nil)
		if op.RoleOf(n) != op.NoRole {
			known++
		}
	}
	if known < 30 {
		t.Errorf("%d operators of the table have roles, wanted at least 30", known)
	}
}
