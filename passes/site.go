package passes

import (
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
)

// Kind tells sites apart.
type Kind uint8

// The kinds of site.
const (
	Linear  Kind = iota // a product of an activation and a constant weight
	Scores              // QKᵀ: a product of two activations with a Softmax after it
	Context             // PV: a product of two activations with a Softmax before it
	Table               // a constant table that a lookup reads
	Other               // a product that stays float whatever the policy says
)

// String names the kind in listings.
func (k Kind) String() string { return [...]string{"linear", "scores", "context", "table", "other"}[k] }

// Site is a place of the model that can be quantized: an operator and those of its operands that carry schemes.
type Site struct {
	Name     string // unique in the model: the node's name, or its result's if it has none
	Node     *ir.Node
	Kind     Kind
	Linear   op.Linear // of a Linear site
	Operands []Operand
	Float    string // why the site stays float whatever the policy says; "" if it can be quantized
	Already  bool   // it reads or holds quantized numbers
}

// Operand is a value that a site may quantize.
type Operand struct {
	Role  numfmt.Role
	Slot  int         // of the site's node: an input, for outputs 0
	Value *ir.Value   // what the scheme is for: a weight's constant itself, wherever transposes and casts stand between
	Axes  numfmt.Axes // of Value
	Chain []*ir.Node  // a weight: the nodes from the constant to the slot, in this order
	Float string      // why the operand stays float whatever the policy says
}

// OpType returns the type of the site's operator, without its domain.
func (s *Site) OpType() string { return s.Node.Op.Type }

// Names returns the names by which the policy may select the site: its own, its node's, its result's, its weight's.
func (s *Site) Names() []string {
	names := []string{s.Name}
	add := func(n string) {
		if n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	add(s.Node.Name)
	if v := s.Node.Out(0); v != nil {
		add(v.Name)
	}
	for _, o := range s.Operands {
		if o.Role == numfmt.Weight {
			add(o.Value.Name)
		}
	}
	return names
}

// FindSites returns the sites of a model: every product and lookup table, in the order of the nodes, main graph first, then
// subgraphs and function bodies. Those that cannot be quantized say why. Types must have been inferred.
func FindSites(m *ir.Model) []*Site { return findSites(m, nil) }

// findSites is FindSites that takes the given quantization nodes for those of passes now running: what they quantize is not
// quantized again, but their sites are no others'.
func findSites(m *ir.Model, own map[*ir.Node]bool) []*Site {
	f := &finder{names: map[string]bool{}, own: own}
	for n := range m.Nodes() {
		f.node(n)
	}
	for _, fn := range m.Functions {
		f.function(fn.Body, fmt.Sprintf("it is inside the model-local function %s.%s, whose calls share it: the pass inline (--inline) writes functions out",
			fn.Domain, fn.Name))
	}
	return f.sites
}

type finder struct {
	sites []*Site
	names map[string]bool
	own   map[*ir.Node]bool
}

func (f *finder) add(s *Site) {
	base := s.Node.Name
	if base == "" && s.Node.Out(0) != nil {
		base = s.Node.Out(0).Name
	}
	s.Name = base
	for i := 2; f.names[s.Name]; i++ {
		s.Name = fmt.Sprintf("%s#%d", base, i)
	}
	f.names[s.Name] = true
	f.sites = append(f.sites, s)
}

func (f *finder) function(g *ir.Graph, why string) {
	for n := range g.Nodes() {
		switch op.RoleOf(n) {
		case op.ProductRole, op.AttentionRole, op.RecurrentRole:
			f.add(&Site{Node: n, Kind: Other, Float: why})
		}
		for _, sub := range n.Subgraphs() {
			f.function(sub, why)
		}
	}
}

func (f *finder) node(n *ir.Node) {
	switch op.RoleOf(n) {
	case op.ProductRole:
		f.product(n)
	case op.AttentionRole:
		f.add(&Site{Node: n, Kind: Other, Float: "attention in one operator is not taken apart"})
	case op.RecurrentRole:
		f.add(&Site{Node: n, Kind: Other, Float: "recurrent networks in one operator are not quantized"})
	case op.LookupRole:
		f.table(n)
	}
}

func (f *finder) product(n *ir.Node) {
	s := &Site{Node: n, Kind: Other}
	defer func() {
		if s.Float != "" {
			s.Operands, s.Kind = nil, Other
		}
		f.add(s)
	}()
	x, w := n.In(0), n.In(1)
	if x == nil || w == nil {
		s.Float = "an operand is absent"
		return
	}
	for _, v := range []*ir.Value{x, w} {
		if e := v.Type.Elem; e == ir.Undefined {
			s.Float = fmt.Sprintf("the type of %q is unknown", v.Name)
			return
		} else if e != ir.Float32 && e != ir.Float16 && e != ir.BFloat16 {
			s.Float = fmt.Sprintf("it multiplies numbers of type %v, quantizers take float, float16 and bfloat16", e)
			return
		}
	}
	d, ok := op.Lookup(n)
	if !ok {
		s.Float = "its operator is unknown"
		return
	}
	if laysOutPatches(n) {
		s.Float = "its one-hot weight only lays out the patches of its input"
		return
	}
	if d.Linear != nil {
		if l, ok := d.Linear(n); ok && f.linear(s, l) {
			return
		}
	}
	for i := range 2 {
		v := n.In(i)
		if q := quantizedBy(v); q != nil && !f.own[q] {
			s.Float, s.Already = fmt.Sprintf("it is quantized already: %q is a result of %v", v.Name, q), true
			return
		}
		if c := v.Const(); c != nil && op.Overridable(v) {
			s.Float = fmt.Sprintf("its operand %q is a graph input with a default value, which a caller may replace", v.Name)
			return
		}
		if c := op.ConstantOf(v); c != nil {
			s.Float = fmt.Sprintf("its constant operand %q has shape %v, a weight is at least a matrix", v.Name, c.Shape())
			if d.Linear == nil {
				s.Float = fmt.Sprintf("%s is not one of the operators that are quantized", n.Op.Type)
			}
			return
		}
	}
	switch {
	case d.Linear == nil:
		s.Float = fmt.Sprintf("%s of two activations is not taken for attention", n.Op.Type)
	case softmaxAfter(n.Out(0)):
		s.Kind = Scores
	case softmaxBefore(x) || softmaxBefore(w):
		s.Kind = Context
	default:
		s.Float = "it multiplies two activations, and no Softmax follows or precedes it"
	}
	if s.Float == "" {
		s.Operands = []Operand{
			{Role: numfmt.Input, Slot: 0, Value: x, Axes: numfmt.Axes{K: -1, Out: numfmt.NoAxis}, Float: f.done(x)},
			{Role: numfmt.Input, Slot: 1, Value: w, Axes: numfmt.Axes{K: -2, Out: numfmt.NoAxis}, Float: f.done(w)},
			f.output(n.Out(0), -1),
		}
	}
}

// linear fills in a product with a constant weight; false if the weight is no constant.
func (f *finder) linear(s *Site, l op.Linear) bool {
	n := s.Node
	root, chain, axes, ok := weight(n.In(l.W), numfmt.Axes{K: l.InAxis, Out: l.OutAxis})
	if !ok {
		return false
	}
	x := n.In(l.X)
	s.Kind, s.Linear = Linear, l
	t := op.ConstantOf(root)
	switch q := quantizedBy(x); {
	case t.Rank() < 2:
		return false
	case op.SaysQuantized(root.Doc):
		s.Float, s.Already = fmt.Sprintf("it is quantized already: %q holds quantized values", root.Name), true
		return true
	case anglesAfter(n.Out(0)):
		s.Float = "it makes the angles of position embeddings: rounding positions ruins a model"
		return true
	case q != nil && !f.own[q]:
		s.Float, s.Already = fmt.Sprintf("it is quantized already: %q is a result of %v", x.Name, q), true
		return true
	}
	s.Operands = []Operand{
		{Role: numfmt.Weight, Slot: l.W, Value: root, Axes: axes, Chain: chain},
		{Role: numfmt.Input, Slot: l.X, Value: x, Axes: numfmt.Axes{K: l.XAxis, Out: numfmt.NoAxis}, Float: f.done(x)},
	}
	y, channel := n.Out(0), -1
	if l.XAxis == 1 && l.Groups >= 1 && t.Rank() > 2 {
		channel = 1 // convolutions keep channels in axis 1
	} else if add, _ := op.BiasAdd(y); add != nil {
		y = add.Out(0)
	}
	s.Operands = append(s.Operands, f.output(y, channel))
	return true
}

// done says that a pass now running has quantized an operand.
func (f *finder) done(v *ir.Value) string {
	if q := quantizedBy(v); q != nil && f.own[q] {
		return "it is quantized by " + q.Origin
	}
	return ""
}

func (f *finder) output(y *ir.Value, channel int) Operand {
	o := Operand{Role: numfmt.Output, Value: y, Axes: numfmt.Axes{K: channel, Out: numfmt.NoAxis}}
	if uses := y.Uses(); len(uses) > 0 && !slices.ContainsFunc(uses, func(u ir.Use) bool { return u.Node == nil || op.RoleOf(u.Node) != op.QuantRole }) {
		o.Float = "it is quantized already"
	}
	return o
}

func (f *finder) table(n *ir.Node) {
	if n.In(0) == nil || n.In(1) == nil || n.Int("axis", 0) != 0 || op.ConstantOf(n.In(1)) != nil {
		return
	}
	if q := quantizedBy(n.In(0)); q != nil && n.In(0).Type.Rank() == 2 {
		f.add(&Site{Node: n, Kind: Table, Float: fmt.Sprintf("it is quantized already: %q is a result of %v", n.In(0).Name, q), Already: true})
		return
	}
	root, chain, axes, ok := weight(n.In(0), numfmt.Axes{K: 1, Out: 0})
	if !ok {
		return
	}
	if t := op.ConstantOf(root); t.Rank() != 2 || !t.Elem().IsFloat() {
		return
	}
	if op.SaysQuantized(root.Doc) {
		f.add(&Site{Node: n, Kind: Table, Float: fmt.Sprintf("it is quantized already: %q holds quantized values", root.Name), Already: true})
		return
	}
	f.add(&Site{Node: n, Kind: Table, Operands: []Operand{{Role: numfmt.Weight, Slot: 0, Value: root, Axes: axes, Chain: chain}}})
}

// weight follows an operand back to its constant through nodes that rearrange or convert it. The axes are translated to those
// of the constant, which are not negative.
func weight(v *ir.Value, ax numfmt.Axes) (root *ir.Value, chain []*ir.Node, axes numfmt.Axes, ok bool) {
	rank := v.Type.Rank()
	if rank < 0 {
		return nil, nil, ax, false
	}
	norm := func(a int) int {
		if a != numfmt.NoAxis && a < 0 {
			a += rank
		}
		return a
	}
	ax = numfmt.Axes{K: norm(ax.K), Out: norm(ax.Out)}
	for op.ConstantOf(v) == nil {
		n := v.DefNode()
		if n == nil || n.NumIn() == 0 {
			return nil, nil, ax, false
		}
		in, axis, ok := op.Source(n)
		if !ok {
			return nil, nil, ax, false
		}
		move := func(a int) int {
			if a < 0 || a >= rank {
				return a
			}
			return axis(a)
		}
		ax = numfmt.Axes{K: move(ax.K), Out: move(ax.Out)}
		chain = append(chain, n)
		v = in
	}
	slices.Reverse(chain)
	return v, chain, ax, true
}

// quantizedBy returns the quantization operator that a value comes from, at once or through nodes that rearrange it; the
// first of those whose results are joined.
func quantizedBy(v *ir.Value) *ir.Node {
	if by := quantizersOf(v, maxWalk); by != nil {
		return by[0]
	}
	return nil
}

// quantizersOf returns the quantization operators that the parts of a value come from; none where a part comes from none.
func quantizersOf(v *ir.Value, depth int) []*ir.Node {
	for ; depth > 0; depth-- {
		n := v.DefNode()
		switch {
		case n == nil:
			return nil
		case op.RoleOf(n) == op.QuantRole:
			return []*ir.Node{n}
		case op.Joins(n):
			var all []*ir.Node
			for _, part := range n.Ins() {
				by := quantizersOf(part, depth-1)
				if by == nil {
					return nil
				}
				all = append(all, by...)
			}
			return all
		}
		in, _, ok := op.Source(n)
		if !ok && !op.Reshapes(n) {
			return nil
		} else if !ok {
			in = n.In(0)
		}
		v = in
	}
	return nil
}

// isHead reports whether a product's result becomes nothing but outputs of the model, at once or through a bias and nodes that
// move its elements.
func isHead(v *ir.Value) bool {
	for range maxWalk {
		u, ok := v.SingleUse()
		switch {
		case !ok:
			return v.NumUses() > 0 && !slices.ContainsFunc(v.Uses(), func(u ir.Use) bool { return !isOutput(u) })
		case u.Node == nil:
			return isOutput(u)
		}
		if add, _ := op.BiasAdd(v); add == nil && !(op.Moves(u.Node) && u.Slot == 0) {
			return false
		}
		v = u.Node.Out(0)
	}
	return false
}

func isOutput(u ir.Use) bool { return u.Node == nil && u.Graph != nil && u.Graph.Owner() == nil }

// maxWalk bounds how many operators lie between a product and its Softmax.
const maxWalk = 24

// softmaxAfter reports whether a Softmax follows a product's result, with only scaling, masking and reshaping between.
func softmaxAfter(v *ir.Value) bool {
	return forward(v, firstOf(op.SoftmaxRole), along(op.OnScorePath), map[*ir.Node]bool{}, maxWalk)
}

// anglesAfter reports whether a product's result becomes the argument of a sine or cosine.
func anglesAfter(v *ir.Value) bool {
	return forward(v, firstOf(op.AngleRole), along(op.OnAnglePath), map[*ir.Node]bool{}, maxWalk)
}

// firstOf finds uses as the first operand of operators with a role.
func firstOf(want op.Role) func(ir.Use) bool {
	return func(u ir.Use) bool { return op.RoleOf(u.Node) == want && u.Slot == 0 }
}

// along goes on to the first result of the nodes on a path.
func along(path func(*ir.Node) bool) func(*ir.Node) []*ir.Value {
	return func(n *ir.Node) []*ir.Value {
		if !path(n) {
			return nil
		}
		return []*ir.Value{n.Out(0)}
	}
}

// forward reports whether a use is found that v comes to by way of the nodes whose results next gives, at most depth of them.
func forward(v *ir.Value, found func(ir.Use) bool, next func(*ir.Node) []*ir.Value, seen map[*ir.Node]bool, depth int) bool {
	if v == nil || depth == 0 {
		return false
	}
	for _, u := range v.Uses() {
		if u.Node == nil || seen[u.Node] {
			continue
		}
		seen[u.Node] = true
		if found(u) {
			return true
		}
		for _, o := range next(u.Node) {
			if forward(o, found, next, seen, depth-1) {
				return true
			}
		}
	}
	return false
}

// softmaxBefore reports whether an operand is probabilities: a Softmax's result, scaled, masked or reshaped.
func softmaxBefore(v *ir.Value) bool { return backward(v, map[*ir.Node]bool{}, maxWalk) }

func backward(v *ir.Value, seen map[*ir.Node]bool, depth int) bool {
	n := v.DefNode()
	if n == nil || depth == 0 || seen[n] {
		return false
	}
	seen[n] = true
	if op.RoleOf(n) == op.SoftmaxRole {
		return true
	}
	if !op.OnScorePath(n) && n.Op != op.FakeQuantOp {
		return false
	}
	for _, in := range n.Ins() {
		if in != nil && backward(in, seen, depth-1) {
			return true
		}
	}
	return false
}
