package passes

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
)

// integerPair reports whether a quantizer becomes a pair that ONNX Runtime's integer kernels read: static, one scale for
// the tensor, 8 bits.
func integerPair(s numfmt.Scheme) bool {
	return s.Format.Kind == numfmt.Int && s.Format.Bits == 8 && s.Scaled() && !s.Dynamic && s.Gran == numfmt.PerTensor && s.Arith == numfmt.ArithONNX
}

// weight8 reports whether QLinearMatMul takes the weight: 8 bits, one scale for the tensor or each channel.
func weight8(s numfmt.Scheme) bool {
	return s.Format.Kind == numfmt.Int && s.Format.Bits == 8 && s.Scaled() && (s.Gran == numfmt.PerTensor || s.Gran == numfmt.PerAxis) && s.Arith == numfmt.ArithONNX
}

// styleORT arranges the quantizers as ONNX Runtime's graph optimizer wants them to form integer kernels. Convolutions and
// Gemms whose operands are quantized get a quantizer at their result, behind an activation that the quantizer can take in; a
// quantized value is quantized for all that read it; and 8-bit schemes become uint8 with a zero point: its kernels for x86
// take no other, and only with 0 as the least code may an activation be left out. With matmuls, products of MatMul, those of
// attention too, get a quantizer at their results as well: QLinearMatMul gives quantized numbers alone.
func (in *inserter) styleORT(matmuls bool) {
	unsigned, err := numfmt.ParseScheme("uint8", numfmt.Input)
	if err != nil {
		panic("BUG: passes: " + err.Error())
	}
	byValue := map[quantKey]*quantizer{} // graph and value alone
	place := func(q *quantizer) quantKey { return quantKey{value: q.key.value, graph: q.key.graph} }
	for _, q := range in.quants {
		if q.role != numfmt.Weight && integerPair(q.key.scheme) && byValue[place(q)] == nil {
			byValue[place(q)] = q
		}
	}
	added := 0
	add := func(key quantKey, s numfmt.Scheme, before *ir.Node) {
		q := &quantizer{key: key, role: numfmt.Output, before: before, axis: -1}
		q.key.scheme, q.key.axes, q.key.out = s, numfmt.Axes{K: numfmt.NoAxis, Out: numfmt.NoAxis}, true
		byValue[key] = q
		in.quants = append(in.quants, q)
		added++
	}
	for _, d := range in.decisions {
		matmul := d.OpType() == "MatMul"
		if matmul && !matmuls || !matmul && d.Kind != Linear || !matmul && d.Linear.OutAxis != 0 && d.OpType() != "Gemm" {
			continue
		}
		var x *quantizer
		operands := 0
		for i := range d.Choices {
			q := in.of[&d.Choices[i]]
			switch {
			case q == nil:
			case q.role == numfmt.Weight && (!matmul || weight8(q.key.scheme)):
				operands++
			case q.role == numfmt.Input && integerPair(q.key.scheme):
				operands++
				x = q
			}
		}
		y := d.Node.Out(0)
		if u, ok := y.SingleUse(); ok {
			if _, ok := op.Rectifies(u.Node); ok {
				y = u.Node.Out(0)
			}
		}
		key := quantKey{value: y, graph: d.Node.Graph()}
		if x == nil || operands != 2 || byValue[key] != nil {
			continue
		}
		add(key, x.key.scheme, d.Node)
	}
	for i := 0; i < len(in.quants); i++ { // grows
		q := in.quants[i]
		if byValue[place(q)] != q {
			continue
		}
		if def := q.key.value.DefNode(); op.KeepsRange(def) && def.Graph() == q.key.graph {
			key := quantKey{value: def.In(0), graph: q.key.graph}
			if src := key.value.DefNode(); byValue[key] == nil && src != nil && src.Graph() == key.graph && op.ConstantOf(key.value) == nil {
				add(key, q.key.scheme, def)
			}
		}
		def := q.key.value.DefNode()
		q.key.out = q.key.out || def != nil && def.Graph() == q.key.graph
		s := unsigned
		if q.key.scheme.Range == numfmt.Narrow7 {
			s.Range = numfmt.Narrow7
		}
		q.key.scheme = s
		for _, c := range q.users {
			c.Scheme = s
		}
	}
	if added > 0 {
		in.u.entry.Notes = append(in.u.entry.Notes, fmt.Sprintf("style=ort: %d values that no site reads are quantized as well", added))
	}
}

// shareORT gives values that only rearrange a quantized value's elements that value's parameters.
func (in *inserter) shareORT() {
	for changed := true; changed; {
		changed = false
		for _, q := range in.quants {
			def := q.key.value.DefNode()
			if q.role == numfmt.Weight || q.drop != "" || !integerPair(q.key.scheme) || !op.KeepsRange(def) {
				continue
			}
			for _, r := range in.quants {
				same := r != q && r.role != numfmt.Weight && r.drop == "" && r.key.value == def.In(0) && r.key.scheme.Format == q.key.scheme.Format && integerPair(r.key.scheme)
				if same && (q.params.Scale[0] != r.params.Scale[0] || q.key.scheme != r.key.scheme) {
					q.key.scheme, q.params, q.amax, q.clip = r.key.scheme, r.params, r.amax, r.clip
					changed = true
				}
			}
		}
	}
}
