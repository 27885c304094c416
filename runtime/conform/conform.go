// Package conform runs folders of ONNX's backend test suite: model.onnx with test_data_set_N/{input,output}_K.pb.
package conform

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
)

// Status is the outcome of a case. Data that the suite's authors have corrected since (errata.txt) are not failed.
type Status string

// The outcomes. Error means that the model or its data could not be read.
const (
	Pass        Status = "pass"
	Fail        Status = "fail"
	Unsupported Status = "unsupported"
	Error       Status = "error"
	Skipped     Status = "skipped"
)

// Case is the outcome of one folder.
type Case struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Detail string `json:"detail"`
}

// Summary counts outcomes; Failed includes errors.
type Summary struct {
	Passed      int    `json:"passed"`
	Failed      int    `json:"failed"`
	Unsupported int    `json:"unsupported"`
	Skipped     int    `json:"skipped"`
	Cases       []Case `json:"cases"`
}

// Options of Run.
type Options struct {
	RTol, ATol float64                            // override the tolerances of CLI.md where positive
	Rewrite    func(*ir.Model) (*ir.Model, error) // applied to each model before it runs: for tests of rewrites that keep meaning
	Jobs       int                                // cases at a time; 0: one
	Runtime    runtime.Options
}

// Find returns the folders below dirs (themselves included) that hold a model.onnx, sorted.
func Find(dirs ...string) ([]string, error) {
	var found []string
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err != nil {
			return nil, err
		}
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && d.Name() == "model.onnx" {
				found = append(found, filepath.Dir(path))
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// Run runs every folder and calls each, if set, with its outcome in the order of the folders.
func Run(ctx context.Context, folders []string, o Options, each func(Case)) Summary {
	cases := make([]Case, len(folders))
	done := make([]chan struct{}, len(folders))
	for i := range done {
		done[i] = make(chan struct{})
	}
	next := make(chan int)
	var wg sync.WaitGroup
	for range max(o.Jobs, 1) {
		wg.Go(func() {
			for i := range next {
				cases[i] = RunFolder(ctx, folders[i], o)
				close(done[i])
			}
		})
	}
	go func() {
		for i := range folders {
			next <- i
		}
		close(next)
	}()
	var s Summary
	for i := range folders {
		<-done[i]
		c := cases[i]
		switch c.Status {
		case Pass:
			s.Passed++
		case Unsupported:
			s.Unsupported++
		case Skipped:
			s.Skipped++
		default:
			s.Failed++
		}
		if each != nil {
			each(c)
		}
	}
	wg.Wait()
	s.Cases = cases
	return s
}

// RunFolder runs one folder: all of its data sets must agree.
func RunFolder(ctx context.Context, dir string, o Options) Case {
	c := Case{Name: dir}
	sets, err := dataSets(dir)
	if err != nil {
		c.Status, c.Detail = Error, err.Error()
		return c
	}
	if len(sets) == 0 {
		c.Status, c.Detail = Skipped, "no test_data_set_*"
		return c
	}
	m, err := frontend.Load(filepath.Join(dir, "model.onnx"))
	if err == nil {
		err = relax(m, sets)
	}
	if err == nil && o.Rewrite != nil {
		if m, err = o.Rewrite(m); err == nil {
			err = relax(m, sets)
		}
	}
	if err != nil {
		c.Status, c.Detail = Error, err.Error()
		return c
	}
	p, err := runtime.CompileWith(ctx, m, o.Runtime)
	wrong := "" // the erratum of the data set that failed
	if err == nil {
		for _, set := range sets {
			if err = runSet(ctx, m, p, set, o); err != nil {
				wrong = erratum(set)
				err = fmt.Errorf("%s: %w", filepath.Base(set), err)
				break
			}
		}
	}
	switch {
	case errors.Is(err, op.ErrUnsupported):
		c.Status, c.Detail = Unsupported, err.Error()
	case err != nil && wrong != "":
		c.Status, c.Detail = Unsupported, wrong
	case err != nil:
		c.Status, c.Detail = Fail, err.Error()
	default:
		c.Status = Pass
	}
	return c
}

// relax forgets the declared shape of an input that the stored data contradict: the suite's own runner feeds them all the
// same, and has such cases.
func relax(m *ir.Model, sets []string) error {
	for _, set := range sets {
		in, err := Inputs(m, set)
		if err != nil {
			return err
		}
		for _, v := range m.Graph.FreeInputs() {
			t := in[v.Name]
			if _, err := ir.Merge(v.Type, t.Type()); err != nil && v.Type.Elem == t.Elem() {
				v.Type.Ranked, v.Type.Dims = false, nil
			}
		}
	}
	return nil
}

func dataSets(dir string) ([]string, error) {
	sets, err := filepath.Glob(filepath.Join(escape(dir), "test_data_set_*"))
	slices.SortFunc(sets, func(a, b string) int { return number(a) - number(b) })
	return sets, err
}

// escape makes a path literal for filepath.Glob.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func number(path string) int {
	n, _ := strconv.Atoi(path[strings.LastIndexByte(path, '_')+1:])
	return n
}

func runSet(ctx context.Context, m *ir.Model, p *runtime.Program, set string, o Options) error {
	in, err := Inputs(m, set)
	if err != nil {
		return err
	}
	got, err := p.Run(ctx, in)
	if err != nil {
		return err
	}
	for k, slot := range m.Graph.Outputs() {
		want, err := readTensor(filepath.Join(set, fmt.Sprintf("output_%d.pb", k)))
		if errors.Is(err, fs.ErrNotExist) && k > 0 {
			continue
		}
		if err != nil {
			return err
		}
		if want, err = retyped(want, got[slot.Name].Elem()); err != nil {
			return err
		}
		tol := For(want.Elem(), m.Graph)
		if o.RTol > 0 {
			tol.RTol = o.RTol
		}
		if o.ATol > 0 {
			tol.ATol, tol.Floor = o.ATol, 0
		}
		if err := Compare(got[slot.Name], want, tol); err != nil {
			return fmt.Errorf("output %q: %w", slot.Name, err)
		}
	}
	return nil
}

// Inputs reads the input_K.pb of one data set for the inputs of m that have no default.
func Inputs(m *ir.Model, set string) (ir.Tensors, error) {
	in := ir.Tensors{}
	for k, v := range m.Graph.FreeInputs() {
		t, err := readTensor(filepath.Join(set, fmt.Sprintf("input_%d.pb", k)))
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", v.Name, err)
		}
		if in[v.Name], err = retyped(t, v.Type.Elem); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// retyped reads stored uint16 data as bfloat16 where the model has that: data of suites before ONNX 1.17, whose tools had
// no such type.
func retyped(t *ir.Tensor, elem ir.DType) (*ir.Tensor, error) {
	if t.Elem() != ir.Uint16 || elem != ir.BFloat16 {
		return t, nil
	}
	return ir.TensorOf(elem, t.Shape(), t.Bytes())
}

func readTensor(path string) (*ir.Tensor, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	_, t, err := frontend.DecodeTensor(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}
