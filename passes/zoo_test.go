package passes_test

import (
	"bytes"
	"os"
	"path/filepath"
	goruntime "runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qsimc/qsimc/backend"
	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/passes/recipe"
	"github.com/qsimc/qsimc/testdata/shared"
)

func load(t *testing.T, name string) *ir.Model {
	t.Helper()
	m, err := frontend.Load(filepath.Join(shared.Dir(t), "zoo", name, "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func preset(t *testing.T, name string) (*passes.Pipeline, *passes.Policy) {
	t.Helper()
	r, err := recipe.Preset(name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Pipeline()
	if err != nil {
		t.Fatal(err)
	}
	return p, &r.Policy
}

// The sites of every family, found by structure alone.
func TestZooSites(t *testing.T) {
	t.Parallel()
	type counts struct{ Linear, Scores, Context, Table, Other int }
	for name, want := range map[string]counts{
		"opt-mini":       {37, 6, 6, 2, 0},
		"opt-nano":       {25, 4, 4, 2, 0},
		"llama-mini":     {43, 6, 6, 1, 1}, // the product that makes RoPE's angles
		"llama-nano":     {29, 4, 4, 1, 1},
		"bert-mini":      {38, 6, 6, 3, 0},
		"vit-mini":       {50, 8, 8, 0, 0},
		"resnet-mini":    {22, 0, 0, 0, 0},
		"mobilenet-mini": {24, 0, 0, 0, 0},
		"unet-mini":      {65, 6, 6, 1, 0},
		"conv-nano":      {7, 0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, policy := preset(t, "w8a8")
			m := load(t, name)
			u := &passes.Unit{Model: m, Policy: policy, DryRun: true}
			if err := p.Run(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			var got counts
			for _, s := range passes.FindSites(u.Model) {
				switch s.Kind {
				case passes.Linear:
					got.Linear++
				case passes.Scores:
					got.Scores++
				case passes.Context:
					got.Context++
				case passes.Table:
					got.Table++
				default:
					got.Other++
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("sites (-want +got):\n%s", d)
			}
		})
	}
}

// Weights only: every model shrinks to what its weights take, and a tied embedding is stored and dequantized once.
func TestZooWeightOnly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		model string
		ratio float64
	}{{"opt-nano", .30}, {"llama-nano", .30}, {"resnet-mini", .30}, {"bert-mini", .30}} {
		t.Run(c.model, func(t *testing.T) {
			t.Parallel()
			m := load(t, c.model)
			p, policy := preset(t, "w8")
			opset := m.Opset[""]
			u := &passes.Unit{Model: m, Policy: policy}
			if err := p.Run(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			if u.Model.Opset[""] != opset {
				t.Errorf("opset %d became %d", opset, u.Model.Opset[""])
			}
			before := size(t, filepath.Join(shared.Dir(t), "zoo", c.model, "model.onnx"))
			if r := float64(len(saved(t, u.Model))) / float64(before); r > c.ratio {
				t.Errorf("the file has %.3f of its size, wanted at most %.2f", r, c.ratio)
			}
		})
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func TestZooTiedEmbedding(t *testing.T) {
	t.Parallel()
	for _, presetName := range []string{"w8", "w4-block32"} {
		m := load(t, "opt-mini")
		p, policy := preset(t, presetName)
		u := &passes.Unit{Model: m, Policy: policy}
		if err := p.Run(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		table := u.Model.Find("m.model.decoder.embed_tokens.weight")
		if table != nil {
			t.Errorf("%s: the float table is still in the model", presetName)
		}
		q := u.Model.Find("m.model.decoder.embed_tokens.weight_quantized")
		if q == nil {
			t.Fatalf("%s: there is no quantized table", presetName)
		}
		use, ok := q.SingleUse()
		if !ok || use.Node.Op != ir.Op("DequantizeLinear") {
			t.Fatalf("%s: the table's uses are %v, wanted one DequantizeLinear", presetName, q.Uses())
		}
		readers := map[string]int{}
		for _, u := range use.Node.Out(0).Uses() {
			readers[u.Node.Op.Type]++
		}
		if d := cmp.Diff(map[string]int{"Gather": 1, "Transpose": 1}, readers); d != "" {
			t.Errorf("%s: readers of the dequantized table (-want +got):\n%s", presetName, d)
		}
	}
}

// Same input, recipe and samples: the same bytes, whatever GOMAXPROCS is and in however many samples run at a time.
func TestZooDeterministic(t *testing.T) {
	dir := shared.Dir(t)
	var first []byte
	for i, cores := range []int{1, goruntime.NumCPU(), 3} {
		old := goruntime.GOMAXPROCS(cores)
		p, policy := preset(t, "w8a8")
		policy.Calibrate = "mse"
		m := load(t, "opt-nano")
		data, err := frontend.OpenData(filepath.Join(dir, "zoo", "data", "nano_calib_128.npy"), m, frontend.DataOptions{Count: 6})
		if err != nil {
			t.Fatal(err)
		}
		u := &passes.Unit{Model: m, Policy: policy, Samples: data.Samples(), Jobs: 1 + i}
		err = p.Run(t.Context(), u)
		goruntime.GOMAXPROCS(old)
		if err != nil {
			t.Fatal(err)
		}
		got := saved(t, u.Model)
		if first == nil {
			first = got
		} else if !bytes.Equal(first, got) {
			t.Errorf("%d cores, %d samples at a time: other bytes than with one", cores, 1+i)
		}
	}
}

// What lower writes is valid in the stated opset, and quantizing it again is refused.
func TestZooRefusesOwnOutput(t *testing.T) {
	t.Parallel()
	m := load(t, "conv-nano")
	p, policy := preset(t, "w8")
	if err := p.Run(t.Context(), &passes.Unit{Model: m, Policy: policy}); err != nil {
		t.Fatal(err)
	}
	if err := op.Verify(m); err != nil {
		t.Fatal(err)
	}
	u := &passes.Unit{Model: m, Policy: policy}
	if err := p.Run(t.Context(), u); err == nil {
		t.Error("a quantized model was quantized again")
	}
	u = &passes.Unit{Model: m, Policy: policy, KeepQuantized: true}
	if err := p.Run(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	for _, e := range u.Report.Passes {
		if e.Edits != 0 {
			t.Errorf("%s made %d edits on a model whose quantized sites are kept", e.Name, e.Edits)
		}
	}
}

// saved is the file that a model makes.
func saved(t *testing.T, m *ir.Model) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "q.onnx")
	if err := backend.Save(out, m, backend.Options{}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
