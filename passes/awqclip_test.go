package passes

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
)

// The scales that AWQ's search finds are those with the least error of the outputs, block by block, by brute force.
func TestAWQClip(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	const k, n, rows, block = 64, 3, 80, 32
	x, w := make([]float32, rows*k), make([]float32, k*n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	m := ir.NewModel(21)
	g := m.Graph
	in := g.AddInput("x", ir.FixedType(ir.Float32, rows, k))
	y := g.Insert(nil, "y", ir.Op("MatMul"), []*ir.Value{in, g.AddConst("w", ir.Floats(w, k, n))}, []string{"y"})
	y.Out(0).Type = ir.FixedType(ir.Float32, rows, n)
	g.AddOutput("y", y.Out(0))
	u := &Unit{Model: m, Policy: &Policy{}, Samples: func() iterTensors {
		return func(yield func(ir.Tensors, error) bool) { yield(ir.Tensors{"x": ir.Floats(x, rows, k)}, nil) }
	}, Report: &Report{}, entry: &PassEntry{}}
	if err := u.Policy.Default.Set(numfmt.Weight, "int3/block=32"); err != nil {
		t.Fatal(err)
	}
	if err := awq(t.Context(), u, AWQOptions{Sites: "all", Clip: true}); err != nil {
		t.Fatal(err)
	}
	if len(u.fitted) != 1 {
		t.Fatalf("%d weights have scales, wanted one: %+v", len(u.fitted), u.entry)
	}
	// the products read the input through a Mul: both as they now are
	mul := y.In(0).DefNode()
	by, _ := mul.In(1).Const().Float32s()
	for i := range x {
		x[i] *= by[i%k]
	}
	w, _ = y.In(1).Const().Float32s()
	for _, p := range u.fitted {
		smaller := 0
		for b := range k / block {
			for o := range n {
				best, least := float32(0), math.Inf(1)
				var top float32
				for c := b * block; c < (b+1)*block; c++ {
					top = max(top, w[c*n+o], -w[c*n+o])
				}
				for step := range 10 {
					scale := float32(float64(top)*(1-float64(step)/20)) / 3
					sum := 0.0
					for i := range rows {
						d := 0.0
						for c := b * block; c < (b+1)*block; c++ {
							q := min(max(math.RoundToEven(float64(w[c*n+o]/scale)), -3), 3)
							d += float64(x[i*k+c]) * (float64(float32(q)*scale) - float64(w[c*n+o]))
						}
						sum += d * d
					}
					if sum < least*(1-1e-9) {
						best, least = scale, sum
					}
				}
				if !slices.Contains(p.params.Scale, best) {
					t.Errorf("block %d of output %d: no scale is %v: %v", b, o, best, p.params.Scale)
				}
				if best < top/3*.99 {
					smaller++
				}
			}
		}
		if smaller == 0 {
			t.Error("no block has a smaller scale than its largest weight asks for")
		}
	}
}
