package ir

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"strings"
)

// text reads a quoted string; in a note it is quoted as in Go.
func (p *parser) text(what string) string {
	if p.peek() != '"' {
		p.fail(p.pos, "wanted %s in quotes, found %s", what, p.found())
	}
	at := p.pos
	if p.inNote {
		q, err := strconv.QuotedPrefix(string(p.src[at:p.end]))
		if err == nil {
			var s string
			if s, err = strconv.Unquote(q); err == nil {
				p.pos += len(q)
				return s
			}
		}
		p.fail(at, "string: %v", err)
	}
	var b []byte
	for i := at + 1; i < p.end; i++ {
		switch c := p.src[i]; c {
		case '"':
			p.pos = i + 1
			return string(b)
		case '\\':
			if i++; i < p.end {
				b = append(b, p.src[i])
			}
		default:
			b = append(b, c)
		}
	}
	p.fail(at, "the string does not end")
	return ""
}

// number reads a numeric literal and reports whether it has the form of a float: one with a point or an exponent, inf or
// nan.
func (p *parser) number() (lit string, float bool) {
	p.skip()
	at, i := p.pos, p.pos
	if i < p.end && p.src[i] == '-' {
		i++
	}
	digits := func() {
		for i < p.end && isDigit(p.src[i]) {
			i++
		}
	}
	switch {
	case i < p.end && isLetter(p.src[i]):
		word := i
		for i < p.end && (isLetter(p.src[i]) || isDigit(p.src[i])) {
			i++
		}
		if !isFloatWord(string(p.src[word:i])) {
			p.fail(at, "wanted a number, found %q", p.src[word:i])
		}
		if bytes.HasPrefix(p.src[i:p.end], []byte("(0x")) {
			if n := bytes.IndexByte(p.src[i:p.end], ')'); n >= 0 {
				i += n + 1
			}
		}
		float = true
	case i < p.end && isDigit(p.src[i]):
		digits()
		if i < p.end && p.src[i] == '.' {
			float = true
			i++
			digits()
		}
		if i < p.end && p.src[i]|0x20 == 'e' {
			float = true
			i++
			if i < p.end && (p.src[i] == '+' || p.src[i] == '-') {
				i++
			}
			digits()
		}
	default:
		p.fail(at, "wanted a number, found %s", p.found())
	}
	p.pos = i
	return string(p.src[at:i]), float
}

// integer reads a signed integer of the given width.
func (p *parser) integer(bits int) int64 {
	p.skip()
	at := p.pos
	lit, float := p.number()
	if float {
		p.fail(at, "wanted an integer, found %s", lit)
	}
	return p.toInt(at, lit, bits)
}

func (p *parser) toInt(at int, lit string, bits int) int64 {
	i, err := strconv.ParseInt(lit, 10, bits)
	if err != nil {
		p.fail(at, "%s is out of range for %d bits", lit, bits)
	}
	return i
}

func (p *parser) unsigned(bits int) uint64 {
	p.skip()
	at := p.pos
	lit, float := p.number()
	if float {
		p.fail(at, "wanted an integer, found %s", lit)
	}
	i, err := strconv.ParseUint(lit, 10, bits)
	if err != nil {
		p.fail(at, "%s is out of range for %d unsigned bits", lit, bits)
	}
	return i
}

// floatBits converts a literal to the bits of a float of 32 or 64 bits.
func (p *parser) floatBits(at int, lit string, size int) uint64 {
	word := strings.ToLower(strings.TrimPrefix(lit, "-"))
	var bits uint64
	switch {
	case strings.HasPrefix(word, "nan("):
		bits, err := strconv.ParseUint(word[4:len(word)-1], 0, size)
		if f := math.Float64frombits(bits); err != nil || lit[0] == '-' || size == 64 && f == f || size == 32 && bits&^(1<<31) <= 0x7f800000 {
			p.fail(at, "%s does not hold the bits of a NaN", lit)
		}
		return bits
	case word == "nan" && size == 32:
		bits = nan32
	case word == "nan":
		bits = nan64
	case isFloatWord(word):
		bits = math.Float64bits(math.Inf(1))
		if size == 32 {
			bits = uint64(math.Float32bits(float32(math.Inf(1))))
		}
	case strings.Contains(word, "("):
		p.fail(at, "%s is no number", lit)
	default:
		f, err := strconv.ParseFloat(lit, size)
		if err != nil {
			p.fail(at, "%s is no number of %d bits", lit, size)
		}
		if size == 32 {
			return uint64(math.Float32bits(float32(f)))
		}
		return math.Float64bits(f)
	}
	if lit[0] == '-' {
		bits |= 1 << (size - 1)
	}
	return bits
}

func (p *parser) float(size int) uint64 {
	p.skip()
	at := p.pos
	lit, _ := p.number()
	return p.floatBits(at, lit, size)
}

// nextIsType reports whether a type is next: its first word is reserved, except that undefined needs its bracket.
func (p *parser) nextIsType() bool {
	id := p.peekIdent()
	if id == "undefined" {
		back := p.pos
		p.pos += len(id)
		defer func() { p.pos = back }()
		return p.peek() == '['
	}
	return id != "" && reserved(id) && !isFloatWord(id)
}

func (p *parser) typ() Type {
	p.deeper()
	p.skip()
	at := p.pos
	word := p.ident("a type")
	var t Type
	inside := func(read func()) {
		p.expect('(', "after "+word)
		read()
		p.expect(')', "to close "+word)
	}
	of := func() {
		of := p.typ()
		t.Of = &of
	}
	switch word {
	case "seq":
		t.Kind = SequenceKind
		inside(of)
	case "optional":
		t.Kind = OptionalKind
		inside(of)
	case "map":
		t.Kind = MapKind
		inside(func() {
			t.Elem = p.elem()
			p.expect(',', "after the map's key")
			of()
		})
	case "opaque":
		t.Kind = OpaqueKind
		inside(func() {
			p.skip()
			at := p.pos
			wire, err := base64.StdEncoding.DecodeString(p.text("base64"))
			if err != nil {
				p.fail(at, "opaque: %v", err)
			}
			t.Wire = wire
		})
	case "sparse_tensor":
		inside(func() {
			t.Elem = p.elem()
			p.shape(&t)
		})
		t.Kind = SparseKind
	default:
		p.pos = at
		t.Elem = p.elem()
		p.shape(&t)
	}
	if p.eat('@') {
		t.Denot = p.text("a denotation")
	}
	p.depth--
	return t
}

func (p *parser) elem() DType {
	p.skip()
	at := p.pos
	word := p.ident("an element type")
	elem, ok := ParseDType(word)
	if !ok && word != "undefined" {
		p.fail(at, "%q is no element type", word)
	}
	return elem
}

// shape reads the dimensions of a tensor type: none for a scalar, [] for an unknown rank.
func (p *parser) shape(t *Type) {
	if !p.eat('[') {
		t.Ranked = true
		return
	}
	if p.eat('!') {
		t.Ranked = true
		p.expect(']', "after !")
		return
	}
	p.items(']', "the shape", func() {
		t.Ranked = true
		d := UnknownDim
		c := p.peek()
		at := p.pos
		switch {
		case c == '?':
			p.pos++
		case c == '"' || isLetter(c):
			d.Name = p.name("a dimension")
		default:
			if d.Size = p.integer(64); d.Size < 0 {
				p.fail(at, "dimension %d is negative", d.Size)
			}
		}
		if p.eat('@') {
			d.Denot = p.text("a denotation")
		}
		t.Dims = append(t.Dims, d)
	})
}

// data reads the elements of a tensor of the given type, which was read at offset at.
func (p *parser) data(at int, t Type) *Tensor {
	shape, ok := t.Shape()
	if !ok || !t.Elem.Valid() {
		p.fail(at, "a tensor's type has numbers for dimensions, found %s", typeText(t, strconv.Quote))
	}
	n, err := Numel(shape)
	if err != nil {
		p.fail(at, "%v", err)
	}
	if p.peek() == '[' {
		p.fail(p.pos, "data in external files is not for text models")
	}
	p.expect('{', "to open the data")
	var data []byte
	var strs [][]byte
	count := 0
	read := p.literal(t.Elem)
	packed := literals(t.Elem, n)
	subByte := t.Elem.Bits() > 0 && t.Elem.Bits() < 8
	var elems []int64
	p.items('}', "the data", func() {
		count++
		switch {
		case p.peek() == '.':
			p.fail(p.pos, "the data was elided when it was printed")
		case count > max(packed, n):
			p.fail(p.pos, "too many elements for %s", typeText(t, quote))
		case t.Elem == String:
			strs = append(strs, []byte(p.text("an element")))
		case subByte:
			elems = append(elems, p.integer(16))
		default:
			data = read(data)
		}
	})
	if subByte && count == n && (packed == n && t.Elem.Bits() == 6 || count != packed) {
		data = p.pack(at, t.Elem, elems)
	} else if count != packed {
		p.fail(at, "%s wants %d numbers, found %d", typeText(t, quote), packed, count)
	} else if subByte {
		data = p.packedBytes(at, t.Elem, n, elems)
	}
	if t.Elem == String {
		s, err := StringTensor(shape, slices.Clip(strs))
		if err != nil {
			p.fail(at, "%v", err)
		}
		return s
	}
	c := NewTensor(t.Elem, shape...)
	copy(c.data, data)
	return c
}

// literal returns a function that reads one literal of an element type and appends its bytes.
func (p *parser) literal(elem DType) func([]byte) []byte {
	le := binary.LittleEndian
	switch elem {
	case Float32, Complex64:
		return func(b []byte) []byte { return le.AppendUint32(b, uint32(p.float(32))) }
	case Float64, Complex128:
		return func(b []byte) []byte { return le.AppendUint64(b, p.float(64)) }
	case Int8:
		return func(b []byte) []byte { return append(b, byte(p.integer(8))) }
	case Int16:
		return func(b []byte) []byte { return le.AppendUint16(b, uint16(p.integer(16))) }
	case Int32:
		return func(b []byte) []byte { return le.AppendUint32(b, uint32(p.integer(32))) }
	case Int64:
		return func(b []byte) []byte { return le.AppendUint64(b, uint64(p.integer(64))) }
	case Uint16, Float16, BFloat16:
		return func(b []byte) []byte { return le.AppendUint16(b, uint16(p.unsigned(16))) }
	case Uint32:
		return func(b []byte) []byte { return le.AppendUint32(b, uint32(p.unsigned(32))) }
	case Uint64:
		return func(b []byte) []byte { return le.AppendUint64(b, p.unsigned(64)) }
	}
	return func(b []byte) []byte { return append(b, byte(p.unsigned(8))) }
}

// pack packs one number an element.
func (p *parser) pack(at int, elem DType, elems []int64) []byte {
	bits := elem.Bits()
	lo, hi := int64(0), int64(1)<<bits-1
	if elem.IsSigned() {
		lo, hi = -1<<(bits-1), 1<<(bits-1)-1
	}
	data := make([]byte, elem.Size(len(elems)))
	for i, x := range elems {
		if x < lo || x > hi {
			p.fail(at, "%d is out of range for %v", x, elem)
		}
		code := uint16(x) & (1<<bits - 1) << (i * bits % 8) // 6-bit elements reach into the next byte
		data[i*bits/8] |= byte(code)
		if code > 0xff {
			data[i*bits/8+1] |= byte(code >> 8)
		}
	}
	return data
}

// packedBytes takes the numbers as bytes that hold n elements; what no element uses of the last is cleared.
func (p *parser) packedBytes(at int, elem DType, n int, elems []int64) []byte {
	data := make([]byte, len(elems))
	for i, x := range elems {
		if x < -128 || x > 255 {
			p.fail(at, "%d is out of range for a byte of packed %v", x, elem)
		}
		data[i] = byte(x)
	}
	if used := n * elem.Bits() % 8; used != 0 {
		data[len(data)-1] &= 1<<used - 1
	}
	return data
}

// tensor reads a tensor constant: type, perhaps a name, data.
func (p *parser) tensor() *Tensor {
	p.skip()
	at := p.pos
	return p.namedData(at, p.typ())
}

// namedData reads the rest of a tensor constant whose type was read at offset at.
func (p *parser) namedData(at int, t Type) *Tensor {
	name := ""
	if c := p.peek(); c == '"' || isLetter(c) {
		name = p.name("a tensor's name")
	}
	p.eat('=')
	d := p.data(at, t)
	if name != "" {
		d.Label = &Label{Name: name}
	}
	return d
}

// sparse reads the values and indices of a sparse tensor of the given type.
func (p *parser) sparse(at int, t Type) *SparseTensor {
	s := &SparseTensor{}
	if !t.Ranked {
		p.fail(at, "a sparse tensor needs its shape")
	}
	for _, d := range t.Dims {
		if !d.Known() {
			p.fail(at, "a sparse tensor's type has numbers for dimensions, found %s", typeText(t, strconv.Quote))
		}
		s.Shape = append(s.Shape, int(d.Size))
	}
	p.expect('{', "to open the values and indices")
	p.skip()
	at = p.pos
	s.Values = p.tensor()
	if s.Values.Elem() != t.Elem {
		p.fail(at, "values are of type %v, the sparse tensor of %v", s.Values.Elem(), t.Elem)
	}
	p.expect(',', "between values and indices")
	s.Indices = p.tensor()
	p.expect('}', "after the indices")
	return s
}
