package passes

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

func scheme(t *testing.T, text string) numfmt.Scheme {
	t.Helper()
	s, err := numfmt.ParseScheme(text, numfmt.Weight)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// grid makes a weightGrid for a rows×cols weight whose rows are outputs.
func grid(t *testing.T, text string, rows, cols int, w []float32, o GPTQOptions) *weightGrid {
	t.Helper()
	s := &gptqSite{
		weight: &Choice{Operand: Operand{Role: numfmt.Weight, Axes: numfmt.Axes{K: 1, Out: 0}}, Scheme: scheme(t, text)},
		view:   weightView{shape: []int{rows, cols}, rows: rows, cols: cols, groups: 1, row: cols, col: 1},
	}
	g, err := newWeightGrid(s, w, o)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// codesOf gives the integers behind rounded values.
func codesOf(t *testing.T, g *weightGrid, q []float32) []int {
	t.Helper()
	out := make([]int, len(q))
	for i, v := range q {
		out[i] = int(math.Round(float64(v / g.params.Scale[g.layout.GroupOf(i)])))
	}
	return out
}

var (
	goldenW = []float32{.62, -.91, .33, 1.75, -1.40, .55, .88, -.16}
	goldenH = []float64{4, 2, 1, 0, 2, 5, 2, 1, 1, 2, 3, 1, 0, 1, 1, 2}
)

// Golden 30 of METHODS.md §16.
func TestGPTQGolden30(t *testing.T) {
	t.Parallel()
	f, err := factorGram(4, goldenH, .01, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantU := [][]float64{
		{.568017649, -.219012865, -.093416809, .153528095}, {0, .523506063, -.310489519, -.104676434}, {0, 0, .627011684, -.30811385}, {0, 0, 0, .700999637},
	}
	for i, row := range wantU {
		for j, want := range row {
			if got := f.lower[j*4+i]; math.Abs(got-want) > 5e-10 {
				t.Errorf("U[%d][%d] = %.9f, want %.9f", i, j, got, want)
			}
		}
	}
	dead := slices.Clone(goldenH)
	for i := range 4 {
		dead[2*4+i], dead[i*4+2] = 0, 0
	}
	for _, c := range []struct {
		name     string
		h        []float64
		actorder bool
		codes    []int
		loss     float64 // 0: not printed
		errors   []float64
	}{
		{"plain", goldenH, false, []int{2, -3, 1, 7, -7, 3, 4, -1}, .05964575, []float64{.096, .0213}},
		{"actorder", goldenH, true, []int{3, -4, 1, 7, -7, 3, 4, -1}, .05563325, []float64{.0885}},
		{"dead", dead, false, []int{2, -3, 0, 7, -7, 3, 0, -1}, 0, nil},
	} {
		g := grid(t, "int4/axis=out", 2, 4, goldenW, GPTQOptions{ActOrder: c.actorder, Stats: "fresh", Grid: "policy"})
		if d := cmp.Diff([]float32{.25, .2}, g.nearest.Scale); d != "" {
			t.Errorf("%s: scales (-want +got):\n%s", c.name, d)
		}
		var order []int
		if c.actorder {
			order = descending(4, c.h)
			if d := cmp.Diff([]int{1, 0, 2, 3}, order); d != "" {
				t.Errorf("order (-want +got):\n%s", d)
			}
		}
		f, err := factorGram(4, c.h, .01, order)
		if err != nil {
			t.Fatal(err)
		}
		r, err := gptqRound(g.weight(goldenW, 0), f)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.codes, codesOf(t, g, r.q)); d != "" {
			t.Errorf("%s: codes (-want +got):\n%s", c.name, d)
		}
		if c.loss != 0 && math.Abs(r.loss-c.loss) > 1e-7 {
			t.Errorf("%s: loss %.8f, want %.8f", c.name, r.loss, c.loss)
		}
		for i, want := range c.errors {
			if got := gramError(1, 4, r.q[i*4:][:4], float64s(goldenW[i*4:][:4]), goldenH); math.Abs(got-want) > 5e-5 {
				t.Errorf("%s: row %d: e·H·eᵀ = %.5f, want %.4f", c.name, i, got, want)
			}
		}
	}
	g := grid(t, "int4/axis=out", 2, 4, goldenW, GPTQOptions{Grid: "policy"})
	near := make([]float32, 8)
	if err := g.scheme.Apply(near, goldenW, g.layout, g.nearest); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{2, -4, 1, 7, -7, 3, 4, -1}, codesOf(t, g, near)); d != "" {
		t.Errorf("rounding to nearest: codes (-want +got):\n%s", d)
	}
	for i, want := range []float64{.2085, .0213} {
		if got := gramError(1, 4, near[i*4:][:4], float64s(goldenW[i*4:][:4]), goldenH); math.Abs(got-want) > 5e-5 {
			t.Errorf("rounding to nearest: row %d: e·H·eᵀ = %.5f, want %.4f", i, got, want)
		}
	}
}

// Golden 31: scales of groups of two columns, fitted to compensated weights or to those the reference sees.
func TestGPTQGolden31(t *testing.T) {
	t.Parallel()
	f, err := factorGram(4, goldenH, .01, nil)
	if err != nil {
		t.Fatal(err)
	}
	for stats, want := range map[string][]float64{
		"fresh": {.13, .250827961, .2, .121477883},
		"stale": {.13, .25, .2, .125714286},
	} {
		g := grid(t, "int4/block=2", 2, 4, goldenW, GPTQOptions{Stats: stats, Grid: "policy"})
		r, err := gptqRound(g.weight(goldenW, 0), f)
		if err != nil {
			t.Fatal(err)
		}
		g.store(r.params, 0)
		for i, w := range want {
			if got := float64(g.params.Scale[i]); math.Abs(got-w) > 2e-8 {
				t.Errorf("%s: scale %d = %.9f, want %.9f", stats, i, got, w)
			}
		}
		if d := cmp.Diff([]int{5, -7, 1, 7, -7, 3, 7, -1}, codesOf(t, g, r.q)); d != "" {
			t.Errorf("%s: codes (-want +got):\n%s", stats, d)
		}
	}
}

// brain is optimal brain surgery as it is written down: after each column its row of the explicit inverse of the remaining
// Gram matrix spreads the error, and the column is eliminated from the inverse.
func brain(rows, k int, w []float32, h []float64, damp float64, order []int, group []int,
	fit func(g, from int, w []float64) numfmt.Params, s numfmt.Scheme) []float32 {
	mean := 0.0
	for i := range k {
		mean += h[i*k+i] / float64(k)
	}
	inv := make([]float64, k*k) // Gauss-Jordan on the damped matrix
	a := slices.Clone(h)
	for i := range k {
		a[i*k+i] += damp * mean
		inv[i*k+i] = 1
	}
	for c := range k {
		p := a[c*k+c]
		for j := range k {
			a[c*k+j] /= p
			inv[c*k+j] /= p
		}
		for r := range k {
			if v := a[r*k+c]; r != c && v != 0 {
				for j := range k {
					a[r*k+j] -= v * a[c*k+j]
					inv[r*k+j] -= v * inv[c*k+j]
				}
			}
		}
	}
	x := make([]float64, rows*k)
	for i, v := range w {
		x[i] = float64(v)
	}
	q := make([]float32, rows*k)
	params := map[int]numfmt.Params{}
	for _, c := range order {
		g := group[c]
		if _, ok := params[g]; !ok {
			params[g] = fit(g, c, x)
		}
		for r := range rows {
			quant, err := s.Quantizer(params[g], r)
			if err != nil {
				panic(err)
			}
			q[r*k+c] = quant.Round(float32(x[r*k+c]))
			e := (x[r*k+c] - float64(q[r*k+c])) / inv[c*k+c]
			for j := range k {
				x[r*k+j] -= e * inv[c*k+j]
			}
		}
		p := inv[c*k+c]
		row := slices.Clone(inv[c*k : c*k+k])
		for i := range k {
			v := inv[i*k+c] / p
			for j := range k {
				inv[i*k+j] -= v * row[j]
			}
		}
	}
	return q
}

// randomLayer makes weights and the Gram matrix of correlated inputs.
func randomLayer(r *rand.Rand, rows, k int) (w []float32, h []float64) {
	w = make([]float32, rows*k)
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	n := k + k/2 + 4
	mix := make([]float64, k)
	for i := range mix {
		mix[i] = math.Exp(r.NormFloat64())
	}
	x := make([]float64, n*k)
	for t := range n {
		common := r.NormFloat64()
		for c := range k {
			x[t*k+c] = mix[c] * (r.NormFloat64() + common)
		}
	}
	h = make([]float64, k*k)
	for t := range n {
		for i := range k {
			for j := range k {
				h[i*k+j] += x[t*k+i] * x[t*k+j]
			}
		}
	}
	return w, h
}

// GPTQ is the explicit elimination, for any grid, order and size, and on any number of cores.
func TestGPTQEqualsElimination(t *testing.T) {
	for _, c := range []struct {
		rows, k  int
		scheme   string
		actorder bool
		stats    string
		grid     string
	}{
		{3, 5, "int4/axis=out", false, "fresh", "policy"},
		{17, 64, "int3/axis=out", true, "fresh", "policy"},
		{256, 256, "int4/axis=out", false, "fresh", "policy"},
		{130, 200, "int4/axis=out/asym", true, "fresh", "policy"},
		{40, 150, "int4/block=32", false, "fresh", "policy"},
		{24, 250, "int4/block=48", false, "fresh", "policy"},  // blocks that 128 is no multiple of
		{24, 250, "int4/block=200", false, "fresh", "policy"}, // longer than 128
		{40, 150, "int4/block=32", true, "fresh", "policy"},
		{40, 150, "int4/block=32", false, "static", "policy"},
		{20, 96, "uint4/block=16", false, "fresh", "policy"},
		{20, 96, "uint4/axis=out", false, "fresh", "shifted"},
		{20, 96, "uint4/block=24", false, "fresh", "shifted"},
		{20, 96, "e2m1/block=16", false, "fresh", "policy"},
		{20, 100, "mxfp4", false, "fresh", "policy"},
		{20, 128, "int4/abfp:64", false, "fresh", "policy"},
		{20, 96, "nf4/block=32", false, "fresh", "policy"},
		{12, 40, "int4", false, "fresh", "policy"},
		{12, 40, "ternary/block=20", false, "fresh", "policy"},
		{12, 40, "int8/axis=1", false, "fresh", "policy"},
		{12, 40, "bf16", false, "fresh", "policy"},
	} {
		t.Run(fmt.Sprintf("%s/%dx%d/%v%s%s", c.scheme, c.rows, c.k, c.actorder, c.stats, c.grid), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(c.rows), uint64(c.k)))
			w, h := randomLayer(r, c.rows, c.k)
			g := grid(t, c.scheme, c.rows, c.k, w, GPTQOptions{ActOrder: c.actorder, Stats: c.stats, Grid: c.grid})
			var order []int
			if c.actorder {
				order = descending(c.k, h)
			}
			f, err := factorGram(c.k, h, .01, order)
			if err != nil {
				t.Fatal(err)
			}
			problem := g.weight(w, 0)
			got, err := gptqRound(problem, f)
			if err != nil {
				t.Fatal(err)
			}
			want := brain(c.rows, c.k, w, h, .01, f.order, problem.group, func(k, from int, x []float64) numfmt.Params {
				if problem.params != nil {
					return problem.params[k]
				}
				n := 0
				for _, i := range problem.group {
					if i == k {
						n++
					}
				}
				v := make([]float32, c.rows*n)
				for row := range c.rows {
					for i := range n {
						v[row*n+i] = float32(x[row*c.k+from+i])
					}
				}
				p, err := problem.fit(0, c.rows, v)
				if err != nil {
					t.Fatal(err)
				}
				return p
			}, g.scheme)
			for i := range want {
				if d := math.Abs(float64(got.q[i]) - float64(want[i])); d > 1e-6*max(1, math.Abs(float64(want[i]))) {
					t.Fatalf("row %d, column %d: %v, want %v", i/c.k, i%c.k, got.q[i], want[i])
				}
			}
			near := make([]float32, len(w))
			if err := g.scheme.Apply(near, w, g.layout, g.nearest); err != nil {
				t.Fatal(err)
			}
			a, b := gramError(c.rows, c.k, got.q, problem.target, h), gramError(c.rows, c.k, near, problem.target, h)
			if told := got.errorOf(f, problem.target); math.Abs(told-a) > 1e-4*a {
				t.Errorf("error by the loss %v, by the Gram matrix %v", told, a)
			}
			if a >= b && c.rows > 3 {
				t.Errorf("error %v, rounding to nearest has %v", a, b)
			}
			g.store(got.params, 0)
			again := make([]float32, len(w))
			if err := g.scheme.Apply(again, got.q, g.layout, g.params); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(again, got.q) && c.scheme != "ternary/block=20" {
				t.Error("the parameters that are recorded do not give the rounded weights back")
			}
			old := par.SetLimit(1)
			alone, err := gptqRound(g.weight(w, 0), f)
			par.SetLimit(old)
			if err != nil || !slices.Equal(alone.q, got.q) || alone.loss != got.loss {
				t.Errorf("other result on one core (%v)", err)
			}
		})
	}
}

// A Gram matrix of one row is singular: damping makes it usable. One that is not positive semidefinite is given up.
func TestFactorGramDamping(t *testing.T) {
	t.Parallel()
	h := []float64{1, 1, 1, 1}
	f, err := factorGram(2, h, .01, nil)
	if err != nil || f.damp != .01 {
		t.Errorf("singular: damp %v, error %v", f, err)
	}
	h = []float64{1, 1.5, 1.5, 1}
	if f, err = factorGram(2, h, .001, nil); err != nil || f.damp != 1 {
		t.Errorf("indefinite: %v, error %v; want damp 1 after three retries", f, err)
	}
	h = []float64{1, 5, 5, 1}
	if _, err = factorGram(2, h, .001, nil); err != errNotDefinite {
		t.Errorf("error %v, want %v", err, errNotDefinite)
	}
	if _, err = factorGram(2, make([]float64, 4), .01, nil); err == nil {
		t.Error("a Gram matrix of zeros was factored")
	}
}

// What shift adds to a target is the ridge regression of w·(z-x) on x: its gradient vanishes, dead columns stay.
func TestShift(t *testing.T) {
	t.Parallel()
	const rows, k, n = 5, 12, 40
	r := rand.New(rand.NewPCG(3, 4))
	x, d, w := make([]float64, n*k), make([]float64, n*k), make([]float32, rows*k)
	for i := range x {
		if x[i], d[i] = r.NormFloat64(), .1*r.NormFloat64(); i%k == 7 {
			x[i] = 0 // dead
		}
	}
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	h, cross := make([]float64, k*k), make([]float64, k*k)
	for i := range n {
		for a := range k {
			for b := range k {
				h[a*k+b] += x[i*k+a] * x[i*k+b]
				cross[a*k+b] += d[i*k+a] * x[i*k+b]
			}
		}
	}
	for _, order := range [][]int{nil, descending(k, h)} {
		f, err := factorGram(k, h, .01, order)
		if err != nil {
			t.Fatal(err)
		}
		got := float64s(w)
		f.shift(rows, got, w, cross, 1)
		for i := range rows {
			for c := range k {
				s := got[i*k+c] - float64(w[i*k+c])
				if c == 7 && s != 0 {
					t.Errorf("row %d: dead column moved by %v", i, s)
				}
				want, have := 0.0, f.damp*f.mean*s
				for j := range k {
					want += float64(w[i*k+j]) * cross[j*k+c]
					have += (got[i*k+j] - float64(w[i*k+j])) * h[j*k+c]
				}
				if math.Abs(want-have) > 1e-9 {
					t.Errorf("order %v: row %d, column %d: s·(H+λ) = %v, want %v", order, i, c, have, want)
				}
			}
		}
	}
}
