package passes

import (
	"fmt"
	"math/bits"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
)

// nbits is a weight as ONNX Runtime's MatMulNBits holds it: unsigned codes by output channel, blocks along K.
type nbits struct {
	k, n, block, bits    int
	codes, scales, zeros *ir.Value // zeros is nil where all zero points are the middle code
}

// nbitsFits says why a weight cannot be stored for MatMulNBits, nil if it can.
func (l *lowered) nbitsFits() error {
	s := l.fq.Scheme
	shape := l.weight.Shape()
	block := s.Block
	if s.Gran == numfmt.PerAxis {
		block = 32 // the channel's scale, repeated
	}
	switch {
	case s.Format.Kind != numfmt.Int || s.Format.Bits != 2 && s.Format.Bits != 4 && s.Format.Bits != 8:
		return fmt.Errorf("MatMulNBits holds integers of 2, 4 or 8 bits, not %v", s.Format)
	case s.Arith != numfmt.ArithONNX || !s.Scaled():
		return fmt.Errorf("MatMulNBits multiplies by scales, scheme %v does not", s)
	case s.Gran != numfmt.PerBlock && s.Gran != numfmt.PerAxis:
		return fmt.Errorf("MatMulNBits has a scale for each block or output channel, scheme %v has none", s)
	case block < 16 || block > 256 || bits.OnesCount(uint(block)) != 1:
		return fmt.Errorf("MatMulNBits has blocks of 16, 32, 64, 128 or 256, scheme %v of %d", s, block)
	case len(shape) != 2:
		return fmt.Errorf("MatMulNBits holds matrices, the weight has shape %v", shape)
	}
	return nil
}

// nbitsUser reports whether a use of the weight is a product that MatMulNBits computes, and along which axis of the weight.
func nbitsUser(u ir.Use) (k int, ok bool) {
	n := u.Node
	if n == nil || u.Slot != 1 || n.In(0).Type.Elem != ir.Float32 {
		return 0, false
	}
	switch n.Op {
	case ir.Op("MatMul"):
		return 0, true
	case ir.Op("Gemm"):
		bias := n.In(2) == nil || n.In(2).Type.Rank() == 1
		return int(n.Int("transB", 0)), bias && n.Int("transA", 0) == 0 && n.Float("alpha", 1) == 1 && n.Float("beta", 1) == 1
	}
	return 0, false
}

// writeNBits replaces the products that read a weight by MatMulNBits where they allow it; what else reads it keeps a
// DequantizeLinear.
func (w *lowering) writeNBits(l *lowered) error {
	if err := l.nbitsFits(); err != nil {
		w.note("weight %q keeps its DequantizeLinear: %v", l.base(), err)
		return l.writeCodes()
	}
	s := l.fq.Scheme
	made := map[int]*nbits{}
	for _, u := range l.node.Out(0).Uses() {
		k, ok := nbitsUser(u)
		along := l.fq.Axes.K
		if s.Gran == numfmt.PerAxis {
			out := s.Axis
			if out == numfmt.AxisOut {
				out = l.fq.Axes.Out
			}
			along = 1 - (out+2)%2
		}
		if !ok || (along+2)%2 != k {
			continue
		}
		if made[k] == nil {
			b, err := l.nbits(k)
			if err != nil {
				return err
			}
			made[k] = b
		}
		if err := w.placeNBits(u.Node, made[k]); err != nil {
			return err
		}
	}
	if l.node.Out(0).NumUses() == 0 {
		return nil
	}
	w.note("weight %q keeps a DequantizeLinear for users that are no products of float32 with it", l.base())
	return l.writeCodes()
}

// nbits packs the weight whose contraction axis is k.
func (l *lowered) nbits(k int) (*nbits, error) {
	x, layout, err := l.weightValues()
	if err != nil {
		return nil, err
	}
	p, _, err := l.params()
	if err != nil {
		return nil, err
	}
	s := l.fq.Scheme
	coded, err := s.Encode(x, layout, p)
	if err != nil {
		return nil, err
	}
	code, err := numfmt.Unpack(coded.Elem, coded.Data, coded.Len)
	if err != nil {
		return nil, err
	}
	shape := l.weight.Shape()
	b := &nbits{k: shape[k], n: shape[1-k], block: s.Block, bits: s.Format.Bits}
	if s.Gran == numfmt.PerAxis {
		b.block = 32
	}
	half := uint32(0) // what makes a signed code unsigned
	if s.Format.Signed {
		half = 1 << (b.bits - 1)
	}
	middle, mask := uint32(1)<<(b.bits-1), uint32(1)<<b.bits-1
	blocks := (b.k + b.block - 1) / b.block
	codes := make([]uint32, b.n*blocks*b.block)
	scales := make([]float32, b.n*blocks)
	row := (blocks*b.bits + 7) / 8 * 8 / b.bits // zero points of a row fill whole bytes
	zeros := make([]uint32, b.n*row)
	allMiddle := true
	for i := range codes {
		codes[i] = middle
	}
	for n := range b.n {
		for g := range blocks {
			zeros[n*row+g] = middle
		}
		for i := range b.k {
			at := i*shape[1] + n
			if k == 1 {
				at = n*shape[1] + i
			}
			group := layout.GroupOf(at)
			g := i / b.block
			codes[n*blocks*b.block+i] = (code[at] + half) & mask
			if scales[n*blocks+g] = p.Scale[group]; p.Scale[group] == 0 {
				scales[n*blocks+g] = 1
			}
			zero := half
			if p.Zero != nil {
				zero = uint32(int32(p.Zero[group]) + int32(half))
			}
			zeros[n*row+g] = zero
			allMiddle = allMiddle && zero == middle
		}
	}
	elem := map[int]numfmt.Elem{2: numfmt.ElemUint2, 4: numfmt.ElemUint4, 8: numfmt.ElemUint8}[b.bits]
	data, err := numfmt.Pack(elem, codes)
	if err != nil {
		return nil, err
	}
	t, err := ir.TensorOf(ir.Uint8, []int{b.n, blocks, b.block * b.bits / 8}, data)
	if err != nil {
		return nil, err
	}
	if b.codes, err = l.constant("_quantized", t); err != nil {
		return nil, err
	}
	if b.scales, err = l.constant("_block_scale", ir.Floats(scales, b.n, blocks)); err != nil {
		return nil, err
	}
	if !allMiddle {
		if data, err = numfmt.Pack(elem, zeros); err != nil {
			return nil, err
		}
		if t, err = ir.TensorOf(ir.Uint8, []int{b.n, len(data) / b.n}, data); err != nil {
			return nil, err
		}
		if b.zeros, err = l.constant("_block_zero_point", t); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// placeNBits puts a MatMulNBits in a product's place.
func (w *lowering) placeNBits(n *ir.Node, b *nbits) error {
	in := []*ir.Value{n.In(0), b.codes, b.scales}
	if b.zeros != nil || n.In(2) != nil {
		in = append(in, b.zeros)
	}
	if n.In(2) != nil {
		in = append(in, nil, n.In(2))
	}
	w.u.Model.Opset[op.Microsoft] = 1
	k := n.Graph().Place(n, n.Name, ir.OpID{Domain: op.Microsoft, Type: "MatMulNBits"}, in, nil,
		ir.IntAttr("K", int64(b.k)), ir.IntAttr("N", int64(b.n)), ir.IntAttr("bits", int64(b.bits)), ir.IntAttr("block_size", int64(b.block)),
		ir.IntAttr("accuracy_level", int64(w.o.Accuracy)))
	k.Origin = "lower:" + n.Name
	k.TakeOut(0, n.Out(0))
	if err := op.InferNode(k); err != nil {
		return fmt.Errorf("node %v: %w", k, err)
	}
	return n.Graph().Remove(n)
}
