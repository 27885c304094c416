package calib_test

import (
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/runtime/calib"
)

// What was seen for one format gives another format the range that it would have found itself.
func TestStats(t *testing.T) {
	t.Parallel()
	x := ir.Floats([]float32{0.1, -0.4, 0.25, 3, -0.7, 0.05, 0.6, -0.2}, 8)
	method, err := calib.ParseMethod("mse")
	if err != nil {
		t.Fatal(err)
	}
	scheme := func(text string) numfmt.Scheme {
		s, err := numfmt.ParseScheme(text, numfmt.Input)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	observe := func(r *calib.Range) *calib.Range {
		for pass := range r.Passes() {
			if err := r.Observe(pass, 0, x); err != nil {
				t.Fatal(err)
			}
		}
		return r
	}
	var stats calib.Stats
	if stats.Take("v", calib.NewRange(method, scheme("int4"), -1)) {
		t.Fatal("empty statistics gave something")
	}
	stats.Keep("v", observe(calib.NewRange(method, scheme("int4"), -1)))
	got := calib.NewRange(method, scheme("int8"), -1)
	if !stats.Take("v", got) {
		t.Fatal("int8 did not find the histogram of int4")
	}
	_, hi, err := got.Range()
	if err != nil {
		t.Fatal(err)
	}
	_, want, err := observe(calib.NewRange(method, scheme("int8"), -1)).Range()
	if err != nil || want[0] != hi[0] {
		t.Errorf("range %v from kept statistics, %v (%v) from its own", hi, want, err)
	}
	for name, r := range map[string]*calib.Range{
		"another value": calib.NewRange(method, scheme("int8"), -1), "another axis": calib.NewRange(method, scheme("int8"), 0),
		"an asymmetric format": calib.NewRange(method, scheme("uint8"), -1),
	} {
		value := "v"
		if name == "another value" {
			value = "w"
		}
		if stats.Take(value, r) {
			t.Errorf("%s took the statistics", name)
		}
	}
}
