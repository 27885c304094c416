// Package onnxpb holds the Go bindings of the messages ONNX files are made of. They are generated from onnx.proto, whose
// proto package is qsimc.onnx: another ONNX library in the same program may register its own messages beside these.
//
// Only frontend and backend use the package; everything else works on ir.Model.
package onnxpb

// The generator is a module of its own, so that the compiler of proto files is no dependency of qsimc.
//go:generate go run -C gen . ..
