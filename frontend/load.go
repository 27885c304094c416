// Package frontend turns files into what the compiler works on: ONNX models into ir.Model, sample files into ir.Samples. All
// that is odd about ONNX files stops here.
//
//	m, err := frontend.Load("model.onnx")
//	for n := range m.Graph.Nodes() { … }
package frontend

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/ir/store"
)

// Load reads a model and infers the types of its values. Files named .onnxtxt or .txt are in ONNX's text syntax, all others in
// its binary form. Large files are mapped and not read: the model's tensors are slices of the map (see Decode), and the file
// must not be cut while the program runs. External data is looked for in the model's folder.
func Load(path string) (*ir.Model, error) {
	m, err := read(path)
	if err != nil {
		return nil, err
	}
	m.Path = path
	if err := op.Infer(m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

func read(path string) (*ir.Model, error) {
	data, err := contents(path)
	if err != nil {
		return nil, err
	}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".onnxtxt", ".txt":
		m, err := ir.Parse(path, data)
		if err != nil {
			return nil, err // it begins with file, line and column
		}
		if err := ir.Check(m); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return m, nil
	}
	m, err := Decode(data, Folder(filepath.Dir(path)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// mapAbove is the size from which a file is mapped. Smaller ones are read, so that the garbage collector can free them.
const mapAbove = 256 << 10

// contents returns the bytes of a file, mapped where that pays.
func contents(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() && info.Size() > mapAbove {
		b, err := store.Map(f, info.Size())
		if b != nil || err != nil {
			return b, err
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	return b, nil
}
