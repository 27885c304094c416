package ir_test

import (
	"testing"

	"github.com/qsimc/qsimc/ir"
)

func TestVersionFor(t *testing.T) {
	t.Parallel()
	// opset → IR version, as the releases of ONNX paired them
	for opset, want := range map[int]int{
		1: 3, 5: 3, 6: 3, 7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10,
		22: 10, 23: 11, 24: 12, 25: 13, 26: 13, 27: 13, 28: 14,
	} {
		if got := ir.VersionFor(opset); got != want {
			t.Errorf("VersionFor(%d) = %d, want %d", opset, got, want)
		}
	}
}
