package runtime_test

import (
	"math"
	"slices"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
)

// Large weights of all kinds that a program which is only run sees through: codes of a product, of a lookup, of both at once,
// in blocks, for a product alone and for one that is joined, a matrix that lies transposed, and one that a subgraph reads too.
const unseenModel = `
<ir_version: 10, opset_import: ["" : 21]>
unseen (float[B,N,512] x, int64[B,N] i, bool c) => (float[B,N,640] y, float[B,N,512] z, float[B,N,640] u, float[B,N,640] v)
<float sx = {0.02}, int8 zx = {-3}, int8 zero = {0}, float half = {0.5},
 float sw = {0}, float wt = {0}, float we = {0}, float sb = {0}, float bias = {0}>
{
  codes = QuantizeLinear <axis = 1> (we, sw)
  table = Transpose <perm = [1, 0]> (codes)
  d = DequantizeLinear <axis = 0> (table, sw)
  e = Gather (d, i)
  x1 = Add (x, e)
  q = QuantizeLinear (x1, sx, zx)
  dx = DequantizeLinear (q, sx, zx)
  dw = DequantizeLinear <axis = 1> (codes, sw)
  p = MatMul (dx, dw)
  a = Add (p, bias)
  y = Relu (a)
  t = Transpose <perm = [1, 0]> (d)
  n = MatMul (dx, t)
  g = Transpose <perm = [1, 0]> (wt)
  f = MatMul (x1, g)
  s = Add (n, f)
  cb = QuantizeLinear <axis = 1, block_size = 64> (wt, sb)
  db = DequantizeLinear <axis = 1, block_size = 64> (cb, sb)
  b = Transpose (db)
  m = MatMul (x1, b)
  w = Add (m, bias)
  v = MatMul (x1, b)
  r = If (c) <
    then_branch = yes () => (float[B,N,640] k) { k = MatMul (x1, g) },
    else_branch = no () => (float[B,N,640] k) { k = Identity (w) }
  >
  u = Add (s, r)
  z = MatMul (u, wt)
}`

func TestRunOnly(t *testing.T) {
	t.Parallel()
	m, err := ir.Parse("unseen", []byte(unseenModel))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		shape []int
		f     func(i int) float64
	}{
		{"wt", []int{640, 512}, func(i int) float64 { return math.Cos(float64(7*i)) / 16 }},
		{"we", []int{512, 640}, func(i int) float64 { return math.Sin(float64(3 * i)) }},
		{"sw", []int{640}, func(i int) float64 { return (2 + math.Cos(float64(i))) / 381 }},
		{"sb", []int{640, 8}, func(i int) float64 { return (2 + math.Sin(float64(i))) / 4000 }},
		{"bias", []int{640}, func(i int) float64 { return math.Sin(float64(i)) }},
	} {
		w := ir.NewTensor(ir.Float32, c.shape...)
		for i := range ir.Data[float32](w) {
			ir.Data[float32](w)[i] = float32(c.f(i))
		}
		m.Find(c.name).SetConst(w)
	}
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	x := ir.NewTensor(ir.Float32, 2, 3, 512)
	for i := range ir.Data[float32](x) {
		ir.Data[float32](x)[i] = float32(math.Sin(float64(i)))
	}
	in := func(yes bool) ir.Tensors {
		return ir.Tensors{"x": x, "i": ir.FromSlice(ir.Int64, []int{2, 3}, []int64{0, 5, -1, 639, 17, -640}), "c": ir.FromSlice(ir.Bool, []int{}, []bool{yes})}
	}
	for name, o := range map[string]runtime.Options{"as compiled": {}, "in float": {Plain: true}} {
		all, err := runtime.CompileWith(t.Context(), m, o)
		if err != nil {
			t.Fatal(err)
		}
		if o.RunOnly = true; o.Plain {
			o.Hold = 1 // nothing may be kept: no codes are packed either
		}
		only, err := runtime.CompileWith(t.Context(), m, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(runtime.Steps(only))
		for _, yes := range []bool{true, false, true} {
			want, err := all.Run(t.Context(), in(yes))
			if err != nil {
				t.Fatal(err)
			}
			got, err := only.Run(t.Context(), in(yes))
			if err != nil {
				t.Fatal(err)
			}
			for out, w := range want {
				if !slices.Equal(w.Bytes(), got[out].Bytes()) {
					t.Errorf("%s, %v: output %q differs", name, yes, out)
				}
			}
		}
		bad := in(true)
		bad["i"] = ir.FromSlice(ir.Int64, []int{1, 1}, []int64{640})
		bad["x"] = ir.NewTensor(ir.Float32, 1, 1, 512)
		if _, err := only.Run(t.Context(), bad); err == nil {
			t.Errorf("%s: a lookup beyond the table is no error", name)
		}
		if _, err := only.Watch(t.Context(), in(true), func(*ir.Value, *ir.Tensor) error { return nil }); err == nil {
			t.Errorf("%s: a program that is only run could be watched", name)
		}
	}
}
