package calib_test

import (
	"iter"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/calib"
)

// total counts what it sees.
type total struct {
	n   int
	sum float64
}

func (o *total) Passes() int   { return 1 }
func (o *total) Ordered() bool { return true }
func (o *total) Observe(_, _ int, t *ir.Tensor) error {
	x, _ := t.Float32s()
	o.n += len(x)
	for _, v := range x {
		o.sum += float64(v)
	}
	return nil
}

// A model that takes four samples at once gets the last group filled up; what is observed is the samples and nothing else,
// wherever the batch lies in a value.
func TestFillingIsNotObserved(t *testing.T) {
	t.Parallel()
	m, err := ir.Parse("test", []byte(`<ir_version: 8, opset_import: ["" : 17]>
net (float[4,3,2] x) => (float[4,3,2] y)
<int64[2] flat = {12, 2}, int64[3] back = {4, 3, 2}, float[2] w = {1, 2}>
{
  a = Tanh (x)
  swapped = Transpose <perm = [1, 0, 2]> (a)
  merged = Reshape (a, flat)
  scaled = Mul (merged, w)
  same = Sqrt (w)
  mean = ReduceMean <axes = [0], keepdims = 1> (a)
  z = Reshape (scaled, back)
  v = Add (z, mean)
  u = Transpose <perm = [1, 0, 2]> (swapped)
  b = Mul (u, same)
  y = Add (v, b)
}`))
	if err == nil {
		err = op.Infer(m)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{8, 7, 6, 5, 3, 1} {
		var groups []ir.Tensors
		want := 0.0
		for at := 0; at < n; at += 4 {
			x := make([]float32, 24)
			for i := range x {
				x[i] = float32(r.NormFloat64())
			}
			real := min(n-at, 4)
			for i := real * 6; i < 24; i++ {
				x[i] = x[i-6]
			}
			for _, v := range x[:real*6] {
				want += math.Tanh(float64(v))
			}
			groups = append(groups, ir.Tensors{"x": ir.Floats(x, 4, 3, 2).Filled(4 - real)})
		}
		samples := func() iter.Seq2[ir.Tensors, error] {
			return func(yield func(ir.Tensors, error) bool) {
				for _, g := range groups {
					if !yield(g, nil) {
						return
					}
				}
			}
		}
		observe := func() (map[string]*total, []calib.Probe) {
			by := map[string]*total{}
			var probes []calib.Probe
			for _, name := range []string{"a", "swapped", "merged", "scaled", "mean"} {
				by[name] = &total{}
				probes = append(probes, calib.Probe{Value: m.Find(name), Into: by[name]})
			}
			return by, probes
		}
		check := func(how string, by map[string]*total) {
			for name, o := range by {
				count := 6 * n
				if name == "mean" { // the filling is in all of it
					count = 6 * len(groups)
				}
				if o.n != count {
					t.Errorf("%s, %d samples: %q gave %d elements, want %d", how, n, name, o.n, count)
				}
			}
			for _, name := range []string{"a", "swapped", "merged"} {
				if o := by[name]; math.Abs(o.sum-want) > 1e-5 {
					t.Errorf("%s, %d samples: the sum of %q is %v, want %v", how, n, name, o.sum, want)
				}
			}
		}
		by, probes := observe()
		if err := calib.Sweep(t.Context(), m, samples, probes, calib.Options{}); err != nil {
			t.Fatal(err)
		}
		check("sweep", by)
		by, probes = observe()
		var stops []calib.Stop
		for i := range probes {
			u := probes[i].Value.Uses()[0]
			stops = append(stops, calib.Stop{Node: u.Node, Probes: probes[i : i+1]})
		}
		if err := calib.SweepNodes(t.Context(), m, nil, samples, stops, calib.Options{}, func(*runtime.Walk, *ir.Node) error { return nil }); err != nil {
			t.Fatal(err)
		}
		check("node by node", by)
	}
}
