package passes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/calib"
)

// GPTQOptions are the options of the pass gptq.
type GPTQOptions struct {
	Damp     float64 `opt:"damp" doc:"share of the mean diagonal that is added to the Gram matrix"`
	ActOrder bool    `opt:"actorder" doc:"round the columns with the largest inputs first; scales of blocks are then fitted before the rounding"`
	Stats    string  `opt:"stats" enum:"fresh|stale|static" doc:"what the scales of blocks are fitted to: the weights as compensated so far, the same as of the last 128th column (as the reference does), or the original weights"`
	Grid     string  `opt:"grid" enum:"policy|shifted" doc:"policy: as the weight's scheme says; shifted: the reference's symmetric grid, for unsigned schemes such as uint4: step 2·amax/(2^b-1), zero point 2^(b-1)"`
	Drift    float64 `opt:"drift" doc:"share, 0 to 1, of what quantization before a product has changed in its inputs that its weight makes up for; 0 leaves out the second walk"`
	Inputs   string  `opt:"inputs" enum:"quantized|float" doc:"whether the inputs that a weight is fitted to are quantized as the policy says"`
}

// GPTQ rounds weights so that the error of their products is small, not that of each weight.
var GPTQ = Define("gptq", gptqDoc, GPTQOptions{Damp: 0.01, Stats: "fresh", Grid: "policy", Drift: 0.75, Inputs: "quantized"}, gptq)

const gptqDoc = `rounds weights column by column, making up for each error in the columns that follow (Frantar et al. 2022)

Every weight of MatMul, Gemm and Conv that the policy quantizes is rounded onto its scheme's grid with the Gram matrix of its
inputs over the samples. The model is walked once in the order of its nodes: the inputs of a weight come from the weights
already rounded before it, and are quantized as the policy says. The model as it is is walked beside: the weight is fitted to
bring its product, on these inputs, near to what the weight as it was gives on the inputs as they were, for a share drift of the
way (as asymmetric calibration in Li et al. 2025, GPTAQ, but by least squares before the rounding); not where rptq has clustered
the inputs. Groups of a convolution are rounded apart. A weight is left to
rounding to nearest where that has the smaller error on the samples, where its inputs tell nothing, where it is shared, and in a
ConvTranspose. fakequant then stores the codes found here.`

// gptqSite is a weight that gptq rounds.
type gptqSite struct {
	*Decision
	weight *Choice
	view   weightView

	node  *ir.Node  // of the model that is walked
	root  *ir.Value // the weight there
	gram  *calib.Gram
	value *ir.Value // of which the Gram matrix is

	clusters []int   // column → cluster, where each has its own scale in each row; nil: the scheme's groups
	groups   int     // clusters
	order    []moves // from the walked model's weight to the model's

	q      *ir.Tensor // the result; nil: left to rounding to nearest
	params numfmt.Params
	layout numfmt.Layout
}

func gptq(ctx context.Context, u *Unit, o GPTQOptions) error {
	if o.Damp <= 0 || o.Damp > 1 {
		return fmt.Errorf("damp=%v: want a share of the mean diagonal between 0 and 1", o.Damp)
	}
	if !(o.Drift >= 0 && o.Drift <= 1) {
		return fmt.Errorf("drift=%v: want a share between 0 and 1", o.Drift)
	}
	if err := refuseQuantized(u); err != nil {
		return err
	}
	ds, err := u.Policy.Decide(u.sites())
	if err != nil {
		return err
	}
	sites := gptqSites(u, ds, o)
	if len(sites) == 0 || u.DryRun {
		return nil
	}
	if u.Samples == nil {
		return fmt.Errorf("weights are to be fitted to their inputs (%d of them, the first is that of site %q): give samples", len(sites), sites[0].Name)
	}
	work, err := gptqModel(ctx, u, ds, sites, o)
	if err != nil {
		return err
	}
	g := &gptqSweep{u: u, o: o, by: map[*ir.Node]*gptqSite{}, factors: map[*calib.Gram][]*gramFactor{}, users: map[*calib.Gram]int{}}
	stops := g.stops(sites)
	var beside *ir.Model
	if slices.ContainsFunc(stops, func(s calib.Stop) bool { return s.Beside != nil }) {
		beside = u.Model
	}
	if err := calib.SweepNodes(ctx, work, beside, u.Samples, stops, calib.Options{Jobs: u.Jobs, Runtime: u.Runtime}, g.at); err != nil {
		return err
	}
	for _, s := range sites {
		if s.q == nil {
			continue
		}
		root := s.weight.Value
		t := s.q
		for _, m := range s.order {
			var err error
			if t, err = m.apply(t); err == nil && s.clusters == nil {
				s.params, err = m.params(s.params, s.layout)
			}
			if err != nil {
				return fmt.Errorf("weight %q: %w", root.Name, err)
			}
		}
		from := op.ConstantOf(root)
		var f *foldedWeight
		if s.clusters != nil {
			var err error
			if f, err = s.folded(from, t); err != nil {
				return fmt.Errorf("weight %q: %w", root.Name, err)
			}
		}
		if s.order != nil {
			var err error
			if t, err = u.keep(t); err != nil {
				return err
			}
			if err := u.keepParams(&s.params); err != nil {
				return err
			}
		}
		v := setConstant(root, t)
		if f != nil {
			u.fold(v, f)
		} else {
			u.SetFit(v, s.weight.Scheme, s.layout.Axis, s.params, from)
		}
		u.edit()
	}
	return nil
}

// folded describes a weight with scales for each row and cluster, by its values before and after the rounding.
func (s *gptqSite) folded(from, to *ir.Tensor) (*foldedWeight, error) {
	if err := from.Load(); err != nil {
		return nil, err
	}
	defer release(from)
	before, ok := from.Float32s()
	after, same := to.Float32s()
	if !ok || !same || len(before) != len(after) {
		return nil, fmt.Errorf("was rounded from %v to %v", from.Type(), to.Type())
	}
	f := &foldedWeight{scheme: fmt.Sprintf("%s by %d clusters", s.weight.Scheme.Text(numfmt.Weight), s.groups)}
	f.stats.compare(f.stats.tally(0), before, after)
	f.stats.bits = s.weight.Scheme.GroupedBits(s.view.rows*s.groups, len(after))
	return f, nil
}

// setConstant gives a constant other data and returns the value that now holds it: a Constant node's result is replaced.
func setConstant(v *ir.Value, t *ir.Tensor) *ir.Value {
	if v.Const() != nil {
		v.SetConst(t)
		return v
	}
	c := v.Graph().Const(v.Name, t)
	v.ReplaceUses(c)
	return c
}

// gptqSites selects the weights to round and reports why others are left.
func gptqSites(u *Unit, ds []*Decision, o GPTQOptions) []*gptqSite {
	users := map[*ir.Value]int{}
	for _, d := range ds {
		for i := range d.Choices {
			if d.Choices[i].Role == numfmt.Weight {
				users[d.Choices[i].Value]++
			}
		}
	}
	var sites []*gptqSite
	for _, d := range ds {
		if d.Kind != Linear {
			continue
		}
		s := &gptqSite{Decision: d}
		for i := range d.Choices {
			if d.Choices[i].Role == numfmt.Weight {
				s.weight = &d.Choices[i]
			}
		}
		if s.weight == nil || s.weight.Scheme.IsNone() {
			continue // fakequant says why
		}
		if why := s.refuse(u.Model, users[s.weight.Value], u.clusters[s.weight.Value], o); why != "" {
			u.skip(d.Name, why+"; its weight is rounded to nearest")
			continue
		}
		s.order = u.orderOf(s.weight.Value)
		sites = append(sites, s)
	}
	return sites
}

// refuse says why the weight of a site cannot be rounded by GPTQ, "" if it can.
func (s *gptqSite) refuse(m *ir.Model, users int, clusters []int, o GPTQOptions) string {
	root := s.weight.Value
	alone := users == 1
	for _, v := range append([]*ir.Value{root}, chainValues(s.weight.Chain)...) {
		_, one := v.SingleUse()
		alone = alone && one
	}
	switch {
	case s.Node.Graph() != m.Graph:
		return "it is inside a subgraph, which is not walked node by node"
	case !alone:
		return fmt.Sprintf("its weight %q has other users, which would see what is rounded for this one", root.Name)
	case o.Grid == "shifted" && (s.weight.Scheme.Format.Kind != numfmt.Int || s.weight.Scheme.Format.Signed || !s.weight.Scheme.Affine):
		return fmt.Sprintf("the grid shifted is for unsigned asymmetric integers, not for %v", s.weight.Scheme)
	}
	var why string
	if s.view, why = viewWeight(s.Site, s.weight.Operand); why != "" {
		return why
	}
	if clusters != nil {
		s.clusters, s.groups = clusters, slices.Max(clusters)+1
	}
	return ""
}

func chainValues(chain []*ir.Node) []*ir.Value {
	var vs []*ir.Value
	for _, n := range chain {
		vs = append(vs, n.Out(0))
	}
	return vs
}

// gptqModel makes the model that is walked: a copy whose activations are quantized as the policy says (unless inputs=float), and
// whose other weights are rounded to nearest already. It points the sites at their nodes there.
func gptqModel(ctx context.Context, u *Unit, ds []*Decision, sites []*gptqSite, o GPTQOptions) (*ir.Model, error) {
	work, mp := u.Model.Clone()
	unit := &Unit{Model: work, Policy: u.Policy, Samples: u.Samples, Report: &Report{}, Seed: u.Seed, Jobs: u.Jobs, Runtime: u.Runtime,
		entry: &PassEntry{Name: u.entry.Name}, own: map[*ir.Node]bool{}}
	for n := range u.own {
		unit.own[mp.Nodes[n]] = true
	}
	if err := u.ungather(unit, mp); err != nil {
		return nil, err
	}
	copied, err := u.Policy.Decide(unit.sites())
	if err != nil {
		return nil, err
	}
	if len(copied) != len(ds) {
		panic("BUG: gptq: a copy of the model has other sites")
	}
	mine := map[*ir.Node]bool{}
	for _, s := range sites {
		mine[mp.Nodes[s.Node]] = true
	}
	for _, d := range copied {
		for i := range d.Choices {
			c := &d.Choices[i]
			if c.Role == numfmt.Weight && mine[d.Node] || c.Role != numfmt.Weight && o.Inputs == "float" {
				c.Scheme = numfmt.Scheme{}
			}
		}
	}
	in := newInserter(unit, copied)
	in.gather()
	if err := in.fitWeights(); err != nil {
		return nil, err
	}
	if err := in.calibrate(ctx); err != nil {
		return nil, err
	}
	if err := in.insert(); err != nil {
		return nil, err
	}
	for _, s := range sites {
		s.node, s.root = mp.Nodes[s.Node], mp.Values[s.weight.Value]
		s.value = s.node.In(s.Linear.X)
	}
	return work, op.Verify(work)
}

// gptqSweep is the walk over the model.
type gptqSweep struct {
	u       *Unit
	o       GPTQOptions
	by      map[*ir.Node]*gptqSite
	factors map[*calib.Gram][]*gramFactor // by group of a convolution
	users   map[*calib.Gram]int           // sites that still need it
	done    int
}

// stops makes the Gram matrices; products that read the same value share one.
func (g *gptqSweep) stops(sites []*gptqSite) []calib.Stop {
	type key struct {
		value *ir.Value
		axis  int
		drift bool
	}
	shared := map[key]*calib.Gram{}
	var stops []calib.Stop
	for _, s := range sites {
		if s.view.conv {
			s.gram = calib.NewConvGram(s.node, s.view.shape)
		} else {
			k := key{s.value, fromStart(s.Linear.XAxis, s.value), g.drifts(s)}
			if shared[k] == nil {
				shared[k] = calib.NewGram(s.Linear.XAxis)
			}
			s.gram = shared[k]
		}
		g.users[s.gram]++
		g.by[s.node] = s
		stop := calib.Stop{Node: s.node}
		if g.drifts(s) {
			stop.Beside = &calib.Beside{Value: s.value, Node: s.Node, Other: s.Node.In(s.Linear.X), Into: s.gram}
		} else {
			stop.Probes = []calib.Probe{{Value: s.value, Into: s.gram}}
		}
		stops = append(stops, stop)
	}
	return stops
}

// drifts reports whether a site's weight makes up for the drift of its inputs. Inputs that rptq has clustered may lie in another
// order in the model beside, and their quantization is in both.
func (g *gptqSweep) drifts(s *gptqSite) bool { return g.o.Drift > 0 && s.clusters == nil }

// at rounds the weight of a node that the walk has come to.
func (g *gptqSweep) at(w *runtime.Walk, n *ir.Node) error {
	s := g.by[n]
	g.u.at(s.Name)
	g.u.progress("weights", g.done, len(g.by))
	g.done++
	t, err := g.round(s)
	if err != nil {
		return fmt.Errorf("site %q: %w", s.Name, err)
	}
	if g.users[s.gram]--; g.users[s.gram] == 0 {
		delete(g.factors, s.gram)
		s.gram.H, s.gram.D = nil, nil
	}
	return w.Replace(s.root, t)
}

// round rounds a site's weight and returns it as the walk is to go on with it: where rounding to nearest is better, that. The
// result is kept out of memory, as the site's parameters are.
func (g *gptqSweep) round(s *gptqSite) (*ir.Tensor, error) {
	q, found, err := g.values(s)
	if err != nil {
		return nil, err
	}
	old := op.ConstantOf(s.root)
	defer release(old)
	t, err := tensorAs(old.Elem(), q, old.Shape())
	if err == nil {
		t, err = g.u.keep(t)
	}
	if err == nil {
		err = g.u.keepParams(&s.params)
	}
	if err != nil {
		return nil, fmt.Errorf("weight %q: %w", s.root.Name, err)
	}
	if found {
		s.q = t
	}
	return t, nil
}

// values rounds a site's weight and returns its values, and whether they are the site's result: rounding to nearest needs none.
func (g *gptqSweep) values(s *gptqSite) (q []float32, found bool, err error) {
	t := op.ConstantOf(s.root)
	if err := t.Load(); err != nil {
		return nil, false, err
	}
	x, ok := t.Float32s()
	if !ok {
		return nil, false, fmt.Errorf("weight %q has type %v, wanted a float type", s.root.Name, t.Elem())
	}
	grid, err := newWeightGrid(s, x, g.o)
	if err != nil {
		return nil, false, fmt.Errorf("weight %q: %w", s.root.Name, err)
	}
	s.layout = grid.layout
	nearest := make([]float32, len(x))
	if err := grid.round(nearest); err != nil {
		return nil, false, err
	}
	if s.gram.Rows == 0 {
		g.u.skip(s.Name, "no sample reached it; its weight is rounded to nearest")
		return nearest, false, nil
	}
	if s.gram.K != s.view.cols {
		return nil, false, fmt.Errorf("its input has %d channels, its weight wants %d", s.gram.K, s.view.cols)
	}
	factors, err := g.factor(s)
	if err != nil {
		g.u.skip(s.Name, err.Error()+"; its weight is rounded to nearest")
		return nearest, false, nil
	}
	if s.gram.Rows < s.gram.K {
		g.u.note(fmt.Sprintf("site %q: %d rows of input for a contraction over %d: the samples are too few to tell its channels apart", s.Name, s.gram.Rows, s.gram.K))
	}
	q = make([]float32, len(x))
	before, after := 0.0, 0.0
	for i, f := range factors {
		part := s.view.matrix(x, i)
		w := grid.weight(part, i)
		if s.gram.D != nil {
			f.shift(w.rows, w.target, part, s.gram.D[i], g.o.Drift)
			if g.users[s.gram] == 1 {
				s.gram.D[i] = nil // nobody else wants it
			}
		}
		r, err := gptqRound(w, f)
		if err != nil {
			return nil, false, fmt.Errorf("weight %q: %w", s.root.Name, err)
		}
		grid.store(r.params, i)
		s.view.put(q, r.q, i)
		after += r.errorOf(f, w.target)
		before += gramError(s.view.rows, s.view.cols, s.view.matrix(nearest, i), w.target, s.gram.H[i])
	}
	better := after < before*(1-1e-6) // both are known to about seven digits
	if !better && s.clusters != nil { // kept all the same: rounding to nearest would lose the clusters' scales
		g.u.did(s.Name, fmt.Sprintf("rounded to nearest, for each of %d clusters: the error of gptq would be %.3g, it is %.3g", s.groups, after, before))
		return nearest, true, nil
	}
	if !better {
		g.u.skip(s.Name, fmt.Sprintf("its error would be %.3g, that of rounding to nearest is %.3g; its weight is rounded to nearest", after, before))
		return nearest, false, nil
	}
	what := fmt.Sprintf("%.3g of the error of rounding to nearest", after/before)
	if s.clusters != nil {
		what += fmt.Sprintf(", with scales for each output channel and each of %d clusters of inputs; no node can hold them, so it stays float", s.groups)
	}
	if damp := slices.MaxFunc(factors, func(a, b *gramFactor) int { return int(math.Copysign(1, a.damp-b.damp)) }).damp; damp > g.o.Damp {
		what += fmt.Sprintf(", with damp=%v", damp)
	}
	g.u.did(s.Name, what)
	s.params = grid.params
	return q, true, nil
}

// factor factors the Gram matrices of a value, once for all who share it.
func (g *gptqSweep) factor(s *gptqSite) ([]*gramFactor, error) {
	gram := s.gram
	if f := g.factors[gram]; f != nil {
		return f, nil
	}
	var fs []*gramFactor
	for i, h := range gram.H {
		var order []int
		switch {
		case g.o.ActOrder:
			order = descending(gram.K, h)
		case s.clusters != nil: // cluster by cluster, as if they lay side by side
			order = byLabel(s.clusters)
		}
		f, err := factorGram(gram.K, h, g.o.Damp, order)
		if err != nil {
			if len(gram.H) > 1 {
				err = fmt.Errorf("group %d: %w", i, err)
			}
			return nil, err
		}
		fs = append(fs, f)
	}
	if fs == nil {
		return nil, errors.New("its input is empty")
	}
	g.factors[gram] = fs
	return fs, nil
}
