//go:build unix

package main

import (
	"runtime"
	"syscall"
)

// peakRSS is the largest resident memory of the process so far, in bytes; 0 where the system does not say.
func peakRSS() int64 {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	if runtime.GOOS == "darwin" || runtime.GOOS == "ios" {
		return int64(r.Maxrss)
	}
	return int64(r.Maxrss) * 1024
}
