// Command asm writes the amd64 assembly of runtime/kernel.
//
//	go run . -part gemm -out ../gemm_amd64.s -stubs ../gemm_amd64.go -pkg kernel
//
// It is a module of its own so that avo stays out of the product's go.mod. "go generate" in runtime/kernel runs it for
// every part; TestGenerated there compares the committed files with fresh ones.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/buildtags"
)

func main() {
	part := flag.String("part", "", "what to write: gemm, int8, digits, conv, winograd, vector, rows or quant")
	flag.Parse()
	build.Constraint(buildtags.Not("noasm").ToConstraint())
	switch *part {
	case "gemm":
		gemm()
	case "int8":
		integers()
	case "digits":
		digits()
	case "conv":
		convolutions()
	case "winograd":
		winograd()
	case "vector":
		vectors()
	case "rows":
		rows()
	case "quant":
		quantizers()
	default:
		fmt.Fprintf(os.Stderr, "asm: -part %q: want gemm, int8, digits, conv, winograd, vector, rows or quant\n", *part)
		os.Exit(2)
	}
	build.Generate()
}
