//go:build !noasm

package kernel

import "syscall"

// allowTiles asks the system for the tile registers, which it gives a process that asks. Kernels leave them empty when they return;
// a signal in the midst of one finds room for them on the stack that Go gives its handlers.
func allowTiles() bool {
	const requestPermission, tileData = 0x1023, 18 // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
	_, _, err := syscall.RawSyscall(syscall.SYS_ARCH_PRCTL, requestPermission, tileData, 0)
	return err == 0
}
