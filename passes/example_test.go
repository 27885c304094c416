package passes_test

import (
	"context"
	"fmt"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/passes"
)

// A weight-only pipeline on a model of one product.
func Example() {
	m, err := ir.Parse("example", []byte(`<ir_version: 8, opset_import: ["" : 17]>
g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1, -4, 2, 0.5}> { [fc] y = MatMul (x, w) }`))
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := op.Infer(m); err != nil {
		fmt.Println(err)
		return
	}
	policy := &passes.Policy{}
	if err := policy.Default.Set(numfmt.Weight, "int8/axis=out"); err != nil {
		fmt.Println(err)
		return
	}
	pipeline, err := passes.ParsePipeline("fold", "fakequant", "lower")
	if err != nil {
		fmt.Println(err)
		return
	}
	u := &passes.Unit{Model: m, Policy: policy}
	if err := pipeline.Run(context.Background(), u); err != nil {
		fmt.Println(err)
		return
	}
	for n := range m.Nodes() {
		fmt.Println(n)
	}
	for _, s := range u.Report.Sites {
		fmt.Println(s.Site, s.Role, s.Scheme)
	}
	// Output:
	// "w_DequantizeLinear" (DequantizeLinear)
	// "fc" (MatMul)
	// fc weight int8/axis=out
	// fc input none
}
