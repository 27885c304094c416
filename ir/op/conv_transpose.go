package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

var convTransposeDef = &Def{
	Name: "ConvTranspose", Doc: "the transpose of Conv: every input element adds a scaled kernel to the output", Since: 1,
	Versions: []int{1, 11, 22}, Types: "float, double, float16, bfloat16", In: Between(2, 3), Out: Exactly(1), Widen: true,
	Infer: inferConvTranspose,
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalFloat(c, []int{1, 2}, convTranspose[float32], convTranspose[float64])
	},
	Linear: func(n *ir.Node) (Linear, bool) { return convLinear(n, 0, 1) },
}

// transposedWindow reads the attributes and returns the window of the convolution that this one transposes, with its
// padding, and the spatial sizes of the result. in holds the spatial sizes of the input, kernel those of the weight.
func transposedWindow(n *ir.Node, in, kernel []int) (*window, []int, error) {
	rank := len(in)
	w, err := windowOf(n, rank, kernel)
	if err != nil {
		return nil, nil, err
	}
	extra, err := spatial(n, "output_padding", rank, 0, 0)
	if err != nil {
		return nil, nil, err
	}
	wanted := n.Ints("output_shape")
	if len(wanted) == rank+2 {
		wanted = wanted[2:] // some exporters write batch and channels too
	}
	if wanted != nil && len(wanted) != rank {
		return nil, nil, fmt.Errorf("attribute output_shape is %v, wants %d numbers", wanted, rank)
	}
	out := make([]int, rank)
	for i, size := range in {
		if size > ir.MaxElements/w.stride[i] {
			return nil, nil, fmt.Errorf("spatial axis %d: size %d and stride %d exceed %d", i, size, w.stride[i], int64(ir.MaxElements))
		}
		full := w.stride[i]*(size-1) + extra[i] + w.extent(i)
		auto := w.auto == "SAME_UPPER" || w.auto == "SAME_LOWER"
		switch {
		case wanted != nil:
			if wanted[i] < 0 || wanted[i] > maxWindow {
				return nil, nil, fmt.Errorf("attribute output_shape is %v, wants sizes", wanted)
			}
			out[i] = int(wanted[i])
		case auto:
			out[i] = size * w.stride[i]
		default:
			out[i] = full - w.before[i] - w.after[i]
		}
		if wanted != nil || auto {
			total := max(full-out[i], 0)
			w.before[i] = total / 2
			if w.auto != "SAME_UPPER" {
				w.before[i] = total - total/2
			}
			w.after[i] = total - w.before[i]
		}
		if out[i] < 0 {
			return nil, nil, fmt.Errorf("spatial axis %d: padding %d and %d leaves nothing of %d", i, w.before[i], w.after[i], full)
		}
	}
	return w, out, nil
}

func inferConvTranspose(c *Call) ([]ir.Type, error) {
	x, w := c.Type(0), c.Type(1)
	if !x.Ranked {
		return []ir.Type{{Elem: x.Elem}}, nil
	}
	rank, err := spatialRank(x, "the input")
	if err != nil {
		return nil, err
	}
	dims := make([]ir.Dim, rank+2)
	for i := range dims {
		dims[i] = ir.UnknownDim
	}
	dims[0] = x.Dims[0]
	if !w.Ranked {
		return []ir.Type{ir.TensorType(x.Elem, dims...)}, nil
	}
	if len(w.Dims) != rank+2 {
		return nil, fmt.Errorf("the weight is %v, wants rank %d as the input %v", w, rank+2, x)
	}
	if a, b := x.Dims[1], w.Dims[0]; a.Known() && b.Known() && a.Size != b.Size {
		return nil, fmt.Errorf("the input %v has %d channels, the weight %v wants %d", x, a.Size, w, b.Size)
	}
	if w.Dims[1].Known() {
		dims[1] = ir.Dim{Size: w.Dims[1].Size * max(c.Node.Int("group", 1), 0)}
	}
	kernel, ok := ir.TensorType(w.Elem, w.Dims[2:]...).Shape()
	if !ok {
		if c.Node.Attr("kernel_shape") == nil {
			return []ir.Type{ir.TensorType(x.Elem, dims...)}, nil
		}
		kernel = nil
	}
	for i, d := range x.Dims[2:] {
		const some = 1 << 20 // in place of sizes that are unknown
		sizes := make([]int, rank)
		for k := range sizes {
			sizes[k] = some
		}
		known := d.Known() || c.Node.Ints("output_shape") != nil
		if d.Known() {
			sizes[i] = int(d.Size)
		}
		_, out, err := transposedWindow(c.Node, sizes, kernel)
		if err != nil {
			return nil, err
		}
		switch {
		case known:
			dims[i+2] = ir.FixedDim(out[i])
		case out[i] == some:
			dims[i+2] = d
		}
	}
	return []ir.Type{ir.TensorType(x.Elem, dims...)}, nil
}

func convTranspose[T floatElem](c *Call) ([]*ir.Tensor, error) {
	xs, ws := c.In[0].Shape(), c.In[1].Shape()
	if len(xs) < 3 || len(ws) != len(xs) || ws[0] != xs[1] {
		return nil, fmt.Errorf("input %v and weight %v: wants [N, C, D1, …] and [C, M/group, k1, …]", xs, ws)
	}
	groups := int(c.Node.Int("group", 1))
	if ws[0] < 1 || ws[1] < 1 {
		return nil, fmt.Errorf("the weight %v has no channels", ws)
	}
	if groups < 1 || xs[1]%groups != 0 {
		return nil, fmt.Errorf("%d groups do not divide the %d input channels", groups, xs[1])
	}
	win, sizes, err := transposedWindow(c.Node, xs[2:], ws[2:])
	if err != nil {
		return nil, err
	}
	// v is the convolution that this one transposes: from the result's planes to the input's
	v := &convolution{w: win, batch: xs[0], groups: groups, cg: ws[1], mg: xs[1] / groups, in: sizes, out: xs[2:]}
	v.size, v.positions, v.taps = product(v.in), product(v.out), product(win.kernel)
	if v.taps == 0 {
		return nil, fmt.Errorf("the weight %v has an empty kernel", ws)
	}
	bias, err := vector[T](c, 2, groups*v.cg, "the bias")
	if err != nil {
		return nil, err
	}
	out, err := c.New(c.In[0].Elem(), append([]int{v.batch, groups * v.cg}, sizes...)...)
	if err != nil {
		return nil, err
	}
	if out.Len() == 0 {
		return []*ir.Tensor{out}, nil
	}
	v.tables()
	x, w, y := ir.Data[T](c.In[0]), ir.Data[T](c.In[1]), ir.Data[T](out)
	// a piece is some of the result's channels of a group: what the kernels add to them is one product
	step := max(min(v.cg, columnBlock/max(v.taps*v.positions, 1)), 1)
	pieces := (v.cg + step - 1) / step
	if err := c.room(8, step, v.taps, v.positions); err != nil {
		return nil, err
	}
	par.For(v.batch*groups*pieces, 1, func(lo, hi int) {
		cols := make([]T, step*v.taps*v.positions)
		for i := lo; i < hi; i++ {
			k, c0 := i/pieces, i%pieces*step // k: which image and group
			c1, g := min(c0+step, v.cg), k%groups
			rows, ld := (c1-c0)*v.taps, v.cg*v.taps
			multiply(rows, v.positions, v.mg, w[g*v.mg*ld+c0*v.taps:], ld, true,
				x[k*v.mg*v.positions:], v.positions, cols, v.positions)
			for ch := c0; ch < c1; ch++ {
				plane := y[(k*v.cg+ch)*v.size:][:v.size]
				var start T
				if bias != nil {
					start = bias[g*v.cg+ch]
				}
				setAll(plane, start)
				scatterColumns(v, plane, cols[(ch-c0)*v.taps*v.positions:])
			}
		}
	})
	return []*ir.Tensor{out}, nil
}

// scatterColumns adds rows of columns, one for each tap, to the plane positions they were gathered from.
func scatterColumns[T floatElem](v *convolution, plane, cols []T) {
	last := len(v.in) - 1
	iw, ow, stride := v.in[last], v.out[last], v.w.stride[last]
	for tap := range v.taps {
		shift := v.shift(tap)
		from, to := inside(shift, stride, iw, ow)
		for o := range v.rows {
			base, ok := v.row(o, tap)
			if !ok {
				continue
			}
			src := cols[tap*v.positions+o*ow:][:ow]
			row := plane[base : base+iw]
			for i := from; i < to; i++ {
				row[i*stride+shift] += src[i]
			}
		}
	}
}
