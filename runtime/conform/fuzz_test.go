package conform_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/conform"
	"github.com/qsimc/qsimc/testdata/shared"
)

// Damaged models run under a limit of fuzzMemory and with a context that ends after fuzzTime. One that takes more than
// runawayTime or has the heap grow beyond runawayMemory ends the test process: it may never return.
const (
	fuzzMemory    = 32 << 20
	fuzzTime      = time.Second / 2
	runawayMemory = 1 << 30
	runawayTime   = 30 * time.Second
)

// FuzzRun decodes, damages (by seed, see damage), infers, compiles and runs models: there may be any error, but no panic
// and no runaway.
func FuzzRun(f *testing.F) {
	for i, data := range fuzzSeeds(f) {
		for k := range uint64(4) {
			f.Add(data, k*uint64(i+1))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		defer watch(data, seed)()
		if err := tryDamaged(data, seed); err != nil {
			t.Error(err)
		}
	})
}

// tryDamaged returns an error if the runtime turned a panic into one.
func tryDamaged(data []byte, seed uint64) error {
	m, err := frontend.Decode(data, nil)
	if err != nil {
		return nil
	}
	damage(m, seed)
	if err := op.Infer(m); err == nil {
		err = fuzzRun(m, rand.New(rand.NewPCG(seed, 2)))
		if err != nil && (strings.Contains(err.Error(), "panic:") || strings.Contains(err.Error(), "BUG")) {
			return err
		}
	}
	return nil
}

// watch ends the process, with all stacks, when the case runs away.
func watch(data []byte, seed uint64) (stop func()) {
	done, start := make(chan struct{}), time.Now()
	go func() {
		heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			metrics.Read(heap)
			if heap[0].Value.Uint64() > runawayMemory { // what other tests of the process left behind does not count
				debug.FreeOSMemory()
				metrics.Read(heap)
			}
			if took, held := time.Since(start), heap[0].Value.Uint64(); took > runawayTime || held > runawayMemory {
				debug.SetTraceback("all")
				panic(fmt.Sprintf("a runaway: %v, %d bytes of heap, seed %d, %d bytes of model", took, held, seed, len(data)))
			}
		}
	}()
	return func() { close(done) }
}

func fuzzRun(m *ir.Model, r *rand.Rand) error {
	p, err := runtime.CompileWith(context.Background(), m, runtime.Options{MaxMemory: fuzzMemory})
	if err != nil {
		return err
	}
	in := ir.Tensors{}
	for _, v := range p.Inputs() {
		shape := make([]int, len(v.Type.Dims))
		for i, d := range v.Type.Dims {
			shape[i] = r.IntN(4)
			if d.Known() {
				shape[i] = int(d.Size)
			}
		}
		n, err := ir.Numel(shape)
		if err != nil || n > 1<<14 || v.Type.Kind != ir.TensorKind || !v.Type.Elem.Valid() || v.Type.Elem == ir.String {
			return err
		}
		in[v.Name] = oddTensor(v.Type.Elem, shape, r)
	}
	ctx, cancel := context.WithTimeout(context.Background(), fuzzTime)
	defer cancel()
	_, err = p.Run(ctx, in)
	return err
}

// fuzzSeeds returns one small model of the suite for each first word of a case's name, and the smallest of the small
// graphs; nothing where there is no shared material.
func fuzzSeeds(f testing.TB) [][]byte {
	root, err := shared.Find()
	if err != nil {
		f.Fatal(err)
	}
	if root == "" {
		return nil
	}
	folders, err := conform.Find(filepath.Join(root, "onnx-node-tests"), filepath.Join(root, "models", "small-graphs"))
	if err != nil {
		f.Fatal(err)
	}
	var seeds [][]byte
	seen := map[string]bool{}
	for _, folder := range folders {
		words := strings.SplitN(strings.TrimPrefix(filepath.Base(folder), "test_"), "_", 2)
		data, err := os.ReadFile(filepath.Join(folder, "model.onnx"))
		if err != nil || len(data) > 2000 || seen[words[0]] {
			continue
		}
		seen[words[0]] = true
		seeds = append(seeds, data)
	}
	return seeds
}
