package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/testdata/shared"
)

// joinedTolerance bounds the difference of a joined run from one that computes each value, relative to the largest
// magnitude of the output: joined steps keep the order of every long sum and differ in single roundings (an inverse in place of a
// quotient, a normalization multiplied into weights).
const joinedTolerance = 2e-5

// compareJoined runs a model step by step, which is what Watch does, and joined, which is what Run does.
func compareJoined(t *testing.T, m *ir.Model, in ir.Tensors) {
	t.Helper()
	compareJoinedWith(t, m, in, runtime.Options{})
}

func compareJoinedWith(t *testing.T, m *ir.Model, in ir.Tensors, o runtime.Options) {
	t.Helper()
	ctx := context.Background()
	for _, o.Poison = range []bool{false, true} {
		p, err := runtime.CompileWith(t.Context(), m, o)
		if err != nil {
			t.Fatal(err)
		}
		want, err := p.Watch(ctx, in, func(*ir.Value, *ir.Tensor) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second run works in what the first left behind
			got, err := p.Run(ctx, in)
			if err != nil {
				t.Fatal(err)
			}
			for name, w := range want {
				a, ok1 := w.Float32s()
				b, ok2 := got[name].Float32s()
				if !ok1 || !ok2 || len(a) != len(b) {
					t.Fatalf("output %q: %v, want %v", name, got[name].Type(), w.Type())
				}
				most, diff := 0.0, 0.0
				for i := range a {
					most = max(most, math.Abs(float64(a[i])))
					if a[i] != b[i] {
						diff = max(diff, math.Abs(float64(a[i])-float64(b[i])))
						if math.IsNaN(float64(a[i])) != math.IsNaN(float64(b[i])) {
							t.Fatalf("output %q[%d]: %v, want %v", name, i, b[i], a[i])
						}
					}
				}
				if diff > joinedTolerance*max(most, 1) {
					t.Errorf("output %q: differs by %g where the greatest magnitude is %g", name, diff, most)
				}
			}
		}
	}
}

// TestJoinedRunEqualsWatch covers every model at hand that comes with inputs.
func TestJoinedRunEqualsWatch(t *testing.T) {
	t.Parallel()
	folders := []string{"../testdata/opt-nano", "../testdata/conv-nano"}
	t.Run("testdata", func(t *testing.T) { compareFolders(t, folders) })
	t.Run("shared", func(t *testing.T) {
		var folders []string
		for _, kind := range []string{"zoo", "models"} {
			found, err := filepath.Glob(filepath.Join(shared.Dir(t), kind, "*"))
			if err != nil {
				t.Fatal(err)
			}
			folders = append(folders, found...)
		}
		compareFolders(t, folders)
	})
}

func compareFolders(t *testing.T, folders []string) {
	for _, dir := range folders {
		if _, err := os.Stat(filepath.Join(dir, "test_data_set_0")); err != nil {
			continue
		}
		if testing.Short() && filepath.Base(dir) != "opt-nano" {
			continue
		}
		t.Run(filepath.Base(dir), func(t *testing.T) {
			m, err := frontend.Load(filepath.Join(dir, "model.onnx"))
			if err != nil {
				t.Fatal(err)
			}
			samples, err := frontend.Samples(dir, m, frontend.DataOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for in, err := range samples() {
				if err != nil {
					t.Fatal(err)
				}
				compareJoined(t, m, in)
				break
			}
		})
	}
}

// TestJoinedSpecials: patterns whose shapes in a run are not what they are made for, values on the way that are outputs,
// quantizers of probabilities.
func TestJoinedSpecials(t *testing.T) {
	t.Parallel()
	const head = `<ir_version: 10, opset_import: ["" : 21, "qsimc" : 1]>
`
	const weight = `<float[4,3] w = {1,2,3,4,5,6,7,8,9,10,11,12}, float[3] b = {1,2,3}>`
	for name, c := range map[string]struct {
		text string
		in   ir.Tensors
	}{
		"residual that broadcasts": {`m (float[N,4] x, float[A,3] r) => (float[B,3] y) ` + weight + ` {
			p = MatMul (x, w)
			q = Add (p, b)
			s = Add (q, r)
			y = Relu (s)
		}`, ir.Tensors{"x": ramp(2, 4), "r": ramp(1, 3)}},
		"residual of the same shape": {`m (float[N,4] x, float[N,3] r) => (float[N,3] y) ` + weight + ` {
			p = MatMul (x, w)
			q = Add (b, p)
			s = Add (r, q)
			y = Relu (s)
		}`, ir.Tensors{"x": ramp(2, 4), "r": ramp(2, 3)}},
		"a value between is an output": {`m (float[N,4] x) => (float[N,3] p, float[N,3] y) ` + weight + ` {
			p = MatMul (x, w)
			q = Add (p, b)
			y = Sigmoid (q)
		}`, ir.Tensors{"x": ramp(2, 4)}},
		"attention, mask of one row": {`m (float[1,2,3,4] q, float[1,2,5,4] k, float[1,2,5,4] v, float[1,1,1,5] mask) => (float[1,3,2,4] y) <float two = {2}> {
			kt = Transpose <perm = [0, 1, 3, 2]> (k)
			s = MatMul (q, kt)
			d = Div (s, two)
			m = Add (d, mask)
			p = Softmax <axis = -1> (m)
			c = MatMul (p, v)
			y = Transpose <perm = [0, 2, 1, 3]> (c)
		}`, ir.Tensors{"q": ramp(1, 2, 3, 4), "k": ramp(1, 2, 5, 4), "v": ramp(1, 2, 5, 4), "mask": ir.Floats([]float32{0, 0, 0, -1e38, -1e38}, 1, 1, 1, 5)}},
		"mask that makes the scores larger": {`m (float[1,1,2,2] q, float[B,1,2,2] mask) => (float[B,1,2,2] y) {
			s = MatMul (q, q)
			m = Add (s, mask)
			p = Softmax (m)
			y = MatMul (p, q)
		}`, ir.Tensors{"q": ramp(1, 1, 2, 2), "mask": ramp(2, 1, 2, 2)}},
		"group normalization": {`m (float[N,4,H,W] x) => (float[A,B,C,D] y) <int64[3] to = {0,2,-1}, float[2] s = {2,3}, float[2] b = {0.5,-1}, float[4,1,1] gamma = {1,2,-3,4}, float[4,1,1] beta = {0,1,2,3}> {
			back = Shape (x)
			g = Reshape (x, to)
			i = InstanceNormalization (g, s, b)
			c = Reshape (i, back)
			m = Mul (gamma, c)
			a = Add (m, beta)
			p = Sigmoid (a)
			y = Mul (p, a)
		}`, ir.Tensors{"x": ramp(3, 4, 5, 2)}},
		"group normalization that is shaped otherwise": {`m (float[N,4,H,W] x, int64[4] back) => (float[A,B,C,D] y) <int64[3] to = {0,2,-1}, float[2] s = {2,3}, float[2] b = {0.5,-1}, float[4,1,1] gamma = {1,2,-3,4}, float[4,1,1] beta = {0,1,2,3}> {
			g = Reshape (x, to)
			i = InstanceNormalization (g, s, b)
			c = Reshape (i, back)
			m = Mul (gamma, c)
			a = Add (m, beta)
			p = Sigmoid (a)
			y = Mul (p, a)
		}`, ir.Tensors{"x": ramp(3, 4, 5, 2), "back": ir.Ints(3, 4, 2, 5)}},
		"quantized probabilities": {`m (float[1,1,3,4] q, float[1,1,4,5] k, float[1,1,5,4] v) => (float[1,1,3,4] y, float[1,1,3,4] z) <float s1 = {0.01}, uint8 z1 = {3}> {
			s = MatMul (q, k)
			p = Softmax (s)
			f = qsimc.FakeQuant <scheme = "int4/block=4", axis = 3> (p)
			y = MatMul (f, v)
			s2 = MatMul (q, k)
			p2 = Softmax (s2)
			q2 = QuantizeLinear (p2, s1, z1)
			d2 = DequantizeLinear (q2, s1, z1)
			z = MatMul (d2, v)
		}`, ir.Tensors{"q": ramp(1, 1, 3, 4), "k": ramp(1, 1, 4, 5), "v": ramp(1, 1, 5, 4)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := ir.Parse(name, []byte(head+c.text))
			if err != nil {
				t.Fatal(err)
			}
			if err := op.Infer(m); err != nil {
				t.Fatal(err)
			}
			compareJoined(t, m, c.in)
		})
	}
}

func ramp(shape ...int) *ir.Tensor {
	n, err := ir.Numel(shape)
	if err != nil {
		panic(err)
	}
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(i*7%11)/5 - 1
	}
	return ir.Floats(v, shape...)
}

// TestNoGrowth: what a run leaves behind is used by the next; a thousand runs hold no more than ten.
func TestNoGrowth(t *testing.T) {
	m, err := ir.Parse("growth", []byte(`<ir_version: 10, opset_import: ["" : 21]>
m (float[N,64] x) => (float[N,64] y) {
	s = MatMul (x, x)
	e = Exp (s)
	n = Neg (e)
	t = Transpose (n)
	y = Sigmoid (t)
}`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := runtime.Compile(m)
	if err != nil {
		t.Fatal(err)
	}
	runs := func(n int) uint64 {
		for range n {
			if _, err := p.Run(context.Background(), ir.Tensors{"x": ramp(64, 64)}); err != nil {
				t.Fatal(err)
			}
		}
		var s goruntime.MemStats
		goruntime.GC()
		goruntime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	few := runs(10)
	lend := func(n int) uint64 {
		var before, after goruntime.MemStats
		in := ir.Tensors{"x": ramp(64, 64)}
		goruntime.ReadMemStats(&before)
		for range n {
			if err := p.Lend(context.Background(), in, func(out ir.Tensors) error {
				if out["y"].Len() != 64*64 {
					return errors.New("no result")
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		goruntime.ReadMemStats(&after)
		return (after.TotalAlloc - before.TotalAlloc) / uint64(n)
	}
	lend(1)
	switch each := lend(1000); {
	case testing.Short():
		t.Log("short, as under the race detector, which makes pools forget: what a run allocates is not checked")
	case each > 64*64*4/2:
		t.Errorf("a run allocates %d bytes where results of %d bytes are lent", each, 64*64*4)
	}
	if many := runs(1000); many > few+few/10+1<<20 {
		t.Errorf("%d bytes alive after 1000 runs, %d after 10", many, few)
	}
}

// A concatenation of channels is written by the convolutions that make them; a Dropout without training is its input.
func TestJoinedChannels(t *testing.T) {
	for name, src := range map[string]string{
		"two": `c0 = Conv <pads=[1,1,1,1]> (x, w0, b0)
			r0 = Relu (c0)
			c1 = Conv (x, w1)
			y = Concat <axis=1> (r0, c1)`,
		"one of two, residual, slow activation": `c0 = Conv <pads=[1,1,1,1]> (x, w0, b0)
			a0 = Add (c0, x)
			g = Sigmoid (a0)
			j = Concat <axis=-3> (x, g)
			y, mask = Dropout (j)`,
		"residual of each channel": `c0 = Conv <pads=[1,1,1,1]> (x, w0, b0)
			a0 = Add (c0, t)
			r0 = Relu (a0)
			c1 = Conv (x, w1)
			a1 = Add (t, c1)
			y = Concat <axis=1> (r0, a1)`,
		"read twice": `c0 = Conv <pads=[1,1,1,1]> (x, w0, b0)
			j = Concat <axis=1> (c0, c0)
			y = Mul (j, j)`,
		"other axis": `c0 = Conv <pads=[1,1,1,1]> (x, w0, b0)
			c1 = Conv (x, w1)
			y = Concat <axis=2> (c0, c1)`,
		"of other sizes": `c0 = Conv (x, w0, b0)
			j = Concat <axis=1> (c0, z)
			y = Relu (j)`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			values := func(n int) string {
				v := make([]string, n)
				for i := range v {
					v[i] = fmt.Sprint(float32(i*7%11)/4 - 1)
				}
				return strings.Join(v, ",")
			}
			m := parse(t, `<ir_version: 10, opset_import: ["": 21]>
				g (float[2,3,6,7] x, float[2,5,4,5] z, float[2,3,1,1] t) => (float[A,B,C,D] y)
				<float[3,3,3,3] w0 = {`+values(81)+`}, float[3] b0 = {`+values(3)+`}, float[3,3,1,1] w1 = {`+values(9)+`}> {
				`+src+`
			}`)
			in := ir.Tensors{"x": ramp(2, 3, 6, 7), "z": ramp(2, 5, 4, 5), "t": ramp(2, 3, 1, 1)}
			compareJoined(t, m, in)
		})
	}
}

// The maxima of a convolution's windows are taken while its result is in the cache.
func TestJoinedPool(t *testing.T) {
	var w []string
	for i := range 20 * 3 * 9 {
		w = append(w, fmt.Sprint(float32(i*31%61)/64-0.5))
	}
	for name, c := range map[string]struct {
		src   string
		steps []string
	}{
		"plain": {`c = Conv <strides=[2,2]> (x, w)
			r = Relu (c)
			y = MaxPool <kernel_shape=[3,3], strides=[2,2]> (r)`, []string{"convolution and MaxPool"}},
		"pads, ceil": {`c = Conv <pads=[1,1,1,1]> (x, w)
			y = MaxPool <kernel_shape=[2,3], strides=[2,2], pads=[1,1,0,1], ceil_mode=1> (c)`, []string{"convolution and MaxPool"}},
		"read twice": {`c = Conv (x, w)
			p = MaxPool <kernel_shape=[2,2]> (c)
			a = ReduceMax <keepdims=1> (c)
			y = Add (p, a)`, []string{"convolution", "MaxPool", "ReduceMax", "Add"}},
		"slow activation": {`c = Conv (x, w)
			s = Sigmoid (c)
			y = MaxPool <kernel_shape=[2,2]> (s)`, []string{"convolution", "MaxPool"}},
		"indices": {`c = Conv (x, w)
			p, i = MaxPool <kernel_shape=[2,2]> (c)
			f = Cast <to=1> (i)
			y = Add (p, f)`, []string{"convolution", "MaxPool", "Cast", "Add"}},
		"a large window": {`c = Conv <pads=[1,1,1,1]> (x, w)
			y = MaxPool <kernel_shape=[7,7]> (c)`, []string{"convolution and MaxPool"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := parse(t, `<ir_version: 10, opset_import: ["": 21]>
				g (float[N,3,H,W] x) => (float[N,20,A,B] y) <float[20,3,3,3] w = {`+strings.Join(w, ",")+`}> {
				`+c.src+`
			}`)
			for _, size := range [][]int{{1, 33, 41}, {2, 8, 9}} {
				compareJoined(t, m, ir.Tensors{"x": ramp(size[0], 3, size[1], size[2])})
			}
			p, err := runtime.Compile(m)
			if err != nil {
				t.Fatal(err)
			}
			if got := runtime.Steps(p); !slices.Equal(got, c.steps) {
				t.Errorf("runs %v, want %v", got, c.steps)
			}
		})
	}
}

// 3×3 windows of many channels go by Winograd's algorithm where the images are large enough, with what normalizes them in the weights.
func TestJoinedWinograd(t *testing.T) {
	const c = 17
	var w, b []string
	for i := range c * c * 9 {
		w = append(w, fmt.Sprint(float32(i*31%61)/64-0.5))
	}
	for i := range c {
		b = append(b, fmt.Sprint(float32(i%5)/2+0.25))
	}
	consts, channel := fmt.Sprintf("float[%d,%d,3,3] w = {%s}", c, c, strings.Join(w, ",")), fmt.Sprintf("float[%d] b = {%s}", c, strings.Join(b, ","))
	m := parse(t, `<ir_version: 10, opset_import: ["": 21]>
		g (float[N,17,H,W] x, float[N,17,1,1] t) => (float[N,17,H,W] y) <`+consts+", "+channel+`> {
		c0 = Conv <pads=[1,1,1,1]> (x, w)
		n0 = BatchNormalization (c0, b, b, b, b)
		r0 = Relu (n0)
		c1 = Conv <pads=[1,1,1,1]> (r0, w, b)
		a1 = Add (c1, x)
		c2 = Conv <pads=[1,1,1,1]> (a1, w, b)
		y = Add (c2, t)
	}`)
	for _, size := range [][]int{{1, 8, 9}, {3, 14, 7}, {2, 5, 40}} {
		compareJoined(t, m, ir.Tensors{"x": ramp(size[0], c, size[1], size[2]), "t": ramp(size[0], c, 1, 1)})
	}
}
