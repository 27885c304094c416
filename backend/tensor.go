package backend

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/qsimc/qsimc/ir"
)

func labelName(t *ir.Tensor) string {
	if t.Label == nil {
		return ""
	}
	return t.Label.Name
}

// tensor writes a TensorProto: raw data, string_data for strings, or a place in the data file.
func (e *encoder) tensor(name string, t *ir.Tensor, place func(*ir.Tensor) (int64, bool)) (*message, error) {
	msg := &message{}
	for _, n := range t.Shape() {
		msg.integer(1, int64(n))
	}
	msg.integer(2, int64(t.Elem()))
	for _, s := range t.Strings() {
		msg.bytes(6, s)
	}
	msg.textIf(8, name)
	var external []ir.Prop
	if t.Elem() != ir.String {
		var offset int64
		outside := false
		if place != nil {
			offset, outside = place(t)
		}
		if outside {
			external = []ir.Prop{
				{Key: "location", Value: e.location},
				{Key: "offset", Value: strconv.FormatInt(offset, 10)},
				{Key: "length", Value: strconv.Itoa(t.Size())},
			}
		} else if err := msg.data(9, t); err != nil {
			return nil, err
		}
	}
	if t.Label != nil {
		msg.textIf(12, t.Label.Doc)
	}
	msg.props(13, external)
	if external != nil {
		msg.integer(14, 1)
	}
	if t.Label != nil {
		msg.props(16, t.Label.Meta)
		msg.add(t.Label.Opaque)
	}
	return msg, nil
}

// sparse writes a SparseTensorProto under the name its values carry.
func (e *encoder) sparse(name string, s *ir.SparseTensor) (*message, error) {
	msg := &message{}
	values, err := e.tensor(name, s.Values, nil)
	if err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	indices, err := e.tensor(labelName(s.Indices), s.Indices, nil)
	if err != nil {
		return nil, fmt.Errorf("indices: %w", err)
	}
	msg.message(1, values)
	msg.message(2, indices)
	for _, n := range s.Shape {
		msg.integer(3, int64(n))
	}
	return msg, nil
}

// typeProto writes a TypeProto.
func typeProto(t ir.Type) *message {
	msg := &message{}
	var body message
	num := protowire.Number(1)
	switch t.Kind {
	case ir.TensorKind, ir.SparseKind:
		if t.Kind == ir.SparseKind {
			num = 8
		}
		body.integerIf(1, int64(t.Elem))
		if t.Ranked {
			body.message(2, shapeProto(t.Dims))
		}
	case ir.SequenceKind, ir.OptionalKind:
		num = 4
		if t.Kind == ir.OptionalKind {
			num = 9
		}
		if t.Of != nil {
			body.message(1, typeProto(*t.Of))
		}
	case ir.MapKind:
		num = 5
		body.integerIf(1, int64(t.Elem))
		if t.Of != nil {
			body.message(2, typeProto(*t.Of))
		}
	case ir.OpaqueKind:
		num = 7
		body.add(t.Wire)
	}
	if num < 6 && t.Known() { // the denotation of a type can be all there is
		msg.message(num, &body)
	}
	msg.textIf(6, t.Denot)
	if num > 6 {
		msg.message(num, &body)
	}
	return msg
}

func shapeProto(dims []ir.Dim) *message {
	msg := &message{}
	for _, d := range dims {
		var b message
		switch {
		case d.Known():
			b.integer(1, d.Size)
		case d.Name != "":
			b.text(2, d.Name)
		}
		b.textIf(3, d.Denot)
		msg.message(1, &b)
	}
	return msg
}
