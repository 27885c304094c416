package runtime_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	goruntime "runtime"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
)

// TestStockInRuns runs programs that nobody holds on to, while the collector runs: their weights last as long as the run.
func TestStockInRuns(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	random := func(shape ...int) *ir.Tensor {
		x := ir.NewTensor(ir.Float32, shape...)
		for i, v := 0, ir.Data[float32](x); i < len(v); i++ {
			v[i] = r.Float32() - 0.5
		}
		return x
	}
	m := ir.NewModel(17)
	g := m.Graph
	x := g.AddInput("x", ir.FixedType(ir.Float32, 1, 64, 16, 16))
	conv := g.Insert(nil, "conv", ir.Op("Conv"), []*ir.Value{x, g.Const("w", random(64, 64, 3, 3))}, []string{"c"}, ir.IntsAttr("pads", 1, 1, 1, 1))
	flat := g.Insert(nil, "flat", ir.Op("Reshape"), []*ir.Value{conv.Out(0), g.Const("shape", ir.Ints(64, 256))}, []string{"f"})
	product := g.Insert(nil, "product", ir.Op("MatMul"), []*ir.Value{flat.Out(0), g.Const("m", random(256, 256))}, []string{"y"})
	g.AddOutput("y", product.Out(0))
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	in := ir.Tensors{"x": random(1, 64, 16, 16)}

	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				goruntime.GC()
			}
		}
	}()
	run := map[string]func(p *runtime.Program) ([]byte, error){
		"Run": func(p *runtime.Program) ([]byte, error) {
			out, err := p.Run(context.Background(), in)
			return out["y"].Bytes(), err
		},
		"Watch": func(p *runtime.Program) ([]byte, error) {
			out, err := p.Watch(context.Background(), in, func(*ir.Value, *ir.Tensor) error { return nil })
			return out["y"].Bytes(), err
		},
		"Lend": func(p *runtime.Program) (y []byte, err error) {
			err = p.Lend(context.Background(), in, func(out ir.Tensors) error { y = bytes.Clone(out["y"].Bytes()); return nil })
			return y, err
		},
	}
	for name, f := range run {
		var want []byte
		for i := range 10 {
			p, err := runtime.Compile(m)
			if err != nil {
				t.Fatal(err)
			}
			got, err := f(p)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if want == nil {
				want = got
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("%s: run %d gives other results", name, i)
			}
		}
	}
}
