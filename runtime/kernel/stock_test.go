package kernel_test

import (
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/qsimc/qsimc/runtime/kernel"
)

// TestStock takes pieces of many sizes, which are zero, on cache lines and apart from one another, and sees the memory go with
// the owner.
func TestStock(t *testing.T) {
	emptied(t)
	for range 3 {
		owner := new([64]int)
		s := kernel.NewStock(owner)
		var pieces [][]float32
		for i, n := range []int{1, 100, 16 << 10, 16<<10 + 1, 1 << 20, 100_000, 3<<20 + 5, 1 << 18, 17, 40_000} {
			f := s.Floats(n)
			if len(f) != n || uintptr(unsafe.Pointer(&f[0]))%64 != 0 {
				t.Fatalf("%d elements: got %d at %p", n, len(f), &f[0])
			}
			for k := range f {
				if f[k] != 0 {
					t.Fatalf("%d elements: element %d is %v", n, k, f[k])
				}
				f[k] = float32(i + 1)
			}
			pieces = append(pieces, f)
		}
		for i, f := range pieces {
			for k := range f {
				if f[k] != float32(i+1) {
					t.Fatalf("piece %d: element %d is piece %v's", i, k, f[k]-1)
				}
			}
		}
		if runtime.GOOS == "linux" && kernel.Stocked() == 0 {
			t.Error("nothing lies in the stock")
		}
		runtime.KeepAlive(owner)
	}
	emptied(t)
}

// emptied waits until the memory of all stocks whose owners are gone is given back.
func emptied(t *testing.T) {
	t.Helper()
	for start := time.Now(); kernel.Stocked() != 0; time.Sleep(time.Millisecond) {
		if runtime.GC(); time.Since(start) > 20*time.Second {
			t.Fatalf("%d bytes are held after their owners are gone", kernel.Stocked())
		}
	}
}

// TestStockPace makes owners and drops them: their memory does not pile up though nothing else makes the collector run.
func TestStockPace(t *testing.T) {
	most := int64(0)
	for range 100 {
		s := kernel.NewStock(new([64]int))
		s.Floats(8 << 20)
		most = max(most, kernel.Stocked())
		for i := 0; kernel.Stocked() > 512<<20 && i < 100; i++ {
			time.Sleep(10 * time.Millisecond) // cleanups have a goroutine of their own, which a busy machine may keep waiting
		}
	}
	if most > 1<<30 {
		t.Errorf("%d bytes were held at once", most)
	}
}

func TestNoStock(t *testing.T) {
	t.Parallel()
	if f := (*kernel.Stock)(nil).Floats(1 << 20); len(f) != 1<<20 {
		t.Errorf("got %d elements", len(f))
	}
}
