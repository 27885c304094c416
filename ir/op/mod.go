package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
)

var modDef = &Def{
	Name: "Mod", Doc: "the remainder of a/b with the sign of b, or of a if fmod=1", Since: 10, Versions: []int{10, 13, 28}, Types: numericTypes,
	In: Exactly(2), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		modSizes.record(c)
		return inferZip(ir.Undefined)(c)
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		if err := noZero(c.In[1]); err != nil {
			return nil, err
		}
		switch fmod := c.Node.Int("fmod", 0); fmod {
		case 0:
			return floorModRows.eval(c)
		case 1:
			return truncModRows.eval(c)
		default:
			return nil, fmt.Errorf("attribute fmod is %d, wants 0 or 1", fmod)
		}
	},
}

// modSizes leaves negative numbers alone, of which the remainder depends on fmod.
var modSizes = sizeRule{
	func(x, y int64) (int64, bool) {
		if x < 0 || y <= 0 {
			return 0, false
		}
		return x % y, true
	},
	func(x, y ir.Dim) ir.Dim { return ir.UnknownDim },
}

var floorModRows = &arith{
	rowOf(func(x, y float32) float32 { return float32(floorMod(float64(x), float64(y))) }), rowOf(floorMod),
	rowOf(intFloorMod[int8]), rowOf(intFloorMod[int16]), rowOf(intFloorMod[int32]), rowOf(intFloorMod[int64]),
	rowOf(intFloorMod[uint8]), rowOf(intFloorMod[uint16]), rowOf(intFloorMod[uint32]), rowOf(intFloorMod[uint64]),
}

var truncModRows = &arith{
	rowOf(func(x, y float32) float32 { return float32(math.Mod(float64(x), float64(y))) }), rowOf(math.Mod),
	rowOf(intMod[int8]), rowOf(intMod[int16]), rowOf(intMod[int32]), rowOf(intMod[int64]),
	rowOf(intMod[uint8]), rowOf(intMod[uint16]), rowOf(intMod[uint32]), rowOf(intMod[uint64]),
}

// floorMod is a - floor(a/b)·b: a zero result has the sign of b.
func floorMod(x, y float64) float64 {
	r := math.Mod(x, y)
	switch {
	case r == 0:
		return math.Copysign(0, y)
	case (r < 0) != (y < 0):
		return r + y
	}
	return r
}

func intFloorMod[T integer](x, y T) T {
	r := x % y
	if r != 0 && (r < 0) != (y < 0) {
		r += y
	}
	return r
}

func intMod[T integer](x, y T) T { return x % y }
