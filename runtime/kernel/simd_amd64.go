//go:build !noasm

package kernel

func simdLevels() []*impl { return nil }
