package passes

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
)

// normFold is a BatchNormalization that goes into the product before it.
type normFold struct {
	norm, product *ir.Node
	linear        op.Linear
	weight        *ir.Tensor
	axis          int        // output-channel axis of the weight
	bias          *ir.Tensor // nil: none
	beta          float64    // what the product multiplies its bias by
}

// foldBatchNorms matches all, then edits. Where there are samples each fold is tried on a copy of its two nodes first.
func foldBatchNorms(ctx context.Context, u *Unit) error {
	var folds []*normFold
	for n := range u.Model.Nodes() {
		if op.RoleOf(n) != op.BatchNormRole {
			continue
		}
		f, reason := matchNorm(n)
		if f == nil {
			u.skip(n.Name, "batch normalization stays: "+reason)
			continue
		}
		folds = append(folds, f)
	}
	var w *witness
	if u.Samples != nil && len(folds) > 0 && !u.DryRun {
		w = &witness{}
		for _, f := range folds {
			w.testify([]*ir.Node{f.product, f.norm})
		}
		if err := w.run(ctx, u); err != nil {
			return err
		}
	}
	for _, f := range folds {
		u.at(f.norm.Name)
		if w != nil {
			switch err := f.try(ctx, w, u.Runtime); {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				u.skip(f.norm.Name, "batch normalization stays: "+err.Error())
				continue
			}
		}
		if err := f.apply(); err != nil {
			return fmt.Errorf("node %v: %w", f.norm, err)
		}
		u.edit()
		u.changed = true
	}
	return nil
}

// try folds a copy and compares what it computes.
func (f *normFold) try(ctx context.Context, w *witness, o runtime.Options) error {
	nodes, want := []*ir.Node{f.product, f.norm}, []*ir.Value{f.norm.Out(0)}
	feed, err := w.feed(nodes)
	if err != nil {
		return err
	}
	m := extract(withWeights(nodes), want)
	before, err := compute(ctx, m, feed, o)
	if err != nil {
		return err
	}
	for n := range m.Graph.Nodes() {
		if op.RoleOf(n) != op.BatchNormRole {
			continue
		}
		g, why := matchNorm(n)
		if g == nil {
			return errors.New(why)
		}
		if err := g.apply(); err != nil {
			return err
		}
	}
	after, err := compute(ctx, m, feed, o)
	if err != nil {
		return err
	}
	return agree(want, before, after)
}

// matchNorm finds the product that a normalization follows; the reason says why there is none to fold into.
func matchNorm(n *ir.Node) (*normFold, string) {
	if !op.InferenceBatchNorm(n) {
		return nil, "it is not in the form of inference"
	}
	x := n.In(0)
	p := x.DefNode()
	if p == nil || op.RoleOf(p) != op.ProductRole {
		return nil, "no product comes before it"
	}
	if use, ok := x.SingleUse(); !ok || use.Node != n || p.Graph() != n.Graph() {
		return nil, "the product's result has other users"
	}
	d, ok := op.Lookup(p)
	if !ok || d.Linear == nil {
		return nil, "no product comes before it"
	}
	l, ok := d.Linear(p)
	if !ok || l.X != 0 || l.W != 1 {
		return nil, "the product has no constant weight"
	}
	w := p.In(l.W)
	f := &normFold{norm: n, product: p, linear: l, weight: op.ConstantOf(w), beta: 1}
	switch {
	case f.weight == nil:
		return nil, "the product has no constant weight"
	case w.NumUses() > 1:
		return nil, "the product shares its weight"
	case !packsChannels(p, l, f.weight):
		return nil, "the product's channels are not where the normalization has its own"
	}
	if b := p.In(2); b != nil {
		if f.bias = op.ConstantOf(b); f.bias == nil {
			return nil, "the product's bias is no constant"
		}
		f.beta = float64(p.Float("beta", 1))
	}
	f.axis = l.OutAxis
	if f.axis < 0 {
		f.axis += f.weight.Rank()
	}
	for i := 1; i <= 4; i++ {
		if op.ConstantOf(n.In(i)) == nil {
			return nil, "its parameters are no constants"
		}
	}
	return f, ""
}

// packsChannels reports whether axis 1 of the product's result is the output-channel axis of its weight: convolutions, and
// products of two matrices.
func packsChannels(p *ir.Node, l op.Linear, w *ir.Tensor) bool {
	return w.Rank() > 2 && l.XAxis == 1 || w.Rank() == 2 && p.Out(0).Type.Rank() == 2 && p.NumIn() >= 2 && takesBias(p)
}

// takesBias reports whether the product's operator has a bias input.
func takesBias(p *ir.Node) bool {
	d, ok := op.Lookup(p)
	return ok && (d.In.Max < 0 || d.In.Max >= 3)
}

func (f *normFold) apply() error {
	var v [4][]float32 // scale, bias, mean, variance
	for i := range v {
		t := op.ConstantOf(f.norm.In(i + 1))
		x, ok := t.Float32s()
		if !ok {
			return fmt.Errorf("parameter %d has type %v", i+1, t.Elem())
		}
		v[i] = x
	}
	w, ok := f.weight.Float32s()
	if !ok {
		return fmt.Errorf("weight has type %v", f.weight.Elem())
	}
	channels, inner := len(v[0]), 1
	shape := f.weight.Shape()
	for _, d := range shape[f.axis+1:] {
		inner *= d
	}
	groups := 1
	if f.axis == 1 && len(shape) > 2 {
		groups = max(f.linear.Groups, 1) // ConvTranspose: [I, O/g, …], group by group along the inputs
	}
	if shape[f.axis]*groups != channels {
		return fmt.Errorf("weight has %d output channels, the normalization %d", shape[f.axis]*groups, channels)
	}
	eps := float64(f.norm.Float("epsilon", 1e-5))
	gain := make([]float64, channels)
	for c := range gain {
		gain[c] = float64(v[0][c]) / math.Sqrt(float64(v[3][c])+eps)
	}
	scaled := make([]float32, len(w))
	perGroup := len(w) / groups
	for i, x := range w {
		c := i/inner%shape[f.axis] + i/perGroup*(channels/groups)
		scaled[i] = float32(float64(x) * gain[c])
	}
	bias := make([]float32, channels)
	var old []float32
	if f.bias != nil {
		if old, ok = f.bias.Float32s(); !ok {
			return fmt.Errorf("bias has type %v", f.bias.Elem())
		}
		if len(old) != channels && len(old) != 1 {
			return fmt.Errorf("bias has %d values for %d channels", len(old), channels)
		}
	}
	for c := range bias {
		b := 0.0
		if old != nil {
			b = float64(old[c%len(old)]) * f.beta
		}
		bias[c] = float32((b-float64(v[2][c]))*gain[c] + float64(v[1][c]))
	}
	return f.edit(scaled, bias)
}

// edit puts the new weight and bias in place and lets the product give the normalization's result.
func (f *normFold) edit(w, bias []float32) error {
	elem := f.weight.Elem()
	wt, err := tensorAs(elem, w, f.weight.Shape())
	if err != nil {
		return err
	}
	bt, err := tensorAs(elem, bias, []int{len(bias)})
	if err != nil {
		return err
	}
	p, g := f.product, f.product.Graph()
	if v := p.In(f.linear.W); v.Const() != nil && v.Graph() == g {
		v.SetConst(wt)
	} else {
		p.SetIn(f.linear.W, g.Const(v.Name, wt))
	}
	if v := p.In(2); v != nil && v.Const() != nil && v.NumUses() == 1 && v.Graph() == g {
		v.SetConst(bt)
	} else if v != nil {
		p.SetIn(2, g.Const(v.Name, bt))
	} else {
		p.SetIn(2, g.Const(f.norm.In(2).Name, bt))
	}
	p.DelAttr("beta")
	y := f.norm.Out(0)
	f.norm.Out(0).ReplaceUses(p.Out(0))
	if y.NumUses() > 0 {
		return errors.New("its result is still used")
	}
	return g.Remove(f.norm)
}

// tensorAs stores float32 values in a tensor of a float type.
func tensorAs(elem ir.DType, v []float32, shape []int) (*ir.Tensor, error) {
	if elem == ir.Float32 {
		return ir.Floats(v, shape...), nil
	}
	if elem == ir.Float64 {
		d := make([]float64, len(v))
		for i, x := range v {
			d[i] = float64(x)
		}
		return ir.FromSlice(ir.Float64, shape, d), nil
	}
	c, err := numfmt.CastTo(numfmt.Elem(elem), v, false, numfmt.RoundNearest)
	if err != nil {
		return nil, err
	}
	return ir.TensorOf(elem, shape, c.Data)
}
