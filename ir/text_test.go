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

// TestModels keeps the module's small models as Print writes them.
func TestModels(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../testdata/models/*.onnxtxt")
	if err != nil || len(files) < 10 {
		t.Fatalf("found %d models: %v", len(files), err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := parse(t, string(src))
		if err := ir.Check(m); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		got := fixedPoint(t, m)
		if got != string(src) && *update {
			if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
				t.Fatal(err)
			}
		} else if got != string(src) {
			t.Errorf("%s is not as Print writes it; got\n%s", file, got)
		}
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ src, want string }{
		{"", "1:1: wanted the graph's name, found the end"},
		{"g (float x) => (float y) {\n  y = Add (x, z)\n}", `2:15: "z" is not defined before this use by Add`},
		{"g () => (float y) {}", `1:16: output "y" is not defined`},
		{"g (x, x) => () {}", `1:7: "x" is already defined in this graph`},
		{"g (x) => () { x = Neg (x) }", `1:15: "x" is already defined`},
		{"g (x) => () <float[2] w = {1}> {}", "1:23: float[2] wants 2 numbers, found 1"},
		{"g (x) => () <float[2] w = {1, 2, 3}> {}", "too many elements for float[2]"},
		{"g (x) => () <float[9,9] w = {1, 2, ... 79 more}> {}", "the data was elided"},
		{"g (x) => () <float[N] w = {1}> {}", "numbers for dimensions, found float[N]"},
		{"g (x) => () <float[1099511627776,1099511627776] w = {1}> {}", "has more than"},
		{"g (x) => () <sparse_tensor(float[1000000000000]) w = {float[1] {1}, int64[1] {0}}> {}", "cannot be written out"},
		{"g (x) => () <int8[1] w = {128}> {}", "128 is out of range for 8 bits"},
		{"g (x) => () <float16[1] w = {1.5}> {}", "wanted an integer, found 1.5"},
		{"g (x) => () <float[1] w = {1e99}> {}", "1e99 is no number of 32 bits"},
		{"g (x) => () <int4[2] w = {9, 1}> {}", "9 is out of range for int4"},
		{"g (x) => () <float h> {}", `a type for "h", which is not defined`},
		{`g (x) => () <float[1] w = ["location": "a"]> {}`, "external files"},
		{"g (x) => () { = A <a = []> (x) }", "an empty list needs its type"},
		{"g (x) => () { = A <a = [1, 2.5]> (x) }", "a value of type float in a list of type ints"},
		{"g (x) => () { = A <a: int = 2.5> (x) }", "wanted a value of type int, found one of type float"},
		{"g (x) => () { = A <a = 1, a = 2> (x) }", `attribute "a" appears twice`},
		{"g (x) => () { = A (x) \n#! node doc \"x\"\n }", "no node follows the note on node"},
		{"g (x) => () {\n#! whatever \"x\"\n}", `2:4: unknown note on "whatever"`},
		{"<ir_version: 1, what: 2> g () => () {}", `1:17: unknown header field "what"`},
		{`g (x) => () { = A <s = "`, "the string does not end"},
		{"g (float[-1] x) => () {}", "dimension -1 is negative"},
		{"g (" + strings.Repeat("seq(", 1000), "nested more than 100 deep"},
		{"g () => () {} <domain: \"a\"> F () => () {} <domain: \"a\"> F () => () {}", `function "F" is defined twice`},
	} {
		_, err := ir.Parse("m.onnxtxt", []byte(c.src))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "m.onnxtxt:") {
			t.Errorf("%.60s: got error %v, want %s", c.src, err, c.want)
		}
	}
}

// TestPackedPerElement reads sub-byte types one number an element, which prints as packed bytes.
func TestPackedPerElement(t *testing.T) {
	t.Parallel()
	m := parse(t, "g () => () <int4[3] q = {1, -2, 7}, uint2[5] u = {0, 1, 2, 3, 1}> {}")
	for i, want := range []string{"\xe1\x07", "\xe4\x01"} {
		if got := m.Graph.Consts()[i].Const().Bytes(); string(got) != want {
			t.Errorf("constant %d: got bytes %x, want %x", i, got, want)
		}
	}
}

func TestPrintOptions(t *testing.T) {
	t.Parallel()
	m := parse(t, "g (float[2] x) => (float[2] y) <float[9] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}> {\n#! node origin \"p:s\"\nh = Neg (x)\ny = Neg (h) }")
	m.Find("h").Type = ir.FixedType(ir.Float32, 2)
	var b strings.Builder
	if err := (ir.PrintOptions{Elide: 8, Types: true, Origin: true}).Print(&b, m); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"{1, 2, 3, 4, ... 5 more}", "float[2] h", `#! node origin "p:s"`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("want %q in\n%s", want, b.String())
		}
	}
	if s := text(t, m); strings.Contains(s, "origin") || strings.Contains(s, "float[2] h") {
		t.Errorf("origin and inferred types are on request only:\n%s", s)
	}
}

// TestSlotIdentity prints an Identity for each output whose value has another name.
func TestSlotIdentity(t *testing.T) {
	t.Parallel()
	m := parse(t, "g (float x) => (float y, float z) { y = Neg (x)\n z = Abs (x) }")
	m.Graph.SetOutput(1, m.Find("x"))
	s := text(t, m)
	if !strings.Contains(s, "z = Identity (x)") || strings.Contains(s, "z = Abs") {
		t.Error(s)
	}
	fixedPoint(t, parse(t, s))
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/text/*.onnxtxt", "../testdata/models/*.onnxtxt"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			src, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		m, err := ir.Parse("fuzz", src)
		if err == nil {
			fixedPoint(t, m)
		}
	})
}
