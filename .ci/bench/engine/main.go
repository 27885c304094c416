// Command engine runs one model on demand, for the interleaved comparison with other runtimes that peers.py drives.
//
//	engine [-profile cpu.out] model.onnx samples
//
// samples is a folder or file that `qsimc run` reads; the first one is used. On standard input it reads one number of runs a line; for each line it runs
// the model that many times and prints the wall-clock and the processor time of them in nanoseconds, the bytes allocated, and
// the number of bytes alive. Its first line says how long loading with compiling, and the first run, took.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	qruntime "github.com/qsimc/qsimc/runtime"
)

func main() {
	profile := flag.String("profile", "", "write a CPU profile here")
	flag.Parse()
	if err := serve(flag.Arg(0), flag.Arg(1), *profile); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

func serve(path, samples, profile string) error {
	start := time.Now()
	m, err := frontend.Load(path)
	if err != nil {
		return err
	}
	p, err := qruntime.Compile(m)
	if err != nil {
		return err
	}
	compiled := time.Since(start)
	in, err := first(samples, m)
	if err != nil {
		return err
	}
	ctx := context.Background()
	start = time.Now()
	if _, err := p.Run(ctx, in); err != nil {
		return err
	}
	fmt.Println(compiled.Nanoseconds(), time.Since(start).Nanoseconds())
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var n int
		if _, err := fmt.Sscan(lines.Text(), &n); err != nil {
			return fmt.Errorf("line %q: %w", lines.Text(), err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		cpu, start := processor(), time.Now()
		for range n {
			if _, err := p.Run(ctx, in); err != nil {
				return err
			}
		}
		wall, used := time.Since(start), processor()-cpu
		runtime.ReadMemStats(&after)
		fmt.Println(wall.Nanoseconds(), used.Nanoseconds(), after.TotalAlloc-before.TotalAlloc, after.HeapAlloc)
	}
	return lines.Err()
}

func first(path string, m *ir.Model) (ir.Tensors, error) {
	samples, err := frontend.Samples(path, m, frontend.DataOptions{})
	if err != nil {
		return nil, err
	}
	for in, err := range samples() {
		return in, err
	}
	return nil, fmt.Errorf("%s holds no sample", path)
}

// processor is the time that this process has used the cores, user and system.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
