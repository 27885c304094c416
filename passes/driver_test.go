package passes

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// The driver's own behaviour is tested from inside: its pipelines hold passes that are not in All.

func tiny(t *testing.T) *ir.Model {
	t.Helper()
	m, err := ir.Parse("tiny", []byte(`<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { h = Neg (x) y = Relu (h) }`))
	if err != nil {
		t.Fatal(err)
	}
	if err := op.Infer(m); err != nil {
		t.Fatal(err)
	}
	return m
}

type testOptions struct {
	Alpha float64 `opt:"alpha" doc:"a number"`
	Mode  string  `opt:"mode" enum:"a|b" doc:"a word"`
	Count int     `doc:"an integer"`
	On    bool    `doc:"a switch"`
}

func pipelineOf(t *testing.T, run func(context.Context, *Unit, testOptions) error, args ...arg) *Pipeline {
	t.Helper()
	p := Define("test", "a pass for tests", testOptions{Alpha: .5, Mode: "a"}, run)
	c, err := p.parse(args)
	if err != nil {
		t.Fatal(err)
	}
	return &Pipeline{[]pipelineStep{{p, c}}}
}

func TestPanicNamesPassAndSite(t *testing.T) {
	t.Parallel()
	p := pipelineOf(t, func(_ context.Context, u *Unit, _ testOptions) error {
		u.at("/h.3/fc1")
		panic("out of luck")
	})
	m := tiny(t)
	err := p.Run(t.Context(), &Unit{Model: m})
	if want := `test: panic at site "/h.3/fc1": out of luck`; err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
}

func TestBrokenModelIsPutBackAndReproduced(t *testing.T) {
	t.Parallel()
	p := pipelineOf(t, func(_ context.Context, u *Unit, _ testOptions) error {
		for n := range u.Model.Nodes() {
			n.TrimIns(0) // breaks the arity of Neg
			return nil
		}
		return nil
	})
	var repro bytes.Buffer
	u := &Unit{Model: tiny(t)}
	u.Debug.Repro = func(r Repro) error { return r.Write(&repro) }
	err := p.Run(t.Context(), u)
	if err == nil || !strings.Contains(err.Error(), "test: left a model that does not verify") {
		t.Fatalf("got error %v, want one of verification", err)
	}
	if err := ir.Equal(tiny(t), u.Model); err != nil {
		t.Errorf("the model is not as before the pass: %v", err)
	}
	for _, want := range []string{"does not verify", "-- pipeline --\ntest\n", "-- policy --\n", "-- in --\n", "h = Neg (x)"} {
		if !strings.Contains(repro.String(), want) {
			t.Errorf("the reproducer lacks %q:\n%s", want, &repro)
		}
	}
}

func TestAfterAndStop(t *testing.T) {
	t.Parallel()
	ran := 0
	p := pipelineOf(t, func(context.Context, *Unit, testOptions) error { ran++; return nil })
	p.steps = append(p.steps, p.steps[0], p.steps[0])
	var seen []string
	u := &Unit{Model: tiny(t)}
	u.Debug.StopAfter = 2
	u.Debug.After = func(pass string, m *ir.Model) error { seen = append(seen, pass); return nil }
	if err := p.Run(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	if ran != 2 || len(seen) != 2 || len(u.Report.Passes) != 2 {
		t.Errorf("ran %d steps, looked after %d, reported %d, wanted 2 of each", ran, len(seen), len(u.Report.Passes))
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	p := pipelineOf(t, func(context.Context, *Unit, testOptions) error { cancel(); return nil })
	p.steps = append(p.steps, p.steps[0])
	if err := p.Run(ctx, &Unit{Model: tiny(t)}); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want cancellation", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	p := Define("test", "a pass for tests", testOptions{Alpha: .5, Mode: "a"}, func(context.Context, *Unit, testOptions) error { return nil })
	for _, c := range []struct{ in, text, err string }{
		{in: "", text: ""},
		{in: "alpha=0.50 mode=a", text: ""},
		{in: "on=true count=3 alpha=.25", text: "alpha=0.25 count=3 on=true"},
		{in: "mode=b", text: "mode=b"},
		{in: "mode=c", err: "option mode=c: wanted a|b"},
		{in: "count=x", err: "option count=x: wanted integer"},
		{in: "alpha=1 alpha=2", err: `option "alpha" is given twice`},
		{in: "beta=1", err: `option "beta" is unknown, wanted one of alpha, mode, count, on`},
		{in: "alpha", err: `"alpha": wanted key=value`},
	} {
		args, err := parseArgs(strings.Fields(c.in))
		var conf config
		if err == nil {
			conf, err = p.parse(args)
		}
		switch {
		case c.err != "":
			if err == nil || err.Error() != c.err {
				t.Errorf("%q: got error %v, want %s", c.in, err, c.err)
			}
		case err != nil:
			t.Errorf("%q: %v", c.in, err)
		case conf.text() != c.text:
			t.Errorf("%q: normal form %q, want %q", c.in, conf.text(), c.text)
		}
	}
}

func TestShuffleKeepsOrder(t *testing.T) {
	t.Parallel()
	p := pipelineOf(t, func(context.Context, *Unit, testOptions) error { return nil })
	for seed := range int64(5) {
		u := &Unit{Model: tiny(t), Seed: seed}
		u.Debug.Shuffle = true
		if err := p.Run(t.Context(), u); err != nil { // the driver verifies
			t.Errorf("seed %d: %v", seed, err)
		}
	}
}
