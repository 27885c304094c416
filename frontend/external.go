package frontend

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/store"
)

// Folder is the file system of a folder as external data may see it: no name leads out of it, neither by .. nor through a
// symbolic link. Unlike os.DirFS it is safe for names that come from a file; unlike os.Root it holds nothing open.
type Folder string

// Open opens a file below the folder.
func (f Folder) Open(name string) (fs.File, error) {
	root, err := os.OpenRoot(string(f))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.Open(name)
}

// Stat describes a file below the folder without opening it.
func (f Folder) Stat(name string) (fs.FileInfo, error) {
	root, err := os.OpenRoot(string(f))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.Stat(name)
}

// dataFile is a file that holds tensors of a model.
type dataFile struct {
	size   int64
	mapped []byte // nil where files cannot be mapped
}

// external makes a tensor of the entries of external_data: location, offset and length. The file is looked at now, so that
// all that is wrong with it is said while loading, and its bytes are read when used.
func (d *decoder) external(elem ir.DType, shape []int, entries []ir.Prop) (*ir.Tensor, error) {
	var location string
	var offset, length int64 = 0, -1
	for _, e := range entries {
		var err error
		switch e.Key {
		case "location":
			location = e.Value
		case "offset":
			offset, err = strconv.ParseInt(e.Value, 10, 64)
		case "length":
			length, err = strconv.ParseInt(e.Value, 10, 64)
		}
		if err != nil || offset < 0 || e.Key == "length" && length < 0 {
			return nil, fmt.Errorf("external data: %s %q is not a number of bytes", e.Key, e.Value)
		}
	}
	if location == "" {
		return nil, errors.New("external data without a location")
	}
	n, err := ir.Numel(shape)
	if err != nil {
		return nil, err
	}
	size := int64(elem.Size(n))
	if elem == ir.String {
		return nil, errors.New("external data: strings cannot be external")
	}
	if length >= 0 && length != size {
		return nil, fmt.Errorf("external data %q: %v%v wants %d bytes, its length says %d", location, elem, shape, size, length)
	}
	file, err := d.open(location)
	if err != nil {
		return nil, fmt.Errorf("external data %q: %w", location, err)
	}
	if offset > file.size || size > file.size-offset {
		return nil, fmt.Errorf("external data %q: wants %d bytes at offset %d, the file has %d", location, size, offset, file.size)
	}
	if size == 0 {
		return ir.TensorOf(elem, shape, nil)
	}
	if file.mapped != nil {
		return ir.TensorOf(elem, shape, file.mapped[offset:offset+size:offset+size])
	}
	dir, name := d.dir, path.Clean(location)
	return ir.LazyTensor(elem, shape, func() ([]byte, error) { return readAt(dir, name, offset, size) })
}

// open looks a data file up once.
func (d *decoder) open(location string) (*dataFile, error) {
	name := path.Clean(location)
	if f := d.files[name]; f != nil {
		return f, nil
	}
	if path.IsAbs(location) {
		return nil, errors.New("the path is absolute; data must lie in the model's folder")
	}
	if !fs.ValidPath(name) {
		return nil, errors.New("the path leaves the model's folder")
	}
	if d.dir == nil {
		return nil, errors.New("the model was given without a folder")
	}
	info, err := fs.Stat(d.dir, name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f := &dataFile{size: info.Size()}
	if f.size > 0 {
		in, err := d.dir.Open(name)
		if err != nil {
			return nil, err
		}
		defer in.Close()
		if file, ok := in.(*os.File); ok {
			if f.mapped, err = store.Map(file, f.size); err != nil {
				return nil, err
			}
		}
	}
	d.files[name] = f
	return f, nil
}

// readAt reads a piece of a file that could not be mapped.
func readAt(dir fs.FS, name string, offset, size int64) ([]byte, error) {
	in, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out := make([]byte, size)
	if r, ok := in.(io.ReaderAt); ok {
		_, err = r.ReadAt(out, offset)
	} else if _, err = io.CopyN(io.Discard, in, offset); err == nil {
		_, err = io.ReadFull(in, out)
	}
	if err != nil {
		return nil, fmt.Errorf("external data %q: %d bytes at offset %d: %w", name, size, offset, err)
	}
	return out, nil
}
