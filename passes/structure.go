package passes

import (
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// Structure is what channel rewrites recognize in a model, by the shape of its graph alone.
type Structure struct {
	Groups     []GroupInfo     `json:"groups"`
	Attentions []AttentionInfo `json:"attentions"`
	Gates      []GateInfo      `json:"gates"`
	Tied       []TiedInfo      `json:"tied"`
	Residuals  []string        `json:"residuals"` // sums of two activations of the same shape
}

// GroupInfo is a set of linear sites that read the same channels.
type GroupInfo struct {
	Value    string   `json:"value"`              // what they read
	Norm     string   `json:"norm,omitempty"`     // the kind of normalization that makes it
	Spelled  bool     `json:"spelled,omitempty"`  // the normalization is spelled out in several nodes
	Head     bool     `json:"head,omitempty"`     // no other product depends on what the sites compute
	Sites    []string `json:"sites"`              // by name
	Absorbed string   `json:"absorbed,omitempty"` // what can take factors of its channels
	Blocked  string   `json:"blocked,omitempty"`  // why nothing can
}

// AttentionInfo is a product of queries and keys with the product of probabilities and values that follows it.
type AttentionInfo struct {
	Scores  string   `json:"scores"`
	Context string   `json:"context"`
	Heads   int      `json:"heads,omitempty"`    // 0: unknown
	KVHeads int      `json:"kv_heads,omitempty"` // fewer than Heads: query heads share keys and values
	HeadDim int      `json:"head_dim,omitempty"`
	Rotary  string   `json:"rotary,omitempty"` // half-split or interleaved: how positions rotate queries and keys
	Query   []string `json:"query"`            // linear sites whose channels the queries are; the same as Key and Value if fused
	Key     []string `json:"key"`
	Value   []string `json:"value"`
	Output  []string `json:"output"` // linear sites that read the result
}

// GateInfo is an elementwise product of two activations that linear sites make, one of which went through a nonlinearity: the
// heart of a gated MLP (GLU).
type GateInfo struct {
	Value string   `json:"value"` // the product
	Gate  []string `json:"gate"`  // linear sites whose results go through the nonlinearity; the same as Up if fused
	Up    []string `json:"up"`    // linear sites whose results do not
	Down  []string `json:"down"`  // linear sites that read the product
}

// TiedInfo is a constant that several nodes read as weight or table.
type TiedInfo struct {
	Const string   `json:"const"`
	Sites []string `json:"sites"`
}

// Recognize finds the structure of a model whose types have been inferred.
func Recognize(m *ir.Model) (*Structure, error) {
	w, err := newWiring(m)
	if err != nil {
		return nil, err
	}
	s := &Structure{Groups: []GroupInfo{}, Attentions: []AttentionInfo{}, Gates: []GateInfo{}, Tied: []TiedInfo{}, Residuals: []string{}}
	gs := w.groups()
	for _, g := range gs {
		i := GroupInfo{Value: g.name(), Head: g.head, Blocked: g.why}
		for _, site := range g.sites {
			i.Sites = append(i.Sites, site.Name)
		}
		if g.norm != nil {
			i.Norm, i.Spelled = g.norm.Kind.String(), !g.norm.Fused
		}
		if g.scale != nil {
			i.Absorbed = g.scale.absorbers()
		}
		s.Groups = append(s.Groups, i)
	}
	w.attentions(s, gs)
	w.gates(s, gs)
	readers := map[*ir.Value][]string{}
	for _, site := range w.sites {
		for _, o := range site.Operands {
			if o.Chain != nil || op.ConstantOf(o.Value) != nil {
				readers[o.Value] = append(readers[o.Value], site.Name)
			}
		}
	}
	for g := range m.Graphs() {
		for _, c := range g.Consts() {
			if len(readers[c]) > 1 {
				s.Tied = append(s.Tied, TiedInfo{c.Name, readers[c]})
			}
		}
	}
	for n := range m.Nodes() {
		if w.residual(n) {
			s.Residuals = append(s.Residuals, n.Out(0).Name)
		}
	}
	return s, nil
}

// residual reports whether a node adds two activations of the same shape, both of which a product or a lookup made.
func (w *wiring) residual(n *ir.Node) bool {
	if op.FlowOf(n, 0, w.known).Kind != op.Summed {
		return false
	}
	a, b := n.In(0), n.In(1)
	if op.ConstantOf(a) != nil || op.ConstantOf(b) != nil || !a.Type.Elem.IsFloat() || a.Type.Rank() < 2 || a.Type.Rank() != b.Type.Rank() {
		return false
	}
	for i := range a.Type.Dims {
		if x, y := a.Type.Dims[i], b.Type.Dims[i]; x.Known() != y.Known() || x.Size != y.Size {
			return false
		}
	}
	sites, rotary := w.origins(n.Out(0))
	return len(sites) > 0 && rotary == ""
}

// gates finds the values of groups that are products of a gate.
func (w *wiring) gates(s *Structure, gs []*group) {
	for _, g := range gs {
		n := g.value.DefNode()
		if n == nil || op.FlowOf(n, 0, w.known).Kind != op.Product {
			continue
		}
		for gate := range 2 {
			bent, by := w.makers(n.In(gate))
			straight, none := w.makers(n.In(1 - gate))
			if len(bent) == 0 || len(straight) == 0 || !by || none || slices.ContainsFunc(straight, func(m maker) bool { return slices.Contains(bent, m) }) {
				continue
			}
			i := GateInfo{Value: g.name(), Gate: makerNames(bent), Up: makerNames(straight)}
			for _, site := range g.sites {
				i.Down = append(i.Down, site.Name)
			}
			s.Gates = append(s.Gates, i)
			break
		}
	}
}

// maker is a linear site that makes a value, and the part of its result that comes to it: nil for all.
type maker struct {
	site *Site
	part *ir.Value
}

// makers follows a value back through whatever works on single elements to the linear sites that make it; bent tells whether
// a nonlinearity lies between.
func (w *wiring) makers(v *ir.Value) (ms []maker, bent bool) {
	type step struct{ v, part *ir.Value }
	seen := map[step]bool{}
	todo := []step{{v, nil}}
	for len(todo) > 0 {
		at := todo[0]
		todo = todo[1:]
		n, out := at.v.Def()
		if n == nil || seen[at] {
			continue
		}
		seen[at] = true
		if s := w.linear[n]; s != nil {
			ms = append(ms, maker{s, at.part})
			continue
		}
		part := at.part
		switch op.FlowOf(n, out, w.known).Kind {
		case op.Taken:
			part = at.v
		case op.Matrix, op.Normed, op.Reduced, op.Joined, op.ShapeOnly:
			continue
		case op.Opaque:
			if !w.elementwise(n) {
				continue
			}
			bent = true
		}
		for _, in := range n.Ins() {
			if in != nil && op.ConstantOf(in) == nil {
				todo = append(todo, step{in, part})
			}
		}
	}
	return ms, bent
}

// elementwise reports whether a node makes one float result of the shape of its only activation.
func (w *wiring) elementwise(n *ir.Node) bool {
	x := n.In(0)
	if n.NumOut() != 1 || x == nil || !x.Type.Ranked || !x.Type.Elem.IsFloat() || x.Type.String() != n.Out(0).Type.String() || op.RoleOf(n) == op.SoftmaxRole {
		return false
	}
	for _, in := range n.Ins()[1:] {
		if in != nil && op.ConstantOf(in) == nil {
			return false
		}
	}
	return true
}

func makerNames(ms []maker) []string {
	var names []string
	for _, m := range ms {
		if !slices.Contains(names, m.site.Name) {
			names = append(names, m.site.Name)
		}
	}
	slices.Sort(names)
	return names
}

// attentions pairs every product of queries and keys with the product that reads its probabilities.
func (w *wiring) attentions(s *Structure, gs []*group) {
	for _, sc := range w.sites {
		if sc.Kind != Scores {
			continue
		}
		ctx, probs := w.contextOf(sc)
		if ctx == nil {
			continue
		}
		a := AttentionInfo{Scores: sc.Name, Context: ctx.Name, Query: []string{}, Key: []string{}, Value: []string{}, Output: []string{}}
		var qr, kr string
		a.Query, qr = w.origins(sc.Node.In(0))
		a.Key, kr = w.origins(sc.Node.In(1))
		a.Value, _ = w.origins(ctx.Node.In(1 - probs))
		if qr == kr {
			a.Rotary = qr
		}
		q := sc.Node.In(0).Type
		if d := q.Dim(-1); d.Known() {
			a.HeadDim = int(d.Size)
		}
		if q.Rank() == 4 && q.Dim(1).Known() {
			a.Heads, a.KVHeads = int(q.Dim(1).Size), int(q.Dim(1).Size)
		}
		for _, g := range gs {
			if g.scale == nil || !g.scale.touched[ctx.Node] {
				continue
			}
			classes := map[int32]bool{}
			for _, site := range g.sites {
				a.Output = append(a.Output, site.Name)
				for _, c := range g.classes(site) {
					classes[c] = true
				}
			}
			if d := ctx.Node.In(1 - probs).Type.Dim(-1); d.Known() && d.Size > 0 {
				a.KVHeads = len(classes) / int(d.Size)
			}
		}
		s.Attentions = append(s.Attentions, a)
	}
}

// contextOf finds the product that reads the probabilities made from scores, and at which input.
func (w *wiring) contextOf(sc *Site) (*Site, int) {
	for _, c := range w.sites {
		if c.Kind != Context {
			continue
		}
		for i := range 2 {
			if comesFrom(c.Node.In(i), sc.Node, map[*ir.Node]bool{}, 2*maxWalk) {
				return c, i
			}
		}
	}
	return nil, 0
}

// comesFrom reports whether probabilities are made from the result of a product.
func comesFrom(v *ir.Value, from *ir.Node, seen map[*ir.Node]bool, depth int) bool {
	n := v.DefNode()
	if n == nil || depth == 0 || seen[n] {
		return false
	}
	seen[n] = true
	if n == from {
		return true
	}
	if !op.OnScorePath(n) && op.RoleOf(n) != op.SoftmaxRole {
		return false
	}
	for _, in := range n.Ins() {
		if in != nil && comesFrom(in, from, seen, depth-1) {
			return true
		}
	}
	return false
}

// origins follows a value back through what moves, scales and adds elements to the linear sites that make it, by name, and
// tells how positions rotate it on the way.
func (w *wiring) origins(v *ir.Value) (sites []string, rotary string) {
	seen := map[*ir.Node]bool{}
	sites = []string{}
	halves, steps, joins := 0, 0, 0
	var walk func(v *ir.Value)
	walk = func(v *ir.Value) {
		n, out := v.Def()
		if n == nil || seen[n] {
			return
		}
		seen[n] = true
		if s := w.linear[n]; s != nil {
			sites = append(sites, s.Name)
			return
		}
		switch f := op.FlowOf(n, out, w.known); f.Kind {
		case op.Same, op.Permuted, op.Reshaped, op.Inserted, op.Dropped, op.Spread, op.Quotient:
			walk(n.In(0))
		case op.Taken:
			if f.Axis == n.In(0).Type.Rank()-1 {
				switch d := n.In(0).Type.Dim(-1); {
				case len(f.Index) > 1 && f.Index[1]-f.Index[0] == 2:
					steps++
				case d.Known() && n.Out(out).Type.Dim(-1).Size*2 == d.Size:
					halves++
				}
			}
			walk(n.In(0))
		case op.Joined:
			joins++
			for _, in := range n.Ins() {
				walk(in)
			}
		case op.Product, op.Summed:
			walk(n.In(0))
			walk(n.In(1))
		}
	}
	walk(v)
	slices.Sort(sites)
	switch {
	case joins > 0 && steps > 1:
		rotary = "interleaved"
	case joins > 0 && halves > 1:
		rotary = "half-split"
	}
	return sites, rotary
}

// String describes an attention in one line.
func (a AttentionInfo) String() string {
	s := fmt.Sprintf("%d heads of %d", a.Heads, a.HeadDim)
	if a.KVHeads != a.Heads {
		s += fmt.Sprintf(", %d of keys and values", a.KVHeads)
	}
	if a.Rotary != "" {
		s += ", rotary positions " + a.Rotary
	}
	return s
}
