package passes_test

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/passes"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	if err := passes.Validate(); err != nil {
		t.Error(err)
	}
}

func TestParsePipeline(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in        []string
		text, err string
	}{
		{in: nil, text: ""},
		{in: []string{"fold", "fakequant measure=4", "lower opset=21"}, text: "fold; fakequant; lower opset=21"},
		{in: []string{"fold; fakequant measure=0 ;; lower format=qdq"}, text: "fold; fakequant measure=0; lower"},
		{in: []string{"smooth"}, err: `passes: "smooth" is no pass, wanted one of inline, fold, `},
		{in: []string{"fold x=1"}, err: `passes: fold: option "x": the pass has no options`},
		{in: []string{"lower", "fakequant"}, err: "passes: fakequant must come before lower: lower turns the FakeQuant nodes that fakequant inserts into operators of ONNX"},
	} {
		p, err := passes.ParsePipeline(c.in...)
		switch {
		case c.err != "":
			if err == nil || !strings.HasPrefix(err.Error(), c.err) {
				t.Errorf("%q: got error %v, want %s", c.in, err, c.err)
			}
			continue
		case err != nil:
			t.Errorf("%q: %v", c.in, err)
			continue
		case p.String() != c.text:
			t.Errorf("%q: normal form %q, want %q", c.in, p, c.text)
		}
		again, err := passes.ParsePipeline(p.Steps()...)
		if err != nil || again.String() != p.String() {
			t.Errorf("%q: normal form reads back as %v, %v", c.in, again, err)
		}
	}
}

func TestPipelineWith(t *testing.T) {
	t.Parallel()
	p, err := passes.ParsePipeline("fold", "lower")
	if err != nil {
		t.Fatal(err)
	}
	q, err := p.With("lower", "opset=21")
	if err != nil || q.String() != "fold; lower opset=21" || p.String() != "fold; lower" {
		t.Errorf("got %v from %v, %v", q, p, err)
	}
	if _, err := p.With("fakequant", "measure=1"); err == nil || !strings.Contains(err.Error(), "has no effect") {
		t.Errorf("an option of a step that is not there: got error %v", err)
	}
}

const three = `<ir_version: 8, opset_import: ["" : 17]>
g (float[N,2] x) => (float[N,2] y)
<float[2,2] "m.layers.0.fc1.weight" = {1, -4, 2, 0.5}, float[2,2,1,1] cw = {1, -4, 2, 0.5}, int64[4] four = {-1, 2, 1, 1}, int64[2] two = {-1, 2}>
{
  ["/m/layers.0/fc1/MatMul"] a = MatMul (x, "m.layers.0.fc1.weight")
  r = Reshape (a, four)
  ["/m/conv/Conv"] c = Conv (r, cw)
  s = Reshape (c, two)
  ["/lm_head/MatMul"] y = MatMul (s, "m.layers.0.fc1.weight")
}`

func model(t *testing.T, src string) *ir.Model {
	t.Helper()
	m, err := ir.Parse(t.Name(), []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	return m
}

func schemes(t *testing.T, weights, inputs string) passes.Schemes {
	t.Helper()
	var s passes.Schemes
	for role, text := range map[numfmt.Role]string{numfmt.Weight: weights, numfmt.Input: inputs} {
		if text == "" {
			continue
		}
		if err := s.Set(role, text); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rules []passes.Rule
		want  [3][2]string // schemes of fc1, conv, lm_head: weight, input
		err   string
	}{
		"default": {want: [3][2]string{{"int8/axis=out", "int8"}, {"int8/axis=out", "int8"}, {"int8/axis=out", "int8"}}},
		"part of a name": {rules: []passes.Rule{{Match: "lm_head", Schemes: schemes(t, "none", "")}},
			want: [3][2]string{{"int8/axis=out", "int8"}, {"int8/axis=out", "int8"}, {"none", "int8"}}},
		"last match wins, operand by operand": {rules: []passes.Rule{
			{Match: "re:MatMul", Schemes: schemes(t, "int4/block=2", "uint8")}, {Match: "layers.0/*", Schemes: schemes(t, "", "none")}},
			want: [3][2]string{{"int4/block=2", "none"}, {"int8/axis=out", "int8"}, {"int4/block=2", "uint8"}}},
		"operator": {rules: []passes.Rule{{Op: "Conv", Schemes: schemes(t, "uint8", "")}},
			want: [3][2]string{{"int8/axis=out", "int8"}, {"uint8", "int8"}, {"int8/axis=out", "int8"}}},
		"weight's name": {rules: []passes.Rule{{Match: "m.layers.0.fc1.weight", Op: "MatMul", Schemes: schemes(t, "int16", "")}},
			want: [3][2]string{{"int16", "int8"}, {"int8/axis=out", "int8"}, {"int16", "int8"}}},
		"nothing by name": {rules: []passes.Rule{{Match: "fc2", Schemes: schemes(t, "uint8", ""), Where: "r.yaml:3"}},
			err: `policy: r.yaml:3: {match: "fc2"} matches no site; the nearest are "/m/layers.0/fc1/MatMul", "/m/conv/Conv", "/lm_head/MatMul"`},
		"nothing by operator": {rules: []passes.Rule{{Op: "Gemm", Schemes: schemes(t, "uint8", "")}},
			err: "policy: {op: Gemm} matches no site; sites have the operators Conv, MatMul"},
		"bad expression": {rules: []passes.Rule{{Match: "re:(", Schemes: schemes(t, "uint8", "")}}, err: "missing closing )"},
		"axis out of range": {rules: []passes.Rule{{Op: "MatMul", Schemes: schemes(t, "int8/axis=2", "")}},
			err: `policy: site "/m/layers.0/fc1/MatMul": weight: value "m.layers.0.fc1.weight": scheme int8/axis=2 on shape [2 2]: axis 2 is out of range for rank 2`},
		"no output axis": {rules: []passes.Rule{{Op: "Conv", Schemes: schemes(t, "", "int8/axis=out")}}, err: "axis is missing"},
		"static tokens":  {rules: []passes.Rule{{Op: "Conv", Schemes: schemes(t, "", "int8/token/static")}}, err: "use dynamic"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &passes.Policy{Default: schemes(t, "int8/axis=out", "int8"), Sites: c.rules}
			ds, err := p.Decide(passes.FindSites(model(t, three)))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got error %v, want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got [3][2]string
			for i, d := range ds {
				for k := range 2 {
					got[i][k] = d.Choices[k].Scheme.Text(d.Choices[k].Role)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("schemes (-want +got):\n%s", d)
			}
		})
	}
}

func TestLookupTables(t *testing.T) {
	t.Parallel()
	const src = `<ir_version: 8, opset_import: ["" : 17]>
g (int64[N] i) => (float[N,2] y) <float[4,2] table = {1, 2, 3, 4, 5, 6, 7, 8}> { [embed] y = Gather (table, i) }`
	for _, c := range []struct{ weights, lookup, want string }{
		{"int8/axis=out", "", "int8/axis=out"},
		{"int4/block=2", "", "none"},
		{"int4/block=2", "int4/block=2", "int4/block=2"},
		{"int8/axis=out", "none", "none"},
	} {
		p := &passes.Policy{Default: schemes(t, c.weights, ""), Lookup: schemes(t, c.lookup, "")}
		ds, err := p.Decide(passes.FindSites(model(t, src)))
		if err != nil {
			t.Fatal(err)
		}
		if got := ds[0].Choices[0].Scheme.Text(numfmt.Weight); got != c.want {
			t.Errorf("default %s, lookup %q: got %s, want %s", c.weights, c.lookup, got, c.want)
		}
	}
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	m := model(t, three)
	p, err := passes.ParsePipeline("fold", "fakequant", "lower")
	if err != nil {
		t.Fatal(err)
	}
	u := &passes.Unit{Model: m, Policy: &passes.Policy{Default: schemes(t, "int8/axis=out", "int8")}, DryRun: true}
	if err := p.Run(t.Context(), u); err != nil { // no samples are needed
		t.Fatal(err)
	}
	if len(u.Report.Sites) != 6 {
		t.Errorf("%d operands are planned, wanted 6", len(u.Report.Sites))
	}
	if err := ir.Equal(model(t, three), m); err != nil {
		t.Errorf("the dry run changed the model: %v", err)
	}
}

func TestReportJSON(t *testing.T) {
	t.Parallel()
	r := &passes.Report{Tool: "qsimc", Passes: []*passes.PassEntry{{Name: "fold", Edits: 2}},
		Sites: []passes.SiteEntry{{Site: "a", Node: "a", Op: "MatMul", Role: "weight", Scheme: "int8", Amax: 2, ClipFraction: 0,
			ZeroFraction: passes.NotMeasured, SQNR: passes.Measure(math.Inf(1)), Bits: 8.5}}}
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(b.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"tool": "qsimc", "version": "", "model": "", "recipe": "", "seconds": 0.0, "peak_rss_bytes": 0.0, "bytes_before": 0.0, "bytes_after": 0.0,
		"passes": []any{map[string]any{"name": "fold", "options": "", "seconds": 0.0, "edits": 2.0, "skipped": []any{}}},
		"sites": []any{map[string]any{"site": "a", "node": "a", "op": "MatMul", "role": "weight", "scheme": "int8", "amax": 2.0,
			"clip_fraction": 0.0, "zero_fraction": nil, "sqnr_db": 999.0, "bits_per_value": 8.5}},
		"outputs": []any{},
	}
	if d := cmp.Diff(want, doc); d != "" {
		t.Errorf("report (-want +got):\n%s", d)
	}
	var table bytes.Buffer
	if err := r.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(table.String(), "a     MatMul  weight  int8") {
		t.Errorf("the table lacks the site:\n%s", &table)
	}
}
