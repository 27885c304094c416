package conform_test

import (
	"context"
	"os"
	"path/filepath"
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

// fuzzMemory is the memory limit that mutated models run under, and fuzzTime how long one may run.
const (
	fuzzMemory = 32 << 20
	fuzzTime   = 5 * time.Second
)

// FuzzRun decodes, infers, compiles and runs damaged models: there may be any error, but no panic and no runaway.
func FuzzRun(f *testing.F) {
	for _, data := range fuzzSeeds(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		start := time.Now()
		defer func() {
			if took := time.Since(start); took > 4*fuzzTime {
				t.Errorf("took %v", took)
			}
		}()
		m, err := frontend.Decode(data, nil)
		if err == nil {
			err = op.Infer(m)
		}
		if err == nil {
			err = fuzzRun(m)
		}
		if err != nil && strings.Contains(err.Error(), "panic:") {
			t.Error(err)
		}
	})
}

func fuzzRun(m *ir.Model) error {
	p, err := runtime.CompileWith(m, runtime.Options{MaxMemory: fuzzMemory})
	if err != nil {
		return err
	}
	in := ir.Tensors{}
	for _, v := range p.Inputs() {
		shape := make([]int, len(v.Type.Dims))
		for i, d := range v.Type.Dims {
			shape[i] = 2
			if d.Known() {
				shape[i] = int(d.Size)
			}
		}
		n, err := ir.Numel(shape)
		if err != nil || n > 1<<14 || v.Type.Kind != ir.TensorKind || !v.Type.Elem.Valid() || v.Type.Elem == ir.String {
			return err
		}
		t := ir.NewTensor(v.Type.Elem, shape...)
		for i := range t.Bytes() {
			t.Bytes()[i] = byte(i % 3) // small integers, tiny floats
		}
		in[v.Name] = t
	}
	ctx, cancel := context.WithTimeout(context.Background(), fuzzTime)
	defer cancel()
	_, err = p.Run(ctx, in)
	return err
}

// fuzzSeeds returns one small model of the suite for each first word of a case's name, and the smallest of the small
// graphs; nothing where there is no shared material.
func fuzzSeeds(f *testing.F) [][]byte {
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
