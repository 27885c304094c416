//go:build !amd64

package par

import "runtime"

// pause yields; other architectures have no PAUSE stub here.
func pause(int) { runtime.Gosched() }
