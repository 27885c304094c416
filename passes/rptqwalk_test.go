package passes

import (
	"math"
	"slices"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
)

// With inputs=quantized the scales are those of the ranges that the quantized model itself has on the samples; with inputs=float
// they are others. The layouts have the same.
func TestRPTQQuantizedInputs(t *testing.T) {
	t.Parallel()
	scales := map[string][]float32{} // by options
	for _, c := range []struct {
		options     string
		least, most float64 // how far the scales may be from those of the ranges
	}{{"inputs=quantized", 0, 1e-5}, {"inputs=float", .01, math.Inf(1)}} {
		u := clusteredZoo(t, "opt-nano", "nano_calib_128.npy", 2, "int4", "range=max "+c.options)
		worst := 0.0
		for _, q := range quantizerRanges(t, u) {
			f, err := op.ReadFakeQuant(q.node)
			if err != nil {
				t.Fatal(err)
			}
			want, err := f.Scheme.Fit([]float32{q.lo}, []float32{q.hi})
			if err != nil {
				t.Fatal(err)
			}
			worst = max(worst, math.Abs(float64(q.scale/want.Scale[0])-1))
			scales[c.options] = append(scales[c.options], q.scale)
		}
		if n := len(scales[c.options]); n < 100 || worst < c.least || worst > c.most {
			t.Errorf("%s: %d clusters, scales differ by up to %.3g, wanted %v to %v", c.options, n, worst, c.least, c.most)
		}
	}
	var gathered []float32
	for _, q := range quantizerRanges(t, clusteredZoo(t, "opt-nano", "nano_calib_128.npy", 2, "int4", "range=max inputs=quantized layout=gather")) {
		gathered = append(gathered, q.scale)
	}
	distinct := func(x []float32) []float32 { slices.Sort(x); return slices.Compact(x) }
	if a, b := distinct(scales["inputs=quantized"]), distinct(gathered); !slices.Equal(a, b) {
		t.Errorf("%d different scales, with layout=gather %d, or others", len(a), len(b))
	}
}

// quantizerRange is what a quantizer reads of one cluster.
type quantizerRange struct {
	node   *ir.Node
	scale  float32
	lo, hi float32
}

// quantizerRanges runs a model on its samples and returns the ranges of all that rptq quantizes, channels with the same
// parameters taken together.
func quantizerRanges(t *testing.T, u *Unit) []*quantizerRange {
	t.Helper()
	type key struct {
		value       *ir.Value
		scale, zero float32
	}
	by := map[key]*quantizerRange{}
	quantizers := map[*ir.Value]*ir.Node{}
	for n := range u.own {
		quantizers[n.In(0)] = n
	}
	var all []*quantizerRange
	prog, err := runtime.Compile(u.Model)
	if err != nil {
		t.Fatal(err)
	}
	for s, err := range u.Samples() {
		if err != nil {
			t.Fatal(err)
		}
		_, err := prog.Watch(t.Context(), s, func(v *ir.Value, x *ir.Tensor) error {
			n := quantizers[v]
			if n == nil || op.RoleOf(v.DefNode()) == op.SoftmaxRole {
				return nil
			}
			scale, _ := n.In(1).Const().Float32s()
			zero, _ := n.In(2).Const().Float32s()
			data, _ := x.Float32s()
			for i, e := range data {
				k := key{v, scale[i%len(scale)], zero[i%len(scale)]}
				if by[k] == nil {
					by[k] = &quantizerRange{n, k.scale, e, e}
					all = append(all, by[k])
				}
				by[k].lo, by[k].hi = min(by[k].lo, e), max(by[k].hi, e)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}
