package onnxgo_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/owulveryck/onnx-go"
	"github.com/owulveryck/onnx-go/backend/testbackend"
	_ "github.com/owulveryck/onnx-go/backend/testbackend/onnx" // registers the corpus
	"github.com/qsimc/qsimc/backend/onnxgo"
	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/conform"
	"gorgonia.org/tensor"
)

// cases returns onnx-go's corpus by title.
func cases(t *testing.T) []*testbackend.TestCase {
	var list []*testbackend.TestCase
	for _, c := range testbackend.GetAllRegisteredTests() {
		list = append(list, c())
	}
	slices.SortFunc(list, func(a, b *testbackend.TestCase) int { return strings.Compare(a.Title, b.Title) })
	if len(list) < 300 {
		t.Fatalf("onnx-go registers %d cases, wanted its corpus of more than 300", len(list))
	}
	return list
}

// skips reads a file of titles, a line each, every one with its reason.
func skips(t *testing.T, file string) map[string]string {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' {
			title, reason, ok := strings.Cut(line, " ")
			if !ok {
				t.Errorf("%s: %s has no reason", file, title)
			}
			list[title] = reason
		}
	}
	return list
}

// expect fails unless err is nil exactly for the cases that are not on the list.
func expect(t *testing.T, title string, skip map[string]string, err error) {
	t.Helper()
	switch reason, listed := skip[title]; {
	case err == nil && listed:
		t.Errorf("%s passes: take it off the list (%s)", title, reason)
	case err != nil && !listed:
		t.Errorf("%s: %v", title, err)
	}
}

// The corpus through our own frontend and runtime.
func TestCorpus(t *testing.T) {
	t.Parallel()
	skip := skips(t, "testdata/skip.txt")
	for _, c := range cases(t) {
		expect(t, c.Title, skip, direct(c))
	}
}

func direct(c *testbackend.TestCase) error {
	m, err := frontend.Decode(c.ModelB, nil)
	if err != nil {
		return err
	}
	p, err := runtime.Compile(m)
	if err != nil {
		return err
	}
	free := m.Graph.FreeInputs()
	if len(free) != len(c.Input) {
		return fmt.Errorf("the model has %d inputs, the case %d", len(free), len(c.Input))
	}
	in := ir.Tensors{}
	for i, v := range free {
		t, err := onnxgo.FromGorgonia(c.Input[i])
		if err != nil {
			return err
		}
		if in[v.Name], err = single(t, v.Type); err != nil {
			return err
		}
	}
	out, err := p.Run(context.Background(), in)
	if err != nil {
		return err
	}
	for i, o := range m.Graph.Outputs() {
		if i >= len(c.ExpectedOutput) {
			break
		}
		want, err := onnxgo.FromGorgonia(c.ExpectedOutput[i])
		if err != nil {
			return err
		}
		if want, err = single(want, out[o.Name].Type()); err != nil {
			return err
		}
		if err := conform.Compare(out[o.Name], want, conform.For(want.Elem(), m.Graph)); err != nil {
			return fmt.Errorf("output %q: %w", o.Name, err)
		}
	}
	return nil
}

// single gives a tensor of one element the type that the model declares: the corpus stores single values as float32 [1]
// whatever they are.
func single(t *ir.Tensor, want ir.Type) (*ir.Tensor, error) {
	if t.Len() != 1 || t.Elem() != ir.Float32 {
		return t, nil
	}
	shape := t.Shape()
	if want.Rank() == 0 {
		shape = []int{}
	}
	v := ir.Data[float32](t)[0]
	switch want.Elem {
	case ir.Int64:
		return ir.FromSlice(ir.Int64, shape, []int64{int64(v)}), nil
	case ir.Int32:
		return ir.FromSlice(ir.Int32, shape, []int32{int32(v)}), nil
	}
	return t.Reshape(shape...)
}

// The corpus through onnx-go's decoder and the adapter.
func TestAdapter(t *testing.T) {
	skip := skips(t, "testdata/skip_adapter.txt")
	for _, c := range cases(t) {
		t.Run(c.Title, func(t *testing.T) {
			if reason, listed := skip[c.Title]; listed {
				t.Skip(reason)
			}
			m, err := frontend.Decode(c.ModelB, nil)
			if err != nil {
				t.Fatal(err)
			}
			c.RunTest(onnxgo.NewGraph(m.Opset[""]), false)(t)
		})
	}
}

// Mul(x, x): a graph keyed by edges would lose an input.
func TestSameInputTwice(t *testing.T) {
	t.Parallel()
	g := onnxgo.NewGraph(13)
	x, y := g.NewNode(), g.NewNode()
	g.AddNode(x)
	g.AddNode(y)
	g.SetWeightedEdge(g.NewWeightedEdge(y, x, 0))
	g.SetWeightedEdge(g.NewWeightedEdge(y, x, 1))
	if err := g.ApplyOperation(onnx.Operation{Name: "Mul"}, y); err != nil {
		t.Fatal(err)
	}
	if err := x.(onnx.DataCarrier).SetTensor(tensor.New(tensor.WithBacking([]float32{3, -4}))); err != nil {
		t.Fatal(err)
	}
	if err := g.Run(); err != nil {
		t.Fatal(err)
	}
	if got := y.(onnx.DataCarrier).GetTensor().Data(); !slices.Equal(got.([]float32), []float32{9, 16}) {
		t.Errorf("x·x = %v, want [9 16]", got)
	}
}
