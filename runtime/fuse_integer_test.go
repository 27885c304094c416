package runtime_test

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// TestIntegerExecution: products of dequantized operands run on their codes, and give what the products of the dequantized
// values give, to 1e-5 of the greatest magnitude.
func TestIntegerExecution(t *testing.T) {
	t.Parallel()
	if !kernel.FastInt8() {
		t.Skip("integer products are not used at this level")
	}
	const consts = `<float sx = {0.02}, uint8 zu = {131}, int8 zs = {-3}, float one = {0.5}, int8 none = {0},
		int8[4,3] w = {1,-128,3,127,5,6,-7,8,9,0,11,-12}, float[3] sw = {0.5, 0.25, 2}, int8[3] zw = {0, 0, 0}, int8[3] zn = {3, -128, 127},
		int8[3,4] wt = {1,-128,3,127,5,6,-7,8,9,0,11,-12}, uint8[4,3] wu = {1,255,3,127,5,6,0,8,9,0,11,12}, uint8 zwu = {120}, float[4] sk = {1, 2, 3, 4},
		int8[3,4,3,3] wc = {2,55,-114,110,-1,-102,-48,-71,62,112,-2,66,-76,-1,-122,-18,80,15,-35,71,-47,-92,-57,99,-64,-61,-128,-126,-21,-18,-44,-43,20,32,-27,-24,-35,-28,68,24,-117,56,84,-44,-54,7,-95,41,26,-127,45,-95,30,53,28,118,33,-34,118,113,-38,-99,3,-117,55,78,-119,86,59,64,-124,103,-105,-36,-28,-68,-3,108,48,53,0,108,-73,60,23,-110,93,-82,-22,46,57,-53,46,13,-81,31,34,28,-38,-88,-52,30,119,-46,-104,-87,79,-112},
		int8[4,4,2] wg = {-7,48,0,105,87,-54,-100,-112,124,43,-22,-62,-61,83,-74,-42,94,62,-52,-98,87,22,-56,104,-42,104,121,34,117,12,21,112}, int8 zg = {-7}, int8[3,1,3] wd = {78,-53,-71,65,-37,127,45,-36,-83},
		int8[4] zk = {0, 0, 0, 0}, float[3] b = {10, -20, 30}>`
	const x = `qx = QuantizeLinear (x, sx, zs)
			dx = DequantizeLinear (qx, sx, zs)
	`
	in := ir.Tensors{"x": ramp(2, 5, 4)}
	for name, c := range map[string]struct {
		text  string
		in    ir.Tensors
		steps []string
	}{
		"MatMul, a scale for each column": {`m (float[B,5,4] x) => (float[B,5,3] y) ` + consts + ` {` + x + `
			dw = DequantizeLinear <axis = 1> (w, sw, zw)
			y = MatMul (dx, dw)
		}`, in, []string{"QuantizeLinear", "linear on codes"}},
		"zero points of the weight, bias, activation": {`m (float[B,5,4] x) => (float[B,5,3] y) ` + consts + ` {` + x + `
			dw = DequantizeLinear <axis = -1> (w, sw, zn)
			p = MatMul (dx, dw)
			q = Add (b, p)
			y = Relu (q)
		}`, in, []string{"QuantizeLinear", "linear on codes"}},
		"uint8 of both, three products of one quantizer": {`m (float[B,5,4] x) => (float[B,5,3] y, float[B,5,3] z, float[B,5,4] dx) ` + consts + ` {
			qx = QuantizeLinear (x, sx, zu)
			dx = DequantizeLinear (qx, sx, zu)
			dw = DequantizeLinear (wu, one, zwu)
			y = MatMul (dx, dw)
			dv = DequantizeLinear <axis = 1> (w, sw)
			z = MatMul (dx, dv)
		}`, in, []string{"QuantizeLinear", "DequantizeLinear", "linear on codes", "linear on codes"}},
		"a transposed weight": {`m (float[B,5,4] x) => (float[B,5,3] y) ` + consts + ` {` + x + `
			dw = DequantizeLinear <axis = 0> (wt, sw, zw)
			v = Transpose (dw)
			y = MatMul (dx, v)
		}`, in, []string{"QuantizeLinear", "linear on codes"}},
		"codes that are an input": {`m (int8[B,5,4] x) => (float[B,5,3] y) ` + consts + ` {
			dx = DequantizeLinear (x, sx, zs)
			dw = DequantizeLinear (w, one)
			y = MatMul (dx, dw)
		}`, ir.Tensors{"x": int8s(1, 5, 4)}, []string{"linear on codes"}},
		"Gemm with transB and C": {`m (float[N,4] x) => (float[N,3] y) ` + consts + ` {` + x + `
			dw = DequantizeLinear <axis = 0> (wt, sw, zn)
			y = Gemm <transB = 1> (dx, dw, b)
		}`, ir.Tensors{"x": ramp(7, 4)}, []string{"QuantizeLinear", "linear on codes"}},
		"a residual that broadcasts": {`m (float[B,4] x, float[A,3] r) => (float[C,3] y) ` + consts + ` {` + x + `
			dw = DequantizeLinear <axis = 1> (w, sw, zw)
			p = MatMul (dx, dw)
			s = Add (p, r)
			y = Relu (s)
		}`, ir.Tensors{"x": ramp(2, 4), "r": ramp(1, 3)}, []string{"QuantizeLinear", "linear on codes"}},
		"the codes are an output": {`m (float[N,4] x) => (float[N,3] y, int8[N,4] qx) ` + consts + ` {` + x + `
			dw = DequantizeLinear <axis = 1> (w, sw, zw)
			y = MatMul (dx, dw)
		}`, ir.Tensors{"x": ramp(2, 4)}, []string{"QuantizeLinear", "linear on codes"}},
		"a product of two quantized activations": {`m (float[2,3,5,4] x, float[2,3,4,6] v) => (float[2,3,5,6] y) ` + consts + ` {` + x + `
			qv = QuantizeLinear (v, sx, zu)
			dv = DequantizeLinear (qv, sx, zu)
			y = MatMul (dx, dv)
		}`, ir.Tensors{"x": ramp(2, 3, 5, 4), "v": ramp(2, 3, 4, 6)}, []string{"QuantizeLinear", "QuantizeLinear", "product on codes"}},
		"such a product whose stacks broadcast": {`m (float[A,5,4] x, float[B,4,6] v) => (float[C,5,6] y) ` + consts + ` {` + x + `
			qv = QuantizeLinear (v, sx, zu)
			dv = DequantizeLinear (qv, sx, zu)
			y = MatMul (dx, dv)
		}`, ir.Tensors{"x": ramp(3, 5, 4), "v": ramp(1, 4, 6)}, []string{"QuantizeLinear", "QuantizeLinear", "product on codes"}},
		"Conv, bias, residual, activation": {`m (float[N,4,5,6] x, float[N,3,5,6] r) => (float[N,3,5,6] y) ` + consts + ` {` + x + `
			dw = DequantizeLinear <axis = 0> (wc, sw, zw)
			p = Conv <pads = [1, 1, 1, 1]> (dx, dw, b)
			q = Add (p, r)
			y = Relu (q)
		}`, ir.Tensors{"x": ramp(2, 4, 5, 6), "r": ramp(2, 3, 5, 6)}, []string{"QuantizeLinear", "convolution on codes"}},
		"Conv, a residual of each channel": {`m (float[N,4,5,6] x, float[N,3,1,1] r) => (float[N,3,5,6] y) ` + consts + ` {` + x + `
			dw = DequantizeLinear <axis = 0> (wc, sw, zw)
			p = Conv <pads = [1, 1, 1, 1]> (dx, dw, b)
			y = Add (p, r)
		}`, ir.Tensors{"x": ramp(2, 4, 5, 6), "r": ramp(2, 3, 1, 1)}, []string{"QuantizeLinear", "convolution on codes"}},
		"grouped Conv of one axis, zero points of the weight": {`m (float[N,8,7] x) => (float[N,4,3] y) ` + consts + ` {` + x + `
			dw = DequantizeLinear (wg, one, zg)
			p = Conv <group = 2, strides = [2]> (dx, dw)
			y = Gelu (p)
		}`, ir.Tensors{"x": ramp(2, 8, 7)}, []string{"QuantizeLinear", "convolution on codes"}},
		"Conv of single channels": {`m (float[N,3,7] x) => (float[N,3,5] y) ` + consts + ` {` + x + `
			dw = DequantizeLinear (wd, one)
			y = Conv <group = 3> (dx, dw)
		}`, ir.Tensors{"x": ramp(2, 3, 7)}, []string{"QuantizeLinear", "DequantizeLinear", "convolution"}},
		"a scale along the contracted axis": {`m (float[N,4] x) => (float[N,3] y) ` + consts + ` {` + x + `
			dw = DequantizeLinear <axis = 0> (w, sk, zk)
			y = MatMul (dx, dw)
		}`, ir.Tensors{"x": ramp(2, 4)}, []string{"QuantizeLinear", "DequantizeLinear", "MatMul"}},
		"a scale of each channel of x": {`m (float[N,4] x) => (float[N,3] y) ` + consts + ` {
			qx = QuantizeLinear <axis = 1> (x, sk, zk)
			dx = DequantizeLinear <axis = 1> (qx, sk, zk)
			dw = DequantizeLinear <axis = 1> (w, sw, zw)
			y = MatMul (dx, dw)
		}`, ir.Tensors{"x": ramp(2, 4)}, []string{"QuantizeLinear", "DequantizeLinear", "MatMul"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := ir.Parse(name, []byte("<ir_version: 10, opset_import: [\"\" : 21]>\n"+c.text))
			if err != nil {
				t.Fatal(err)
			}
			if err := op.Infer(m); err != nil {
				t.Fatal(err)
			}
			compareJoined(t, m, c.in)
			p, err := runtime.Compile(m)
			if err != nil {
				t.Fatal(err)
			}
			if got := runtime.Steps(p); !slices.Equal(got, c.steps) {
				t.Errorf("runs %v, want %v", got, c.steps)
			}
			closeToWatched(t, p, c.in)
			if p, err = runtime.CompileWith(context.Background(), m, runtime.Options{Plain: true}); err != nil {
				t.Fatal(err)
			}
			if slices.Contains(runtime.Steps(p), "linear on codes") {
				t.Errorf("a plain program runs %v", runtime.Steps(p))
			}
		})
	}
}

// closeToWatched holds Run to 1e-5 of the greatest magnitude that Watch gives.
func closeToWatched(t *testing.T, p *runtime.Program, in ir.Tensors) {
	t.Helper()
	want, err := p.Watch(context.Background(), in, func(*ir.Value, *ir.Tensor) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Run(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range want {
		if got[name].Elem() != w.Elem() {
			t.Errorf("output %q: %v, want %v", name, got[name].Type(), w.Type())
			continue
		}
		a, _ := w.Float32s()
		b, _ := got[name].Float32s()
		most, diff := 0.0, 0.0
		for i := range a {
			most, diff = max(most, math.Abs(float64(a[i]))), max(diff, math.Abs(float64(a[i])-float64(b[i])))
		}
		if diff > 1e-5*most {
			t.Errorf("output %q: differs by %g where the greatest magnitude is %g", name, diff, most)
		}
	}
}

func int8s(shape ...int) *ir.Tensor {
	f := ramp(shape...)
	data := make([]byte, f.Len())
	for i := range data {
		data[i] = byte(i*37 + 100)
	}
	t, err := ir.TensorOf(ir.Int8, shape, data)
	if err != nil {
		panic(err)
	}
	return t
}
