package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
)

func parse(t *testing.T, text string) *ir.Model {
	t.Helper()
	m, err := ir.Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	return m
}

// literal declares a constant of float32 in ONNX's text syntax.
func literal(name string, x *ir.Tensor) string {
	list := func(v any) string { return strings.ReplaceAll(strings.Trim(fmt.Sprint(v), "[]"), " ", ",") }
	return fmt.Sprintf("float[%s] %s = {%s}", list(x.Shape()), name, list(ir.Data[float32](x)))
}

const twoLayers = `<ir_version: 8, opset_import: ["" : 17]>
net (float[N,2] x) => (float[N,2] y)
<float[2,2] w = {1, 2, 3, 4}>
{
  a = MatMul (x, w)
  b = Relu (a)
  c = Reshape (b, shape)
  y = Add (c, b)
}`

func model(t *testing.T) *ir.Model {
	return parse(t, strings.Replace(twoLayers, "w = {1, 2, 3, 4}>", "w = {1, 2, 3, 4}, int64[2] shape = {-1, 2}>", 1))
}

func floats(v ...float32) *ir.Tensor { return ir.Floats(v, len(v)/2, 2) }

func TestRun(t *testing.T) {
	t.Parallel()
	for _, o := range []runtime.Options{{}, {Poison: true}} {
		p, err := runtime.CompileWith(t.Context(), model(t), o)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 { // later runs take their storage from the arena
			out, err := p.Run(context.Background(), ir.Tensors{"x": floats(1, -1, 0.5, 1)})
			if err != nil {
				t.Fatal(err)
			}
			if got := ir.Data[float32](out["y"]); !slices.Equal(got, []float32{0, 0, 7, 10}) {
				t.Errorf("y = %v, want [0 0 7 10]", got)
			}
		}
	}
}

// Results belong to the caller: a later run must not write over them.
func TestResultsAreKept(t *testing.T) {
	t.Parallel()
	p, err := runtime.Compile(model(t))
	if err != nil {
		t.Fatal(err)
	}
	first, err := p.Run(context.Background(), ir.Tensors{"x": floats(1, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Run(context.Background(), ir.Tensors{"x": floats(5, 5)}); err != nil {
		t.Fatal(err)
	}
	if got := ir.Data[float32](first["y"]); !slices.Equal(got, []float32{8, 12}) {
		t.Errorf("the first result became %v, want [8 12]", got)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	m := model(t)
	p, err := runtime.Compile(m)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string][]float32{}
	_, err = p.Watch(context.Background(), ir.Tensors{"x": floats(1, -1)}, func(v *ir.Value, x *ir.Tensor) error {
		if v.Graph() != m.Graph {
			t.Errorf("%q is not a value of the model that was compiled", v.Name)
		}
		if x.Elem() == ir.Float32 {
			seen[v.Name] = slices.Clone(ir.Data[float32](x))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]float32{"x": {1, -1}, "a": {-2, -2}, "b": {0, 0}, "y": {0, 0}} {
		if !slices.Equal(seen[name], want) {
			t.Errorf("%s = %v, want %v", name, seen[name], want)
		}
	}
	stop := errors.New("enough")
	if _, err := p.Watch(context.Background(), ir.Tensors{"x": floats(1, -1)}, func(*ir.Value, *ir.Tensor) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of the watcher: got %v", err)
	}
}

// All operators that cannot be run are named at once.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	m := parse(t, `<ir_version: 8, opset_import: ["" : 17, "custom" : 1]>
net (float[2] x) => (float[2] y)
{
  [first] a = custom.Mystery (x)
  b = Relu (a)
  [second] y = custom.Riddle (b)
}`)
	_, err := runtime.Compile(m)
	var u *runtime.Unsupported
	if !errors.As(err, &u) || !errors.Is(err, op.ErrUnsupported) {
		t.Fatalf("got %v, want an Unsupported", err)
	}
	if len(u.Nodes) != 2 || !strings.Contains(err.Error(), `"first"`) || !strings.Contains(err.Error(), `"second"`) {
		t.Errorf("got %v, want both nodes named", err)
	}
}

func TestBadInputs(t *testing.T) {
	t.Parallel()
	p, err := runtime.Compile(model(t))
	if err != nil {
		t.Fatal(err)
	}
	for want, in := range map[string]ir.Tensors{
		`input "x"`:        {},
		"wants float":      {"x": ir.Ints(1, 2)},
		"found float[1,3]": {"x": ir.Floats([]float32{1, 2, 3}, 1, 3)},
	} {
		if _, err := p.Run(context.Background(), in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one with %q", err, want)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	m := parse(t, `<ir_version: 8, opset_import: ["" : 17]>
net (int64[1] n) => (float[M] y)
{
  y = ConstantOfShape (n)
}`)
	p, err := runtime.CompileWith(t.Context(), m, runtime.Options{MaxMemory: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Run(context.Background(), ir.Tensors{"n": ir.Ints(1000)}); err != nil {
		t.Error(err)
	}
	for _, n := range []int64{1 << 20, 1 << 38, math.MaxInt64, -1} {
		if _, err := p.Run(context.Background(), ir.Tensors{"n": ir.Ints(n)}); err == nil {
			t.Errorf("%d elements: want an error", n)
		}
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	p, err := runtime.Compile(model(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.Run(ctx, ir.Tensors{"x": floats(1, 1)}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want cancellation", err)
	}
}

func TestForEach(t *testing.T) {
	t.Parallel()
	numbers := func(n int, fail error) func(func(int, error) bool) {
		return func(yield func(int, error) bool) {
			for i := range n {
				if !yield(i, nil) {
					return
				}
			}
			if fail != nil {
				yield(0, fail)
			}
		}
	}
	for _, jobs := range []int{1, 2, 7} {
		var order []int
		err := runtime.ForEach(context.Background(), jobs, numbers(50, nil), func(_ context.Context, i, x int) (int, error) {
			if i != x {
				return 0, fmt.Errorf("sample %d came as %d", x, i)
			}
			return 2 * x, nil
		}, func(i, twice int) {
			if order = append(order, i); twice != 2*i {
				t.Errorf("sample %d returned %d", i, twice)
			}
		})
		if err != nil || len(order) != 50 || !slices.IsSorted(order) {
			t.Errorf("jobs %d: %v, order %v", jobs, err, order)
		}
		bad := errors.New("bad")
		done := 0
		err = runtime.ForEach(context.Background(), jobs, numbers(50, nil), func(_ context.Context, i, _ int) (none struct{}, err error) {
			if i >= 20 {
				err = bad
			}
			return none, err
		}, func(int, struct{}) { done++ })
		if !errors.Is(err, bad) || done != 20 {
			t.Errorf("jobs %d: got %v after %d, want the error after 20", jobs, err, done)
		}
		if err = runtime.ForEach(context.Background(), jobs, numbers(3, bad), func(context.Context, int, int) (none struct{}, err error) { return none, nil }, func(int, struct{}) {}); !errors.Is(err, bad) {
			t.Errorf("jobs %d: got %v, want the source's error", jobs, err)
		}
	}
}

func TestDifference(t *testing.T) {
	t.Parallel()
	var d runtime.Difference
	if err := d.Add(floats(3, 4), floats(3, 3)); err != nil {
		t.Fatal(err)
	}
	if got := d.SQNR(); math.Abs(got-10*math.Log10(25)) > 1e-12 {
		t.Errorf("SQNR %v, want %v", got, 10*math.Log10(25))
	}
	if got := d.Cosine(); math.Abs(got-21/(5*math.Sqrt(18))) > 1e-12 || d.MaxAbs != 1 {
		t.Errorf("cosine %v, largest error %v", got, d.MaxAbs)
	}
	var same runtime.Difference
	if err := same.Add(floats(1, 2), floats(1, 2)); err != nil || !math.IsInf(same.SQNR(), 1) || same.Cosine() != 1 {
		t.Errorf("equal values: %v dB, cosine %v, %v", same.SQNR(), same.Cosine(), err)
	}
	if err := d.Add(floats(1, 2), floats(1, 2, 3, 4)); err == nil {
		t.Error("different shapes: want an error")
	}
}

// What is constant is computed by the compiler: a long computation there stops with its context.
func TestCompileCanceled(t *testing.T) {
	t.Parallel()
	m := parse(t, `<ir_version: 10, opset_import: ["" : 21]>
g (float[1] a) => (float[1,256,256,256] y)
<int64[4] s = {1, 256, 256, 256}>
{
  x = ConstantOfShape(s)
  y = LRN<size = 255>(x)
}`)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := runtime.CompileWith(ctx, m, runtime.Options{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after %v: %v, want %v", time.Since(start), err, context.DeadlineExceeded)
	}
}
