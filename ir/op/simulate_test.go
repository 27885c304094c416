package op_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
)

// formats are all formats that activations can have, and variants of them.
var simulated = []string{
	"int2", "int3", "int4", "int5", "int8", "int12", "int16", "int4/full", "uint3", "uint4", "uint8", "int8/asym", "int4/asym", "uint8/sym",
	"int8/narrow7", "uint8/narrow7", "uint16", "e2m1", "e1m2", "e3m0", "e2m3", "e3m2", "e4m3", "e5m2", "e4m3fnuz", "e5m2fnuz", "e3m4", "e5m10", "e1m6", "nf4",
	"flint4", "int4/scale=bf16", "int8/scale=bf16", "int12/scale=bf16", "e2m1/scale=bf16", "e4m3/scale=bf16up", "int4/scale=pow2", "e3m2/scale=pow2",
	"uint8/scale=pow2", "uint4/scale=bf16", "int4/scale=e8m0", "e2m1/scale=e8m0/mx=ceil", "e2m1/scale=e8m0/mx=even", "int8/scale=e8m0/mx=even", "int8/scale=e8m0/mx=ceil", "int4/arith=trt",
	"nf4/scale=bf16",
}

var blocked = []string{
	"int4/block=4/scale2=4", "int4/block=4/scale2=6/min1", "e2m1/block=4/scale=e4m3", "int4/block=4/scale=ue5m3", "mxfp4", "mxfp6e2m3", "mxfp6e3m2", "mxfp8e4m3",
	"mxfp8e5m2", "mxint8", "mxint8/mx=ceil", "nvfp4", "nvint4",
}

var unscaled = []string{
	"fp16", "bf16", "e4m3/scale=none", "e5m2/scale=none", "e2m1/scale=none", "int8/scale=none", "qpt-e4m3", "qpt-e5m10", "qpt-e2m1", "e3m0/scale=none",
	"e4m3fnuz/scale=none", "e8m7", "e8m3",
}

type simCase struct {
	scheme string
	axis   int
	shape  []int
}

func simCases() []simCase {
	var out []simCase
	for _, f := range simulated {
		for _, gran := range []string{"/dynamic", "/token", "/block=4", "/axis=1/dynamic"} {
			out = append(out, simCase{f + gran, -1, []int{3, 2, 10}})
		}
		out = append(out, simCase{f + "/block=4", 1, []int{2, 11, 3}}, simCase{f + "/token", 1, []int{2, 5, 3}}, simCase{f + "/block=16", -1, []int{3, 10}})
		out = append(out, simCase{f, -1, []int{3, 10}}, simCase{f + "/axis=0", -1, []int{3, 10}}, simCase{f + "/axis=1", -1, []int{3, 10}})
	}
	for _, f := range blocked {
		out = append(out, simCase{f, -1, []int{3, 70}}, simCase{f, 1, []int{2, 33, 3}})
	}
	for _, f := range unscaled {
		out = append(out, simCase{f, -1, []int{3, 50}})
	}
	return out
}

// values are random over many binades, with zeros, a zero block, subnormals and ties.
func values(n int, seed uint64, finite bool) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64() * math.Exp2(float64(r.IntN(9)-4)))
		switch r.IntN(12) {
		case 0:
			x[i] = 0
		case 1:
			x[i] = float32(math.Copysign(0, -1))
		case 2:
			x[i] = float32(math.Round(float64(x[i])*4) / 4)
		case 3:
			x[i] *= 1e-9
		case 4:
			x[i] *= 1e-30 * 1e-10
		}
		if i%40 < 8 {
			x[i] *= 1e-12
		}
	}
	if !finite && n > 9 {
		copy(x[n-9:], []float32{float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), 3e38, -3e38, 464, 465, 61440, 1e5})
	}
	return x
}

// graphOf is a model y = FakeQuant(x), spelled by emit.
func graphOf(t *testing.T, opset int, c simCase, shape []ir.Dim, emit func(m *ir.Model, x *ir.Value, in []*ir.Value, f op.FakeQuant) (*ir.Value, error)) *ir.Model {
	t.Helper()
	m := ir.NewModel(opset)
	m.IRVersion = ir.VersionFor(opset)
	typ := ir.Type{Kind: ir.TensorKind, Elem: ir.Float32, Ranked: true, Dims: shape}
	x := m.Graph.AddInput("x", typ)
	s, err := numfmt.ParseScheme(c.scheme, numfmt.Input)
	if err != nil {
		t.Fatal(err)
	}
	axis := c.axis
	if axis < 0 {
		axis += len(c.shape)
	}
	f := op.FakeQuant{Scheme: s, Axes: numfmt.Axes{K: axis, Out: numfmt.NoAxis}}
	in := []*ir.Value{x}
	if s.Scaled() && !s.Dynamic {
		l, err := f.Layout(c.shape)
		if err != nil {
			t.Fatal(err)
		}
		lo, hi := make([]float32, l.Groups()), make([]float32, l.Groups())
		for i := range lo {
			lo[i], hi[i] = -0.75*float32(i+1), float32(i+1)
		}
		p, err := s.Fit(lo, hi)
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, m.Graph.Const("s", ir.Floats(p.Scale, l.ScaleShape()...)))
		if p.Zero != nil {
			in = append(in, m.Graph.Const("z", ir.Floats(p.Zero, l.ScaleShape()...)))
		}
	}
	m.Opset[op.Domain] = 1
	y, err := emit(m, x, in, f)
	if err != nil {
		t.Fatalf("emit: %v", err)
	}
	m.Graph.AddOutput("y", y)
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	if err := op.Verify(m); err != nil {
		t.Fatal(err)
	}
	return m
}

func runOne(t *testing.T, m *ir.Model, x *ir.Tensor, o runtime.Options) []float32 {
	t.Helper()
	p, err := runtime.CompileWith(t.Context(), m, o)
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Run(context.Background(), ir.Tensors{"x": x})
	if err != nil {
		t.Fatal(err)
	}
	y, _ := out["y"].Float32s()
	return y
}

// Every spelling of a scheme in operators of ONNX gives FakeQuant's values bit for bit: as a function, written out, with
// QuantizeLinear where it can; for known and unknown lengths; and the runtime recognizes each as one FakeQuant node. The one
// liberty is the sign of zeros under dynamic scales: blocks of zeros become +0 in FakeQuant's fast kernels, and int4 has no
// -0 to carry e1m2's.
func TestSimulation(t *testing.T) {
	t.Parallel()
	for i, c := range simCases() {
		t.Run(fmt.Sprintf("%s axis=%d shape=%v", c.scheme, c.axis, c.shape), func(t *testing.T) {
			t.Parallel()
			s, err := numfmt.ParseScheme(c.scheme, numfmt.Input)
			if err != nil {
				t.Fatal(err)
			}
			n := 1
			var known, open []ir.Dim
			for k, d := range c.shape {
				n *= d
				known = append(known, ir.Dim{Size: int64(d)})
				open = append(open, ir.Dim{Size: -1, Name: fmt.Sprintf("d%d", k)})
			}
			x := ir.Floats(values(n, uint64(i), s.Dynamic), c.shape...)
			fake := graphOf(t, 17, c, known, func(m *ir.Model, _ *ir.Value, in []*ir.Value, f op.FakeQuant) (*ir.Value, error) {
				k, err := op.Insert(m.Graph, nil, "fq", op.FakeQuantOp, in, []string{"y"}, f.Attrs()...)
				if err != nil {
					return nil, err
				}
				return k.Out(0), nil
			})
			want := runOne(t, fake, x, runtime.Options{})
			check := func(name string, dims []ir.Dim, sim op.Simulation, call bool) {
				t.Helper()
				opset := 17
				if sim.Native != numfmt.ElemNone {
					opset = 25
				}
				m := graphOf(t, opset, c, dims, func(m *ir.Model, x *ir.Value, in []*ir.Value, f op.FakeQuant) (*ir.Value, error) {
					sim.FakeQuant, sim.Rank, sim.Opset = f, len(c.shape), opset
					if !call {
						return sim.Insert(m.Graph, nil, "x", "test", in)
					}
					fn, err := sim.Function(m, "F")
					if err != nil {
						return nil, err
					}
					m.Functions = append(m.Functions, fn)
					k := m.Graph.Insert(nil, "call", ir.OpID{Domain: op.Domain, Type: "F"}, in, []string{"y"})
					k.Out(0).Type = x.Type
					return k.Out(0), nil
				})
				for _, plain := range []bool{true, false} {
					got := runOne(t, m, x, runtime.Options{Plain: plain})
					for k := range want {
						same := math.Float32bits(got[k]) == math.Float32bits(want[k]) || got[k] != got[k] && want[k] != want[k]
						if !same && !(s.Dynamic && got[k] == 0 && want[k] == 0) {
							t.Errorf("%s (plain %v): x[%d] = %v gives %v, FakeQuant %v", name, plain, k, ir.Data[float32](x)[k], got[k], want[k])
							break
						}
					}
				}
				form, err := op.Canonicalize(m)
				if err != nil {
					t.Fatal(err)
				}
				op.Recognize(form.Model)
				form.Model.Graph.Prune()
				for k := range form.Model.Graph.Nodes() {
					if k.Op != op.FakeQuantOp {
						t.Errorf("%s: %v is left after recognition", name, k)
						break
					}
				}
			}
			length := c.shape[len(c.shape)-1]
			if c.axis >= 0 {
				length = c.shape[c.axis]
			}
			check("inlined", known, op.Simulation{Length: length, Factor: 1}, false)
			if i%4 == 0 {
				check("function", known, op.Simulation{Length: length, Factor: 1}, true)
			}
			if s.Gran == numfmt.PerBlock {
				check("open", open, op.Simulation{Length: -1, Factor: 1}, false)
			}
			carriers, err := s.Carriers()
			if err != nil {
				return
			}
			for _, ca := range carriers {
				sim := op.Simulation{Length: length, Native: ca.Elem, Factor: ca.Factor, Opset: 25, Rank: len(c.shape)}
				sim.Scheme, sim.Axes.K, sim.Axes.Out = s, (c.axis+len(c.shape))%len(c.shape), numfmt.NoAxis
				if ca.Scale != numfmt.ElemFloat || ca.Opset > 23 || sim.Check() != nil {
					continue
				}
				check("native "+ca.Elem.String(), known, sim, false)
			}
		})
	}
}
