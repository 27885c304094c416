package par_test

import (
	"fmt"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// One partial sum for each range, added up in order: the same result on any number of cores.
func ExampleFor() {
	const n, grain = 1000, 64
	sums := make([]int, (n+grain-1)/grain)
	par.For(n, grain, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			sums[lo/grain] += i
		}
	})
	total := 0
	for _, s := range sums {
		total += s
	}
	fmt.Println(total)
	// Output: 499500
}
