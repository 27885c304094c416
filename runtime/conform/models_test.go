package conform_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/conform"
	"github.com/qsimc/qsimc/testdata/shared"
)

// Every model with stored data gives it; as it is, with poisoned storage, after a trip through text and file, and folded.
func TestModels(t *testing.T) {
	t.Parallel()
	root := shared.Dir(t)
	all, err := conform.Find(filepath.Join(root, "zoo"), filepath.Join(root, "models"))
	if err != nil {
		t.Fatal(err)
	}
	var folders, small []string
	for _, f := range all {
		if sets, _ := filepath.Glob(filepath.Join(f, "test_data_set_*")); sets == nil {
			continue
		}
		folders = append(folders, f)
		if info, err := os.Stat(filepath.Join(f, "model.onnx")); err == nil && info.Size() < 1<<20 {
			small = append(small, f)
		}
	}
	for _, way := range []struct {
		name string
		o    conform.Options
	}{
		{"plain", conform.Options{}},
		{"poisoned", conform.Options{Runtime: runtime.Options{Poison: true}}},
		{"round trip", conform.Options{Rewrite: roundTrip}},
		{"folded", conform.Options{Rewrite: fold(t)}},
	} {
		t.Run(way.name, func(t *testing.T) {
			if way.name != "plain" && testing.Short() {
				t.Skip("short: the models run as they are only")
			}
			way.o.Jobs = runtime.Cores()
			folders := folders
			if way.name == "round trip" {
				folders = small // text of large weights takes minutes
			}
			s := conform.Run(context.Background(), folders, way.o, func(c conform.Case) {
				if c.Status != conform.Pass {
					t.Errorf("%s: %s: %s", name(root, c.Name), c.Status, c.Detail)
				}
			})
			t.Logf("%d passed of %d", s.Passed, len(folders))
		})
	}
}

// manifest returns the names of the small graphs of a status.
func manifest(t *testing.T, status string) []string {
	data, err := os.ReadFile(filepath.Join(shared.Dir(t), "models", "small-graphs", "MANIFEST.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Split(line, "\t"); f[1] == status {
			names = append(names, filepath.Join(shared.Dir(t), "models", "small-graphs", f[0], "model.onnx"))
		}
	}
	if names == nil {
		t.Fatalf("no graph of status %q", status)
	}
	return names
}

// Graphs without data load and come back equal from text and file.
func TestModelsWithoutData(t *testing.T) {
	t.Parallel()
	for _, path := range manifest(t, "no-data") {
		m, err := frontend.Load(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		once, err := roundTrip(m) // raises the version of files that need it
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		m.IRVersion = once.IRVersion
		if err := ir.Equal(m, once); err != nil {
			t.Errorf("%s: round trip: %v", path, err)
		}
	}
}

// Graphs that ONNX Runtime refuses end in an error that says something, or pass through; nothing panics.
func TestModelsRefused(t *testing.T) {
	t.Parallel()
	for _, path := range manifest(t, "refused") {
		m, err := frontend.Load(path)
		if err == nil {
			if _, err := roundTrip(m); err != nil {
				t.Errorf("%s: loads, and does not come back: %v", path, err)
			}
			_, err = runtime.Compile(m)
		}
		if err != nil && (strings.Contains(err.Error(), "panic") || len(err.Error()) < 10) {
			t.Errorf("%s: %v", path, err)
		}
		var u *runtime.Unsupported
		if errors.As(err, &u) && (len(u.Nodes) == 0 || !errors.Is(err, op.ErrUnsupported)) {
			t.Errorf("%s: names no node: %v", path, err)
		}
	}
}
