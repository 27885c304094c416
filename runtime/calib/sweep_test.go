package calib_test

import (
	"iter"
	"math"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/calib"
)

const layers = `
<ir_version: 10, opset_import: ["" : 21]>
layers (float[N,512] x) => (float[N,512] y)
<float w1 = {0}, float w2 = {0}, float[1] one = {1}>
{
  a = MatMul (x, w1)
  b = Relu (a)
  c = MatMul (b, w2)
  d = Softmax <axis = -1> (c)
  t = Transpose <perm = [1, 0]> (w1)
  e = MatMul (d, t)
  y = Add (e, one)
}`

// Ranges do not depend on whether the weights fit into memory: the model is then swept node by node.
func TestSweepBeyondMemory(t *testing.T) {
	t.Parallel()
	m, err := ir.Parse("layers", []byte(layers))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"w1", "w2"} {
		w := ir.NewTensor(ir.Float32, 512, 512)
		for i := range ir.Data[float32](w) {
			ir.Data[float32](w)[i] = float32(math.Cos(float64(3*i+len(name)))) / 16
		}
		m.Find(name).SetConst(w)
	}
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	samples := func() iter.Seq2[ir.Tensors, error] {
		return func(yield func(ir.Tensors, error) bool) {
			for k := range 5 {
				x := ir.NewTensor(ir.Float32, 2+k, 512)
				for i := range ir.Data[float32](x) {
					ir.Data[float32](x)[i] = float32(math.Sin(float64(i * (k + 1))))
				}
				if !yield(ir.Tensors{"x": x}, nil) {
					return
				}
			}
		}
	}
	s, err := numfmt.ParseScheme("int8", numfmt.Input)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"max", "mse", "moving-average", "octav"} {
		sweep := func(o runtime.Options, values ...string) (out [][2]float32) {
			var probes []calib.Probe
			for _, v := range values {
				probes = append(probes, calib.Probe{Value: m.Find(v), Into: calib.NewRange(method(t, name), s, -1)})
			}
			if err := calib.Sweep(t.Context(), m, samples, probes, calib.Options{Runtime: o}); err != nil {
				t.Fatal(name, err)
			}
			for _, p := range probes {
				lo, hi, err := p.Into.(*calib.Range).Range()
				if err != nil {
					t.Fatal(name, err)
				}
				out = append(out, [2]float32{lo[0], hi[0]})
			}
			return out
		}
		for _, values := range [][]string{{"x", "b", "d"}, {"b", "y"}, {"d"}} { // nothing reads y: it is swept sample by sample
			want := sweep(runtime.Options{}, values...)
			got := sweep(runtime.Options{Hold: 1}, values...)
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("%s: value %q has range %v, %v beyond memory", name, values[i], want[i], got[i])
				}
			}
		}
	}
	for hold, sees := range map[int64]bool{0: true, 1: false} {
		wanted, spare := calib.NewRange(method(t, "max"), s, -1), calib.NewRange(method(t, "max"), s, -1)
		probes := []calib.Probe{{Value: m.Find("b"), Into: wanted}, {Value: m.Find("y"), Into: spare, Spare: true}}
		if err := calib.Sweep(t.Context(), m, samples, probes, calib.Options{Runtime: runtime.Options{Hold: hold}}); err != nil {
			t.Fatal(err)
		}
		_, _, err := wanted.Range()
		_, _, serr := spare.Range()
		if err != nil || (serr == nil) != sees {
			t.Errorf("hold %d: the observers have %v and %v, wanted the spare one to see something: %v", hold, err, serr, sees)
		}
	}
}

// faulty is an observer with a bug.
type faulty struct{}

func (faulty) Passes() int                        { return 1 }
func (faulty) Ordered() bool                      { return false }
func (faulty) Observe(int, int, *ir.Tensor) error { panic("out of range") }

// A bug in an observer ends the sweep with an error; samples on other cores do not wait for it for ever.
func TestSweepFaultyObserver(t *testing.T) {
	t.Parallel()
	m, err := ir.Parse("relu", []byte(`<ir_version: 10, opset_import: ["" : 21]> relu (float[N] x) => (float[N] y) { y = Relu (x) }`))
	if err != nil {
		t.Fatal(err)
	}
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	samples := func() iter.Seq2[ir.Tensors, error] {
		return func(yield func(ir.Tensors, error) bool) {
			for range 16 {
				if !yield(ir.Tensors{"x": ir.NewTensor(ir.Float32, 4)}, nil) {
					return
				}
			}
		}
	}
	err = calib.Sweep(t.Context(), m, samples, []calib.Probe{{Value: m.Find("y"), Into: faulty{}}}, calib.Options{Jobs: 4})
	if err == nil || !strings.Contains(err.Error(), "out of range") {
		t.Fatalf("got %v, wanted the panic as an error", err)
	}
}
