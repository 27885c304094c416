package backend_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/qsimc/qsimc/backend"
	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/frontend/onnxpb"
	"github.com/qsimc/qsimc/testdata/shared"
)

// everything is a model with a little of all that ONNX files may hold.
const everything = `
ir_version: 13
opset_import {version: 25}
opset_import {domain: "d" version: 1}
producer_name: "p" producer_version: "1" domain: "org" model_version: -3 doc_string: "doc"
metadata_props {key: "k" value: "v"} metadata_props {key: "k" value: "w"}
training_info {initialization {name: "init"} update_binding {key: "a" value: "b"}}
configuration {name: "c" num_devices: 2 device: "0" device: "1"}
functions {
  name: "f" domain: "d" overload: "o" input: "a" output: "b" attribute: "alpha" doc_string: "fd"
  attribute_proto {name: "beta" f: 2 type: FLOAT}
  opset_import {version: 25} metadata_props {key: "fk" value: "fv"}
  value_info {name: "a" type {tensor_type {elem_type: 1}}}
  node {op_type: "Elu" input: "a" output: "b" attribute {name: "alpha" ref_attr_name: "alpha" type: FLOAT}}
}
graph {
  name: "g" doc_string: "gd" metadata_props {key: "gk" value: "gv"}
  quantization_annotation {tensor_name: "x" quant_parameter_tensor_names {key: "SCALE_TENSOR" value: "s"}}
  input {name: "x" doc_string: "xd" metadata_props {key: "xk" value: "xv"} type {denotation: "IMAGE"
    tensor_type {elem_type: 1 shape {dim {dim_param: "N" denotation: "BATCH"} dim {dim_value: 2} dim {}}}}}
  input {name: "cond" type {tensor_type {elem_type: 9 shape {}}}}
  input {name: "seq" type {sequence_type {elem_type {optional_type {elem_type {tensor_type {elem_type: 7}}}}}}}
  input {name: "map" type {map_type {key_type: 7 value_type {tensor_type {elem_type: 8}}}}}
  input {name: "sp" type {sparse_tensor_type {elem_type: 1 shape {dim {dim_value: 3}}}}}
  input {name: "op" type {opaque_type {domain: "d" name: "n"}}}
  input {name: "w" type {tensor_type {elem_type: 1 shape {dim {dim_value: 2}}}}}
  output {name: "y" type {tensor_type {elem_type: 1}}}
  output {name: "z"}
  initializer {name: "w" data_type: 1 dims: 2 float_data: [1, 2] doc_string: "wd" metadata_props {key: "wk" value: "wv"}}
  initializer {name: "h" data_type: 10 dims: 2 int32_data: [15360, 65535]}
  initializer {name: "i4" data_type: 22 dims: 3 int32_data: [31, 5]}
  initializer {name: "i2" data_type: 26 dims: 5 raw_data: "ab"}
  initializer {name: "u" data_type: 12 dims: 1 uint64_data: 4294967295}
  initializer {name: "l" data_type: 7 dims: 1 int64_data: -1}
  initializer {name: "d" data_type: 11 dims: 1 double_data: 0.5}
  initializer {name: "c" data_type: 14 dims: 1 float_data: [1, -1]}
  initializer {name: "t" data_type: 8 dims: 2 string_data: "a" string_data: ""}
  initializer {name: "b" data_type: 3 dims: 2 int32_data: [-1, 255]}
  initializer {name: "e" data_type: 1 dims: 0}
  sparse_initializer {values {name: "s" data_type: 1 dims: 1 float_data: 3} indices {name: "si" data_type: 7 dims: 1 dims: 2 int64_data: [1, 0]} dims: 2 dims: 2}
  value_info {name: "n1" type {tensor_type {elem_type: 1 shape {dim {dim_param: "N"}}}} doc_string: "nd"}
  value_info {name: "nothing" type {tensor_type {elem_type: 1}}}
  node {name: "n" op_type: "f" domain: "d" overload: "o" input: "x" output: "n1" doc_string: "nd" metadata_props {key: "nk" value: "nv"}
    attribute {name: "alpha" f: 0 type: FLOAT doc_string: "ad"}
    device_configurations {configuration_id: "c" pipeline_stage: 1 sharding_spec {tensor_name: "x" device: [0, 1]
      index_to_device_group_map {key: -1 value: [0, 1]} sharded_dim {axis: 0 simple_sharding {dim_param: "N" num_shards: 2}}}}}
  node {op_type: "Odd" domain: "unknown.org" input: "" input: "n1" input: "" output: "" output: "o1"
    attribute {name: "i" i: 0 type: INT} attribute {name: "s" s: "" type: STRING} attribute {name: "is" type: INTS}
    attribute {name: "fs" floats: [1, -0] type: FLOATS} attribute {name: "ss" strings: ["a", "b"] type: STRINGS}
    attribute {name: "t" t {name: "in" data_type: 23 dims: 1 raw_data: "\001" doc_string: "td"} type: TENSOR}
    attribute {name: "ts" tensors {data_type: 24 raw_data: "a"} tensors {data_type: 6 dims: 1 int32_data: 3} type: TENSORS}
    attribute {name: "tp" tp {tensor_type {elem_type: 1}} type: TYPE_PROTO} attribute {name: "tps" type_protos {denotation: "x"} type: TYPE_PROTOS}
    attribute {name: "st" sparse_tensor {values {data_type: 1 dims: 1 float_data: 3} indices {data_type: 7 dims: 1 int64_data: 1} dims: 4} type: SPARSE_TENSOR}}
  node {op_type: "If" input: "cond" output: "y"
    attribute {name: "then_branch" type: GRAPH g {name: "then" node {op_type: "Add" input: "n1" input: "w" output: "a1"} output {name: "a1"}}}
    attribute {name: "else_branch" type: GRAPH g {name: "else" initializer {name: "k" data_type: 1 dims: 1 float_data: 1}
      node {op_type: "Add" input: "o1" input: "k" output: "a2"} output {name: "a2" type {tensor_type {elem_type: 1}}}}}}
  node {op_type: "Sub" input: "s" input: "i2" output: "z"}
}`

func everythingModel(t testing.TB) []byte {
	t.Helper()
	var m onnxpb.ModelProto
	if err := prototext.Unmarshal([]byte(everything), &m); err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(&m)
	if err != nil {
		t.Fatal(err)
	}
	// fields of the future: in the model, the graph, a node, an attribute, a tensor, a value
	unknown := []byte{0xc2, 0x3e, 2, 'h', 'i'} // field 1000, "hi"
	if err := proto.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	for _, p := range []proto.Message{&m, m.Graph, m.Graph.Node[1], m.Graph.Node[1].Attribute[0], m.Graph.Initializer[0],
		m.Graph.Node[1].Attribute[5].T, m.Graph.Input[0], m.Graph.Output[0], m.Functions[0], m.Graph.ValueInfo[0]} {
		p.ProtoReflect().SetUnknown(unknown)
	}
	if b, err = proto.Marshal(&m); err != nil {
		t.Fatal(err)
	}
	return b
}

// All that a file may hold comes out as it went in.
func TestEverything(t *testing.T) {
	t.Parallel()
	data := everythingModel(t)
	m, err := frontend.Decode(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	once, err := backend.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if diff, err := difference(data, once); diff != "" || err != nil {
		t.Errorf("%v (- original, + written):\n%s", err, diff)
	}
	if err := stable(once); err != nil {
		t.Error(err)
	}
}

// stable reports whether an encoded model is written again as it is.
func stable(once []byte) error {
	m, err := frontend.Decode(once, nil)
	if err != nil {
		return err
	}
	twice, err := backend.Encode(m)
	if err == nil && !bytes.Equal(once, twice) {
		err = errNotFixed
	}
	return err
}

var errNotFixed = fixedPointError{}

type fixedPointError struct{}

func (fixedPointError) Error() string { return "writing is no fixed point" }

// FuzzDecode reads arbitrary bytes: nothing panics, and what is accepted is written so that it is read and written the same.
func FuzzDecode(f *testing.F) {
	f.Add(everythingModel(f))
	f.Add([]byte{})
	f.Add([]byte{8, 8, 0x42, 2, 0x10, 17, 0x3a, 0})
	dir, err := shared.Find()
	if err != nil {
		f.Fatal(err)
	}
	if dir != "" {
		files, err := filepath.Glob(filepath.Join(dir, "models", "small-graphs", "*", "model.onnx"))
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			if b, err := os.ReadFile(file); err == nil && len(b) < 2000 {
				f.Add(b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := frontend.Decode(data, nil)
		if err != nil {
			return
		}
		once, err := backend.Encode(m)
		if err != nil {
			t.Fatalf("an accepted model cannot be written: %v", err)
		}
		if err := stable(once); err != nil {
			t.Fatal(err)
		}
	})
}

// Random damage to a model is survived, and costs no more memory than a small multiple of the file.
func TestDamage(t *testing.T) {
	t.Parallel()
	whole := everythingModel(t)
	r := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	for range 3000 {
		data := bytes.Clone(whole)
		for range 1 + r.IntN(3) {
			data[r.IntN(len(data))] = byte(r.Uint32())
		}
		m, err := frontend.Decode(data, nil)
		if err != nil {
			continue
		}
		accepted++
		once, err := backend.Encode(m)
		if err != nil {
			t.Fatalf("an accepted model cannot be written: %v\n%q", err, data)
		}
		if err := stable(once); err != nil {
			t.Fatalf("%v\n%q", err, data)
		}
	}
	if accepted == 0 {
		t.Error("no damaged model was accepted: the test tests nothing")
	}
}

// One node may use one value very often; were anything quadratic in it, this test would not end.
func TestManyUses(t *testing.T) {
	t.Parallel()
	p := &onnxpb.ModelProto{
		IrVersion:   proto.Int64(8),
		OpsetImport: []*onnxpb.OperatorSetIdProto{{Version: proto.Int64(17)}},
		Graph: &onnxpb.GraphProto{
			Input: []*onnxpb.ValueInfoProto{{Name: proto.String("x")}},
			Node:  []*onnxpb.NodeProto{{OpType: proto.String("Sum"), Input: slices.Repeat([]string{"x"}, 200_000), Output: []string{"y"}}},
		},
	}
	data, err := proto.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := frontend.Decode(data, nil); err != nil {
		t.Error(err)
	}
}

// A forged size allocates nothing.
func TestForgedSizes(t *testing.T) {
	var before, after runtime.MemStats
	for _, text := range []string{
		`ir_version: 8 opset_import {version: 17} graph {initializer {name: "w" data_type: 3 dims: 1099511627776 int32_data: 1}}`,
		`ir_version: 8 opset_import {version: 17} graph {initializer {name: "w" data_type: 8 dims: 1099511627776 string_data: "a"}}`,
		`ir_version: 8 opset_import {version: 17} graph {initializer {name: "w" data_type: 22 dims: 1099511627776 raw_data: "a"}}`,
		`ir_version: 8 opset_import {version: 17} graph {sparse_initializer {values {name: "s" data_type: 1 dims: 1 float_data: 3}
			indices {data_type: 7 dims: 1 int64_data: 1} dims: 1099511627776}}`,
	} {
		var p onnxpb.ModelProto
		if err := prototext.Unmarshal([]byte(text), &p); err != nil {
			t.Fatal(err)
		}
		data, err := proto.Marshal(&p)
		if err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&before)
		m, err := frontend.Decode(data, nil)
		if err == nil {
			err = m.Find("s").Const().Load() // a sparse tensor of that size may be carried through, but not written out
		}
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("accepted: %s", text)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
			t.Errorf("%d bytes allocated for %s", grown, text)
		}
	}
}
