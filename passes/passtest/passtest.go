// Package passtest runs golden cases of passes: txtar archives that hold a pipeline, a model in ONNX's text syntax and what
// the pipeline must make of it.
//
//	One LayerNormalization feeds two products: the fold must serve both.
//	same: close
//
//	-- pipeline --
//	fold
//	-- policy --
//	default: {weights: int8/axis=out}
//	-- in --
//	<ir_version: 10, opset_import: ["" : 21]>
//	two (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1, 0, 0, 1}> { y = MatMul (x, w) }
//	-- samples --
//	x [[1, -3], [0.5, 8]]
//	-- want --
//	(the printed model)
//	-- report --
//	(what Report prints: edits, sites, what was skipped and why)
//
// The lines before the first section say why the case exists; those of the form key: value set what must hold:
//
//	same: exact | close    running the model before and after gives the same outputs; close is 1e-5 of the largest magnitude
//	lowered: exact | close running the result gives what it gives without the step lower
//	opset: N               the result's opset
//	again: edits           running the pipeline on its result edits again: a search that starts from other weights
//	model: FILE            in and samples are those of another case, whose path starts from this one's folder
//
// Samples are one line an input, a blank line between samples; data is a nested list as in JSON. A section error in place of
// want and report holds a part of the message with which the pipeline must fail.
//
// The harness parses the model, infers types, runs the pipeline (which verifies after each pass), compares text and report,
// executes, runs the pipeline a second time expecting no edit, and repeats the whole under shuffled node orders.
// go test ./passes -update writes want and report anew; read the diff.
package passtest

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/passes/recipe"
	"github.com/qsimc/qsimc/runtime"
)

var update = flag.Bool("update", false, "rewrite the want and report sections of golden pass cases")

// Run runs every case under dir as a parallel subtest named after its file.
func Run(t *testing.T, dir string) {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".txtar") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no golden cases under %s", dir)
	}
	for _, f := range files {
		name, _ := filepath.Rel(dir, strings.TrimSuffix(f, ".txtar"))
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			File(t, f)
		})
	}
}

// File runs one case.
func File(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parse(path, data)
	if err != nil {
		t.Fatal(err)
	}
	c.run(t)
}

// golden is a parsed case.
type golden struct {
	path     string
	archive  *txtar.Archive
	says     map[string]string
	pipeline *passes.Pipeline
	policy   *passes.Policy
	source   []byte
	samples  []ir.Tensors
}

func parse(path string, data []byte) (*golden, error) {
	c := &golden{path: path, archive: txtar.Parse(data), says: map[string]string{}}
	for l := range strings.Lines(string(c.archive.Comment)) {
		key, val, ok := strings.Cut(strings.TrimSpace(l), ": ")
		if ok && slices.Contains([]string{"same", "lowered", "opset", "again", "model"}, key) {
			c.says[key] = val
		}
	}
	for _, f := range c.archive.Files {
		if !slices.Contains([]string{"pipeline", "policy", "in", "samples", "want", "report", "error"}, f.Name) {
			return nil, fmt.Errorf("%s: section %q is unknown", path, f.Name)
		}
	}
	in, samples := c.section("in"), c.section("samples")
	var err error
	if from := c.says["model"]; from != "" {
		if in, samples, err = borrow(filepath.Join(filepath.Dir(path), from)); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	steps := strings.Split(strings.TrimSpace(string(c.section("pipeline"))), "\n")
	if c.pipeline, err = passes.ParsePipeline(steps...); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if c.policy, err = recipe.ParsePolicy(path, c.section("policy")); err != nil {
		return nil, err
	}
	if c.source = in; c.source == nil {
		return nil, fmt.Errorf("%s: has no section in", path)
	}
	m, err := c.model()
	if err != nil {
		return nil, err
	}
	c.samples, err = parseSamples(m, samples)
	if err != nil {
		return nil, fmt.Errorf("%s: samples: %w", path, err)
	}
	return c, nil
}

// borrow reads the model and the samples of another case.
func borrow(path string) (in, samples []byte, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	other := &golden{archive: txtar.Parse(data)}
	return other.section("in"), other.section("samples"), nil
}

func (c *golden) section(name string) []byte {
	for _, f := range c.archive.Files {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

func (c *golden) set(name string, data []byte) {
	for i, f := range c.archive.Files {
		if f.Name == name {
			c.archive.Files[i].Data = data
			return
		}
	}
	c.archive.Files = append(c.archive.Files, txtar.File{Name: name, Data: data})
}

func (c *golden) model() (*ir.Model, error) {
	m, err := ir.Parse(c.path, c.source)
	if err != nil {
		return nil, err
	}
	if err := op.Infer(m); err != nil {
		return nil, fmt.Errorf("%s: %w", c.path, err)
	}
	return m, op.Verify(m)
}

// unit returns a fresh unit on a fresh model.
func (c *golden) unit(t *testing.T) *passes.Unit {
	t.Helper()
	m, err := c.model()
	if err != nil {
		t.Fatal(err)
	}
	u := &passes.Unit{Model: m, Policy: c.policy, Report: &passes.Report{}}
	if c.samples != nil {
		u.Samples = func() iter.Seq2[ir.Tensors, error] {
			return func(yield func(ir.Tensors, error) bool) {
				for _, s := range c.samples {
					if !yield(s, nil) {
						return
					}
				}
			}
		}
	}
	return u
}

func (c *golden) run(t *testing.T) {
	u := c.unit(t)
	before, _ := u.Model.Clone()
	err := c.pipeline.Run(t.Context(), u)
	if want := c.section("error"); want != nil {
		switch msg := strings.TrimSpace(string(want)); {
		case err == nil:
			t.Fatalf("the pipeline succeeded, wanted the error %q", msg)
		case !strings.Contains(err.Error(), msg):
			t.Fatalf("error %q, wanted one with %q", err, msg)
		}
		if len(u.Report.Passes) != 1 {
			return // passes before the failed one changed the model
		}
		if err := ir.Equal(before, u.Model); err != nil {
			t.Errorf("the failed pass changed the model: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	got, report := text(t, u.Model), reportText(u.Report)
	if *update {
		c.set("want", got)
		c.set("report", report)
		if err := os.WriteFile(c.path, txtar.Format(c.archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if d := difference(string(c.section("want")), string(got)); d != "" {
		t.Errorf("model (-want +got):\n%s", d)
	}
	if d := difference(string(c.section("report")), string(report)); d != "" {
		t.Errorf("report (-want +got):\n%s", d)
	}
	if o := c.says["opset"]; o != "" && o != strconv.Itoa(u.Model.Opset[""]) {
		t.Errorf("opset %d, wanted %s", u.Model.Opset[""], o)
	}
	if k := c.says["same"]; k != "" {
		c.compare(t, "the result against the original", k, before, u.Model)
	}
	if k := c.says["lowered"]; k != "" {
		c.compare(t, "the result against the simulation", k, c.simulation(t), u.Model)
	}
	c.again(t, u.Model)
	for seed := range int64(3) {
		c.shuffled(t, seed, u)
	}
}

// simulation returns what the pipeline makes without its step lower.
func (c *golden) simulation(t *testing.T) *ir.Model {
	t.Helper()
	var steps []string
	for _, s := range c.pipeline.Steps() {
		if !strings.HasPrefix(s, "lower") {
			steps = append(steps, s)
		}
	}
	p, err := passes.ParsePipeline(steps...)
	if err != nil {
		t.Fatal(err)
	}
	u := c.unit(t)
	if err := p.Run(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	return u.Model
}

// again runs the pipeline on its own result, which must not change.
func (c *golden) again(t *testing.T, m *ir.Model) {
	t.Helper()
	u := c.unit(t)
	u.Model, _ = m.Clone()
	u.KeepQuantized = true
	if err := c.pipeline.Run(t.Context(), u); err != nil {
		t.Errorf("second run: %v", err)
		return
	}
	if c.says["again"] == "edits" {
		return
	}
	for _, p := range u.Report.Passes {
		if p.Edits != 0 {
			t.Errorf("second run: %s made %d edits, wanted none", p.Name, p.Edits)
		}
	}
	if d := cmp.Diff(string(text(t, m)), string(text(t, u.Model))); d != "" {
		t.Errorf("second run (-first +second):\n%s", d)
	}
}

// shuffled runs the pipeline under another node order: the same edits, sites and operators, and the same outputs.
func (c *golden) shuffled(t *testing.T, seed int64, first *passes.Unit) {
	t.Helper()
	u := c.unit(t)
	u.Seed, u.Debug.Shuffle = seed, true
	if err := c.pipeline.Run(t.Context(), u); err != nil {
		t.Errorf("shuffled by %d: %v", seed, err)
		return
	}
	sorted := func(r *passes.Report) []string {
		l := strings.Split(string(reportText(r)), "\n")
		slices.Sort(l)
		return l
	}
	if d := cmp.Diff(sorted(first.Report), sorted(u.Report)); d != "" {
		t.Errorf("shuffled by %d: report (-first +shuffled):\n%s", seed, d)
	}
	if d := cmp.Diff(operators(first.Model), operators(u.Model)); d != "" {
		t.Errorf("shuffled by %d: operators (-first +shuffled):\n%s", seed, d)
	}
	if len(c.samples) > 0 && (c.says["same"] != "" || c.says["lowered"] != "") {
		c.compare(t, fmt.Sprintf("shuffled by %d", seed), "exact", first.Model, u.Model)
	}
}

// operators counts the nodes of each operator.
func operators(m *ir.Model) map[string]int {
	count := map[string]int{}
	for g := range m.Graphs() {
		for n := range g.Nodes() {
			count[n.Op.String()]++
		}
	}
	return count
}

// compare executes two models on the samples and compares their outputs.
func (c *golden) compare(t *testing.T, what, how string, a, b *ir.Model) {
	t.Helper()
	if len(c.samples) == 0 {
		t.Errorf("%s: the case has no samples to run on", what)
		return
	}
	pa, err := runtime.CompileWith(t.Context(), a, runtime.Options{Plain: true})
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	pb, err := runtime.CompileWith(t.Context(), b, runtime.Options{Plain: true})
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	for i, s := range c.samples {
		ya, err := pa.Run(context.Background(), s)
		if err != nil {
			t.Errorf("%s: sample %d: %v", what, i, err)
			return
		}
		yb, err := pb.Run(context.Background(), s)
		if err != nil {
			t.Errorf("%s: sample %d: %v", what, i, err)
			return
		}
		for _, name := range pa.Outputs() {
			if err := equal(how, ya[name], yb[name]); err != nil {
				t.Errorf("%s: sample %d: output %q: %v", what, i, name, err)
			}
		}
	}
}

// equal compares two tensors: exact, or close to 1e-5 of the largest magnitude.
func equal(how string, a, b *ir.Tensor) error {
	if b == nil {
		return fmt.Errorf("is missing")
	}
	if a.Elem() != b.Elem() || !slices.Equal(a.Shape(), b.Shape()) {
		return fmt.Errorf("is %v, wanted %v", b.Type(), a.Type())
	}
	x, ok := a.Float32s()
	y, _ := b.Float32s()
	if !ok {
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			return fmt.Errorf("differs")
		}
		return nil
	}
	tol := 0.0
	switch how {
	case "exact":
	case "close":
		for _, v := range x {
			tol = max(tol, 1e-5*math.Abs(float64(v)))
		}
	default:
		return fmt.Errorf("%q is no tolerance, wanted exact or close", how)
	}
	for i := range x {
		if d := math.Abs(float64(x[i]) - float64(y[i])); d > tol || d != d && math.Float32bits(x[i]) != math.Float32bits(y[i]) {
			return fmt.Errorf("element %d is %v, wanted %v (%s)", i, y[i], x[i], how)
		}
	}
	return nil
}

func text(t *testing.T, m *ir.Model) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := ir.Print(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// reportText prints what a report says without times and measures.
func reportText(r *passes.Report) []byte {
	var b bytes.Buffer
	for _, p := range r.Passes {
		fmt.Fprintf(&b, "%s: %d edits\n", p.Name, p.Edits)
		for _, c := range p.Changed {
			fmt.Fprintf(&b, "%s: %q: %s\n", p.Name, c.Site, c.What)
		}
		for _, s := range p.Skipped {
			fmt.Fprintf(&b, "%s: left %q: %s\n", p.Name, s.Site, s.Reason)
		}
		for _, n := range p.Notes {
			fmt.Fprintf(&b, "%s: note: %s\n", p.Name, n)
		}
	}
	for _, s := range r.Sites {
		fmt.Fprintf(&b, "site %q %s %s %s\n", s.Site, s.Op, s.Role, s.Scheme)
	}
	return b.Bytes()
}

// parseSamples reads lines of a name and a nested list; a blank line ends a sample.
func parseSamples(m *ir.Model, data []byte) ([]ir.Tensors, error) {
	var all []ir.Tensors
	sample := ir.Tensors{}
	flush := func() {
		if len(sample) > 0 {
			all = append(all, sample)
			sample = ir.Tensors{}
		}
	}
	for l := range strings.Lines(string(data)) {
		l = strings.TrimSpace(l)
		if l == "" {
			flush()
			continue
		}
		name, list, _ := strings.Cut(l, " ")
		i := slices.IndexFunc(m.Graph.Inputs(), func(v *ir.Value) bool { return v.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("%q is no input", name)
		}
		t, err := parseTensor(m.Graph.Inputs()[i].Type.Elem, list)
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", name, err)
		}
		sample[name] = t
	}
	flush()
	return all, nil
}

func parseTensor(elem ir.DType, list string) (*ir.Tensor, error) {
	d := json.NewDecoder(strings.NewReader(list))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("text after the list")
	}
	var shape []int
	var flat []float64
	if err := flatten(v, 0, &shape, &flat); err != nil {
		return nil, err
	}
	n, err := ir.Numel(shape)
	if err != nil || n != len(flat) {
		return nil, fmt.Errorf("the list's rows differ in length")
	}
	f := make([]float32, n)
	for i, x := range flat {
		f[i] = float32(x)
	}
	t := ir.Floats(f, shape...)
	if elem == ir.Float32 {
		return t, nil
	}
	g := ir.NewModel(op.Canonical)
	x := g.Graph.AddInput("x", t.Type())
	c := g.Graph.Insert(nil, "cast", ir.Op("Cast"), []*ir.Value{x}, []string{"y"}, ir.IntAttr("to", int64(elem)))
	g.Graph.AddOutput("y", c.Out(0))
	p, err := runtime.Compile(g)
	if err != nil {
		return nil, err
	}
	out, err := p.Run(context.Background(), ir.Tensors{"x": t})
	return out["y"], err
}

func flatten(v any, depth int, shape *[]int, flat *[]float64) error {
	switch x := v.(type) {
	case []any:
		if depth == len(*shape) {
			*shape = append(*shape, len(x))
		}
		for _, e := range x {
			if err := flatten(e, depth+1, shape, flat); err != nil {
				return err
			}
		}
		return nil
	case json.Number:
		f, err := x.Float64()
		*flat = append(*flat, f)
		return err
	case bool:
		b := 0.0
		if x {
			b = 1
		}
		*flat = append(*flat, b)
		return nil
	}
	return fmt.Errorf("found %v, wanted numbers and lists", v)
}
