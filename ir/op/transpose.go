package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

var transposeDef = &Def{
	Name: "Transpose", Doc: "its input with the dimensions in another order", Since: 1,
	Versions: []int{1, 13, 21, 23, 24, 25}, Types: "all",
	In: Exactly(1), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		if !x.Ranked {
			if a := c.Node.Attr("perm"); a != nil {
				return typed(x.Elem, unknownDims(len(a.Ints))), nil
			}
			return unranked(x.Elem), nil
		}
		perm, err := permOf(c.Node, len(x.Dims))
		if err != nil {
			return nil, err
		}
		dims := make([]ir.Dim, len(perm))
		for i, p := range perm {
			dims[i] = ir.Dim{Size: x.Dims[p].Size, Name: x.Dims[p].Name}
		}
		keepDims(c, len(dims))
		return typed(x.Elem, dims), nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x := c.In[0]
		perm, err := permOf(c.Node, x.Rank())
		if err != nil {
			return nil, err
		}
		return one(transpose(c, x, perm))
	},
}

// permOf returns the attribute perm; without one, the dimensions reversed.
func permOf(n *ir.Node, rank int) ([]int, error) {
	a := n.Attr("perm")
	perm := make([]int, rank)
	if a == nil {
		for i := range perm {
			perm[i] = rank - 1 - i
		}
		return perm, nil
	}
	if len(a.Ints) != rank {
		return nil, fmt.Errorf("perm %v does not fit an input of rank %d", a.Ints, rank)
	}
	return axesOf(a.Ints, rank)
}

// transpose returns x with dimension i of the result being dimension perm[i] of x. A permutation that moves no element
// gives a view.
func transpose(c *Call, x *ir.Tensor, perm []int) (*ir.Tensor, error) {
	in := x.Shape()
	shape, st := make([]int, len(perm)), stridesOf(in)
	last, moves := -1, false
	for i, p := range perm {
		shape[i] = in[p]
		if in[p] != 1 {
			moves = moves || p < last
			last = p
		}
	}
	if !moves {
		return x.Reshape(shape...)
	}
	return move(c, x.Elem(), shape, []*ir.Tensor{x}, func(dst []byte, src [][]byte, w int) {
		steps := make([]step, len(perm))
		for i, d := range stridesOf(shape) {
			steps[i] = step{shape[i], d, st[perm[i]]}
		}
		strided(dst, src[0], w, 0, 0, steps)
	})
}
