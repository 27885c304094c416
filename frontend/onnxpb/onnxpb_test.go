package onnxpb_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/frontend/onnxpb"
)

// The bindings belong to the proto file beside them. (The whole comparison needs a compiler of proto files and is the test of
// the module in gen.)
func TestChecksum(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("onnx.proto")
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("onnx.pb.go")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(code), "\n")
	if want := fmt.Sprintf("// onnx.proto sha256 %x", sha256.Sum256(source)); first != want {
		t.Errorf("onnx.pb.go begins with %q, want %q: run go generate ./frontend/onnxpb", first, want)
	}
}

func TestPackageName(t *testing.T) {
	t.Parallel()
	d := (&onnxpb.ModelProto{}).ProtoReflect().Descriptor()
	if got := d.FullName(); got != "qsimc.onnx.ModelProto" {
		t.Errorf("the model message is %s; it must not share a name with other ONNX bindings", got)
	}
	if got := d.ParentFile().Path(); got != "qsimc/onnxpb/onnx.proto" {
		t.Errorf("the proto file is registered as %s", got)
	}
}
