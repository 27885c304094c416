package passes_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir/store"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/testdata/shared"
)

// Where memory holds nothing, results and the values of all samples wait in files, and the model comes out the same, byte for
// byte: with weights as they lie, with those that rptq has reordered, and with its clusters.
func TestScratchSameBytes(t *testing.T) {
	t.Parallel()
	dir := shared.Dir(t)
	for _, name := range []string{"gptq-w4a16", "rptq-ref"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want []byte
			for _, budget := range []int64{1 << 40, 0} {
				m := load(t, "opt-nano")
				data, err := frontend.OpenData(filepath.Join(dir, "zoo", "data", "nano_calib_128.npy"), m, frontend.DataOptions{Count: 2})
				if err != nil {
					t.Fatal(err)
				}
				p, policy := preset(t, name)
				scratch := store.NewScratch(t.TempDir(), budget)
				u := &passes.Unit{Model: m, Policy: policy, Samples: data.Samples(), Scratch: scratch, Runtime: runtime.Options{MaxMemory: budget + 4<<20}}
				if err := p.Run(t.Context(), u); err != nil {
					t.Fatal(err)
				}
				got := saved(t, u.Model)
				if err := scratch.Close(); err != nil {
					t.Fatal(err)
				}
				if want == nil {
					want = got
				} else if !bytes.Equal(want, got) {
					t.Error("a model larger than memory comes out different")
				}
			}
		})
	}
}
