// Package op says what operators mean: one file an operator, holding its signature, type inference, kernel and the way
// older versions of it turn into the newest. Kernels and inference know one version of each operator, that of opset
// Canonical; Canonicalize brings a clone of any model there.
package op

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
)

// Canonical is the default-domain opset whose operator definitions inference and kernels implement.
const Canonical = 28

// ErrUnsupported says that an operator, or a form or type of it, cannot be run.
var ErrUnsupported = errors.New("not supported")

// Arity bounds a number of inputs or outputs; Max < 0 is unbounded.
type Arity struct{ Min, Max int }

// Exactly is the arity of a fixed number; Between and AtLeast are the others.
func Exactly(n int) Arity { return Arity{n, n} }

// Between bounds an arity on both sides.
func Between(lo, hi int) Arity { return Arity{lo, hi} }

// AtLeast is an arity without upper bound.
func AtLeast(n int) Arity { return Arity{n, -1} }

func (a Arity) allows(n int) bool { return n >= a.Min && (a.Max < 0 || n <= a.Max) }

func (a Arity) String() string {
	switch {
	case a.Max < 0:
		return fmt.Sprintf("at least %d", a.Min)
	case a.Min == a.Max:
		return fmt.Sprint(a.Min)
	}
	return fmt.Sprintf("%d to %d", a.Min, a.Max)
}

// Def defines one operator at its newest version.
type Def struct {
	Domain, Name string
	Doc          string // one line
	Since        int    // the version of the domain that introduced it
	Versions     []int  // the versions at which its definition changed, Since first; for the table qsimc ops prints
	Types        string // the element types its kernel runs, for the same table
	In, Out      Arity
	Optional     []int // inputs below In.Min that may be absent all the same

	// Upgrades turn older forms into newer ones, in rising order of To.
	Upgrades []Upgrade

	// Infer returns the types of the outputs from what is known of the inputs. Unknown parts stay unknown; an error means
	// that the inputs contradict the operator.
	Infer func(c *Call) ([]ir.Type, error)

	// Eval computes the outputs. nil: the operator is known but cannot be run. Inputs must not be changed. An output may
	// share storage with an input.
	Eval func(c *Call) ([]*ir.Tensor, error)

	// Prepare, if set, is called once at compile time and returns what Eval finds in c.State (packed weights, …). Only
	// constant inputs are in c.In then; the others are nil.
	Prepare func(c *Call) (any, error)

	// Widen makes the caller of Eval convert float16 and bfloat16 inputs to float32, and round the float32 outputs whose
	// inferred type is a half type back to it: each operator's result rounded to its type, float32 inside.
	Widen bool

	// Linear tells passes where activation, weight and bias of a linear operator are; nil for all others.
	Linear func(n *ir.Node) (Linear, bool)
}

// Linear describes a product of an activation and a weight: MatMul, Gemm, Conv, ConvTranspose are one thing to passes.
// Slots are input indices of the node (B is -1 without bias); axes count from 0 in the operand's own shape, negative ones
// from its end.
type Linear struct {
	X, W, B int
	XAxis   int // contraction axis of the activation
	InAxis  int // contraction axis of the weight
	OutAxis int // output-channel axis of the weight
	Groups  int // groups of a convolution, else 1
}

// ID returns the operator's id.
func (d *Def) ID() ir.OpID { return ir.OpID{Domain: d.Domain, Type: d.Name} }

// defs is filled by init: kernels of control flow refer to inference, which looks operators up.
var defs map[ir.OpID]*Def

func init() {
	defs = map[ir.OpID]*Def{}
	for _, d := range Table() {
		defs[d.ID()] = d
	}
}

// Table returns all definitions: the rows of the tables in table.go, in order.
func Table() []*Def {
	var all []*Def
	for _, t := range tables {
		all = append(all, t...)
	}
	return all
}

// Sorted returns all definitions by domain and name.
func Sorted() []*Def {
	all := Table()
	slices.SortFunc(all, func(a, b *Def) int {
		return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// Lookup returns the definition of a node's operator.
func Lookup(n *ir.Node) (*Def, bool) { return LookupID(n.Op) }

// LookupID returns the definition of an operator.
func LookupID(id ir.OpID) (*Def, bool) {
	if id.Domain == "ai.onnx" {
		id.Domain = ""
	}
	id.Overload = ""
	d, ok := defs[id]
	return d, ok
}
