// Package passes rewrites models: it holds the pass type, the pipeline that runs passes, the policy that says which site of
// a model gets which number schemes, the report, and the passes themselves, a file each.
//
//	pl, err := passes.ParsePipeline("fold", "fakequant", "lower")
//	u := &passes.Unit{Model: m, Policy: policy, Samples: samples}
//	err = pl.Run(ctx, u)
//	u.Report.WriteTable(os.Stdout)
//
// A pass reads and edits the Unit's model through the graph's edit verbs, asks the policy about every site, and says in the
// report what it did and what it left, with the reason. The pipeline verifies the model after each pass.
package passes
