package frontend

import (
	"cmp"
	"container/heap"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Tokenizer turns text into token ids. It is the byte-level BPE of Hugging Face's tokenizer.json files: text is split at added
// tokens, then by the GPT-2 pattern, each piece's UTF-8 bytes become symbols, and pairs of symbols merge by rank. It remembers pieces it has met: not for several
// goroutines at a time.
type Tokenizer struct {
	vocab        map[string]int64
	ranks        map[[2]string]int
	added        []addedToken
	prefixSpace  bool
	split        bool // by the GPT-2 pattern
	ignoreMerges bool
	words        map[string][]int64 // pieces met before
}

type addedToken struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
}

// tokenizerFile is what is read of a tokenizer.json. Truncation, padding and the post-processor are left aside: they
// concern single inputs, not a stream of text.
type tokenizerFile struct {
	AddedTokens  []addedToken    `json:"added_tokens"`
	Normalizer   json.RawMessage `json:"normalizer"`
	PreTokenizer struct {
		Type           string `json:"type"`
		AddPrefixSpace bool   `json:"add_prefix_space"`
		UseRegex       *bool  `json:"use_regex"`
	} `json:"pre_tokenizer"`
	Model struct {
		Type         string           `json:"type"`
		Dropout      *float64         `json:"dropout"`
		Prefix       *string          `json:"continuing_subword_prefix"`
		Suffix       *string          `json:"end_of_word_suffix"`
		ByteFallback bool             `json:"byte_fallback"`
		IgnoreMerges bool             `json:"ignore_merges"`
		Vocab        map[string]int64 `json:"vocab"`
		Merges       []json.RawMessage
	} `json:"model"`
}

// LoadTokenizer reads a tokenizer.json with a byte-level BPE model (GPT-2, OPT, RoBERTa and their kin). Models of another
// kind, normalizers and other ways of splitting are errors that name them: their ids would be wrong.
func LoadTokenizer(path string) (*Tokenizer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t, err := parseTokenizer(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

func parseTokenizer(data []byte) (*Tokenizer, error) {
	var f tokenizerFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	m := &f.Model
	set := func(s *string) bool { return s != nil && *s != "" }
	switch {
	case m.Type != "" && m.Type != "BPE" || len(m.Vocab) == 0:
		return nil, fmt.Errorf("model of type %q with %d tokens, wanted a byte-level BPE", m.Type, len(m.Vocab))
	case m.Dropout != nil && *m.Dropout > 0 || set(m.Prefix) || set(m.Suffix) || m.ByteFallback:
		return nil, errors.New("model: dropout, subword prefixes, word suffixes and byte fallback are not supported")
	case f.PreTokenizer.Type != "ByteLevel":
		return nil, fmt.Errorf("pre_tokenizer of type %q, wanted ByteLevel", f.PreTokenizer.Type)
	case len(f.Normalizer) > 0 && string(f.Normalizer) != "null":
		return nil, fmt.Errorf("normalizer %.80s, wanted none", f.Normalizer)
	}
	t := &Tokenizer{vocab: m.Vocab, ranks: map[[2]string]int{}, prefixSpace: f.PreTokenizer.AddPrefixSpace,
		split: f.PreTokenizer.UseRegex == nil || *f.PreTokenizer.UseRegex, ignoreMerges: m.IgnoreMerges, words: map[string][]int64{}}
	for i, raw := range m.Merges {
		pair, err := mergePair(raw)
		if err != nil {
			return nil, fmt.Errorf("merge %d: %w", i, err)
		}
		if _, ok := m.Vocab[pair[0]+pair[1]]; !ok {
			return nil, fmt.Errorf("merge %d: %q is not in the vocabulary", i, pair[0]+pair[1])
		}
		if _, twice := t.ranks[pair]; !twice {
			t.ranks[pair] = i
		}
	}
	for _, a := range f.AddedTokens {
		if a.Content == "" || a.SingleWord {
			return nil, fmt.Errorf("added token %d, %q: empty ones and whole words are not supported", a.ID, a.Content)
		}
		t.added = append(t.added, a)
	}
	return t, nil
}

// mergePair reads ["a", "b"] or "a b".
func mergePair(raw json.RawMessage) ([2]string, error) {
	var pair []string
	if json.Unmarshal(raw, &pair) == nil && len(pair) == 2 {
		return [2]string{pair[0], pair[1]}, nil
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		if a, b, ok := strings.Cut(text, " "); ok {
			return [2]string{a, b}, nil
		}
	}
	return [2]string{}, fmt.Errorf("%.80s, wanted two symbols", raw)
}

// Encode returns the ids of a text, without special tokens around it. The text must be UTF-8.
func (t *Tokenizer) Encode(text string) ([]int64, error) {
	if !utf8.ValidString(text) {
		at := 0
		for at < len(text) {
			r, n := utf8.DecodeRuneInString(text[at:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			at += n
		}
		return nil, fmt.Errorf("byte %d is no UTF-8", at)
	}
	var ids []int64
	for text != "" {
		at, tok := t.nextAdded(text)
		piece, rest := text, ""
		if tok != nil {
			piece, rest = text[:at], text[at+len(tok.Content):]
			if tok.LStrip {
				piece = strings.TrimRightFunc(piece, unicode.IsSpace)
			}
			if tok.RStrip {
				rest = strings.TrimLeftFunc(rest, unicode.IsSpace)
			}
		}
		var err error
		if ids, err = t.encodePiece(ids, piece); err != nil {
			return nil, err
		}
		if tok != nil {
			ids = append(ids, tok.ID)
		}
		text = rest
	}
	return ids, nil
}

// nextAdded finds the first added token, the longest where several start at the same place.
func (t *Tokenizer) nextAdded(text string) (int, *addedToken) {
	best, at := -1, len(text)
	for i, a := range t.added {
		k := strings.Index(text[:min(len(text), at+len(a.Content))], a.Content)
		if k >= 0 && (k < at || best < 0 || len(a.Content) > len(t.added[best].Content)) {
			best, at = i, k
		}
	}
	if best < 0 {
		return len(text), nil
	}
	return at, &t.added[best]
}

func (t *Tokenizer) encodePiece(ids []int64, text string) ([]int64, error) {
	if text == "" {
		return ids, nil
	}
	if t.prefixSpace && text[0] != ' ' {
		text = " " + text
	}
	for text != "" {
		n := len(text)
		if t.split {
			n = gpt2Piece(text)
		}
		word, ok := t.words[text[:n]]
		if !ok {
			var err error
			if word, err = t.bpe(text[:n]); err != nil {
				return nil, err
			}
			t.words[strings.Clone(text[:n])] = word
		}
		ids = append(ids, word...)
		text = text[n:]
	}
	return ids, nil
}

// gpt2Piece returns the length of the first match of GPT-2's pattern
//
//	's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
func gpt2Piece(s string) int {
	for _, c := range []string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"} {
		if strings.HasPrefix(s, c) {
			return len(c)
		}
	}
	body := strings.TrimPrefix(s, " ")
	if r, _ := utf8.DecodeRuneInString(body); body != "" && !unicode.IsSpace(r) {
		kind := runeKind(r)
		n := strings.IndexFunc(body, func(r rune) bool { return runeKind(r) != kind })
		if n < 0 {
			n = len(body)
		}
		return len(s) - len(body) + n
	}
	n := strings.IndexFunc(s, func(r rune) bool { return !unicode.IsSpace(r) })
	if n < 0 {
		return len(s)
	}
	_, last := utf8.DecodeLastRuneInString(s[:n])
	if n > last {
		return n - last // the last one goes to what follows
	}
	return n
}

// runeKind tells letters, numbers, white space and the rest apart.
func runeKind(r rune) int {
	switch {
	case unicode.IsLetter(r):
		return 1
	case unicode.IsNumber(r):
		return 2
	case unicode.IsSpace(r):
		return 3
	}
	return 0
}

// byteSymbols maps a byte to the printable character that stands for it in the vocabulary: itself where it is one in Latin-1,
// else the characters from U+0100 on, in order.
var byteSymbols = func() (s [256]string) {
	next := rune(256)
	for b := range 256 {
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae) {
			r = next
			next++
		}
		s[b] = string(r)
	}
	return s
}()

// symbol is one element of a word that is being merged; -1 ends the list.
type symbol struct {
	text       string
	prev, next int
}

// merge is a candidate: the symbols at and the next one, of these texts when it was found.
type merge struct {
	rank, at    int
	left, right string
}

type merges []merge

func (m merges) Len() int { return len(m) }
func (m merges) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(m[i].rank, m[j].rank), cmp.Compare(m[i].at, m[j].at)) < 0
}
func (m merges) Swap(i, j int) { m[i], m[j] = m[j], m[i] }
func (m *merges) Push(x any)   { *m = append(*m, x.(merge)) }
func (m *merges) Pop() any {
	last := (*m)[len(*m)-1]
	*m = (*m)[:len(*m)-1]
	return last
}

// bpe merges the symbols of one piece: always the pair of the least rank, the leftmost of equals.
func (t *Tokenizer) bpe(piece string) ([]int64, error) {
	list := make([]symbol, len(piece))
	var whole strings.Builder
	for i := range len(piece) {
		list[i] = symbol{byteSymbols[piece[i]], i - 1, i + 1}
		whole.WriteString(list[i].text)
	}
	list[len(list)-1].next = -1
	if t.ignoreMerges {
		if id, ok := t.vocab[whole.String()]; ok {
			return []int64{id}, nil
		}
	}
	var queue merges
	candidate := func(at int) {
		if at < 0 || list[at].next < 0 {
			return
		}
		l, r := list[at].text, list[list[at].next].text
		if rank, ok := t.ranks[[2]string{l, r}]; ok {
			heap.Push(&queue, merge{rank, at, l, r})
		}
	}
	for i := range list {
		candidate(i)
	}
	for len(queue) > 0 {
		m := heap.Pop(&queue).(merge)
		s := &list[m.at]
		if s.text != m.left || s.next < 0 || list[s.next].text != m.right {
			continue // one of them has merged since
		}
		gone := s.next
		s.text += m.right
		list[gone].text = ""
		if s.next = list[gone].next; s.next >= 0 {
			list[s.next].prev = m.at
		}
		candidate(s.prev)
		candidate(m.at)
	}
	var ids []int64
	for i := 0; i >= 0; i = list[i].next {
		id, ok := t.vocab[list[i].text]
		if !ok {
			return nil, fmt.Errorf("symbol %q of the text is not in the vocabulary", list[i].text)
		}
		ids = append(ids, id)
	}
	return ids, nil
}
