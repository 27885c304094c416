//go:build !linux && !noasm

package kernel

// allowTiles is known for Linux alone.
func allowTiles() bool { return false }
