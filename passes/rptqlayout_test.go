package passes

import (
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/testdata/shared"
)

// clusteredZoo runs fold and rptq on a model of the zoo whose products, but for the head, quantize their inputs by scheme.
func clusteredZoo(t *testing.T, model, data string, count int, scheme, options string) *Unit {
	t.Helper()
	m, err := frontend.Load(filepath.Join(shared.Dir(t), "zoo", model, "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	samples, err := frontend.OpenData(filepath.Join(shared.Dir(t), "zoo", "data", data), m, frontend.DataOptions{Count: count})
	if err != nil {
		t.Fatal(err)
	}
	u := &Unit{Model: m, Samples: samples.Samples(), Policy: &Policy{}}
	none := numfmt.Scheme{}
	u.Policy.Head.Inputs = &none
	if err := u.Policy.Default.Set(numfmt.Input, scheme); err != nil {
		t.Fatal(err)
	}
	p, err := ParsePipeline("fold", "rptq "+options)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	return u
}

// On the same inputs both layouts round every channel to the same values, and a product's results agree to 1e-5 of their largest
// magnitude.
func TestRPTQLayoutSites(t *testing.T) {
	t.Parallel()
	for _, model := range []struct {
		name  string
		sites int
		data  string
	}{{"opt-nano", 32, "nano_calib_128.npy"}, {"llama-nano", 36, "nano_calib_128.npy"}, {"bert-mini", 49, "subjectivity_calib128.npz"},
		{"unet-mini", 50, "unet_calib64.npz"}} {
		t.Run(model.name, func(t *testing.T) {
			t.Parallel()
			units := map[string]*Unit{}
			for _, layout := range []string{"axis", "gather"} {
				units[layout] = clusteredZoo(t, model.name, model.data, 1, "int8", "layout="+layout)
			}
			orders := map[string]moves{}
			for _, g := range units["gather"].gathered {
				if g.target.ordered == "" {
					continue
				}
				r, err := g.target.order.arrange(g.target.c.perm)
				if err != nil {
					t.Fatal(err)
				}
				for v, m := range r.values {
					orders[v.Name] = m
				}
			}
			a, b := products(units["axis"].Model), products(units["gather"].Model)
			prog, err := runtime.Compile(units["axis"].Model)
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]*ir.Tensor{}
			for s, err := range units["axis"].Samples() {
				if err != nil {
					t.Fatal(err)
				}
				if _, err := prog.Watch(t.Context(), s, func(v *ir.Value, x *ir.Tensor) error { seen[v.Name] = x; return nil }); err != nil {
					t.Fatal(err)
				}
			}
			sites := 0
			for _, name := range slices.Sorted(maps.Keys(a)) {
				from, want := computeProduct(t, a[name], seen, nil)
				same, got := computeProduct(t, b[name], seen, orders)
				if from == "" && same == "" {
					continue // not quantized by clusters
				}
				if from != same {
					t.Fatalf("%s reads %q and %q", name, from, same)
				}
				sites++
				most, diff := 0.0, 0.0
				for i := range want {
					most = max(most, math.Abs(float64(want[i])))
					diff = max(diff, math.Abs(float64(want[i])-float64(got[i])))
				}
				if !(diff <= 1e-5*most) {
					t.Errorf("%s: the layouts differ by %.3g of the largest magnitude", name, diff/most)
				}
			}
			if sites != model.sites {
				t.Errorf("%d products compared, wanted %d", sites, model.sites)
			}
		})
	}
}

// products lists a model's products by name: those with weights, and of two activations.
func products(m *ir.Model) map[string]*ir.Node {
	all := map[string]*ir.Node{}
	for _, s := range FindSites(m) {
		if op.RoleOf(s.Node) == op.ProductRole {
			all[s.Node.Name] = s.Node
		}
	}
	return all
}

// computeProduct runs a product, with what rptq put before it, on recorded values, which it gets in the order that orders gives
// them; its result is brought back from the order that it has. from names the values that were quantized, "" if none was.
func computeProduct(t *testing.T, n *ir.Node, seen map[string]*ir.Tensor, orders map[string]moves) (from string, y []float32) {
	t.Helper()
	nodes := []*ir.Node{n}
	quantized := false
	for i := 0; i < len(nodes); i++ {
		for _, v := range nodes[i].Ins() {
			if d := v.DefNode(); d != nil && d.Origin != "" && !slices.Contains(nodes, d) {
				nodes = append(nodes, d)
				quantized = quantized || op.RoleOf(d) == op.QuantRole
			}
		}
	}
	if !quantized {
		return "", nil
	}
	feed := ir.Tensors{}
	for _, v := range boundary(nodes) {
		x := seen[v.Name]
		if x == nil {
			t.Fatalf("%v reads %v", n, v.Name)
		}
		if m, ok := orders[v.Name]; ok {
			var err error
			if x, err = m.apply(x); err != nil {
				t.Fatal(err)
			}
		}
		feed[v.Name] = x
	}
	p, err := runtime.Compile(extract(nodes, []*ir.Value{n.Out(0)}))
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Run(t.Context(), feed)
	if err != nil {
		t.Fatal(err)
	}
	r := out[n.Out(0).Name]
	if m, ok := orders[n.Out(0).Name]; ok {
		if r, err = m.inverse().apply(r); err != nil {
			t.Fatal(err)
		}
	}
	y, _ = r.Float32s()
	return strings.Join(slices.Sorted(maps.Keys(feed)), " "), y
}
