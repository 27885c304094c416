package search

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/passes"
)

// Goal is what a search is to reach: bits a weight, or a value of a metric with as few bits as will do.
type Goal struct {
	// Bits bounds the mean bits of a quantized weight, scales included. 0: the metric rules.
	Bits float64
	// Reached tells whether a model is good enough, with the value of its metric; used where Bits is 0.
	Reached func(ctx context.Context, m *ir.Model) (value float64, ok bool, err error)
	// Choices are the schemes that a weight may get, as text; a format alone (int6) stands for the policy's scheme of the site with
	// this format. Empty: 2, 3, 4, 5, 6 and 8 bits in the policy's scheme.
	Choices []string
	// Effort bounds the measurements that improve the allocation in the end; 0: 32.
	Effort int
}

// Plan is what a search found.
type Plan struct {
	Bits     float64       `json:"bits"` // a weight, scales included
	Loss     float64       `json:"loss"`
	Uniform  *Uniform      `json:"uniform"` // the best single choice for all weights within the same bits; nil: none fits
	Weights  []PlanRow     `json:"weights"`
	Rules    []passes.Rule `json:"-"` // to append to the policy's
	Measured int           `json:"measurements"`

	model, uniform assignment
}

// Uniform is one choice for all weights.
type Uniform struct {
	Scheme string  `json:"scheme"`
	Bits   float64 `json:"bits"`
	Loss   float64 `json:"loss"`
}

// PlanRow is the choice for one weight.
type PlanRow struct {
	Sites  []string `json:"sites"`
	Scheme string   `json:"scheme"`
	Was    string   `json:"was"` // the policy's
	Bits   float64  `json:"bits"`
	Values int      `json:"values"`
}

// group is a weight with the sites that read it, and what it may become.
type group struct {
	sites   []*site
	values  int
	choices []numfmt.Scheme // ascending in bits
	bits    []float64       // a value
	known   []bool          // whether the loss was measured
}

// budgeting is one search.
type budgeting struct {
	a      *Analyzer
	goal   Goal
	groups []*group
	table  choiceTable
	count  int
}

// Budget searches for the scheme of each weight; activations keep the policy's schemes. The loss of a weight alone is measured
// at its own scheme first, which the closed form turns into bits (ClosedForm); then the choices next to the chosen ones are
// measured until the allocation stands, and in the end whole allocations are measured: exchanges that lower the loss of the
// whole model stay.
func (a *Analyzer) Budget(ctx context.Context, goal Goal) (*Plan, error) {
	if goal.Effort == 0 {
		goal.Effort = 32
	}
	b := &budgeting{a: a, goal: goal}
	if err := b.gather(); err != nil {
		return nil, err
	}
	if err := b.seed(ctx); err != nil {
		return nil, err
	}
	var at []int
	var err error
	if goal.Bits > 0 {
		at, err = b.within(ctx, goal.Bits)
	} else {
		at, err = b.reach(ctx)
	}
	if err != nil {
		return nil, err
	}
	return b.plan(ctx, at)
}

// gather finds the weights and their choices.
func (b *budgeting) gather() error {
	by := map[*ir.Value]*group{}
	for _, s := range b.a.sites {
		if s.weight == nil {
			continue
		}
		if g := by[s.weight.Value]; g != nil {
			g.sites = append(g.sites, s)
			continue
		}
		g := &group{sites: []*site{s}}
		by[s.weight.Value] = g
		if err := g.choose(s, b.goal.Choices); err != nil {
			return fmt.Errorf("site %q: %w", s.Name, err)
		}
		b.groups = append(b.groups, g)
		bits := make([]float64, len(g.bits))
		for j, v := range g.bits {
			bits[j] = v * float64(g.values)
		}
		b.table.bits = append(b.table.bits, bits)
		b.table.size = append(b.table.size, float64(g.values))
		b.table.loss = append(b.table.loss, make([]float64, len(bits)))
	}
	if b.groups == nil {
		return errors.New("the policy quantizes no weight")
	}
	return nil
}

// widths are the formats of the default choices, for integers and for floats.
var (
	intWidths   = []string{"2", "3", "4", "5", "6", "8"}
	floatFormat = []string{"e2m1", "e2m2", "e2m3", "e4m3"}
)

// choose lists the schemes that a site's weight may get, in ascending order of bits.
func (g *group) choose(s *site, texts []string) error {
	base := s.schemes.Weights
	form, rest, _ := strings.Cut(base.Text(numfmt.Weight), "/")
	if rest != "" {
		rest = "/" + rest
	}
	if len(texts) == 0 {
		switch kind := base.Format.Kind; {
		case kind == numfmt.Int && base.Format.Block == 0:
			for _, w := range intWidths {
				texts = append(texts, strings.TrimRight(form, "0123456789")+w)
			}
		case kind == numfmt.Float && base.Format.Block == 0:
			texts = floatFormat
		default:
			return fmt.Errorf("scheme %v has no default choices: name some", base)
		}
	}
	shape := make([]int, 0, 4)
	g.values = 1
	for _, d := range s.weight.Value.Type.Dims {
		shape = append(shape, int(d.Size))
		g.values *= int(d.Size)
	}
	for _, t := range texts {
		if !strings.Contains(t, "/") {
			t += rest
		}
		c, err := numfmt.ParseScheme(t, numfmt.Weight)
		if err != nil {
			return err
		}
		l, err := c.Layout(shape, s.weight.Axes)
		if err != nil {
			return err
		}
		bits := c.BitsPerValue(l)
		at, found := slices.BinarySearch(g.bits, bits)
		if found {
			return fmt.Errorf("choices %v and %v both take %.4g bits", g.choices[at], c, bits)
		}
		g.choices = slices.Insert(g.choices, at, c)
		g.bits = slices.Insert(g.bits, at, bits)
	}
	g.known = make([]bool, len(g.choices))
	return nil
}

// seed measures each weight alone at the choice closest to the policy's own, and predicts the others: a bit less is four times
// the loss.
func (b *budgeting) seed(ctx context.Context) error {
	for i, g := range b.groups {
		b.a.progress("weights", i, len(b.groups))
		own := 0
		for j, c := range g.choices {
			if c.Format.Bits <= g.sites[0].schemes.Weights.Format.Bits {
				own = j
			}
		}
		if err := b.measure(ctx, i, own); err != nil {
			return err
		}
	}
	b.a.progress("weights", len(b.groups), len(b.groups))
	return nil
}

// measure takes the loss of one weight alone at one choice and predicts what is not measured from the nearest that is.
func (b *budgeting) measure(ctx context.Context, i, j int) error {
	g := b.groups[i]
	if g.known[j] {
		return nil
	}
	as := assignment{}
	for _, s := range g.sites {
		as[s] = passes.Schemes{Weights: &g.choices[j]}
	}
	v, err := b.a.loss(ctx, as)
	if err != nil {
		return fmt.Errorf("weight of site %q: %w", g.sites[0].Name, err)
	}
	b.count++
	g.known[j] = true
	b.table.loss[i][j] = v
	for k := range g.choices {
		if g.known[k] {
			continue
		}
		near := -1
		for m := range g.choices {
			if g.known[m] && (near < 0 || math.Abs(g.bits[m]-g.bits[k]) < math.Abs(g.bits[near]-g.bits[k])) {
				near = m
			}
		}
		b.table.loss[i][k] = b.table.loss[i][near] * math.Pow(4, g.bits[near]-g.bits[k])
	}
	return nil
}

// settle allocates a number of bits a weight, measures the chosen and their neighbours, and repeats until nothing new is chosen.
func (b *budgeting) settle(ctx context.Context, bits float64) ([]int, error) {
	total := 0.0
	for _, n := range b.table.size {
		total += n
	}
	for {
		at := b.table.allocate(bits*total + 1e-6)
		if at == nil {
			return nil, fmt.Errorf("%.4g bits a weight are too few: the smallest choices take %.4g", bits, b.table.cost(make([]int, len(b.groups)))/total)
		}
		before := b.count
		for i, j := range at {
			for k := max(j-1, 0); k <= min(j+1, len(b.groups[i].choices)-1); k++ {
				if err := b.measure(ctx, i, k); err != nil {
					return nil, err
				}
			}
			b.a.progress("choices", i+1, len(at))
		}
		if b.count == before {
			return at, nil
		}
	}
}

// assignment quantizes the whole model with the allocation's weights.
func (b *budgeting) assignment(at []int) assignment {
	as := assignment{}
	for _, s := range b.a.sites {
		as[s] = s.schemes
	}
	for i, j := range at {
		for _, s := range b.groups[i].sites {
			sc := s.schemes
			sc.Weights = &b.groups[i].choices[j]
			as[s] = sc
		}
	}
	return as
}

func (b *budgeting) whole(ctx context.Context, at []int) (float64, error) {
	b.count++
	return b.a.loss(ctx, b.assignment(at))
}

// within finds the allocation for a number of bits and improves it by measuring whole models. The best uniform allocation is a
// candidate too, so that the result is not worse.
func (b *budgeting) within(ctx context.Context, bits float64) ([]int, error) {
	at, err := b.settle(ctx, bits)
	if err != nil {
		return nil, err
	}
	best, err := b.whole(ctx, at)
	if err != nil {
		return nil, err
	}
	if u := b.uniformWithin(bits); u != nil {
		v, err := b.whole(ctx, u)
		if err != nil {
			return nil, err
		}
		if v < best {
			at, best = u, v
		}
	}
	return b.improve(ctx, at, best, bits)
}

// improve tries exchanges in the order of what they promise, keeps those that lower the measured loss, and ends after
// Goal.Effort measurements or when a round changes nothing.
func (b *budgeting) improve(ctx context.Context, at []int, best, bits float64) ([]int, error) {
	total := 0.0
	for _, n := range b.table.size {
		total += n
	}
	tried := 0
	for {
		improved := false
		for _, cand := range b.moves(at, bits*total+1e-6) {
			if tried++; tried > b.goal.Effort {
				return at, nil
			}
			b.a.progress("exchanges", tried, b.goal.Effort)
			v, err := b.whole(ctx, cand)
			if err != nil {
				return nil, err
			}
			if v < best {
				at, best, improved = cand, v, true
				break
			}
		}
		if !improved {
			return at, nil
		}
	}
}

// moves lists allocations one exchange away: a group goes up a choice, and those that cost least go down until the budget
// holds. The most promising come first.
func (b *budgeting) moves(at []int, budget float64) [][]int {
	type move struct {
		at    []int
		total float64
	}
	var list []move
	for g, j := range at {
		if j+1 == len(b.groups[g].choices) {
			continue
		}
		next := slices.Clone(at)
		next[g]++
		for b.table.cost(next) > budget {
			h := b.table.cheapest(next, func(k int) bool { return k == g })
			if h < 0 {
				break
			}
			next[h]--
		}
		if b.table.cost(next) <= budget {
			b.table.fill(next, budget) // what lowering a whole weight has left over
			list = append(list, move{next, b.table.total(next)})
		}
	}
	slices.SortStableFunc(list, func(x, y move) int {
		switch {
		case x.total < y.total:
			return -1
		case x.total > y.total:
			return 1
		}
		return 0
	})
	out := make([][]int, 0, len(list))
	for _, m := range list {
		if !slices.Equal(m.at, at) {
			out = append(out, m.at)
		}
	}
	return out
}

// uniformWithin is the largest single choice of all groups within the bits; nil if none fits. The groups must have equally
// many choices.
func (b *budgeting) uniformWithin(bits float64) []int {
	var best []int
	for j := range b.groups[0].choices {
		at := make([]int, len(b.groups))
		for g := range at {
			if len(b.groups[g].choices) != len(b.groups[0].choices) {
				return nil
			}
			at[g] = j
		}
		if b.perWeight(at) <= bits+1e-9 {
			best = at
		}
	}
	return best
}

// perWeight is the mean bits of an allocation.
func (b *budgeting) perWeight(at []int) float64 {
	total := 0.0
	for _, n := range b.table.size {
		total += n
	}
	return b.table.cost(at) / total
}

// reach finds the fewest bits at which the metric is good enough, by bisection over the budget.
func (b *budgeting) reach(ctx context.Context) ([]int, error) {
	lo, hi := b.perWeight(make([]int, len(b.groups))), 0.0
	all := make([]int, len(b.groups))
	for g := range all {
		all[g] = len(b.groups[g].choices) - 1
	}
	hi = b.perWeight(all)
	test := func(at []int) (float64, bool, error) {
		m, err := b.a.model(ctx, b.assignment(at))
		if err != nil {
			return 0, false, err
		}
		b.count++
		return b.goal.Reached(ctx, m)
	}
	value, ok, err := test(all)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("the target is out of reach: with the largest choices for all weights the metric is %.6g", value)
	}
	best := all
	for hi-lo > 0.05 {
		mid := (lo + hi) / 2
		at, err := b.settle(ctx, mid)
		if err != nil {
			return nil, err
		}
		if _, ok, err = test(at); err != nil {
			return nil, err
		}
		if ok {
			best, hi = at, min(mid, b.perWeight(at))
		} else {
			lo = mid
		}
	}
	return best, nil
}

// plan describes an allocation.
func (b *budgeting) plan(ctx context.Context, at []int) (*Plan, error) {
	p := &Plan{Bits: b.perWeight(at), model: b.assignment(at)}
	var err error
	if p.Loss, err = b.a.loss(ctx, p.model); err != nil {
		return nil, err
	}
	if u := b.uniformWithin(max(b.goal.Bits, p.Bits)); u != nil {
		p.uniform = b.assignment(u)
		p.Uniform = &Uniform{Scheme: b.groups[0].choices[u[0]].Text(numfmt.Weight), Bits: b.perWeight(u)}
		if p.Uniform.Loss, err = b.a.loss(ctx, p.uniform); err != nil {
			return nil, err
		}
	}
	for i, g := range b.groups {
		c := g.choices[at[i]]
		row := PlanRow{Scheme: c.Text(numfmt.Weight), Was: g.sites[0].schemes.Weights.Text(numfmt.Weight), Bits: g.bits[at[i]], Values: g.values}
		for _, s := range g.sites {
			row.Sites = append(row.Sites, s.Name)
			if c != *s.schemes.Weights {
				r := passes.Rule{Match: b.a.selector(s)}
				r.Weights = &c
				p.Rules = append(p.Rules, r)
			}
		}
		p.Weights = append(p.Weights, row)
	}
	p.Measured = b.count
	return p, nil
}

// Model returns the model that a plan describes, with quantization simulated; uniform gives that of Plan.Uniform instead.
func (a *Analyzer) Model(ctx context.Context, p *Plan, uniform bool) (*ir.Model, error) {
	if uniform {
		return a.model(ctx, p.uniform)
	}
	return a.model(ctx, p.model)
}

// selector is a rule's match for one site: its name where this selects no other, else the name as an expression.
func (a *Analyzer) selector(s *site) string {
	if s.Name != "" && !strings.Contains(s.Name, "*") && !strings.HasPrefix(s.Name, "re:") {
		re := regexp.MustCompile(`(^|[/.])` + regexp.QuoteMeta(strings.TrimPrefix(s.Name, "/")) + `([/.]|$)`)
		hits := 0
		for _, o := range passes.FindSites(a.base) {
			if slices.ContainsFunc(o.Names(), re.MatchString) {
				hits++
			}
		}
		if hits == 1 {
			return s.Name
		}
	}
	return "re:^" + regexp.QuoteMeta(s.Name) + "$"
}
