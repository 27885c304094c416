package op_test

import (
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

func benchmarkNode(b *testing.B, opType string, in []*ir.Tensor, outs int, attrs ...ir.Attr) {
	m, _ := nodeCase{op: opType, in: in, fed: 1, outs: outs, attrs: attrs}.model()
	var n *ir.Node
	for n = range m.Graph.Nodes() {
	}
	d, _ := op.Lookup(n)
	b.SetBytes(int64(in[0].Size()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := op.Evaluate(op.NewCall(n, d, nil, nil, in)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTranspose(b *testing.B) {
	b.Run("heads/1x128x12x64", func(b *testing.B) {
		benchmarkNode(b, "Transpose", []*ir.Tensor{iota32(1, 128, 12, 64)}, 1, ir.IntsAttr("perm", 0, 2, 1, 3))
	})
	b.Run("keys/1x128x12x64", func(b *testing.B) {
		benchmarkNode(b, "Transpose", []*ir.Tensor{iota32(1, 128, 12, 64)}, 1, ir.IntsAttr("perm", 0, 2, 3, 1))
	})
	b.Run("channels/1x64x112x112", func(b *testing.B) {
		benchmarkNode(b, "Transpose", []*ir.Tensor{iota32(1, 64, 112, 112)}, 1, ir.IntsAttr("perm", 0, 2, 3, 1))
	})
	b.Run("reversed/64x65x66", func(b *testing.B) {
		benchmarkNode(b, "Transpose", []*ir.Tensor{iota32(64, 65, 66)}, 1)
	})
}

func BenchmarkMovement(b *testing.B) {
	image := iota32(1, 64, 56, 56)
	idx := make([]int64, 128)
	for i := range idx {
		idx[i] = int64(i * 37 % 1000)
	}
	b.Run("Gather/1000x768", func(b *testing.B) {
		benchmarkNode(b, "Gather", []*ir.Tensor{iota32(1000, 768), ir.Ints(idx...)}, 1)
	})
	b.Run("Concat/2x64x56x56", func(b *testing.B) {
		benchmarkNode(b, "Concat", []*ir.Tensor{image, image}, 1, ir.IntAttr("axis", 1))
	})
	b.Run("Slice/rotary", func(b *testing.B) {
		benchmarkNode(b, "Slice", []*ir.Tensor{iota32(1, 12, 128, 64), ir.Ints(32), ir.Ints(64), ir.Ints(3)}, 1)
	})
	b.Run("Slice/every second", func(b *testing.B) {
		benchmarkNode(b, "Slice", []*ir.Tensor{image, ir.Ints(0), ir.Ints(1 << 40), ir.Ints(3), ir.Ints(2)}, 1)
	})
	b.Run("Expand/heads", func(b *testing.B) {
		benchmarkNode(b, "Expand", []*ir.Tensor{iota32(1, 4, 1, 128, 64), ir.Ints(1, 4, 4, 128, 64)}, 1)
	})
	b.Run("Expand/inner", func(b *testing.B) {
		benchmarkNode(b, "Expand", []*ir.Tensor{iota32(64, 128, 1), ir.Ints(64, 128, 64)}, 1)
	})
	b.Run("Pad/conv", func(b *testing.B) {
		benchmarkNode(b, "Pad", []*ir.Tensor{image, ir.Ints(0, 0, 1, 1, 0, 0, 1, 1)}, 1)
	})
	b.Run("Resize/nearest", func(b *testing.B) {
		benchmarkNode(b, "Resize", []*ir.Tensor{image, nil, f32([]int{4}, 1, 1, 2, 2)}, 1, str("coordinate_transformation_mode", "asymmetric"), str("nearest_mode", "floor"))
	})
	b.Run("Resize/linear", func(b *testing.B) {
		benchmarkNode(b, "Resize", []*ir.Tensor{image, nil, f32([]int{4}, 1, 1, 2, 2)}, 1, str("mode", "linear"))
	})
	b.Run("DepthToSpace", func(b *testing.B) {
		benchmarkNode(b, "DepthToSpace", []*ir.Tensor{image}, 1, ir.IntAttr("blocksize", 2))
	})
	b.Run("TopK/50000", func(b *testing.B) {
		benchmarkNode(b, "TopK", []*ir.Tensor{iota32(1, 50000), ir.Ints(50)}, 2)
	})
}
