package runtime

import (
	"math"
	"slices"
	"sync"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// convolution is the state of a joined convolution.
type convolution struct {
	node     *ir.Node // the Conv
	weight   *ir.Tensor
	scale    []float32        // of each output channel, of a following BatchNormalization; nil: none
	scaled   func() []float32 // the weight times the scale
	winograd *kernel.Winograd // the same, transformed; nil: not worth it
	codes    *integerConv     // the sums on codes; nil: in float
	bias     []float32
	tail     tail
}

// conv joins a convolution with constant weights, a BatchNormalization after it, and its tail.
func (f *fuser) conv(i int) {
	st := &f.steps[i]
	if !f.is(i, "Conv") {
		return
	}
	w := f.constant(st.in[1])
	if w == nil || w.Elem() != ir.Float32 || w.Rank() < 3 || w.Rank() > 4 {
		return
	}
	c := &convolution{node: st.node, weight: w}
	if len(st.in) > 2 && st.in[2] >= 0 {
		b := f.constant(st.in[2])
		if b == nil || b.Len() != w.Shape()[0] {
			return
		}
		c.bias = ir.Data[float32](b)
	}
	in, parts := []int{st.in[0]}, []int{i}
	n, ok := f.next(st.out[0])
	if ok && f.is(n, "BatchNormalization") && f.normalized(n, c) {
		parts = append(parts, n)
		i = n
	}
	var from coded
	if len(parts) == 1 {
		if c.codes, from, ok = f.integerConv(st); ok {
			in[0] = from.slot
		}
	}
	c.tail = f.follow(i, func(t *ir.Tensor) bool { return false })
	if c.tail.residual >= 0 {
		in = append(in, c.tail.residual)
	}
	for _, k := range c.tail.parts {
		if !slices.Contains(parts, k) {
			parts = append(parts, k)
		}
	}
	if c.codes == nil {
		f.weights(c)
	}
	if st = f.join(convDef, c, in, parts...); c.codes != nil {
		f.onCodes(st, from)
	}
}

// weights prepares the weights of a convolution in float.
func (f *fuser) weights(c *convolution) {
	raw, stock := ir.Data[float32](c.weight), f.p.stock
	c.scaled = sync.OnceValue(func() []float32 {
		if c.scale == nil {
			return raw
		}
		w, per := stock.Floats(len(raw)), len(raw)/len(c.scale)
		par.For(len(c.scale), 1+(1<<14)/max(per, 1), func(lo, hi int) {
			for k := lo; k < hi; k++ {
				kernel.MulScalar(w[k*per:(k+1)*per], raw[k*per:(k+1)*per], c.scale[k])
			}
		})
		return w
	})
	if sh := c.weight.Shape(); len(sh) == 4 && f.winograd(c) {
		c.winograd = kernel.NewWinograd(f.p.stock, sh[0], sh[1], raw, c.scale)
		return
	}
	c.scaled()
}

// winograd reports whether a convolution may be computed by Winograd's algorithm, as far as it is known before the run.
func (f *fuser) winograd(c *convolution) bool {
	x, sh := c.node.In(0).Type, c.weight.Shape()
	shape := []int{1, sh[1], 1 << 10, 1 << 10} // of sizes that are not known: large
	if x.Ranked && len(x.Dims) == 4 {
		for i := 2; i < 4; i++ {
			if x.Dims[i].Size > 0 {
				shape[i] = int(x.Dims[i].Size)
			}
		}
	}
	g, _, err := op.ConvGeometry(c.node, shape, sh)
	return err == nil && kernel.WinogradTakes(g) && (!f.p.runOnly || f.p.reserve(64*int64(sh[0])*int64(sh[1])))
}

// normalized takes the BatchNormalization of step n as a scale and the bias.
func (f *fuser) normalized(n int, c *convolution) bool {
	st := &f.steps[n]
	m := c.weight.Shape()[0]
	var p [4][]float32 // scale, shift, mean, variance
	for k := range p {
		t := f.constant(st.in[k+1])
		if t == nil || t.Elem() != ir.Float32 || t.Len() != m {
			return false
		}
		p[k] = ir.Data[float32](t)
	}
	for _, s := range st.out[1:] {
		if s >= 0 {
			return false
		}
	}
	if st.node.Int("training_mode", 0) != 0 {
		return false
	}
	eps := float64(st.node.Float("epsilon", 1e-5))
	c.scale = make([]float32, m)
	bias := make([]float32, m)
	for k := range m {
		by := float64(p[0][k]) / math.Sqrt(float64(p[3][k])+eps)
		b := -float64(p[2][k])
		if c.bias != nil {
			b += float64(c.bias[k])
		}
		c.scale[k], bias[k] = float32(by), float32(float64(b*by)+float64(p[1][k]))
	}
	c.bias = bias
	return true
}

// inputs is the number of inputs of a joined convolution: x and the residual, if any.
func (s *convolution) inputs() int {
	if s.tail.residual >= 0 {
		return 2
	}
	return 1
}

// geometry returns what the convolution does to inputs, and the shape of the result.
func (s *convolution) geometry(in []*ir.Tensor) (kernel.Conv2D, []int, error) {
	elem := ir.Float32
	if s.codes != nil {
		elem = s.codes.elem
	}
	if in[0].Elem() != elem {
		return kernel.Conv2D{}, nil, errUnfit
	}
	g, shape, err := op.ConvGeometry(s.node, in[0].Shape(), s.weight.Shape())
	if err != nil {
		return g, nil, errUnfit // the parts say what is wrong
	}
	if s.tail.residual >= 0 && (in[1].Elem() != ir.Float32 || !slices.Equal(in[1].Shape(), shape) && !perChannel(in[1].Shape(), shape)) {
		return g, nil, errUnfit
	}
	return g, shape, nil
}

// perChannel reports whether a shape is that of one value for each image and channel.
func perChannel(s, of []int) bool {
	return len(s) == len(of) && s[0] == of[0] && s[1] == of[1] && !slices.ContainsFunc(s[2:], func(d int) bool { return d != 1 })
}

// epilogue is what follows the sums, but for the residual.
func (s *convolution) epilogue() *kernel.Epilogue {
	return &kernel.Epilogue{RowBias: s.bias, Act: s.tail.act, Lo: s.tail.lo, Hi: s.tail.hi}
}

// run computes the convolution into dst.
func (s *convolution) run(g kernel.Conv2D, dst []float32, in []*ir.Tensor) {
	ep := s.epilogue()
	oh, ow := g.Out()
	if s.tail.residual < 0 || len(dst) == 0 {
		s.convolve(g, dst, in[0], 0, ep)
		return
	}
	res := ir.Data[float32](in[1])
	if len(res) == g.N*g.M*oh*ow {
		ep.Residual = res
		s.convolve(g, dst, in[0], 0, ep)
		return
	}
	// a bias for each image
	image, one := g.M*oh*ow, g
	one.N, one.OutStride = 1, 0
	ep.RowBias = make([]float32, g.M)
	for n := range g.N {
		row := res[n*g.M:][:g.M]
		if s.bias != nil {
			kernel.Add(ep.RowBias, row, s.bias)
		} else {
			copy(ep.RowBias, row)
		}
		s.convolve(one, dst[n*max(g.OutStride, image):][:image], in[0], n, ep)
	}
}

// convolve computes the convolution of the images of x from number first on.
func (s *convolution) convolve(g kernel.Conv2D, dst []float32, x *ir.Tensor, first int, ep *kernel.Epilogue) {
	image := g.C * g.H * g.W
	if s.codes != nil {
		s.codes.convolve(g, dst, x, first*image, ep)
		return
	}
	from := ir.Data[float32](x)[first*image:][:g.N*image]
	if s.winograd != nil && kernel.WinogradTakes(g) {
		s.winograd.Conv(g, dst, from, ep)
		return
	}
	kernel.Conv(g, dst, from, s.scaled(), ep)
}

// convDef computes act(conv(x, w) + bias + residual); inputs are x and the residual, if any.
var convDef = &op.Def{Name: "convolution", Eval: func(c *op.Call) ([]*ir.Tensor, error) {
	s := c.State.(*convolution)
	g, shape, err := s.geometry(c.In)
	if err != nil {
		return nil, err
	}
	out, err := c.New(ir.Float32, shape...)
	if err != nil {
		return nil, err
	}
	s.run(g, ir.Data[float32](out), c.In)
	return []*ir.Tensor{out}, nil
}}

// pooled is the state of a convolution joined with the MaxPool of its result.
type pooled struct {
	conv *convolution
	pool *ir.Node
}

// maxPool joins a MaxPool with the convolution whose result nothing else reads. Those that work on codes, or by Winograd's algorithm, or add
// something large, stay apart.
func (f *fuser) maxPool(i int) {
	st := &f.steps[i]
	if !f.is(i, "MaxPool") || len(st.out) > 1 && st.out[1] >= 0 {
		return
	}
	j, ok := f.by[st.in[0]]
	if !ok || f.gone[j] || f.steps[j].def != convDef || !f.private(st.in[0], i) {
		return
	}
	c := f.steps[j].state.(*convolution)
	if ep := c.epilogue(); c.codes != nil || c.winograd != nil || c.tail.residual >= 0 || c.node.Int("group", 1) != 1 || !ep.InTiles() {
		return
	}
	f.join(pooledDef, &pooled{c, st.node}, f.steps[j].in, j, i)
}

var pooledDef = &op.Def{Name: "convolution and MaxPool", Eval: func(c *op.Call) ([]*ir.Tensor, error) {
	s := c.State.(*pooled)
	g, shape, err := s.conv.geometry(c.In)
	if err != nil {
		return nil, err
	}
	q, shape, err := op.MaxPoolGeometry(s.pool, shape)
	if err != nil {
		return nil, errUnfit
	}
	out, err := c.New(ir.Float32, shape...)
	if err != nil {
		return nil, err
	}
	kernel.ConvMaxPool(g, q, ir.Data[float32](out), ir.Data[float32](c.In[0]), s.conv.scaled(), s.conv.epilogue())
	return []*ir.Tensor{out}, nil
}}

// channels is the state of a joined concatenation of channels: by input of the Concat the convolution that makes it, nil where
// it is made elsewhere.
type channels []*convolution

// concat joins a concatenation of channels with the convolutions whose results nothing else reads: they write to where
// their channels belong.
func (f *fuser) concat(i int) {
	st := &f.steps[i]
	if !f.is(i, "Concat") {
		return
	}
	var state channels
	var in []int
	parts, rank := []int{i}, 0
	for _, s := range st.in {
		j, ok := f.by[s]
		if !ok || f.gone[j] || f.steps[j].def != convDef || !f.private(s, i) {
			state, in = append(state, nil), append(in, s)
			continue
		}
		c := f.steps[j].state.(*convolution)
		rank = c.weight.Rank()
		state, in, parts = append(state, c), append(in, f.steps[j].in...), append(parts, j)
	}
	if axis := st.node.Int("axis", 1); rank == 0 || axis != 1 && axis != int64(1-rank) {
		return
	}
	f.join(channelsDef, state, in, parts...)
}

var channelsDef = &op.Def{Name: "channels", Eval: func(c *op.Call) ([]*ir.Tensor, error) {
	s := c.State.(channels)
	var all []int // shape of the result
	shapes, geometries := make([][]int, len(s)), make([]kernel.Conv2D, len(s))
	in := c.In
	for k, conv := range s {
		shape, used := in[0].Shape(), 1
		if conv != nil {
			var err error
			if geometries[k], shape, err = conv.geometry(in); err != nil {
				return nil, err
			}
			used = conv.inputs()
		}
		if conv == nil && in[0].Elem() != ir.Float32 || all != nil && (len(shape) != len(all) || shape[0] != all[0] || !slices.Equal(shape[2:], all[2:])) {
			return nil, errUnfit
		}
		if shapes[k], in = shape, in[used:]; all == nil {
			all = slices.Clone(shape)
		} else {
			all[1] += shape[1]
		}
	}
	out, err := c.New(ir.Float32, all...)
	if err != nil || out.Len() == 0 {
		return []*ir.Tensor{out}, err
	}
	y, image := ir.Data[float32](out), out.Len()/all[0]
	in = c.In
	for k, conv := range s {
		own := 1
		for _, d := range shapes[k][1:] {
			own *= d
		}
		if conv != nil {
			g := geometries[k]
			g.OutStride = image
			conv.run(g, y[:(all[0]-1)*image+own], in)
			in = in[conv.inputs():]
		} else {
			kernel.CopyRows(all[0], own, y, image, ir.Data[float32](in[0]), own)
			in = in[1:]
		}
		y = y[own:]
	}
	return []*ir.Tensor{out}, nil
}}
