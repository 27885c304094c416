package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// ONNX Runtime's integer products with float scales and results.

var qGemmDef = &Def{
	Domain: Microsoft, Name: "QGemm", Doc: "alpha·(A'·B' + C) of quantized matrices; quantized if y_scale is given, else float", Since: 1,
	Versions: []int{1}, Types: "int8, uint8 → int8, uint8, float", In: Between(6, 9), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		m, ka, err := gemmDims(c.Type(0), c.Node.Int("transA", 0) != 0, "A")
		if err != nil {
			return nil, err
		}
		kb, n, err := gemmDims(c.Type(3), c.Node.Int("transB", 0) != 0, "B")
		if err != nil {
			return nil, err
		}
		if ka.Known() && kb.Known() && ka.Size != kb.Size {
			return nil, fmt.Errorf("A %v and B %v: the contracted dimensions %d and %d differ", c.Type(0), c.Type(3), ka.Size, kb.Size)
		}
		elem := ir.Float32
		if c.Has(8) {
			elem = c.Type(8).Elem
		} else if c.Has(7) {
			elem = c.Type(0).Elem
		}
		return typed(elem, []ir.Dim{m, n}), nil
	},
	Prepare: func(c *Call) (any, error) { return prepareInt(c, 3, 5, c.Node.Int("transB", 0) != 0) },
	Eval:    evalQGemm,
}

// transposed8 returns the transpose of a matrix of 8-bit codes.
func transposed8(t *ir.Tensor) *ir.Tensor {
	rows, cols := t.Shape()[0], t.Shape()[1]
	out := ir.NewTensor(t.Elem(), cols, rows)
	kernel.Transpose(rows, cols, out.Bytes(), rows, t.Bytes(), cols)
	return out
}

func evalQGemm(c *Call) ([]*ir.Tensor, error) {
	a, b := c.In[0], c.In[3]
	if a == nil || b == nil {
		return nil, fmt.Errorf("inputs 0 and 3 are required")
	}
	for _, e := range []error{codes8(a, "A"), codes8(b, "B")} {
		if e != nil {
			return nil, e
		}
	}
	if a.Rank() != 2 || b.Rank() != 2 {
		return nil, fmt.Errorf("operands have shapes %v and %v, wants matrices", a.Shape(), b.Shape())
	}
	if c.Node.Int("transA", 0) != 0 {
		a = transposed8(a)
	}
	packed, _ := c.State.(*kernel.PackedInt8)
	p, err := intOperandsOf(a, b, intInput(c, 2), intInput(c, 5), packed, c.Node.Int("transB", 0) != 0)
	if err != nil {
		return nil, err
	}
	acc, err := p.accumulate(c)
	if err != nil {
		return nil, err
	}
	v := ir.Data[int32](acc)
	var bias []int32
	if c.Has(6) {
		if c.In[6].Elem() != ir.Int32 {
			return nil, badType(c, 6)
		}
		if s := c.In[6].Shape(); p.n > 0 && (len(s) == 1 || len(s) == 2 && s[0] == 1) && c.In[6].Len() == p.n {
			bias = ir.Data[int32](c.In[6])
		} else if err := addBias(v, p.m, p.n, c.In[6], 1); err != nil {
			return nil, err
		}
	}
	as, err := scalarFloat(c.In[1], "the scale of A")
	if err != nil {
		return nil, err
	}
	bs, err := columnScales(c.In[4], p.n, "the scale of B")
	if err != nil {
		return nil, err
	}
	scale := make([]float32, p.n)
	for i := range scale {
		scale[i] = float32(c.Node.Float("alpha", 1)*as) * bs[i%len(bs)]
	}
	if !c.Has(7) {
		return scaledColumns(c, p, v, bias, scale, nil)
	}
	elem := a.Elem()
	if c.Has(8) {
		elem = c.In[8].Elem()
	}
	to, err := affineOf(c, 7, 8, elem, "Y")
	if err != nil {
		return nil, err
	}
	for i := range scale {
		scale[i] /= to.scale
	}
	out, err := c.New(elem, p.shape...)
	if err != nil {
		return nil, err
	}
	return one(out, storeSums(out, v, bias, scale, to.zero))
}

// scaledColumns returns sums plus the bias times their column's scale plus the shift; bias and shift may be nil.
func scaledColumns(c *Call, p *intOperands, sums, bias []int32, scale, shift []float32) ([]*ir.Tensor, error) {
	out, err := c.New(ir.Float32, p.shape...)
	if err != nil || out.Len() == 0 {
		return []*ir.Tensor{out}, err
	}
	kernel.ScaleSums(out.Len()/p.n, p.n, ir.Data[float32](out), sums, bias, scale, shift)
	return []*ir.Tensor{out}, nil
}

// columnBias reads an optional bias of n float32 numbers.
func columnBias(c *Call, i, n int) ([]float32, error) {
	if !c.Has(i) {
		return nil, nil
	}
	if c.In[i].Elem() != ir.Float32 {
		return nil, badType(c, i)
	}
	return vector[float32](c, i, n, "the bias")
}

var matMulIntegerToFloatDef = &Def{
	Domain: Microsoft, Name: "MatMulIntegerToFloat", Doc: "the matrix product of quantized operands, in float, plus a bias", Since: 1,
	Versions: []int{1}, Types: "int8, uint8 → float, float16", In: Between(4, 7), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		if err := floatScale(c.Type(2).Elem); err != nil {
			return nil, err
		}
		return inferIntProduct(c, 0, 1, c.Type(2).Elem)
	},
	Prepare: func(c *Call) (any, error) { return prepareInt(c, 1, 5, false) },
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		packed, _ := c.State.(*kernel.PackedInt8)
		p, err := intOperandsOf(c.In[0], c.In[1], intInput(c, 4), intInput(c, 5), packed, false)
		if err != nil {
			return nil, err
		}
		if c.In[2].Elem() != ir.Float32 {
			return nil, badType(c, 2)
		}
		as, err := scalarFloat(c.In[2], "the scale of A")
		if err != nil {
			return nil, err
		}
		return floatProduct(c, p, as, 3, 6)
	},
}

// floatProduct runs a product and scales it by as and the scales of B at input bScale, plus the bias at the given input.
func floatProduct(c *Call, p *intOperands, as float32, bScale, bias int) ([]*ir.Tensor, error) {
	bs, err := columnScales(c.In[bScale], p.n, "the scale of B")
	if err != nil {
		return nil, err
	}
	scale := make([]float32, p.n)
	for i := range scale {
		scale[i] = as * bs[i%len(bs)]
	}
	b, err := columnBias(c, bias, p.n)
	if err != nil {
		return nil, err
	}
	acc, err := p.accumulate(c)
	if err != nil {
		return nil, err
	}
	return scaledColumns(c, p, ir.Data[int32](acc), nil, scale, b)
}

var dynamicQuantizeMatMulDef = &Def{
	Domain: Microsoft, Name: "DynamicQuantizeMatMul", Doc: "A quantized to uint8 by its own range, times quantized B, in float, plus a bias", Since: 1,
	Versions: []int{1}, Types: "float", In: Between(3, 5), Out: Exactly(1),
	Infer:   func(c *Call) ([]ir.Type, error) { return inferIntProduct(c, 0, 1, c.Type(0).Elem) },
	Prepare: func(c *Call) (any, error) { return prepareInt(c, 1, 3, false) },
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		if c.In[0].Elem() != ir.Float32 {
			return nil, badType(c, 0)
		}
		codes, scale, zero, err := dynamicCodes(c, c.In[0])
		if err != nil {
			return nil, err
		}
		packed, _ := c.State.(*kernel.PackedInt8)
		p, err := intOperandsOf(codes, c.In[1], ir.FromSlice(ir.Uint8, []int{}, []uint8{zero}), intInput(c, 3), packed, false)
		if err != nil {
			return nil, err
		}
		return floatProduct(c, p, scale, 2, 4)
	},
}
