package passes_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/passes"
)

// What is recognized in every family of the zoo, by structure alone.
func TestZooStructure(t *testing.T) {
	t.Parallel()
	type counts struct {
		Groups, Absorbed, Norms, Spelled, Heads, Attentions, Gates, Residuals, Tied int
		First                                                                       string // the first attention
	}
	for name, want := range map[string]counts{
		"opt-mini":       {25, 25, 13, 0, 1, 6, 0, 12, 1, "6 heads of 64"},
		"llama-mini":     {25, 25, 13, 13, 1, 6, 6, 12, 1, "6 heads of 64, 2 of keys and values, rotary positions half-split"},
		"bert-mini":      {26, 7, 12, 12, 1, 6, 0, 12, 0, "8 heads of 32"},
		"vit-mini":       {34, 25, 16, 0, 1, 8, 0, 16, 0, "8 heads of 32"},
		"resnet-mini":    {20, 9, 0, 0, 1, 0, 0, 9, 0, ""},
		"mobilenet-mini": {24, 1, 0, 0, 1, 0, 0, 3, 0, ""},
		"unet-mini":      {49, 22, 12, 3, 1, 6, 3, 18, 0, "4 heads of 32"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := passes.ParsePipeline("fold")
			if err != nil {
				t.Fatal(err)
			}
			u := &passes.Unit{Model: load(t, name)}
			if err := p.Run(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			if err := op.Infer(u.Model); err != nil {
				t.Fatal(err)
			}
			s, err := passes.Recognize(u.Model)
			if err != nil {
				t.Fatal(err)
			}
			got := counts{Groups: len(s.Groups), Attentions: len(s.Attentions), Gates: len(s.Gates), Residuals: len(s.Residuals), Tied: len(s.Tied)}
			for _, g := range s.Groups {
				if g.Absorbed != "" {
					got.Absorbed++
				}
				if g.Norm != "" {
					got.Norms++
				}
				if g.Spelled {
					got.Spelled++
				}
				if g.Head {
					got.Heads++
				}
			}
			if len(s.Attentions) > 0 {
				got.First = s.Attentions[0].String()
				if a := s.Attentions[0]; len(a.Query) != 1 || len(a.Key) != 1 || len(a.Value) != 1 || len(a.Output) != 1 {
					t.Errorf("attention %+v, wanted one product each for query, key, value and output", a)
				}
			}
			for _, g := range s.Gates {
				if len(g.Gate) != 1 || len(g.Up) != 1 || len(g.Down) != 1 {
					t.Errorf("gate %+v, wanted one product each for gate, up and down", g)
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("structure (-want +got):\n%s", d)
			}
		})
	}
}
