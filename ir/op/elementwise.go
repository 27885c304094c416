package op

import "github.com/qsimc/qsimc/ir"

// elementwise holds the standard operators whose results' elements each depend on the operands' elements at the same place alone.
var elementwise = map[string]bool{
	"Abs": true, "Add": true, "Celu": true, "Ceil": true, "Clip": true, "Cos": true, "Div": true, "Elu": true, "Erf": true, "Exp": true,
	"Floor": true, "Gelu": true, "HardSigmoid": true, "HardSwish": true, "Identity": true, "LeakyRelu": true, "Log": true, "Max": true,
	"Mean": true, "Min": true, "Mish": true, "Mul": true, "Neg": true, "PRelu": true, "Pow": true, "Reciprocal": true, "Relu": true,
	"Round": true, "Selu": true, "Sigmoid": true, "Sign": true, "Sin": true, "Softplus": true, "Softsign": true, "Sqrt": true, "Sub": true,
	"Sum": true, "Swish": true, "Tanh": true, "ThresholdedRelu": true, "Where": true,
}

// elementwiseMicrosoft holds those of ONNX Runtime's domain.
var elementwiseMicrosoft = map[string]bool{"BiasGelu": true, "FastGelu": true, "Gelu": true, "QuickGelu": true}

// Elementwise reports whether every element of the node's only result depends on the operands' elements at the same place
// alone, operands broadcast: a permutation of the positions of all operands permutes the result's alike.
func Elementwise(n *ir.Node) bool {
	if n.NumOut() != 1 {
		return false
	}
	return standard(n) && elementwise[n.Op.Type] || n.Op.Domain == Microsoft && elementwiseMicrosoft[n.Op.Type]
}
