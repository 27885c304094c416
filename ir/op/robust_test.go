package op_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
)

// TestNoPanic runs the cases of this package with shapes, types, attributes and inputs spoilt. Anything but a result or an
// error is a bug.
func TestNoPanic(t *testing.T) {
	t.Parallel()
	tables := [][]nnCase{productCases(), einsumCases(), convolutionCases(), poolCases(), normCases(), recurrentCases(), sequenceCases(), attentionCases()}
	for _, k := range slices.Concat(tables...) {
		t.Run(k.op+"/"+k.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(60) {
				if what := spoilt(k, rand.New(rand.NewPCG(seed, 7))); what != "" {
					t.Errorf("seed %d: %s", seed, what)
				}
			}
		})
	}
}

// spoilt changes up to three things of the case and runs it; it returns what panicked.
func spoilt(k nnCase, r *rand.Rand) (what string) {
	k.in, k.attrs = slices.Clone(k.in), slices.Clone(k.attrs)
	if d, _ := op.LookupID(ir.Op(k.op)); k.opset == 0 && r.IntN(3) == 0 {
		k.opset = d.Versions[r.IntN(len(d.Versions))]
	}
	k.want = make([]*ir.Tensor, len(k.want))
	for i := range k.want {
		k.want[i] = ir.Scalar(0)
	}
	absurd := []int64{-1, 0, 1, 2, 3, 1 << 30, 1 << 40, -1 << 62}
	for range 1 + r.IntN(3) {
		i := r.IntN(len(k.in))
		switch c := r.IntN(7); {
		case c < 3 && k.in[i] != nil: // another shape
			s := slices.Clone(k.in[i].Shape())
			switch {
			case len(s) > 0 && r.IntN(4) > 0:
				s[r.IntN(len(s))] = r.IntN(4)
			case len(s) > 0 && r.IntN(2) == 0:
				s = s[1:]
			default:
				s = append(s, 1+r.IntN(2))
			}
			if n, err := ir.Numel(s); err == nil && n < 1<<12 {
				x := ir.NewTensor(k.in[i].Elem(), s...)
				for b := range x.Bytes() {
					x.Bytes()[b] = byte(r.IntN(256) & -r.IntN(2))
				}
				k.in[i] = x
			}
		case c == 3 && k.in[i] != nil: // another type
			k.in[i] = ir.NewTensor([]ir.DType{ir.Float32, ir.Float64, ir.Float16, ir.Int64, ir.Int32, ir.Bool, ir.Uint8}[r.IntN(7)], k.in[i].Shape()...)
		case c == 4 && len(k.attrs) > 0: // another number
			a := &k.attrs[r.IntN(len(k.attrs))]
			a.I, a.F = absurd[r.IntN(len(absurd))], float32(absurd[r.IntN(len(absurd))])
			if a.Ints = slices.Clone(a.Ints); len(a.Ints) > 0 {
				a.Ints[r.IntN(len(a.Ints))] = a.I
			}
		case c == 5 && len(k.attrs) > 0:
			k.attrs = slices.Delete(k.attrs, 0, 1)
		default:
			k.in[i] = nil
		}
	}
	defer func() {
		if x := recover(); x != nil {
			what = fmt.Sprintf("compile: %v: opset %d, %v %v", x, k.opset, k.in, k.attrs)
		}
	}()
	from := r.IntN(len(k.in) + 1)
	m := k.model(from)
	for _, v := range m.Graph.Inputs() {
		if r.IntN(2) == 0 {
			for i := range v.Type.Dims {
				v.Type.Dims[i] = ir.NamedDim("N")
			}
		}
	}
	p, err := runtime.CompileWith(context.Background(), m, runtime.Options{MaxMemory: 1 << 24})
	if err != nil {
		return ""
	}
	feed := ir.Tensors{}
	for i, x := range k.in {
		if x != nil && i < from {
			feed[fmt.Sprintf("i%d", i)] = x
		}
	}
	if _, err := p.Run(context.Background(), feed); err != nil && strings.Contains(err.Error(), "panic:") {
		return err.Error()
	}
	return ""
}
