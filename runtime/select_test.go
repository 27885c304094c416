package runtime_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/testdata/shared"
)

// A selection joins steps, and shows what Watch does, to the bit.
func TestSelectedBits(t *testing.T) {
	t.Parallel()
	t.Run("testdata", func(t *testing.T) { selectFrom(t, "../testdata/opt-nano") })
	t.Run("shared", func(t *testing.T) {
		dir := shared.Dir(t)
		for _, name := range []string{"zoo/llama-nano", "models/gpt2-tiny-op11", "models/tfbert-tiny-mrpc-op10", "models/bert-toy-optimized", "models/wakeword-mlp"} {
			selectFrom(t, filepath.Join(dir, name))
		}
	})
}

func selectFrom(t *testing.T, dir string) {
	m, err := frontend.Load(filepath.Join(dir, "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	samples, err := frontend.Samples(dir, m, frontend.DataOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var in ir.Tensors
	for in, err = range samples() {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	p, err := runtime.Compile(m)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[*ir.Value][]byte{}
	var order []*ir.Value
	_, err = p.Watch(t.Context(), in, func(v *ir.Value, x *ir.Tensor) error {
		if x.Elem() != ir.String && v.Graph() == m.Graph {
			seen[v] = slices.Clone(x.Bytes())
			order = append(order, v)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []int{2, 7} {
		for first := range step {
			var values []*ir.Value
			for i := first; i < len(order); i += step {
				values = append(values, order[i])
			}
			s, err := runtime.Select(t.Context(), m, values, runtime.Options{})
			if err != nil {
				t.Fatal(err)
			}
			shown := 0
			err = s.Run(t.Context(), in, func(v *ir.Value, x *ir.Tensor) error {
				if shown++; !slices.Equal(seen[v], x.Bytes()) {
					t.Errorf("%s: value %q differs", dir, v.Name)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if shown != len(values) {
				t.Errorf("%s: %d values were shown, wanted %d", dir, shown, len(values))
			}
		}
	}
}
