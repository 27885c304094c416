package eval_test

import (
	"path/filepath"
	"testing"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/runtime/eval"
	"github.com/qsimc/qsimc/testdata/shared"
)

// SqueezeNet on 200 photographs, preprocessed by us, gives the accuracy that ONNX Runtime was measured to have on tensors that
// Pillow made (shared/models/README.md): 123 of 200. One image may move with the decoder. Short runs leave it out: its products take
// minutes in plain Go, and runtime/conform runs the same model on stored data.
func TestImageAccuracy(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short: 200 photographs take minutes in plain Go; conform runs the model on stored data")
	}
	dir := shared.Dir(t)
	root, err := shared.Root()
	if err != nil {
		t.Fatal(err)
	}
	photos := filepath.Join(root, "..", "shared", "data", "imagenet200")
	m, err := frontend.Load(filepath.Join(dir, "models", "squeezenet1.1-fp32", "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := frontend.OpenData(filepath.Join(photos, "images"), m, frontend.DataOptions{
		Preprocess: "resize=256 crop=224 mean=104,117,123 channels=bgr", Labels: filepath.Join(photos, "labels.csv"), Extra: true})
	if err != nil {
		t.Fatal(err)
	}
	r, err := eval.Run(t.Context(), m, data, eval.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if hits := r.Value * 200; r.Metric != "top1" || r.Samples != 200 || hits < 122 || hits > 124 {
		t.Errorf("%s %v of %d samples, want top1 0.615 of 200", r.Metric, r.Value, r.Samples)
	}
}
