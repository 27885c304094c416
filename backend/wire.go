package backend

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/qsimc/qsimc/ir"
)

// message is an encoded protobuf message whose large tensors are not copied into it: pieces of bytes with tensors between
// them. Its size is known before any tensor is loaded.
type message struct {
	pieces []piece
	size   int64
}

// piece is bytes, or the raw data of a tensor.
type piece struct {
	b []byte
	t *ir.Tensor
}

// small is the size up to which tensor data is copied instead of being a piece of its own.
const small = 4096

func (m *message) add(b []byte) {
	if len(b) == 0 {
		return
	}
	if k := len(m.pieces); k == 0 || m.pieces[k-1].t != nil {
		m.pieces = append(m.pieces, piece{})
	}
	last := &m.pieces[len(m.pieces)-1]
	last.b = append(last.b, b...)
	m.size += int64(len(b))
}

func (m *message) tag(num protowire.Number, typ protowire.Type) {
	var b [10]byte
	m.add(protowire.AppendTag(b[:0], num, typ))
}

func (m *message) raw(v uint64) {
	var b [10]byte
	m.add(protowire.AppendVarint(b[:0], v))
}

// integer writes a varint field.
func (m *message) integer(num protowire.Number, v int64) {
	m.tag(num, protowire.VarintType)
	m.raw(uint64(v))
}

// integerIf writes a varint field that stands for 0 when it is absent.
func (m *message) integerIf(num protowire.Number, v int64) {
	if v != 0 {
		m.integer(num, v)
	}
}

func (m *message) float(num protowire.Number, v float32) {
	m.tag(num, protowire.Fixed32Type)
	var b [4]byte
	m.add(protowire.AppendFixed32(b[:0], math.Float32bits(v)))
}

func (m *message) bytes(num protowire.Number, b []byte) {
	m.tag(num, protowire.BytesType)
	m.raw(uint64(len(b)))
	m.add(b)
}

func (m *message) text(num protowire.Number, s string) { m.bytes(num, []byte(s)) }

// textIf writes a string field that stands for "" when it is absent.
func (m *message) textIf(num protowire.Number, s string) {
	if s != "" {
		m.text(num, s)
	}
}

// message writes a field that is a message itself.
func (m *message) message(num protowire.Number, sub *message) {
	m.tag(num, protowire.BytesType)
	m.raw(uint64(sub.size))
	for _, p := range sub.pieces {
		if p.t == nil {
			m.add(p.b)
			continue
		}
		m.pieces = append(m.pieces, p)
		m.size += int64(p.t.Size())
	}
}

// data writes a bytes field with the raw data of a tensor.
func (m *message) data(num protowire.Number, t *ir.Tensor) error {
	if t.Size() <= small {
		if err := t.Load(); err != nil {
			return err
		}
		m.bytes(num, t.Bytes())
		return nil
	}
	m.tag(num, protowire.BytesType)
	m.raw(uint64(t.Size()))
	m.pieces = append(m.pieces, piece{t: t})
	m.size += int64(t.Size())
	return nil
}

// props writes StringStringEntryProtos.
func (m *message) props(num protowire.Number, props []ir.Prop) {
	for _, p := range props {
		var e message
		e.text(1, p.Key)
		e.text(2, p.Value)
		m.message(num, &e)
	}
}
