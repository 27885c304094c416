package frontend

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/qsimc/qsimc/ir"
)

// textData makes samples of a text: the ids of the whole file, one after the other, cut into sequences of o.SeqLen; what is
// left over at the end is dropped.
func textData(path string, m *ir.Model, o DataOptions) (*Data, error) {
	if o.SeqLen < 2 {
		return nil, fmt.Errorf("%s: sequences of %d tokens, wanted a length from 2 on", path, o.SeqLen)
	}
	t, err := LoadTokenizer(o.Tokenizer)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, errors.New(path + ": the text is empty")
	}
	ids, err := t.Encode(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	n := len(ids) / o.SeqLen
	if n == 0 {
		return nil, fmt.Errorf("%s: %d tokens give no sequence of %d", path, len(ids), o.SeqLen)
	}
	data := make([]byte, 0, n*o.SeqLen*8)
	for _, id := range ids[:n*o.SeqLen] {
		data = binary.LittleEndian.AppendUint64(data, uint64(id))
	}
	return single(&array{name: path, elem: ir.Int64, shape: []int{n, o.SeqLen}, mapped: data}, m, o)
}
