package passtest

import (
	"math"
	"regexp"
	"slices"
	"strconv"

	"github.com/google/go-cmp/cmp"

	"github.com/qsimc/qsimc/runtime/kernel"
)

// The vector kernels of amd64, which wrote the golden files, add in one order at every width; plain Go and arm64 add in another.
// There the last digits of a number that a pass found by running the model differ, and nothing else may.

// slack is how far such numbers may lie apart, as a part of their magnitude: "close" of the cases.
const slack = 1e-5

// fraction is a number that is no integer.
var fraction = regexp.MustCompile(`-?\b\d+(\.\d+(e[-+]?\d+)?|e[-+]?\d+)\b`)

// difference compares golden text with what was printed; "" where they agree.
func difference(want, got string) string {
	if want != got && !slices.Contains([]string{"avx512", "avx2"}, kernel.Level()) && agree(want, got) {
		return ""
	}
	return cmp.Diff(want, got)
}

// agree reports whether two texts are equal but for the last digits of fractions.
func agree(want, got string) bool {
	a, b := fraction.FindAllString(want, -1), fraction.FindAllString(got, -1)
	if len(a) != len(b) || fraction.ReplaceAllString(want, "0.") != fraction.ReplaceAllString(got, "0.") {
		return false
	}
	for i := range a {
		x, err1 := strconv.ParseFloat(a[i], 64)
		y, err2 := strconv.ParseFloat(b[i], 64)
		if err1 != nil || err2 != nil || math.Abs(x-y) > slack*max(math.Abs(x), math.Abs(y)) {
			return false
		}
	}
	return true
}
