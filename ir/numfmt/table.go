package numfmt

import (
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// Elem is an ONNX tensor element type, by its number in TensorProto.DataType.
type Elem int32

// The element types that formats and scales are stored in.
const (
	ElemNone       Elem = 0
	ElemFloat      Elem = 1
	ElemUint8      Elem = 2
	ElemInt8       Elem = 3
	ElemUint16     Elem = 4
	ElemInt16      Elem = 5
	ElemInt32      Elem = 6
	ElemFloat16    Elem = 10
	ElemBFloat16   Elem = 16
	ElemE4M3FN     Elem = 17
	ElemE4M3FNUZ   Elem = 18
	ElemE5M2       Elem = 19
	ElemE5M2FNUZ   Elem = 20
	ElemUint4      Elem = 21
	ElemInt4       Elem = 22
	ElemFloat4E2M1 Elem = 23
	ElemE8M0       Elem = 24
	ElemUint2      Elem = 25
	ElemInt2       Elem = 26
)

var elemNames = map[Elem]string{
	ElemFloat: "FLOAT", ElemUint8: "UINT8", ElemInt8: "INT8", ElemUint16: "UINT16", ElemInt16: "INT16", ElemInt32: "INT32",
	ElemFloat16: "FLOAT16", ElemBFloat16: "BFLOAT16", ElemE4M3FN: "FLOAT8E4M3FN", ElemE4M3FNUZ: "FLOAT8E4M3FNUZ",
	ElemE5M2: "FLOAT8E5M2", ElemE5M2FNUZ: "FLOAT8E5M2FNUZ", ElemUint4: "UINT4", ElemInt4: "INT4",
	ElemFloat4E2M1: "FLOAT4E2M1", ElemE8M0: "FLOAT8E8M0", ElemUint2: "UINT2", ElemInt2: "INT2",
}

// String is the type's name in TensorProto.DataType, "-" for ElemNone.
func (e Elem) String() string {
	if n, ok := elemNames[e]; ok {
		return n
	}
	if e == ElemNone {
		return "-"
	}
	return fmt.Sprintf("Elem(%d)", int32(e))
}

// Bits is the storage of one element: 2, 4, 8, 16 or 32; 0 for a type this package does not store.
func (e Elem) Bits() int {
	switch e {
	case ElemUint2, ElemInt2:
		return 2
	case ElemUint4, ElemInt4, ElemFloat4E2M1:
		return 4
	case ElemUint8, ElemInt8, ElemE4M3FN, ElemE4M3FNUZ, ElemE5M2, ElemE5M2FNUZ, ElemE8M0:
		return 8
	case ElemUint16, ElemInt16, ElemFloat16, ElemBFloat16:
		return 16
	case ElemFloat, ElemInt32:
		return 32
	}
	return 0
}

// Format is the format of the element type's codes, integers in their full type. The zero Format, false for FLOAT, INT32
// and types this package does not know.
func (e Elem) Format() (Format, bool) {
	for _, f := range table {
		if f.Elem == e && e != ElemNone && f.Block == 0 && f.Bits == e.Bits() && f.Kind != Ternary && !f.isCarried() {
			return f, true
		}
	}
	return Format{}, false
}

// isCarried reports whether the element type holds another grid than its own (e1m2 in INT4).
func (f Format) isCarried() bool { return f.Name == "e1m2" }

// nf4 is the table of the QLoRA paper (4-bit NormalFloat), in code order.
var nf4 = newBook([]float32{-1, -.69619280, -.52507305, -.39491749, -.28444138, -.18477343, -.09105004, 0,
	.07958030, .16093020, .24611230, .33791524, .44070983, .56261700, .72295684, 1})

var (
	flint4  = newBook(mirrored(0, 1, 2, 3, 4, 6, 8, 16))
	bitmod4 = newBook(mirrored(0, 1, 2, 3, 4, 6, 8, 12), 10, -10, 16, -16)
	bitmod3 = newBook(mirrored(0, 1, 2, 4), 3, -3, 6, -6)
)

// mirrored is a sign-magnitude table: the positive values, then their negatives.
func mirrored(pos ...float32) []float32 {
	out := append([]float32(nil), pos...)
	for _, v := range pos {
		out = append(out, -v)
	}
	return out
}

// table lists the named formats, in the order of listings. Formats eXmY that are not here are made by rule.
var table = buildTable()

func buildTable() []Format {
	var t []Format
	for b := 2; b <= 16; b++ {
		t = append(t, intRow(b, true))
	}
	for b := 2; b <= 16; b++ {
		t = append(t, intRow(b, false))
	}
	e4m3 := Format{Name: "e4m3", Kind: Float, Bits: 8, Exp: 4, Man: 3, Bias: 7, Top: TopFN, Signed: true, Elem: ElemE4M3FN, Opset: 19}
	e5m2 := Format{Name: "e5m2", Kind: Float, Bits: 8, Exp: 5, Man: 2, Bias: 15, Top: TopIEEE, Signed: true, Elem: ElemE5M2, Opset: 19}
	e2m1 := Format{Name: "e2m1", Kind: Float, Bits: 4, Exp: 2, Man: 1, Bias: 1, Signed: true, Elem: ElemFloat4E2M1, Opset: 23}
	e1m2 := Format{Name: "e1m2", Kind: Float, Bits: 4, Exp: 1, Man: 2, Bias: 0, Signed: true, Elem: ElemInt4, Opset: 21,
		Note: "stored as INT4 restricted with half the step"}
	e2m3 := Format{Name: "e2m3", Kind: Float, Bits: 6, Exp: 2, Man: 3, Bias: 1, Signed: true}
	e3m2 := Format{Name: "e3m2", Kind: Float, Bits: 6, Exp: 3, Man: 2, Bias: 3, Signed: true}
	t = append(t, e4m3, e5m2,
		Format{Name: "e4m3fnuz", Kind: Float, Bits: 8, Exp: 4, Man: 3, Bias: 8, Top: TopFNUZ, Signed: true, Elem: ElemE4M3FNUZ, Opset: 19},
		Format{Name: "e5m2fnuz", Kind: Float, Bits: 8, Exp: 5, Man: 2, Bias: 16, Top: TopFNUZ, Signed: true, Elem: ElemE5M2FNUZ, Opset: 19},
		e2m1, e1m2,
		Format{Name: "e3m0", Kind: Float, Bits: 4, Exp: 3, Man: 0, Bias: 3, Signed: true},
		e2m3, e3m2,
		Format{Name: "e3m4", Kind: Float, Bits: 8, Exp: 3, Man: 4, Bias: 3, Signed: true},
		Format{Name: "fp16", Kind: Cast, Bits: 16, Exp: 5, Man: 10, Bias: 15, Top: TopIEEE, Signed: true, Elem: ElemFloat16, Opset: 6},
		Format{Name: "bf16", Kind: Cast, Bits: 16, Exp: 8, Man: 7, Bias: 127, Top: TopIEEE, Signed: true, Elem: ElemBFloat16, Opset: 13},
		Format{Name: "nf4", Kind: Book, Bits: 4, Signed: true, Book: nf4},
		Format{Name: "flint4", Kind: Book, Bits: 4, Signed: true, Book: flint4},
		Format{Name: "bitmod4", Kind: Book, Bits: 4, Signed: true, Book: bitmod4, Note: "2·e2m1 and one of ±10, ±16, chosen per group"},
		Format{Name: "bitmod3", Kind: Book, Bits: 3, Signed: true, Book: bitmod3, Note: "one of ±3, ±6 more, chosen per group"},
		Format{Name: "ternary", Kind: Ternary, Bits: 2, Signed: true, Elem: ElemInt2, Opset: 25, Note: "times the group's mean |w|"},
		Format{Name: "ternary-median", Kind: Ternary, Bits: 2, Signed: true, Median: true, Elem: ElemInt2, Opset: 25, Note: "times the group's lower median |w|"},
	)
	preset := func(f Format, name string, block int, scale ScaleType) {
		f.Name, f.Block, f.BlockScale = name, block, scale
		t = append(t, f)
	}
	preset(e2m1, "mxfp4", 32, ScaleE8M0)
	preset(e2m3, "mxfp6e2m3", 32, ScaleE8M0)
	preset(e3m2, "mxfp6e3m2", 32, ScaleE8M0)
	preset(e4m3, "mxfp8e4m3", 32, ScaleE8M0)
	preset(e5m2, "mxfp8e5m2", 32, ScaleE8M0)
	preset(intRow(8, true), "mxint8", 32, ScaleE8M0)
	preset(e2m1, "nvfp4", 16, ScaleE4M3)
	preset(intRow(4, true), "nvint4", 16, ScaleE4M3)
	t = append(t,
		Format{Name: "qpt-e4m3", Kind: Float, Bits: 8, Exp: 4, Man: 3, Bias: 7, Signed: true, Parity: true, Note: "QPyTorch 0.3.0, unscaled by default"},
		Format{Name: "qpt-e5m10", Kind: Float, Bits: 16, Exp: 5, Man: 10, Bias: 15, Signed: true, Parity: true, Note: "QPyTorch 0.3.0, unscaled by default"},
		Format{Name: "e8m0", Kind: ScaleFmt, Bits: 8, Exp: 8, Bias: 127, Top: TopFN, Elem: ElemE8M0, Opset: 24, Note: "scales only"},
		Format{Name: "ue4m3", Kind: ScaleFmt, Bits: 7, Exp: 4, Man: 3, Bias: 7, Top: TopFN, Elem: ElemE4M3FN, Opset: 19, Note: "scales only, stored in 8 bits"},
		Format{Name: "ue5m3", Kind: ScaleFmt, Bits: 8, Exp: 5, Man: 3, Bias: 15, Top: TopFN, Note: "scales only"},
	)
	return t
}

func intRow(bits int, signed bool) Format {
	f := Format{Name: "uint" + strconv.Itoa(bits), Kind: Int, Bits: bits, Signed: signed}
	elems := map[bool][4]Elem{false: {ElemUint2, ElemUint4, ElemUint8, ElemUint16}, true: {ElemInt2, ElemInt4, ElemInt8, ElemInt16}}[signed]
	if signed {
		f.Name = "int" + strconv.Itoa(bits)
	}
	switch {
	case bits == 2:
		f.Elem, f.Opset = elems[0], 25
	case bits == 4:
		f.Elem, f.Opset = elems[1], 21
	case bits <= 8:
		f.Elem, f.Opset = elems[2], 10
	default:
		f.Elem, f.Opset = elems[3], 21
	}
	return f
}

// All lists the table's formats, in the order of listings; the eXmY made by rule are not in it.
func All() []Format { return append([]Format(nil), table...) }

var minifloat = regexp.MustCompile(`^(qpt-)?e([0-9]{1,2})m([0-9]{1,2})(?:b([0-9]{1,3}))?(all|fnuz|fn|ieee)?$`)

// Lookup finds a format by name, or makes the row of an eXmY: X exponent bits (1 to 8), Y mantissa bits (0 to 22), and
// where wanted a bias and a top-code policy, "e4m3b11fnuz". The bias is 2^(X-1)-1 (0 for X = 1, 2^(X-1) for fnuz); the
// policy is "all", for formats of 16 bits and more and for X = 8 "ieee". qpt-eXmY rounds as QPyTorch 0.3.0 does. The
// error of an unknown name tells the nearest names.
func Lookup(name string) (Format, error) {
	for _, f := range table {
		if f.Name == name {
			return f, nil
		}
	}
	m := minifloat.FindStringSubmatch(name)
	if m == nil {
		return Format{}, fmt.Errorf("unknown number format %q%s", name, nearNames(name))
	}
	f := Format{Name: name, Kind: Float, Signed: true, Parity: m[1] != ""}
	f.Exp, _ = strconv.Atoi(m[2])
	f.Man, _ = strconv.Atoi(m[3])
	f.Bits = 1 + f.Exp + f.Man
	if f.Exp < 1 || f.Exp > 8 || f.Man > 22 || f.Bits < 3 {
		return Format{}, fmt.Errorf("number format %q: want 1 to 8 exponent bits, 0 to 22 mantissa bits and 3 bits in all", name)
	}
	if f.Parity && (m[4] != "" || m[5] != "") {
		return Format{}, fmt.Errorf("number format %q: QPyTorch formats have neither bias nor top-code policy", name)
	}
	switch {
	case m[5] == "fn":
		f.Top = TopFN
	case m[5] == "fnuz":
		f.Top = TopFNUZ
	case m[5] == "ieee", m[5] == "" && !f.Parity && (f.Bits >= 16 || f.Exp == 8):
		f.Top = TopIEEE
	}
	if f.Top == TopIEEE && f.Exp == 1 {
		return Format{}, fmt.Errorf("number format %q: one exponent bit leaves nothing below infinity", name)
	}
	switch {
	case m[4] != "":
		f.Bias, _ = strconv.Atoi(m[4])
	case f.Exp == 1:
		f.Bias = 0
	case f.Top == TopFNUZ:
		f.Bias = 1 << (f.Exp - 1)
	default:
		f.Bias = 1<<(f.Exp-1) - 1
	}
	if f.max64() > maxFloat32 || 1-f.Bias-f.Man < -149 {
		return Format{}, fmt.Errorf("number format %q: values from 2^%d to %g do not fit float32", name, 1-f.Bias-f.Man, f.max64())
	}
	for _, row := range table { // another spelling of a row: e4m3fn, e2m1b1all
		if row.Kind == Float && row.Block == 0 && row.Exp == f.Exp && row.Man == f.Man && row.Bias == f.Bias && row.Top == f.Top && row.Parity == f.Parity {
			return row, nil
		}
	}
	return f, nil
}

const maxFloat32 = 0x1p127 * (1 + (1 - 0x1p-23))

// nearNames suggests up to three table names close to the given one.
func nearNames(name string) string {
	type near struct {
		name string
		d    int
	}
	var c []near
	for _, f := range table {
		if len(name) > 24 {
			break // no typing slip, and distances grow with the length
		}
		if d := distance(name, f.Name); d <= 2 || len(name) >= 3 && strings.Contains(f.Name, name) {
			c = append(c, near{f.Name, d})
		}
	}
	if len(c) == 0 {
		return "; known are int2…int16, uint2…uint16, fp16, bf16, eXmY, nf4, ternary, the mxfp and nvfp presets (qsimc formats lists all)"
	}
	sort.SliceStable(c, func(i, j int) bool { return c[i].d < c[j].d })
	s := "; near names:"
	for i, n := range c[:min(3, len(c))] {
		if i > 0 {
			s += ","
		}
		s += " " + n.name
	}
	return s
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diag := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diag
			if a[i-1] != b[j-1] {
				cost++
			}
			diag = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
