package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/conform"
)

func main() {
	dirs, err := conform.Find(os.Args[1:]...)
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 250*time.Second)
	defer cancel()
	loose := map[string]int{}
	n := 0
	for _, d := range dirs {
		m, err := frontend.Load(filepath.Join(d, "model.onnx"))
		if err != nil {
			fmt.Println("LOAD", d, err)
			continue
		}
		for g := range m.Graphs() { // forget what files declare of inner values and outputs
			for nd := range g.Nodes() {
				for _, v := range nd.Outs() {
					if v != nil {
						v.Type = ir.Type{}
					}
				}
			}
		}
		gaps, err := op.InferReport(m)
		if err != nil {
			fmt.Println("INFER", d, err)
			continue
		}
		for _, g := range gaps {
			if !strings.Contains(g, "unknown operator") {
				i := strings.Index(g, "(")
				loose[g[i:min(len(g), i+20)]]++
				if len(os.Getenv("V")) > 0 {
					fmt.Println("GAP", filepath.Base(d), g)
				}
			}
		}
		set := filepath.Join(d, "test_data_set_0")
		if _, err := os.Stat(set); err != nil {
			continue
		}
		in, err := conform.Inputs(m, set)
		if err != nil {
			fmt.Println("IN", d, err)
			continue
		}
		p, err := runtime.Compile(m)
		if err != nil {
			continue
		}
		n++
		_, err = p.Watch(ctx, in, func(v *ir.Value, t *ir.Tensor) error {
			if _, err := ir.Merge(v.Type, t.Type()); err != nil && !v.IsInput() {
				nd, _ := v.Def()
				fmt.Println("TYPE", d, nd, v.Name, "inferred", v.Type, "is", t.Type())
			}
			return nil
		})
		if err != nil && !strings.Contains(err.Error(), "not supported") {
			fmt.Println("RUN", d, err)
		}
	}
	fmt.Println(n, "ran; gaps", loose)
}
