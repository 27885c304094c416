package sweep

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func db(v float64) *float64 { return &v }

func sample() *Results {
	return &Results{Rows: []Row{
		{Model: "m", Data: "d", Recipe: Float, Done: true, Value: 20, BitsPerWeight: 32, Bytes: 400},
		{Model: "m", Data: "d", Recipe: "a-1", Done: true, Value: 25, BitsPerWeight: 4, Bytes: 50, sites: []Site{
			{Name: "s", Role: "weight", SQNR: db(99)}, {Name: "s", Role: "input", SQNR: db(30)}, {Name: "t", Role: "input", SQNR: db(20)}, {Name: "t", Role: "input"}}},
		{Model: "m", Data: "d", Recipe: "b", Done: true, Value: 30, sites: []Site{
			{Name: "s", Role: "input", SQNR: db(24)}, {Name: "t", Role: "input", SQNR: db(19)}, {Name: "t", Role: "input", SQNR: db(9)}}},
		{Model: "m", Data: "e", Recipe: Float, Done: true, Value: 40},
		{Model: "m", Data: "e", Recipe: "b", Error: "went wrong"},
		{Model: "n", Data: "d", Recipe: Float},
	}}
}

func TestExpressions(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{
		"1 + 2 * 3 - 4 / 2":                   5,
		"(1+2)*3":                             9,
		"value(m, a-1)":                       25,
		"value(m/e, float)":                   40,
		"rise(m, a-1)":                        0.25,
		"drop(m, a-1)":                        -0.25,
		"3 * rise(m,b) - 0.5":                 1,
		"sqnr(m, a-1)":                        25,
		"gap(m, a-1, b)":                      1,
		"bits(m, a-1) + bytes(m, a-1)":        54,
		"min(value(m, a-1), value(m, b), 27)": 25,
		"max(1, 2) / 4":                       0.5,
	} {
		e, err := parseExpr(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := e(sample()); err != nil || math.Abs(got-want) > 1e-12 {
			t.Errorf("%s = %v (%v), want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                 "wanted a number",
		"1 +":              "wanted a number",
		"1 2":              `unexpected "2"`,
		"(1":               "wanted )",
		"mean(m, b)":       `function "mean" is unknown`,
		"value(m)":         "wanted 2 names",
		"value(m, b":       "wanted 2 names",
		"value(m, c)":      "no cell of c on m",
		"value(m/e, b)":    "b on m/e failed: went wrong",
		"value(n, float)":  "float on n has not run",
		"sqnr(m, float)":   "no input's error",
		"gap(m, float, b)": "no input in common",
		"1.2.3":            "no number",
	} {
		e, err := parseExpr(text)
		if err == nil {
			_, err = e(sample())
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want one with %q", text, err, want)
		}
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		check CheckSpec
		want  string
	}{
		{CheckSpec{Left: "1", Relation: "<", Right: "2"}, "holds"},
		{CheckSpec{Left: "2", Relation: "<", Right: "2"}, "does not hold"},
		{CheckSpec{Left: "2", Relation: "<=", Right: "2"}, "holds"},
		{CheckSpec{Left: "1", Relation: ">=", Right: "2"}, "does not hold"},
		{CheckSpec{Left: "3", Relation: ">", Right: "2"}, "holds"},
		{CheckSpec{Left: "101", Relation: "==", Right: "100", Within: 0.01}, "holds"},
		{CheckSpec{Left: "102", Relation: "==", Right: "100", Within: 0.01}, "does not hold"},
		{CheckSpec{Left: "1/0", Relation: "<", Right: "2"}, "not decided"},
		{CheckSpec{Left: "value(n, float)", Relation: "<", Right: "2"}, "not decided"},
	} {
		v := sample().decide(ClaimSpec{}, tc.check)
		if got := v.Text(); got != tc.want || (got == "not decided") != (v.Why != "") {
			t.Errorf("%+v: %s (%s), want %s", tc.check, got, v.Why, tc.want)
		}
	}
}

func TestFrontier(t *testing.T) {
	t.Parallel()
	points := func(metric string) []*Row {
		return []*Row{{Recipe: "a", Metric: metric, Value: 3, Bytes: 1}, {Recipe: "b", Metric: metric, Value: 2, Bytes: 2}, {Recipe: "c", Metric: metric, Value: 4, Bytes: 3},
			{Recipe: "d", Metric: metric, Value: 1, Bytes: 4}, {Recipe: "e", Metric: metric, Value: 1, Bytes: 5}}
	}
	for metric, want := range map[string]string{"ppl": "abd", "top1": "ac"} {
		got := ""
		for _, r := range frontier(points(metric), func(r *Row) float64 { return float64(r.Bytes) }) {
			got += r.Recipe
		}
		if got != want {
			t.Errorf("%s: %s, want %s", metric, got, want)
		}
	}
}

func TestShardFromEnv(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		env       map[string]string
		want, err string
	}{
		{nil, "", ""},
		{map[string]string{"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "0"}, "1/4", ""},
		{map[string]string{"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_STEP": "2"}, "3/3", ""},
		{map[string]string{"JOB_COMPLETION_INDEX": "2", "JOB_COMPLETIONS": "3"}, "3/3", ""},
		{map[string]string{"JOB_COMPLETION_INDEX": "2"}, "", "not JOB_COMPLETIONS"},
		{map[string]string{"JOB_COMPLETION_INDEX": "3", "JOB_COMPLETIONS": "3"}, "", "from 1 to n"},
		{map[string]string{"SLURM_ARRAY_TASK_ID": "x"}, "", "wanted a number"},
	} {
		got, err := ShardFromEnv(func(name string) string { return tc.env[name] })
		if got != tc.want || (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%v: %q, %v; want %q, %q", tc.env, got, err, tc.want, tc.err)
		}
	}
}

// The parts are disjoint and together the whole.
func TestShards(t *testing.T) {
	t.Parallel()
	p := &Plan{Cells: make([]Cell, 10)}
	seen := map[int]int{}
	for i := 1; i <= 3; i++ {
		for _, k := range p.Shard(i, 3) {
			seen[k]++
		}
	}
	for k := range p.Cells {
		if seen[k] != 1 {
			t.Errorf("cell %d is in %d parts", k, seen[k])
		}
	}
}

func TestSpec(t *testing.T) {
	t.Parallel()
	const head = "data: [{name: d, path: d.npy}]\nmodels: [{name: m, path: m.onnx, data: [d]}]\n"
	read := func(text string) (*Spec, error) {
		file := filepath.Join(t.TempDir(), "s.yaml")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return ReadSpec(file)
	}
	s, err := read(head + `recipes:
  - name: ${f}-n${n}-a${alpha}
    grid: {f: [int4, e2m1], n: [16, 32], alpha: 0.5}
    recipe: {policy: {default: {weights: "${f}/block=${n}"}}, passes: ["fold", "fakequant"]}
`)
	if err != nil {
		t.Fatal(err)
	}
	recipes, err := s.recipes()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range recipes {
		names = append(names, r.name)
	}
	if diff := cmp.Diff([]string{"float", "int4-n16-a0.5", "int4-n32-a0.5", "e2m1-n16-a0.5", "e2m1-n32-a0.5"}, names); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if text := recipes[4].recipe.String(); !strings.Contains(text, "e2m1/block=32") {
		t.Errorf("the last recipe is\n%s", text)
	}
	for text, want := range map[string]string{
		"models: []": "there are no models",
		"data: [{name: d, path: d}]\nmodels: [{name: m, path: m, data: [e]}]":           `there is no data "e"`,
		head + "recipes: [{name: a}, {name: a}]":                                        `recipe "a": listed twice`,
		head + "recipes: [{name: float}]":                                               "every sweep has",
		head + "recipes: [{name: a, models: [x]}]":                                      `there is no model "x"`,
		head + "recipes: [{name: a b}]":                                                 "a name is letters",
		head + "tables: [{title: t, rows: [m], columns: [{head: h, recipe: x}]}]":       `recipe "x" is unknown`,
		head + "tables: [{title: t, rows: [x]}]":                                        `row "x" is no model`,
		head + `claims: [{name: c, checks: [{left: "1", relation: "=", right: "1"}]}]`:  `relation "="`,
		head + `claims: [{name: c, checks: [{left: "f(", relation: "<", right: "1"}]}]`: "is unknown",
		"datas: []": "unknown field",
	} {
		if _, err := read(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want one with %q", text, err, want)
		}
	}
}

// A recipe that is none does not keep the others from running.
func TestBrokenRecipes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"{passes: [nothing]}":        `"nothing" is no pass`,
		"{samples: {path: x.npy}}":   "samples are given with the models",
		"{preset: w9}":               `preset "w9" is unknown`,
		"{policy: {defaults: int4}}": "defaults",
	} {
		file := filepath.Join(t.TempDir(), "s.yaml")
		text = "data: [{name: d, path: s.yaml}]\nmodels: [{name: m, path: s.yaml, data: [d]}]\nrecipes: [{name: a, recipe: " + text + "}]\n"
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := ReadSpec(file)
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Plan(PlanOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if b := p.Broken(); len(p.Cells) != 2 || len(b) != 1 || !strings.Contains(b[0].Error(), want) {
			t.Errorf("%s: %d cells, errors %v; want 2 and one with %q", text, len(p.Cells), b, want)
		}
	}
}

// A cell's key follows what goes into it.
func TestKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("m.onnx", "model weights.bin")
	write("weights.bin", "1")
	write("d.npy", "data")
	write("c.npy", "calibration")
	keys := func(version, yaml string) []string {
		write("s.yaml", yaml)
		s, err := ReadSpec(filepath.Join(dir, "s.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Plan(PlanOptions{Version: version})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, c := range p.Cells {
			out = append(out, c.Key)
		}
		return out
	}
	const text = `
data: [{name: d, path: d.npy, count: 3}]
models: [{name: m, path: m.onnx, data: [d], samples: {path: c.npy}}]
recipes: [{name: r, recipe: {preset: w8a8}}]
`
	want := keys("1", text)
	if len(want) != 2 || want[0] == want[1] {
		t.Fatalf("keys %v", want)
	}
	if got := keys("1", strings.ReplaceAll(text, "name: m", "name: other")); !cmp.Equal(got, want) {
		t.Error("names are in the keys")
	}
	if got := keys("1", strings.ReplaceAll(text, "w8a8", "w8")); got[0] != want[0] || got[1] == want[1] {
		t.Error("the recipe is not in its key alone")
	}
	for what, change := range map[string]func() []string{
		"version": func() []string { return keys("2", text) },
		"count":   func() []string { return keys("1", strings.ReplaceAll(text, "count: 3", "count: 4")) },
		"weights": func() []string { write("weights.bin", "2"); return keys("1", text) },
		"data":    func() []string { write("d.npy", "other"); return keys("1", text) },
	} {
		if got := change(); got[0] == want[0] || got[1] == want[1] {
			t.Errorf("%s is not in the keys", what)
		}
		write("weights.bin", "1")
		write("d.npy", "data")
	}
	write("c.npy", "other")
	if got := keys("1", text); got[0] != want[0] || got[1] == want[1] {
		t.Error("the samples are not in the keys of what calibrates alone")
	}
}
