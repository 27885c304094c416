package frontend

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/qsimc/qsimc/ir"
)

// Feed is what one run of a model takes.
type Feed struct {
	Tensors ir.Tensors // by input name
	Extra   ir.Tensors // arrays of the data that name no input: labels, expected outputs by name
	// N is the number of samples in it: rows of the leading axis beyond the first N are repeats, whose results do not count. The
	// tensors that have such rows say so (ir.Tensor.Filled).
	N int
}

// DataOptions say how samples are taken from files.
type DataOptions struct {
	// Batch is the number of samples in a run where the data has a sample axis and the model's leading dimension is free; 0
	// means 1. A model whose leading dimension is fixed sets it itself.
	Batch int
	// Count bounds the number of samples; 0 means all.
	Count int
	// Extra asks for the arrays that name no input.
	Extra bool
	// Seed is that of synthetic samples.
	Seed uint64
	// Tokenizer, a tokenizer.json, makes a text file token ids in sequences of SeqLen.
	Tokenizer string
	SeqLen    int
	// Preprocess makes a folder of images tensors (see ParsePreprocess); Labels is the table of their classes, "" none.
	Preprocess string
	Labels     string
}

// check refuses options that contradict each other.
func (o DataOptions) check() error {
	switch {
	case o.Batch < 0 || o.Count < 0 || o.SeqLen < 0:
		return fmt.Errorf("batch %d, count %d, sequence length %d: want 0 or more", o.Batch, o.Count, o.SeqLen)
	case (o.Tokenizer == "") != (o.SeqLen == 0):
		return errors.New("text wants both a tokenizer and a sequence length")
	case o.Labels != "" && o.Preprocess == "":
		return errors.New("labels are for images: preprocess says how they become tensors")
	case o.Tokenizer != "" && o.Preprocess != "":
		return errors.New("tokenizer is for text, preprocess for images: one of them")
	}
	return nil
}

// Synthetic is the path that stands for random samples.
const Synthetic = "synthetic"

// Data is a set of samples, read as it is run over: memory holds one feed, however many there are.
type Data struct {
	// Len is the number of feeds; 0 if it is not known beforehand.
	Len   int
	feeds func(yield func(Feed, error) bool)
}

// Samples returns the inputs of every feed; see OpenData for the forms of data.
func Samples(path string, m *ir.Model, o DataOptions) (ir.Samples, error) {
	d, err := OpenData(path, m, o)
	if err != nil {
		return nil, err
	}
	return d.Samples(), nil
}

// Feeds yields the feeds in order, each time from the start. It ends after an error.
func (d *Data) Feeds() iter.Seq2[Feed, error] { return d.feeds }

// Samples is Feeds for those who need the inputs only. Rows that are no samples are marked (ir.Tensor.Filled).
func (d *Data) Samples() ir.Samples {
	return func() iter.Seq2[ir.Tensors, error] {
		return func(yield func(ir.Tensors, error) bool) {
			for f, err := range d.feeds {
				if !yield(f.Tensors, err) {
					return
				}
			}
		}
	}
}

// OpenData finds the samples under path and checks them against the inputs of the model:
//
//   - a .npz file: arrays keyed by input name, with the samples along the leading axis: that of the input, or, where the
//     array has one dimension more than the input, one of its own
//   - a .npy file: the same for a model with one input. Token ids, integers of rank 2, go to the model's integer input of
//     rank 2; then an input attention_mask gets ones and position_ids gets 0, 1, 2, …
//   - a folder with test_data_set_N folders, or one of these: input_K.pb is the K-th input without a default, or the one its
//     tensor names
//   - a folder of .npz files, each with the arrays of one run, which may differ in shape
//   - a text file, with a tokenizer and a sequence length: its ids, cut into sequences; what is left over is dropped
//   - a folder of JPEG and PNG files, with preprocess: those in the table of labels, or all by name
//   - Synthetic: random values, the same for the same seed: eight samples unless a count is given, free dimensions 1 (leading)
//     and 8, integers 0 or 1
//
// A model whose leading dimension is fixed at B takes samples in groups of B; the last group is filled with repeats of its
// last sample. Numbers are converted where nothing is lost but the precision of float64. Everything else that does not fit
// is an error that names the input.
func OpenData(path string, m *ir.Model, o DataOptions) (*Data, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	switch {
	case o.Tokenizer != "":
		return textData(path, m, o)
	case o.Preprocess != "":
		return imageData(path, m, o)
	case path == Synthetic:
		return synthetic(m, o)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return folder(path, m, o)
	}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".npy":
		a, err := npyFile(path)
		if err != nil {
			return nil, err
		}
		return single(a, m, o)
	case ".npz":
		arrays, err := npzFile(path)
		if err != nil {
			return nil, err
		}
		d, err := stacked(arrays, m, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return d, nil
	}
	return nil, fmt.Errorf("%s: samples are .npy or .npz files, a folder of .npz files or of test_data_set_N, text with a tokenizer, or a folder of images with preprocess", path)
}

// Inputs that token ids bring with them.
const (
	maskInput     = "attention_mask"
	positionInput = "position_ids"
)

// single feeds one array to the one input it can be for.
func single(a *array, m *ir.Model, o DataOptions) (*Data, error) {
	var main []*ir.Value
	var fill []*ir.Value
	tokens := a.elem.IsInt() && len(a.shape) == 2
	for _, v := range m.Graph.FreeInputs() {
		if tokens && (v.Name == maskInput || v.Name == positionInput) {
			fill = append(fill, v)
		} else {
			main = append(main, v)
		}
	}
	if len(main) != 1 {
		names := []string{}
		for _, v := range main {
			names = append(names, v.Name)
		}
		return nil, fmt.Errorf("%s: one array is for a model with one input, this has %q; use a .npz file keyed by input name", a.name, names)
	}
	if v := main[0]; len(fill) > 0 && (!v.Type.Elem.IsInt() || v.Type.Ranked && len(v.Type.Dims) != 2) {
		return nil, fmt.Errorf("%s: input %q is %v, want an integer input of rank 2 beside %q", a.name, v.Name, v.Type, fill[0].Name)
	}
	file := a.name
	a.name = main[0].Name
	d, err := stacked([]*array{a}, m, o, fill...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return d, nil
}

// plan is how stacked arrays become feeds.
type plan struct {
	inputs []*ir.Value // fed from arrays, in the model's order
	arrays []*array
	extra  []*array
	fill   []*ir.Value // made from the first input
	total  int         // samples
	batch  int
	pad    bool // the last group is filled up
	own    bool // the sample axis is not an axis of the inputs
}

// stacked makes feeds of arrays with a sample axis.
func stacked(arrays []*array, m *ir.Model, o DataOptions, fill ...*ir.Value) (*Data, error) {
	p := &plan{total: -1, fill: fill}
	byName := map[string]*array{}
	for _, a := range arrays {
		byName[a.name] = a
	}
	var missing []string
	for _, v := range m.Graph.Inputs() {
		a := byName[v.Name]
		switch {
		case a != nil:
			p.inputs = append(p.inputs, v)
			p.arrays = append(p.arrays, a)
			delete(byName, v.Name)
		case v.Const() == nil && !slices.Contains(fill, v):
			missing = append(missing, v.Name)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("no array for the inputs %q; the arrays are %q", missing, arrayNames(arrays))
	}
	if len(p.inputs) == 0 {
		return nil, errors.New("no array names an input")
	}
	if err := p.layout(o); err != nil {
		return nil, err
	}
	if o.Extra {
		for _, a := range arrays {
			if byName[a.name] == a && len(a.shape) > 0 && a.shape[0] == p.total {
				p.extra = append(p.extra, a)
			}
		}
	}
	if o.Count > 0 {
		p.total = min(p.total, o.Count)
	}
	return &Data{Len: (p.total + p.batch - 1) / p.batch, feeds: p.feeds}, nil
}

func arrayNames(arrays []*array) []string {
	var names []string
	for _, a := range arrays {
		names = append(names, a.name)
	}
	return names
}

// layout finds the number of samples, whether their axis is one of the inputs', and the number of samples in a run.
func (p *plan) layout(o DataOptions) error {
	fixed, fixedBy := 0, ""
	for i, v := range p.inputs {
		a := p.arrays[i]
		if len(a.shape) == 0 {
			return fmt.Errorf("input %q: the array has no sample axis", v.Name)
		}
		own := v.Type.Ranked && len(a.shape) == len(v.Type.Dims)+1
		if i > 0 && own != p.own {
			return fmt.Errorf("input %q, %v: array %v has its samples along another axis than input %q, %v, with %v",
				v.Name, v.Type, a.shape, p.inputs[0].Name, p.inputs[0].Type, p.arrays[0].shape)
		}
		p.own = own
		if p.total >= 0 && a.shape[0] != p.total {
			return fmt.Errorf("input %q has %d samples, input %q has %d", v.Name, a.shape[0], p.inputs[0].Name, p.total)
		}
		p.total = a.shape[0]
		shape := a.shape
		if own {
			shape = shape[1:]
		}
		if err := suits(v, a.elem, shape, !own); err != nil {
			return err
		}
		if d := v.Type.Dim(0); !own && d.Known() {
			if fixedBy != "" && fixed != int(d.Size) {
				return fmt.Errorf("inputs %q and %q have leading dimensions %d and %d: give arrays with a sample axis of their own",
					fixedBy, v.Name, fixed, d.Size)
			}
			fixed, fixedBy = int(d.Size), v.Name
		}
	}
	if p.total == 0 {
		return errors.New("no samples")
	}
	switch {
	case p.own:
		p.batch = 1
	case fixedBy != "":
		p.batch, p.pad = fixed, true
	default:
		p.batch = max(o.Batch, 1)
	}
	if o.Batch > 0 && o.Batch != p.batch {
		return fmt.Errorf("a batch of %d was asked for, the model takes %d", o.Batch, p.batch)
	}
	if p.batch == 0 {
		return fmt.Errorf("input %q: leading dimension 0", fixedBy)
	}
	return nil
}

// suits checks element type and shape of data for an input; free: the leading dimension is the sample axis.
func suits(v *ir.Value, elem ir.DType, shape []int, free bool) error {
	if !convertible(elem, v.Type.Elem) {
		return fmt.Errorf("input %q: want %v, found %v", v.Name, v.Type.Elem, elem)
	}
	if !v.Type.Ranked {
		return nil
	}
	bad := len(shape) != len(v.Type.Dims)
	for i := 0; !bad && i < len(shape); i++ {
		d := v.Type.Dims[i]
		bad = d.Known() && int(d.Size) != shape[i] && !(free && i == 0)
	}
	if bad {
		return fmt.Errorf("input %q: want %v, found %v", v.Name, v.Type, ir.FixedType(elem, shape...))
	}
	return nil
}

func (p *plan) feeds(yield func(Feed, error) bool) {
	var readers []*rows
	defer func() {
		for _, r := range readers {
			r.close()
		}
	}()
	for _, a := range slices.Concat(p.arrays, p.extra) {
		r, err := a.rows()
		if err != nil {
			yield(Feed{}, err)
			return
		}
		readers = append(readers, r)
	}
	for at := 0; at < p.total; at += p.batch {
		f, err := p.feed(readers, min(p.batch, p.total-at))
		if !yield(f, err) || err != nil {
			return
		}
	}
}

// feed reads the next n samples.
func (p *plan) feed(readers []*rows, n int) (Feed, error) {
	f := Feed{Tensors: ir.Tensors{}, Extra: ir.Tensors{}, N: n}
	for i, r := range readers {
		t, err := r.next(n)
		if err != nil {
			return f, err
		}
		if i >= len(p.inputs) {
			f.Extra[r.a.name] = t
			continue
		}
		v := p.inputs[i]
		if p.own {
			if t, err = t.Reshape(t.Shape()[1:]...); err != nil {
				return f, err
			}
		} else if p.pad && n < p.batch {
			t = padded(t, p.batch)
		}
		if f.Tensors[v.Name], err = convert(t, v.Type.Elem); err != nil {
			return f, fmt.Errorf("input %q: %w", v.Name, err)
		}
		if p.pad && n < p.batch {
			f.Tensors[v.Name] = f.Tensors[v.Name].Filled(p.batch - n)
		}
	}
	if len(p.fill) == 0 {
		return f, nil
	}
	ids := f.Tensors[p.inputs[0].Name].Shape()
	for _, v := range p.fill {
		t, err := filled(v, ids)
		if err != nil {
			return f, fmt.Errorf("input %q: %w", v.Name, err)
		}
		f.Tensors[v.Name] = t
	}
	return f, nil
}

// padded repeats the last row until there are n.
func padded(t *ir.Tensor, n int) *ir.Tensor {
	shape := slices.Clone(t.Shape())
	row := t.Size() / shape[0]
	data := slices.Clone(t.Bytes())
	for last := data[len(data)-row:]; len(data) < n*row; {
		data = append(data, last...)
	}
	shape[0] = n
	out, err := ir.TensorOf(t.Elem(), shape, data)
	if err != nil {
		panic("BUG: frontend: " + err.Error())
	}
	return out
}

// filled makes the mask or the positions that go with ids of the given shape.
func filled(v *ir.Value, ids []int) (*ir.Tensor, error) {
	length := ids[len(ids)-1]
	shape := ids
	if v.Type.Rank() == 1 {
		shape = ids[len(ids)-1:]
	}
	t := ir.NewTensor(ir.Int64, shape...)
	values := ir.Data[int64](t)
	for i := range values {
		values[i] = 1
		if v.Name == positionInput {
			values[i] = int64(i % length)
		}
	}
	switch elem := v.Type.Elem; {
	case elem == ir.Float32:
		f, _ := t.Float32s()
		return ir.Floats(f, shape...), nil
	case elem == ir.Bool:
		b := make([]bool, len(values))
		for i, x := range values {
			b[i] = x != 0
		}
		return ir.FromSlice(ir.Bool, shape, b), nil
	default:
		return convert(t, elem)
	}
}
