package op_test

import (
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

func TestElementwiseOperators(t *testing.T) {
	t.Parallel()
	m := parsed(t, `<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
g (float[2,3,4] x, float[4] b) => (float[2,3,4] y)
{
  add = Add (x, b)
  c = Less (x, b)
  where = Where (c, add, b)
  gelu = Gelu (x)
  fast = com.microsoft.FastGelu (x, b)
  softmax = Softmax (x)
  norm = LayerNormalization (x, b)
  one = Constant <value = int64 {1}> ()
  sum = CumSum (x, one)
  half, other = Split <num_outputs = 2> (x)
  y = Identity (x)
}`)
	for name, want := range map[string]bool{"add": true, "where": true, "gelu": true, "fast": true, "y": true, "softmax": false, "norm": false, "sum": false, "half": false} {
		if got := op.Elementwise(node(t, m, name)); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	foreign := ir.OpID{Domain: "other", Type: "Add"}
	n := m.Graph.Insert(nil, "foreign", foreign, []*ir.Value{m.Find("x"), m.Find("b")}, []string{"z"})
	if op.Elementwise(n) {
		t.Error("an operator of another domain is taken for the standard's")
	}
}
