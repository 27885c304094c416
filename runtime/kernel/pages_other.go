//go:build !linux

package kernel

// Touch asks for nothing here.
func Touch[T any]([]T) {}
