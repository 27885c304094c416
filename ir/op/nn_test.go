package op_test

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
)

// nnCase is one node run on given inputs.
type nnCase struct {
	name  string
	opset int // 0: op.Canonical
	op    string
	attrs []ir.Attr
	in    []*ir.Tensor // nil: absent
	want  []*ir.Tensor // nil: not looked at
	err   string       // part of the error that is wanted in place of results
}

// model builds the case's model; inputs from the given one on are constants.
func (k *nnCase) model(constFrom int) *ir.Model {
	opset := k.opset
	if opset == 0 {
		opset = op.Canonical
	}
	m := ir.NewModel(opset)
	ins := make([]*ir.Value, len(k.in))
	for i, t := range k.in {
		switch {
		case t == nil:
		case i >= constFrom:
			ins[i] = m.Graph.AddConst(fmt.Sprintf("i%d", i), t)
		default:
			ins[i] = m.Graph.AddInput(fmt.Sprintf("i%d", i), t.Type())
		}
	}
	outs := make([]string, max(len(k.want), 1))
	for i := range outs {
		if len(k.want) == 0 || k.want[i] != nil {
			outs[i] = fmt.Sprintf("o%d", i)
		}
	}
	n := m.Graph.Place(nil, "node", ir.Op(k.op), ins, outs, k.attrs...)
	for i, o := range outs {
		if o != "" {
			m.Graph.AddOutput(o, n.Out(i))
		}
	}
	return m
}

func (k *nnCase) run(constFrom int) (ir.Tensors, error) {
	p, err := runtime.Compile(k.model(constFrom))
	if err != nil {
		return nil, err
	}
	feed := ir.Tensors{}
	for i, t := range k.in {
		if t != nil && i < constFrom {
			feed[fmt.Sprintf("i%d", i)] = t
		}
	}
	return p.Run(context.Background(), feed)
}

func runNNCases(t *testing.T, cases []nnCase) {
	t.Helper()
	for _, k := range cases {
		t.Run(k.op+"/"+k.name, func(t *testing.T) {
			t.Parallel()
			for _, from := range []int{1, len(k.in)} {
				got, err := k.run(from)
				if k.err != "" {
					if err == nil || !strings.Contains(err.Error(), k.err) {
						t.Fatalf("error %v, want one with %q", err, k.err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				for i, want := range k.want {
					if want != nil {
						sameTensor(t, got[fmt.Sprintf("o%d", i)], want)
					}
				}
			}
		})
	}
}

// sameTensor fails unless the tensors agree, floats to one part in a million of the largest.
func sameTensor(t *testing.T, got, want *ir.Tensor) {
	t.Helper()
	if got.Elem() != want.Elem() || !slices.Equal(got.Shape(), want.Shape()) {
		t.Fatalf("got %v, want %v", got.Type(), want.Type())
	}
	if !want.Elem().IsFloat() {
		if !slices.Equal(got.Bytes(), want.Bytes()) {
			g, _ := got.Int64s()
			w, _ := want.Int64s()
			t.Fatalf("got %v, want %v", g, w)
		}
		return
	}
	g, _ := got.Float32s()
	w, _ := want.Float32s()
	for i := range w {
		if d := math.Abs(float64(g[i]) - float64(w[i])); !(d <= 1e-6*max(1, math.Abs(float64(w[i])))) {
			t.Fatalf("element %d is %v, want %v; got %v, want %v", i, g[i], w[i], g, w)
		}
	}
}

// f makes a float32 tensor.
func f(shape []int, v ...float32) *ir.Tensor { return ir.Floats(v, shape...) }

// count makes a float32 tensor of 0, 1, 2, ….
func count(shape ...int) *ir.Tensor {
	t := ir.NewTensor(ir.Float32, shape...)
	for i := range ir.Data[float32](t) {
		ir.Data[float32](t)[i] = float32(i)
	}
	return t
}

func longs(shape []int, v ...int64) *ir.Tensor { return ir.FromSlice(ir.Int64, shape, v) }

func TestProducts(t *testing.T) {
	t.Parallel()
	runNNCases(t, productCases())
}

func productCases() []nnCase {
	return []nnCase{
		{name: "plain", op: "MatMul", in: []*ir.Tensor{count(2, 3), count(3, 2)}, want: []*ir.Tensor{f([]int{2, 2}, 10, 13, 28, 40)}},
		{name: "vectors", op: "MatMul", in: []*ir.Tensor{count(3), count(3)}, want: []*ir.Tensor{f([]int{}, 5)}},
		{name: "row", op: "MatMul", in: []*ir.Tensor{count(3), count(3, 2)}, want: []*ir.Tensor{f([]int{2}, 10, 13)}},
		{name: "column", op: "MatMul", in: []*ir.Tensor{count(2, 3), count(3)}, want: []*ir.Tensor{f([]int{2}, 5, 14)}},
		{name: "stack by matrix", op: "MatMul", in: []*ir.Tensor{count(2, 1, 2), count(2, 1)}, want: []*ir.Tensor{f([]int{2, 1, 1}, 1, 3)}},
		{name: "matrix by stack", op: "MatMul", in: []*ir.Tensor{count(1, 2), count(2, 2, 1)}, want: []*ir.Tensor{f([]int{2, 1, 1}, 1, 3)}},
		{name: "crossed stacks", op: "MatMul", in: []*ir.Tensor{count(2, 1, 1, 1), count(1, 3, 1, 1)},
			want: []*ir.Tensor{f([]int{2, 3, 1, 1}, 0, 0, 0, 0, 1, 2)}},
		{name: "vector by stack", op: "MatMul", in: []*ir.Tensor{count(2), count(2, 2, 1)}, want: []*ir.Tensor{f([]int{2, 1}, 1, 3)}},
		{name: "empty", op: "MatMul", in: []*ir.Tensor{count(2, 0), count(0, 2)}, want: []*ir.Tensor{f([]int{2, 2}, 0, 0, 0, 0)}},
		{name: "no rows", op: "MatMul", in: []*ir.Tensor{count(0, 2), count(2, 2)}, want: []*ir.Tensor{f([]int{0, 2})}},
		{name: "integers", op: "MatMul", in: []*ir.Tensor{longs([]int{1, 2}, 3, 4), longs([]int{2, 1}, 5, 6)}, want: []*ir.Tensor{longs([]int{1, 1}, 39)}},
		{name: "mismatch", op: "MatMul", in: []*ir.Tensor{count(2, 3), count(2, 3)}, err: "contracted dimensions 3 and 2 differ"},
		{name: "scalar", op: "MatMul", in: []*ir.Tensor{count(), count(2, 3)}, err: "no matrix product"},
		{name: "plain", op: "Gemm", in: []*ir.Tensor{count(2, 3), count(3, 2), f([]int{2}, 1, 2)}, want: []*ir.Tensor{f([]int{2, 2}, 11, 15, 29, 42)}},
		{name: "transposed, scaled", op: "Gemm", in: []*ir.Tensor{count(3, 2), count(2, 3), f([]int{2, 1}, 1, 2)},
			attrs: []ir.Attr{ir.IntAttr("transA", 1), ir.IntAttr("transB", 1), ir.FloatAttr("alpha", 2), ir.FloatAttr("beta", 0.5)},
			want:  []*ir.Tensor{f([]int{2, 2}, 20.5, 56.5, 27, 81)}},
		{name: "opset 6 with broadcast", opset: 6, op: "Gemm", in: []*ir.Tensor{count(1, 2), count(2, 1), f([]int{1}, 3)},
			attrs: []ir.Attr{ir.IntAttr("broadcast", 1)}, want: []*ir.Tensor{f([]int{1, 1}, 4)}},
		{name: "no bias", op: "Gemm", in: []*ir.Tensor{count(1, 2), count(2, 1)}, want: []*ir.Tensor{f([]int{1, 1}, 1)}},
		{name: "bad bias", op: "Gemm", in: []*ir.Tensor{count(1, 2), count(2, 1), count(3)}, err: "does not broadcast"},
		{name: "rank", op: "Gemm", in: []*ir.Tensor{count(1, 2, 1), count(2, 1)}, err: "wants a matrix"},
	}
}

func TestEinsum(t *testing.T) {
	t.Parallel()
	runNNCases(t, einsumCases())
}

func einsumCases() []nnCase {
	eq := func(s string) []ir.Attr { return []ir.Attr{ir.StringAttr("equation", s)} }
	return []nnCase{
		{name: "transpose", op: "Einsum", attrs: eq("ij->ji"), in: []*ir.Tensor{count(2, 3)}, want: []*ir.Tensor{f([]int{3, 2}, 0, 3, 1, 4, 2, 5)}},
		{name: "sum", op: "Einsum", attrs: eq("ij->i"), in: []*ir.Tensor{count(2, 3)}, want: []*ir.Tensor{f([]int{2}, 3, 12)}},
		{name: "trace", op: "Einsum", attrs: eq("ii"), in: []*ir.Tensor{count(2, 2)}, want: []*ir.Tensor{f([]int{}, 3)}},
		{name: "diagonal", op: "Einsum", attrs: eq("...ii->...i"), in: []*ir.Tensor{count(2, 2, 2)}, want: []*ir.Tensor{f([]int{2, 2}, 0, 3, 4, 7)}},
		{name: "product", op: "Einsum", attrs: eq("ij, jk"), in: []*ir.Tensor{count(2, 3), count(3, 2)}, want: []*ir.Tensor{f([]int{2, 2}, 10, 13, 28, 40)}},
		{name: "stack", op: "Einsum", attrs: eq("bij,bjk->bik"), in: []*ir.Tensor{count(2, 1, 2), count(2, 2, 1)}, want: []*ir.Tensor{f([]int{2, 1, 1}, 1, 13)}},
		{name: "broadcast ellipsis", op: "Einsum", attrs: eq("...i,...i->..."), in: []*ir.Tensor{count(2, 2), count(1, 2)}, want: []*ir.Tensor{f([]int{2}, 1, 3)}},
		{name: "three", op: "Einsum", attrs: eq("i,j,k->"), in: []*ir.Tensor{count(2), count(3), count(2)}, want: []*ir.Tensor{f([]int{}, 3)}},
		{name: "terms", op: "Einsum", attrs: eq("ij"), in: []*ir.Tensor{count(2), count(2)}, err: "1 terms for 2 inputs"},
		{name: "sizes", op: "Einsum", attrs: eq("i,i->i"), in: []*ir.Tensor{count(2), count(3)}, err: "i is 2 and 3"},
		{name: "label", op: "Einsum", attrs: eq("i->j"), in: []*ir.Tensor{count(2)}, err: "in no term"},
	}
}

func TestConvolutions(t *testing.T) {
	t.Parallel()
	runNNCases(t, convolutionCases())
}

func convolutionCases() []nnCase {
	ones := func(shape ...int) *ir.Tensor {
		x := ir.NewTensor(ir.Float32, shape...)
		for i := range ir.Data[float32](x) {
			ir.Data[float32](x)[i] = 1
		}
		return x
	}
	return []nnCase{
		{name: "line", op: "Conv", in: []*ir.Tensor{count(1, 1, 4), ones(1, 1, 2)}, want: []*ir.Tensor{f([]int{1, 1, 3}, 1, 3, 5)}},
		{name: "same upper", op: "Conv", in: []*ir.Tensor{count(1, 1, 4), ones(1, 1, 2)}, attrs: []ir.Attr{ir.StringAttr("auto_pad", "SAME_UPPER")},
			want: []*ir.Tensor{f([]int{1, 1, 4}, 1, 3, 5, 3)}},
		{name: "same lower", op: "Conv", in: []*ir.Tensor{count(1, 1, 4), ones(1, 1, 2)}, attrs: []ir.Attr{ir.StringAttr("auto_pad", "SAME_LOWER")},
			want: []*ir.Tensor{f([]int{1, 1, 4}, 0, 1, 3, 5)}},
		{name: "plane, dilated, padded, bias", op: "Conv", in: []*ir.Tensor{count(1, 1, 3, 3), ones(1, 1, 2, 2), f([]int{1}, 0.5)},
			attrs: []ir.Attr{ir.IntsAttr("dilations", 2, 2), ir.IntsAttr("pads", 1, 1, 0, 0)},
			want:  []*ir.Tensor{f([]int{1, 1, 2, 2}, 4.5, 8.5, 8.5, 16.5)}},
		{name: "groups", op: "Conv", in: []*ir.Tensor{count(1, 4, 1), ones(2, 2, 1)}, attrs: []ir.Attr{ir.IntAttr("group", 2)},
			want: []*ir.Tensor{f([]int{1, 2, 1}, 1, 5)}},
		{name: "depthwise", op: "Conv", in: []*ir.Tensor{count(1, 2, 3), f([]int{2, 1, 2}, 1, 0, 0, 2)}, attrs: []ir.Attr{ir.IntAttr("group", 2), ir.IntsAttr("strides", 2), ir.IntsAttr("pads", 1, 0)},
			want: []*ir.Tensor{f([]int{1, 2, 2}, 0, 1, 6, 10)}},
		{name: "volume", op: "Conv", in: []*ir.Tensor{count(1, 1, 2, 2, 2), ones(1, 1, 2, 1, 2)}, want: []*ir.Tensor{f([]int{1, 1, 1, 2, 1}, 10, 18)}},
		{name: "volume, depthwise", op: "Conv", in: []*ir.Tensor{count(1, 2, 2, 1, 2), ones(2, 1, 2, 1, 2)}, attrs: []ir.Attr{ir.IntAttr("group", 2)},
			want: []*ir.Tensor{f([]int{1, 2, 1, 1, 1}, 6, 22)}},
		{name: "channels", op: "Conv", in: []*ir.Tensor{count(1, 3, 4), ones(1, 2, 2)}, err: "has 3 channels"},
		{name: "too small", op: "Conv", in: []*ir.Tensor{count(1, 1, 1), ones(1, 1, 2)}, err: "does not fit"},
		{name: "kernel_shape", op: "Conv", in: []*ir.Tensor{count(1, 1, 4), ones(1, 1, 2)}, attrs: []ir.Attr{ir.IntsAttr("kernel_shape", 3)}, err: "contradicts the weight"},
		{name: "stride", op: "Conv", in: []*ir.Tensor{count(1, 1, 4), ones(1, 1, 2)}, attrs: []ir.Attr{ir.IntsAttr("strides", 0)}, err: "strides"},
		{name: "line", op: "ConvTranspose", in: []*ir.Tensor{count(1, 1, 3), ones(1, 1, 2)}, want: []*ir.Tensor{f([]int{1, 1, 4}, 0, 1, 3, 2)}},
		{name: "stride and bias", op: "ConvTranspose", in: []*ir.Tensor{count(1, 1, 2), ones(1, 2, 2), f([]int{2}, 0, 1)},
			attrs: []ir.Attr{ir.IntsAttr("strides", 2), ir.IntsAttr("output_padding", 1)},
			want:  []*ir.Tensor{f([]int{1, 2, 5}, 0, 0, 1, 1, 0, 1, 1, 2, 2, 1)}},
		{name: "output_shape", op: "ConvTranspose", in: []*ir.Tensor{count(1, 1, 3), ones(1, 1, 2)}, attrs: []ir.Attr{ir.IntsAttr("output_shape", 3), ir.StringAttr("auto_pad", "SAME_UPPER")},
			want: []*ir.Tensor{f([]int{1, 1, 3}, 0, 1, 3)}},
		{name: "groups", op: "ConvTranspose", in: []*ir.Tensor{count(1, 2, 1), f([]int{2, 1, 2}, 1, 2, 3, 4)}, attrs: []ir.Attr{ir.IntAttr("group", 2)},
			want: []*ir.Tensor{f([]int{1, 2, 2}, 0, 0, 3, 4)}},
	}
}

func TestPools(t *testing.T) {
	t.Parallel()
	runNNCases(t, poolCases())
}

func poolCases() []nnCase {
	attrs := func(k ...int64) []ir.Attr { return []ir.Attr{ir.IntsAttr("kernel_shape", k...)} }
	with := func(a []ir.Attr, more ...ir.Attr) []ir.Attr { return append(a, more...) }
	return []nnCase{
		{name: "plane", op: "MaxPool", attrs: attrs(2, 2), in: []*ir.Tensor{count(1, 1, 3, 3)}, want: []*ir.Tensor{f([]int{1, 1, 2, 2}, 4, 5, 7, 8), longs([]int{1, 1, 2, 2}, 4, 5, 7, 8)}},
		{name: "ties", op: "MaxPool", attrs: attrs(2, 2), in: []*ir.Tensor{f([]int{1, 1, 2, 2}, 0, 1, 1, 1)}, want: []*ir.Tensor{nil, longs([]int{1, 1, 1, 1}, 1)}},
		{name: "column major", op: "MaxPool", attrs: with(attrs(2, 2), ir.IntAttr("storage_order", 1)), in: []*ir.Tensor{count(1, 2, 2, 2)}, want: []*ir.Tensor{nil, longs([]int{1, 2, 1, 1}, 3, 7)}},
		{name: "ceil, the last window starts behind the data", op: "MaxPool", attrs: with(attrs(1), ir.IntsAttr("strides", 2), ir.IntAttr("ceil_mode", 1)),
			in: []*ir.Tensor{count(1, 1, 2)}, want: []*ir.Tensor{f([]int{1, 1, 1}, 0)}},
		{name: "ceil", op: "MaxPool", attrs: with(attrs(2), ir.IntsAttr("strides", 2), ir.IntAttr("ceil_mode", 1)),
			in: []*ir.Tensor{count(1, 1, 3)}, want: []*ir.Tensor{f([]int{1, 1, 2}, 1, 2)}},
		{name: "dilated", op: "MaxPool", attrs: with(attrs(2), ir.IntsAttr("dilations", 2)), in: []*ir.Tensor{f([]int{1, 1, 3}, 1, 9, 2)}, want: []*ir.Tensor{f([]int{1, 1, 1}, 2)}},
		{name: "bytes", op: "MaxPool", attrs: attrs(2), in: []*ir.Tensor{ir.FromSlice(ir.Int8, []int{1, 1, 2}, []int8{-5, -3})}, want: []*ir.Tensor{ir.FromSlice(ir.Int8, []int{1, 1, 1}, []int8{-3})}},
		{name: "no kernel", op: "MaxPool", in: []*ir.Tensor{count(1, 1, 3)}, err: "kernel_shape is required"},
		{name: "rank", op: "MaxPool", attrs: attrs(2), in: []*ir.Tensor{count(1, 3)}, err: "wants [N, C, D1"},
		{name: "exclude padding", op: "AveragePool", attrs: with(attrs(2, 2), ir.IntsAttr("pads", 1, 1, 0, 0)), in: []*ir.Tensor{count(1, 1, 2, 2)}, want: []*ir.Tensor{f([]int{1, 1, 2, 2}, 0, 0.5, 1, 1.5)}},
		{name: "include padding", op: "AveragePool", attrs: with(attrs(2), ir.IntsAttr("pads", 1, 0), ir.IntAttr("count_include_pad", 1)), in: []*ir.Tensor{f([]int{1, 1, 2}, 4, 6)}, want: []*ir.Tensor{f([]int{1, 1, 2}, 2, 5)}},
		{name: "ceil does not count what is behind the padding", op: "AveragePool", attrs: with(attrs(2), ir.IntsAttr("strides", 2), ir.IntAttr("ceil_mode", 1), ir.IntAttr("count_include_pad", 1)),
			in: []*ir.Tensor{f([]int{1, 1, 3}, 4, 6, 8)}, want: []*ir.Tensor{f([]int{1, 1, 2}, 5, 8)}},
		{name: "norm", op: "LpPool", attrs: attrs(2), in: []*ir.Tensor{f([]int{1, 1, 3}, 3, -4, 0)}, want: []*ir.Tensor{f([]int{1, 1, 2}, 5, 4)}},
		{name: "float order", opset: 1, op: "LpPool", attrs: with(attrs(2), ir.FloatAttr("p", 1)), in: []*ir.Tensor{f([]int{1, 1, 3}, 3, -4, 0)}, want: []*ir.Tensor{f([]int{1, 1, 2}, 7, 4)}},
		{name: "mean", op: "GlobalAveragePool", in: []*ir.Tensor{count(1, 2, 2, 2)}, want: []*ir.Tensor{f([]int{1, 2, 1, 1}, 1.5, 5.5)}},
		{name: "max", op: "GlobalMaxPool", in: []*ir.Tensor{count(1, 2, 2, 2)}, want: []*ir.Tensor{f([]int{1, 2, 1, 1}, 3, 7)}},
		{name: "norm", op: "GlobalLpPool", in: []*ir.Tensor{f([]int{1, 1, 2}, 3, 4)}, want: []*ir.Tensor{f([]int{1, 1, 1}, 5)}},
		{name: "unpool", op: "MaxUnpool", attrs: with(attrs(2), ir.IntsAttr("strides", 2)), in: []*ir.Tensor{f([]int{1, 1, 2}, 5, 6), longs([]int{1, 1, 2}, 1, 2)},
			want: []*ir.Tensor{f([]int{1, 1, 4}, 0, 5, 6, 0)}},
		{name: "index", op: "MaxUnpool", attrs: attrs(2), in: []*ir.Tensor{f([]int{1, 1, 2}, 5, 6), longs([]int{1, 1, 2}, 1, 20)}, err: "outside [0, 3)"},
	}
}

func TestNorms(t *testing.T) {
	t.Parallel()
	runNNCases(t, normCases())
}

func normCases() []nnCase {
	one, two := f([]int{1}, 1), f([]int{1}, 2)
	noEps := ir.FloatAttr("epsilon", 0)
	half := ir.FromSlice(ir.Float16, []int{1, 2}, []uint16{0x3c00, 0x4200}) // 1, 3
	return []nnCase{
		{name: "inference", op: "BatchNormalization", attrs: []ir.Attr{noEps}, in: []*ir.Tensor{f([]int{1, 1, 2}, 1, 5), two, one, one, f([]int{1}, 4)},
			want: []*ir.Tensor{f([]int{1, 1, 2}, 1, 5)}},
		{name: "training", op: "BatchNormalization", attrs: []ir.Attr{noEps, ir.IntAttr("training_mode", 1), ir.FloatAttr("momentum", 0.5)},
			in:   []*ir.Tensor{f([]int{2, 1, 1}, 1, 5), two, one, one, f([]int{1}, 4)},
			want: []*ir.Tensor{f([]int{2, 1, 1}, -1, 3), f([]int{1}, 2), f([]int{1}, 4)}},
		{name: "training by results, opset 9", opset: 9, op: "BatchNormalization", attrs: []ir.Attr{noEps, ir.FloatAttr("momentum", 0.5)},
			in:   []*ir.Tensor{f([]int{2, 1, 1}, 1, 5), two, one, one, f([]int{1}, 4)},
			want: []*ir.Tensor{f([]int{2, 1, 1}, -1, 3), f([]int{1}, 2), f([]int{1}, 4)}},
		{name: "opset 1", opset: 1, op: "BatchNormalization", attrs: []ir.Attr{noEps, ir.IntAttr("is_test", 1), ir.IntsAttr("consumed_inputs", 0, 0, 0, 1, 1)},
			in: []*ir.Tensor{f([]int{1, 1, 2}, 1, 5), two, one, one, f([]int{1}, 4)}, want: []*ir.Tensor{f([]int{1, 1, 2}, 1, 5)}},
		{name: "channels", op: "BatchNormalization", in: []*ir.Tensor{count(1, 2, 2), two, one, one, one}, err: "one number for each channel"},
		{name: "plain", op: "InstanceNormalization", attrs: []ir.Attr{noEps}, in: []*ir.Tensor{f([]int{1, 1, 2}, 1, 5), two, one}, want: []*ir.Tensor{f([]int{1, 1, 2}, -1, 3)}},
		{name: "groups", op: "GroupNormalization", attrs: []ir.Attr{noEps, ir.IntAttr("num_groups", 1)}, in: []*ir.Tensor{f([]int{1, 2, 1}, 1, 5), f([]int{2}, 2, 3), f([]int{2}, 1, 0)},
			want: []*ir.Tensor{f([]int{1, 2, 1}, -1, 3)}},
		{name: "opset 18", opset: 18, op: "GroupNormalization", attrs: []ir.Attr{noEps, ir.IntAttr("num_groups", 2)},
			in:   []*ir.Tensor{f([]int{1, 4, 1}, 1, 5, 1, 5), f([]int{2}, 2, 3), f([]int{2}, 1, 0)},
			want: []*ir.Tensor{f([]int{1, 4, 1}, -1, 3, -3, 3)}},
		{name: "all results", op: "LayerNormalization", attrs: []ir.Attr{noEps}, in: []*ir.Tensor{f([]int{2, 2}, 1, 5, 0, 2), f([]int{2}, 1, 2), f([]int{2}, 0, 1)},
			want: []*ir.Tensor{f([]int{2, 2}, -1, 3, -1, 3), f([]int{2, 1}, 3, 1), f([]int{2, 1}, 0.5, 1)}},
		{name: "scale for each row", op: "LayerNormalization", attrs: []ir.Attr{noEps}, in: []*ir.Tensor{f([]int{2, 2}, 1, 5, 0, 2), f([]int{2, 1}, 1, 2)},
			want: []*ir.Tensor{f([]int{2, 2}, -1, 1, -2, 2)}},
		{name: "half", op: "LayerNormalization", attrs: []ir.Attr{noEps}, in: []*ir.Tensor{half, half},
			want: []*ir.Tensor{ir.FromSlice(ir.Float16, []int{1, 2}, []uint16{0xbc00, 0x4200}), f([]int{1, 1}, 2), f([]int{1, 1}, 1)}},
		{name: "scale", op: "LayerNormalization", in: []*ir.Tensor{count(2, 2), count(3)}, err: "does not broadcast"},
		{name: "axis", op: "LayerNormalization", attrs: []ir.Attr{ir.IntAttr("axis", 2)}, in: []*ir.Tensor{count(2, 2), count(2)}, err: "axis 2"},
		{name: "plain", op: "RMSNormalization", attrs: []ir.Attr{noEps}, in: []*ir.Tensor{f([]int{1, 2}, 1, 7), f([]int{2}, 5, 10)}, want: []*ir.Tensor{f([]int{1, 2}, 1, 14)}},
		{name: "plain", op: "MeanVarianceNormalization", attrs: []ir.Attr{ir.IntsAttr("axes", 0)}, in: []*ir.Tensor{f([]int{2, 1}, 1, 5)}, want: []*ir.Tensor{f([]int{2, 1}, -1, 1)}},
		{name: "inference", op: "Dropout", in: []*ir.Tensor{count(2)}, want: []*ir.Tensor{count(2), ir.FromSlice(ir.Bool, []int{2}, []bool{true, true})}},
		{name: "opset 6", opset: 6, op: "Dropout", attrs: []ir.Attr{ir.FloatAttr("ratio", 0.3), ir.IntAttr("is_test", 1)}, in: []*ir.Tensor{count(2)}, want: []*ir.Tensor{count(2)}},
		{name: "mask of opset 7", opset: 7, op: "Dropout", in: []*ir.Tensor{count(2)}, want: []*ir.Tensor{count(2), f([]int{2}, 0, 0)}},
		{name: "mask of opset 10", opset: 10, op: "Dropout", in: []*ir.Tensor{count(2)}, want: []*ir.Tensor{count(2), ir.FromSlice(ir.Bool, []int{2}, []bool{false, false})}},
		{name: "ratio", op: "Dropout", in: []*ir.Tensor{count(2), f([]int{}, 1)}, err: "[0, 1)"},
	}
}

// TestWindowSymbols checks that inference keeps symbols through windows and products.
func TestWindowSymbols(t *testing.T) {
	t.Parallel()
	n, l := ir.NamedDim("N"), ir.NamedDim("L")
	for _, k := range []struct {
		op    string
		in    []ir.Type
		attrs []ir.Attr
		want  string
	}{
		{"MatMul", []ir.Type{ir.TensorType(ir.Float32, n, l, ir.FixedDim(4)), ir.FixedType(ir.Float32, 4, 5)}, nil, "float[N,L,5]"},
		{"Gemm", []ir.Type{ir.TensorType(ir.Float32, n, ir.FixedDim(4)), ir.FixedType(ir.Float32, 5, 4)}, []ir.Attr{ir.IntAttr("transB", 1)}, "float[N,5]"},
		{"Conv", []ir.Type{ir.TensorType(ir.Float32, n, ir.FixedDim(1), l), ir.FixedType(ir.Float32, 2, 1, 3)}, []ir.Attr{ir.IntsAttr("pads", 1, 1)}, "float[N,2,L]"},
		{"Conv", []ir.Type{ir.TensorType(ir.Float32, n, ir.FixedDim(1), l), ir.FixedType(ir.Float32, 2, 1, 3)}, nil, "float[N,2,?]"},
		{"ConvTranspose", []ir.Type{ir.TensorType(ir.Float32, n, ir.FixedDim(1), ir.FixedDim(3)), ir.FixedType(ir.Float32, 1, 2, 2)}, nil, "float[N,2,4]"},
		{"MaxPool", []ir.Type{ir.TensorType(ir.Float32, n, ir.FixedDim(1), ir.FixedDim(4))}, []ir.Attr{ir.IntsAttr("kernel_shape", 2)}, "float[N,1,3]"},
		{"Einsum", []ir.Type{ir.TensorType(ir.Float32, n, l), ir.TensorType(ir.Float32, l, ir.FixedDim(3))}, []ir.Attr{ir.StringAttr("equation", "nl,lk->nk")}, "float[N,3]"},
	} {
		m := ir.NewModel(op.Canonical)
		var ins []*ir.Value
		for i, ty := range k.in {
			ins = append(ins, m.Graph.AddInput(fmt.Sprintf("i%d", i), ty))
		}
		node := m.Graph.Place(nil, "node", ir.Op(k.op), ins, []string{"o"}, k.attrs...)
		m.Graph.AddOutput("o", node.Out(0))
		if err := op.Infer(m); err != nil {
			t.Errorf("%s: %v", k.op, err)
		} else if got := node.Out(0).Type.String(); got != k.want {
			t.Errorf("%s: inferred %s, want %s", k.op, got, k.want)
		}
	}
}

func TestLinearAxes(t *testing.T) {
	t.Parallel()
	for _, k := range []struct {
		op    string
		w     []int
		attrs []ir.Attr
		want  op.Linear
	}{
		{"MatMul", []int{4, 5}, nil, op.Linear{X: 0, W: 1, B: -1, XAxis: -1, InAxis: 0, OutAxis: 1, Groups: 1}},
		{"MatMul", []int{2, 4, 5}, nil, op.Linear{X: 0, W: 1, B: -1, XAxis: -1, InAxis: -2, OutAxis: -1, Groups: 1}},
		{"Gemm", []int{4, 5}, nil, op.Linear{X: 0, W: 1, B: -1, XAxis: -1, InAxis: 0, OutAxis: 1, Groups: 1}},
		{"Gemm", []int{4, 5}, []ir.Attr{ir.IntAttr("transB", 1), ir.IntAttr("transA", 1)}, op.Linear{X: 0, W: 1, B: -1, XAxis: 0, InAxis: 1, OutAxis: 0, Groups: 1}},
		{"Conv", []int{4, 5, 3, 3}, []ir.Attr{ir.IntAttr("group", 2)}, op.Linear{X: 0, W: 1, B: -1, XAxis: 1, InAxis: 1, OutAxis: 0, Groups: 2}},
		{"ConvTranspose", []int{4, 5, 3, 3}, nil, op.Linear{X: 0, W: 1, B: -1, XAxis: 1, InAxis: 0, OutAxis: 1, Groups: 1}},
	} {
		m := ir.NewModel(op.Canonical)
		x := m.Graph.AddInput("x", ir.Type{Elem: ir.Float32})
		w := m.Graph.AddConst("w", ir.NewTensor(ir.Float32, k.w...))
		n := m.Graph.Place(nil, "node", ir.Op(k.op), []*ir.Value{x, w}, []string{"o"}, k.attrs...)
		d, _ := op.Lookup(n)
		if got, ok := d.Linear(n); !ok || got != k.want {
			t.Errorf("%s %v: %+v %v, want %+v", k.op, k.w, got, ok, k.want)
		}
		n.SetIn(1, x)
		if _, ok := d.Linear(n); ok {
			t.Errorf("%s of two activations is linear", k.op)
		}
	}
}
