package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
)

var update = flag.Bool("update", false, "write what the code generates into README.md")

// The generated parts of the README are what the code says.
func TestReadme(t *testing.T) {
	const file = "../../README.md"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, name := range []string{"passes", "presets", "formats", "ops"} {
		text = replaceBlock(t, text, "table "+name, markdown(t, name))
	}
	if kernel.Level() == "none" {
		t.Log("the example is not compared: its last digits are those of the vector kernels")
	} else {
		text = replaceBlock(t, text, "example rewrite", example(t))
	}
	if text == string(data) {
		return
	}
	if !*update {
		t.Fatal("README.md is stale: go test ./cmd/qsimc -run TestReadme -update")
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func replaceBlock(t *testing.T, text, name, body string) string {
	t.Helper()
	begin := "<!-- " + name + " -->\n"
	i := strings.Index(text, begin)
	if i < 0 {
		t.Fatalf("README.md has no block %q", name)
	}
	i += len(begin)
	j := strings.Index(text[i:], "<!-- end -->")
	return text[:i] + body + text[i+j:]
}

// markdown renders what a documentation command prints as JSON.
func markdown(t *testing.T, command string) string {
	t.Helper()
	var header []string
	switch command {
	case "passes":
		header = []string{"pass", "what"}
	case "presets":
		header = []string{"preset", "what"}
	case "formats":
		header = []string{"format", "bits/value", "grid", "carrier", "opset"}
	case "ops":
		header = []string{"operator", "versions", "types"}
	}
	var rows []map[string]string
	if err := json.Unmarshal([]byte(output(t, command, "--json")), &rows); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(header, " | "), strings.Repeat("---|", len(header)))
	for _, r := range rows {
		var cells []string
		for _, h := range header {
			cells = append(cells, strings.ReplaceAll(r[h], "|", "\\|"))
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
	return b.String()
}

func output(t *testing.T, args ...string) string {
	t.Helper()
	var out, stderr bytes.Buffer
	if code := run(context.Background(), args, &out, &stderr); code != 0 {
		t.Fatalf("qsimc %v: status %d: %s", args, code, stderr.String())
	}
	return out.String()
}

// The times in what rewrite prints.
var (
	passSeconds  = regexp.MustCompile(`(?m)^([a-z]+ +\S+ +[0-9]+ +)[0-9.]+$`)
	totalSeconds = regexp.MustCompile(`, [0-9.]+ s\n`)
)

// example is the README's first command, times left out and the long tables shortened.
func example(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out := output(t, "rewrite", "../../testdata/opt-nano/model.onnx", "-o", filepath.Join(dir, "q.onnx"),
		"--samples", "../../testdata/data/nano_calib_128.npy")
	out = strings.ReplaceAll(out, filepath.Join(dir, "q.onnx"), "q.onnx")
	out = strings.ReplaceAll(out, "../../testdata", "testdata")
	var keep []string
	table := 0
	for line := range strings.Lines(out) {
		if strings.TrimSpace(line) == "" {
			table = 0
		}
		if table++; table == 8 {
			keep = append(keep, "…\n")
		}
		if table < 8 || strings.Contains(line, "lm_head") {
			keep = append(keep, line)
		}
	}
	text := strings.Join(keep, "")
	text = passSeconds.ReplaceAllString(text, "$1…")
	return "```\n" + totalSeconds.ReplaceAllString(text, "\n") + "```\n"
}
