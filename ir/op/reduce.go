package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// fold is what a reduction accumulates.
type fold uint8

const (
	foldSum fold = iota
	foldAbs
	foldSquares
	foldProd
	foldMax
	foldMin
	foldExp // exp(x - m), m the maximum: ReduceLogSumExp's second sweep
)

// reduction describes one Reduce operator.
type reduction struct {
	fold fold
	done func(acc float64, n int) float64 // floats: the result from what was accumulated of n elements; nil: as it is
	ints bool                             // integers as well
	only bool                             // bool, int8 and uint8 as well: ReduceMax and ReduceMin
	mean bool
}

var (
	reduceSumDef       = reduceDef("ReduceSum", "the sum", []int{1, 11, 13}, reduction{fold: foldSum, ints: true})
	reduceMeanDef      = reduceDef("ReduceMean", "the mean", []int{1, 11, 13, 18}, reduction{fold: foldSum, ints: true, mean: true, done: func(a float64, n int) float64 { return a / float64(n) }})
	reduceMaxDef       = reduceDef("ReduceMax", "the greatest element; NaN if one is NaN", []int{1, 11, 12, 13, 18, 20}, reduction{fold: foldMax, ints: true, only: true})
	reduceMinDef       = reduceDef("ReduceMin", "the least element; NaN if one is NaN", []int{1, 11, 12, 13, 18, 20}, reduction{fold: foldMin, ints: true, only: true})
	reduceProdDef      = reduceDef("ReduceProd", "the product", []int{1, 11, 13, 18}, reduction{fold: foldProd, ints: true})
	reduceL1Def        = reduceDef("ReduceL1", "the sum of magnitudes", []int{1, 11, 13, 18}, reduction{fold: foldAbs, ints: true})
	reduceL2Def        = reduceDef("ReduceL2", "the root of the sum of squares", []int{1, 11, 13, 18}, reduction{fold: foldSquares, ints: true, done: func(a float64, _ int) float64 { return math.Sqrt(a) }})
	reduceSumSquareDef = reduceDef("ReduceSumSquare", "the sum of squares", []int{1, 11, 13, 18}, reduction{fold: foldSquares, ints: true})
	reduceLogSumDef    = reduceDef("ReduceLogSum", "the logarithm of the sum", []int{1, 11, 13, 18, 28}, reduction{fold: foldSum, ints: true, done: func(a float64, _ int) float64 { return math.Log(a) }})
	reduceLogSumExpDef = reduceDef("ReduceLogSumExp", "the logarithm of the sum of exponentials", []int{1, 11, 13, 18, 28}, reduction{fold: foldExp, ints: true})
)

// reduceDef defines a Reduce operator. Its axes were an attribute before opset 18, before 13 for ReduceSum.
func reduceDef(name, doc string, versions []int, r reduction) *Def {
	axesInput := 18
	if name == "ReduceSum" {
		axesInput = 13
	}
	types := cumTypes
	if r.only {
		types += ", int8, uint8, bool"
	}
	return &Def{
		Name: name, Doc: doc + " over the given axes, or all", Since: 1, Versions: versions, Types: types,
		In: Between(1, 2), Out: Exactly(1), Widen: true,
		Upgrades: []Upgrade{{axesInput, func(u *Up) error {
			u.AttrToInput("axes", 1)
			return nil
		}}},
		Infer: inferReduce,
		Eval: func(c *Call) ([]*ir.Tensor, error) {
			switch e := c.In[0].Elem(); {
			case e == ir.Float32:
				return reduceFloat[float32](c, r)
			case e == ir.Float64:
				return reduceFloat[float64](c, r)
			case e == ir.Int32 && r.ints:
				return reduceInt[int32, int64](c, r, math.MinInt32, math.MaxInt32)
			case e == ir.Int64 && r.ints:
				return reduceInt[int64, int64](c, r, math.MinInt64, math.MaxInt64)
			case e == ir.Uint32 && r.ints:
				return reduceInt[uint32, uint64](c, r, 0, math.MaxUint32)
			case e == ir.Uint64 && r.ints:
				return reduceInt[uint64, uint64](c, r, 0, math.MaxUint64)
			case e == ir.Int8 && r.only:
				return reduceInt[int8, int64](c, r, math.MinInt8, math.MaxInt8)
			case e == ir.Uint8 && r.only:
				return reduceInt[uint8, uint64](c, r, 0, math.MaxUint8)
			case e == ir.Bool && r.only:
				return reduceInt[uint8, uint64](c, r, 0, 1)
			}
			return nil, badType(c, 0)
		},
	}
}

// reduceAxes returns which of rank dimensions are reduced; known is false if that is not known yet.
func reduceAxes(c *Call, rank int) (reduced []bool, known bool, err error) {
	var axes []int64
	if c.Has(1) {
		if axes, known = c.ConstInts(1); !known {
			return nil, false, nil
		}
	}
	reduced = make([]bool, rank)
	if len(axes) == 0 {
		if c.Node.Int("noop_with_empty_axes", 0) == 0 {
			for i := range reduced {
				reduced[i] = true
			}
		}
		return reduced, true, nil
	}
	for _, a := range axes {
		k, err := Axis(a, rank)
		if err != nil {
			return nil, false, err
		}
		if reduced[k] {
			return nil, false, fmt.Errorf("axes %v name dimension %d twice", axes, k)
		}
		reduced[k] = true
	}
	return reduced, true, nil
}

func inferReduce(c *Call) ([]ir.Type, error) {
	t := c.Type(0)
	if !t.Ranked {
		return []ir.Type{{Elem: t.Elem}}, nil
	}
	keep := c.Node.Int("keepdims", 1) != 0
	reduced, ok, err := reduceAxes(c, len(t.Dims))
	if err != nil {
		return nil, err
	}
	if !ok {
		rank := len(t.Dims)
		if !keep {
			n := c.Type(1).Dim(0)
			if !n.Known() || n.Size == 0 || int(n.Size) > rank {
				return []ir.Type{{Elem: t.Elem}}, nil
			}
			rank -= int(n.Size)
		}
		dims := make([]ir.Dim, rank)
		for i := range dims {
			dims[i] = ir.UnknownDim
		}
		return []ir.Type{ir.TensorType(t.Elem, dims...)}, nil
	}
	return []ir.Type{ir.TensorType(t.Elem, reducedDims(t.Dims, func(i int) bool { return reduced[i] }, keep)...)}, nil
}

// reducedDims drops the dimensions that are reduced, or makes them 1.
func reducedDims(dims []ir.Dim, reduced func(i int) bool, keep bool) []ir.Dim {
	out := []ir.Dim{}
	for i, d := range dims {
		switch {
		case !reduced(i):
			out = append(out, d)
		case keep:
			out = append(out, ir.FixedDim(1))
		}
	}
	return out
}

// reducedShape is reducedDims of a shape.
func reducedShape(shape []int, reduced func(i int) bool, keep bool) []int {
	out := []int{}
	for i, d := range shape {
		switch {
		case !reduced(i):
			out = append(out, d)
		case keep:
			out = append(out, 1)
		}
	}
	return out
}

func emptyAxis(axis int) error { return fmt.Errorf("axis %d has no elements to choose from", axis) }

// sweep is the walk of a reduction: every result is a fold over the places in inner, from each of those in outer. Where
// the last dimension is kept the results come in runs of width neighbours, otherwise each inner place starts a run of
// width neighbours to fold.
type sweep struct {
	outer, inner grid
	width        int
	across       bool // width neighbours are width results
	n            int  // elements folded into one result
}

// grid is a set of places in a tensor: the multiples of the strides, in row-major order.
type grid struct {
	n             int
	dims, strides []int // innermost first
}

// at returns place i.
func (g *grid) at(i int) int {
	if len(g.dims) == 1 {
		return i * g.strides[0]
	}
	place := 0
	for k, d := range g.dims {
		place += i % d * g.strides[k]
		i /= d
	}
	return place
}

func (g *grid) add(dim, stride int) {
	g.n *= dim
	g.dims, g.strides = append(g.dims, dim), append(g.strides, stride)
}

func sweepOf(shape []int, reduced []bool) sweep {
	// neighbours of one kind merge; dimensions of 1 are of either kind
	var dims []int
	var red []bool
	for i, d := range shape {
		switch last := len(dims) - 1; {
		case d == 1:
		case last >= 0 && red[last] == reduced[i]:
			dims[last] *= d
		default:
			dims, red = append(dims, d), append(red, reduced[i])
		}
	}
	s := sweep{outer: grid{n: 1}, inner: grid{n: 1}, width: 1, n: 1}
	stride := 1
	for i := len(dims) - 1; i >= 0; i-- {
		if red[i] {
			s.n *= dims[i]
		}
		if i == len(dims)-1 {
			s.width, s.across = dims[i], !red[i]
		} else if red[i] {
			s.inner.add(dims[i], stride)
		} else {
			s.outer.add(dims[i], stride)
		}
		stride *= dims[i]
	}
	return s
}

// strip is the number of neighbouring results that one pass over the folded elements serves.
const strip = 512

// run folds src: pass is called once per result, or per strip of neighbouring results, with the index of the first, and
// the strip's width.
func (s *sweep) run(pass func(base, at, width int)) {
	if !s.across {
		per := max(1, s.n)
		par.For(s.outer.n, max(1, spreadGrain/per), func(lo, hi int) {
			for i := lo; i < hi; i++ {
				pass(s.outer.at(i), i, 1)
			}
		})
		return
	}
	strips := (s.width + strip - 1) / strip
	per := max(1, s.n*min(s.width, strip))
	par.For(s.outer.n*strips, max(1, spreadGrain/per), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			o, j := i/strips, i%strips*strip
			pass(s.outer.at(o)+j, o*s.width+j, min(strip, s.width-j))
		}
	})
}
