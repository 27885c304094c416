package op

// contribTable: operators of ONNX Runtime's own domain that exported files contain.
var contribTable = []*Def{
	dynamicQuantizeMatMulDef,
	matMulIntegerToFloatDef,
	qGemmDef,
	qLinearAddDef,
	qLinearAveragePoolDef,
	qLinearConcatDef,
	qLinearGlobalAveragePoolDef,
	qLinearLeakyReluDef,
	qLinearMulDef,
	qLinearSigmoidDef,
	qLinearSoftmaxDef,
}
