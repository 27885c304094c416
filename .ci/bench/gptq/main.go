// Command gptq rounds single weights on demand, for the interleaved comparison with a PyTorch implementation that gptq_torch.py
// drives.
//
//	gptq [-step "gptq drift=0"] [-profile cpu.out]
//
// On standard input it reads one job a line: outputs, inputs, samples, rows of a sample, the file of the weight (outputs×inputs
// float32, row-major), the file of all rows, and the file for the rounded weight or "-". For each it runs the whole pass on a
// model of one product, int4 for each output channel, and prints the wall-clock and the processor time in nanoseconds.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"iter"
	"os"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/passes/recipe"
)

func main() {
	step := flag.String("step", "gptq", "the pass and its options")
	profile := flag.String("profile", "", "write a CPU profile here")
	flag.Parse()
	if err := serve(*step, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "gptq:", err)
		os.Exit(1)
	}
}

func serve(step, profile string) error {
	r, err := recipe.Parse("bench", []byte("policy:\n  default: {weights: int4/axis=out, inputs: none}\n"))
	if err != nil {
		return err
	}
	p, err := passes.ParsePipeline(step)
	if err != nil {
		return err
	}
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
	known := map[string][]float32{}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var j job
		var weight, rows, result string
		if _, err := fmt.Sscan(lines.Text(), &j.out, &j.in, &j.samples, &j.length, &weight, &rows, &result); err != nil {
			return fmt.Errorf("line %q: %w", lines.Text(), err)
		}
		if j.w, err = floats(known, weight, j.out*j.in); err != nil {
			return err
		}
		if j.x, err = floats(known, rows, j.samples*j.length*j.in); err != nil {
			return err
		}
		m, err := j.model()
		if err != nil {
			return err
		}
		cpu, start := processor(), time.Now()
		err = p.Run(context.Background(), &passes.Unit{Model: m, Policy: &r.Policy, Samples: j.feed(), Report: &passes.Report{}})
		wall, used := time.Since(start), processor()-cpu
		if err != nil {
			return err
		}
		if result != "-" {
			if err := j.write(m, result); err != nil {
				return err
			}
		}
		fmt.Println(wall.Nanoseconds(), used.Nanoseconds())
	}
	return lines.Err()
}

// job is one weight with its inputs.
type job struct {
	out, in, samples, length int
	w, x                     []float32
}

// model is y = x·w.
func (j *job) model() (*ir.Model, error) {
	text := fmt.Sprintf(`<ir_version: 10, opset_import: ["" : 21]> one (float[B,T,%d] x, float[%d,%d] w) => (float[B,T,%d] y) { y = MatMul (x, w) }`, j.in, j.in, j.out, j.out)
	m, err := ir.Parse("bench", []byte(text))
	if err != nil {
		return nil, err
	}
	t := make([]float32, len(j.w))
	for r := range j.out {
		for c := range j.in {
			t[c*j.out+r] = j.w[r*j.in+c]
		}
	}
	for n := range m.Graph.Nodes() {
		n.SetIn(1, m.Graph.Const("weight", ir.Floats(t, j.in, j.out)))
	}
	return m, op.Infer(m)
}

func (j *job) feed() ir.Samples {
	unused := ir.Floats(make([]float32, j.in*j.out), j.in, j.out)
	return func() iter.Seq2[ir.Tensors, error] {
		return func(yield func(ir.Tensors, error) bool) {
			n := j.length * j.in
			for i := range j.samples {
				if !yield(ir.Tensors{"x": ir.Floats(j.x[i*n:(i+1)*n], 1, j.length, j.in), "w": unused}, nil) {
					return
				}
			}
		}
	}
}

// write stores the weight as it now is, outputs×inputs.
func (j *job) write(m *ir.Model, path string) error {
	for n := range m.Graph.Nodes() {
		x, ok := op.ConstantOf(n.In(1)).Float32s()
		if !ok {
			return fmt.Errorf("%v has no float weight", n)
		}
		t := make([]float32, len(x))
		for r := range j.out {
			for c := range j.in {
				t[r*j.in+c] = x[c*j.out+r]
			}
		}
		var b bytes.Buffer
		if err := binary.Write(&b, binary.LittleEndian, t); err != nil {
			return err
		}
		return os.WriteFile(path, b.Bytes(), 0o644)
	}
	return nil
}

// floats reads a file once.
func floats(known map[string][]float32, path string, n int) ([]float32, error) {
	if x := known[path]; x != nil {
		return x, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(b) != 4*n {
		return nil, fmt.Errorf("%s has %d bytes, wanted %d", path, len(b), 4*n)
	}
	x := make([]float32, n)
	_, err = binary.Decode(b, binary.LittleEndian, x)
	known[path] = x
	return x, err
}

// processor is the time that this process has used the cores, user and system.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
