package runtime_test

import (
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
)

// Two products in a row, the second weight behind a Transpose that is folded; a residual and an If that captures.
const walkModel = `
<ir_version: 10, opset_import: ["" : 21]>
walk (float[N,2] x, bool c) => (float[N,2] y)
<float[2,2] w1 = {1, 2, 3, 4}, float[2,2] w2 = {1, 0, 1, 1}>
{
  a = MatMul (x, w1)
  t = Transpose <perm = [1, 0]> (w2)
  r = Relu (a)
  b = MatMul (r, t)
  s = Add (b, x)
  y = If (c) <
    then_branch = yes () => (float[N,2] u) { u = Add (s, r) },
    else_branch = no () => (float[N,2] v) { v = Identity (s) }
  >
}`

func walkSamples(n int) ir.Samples {
	return func() iter.Seq2[ir.Tensors, error] {
		return func(yield func(ir.Tensors, error) bool) {
			for i := range n {
				x := ir.Floats([]float32{float32(i), 1, -2, float32(2 * i)}, 2, 2)
				if i%2 == 1 { // samples may differ in shape
					x = ir.Floats([]float32{float32(i), -1}, 1, 2)
				}
				if !yield(ir.Tensors{"x": x, "c": ir.FromSlice(ir.Bool, []int{}, []bool{i%3 == 0})}, nil) {
					return
				}
			}
		}
	}
}

// A walk sees what runs of a model see whose weights were those of the walk, in memory or by way of a file.
func TestWalk(t *testing.T) {
	t.Parallel()
	for _, held := range []int64{0, 1} {
		for _, jobs := range []int{1, 3} {
			t.Run(fmt.Sprintf("held=%d/jobs=%d", held, jobs), func(t *testing.T) {
				t.Parallel()
				m := parse(t, walkModel)
				const n = 7
				better := ir.Floats([]float32{2, -1, 0, 1}, 2, 2)
				other := ir.Floats([]float32{1, 3, 5, 7}, 2, 2)
				var nodes []*ir.Node
				for node := range m.Graph.Nodes() {
					if op.RoleOf(node) == op.ProductRole || len(node.Subgraphs()) > 0 {
						nodes = append(nodes, node)
					}
				}
				slices.Reverse(nodes) // the order of execution does not depend on it
				w, err := runtime.NewWalk(t.Context(), m, runtime.WalkOptions{Held: held, Jobs: jobs})
				if err != nil {
					t.Fatal(err)
				}
				var visited []string
				got := map[string][][]float32{}
				err = w.Run(t.Context(), walkSamples(n), nodes, func(node *ir.Node) error {
					visited = append(visited, node.Out(0).Name)
					watch := "x"
					switch node.Out(0).Name {
					case "b":
						watch = "r"
						if err := w.Replace(m.Find("w2"), other); err != nil {
							return err
						}
					case "y":
						watch = "s"
					default:
						if err := w.Replace(m.Find("w1"), better); err != nil {
							return err
						}
					}
					return w.Each(m.Find(watch), func(i int, x *ir.Tensor) error {
						if i != len(got[watch]) {
							return fmt.Errorf("sample %d came as number %d", i, len(got[watch]))
						}
						v, _ := x.Float32s()
						got[watch] = append(got[watch], slices.Clone(v))
						return nil
					})
				})
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff([]string{"a", "b", "y"}, visited); d != "" {
					t.Errorf("visited (-want +got):\n%s", d)
				}
				m.Find("w1").SetConst(better)
				m.Find("w2").SetConst(other)
				p, err := runtime.Compile(m)
				if err != nil {
					t.Fatal(err)
				}
				want := map[string][][]float32{}
				for in, err := range walkSamples(n)() {
					if err != nil {
						t.Fatal(err)
					}
					_, err := p.Watch(t.Context(), in, func(v *ir.Value, x *ir.Tensor) error {
						if v.Name == "x" || v.Name == "r" || v.Name == "s" {
							f, _ := x.Float32s()
							want[v.Name] = append(want[v.Name], slices.Clone(f))
						}
						return nil
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				if len(want["x"]) == 0 { // Watch shows computed values; inputs are the samples'
					for in := range walkSamples(n)() {
						f, _ := in["x"].Float32s()
						want["x"] = append(want["x"], f)
					}
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("values (-want +got):\n%s", d)
				}
			})
		}
	}
}

func TestWalkErrors(t *testing.T) {
	t.Parallel()
	m := parse(t, walkModel)
	first := func(m *ir.Model) []*ir.Node {
		for n := range m.Graph.Nodes() {
			return []*ir.Node{n}
		}
		return nil
	}
	walk := func() *runtime.Walk {
		w, err := runtime.NewWalk(t.Context(), m, runtime.WalkOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	none := func() iter.Seq2[ir.Tensors, error] { return func(func(ir.Tensors, error) bool) {} }
	if err := walk().Run(t.Context(), none, first(m), nil); err == nil {
		t.Error("a walk without samples succeeded")
	}
	w := walk()
	if err := w.Replace(m.Find("w1"), ir.Floats([]float32{1}, 1, 1)); err == nil {
		t.Error("a constant was replaced by one of another shape")
	}
	if err := w.Replace(m.Find("x"), ir.Floats([]float32{1}, 1, 1)); err == nil {
		t.Error("an input was replaced")
	}
	err := w.Run(t.Context(), walkSamples(2), first(m), func(*ir.Node) error {
		return w.Each(m.Find("s"), func(int, *ir.Tensor) error { return nil })
	})
	if err == nil {
		t.Error("a value was shown before it was computed")
	}
}
