package shared_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/qsimc/qsimc/testdata/shared"
)

func TestDir(t *testing.T) {
	t.Parallel()
	dir := shared.Dir(t)
	if _, err := os.Stat(filepath.Join(dir, "zoo", "opt-nano")); err != nil {
		t.Error(err)
	}
	if n := len(shared.Models(t, "zoo")); n == 0 {
		t.Error("found no model in zoo")
	}
}
