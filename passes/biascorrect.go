package passes

import (
	"context"
	"errors"
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/calib"
)

// BiasCorrect takes the mean error of quantization out of products.
var BiasCorrect = Define("biascorrect", biasCorrectDoc, struct{}{}, biasCorrect)

const biasCorrectDoc = `takes from each product's bias the mean by which quantization shifts its result

For every product with a constant weight that the policy quantizes, the mean over the samples of each output channel is taken
twice: in the model as it is, and in a copy that fakequant has quantized by the policy. The difference leaves the bias; a
product without one gets it. The products are corrected in the order in which they run, each with all before it corrected, in
one sweep (Nagel et al., empirical bias correction). Comes before fakequant, and after what rounds weights. The model computes
something else: what cancels the mean error once it is quantized.`

// correction is one product on its way to a corrected bias.
type correction struct {
	site  *Site
	float *channelMean // of the result, as the model is
	quant *channelMean // of the quantized copy's
	shift *ir.Value    // in the copy: what is added to the result
	add   *ir.Node     // in the copy: the node that adds it
	by    []float64    // what leaves the bias
}

func biasCorrect(ctx context.Context, u *Unit, _ struct{}) error {
	w, err := newWiring(u.Model)
	if err != nil {
		return err
	}
	known, err := newSearch(u, nil)
	if err != nil {
		return err
	}
	var cs []*correction
	for _, s := range w.sites {
		if s.Kind != Linear || s.Float != "" {
			continue
		}
		why := ""
		switch k := known.schemes[s.Node]; {
		case k.weight.IsNone() && k.input.IsNone():
			why = "the policy leaves it float"
		case s.Node.Graph() != u.Model.Graph:
			why = "it is inside a subgraph"
		case s.outAxis() < 0:
			why = fmt.Sprintf("the shape of %q is not known well enough", s.Node.Out(0).Name)
		case s.Node.Float("beta", 1) == 0 && s.Node.In(2) != nil:
			why = "its beta is zero: it ignores its bias"
		}
		if why != "" {
			u.skip(s.Name, why)
			continue
		}
		cs = append(cs, &correction{site: s, float: &channelMean{axis: s.outAxis()}, quant: &channelMean{axis: s.outAxis()}})
	}
	if u.DryRun || len(cs) == 0 {
		for _, c := range cs {
			u.did(c.site.Name, "bias corrected")
		}
		return nil
	}
	if u.Samples == nil {
		return errors.New("the mean error of products is measured: give samples")
	}
	var probes []calib.Probe
	for _, c := range cs {
		probes = append(probes, calib.Probe{Value: c.site.Node.Out(0), Into: c.float})
	}
	o := calib.Options{Jobs: u.Jobs, Runtime: u.Runtime, Progress: func(done int) { u.progress("samples", done, 0) }}
	if err := calib.Sweep(ctx, u.Model, u.Samples, probes, o); err != nil {
		return err
	}
	if err := u.measureShifts(ctx, cs, o); err != nil {
		return err
	}
	for _, c := range cs {
		u.at(c.site.Name)
		what, err := c.apply()
		if err != nil {
			return fmt.Errorf("site %q: %w", c.site.Name, err)
		}
		u.did(c.site.Name, what)
		u.edit()
	}
	u.Model.Graph.Prune()
	return nil
}

// measureShifts quantizes a copy of the model and measures there, product by product, by how much the means are off.
func (u *Unit) measureShifts(ctx context.Context, cs []*correction, o calib.Options) error {
	copied, mp := u.Model.Clone()
	q := &Unit{Model: copied, Policy: u.Policy, Samples: u.Samples, Jobs: u.Jobs, Runtime: u.Runtime, Seed: u.Seed, KeepQuantized: u.KeepQuantized}
	for k, p := range u.fitted {
		if v := mp.Values[k.value]; v != nil {
			q.SetFit(v, k.scheme, k.axis, p.params, p.from)
		}
	}
	q.Report, q.entry, q.Log = &Report{}, &PassEntry{}, u.Log
	if err := fakeQuant(ctx, q, FakeQuantOptions{Range: "max", Style: "plain"}); err != nil {
		return err
	}
	var stops []calib.Stop
	by := map[*ir.Node]*correction{}
	for _, c := range cs {
		if err := c.insertShift(mp.Nodes[c.site.Node]); err != nil {
			return err
		}
		by[c.add] = c
		stops = append(stops, calib.Stop{Node: c.add, Probes: []calib.Probe{{Value: c.add.In(0), Into: c.quant}}})
	}
	return calib.SweepNodes(ctx, q.Model, nil, u.Samples, stops, o, func(w *runtime.Walk, n *ir.Node) error {
		c := by[n]
		want, got := c.float.mean(), c.quant.mean()
		c.by = make([]float64, len(want))
		x := make([]float32, len(want))
		for i := range want {
			c.by[i] = got[i] - want[i]
			x[i] = float32(-c.by[i])
		}
		t, err := tensorAs(c.shift.Type.Elem, x, c.shift.Const().Shape())
		if err != nil {
			return err
		}
		return w.Replace(c.shift, t)
	})
}

// outAxis returns the axis of a linear site's result along which its output channels lie, -1 if that is not known.
func (s *Site) outAxis() int {
	y := s.Node.Out(0).Type
	axis := y.Rank() - 1
	switch {
	case s.convolution():
		axis = 1
	case s.Linear.X == 1:
		axis = y.Rank() - 2
	}
	if axis < 0 || !y.Dim(axis).Known() {
		return -1
	}
	return axis
}

// insertShift puts the addition of a zero for every output channel behind a product of the copy.
func (c *correction) insertShift(n *ir.Node) error {
	y := n.Out(0)
	axis := c.site.outAxis()
	shape := ones(y.Type.Rank() - axis)
	shape[0] = int(y.Type.Dim(axis).Size)
	zero, err := tensorAs(y.Type.Elem, make([]float32, shape[0]), shape)
	if err != nil {
		return err
	}
	uses := y.Uses()
	c.shift = n.Graph().Const(y.Name+"_shift", zero)
	c.add, err = op.Insert(n.Graph(), n.Next(), y.Name+"_shifted", ir.Op("Add"), []*ir.Value{y, c.shift}, []string{y.Name + "_shifted"})
	if err != nil {
		return err
	}
	for _, u := range uses {
		u.Set(c.add.Out(0))
	}
	return nil
}

// apply takes the shift out of the product's bias in the model itself.
func (c *correction) apply() (string, error) {
	n := c.site.Node
	largest := 0.0
	for _, d := range c.by {
		largest = max(largest, d, -d)
	}
	said := fmt.Sprintf("bias corrected by at most %.3g", largest)
	if add, slot := op.BiasAdd(n.Out(0)); add != nil && op.TakesNoBias(n) && op.ConstantOf(add.In(slot)).Len() == len(c.by) {
		t, err := c.shifted(op.ConstantOf(add.In(slot)), 1)
		if err != nil {
			return "", err
		}
		replaceConst(add, slot, add.In(slot), nil, t, &undo{})
		return said, nil
	}
	if b := n.In(2); b != nil && !op.TakesNoBias(n) && op.ConstantOf(b) != nil && op.ConstantOf(b).Len() == len(c.by) {
		t, err := c.shifted(op.ConstantOf(b), float64(n.Float("beta", 1)))
		if err != nil {
			return "", err
		}
		replaceConst(n, 2, b, nil, t, &undo{})
		return said, nil
	}
	y := n.Out(0)
	if n.In(2) == nil && !op.TakesNoBias(n) {
		t, err := c.shifted(ir.Floats(make([]float32, len(c.by)), len(c.by)), float64(n.Float("beta", 1)))
		if err != nil {
			return "", err
		}
		if t, err = cast(t, y.Type.Elem); err != nil {
			return "", err
		}
		n.SetIn(2, n.Graph().Const(y.Name+"_bias", t))
		return said + "; the bias is new", nil
	}
	if err := c.insertShift(n); err != nil {
		return "", err
	}
	t, err := c.shifted(c.shift.Const(), 1)
	if err != nil {
		return "", err
	}
	c.shift.SetConst(t)
	c.add.Origin = "biascorrect:" + c.site.Name
	return said + "; an Add is new", nil
}

// shifted returns a bias less the correction over beta, in the bias's own shape and type.
func (c *correction) shifted(bias *ir.Tensor, beta float64) (*ir.Tensor, error) {
	x, ok := bias.Float32s()
	if !ok {
		return nil, fmt.Errorf("its bias has type %v", bias.Elem())
	}
	y := make([]float32, len(x))
	for i := range y {
		y[i] = float32(float64(x[i]) - c.by[i]/beta)
	}
	return tensorAs(bias.Elem(), y, bias.Shape())
}

// cast returns a float32 tensor in another float type.
func cast(t *ir.Tensor, elem ir.DType) (*ir.Tensor, error) {
	return tensorAs(elem, ir.Data[float32](t), t.Shape())
}

// channelMean observes the mean of every channel along an axis.
type channelMean struct {
	axis    int
	samples map[int]channelSum
}

// Passes and Ordered: one pass, any order.
func (c *channelMean) Passes() int { return 1 }

// Ordered reports that samples may come in any order.
func (c *channelMean) Ordered() bool { return false }

// Observe adds one sample.
func (c *channelMean) Observe(_, sample int, t *ir.Tensor) error {
	x, ok := t.Float32s()
	if !ok {
		return fmt.Errorf("has type %v, wanted a float type", t.Elem())
	}
	n, inner := t.Shape()[c.axis], 1
	for _, d := range t.Shape()[c.axis+1:] {
		inner *= d
	}
	if c.samples == nil {
		c.samples = map[int]channelSum{}
	}
	sum := channelSum{sum: make([]float64, n)}
	for i, v := range x {
		if v != v {
			return errors.New("holds NaN")
		}
		sum.sum[i/inner%n] += float64(v)
	}
	if n > 0 {
		sum.n = len(x) / n
	}
	c.samples[sample] = sum
	return nil
}

// mean returns the mean of every channel, summed in the order of the samples.
func (c *channelMean) mean() []float64 {
	var m []float64
	n := 0
	for _, i := range sortedKeys(c.samples) {
		s := c.samples[i]
		if m == nil {
			m = make([]float64, len(s.sum))
		}
		for k, v := range s.sum {
			m[k] += v
		}
		n += s.n
	}
	for k := range m {
		m[k] /= float64(max(n, 1))
	}
	return m
}
