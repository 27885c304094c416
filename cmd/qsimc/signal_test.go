package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program is the command itself: TestMain runs main where the test binary is called by its name.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), exe)
	c.Args = append([]string{"qsimc"}, args...)
	return c
}

// interrupt runs a command, sends SIGINT once its stderr holds a line with the text, and returns how it ended.
func interrupt(t *testing.T, c *exec.Cmd, text string) (status int, took time.Duration, stdout string) {
	t.Helper()
	var out bytes.Buffer
	c.Stdout = &out
	pipe, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	seen := false
	for !seen && lines.Scan() {
		seen = strings.Contains(lines.Text(), text)
	}
	if !seen {
		t.Fatalf("stderr ended without %q", text)
	}
	start := time.Now()
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, pipe)
	err = c.Wait()
	took = time.Since(start)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return status, took, out.String()
}

// soon is the second within which Ctrl-C must end a command, and as much again for a machine that runs all tests at once.
const soon = 2 * time.Second

const interruptedSweep = `
data: [{name: ids, path: data/nano_eval_128.npy, count: 24}]
models: [{name: opt-nano, path: opt-nano/model.onnx, data: [ids], samples: {path: data/nano_calib_128.npy, count: 4}}]
recipes:
  - {name: w8, recipe: {preset: w8}}
  - name: n${n}
    grid: {n: [8, 16, 32, 64]}
    recipe: {policy: {default: {weights: "int4/block=${n}", inputs: "int8/block=${n}"}}, passes: [fold, fakequant]}
`

// A sweep that is interrupted ends at once with nothing half done, goes on where it was, and ends as if nothing had happened.
func TestSweepInterrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "s.yaml")
	if err := os.WriteFile(file, []byte(interruptedSweep), 0o644); err != nil {
		t.Fatal(err)
	}
	args := func(out string) []string {
		return []string{"sweep", "-c", file, "--root", "../../testdata", "-o", filepath.Join(dir, out), "--progress", "json"}
	}
	status, took, stdout := interrupt(t, program(t, args("a")...), `"task":"sweep","done":2`)
	if status != exitCanceled || took > soon || stdout != "" {
		t.Errorf("status %d after %v with output %q, want %d within %v and none", status, took, stdout, exitCanceled, soon)
	}
	cells := filepath.Join(dir, "a", "cells")
	times := map[string]time.Time{}
	entries, err := os.ReadDir(cells)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(e.Name()) != ".json" {
			t.Errorf("%s was left behind", e.Name())
		}
		times[e.Name()] = info.ModTime()
	}
	if len(times) < 2 || len(times) > 5 {
		t.Errorf("%d cells of 6 were done when 2 had been", len(times))
	}
	if _, err := os.Stat(filepath.Join(dir, "a", "results.csv")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("results of an interrupted sweep: %v", err)
	}
	for _, out := range []string{"a", "b"} {
		if msg, err := program(t, args(out)...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, msg)
		}
	}
	for name, at := range times {
		if info, err := os.Stat(filepath.Join(cells, name)); err != nil || !info.ModTime().Equal(at) {
			t.Errorf("cell %s was run again (%v)", name, err)
		}
	}
	for _, name := range []string{"results.csv", "results.json", "report.html"} {
		a, err1 := os.ReadFile(filepath.Join(dir, "a", name))
		b, err2 := os.ReadFile(filepath.Join(dir, "b", name))
		if err := errors.Join(err1, err2); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs from that of a sweep without interruption (%v)", name, err)
		}
	}
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const model, ids = "../../testdata/opt-nano/model.onnx", "../../testdata/data/nano_eval_128.npy"
	out := filepath.Join(dir, "out")
	for name, args := range map[string][]string{
		"eval": {"eval", model, "--data", ids, "--json"},
		"run":  {"run", model, "--inputs", ids, "-o", out},
	} {
		status, took, stdout := interrupt(t, program(t, append(args, "--progress", "json")...), `"done":2`)
		if status != exitCanceled || took > soon || stdout != "" {
			t.Errorf("%s: status %d after %v with output %q, want %d within %v and none", name, status, took, stdout, exitCanceled, soon)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v (%v)", entries, err)
	}
}
