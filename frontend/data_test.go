package frontend_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qsimc/qsimc/backend"
	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/testdata/shared"
)

// model returns a model with the given inputs and one output y.
func model(inputs map[string]ir.Type) *ir.Model {
	m := ir.NewModel(17)
	for _, name := range slices.Sorted(maps.Keys(inputs)) {
		m.Graph.AddInput(name, inputs[name])
	}
	m.Graph.AddOutput("y", m.Graph.Inputs()[0])
	return m
}

// npy returns an array file.
func npy(descr, order, shape string, data any) []byte {
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': %s, 'shape': (%s), }\n", descr, order, shape)
	var b bytes.Buffer
	b.WriteString("\x93NUMPY\x01\x00")
	b.Write(binary.LittleEndian.AppendUint16(nil, uint16(len(header))))
	b.WriteString(header)
	var endian binary.ByteOrder = binary.LittleEndian
	if descr[0] == '>' {
		endian = binary.BigEndian
	}
	if err := binary.Write(&b, endian, data); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func write(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// show prints every feed of a data set.
func show(t *testing.T, path string, m *ir.Model, o frontend.DataOptions) string {
	t.Helper()
	d, err := frontend.OpenData(path, m, o)
	if err != nil {
		return "error: " + strings.ReplaceAll(err.Error(), filepath.Dir(path)+"/", "")
	}
	var once string
	for range 2 { // it starts anew each time
		var b strings.Builder
		feeds := 0
		for f, err := range d.Feeds() {
			if err != nil {
				fmt.Fprintf(&b, "error: %v\n", strings.ReplaceAll(err.Error(), filepath.Dir(path)+"/", ""))
				break
			}
			feeds++
			fmt.Fprintf(&b, "%d:", f.N)
			for _, set := range []ir.Tensors{f.Tensors, f.Extra} {
				for _, name := range slices.Sorted(maps.Keys(set)) {
					x := set[name]
					v, ok := x.Float32s()
					if !ok {
						t.Fatalf("%s is %v", name, x.Type())
					}
					fmt.Fprintf(&b, " %s %v %v", name, x.Type(), v)
					if x.Fill() > 0 {
						fmt.Fprintf(&b, " (%d filled)", x.Fill())
					}
				}
			}
			b.WriteString("\n")
		}
		if d.Len != 0 && d.Len != feeds {
			fmt.Fprintf(&b, "Len is %d\n", d.Len)
		}
		if once != "" && once != b.String() {
			t.Errorf("the second run over the data gives\n%s, the first\n%s", b.String(), once)
		}
		once = b.String()
	}
	return once
}

var (
	batchOf2 = ir.TensorType(ir.Float32, ir.NamedDim("N"), ir.FixedDim(2))
	ids      = ir.TensorType(ir.Int64, ir.NamedDim("N"), ir.NamedDim("L"))
)

func TestArrays(t *testing.T) {
	t.Parallel()
	six := []float32{1, 2, 3, 4, 5, 6}
	for _, c := range []struct {
		name  string
		file  []byte
		model *ir.Model
		o     frontend.DataOptions
		want  string
	}{
		{"rows", npy("<f4", "False", "3, 2", six), model(map[string]ir.Type{"x": batchOf2}), frontend.DataOptions{},
			"1: x float[1,2] [1 2]\n1: x float[1,2] [3 4]\n1: x float[1,2] [5 6]\n"},
		{"batches", npy("<f4", "False", "3, 2", six), model(map[string]ir.Type{"x": batchOf2}), frontend.DataOptions{Batch: 2},
			"2: x float[2,2] [1 2 3 4]\n1: x float[1,2] [5 6]\n"},
		{"count", npy("<f4", "False", "3, 2", six), model(map[string]ir.Type{"x": batchOf2}), frontend.DataOptions{Batch: 2, Count: 1},
			"1: x float[1,2] [1 2]\n"},
		{"fixed", npy("<f4", "False", "3, 2", six), model(map[string]ir.Type{"x": ir.FixedType(ir.Float32, 2, 2)}), frontend.DataOptions{},
			"2: x float[2,2] [1 2 3 4]\n1: x float[2,2] [5 6 5 6] (1 filled)\n"},
		{"other batch", npy("<f4", "False", "3, 2", six), model(map[string]ir.Type{"x": ir.FixedType(ir.Float32, 2, 2)}),
			frontend.DataOptions{Batch: 3}, "error: a.npy: a batch of 3 was asked for, the model takes 2"},
		{"own axis", npy("<f4", "False", "3, 2", six), model(map[string]ir.Type{"x": ir.FixedType(ir.Float32, 2)}), frontend.DataOptions{},
			"1: x float[2] [1 2]\n1: x float[2] [3 4]\n1: x float[2] [5 6]\n"},
		{"Fortran", npy("<f4", "True", "2, 3", six), model(map[string]ir.Type{"x": ir.TensorType(ir.Float32, ir.NamedDim("N"), ir.FixedDim(3))}),
			frontend.DataOptions{}, "1: x float[1,3] [1 3 5]\n1: x float[1,3] [2 4 6]\n"},
		{"big-endian", npy(">i4", "False", "2, 1", []int32{1, -2}), model(map[string]ir.Type{"x": ir.TensorType(ir.Int64, ir.NamedDim("N"), ir.FixedDim(1))}),
			frontend.DataOptions{}, "1: x int64[1,1] [1]\n1: x int64[1,1] [-2]\n"},
		{"half", npy("<f2", "False", "1, 1", []uint16{0x3e00}), model(map[string]ir.Type{"x": ir.TensorType(ir.Float16, ir.NamedDim("N"), ir.FixedDim(1))}),
			frontend.DataOptions{}, "1: x float16[1,1] [1.5]\n"},
		{"bool", npy("|b1", "False", "2,", []bool{true, false}), model(map[string]ir.Type{"x": ir.FixedType(ir.Bool)}),
			frontend.DataOptions{}, "1: x bool [1]\n1: x bool [0]\n"},
		{"double", npy("<f8", "False", "1,", []float64{0.5}), model(map[string]ir.Type{"x": ir.FixedType(ir.Float32)}),
			frontend.DataOptions{}, "1: x float [0.5]\n"},
		{"overflow", npy("<i8", "False", "1,", []int64{300}), model(map[string]ir.Type{"x": ir.FixedType(ir.Uint8)}),
			frontend.DataOptions{}, "error: input \"x\": element 0 is 300, which is no uint8\nLen is 1\n"},
		{"bytes for floats", npy("|u1", "False", "1, 2", []byte{1, 2}), model(map[string]ir.Type{"x": batchOf2}),
			frontend.DataOptions{}, `error: a.npy: input "x": want float, found uint8`},
		{"shape", npy("<f4", "False", "2, 3", six), model(map[string]ir.Type{"x": batchOf2}), frontend.DataOptions{},
			`error: a.npy: input "x": want float[N,2], found float[2,3]`},
		{"two inputs", npy("<f4", "False", "3, 2", six), model(map[string]ir.Type{"a": batchOf2, "b": batchOf2}), frontend.DataOptions{},
			`error: a.npy: one array is for a model with one input, this has ["a" "b"]; use a .npz file keyed by input name`},
		{"tokens", npy("<i8", "False", "2, 3", []int64{7, 8, 9, 4, 5, 6}),
			model(map[string]ir.Type{"input_ids": ids, "attention_mask": ids, "position_ids": ids}), frontend.DataOptions{Batch: 2},
			"2: attention_mask int64[2,3] [1 1 1 1 1 1] input_ids int64[2,3] [7 8 9 4 5 6] position_ids int64[2,3] [0 1 2 0 1 2]\n"},
		{"cut", npy("<f4", "False", "3, 3", six), model(map[string]ir.Type{"x": batchOf2}), frontend.DataOptions{},
			"error: a.npy: float[3 3] wants 106 bytes, the file has 94"},
		{"no array", []byte("hello"), model(map[string]ir.Type{"x": batchOf2}), frontend.DataOptions{}, "error: a.npy: not a NumPy array file"},
		{"object", npy("|O", "False", "1,", []byte{0}), model(map[string]ir.Type{"x": batchOf2}), frontend.DataOptions{},
			`error: a.npy: header "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }": unknown element type "|O"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := write(t, filepath.Join(t.TempDir(), "a.npy"), c.file)
			if diff := cmp.Diff(c.want, show(t, path, c.model, c.o)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// zipped returns an archive, compressed or not.
func zipped(method uint16, files map[string][]byte) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name + ".npy", Method: method})
		if err != nil {
			panic(err)
		}
		w.Write(files[name])
	}
	z.Close()
	return b.Bytes()
}

func TestArchives(t *testing.T) {
	t.Parallel()
	arrays := map[string][]byte{
		"x":      npy("<f4", "False", "3, 2", []float32{1, 2, 3, 4, 5, 6}),
		"step":   npy("<i8", "False", "3,", []int64{7, 8, 9}),
		"labels": npy("<i8", "False", "3,", []int64{0, 1, 0}),
	}
	m := model(map[string]ir.Type{"x": batchOf2, "step": ir.TensorType(ir.Int64, ir.NamedDim("N"))})
	want := "2: step int64[2] [7 8] x float[2,2] [1 2 3 4] labels int64[2] [0 1]\n1: step int64[1] [9] x float[1,2] [5 6] labels int64[1] [0]\n"
	for name, method := range map[string]uint16{"stored": zip.Store, "deflated": zip.Deflate} {
		path := write(t, filepath.Join(t.TempDir(), name+".npz"), zipped(method, arrays))
		if diff := cmp.Diff(want, show(t, path, m, frontend.DataOptions{Batch: 2, Extra: true})); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
	delete(arrays, "step")
	path := write(t, filepath.Join(t.TempDir(), "a.npz"), zipped(zip.Store, arrays))
	wantErr := `error: a.npz: no array for the inputs ["step"]; the arrays are ["labels" "x"]`
	if diff := cmp.Diff(wantErr, show(t, path, m, frontend.DataOptions{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	arrays["step"] = npy("<i8", "False", "2,", []int64{7, 8})
	path = write(t, path, zipped(zip.Store, arrays))
	wantErr = `error: a.npz: input "x" has 3 samples, input "step" has 2`
	if diff := cmp.Diff(wantErr, show(t, path, m, frontend.DataOptions{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestFolders(t *testing.T) {
	t.Parallel()
	x := func(v ...float32) []byte {
		return zipped(zip.Store, map[string][]byte{"x": npy("<f4", "False", fmt.Sprintf("%d, 2", len(v)/2), v)})
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "s10.npz"), x(7, 8))
	write(t, filepath.Join(dir, "s2.npz"), x(1, 2, 3, 4, 5, 6))
	free := model(map[string]ir.Type{"x": batchOf2})
	if diff := cmp.Diff("3: x float[3,2] [1 2 3 4 5 6]\n1: x float[1,2] [7 8]\n", show(t, dir, free, frontend.DataOptions{})); diff != "" {
		t.Errorf("free batch: -want +got:\n%s", diff)
	}
	fixed := model(map[string]ir.Type{"x": ir.FixedType(ir.Float32, 2, 2)})
	if diff := cmp.Diff("2: x float[2,2] [1 2 3 4]\n2: x float[2,2] [5 6 7 8]\n", show(t, dir, fixed, frontend.DataOptions{})); diff != "" {
		t.Errorf("fixed batch: -want +got:\n%s", diff)
	}
	if diff := cmp.Diff("2: x float[2,2] [1 2 3 4]\n1: x float[2,2] [5 6 5 6] (1 filled)\n", show(t, dir, fixed, frontend.DataOptions{Count: 3})); diff != "" {
		t.Errorf("fixed batch, counted: -want +got:\n%s", diff)
	}

	dir = t.TempDir()
	for i, v := range []float32{1, 2} {
		b, err := backend.EncodeTensor("x", ir.Floats([]float32{v, v}, 1, 2))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, fmt.Sprintf("test_data_set_%d", i), "input_0.pb"), b)
		write(t, filepath.Join(dir, fmt.Sprintf("test_data_set_%d", i), "output_0.pb"), b)
	}
	want := "1: x float[1,2] [1 1] y float[1,2] [1 1]\n1: x float[1,2] [2 2] y float[1,2] [2 2]\n"
	if diff := cmp.Diff(want, show(t, dir, free, frontend.DataOptions{Extra: true})); diff != "" {
		t.Errorf("test sets: -want +got:\n%s", diff)
	}
	if diff := cmp.Diff("1: x float[1,2] [2 2]\n", show(t, filepath.Join(dir, "test_data_set_1"), free, frontend.DataOptions{})); diff != "" {
		t.Errorf("one test set: -want +got:\n%s", diff)
	}
	if got := show(t, t.TempDir(), free, frontend.DataOptions{}); !strings.Contains(got, "no test_data_set_N folders and no .npz files") {
		t.Errorf("an empty folder: %s", got)
	}
}

func TestSynthetic(t *testing.T) {
	t.Parallel()
	m := model(map[string]ir.Type{"x": batchOf2, "input_ids": ids, "attention_mask": ids})
	a := show(t, frontend.Synthetic, m, frontend.DataOptions{Count: 3, Batch: 2})
	if b := show(t, frontend.Synthetic, m, frontend.DataOptions{Count: 3, Batch: 2, Seed: 1}); a == b {
		t.Error("the seed changes nothing")
	}
	if !strings.HasPrefix(a, "2: attention_mask int64[2,8] [1 1 1") || strings.Count(a, "\n") != 2 {
		t.Error(a)
	}
}

// Every zoo model takes the calibration data made for it.
func TestZooData(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(shared.Dir(t), "zoo")
	for name, data := range map[string]string{
		"opt-mini": "calib_256.npy", "llama-nano": "nano_calib_128.npy", "vit-mini": "cifar10_test1000.npz",
		"bert-mini": "subjectivity_calib128.npz", "unet-mini": "unet_eval64.npz", "conv-nano": "test_data_set_0",
	} {
		m, err := frontend.Load(filepath.Join(dir, name, "model.onnx"))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "data", data)
		if strings.HasPrefix(data, "test") {
			path = filepath.Join(dir, name)
		}
		d, err := frontend.OpenData(path, m, frontend.DataOptions{Count: 5, Extra: true})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		total := 0
		for f, err := range d.Feeds() {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			for _, v := range m.Graph.FreeInputs() {
				if f.Tensors[v.Name] == nil {
					t.Errorf("%s: no data for %q", name, v.Name)
				}
			}
			total += f.N
		}
		if total != 5 && name != "conv-nano" {
			t.Errorf("%s: %d samples, want 5", name, total)
		}
	}
}
