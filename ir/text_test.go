package ir_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir"
)

var update = flag.Bool("update", false, "rewrite the cases in testdata as Print writes them")

func parse(t testing.TB, src string) *ir.Model {
	t.Helper()
	m, err := ir.Parse("test.onnxtxt", []byte(src))
	if err != nil {
		t.Fatalf("parsing: %v\n%s", err, src)
	}
	return m
}

func text(t testing.TB, m *ir.Model) string {
	t.Helper()
	var b strings.Builder
	if err := ir.Print(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// fixedPoint checks that printing and parsing end where they began.
func fixedPoint(t testing.TB, m *ir.Model) string {
	t.Helper()
	first := text(t, m)
	again := parse(t, first)
	if err := ir.Equal(m, again); err != nil {
		t.Errorf("print, parse: %v\n%s", err, first)
	}
	if second := text(t, again); second != first {
		t.Errorf("print, parse, print differ:\n%s\nthen\n%s", first, second)
	}
	return first
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/text/*.onnxtxt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := fixedPoint(t, parse(t, string(src)))
			if got != string(src) && *update {
				if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
			} else if got != string(src) {
				t.Errorf("the case is not as Print writes it; got\n%s", got)
			}
		})
	}
}
