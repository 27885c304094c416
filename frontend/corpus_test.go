package frontend_test

import (
	"strings"
	"testing"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/testdata/shared"
)

// Every model of the shared material loads.
func TestLoadCorpus(t *testing.T) {
	t.Parallel()
	files := shared.Models(t, "zoo", "models", "onnx-node-tests")
	for _, file := range files {
		if strings.Contains(file, "ort-mul_1.noopset") || strings.Contains(file, "ort-onnxruntime_python_datasets_mul_1/") {
			continue // no models: without an opset import, without an IR version
		}
		if _, err := frontend.Load(file); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d models", len(files))
}
