//go:build !amd64 || noasm

package kernel

func simdLevels() []*impl { return nil }
