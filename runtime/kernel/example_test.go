package kernel_test

import (
	"fmt"

	"github.com/qsimc/qsimc/runtime/kernel"
)

// A weight is packed once and multiplied often.
func ExampleGemm() {
	weight := []float32{1, 2, 3, 4, 5, 6} // 2×3
	w := kernel.PackB(2, 3, weight, 3, false)
	x := []float32{1, 0, 1, 1} // 2×2
	y := make([]float32, 6)
	kernel.GemmEpilogue(2, x, 2, w, y, 3, false, &kernel.Epilogue{Bias: []float32{-4, 0, 0}, Act: kernel.ActRelu})
	fmt.Println(y)
	// Output: [0 2 3 1 7 9]
}

// Blocks of two elements, each with its own scale, on the restricted INT4 grid.
func ExampleBlocks() {
	x := []float32{7, -3.4, 0.7, 0.26}
	scales := make([]float32, 2)
	kernel.Blocks{Size: 2, Max: 7, Lo: -7, Hi: 7}.Int().AllRows(1, 4, x, x, scales)
	fmt.Println(x, scales)
	// Output: [7 -3 0.7 0.3] [1 0.1]
}
