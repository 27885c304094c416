package op

import (
	"context"
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

// Env is what the executor of a graph offers a kernel.
type Env interface {
	// Alloc returns a tensor with undefined contents for a result.
	Alloc(elem ir.DType, shape []int) (*ir.Tensor, error)
	// Room fails if a kernel's scratch of so many bytes would exceed the memory limit.
	Room(bytes int64) error
	// Run executes a subgraph of the node on the given inputs. Captured values are in place.
	Run(g *ir.Graph, in []*ir.Tensor) ([]*ir.Tensor, error)
	// Context is cancelled when the run should stop.
	Context() context.Context
}

// Call is one application of an operator: during inference its types and known constants, during evaluation its tensors.
type Call struct {
	Node  *ir.Node
	Def   *Def
	In    []*ir.Tensor  // evaluation: inputs, nil where absent
	State any           // what Prepare returned
	Stock *kernel.Stock // Prepare: memory for what it returns; nil: the heap

	env    Env
	ctx    context.Context // in place of env's
	infer  *inferrer
	dims   map[int][]ir.Dim
	consts map[int]*ir.Tensor
}

// NewCall returns a call for evaluation.
func NewCall(n *ir.Node, d *Def, env Env, state any, in []*ir.Tensor) *Call {
	return &Call{Node: n, Def: d, In: in, State: state, env: env}
}

// Has reports whether input i is present.
func (c *Call) Has(i int) bool {
	if c.infer != nil {
		return c.Node.In(i) != nil
	}
	return i < len(c.In) && c.In[i] != nil
}

// HasOut reports whether output i is wanted.
func (c *Call) HasOut(i int) bool { return c.Node.Out(i) != nil }

// Type returns what is known of input i's type; in evaluation, the tensor's.
func (c *Call) Type(i int) ir.Type {
	if c.infer == nil {
		if c.Has(i) {
			return c.In[i].Type()
		}
		return ir.Type{}
	}
	if v := c.Node.In(i); v != nil {
		return v.Type
	}
	return ir.Type{}
}

// Const returns the contents of input i if they are known: always in evaluation; in inference for constants and for small
// results computed from them. nil otherwise.
func (c *Call) Const(i int) *ir.Tensor {
	if c.infer == nil {
		if c.Has(i) {
			return c.In[i]
		}
		return nil
	}
	return c.infer.value(c.Node.In(i))
}

// ConstInts returns the contents of integer input i if known.
func (c *Call) ConstInts(i int) ([]int64, bool) {
	t := c.Const(i)
	if t == nil {
		return nil, false
	}
	return t.Int64s()
}

// Dims returns the contents of integer input i (rank 0 or 1) as dimensions, which may be symbolic or unknown each; ok is
// false if not even their number is known. It is how shape arithmetic keeps symbols. A negative number n comes as a
// dimension of size n-1, which counts as unknown: see literal.
func (c *Call) Dims(i int) (dims []ir.Dim, ok bool) {
	if t := c.Const(i); t != nil && (t.Rank() > 1 || t.Len() > maxKnown) {
		return nil, false
	}
	if v, ok := c.ConstInts(i); ok {
		dims = make([]ir.Dim, len(v))
		for k, n := range v {
			dims[k] = literalDim(n)
		}
		return dims, true
	}
	if c.infer == nil || c.Node.In(i) == nil {
		return nil, false
	}
	if dims, ok = c.infer.dims[c.Node.In(i)]; ok {
		return dims, true
	}
	switch t := c.Type(i); {
	case !t.Ranked || !t.Elem.IsInt():
	case len(t.Dims) == 0:
		return unknownDims(1), true
	case len(t.Dims) == 1 && t.Dims[0].Known() && t.Dims[0].Size <= maxKnown:
		return unknownDims(int(t.Dims[0].Size)), true
	}
	return nil, false
}

// SetDims records, during inference, the contents of integer output i as dimensions.
func (c *Call) SetDims(i int, dims []ir.Dim) {
	if c.infer != nil {
		if c.dims == nil {
			c.dims = map[int][]ir.Dim{}
		}
		c.dims[i] = dims
	}
}

// SetConst records, during inference, the contents of output i, though not all inputs are known.
func (c *Call) SetConst(i int, t *ir.Tensor) {
	if c.infer != nil {
		if c.consts == nil {
			c.consts = map[int]*ir.Tensor{}
		}
		c.consts[i] = t
	}
}

// InferGraph infers a subgraph of the node, its inputs having the given types (fewer than inputs: the rest stay unknown),
// and returns the types of its outputs.
func (c *Call) InferGraph(g *ir.Graph, in []ir.Type) ([]ir.Type, error) {
	if c.infer == nil {
		panic("BUG: op: InferGraph outside inference")
	}
	for i, v := range g.Inputs() {
		if i < len(in) {
			t, err := ir.Merge(in[i], v.Type)
			if err != nil {
				return nil, fmt.Errorf("subgraph %q: input %q: %w", g.Name, v.Name, err)
			}
			v.Type = t
		}
	}
	if err := c.infer.graph(g); err != nil {
		return nil, err
	}
	out := make([]ir.Type, len(g.Outputs()))
	for i, o := range g.Outputs() {
		out[i] = o.Value.Type
	}
	return out, nil
}

// probeGraph is InferGraph on a copy of the subgraph that is thrown away: it tells what would follow from types that may
// turn out too narrow.
func (c *Call) probeGraph(g *ir.Graph, in []ir.Type) ([]ir.Type, error) {
	home := c.Node.Graph()
	body, mp := g.CloneInto(home.Model())
	for n, k := range mp.Nodes {
		if v, ok := c.infer.opset[n]; ok {
			c.infer.opset[k] = v
		}
	}
	holder := home.Insert(c.Node, c.Node.Name+"_probe", ir.OpID{Domain: "qsimc", Type: "Probe"}, nil, nil, ir.GraphAttr("body", body))
	gaps := len(c.infer.gaps)
	looseInputs(body, in)
	types, err := c.InferGraph(body, in)
	for i := range types {
		types[i] = types[i].Clone()
	}
	c.infer.gaps = c.infer.gaps[:gaps]
	c.infer.forget(body)
	if e := home.Remove(holder); e != nil && err == nil {
		err = e
	}
	return types, err
}

// keep records, during inference, that output i has the contents of v.
func (c *Call) keep(i int, v *ir.Value) {
	if t := c.infer.value(v); t != nil && t.Elem() == ir.Int64 && t.Rank() <= 1 && t.Len() <= maxKnown {
		dims := make([]ir.Dim, t.Len())
		for k, n := range ir.Data[int64](t) {
			dims[k] = literalDim(n)
		}
		c.SetDims(i, dims)
	} else if d, ok := c.infer.dims[v]; ok {
		c.SetDims(i, d)
	}
}

// maxLoose bounds the elements of a result outside of a run: in constant folding, which leaves what is larger alone.
const maxLoose = 1 << 28

// New returns a tensor for a result, with undefined contents. It fails for shapes that are negative, overflow or exceed
// the memory limit, zeros counted as ones.
func (c *Call) New(elem ir.DType, shape ...int) (*ir.Tensor, error) {
	if c.env == nil {
		n, err := ir.Extent(shape)
		if err != nil {
			return nil, err
		}
		if n > maxLoose {
			return nil, fmt.Errorf("a result %v%v of more than %d elements where no memory limit is known", elem, shape, maxLoose)
		}
		return ir.NewTensor(elem, shape...), nil
	}
	return c.env.Alloc(elem, shape)
}

// room fails if scratch of the product of sizes, of so many bytes each, would exceed the memory limit. Kernels ask before
// they build what may be larger than inputs and results.
func (c *Call) room(bytes int, sizes ...int) error {
	n, err := ir.Numel(sizes)
	if err != nil {
		return fmt.Errorf("scratch: %w", err)
	}
	if c.env != nil {
		return c.env.Room(int64(n) * int64(bytes))
	}
	if n > maxLoose {
		return fmt.Errorf("scratch of %v elements, more than %d, where no memory limit is known", sizes, maxLoose)
	}
	return nil
}

// Like returns a tensor for a result with t's shape.
func (c *Call) Like(t *ir.Tensor, elem ir.DType) (*ir.Tensor, error) {
	return c.New(elem, t.Shape()...)
}

// Run executes a subgraph of the node.
func (c *Call) Run(g *ir.Graph, in ...*ir.Tensor) ([]*ir.Tensor, error) { return c.env.Run(g, in) }

// Context is cancelled when the run should stop; loops of unbounded length look at it.
func (c *Call) Context() context.Context {
	switch {
	case c.ctx != nil:
		return c.ctx
	case c.env != nil:
		return c.env.Context()
	}
	return context.Background()
}

// Under sets what stops a call that has no environment.
func (c *Call) Under(ctx context.Context) *Call {
	c.ctx = ctx
	return c
}

// Axis returns a normalized to [0, rank); it fails for axes outside [-rank, rank).
func Axis(a int64, rank int) (int, error) {
	if a < int64(-rank) || a >= int64(rank) {
		return 0, fmt.Errorf("axis %d is outside [%d, %d) of rank %d", a, -rank, rank, rank)
	}
	if a < 0 {
		a += int64(rank)
	}
	return int(a), nil
}

// one wraps a single result.
func one(t *ir.Tensor, err error) ([]*ir.Tensor, error) {
	if err != nil {
		return nil, err
	}
	return []*ir.Tensor{t}, nil
}

// same infers one output of input 0's type; it serves elementwise operators.
func same(c *Call) ([]ir.Type, error) { return []ir.Type{c.Type(0)}, nil }
