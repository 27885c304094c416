package op_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/conform"
)

// Operators of ONNX Runtime's domain give what ONNX Runtime gives, also in storage full of ones; float results within the
// suite's tolerance, codes exactly.
func TestContrib(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/contrib.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range txtar.Parse(data).Files {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			m, err := ir.Parse(f.Name, f.Data)
			if err != nil {
				t.Fatal(err)
			}
			if err := op.Infer(m); err != nil {
				t.Fatal(err)
			}
			feed, want := ir.Tensors{}, ir.Tensors{}
			for v := range m.Graph.Values() {
				if name, ok := strings.CutPrefix(v.Name, "feed_"); ok {
					feed[name] = v.Const()
				} else if name, ok := strings.CutPrefix(v.Name, "want_"); ok {
					want[name] = v.Const()
				}
			}
			if len(want) != len(m.Graph.Outputs()) {
				t.Fatalf("there are %d results for %d outputs", len(want), len(m.Graph.Outputs()))
			}
			p, err := runtime.CompileWith(t.Context(), m, runtime.Options{Poison: true})
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.Run(context.Background(), feed)
			if err != nil {
				t.Fatal(err)
			}
			for name, w := range want {
				if err := conform.Compare(got[name], w, conform.For(w.Elem(), m.Graph)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}
