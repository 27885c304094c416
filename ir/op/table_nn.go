package op

// nnTable: matrix products, convolutions, pooling, normalization, recurrence and attention.
var nnTable = []*Def{
	averagePoolDef,
	batchNormalizationDef,
	convDef,
	convTransposeDef,
	dropoutDef,
	einsumDef,
	gemmDef,
	globalAveragePoolDef,
	globalLpPoolDef,
	globalMaxPoolDef,
	groupNormalizationDef,
	gruDef,
	instanceNormalizationDef,
	layerNormalizationDef,
	lpNormalizationDef,
	lpPoolDef,
	lrnDef,
	lstmDef,
	matMulDef,
	maxPoolDef,
	maxUnpoolDef,
	meanVarianceNormalizationDef,
	rmsNormalizationDef,
	rnnDef,
}
