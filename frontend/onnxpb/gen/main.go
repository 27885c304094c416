// Command gen writes the Go bindings of onnx.proto. It needs nothing but Go: the proto file is compiled by a Go library and
// the bindings are written by the generator behind protoc-gen-go.
//
//	go run -C frontend/onnxpb/gen . ..         writes ../onnx.pb.go
//	go run -C frontend/onnxpb/gen . -check ..  fails if ../onnx.pb.go is not what it would write
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	gengo "google.golang.org/protobuf/cmd/protoc-gen-go/internal_gengo"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// registered is the path the file is registered under. Other libraries register an onnx.proto too, and a path may be taken
// only once in a program.
const registered = "qsimc/onnxpb/onnx.proto"

func main() {
	check := flag.Bool("check", false, "compare instead of writing")
	flag.Parse()
	dir := "."
	if flag.NArg() > 0 {
		dir = flag.Arg(0)
	}
	if err := run(dir, *check); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(dir string, check bool) error {
	code, err := generate(dir)
	if err != nil {
		return err
	}
	target := filepath.Join(dir, "onnx.pb.go")
	if !check {
		return os.WriteFile(target, code, 0o644)
	}
	have, err := os.ReadFile(target)
	if err != nil {
		return err
	}
	if !bytes.Equal(have, code) {
		return fmt.Errorf("%s is stale: run go generate ./frontend/onnxpb", target)
	}
	return nil
}

// generate returns the bindings of the onnx.proto in dir.
func generate(dir string) ([]byte, error) {
	source, err := os.ReadFile(filepath.Join(dir, "onnx.proto"))
	if err != nil {
		return nil, err
	}
	compiler := protocompile.Compiler{
		Resolver: &protocompile.SourceResolver{
			Accessor: func(path string) (io.ReadCloser, error) {
				if path != registered {
					return nil, os.ErrNotExist
				}
				return io.NopCloser(bytes.NewReader(source)), nil
			},
		},
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(context.Background(), registered)
	if err != nil {
		return nil, err
	}
	desc := protoutil.ProtoFromFileDescriptor(files[0])
	plugin, err := protogen.Options{}.New(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{registered},
		Parameter:      proto.String("paths=source_relative"),
		ProtoFile:      []*descriptorpb.FileDescriptorProto{desc},
	})
	if err != nil {
		return nil, err
	}
	plugin.SupportedFeatures = gengo.SupportedFeatures
	for _, f := range plugin.Files {
		if f.Generate {
			gengo.GenerateFile(plugin, f)
		}
	}
	resp := plugin.Response()
	if resp.Error != nil {
		return nil, fmt.Errorf("generator: %s", resp.GetError())
	}
	// the checksum lets a test see, without the compiler, that the proto file has not changed since
	head := fmt.Sprintf("// onnx.proto sha256 %x\n", sha256.Sum256(source))
	return append([]byte(head), resp.File[0].GetContent()...), nil
}
