package sweep

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/passes/recipe"
)

// Plan is a sweep expanded to its cells.
type Plan struct {
	Title   string      `json:"title"`
	Version string      `json:"version"` // of qsimc
	Cells   []Cell      `json:"cells"`
	Tables  []TableSpec `json:"tables"`
	Claims  []ClaimSpec `json:"claims"`
}

// Cell is one run: a recipe on a model, measured on a data set.
type Cell struct {
	Model  string `json:"model"`
	Data   string `json:"data"`
	Recipe string `json:"recipe"`
	Key    string `json:"key"` // hash of model, data, samples, recipe, seed and version: the name of the result's file

	job job
}

// job is what running a cell takes.
type job struct {
	model   string
	hash    string // of model, samples and seed: what statistics of the float model depend on
	data    frontend.DataOptions
	path    string // of the data
	metric  string
	recipe  *recipe.Recipe
	err     error   // the recipe's
	samples *Source // nil: none
	seed    int64
}

// PlanOptions are what beside the file goes into the cells.
type PlanOptions struct {
	Version string // of the program: results of another one are other cells
	Seed    int64
}

// Plan expands the sweep: models in order, their data sets, and the recipes for each. It reads every file once, for its hash.
func (s *Spec) Plan(o PlanOptions) (*Plan, error) {
	recipes, err := s.recipes()
	if err != nil {
		return nil, err
	}
	p := &Plan{Title: s.Title, Version: o.Version, Tables: s.Tables, Claims: s.Claims}
	h := hasher{}
	for _, m := range s.Models {
		file := s.path(m.Path)
		model, err := h.model(file)
		if err != nil {
			return nil, fmt.Errorf("model %q: %w", m.Name, err)
		}
		var samples *Source
		calib := "none"
		if m.Samples.Path != "" {
			resolved := s.resolved(m.Samples)
			if calib, err = h.source(resolved); err != nil {
				return nil, fmt.Errorf("model %q: samples: %w", m.Name, err)
			}
			samples = &resolved
		}
		for _, name := range m.Data {
			d := s.data(name)
			src := s.resolved(d.Source)
			data, err := h.source(src)
			if err != nil {
				return nil, fmt.Errorf("data %q: %w", name, err)
			}
			for _, r := range recipes {
				if len(r.models) > 0 && !slices.Contains(r.models, m.Name) {
					continue
				}
				used := calib
				if r.name == Float {
					used = "none"
				}
				c := Cell{Model: m.Name, Data: name, Recipe: r.name, job: job{
					model: file, hash: digest(model, calib, fmt.Sprint(o.Seed)), path: src.Path, metric: d.Metric, recipe: r.recipe, err: r.err, samples: samples, seed: o.Seed}}
				c.job.data = src.options(o.Seed)
				c.job.data.Batch, c.job.data.Extra = d.Batch, true
				c.Key = digest("cell 1", o.Version, model, data, d.Metric, fmt.Sprint(d.Batch), used, r.recipe.String(), fmt.Sprint(r.err), fmt.Sprint(o.Seed))
				p.Cells = append(p.Cells, c)
			}
		}
	}
	return p, nil
}

// resolved returns the source with its paths resolved.
func (s *Spec) resolved(src Source) Source {
	if src.Path != frontend.Synthetic {
		src.Path = s.path(src.Path)
	}
	src.Tokenizer, src.Labels = s.path(src.Tokenizer), s.path(src.Labels)
	return src
}

func (s Source) options(seed int64) frontend.DataOptions {
	return frontend.DataOptions{Count: s.Count, Seed: uint64(seed), Tokenizer: s.Tokenizer, SeqLen: s.SeqLen, Preprocess: s.Preprocess, Labels: s.Labels}
}

// digest hashes texts, each with its length before it.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// hasher hashes files, each once.
type hasher map[string]string

func (h hasher) file(path string) (string, error) {
	if sum, ok := h[path]; ok {
		return sum, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	s := sha256.New()
	if _, err := io.Copy(s, f); err != nil {
		return "", err
	}
	h[path] = hex.EncodeToString(s.Sum(nil))
	return h[path], nil
}

// model hashes a model's file and those files beside it that it names: its external data.
func (h hasher) model(path string) (string, error) {
	sum, err := h.file(path)
	if err != nil {
		return "", err
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || e.Name() == filepath.Base(path) || !bytes.Contains(data, []byte(e.Name())) {
			continue
		}
		part, err := h.file(filepath.Join(filepath.Dir(path), e.Name()))
		if err != nil {
			return "", err
		}
		sum = digest(sum, e.Name(), part)
	}
	return sum, nil
}

// source hashes samples: the contents of the files and how they are read.
func (h hasher) source(s Source) (string, error) {
	parts := []string{fmt.Sprint(s.Count), fmt.Sprint(s.SeqLen), s.Preprocess}
	for _, path := range []string{s.Path, s.Tokenizer, s.Labels} {
		switch {
		case path == "" || path == frontend.Synthetic:
			parts = append(parts, path)
		case isDir(path):
			sum, err := h.folder(path)
			if err != nil {
				return "", err
			}
			parts = append(parts, sum)
		default:
			sum, err := h.file(path)
			if err != nil {
				return "", err
			}
			parts = append(parts, sum)
		}
	}
	return digest(parts...), nil
}

// folder hashes the names and contents of all files below, in the order of their names.
func (h hasher) folder(dir string) (string, error) {
	var parts []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		sum, err := h.file(path)
		rel, _ := filepath.Rel(dir, path)
		parts = append(parts, filepath.ToSlash(rel), sum)
		return err
	})
	return digest(parts...), err
}

// Shard returns which cells, by index, belong to part i of n, i from 1: every n-th, so that each part has some of every model.
func (p *Plan) Shard(i, n int) []int {
	var out []int
	for k := range p.Cells {
		if k%n == i-1 {
			out = append(out, k)
		}
	}
	return out
}

// ParseShard reads "2/3".
func ParseShard(text string) (i, n int, err error) {
	if _, err := fmt.Sscanf(text, "%d/%d", &i, &n); err != nil || fmt.Sprintf("%d/%d", i, n) != text || i < 1 || n < i {
		return 0, 0, fmt.Errorf("shard %q: wanted i/n with i from 1 to n", text)
	}
	return i, n, nil
}

// ShardFromEnv finds the part that a cluster's scheduler has given this process: Slurm's job arrays (SLURM_ARRAY_TASK_ID with
// _COUNT, _MIN and _STEP) and Kubernetes' indexed jobs (JOB_COMPLETION_INDEX; their number, which Kubernetes does not tell, in
// JOB_COMPLETIONS). "" if there is none.
func ShardFromEnv(env func(string) string) (string, error) {
	number := func(name string, otherwise int) (int, error) {
		text := env(name)
		if text == "" {
			return otherwise, nil
		}
		var n int
		if _, err := fmt.Sscanf(text, "%d", &n); err != nil || fmt.Sprint(n) != text {
			return 0, fmt.Errorf("environment: %s is %q, wanted a number", name, text)
		}
		return n, nil
	}
	slurm := env("SLURM_ARRAY_TASK_ID") != ""
	if !slurm && env("JOB_COMPLETION_INDEX") == "" {
		return "", nil
	}
	names := []string{"JOB_COMPLETION_INDEX", "JOB_COMPLETIONS", "", ""}
	if slurm {
		names = []string{"SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"}
	}
	id, err1 := number(names[0], 0)
	count, err2 := number(names[1], 0)
	first, step := 0, 1
	var err3, err4 error
	if slurm {
		first, err3 = number(names[2], 0)
		step, err4 = number(names[3], 1)
	}
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return "", err
	}
	if count == 0 {
		return "", fmt.Errorf("environment: %s is set but not %s: give --shard i/n", names[0], names[1])
	}
	text := fmt.Sprintf("%d/%d", (id-first)/max(step, 1)+1, count)
	if _, _, err := ParseShard(text); err != nil {
		return "", fmt.Errorf("environment: %s %d of %d from %d on: %w", names[0], id, count, first, err)
	}
	return text, nil
}

const planFile = "plan.json"

// save writes the plan beside the results, for merge.
func (p *Plan) save(dir string) error {
	data, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, planFile), append(data, '\n'))
}

// LoadPlan reads the plan that a sweep has written to its folder. It can collect results, not run cells.
func LoadPlan(dir string) (*Plan, error) {
	data, err := os.ReadFile(filepath.Join(dir, planFile))
	if err != nil {
		return nil, fmt.Errorf("%s is not the folder of a sweep: %w", dir, err)
	}
	p := &Plan{}
	if err := json.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, planFile), err)
	}
	return p, nil
}

// writeFile writes a file under a temporary name and renames it.
func writeFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".qsimc-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Merge gathers the cells that the folders hold into dir, which becomes the folder of the same sweep. The folders must be of
// the same plan.
func Merge(dir string, from []string) (*Plan, error) {
	var plan *Plan
	var first []byte
	for _, d := range from {
		p, err := LoadPlan(d)
		if err != nil {
			return nil, err
		}
		text, err := os.ReadFile(filepath.Join(d, planFile))
		if err != nil {
			return nil, err
		}
		if plan == nil {
			plan, first = p, text
		} else if !bytes.Equal(first, text) {
			return nil, fmt.Errorf("%s and %s are of different sweeps, or of different versions of files or program: their plans differ", from[0], d)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, cellFolder), 0o755); err != nil {
		return nil, err
	}
	for _, d := range from {
		for _, c := range plan.Cells {
			data, err := os.ReadFile(c.file(d))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if err := writeFile(c.file(dir), data); err != nil {
				return nil, err
			}
		}
	}
	return plan, plan.save(dir)
}

// Broken returns the errors of recipes whose cells will fail, each once.
func (p *Plan) Broken() []error {
	var out []error
	seen := map[string]bool{}
	for _, c := range p.Cells {
		if c.job.err != nil && !seen[c.Recipe] {
			seen[c.Recipe] = true
			out = append(out, c.job.err)
		}
	}
	return out
}

// List prints the cells, one a line: what --dry-run shows.
func (p *Plan) List(w io.Writer, dir string) error {
	for _, c := range p.Cells {
		state := "to do"
		if _, err := os.Stat(c.file(dir)); dir != "" && err == nil {
			state = "done"
		}
		steps := strings.Join(c.job.recipe.Passes, "; ")
		if c.job.err != nil {
			steps = firstLine("will fail: " + c.job.err.Error())
		}
		if _, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", c.Key[:12], c.Model, c.Data, c.Recipe, state, steps); err != nil {
			return err
		}
	}
	return nil
}
