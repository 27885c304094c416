//go:build (!amd64 && !arm64) || noasm

package kernel

func simdLevels() []*impl { return nil }
