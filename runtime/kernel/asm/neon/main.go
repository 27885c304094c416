// Command neon writes the arm64 assembly of runtime/kernel.
//
//	go run ./neon -out ../neon_arm64.s -stubs ../neon_arm64.go
//
// Go's assembler knows few of NEON's floating-point instructions, so each is written as its encoding with its name beside
// it (Arm Architecture Reference Manual, A64 Advanced SIMD). "go generate" in runtime/kernel runs it; TestGenerated there
// compares the committed files with fresh ones.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	out := flag.String("out", "", "the assembly file")
	stubs := flag.String("stubs", "", "the file of Go declarations")
	flag.Parse()
	var a asm
	a.gemm()
	a.arithmetic()
	a.functions()
	a.reductions()
	a.convolution()
	a.quantizers()
	for path, text := range map[string]string{*out: a.assembly(), *stubs: a.declarations()} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "neon:", err)
			os.Exit(1)
		}
	}
}
