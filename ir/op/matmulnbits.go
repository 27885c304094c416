package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// packedCode reads code i of unsigned codes of 2, 4 or 8 bits, packed from the low bits of each byte on.
func packedCode(data []byte, i, bits int) int {
	per := 8 / bits
	return int(data[i/per]>>(i%per*bits)) & (1<<bits - 1)
}

// packedBits reads the attribute bits.
func packedBits(n *ir.Node) (int, error) {
	bits := n.Int("bits", 4)
	if bits != 2 && bits != 4 && bits != 8 {
		return 0, fmt.Errorf("attribute bits is %d, wants 2, 4 or 8: %w", bits, ErrUnsupported)
	}
	return int(bits), nil
}

var matMulNBitsDef = &Def{
	Domain: Microsoft, Name: "MatMulNBits", Doc: "A times the transpose of a weight of 2, 4 or 8-bit codes [N, K] with a scale and zero point for each block along K", Since: 1,
	Versions: []int{1}, Types: "float, float16, bfloat16", In: Between(3, 6), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		a := c.Type(0)
		k, n := c.Node.Int("K", 0), c.Node.Int("N", 0)
		if k < 1 || n < 1 {
			return nil, fmt.Errorf("attributes K %d and N %d are required and positive", k, n)
		}
		if !a.Ranked {
			return unranked(a.Elem), nil
		}
		if len(a.Dims) == 0 {
			return nil, fmt.Errorf("A is a scalar")
		}
		if d := a.Dim(-1); d.Known() && d.Size != k {
			return nil, fmt.Errorf("A is %v, wants rows of K = %d", a, k)
		}
		dims := cloneDims(a.Dims)
		dims[len(dims)-1] = ir.Dim{Size: n}
		return typed(a.Elem, dims), nil
	},
	Prepare: func(c *Call) (any, error) {
		for i := 1; i < 4; i++ {
			if c.Node.In(i) != nil && !c.Has(i) {
				return nil, nil
			}
		}
		return packNBits(c)
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		a := c.In[0]
		if a.Elem() != ir.Float32 {
			return nil, badType(c, 0)
		}
		packed, _ := c.State.(*kernel.PackedB)
		if packed == nil {
			var err error
			if packed, err = packNBits(c); err != nil {
				return nil, err
			}
		}
		s := a.Shape()
		if len(s) == 0 || s[len(s)-1] != packed.K {
			return nil, fmt.Errorf("A has shape %v, wants rows of K = %d", s, packed.K)
		}
		bias, err := vector[float32](c, 5, packed.N, "the bias")
		if err != nil {
			return nil, err
		}
		out, err := c.New(ir.Float32, append(append([]int{}, s[:len(s)-1]...), packed.N)...)
		if err != nil {
			return nil, err
		}
		m := product(s[:len(s)-1])
		y := ir.Data[float32](out)
		if m == 0 {
			return []*ir.Tensor{out}, nil
		}
		kernel.Gemm(m, ir.Data[float32](a), packed.K, packed, y, packed.N, false)
		if bias != nil {
			kernel.AddRows(m, packed.N, y, y, bias)
		}
		return []*ir.Tensor{out}, nil
	},
}

// packNBits decodes the weight and packs it for products.
func packNBits(c *Call) (*kernel.PackedB, error) {
	k, n, block := int(c.Node.Int("K", 0)), int(c.Node.Int("N", 0)), int(c.Node.Int("block_size", 0))
	bits, err := packedBits(c.Node)
	if err != nil {
		return nil, err
	}
	if p := c.Node.Int("weight_prepacked", 0); p != 0 {
		return nil, fmt.Errorf("attribute weight_prepacked is %d: %w", p, ErrUnsupported)
	}
	if _, err := ir.Numel([]int{n, k}); err != nil || k < 1 || n < 1 || block < 8 || block > 1<<20 || block&(block-1) != 0 {
		return nil, fmt.Errorf("attributes K %d, N %d and block_size %d: wants positive numbers, a power of two for the block", k, n, block)
	}
	blocks := (k + block - 1) / block
	blob := block * bits / 8
	b, scales := c.In[1], c.In[2]
	if b.Elem() != ir.Uint8 || b.Len() != n*blocks*blob {
		return nil, fmt.Errorf("B is %v, wants uint8[%d,%d,%d]", b.Type(), n, blocks, blob)
	}
	scale, ok := scales.Float32s()
	if !ok || len(scale) != n*blocks {
		return nil, fmt.Errorf("scales are %v, wants [%d,%d]", scales.Type(), n, blocks)
	}
	zero := func(r, g int) float32 { return float32(int(1) << (bits - 1)) }
	if z := intInput(c, 3); z != nil {
		row := (blocks*bits + 7) / 8
		switch {
		case z.Elem() == ir.Uint8 && z.Len() == n*row:
			data := z.Bytes()
			zero = func(r, g int) float32 { return float32(packedCode(data[r*row:], g, bits)) }
		case z.Elem().IsFloat() && z.Len() == n*blocks:
			v, _ := z.Float32s()
			zero = func(r, g int) float32 { return v[r*blocks+g] }
		default:
			return nil, fmt.Errorf("zero_points are %v, wants uint8[%d,%d] or float[%d,%d]", z.Type(), n, row, n, blocks)
		}
	}
	if c.Has(4) {
		return nil, fmt.Errorf("g_idx (input 4), which is deprecated: %w", ErrUnsupported)
	}
	w, data := make([]float32, n*k), b.Bytes()
	par.For(n, max(1, chunk/k), func(lo, hi int) {
		for r := lo; r < hi; r++ {
			codes := data[r*blocks*blob : (r+1)*blocks*blob]
			row := w[r*k : (r+1)*k]
			for i := range row {
				g := i / block
				row[i] = (float32(packedCode(codes, i, bits)) - zero(r, g)) * scale[r*blocks+g]
			}
		}
	})
	return kernel.PackB(k, n, w, k, true), nil
}

var gatherBlockQuantizedDef = &Def{
	Domain: Microsoft, Name: "GatherBlockQuantized", Doc: "slices of codes with a scale and zero point for each block, dequantized; indices outside give zeros", Since: 1,
	Versions: []int{1}, Types: "int4, uint4, uint8 → float, float16, bfloat16", In: Between(3, 4), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		d, idx := c.Type(0), c.Type(1)
		elem := c.Type(2).Elem
		if err := floatScale(elem); err != nil {
			return nil, err
		}
		if !d.Ranked || !idx.Ranked || d.Elem == ir.Undefined {
			return unranked(elem), nil
		}
		axis, err := Axis(c.Node.Int("gather_axis", 0), len(d.Dims))
		if err != nil {
			return nil, err
		}
		dims := cloneDims(d.Dims)
		if bits := c.Node.Int("bits", 4); d.Elem == ir.Uint8 && bits >= 1 && bits < 8 {
			dims[len(dims)-1] = mulDims(dims[len(dims)-1], ir.Dim{Size: 8 / bits})
		}
		return typed(elem, append(append(dims[:axis:axis], cloneDims(idx.Dims)...), dims[axis+1:]...)), nil
	},
	Eval: evalGatherBlockQuantized,
}

func evalGatherBlockQuantized(c *Call) ([]*ir.Tensor, error) {
	data, scales, zeros := c.In[0], c.In[2], intInput(c, 3)
	shape := append([]int{}, data.Shape()...)
	bits, low, base := 4, 0, 0 // of a code, what a negative sign weighs, the zero point where none is given
	switch data.Elem() {
	case ir.Int4:
		low = 16
	case ir.Uint4:
	case ir.Uint8:
		var err error
		if bits, err = packedBits(c.Node); err != nil {
			return nil, err
		}
		base = 1 << (bits - 1)
		if len(shape) > 0 {
			shape[len(shape)-1] *= 8 / bits
		}
	default:
		return nil, badType(c, 0)
	}
	code := func(b []byte, i int) int {
		v := packedCode(b, i, bits)
		if low != 0 && v >= 8 {
			v -= low
		}
		return v
	}
	axis, err := Axis(c.Node.Int("gather_axis", 0), len(shape))
	if err != nil {
		return nil, err
	}
	along, err := Axis(c.Node.Int("quantize_axis", 1), len(shape))
	if err != nil {
		return nil, err
	}
	block := c.Node.Int("block_size", 128)
	if block < 1 || block > 1<<30 {
		return nil, fmt.Errorf("attribute block_size is %d, wants a positive number", block)
	}
	groups := append([]int{}, shape...)
	groups[along] = (shape[along] + int(block) - 1) / int(block)
	if scales.Elem() != ir.Float32 {
		return nil, badType(c, 2)
	}
	scale, ok := scales.Float32s()
	if !ok || fmt.Sprint(scales.Shape()) != fmt.Sprint(groups) {
		return nil, fmt.Errorf("scales are %v, wants %v", scales.Type(), groups)
	}
	zero := func(int) int { return base }
	if zeros != nil {
		// codes in bytes are packed along the last axis, each row from a byte of its own
		last := groups[len(groups)-1]
		row := last
		if data.Elem() == ir.Uint8 {
			row = (last*bits + 7) / 8 * (8 / bits)
		}
		want := product(groups[:len(groups)-1]) * row
		have := zeros.Len()
		if zeros.Elem() == ir.Uint8 {
			have *= 8 / bits
		}
		if zeros.Elem() != data.Elem() || have != want {
			return nil, fmt.Errorf("zero_points are %v, wants %v of %v", zeros.Type(), groups, data.Elem())
		}
		b := zeros.Bytes()
		zero = func(i int) int { return code(b, i/last*row+i%last) }
	}
	indices, ok := c.ConstInts(1)
	if !ok {
		return nil, badType(c, 1)
	}
	out, err := c.New(ir.Float32, append(append(shape[:axis:axis], c.In[1].Shape()...), shape[axis+1:]...)...)
	if err != nil {
		return nil, err
	}
	y, src := ir.Data[float32](out), data.Bytes()
	inner, size := product(shape[axis+1:]), shape[axis]
	steps, groupSteps := stridesOf(shape), stridesOf(groups)
	par.For(product(shape[:axis])*len(indices), max(1, chunk/max(inner, 1)), func(lo, hi int) {
		for r := lo; r < hi; r++ {
			dst := y[r*inner : (r+1)*inner]
			at := indices[r%len(indices)]
			if at < 0 {
				at += int64(size)
			}
			if at < 0 || at >= int64(size) {
				clear(dst)
				continue
			}
			from := (r/len(indices)*size + int(at)) * inner
			for i := range dst {
				rest, g := from+i, 0
				for d, step := range steps {
					k := rest / step
					rest %= step
					if d == along {
						k /= int(block)
					}
					g += k * groupSteps[d]
				}
				dst[i] = float32(code(src, from+i)-zero(g)) * scale[g]
			}
		}
	})
	return []*ir.Tensor{out}, nil
}

// floatScale refuses scales of types that no result can have.
func floatScale(elem ir.DType) error {
	switch elem {
	case ir.Undefined, ir.Float32, ir.Float16, ir.BFloat16:
		return nil
	}
	return fmt.Errorf("scales are %v, wanted float, float16 or bfloat16", elem)
}
