package kernel_test

import (
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
)

func TestPermute(t *testing.T) {
	var perms func(n int) [][]int
	perms = func(n int) [][]int {
		if n == 0 {
			return [][]int{{}}
		}
		var out [][]int
		for _, p := range perms(n - 1) {
			for at := 0; at < n; at++ {
				q := append(append(append([]int{}, p[:at]...), n-1), p[at:]...)
				out = append(out, q)
			}
		}
		return out
	}
	kernel.EachLevel(t, func(t *testing.T) {
		for _, dims := range [][]int{{}, {5}, {3, 40}, {17, 1, 33}, {4, 18, 20}, {2, 3, 17, 19}, {3, 2, 1, 4, 9}, {2, 0, 3}} {
			n := 1
			for _, d := range dims {
				n *= d
			}
			x := make([]int32, n)
			for i := range x {
				x[i] = int32(i)
			}
			for _, perm := range perms(len(dims)) {
				got := make([]int32, n)
				kernel.Permute(got, x, dims, perm)
				idx := make([]int, len(dims)) // of dst
				for i := range n {
					rest := i
					for k := len(dims) - 1; k >= 0; k-- {
						idx[perm[k]] = rest % dims[perm[k]]
						rest /= dims[perm[k]]
					}
					off := 0
					for k, d := range dims {
						off = off*d + idx[k]
					}
					if got[i] != x[off] {
						t.Fatalf("dims %v perm %v: element %d is %d, want %d", dims, perm, i, got[i], x[off])
					}
				}
			}
		}
		b := []byte{1, 2, 3, 4, 5, 6}
		d := make([]byte, 6)
		kernel.Permute(d, b, []int{2, 3}, []int{1, 0})
		if string(d) != string([]byte{1, 4, 2, 5, 3, 6}) {
			t.Errorf("bytes: %v", d)
		}
	})
}
