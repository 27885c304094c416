package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// Domain is the domain of qsimc's own operators.
const Domain = "qsimc"

// fakeQuantDef is the one quantization node that passes insert: x quantized and dequantized as the attribute scheme says,
// along the attributes axis (contraction axis, for blocks and tokens) and out_axis. Static schemes take their scale, and
// affine ones their zero point, from inputs 1 and 2, in the shape numfmt.Layout.ScaleShape gives; dynamic ones fit x itself.
// Input 3 is the coarse scale of two-level schemes, for lowering to store both levels; the scale of input 1 counts.
var fakeQuantDef = &Def{
	Domain: Domain, Name: "FakeQuant", Doc: "quantize and dequantize by a scheme, float in and out", Since: 1, Versions: []int{1},
	Types: "float, float16, bfloat16", In: Between(1, 4), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		f, err := ReadFakeQuant(c.Node)
		if err != nil {
			return nil, err
		}
		shape, ok1 := c.Type(0).Shape()
		scale, ok2 := c.Type(1).Shape()
		if ok1 && ok2 && f.Scheme.Scaled() && !f.Scheme.Dynamic {
			l, err := f.Layout(shape)
			if err != nil {
				return nil, err
			}
			if want := l.ScaleShape(); fmt.Sprint(want) != fmt.Sprint(scale) {
				return nil, fmt.Errorf("scale has shape %v, scheme %s on %v wants %v", scale, f.Scheme, shape, want)
			}
		}
		return same(c)
	},
	Prepare: func(c *Call) (any, error) {
		f, err := ReadFakeQuant(c.Node)
		return f, err
	},
	Eval: evalFakeQuant,
}

// FakeQuant is what the attributes of a FakeQuant node say.
type FakeQuant struct {
	Scheme numfmt.Scheme
	Axes   numfmt.Axes
	// Clip says that values beyond the scheme's range occur (its scale was calibrated below the largest magnitude), so that
	// lowering must clip to the range where the carrying type has codes beyond it. Simulation clips in any case.
	Clip bool
}

// ReadFakeQuant reads the attributes of a FakeQuant node.
func ReadFakeQuant(n *ir.Node) (*FakeQuant, error) {
	s, err := numfmt.ParseScheme(n.Str("scheme", ""), numfmt.Input)
	if err != nil {
		return nil, err
	}
	f := &FakeQuant{Scheme: s, Axes: numfmt.Axes{K: numfmt.NoAxis, Out: numfmt.NoAxis}}
	if n.Attr("axis") != nil {
		f.Axes.K = int(n.Int("axis", 0))
	}
	if n.Attr("out_axis") != nil {
		f.Axes.Out = int(n.Int("out_axis", 0))
	}
	f.Clip = n.Int("clip", 0) != 0
	return f, nil
}

// FakeQuantParams returns the parameters of a FakeQuant node with a static scheme; false where they are not constants.
func FakeQuantParams(n *ir.Node) (numfmt.Params, bool) {
	scale := ConstantOf(n.In(1))
	if scale == nil || scale.Load() != nil {
		return numfmt.Params{}, false
	}
	var zero *ir.Tensor
	if n.In(2) != nil {
		if zero = ConstantOf(n.In(2)); zero == nil || zero.Load() != nil {
			return numfmt.Params{}, false
		}
	}
	p, err := scaleParams(scale, zero)
	return p, err == nil
}

// Attrs are the attributes that ReadFakeQuant reads back.
func (f *FakeQuant) Attrs() []ir.Attr {
	attrs := []ir.Attr{ir.StringAttr("scheme", f.Scheme.Text(numfmt.Input))}
	if f.Axes.K != numfmt.NoAxis {
		attrs = append(attrs, ir.IntAttr("axis", int64(f.Axes.K)))
	}
	if f.Axes.Out != numfmt.NoAxis {
		attrs = append(attrs, ir.IntAttr("out_axis", int64(f.Axes.Out)))
	}
	if f.Clip {
		attrs = append(attrs, ir.IntAttr("clip", 1))
	}
	return attrs
}

// Layout places the scheme on a tensor.
func (f *FakeQuant) Layout(shape []int) (numfmt.Layout, error) { return f.Scheme.Layout(shape, f.Axes) }

func evalFakeQuant(c *Call) ([]*ir.Tensor, error) {
	f, _ := c.State.(*FakeQuant)
	if f == nil {
		var err error
		if f, err = ReadFakeQuant(c.Node); err != nil {
			return nil, err
		}
	}
	x, ok := c.In[0].Float32s()
	if !ok {
		return nil, fmt.Errorf("x is %v: %w", c.In[0].Elem(), ErrUnsupported)
	}
	shape := c.In[0].Shape()
	l, err := f.Layout(shape)
	if err != nil {
		return nil, err
	}
	out, err := c.New(ir.Float32, shape...)
	if err != nil {
		return nil, err
	}
	dst := ir.Data[float32](out)
	if f.Scheme.Dynamic || !f.Scheme.Scaled() {
		return one(out, f.Scheme.ApplyDynamic(dst, x, l))
	}
	if !c.Has(1) {
		return nil, fmt.Errorf("scheme %s is static and has no scale", f.Scheme)
	}
	var zero *ir.Tensor
	if c.Has(2) {
		zero = c.In[2]
	}
	p, err := scaleParams(c.In[1], zero)
	if err != nil {
		return nil, err
	}
	if l.Gran == numfmt.PerTensor {
		// split over cores: elements are independent of each other
		errs := make([]error, (len(x)+chunk-1)/chunk)
		par.For(len(errs), 1, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				a, b := i*chunk, min((i+1)*chunk, len(x))
				part, err := f.Scheme.Layout([]int{b - a}, f.Axes)
				if err == nil {
					err = f.Scheme.Apply(dst[a:b], x[a:b], part, p)
				}
				errs[i] = err
			}
		})
		for _, err := range errs {
			if err != nil {
				return nil, err
			}
		}
		return []*ir.Tensor{out}, nil
	}
	return one(out, f.Scheme.Apply(dst, x, l, p))
}

// chunk is the number of elements one task of an elementwise kernel takes.
const chunk = 16384
