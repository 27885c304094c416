package report_test

import (
	"bytes"
	"context"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/qsimc/qsimc/cmd/qsimc/report"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/passes/recipe"
)

const modelText = `<ir_version: 10, opset_import: ["" : 21]>
mlp (float[N,4] x) => (float[N,2] y)
<float[4,4] w1 = {1, 0.5, -1, 0.25, 0.5, -0.5, 0.25, 1, 3, 1, 2, -0.3, 0.1, 0.2, -0.7, 0.9}, float[4,2] w2 = {1, -0.5, 0.75, 0.3, 0.2, -2, 0.1, 0.6}>
{
  [first] h = MatMul (x, w1)
  r = Relu (h)
  [second] y = MatMul (r, w2)
}
`

// rewriteReport quantizes a small model and returns what the command's report is made of.
func rewriteReport(t *testing.T) (*passes.Report, *ir.Model) {
	t.Helper()
	m, err := ir.Parse("mlp.onnxtxt", []byte(modelText))
	if err != nil {
		t.Fatal(err)
	}
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	r, err := recipe.Parse("r.yaml", []byte("policy: {default: {weights: int4/axis=out, inputs: int8}, calibrate: mse-exact, sites: [{match: second, weights: nf4/block=2, inputs: fp16}]}"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := passes.ParsePipeline("fold; fakequant")
	if err != nil {
		t.Fatal(err)
	}
	u := &passes.Unit{Model: m, Policy: &r.Policy, Profile: true, Report: &passes.Report{Tool: "qsimc", Model: "mlp/model.onnx", Recipe: r.String(), BytesBefore: 900, BytesAfter: 700},
		Samples: func() iter.Seq2[ir.Tensors, error] {
			return func(yield func(ir.Tensors, error) bool) {
				yield(ir.Tensors{"x": ir.Floats([]float32{1, 2, -3, 40, 0, 0.5, 1, -4, 2, 2, 2, 2}, 3, 4)}, nil)
			}
		}}
	if err := p.Run(context.Background(), u); err != nil {
		t.Fatal(err)
	}
	u.Report.Outputs = []passes.OutputEntry{{Name: "y", SQNR: 21.5, Cosine: 0.99, MaxDiff: 0.25}}
	return u.Report, u.Model
}

// browserCheck is appended to the page: it sorts the table of sites both ways by SQNR, filters it, turns the lights off, and
// leaves "ok" or what went wrong on the root element.
const browserCheck = `<script>
try {
  const t = document.getElementById("sites"), head = [...t.tHead.rows[0].cells].findIndex(c => c.textContent.startsWith("SQNR"));
  const column = () => [...t.tBodies[0].rows].map(r => parseFloat(r.cells[head].dataset.v));
  const click = () => t.tHead.rows[0].cells[head].querySelector("button").click();
  const check = (ok, what) => { if (!ok) throw new Error(what + ": " + column()); };
  check(t.tBodies[0].rows.length === 4, "four operands are quantized");
  click(); check(column().every((v, i, a) => i === 0 || a[i - 1] >= v), "largest first");
  click(); check(column().every((v, i, a) => i === 0 || a[i - 1] <= v), "smallest first");
  const filter = document.querySelector("input.filter"); filter.value = "second"; filter.dispatchEvent(new Event("input"));
  check([...t.tBodies[0].rows].filter(r => !r.hidden).length === 2, "the filter leaves two rows");
  document.getElementById("theme").click();
  check(document.documentElement.dataset.theme !== undefined, "the theme switches");
  check(document.querySelectorAll(".card svg .hist").length === 4, "four histograms");
  check(document.documentElement.scrollWidth <= innerWidth, "the page is wider than the window");
  check(performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length === 0, "nothing is fetched");
  problems.length || (document.documentElement.dataset.check = "ok");
} catch (e) { problems.push(String(e)); }
if (problems.length) document.documentElement.dataset.check = problems.join("; ");
</script>`

// browserWatch comes first on the page and gathers errors.
const browserWatch = `<script>const problems = [];
addEventListener("error", e => problems.push(String(e.message || e.target)), true);
addEventListener("unhandledrejection", e => problems.push(String(e.reason)));
console.error = (...a) => problems.push(a.join(" "));</script>`

// TestBrowser loads the report in Chromium, at the width of a desk and of a telephone, and uses it as a reader would.
func TestBrowser(t *testing.T) {
	t.Parallel()
	chromium := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			chromium = path
			break
		}
	}
	if chromium == "" {
		t.Skip("no chromium on this machine: the HTML report is not looked at (make report-check wants it)")
	}
	r, m := rewriteReport(t)
	var page bytes.Buffer
	if err := report.Rewrite(r, report.Sizes(m, 900), report.Sizes(m, 700)).Write(&page); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(page.String(), "<head>", "<head>"+browserWatch, 1)
	text = strings.Replace(text, "</body>", browserCheck+"</body>", 1)
	file := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, size := range []string{"1280,900", "400,800"} {
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
		defer cancel()
		c := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
			"--disable-dev-shm-usage", "--no-first-run", "--enable-logging=stderr", "--user-data-dir="+t.TempDir(), "--window-size="+size, "--dump-dom", "file://"+file)
		var stderr bytes.Buffer
		c.Stderr = &stderr
		c.WaitDelay = 5 * time.Second
		dom, err := c.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", chromium, err, stderr.String())
		}
		_, rest, _ := strings.Cut(string(dom), `data-check="`)
		if got, _, _ := strings.Cut(rest, `"`); got != "ok" {
			t.Errorf("at %s the page says %q, want ok", size, got)
		}
		for line := range strings.Lines(stderr.String()) {
			if strings.Contains(line, "CONSOLE") {
				t.Errorf("at %s on the console: %s", size, line)
			}
		}
	}
}

func TestRewrite(t *testing.T) {
	t.Parallel()
	r, m := rewriteReport(t)
	var page bytes.Buffer
	if err := report.Rewrite(r, report.Sizes(m, 900), report.Sizes(m, 700)).Write(&page); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<h1>mlp/model.onnx</h1>", "2 of 2", "float parameters", "channel 3 of 4 reaches", "nf4/block=2", `class="levels"`, "21.50", "clipped"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, never := range []string{"http://", "https://", ">NaN", " NaN", "%!", "+Inf", "ZgotmplZ"} {
		if strings.Contains(page.String(), never) {
			t.Errorf("the page has %q", never)
		}
	}
}
