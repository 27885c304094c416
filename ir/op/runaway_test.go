package op_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime"
)

// TestRunaways: what would take a memory or a time out of all proportion is an error that says what was asked for.
func TestRunaways(t *testing.T) {
	t.Parallel()
	astronomical := ir.NewTensor(ir.Float32, 1<<40, 0)
	flat := make([]int, 22)
	for i := range flat {
		flat[i] = 1
	}
	region := []*ir.Tensor{count(1, 1, 2, 2), f([]int{1, 4}, 0, 0, 1, float32(math.Inf(1))), ir.Ints(0)}
	for _, k := range []nnCase{
		{name: "edges", op: "Pad", attrs: []ir.Attr{ir.StringAttr("mode", "edge")}, in: []*ir.Tensor{count(2), ir.Ints(0, 1<<31)}, err: "exceeds the memory limit"},
		{name: "empty", op: "Softmax", in: []*ir.Tensor{astronomical}, err: "whose product exceeds the memory limit"},
		{name: "to empty", op: "Reshape", attrs: []ir.Attr{ir.IntAttr("allowzero", 1)}, in: []*ir.Tensor{count(0), ir.Ints(0, 1<<30)}, err: "whose product exceeds the memory limit"},
		{name: "filled with nothing", op: "ConstantOfShape", in: []*ir.Tensor{ir.Ints(1<<39, 0)}, err: "exceeds the memory limit"},
		{name: "axes", op: "GridSample", in: []*ir.Tensor{ir.NewTensor(ir.Float32, flat...), ir.NewTensor(ir.Float32, append(flat[:21:21], 20)...)}, err: "20 axes, more than 8"},
		{name: "axes", op: "DeformConv", in: []*ir.Tensor{ir.NewTensor(ir.Float32, flat...), ir.NewTensor(ir.Float32, flat...), ir.NewTensor(ir.Float32, append([]int{1, 20}, flat[2:]...)...)}, err: "20 spatial axes, more than 8"},
		{name: "columns", op: "ConvTranspose", attrs: []ir.Attr{ir.IntsAttr("output_shape", 1)}, in: []*ir.Tensor{count(1, 1, 4096), count(1, 1, 4096)}, err: "scratch of"},
		{name: "stride", op: "ConvTranspose", attrs: []ir.Attr{ir.IntsAttr("strides", 1<<30)}, in: []*ir.Tensor{count(1, 1, 4096), count(1, 1, 1)}, err: "exceed"},
		{name: "blocks of nothing", op: "Col2Im", in: []*ir.Tensor{ir.NewTensor(ir.Float32, 1, 0, 1), ir.Ints(1, 1<<30), ir.Ints(1, 1<<30)}, err: "exceeds the memory limit"},
		{name: "dilation", op: "Col2Im", attrs: []ir.Attr{ir.IntsAttr("dilations", 1, 1<<62)}, in: []*ir.Tensor{count(1, 5, 5), ir.Ints(5, 5), ir.Ints(1, 5)}, err: "wants numbers up to"},
		{name: "infinite region", op: "RoiAlign", in: region, err: "region 0"},
		{name: "float zero point", op: "QuantizeLinear", in: []*ir.Tensor{count(2), ir.Scalar(1), ir.FromSlice(ir.Float8E4M3FN, []int{}, []uint8{1})}, err: "zero point 0.001953125, want 0"},
		{name: "type", op: "QuantizeLinear", attrs: []ir.Attr{ir.IntAttr("output_dtype", 1<<40+2)}, in: []*ir.Tensor{count(2), ir.Scalar(1)}, err: "output_dtype is 1099511627778, which is no element type"},
		{name: "type", op: "EyeLike", attrs: []ir.Attr{ir.IntAttr("dtype", 99)}, in: []*ir.Tensor{count(2, 2)}, err: "dtype is 99, which is no element type"},
	} {
		t.Run(k.op+"/"+k.name, func(t *testing.T) {
			t.Parallel()
			for _, from := range []int{1, len(k.in)} {
				feed := ir.Tensors{}
				for i, x := range k.in[:from] {
					feed[fmt.Sprintf("i%d", i)] = x
				}
				p, err := runtime.CompileWith(t.Context(), k.model(from), runtime.Options{MaxMemory: 1 << 23})
				if err == nil {
					_, err = p.Run(context.Background(), feed)
				}
				if err == nil || !strings.Contains(err.Error(), k.err) || strings.Contains(err.Error(), "panic") {
					t.Errorf("error %v, want one with %q", err, k.err)
				}
			}
		})
	}
}
