package op_test

import (
	"context"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime"
)

// BenchmarkMath runs elementwise operators and reductions at the sizes of a transformer's or CNN's layer.
func BenchmarkMath(b *testing.B) {
	x, image := iota32(197, 768), iota32(1, 64, 56, 56)
	mask := ir.NewTensor(ir.Bool, 1, 1, 197, 197)
	for _, tc := range []nodeCase{
		{name: "same", op: "Add", in: []*ir.Tensor{x, x}},
		{name: "bias", op: "Add", in: []*ir.Tensor{x, iota32(768)}},
		{name: "column", op: "Sub", in: []*ir.Tensor{x, iota32(197, 1)}},
		{name: "channel", op: "Mul", in: []*ir.Tensor{image, iota32(64, 1, 1)}},
		{name: "square", op: "Pow", in: []*ir.Tensor{x, ir.Scalar(2)}},
		{name: "float", op: "Relu", in: []*ir.Tensor{x}},
		{name: "float", op: "Erf", in: []*ir.Tensor{x}},
		{name: "float", op: "HardSwish", in: []*ir.Tensor{x}},
		{name: "float", op: "LeakyRelu", in: []*ir.Tensor{x}},
		{name: "float", op: "Floor", in: []*ir.Tensor{x}},
		{name: "float", op: "Log", in: []*ir.Tensor{x}},
		{name: "float", op: "Cos", in: []*ir.Tensor{x}},
		{name: "float", op: "Abs", in: []*ir.Tensor{x}},
		{name: "long", op: "Equal", in: []*ir.Tensor{ir.NewTensor(ir.Int64, 197, 768), ir.ScalarInt(3)}},
		{name: "mask", op: "Where", in: []*ir.Tensor{mask, iota32(1, 12, 197, 197), ir.Scalar(0)}},
		{name: "last", op: "Softmax", in: []*ir.Tensor{iota32(12, 197, 197)}},
		{name: "middle", op: "Softmax", in: []*ir.Tensor{iota32(12, 197, 197)}, attrs: []ir.Attr{ir.IntAttr("axis", 1)}},
		{name: "last", op: "ReduceMean", in: []*ir.Tensor{x, ir.Ints(-1)}},
		{name: "first", op: "ReduceMean", in: []*ir.Tensor{x, ir.Ints(0)}},
		{name: "last", op: "ReduceMax", in: []*ir.Tensor{x, ir.Ints(-1)}},
		{name: "image", op: "ReduceMean", in: []*ir.Tensor{image, ir.Ints(2, 3)}},
		{name: "last", op: "ArgMax", in: []*ir.Tensor{x}, attrs: []ir.Attr{ir.IntAttr("axis", -1)}},
		{name: "half", op: "Cast", in: []*ir.Tensor{x}, attrs: []ir.Attr{ir.IntAttr("to", int64(ir.Float16))}},
		{name: "long", op: "Cast", in: []*ir.Tensor{x}, attrs: []ir.Attr{ir.IntAttr("to", int64(ir.Int64))}},
	} {
		tc.fed = 1
		m, feed := tc.model()
		p, err := runtime.Compile(m)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(tc.op+"/"+tc.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(tc.in[0].Size()))
			for b.Loop() {
				if _, err := p.Run(context.Background(), feed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
