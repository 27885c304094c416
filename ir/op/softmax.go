package op

import (
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// softmaxDef defines Softmax, LogSoftmax and Hardmax: functions of the elements along one axis. Before opset 13 they
// took all dimensions from axis on (1 by default) as one.
func softmaxDef(name, doc string, f32, f64 func(*ir.Tensor, *ir.Tensor, axisSpan)) *Def {
	return &Def{
		Name: name, Doc: doc, Since: 1, Versions: []int{1, 11, 13}, Types: floatTypes,
		In: Exactly(1), Out: Exactly(1), Widen: true,
		Upgrades: []Upgrade{{13, func(u *Up) error { return flattenedAxis(u, name) }}},
		Infer: func(c *Call) ([]ir.Type, error) {
			if t := c.Type(0); t.Ranked {
				if _, err := softAxis(c.Node, len(t.Dims)); err != nil {
					return nil, err
				}
			}
			return same(c)
		},
		Eval: func(c *Call) ([]*ir.Tensor, error) {
			x := c.In[0]
			a, err := softAxis(c.Node, x.Rank())
			if err != nil {
				return nil, err
			}
			out, err := c.Like(x, x.Elem())
			if err != nil || out.Len() == 0 {
				return []*ir.Tensor{out}, err
			}
			switch x.Elem() {
			case ir.Float32:
				f32(out, x, spanOf(x.Shape(), a))
			case ir.Float64:
				f64(out, x, spanOf(x.Shape(), a))
			default:
				return nil, badType(c, 0)
			}
			return []*ir.Tensor{out}, nil
		},
	}
}

// softAxis returns the axis; a scalar is a vector of one.
func softAxis(n *ir.Node, rank int) (int, error) { return Axis(n.Int("axis", -1), max(rank, 1)) }

// flattenedAxis makes an operator that joined the dimensions from axis on one along a single axis.
func flattenedAxis(u *Up, name string) error {
	n := u.Node
	x := n.In(0)
	axis := n.Int("axis", 1)
	if x == nil {
		return nil
	}
	if x.Type.Ranked {
		rank := len(x.Type.Dims)
		if axis == 1 && rank == 1 {
			axis = 0 // files say it of vectors, with the default
		}
		a, err := Axis(axis, max(rank, 1))
		if err != nil {
			return err
		}
		tail := 1 // the joined dimensions but the first that is not certainly 1
		at := a
		for i := a; i < rank; i++ {
			if x.Type.Dims[i].Size != 1 {
				at, tail = i, tail-1
			}
		}
		if tail >= 0 {
			n.SetAttr(ir.IntAttr("axis", int64(at)))
			return nil
		}
	}
	shape := u.Value("shape", "Shape", []*ir.Value{x})
	flat := u.Value("flat", "Flatten", []*ir.Value{x}, ir.IntAttr("axis", axis))
	y := u.Value("joined", name, []*ir.Value{flat}, ir.IntAttr("axis", -1))
	return u.Replace("Reshape", []*ir.Value{y, shape})
}

// axisSpan splits a shape at an axis: element (o, k, i) is at (o·n + k)·inner + i.
type axisSpan struct{ outer, n, inner int }

func spanOf(shape []int, axis int) axisSpan {
	s := axisSpan{1, 1, 1}
	for i, d := range shape {
		switch {
		case i < axis:
			s.outer *= d
		case i == axis:
			s.n = d
		default:
			s.inner *= d
		}
	}
	return s
}

// lines calls body for each line along the axis: its n elements are at, at+inner, ….
func (s axisSpan) lines(body func(at int)) {
	if s.n == 0 {
		return
	}
	par.For(s.outer*s.inner, max(1, mapGrain/s.n), func(lo, hi int) {
		for l := lo; l < hi; l++ {
			body(l/s.inner*s.n*s.inner + l%s.inner)
		}
	})
}

var (
	softmax    = softmaxDef("Softmax", "exp(x) over its sum along the axis", softmax32, softmaxLines[float64])
	logSoftmax = softmaxDef("LogSoftmax", "the logarithm of Softmax", logSoftmax32, logSoftmaxLines[float64])
	hardmax    = softmaxDef("Hardmax", "1 at the first greatest element along the axis, else 0", hardmaxLines[float32], hardmaxLines[float64])
)

func softmax32(out, x *ir.Tensor, s axisSpan) {
	src, dst := ir.Data[float32](x), ir.Data[float32](out)
	if s.inner == 1 {
		kernel.Softmax(s.outer, s.n, dst, src)
		return
	}
	s.strips(func(at, w int, tmp []float32) {
		m, sum := tmp[:w], tmp[w:2*w]
		expStrip(dst, src, s, at, m, sum)
		for k := range s.n {
			row := dst[at+k*s.inner:][:w]
			kernel.Div(row, row, sum)
		}
	})
}

func logSoftmax32(out, x *ir.Tensor, s axisSpan) {
	src, dst := ir.Data[float32](x), ir.Data[float32](out)
	if s.inner == 1 {
		kernel.LogSoftmax(s.outer, s.n, dst, src)
		return
	}
	s.strips(func(at, w int, tmp []float32) {
		m, sum := tmp[:w], tmp[w:2*w]
		expStrip(dst, src, s, at, m, sum)
		for i, v := range sum {
			sum[i] = float32(math.Log(float64(v)))
		}
		for k := range s.n {
			row := dst[at+k*s.inner:][:w]
			kernel.Sub(row, src[at+k*s.inner:][:w], m)
			kernel.Sub(row, row, sum)
		}
	})
}

// strips calls body for strips of w neighbouring lines, the first of which starts at at; tmp has 2·w elements.
func (s axisSpan) strips(body func(at, w int, tmp []float32)) {
	if s.n == 0 || s.inner == 0 {
		return
	}
	per := (s.inner + strip - 1) / strip
	par.For(s.outer*per, max(1, mapGrain/(s.n*min(s.inner, strip))), func(lo, hi int) {
		var tmp [2 * strip]float32
		for i := lo; i < hi; i++ {
			from := i % per * strip
			w := min(strip, s.inner-from)
			body(i/per*s.n*s.inner+from, w, tmp[:2*w])
		}
	})
}

// expStrip sets m to the maxima of the strip's lines, dst to exp(x-m) and sum to the sums of that.
func expStrip(dst, src []float32, s axisSpan, at int, m, sum []float32) {
	w := len(m)
	copy(m, src[at:])
	for k := 1; k < s.n; k++ {
		for i, v := range src[at+k*s.inner:][:w] {
			m[i] = max(m[i], v)
		}
	}
	clear(sum)
	for k := range s.n {
		row := dst[at+k*s.inner:][:w]
		kernel.Sub(row, src[at+k*s.inner:][:w], m)
		kernel.Exp(row, row)
		kernel.Add(sum, sum, row)
	}
}

func softmaxLines[T float32 | float64](out, x *ir.Tensor, s axisSpan) {
	src, dst := ir.Data[T](x), ir.Data[T](out)
	s.lines(func(at int) {
		end := at + s.n*s.inner
		m := src[at]
		for i := at; i < end; i += s.inner {
			m = max(m, src[i])
		}
		sum := 0.0
		for i := at; i < end; i += s.inner {
			e := math.Exp(float64(src[i]) - float64(m))
			dst[i] = T(e)
			sum += e
		}
		for i := at; i < end; i += s.inner {
			dst[i] = T(float64(dst[i]) / sum)
		}
	})
}

func logSoftmaxLines[T float32 | float64](out, x *ir.Tensor, s axisSpan) {
	src, dst := ir.Data[T](x), ir.Data[T](out)
	s.lines(func(at int) {
		end := at + s.n*s.inner
		m := src[at]
		for i := at; i < end; i += s.inner {
			m = max(m, src[i])
		}
		sum := 0.0
		for i := at; i < end; i += s.inner {
			sum += math.Exp(float64(src[i]) - float64(m))
		}
		log := math.Log(sum)
		for i := at; i < end; i += s.inner {
			dst[i] = T(float64(src[i]) - float64(m) - log)
		}
	})
}

func hardmaxLines[T float32 | float64](out, x *ir.Tensor, s axisSpan) {
	src, dst := ir.Data[T](x), ir.Data[T](out)
	clear(dst)
	s.lines(func(at int) {
		best := at
		for i := at; i < at+s.n*s.inner; i += s.inner {
			if src[i] > src[best] {
				best = i
			}
		}
		dst[best] = 1
	})
}
