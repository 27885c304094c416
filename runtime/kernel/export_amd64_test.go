//go:build !noasm

package kernel

// FMALoop runs a level's loop of fused multiply-adds and returns the number of float32 operations it did.
func FMALoop(level string, n int) float64 {
	if level == "avx512" {
		fmaPeakAVX512(n)
		return float64(n) * 12 * 32
	}
	fmaPeakAVX2(n)
	return float64(n) * 12 * 16
}
