// Package shared finds the test material that lies beside the repository, in ../shared: models, samples and the operator
// cases of the ONNX project. It is for tests only.
//
//	dir := shared.Dir(t) // skips the test where there is no such material
//	model := filepath.Join(dir, "zoo", "opt-nano", "model.onnx")
package shared

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Dir returns the folder with the unpacked material: zoo, models and onnx-node-tests. It skips the test if the repository
// has no ../shared beside it, and fails it if the material is there but cannot be unpacked.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	if dir == "" {
		t.Skip("skipped: the shared test material (../shared beside the repository) is not there")
	}
	return dir
}

// Find is Dir without a test: "" if there is no material.
func Find() (string, error) { return find() }

var find = sync.OnceValues(func() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	script := filepath.Join(root, "..", "shared", "unpack.sh")
	if _, err := os.Stat(script); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	cmd := exec.Command("sh", script)
	cmd.Stderr = new(strings.Builder)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("unpacking the shared test material: %s: %w\n%v", script, err, cmd.Stderr)
	}
	return strings.TrimSpace(string(out)), nil
})

// Root returns the folder of the module's go.mod, searched upwards from the working folder, which in a test is the
// package's own.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod in the working folder or above it")
		}
		dir = up
	}
}

// Models returns every model file under the given folders of Dir ("zoo", "models", "onnx-node-tests/node", …), in a stable
// order. It skips the test if there is no material.
func Models(t testing.TB, under ...string) []string {
	t.Helper()
	dir := Dir(t)
	var files []string
	for _, sub := range under {
		err := filepath.WalkDir(filepath.Join(dir, sub), func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() && strings.HasSuffix(path, ".onnx") {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}
