package op

// quantTable: quantization in the standard and the own domain.
var quantTable = []*Def{
	dequantizeLinearDef,
	fakeQuantDef,
	quantizeLinearDef,
}
