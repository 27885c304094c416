package calib

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// Gram sums xᵀ·x over the rows x that the weights of a linear operator multiply: the Hessian of its squared error up to a
// factor (METHODS.md §6). Rows count as rounded to 15 bits and sign (kernel.SyrkAdd); their sum is float64 and taken in the order
// of the samples, so it is the same on any machine and any number of cores.
type Gram struct {
	K    int         // length of a row; 0 before the first sample
	H    [][]float64 // by group of a convolution, else one: K×K, row-major, the lower triangle
	Rows int         // rows seen, of each group
	// D sums (z-x)ᵀ·x over the rows x and those that lie beside them, z; K×K, row-major, by group. Nil: no two of them differ.
	D [][]float64

	axis   int // the contraction axis of the value
	conv   *ir.Node
	weight []int
}

// NewGram observes a value whose axis (negative: from the end) is contracted.
func NewGram(axis int) *Gram { return &Gram{axis: axis} }

// NewConvGram observes the input of a convolution whose weight has the given shape: a row is the patch under the window, in
// the order of the weight.
func NewConvGram(n *ir.Node, weight []int) *Gram { return &Gram{conv: n, weight: weight} }

// Passes returns 1.
func (g *Gram) Passes() int { return 1 }

// Ordered reports that samples must come one by one.
func (g *Gram) Ordered() bool { return true }

// Observe adds one sample.
func (g *Gram) Observe(_, _ int, t *ir.Tensor) error {
	return g.rows(t, g.add)
}

// ObserveBeside adds one sample to H, and to D by what differs from it in a tensor of the same shape.
func (g *Gram) ObserveBeside(_ int, t, beside *ir.Tensor) error {
	x, ok := t.Float32s()
	z, ok2 := beside.Float32s()
	if !ok || !ok2 || len(x) != len(z) {
		return fmt.Errorf("%v and %v beside it cannot be compared", t.Type(), beside.Type())
	}
	diff, same := make([]float32, len(x)), true
	for i, v := range x {
		diff[i] = z[i] - v
		same = same && diff[i] == 0
	}
	if same {
		return g.Observe(0, 0, t)
	}
	var left []float32
	err := g.rows(ir.Floats(diff, t.Shape()...), func(_ int, rows []float32, n, k int) error {
		left = append(left, rows[:n*k]...)
		return nil
	})
	if err != nil {
		return err
	}
	return g.rows(t, func(group int, rows []float32, n, k int) error {
		if err := g.add(group, rows, n, k); err != nil {
			return err
		}
		if g.D == nil {
			g.D = g.square(k)
		}
		kernel.CrossAdd(n, k, k, left, k, rows, k, g.D[group], k)
		left = left[n*k:]
		return finite(k, g.D[group])
	})
}

// square makes a k×k matrix for each group.
func (g *Gram) square(k int) [][]float64 {
	groups := 1
	if g.conv != nil {
		groups = int(g.conv.Int("group", 1))
	}
	all := make([][]float64, groups)
	for i := range all {
		all[i] = make([]float64, k*k)
	}
	return all
}

// rows shows the rows of a tensor that the weights multiply, in pieces of n rows of length k. They are overwritten between
// calls.
func (g *Gram) rows(t *ir.Tensor, visit func(group int, rows []float32, n, k int) error) error {
	if g.conv != nil {
		var rows []float32
		return op.Patches(g.conv, t, g.weight, func(group int, cols []float32, k, n int) error {
			if len(rows) < n*k {
				rows = make([]float32, n*k)
			}
			kernel.Transpose(k, n, rows, k, cols, n)
			return visit(group, rows[:n*k], n, k)
		})
	}
	x, ok := t.Float32s()
	if !ok {
		return fmt.Errorf("%v values have no Gram matrix", t.Elem())
	}
	shape, axis := t.Shape(), g.axis
	if axis < 0 {
		axis += len(shape)
	}
	if axis < 0 || axis >= len(shape) {
		return fmt.Errorf("shape %v has no axis %d", shape, g.axis)
	}
	k, post := shape[axis], 1
	for _, d := range shape[axis+1:] {
		post *= d
	}
	if k == 0 || len(x) == 0 {
		return nil
	}
	if post == 1 {
		return visit(0, x, len(x)/k, k)
	}
	rows := make([]float32, post*k)
	for at := 0; at < len(x); at += post * k {
		kernel.Transpose(k, post, rows, k, x[at:], post)
		if err := visit(0, rows, post, k); err != nil {
			return err
		}
	}
	return nil
}

// add takes n rows of length k.
func (g *Gram) add(group int, rows []float32, n, k int) error {
	if g.H == nil {
		g.K, g.H = k, g.square(k)
	}
	if k != g.K {
		return fmt.Errorf("rows of %d values, earlier ones had %d", k, g.K)
	}
	if group == 0 {
		g.Rows += n
	}
	kernel.SyrkAdd(n, k, rows, k, g.H[group], k)
	return finite(k, g.H[group])
}

// finite looks at the diagonal.
func finite(k int, h []float64) error {
	for i := range k {
		if d := h[i*k+i]; math.IsNaN(d) || math.IsInf(d, 0) {
			return fmt.Errorf("channel %d holds NaN or infinity", i)
		}
	}
	return nil
}
