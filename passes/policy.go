package passes

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/qsimc/qsimc/ir/numfmt"
)

// Policy says which site gets which number schemes. Every pass asks it, so that they agree.
type Policy struct {
	Default   Schemes
	Attention Schemes // operands of attention products; what it leaves open is Default's
	// Lookup is for tables of embedding lookups. Left open: a table that a product shares is stored as that product's weight;
	// the others follow Default.Weights if it has at least 8 bits, and stay float below.
	Lookup Schemes
	// Head is for products whose results are outputs of the model, at once or with a bias and in another shape: a language
	// model's head, a classifier. What it leaves open is Default's.
	Head  Schemes
	Sites []Rule // the last rule that matches a site and says something of an operand decides
	// Calibrate names the calibrator of static activations (calib.ParseMethod); "" is max.
	Calibrate string
}

// Schemes holds the schemes of a site's operands; nil leaves one open.
type Schemes struct {
	Weights, Inputs, Outputs *numfmt.Scheme
}

// of returns the scheme for a role.
func (s *Schemes) of(role numfmt.Role) *numfmt.Scheme {
	switch role {
	case numfmt.Weight:
		return s.Weights
	case numfmt.Input:
		return s.Inputs
	}
	return s.Outputs
}

// Set parses text as the scheme of a role and stores it.
func (s *Schemes) Set(role numfmt.Role, text string) error {
	v, err := numfmt.ParseScheme(text, role)
	if err != nil {
		return err
	}
	switch role {
	case numfmt.Weight:
		s.Weights = &v
	case numfmt.Input:
		s.Inputs = &v
	default:
		s.Outputs = &v
	}
	return nil
}

// Rule gives schemes to the sites it matches: those that both Match and Op fit.
type Rule struct {
	// Match selects by name: "re:" and a regular expression found anywhere in the name; or a name with * for any characters,
	// matching the whole name or whole parts of it between the characters / and . The names of a site are its node's, its output's and
	// its weight's. "" matches all.
	Match string
	Op    string // operator type, "" for all
	Schemes
	Where string // where the rule was written, for messages; "" unknown
}

// String names the rule in messages.
func (r Rule) String() string {
	var parts []string
	if r.Match != "" {
		parts = append(parts, fmt.Sprintf("match: %q", r.Match))
	}
	if r.Op != "" {
		parts = append(parts, "op: "+r.Op)
	}
	s := "{" + strings.Join(parts, ", ") + "}"
	if r.Where != "" {
		s = r.Where + ": " + s
	}
	return s
}

// matcher compiles the rule's Match.
func (r Rule) matcher() (func(name string) bool, error) {
	if r.Match == "" {
		return func(string) bool { return true }, nil
	}
	if expr, ok := strings.CutPrefix(r.Match, "re:"); ok {
		re, err := regexp.Compile(expr)
		if err != nil {
			return nil, fmt.Errorf("policy: %v: %w", r, err)
		}
		return re.MatchString, nil
	}
	var b strings.Builder
	b.WriteString(`(^|[/.])`)
	for i, part := range strings.Split(strings.TrimPrefix(r.Match, "/"), "*") {
		if i > 0 {
			b.WriteString(".*")
		}
		b.WriteString(regexp.QuoteMeta(part))
	}
	b.WriteString(`([/.]|$)`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, fmt.Errorf("policy: %v: %w", r, err)
	}
	return re.MatchString, nil
}

// Choice is what the policy decided for one operand of a site.
type Choice struct {
	Operand
	Scheme numfmt.Scheme // none: the operand stays float
	Reason string        // why it stays float
}

// Decision is what the policy decided for one site.
type Decision struct {
	*Site
	Choices []Choice
}

// Decide applies the policy to sites. A rule that matches no site is an error that names the nearest ones, and so is a
// scheme that does not fit the operand it is for.
func (p *Policy) Decide(sites []*Site) ([]*Decision, error) {
	hits := make([][]bool, len(p.Sites))
	for i, r := range p.Sites {
		match, err := r.matcher()
		if err != nil {
			return nil, err
		}
		hits[i] = make([]bool, len(sites))
		for k, s := range sites {
			hits[i][k] = (r.Op == "" || r.Op == s.OpType()) && slices.ContainsFunc(s.Names(), match)
		}
		if !slices.Contains(hits[i], true) {
			return nil, fmt.Errorf("policy: %v matches no site; %s", r, nearest(r, sites))
		}
	}
	var ds []*Decision
	for k, s := range sites {
		d := &Decision{Site: s}
		for _, o := range s.Operands {
			c := Choice{Operand: o}
			c.Scheme, c.Reason = p.choose(s, o, func(i int) bool { return hits[i][k] })
			d.Choices = append(d.Choices, c)
		}
		ds = append(ds, d)
	}
	shareTables(p, ds, hits)
	for _, d := range ds {
		for i := range d.Choices {
			if err := d.Choices[i].fits(); err != nil {
				return nil, fmt.Errorf("policy: site %q: %v: %w", d.Name, d.Choices[i].Role, err)
			}
		}
	}
	return ds, nil
}

// choose finds the scheme of one operand.
func (p *Policy) choose(s *Site, o Operand, hit func(rule int) bool) (numfmt.Scheme, string) {
	if o.Float != "" {
		return numfmt.Scheme{}, o.Float
	}
	found, by := p.Default.of(o.Role), "policy: default"
	switch s.Kind {
	case Scores, Context:
		if a := p.Attention.of(o.Role); a != nil {
			found, by = a, "policy: attention"
		}
	case Table:
		if found != nil && found.Format.Bits < 8 && !found.IsNone() {
			found, by = nil, "policy: a lookup table of its own stays float where the default has fewer than 8 bits"
		}
		if l := p.Lookup.of(o.Role); l != nil {
			found, by = l, "policy: lookup"
		}
	case Linear:
		if h := p.Head.of(o.Role); h != nil && isHead(s.Node.Out(0)) {
			found, by = h, "policy: head"
		}
	}
	for i := range p.Sites {
		if r := p.Sites[i].of(o.Role); r != nil && hit(i) {
			found, by = r, "policy: "+p.Sites[i].String()
		}
	}
	if found == nil {
		if by == "policy: default" {
			by = fmt.Sprintf("the policy has no scheme for its %v", o.Role)
		}
		return numfmt.Scheme{}, by
	}
	if found.IsNone() {
		return *found, by + " says none"
	}
	return *found, ""
}

// shareTables makes lookups read a table as the product stores it that shares it, unless the policy names the lookup.
func shareTables(p *Policy, ds []*Decision, hits [][]bool) {
	for k, d := range ds {
		if d.Kind != Table || p.Lookup.Weights != nil || len(d.Choices) == 0 {
			continue
		}
		named := false
		for i := range p.Sites {
			named = named || hits[i][k] && p.Sites[i].Weights != nil
		}
		if named {
			continue
		}
		shared := false
		for _, e := range ds {
			for _, w := range e.Choices {
				if e.Kind != Linear || w.Role != numfmt.Weight || w.Value != d.Choices[0].Value || w.Float != "" {
					continue
				}
				c := &d.Choices[0]
				if w.Scheme.IsNone() { // the float table stays in the file anyway
					c.Scheme, c.Reason = w.Scheme, fmt.Sprintf("it shares its table with site %q, which stays float", e.Name)
				} else if !shared {
					c.Scheme, c.Reason, c.Axes = w.Scheme, "", w.Axes
				}
				shared = true
			}
		}
	}
}

// fits checks that the operand has the axes its scheme wants.
func (c *Choice) fits() error {
	if c.Scheme.IsNone() {
		return nil
	}
	if c.Role != numfmt.Weight && !c.Scheme.Dynamic && c.Scheme.Scaled() && c.Scheme.Gran == numfmt.PerToken {
		return fmt.Errorf("scheme %v: tokens come with the input, so no scale of one can be stored; use dynamic, or static scales per tensor, axis or block", c.Scheme)
	}
	t := c.Value.Type
	if !t.Ranked {
		if c.Scheme.Gran == numfmt.PerTensor {
			return nil
		}
		return fmt.Errorf("value %q: its rank is unknown, scheme %v wants an axis of it", c.Value.Name, c.Scheme)
	}
	shape := make([]int, len(t.Dims))
	for i, d := range t.Dims {
		shape[i] = int(max(d.Size, 1))
	}
	_, err := c.Scheme.Layout(shape, c.Axes)
	if err != nil {
		return fmt.Errorf("value %q: %w", c.Value.Name, err)
	}
	return nil
}

// nearest names the sites whose names look most like the rule's selector.
func nearest(r Rule, sites []*Site) string {
	if len(sites) == 0 {
		return "the model has no sites"
	}
	if r.Match == "" {
		var ops []string
		for _, s := range sites {
			if !slices.Contains(ops, s.OpType()) {
				ops = append(ops, s.OpType())
			}
		}
		slices.Sort(ops)
		return "sites have the operators " + strings.Join(ops, ", ")
	}
	want := strings.Trim(strings.TrimPrefix(r.Match, "re:"), "*/.^$")
	type scored struct {
		name string
		d    int
	}
	var all []scored
	for _, s := range sites {
		best := scored{s.Name, 1 << 30}
		for _, name := range s.Names() {
			for _, part := range append(strings.Split(name, "/"), name) {
				if part != "" {
					best.d = min(best.d, distance(want, part))
				}
			}
		}
		all = append(all, best)
	}
	slices.SortStableFunc(all, func(a, b scored) int { return a.d - b.d })
	var names []string
	for _, s := range all[:min(3, len(all))] {
		names = append(names, fmt.Sprintf("%q", s.name))
	}
	return "the nearest are " + strings.Join(names, ", ")
}

// distance is the number of characters to insert, delete or replace that lead from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diag, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diag+cost)
		}
	}
	return row[len(b)]
}

// String prints the policy as the recipe's YAML has it, in normal form.
func (p *Policy) String() string {
	var b strings.Builder
	line := func(key string, s Schemes) {
		if t := s.text(); t != "" {
			fmt.Fprintf(&b, "%s: {%s}\n", key, t)
		}
	}
	line("default", p.Default)
	line("attention", p.Attention)
	line("lookup", p.Lookup)
	line("head", p.Head)
	if len(p.Sites) > 0 {
		b.WriteString("sites:\n")
	}
	for _, r := range p.Sites {
		var parts []string
		if r.Match != "" {
			parts = append(parts, "match: "+strconv.Quote(r.Match))
		}
		if r.Op != "" {
			parts = append(parts, "op: "+r.Op)
		}
		if t := r.text(); t != "" {
			parts = append(parts, t)
		}
		fmt.Fprintf(&b, "  - {%s}\n", strings.Join(parts, ", "))
	}
	if p.Calibrate != "" {
		fmt.Fprintf(&b, "calibrate: %s\n", p.Calibrate)
	}
	return b.String()
}

func (s *Schemes) text() string {
	var parts []string
	for _, role := range []numfmt.Role{numfmt.Weight, numfmt.Input, numfmt.Output} {
		if v := s.of(role); v != nil {
			parts = append(parts, fmt.Sprintf("%vs: %s", role, v.Text(role)))
		}
	}
	return strings.Join(parts, ", ")
}
