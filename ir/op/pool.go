package op

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// inferPool infers a pooling of [N, C, D1, …] by the node's window; every output has the result's shape.
func inferPool(c *Call) ([]ir.Type, error) {
	x := c.Type(0)
	if !x.Ranked {
		return []ir.Type{{Elem: x.Elem}, {Elem: ir.Int64}}, nil
	}
	rank, err := spatialRank(x, "the input")
	if err != nil {
		return nil, err
	}
	w, err := windowOf(c.Node, rank, nil)
	if err != nil {
		return nil, err
	}
	dims, err := w.dims(x.Dims[2:])
	if err != nil {
		return nil, err
	}
	dims = append([]ir.Dim{x.Dims[0], x.Dims[1]}, dims...)
	return []ir.Type{ir.TensorType(x.Elem, dims...), ir.TensorType(ir.Int64, dims...)}, nil
}

// pooling is a pooling about to run: the window, and the shapes of one plane before and after.
type pooling struct {
	w       *window
	in, out []int // spatial sizes
	planes  int
	shape   []int // of the result
}

func poolingOf(c *Call) (*pooling, error) {
	rank, err := spatialRank(c.In[0].Type(), "the input")
	if err != nil {
		return nil, err
	}
	w, err := windowOf(c.Node, rank, nil)
	if err != nil {
		return nil, err
	}
	return w.pooling(c.In[0].Shape())
}

// pooling is what the window does to an input of some shape.
func (w *window) pooling(x []int) (p *pooling, err error) {
	p = &pooling{w: w, in: x[2:], planes: x[0] * x[1]}
	if p.out, err = w.fit(p.in); err != nil {
		return nil, err
	}
	p.shape = append(append([]int{}, x[:2]...), p.out...)
	return p, nil
}

// tap says which elements a window covers along one axis: count of them from at on, a dilation apart; count may be 0.
type tap struct{ at, count int }

// combiner is how a pooling combines the elements that windows cover along one axis. rows works on whole rows: dst[j] =
// over src[at+k·step+j]. line works along a row: dst[o] = over src[taps[o].at+k·step].
type combiner[T any] struct {
	rows func(dst, src []T, at, step, count int)
	line func(dst, src []T, taps []tap, step int)
}

// pool pools each plane of x into y, one axis after the other: a window is a box, so that its maximum or sum can be taken
// axis by axis. The axes that shrink most come first, so that no plane in between is larger than the first and the last.
// pre is applied to a copy of the plane before, post to the result; nil: nothing.
func pool[T any](p *pooling, x, y []T, pre func([]T), f combiner[T], post func(plane []T)) {
	size, result := product(p.in), product(p.out)
	if p.planes == 0 || result == 0 {
		return
	}
	widest := max(size, result)
	axes, taps := make([]int, len(p.in)), make([][]tap, len(p.in))
	for i := range axes {
		axes[i], taps[i] = i, p.taps(i)
	}
	slices.SortStableFunc(axes, func(i, j int) int { return cmp.Compare(p.out[i]*p.in[j], p.out[j]*p.in[i]) })
	par.For(p.planes, 1+(1<<15)/(size+1), func(lo, hi int) {
		a, b, shape := make([]T, widest), make([]T, widest), make([]int, len(axes))
		for k := lo; k < hi; k++ {
			src := x[k*size : (k+1)*size]
			if pre != nil {
				copy(a, src)
				pre(a[:size])
				src, a, b = a[:size], b, a
			}
			copy(shape, p.in)
			for step, i := range axes {
				dst := a
				if step == len(axes)-1 {
					dst = y[k*result : (k+1)*result]
				}
				outer, inner := product(shape[:i]), product(shape[i+1:])
				f.axis(dst, src, outer, p.in[i], inner, taps[i], p.w.dilation[i])
				shape[i] = p.out[i]
				src, a, b = dst, b, a
			}
			if post != nil {
				post(y[k*result : (k+1)*result])
			}
		}
	})
}

// taps lists what each output position along axis i covers.
func (p *pooling) taps(i int) []tap {
	all := make([]tap, p.out[i])
	for o := range all {
		lo, hi, start := p.w.taps(i, o, p.in[i])
		all[o] = tap{start + lo*p.w.dilation[i], hi - lo}
	}
	return all
}

// axis reduces the middle axis of src [outer, size, inner] into dst [outer, len(taps), inner].
func (f combiner[T]) axis(dst, src []T, outer, size, inner int, taps []tap, step int) {
	for q := range outer {
		from, to := src[q*size*inner:(q+1)*size*inner], dst[q*len(taps)*inner:(q+1)*len(taps)*inner]
		if inner == 1 {
			f.line(to, from, taps, step)
			continue
		}
		for o, t := range taps {
			f.rows(to[o*inner:(o+1)*inner], from, t.at*inner, step*inner, t.count)
		}
	}
}

// sums adds up what a window covers.
func sums[T floatElem]() combiner[T] {
	return combiner[T]{
		rows: func(dst, src []T, at, step, count int) {
			clear(dst)
			for range count {
				for j, v := range src[at : at+len(dst)] {
					dst[j] += v
				}
				at += step
			}
		},
		line: func(dst, src []T, taps []tap, step int) {
			for o, t := range taps {
				var sum T
				for at := t.at; at < t.at+t.count*step; at += step {
					sum += src[at]
				}
				dst[o] = sum
			}
		},
	}
}

var averagePoolDef = &Def{
	Name: "AveragePool", Doc: "the mean of each window", Since: 1, Versions: []int{1, 7, 10, 11, 19, 22},
	Types: "float, double, float16, bfloat16", In: Exactly(1), Out: Exactly(1), Widen: true, Infer: inferPool,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalFloat(c, nil, averagePool[float32], averagePool[float64])
	},
}

func averagePool[T floatElem](c *Call) ([]*ir.Tensor, error) {
	p, err := poolingOf(c)
	if err != nil {
		return nil, err
	}
	out, err := c.New(c.In[0].Elem(), p.shape...)
	if err != nil {
		return nil, err
	}
	if out.Len() == 0 {
		return []*ir.Tensor{out}, nil
	}
	counts := p.counts(c.Node.Int("count_include_pad", 0) != 0)
	pool(p, ir.Data[T](c.In[0]), ir.Data[T](out), nil, sums[T](), func(plane []T) {
		for i := range plane {
			plane[i] /= T(max(counts[i], 1))
		}
	})
	return []*ir.Tensor{out}, nil
}

// counts returns the number of positions that each window of a plane covers, those in the padding included or not.
// Positions behind the padding, which ceil_mode makes possible, never count.
func (p *pooling) counts(padding bool) []float64 {
	counts := []float64{1}
	for i, n := range p.out {
		next := make([]float64, 0, len(counts)*n)
		for _, c := range counts {
			for o := range n {
				lo, hi, start := p.w.taps(i, o, p.in[i])
				if padding {
					lo = 0
					hi = min(p.w.kernel[i], (p.in[i]+p.w.after[i]-1-start)/p.w.dilation[i]+1)
				}
				next = append(next, c*float64(hi-lo))
			}
		}
		counts = next
	}
	return counts
}

var lpPoolDef = &Def{
	Name: "LpPool", Doc: "the p-norm of each window", Since: 1, Versions: []int{1, 2, 11, 18, 22},
	Types: "float, double, float16, bfloat16", In: Exactly(1), Out: Exactly(1), Widen: true, Infer: inferPool,
	Upgrades: []Upgrade{{To: 2, Apply: intNorm}},
	Eval:     func(c *Call) ([]*ir.Tensor, error) { return evalFloat(c, nil, lpPool[float32], lpPool[float64]) },
}

// intNorm turns the float attribute p of opset 1 into the integer it is since opset 2.
func intNorm(u *Up) error {
	a := u.Node.Attr("p")
	if a == nil || a.Kind != ir.AttrFloat {
		return nil
	}
	p := int64(a.F)
	if float32(p) != a.F {
		return fmt.Errorf("attribute p is %v, newer opsets want an integer: %w", a.F, ErrUnsupported)
	}
	u.Node.SetAttr(ir.IntAttr("p", p))
	return nil
}

// normOrder returns the attribute p of a norm.
func normOrder(n *ir.Node) (int64, error) {
	p := n.Int("p", 2)
	if p < 1 {
		return 0, fmt.Errorf("attribute p is %d, wants at least 1", p)
	}
	return p, nil
}

// normPower returns |x|^p.
func normPower[T floatElem](x T, p int64) T {
	switch p {
	case 1:
		return T(math.Abs(float64(x)))
	case 2:
		return x * x
	}
	return T(math.Pow(math.Abs(float64(x)), float64(p)))
}

// normRoot returns the p-th root of x ≥ 0.
func normRoot[T floatElem](x T, p int64) T {
	switch p {
	case 1:
		return x
	case 2:
		return T(math.Sqrt(float64(x)))
	}
	return T(math.Pow(float64(x), 1/float64(p)))
}

func lpPool[T floatElem](c *Call) ([]*ir.Tensor, error) {
	p, err := poolingOf(c)
	if err != nil {
		return nil, err
	}
	order, err := normOrder(c.Node)
	if err != nil {
		return nil, err
	}
	out, err := c.New(c.In[0].Elem(), p.shape...)
	if err != nil {
		return nil, err
	}
	each := func(f func(T, int64) T) func([]T) {
		return func(v []T) {
			for i := range v {
				v[i] = f(v[i], order)
			}
		}
	}
	pool(p, ir.Data[T](c.In[0]), ir.Data[T](out), each(normPower[T]), sums[T](), each(normRoot[T]))
	return []*ir.Tensor{out}, nil
}
