package main

import (
	"context"
	"os"

	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/passes"
)

func main() {
	m, err := frontend.Load(os.Args[1])
	if err != nil {
		panic(err)
	}
	p, _ := passes.ParsePipeline("fold")
	u := &passes.Unit{Model: m}
	if err := p.Run(context.Background(), u); err != nil {
		panic(err)
	}
	op.Infer(m)
	ir.PrintOptions{Elide: 4, Types: true}.Print(os.Stdout, u.Model)
}
