//go:build !linux

package store

import "os"

const canMap = false

// mapFile maps nothing here: callers keep bytes in memory.
func mapFile(*os.File, int64, int64) ([]byte, error) { return nil, nil }

func release([]byte) {}

func unmap([]byte) error { return nil }
