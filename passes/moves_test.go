package passes

import (
	"slices"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
)

func TestMoves(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		m         moves
		shape     []int
		want      []float32
		axis      int
		one, last bool // it stays in the last axis, in the last two
	}{
		{"rows", movesAlong(2, 0, []int{1, 0}), []int{2, 3}, []float32{3, 4, 5, 0, 1, 2}, 0, false, true},
		{"columns that repeat", movesAlong(2, 1, []int{1, 0}), []int{1, 6}, []float32{1, 0, 3, 2, 5, 4}, 1, true, true},
		{"each head by itself", moves{[]int{2, 1, 2}, []int{0, 1, 3, 2}}, []int{2, 2, 2}, []float32{0, 1, 2, 3, 5, 4, 7, 6}, -1, true, true},
		{"heads", movesAlong(3, 0, []int{1, 0}), []int{2, 1, 2}, []float32{2, 3, 0, 1}, 0, false, false},
	} {
		n := 1
		for _, d := range c.shape {
			n *= d
		}
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(i)
		}
		y, err := c.m.apply(ir.Floats(x, c.shape...))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got, _ := y.Float32s(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if y, err = c.m.inverse().apply(y); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got, _ := y.Float32s(); !slices.Equal(got, x) {
			t.Errorf("%s: %v after the way back, want %v", c.name, got, x)
		}
		if c.m.axis() != c.axis || c.m.stays(1) != c.one || c.m.stays(2) != c.last {
			t.Errorf("%s: axis %d, stays %v %v, want %d, %v %v", c.name, c.m.axis(), c.m.stays(1), c.m.stays(2), c.axis, c.one, c.last)
		}
	}
	for _, bad := range []*ir.Tensor{ir.Floats(make([]float32, 3), 3), ir.Floats(make([]float32, 9), 3, 3)} {
		if _, err := movesAlong(2, 0, []int{1, 0}).apply(bad); err == nil {
			t.Errorf("shape %v: no error", bad.Shape())
		}
	}
}

// A weight whose output channels are permuted has the same codes with its parameters permuted alike.
func TestMovesParams(t *testing.T) {
	t.Parallel()
	x := ir.Floats([]float32{1, -2, 3, 4, 0.5, -0.25, 0.125, 1, 30, 20, -10, 5}, 3, 4)
	m := movesAlong(2, 0, []int{2, 0, 1})
	y, err := m.apply(x)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"int4", "int4/axis=out", "int4/axis=out/asym", "int4/axis=1", "int4/block=2"} {
		s, err := numfmt.ParseScheme(text, numfmt.Weight)
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.Layout([]int{3, 4}, numfmt.Axes{K: 1, Out: 0})
		if err != nil {
			t.Fatal(err)
		}
		xs, _ := x.Float32s()
		ys, _ := y.Float32s()
		p, err := s.FitData(xs, l)
		if err != nil {
			t.Fatal(err)
		}
		want, err := s.FitData(ys, l)
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.params(p, l)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Scale, want.Scale) || !slices.Equal(got.Zero, want.Zero) {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}
