package op

import (
	"fmt"
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
)

var loopDef = &Def{
	Name: "Loop", Doc: "a subgraph run again and again, with carried values and stacked outputs", Since: 1,
	Versions: []int{1, 11, 13, 16, 19, 21, 23, 24, 25}, Types: "all",
	In: AtLeast(0), Out: AtLeast(0), // the first two inputs may be absent
	Infer: inferLoop,
	Eval:  evalLoop,
}

// loopBody returns the body of a Loop and the number of its carried values.
func loopBody(n *ir.Node) (*ir.Graph, int, error) {
	g, err := bodyOf(n, "body")
	if err != nil {
		return nil, 0, err
	}
	k := n.NumIn() - 2
	if k < 0 {
		return nil, 0, fmt.Errorf("has %d inputs, wants at least 2", n.NumIn())
	}
	if len(g.Inputs()) != k+2 {
		return nil, 0, fmt.Errorf("body has %d inputs, wants %d: iteration, condition and %d carried values", len(g.Inputs()), k+2, k)
	}
	if len(g.Outputs()) < k+1 || n.NumOut() > len(g.Outputs())-1 {
		return nil, 0, fmt.Errorf("body has %d outputs for %d carried values and %d outputs of the node", len(g.Outputs()), k, n.NumOut())
	}
	return g, k, nil
}

func inferLoop(c *Call) ([]ir.Type, error) {
	g, k, err := loopBody(c.Node)
	if err != nil {
		return nil, err
	}
	in := make([]ir.Type, k+2)
	in[0] = ir.FixedType(ir.Int64)
	if t := g.Inputs()[0].Type; t.Ranked && len(t.Dims) == 1 {
		in[0] = ir.FixedType(ir.Int64, 1) // an old habit of exporters
	}
	in[1] = ir.Type{Elem: ir.Bool}
	for i := range k {
		if !c.Has(i + 2) {
			return nil, fmt.Errorf("carried value %d has no initial value", i)
		}
		in[i+2] = c.Type(i + 2)
	}
	out, err := inferBody(c, g, in, 2, k, 1)
	if err != nil {
		return nil, err
	}
	types := append([]ir.Type{}, in[2:]...)
	for _, t := range out[1+k:] {
		types = append(types, stackedType(t, 0, ir.UnknownDim))
	}
	return types[:c.Node.NumOut()], nil
}

// inferBody infers the body of a loop. in are the types of its inputs in the first iteration; those of the k carried values
// from at on, which come back as outputs from back on, are widened until they hold in every iteration.
func inferBody(c *Call, g *ir.Graph, in []ir.Type, at, k, back int) ([]ir.Type, error) {
	for round := 0; ; round++ {
		out, err := c.probeGraph(g, in)
		if err != nil {
			return nil, err
		}
		changed := false
		for i := range k {
			t, err := joinTypes(in[at+i], out[back+i])
			if err != nil {
				return nil, fmt.Errorf("carried value %d changes its type: %w", i, err)
			}
			if round == 4 && !sameType(t, in[at+i]) {
				t = ir.Type{Kind: t.Kind, Elem: t.Elem, Of: t.Of}
			}
			changed = changed || !sameType(t, in[at+i])
			in[at+i] = t
		}
		if !changed {
			break
		}
	}
	looseInputs(g, in)
	return c.InferGraph(g, in)
}

// looseInputs forgets what a body declares of inputs where the values it is given have another shape.
func looseInputs(g *ir.Graph, in []ir.Type) {
	for i, v := range g.Inputs() {
		if _, err := ir.Merge(in[i], v.Type); err != nil && in[i].Elem == v.Type.Elem {
			v.Type = ir.Type{Elem: v.Type.Elem}
		}
	}
}

// stackedType is the type of many values of type t along a new axis.
func stackedType(t ir.Type, axis int64, n ir.Dim) ir.Type {
	if !t.Ranked || t.Kind != ir.TensorKind {
		return ir.Type{Elem: t.Elem}
	}
	a, err := Axis(axis, len(t.Dims)+1)
	if err != nil {
		return ir.Type{Elem: t.Elem}
	}
	return ir.TensorType(t.Elem, slices.Insert(cloneDims(t.Dims), a, n)...)
}

func evalLoop(c *Call) ([]*ir.Tensor, error) {
	g, k, err := loopBody(c.Node)
	if err != nil {
		return nil, err
	}
	limit, more := int64(math.MaxInt64), true
	if c.Has(0) {
		m, ok := c.ConstInts(0)
		if !ok || len(m) != 1 {
			return nil, fmt.Errorf("the trip count is %v, wants one integer", c.Type(0))
		}
		limit = m[0]
	}
	if c.Has(1) {
		if more, err = condition(c.In[1]); err != nil {
			return nil, err
		}
	}
	iterShape := []int{}
	if t := g.Inputs()[0].Type; t.Ranked && len(t.Dims) == 1 {
		iterShape = []int{1}
	}
	carried := append([]*ir.Tensor{}, c.In[2:]...)
	stacks := make([]stack, len(g.Outputs())-1-k)
	yes := ir.FromSlice(ir.Bool, []int{}, []bool{true})
	for i := int64(0); i < limit && more; i++ {
		if err := c.Context().Err(); err != nil {
			return nil, err
		}
		in := append([]*ir.Tensor{ir.FromSlice(ir.Int64, iterShape, []int64{i}), yes}, carried...)
		out, err := c.Run(g, in...)
		if err != nil {
			return nil, fmt.Errorf("iteration %d: %w", i, err)
		}
		if c.Has(1) { // without a condition at the start the body's is ignored
			if more, err = condition(out[0]); err != nil {
				return nil, fmt.Errorf("iteration %d: %w", i, err)
			}
		}
		copy(carried, out[1:1+k])
		for s := range stacks {
			if err := stacks[s].add(c, out[1+k+s]); err != nil {
				return nil, fmt.Errorf("iteration %d: scan output %d: %w", i, s, err)
			}
		}
	}
	for s := range stacks {
		t, err := stacks[s].result(c, g.Outputs()[1+k+s].Value.Type)
		if err != nil {
			return nil, fmt.Errorf("scan output %d: %w", s, err)
		}
		carried = append(carried, t)
	}
	return carried, nil
}

// stack gathers the values of a scan output along a new axis, reversed if back.
type stack struct {
	axis   int64
	back   bool
	parts  []*ir.Tensor
	joined int // bytes of the first part, which others were joined to
	loose  int // bytes of the rest
}

// Parts are joined when there are compactAt of them, or more than compactBytes of those not yet joined and more than of
// those that are: so the memory limit sees them, and each is copied a few times at most.
const (
	compactAt    = 4096
	compactBytes = 1 << 20
)

func (s *stack) add(c *Call, t *ir.Tensor) error {
	a, err := Axis(s.axis, t.Rank()+1)
	if err != nil {
		return err
	}
	if t, err = t.Reshape(slices.Insert(slices.Clone(t.Shape()), a, 1)...); err != nil {
		return err
	}
	s.parts, s.loose = append(s.parts, t), s.loose+t.Size()
	if len(s.parts) < compactAt && s.loose <= max(compactBytes, s.joined) {
		return nil
	}
	return s.compact(c, a)
}

func (s *stack) compact(c *Call, axis int) error {
	parts := slices.Clone(s.parts)
	if s.back {
		slices.Reverse(parts)
	}
	t, err := concat(c, parts, axis)
	if err != nil {
		return err
	}
	s.parts, s.joined, s.loose = []*ir.Tensor{t}, t.Size(), 0
	return nil
}

// result joins the parts; item is the type of one, which matters if there are none.
func (s *stack) result(c *Call, item ir.Type) (*ir.Tensor, error) {
	if len(s.parts) == 0 {
		shape := make([]int, max(item.Rank(), 0))
		for i := range shape {
			shape[i] = int(max(item.Dims[i].Size, 0))
		}
		a, err := Axis(s.axis, len(shape)+1)
		if err != nil {
			return nil, err
		}
		if !item.Elem.Valid() {
			return nil, fmt.Errorf("no iteration ran and its type is not known")
		}
		return c.New(item.Elem, slices.Insert(shape, a, 0)...)
	}
	a, err := Axis(s.axis, s.parts[0].Rank())
	if err != nil {
		return nil, err
	}
	if err := s.compact(c, a); err != nil {
		return nil, err
	}
	return s.parts[0], nil
}
