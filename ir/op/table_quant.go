package op

// quantTable: quantization in the standard and the own domain.
var quantTable = []*Def{
	convIntegerDef,
	dequantizeLinearDef,
	dynamicQuantizeLinearDef,
	fakeQuantDef,
	matMulIntegerDef,
	qLinearConvDef,
	qLinearMatMulDef,
	quantizeLinearDef,
}
