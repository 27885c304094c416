package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
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

// end runs a command, sends a signal once its stderr holds a line with the text, and returns how it ended and how long
// that took, not counting the time for which others had the cores: a command that runs for half of the time has half a second
// in a second.
func end(t *testing.T, c *exec.Cmd, sig syscall.Signal, text string) (status int, took time.Duration, stdout string) {
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
	if err := c.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	share := make(chan float64, 1)
	go func() { share <- processorShare(c.Process.Pid, ended) }()
	_, _ = io.Copy(io.Discard, pipe)
	err = c.Wait()
	wall := time.Since(start)
	close(ended)
	got := <-share
	if took = wall; wall > soon {
		took = time.Duration(float64(wall) * got)
		t.Logf("ended after %v, %.0f %% of which it could run", wall, 100*got)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return status, took, out.String()
}

// processorShare follows a process until the channel is closed and returns what part of the time for which its threads were
// ready to run they did run. 1 where the system does not tell (it is Linux's /proc/PID/task/TID/schedstat: nanoseconds run,
// nanoseconds waited).
func processorShare(pid int, until <-chan struct{}) float64 {
	type times struct{ run, wait float64 }
	first, last := map[string]times{}, map[string]times{}
	for {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid)) // a fixed pattern
		for _, f := range files {
			var t times
			text, err := os.ReadFile(f)
			if err != nil { // the thread has ended
				continue
			}
			if n, _ := fmt.Sscan(string(text), &t.run, &t.wait); n != 2 {
				continue
			}
			if _, known := first[f]; !known {
				first[f] = t
			}
			last[f] = t
		}
		select {
		case <-until:
			run, wait := 0.0, 0.0
			for f, t := range last {
				run += t.run - first[f].run
				wait += t.wait - first[f].wait
			}
			if run == 0 {
				return 1
			}
			return run / (run + wait)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// soon is the second within which Ctrl-C must end a command.
const soon = time.Second

const interruptedSweep = `
data: [{name: ids, path: data/nano_eval_128.npy, count: 24}]
models: [{name: opt-nano, path: opt-nano/model.onnx, data: [ids], samples: {path: data/nano_calib_128.npy, count: 4}}]
recipes:
  - {name: w8, recipe: {preset: w8}}
  - name: n${n}
    grid: {n: [8, 16, 32, 64]}
    recipe: {policy: {default: {weights: "int4/block=${n}", inputs: "int8/block=${n}"}}, passes: [fold, fakequant]}
`

// A sweep that is killed leaves what it had done; one that is interrupted ends at once with nothing half done. Either goes on
// where it was and ends as if nothing had happened.
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
	cells := filepath.Join(dir, "a", "cells")
	times := map[string]time.Time{}
	// done checks that the cells that were there are untouched, and that there are between least and most of them.
	done := func(when string, least, most int) {
		files, err := filepath.Glob(filepath.Join(cells, "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		if len(files) < least || len(files) > most {
			t.Errorf("%s: %d cells are done, want %d to %d", when, len(files), least, most)
		}
		now := map[string]time.Time{}
		for _, f := range files {
			info, err := os.Stat(f)
			if err != nil {
				t.Fatal(err)
			}
			now[f] = info.ModTime()
		}
		for f, at := range times {
			if !now[f].Equal(at) {
				t.Errorf("%s: cell %s was run again", when, f)
			}
		}
		times = now
		if _, err := os.Stat(filepath.Join(dir, "a", "results.csv")); !errors.Is(err, os.ErrNotExist) && most < 6 {
			t.Errorf("%s: results of a sweep that did not end: %v", when, err)
		}
	}
	if status, _, stdout := end(t, program(t, args("a")...), syscall.SIGKILL, `"task":"sweep","done":2`); status != -1 || stdout != "" {
		t.Errorf("killed: status %d with output %q, want -1 and none", status, stdout)
	}
	done("killed at 2", 2, 4)
	left, _ := filepath.Glob(filepath.Join(cells, ".*")) // a file that was being written may be left by the kill
	status, took, stdout := end(t, program(t, args("a")...), syscall.SIGINT, `"task":"sweep","done":4`)
	if status != exitCanceled || took > soon || stdout != "" {
		t.Errorf("status %d after %v with output %q, want %d within %v and none", status, took, stdout, exitCanceled, soon)
	}
	done("interrupted at 4", 4, 5)
	if now, _ := filepath.Glob(filepath.Join(cells, ".*")); len(now) > len(left) {
		t.Errorf("left behind: %v", now)
	}
	for _, out := range []string{"a", "b"} {
		if msg, err := program(t, args(out)...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, msg)
		}
	}
	done("in the end", 6, 6)
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
	const model, ids, calib = "../../testdata/opt-nano/model.onnx", "../../testdata/data/nano_eval_128.npy", "../../testdata/data/nano_calib_128.npy"
	out := filepath.Join(dir, "out")
	for name, args := range map[string][]string{
		"eval":    {"eval", model, "--data", ids, "--json"},
		"run":     {"run", model, "--inputs", ids, "-o", out},
		"rewrite": {"rewrite", model, "-o", out, "--preset", "gptq-w4a16", "--samples", calib},
		"analyze": {"analyze", model, "--preset", "w8a8", "--samples", calib, "--budget", "bits=5", "-o", out},
	} {
		status, took, stdout := end(t, program(t, append(args, "--progress", "json")...), syscall.SIGINT, `"done":2`)
		if status != exitCanceled || took > soon || stdout != "" {
			t.Errorf("%s: status %d after %v with output %q, want %d within %v and none", name, status, took, stdout, exitCanceled, soon)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v (%v)", entries, err)
	}
}
