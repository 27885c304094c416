package runtime_test

import (
	"context"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/qsimc/qsimc/backend"
	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/testdata/shared"
)

// BenchmarkSimulation runs opt-mini on one sequence of 256 tokens in float and simulated, in turns in one process, and reports
// the medians of the ratios of a round, simulated to float: "×wall" and "×cpu", processor time, which other processes disturb
// less. "ir" is the graph with FakeQuant nodes, "file" the exported fakequant form, loaded again.
func BenchmarkSimulation(b *testing.B) {
	dir := filepath.Join(shared.Dir(b), "zoo", "opt-mini")
	float, err := frontend.Load(filepath.Join(dir, "model.onnx"))
	if err != nil {
		b.Fatal(err)
	}
	base := compiled(b, float)
	for _, preset := range []string{"abfp-w4a4", "abfp-w4a8", "abfp-w4ae4m3", "abfp-e2m1", "mxfp4", "mxint8", "nvfp4"} {
		m, in := simulated(b, dir, preset)
		b.Run(preset+"/ir", func(b *testing.B) { inTurns(b, base, compiled(b, m), in) })
		b.Run(preset+"/file", func(b *testing.B) {
			f, _ := m.Clone()
			rewriteBy(b, f, preset, "lower format=fakequant")
			path := filepath.Join(b.TempDir(), "model.onnx")
			if err := backend.Save(path, f, backend.Options{}); err != nil {
				b.Fatal(err)
			}
			again, err := frontend.Load(path)
			if err != nil {
				b.Fatal(err)
			}
			inTurns(b, base, compiled(b, again), in)
		})
	}
}

func compiled(b *testing.B, m *ir.Model) *runtime.Program {
	b.Helper()
	p, err := runtime.Compile(m)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// inTurns times each of the programs twice in a round, in the order float, simulated, simulated, float.
func inTurns(b *testing.B, float, simulated *runtime.Program, in ir.Tensors) {
	var wall, cpu []float64
	run := func(p *runtime.Program) (time.Duration, time.Duration) {
		var before, after syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		if _, err := p.Run(context.Background(), in); err != nil {
			b.Fatal(err)
		}
		took := time.Since(start)
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
			b.Fatal(err)
		}
		return took, time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	}
	run(float)
	run(simulated)
	for b.Loop() {
		w1, c1 := run(float)
		w2, c2 := run(simulated)
		w3, c3 := run(simulated)
		w4, c4 := run(float)
		wall = append(wall, float64(w2+w3)/float64(w1+w4))
		cpu = append(cpu, float64(c2+c3)/float64(c1+c4))
	}
	slices.Sort(wall)
	slices.Sort(cpu)
	b.ReportMetric(wall[len(wall)/2], "×wall")
	b.ReportMetric(cpu[len(cpu)/2], "×cpu")
}
