package frontend

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/qsimc/qsimc/ir"
)

// folder makes feeds of a folder, each of a test_data_set_N folder or of a .npz file.
func folder(path string, m *ir.Model, o DataOptions) (*Data, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var sets, files []string
	for _, e := range entries {
		switch name := e.Name(); {
		case e.IsDir() && strings.HasPrefix(name, "test_data_set_"):
			sets = append(sets, filepath.Join(path, name))
		case name == "input_0.pb":
			sets = []string{path}
		case strings.EqualFold(filepath.Ext(name), ".npz"):
			files = append(files, filepath.Join(path, name))
		}
	}
	read := testSet
	if len(sets) == 0 {
		sets, read = files, archive
	}
	if len(sets) == 0 {
		return nil, fmt.Errorf("%s: no test_data_set_N folders and no .npz files in it", path)
	}
	if o.Batch > 1 {
		return nil, fmt.Errorf("%s: a batch of %d was asked for, but a folder holds runs as they are", path, o.Batch)
	}
	slices.SortFunc(sets, natural)
	batch := leading(m)
	feeds := func(yield func(Feed, error) bool) {
		left := o.Count
		g := grouper{batch: batch}
		for _, file := range sets {
			f, err := read(file, m, o.Extra)
			if err != nil {
				yield(f, fmt.Errorf("%s: %w", file, err))
				return
			}
			if o.Count > 0 {
				if f.N > left {
					f.Tensors, f.N = filledUp(f.Tensors, f.N-left), left
				}
				left -= f.N
			}
			if !g.add(f, yield) || o.Count > 0 && left == 0 {
				break
			}
		}
		g.flush(yield)
	}
	d := &Data{feeds: feeds}
	if batch <= 1 && o.Count == 0 {
		d.Len = len(sets)
	}
	return d, nil
}

// filledUp marks the last n rows of inputs that share their leading dimension as no samples.
func filledUp(in ir.Tensors, n int) ir.Tensors {
	out := ir.Tensors{}
	for name, t := range in {
		out[name] = t.Filled(n)
	}
	return out
}

// leading returns the leading dimension that all inputs without a default share, 0 if they do not or it is not fixed.
func leading(m *ir.Model) int {
	batch := 0
	for i, v := range m.Graph.FreeInputs() {
		d := v.Type.Dim(0)
		if !d.Known() || i > 0 && int(d.Size) != batch {
			return 0
		}
		batch = int(d.Size)
	}
	return batch
}

// testSet reads input_K.pb, and output_K.pb if extra.
func testSet(dir string, m *ir.Model, extra bool) (Feed, error) {
	f := Feed{Tensors: ir.Tensors{}, Extra: ir.Tensors{}}
	inputs := m.Graph.FreeInputs()
	for k := 0; ; k++ {
		name, t, err := tensorFile(filepath.Join(dir, fmt.Sprintf("input_%d.pb", k)))
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			return f, err
		}
		i := slices.IndexFunc(m.Graph.Inputs(), func(v *ir.Value) bool { return v.Name == name })
		var v *ir.Value
		switch {
		case i >= 0:
			v = m.Graph.Inputs()[i]
		case k < len(inputs):
			v = inputs[k]
		default:
			return f, fmt.Errorf("input_%d.pb: the model has %d inputs", k, len(inputs))
		}
		f.Tensors[v.Name] = t
	}
	if extra {
		for k, o := range m.Graph.Outputs() {
			_, t, err := tensorFile(filepath.Join(dir, fmt.Sprintf("output_%d.pb", k)))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return f, err
			}
			f.Extra[o.Name] = t
		}
	}
	return f, settle(&f, m)
}

func tensorFile(path string) (string, *ir.Tensor, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", nil, err
	}
	name, t, err := DecodeTensor(b)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return name, t, nil
}

// archive reads a .npz file with the arrays of one run.
func archive(path string, m *ir.Model, extra bool) (Feed, error) {
	f := Feed{Tensors: ir.Tensors{}, Extra: ir.Tensors{}}
	arrays, err := npzFile(path)
	if err != nil {
		return f, err
	}
	for _, a := range arrays {
		into := f.Extra
		if slices.ContainsFunc(m.Graph.Inputs(), func(v *ir.Value) bool { return v.Name == a.name }) {
			into = f.Tensors
		} else if !extra {
			continue
		}
		r, err := a.rows()
		if err != nil {
			return f, err
		}
		into[a.name], err = r.next(r.left)
		r.close()
		if err != nil {
			return f, err
		}
	}
	return f, settle(&f, m)
}

// settle checks a feed against the inputs, converts it, and counts its samples: the leading dimension that all inputs share,
// else 1.
func settle(f *Feed, m *ir.Model) error {
	first := true
	for _, v := range m.Graph.Inputs() {
		t := f.Tensors[v.Name]
		if t == nil {
			if v.Const() == nil {
				return fmt.Errorf("no data for input %q", v.Name)
			}
			continue
		}
		if err := suits(v, t.Elem(), t.Shape(), leading(m) > 0); err != nil {
			return err
		}
		var err error
		if f.Tensors[v.Name], err = convert(t, v.Type.Elem); err != nil {
			return fmt.Errorf("input %q: %w", v.Name, err)
		}
		n := 1
		if t.Rank() > 0 {
			n = t.Shape()[0]
		}
		if !first && n != f.N {
			if leading(m) > 0 {
				return fmt.Errorf("input %q has %d samples, an input before it %d", v.Name, n, f.N)
			}
			n = 1
		}
		f.N, first = n, false
	}
	return nil
}

// grouper makes feeds of exactly batch samples out of feeds of any number; with batch 0 it passes them on.
type grouper struct {
	batch int
	have  []Feed // their samples, together fewer than batch
	n     int
}

// add takes a feed and yields the groups that are whole; false if yield said so.
func (g *grouper) add(f Feed, yield func(Feed, error) bool) bool {
	if g.batch == 0 || g.n == 0 && rowsOf(f) == g.batch {
		return yield(f, nil)
	}
	for at := 0; at < f.N; {
		k := min(g.batch-g.n, f.N-at)
		part, err := slice(f, at, k)
		if err != nil {
			return yield(Feed{}, err) && false
		}
		g.have = append(g.have, part)
		at += k
		if g.n += k; g.n == g.batch && !g.flush(yield) {
			return false
		}
	}
	return true
}

// flush yields what is left, filled with repeats.
func (g *grouper) flush(yield func(Feed, error) bool) bool {
	if g.n == 0 {
		return true
	}
	f, err := concat(g.have, g.batch)
	f.N = g.n
	g.have, g.n = nil, 0
	return yield(f, err) && err == nil
}

// rowsOf returns the leading dimension of the inputs.
func rowsOf(f Feed) int {
	for _, t := range f.Tensors {
		if t.Rank() > 0 {
			return t.Shape()[0]
		}
	}
	return 1
}

// slice returns n samples of a feed. What has no row for each sample is kept whole.
func slice(f Feed, at, n int) (Feed, error) {
	total := rowsOf(f)
	cut := func(in ir.Tensors) (ir.Tensors, error) {
		out := ir.Tensors{}
		for name, t := range in {
			if t.Rank() == 0 || t.Shape()[0] != total || t.Elem() == ir.String {
				out[name] = t
				continue
			}
			shape := slices.Clone(t.Shape())
			shape[0] = n
			row := t.Size() / total
			part, err := ir.TensorOf(t.Elem(), shape, t.Bytes()[at*row:(at+n)*row])
			if err != nil {
				return nil, err
			}
			out[name] = part
		}
		return out, nil
	}
	tensors, err1 := cut(f.Tensors)
	extra, err2 := cut(f.Extra)
	return Feed{Tensors: tensors, Extra: extra, N: n}, errors.Join(err1, err2)
}

// concat joins feeds along the leading axis and repeats the last sample of the inputs until there are batch.
func concat(feeds []Feed, batch int) (Feed, error) {
	join := func(name string, of func(Feed) ir.Tensors) (*ir.Tensor, error) {
		first := of(feeds[0])[name]
		shape := slices.Clone(first.Shape())
		if first.Elem() == ir.String || len(shape) == 0 {
			return nil, fmt.Errorf("%q: %v cannot be grouped", name, first.Type())
		}
		var data []byte
		shape[0] = 0
		for _, f := range feeds {
			t := of(f)[name]
			if t == nil || t.Elem() != first.Elem() || t.Rank() != len(shape) || !slices.Equal(t.Shape()[1:], shape[1:]) {
				return nil, fmt.Errorf("%q: the model takes %d samples at once, but they differ in type or shape", name, batch)
			}
			shape[0] += t.Shape()[0]
			data = append(data, t.Bytes()...)
		}
		return ir.TensorOf(first.Elem(), shape, data)
	}
	out := Feed{Tensors: ir.Tensors{}, Extra: ir.Tensors{}}
	for name := range feeds[0].Tensors {
		t, err := join(name, func(f Feed) ir.Tensors { return f.Tensors })
		if err != nil {
			return out, err
		}
		if n := t.Shape()[0]; n < batch {
			t = padded(t, batch).Filled(batch - n)
		}
		out.Tensors[name] = t
	}
	for name := range feeds[0].Extra {
		t, err := join(name, func(f Feed) ir.Tensors { return f.Extra })
		if err != nil {
			return out, err
		}
		out.Extra[name] = t
	}
	return out, nil
}

var digits = regexp.MustCompile(`\d+|\D+`)

// natural orders names with numbers in them by number: set_2 before set_10.
func natural(a, b string) int {
	x, y := digits.FindAllString(a, -1), digits.FindAllString(b, -1)
	for i := range min(len(x), len(y)) {
		m, err1 := strconv.ParseUint(x[i], 10, 64)
		n, err2 := strconv.ParseUint(y[i], 10, 64)
		if err1 == nil && err2 == nil && m != n {
			return cmp.Compare(m, n)
		}
		if c := cmp.Compare(x[i], y[i]); c != 0 && (err1 != nil || err2 != nil) {
			return c
		}
	}
	return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(a, b))
}
