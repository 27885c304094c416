// Package qsimc_test holds the tests of the module as a whole.
package qsimc_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/qsimc/qsimc/"

// arrows lists for each package which of ours it may import (ARCHITECTURE.md); tests are free.
var arrows = map[string][]string{
	"runtime/kernel/par": {},
	"runtime/kernel":     {"runtime/kernel/par"},
	"ir/numfmt":          {"runtime/kernel", "runtime/kernel/par"},
	"ir":                 {},
	"ir/store":           {},
	"ir/op":              {"ir", "ir/numfmt", "runtime/kernel", "runtime/kernel/par"},
	"frontend/onnxpb":    {},
	"frontend":           {"ir", "ir/store", "ir/op", "ir/numfmt", "frontend/onnxpb"},
	"backend":            {"ir", "ir/store", "frontend/onnxpb"},
	"runtime":            {"ir", "ir/store", "ir/op", "ir/numfmt", "runtime/kernel", "runtime/kernel/par"},
	"backend/onnxgo":     {"ir", "runtime"},
	"runtime/calib":      {"ir", "ir/op", "ir/numfmt", "runtime", "runtime/kernel", "runtime/kernel/par"},
	"runtime/eval":       {"ir", "runtime", "frontend"},
	"runtime/conform":    {"ir", "ir/op", "runtime", "frontend"},
	"passes":             {"ir", "ir/store", "ir/op", "ir/numfmt", "runtime", "runtime/calib", "runtime/kernel", "runtime/kernel/par"},
	"passes/search":      {"passes", "ir", "ir/op", "ir/numfmt", "runtime", "runtime/calib"},
	"passes/recipe":      {"passes", "ir/numfmt", "runtime/calib"},
	"passes/passtest":    {"passes", "passes/recipe", "ir", "ir/op", "runtime", "runtime/kernel", "runtime/conform", "frontend"},
}

func TestArrows(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		pkg, ours := strings.CutPrefix(f[0], module)
		if !ours {
			continue
		}
		if strings.HasPrefix(pkg, "cmd/") {
			if slices.Contains(f, module+"backend/onnxgo") {
				t.Errorf("%s imports backend/onnxgo: it brings onnx-go into the binary", pkg)
			}
			continue
		}
		allowed, listed := arrows[pkg]
		if !listed {
			t.Errorf("package %s is not in the table of arrows", pkg)
		}
		for _, i := range f[1:] {
			if dep, ok := strings.CutPrefix(i, module); ok && !slices.Contains(allowed, dep) {
				t.Errorf("%s imports %s: no such arrow", pkg, dep)
			}
		}
	}
}
