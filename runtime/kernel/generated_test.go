package kernel_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The committed assembly is what the generator writes.
func TestGenerated(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short: the generator is not run")
	}
	dir := t.TempDir()
	gen := filepath.Join(dir, "asm")
	if out, err := exec.Command("go", "build", "-C", "asm", "-o", gen, ".").CombinedOutput(); err != nil {
		t.Skipf("the generator cannot be built here (is avo in the module cache?): %v\n%s", err, out)
	}
	neon := filepath.Join(dir, "neon")
	if out, err := exec.Command("go", "build", "-C", "asm", "-o", neon, "./neon").CombinedOutput(); err != nil {
		t.Fatalf("neon: %v\n%s", err, out)
	}
	commands := map[string][]string{"neon_arm64": {neon}}
	for _, part := range []string{"gemm", "int8", "digits", "conv", "winograd", "vector", "rows", "quant"} {
		commands[part+"_amd64"] = []string{gen, "-part", part, "-pkg", "kernel"}
	}
	for name, command := range commands {
		asm, stubs := filepath.Join(dir, name+".s"), filepath.Join(dir, name+".go")
		if out, err := exec.Command(command[0], append(command[1:], "-out", asm, "-stubs", stubs)...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		for fresh, committed := range map[string]string{asm: name + ".s", stubs: name + ".go"} {
			if !bytes.Equal(body(t, fresh), body(t, committed)) {
				t.Errorf("%s is stale: run go generate in runtime/kernel", committed)
			}
		}
	}
}

// body is a file without its first line, which quotes the command.
func body(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(b, []byte("\n"))
	return rest
}
