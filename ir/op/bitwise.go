package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

const integerTypes = "int8, int16, int32, int64, uint8, uint16, uint32, uint64"

// bitwiseDef defines an operator of two integers.
func bitwiseDef(name, doc string, versions []int, eval func(c *Call) ([]*ir.Tensor, error)) *Def {
	return &Def{
		Name: name, Doc: doc, Since: versions[0], Versions: versions, Types: integerTypes,
		In: Exactly(2), Out: Exactly(1), Infer: inferZip(ir.Undefined), Eval: eval,
	}
}

var (
	bitwiseAndDef = bitwiseDef("BitwiseAnd", "the bits set in both", []int{18}, bitAndRows.eval)
	bitwiseOrDef  = bitwiseDef("BitwiseOr", "the bits set in either", []int{18}, bitOrRows.eval)
	bitwiseXorDef = bitwiseDef("BitwiseXor", "the bits set in one only", []int{18}, bitXorRows.eval)
)

var bitAndRows = &arith{nil, nil,
	rowOf(bitAnd[int8]), rowOf(bitAnd[int16]), rowOf(bitAnd[int32]), rowOf(bitAnd[int64]),
	rowOf(bitAnd[uint8]), rowOf(bitAnd[uint16]), rowOf(bitAnd[uint32]), rowOf(bitAnd[uint64]),
}

var bitOrRows = &arith{nil, nil,
	rowOf(bitOr[int8]), rowOf(bitOr[int16]), rowOf(bitOr[int32]), rowOf(bitOr[int64]),
	rowOf(bitOr[uint8]), rowOf(bitOr[uint16]), rowOf(bitOr[uint32]), rowOf(bitOr[uint64]),
}

var bitXorRows = &arith{nil, nil,
	rowOf(bitXor[int8]), rowOf(bitXor[int16]), rowOf(bitXor[int32]), rowOf(bitXor[int64]),
	rowOf(bitXor[uint8]), rowOf(bitXor[uint16]), rowOf(bitXor[uint32]), rowOf(bitXor[uint64]),
}

func bitAnd[T integer](x, y T) T { return x & y }
func bitOr[T integer](x, y T) T  { return x | y }
func bitXor[T integer](x, y T) T { return x ^ y }

// bitShiftDef: a shift by a negative amount, or by the width and more, leaves the sign's extension only (opset 28).
var bitShiftDef = bitwiseDef("BitShift", "a shifted by b bits, direction LEFT or RIGHT (arithmetic)", []int{11, 28},
	func(c *Call) ([]*ir.Tensor, error) {
		switch dir := c.Node.Str("direction", ""); dir {
		case "LEFT":
			return shiftLeftRows.eval(c)
		case "RIGHT":
			return shiftRightRows.eval(c)
		default:
			return nil, fmt.Errorf("attribute direction is %q, wants LEFT or RIGHT", dir)
		}
	})

var shiftLeftRows = &arith{nil, nil,
	rowOf(shiftLeft[int8]), rowOf(shiftLeft[int16]), rowOf(shiftLeft[int32]), rowOf(shiftLeft[int64]),
	rowOf(shiftLeft[uint8]), rowOf(shiftLeft[uint16]), rowOf(shiftLeft[uint32]), rowOf(shiftLeft[uint64]),
}

var shiftRightRows = &arith{nil, nil,
	rowOf(shiftRight[int8]), rowOf(shiftRight[int16]), rowOf(shiftRight[int32]), rowOf(shiftRight[int64]),
	rowOf(shiftRight[uint8]), rowOf(shiftRight[uint16]), rowOf(shiftRight[uint32]), rowOf(shiftRight[uint64]),
}

// A negative amount converts to a huge unsigned one.
func shiftLeft[T integer](x, y T) T  { return x << uint64(y) }
func shiftRight[T integer](x, y T) T { return x >> uint64(y) }
