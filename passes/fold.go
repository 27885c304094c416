package passes

import (
	"context"
	"errors"
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// Fold computes what is constant.
var Fold = Define("fold", foldDoc, struct{}{}, fold)

const foldDoc = `computes constant arithmetic, folds BatchNormalization into the product before it, removes what copies its input

Constant nodes become initializers. A node whose inputs are all constant is replaced by its result, unless that would take
more room than what it frees: a shared weight is never stored twice, so the Transpose of a tied embedding stays. Identities,
Casts to the type at hand, Dropout outside training and the like disappear. BatchNormalization behind a Conv, ConvTranspose
or Gemm with a constant weight of its own moves into weight and bias; with samples, each such fold runs on the first one before
and after, and stays away where it moves the result by more than 1e-4 of its largest magnitude. The model computes what it did.`

// foldFree is the number of bytes that a folded result may take without freeing as many: shapes, masks of small size, scalars.
const foldFree = 1024

func fold(ctx context.Context, u *Unit, _ struct{}) error {
	if u.DryRun {
		// the sites that a dry run lists are those after folding: fold a copy
		u.Model, _ = u.Model.Clone()
	}
	if err := foldConstants(ctx, u); err != nil {
		return err
	}
	removeCopies(u)
	if err := foldBatchNorms(ctx, u); err != nil {
		return err
	}
	u.Model.Graph.Prune()
	return nil
}

// folder computes constant values of the model on its canonical form, whose operators are the ones that kernels know.
type folder struct {
	u    *Unit
	form *op.CanonicalForm
	memo map[*ir.Value]*ir.Tensor // of the canonical form
}

func foldConstants(ctx context.Context, u *Unit) error {
	form, err := op.Canonicalize(u.Model)
	if err != nil {
		return err
	}
	f := &folder{u, form, map[*ir.Value]*ir.Tensor{}}
	for n := range u.Model.Nodes() {
		if err := ctx.Err(); err != nil {
			return err
		}
		u.at(n.Name)
		if !f.foldable(n) {
			continue
		}
		if err := f.fold(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// foldable reports whether a node of the model should be replaced by its results.
func (f *folder) foldable(n *ir.Node) bool {
	if n.NumIn() == 0 && op.ConstantOf(n.Out(0)) == nil || len(n.Subgraphs()) > 0 {
		return false
	}
	switch op.RoleOf(n) {
	case op.RandomRole, op.QuantRole:
		return false
	}
	freed := 0
	seen := map[*ir.Value]bool{}
	for _, v := range n.Ins() {
		if v == nil || seen[v] {
			continue
		}
		seen[v] = true
		t := v.Const()
		if t == nil || op.Overridable(v) {
			return false
		}
		if onlyUser(v, n) {
			freed += t.Size()
		} else if t.Elem().IsFloat() && t.Rank() >= 2 && op.Moves(n) {
			return false // a rearranged second copy of a shared weight
		}
	}
	if n.NumIn() == 0 {
		return true
	}
	size := 0
	for _, v := range n.Outs() {
		if v == nil {
			continue
		}
		w := f.form.Map.Values[v]
		if w == nil || w.Type.Kind != ir.TensorKind || w.Type.Elem == ir.String {
			return false
		}
		shape, ok := w.Type.Shape()
		if !ok {
			return false
		}
		k, err := ir.Numel(shape)
		if err != nil {
			return false
		}
		size += w.Type.Elem.Size(k)
	}
	return size <= max(freed, foldFree)
}

func onlyUser(v *ir.Value, n *ir.Node) bool {
	for _, u := range v.Uses() {
		if u.Node != n {
			return false
		}
	}
	return true
}

// fold replaces a node by constants under the names of its results. A node that cannot be evaluated stays.
func (f *folder) fold(ctx context.Context, n *ir.Node) error {
	var results []*ir.Tensor
	for _, v := range n.Outs() {
		if v == nil {
			results = append(results, nil)
			continue
		}
		t, err := f.eval(ctx, f.form.Map.Values[v], 0)
		if err != nil {
			if errors.Is(err, op.ErrUnsupported) {
				f.u.Log.Debug("not folded", "node", n.String(), "error", err)
				return nil
			}
			return fmt.Errorf("node %v: %w", n, err)
		}
		results = append(results, t)
	}
	g := n.Graph()
	for i, v := range n.Outs() {
		if v == nil {
			continue
		}
		c := g.Const(v.Name, results[i])
		v.ReplaceUses(c)
		c.Doc, c.Meta = v.Doc, v.Meta
		v.Name, c.Name = c.Name, v.Name
	}
	f.u.edit()
	return g.Remove(n)
}

// eval computes a constant value of the canonical form.
func (f *folder) eval(ctx context.Context, v *ir.Value, depth int) (*ir.Tensor, error) {
	if v == nil || depth > 1000 {
		return nil, op.ErrUnsupported
	}
	if t := v.Const(); t != nil {
		return t, t.Load()
	}
	if t := f.form.Known[v]; t != nil {
		return t, nil
	}
	if t := f.memo[v]; t != nil {
		return t, nil
	}
	n := v.DefNode()
	if n == nil {
		return nil, fmt.Errorf("%q is no constant: %w", v.Name, op.ErrUnsupported)
	}
	d, ok := op.Lookup(n)
	if !ok || len(n.Subgraphs()) > 0 || op.RoleOf(n) == op.RandomRole {
		return nil, fmt.Errorf("node %v: %w", n, op.ErrUnsupported)
	}
	in := make([]*ir.Tensor, n.NumIn())
	for i, w := range n.Ins() {
		if w == nil {
			continue
		}
		t, err := f.eval(ctx, w, depth+1)
		if err != nil {
			return nil, err
		}
		in[i] = t
	}
	var state any
	var err error
	if d.Prepare != nil {
		if state, err = d.Prepare(op.NewCall(n, d, nil, nil, in)); err != nil {
			return nil, err
		}
	}
	out, err := op.Evaluate(op.NewCall(n, d, nil, state, in).Under(ctx))
	if err != nil {
		return nil, err
	}
	for i, t := range out {
		if w := n.Out(i); w != nil && t != nil {
			f.memo[w] = t
		}
	}
	if f.memo[v] == nil {
		return nil, op.ErrUnsupported
	}
	return f.memo[v], nil
}

// removeCopies removes nodes whose result is their input. A copy stays where it gives a graph output its name.
func removeCopies(u *Unit) {
	for n := range u.Model.Nodes() {
		if !op.Copies(n) {
			continue
		}
		in, out := n.In(0), n.Out(0)
		output := false
		for _, use := range out.Uses() {
			output = output || use.Node == nil
		}
		if output {
			continue
		}
		u.at(n.Name)
		out.ReplaceUses(in)
		if err := n.Graph().Remove(n); err != nil {
			panic("BUG: passes: " + err.Error())
		}
		u.edit()
	}
}
