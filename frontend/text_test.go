package frontend_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/testdata/shared"
)

// The ids of sample.txt were made by Hugging Face tokenizers (testdata/text/ids.py).
func TestTokenizerAgainstHuggingFace(t *testing.T) {
	t.Parallel()
	const dir = "../testdata/text"
	files := map[string]string{"sample.nano.json": filepath.Join(dir, "tokenizer-nano.json")}
	if found, err := shared.Find(); err == nil && found != "" {
		files["sample.mini.json"] = filepath.Join(found, "zoo", "data", "tokenizer.json")
	}
	text, err := os.ReadFile(filepath.Join(dir, "sample.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for ids, file := range files {
		tok, err := frontend.LoadTokenizer(file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tok.Encode(string(text))
		if err != nil {
			t.Fatal(err)
		}
		var want []int64
		data, err := os.ReadFile(filepath.Join(dir, ids))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", ids, diff)
		}
	}
}

func TestTokenizerLongPiece(t *testing.T) {
	t.Parallel()
	tok, err := frontend.LoadTokenizer("../testdata/text/tokenizer-nano.json")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := tok.Encode(strings.Repeat("a", 1<<20)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("a piece of a megabyte took %v", d)
	}
}

func TestTokenizerRefusals(t *testing.T) {
	t.Parallel()
	const bpe = `"pre_tokenizer": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []`
	for name, tc := range map[string]struct{ file, text, want string }{
		"kind":       {`{"model": {"type": "WordPiece", "vocab": {"a": 0}}}`, "", `model of type "WordPiece"`},
		"split":      {`{"pre_tokenizer": {"type": "Metaspace"}, "model": {"type": "BPE", "vocab": {"a": 0}}}`, "", `pre_tokenizer of type "Metaspace"`},
		"normalizer": {`{"normalizer": {"type": "NFC"}, ` + bpe + `}}`, "", "normalizer"},
		"fallback":   {`{` + bpe + `, "byte_fallback": true}}`, "", "byte fallback"},
		"merge":      {`{"pre_tokenizer": {"type": "ByteLevel"}, "model": {"vocab": {"a": 0}, "merges": ["a b"]}}`, "", `merge 0: "ab" is not in the vocabulary`},
		"byte":       {`{` + bpe + `}}`, "ab", `symbol "b"`},
		"utf-8":      {`{` + bpe + `}}`, "a\xff", "byte 1 is no UTF-8"},
	} {
		path := filepath.Join(t.TempDir(), "tokenizer.json")
		if err := os.WriteFile(path, []byte(tc.file), 0o644); err != nil {
			t.Fatal(err)
		}
		tok, err := frontend.LoadTokenizer(path)
		if err == nil {
			_, err = tok.Encode(tc.text)
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want one with %q", name, err, tc.want)
		}
	}
}

const tokenModel = `<ir_version: 8, opset_import: ["" : 17]>
m (int64[N,L] input_ids, int64[N,L] attention_mask) => (int64[N,L] y) { y = Add (input_ids, attention_mask) }`

func TestTextData(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := filepath.Join(dir, "a.txt")
	if err := os.WriteFile(text, []byte(strings.Repeat("the end ", 10)), 0o644); err != nil {
		t.Fatal(err)
	}
	m := parse(t, tokenModel)
	const tokenizer = "../testdata/text/tokenizer-nano.json"
	d, err := frontend.OpenData(text, m, frontend.DataOptions{Tokenizer: tokenizer, SeqLen: 4, Count: 2})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for f, err := range d.Feeds() {
		if err != nil {
			t.Fatal(err)
		}
		n++
		if s := f.Tensors["input_ids"].Shape(); !cmp.Equal(s, []int{1, 4}) || f.Tensors["attention_mask"] == nil {
			t.Errorf("feed %d: ids %v, mask %v", n, s, f.Tensors["attention_mask"])
		}
	}
	if n != 2 {
		t.Errorf("%d feeds, want 2", n)
	}
	for _, o := range []frontend.DataOptions{
		{Tokenizer: tokenizer}, {SeqLen: 4}, {Tokenizer: tokenizer, SeqLen: 1000}, {Tokenizer: "none.json", SeqLen: 4},
		{Labels: "labels.csv"}, {Tokenizer: tokenizer, SeqLen: 4, Preprocess: "crop=3"},
	} {
		if _, err := frontend.OpenData(text, m, o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

func parse(t *testing.T, text string) *ir.Model {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.onnxtxt")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	m, err := frontend.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
