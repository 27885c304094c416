package frontend_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/testdata/shared"
)

// Every model of the shared material that can run loads.
func TestLoadCorpus(t *testing.T) {
	t.Parallel()
	manifest, err := os.ReadFile(filepath.Join(shared.Dir(t), "models", "small-graphs", "MANIFEST.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	fragile := map[string]bool{} // not run by those who collected them: some contradict themselves
	for line := range strings.Lines(string(manifest)) {
		if f := strings.Split(line, "\t"); f[1] == "refused" || f[1] == "no-data" {
			fragile[f[0]] = true
		}
	}
	files := shared.Models(t, "zoo", "models", "onnx-node-tests")
	for _, file := range files {
		if _, err := frontend.Load(file); err != nil && !fragile[filepath.Base(filepath.Dir(file))] {
			t.Error(err)
		}
	}
	t.Logf("%d models", len(files))
}

// Models in ONNX's text syntax load too, and their errors name file and line.
func TestLoadText(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "m.onnxtxt")
	write(t, path, []byte(`<ir_version: 8, opset_import: ["" : 17]>
g (float[N,2] x) => (float[N,2] y) {
  y = Relu (x)
}
`))
	m, err := frontend.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if m.Graph.Len() != 1 || m.Path != path {
		t.Errorf("%d nodes from %q", m.Graph.Len(), m.Path)
	}
	write(t, path, []byte("<ir_version: 8>\ng (float x) => (float y) {\n y = Relu (q)\n}\n"))
	if _, err := frontend.Load(path); err == nil || !strings.HasPrefix(err.Error(), path+":3:") {
		t.Errorf("got the error %v, want one of line 3", err)
	}
}
