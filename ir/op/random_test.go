package op_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
)

// randomAttrs are the attributes of operators that move elements, with values that fit now and then.
var randomAttrs = map[string]func(r *rand.Rand) ir.Attr{
	"axis":                           func(r *rand.Rand) ir.Attr { return ir.IntAttr("axis", smallInt(r)) },
	"axes":                           func(r *rand.Rand) ir.Attr { return ir.IntsAttr("axes", smallInts(r)...) },
	"perm":                           func(r *rand.Rand) ir.Attr { return ir.IntsAttr("perm", smallInts(r)...) },
	"batch_dims":                     func(r *rand.Rand) ir.Attr { return ir.IntAttr("batch_dims", smallInt(r)) },
	"allowzero":                      func(r *rand.Rand) ir.Attr { return ir.IntAttr("allowzero", 1) },
	"blocksize":                      func(r *rand.Rand) ir.Attr { return ir.IntAttr("blocksize", smallInt(r)) },
	"num_outputs":                    func(r *rand.Rand) ir.Attr { return ir.IntAttr("num_outputs", smallInt(r)) },
	"k":                              func(r *rand.Rand) ir.Attr { return ir.IntAttr("k", smallInt(r)) },
	"sorted":                         func(r *rand.Rand) ir.Attr { return ir.IntAttr("sorted", 0) },
	"strides":                        func(r *rand.Rand) ir.Attr { return ir.IntsAttr("strides", smallInts(r)...) },
	"pads":                           func(r *rand.Rand) ir.Attr { return ir.IntsAttr("pads", smallInts(r)...) },
	"dilations":                      func(r *rand.Rand) ir.Attr { return ir.IntsAttr("dilations", smallInts(r)...) },
	"output_height":                  func(r *rand.Rand) ir.Attr { return ir.IntAttr("output_height", smallInt(r)) },
	"sampling_ratio":                 func(r *rand.Rand) ir.Attr { return ir.IntAttr("sampling_ratio", smallInt(r)) },
	"time_axis":                      func(r *rand.Rand) ir.Attr { return ir.IntAttr("time_axis", smallInt(r)) },
	"mode":                           choice("mode", "constant", "reflect", "edge", "wrap", "linear", "cubic", "nearest", "max", "CRD", "circular"),
	"reduction":                      choice("reduction", "add", "mul", "max", "min", "none"),
	"padding_mode":                   choice("padding_mode", "zeros", "border", "reflection"),
	"coordinate_transformation_mode": choice("coordinate_transformation_mode", "align_corners", "tf_crop_and_resize", "asymmetric", "output_half_pixel"),
	"keep_aspect_ratio_policy":       choice("keep_aspect_ratio_policy", "not_larger", "not_smaller"),
	"exclude_outside":                func(r *rand.Rand) ir.Attr { return ir.IntAttr("exclude_outside", 1) },
	"antialias":                      func(r *rand.Rand) ir.Attr { return ir.IntAttr("antialias", 1) },
}

func choice(name string, of ...string) func(r *rand.Rand) ir.Attr {
	return func(r *rand.Rand) ir.Attr { return ir.StringAttr(name, of[r.IntN(len(of))]) }
}

func smallInt(r *rand.Rand) int64 {
	switch r.IntN(30) {
	case 0:
		return math.MaxInt64
	case 1:
		return math.MinInt64
	case 2:
		return 1 << (20 + r.IntN(40))
	}
	return int64(r.IntN(7)) - 2
}

func smallInts(r *rand.Rand) []int64 {
	v := make([]int64, r.IntN(5))
	for i := range v {
		v[i] = smallInt(r)
	}
	return v
}

// randomTensor has up to four dimensions of at most four.
func randomTensor(r *rand.Rand) *ir.Tensor {
	shape := make([]int, []int{0, 1, 1, 2, 3, 4}[r.IntN(6)])
	n := 1
	for i := range shape {
		shape[i] = []int{0, 1, 1, 2, 2, 3, 4, 4}[r.IntN(8)]
		n *= shape[i]
	}
	switch r.IntN(10) {
	case 0:
		v := make([]byte, (n+1)/2)
		return packed(ir.Int4, shape, v...)
	case 1:
		return packed(ir.Bool, shape, make([]byte, n)...)
	case 2:
		return text(shape, make([]string, n)...)
	case 3, 4, 5:
		v := make([]int64, n)
		for i := range v {
			v[i] = smallInt(r)
		}
		return i64(shape, v...)
	}
	v := make([]float32, n)
	for i := range v {
		switch v[i] = float32(r.NormFloat64()); r.IntN(20) {
		case 0:
			v[i] = float32(math.NaN())
		case 1:
			v[i] = float32(math.Inf(1))
		case 2:
			v[i] = 1e30
		}
	}
	return f32(shape, v...)
}

// TestRandomNodes feeds operators whatever: they may refuse it, but must neither panic nor run away, and what inference
// says must hold of what the run gives.
func TestRandomNodes(t *testing.T) {
	t.Parallel()
	names := strings.Fields(`CenterCropPad Col2Im Compress Concat ConstantOfShape DepthToSpace Expand EyeLike Flatten Gather
		GatherElements GatherND GridSample NonMaxSuppression NonZero OneHot Pad Range Reshape Resize ReverseSequence RoiAlign
		Scatter ScatterElements ScatterND Size Slice SpaceToDepth Split Squeeze TensorScatter Tile TopK Transpose Trilu Unique
		Unsqueeze Upsample`)
	var attrs []string
	for name := range randomAttrs {
		attrs = append(attrs, name)
	}
	slices.Sort(attrs)
	ran := map[string]bool{}
	for i, name := range names {
		r := rand.New(rand.NewPCG(7, uint64(i)))
		d, ok := op.LookupID(ir.Op(name))
		if !ok {
			t.Fatalf("%s is not in the table", name)
		}
		for range 200 {
			c := nodeCase{op: name, opset: 25, outs: d.Out.Min + r.IntN(2)}
			if r.IntN(4) == 0 {
				c.opset = d.Since + r.IntN(25-d.Since+1)
			}
			for range d.In.Min + r.IntN(3) {
				c.in = append(c.in, randomTensor(r))
			}
			if len(c.in) > 1 && r.IntN(3) > 0 { // an operand of the same type as the first
				c.in[len(c.in)-1] = c.in[0]
			}
			if len(c.in) > 1 && r.IntN(3) > 0 {
				c.in[1] = ir.Ints(smallInts(r)...)
			}
			if r.IntN(20) == 0 {
				c.in[r.IntN(len(c.in))] = nil
			}
			for range r.IntN(3) {
				a := randomAttrs[attrs[r.IntN(len(attrs))]](r)
				c.attrs = append(c.attrs, a)
			}
			c.fed = r.IntN(len(c.in) + 1)
			if err := runRandom(c); err == nil {
				ran[name] = true
			} else if s := err.Error(); strings.Contains(s, "panic") || strings.Contains(s, "BUG") {
				in := ""
				for _, x := range c.in {
					in += " " + show(x)
				}
				t.Errorf("%s at opset %d of%s with %v: %v", name, c.opset, in, c.attrs, err)
			}
		}
	}
	if len(ran) < len(names)/2 {
		t.Errorf("only %d of %d operators ever ran: the inputs are too random to test anything", len(ran), len(names))
	}
}

func runRandom(c nodeCase) (err error) {
	defer func() {
		if x := recover(); x != nil {
			err = fmt.Errorf("panic: %v", x)
		}
	}()
	m, feed := c.model()
	p, err := runtime.CompileWith(context.Background(), m, runtime.Options{MaxMemory: 1 << 20})
	if err != nil {
		return err
	}
	if err := op.Infer(m); err != nil {
		return fmt.Errorf("panic: compiles but is not inferred: %w", err)
	}
	got, err := p.Run(context.Background(), feed)
	if err != nil {
		return err
	}
	for _, o := range m.Graph.Outputs() {
		if _, err := ir.Merge(o.Value.Type, got[o.Name].Type()); err != nil {
			return fmt.Errorf("panic: inferred otherwise: %w", err)
		}
	}
	return nil
}
