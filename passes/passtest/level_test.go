package passtest

import "testing"

func TestAgree(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"w = {1, -0.25}", "w = {1, -0.25}", true},
		{"w = {1.0416688, 3e-05}", "w = {1.0416653, 3.00001e-05}", true},
		{"w = {1.0416688}", "w = {1.0417}", false},
		{"w = {0.5}", "w = {-0.5}", false},
		{"w = {100000}", "w = {100001}", false}, // whole numbers are codes
		{"w = {0.5, 2}", "w = {2, 0.5}", false}, // another order
		{"w1 = {0.5}", "w2 = {0.5}", false},     // another name
		{"int4/block=32 {0.5}", "int4/block=64 {0.5}", false},
	} {
		if got := agree(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: %v, wanted %v", c.a, c.b, got, c.want)
		}
	}
}
