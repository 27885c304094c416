package op

import (
	"fmt"
	"slices"
	"strings"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
)

var einsumDef = &Def{
	Name: "Einsum", Doc: "the sum of products that an equation in Einstein's notation says", Since: 12, Versions: []int{12, 28},
	Types: "float, double, float16, bfloat16, int32, int64, uint32, uint64", In: AtLeast(1), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		elem := c.Type(0).Elem
		ranks := make([]int, c.Node.NumIn())
		for i := range ranks {
			if !c.Has(i) {
				return nil, fmt.Errorf("input %d is absent", i)
			}
			if ranks[i] = c.Type(i).Rank(); ranks[i] < 0 {
				return []ir.Type{{Elem: elem}}, nil
			}
		}
		e, err := parseEinsum(c.Node.Str("equation", ""), ranks)
		if err != nil {
			return nil, err
		}
		size := map[int]ir.Dim{}
		for i, term := range e.in {
			for k, l := range term {
				d := c.Type(i).Dims[k]
				have, ok := size[l]
				switch {
				case !ok || !have.Known() && (have.Name == "" || d.Known()) || have.Size == 1 && have.Known():
					size[l] = d
				case d.Known() && d.Size != 1 && d.Size != have.Size:
					return nil, fmt.Errorf("equation %q: %s is %d and %d", c.Node.Str("equation", ""), labelName(l), have.Size, d.Size)
				}
			}
		}
		dims := make([]ir.Dim, len(e.out))
		for i, l := range e.out {
			dims[i] = size[l]
		}
		return []ir.Type{ir.TensorType(elem, dims...)}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		for i, t := range c.In {
			if t == nil {
				return nil, fmt.Errorf("input %d is absent", i)
			}
			if err := sameElem(c, i); err != nil {
				return nil, err
			}
		}
		switch elem := c.In[0].Elem(); elem {
		case ir.Float32:
			return einsum[float32](c)
		case ir.Float64:
			return einsum[float64](c)
		case ir.Int32:
			return einsum[int32](c)
		case ir.Int64:
			return einsum[int64](c)
		case ir.Uint32:
			return einsum[uint32](c)
		case ir.Uint64:
			return einsum[uint64](c)
		default:
			return nil, fmt.Errorf("element type %v: %w", elem, ErrUnsupported)
		}
	},
}

// equation is a parsed Einsum equation. Labels are the letters' codes, and negative numbers for the dimensions an ellipsis
// stands for, -1 being the last of them.
type equation struct {
	in  [][]int
	out []int
}

func labelName(l int) string {
	if l < 0 {
		return fmt.Sprintf("dimension %d of the ellipsis", l)
	}
	return string(rune(l))
}

// parseEinsum reads an equation for operands of the given ranks.
func parseEinsum(text string, ranks []int) (*equation, error) {
	left, right, explicit := strings.Cut(strings.ReplaceAll(text, " ", ""), "->")
	terms := strings.Split(left, ",")
	if len(terms) != len(ranks) {
		return nil, fmt.Errorf("equation %q has %d terms for %d inputs", text, len(terms), len(ranks))
	}
	e := &equation{}
	count, dots := map[int]int{}, 0
	for i, term := range terms {
		labels, err := einsumTerm(text, term, func(letters int) (int, error) {
			if ranks[i] < letters {
				return 0, fmt.Errorf("equation %q: term %q has %d labels for input %d of rank %d", text, term, letters, i, ranks[i])
			}
			return ranks[i] - letters, nil
		})
		if err != nil {
			return nil, err
		}
		if len(labels) != ranks[i] {
			return nil, fmt.Errorf("equation %q: term %q has %d labels for input %d of rank %d", text, term, len(labels), i, ranks[i])
		}
		for _, l := range labels {
			count[l]++
			dots = max(dots, -l)
		}
		e.in = append(e.in, labels)
	}
	if explicit {
		out, err := einsumTerm(text, right, func(int) (int, error) { return dots, nil })
		if err != nil {
			return nil, err
		}
		for i, l := range out {
			if count[l] == 0 || slices.Contains(out[:i], l) {
				return nil, fmt.Errorf("equation %q: %s of the result is repeated or in no term", text, labelName(l))
			}
		}
		e.out = out
		return e, nil
	}
	for l := -dots; l < 0; l++ {
		e.out = append(e.out, l)
	}
	for l := 'A'; l <= 'z'; l++ {
		if count[int(l)] == 1 {
			e.out = append(e.out, int(l))
		}
	}
	return e, nil
}

// einsumTerm reads one term; dots says how many dimensions its ellipsis stands for, given its number of letters.
func einsumTerm(text, term string, dots func(letters int) (int, error)) ([]int, error) {
	var labels []int
	before, after, ellipsis := strings.Cut(term, "...")
	for _, r := range before + after {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return nil, fmt.Errorf("equation %q: %q is no label", text, r)
		}
		labels = append(labels, int(r))
	}
	if ellipsis {
		n, err := dots(len(labels))
		if err != nil {
			return nil, err
		}
		middle := make([]int, n)
		for i := range middle {
			middle[i] = i - n
		}
		labels = slices.Insert(labels, len(before), middle...)
	}
	return labels, nil
}

// labelled is an operand of Einsum: its elements in row-major order of its labels, which differ from each other.
type labelled[T productElem] struct {
	labels []int
	shape  []int
	data   []T
}

func (t *labelled[T]) size(label int) int {
	if i := slices.Index(t.labels, label); i >= 0 {
		return t.shape[i]
	}
	return 1
}

func einsum[T productElem](c *Call) ([]*ir.Tensor, error) {
	ranks := make([]int, len(c.In))
	for i, t := range c.In {
		ranks[i] = t.Rank()
	}
	text := c.Node.Str("equation", "")
	e, err := parseEinsum(text, ranks)
	if err != nil {
		return nil, err
	}
	size := map[int]int{}
	for i, term := range e.in {
		for k, l := range term {
			d := c.In[i].Shape()[k]
			if have, ok := size[l]; !ok || have == 1 {
				size[l] = d
			} else if d != 1 && d != have {
				return nil, fmt.Errorf("equation %q: %s is %d and %d", text, labelName(l), have, d)
			}
		}
	}
	operands := make([]*labelled[T], len(c.In))
	for i, t := range c.In {
		operands[i] = einsumOperand(e.in[i], size, t.Shape(), ir.Data[T](t))
	}
	result := operands[0]
	for i, next := range operands[1:] {
		needed := slices.Clone(e.out)
		for _, later := range operands[i+2:] {
			needed = append(needed, later.labels...)
		}
		if result, err = contract(c, result, next, needed); err != nil {
			return nil, err
		}
	}
	shape := make([]int, len(e.out))
	for i, l := range e.out {
		shape[i] = size[l]
	}
	out, err := c.New(c.In[0].Elem(), shape...)
	if err != nil {
		return nil, err
	}
	if result, err = result.arrange(c, e.out); err != nil {
		return nil, err
	}
	copy(ir.Data[T](out), result.spread(shape))
	return []*ir.Tensor{out}, nil
}

// einsumOperand takes the diagonal of repeated labels and drops dimensions of size 1 that are larger elsewhere.
func einsumOperand[T productElem](term []int, size map[int]int, shape []int, data []T) *labelled[T] {
	t := &labelled[T]{}
	var steps []int
	step := 1
	strides := make([]int, len(shape))
	for i := len(shape) - 1; i >= 0; i-- {
		strides[i] = step
		step *= shape[i]
	}
	for i, l := range term {
		if shape[i] == 1 && size[l] != 1 {
			continue // broadcast
		}
		if k := slices.Index(t.labels, l); k >= 0 {
			steps[k] += strides[i]
			continue
		}
		t.labels, t.shape, steps = append(t.labels, l), append(t.shape, shape[i]), append(steps, strides[i])
	}
	if len(t.labels) == len(term) {
		t.data = data
		return t
	}
	t.data = stridedCopy(t.shape, steps, data)
	return t
}

// stridedCopy copies the elements that lie steps apart in each dimension.
func stridedCopy[T any](shape, steps []int, data []T) []T {
	out := make([]T, product(shape))
	pos := make([]int, len(shape))
	at := 0
	for i := range out {
		out[i] = data[at]
		for d := len(shape) - 1; d >= 0; d-- {
			pos[d]++
			at += steps[d]
			if pos[d] < shape[d] {
				break
			}
			at -= pos[d] * steps[d]
			pos[d] = 0
		}
	}
	return out
}

// arrange returns the operand with the given labels in order; labels that it lacks get size 1, its others are summed over.
func (t *labelled[T]) arrange(c *Call, labels []int) (*labelled[T], error) {
	var rest []int
	for _, l := range t.labels {
		if !slices.Contains(labels, l) {
			rest = append(rest, l)
		}
	}
	all := append(slices.Clone(labels), rest...)
	out := &labelled[T]{labels: labels}
	shape, steps := make([]int, len(all)), make([]int, len(all))
	inOrder := len(t.labels) == len(all)
	for i, l := range all {
		shape[i] = t.size(l)
		steps[i] = 0
		if k := slices.Index(t.labels, l); k >= 0 {
			steps[i] = product(t.shape[k+1:])
			inOrder = inOrder && k == i
		}
	}
	out.shape = shape[:len(labels)]
	out.data = t.data
	if !inOrder {
		out.data = stridedCopy(shape, steps, t.data)
	}
	if len(rest) > 0 {
		n, k := product(out.shape), product(shape[len(labels):])
		scratch, err := c.New(c.In[0].Elem(), n)
		if err != nil {
			return nil, err
		}
		sums := ir.Data[T](scratch)
		var ones []T
		if n > 0 {
			ones = make([]T, k)
		}
		setAll(ones, 1)
		matrixProduct(kernel.Batch{Count: 1}, n, 1, k, out.data, false, ones, false, sums)
		out.data = sums
	}
	return out, nil
}

// spread repeats dimensions of size 1 to the given shape.
func (t *labelled[T]) spread(shape []int) []T {
	if slices.Equal(shape, t.shape) {
		return t.data
	}
	steps := make([]int, len(shape))
	for i := range steps {
		if t.shape[i] != 1 {
			steps[i] = product(t.shape[i+1:])
		}
	}
	return stridedCopy(shape, steps, t.data)
}

// contract multiplies two operands and sums over the labels of both that are not needed any more: a stack of matrix
// products, the stack being the labels that both have and that stay.
func contract[T productElem](c *Call, a, b *labelled[T], needed []int) (*labelled[T], error) {
	var stack, rows, depth, cols []int
	for _, l := range a.labels {
		inB, stays := slices.Contains(b.labels, l), slices.Contains(needed, l)
		switch {
		case inB && stays:
			stack = append(stack, l)
		case inB:
			depth = append(depth, l)
		case stays:
			rows = append(rows, l)
		}
	}
	for _, l := range b.labels {
		if !slices.Contains(a.labels, l) && slices.Contains(needed, l) {
			cols = append(cols, l)
		}
	}
	sizes := func(t *labelled[T], labels []int) int {
		n := 1
		for _, l := range labels {
			n *= t.size(l)
		}
		return n
	}
	x, err := a.arrange(c, slices.Concat(stack, rows, depth))
	if err != nil {
		return nil, err
	}
	y, err := b.arrange(c, slices.Concat(stack, depth, cols))
	if err != nil {
		return nil, err
	}
	s, m, k, n := sizes(a, stack), sizes(a, rows), sizes(a, depth), sizes(b, cols)
	t, err := c.New(c.In[0].Elem(), s, m, n)
	if err != nil {
		return nil, err
	}
	out := &labelled[T]{labels: slices.Concat(stack, rows, cols), data: ir.Data[T](t)}
	for _, l := range out.labels {
		if slices.Contains(a.labels, l) {
			out.shape = append(out.shape, a.size(l))
		} else {
			out.shape = append(out.shape, b.size(l))
		}
	}
	matrixProduct(kernel.Batch{Count: s, A: m * k, B: k * n, C: m * n}, m, n, k, x.data, false, y.data, false, out.data)
	return out, nil
}
