package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

var convDef = &Def{
	Name: "Conv", Doc: "the convolution of any number of spatial axes, in groups", Since: 1, Versions: []int{1, 11, 22},
	Types: "float, double, float16, bfloat16", In: Between(2, 3), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) { return inferConv(c, 0, 1) },
	Eval:  func(c *Call) ([]*ir.Tensor, error) { return evalFloat(c, []int{1, 2}, conv[float32], conv[float64]) },
	Linear: func(n *ir.Node) (Linear, bool) {
		return convLinear(n, 1, 0)
	},
}

// convLinear describes a convolution whose weight is constant and has the given input and output channel axes.
func convLinear(n *ir.Node, in, out int) (Linear, bool) {
	w := n.In(1)
	if w == nil || !isWeight(w, 0) {
		return Linear{}, false
	}
	l := Linear{X: 0, W: 1, B: -1, XAxis: 1, InAxis: in, OutAxis: out, Groups: int(n.Int("group", 1))}
	if n.In(2) != nil {
		l.B = 2
	}
	return l, true
}

// inferConv infers a convolution of input x [N, C, D1, …] with weight w [M, C/group, k1, …].
func inferConv(c *Call, x, w int) ([]ir.Type, error) {
	xt, wt := c.Type(x), c.Type(w)
	if !xt.Ranked && !wt.Ranked {
		return []ir.Type{{Elem: xt.Elem}}, nil
	}
	if !xt.Ranked {
		xt = ir.TensorType(xt.Elem, make([]ir.Dim, len(wt.Dims))...)
		for i := range xt.Dims {
			xt.Dims[i] = ir.UnknownDim
		}
	}
	rank, err := spatialRank(xt, "the input")
	if err != nil {
		return nil, err
	}
	dims := make([]ir.Dim, rank+2)
	for i := range dims {
		dims[i] = ir.UnknownDim
	}
	dims[0] = xt.Dims[0]
	if !wt.Ranked {
		return []ir.Type{ir.TensorType(xt.Elem, dims...)}, nil
	}
	if len(wt.Dims) != rank+2 {
		return nil, fmt.Errorf("the weight is %v, wants rank %d as the input %v", wt, rank+2, xt)
	}
	dims[1] = wt.Dims[0]
	groups := c.Node.Int("group", 1)
	if ch, per := xt.Dims[1], wt.Dims[1]; groups >= 1 && ch.Known() && per.Known() && ch.Size != per.Size*groups {
		return nil, fmt.Errorf("the input %v has %d channels, the weight %v in %d groups wants %d", xt, ch.Size, wt, groups, per.Size*groups)
	}
	kernel, known := ir.TensorType(wt.Elem, wt.Dims[2:]...).Shape()
	if !known {
		if c.Node.Attr("kernel_shape") == nil {
			return []ir.Type{ir.TensorType(xt.Elem, dims...)}, nil
		}
		kernel = nil
	}
	win, err := windowOf(c.Node, rank, kernel)
	if err != nil {
		return nil, err
	}
	out, err := win.dims(xt.Dims[2:])
	if err != nil {
		return nil, err
	}
	copy(dims[2:], out)
	return []ir.Type{ir.TensorType(xt.Elem, dims...)}, nil
}

// convolution is a convolution about to run. A group has cg input and mg output channels; positions are those of one
// output plane, taps those of the kernel.
type convolution struct {
	w                 *window
	batch, groups     int
	cg, mg            int
	in, out           []int // spatial sizes
	size, positions   int   // elements of an input and an output plane
	taps              int
	kernelAt, rowFrom []int // by tap: its position; by output row: the input position of tap 0 in the axes but the last
	rows              int   // output rows
}

// ConvGeometry returns what the Conv node n does to an input and a weight of the given shapes, of one or two spatial axes,
// and the shape of the result. It fails with ErrUnsupported for more axes.
func ConvGeometry(n *ir.Node, x, weight []int) (kernel.Conv2D, []int, error) {
	v, err := geometryOf(n, x, weight)
	if err != nil {
		return kernel.Conv2D{}, nil, err
	}
	if len(v.in) > 2 {
		return kernel.Conv2D{}, nil, fmt.Errorf("%d spatial axes: %w", len(v.in), ErrUnsupported)
	}
	return v.flat(), v.shape(), nil
}

// convolutionOf checks the operands x [N, C, D1, …] and weight [M, C/group, k1, …].
func convolutionOf(n *ir.Node, x, weight []int) (*convolution, error) {
	v, err := geometryOf(n, x, weight)
	if err == nil {
		v.tables()
	}
	return v, err
}

// geometryOf is convolutionOf without the tables.
func geometryOf(n *ir.Node, x, weight []int) (*convolution, error) {
	if len(x) < 3 || len(weight) != len(x) {
		return nil, fmt.Errorf("input %v and weight %v: wants [N, C, D1, …] and [M, C/group, k1, …]", x, weight)
	}
	v := &convolution{batch: x[0], groups: int(n.Int("group", 1)), cg: weight[1], in: x[2:]}
	if v.groups < 1 || weight[0]%v.groups != 0 || v.groups > weight[0] {
		return nil, fmt.Errorf("%d groups do not divide the %d output channels of the weight %v", v.groups, weight[0], weight)
	}
	if x[1] != v.cg*v.groups {
		return nil, fmt.Errorf("the input %v has %d channels, the weight %v in %d groups wants %d", x, x[1], weight, v.groups, v.cg*v.groups)
	}
	if v.cg < 1 {
		return nil, fmt.Errorf("the weight %v has no input channels", weight)
	}
	v.mg = weight[0] / v.groups
	for _, k := range weight[2:] {
		if k < 1 {
			return nil, fmt.Errorf("the weight %v has an empty kernel", weight)
		}
	}
	var err error
	if v.w, err = windowOf(n, len(v.in), weight[2:]); err != nil {
		return nil, err
	}
	if v.out, err = v.w.fit(v.in); err != nil {
		return nil, err
	}
	v.size, v.positions, v.taps = product(v.in), product(v.out), product(v.w.kernel)
	return v, nil
}

// shape returns the shape of the result.
func (v *convolution) shape() []int { return append([]int{v.batch, v.groups * v.mg}, v.out...) }

// tables fills kernelAt and rowFrom, which row, shift and columns read. It comes after the result has found its memory:
// they grow with it.
func (v *convolution) tables() {
	v.kernelAt = positionsOf(v.w.kernel)
	last := len(v.out) - 1
	v.rows = product(v.out[:last])
	v.rowFrom = positionsOf(v.out[:last])
	for i, at := range v.rowFrom {
		d := i % last
		v.rowFrom[i] = at*v.w.stride[d] - v.w.before[d]
	}
}

// positionsOf lists the positions of a box in row-major order, one after the other.
func positionsOf(box []int) []int {
	all := make([]int, 0, product(box)*len(box))
	pos := make([]int, len(box))
	for range product(box) {
		all = append(all, pos...)
		for d := len(box) - 1; d >= 0; d-- {
			if pos[d]++; pos[d] < box[d] {
				break
			}
			pos[d] = 0
		}
	}
	return all
}

// pointwise reports whether each output position sees just the input at the same position.
func (v *convolution) pointwise() bool {
	for i := range v.in {
		if v.w.kernel[i] != 1 || v.w.stride[i] != 1 || v.w.before[i] != 0 || v.w.after[i] != 0 {
			return false
		}
	}
	return true
}

// row returns where in an input plane the row lies that kernel position tap of output row o reads, and whether it is not
// in the padding.
func (v *convolution) row(o, tap int) (base int, ok bool) {
	last := len(v.in) - 1
	for i, from := range v.rowFrom[o*last : (o+1)*last] {
		at := from + v.kernelAt[tap*len(v.in)+i]*v.w.dilation[i]
		if at < 0 || at >= v.in[i] {
			return 0, false
		}
		base = base*v.in[i] + at
	}
	return base * v.in[last], true
}

// shift returns where, in its row, the element lies that kernel position tap of output position 0 reads.
func (v *convolution) shift(tap int) int {
	last := len(v.in) - 1
	return v.kernelAt[tap*len(v.in)+last]*v.w.dilation[last] - v.w.before[last]
}

// columns writes what the kernel sees at positions [p0, p1): row ch·taps + tap of dst, p1-p0 long, is the input of channel ch
// under that kernel position, pad where it lies in the padding. x holds the planes of one group.
func columns[T any](v *convolution, dst, x []T, p0, p1 int, pad T) {
	last := len(v.in) - 1
	iw, ow, stride, width := v.in[last], v.out[last], v.w.stride[last], p1-p0
	for r := range v.cg * v.taps {
		ch, tap := r/v.taps, r%v.taps
		plane := x[ch*v.size : (ch+1)*v.size]
		shift := v.shift(tap)
		line := dst[r*width : (r+1)*width]
		for p := p0; p < p1; {
			o, x0 := p/ow, p%ow
			n := min(ow-x0, p1-p)
			seg := line[p-p0 : p-p0+n]
			if base, ok := v.row(o, tap); ok {
				gather(seg, plane[base:base+iw], x0*stride+shift, stride, pad)
			} else {
				setAll(seg, pad)
			}
			p += n
		}
	}
}

func setAll[T any](dst []T, v T) {
	for i := range dst {
		dst[i] = v
	}
}

// gather sets dst[i] to row[at+i·stride], pad outside the row.
func gather[T any](dst, row []T, at, stride int, pad T) {
	if stride == 1 {
		lo := min(max(-at, 0), len(dst))
		hi := min(max(len(row)-at, lo), len(dst))
		setAll(dst[:lo], pad)
		if lo < hi {
			copy(dst[lo:hi], row[at+lo:])
		}
		setAll(dst[hi:], pad)
		return
	}
	for i := range dst {
		if at >= 0 && at < len(row) {
			dst[i] = row[at]
		} else {
			dst[i] = pad
		}
		at += stride
	}
}

// columnBlock is how many elements of columns are made at a time, so that they stay in the cache.
const columnBlock = 1 << 17

// block returns the length of the pieces that the positions are cut into; the results do not depend on it.
func (v *convolution) block() int {
	n := max(columnBlock/max(v.cg*v.taps, 1), 96)
	return min((n+47)/48*48, max(v.positions, 1))
}

func conv[T floatElem](c *Call) ([]*ir.Tensor, error) {
	v, err := geometryOf(c.Node, c.In[0].Shape(), c.In[1].Shape())
	if err != nil {
		return nil, err
	}
	bias, err := vector[T](c, 2, v.groups*v.mg, "the bias")
	if err != nil {
		return nil, err
	}
	out, err := c.New(c.In[0].Elem(), v.shape()...)
	if err != nil {
		return nil, err
	}
	if out.Len() == 0 {
		return []*ir.Tensor{out}, nil
	}
	x, w, y := ir.Data[T](c.In[0]), ir.Data[T](c.In[1]), ir.Data[T](out)
	if x, ok := any(x).([]float32); ok && len(v.in) <= 2 {
		kernel.Conv(v.flat(), any(y).([]float32), x, any(w).([]float32), &kernel.Epilogue{RowBias: any(bias).([]float32)})
		return []*ir.Tensor{out}, nil
	}
	v.tables()
	if v.cg == 1 && v.mg <= 4 {
		depthwise(v, x, w, bias, y)
		return []*ir.Tensor{out}, nil
	}
	plain, depth, step := v.pointwise(), v.cg*v.taps, v.block()
	blocks := (v.positions + step - 1) / step
	if err := c.room(8, depth, step); err != nil && !plain {
		return nil, err
	}
	par.For(v.batch*v.groups*blocks, 1, func(lo, hi int) {
		var cols []T
		if !plain {
			cols = make([]T, depth*step)
		}
		for i := lo; i < hi; i++ {
			k, p0 := i/blocks, i%blocks*step // k: which image and group
			p1, g := min(p0+step, v.positions), k%v.groups
			in, ld := x[k*v.cg*v.size:(k+1)*v.cg*v.size], v.size
			if plain {
				in = in[p0:]
			} else {
				columns(v, cols, in, p0, p1, 0)
				in, ld = cols, p1-p0
			}
			dst := y[k*v.mg*v.positions+p0:]
			multiply(v.mg, p1-p0, depth, w[g*v.mg*depth:], depth, false, in, ld, dst, v.positions)
			if bias != nil {
				for m := range v.mg {
					addScalar(dst[m*v.positions:][:p1-p0], bias[g*v.mg+m])
				}
			}
		}
	})
	return []*ir.Tensor{out}, nil
}

// flat describes a convolution of one or two spatial axes to the kernel; one axis is a plane of height 1.
func (v *convolution) flat() kernel.Conv2D {
	two := func(s []int, one int) (int, int) {
		if len(s) == 1 {
			return one, s[0]
		}
		return s[0], s[1]
	}
	p := kernel.Conv2D{N: v.batch, C: v.groups * v.cg, M: v.groups * v.mg, Groups: v.groups}
	p.H, p.W = two(v.in, 1)
	p.KH, p.KW = two(v.w.kernel, 1)
	p.StrideH, p.StrideW = two(v.w.stride, 1)
	p.DilationH, p.DilationW = two(v.w.dilation, 1)
	p.PadTop, p.PadLeft = two(v.w.before, 0)
	p.PadBottom, p.PadRight = two(v.w.after, 0)
	return p
}

// multiply is C = op(A)·B with leading dimensions.
func multiply[T floatElem](m, n, k int, a []T, lda int, transA bool, b []T, ldb int, c []T, ldc int) {
	switch a := any(a).(type) {
	case []float32:
		kernel.MatMul(m, n, k, a, lda, transA, any(b).([]float32), ldb, false, any(c).([]float32), ldc, false)
	case []float64:
		kernel.MatMul64(m, n, k, a, lda, transA, any(b).([]float64), ldb, false, any(c).([]float64), ldc, false)
	}
}

func addScalar[T floatElem](x []T, s T) {
	for i := range x {
		x[i] += s
	}
}

// depthwise convolves planes that share no channel: row by row, tap by tap.
func depthwise[T floatElem](v *convolution, x, w, bias, y []T) {
	last := len(v.in) - 1
	iw, ow, stride := v.in[last], v.out[last], v.w.stride[last]
	par.For(v.batch*v.groups*v.mg, 1+(1<<15)/(v.positions*v.taps+1), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			m := i % (v.groups * v.mg)
			plane := x[i/v.mg*v.size : (i/v.mg+1)*v.size]
			taps := w[m*v.taps : (m+1)*v.taps]
			for o := range v.rows {
				row := y[i*v.positions+o*ow:][:ow]
				var start T
				if bias != nil {
					start = bias[m]
				}
				setAll(row, start)
				for tap, f := range taps {
					base, ok := v.row(o, tap)
					if !ok {
						continue
					}
					shift := v.shift(tap)
					from, to := inside(shift, stride, iw, ow)
					if from < to {
						addScaled(row[from:to], plane[base+from*stride+shift:base+iw], stride, f)
					}
				}
			}
		}
	})
}

// inside returns the positions i of [0, n) for which i·stride + shift lies in [0, size).
func inside(shift, stride, size, n int) (from, to int) {
	if shift < 0 {
		from = (-shift + stride - 1) / stride
	}
	if size <= shift {
		return 0, 0
	}
	return from, min((size-shift+stride-1)/stride, n)
}

// addScaled adds f·src[i·stride] to dst[i].
func addScaled[T floatElem](dst, src []T, stride int, f T) {
	if stride == 1 {
		src = src[:len(dst)]
		for i, v := range src {
			dst[i] += T(f * v)
		}
		return
	}
	for i := range dst {
		dst[i] += T(f * src[i*stride])
	}
}
