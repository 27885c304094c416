package passes_test

import (
	"math"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/passes/recipe"
	"github.com/qsimc/qsimc/runtime"
)

// What fakequant keeps for the reference gives the outputs of the model as it came, by running less of it; where a pass before has
// changed what the model computes, or no activation is measured, nothing is kept.
func TestReference(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		model, inputs, steps string
		kept                 bool
	}{
		{"opt-nano", "int8", "fold; fakequant", true},
		{"llama-nano", "int8", "fold; fakequant", true},
		{"bert-mini", "int8", "fakequant", true},
		{"opt-nano", "int8", "fold; smoothquant; fakequant", false},
		{"opt-nano", "int8", "fold; fakequant measure=2", false},
		{"opt-nano", "none", "fold; fakequant", false},
	} {
		t.Run(c.model+"/"+c.steps+"/"+c.inputs, func(t *testing.T) {
			t.Parallel()
			m := load(t, c.model)
			samples := zooSamples(t, c.model, m, 3)
			p, err := passes.ParsePipeline(c.steps)
			if err != nil {
				t.Fatal(err)
			}
			pol, err := recipe.ParsePolicy("policy", []byte("default: {weights: int8/axis=out, inputs: "+c.inputs+"}"))
			if err != nil {
				t.Fatal(err)
			}
			changed, _ := m.Clone()
			ref := &passes.Reference{Samples: 3}
			u := &passes.Unit{Model: changed, Policy: pol, Samples: samples, Reference: ref}
			if err := p.Run(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			if kept := ref.Rest != nil; kept != c.kept {
				t.Fatalf("the reference was kept: %v, wanted %v", kept, c.kept)
			}
			if !c.kept {
				return
			}
			if len(ref.Feeds) != 3 || ref.Rest.Graph.Len() >= m.Graph.Len()/4 {
				t.Errorf("%d samples and %d of %d nodes were kept, wanted 3 samples and few nodes", len(ref.Feeds), ref.Rest.Graph.Len(), m.Graph.Len())
			}
			whole, err := runtime.Compile(m)
			if err != nil {
				t.Fatal(err)
			}
			rest, err := runtime.CompileWith(t.Context(), ref.Rest, runtime.Options{RunOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			i := 0
			for in, err := range samples() {
				if err != nil {
					t.Fatal(err)
				}
				want, err := whole.Run(t.Context(), in)
				if err != nil {
					t.Fatal(err)
				}
				got, err := rest.Run(t.Context(), ref.Feeds[i])
				if err != nil {
					t.Fatal(err)
				}
				i++
				for _, o := range m.Graph.Outputs() {
					near(t, o.Name, got[o.Name], want[o.Name])
				}
			}
		})
	}
}

// near fails where two tensors differ by more than the rounding of float32 in another order of the same operations.
func near(t *testing.T, name string, got, want *ir.Tensor) {
	t.Helper()
	if got == nil {
		t.Errorf("output %q is missing", name)
		return
	}
	x, _ := got.Float32s()
	y, _ := want.Float32s()
	if len(x) != len(y) {
		t.Errorf("output %q: %v, wanted %v", name, got.Type(), want.Type())
		return
	}
	top, off := 0.0, 0.0
	for i := range y {
		top = max(top, math.Abs(float64(y[i])))
		off = max(off, math.Abs(float64(x[i])-float64(y[i])))
	}
	if off > 1e-5*top {
		t.Errorf("output %q is off by %g of %g", name, off, top)
	}
}
