package passes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/calib"
)

// FakeQuantOptions are the options of the pass fakequant.
type FakeQuantOptions struct {
	Measure int    `opt:"measure" doc:"samples over which the report measures activations (clipped and zero shares, SQNR); 0: none"`
	Range   string `opt:"range" enum:"max|mse|mse-exact" doc:"how the ranges of weights are found that no earlier pass rounded: max is their own; mse is the published GPTQ's grid, the part from 0.21 to 1 of each group's range with the least sum of |error|^2.4; mse-exact is the part with the least squared error, on a grid down to 2^-16 that is refined (calibrate: seqmse looks at outputs instead)"`
	Conv    string `opt:"conv" enum:"channels|im2col" doc:"along what the blocks of convolutions run where both operands have blocks: the input channels of each tap, or the flattened axis of channels and taps (im2col), for which the convolution becomes one that lays out patches and one that multiplies them"`
	Style   string `opt:"style" enum:"plain|ort|qoperator" doc:"ort: quantize as ONNX Runtime wants it to run integer kernels: also results of Conv and Gemm, for all that read them, behind activations, with shared parameters where elements are only rearranged; qoperator: as ort, and results of MatMul, for operators that compute in integers from end to end"`
}

// FakeQuant inserts the quantizers that the policy asks for.
var FakeQuant = Define("fakequant", fakeQuantDoc, FakeQuantOptions{Measure: 4, Range: "max", Conv: "channels", Style: "plain"}, fakeQuant)

var fakeQuantDoc = `decides every site by the policy and inserts qsimc.FakeQuant nodes

Sites are products with a constant weight (MatMul, Gemm, Conv, ConvTranspose), both operands of attention products, and
tables of lookups. Weights are fitted to their values, static activations to what the calibrator finds in the samples,
dynamic activations are fitted when the model runs. A value that several sites read is quantized once if their schemes
agree, and so is a weight that several nodes share. The model then simulates the quantized one in float; lower writes it in
operators of ONNX.` + calibrators()

// calibrators is the part of the documentation that lists what policy.calibrate may name.
func calibrators() string {
	s := "\n\nCalibrators of static scales (policy.calibrate; with their options, as in \"percentile p=99.9\"):"
	for _, m := range calib.Methods {
		s += "\n  " + m.Name + ": " + m.Doc
	}
	return s
}

// quantizer is one FakeQuant node to be: a value, its scheme, and where it goes.
type quantizer struct {
	key     quantKey
	role    numfmt.Role
	params  numfmt.Params
	amax    float32
	clip    bool // values beyond the range occur
	drop    string
	before  *ir.Node
	out     *ir.Value
	users   []*Choice
	stats   measures
	axis    int      // of the layout, -1 per tensor
	profile *Profile // nil unless wanted
}

// quantKey tells quantizers apart: graph is where its users are, since a value captured by a subgraph is quantized there.
type quantKey struct {
	value  *ir.Value
	graph  *ir.Graph
	scheme numfmt.Scheme
	axes   numfmt.Axes
	out    bool
}

// inserter is the state of one run of fakequant.
type inserter struct {
	u         *Unit
	decisions []*Decision
	quants    []*quantizer // in the order of their first user
	by        map[quantKey]*quantizer
	of        map[*Choice]*quantizer
	made      map[*ir.Node]*quantizer  // that earlier passes have placed, by their nodes
	others    []*quantizer             // the same, in the order of their first user
	before    map[*Choice][]*quantizer // the same, by the operands behind them
	ranges    string                   // of weights: a name of calib.WeightMethods
	seq       map[*quantizer]*seqSite  // weights that calibrate: seqmse fits
}

func newInserter(u *Unit, ds []*Decision) *inserter {
	return &inserter{u: u, decisions: ds, ranges: "max", by: map[quantKey]*quantizer{}, of: map[*Choice]*quantizer{}, made: map[*ir.Node]*quantizer{}, before: map[*Choice][]*quantizer{}}
}

func fakeQuant(ctx context.Context, u *Unit, o FakeQuantOptions) error {
	if err := refuseQuantized(u); err != nil {
		return err
	}
	ds, err := u.Policy.Decide(u.sites())
	if err != nil {
		return err
	}
	if o.Conv == "im2col" && !u.DryRun {
		if err := u.unfold(ds); err != nil {
			return err
		}
		if ds, err = u.Policy.Decide(u.sites()); err != nil {
			return err
		}
	}
	in := newInserter(u, ds)
	in.ranges = o.Range
	in.gather()
	if o.Style != "plain" {
		in.styleORT(o.Style == "qoperator")
	}
	if !u.DryRun {
		if err := in.selectSeq(); err != nil {
			return err
		}
		if err := in.fitWeights(); err != nil {
			return err
		}
		if err := in.calibrate(ctx); err != nil {
			return err
		}
		if err := in.seqMSE(ctx); err != nil {
			return err
		}
		if o.Style != "plain" {
			in.shareORT()
		}
		if err := in.measure(ctx, o.Measure); err != nil {
			return err
		}
	}
	in.report()
	in.profiles()
	in.warn()
	if u.DryRun {
		return nil
	}
	return in.insert()
}

// refuseQuantized fails on a model that already holds quantized numbers, unless they are to be kept.
func refuseQuantized(u *Unit) error {
	if u.KeepQuantized {
		return nil
	}
	var names []string
	for _, s := range u.sites() {
		if s.Already {
			names = append(names, fmt.Sprintf("%q", s.Name))
		}
	}
	for g := range u.Model.Graphs() {
		for n := range g.Nodes() {
			if names == nil && op.RoleOf(n) == op.QuantRole && !u.own[n] {
				names = append(names, n.String()) // quantized numbers that no site reads
			}
		}
	}
	if names == nil {
		return nil
	}
	return fmt.Errorf("%w: %s; --keep-quantized leaves these sites as they are", ErrQuantized, strings.Join(names, ", "))
}

// ErrQuantized says that a model cannot be quantized because it already is.
var ErrQuantized = errors.New("the model is quantized already")

// gather makes the quantizers that the decisions need.
func (in *inserter) gather() {
	for _, d := range in.decisions {
		for i := range d.Choices {
			c := &d.Choices[i]
			if c.Scheme.IsNone() {
				in.gatherMade(c)
				continue
			}
			if in.u.folded[c.Value] != nil && c.Role == numfmt.Weight {
				c.Scheme = numfmt.Scheme{} // the values are rounded already
				continue
			}
			key := quantKey{c.Value, d.Node.Graph(), c.Scheme, layoutAxes(c), c.Role == numfmt.Output}
			if c.Role == numfmt.Weight {
				key.graph = c.Value.Graph()
			}
			q := in.by[key]
			if q == nil {
				q = &quantizer{key: key, role: c.Role, before: d.Node, axis: -1}
				if in.u.Profile {
					q.profile = newProfile(q)
				}
				in.by[key] = q
				in.quants = append(in.quants, q)
			}
			q.users = append(q.users, c)
			in.of[c] = q
		}
	}
}

// layoutAxes keeps those axes of an operand that its scheme's layout depends on, so that equal quantizers have equal keys.
func layoutAxes(c *Choice) numfmt.Axes {
	a := numfmt.Axes{K: numfmt.NoAxis, Out: numfmt.NoAxis}
	blocks := c.Scheme.Gran == numfmt.PerBlock || c.Scheme.Gran == numfmt.PerToken
	if blocks {
		a.K = fromStart(c.Axes.K, c.Value)
	}
	if c.Scheme.Gran == numfmt.PerAxis && c.Scheme.Axis == numfmt.AxisOut || blocks && c.Scheme.Scale2 > 0 {
		a.Out = fromStart(c.Axes.Out, c.Value)
	}
	return a
}

// fromStart counts an axis from the start where the rank is known.
func fromStart(axis int, v *ir.Value) int {
	if axis != numfmt.NoAxis && axis < 0 && v.Type.Ranked {
		return axis + v.Type.Rank()
	}
	return axis
}

// report writes what was decided, and for what stays float why.
func (in *inserter) report() {
	u := in.u
	for _, d := range in.decisions {
		quantized := false
		var reasons []string
		for i := range d.Choices {
			c := &d.Choices[i]
			e := in.entry(d, c)
			q := in.of[c]
			switch {
			case q == nil && c.Role == numfmt.Output:
				continue // outputs are quantized only on request
			case q == nil && u.folded[c.Value] != nil && c.Role == numfmt.Weight:
				quantized = true
				u.folded[c.Value].describe(&e)
			case q == nil && in.before[c] != nil:
				quantized = true
				describeMade(in.before[c], &e)
			case q == nil:
				if !slices.Contains(reasons, c.Reason) {
					reasons = append(reasons, c.Reason)
				}
			case q.drop != "":
				e.Scheme = "none"
				u.skip(d.Name, c.Role.String()+": "+q.drop)
			default:
				quantized = true
				q.describe(&e)
			}
			u.Report.Sites = append(u.Report.Sites, e)
		}
		if d.Float != "" {
			reasons = append(reasons, d.Float)
		}
		if !quantized && reasons != nil {
			u.skip(d.Name, strings.Join(reasons, "; "))
		}
	}
}

// warn notes what holds for the whole model: products that overflow where the processor lacks the wide instruction.
func (in *inserter) warn() {
	sites := 0
	for _, d := range in.decisions {
		unsigned, signed := false, false
		for i := range d.Choices {
			c := &d.Choices[i]
			f := c.Scheme.Format
			wide := f.Kind == numfmt.Int && f.Bits == 8 && c.Scheme.Range != numfmt.Narrow7
			unsigned = unsigned || c.Role == numfmt.Input && wide && !f.Signed
			signed = signed || c.Role == numfmt.Weight && wide && f.Signed
		}
		if unsigned && signed {
			sites++
		}
	}
	if sites > 0 {
		in.u.note(fmt.Sprintf("%d sites multiply uint8 inputs by int8 weights: integer kernels on x86 processors without VNNI "+
			"saturate such sums; weights with /narrow7 (ONNX Runtime's reduce_range) avoid it", sites))
	}
}

// insert puts the FakeQuant nodes in place and makes the sites read them.
func (in *inserter) insert() error {
	order := nodeOrder(in.u.Model)
	served := in.servedUses()
	for _, q := range in.quants {
		if q.drop != "" {
			continue
		}
		if err := in.place(q, order); err != nil {
			return fmt.Errorf("value %q: %w", q.key.value.Name, err)
		}
	}
	copies := map[chainKey]*ir.Value{}
	for _, d := range in.decisions {
		for i := range d.Choices {
			c := &d.Choices[i]
			q := in.of[c]
			if q == nil || q.drop != "" || q.key.out {
				continue
			}
			in.u.at(d.Name)
			if err := in.connect(d.Node, c, q, served, copies); err != nil {
				return fmt.Errorf("site %q: %w", d.Name, err)
			}
		}
	}
	for _, q := range in.quants {
		if q.drop == "" && q.key.out {
			for _, u := range q.key.value.Uses() {
				if u.Node != q.out.DefNode() {
					u.Set(q.out)
				}
			}
		}
	}
	return nil
}

// place inserts one FakeQuant node: a weight's before the first node that reads the weight, an activation's before its first
// site, an output's behind its producer.
func (in *inserter) place(q *quantizer, order map[*ir.Node]int) error {
	v, g, before := q.key.value, q.key.graph, q.before
	scheme, params := q.placed()
	switch {
	case q.key.out:
		before = v.DefNode().Next()
	case q.role == numfmt.Weight:
		before = nil
		for _, c := range q.users {
			for _, u := range v.Uses() {
				if n := enclosing(u, g); n != nil && c != nil && (before == nil || order[n] < order[before]) {
					before = n
				}
			}
		}
	}
	ins := []*ir.Value{v}
	if scheme.Scaled() && !scheme.Dynamic {
		shape := []int{}
		if q.axis >= 0 {
			var err error
			if shape, err = q.scaleShape(params); err != nil {
				return err
			}
		}
		ins = append(ins, g.Const(v.Name+"_scale", ir.Floats(params.Scale, shape...)))
		if params.Zero != nil {
			ins = append(ins, g.Const(v.Name+"_zero_point", ir.Floats(params.Zero, shape...)))
		}
		if c := params.Coarse; c != nil {
			coarse := []int{len(c)}
			if len(c) == 1 {
				coarse = []int{}
			}
			ins = append(ins, nil, g.Const(v.Name+"_coarse_scale", ir.Floats(c, coarse...)))
		}
	}
	in.u.Model.Opset[op.Domain] = 1
	f := op.FakeQuant{Scheme: scheme, Axes: q.key.axes, Clip: q.clip}
	n, err := op.Insert(g, before, v.Name+"_FakeQuant", op.FakeQuantOp, ins, []string{v.Name + "_FakeQuant"}, f.Attrs()...)
	if err != nil {
		return err
	}
	n.Origin = "fakequant:" + v.Name
	q.out = n.Out(0)
	in.u.edit()
	return nil
}

func (q *quantizer) scaleShape(p numfmt.Params) ([]int, error) {
	if q.role != numfmt.Weight {
		return []int{len(p.Scale)}, nil
	}
	l, err := q.key.scheme.Layout(op.ConstantOf(q.key.value).Shape(), q.key.axes)
	return l.ScaleShape(), err
}

// servedUses tells for each input slot on the way from a weight to its site which quantizer it will read from; a slot that
// two would feed maps to nil.
func (in *inserter) servedUses() map[slot]*quantizer {
	served := map[slot]*quantizer{}
	for _, d := range in.decisions {
		for i := range d.Choices {
			c := &d.Choices[i]
			if c.Role != numfmt.Weight {
				continue
			}
			path := []slot{{d.Node, c.Slot}}
			for _, n := range c.Chain {
				path = append(path, slot{n, 0})
			}
			for _, s := range path {
				q, seen := served[s]
				if seen && q != in.of[c] {
					served[s] = nil
				} else {
					served[s] = in.of[c]
				}
			}
		}
	}
	return served
}

type slot struct {
	node *ir.Node
	in   int
}

type chainKey struct {
	node *ir.Node
	q    *quantizer
}

// connect makes a site's operand read the quantizer: at the head of the weight's chain if all that hangs on the chain wants
// the same, else through a copy of the chain.
func (in *inserter) connect(site *ir.Node, c *Choice, q *quantizer, served map[slot]*quantizer, copies map[chainKey]*ir.Value) error {
	if len(c.Chain) == 0 {
		site.SetIn(c.Slot, q.out)
		return nil
	}
	alone := true
	for _, n := range c.Chain {
		for _, u := range n.Out(0).Uses() {
			alone = alone && u.Node != nil && served[slot{u.Node, u.Slot}] == q
		}
	}
	if alone {
		c.Chain[0].SetIn(0, q.out)
		return nil
	}
	v := q.out
	for _, n := range c.Chain {
		key := chainKey{n, q}
		if copies[key] == nil {
			ins := n.Ins()
			ins[0] = v
			k, err := op.Insert(n.Graph(), n, n.Name, n.Op, ins, []string{n.Out(0).Name}, n.Attrs...)
			if err != nil {
				return err
			}
			k.Origin = "fakequant:" + c.Value.Name
			copies[key] = k.Out(0)
		}
		v = copies[key]
	}
	site.SetIn(c.Slot, v)
	return nil
}

// nodeOrder numbers the nodes of every graph in their order.
func nodeOrder(m *ir.Model) map[*ir.Node]int {
	order := map[*ir.Node]int{}
	for g := range m.Graphs() {
		for n := range g.Nodes() {
			order[n] = len(order)
		}
	}
	return order
}

// enclosing returns the node of graph g that a use belongs to: its node, or the one whose subgraph it is in.
func enclosing(u ir.Use, g *ir.Graph) *ir.Node {
	n, at := u.Node, u.Graph
	for at != g {
		if at == nil || at.Owner() == nil {
			return nil
		}
		n = at.Owner()
		at = n.Graph()
	}
	return n
}
