package runtime_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime"
)

// What is made of shapes alone is made anew when they change, in concurrent runs too, and results are the caller's.
func TestShapeArithmetic(t *testing.T) {
	t.Parallel()
	m := parse(t, `<ir_version: 8, opset_import: ["" : 17]>
net (float[N,M] x) => (float[K,L] y, int64[P] shape, float[N,M] z)
<int64 zero = {0}, int64 one = {1}, int64[1] axis = {0}, int64[1] minus = {-1}, float half = {0.5}>
{
  s = Shape (x)
  n = Gather (s, zero)
  up = Unsqueeze (n, axis)
  turned = Concat <axis = 0> (minus, up)
  r = Reshape (x, turned)
  count = Size (x)
  positions = Range (zero, n, one)
  f = Cast <to = 1> (positions)
  column = Unsqueeze (f, one)
  z = Mul (x, column)
  scaled = Mul (r, half)
  y = Relu (scaled)
  all = Unsqueeze (count, axis)
  shape = Concat <axis = 0> (s, all)
}`)
	p, err := runtime.CompileWith(t.Context(), m, runtime.Options{Poison: true})
	if err != nil {
		t.Fatal(err)
	}
	check := func(rows, cols int) {
		x := make([]float32, rows*cols)
		for i := range x {
			x[i] = float32(i) - 2
		}
		in := ir.Tensors{"x": ir.Floats(x, rows, cols)}
		got, err := p.Run(t.Context(), in)
		if err != nil {
			t.Error(err)
			return
		}
		want, err := p.Watch(t.Context(), in, func(*ir.Value, *ir.Tensor) error { return nil })
		if err != nil {
			t.Error(err)
			return
		}
		for name, w := range want {
			if g := got[name]; !slices.Equal(g.Shape(), w.Shape()) || !slices.Equal(g.Bytes(), w.Bytes()) {
				t.Errorf("%dx%d: %s is %v, want %v", rows, cols, name, g, w)
			}
			clear(got[name].Bytes())
		}
	}
	for _, c := range [][2]int{{2, 3}, {2, 3}, {3, 2}, {2, 3}, {1, 6}, {6, 1}, {6, 1}} {
		check(c[0], c[1])
	}
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for range 20 {
				check(2+i%2, 3)
			}
		})
	}
	all.Wait()
}
