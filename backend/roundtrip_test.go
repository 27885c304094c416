package backend_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/qsimc/qsimc/backend"
	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/frontend/onnxpb"
	"github.com/qsimc/qsimc/testdata/shared"
)

// refused are files that are no valid models: without an opset import, without an IR version.
var refused = []string{"small-graphs/ort-mul_1.noopset/", "small-graphs/ort-onnxruntime_python_datasets_mul_1/"}

func in(list []string, file string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.Contains(file, s) })
}

// Every model that is read and written unchanged means what it meant, and comes out the same again.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, file := range shared.Models(t, "zoo", "models", "onnx-node-tests") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m, err := frontend.Decode(data, nil)
		if in(refused, file) {
			if err == nil {
				t.Errorf("%s: accepted", file)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		once, err := backend.Encode(m)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if diff, err := difference(data, once); diff != "" || err != nil {
			t.Errorf("%s: %v (- original, + written):\n%.3000s", file, err, diff)
			continue
		}
		again, err := frontend.Decode(once, nil)
		if err != nil {
			t.Errorf("%s: reading what was written: %v", file, err)
			continue
		}
		if twice, err := backend.Encode(again); err != nil || !bytes.Equal(once, twice) {
			t.Errorf("%s: writing is no fixed point (%v)", file, err)
		}
		clone, _ := m.Clone()
		if cloned, err := backend.Encode(clone); err != nil || !bytes.Equal(once, cloned) {
			t.Errorf("%s: a clone is written differently (%v)", file, err)
		}
	}
}

// difference compares two encoded models in normal form. Where the wanted one is not sorted topologically, its nodes are
// compared as a set.
func difference(want, got []byte) (string, error) {
	var w, g onnxpb.ModelProto
	if err := errors.Join(proto.Unmarshal(want, &w), proto.Unmarshal(got, &g)); err != nil {
		return "", err
	}
	normal(&w)
	normal(&g)
	if !sorted(&g) {
		return "", errors.New("the written model is not sorted")
	}
	if !sorted(&w) {
		for _, m := range []*onnxpb.ModelProto{&w, &g} {
			slices.SortFunc(m.Graph.Node, func(a, b *onnxpb.NodeProto) int { return strings.Compare(a.Output[0], b.Output[0]) })
		}
	}
	if proto.Equal(&w, &g) {
		return "", nil
	}
	return gocmp.Diff(&w, &g, protocmp.Transform()), nil
}

// sorted reports whether every node of the main graph comes after those it uses, those its subgraphs use included.
func sorted(m *onnxpb.ModelProto) bool {
	producer := map[string]int{}
	for i, n := range m.Graph.Node {
		for _, o := range n.Output {
			producer[o] = i
		}
	}
	delete(producer, "")
	ok := true
	for i, n := range m.Graph.Node {
		each(n.ProtoReflect(), func(msg proto.Message) {
			if p, isNode := msg.(*onnxpb.NodeProto); isNode {
				for _, name := range p.Input {
					if j, ours := producer[name]; ours && j >= i {
						ok = false
					}
				}
			}
		})
	}
	return ok
}
