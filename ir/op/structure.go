package op

import (
	"math"

	"github.com/qsimc/qsimc/ir"
)

// Role says what an operator is to passes that match structure. Passes ask for roles so that operator names stay here.
type Role uint8

// The roles; an operator has one at most.
const (
	NoRole        Role = iota
	ProductRole        // multiplies its first two inputs and sums: MatMul, Gemm, Conv, ConvTranspose, Einsum
	AttentionRole      // a whole attention in one operator
	SoftmaxRole        // probabilities along an axis
	LookupRole         // input 0 is a table, input 1 the rows to take
	BatchNormRole      // inputs x, scale, bias, mean, variance
	AngleRole          // a trigonometric function
	QuantRole          // holds or makes quantized numbers
	RandomRole         // differs from run to run
	RecurrentRole      // a recurrent network in one operator
)

var roles = map[ir.OpID]Role{
	ir.Op("MatMul"): ProductRole, ir.Op("Gemm"): ProductRole, ir.Op("Conv"): ProductRole,
	ir.Op("ConvTranspose"): ProductRole, ir.Op("Einsum"): ProductRole, ir.Op("DeformConv"): ProductRole,
	ir.Op("Attention"):          AttentionRole,
	ir.Op("Softmax"):            SoftmaxRole,
	ir.Op("Gather"):             LookupRole,
	ir.Op("BatchNormalization"): BatchNormRole,
	ir.Op("Sin"):                AngleRole, ir.Op("Cos"): AngleRole,
	ir.Op("QuantizeLinear"): QuantRole, ir.Op("DequantizeLinear"): QuantRole, ir.Op("DynamicQuantizeLinear"): QuantRole,
	ir.Op("QLinearMatMul"): QuantRole, ir.Op("QLinearConv"): QuantRole, ir.Op("MatMulInteger"): QuantRole,
	ir.Op("ConvInteger"):  QuantRole,
	ir.Op("RandomNormal"): RandomRole, ir.Op("RandomNormalLike"): RandomRole, ir.Op("RandomUniform"): RandomRole,
	ir.Op("RandomUniformLike"): RandomRole, ir.Op("Multinomial"): RandomRole, ir.Op("Bernoulli"): RandomRole,
	ir.Op("LSTM"): RecurrentRole, ir.Op("GRU"): RecurrentRole, ir.Op("RNN"): RecurrentRole,

	ms("FusedMatMul"): ProductRole, ms("FusedGemm"): ProductRole, ms("FusedConv"): ProductRole,
	ms("Attention"): AttentionRole, ms("MultiHeadAttention"): AttentionRole, ms("GroupQueryAttention"): AttentionRole,
	ir.Op("LinearAttention"): AttentionRole,
	ms("QuantizeLinear"):     QuantRole, ms("DequantizeLinear"): QuantRole, ms("MatMulNBits"): QuantRole,
	ms("GatherBlockQuantized"): QuantRole, ms("DynamicQuantizeMatMul"): QuantRole, ms("MatMulIntegerToFloat"): QuantRole,
	ms("QGemm"): QuantRole, ms("QAttention"): QuantRole, ms("QLinearAdd"): QuantRole, ms("QLinearMul"): QuantRole,
	ms("QLinearAveragePool"): QuantRole, ms("QLinearGlobalAveragePool"): QuantRole, ms("QLinearConcat"): QuantRole,
	ms("QLinearSigmoid"): QuantRole, ms("QLinearSoftmax"): QuantRole, ms("QLinearLeakyRelu"): QuantRole,
}

// ms names an operator of ONNX Runtime's own domain.
func ms(name string) ir.OpID { return ir.OpID{Domain: "com.microsoft", Type: name} }

// FakeQuantOp is the one quantization node that passes insert: inputs x, scale, zero; see its definition.
var FakeQuantOp = ir.OpID{Domain: "qsimc", Type: "FakeQuant"}

// RoleOf returns the role of a node's operator.
func RoleOf(n *ir.Node) Role {
	id := n.Op
	if id.Domain == "ai.onnx" {
		id.Domain = ""
	}
	id.Overload = ""
	if SaysQuantized(n.Doc) {
		return QuantRole
	}
	if id.Domain == Domain {
		return QuantRole // FakeQuant, and calls of the functions that simulate it
	}
	return roles[id]
}

// scorePath holds the operators that attention scores and probabilities may pass between a product and its Softmax:
// scaling, masking, guarding, and changes of shape.
var scorePath = map[string]bool{
	"Add": true, "Sub": true, "Mul": true, "Div": true, "Where": true, "Max": true, "Min": true, "Clip": true, "Cast": true,
	"CastLike": true, "Reshape": true, "Squeeze": true, "Unsqueeze": true, "Flatten": true, "Transpose": true, "Expand": true,
	"Identity": true, "Dropout": true, "Tanh": true,
}

// OnScorePath reports whether attention scores may pass the node between a product and its Softmax, or probabilities
// between Softmax and product.
func OnScorePath(n *ir.Node) bool { return standard(n) && scorePath[n.Op.Type] }

// OnAnglePath reports whether position angles may pass the node between the product that makes them and their sine.
func OnAnglePath(n *ir.Node) bool {
	return standard(n) && (scorePath[n.Op.Type] || n.Op.Type == "Concat" || n.Op.Type == "Slice" || n.Op.Type == "Split")
}

// ConstantOf returns the contents of a value that is a constant of the graph or the result of a Constant node; nil for all
// others, and for inputs that a caller may override (those with a default value where the model's IR version keeps
// initializers and inputs apart).
func ConstantOf(v *ir.Value) *ir.Tensor {
	if v == nil {
		return nil
	}
	if t := v.Const(); t != nil {
		if Overridable(v) {
			return nil
		}
		return t
	}
	if n := v.DefNode(); n != nil && n.Op == ir.Op("Constant") {
		if t, err := ConstantValue(n); err == nil {
			return t
		}
	}
	return nil
}

// Overridable reports whether a constant is the default of an input that a caller may feed. Before IR version 4 every
// initializer had to be listed as an input and is a plain constant.
func Overridable(v *ir.Value) bool {
	return v.Const() != nil && v.IsInput() && v.Graph().Model().IRVersion >= 4
}

// Source follows a weight one step towards its constant: it returns the input that the node merely rearranges or converts
// between float types, and the map from axes of the result to axes of that input. ok is false for all other nodes.
func Source(n *ir.Node) (in *ir.Value, axis func(int) int, ok bool) {
	if !standard(n) {
		return nil, nil, false
	}
	in = n.In(0)
	switch n.Op.Type {
	case "Identity":
	case "Cast":
		if !in.Type.Elem.IsFloat() || !ir.DType(n.Int("to", 0)).IsFloat() {
			return nil, nil, false
		}
	case "Transpose":
		rank := in.Type.Rank()
		perm := n.Ints("perm")
		if rank < 0 || perm != nil && len(perm) != rank {
			return nil, nil, false
		}
		return in, func(a int) int {
			if perm == nil {
				return rank - 1 - a
			}
			return int(perm[a])
		}, true
	default:
		return nil, nil, false
	}
	return in, func(a int) int { return a }, true
}

// Moves reports whether the node's result holds the elements of its input 0 and nothing else: a second copy of them if
// input 0 is a constant and the node is folded away.
func Moves(n *ir.Node) bool {
	if !standard(n) {
		return false
	}
	switch n.Op.Type {
	case "Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Expand", "Tile", "Gather":
		return true
	}
	return false
}

// Reshapes reports whether the node's result holds the elements of its input 0 in the same order, in another shape.
func Reshapes(n *ir.Node) bool {
	if !standard(n) {
		return false
	}
	switch n.Op.Type {
	case "Reshape", "Squeeze", "Unsqueeze", "Flatten":
		return true
	}
	return false
}

// Joins reports whether the node's result holds the elements of all its inputs, side by side.
func Joins(n *ir.Node) bool { return standard(n) && n.Op.Type == "Concat" }

// Normalizes reports whether the node is a normalization along the last axes in one operator.
func Normalizes(n *ir.Node) bool {
	switch n.Op.Type {
	case "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization":
		return standard(n) || n.Op.Domain == "com.microsoft"
	}
	return false
}

// ScalesBySpread reports whether the node divides or multiplies a value by what a square root or power of means gives, as a
// normalization written out in single operators does.
func ScalesBySpread(n *ir.Node) bool {
	if !standard(n) || n.Op.Type != "Div" && n.Op.Type != "Mul" {
		return false
	}
	for _, v := range n.Ins() {
		root := false
		for range 5 {
			d := v.DefNode()
			if d == nil || !standard(d) {
				break
			}
			switch d.Op.Type {
			case "ReduceMean":
				if root {
					return true
				}
			case "Sqrt", "Pow":
				root = true
			case "Reciprocal", "Add", "Div", "Cast":
			default:
				d = nil
			}
			if d == nil {
				break
			}
			if v = d.In(0); ConstantOf(v) != nil && d.NumIn() > 1 {
				v = d.In(1)
			}
		}
	}
	return false
}

// Copies reports whether the node's only wanted result is its input 0 as it is: Identity, a Cast to the type at hand, a
// Dropout outside training, a Transpose that moves nothing, a Concat, Sum, Max, Min or Mean of one operand.
func Copies(n *ir.Node) bool {
	if !standard(n) || n.In(0) == nil || n.Out(0) == nil {
		return false
	}
	for i := 1; i < n.NumOut(); i++ {
		if v := n.Out(i); v != nil && v.NumUses() > 0 {
			return false
		}
	}
	switch n.Op.Type {
	case "Identity":
		return true
	case "Concat", "Sum", "Max", "Min", "Mean":
		return n.NumIn() == 1
	case "Cast":
		return n.In(0).Type.Elem != ir.Undefined && n.In(0).Type.Elem == ir.DType(n.Int("to", 0))
	case "Dropout":
		switch v := n.Graph().Model().Opset[""]; {
		case v < 7:
			return n.Int("is_test", 0) != 0
		case v < 12 || n.In(2) == nil:
			return true
		}
		t := ConstantOf(n.In(2))
		if t == nil {
			return false
		}
		train, ok := t.Int64s()
		return ok && len(train) == 1 && train[0] == 0
	case "Transpose":
		perm := n.Ints("perm")
		for i, p := range perm {
			if int(p) != i {
				return false
			}
		}
		return perm != nil
	}
	return false
}

// InferenceBatchNorm reports whether a node of BatchNormRole normalizes each channel by its stored mean and variance, as
// inference does, and gives nothing else.
func InferenceBatchNorm(n *ir.Node) bool {
	for i := 1; i < n.NumOut(); i++ {
		if v := n.Out(i); v != nil && v.NumUses() > 0 {
			return false
		}
	}
	v := n.Graph().Model().Opset[""]
	switch {
	case v < 7:
		return n.Int("is_test", 0) != 0 && n.Int("spatial", 1) == 1
	case v < 9:
		return n.Int("spatial", 1) == 1
	}
	return n.Int("training_mode", 0) == 0
}

// BiasAdd returns the node that adds a constant vector to a product's result v and nothing else reads v, with the slot of
// the constant; nil if there is none.
func BiasAdd(v *ir.Value) (*ir.Node, int) {
	u, ok := v.SingleUse()
	if !ok || u.Node == nil || u.Node.Op != ir.Op("Add") || u.Graph != v.Graph() {
		return nil, 0
	}
	slot := 1 - u.Slot
	c := u.Node.In(slot)
	if c == v {
		return nil, 0
	}
	t := ConstantOf(c)
	if t == nil {
		return nil, 0
	}
	last := 1
	if t.Rank() > 0 {
		last = t.Shape()[t.Rank()-1]
	}
	if t.Len() != last {
		return nil, 0
	}
	return u.Node, slot
}

// isWeight reports whether an operand of a product is a constant, at once or through nodes that rearrange it, of the given
// rank or, for rank 0, at least a matrix.
func isWeight(v *ir.Value, rank int) bool {
	if r := v.Type.Rank(); rank > 0 && r != rank || r < 2 {
		return false
	}
	for ConstantOf(v) == nil {
		n := v.DefNode()
		if n == nil || n.NumIn() == 0 {
			return false
		}
		in, _, ok := Source(n)
		if !ok {
			return false
		}
		v = in
	}
	return true
}

// Rectifies reports whether the node is an activation that is 0 below 0 and leaves what is above, up to a bound (+Inf: none):
// Relu, and Clip from 0. A quantizer behind it whose least code stands for 0 and whose greatest for the bound or less does the
// same.
func Rectifies(n *ir.Node) (bound float32, ok bool) {
	none := float32(math.Inf(1))
	if n == nil || !standard(n) {
		return 0, false
	}
	limit := func(slot int, attr string, def float32) float32 {
		if n.NumIn() <= 1 {
			return n.Float(attr, def)
		}
		if n.In(slot) == nil {
			return def
		}
		if t := ConstantOf(n.In(slot)); t != nil && t.Len() == 1 {
			if v, ok := t.Float32s(); ok {
				return v[0]
			}
		}
		return float32(math.NaN())
	}
	switch n.Op.Type {
	case "Relu":
		return none, true
	case "Clip":
		bound = limit(2, "max", none)
		return bound, limit(1, "min", -none) == 0 && bound > 0
	}
	return 0, false
}

// BiasSlot is the input at which a product adds a bias for each output channel, -1 for products without.
func BiasSlot(n *ir.Node) int {
	switch {
	case standard(n) && (n.Op.Type == "Conv" || n.Op.Type == "ConvTranspose"):
		return 2
	case standard(n) && n.Op.Type == "Gemm" && n.Float("alpha", 1) == 1 && n.Float("beta", 1) == 1:
		return 2
	}
	return -1
}

// KeepsRange reports whether the node's result holds only elements of its input 0, so that both may share quantization
// parameters.
func KeepsRange(n *ir.Node) bool {
	return n != nil && (Moves(n) && n.Op.Type != "Cast" || standard(n) && n.Op.Type == "MaxPool")
}
