package kernel

import "github.com/qsimc/qsimc/runtime/kernel/par"

// Act is an activation function of an Epilogue.
type Act int

// The activations: see the elementwise functions of the same names.
const (
	ActNone Act = iota
	ActRelu
	ActClip // to [Lo, Hi]
	ActGelu
	ActGeluTanh
	ActSigmoid
	ActTanh
	ActSilu
)

// Epilogue is what to do to a product while it is in the cache: C = act(C + Bias + RowBias + Residual), added in that
// order, each sum rounded, then quantized.
type Epilogue struct {
	Bias       []float32 // one for each column; nil: none
	RowBias    []float32 // one for each row; nil: none
	Residual   []float32 // same shape as C; nil: none
	ResidualLd int
	Act        Act
	Lo, Hi     float32 // for ActClip

	// Quant quantizes the blocks of each row of a Gemm; nil: none. It is not Relative, or Under something. Infinite is set
	// where it met infinity or NaN.
	Quant    *BlockQuant
	Infinite *par.Flag
}

func (e *Epilogue) check(what string, m, n int) {
	if e == nil {
		return
	}
	if e.Bias != nil {
		same(what+": bias", n, len(e.Bias))
	}
	if e.RowBias != nil {
		same(what+": row bias", m, len(e.RowBias))
	}
	if e.Residual != nil {
		need(what+": residual", len(e.Residual), m, n, e.ResidualLd)
	}
	if e.Quant != nil && what != "Gemm" {
		panic("BUG: kernel." + what + ": only Gemm quantizes its result")
	}
}

// after returns the epilogue as a step on blocks of c.
func (e *Epilogue) after(c []float32, ldc int) after {
	if e == nil {
		return nil
	}
	return func(r0, r1, c0, c1 int) { e.apply(r0, r1, c0, c1, c, ldc) }
}

func (e *Epilogue) apply(r0, r1, c0, c1 int, c []float32, ldc int) {
	if c0 >= c1 {
		return
	}
	var steps []float32
	if e.Quant != nil {
		buf := scratch((c1 - c0 + e.Quant.Size() - 1) / e.Quant.Size())
		defer release(buf)
		steps = buf.f
	}
	for r := r0; r < r1; r++ {
		row := c[r*ldc+c0 : r*ldc+c1]
		if e.Bias != nil {
			cur.binary[opAdd](row, row, e.Bias[c0:c1])
		}
		if e.RowBias != nil {
			cur.scalar[opAddS](row, row, e.RowBias[r])
		}
		if e.Residual != nil {
			cur.binary[opAdd](row, row, e.Residual[r*e.ResidualLd+c0:r*e.ResidualLd+c1])
		}
		e.act(row)
		if e.Quant != nil && !e.Quant.row(row, row, steps) {
			e.Infinite.Set()
		}
	}
}

// unit is the number of panels of nr columns whose end is the end of a block too.
func (e *Epilogue) unit(nr int) int {
	if e == nil || e.Quant == nil {
		return 1
	}
	a, b := nr, e.Quant.Size()
	for b != 0 {
		a, b = b, a%b
	}
	return e.Quant.Size() / a
}

func (e *Epilogue) act(x []float32) {
	switch e.Act {
	case ActNone:
	case ActClip:
		cur.clip(x, x, e.Lo, e.Hi)
	case ActRelu:
		cur.unary[opRelu](x, x)
	case ActGelu:
		cur.unary[opGelu](x, x)
	case ActGeluTanh:
		cur.unary[opGeluTanh](x, x)
	case ActSigmoid:
		cur.unary[opSigmoid](x, x)
	case ActTanh:
		cur.unary[opTanh](x, x)
	case ActSilu:
		cur.unary[opSilu](x, x)
	default:
		panic("BUG: kernel: unknown activation")
	}
}
