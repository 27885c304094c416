package op

import (
	"fmt"
	"math"
	"strings"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// recurrentKind is what RNN, GRU and LSTM differ in.
type recurrentKind struct {
	gates       int
	parts       []int // how many gates the recurrent products of a step have each; their sum is gates
	activations []string
	cell        bool // there is a cell state beside the hidden one
}

// recurrentTypes infers Y [steps, directions, batch, hidden], Y_h and, with a cell state, Y_c [directions, batch, hidden].
func recurrentTypes(k recurrentKind) func(c *Call) ([]ir.Type, error) {
	return func(c *Call) ([]ir.Type, error) {
		x, w, r := c.Type(0), c.Type(1), c.Type(2)
		for i, t := range []ir.Type{x, w, r} {
			if t.Ranked && len(t.Dims) != 3 {
				return nil, fmt.Errorf("input %d is %v, wants three dimensions", i, t)
			}
		}
		hidden := r.Dim(2)
		if h := c.Node.Int("hidden_size", 0); h > 0 {
			if hidden.Known() && hidden.Size != h {
				return nil, fmt.Errorf("attribute hidden_size is %d, the recurrent weight is %v", h, r)
			}
			hidden = ir.Dim{Size: h}
		}
		dirs := ir.FixedDim(directions(c.Node))
		steps, batch := x.Dim(0), x.Dim(1)
		y, state := ir.TensorType(x.Elem, steps, dirs, batch, hidden), ir.TensorType(x.Elem, dirs, batch, hidden)
		if c.Node.Int("layout", 0) != 0 {
			batch, steps = steps, batch
			y, state = ir.TensorType(x.Elem, batch, steps, dirs, hidden), ir.TensorType(x.Elem, batch, dirs, hidden)
		}
		return []ir.Type{y, state, state}, nil
	}
}

// directions returns 2 for a bidirectional layer, else 1.
func directions(n *ir.Node) int {
	if strings.EqualFold(n.Str("direction", "forward"), "bidirectional") {
		return 2
	}
	return 1
}

// recurrentWeights holds the packed weights of a float32 layer: the input's and the recurrent ones, by direction.
type recurrentWeights struct {
	w []*kernel.PackedB
	r [][]*kernel.PackedB
}

// prepareRecurrent packs constant weights.
func prepareRecurrent(k recurrentKind) func(c *Call) (any, error) {
	return func(c *Call) (any, error) {
		w, r := c.In[1], c.In[2]
		if w == nil || r == nil || !packable(w) || !packable(r) || w.Rank() != 3 || r.Rank() != 3 ||
			r.Shape()[1] != k.gates*r.Shape()[2] || w.Shape()[1] != r.Shape()[1] || w.Shape()[0] != r.Shape()[0] {
			return nil, nil // Eval says what is wrong with shapes
		}
		wv, _ := w.Float32s()
		rv, _ := r.Float32s()
		return packRecurrent(k, wv, rv, w.Shape()[0], r.Shape()[2], w.Shape()[2]), nil
	}
}

func packRecurrent(k recurrentKind, w, r []float32, dirs, hidden, input int) *recurrentWeights {
	p := &recurrentWeights{}
	rows := k.gates * hidden
	for d := range dirs {
		p.w = append(p.w, kernel.PackB(input, rows, w[d*rows*input:], input, true))
		var parts []*kernel.PackedB
		at := d * rows * hidden
		for _, gates := range k.parts {
			parts = append(parts, kernel.PackB(hidden, gates*hidden, r[at:], hidden, true))
			at += gates * hidden * hidden
		}
		p.r = append(p.r, parts)
	}
	return p
}

// recurrent is a layer about to run in one direction.
type recurrent[T floatElem] struct {
	k                           recurrentKind
	steps, batch, input, hidden int
	dirs                        int
	batchFirst                  bool
	lens                        []int64
	act                         []activation[T] // of this direction
	bias                        []T             // W's, then R's, of this direction; nil: none
	peephole                    []T
	products                    []func(m int, a, c []T) // h·Rᵀ for each part
	n                           *ir.Node
}

// runRecurrent checks the operands and runs the layer: step advances the hidden (and cell) state of the rows it is given.
func runRecurrent[T floatElem](c *Call, k recurrentKind, step func(l *recurrent[T], s *recurrentStep[T])) ([]*ir.Tensor, error) {
	xs, ws, rs := c.In[0].Shape(), c.In[1].Shape(), c.In[2].Shape()
	if len(xs) != 3 || len(ws) != 3 || len(rs) != 3 {
		return nil, fmt.Errorf("X %v, W %v, R %v: want three dimensions each", xs, ws, rs)
	}
	l := &recurrent[T]{k: k, steps: xs[0], batch: xs[1], input: xs[2], hidden: rs[2], dirs: directions(c.Node), n: c.Node}
	if l.batchFirst = c.Node.Int("layout", 0) != 0; l.batchFirst {
		l.steps, l.batch = l.batch, l.steps
	}
	rows := k.gates * l.hidden
	if ws[0] != l.dirs || ws[1] != rows || ws[2] != l.input || rs[0] != l.dirs || rs[1] != rows {
		return nil, fmt.Errorf("W %v and R %v: want [%d %d %d] and [%d %d %d]", ws, rs, l.dirs, rows, l.input, l.dirs, rows, l.hidden)
	}
	if h := c.Node.Int("hidden_size", int64(l.hidden)); h != int64(l.hidden) {
		return nil, fmt.Errorf("attribute hidden_size is %d, R is %v", h, rs)
	}
	state := []int{l.dirs, l.batch, l.hidden}
	yShape := []int{l.steps, l.dirs, l.batch, l.hidden}
	if l.batchFirst {
		state, yShape = []int{l.batch, l.dirs, l.hidden}, []int{l.batch, l.steps, l.dirs, l.hidden}
	}
	wants := map[int][]int{3: {l.dirs, 2 * rows}, 4: {l.batch}, 5: state, 6: state, 7: {l.dirs, 3 * l.hidden}}
	for i := 3; i < 8; i++ {
		if c.Has(i) && fmt.Sprint(c.In[i].Shape()) != fmt.Sprint(wants[i]) {
			return nil, fmt.Errorf("input %d has shape %v, wants %v", i, c.In[i].Shape(), wants[i])
		}
	}
	if c.Has(4) {
		l.lens, _ = c.In[4].Int64s()
		for _, n := range l.lens {
			if n < 0 || n > int64(l.steps) {
				return nil, fmt.Errorf("sequence_lens %v: want lengths from 0 to %d", l.lens, l.steps)
			}
		}
	}
	acts, err := activationsOf[T](c.Node, k.activations, l.dirs)
	if err != nil {
		return nil, err
	}
	y, err := c.New(c.In[0].Elem(), yShape...)
	if err != nil {
		return nil, err
	}
	last, err := c.New(c.In[0].Elem(), state...)
	if err != nil {
		return nil, err
	}
	results := []*ir.Tensor{y, last}
	if k.cell {
		cell, err := c.New(c.In[0].Elem(), state...)
		if err != nil {
			return nil, err
		}
		results = append(results, cell)
	}
	w, r := ir.Data[T](c.In[1]), ir.Data[T](c.In[2])
	packed, _ := c.State.(*recurrentWeights)
	if w, ok := any(w).([]float32); ok && packed == nil {
		packed = packRecurrent(k, w, any(r).([]float32), l.dirs, l.hidden, l.input)
	}
	scratch, err := c.New(c.In[0].Elem(), l.steps, l.batch, rows)
	if err != nil {
		return nil, err
	}
	xw := ir.Data[T](scratch)
	clear(ir.Data[T](y))
	for d := range l.dirs {
		l.act = acts[d*len(k.activations) : (d+1)*len(k.activations)]
		if b := optional[T](c, 3); b != nil {
			l.bias = b[d*2*rows : (d+1)*2*rows]
		}
		if k.cell && c.Has(7) {
			l.peephole = ir.Data[T](c.In[7])[d*3*l.hidden : (d+1)*3*l.hidden]
		}
		input := l.factors(packed, w, r, d)
		input(l.steps*l.batch, ir.Data[T](c.In[0]), xw)
		h := l.state(optional[T](c, 5), d)
		var cs []T
		if k.cell {
			cs = l.state(optional[T](c, 6), d)
		}
		reverse := d == 1 || strings.EqualFold(c.Node.Str("direction", "forward"), "reverse")
		if err := l.run(c, d, reverse, xw, h, cs, ir.Data[T](y), step); err != nil {
			return nil, err
		}
		l.store(ir.Data[T](last), h, d)
		if k.cell {
			l.store(ir.Data[T](results[2]), cs, d)
		}
	}
	return results, nil
}

// factors sets the recurrent products of direction d and returns the input's.
func (l *recurrent[T]) factors(packed *recurrentWeights, w, r []T, d int) (input func(m int, a, c []T)) {
	rows := l.k.gates * l.hidden
	make1 := func(p *kernel.PackedB, b []T, k, n int) func(m int, a, c []T) {
		if p != nil {
			return func(m int, a, c []T) {
				if m > 0 && n > 0 {
					kernel.Gemm(m, any(a).([]float32), k, p, any(c).([]float32), n, false)
				}
			}
		}
		return func(m int, a, c []T) {
			matrixProduct(kernel.Batch{Count: 1}, m, n, k, a, false, b, true, c)
		}
	}
	var pw *kernel.PackedB
	if packed != nil {
		pw = packed.w[d]
	}
	l.products = nil
	at := d * rows * l.hidden
	for i, gates := range l.k.parts {
		var pr *kernel.PackedB
		if packed != nil {
			pr = packed.r[d][i]
		}
		n := gates * l.hidden
		l.products = append(l.products, make1(pr, r[at:at+n*l.hidden], l.hidden, n))
		at += n * l.hidden
	}
	return make1(pw, w[d*rows*l.input:(d+1)*rows*l.input], l.input, rows)
}

// state returns a copy of direction d of an initial state as [batch, hidden], zeros where there is none.
func (l *recurrent[T]) state(initial []T, d int) []T {
	out := make([]T, l.batch*l.hidden)
	if initial != nil {
		for b := range l.batch {
			copy(out[b*l.hidden:(b+1)*l.hidden], initial[l.stateAt(d, b):])
		}
	}
	return out
}

// store writes [batch, hidden] to direction d of a result.
func (l *recurrent[T]) store(dst, h []T, d int) {
	for b := range l.batch {
		copy(dst[l.stateAt(d, b):][:l.hidden], h[b*l.hidden:])
	}
}

func (l *recurrent[T]) stateAt(d, b int) int {
	if l.batchFirst {
		return (b*l.dirs + d) * l.hidden
	}
	return (d*l.batch + b) * l.hidden
}

// recurrentStep is one step of all sequences: x[b] is what the input adds to the gates of sequence b (nil: the sequence has
// ended), h and c are the states [batch, hidden], which the step replaces.
type recurrentStep[T floatElem] struct {
	x    [][]T
	h, c []T
}

// rows calls f for each sequence that goes on.
func (s *recurrentStep[T]) rows(size int, f func(b int, x []T)) {
	par.For(len(s.x), 1+(1<<13)/(size+1), func(lo, hi int) {
		for b := lo; b < hi; b++ {
			if s.x[b] != nil {
				f(b, s.x[b])
			}
		}
	})
}

func (l *recurrent[T]) run(c *Call, d int, reverse bool, xw, h, cs, y []T, step func(l *recurrent[T], s *recurrentStep[T])) error {
	rows := l.k.gates * l.hidden
	s := &recurrentStep[T]{x: make([][]T, l.batch), h: h, c: cs}
	at := make([]int, l.batch)
	for i := range l.steps {
		if err := c.Context().Err(); err != nil {
			return err
		}
		for b := range l.batch {
			n := l.steps
			if l.lens != nil {
				n = int(l.lens[b])
			}
			s.x[b] = nil
			if i >= n {
				continue
			}
			at[b] = i
			if reverse {
				at[b] = n - 1 - i
			}
			row := at[b]*l.batch + b
			if l.batchFirst {
				row = b*l.steps + at[b]
			}
			s.x[b] = xw[row*rows : (row+1)*rows]
			if s.x[b] == nil {
				s.x[b] = []T{}
			}
		}
		step(l, s)
		for b := range l.batch {
			if s.x[b] == nil {
				continue
			}
			to := (at[b]*l.dirs+d)*l.batch + b
			if l.batchFirst {
				to = (b*l.steps+at[b])*l.dirs + d
			}
			copy(y[to*l.hidden:(to+1)*l.hidden], h[b*l.hidden:])
		}
	}
	return nil
}

// addBias adds the biases of gates [from, to) to g: the input's where w is set, the recurrent ones where r is set.
func (l *recurrent[T]) addBias(g []T, from, to int, w, r bool) {
	if l.bias == nil {
		return
	}
	n := l.hidden
	if w {
		addTo(g[from*n:to*n], l.bias[from*n:])
	}
	if r {
		addTo(g[from*n:to*n], l.bias[(l.k.gates+from)*n:])
	}
}

func addTo[T floatElem](dst, src []T) {
	for i := range dst {
		dst[i] += src[i]
	}
}

// activation replaces each element by its image; arguments are clipped first where the node says so.
type activation[T floatElem] func(v []T)

// activationsOf reads the activations of all directions; defaults are those of one.
func activationsOf[T floatElem](n *ir.Node, defaults []string, dirs int) ([]activation[T], error) {
	var names []string
	for range dirs {
		names = append(names, defaults...)
	}
	if a := n.Attr("activations"); a != nil {
		if len(a.Strings) < len(names) {
			return nil, fmt.Errorf("attribute activations has %d entries, wants %d", len(a.Strings), len(names))
		}
		for i := range names {
			names[i] = string(a.Strings[i])
		}
	}
	alphas, betas := n.Floats("activation_alpha"), n.Floats("activation_beta")
	take := func(list *[]float32, def float64) float64 {
		if len(*list) == 0 {
			return def
		}
		v := (*list)[0]
		*list = (*list)[1:]
		return float64(v)
	}
	clip := T(math.Inf(1))
	if a := n.Attr("clip"); a != nil {
		clip = T(a.F)
	}
	out := make([]activation[T], len(names))
	for i, name := range names {
		f, err := activationNamed[T](name, func(def float64) float64 { return take(&alphas, def) }, func(def float64) float64 { return take(&betas, def) })
		if err != nil {
			return nil, err
		}
		out[i] = f
		if !math.IsInf(float64(clip), 1) {
			out[i] = func(v []T) {
				for k, x := range v {
					v[k] = min(max(x, -clip), clip)
				}
				f(v)
			}
		}
	}
	return out, nil
}

// activationNamed returns an activation of the specification's list; alpha and beta deliver the next parameter or, where
// the node has none left, the given default (that of the operator of the same name).
func activationNamed[T floatElem](name string, alpha, beta func(def float64) float64) (activation[T], error) {
	each := func(f func(x float64) float64) (activation[T], error) {
		return func(v []T) {
			for i, x := range v {
				v[i] = T(f(float64(x)))
			}
		}, nil
	}
	switch strings.ToLower(name) {
	case "sigmoid":
		return func(v []T) {
			if v, ok := any(v).([]float32); ok {
				kernel.Sigmoid(v, v)
				return
			}
			for i, x := range v {
				v[i] = T(1 / (1 + math.Exp(-float64(x))))
			}
		}, nil
	case "tanh":
		return func(v []T) {
			if v, ok := any(v).([]float32); ok {
				kernel.Tanh(v, v)
				return
			}
			for i, x := range v {
				v[i] = T(math.Tanh(float64(x)))
			}
		}, nil
	case "relu":
		return each(func(x float64) float64 { return max(x, 0) })
	case "affine":
		a, b := alpha(1), beta(0)
		return each(func(x float64) float64 { return float64(a*x) + b })
	case "leakyrelu":
		a := alpha(0.01)
		return each(func(x float64) float64 {
			if x >= 0 {
				return x
			}
			return a * x
		})
	case "thresholdedrelu":
		a := alpha(1)
		return each(func(x float64) float64 {
			if x >= a {
				return x
			}
			return 0
		})
	case "scaledtanh":
		a, b := alpha(1), beta(1)
		return each(func(x float64) float64 { return a * math.Tanh(b*x) })
	case "hardsigmoid":
		a, b := alpha(0.2), beta(0.5)
		return each(func(x float64) float64 { return min(max(float64(a*x)+b, 0), 1) })
	case "elu":
		a := alpha(1)
		return each(func(x float64) float64 {
			if x >= 0 {
				return x
			}
			return a * math.Expm1(x)
		})
	case "softsign":
		return each(func(x float64) float64 { return x / (1 + math.Abs(x)) })
	case "softplus":
		return each(func(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) })
	}
	return nil, fmt.Errorf("activation %q: %w", name, ErrUnsupported)
}

// dropOutputSequence: opset 1 had an attribute that asked for Y; since opset 7 the output's presence does.
func dropOutputSequence(u *Up) error {
	u.Node.DelAttr("output_sequence")
	if u.Node.Str("direction", "") == "foward" { // the misspelt default of opset 1's GRU
		u.Node.SetAttr(ir.StringAttr("direction", "forward"))
	}
	return nil
}
