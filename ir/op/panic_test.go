package op_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
)

// TestNoPanics feeds every operator without subgraphs inputs of random types, shapes and contents, and random attributes,
// at random opsets. It may refuse them, but with an error, and what inference says must hold of what it gives.
func TestNoPanics(t *testing.T) {
	t.Parallel()
	for i, d := range op.Table() {
		if slices.Contains([]string{"If", "Loop", "Scan", "SequenceMap"}, d.Name) {
			continue
		}
		rng := rand.New(rand.NewPCG(uint64(i), 7))
		for range 40 {
			if err := tryRandom(rng, d); err != nil {
				t.Error(err)
				break
			}
		}
	}
}

// tryRandom makes one random call of an operator; an error is a panic, or a contradiction of inference.
func tryRandom(rng *rand.Rand, d *op.Def) (failure error) {
	m := ir.NewModel(op.Canonical)
	if d.Domain != "" {
		m.Opset[d.Domain] = 1
	} else if rng.IntN(3) == 0 {
		m.Opset[""] = d.Since + rng.IntN(op.Canonical-d.Since+1)
	}
	g, feed := m.Graph, ir.Tensors{}
	elem, shape := anyElem(rng), anyShape(rng)
	most := d.In.Max
	if most < 0 {
		most = d.In.Min + 2
	}
	var ins []*ir.Value
	for i := range d.In.Min + rng.IntN(most-d.In.Min+1) {
		if i >= d.In.Min && rng.IntN(4) == 0 {
			ins = append(ins, nil)
			continue
		}
		if rng.IntN(5) == 0 {
			elem = anyElem(rng)
		}
		if rng.IntN(3) == 0 {
			shape = anyShape(rng)
		}
		x := anyTensor(rng, elem, shape)
		name := fmt.Sprintf("in%d", i)
		if rng.IntN(2) == 0 {
			ins = append(ins, g.Const(name, x))
		} else {
			ins = append(ins, g.AddInput(name, x.Type()))
			feed[name] = x
		}
	}
	n := g.Insert(nil, "node", d.ID(), ins, []string{"out0", "out1", "out2"}[:max(1, min(d.Out.Min, 3))], anyAttrs(rng)...)
	for i := range n.NumOut() {
		g.AddOutput(n.Out(i).Name, n.Out(i))
	}
	defer func() {
		if x := recover(); x != nil {
			failure = fmt.Errorf("%s at opset %d: panic: %v\n%s", d.ID(), m.Opset[""], x, describeNode(n))
		}
	}()
	var out ir.Tensors
	p, err := runtime.CompileWith(context.Background(), m, runtime.Options{MaxMemory: 1 << 20})
	if err == nil {
		out, err = p.Run(context.Background(), feed)
	}
	if err != nil {
		if s := err.Error(); strings.Contains(s, "panic") || strings.Contains(s, "BUG") {
			return fmt.Errorf("%s at opset %d: %w\n%s", d.ID(), m.Opset[""], err, describeNode(n))
		}
		return nil
	}
	if err := op.Infer(m); err != nil {
		return fmt.Errorf("%s at opset %d runs, but is not inferred: %w\n%s", d.ID(), m.Opset[""], err, describeNode(n))
	}
	for _, o := range g.Outputs() {
		if t := o.Value.Type; out[o.Name] != nil {
			if _, err := ir.Merge(t, out[o.Name].Type()); err != nil {
				return fmt.Errorf("%s at opset %d: %s is inferred %v: %w\n%s", d.ID(), m.Opset[""], o.Name, t, err, describeNode(n))
			}
		}
	}
	return nil
}

func describeNode(n *ir.Node) string {
	var b strings.Builder
	for i := range n.NumIn() {
		if v := n.In(i); v != nil {
			fmt.Fprintf(&b, "  input %d: %v, constant: %v\n", i, v.Type, v.Const() != nil)
		}
	}
	for _, a := range n.Attrs {
		fmt.Fprintf(&b, "  %s: %d %v %v %q\n", a.Name, a.I, a.F, a.Ints, a.S)
	}
	return b.String()
}

func anyElem(rng *rand.Rand) ir.DType {
	often := []ir.DType{ir.Float32, ir.Float32, ir.Float32, ir.Float32, ir.Int64, ir.Int64, ir.Int32, ir.Uint8, ir.Int8, ir.Float16, ir.Bool}
	if rng.IntN(5) > 0 {
		return often[rng.IntN(len(often))]
	}
	return ir.DType(1 + rng.IntN(int(ir.Int2)))
}

func anyShape(rng *rand.Rand) []int {
	s := make([]int, rng.IntN(5))
	for i := range s {
		s[i] = []int{1, 1, 2, 2, 3, 4, 0, 7}[rng.IntN(8)]
	}
	return s
}

func anyTensor(rng *rand.Rand, elem ir.DType, shape []int) *ir.Tensor {
	x := ir.NewTensor(elem, shape...)
	if elem == ir.String {
		return x
	}
	small := rng.IntN(2) == 0
	switch {
	case elem == ir.Int64:
		for i := range ir.Data[int64](x) {
			ir.Data[int64](x)[i] = int64(rng.IntN(9)) - 3
			if !small && rng.IntN(4) == 0 {
				ir.Data[int64](x)[i] = int64(rng.Uint64())
			}
		}
	case elem == ir.Float32:
		for i := range ir.Data[float32](x) {
			ir.Data[float32](x)[i] = float32(rng.NormFloat64())
			if !small && rng.IntN(4) == 0 {
				ir.Data[float32](x)[i] = math.Float32frombits(rng.Uint32())
			}
		}
	default:
		for i := range x.Bytes() {
			x.Bytes()[i] = byte(rng.IntN(5))
			if !small {
				x.Bytes()[i] = byte(rng.Uint32())
			}
		}
	}
	return x
}

func anyAttrs(rng *rand.Rand) []ir.Attr {
	var attrs []ir.Attr
	number := func() int64 {
		if rng.IntN(8) == 0 {
			return int64(rng.Uint64())
		}
		return int64(rng.IntN(7)) - 2
	}
	for _, name := range []string{
		"axis", "keepdims", "noop_with_empty_axes", "to", "block_size", "group", "num_heads", "hidden_size", "ceil_mode", "storage_order",
		"batch_dims", "num_outputs", "size", "blocksize", "k", "exclusive", "reverse", "largest", "q_num_heads", "kv_num_heads", "p",
		"allowzero", "transA", "transB", "output_dtype", "dtype", "saturate", "start", "end", "upper", "num_groups", "output_height",
		"sampling_ratio", "align_corners", "batch_axis", "time_axis", "fmod", "interleaved", "rotary_embedding_dim", "K", "N", "bits",
	} {
		if rng.IntN(3) == 0 {
			attrs = append(attrs, ir.IntAttr(name, number()))
		}
	}
	for _, name := range []string{"axes", "perm", "kernel_shape", "strides", "pads", "dilations", "output_padding", "output_shape", "split", "shape"} {
		if rng.IntN(3) == 0 {
			v := make([]int64, rng.IntN(5))
			for i := range v {
				v[i] = number()
			}
			attrs = append(attrs, ir.IntsAttr(name, v...))
		}
	}
	for _, name := range []string{"alpha", "beta", "epsilon", "scale", "spatial_scale", "lambd", "bias", "extrapolation_value"} {
		if rng.IntN(4) == 0 {
			attrs = append(attrs, ir.FloatAttr(name, float32(rng.NormFloat64())))
		}
	}
	for _, choice := range [][]string{
		{"mode", "linear", "nearest", "cubic", "bilinear", "avg", "max", "reflect", "edge", "wrap", "DCR"}, {"reduction", "add", "mul", "max", "none"},
		{"direction", "LEFT", "RIGHT", "forward", "reverse", "bidirectional"}, {"equation", "ij,jk->ik", "...ii->...i", "i,i", "bij,bjk"},
		{"auto_pad", "SAME_UPPER", "VALID", "NOTSET"}, {"approximate", "tanh"}, {"round_mode", "down", "nearest"},
		{"coordinate_transformation_mode", "align_corners", "half_pixel", "tf_crop_and_resize"},
	} {
		if rng.IntN(2) == 0 {
			attrs = append(attrs, ir.StringAttr(choice[0], choice[1+rng.IntN(len(choice)-1)]))
		}
	}
	return attrs
}
