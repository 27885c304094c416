package calib_test

import (
	"context"
	"errors"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/calib"
)

func method(t *testing.T, text string) calib.Method {
	t.Helper()
	m, err := calib.ParseMethod(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// observe feeds tensors, one sample each, in as many passes as the observer wants.
func observe(t *testing.T, r *calib.Range, samples ...[]float32) (lo, hi []float32, err error) {
	t.Helper()
	for pass := range r.Passes() {
		for i, s := range samples {
			if err := r.Observe(pass, i, ir.Floats(s, 1, len(s))); err != nil {
				return nil, nil, err
			}
		}
	}
	return r.Range()
}

func TestEdges(t *testing.T) {
	t.Parallel()
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, name := range []string{"max", "moving-average", "percentile", "percentile hist=none", "entropy", "mse", "mse hist=firstbatch", "percentile hist=firstbatch", "mse-exact", "octav"} {
		for _, format := range []string{"int8", "uint8"} {
			new := func() *calib.Range { return calib.NewRange(method(t, name), scheme(t, format), -1) }
			if lo, hi, err := observe(t, new(), []float32{0, 0, 0}); err != nil || lo[0] != 0 || hi[0] != 0 {
				t.Errorf("%s %s, zeros: [%v, %v], %v", name, format, lo, hi, err)
			}
			if lo, hi, err := observe(t, new(), []float32{3, 3}); err != nil || max(-lo[0], hi[0]) <= 0 || max(-lo[0], hi[0]) > 3 {
				t.Errorf("%s %s, constant 3: [%v, %v], %v", name, format, lo, hi, err)
			}
			for _, bad := range []float32{nan, inf, -inf} {
				if _, _, err := observe(t, new(), []float32{1, bad}); err == nil {
					t.Errorf("%s %s: %v must be an error", name, format, bad)
				}
			}
			if _, _, err := new().Range(); err == nil {
				t.Errorf("%s %s: a value never observed must be an error", name, format)
			}
			if _, _, err := observe(t, new(), []float32{}); err == nil {
				t.Errorf("%s %s: a value without elements must be an error", name, format)
			}
		}
	}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method, format string
		samples        [][]float32
		lo, hi         float32
	}{
		{"max", "int8", [][]float32{{1, -3}, {2, 0.5}}, -3, 2},
		{"max", "uint8", [][]float32{{1, -3}, {2, 0.5}}, -3, 2},
		{"moving-average", "uint8", [][]float32{{-1, 1}, {-2, 3}}, -1.01, 1.02},
		{"moving-average", "int8", [][]float32{{-1, 1}, {-2, 3}}, -1.02, 1.02}, // of |x|
		{"moving-average", "int8", [][]float32{{-3, 1}, {-1, 3}}, -3, 3},
		{"moving-average momentum=0.5", "uint8", [][]float32{{-1, 1}, {-2, 3}}, -1.5, 2},
		{"percentile p=50 hist=none", "int8", [][]float32{{-1, 0.5, 4, 2}, {1, 1, 1, 1}}, -1.5, 1.5}, // (1+2)/2, then 1
		{"percentile p=75 hist=none", "uint8", [][]float32{{-1, 0.5, 4, 2}}, -0.25, 3},               // ranks 2.25 and 0.75
		{"percentile p=75", "int8", [][]float32{{-2048, 1, 3, 100.5}}, -100, 100},                    // bins of 1, left edges
		{"percentile p=75 hist=firstbatch", "int8", [][]float32{{0, 0}, {0, -20.48}, {0.105, 40.96}}, -20.47, 20.47},
		{"percentile p=100 hist=firstbatch", "int8", [][]float32{{-1, 2048}, {4096.5, 0}}, -4096, 4096},
		{"entropy", "uint8", [][]float32{{0, 0, 3}}, 0, 3},
	} {
		lo, hi, err := observe(t, calib.NewRange(method(t, c.method), scheme(t, c.format), -1), c.samples...)
		if err != nil || lo[0] != c.lo || hi[0] != c.hi {
			t.Errorf("%s %s: [%v, %v], %v, want [%v, %v]", c.method, c.format, lo, hi, err, c.lo, c.hi)
		}
	}
}

func TestPerChannel(t *testing.T) {
	t.Parallel()
	r := calib.NewRange(method(t, "max"), scheme(t, "int8"), 1)
	for i, x := range [][]float32{{1, 2, -3, 4}, {-5, 0, 1, 1}} {
		if err := r.Observe(0, i, ir.Floats(x, 1, 2, 2)); err != nil {
			t.Fatal(err)
		}
	}
	lo, hi, err := r.Range()
	if err != nil || !slices.Equal(lo, []float32{-5, -3}) || !slices.Equal(hi, []float32{2, 4}) {
		t.Errorf("[%v, %v], %v", lo, hi, err)
	}
	if err := r.Observe(0, 2, ir.Floats([]float32{1, 2, 3}, 1, 3, 1)); err == nil {
		t.Error("another number of channels: want an error")
	}
}

func TestParseMethod(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"max", "percentile p=99.9", "mse start-bin=1 hist=firstbatch", "percentile hist=none", "entropy", "moving-average momentum=0.9"} {
		if got := method(t, text).String(); got != text {
			t.Errorf("%q prints as %q", text, got)
		}
	}
	for text, want := range map[string]string{"": "empty", "best": "wanted one of", "max p=3": "only percentile", "percentile p=0": "(0, 100]", "mse start-bin=x": "integer", "mse hist=x": "twopass", "entropy hist=none": "percentile only"} {
		if _, err := calib.ParseMethod(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", text, err, want)
		}
	}
}

// Ranges are the same for any order of samples and number of jobs.
func TestSweepIsDeterministic(t *testing.T) {
	t.Parallel()
	m, err := ir.Parse("test", []byte(`<ir_version: 8, opset_import: ["" : 17]>
net (float[N,64] x) => (float[N,64] y)
{
  a = Tanh (x)
  y = Mul (a, x)
}`))
	if err == nil {
		err = op.Infer(m)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]ir.Tensors, 40)
	for i := range data {
		x := make([]float32, 64*(1+i%3))
		for k := range x {
			x[k] = float32(r.NormFloat64())
		}
		data[i] = ir.Tensors{"x": ir.Floats(x, len(x)/64, 64)}
	}
	sweep := func(data []ir.Tensors, jobs int) (lo, hi float32) {
		rng := calib.NewRange(method(t, "mse"), scheme(t, "int8"), -1)
		samples := ir.Samples(func() iter.Seq2[ir.Tensors, error] {
			return func(yield func(ir.Tensors, error) bool) {
				for _, d := range data {
					if !yield(d, nil) {
						return
					}
				}
			}
		})
		if err := calib.Sweep(context.Background(), m, samples, []calib.Probe{{Value: m.Find("y"), Into: rng}}, calib.Options{Jobs: jobs}); err != nil {
			t.Fatal(err)
		}
		l, h, err := rng.Range()
		if err != nil {
			t.Fatal(err)
		}
		return l[0], h[0]
	}
	lo, hi := sweep(data, 1)
	reversed := slices.Clone(data)
	slices.Reverse(reversed)
	for _, jobs := range []int{1, 2, 5} {
		if l, h := sweep(reversed, jobs); l != lo || h != hi {
			t.Errorf("reversed, %d jobs: [%v, %v], want [%v, %v]", jobs, l, h, lo, hi)
		}
	}
}

func TestNoSamples(t *testing.T) {
	t.Parallel()
	m, err := ir.Parse("test", []byte(`<ir_version: 8, opset_import: ["" : 17]> net (float[2] x) => (float[2] y) { y = Relu (x) }`))
	if err != nil {
		t.Fatal(err)
	}
	none := ir.Samples(func() iter.Seq2[ir.Tensors, error] { return func(func(ir.Tensors, error) bool) {} })
	r := calib.NewRange(method(t, "max"), scheme(t, "int8"), -1)
	err = calib.Sweep(context.Background(), m, none, []calib.Probe{{Value: m.Find("y"), Into: r}}, calib.Options{})
	if !errors.Is(err, calib.ErrNoSamples) {
		t.Errorf("got %v, want ErrNoSamples", err)
	}
}
