package backend

import (
	"archive/zip"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/qsimc/qsimc/ir"
)

// SaveNPZ writes tensors as a NumPy archive with one array for each name, in the order of the names. It is written under a
// temporary name and renamed.
//
// What NumPy has no type for is stored so that nothing is lost: bfloat16 as float32, integers of 4 and 2 bits as int8 or
// uint8, floats of 8 bits and less as the codes of their elements in uint8. Strings become Unicode of the longest one's
// length.
func SaveNPZ(path string, tensors ir.Tensors) error {
	err := replace(path, nil, func(w io.Writer) error {
		z := zip.NewWriter(w)
		for _, name := range slices.Sorted(maps.Keys(tensors)) {
			e, err := z.CreateHeader(&zip.FileHeader{Name: name + ".npy", Method: zip.Store})
			if err != nil {
				return err
			}
			if err := writeNPY(e, tensors[name]); err != nil {
				return fmt.Errorf("array %q: %w", name, err)
			}
		}
		return z.Close()
	})
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

var npyDescr = map[ir.DType]string{
	ir.Float16: "<f2", ir.Float32: "<f4", ir.Float64: "<f8", ir.Int8: "|i1", ir.Int16: "<i2", ir.Int32: "<i4", ir.Int64: "<i8",
	ir.Uint8: "|u1", ir.Uint16: "<u2", ir.Uint32: "<u4", ir.Uint64: "<u8", ir.Bool: "|b1", ir.Complex64: "<c8", ir.Complex128: "<c16",
	ir.BFloat16: "<f4", ir.Int4: "|i1", ir.Int2: "|i1",
}

// writeNPY writes one array in version 1.0 of the format.
func writeNPY(w io.Writer, t *ir.Tensor) error {
	data, descr, err := npyData(t)
	if err != nil {
		return err
	}
	dims := make([]string, t.Rank())
	for i, n := range t.Shape() {
		dims[i] = fmt.Sprint(n)
	}
	if len(dims) == 1 {
		dims[0] += ","
	}
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, strings.Join(dims, ", "))
	pad := 64 - (10+len(header)+1)%64 // the elements begin at a multiple of 64
	header += strings.Repeat(" ", pad) + "\n"
	if len(header) > 1<<16-1 {
		return fmt.Errorf("a shape of %d dimensions does not fit the header", t.Rank())
	}
	b := binary.LittleEndian.AppendUint16([]byte("\x93NUMPY\x01\x00"), uint16(len(header)))
	if _, err := w.Write(append(b, header...)); err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

// npyData returns the elements as NumPy stores them, and the name of their type.
func npyData(t *ir.Tensor) (data []byte, descr string, err error) {
	if err := t.Load(); err != nil {
		return nil, "", err
	}
	descr, ok := npyDescr[t.Elem()]
	if !ok {
		descr = "|u1"
	}
	switch {
	case t.Elem() == ir.String:
		data, descr = unicodeData(t.Strings())
	case t.Elem() == ir.BFloat16:
		f, _ := t.Float32s()
		return ir.Floats(f, t.Shape()...).Bytes(), descr, nil
	case t.Elem().Bits() < 8:
		data = unpacked(t)
	default:
		data = t.Bytes()
	}
	return data, descr, nil
}

// unpacked gives each element of less than 8 bits a byte, sign-extended for signed integers.
func unpacked(t *ir.Tensor) []byte {
	out := make([]byte, t.Len())
	bits := t.Elem().Bits()
	src := t.Bytes()
	for i := range out {
		at := i * bits
		v := uint16(src[at/8])
		if at/8+1 < len(src) {
			v |= uint16(src[at/8+1]) << 8
		}
		code := byte(v>>(at%8)) & (1<<bits - 1)
		if t.Elem().IsSigned() {
			code = byte(int8(code<<(8-bits)) >> (8 - bits))
		}
		out[i] = code
	}
	return out
}

// unicodeData stores strings as code points of 4 bytes, all as long as the longest.
func unicodeData(list [][]byte) ([]byte, string) {
	longest := 1
	for _, s := range list {
		longest = max(longest, len([]rune(string(s))))
	}
	var data []byte
	for _, s := range list {
		runes := []rune(string(s))
		for i := range longest {
			var r rune
			if i < len(runes) {
				r = runes[i]
			}
			data = binary.LittleEndian.AppendUint32(data, uint32(r))
		}
	}
	return data, fmt.Sprintf("<U%d", longest)
}
