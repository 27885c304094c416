package frontend_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/frontend/onnxpb"
	"github.com/qsimc/qsimc/ir"
)

// encoded turns the text form of a ModelProto into a file. IR version and opset are added where they are not given.
func encoded(t testing.TB, text string) []byte {
	t.Helper()
	var m onnxpb.ModelProto
	if err := prototext.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if m.IrVersion == nil {
		m.IrVersion = proto.Int64(8)
	}
	if m.OpsetImport == nil {
		m.OpsetImport = []*onnxpb.OperatorSetIdProto{{Version: proto.Int64(17)}}
	}
	b, err := proto.Marshal(&m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	inX  = `input {name: "x" type {tensor_type {elem_type: 1 shape {dim {dim_value: 2}}}}}`
	outY = `output {name: "y" type {tensor_type {elem_type: 1}}}`
)

func TestDecodeErrors(t *testing.T) {
	t.Parallel()
	nested := `name: "deep"`
	for range 70 {
		nested = fmt.Sprintf(`name: "g" node {name: "n" op_type: "If" attribute {name: "then_branch" type: GRAPH g {%s}}}`, nested)
	}
	for _, c := range []struct{ name, text, want string }{
		{"old", `ir_version: 2 graph {}`, "IR version 2, want 3 to 14"},
		{"new", `ir_version: 99 graph {}`, "IR version 99, want 3 to 14"},
		{"negative version", `ir_version: -1 graph {}`, "IR version -1, want 3 to 14"},
		{"opset", `opset_import {version: 90} graph {}`, "opset 90, want 1 to 28"},
		{"two opsets", `opset_import {version: 9} opset_import {domain: "ai.onnx" version: 10} graph {}`, `domain "" is imported as opset 9 and as opset 10`},
		{"no graph", `producer_name: "x"`, "not an ONNX model: it has no graph"},
		{"undefined input", `graph {name: "g" node {name: "a" op_type: "Relu" input: "zz" output: "y"}}`,
			`graph "g": node "a" (Relu): input 0, "zz", is not defined: no input, initializer or node output has that name`},
		{"undefined output", `graph {name: "g" ` + outY + `}`, `graph "g": output 0, "y", is not defined: no input, initializer or node output has that name`},
		{"cycle", `graph {name: "g" ` + inX + ` node {name: "a" op_type: "Add" input: "x" input: "c" output: "b"}
			node {name: "d" op_type: "Relu" input: "b" output: "c"} node {name: "e" op_type: "Relu" input: "c" output: "y"}}`,
			`graph "g": the nodes form a cycle through node "a" (Add)`},
		{"own output", `graph {name: "g" node {name: "a" op_type: "Relu" input: "b" output: "b"}}`, `the nodes form a cycle through node "a" (Relu)`},
		{"cycle through a subgraph", `graph {name: "g" node {name: "a" op_type: "If" output: "b" attribute {name: "then_branch" type: GRAPH
			g {name: "t" node {name: "i" op_type: "Relu" input: "b" output: "r"} output {name: "r"}}}}}`, `the nodes form a cycle through node "a" (If)`},
		{"two producers", `graph {name: "g" ` + inX + ` node {name: "a" op_type: "Relu" input: "x" output: "y"} node {name: "b" op_type: "Neg" input: "x" output: "y"}}`,
			`graph "g": node "b" (Neg): output 0, "y", is already an output of node "a" (Relu)`},
		{"input twice", `graph {name: "g" ` + inX + inX + `}`, `graph "g": input "x": the name is already that of an input`},
		{"initializer twice", `graph {name: "g" initializer {name: "w" data_type: 1 float_data: 1} initializer {name: "w" data_type: 1 float_data: 1}}`,
			`graph "g": initializer "w": the name is already that of an initializer`},
		{"output is an initializer", `graph {name: "g" ` + inX + ` initializer {name: "w" data_type: 1 float_data: 1} node {name: "a" op_type: "Relu" input: "x" output: "w"}}`,
			`graph "g": node "a" (Relu): output 0, "w": the name is already that of an initializer`},
		{"attribute twice", `graph {name: "g" node {name: "a" op_type: "F" attribute {name: "k" i: 1 type: INT} attribute {name: "k" i: 1 type: INT}}}`,
			`graph "g": node "a" (F): attribute "k" appears twice`},
		{"attribute type", `graph {name: "g" node {name: "a" op_type: "F" attribute {name: "k" i: 1 type: TENSOR}}}`,
			`graph "g": node "a" (F): attribute "k": its type is 4, its value is of type 2`},
		{"no operator", `graph {name: "g" node {name: "a"}}`, `graph "g": node "a" has no operator`},
		{"short data", `graph {name: "g" initializer {name: "w" data_type: 1 dims: 2 dims: 3 raw_data: "1234"}}`,
			`graph "g": initializer "w": float[2 3] wants 24 bytes of data, found 4`},
		{"few integers", `graph {name: "g" initializer {name: "w" data_type: 3 dims: 3 int32_data: 1}}`,
			`graph "g": initializer "w": int8[3]: int32_data: wants 3 integers, found 1`},
		{"range", `graph {name: "g" initializer {name: "w" data_type: 2 dims: 1 int32_data: 256}}`,
			`graph "g": initializer "w": uint8[1]: int32_data: integer 0 is 256, outside -128 to 255`},
		{"field", `graph {name: "g" initializer {name: "w" data_type: 1 dims: 1 int64_data: 1}}`,
			`graph "g": initializer "w": float[1] wants its data in float_data or raw_data, found it in int64_data`},
		{"both", `graph {name: "g" initializer {name: "w" data_type: 1 dims: 1 raw_data: "1234" float_data: 1}}`,
			`graph "g": initializer "w": data both in raw_data and in float_data`},
		{"negative size", `graph {name: "g" initializer {name: "w" data_type: 1 dims: -3}}`, `graph "g": initializer "w": shape [-3] has a negative dimension`},
		{"huge size", `graph {name: "g" initializer {name: "w" data_type: 1 dims: 9000000000000000000 raw_data: "1234"}}`,
			`graph "g": initializer "w": shape [9000000000000000000] has more than 1099511627776 elements`},
		{"promised size", `graph {name: "g" initializer {name: "w" data_type: 1 dims: 1000000000000 float_data: 1}}`,
			`graph "g": initializer "w": float[1000000000000] wants 4000000000000 bytes of data, found 4`},
		{"element type", `graph {name: "g" initializer {name: "w" data_type: 77}}`, `graph "g": initializer "w": unknown element type 77`},
		{"raw strings", `graph {name: "g" initializer {name: "w" data_type: 8 raw_data: "a"}}`, `graph "g": initializer "w": strings in raw_data`},
		{"tensor attribute", `graph {name: "g" node {name: "c" op_type: "Constant" output: "k" attribute {name: "value" type: TENSOR t {name: "v" data_type: 1 dims: 2}}}}`,
			`graph "g": node "c" (Constant): attribute "value": tensor "v": float[2] wants 8 bytes of data, found 0`},
		{"declared type", `graph {name: "g" initializer {name: "w" data_type: 1 dims: 1 float_data: 1} value_info {name: "w" type {tensor_type {elem_type: 7}}}}`,
			`graph "g": value "w": declared as int64[], is float[1]: element type float contradicts int64`},
		{"in a subgraph", `graph {name: "g" ` + inX + ` node {name: "a" op_type: "If" input: "x" output: "y" attribute {name: "else_branch" type: GRAPH
			g {name: "e" node {name: "i" op_type: "Relu" input: "q" output: "r"} output {name: "r"}}}}}`,
			`graph "g": node "a" (If): attribute "else_branch": graph "e": node "i" (Relu): input 0, "q", is not defined: no input, initializer or node output has that name`},
		{"in a function", `graph {name: "g"} functions {name: "f" domain: "d" node {name: "i" op_type: "Relu" input: "q" output: "r"}}`,
			`function d.f: node "i" (Relu): input 0, "q", is not defined: no input, initializer or node output has that name`},
		{"function twice", `graph {name: "g"} functions {name: "f" domain: "d"} functions {name: "f" domain: "d"}`, `function d.f (overload "") is defined twice`},
		{"nesting", `graph {` + nested + `}`, "graphs are nested more than 64 deep"},
		{"sparse", `graph {name: "g" sparse_initializer {values {name: "s" data_type: 1 dims: 2 float_data: [1, 2]} indices {data_type: 7 dims: 1 int64_data: 0} dims: 4}}`,
			`graph "g": sparse initializer "s": sparse tensor "s" of rank 1: values float[2] and indices int64[1] do not fit: want [n] and int64[n] or int64[n,1]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := frontend.Decode(encoded(t, c.text), nil)
			if err == nil {
				t.Fatalf("accepted, want the error %q", c.want)
			}
			if got := err.Error(); got != c.want && !strings.HasSuffix(got, ": "+c.want) {
				t.Errorf("got the error\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// A file that is cut anywhere is refused with a message that names it, or, where the cut falls between two fields, lacks
// what was cut off. Nothing panics.
func TestCutShort(t *testing.T) {
	t.Parallel()
	whole := encoded(t, `graph {name: "g" `+inX+outY+` initializer {name: "w" data_type: 1 dims: 2 raw_data: "12345678"}
		node {name: "a" op_type: "Add" input: "x" input: "w" output: "y"}}`)
	dir := t.TempDir()
	for n := range whole {
		path := write(t, filepath.Join(dir, "m.onnx"), whole[:n])
		m, err := frontend.Load(path)
		if err == nil && m.Graph.Len() != 1 {
			t.Errorf("%d of %d bytes: half a model was accepted", n, len(whole))
		}
		if err != nil && !strings.HasPrefix(err.Error(), path+": ") {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, err := frontend.Load(filepath.Join(dir, "absent.onnx")); !os.IsNotExist(err) {
		t.Errorf("absent file: %v", err)
	}
}

func externalModel(t testing.TB, entries string) []byte {
	return encoded(t, `graph {name: "g" initializer {name: "w" data_type: 1 dims: 2 data_location: EXTERNAL `+entries+`}}`)
}

func TestExternalData(t *testing.T) {
	t.Parallel()
	outer := t.TempDir()
	dir := filepath.Join(outer, "model")
	data := []byte("....\x00\x00\x80\x3f\x00\x00\x00\x40")
	write(t, filepath.Join(outer, "secret.bin"), data)
	write(t, filepath.Join(dir, "w.bin"), data)
	write(t, filepath.Join(dir, "sub", "w.bin"), data)
	if err := os.Symlink("../secret.bin", filepath.Join(dir, "link.bin")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("w.bin", filepath.Join(dir, "inner.bin")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, entries, want string }{
		{"plain", `external_data {key: "location" value: "w.bin"} external_data {key: "offset" value: "4"} external_data {key: "length" value: "8"}`, ""},
		{"no length", `external_data {key: "location" value: "./sub/../sub/w.bin"} external_data {key: "offset" value: "4"}`, ""},
		{"inner link", `external_data {key: "location" value: "inner.bin"} external_data {key: "offset" value: "4"}`, ""},
		{"escape", `external_data {key: "location" value: "../secret.bin"}`, `external data "../secret.bin": the path leaves the model's folder`},
		{"absolute", `external_data {key: "location" value: "/etc/passwd"}`, `external data "/etc/passwd": the path is absolute; data must lie in the model's folder`},
		{"link out", `external_data {key: "location" value: "link.bin"}`, `external data "link.bin": statat link.bin: path escapes from parent`},
		{"missing", `external_data {key: "location" value: "none.bin"}`, `external data "none.bin": statat none.bin: no such file or directory`},
		{"folder", `external_data {key: "location" value: "sub"}`, `external data "sub": not a regular file`},
		{"no location", `external_data {key: "offset" value: "4"}`, "external data without a location"},
		{"offset", `external_data {key: "location" value: "w.bin"} external_data {key: "offset" value: "x"}`, `external data: offset "x" is not a number of bytes`},
		{"negative", `external_data {key: "location" value: "w.bin"} external_data {key: "offset" value: "-4"}`, `external data: offset "-4" is not a number of bytes`},
		{"beyond", `external_data {key: "location" value: "w.bin"} external_data {key: "offset" value: "9223372036854775807"}`,
			`external data "w.bin": wants 8 bytes at offset 9223372036854775807, the file has 12`},
		{"short", `external_data {key: "location" value: "w.bin"} external_data {key: "offset" value: "8"}`, `external data "w.bin": wants 8 bytes at offset 8, the file has 12`},
		{"length", `external_data {key: "location" value: "w.bin"} external_data {key: "length" value: "4"}`, `external data "w.bin": float[2] wants 8 bytes, its length says 4`},
	} {
		path := write(t, filepath.Join(dir, c.name+".onnx"), externalModel(t, c.entries))
		m, err := frontend.Load(path)
		if c.want != "" {
			if want := path + `: graph "g": initializer "w": ` + c.want; err == nil || err.Error() != want {
				t.Errorf("%s: got the error\n%v\nwant\n%s", c.name, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		checkW(t, m)
	}

	// a file system that is no folder is read on demand
	text := `external_data {key: "location" value: "w.bin"} external_data {key: "offset" value: "4"}`
	m, err := frontend.Decode(externalModel(t, text), fstest.MapFS{"w.bin": {Data: data}})
	if err != nil {
		t.Fatal(err)
	}
	checkW(t, m)
	if _, err := frontend.Decode(externalModel(t, text), nil); err == nil || !strings.HasSuffix(err.Error(), "the model was given without a folder") {
		t.Errorf("without a folder: %v", err)
	}
}

func checkW(t *testing.T, m *ir.Model) {
	t.Helper()
	w := m.Find("w").Const()
	if err := w.Load(); err != nil {
		t.Error(err)
		return
	}
	if v, _ := w.Float32s(); len(v) != 2 || v[0] != 1 || v[1] != 2 {
		t.Errorf("w is %v", v)
	}
}
