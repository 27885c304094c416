package runtime_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// blockModel makes a model of the given text in which SCHEME stands for a scheme, and which has weights w, 100×20, wt, 20×100, and v,
// 100×30.
func blockModel(t *testing.T, scheme, text string) *ir.Model {
	t.Helper()
	var consts strings.Builder
	for name, shape := range map[string][]int{"w": {100, 20}, "wt": {20, 100}, "v": {100, 30}, "b": {20}} {
		x := ramp(shape...)
		for i, v := range ir.Data[float32](x) {
			ir.Data[float32](x)[i] = v * float32(1+i%13)
		}
		consts.WriteString(literal(name, x) + ", ")
	}
	text = strings.NewReplacer("SCHEME", scheme, "WEIGHTS", strings.TrimSuffix(consts.String(), ", ")).Replace(text)
	return parse(t, "<ir_version: 10, opset_import: [\"\" : 21, \"qsimc\" : 1]>\n"+text)
}

// TestBlockExecution: products of operands quantized in blocks run on their codes, and give what the products of the dequantized
// numbers give, to 1e-5 of the greatest magnitude.
func TestBlockExecution(t *testing.T) {
	t.Parallel()
	if !kernel.FastBlocks() {
		t.Skip("products of blocks are not used at this level")
	}
	const head = `m (float[B,5,100] x) => (float[B,5,20] y) <WEIGHTS> {
		q = qsimc.FakeQuant <scheme = "SCHEME", axis = 2> (x)
		wq = qsimc.FakeQuant <scheme = "SCHEME", axis = 0> (w)
	`
	x := ramp(2, 5, 100)
	for i, v := range ir.Data[float32](x) {
		ir.Data[float32](x)[i] = v * float32(1+i%97)
	}
	flat, _ := ir.TensorOf(ir.Float32, []int{10, 100}, x.Bytes())
	for name, c := range map[string]struct {
		text  string
		in    ir.Tensors
		steps []string
	}{
		"MatMul": {head + `y = MatMul (q, wq) }`, ir.Tensors{"x": x}, []string{"codes", "linear on blocks"}},
		"bias, residual, activation": {strings.Replace(head, "x)", "x, float[B,5,20] r)", 1) + `
			p = MatMul (q, wq)
			s = Add (p, b)
			a = Add (s, r)
			y = Relu (a)
		}`, ir.Tensors{"x": x, "r": ramp(2, 5, 20)}, []string{"codes", "linear on blocks"}},
		"a residual that broadcasts": {strings.Replace(head, "x)", "x, float[1,5,20] r)", 1) + `
			p = MatMul (q, wq)
			y = Add (p, r)
		}`, ir.Tensors{"x": x, "r": ramp(1, 5, 20)}, []string{"codes", "linear on blocks"}},
		"Gemm with transB and C": {`m (float[N,100] x) => (float[N,20] y) <WEIGHTS> {
			q = qsimc.FakeQuant <scheme = "SCHEME", axis = -1> (x)
			wq = qsimc.FakeQuant <scheme = "SCHEME", axis = 1> (wt)
			y = Gemm <transB = 1> (q, wq, b)
		}`, ir.Tensors{"x": flat}, []string{"codes", "linear on blocks"}},
		"two products of one quantizer, one more reader, a shape": {`m (float[B,5,100] x) => (float[B,5,20] y, float[B,5,30] z, float[B,5,100] a, int64[3] shape) <WEIGHTS> {
			q = qsimc.FakeQuant <scheme = "SCHEME", axis = 2> (x)
			wq = qsimc.FakeQuant <scheme = "SCHEME", axis = 0> (w)
			vq = qsimc.FakeQuant <scheme = "SCHEME", axis = 0> (v)
			y = MatMul (q, wq)
			z = MatMul (q, vq)
			a = Abs (q)
			shape = Shape (q)
		}`, ir.Tensors{"x": x}, []string{"codes", "linear on blocks", "linear on blocks", "Abs", "Shape"}},
		"a shape alone": {strings.Replace(head, "y)", "y, int64[3] shape)", 1) + `
			y = MatMul (q, wq)
			shape = Shape (q)
		}`, ir.Tensors{"x": x}, []string{"codes", "linear on blocks", "Shape"}},
		"the quantized numbers are an output": {strings.Replace(head, "y)", "y, float[B,5,100] q)", 1) + `y = MatMul (q, wq) }`, ir.Tensors{"x": x},
			[]string{"codes", "linear on blocks"}},
		"a weight of other numbers": {strings.Replace(head, "0> (w)", "1> (w)", 1) + `y = MatMul (q, wq) }`, ir.Tensors{"x": x}, nil},
	} {
		for _, scheme := range []string{"int4/abfp:64", "int8/abfp:16", "e1m2/abfp:32", "mxint8", "mxfp4", "nvfp4", "int8/token"} {
			t.Run(name+"/"+scheme, func(t *testing.T) {
				t.Parallel()
				m := blockModel(t, scheme, c.text)
				p, err := runtime.Compile(m)
				if err != nil {
					t.Fatal(err)
				}
				if got := runtime.Steps(p); c.steps != nil && !slices.Equal(got, c.steps) {
					t.Errorf("runs %v, want %v", got, c.steps)
				}
				compareJoined(t, m, c.in)
				closeToWatched(t, p, c.in)
				if p, err = runtime.CompileWith(context.Background(), m, runtime.Options{Plain: true}); err != nil {
					t.Fatal(err)
				}
				if slices.Contains(runtime.Steps(p), "linear on blocks") {
					t.Errorf("a plain program runs %v", runtime.Steps(p))
				}
			})
		}
	}
}

// Numbers that have no codes pass through: the products are then of the quantized numbers themselves, and errors are the quantizer's.
func TestBlocksWithoutCodes(t *testing.T) {
	t.Parallel()
	const text = `m (float[B,100] x) => (float[B,20] y) <WEIGHTS> {
		q = qsimc.FakeQuant <scheme = "SCHEME", axis = 1> (x)
		wq = qsimc.FakeQuant <scheme = "SCHEME", axis = 0> (w)
		p = MatMul (q, wq)
		y = Relu (p)
	}`
	for _, scheme := range []string{"int4/abfp:64", "mxint8", "mxfp4", "nvfp4"} {
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), 0x1p70, 0x1p-90, 0} {
			t.Run(fmt.Sprint(scheme, bad), func(t *testing.T) {
				t.Parallel()
				m := blockModel(t, scheme, text)
				x := ramp(3, 100)
				clear(ir.Data[float32](x)[100:200])
				ir.Data[float32](x)[150] = bad
				p, err := runtime.Compile(m)
				if err != nil {
					t.Fatal(err)
				}
				_, want := p.Watch(context.Background(), ir.Tensors{"x": x}, func(*ir.Value, *ir.Tensor) error { return nil })
				_, got := p.Run(context.Background(), ir.Tensors{"x": x})
				if (got == nil) != (want == nil) || got != nil && got.Error() != want.Error() {
					t.Fatalf("got %v, want %v", got, want)
				}
				if want == nil {
					compareJoined(t, m, ir.Tensors{"x": x})
				}
			})
		}
	}
}

// A program that is only run packs the codes of large weights and gives the same bits.
func TestBlocksRunOnly(t *testing.T) {
	t.Parallel()
	if !kernel.FastBlocks() {
		t.Skip("products of blocks are not used at this level")
	}
	m, err := ir.Parse("run only", []byte(`<ir_version: 10, opset_import: ["" : 21, "qsimc" : 1]>
	m (float[B,640] x) => (float[B,512] y) <float wt = {0}, float sb = {0}> {
		q = qsimc.FakeQuant <scheme = "int8/abfp:64", axis = 1> (x)
		cb = QuantizeLinear <axis = 0, block_size = 64> (wt, sb)
		db = DequantizeLinear <axis = 0, block_size = 64> (cb, sb)
		y = MatMul (q, db)
	}`))
	if err != nil {
		t.Fatal(err)
	}
	w, sb := ramp(640, 512), ramp(10, 512)
	for i, v := range ir.Data[float32](sb) {
		ir.Data[float32](sb)[i] = (2 + v*v) / 200
	}
	m.Find("wt").SetConst(w)
	m.Find("sb").SetConst(sb)
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	in := ir.Tensors{"x": ramp(3, 640)}
	var first []byte
	for _, o := range []runtime.Options{{}, {RunOnly: true}} {
		p, err := runtime.CompileWith(t.Context(), m, o)
		if err != nil {
			t.Fatal(err)
		}
		if got := runtime.Steps(p); !slices.Equal(got, []string{"codes", "linear on blocks"}) {
			t.Errorf("%+v: runs %v", o, got)
		}
		out, err := p.Run(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = out["y"].Bytes()
		}
		if !slices.Equal(first, out["y"].Bytes()) {
			t.Errorf("%+v: other bits", o)
		}
	}
}
