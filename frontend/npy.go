package frontend

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/store"
)

// NumPy's array files: a magic number, a header with the literal of a Python dictionary, then the elements. Arrays are read
// row by row along their leading axis and never as a whole, those in Fortran order excepted.

// array is an array of a .npy file or of an entry of a .npz file.
type array struct {
	name    string
	elem    ir.DType
	shape   []int
	fortran bool
	swap    bool // big-endian

	mapped []byte                        // the elements, if the file is mapped
	open   func() (io.ReadCloser, error) // else the way to them
}

var npyTypes = map[string]ir.DType{
	"f2": ir.Float16, "f4": ir.Float32, "f8": ir.Float64, "i1": ir.Int8, "i2": ir.Int16, "i4": ir.Int32, "i8": ir.Int64,
	"u1": ir.Uint8, "u2": ir.Uint16, "u4": ir.Uint32, "u8": ir.Uint64, "b1": ir.Bool, "c8": ir.Complex64, "c16": ir.Complex128,
}

// maxHeader bounds the header of an array file; NumPy itself refuses more than a sixth of it.
const maxHeader = 1 << 16

// parse reads the header and leaves r at the first element; the number of bytes read is returned.
func (a *array) parse(r io.Reader) (int, error) {
	var fixed [8]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil || string(fixed[:6]) != "\x93NUMPY" {
		return 0, errors.New("not a NumPy array file")
	}
	size, width := 0, 2
	if fixed[6] > 1 {
		width = 4
	}
	var length [4]byte
	if _, err := io.ReadFull(r, length[:width]); err != nil {
		return 0, fmt.Errorf("header: %w", err)
	}
	size = int(binary.LittleEndian.Uint32(length[:]))
	if fixed[6] < 1 || fixed[6] > 3 || size > maxHeader {
		return 0, fmt.Errorf("array file of version %d with a header of %d bytes", fixed[6], size)
	}
	header := make([]byte, size)
	if _, err := io.ReadFull(r, header); err != nil {
		return 0, fmt.Errorf("header: %w", err)
	}
	if err := a.header(string(header)); err != nil {
		return 0, fmt.Errorf("header %q: %w", strings.TrimSpace(string(header)), err)
	}
	return 8 + width + size, nil
}

// header reads {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }.
func (a *array) header(s string) error {
	descr, ok1 := between(s, "'descr':", "'", "'")
	order, ok2 := between(s, "'fortran_order':", "", ",")
	dims, ok3 := between(s, "'shape':", "(", ")")
	if !ok1 || !ok2 || !ok3 || len(descr) < 2 {
		return errors.New("want descr, fortran_order and shape")
	}
	a.swap = descr[0] == '>'
	kind := strings.TrimLeft(descr, "<>|=")
	if a.elem, ok1 = npyTypes[kind]; !ok1 {
		return fmt.Errorf("unknown element type %q", descr)
	}
	switch strings.TrimSpace(order) {
	case "True":
		a.fortran = true
	case "False":
	default:
		return fmt.Errorf("fortran_order is %q", order)
	}
	a.shape = []int{}
	for _, d := range strings.Split(dims, ",") {
		if d = strings.TrimSpace(d); d == "" {
			continue
		}
		n, err := strconv.Atoi(strings.TrimSuffix(d, "L"))
		if err != nil {
			return fmt.Errorf("shape (%s): %w", dims, err)
		}
		a.shape = append(a.shape, n)
	}
	_, err := ir.Numel(a.shape)
	return err
}

// between returns what stands between open and end after key.
func between(s, key, open, end string) (string, bool) {
	_, s, ok := strings.Cut(s, key)
	if !ok {
		return "", false
	}
	if open != "" {
		if _, s, ok = strings.Cut(s, open); !ok {
			return "", false
		}
	}
	s, _, ok = strings.Cut(s, end)
	return s, ok
}

func (a *array) bytes() int64 {
	n, _ := ir.Numel(a.shape)
	return int64(a.elem.Size(n))
}

// npyFile opens a .npy file.
func npyFile(path string) (*array, error) {
	a := &array{name: path}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	at, err := a.parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if want := int64(at) + a.bytes(); info.Size() < want {
		return nil, fmt.Errorf("%s: %v%v wants %d bytes, the file has %d", path, a.elem, a.shape, want, info.Size())
	}
	if info.Size() > mapAbove {
		all, err := store.Map(f, info.Size())
		if err != nil {
			return nil, err
		}
		if all != nil {
			a.mapped = all[at : int64(at)+a.bytes()]
			return a, nil
		}
	}
	a.open = func() (io.ReadCloser, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		if _, err := f.Seek(int64(at), io.SeekStart); err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	}
	return a, nil
}

// npzFile opens a .npz file: a zip archive of .npy files. Its arrays are in the order of the archive.
func npzFile(path string) ([]*array, error) {
	z, err := zip.OpenReader(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer z.Close()
	var arrays []*array
	for i, e := range z.File {
		name, ok := strings.CutSuffix(e.Name, ".npy")
		if !ok {
			continue
		}
		a := &array{name: name}
		at, err := a.entry(e)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", path, e.Name, err)
		}
		a.open = func() (io.ReadCloser, error) { return openEntry(path, i, int64(at)) }
		arrays = append(arrays, a)
	}
	if len(arrays) == 0 {
		return nil, fmt.Errorf("%s: no arrays in it", path)
	}
	return arrays, nil
}

func (a *array) entry(e *zip.File) (int, error) {
	r, err := e.Open()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	at, err := a.parse(r)
	if err == nil && uint64(int64(at)+a.bytes()) != e.UncompressedSize64 {
		err = fmt.Errorf("%v%v wants %d bytes, the entry has %d", a.elem, a.shape, int64(at)+a.bytes(), e.UncompressedSize64)
	}
	return at, err
}

// entryReader reads an entry of an archive that it has open for itself.
type entryReader struct {
	io.ReadCloser
	archive *zip.ReadCloser
}

func (r *entryReader) Close() error { return errors.Join(r.ReadCloser.Close(), r.archive.Close()) }

func openEntry(path string, index int, at int64) (io.ReadCloser, error) {
	z, err := zip.OpenReader(path)
	if err != nil {
		return nil, err
	}
	if index >= len(z.File) {
		z.Close()
		return nil, fmt.Errorf("%s has changed", path)
	}
	r, err := z.File[index].Open()
	if err != nil {
		z.Close()
		return nil, err
	}
	e := &entryReader{r, z}
	if _, err := io.CopyN(io.Discard, e, at); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// rows reads an array from the first row to the last.
type rows struct {
	a    *array
	r    io.ReadCloser
	rest []byte // of a mapped or transposed array
	left int    // rows
}

func (a *array) rows() (*rows, error) {
	s := &rows{a: a, rest: a.mapped, left: 1}
	if len(a.shape) > 0 {
		s.left = a.shape[0]
	}
	if a.mapped == nil {
		var err error
		if s.r, err = a.open(); err != nil {
			return nil, err
		}
	}
	if a.fortran && len(a.shape) > 1 {
		all := s.rest
		if s.r != nil {
			var err error
			if all, err = s.read(a.bytes()); err != nil {
				s.close()
				return nil, err
			}
			s.close()
		}
		s.rest = rowMajor(all, a.shape, a.elem.Bits()/8)
	}
	return s, nil
}

func (s *rows) close() {
	if s.r != nil {
		s.r.Close()
		s.r = nil
	}
}

// next returns the next n rows as a tensor of leading dimension n.
func (s *rows) next(n int) (*ir.Tensor, error) {
	shape := slices.Clone(s.a.shape)
	if len(shape) > 0 {
		shape[0] = n
	}
	if n > s.left {
		return nil, fmt.Errorf("array %q: no more rows", s.a.name)
	}
	s.left -= n
	count, err := ir.Numel(shape)
	if err != nil {
		return nil, err
	}
	size := s.a.elem.Size(count)
	var b []byte
	if s.r != nil {
		if b, err = s.read(int64(size)); err != nil {
			return nil, err
		}
	} else {
		b, s.rest = s.rest[:size:size], s.rest[size:]
	}
	if s.a.swap {
		b = swapped(b, s.a.elem)
	}
	return ir.TensorOf(s.a.elem, shape, b)
}

// read reads size bytes. A forged size costs no more memory than the file has bytes.
func (s *rows) read(size int64) ([]byte, error) {
	var b bytes.Buffer
	if size < 16<<20 {
		b.Grow(int(size))
	}
	if _, err := io.CopyN(&b, s.r, size); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("array %q: %w", s.a.name, err)
	}
	return b.Bytes(), nil
}

// rowMajor reorders elements whose first index runs fastest.
func rowMajor(b []byte, shape []int, width int) []byte {
	out := make([]byte, len(b))
	index := make([]int, len(shape))
	strides := make([]int, len(shape))
	step := width
	for i, n := range shape {
		strides[i] = step
		step *= n
	}
	for to := 0; to < len(out); to += width {
		from := 0
		for i, k := range index {
			from += k * strides[i]
		}
		copy(out[to:to+width], b[from:])
		for i := len(index) - 1; i >= 0; i-- {
			if index[i]++; index[i] < shape[i] {
				break
			}
			index[i] = 0
		}
	}
	return out
}

func swapped(b []byte, elem ir.DType) []byte {
	width := elem.Bits() / 8
	if elem == ir.Complex64 || elem == ir.Complex128 {
		width /= 2
	}
	out := slices.Clone(b)
	for i := 0; i < len(out); i += width {
		slices.Reverse(out[i : i+width])
	}
	return out
}
