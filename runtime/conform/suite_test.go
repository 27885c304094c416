package conform_test

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/backend"
	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/conform"
	"github.com/qsimc/qsimc/testdata/shared"
)

// suite returns the folder of ONNX's operator cases: QSIMC_ONNX_TESTS, or the shared material.
func suite(t *testing.T) string {
	if dir := os.Getenv("QSIMC_ONNX_TESTS"); dir != "" {
		return dir
	}
	return filepath.Join(shared.Dir(t), "onnx-node-tests")
}

// unsupported reads testdata/unsupported.txt: SET/CASE and the reason, a line each.
func unsupported(t *testing.T) map[string]string {
	f, err := os.Open("testdata/unsupported.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, _ := strings.Cut(line, " ")
		if reason == "" {
			t.Errorf("testdata/unsupported.txt: %s has no reason", name)
		}
		list[name] = reason
	}
	return list
}

func name(root, folder string) string {
	rel, err := filepath.Rel(root, folder)
	if err != nil {
		return folder
	}
	return filepath.ToSlash(rel)
}

// The suite itself: every case passes, or is listed as unsupported and is.
func TestSuite(t *testing.T) {
	t.Parallel()
	root := suite(t)
	folders, err := conform.Find(root)
	if err != nil {
		t.Fatal(err)
	}
	skip := unsupported(t)
	s := conform.Run(context.Background(), folders, conform.Options{Jobs: runtime.Cores()}, func(c conform.Case) {
		n := name(root, c.Name)
		_, listed := skip[n]
		switch {
		case c.Status == conform.Pass && listed:
			t.Errorf("%s passes: take it off testdata/unsupported.txt", n)
		case c.Status == conform.Unsupported && !listed:
			t.Errorf("%s: not supported and not listed: %s", n, c.Detail)
		case c.Status != conform.Pass && c.Status != conform.Unsupported:
			t.Errorf("%s: %s: %s", n, c.Status, c.Detail)
		}
	})
	t.Logf("%d passed, %d failed, %d unsupported of %d", s.Passed, s.Failed, s.Unsupported, len(folders))
}

// Kernels must not lean on zeroed storage: every case also passes where results are allocated full of ones.
func TestSuitePoisoned(t *testing.T) {
	t.Parallel()
	again(t, suite(t), conform.Options{Runtime: runtime.Options{Poison: true}})
}

// Every case that passes also passes after a trip through the text form and the file form.
func TestSuiteRoundTrip(t *testing.T) {
	t.Parallel()
	full(t)
	again(t, suite(t), conform.Options{Rewrite: roundTrip})
}

func roundTrip(m *ir.Model) (*ir.Model, error) {
	var text bytes.Buffer
	if err := ir.Print(&text, m); err != nil {
		return nil, err
	}
	parsed, err := ir.Parse("case", text.Bytes())
	if err != nil {
		return nil, err
	}
	data, err := backend.Encode(parsed)
	if err != nil {
		return nil, err
	}
	again, err := frontend.Decode(data, nil)
	if err != nil {
		return nil, err
	}
	return again, op.Infer(again) // as Load does
}

// Every case that passes also passes after the pass fold.
func TestSuiteFolded(t *testing.T) {
	t.Parallel()
	full(t)
	again(t, suite(t), conform.Options{Rewrite: fold(t)})
}

func fold(t *testing.T) func(m *ir.Model) (*ir.Model, error) {
	p, err := passes.ParsePipeline("fold")
	if err != nil {
		t.Fatal(err)
	}
	return func(m *ir.Model) (*ir.Model, error) {
		u := &passes.Unit{Model: m}
		err := p.Run(context.Background(), u)
		return u.Model, err
	}
}

// full leaves a test out of short runs: what it rewrites does not depend on kernels, which TestSuite and TestSuitePoisoned run.
func full(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("short: what is rewritten does not depend on kernels")
	}
}

// again runs every case that is not listed as unsupported once more, in another way.
func again(t *testing.T, root string, o conform.Options) {
	t.Helper()
	folders, err := conform.Find(root)
	if err != nil {
		t.Fatal(err)
	}
	skip := unsupported(t)
	o.Jobs = runtime.Cores()
	conform.Run(context.Background(), folders, o, func(c conform.Case) {
		if n := name(root, c.Name); c.Status != conform.Pass && skip[n] == "" {
			t.Errorf("%s: %s: %s", n, c.Status, c.Detail)
		}
	})
}
