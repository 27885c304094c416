package runtime_test

import (
	"iter"
	"math"
	"slices"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
)

// Weights of more than a megabyte: dequantized, behind a chain that folds to a constant and that several products read, plain
// ones of MatMul, Gemm and Conv, a table, one inside a subgraph, one that is an output.
const lateModel = `
<ir_version: 10, opset_import: ["" : 21]>
late (float[N,512] x, int64[N] i, bool c) => (float[N,512] y, float[600,512] table)
<float w1 = {0}, float w2 = {0}, float w3 = {0}, float scale = {0.01}, float zero = {0}, float one = {1}, float many = {307200},
 int64[2] shape = {600, 512}, int64[4] image = {-1, 512, 1, 1}, int64[2] back = {-1, 512}, int8 point = {3}>
{
  h = Range (zero, many, one)
  s = Sin (h)
  r = Reshape (s, shape)
  q = QuantizeLinear (r, scale, point)
  d = DequantizeLinear (q, scale, point)
  t = Transpose <perm = [1, 0]> (d)
  e = Gather (d, i)
  x1 = Add (x, e)
  a = MatMul (x1, w1)
  b = Gemm <transB = 1> (a, t)
  m = Mul (b, scale)
  n = MatMul (a, w2)
  k = Reshape (n, image)
  v = Conv (k, w3)
  f = Reshape (v, back)
  g = Add (m, f)
  y = If (c) <
    then_branch = yes () => (float[N,512] u) {
      p = MatMul (g, t)
      u = MatMul (p, d)
    },
    else_branch = no () => (float[N,512] u) { u = Identity (g) }
  >
  table = Neg (r)
}`

func lateCase(t *testing.T) (*ir.Model, ir.Samples) {
	t.Helper()
	m, err := ir.Parse("late", []byte(lateModel))
	if err != nil {
		t.Fatal(err)
	}
	for name, shape := range map[string][]int{"w1": {512, 600}, "w2": {600, 512}, "w3": {512, 512, 1, 1}} {
		w := ir.NewTensor(ir.Float32, shape...)
		for i := range ir.Data[float32](w) {
			ir.Data[float32](w)[i] = float32(math.Cos(float64(i*len(name)+shape[0]))) / 64
		}
		m.Find(name).SetConst(w)
	}
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	return m, func() iter.Seq2[ir.Tensors, error] {
		return func(yield func(ir.Tensors, error) bool) {
			for k := range 3 {
				x := ir.NewTensor(ir.Float32, k+1, 512)
				for i := range ir.Data[float32](x) {
					ir.Data[float32](x)[i] = float32(math.Sin(float64(i + k)))
				}
				at := make([]int64, k+1)
				for i := range at {
					at[i] = int64(100*i + k)
				}
				if !yield(ir.Tensors{"x": x, "i": ir.Ints(at...), "c": ir.FromSlice(ir.Bool, []int{}, []bool{k != 1})}, nil) {
					return
				}
			}
		}
	}
}

// What a program computes does not depend on how many weights it keeps ready.
func TestHold(t *testing.T) {
	t.Parallel()
	m, samples := lateCase(t)
	kept, err := runtime.Compile(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, hold := range []int64{1, 3 << 20} {
		p, err := runtime.CompileWith(t.Context(), m, runtime.Options{Hold: hold})
		if err != nil {
			t.Fatal(err)
		}
		for in, err := range samples() {
			if err != nil {
				t.Fatal(err)
			}
			want, seen := seenBy(t, kept, in)
			got, late := seenBy(t, p, in)
			run, err := p.Run(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			for name, w := range want {
				if !slices.Equal(w.Bytes(), got[name].Bytes()) || !slices.Equal(w.Bytes(), run[name].Bytes()) {
					t.Errorf("hold %d: output %q differs", hold, name)
				}
			}
			for v, w := range seen {
				if late[v] == nil || !slices.Equal(w.Bytes(), late[v].Bytes()) {
					t.Errorf("hold %d: value %q is not shown as it is", hold, v.Name)
				}
			}
		}
	}
}

func seenBy(t *testing.T, p *runtime.Program, in ir.Tensors) (ir.Tensors, map[*ir.Value]*ir.Tensor) {
	t.Helper()
	seen := map[*ir.Value]*ir.Tensor{}
	out, err := p.Watch(t.Context(), in, func(v *ir.Value, x *ir.Tensor) error {
		if seen[v] != nil {
			t.Errorf("value %q is shown twice", v.Name)
		}
		seen[v] = x
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out, seen
}

// So does a walk.
func TestWalkHold(t *testing.T) {
	t.Parallel()
	m, samples := lateCase(t)
	var nodes []*ir.Node
	for n := range m.Graph.Nodes() {
		if op.RoleOf(n) == op.ProductRole {
			nodes = append(nodes, n)
		}
	}
	walk := func(hold int64) (seen [][]byte) {
		w, err := runtime.NewWalk(t.Context(), m, runtime.WalkOptions{Options: runtime.Options{Hold: hold}, Held: 1})
		if err != nil {
			t.Fatal(err)
		}
		err = w.Run(t.Context(), samples, nodes, func(n *ir.Node) error {
			if n.Op == ir.Op("MatMul") && n.In(1).Name == "w2" {
				if err := w.Replace(n.In(1), ir.NewTensor(ir.Float32, 600, 512)); err != nil {
					return err
				}
			}
			return w.Each(n.In(0), func(_ int, x *ir.Tensor) error {
				seen = append(seen, slices.Clone(x.Bytes()))
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		return seen
	}
	want := walk(0)
	if len(want) != 12 {
		t.Fatalf("%d values were seen, wanted those of 4 products in 3 samples", len(want))
	}
	for _, hold := range []int64{1, 3 << 20} {
		if got := walk(hold); !slices.EqualFunc(want, got, func(a, b []byte) bool { return slices.Equal(a, b) }) {
			t.Errorf("hold %d: the walk saw something else", hold)
		}
	}
}
